"""Every kind of fault on a rack of eight groups: what is measured of it, and what it does to the hardware."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import hal.backends.twin  # noqa: F401  # its program is kept on disk, and need not be compiled here
from hal.contract import COMMAND, MEASUREMENT, TRUTH
from sim import breaking as B
from sim import electronics as E
from sim import layout as Y
from sim.faults import FAULT_KINDS
from sim.rack import Balance
from sim.site import Site

MAINS, PRECHARGE = E.MAINS, E.MAIN_NEGATIVE | E.PRECHARGE
N = 8
MISSING = 1


class Bench:
    """A rack with ideal sensors, or a few of them, and the commands of a controller."""

    def __init__(self, *faults: dict[str, Any], cell: str = "lfp_280", n_racks: int = 1, **tables: Any) -> None:
        rack = {"n_series": N, "cells_per_sensor": 2, "watchdog_s": 1e9, **tables.pop("rack", {})}
        tables = {"sensors": {"ideal": True}, "duty": {"kind": "constant"}, **tables, "rack": rack}
        self.site = Site(cell, {**tables, "fault": list(faults)}, n_racks)
        n, m = rack["n_series"], self.site.sensors.n_sensors
        self.record, self.commands, self.truths = (
            np.zeros(n_racks, layout.dtype(n, m)) for layout in (MEASUREMENT, COMMAND, TRUTH)
        )
        self.head, self.asked = self.record["head"], self.commands["head"]
        self.head["interlock_closed"] = 1  # as the backends prepare it
        self.site.attach(self.record, self.commands)
        self.twin = self.site.twin()
        self.asked["cooling_degc"], self.asked["soc_mean"] = 25.0, 0.5
        self.limit(200.0)
        self.site.start(0.0)

    def limit(self, ampere: float) -> None:
        for name in ("limit_discharge_a", "limit_charge_a"):
            self.asked[name] = ampere
        for name in ("limit_discharge_w", "limit_charge_w"):
            self.asked[name] = 1e6

    def command(self, contactors: int | None = None) -> None:
        if contactors is not None:
            self.asked["contactors"] = contactors
        self.asked["heartbeat"] += 1
        assert self.site.command() == (-1, 0)

    def run(self, seconds: float, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s)):
            self.site.run(step_s)

    def connect(self) -> None:
        self.command(PRECHARGE)
        self.run(8.0)
        self.command(MAINS)
        self.run(1.0)
        assert not self.site.events

    def read(self, name: str) -> Any:
        """The value of a scalar of the first rack, or its array."""
        names = self.record.dtype.names or ()
        return self.record[name][0] if name in names else self.head[name][0]

    def truth(self) -> npt.NDArray[np.void]:
        self.site.truth(self.truths, 0.0)
        return self.truths

    def books(self) -> Balance:
        return self.twin.balance()


def fault(kind: str, **keys: Any) -> dict[str, Any]:
    return {"kind": kind, "at_s": 2.0, "until_s": 4.0, **keys}


def follow(bench: Bench, *names: str) -> list[tuple[Any, ...]]:
    """Values of some fields in seconds 1 to 5; faults last from second 2 to 3."""
    seen = []
    for _ in range(5):
        bench.run(1.0)
        seen.append(tuple(np.copy(bench.read(name)) for name in names))
    return seen


# --- single values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("current_missing", "current_a"),
        ("pack_v_missing", "pack_v"),
        ("bus_v_missing", "bus_v"),
        ("insulation_missing", "insulation_ohm"),
        ("coolant_flow_missing", "coolant_flow_lpm"),
        ("gas_missing", "gas_alarm"),
        ("feedback_missing", "contactors"),
    ],
)
def test_what_is_missing_has_no_value_and_says_so_while_it_lasts(kind: str, field: str) -> None:
    for k, (value, quality) in enumerate(follow(Bench(fault(kind)), field, f"{field}_quality"), start=1):
        broken = 2 <= k < 4
        assert quality == (MISSING if broken else 0)
        if value.dtype.kind == "f":
            assert math.isnan(value) == broken
        else:
            assert value == 0


def test_every_channel_of_a_bleed_switch_is_gone_with_the_feedback() -> None:
    bench = Bench(fault("bleed_feedback_missing"))
    bench.commands["balance"][0, 2] = 1
    bench.command()
    seen = follow(bench, "bleeding", "bleeding_quality")
    assert [int(bleeding[2]) for bleeding, _ in seen] == [1, 0, 0, 1, 1]
    assert [int(quality) for _, quality in seen] == [0, MISSING, MISSING, 0, 0]


@pytest.mark.parametrize(
    ("kind", "field", "healthy", "broken"),
    [
        ("interlock_open", "interlock_closed", 1, 0),
        ("emergency_stop", "emergency_stop", 0, 1),
        ("gas_alarm", "gas_alarm", 0, 1),
    ],
)
def test_inputs(kind: str, field: str, healthy: int, broken: int) -> None:
    seen = [int(value) for (value,) in follow(Bench(fault(kind)), field)]
    assert seen == [healthy, broken, broken, healthy, healthy]


@pytest.mark.parametrize(
    ("kind", "value", "field", "expected"),
    [
        ("current_stuck_at", 12.5, "current_a", lambda true: 12.5),
        ("current_offset", 3.0, "current_a", lambda true: true + 3.0),
        ("current_gain", 0.5, "current_a", lambda true: 0.5 * true),
        ("current_sign", None, "current_a", lambda true: -true),
        ("pack_v_gain", 1.1, "pack_v", lambda true: 1.1 * true),
        ("bus_v_stuck_at", 700.0, "bus_v", lambda true: 700.0),
    ],
)
def test_single_sensors_that_lie_are_not_flagged(kind: str, value: float | None, field: str, expected: Any) -> None:
    keys = {} if value is None else {"value": value}
    pair = [
        Bench(*faults, duty={"kind": "constant", "c_rate": 0.3})
        for faults in ((), (fault(kind, at_s=10.0, until_s=12.0, **keys),))
    ]
    for bench in pair:
        bench.connect()
    for second in range(10, 14):
        for bench in pair:
            bench.run(1.0)
        true, read = (float(bench.read(field)) for bench in pair)
        assert true != 0.0
        assert read == pytest.approx(expected(true) if second < 12 else true, rel=1e-6)
        assert pair[1].read(f"{field}_quality") == 0


def test_a_frozen_current_keeps_its_last_value() -> None:
    bench = Bench(fault("current_frozen"), sensors={})
    seen = [float(current) for (current,) in follow(bench, "current_a")]
    assert seen[0] == seen[1] == seen[2] != seen[3]


def test_low_insulation_names_its_rail() -> None:
    bench = Bench(fault("insulation", value=4e4, index=[2]), fault("insulation", value=3e4, at_s=4.0, until_s=5.0))
    seen = [(round(float(ohm)), int(rail)) for ohm, rail in follow(bench, "insulation_ohm", "insulation_rail")]
    assert seen == [(2_000_000, 0), (40_000, 2), (40_000, 2), (30_000, 0), (2_000_000, 0)]


# --- voltages and temperatures ----------------------------------------------------------------------------------------


def cell_v_with(*faults: dict[str, Any], **keys: Any) -> tuple[Any, Any]:
    """Voltages of a healthy rack and of one with faults, same time, same seed."""
    pair = Bench(**keys), Bench(*faults, **keys)
    for bench in pair:
        bench.run(3.0)
        assert not bench.read("cell_v_quality").any()
    return tuple(bench.read("cell_v").astype(float) for bench in pair)


def test_voltages_that_are_stuck_off_or_exchanged() -> None:
    true, read = cell_v_with(
        fault("cell_v_stuck_at", index=[0], value=3.9),
        fault("cell_v_offset", index=[1, 2], value=-0.05),
        fault("cell_v_offset", index=[7], value=9.0),
        fault("cell_v_swapped", index=[4, 6]),
    )
    assert read[0] == pytest.approx(3.9)
    np.testing.assert_allclose(read[1:3], true[1:3] - 0.05, atol=1e-6)
    assert read[3] == true[3]
    assert (read[4], read[5], read[6]) == (true[6], true[5], true[4])
    assert read[7] == 5.0  # the end of the range


def test_an_open_wire_moves_the_node_between_two_groups() -> None:
    true, read = cell_v_with(fault("open_wire", index=[3]), fault("open_wire", index=[6], value=0.5))
    np.testing.assert_allclose(read - true, [0, 0, 0.8, -0.8, 0, 0.5, -0.5, 0], atol=1e-6)
    true, read = cell_v_with(fault("open_wire", index=[3], value=4.0))
    assert read[2] == 5.0
    assert read[2:4].sum() == pytest.approx(true[2:4].sum(), abs=1e-6)


def test_temperatures_that_are_stuck_frozen_or_off() -> None:
    bench = Bench(
        fault("sensor_stuck_at", index=[0], value=-40.0),
        fault("sensor_offset", index=[1], value=15.0),
        fault("sensor_frozen", index=[2]),
        sensors={"degc_noise": 0.2, "degc_lsb": 0.0, "degc_offset_spread": 0.0},
        rack={"degc_spread": 0.0},
    )
    seen = [degc for (degc,) in follow(bench, "sensor_degc")]
    assert [float(degc[0]) == -40.0 for degc in seen] == [False, True, True, False, False]
    assert [degc[1] > 38.0 for degc in seen] == [False, True, True, False, False]
    assert seen[0][2] == seen[1][2] == seen[2][2] != seen[3][2]
    assert not bench.read("sensor_degc_quality").any()


# --- contactors and link ----------------------------------------------------------------------------------------------


def test_a_single_weld_is_seen_and_closes_no_circuit() -> None:
    bench = Bench(fault("contactor_weld", index=[1], at_s=10.0, until_s=12.0))
    bench.connect()
    bench.run(3.0)
    bench.command(0)
    bench.run(1.0)
    assert bench.read("contactors") == E.MAIN_NEGATIVE
    assert bench.read("current_a") == 0.0
    before = float(bench.read("bus_v"))
    bench.run(50.0)
    assert bench.read("bus_v") == pytest.approx(before * math.exp(-50 / 250), rel=1e-3)  # the link discharges
    assert bench.site.bank.logic[0, Y.L_PATH] == Y.OPEN


def test_a_welded_precharge_contactor_precharges_without_being_asked() -> None:
    bench = Bench(fault("contactor_weld", index=[2], at_s=0.0, until_s=1000.0))
    bench.command(PRECHARGE)
    bench.run(2.0)
    bench.command(E.MAIN_NEGATIVE)
    bench.run(5.0)
    assert bench.read("contactors") == PRECHARGE
    assert bench.read("bus_v") > 0.99 * bench.read("pack_v")


def test_what_is_open_when_the_fault_comes_welds_when_it_closes() -> None:
    bench = Bench(fault("contactor_weld", at_s=0.0, until_s=1000.0))
    bench.connect()
    bench.run(1.0)
    bench.command(0)
    bench.run(1.0)
    assert bench.read("contactors") == MAINS


@pytest.mark.parametrize(("index", "closed"), [([], 0), ([0], E.MAIN_NEGATIVE), ([1], E.MAIN_POSITIVE)])
def test_a_contactor_that_does_not_close(index: list[int], closed: int) -> None:
    keys = {"index": index} if index else {}
    bench = Bench(
        fault("contactor_stuck_open", at_s=0.0, until_s=100.0, **keys), duty={"kind": "constant", "c_rate": 0.3}
    )
    bench.command(MAINS)
    bench.run(2.0)
    assert bench.read("contactors") == closed
    assert bench.read("current_a") == 0.0
    assert bench.read("bus_v") == 0.0


def test_a_coil_that_burns_opens_its_contactor_at_once_and_a_new_one_closes() -> None:
    bench = Bench(
        fault("contactor_stuck_open", index=[0], at_s=12.0, until_s=14.0), duty={"kind": "constant", "c_rate": 0.3}
    )
    bench.connect()
    bench.run(3.0)
    assert bench.read("current_a") > 80.0
    bench.run(1.0)
    assert bench.read("contactors") == E.MAIN_NEGATIVE
    assert bench.read("current_a") == 0.0
    assert ["under load" in event.text for event in bench.site.events] == [True]
    bench.run(2.0)
    assert bench.read("contactors") == MAINS
    assert bench.read("current_a") > 80.0


def test_auxiliary_contacts_that_lie() -> None:
    bench = Bench(fault("feedback_stuck_at", value=5))
    seen = [int(bits) for (bits,) in follow(bench, "contactors")]
    assert seen == [0, 5, 5, 0, 0]
    assert bench.site.bank.logic[0, Y.L_PATH] == Y.OPEN


def precharged(*faults: dict[str, Any]) -> tuple[float, float]:
    """Link voltage relative to the pack's after ten seconds of precharge, and the current then."""
    bench = Bench(*faults)
    bench.command(PRECHARGE)
    bench.run(10.0)
    return float(bench.read("bus_v") / bench.read("pack_v")), float(bench.read("current_a"))


def test_precharge_stops_at_the_divider_of_a_loaded_link_or_never_starts() -> None:
    assert precharged()[0] == pytest.approx(1.0, abs=3e-3)
    ratio, ampere = precharged(*[fault("link_load", value=200.0, at_s=0.0, until_s=100.0)] * 2)
    assert ratio == pytest.approx(0.5, abs=2e-3)  # 100 ohm in series with twice 200 ohm, 50 kohm beside them
    assert ampere == pytest.approx(8 * 3.3 / 200, rel=0.02)
    ratio, ampere = precharged(fault("precharge_open", at_s=0.0, until_s=100.0))
    assert (ratio, ampere) == (pytest.approx(0.0, abs=1e-6), pytest.approx(0.0, abs=1e-6))


@pytest.mark.parametrize("ampere", [420.0, -420.0])
def test_a_pcs_that_ignores_limits(ampere: float) -> None:
    bench = Bench(fault("pcs_ignores_limits", value=ampere, at_s=10.0, until_s=12.0), rack={"contactor_make_a": 1e9})
    bench.connect()
    bench.limit(0.0)
    bench.command()
    seen = []
    for _ in range(4):
        bench.run(1.0)
        seen.append(float(bench.read("current_a")))
    assert bench.twin.string[Y.S_SIGN] == math.copysign(1.0, ampere)  # the hysteresis has followed
    # the fault begins with the sub-step after second 10; the link's capacitor adds what its voltage moves
    assert seen[1] == pytest.approx(ampere, abs=1.0)
    assert seen[2] == pytest.approx(ampere, abs=1.0)
    assert abs(seen[3]) < 1.0


def test_no_pcs_draws_more_than_a_short_circuit() -> None:
    bench = Bench(fault("pcs_ignores_limits", value=1e9, at_s=0.0, until_s=100.0))
    bench.connect()
    assert 1e3 < bench.truth()["head"]["current_a"][0] < 1e5
    assert bench.read("bus_v") == pytest.approx(0.0, abs=1e-6)


# --- coolant ----------------------------------------------------------------------------------------------------------


def test_the_flow_stands_when_the_pump_does() -> None:
    seen = [float(flow) for (flow,) in follow(Bench(fault("coolant_stop")), "coolant_flow_lpm")]
    # hardware breaks with the step that begins when the fault is there
    assert seen == pytest.approx([40.0, 40.0, 0.0, 0.0, 40.0])


def test_hot_coolant_comes_in_whatever_is_asked_and_the_set_point_is_not_forgotten() -> None:
    bench = Bench(fault("coolant_hot", value=55.0, at_s=10.0, until_s=1000.0))
    before = bench.truth()["cell_degc"].copy()
    bench.asked["cooling_degc"] = 18.0
    bench.command()
    bench.run(900.0, 10.0)
    bench.command()
    assert bench.read("coolant_in_degc") == pytest.approx(55.0)
    assert np.all(bench.truth()["cell_degc"] > before + 5.0)
    bench.run(1200.0, 10.0)
    assert bench.read("coolant_in_degc") == pytest.approx(18.0, abs=0.1)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_an_internal_short_takes_charge_and_heats_its_group() -> None:
    bench = Bench(
        fault("cell_leak", index=[2], value=1.0, at_s=0.0, until_s=3600.0),
        rack={"self_discharge_spread": 0.0, "soc_spread": 0.0, "degc_spread": 0.0, "capacity_spread": 0.0},
    )
    volt = float(bench.read("cell_v")[2])
    bench.run(3600.0, 10.0)
    truth = bench.truth()
    lost = (truth["soc"][0, 1] - truth["soc"][0, 2]) * 280.0
    assert lost == pytest.approx(volt, rel=0.01)  # v / 1 ohm for an hour, in Ah
    assert truth["cell_degc"][0, 2] > truth["cell_degc"][0, 1] + 1.0
    assert abs(bench.books().residual_j) < 1e-6 * volt**2 * 3600
    soc = float(truth["soc"][0, 2])
    bench.run(3600.0, 10.0)
    assert bench.truth()["soc"][0, 2] == pytest.approx(soc, abs=1e-4)  # it ends with the fault


def test_heat_from_outside_warms_its_group_and_the_books_close() -> None:
    bench = Bench(
        fault("cell_heat", index=[4], value=30.0, at_s=0.0, until_s=600.0),
        cell="nmc_ev", rack={"n_parallel": 2, "degc_spread": 0.0, "coolant_w_per_k_flow": 1e-9},
        environment={"ambient_degc": 25.0},
    )  # fmt: skip
    bench.run(600.0, 7.5)
    rise_j = (bench.twin.cells[Y.C_DEGC] - 25.0).sum() * 920.0
    assert rise_j == pytest.approx(30.0 * 600, rel=0.02)  # all of it is in the cells but for the air's share
    assert bench.truth()["cell_degc"][0].argmax() == 4
    books = bench.books()
    assert books.heater_j == pytest.approx(30.0 * 600)
    assert abs(books.residual_j) < 1e-6 * books.heater_j


def test_bleed_switches_that_are_stuck() -> None:
    bench = Bench(
        fault("bleed_stuck_on", index=[1], at_s=0.0, until_s=3600.0),
        fault("bleed_stuck_off", index=[5], at_s=0.0, until_s=3600.0),
        rack={"self_discharge_spread": 0.0, "soc_spread": 0.0, "capacity_spread": 0.0},
    )
    bench.commands["balance"][0, [5, 6]] = 1
    bench.command()
    bench.run(3600.0, 10.0)
    assert np.flatnonzero(bench.read("bleeding")).tolist() == [1, 6]
    soc = bench.truth()["soc"][0]
    lost_ah = (soc[0] - soc) * 280.0
    np.testing.assert_allclose(lost_ah, [0, 0.1, 0, 0, 0, 0, 0.1, 0], atol=0.002)  # 3.3 V over 33 ohm for an hour
    bench.run(10.0)
    assert np.flatnonzero(bench.read("bleeding")).tolist() == [5, 6]  # what was asked, again
    bench.site.stop()
    assert not bench.read("bleeding").any()


def test_a_switch_stuck_on_bleeds_after_the_electronics_are_off() -> None:
    bench = Bench(fault("bleed_stuck_on", index=[1], at_s=0.0, until_s=100.0))
    bench.commands["balance"][0, 0] = 1
    bench.command()
    bench.site.stop()
    assert np.flatnonzero(bench.read("bleeding")).tolist() == [1]


# --- the whole --------------------------------------------------------------------------------------------------------


def test_a_stalled_device_repeats_its_last_sample() -> None:
    bench = Bench(fault("scan_stalled", rack=[1]), sensors={}, n_racks=2)
    assert bench.site.stalled is not None
    seen = []
    for _ in range(5):
        bench.run(1.0)
        seen.append((bench.record[0].tobytes(), bench.record[1].tobytes(), bench.site.stalled.tolist()))
    assert len({first for first, _, _ in seen}) == 5
    assert seen[0][1] == seen[1][1] == seen[2][1]
    assert len({second for _, second, _ in seen[2:]}) == 3
    assert [stalled for _, _, stalled in seen] == [[False, False], [False, True], [False, True]] + [[False] * 2] * 2


def test_the_first_sample_is_taken_even_by_a_stalled_device() -> None:
    bench = Bench({"kind": "scan_stalled"})
    assert bench.read("cell_v").min() > 3.0
    first = bench.record.tobytes()
    bench.run(5.0)
    assert bench.record.tobytes() == first
    assert Bench().site.stalled is None


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_every_kind_leaves_a_rack_as_it_was_and_touches_no_other(kind: str) -> None:
    """A fault of one rack over a while: the other rack's record and state are those of a healthy site, bit for bit."""
    about = FAULT_KINDS[kind]
    index = {"pair": [1, 2], "module": [0]}.get(about.index, [1])
    keys: dict[str, Any] = {"index": index} if about.index else {}
    if about.value:
        keys["value"] = 0.5 if kind == "cell_capacity" else 3.0
    benches = Bench(n_racks=2, sensors={}), Bench(fault(kind, rack=[1], **keys), n_racks=2, sensors={})
    for bench in benches:
        bench.commands["balance"][:, 3] = 1
        bench.command(PRECHARGE)
        bench.run(6.0)
    healthy, broken = benches
    assert healthy.record[0].tobytes() == broken.record[0].tobytes()
    np.testing.assert_array_equal(healthy.site.bank.cells[0], broken.site.bank.cells[0])
    assert healthy.head["sequence"].tolist() == broken.head["sequence"].tolist()
    for name in healthy.record.dtype["head"].names or ():
        if name.endswith("quality"):
            assert broken.head[name][1] == 0
    assert not broken.record["cell_v_quality"].any()
    assert not broken.record["sensor_degc_quality"].any()
    np.testing.assert_allclose(broken.record["cell_v"][1], healthy.record["cell_v"][1], atol=0.02)


def test_every_kind_changes_the_hardware_or_what_is_measured() -> None:
    """Hardware is looked at only while a fault of it is there: a kind that is missing among these would do nothing."""
    of_samples = {*B._FROZEN, *B._MISSING, *B._STUCK, *B._OFFSET, *B._GAIN, *B._FLAG}
    of_samples |= {"insulation", "scan_stalled", "cell_v_swapped", "open_wire"}
    assert of_samples | B._OF_HARDWARE == set(FAULT_KINDS)
    assert not of_samples & B._OF_HARDWARE


def test_hardware_that_was_whole_breaks_again() -> None:
    """Two faults of the coolant with a pause between them: it flows before, between and after."""
    times = {"at_s": 2.5, "until_s": 4.5}, {"at_s": 6.5, "until_s": 8.5}
    bench = Bench(*({"kind": "coolant_stop", **between} for between in times))
    flows = []
    for _ in range(10):
        bench.run(1.0)
        flows.append(bool(bench.site.bank.string[0, Y.S_FLOW_W_PER_K] > 0.0))
    wanted = [not any(t["at_s"] <= k < t["until_s"] for t in times) for k in range(10)]
    assert flows == wanted
    assert not all(flows)
