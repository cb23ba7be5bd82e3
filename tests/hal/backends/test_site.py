"""The site against single racks: the same bits, for any number of threads."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hal.backends.simulated import SimulatedRack
from hal.backends.site import SimulatedSite
from hal.contract import COMMAND, MEASUREMENT, TRUTH, Command, HasSiteTruth, Measurement, Quality, Site, Truth, bulk
from hal.errors import ConfigError, LinkError
from hal.registry import open_rack, open_site
from sim import layout as Y

MAINS, PRECHARGE = 0b011, 0b110
SMALL = {"n_series": 37, "cells_per_sensor": 4, "watchdog_s": 5.0}
DUTY: dict[str, Any] = {"kind": "frequency_regulation", "start_s": 0.0}


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def now_s(self) -> float:
        return self.now


class Bench:
    """An open site with its records."""

    def __init__(self, racks: int, query: dict[str, str] | None = None, **tables: Any) -> None:
        self.clock = Time()
        options = {"duty": DUTY, **tables, "rack": {**SMALL, **tables.get("rack", {})}}
        self.site = SimulatedSite(query={"racks": str(racks), **(query or {})}, clock=self.clock, options=options)
        self.site.open()
        self.m, self.commands, self.truths = (bulk(x, self.site.info, racks) for x in (MEASUREMENT, COMMAND, TRUTH))
        head = self.commands["head"]
        head["cooling_degc"], head["soc_mean"] = 22.0, 0.5
        head["limit_discharge_a"] = head["limit_charge_a"] = 140.0
        head["limit_discharge_w"] = head["limit_charge_w"] = 1e6

    def run(self, steps: int, contactors: int | None = None, step_s: float = 1.0, beat: bool = True) -> None:
        head = self.commands["head"]
        if contactors is not None:
            head["contactors"] = contactors
        for _ in range(steps):
            head["heartbeat"] += beat
            self.site.write(self.commands)
            self.clock.now += step_s
            self.site.read(self.m)

    def truth(self) -> npt.NDArray[np.void]:
        self.site.truth(self.truths)
        return self.truths


def test_it_is_a_site_with_truth() -> None:
    site = open_site("sim:site?racks=2&cell=nmc_ev")
    assert isinstance(site, Site)
    assert isinstance(site, HasSiteTruth)
    assert (site.n_racks, site.info.n_cells, site.info.n_parallel) == (2, 96, 2)
    assert site.info.name == "sim:site?racks=2&cell=nmc_ev"


FAULTS = [
    {"kind": "cell_v_missing", "index": [2], "at_s": 30.0, "until_s": 40.0},
    {"kind": "current_offset", "value": 2.0, "at_s": 35.0},
    {"kind": "coolant_stop", "at_s": 25.0, "until_s": 50.0},
    {"kind": "cell_leak", "index": [33], "value": 2.0, "at_s": 12.0},
    {"kind": "cell_heat", "index": [34], "value": 20.0, "at_s": 12.0},
    {"kind": "bleed_stuck_on", "index": [36], "at_s": 12.0, "until_s": 60.0},
    {"kind": "contactor_stuck_open", "index": [0], "at_s": 20.0, "until_s": 22.0},
    {"kind": "pcs_ignores_limits", "value": -160.0, "at_s": 26.0, "until_s": 30.0},
    {"kind": "scan_stalled", "at_s": 41.0, "until_s": 43.0},
    {"kind": "link_load", "value": 5000.0, "at_s": 44.0},
]


@pytest.mark.parametrize("cell", ["lfp_280", "nmc_ev"])
@pytest.mark.parametrize(("racks", "threads"), [(1, 1), (5, 2)])
def test_a_rack_of_a_site_gives_the_bits_of_a_rack_of_its_own(cell: str, racks: int, threads: int) -> None:
    """Rack k is `sim:CELL` with the seed + k: through precharge, faults, a silent controller, balancing and closing."""
    tables: dict[str, Any] = {"duty": {"kind": "constant", "c_rate": -0.4}, "fault": FAULTS}
    small = {**SMALL, "shuttle": True}
    tables["rack"] = small
    bench = Bench(racks, {"cell": cell, "threads": str(threads), "seed": "7"}, **tables)
    clock = Time()
    single = []
    for k in range(racks):
        rack = SimulatedRack(cell, query={"seed": str(7 + k)}, clock=clock, options=tables)
        rack.open()
        single.append((rack, Measurement(37, 10), Command(37, 10), Truth(37, 10)))
    bench.commands["balance"][:, 5] = 1
    bench.commands["shuttle"][:, [3, 31, 34]] = [1, 2, 1]
    script = [(MAINS & 2, 1, 0.5, True), (PRECHARGE, 8, 1.0, True), (MAINS, 40, 1.0, True), (MAINS, 7, 1.0, False),
              (PRECHARGE, 10, 0.7, True), (MAINS, 20, 2.5, True)]  # fmt: skip
    for contactors, steps, step_s, beat in script:
        for _ in range(steps):
            for rack, _, command, _ in single:
                command.raw[...] = bench.commands[0]
                command.head["contactors"] = contactors
                command.head["heartbeat"] += beat
                rack.write(command)
            clock.now += step_s
            bench.run(1, contactors, step_s, beat)
            for k, (rack, m, _, truth) in enumerate(single):
                rack.read(m)
                rack.truth(truth)
                assert m.raw.tobytes() == bench.m[k].tobytes()
                assert truth.raw.tobytes() == bench.truth()[k].tobytes()
    bench.site.close()
    bench.site.open()
    bench.site.read(bench.m)
    for k, (rack, m, _, _) in enumerate(single):
        rack.close()
        rack.open()
        rack.read(m)
        assert m.raw.tobytes() == bench.m[k].tobytes()
        assert [(e.time_s, e.text) for e in rack.events] == [
            (e.time_s, e.text) for e in bench.site.events if e.rack == k
        ]
        assert rack.events, "the silent controller left a note"


def test_the_number_of_threads_changes_no_bit() -> None:
    found = []
    for threads in (1, 2, 3):
        bench = Bench(70, {"threads": str(threads)}, site={"share_spread": 0.1})
        bench.run(8, PRECHARGE)
        for k in range(20):
            bench.commands["head"]["soc_mean"] = 0.5 + 0.001 * k * np.sin(np.arange(70))
            bench.run(1, MAINS)
        found.append(bench.m.tobytes() + bench.truth().tobytes())
    assert found[0] == found[1] == found[2]


def test_racks_differ() -> None:
    bench = Bench(3)
    bench.run(2, 0)
    assert len({bench.m[k]["cell_v"].tobytes() for k in range(3)}) == 3
    assert len({bench.truth()[k]["capacity_ah"].tobytes() for k in range(3)}) == 3


def test_each_rack_carries_its_share() -> None:
    bench = Bench(40, duty={"kind": "constant", "c_rate": 0.2}, site={"share_spread": 0.2}, sensors={"ideal": True})
    bench.run(8, PRECHARGE)
    bench.run(3, MAINS)
    power = bench.truth()["head"]["power_w"]
    share = bench.site.site.bank.string[:, Y.S_SHARE]
    assert 0.1 < share.std() < 0.3
    np.testing.assert_allclose(power / share, (power / share).mean(), rtol=0.01)


def test_the_duty_sees_the_racks_that_are_connected() -> None:
    bench = Bench(4, duty={"kind": "frequency_regulation", "start_s": 0.0, "sd_hz": 0.0, "wander_hz": 0.0})
    head = bench.commands["head"]
    bench.run(8, PRECHARGE)
    head["contactors"] = [MAINS, MAINS, 0, 0]
    head["soc_mean"] = [0.7, 0.8, 0.0, 0.0]  # re-centring discharges the two, whatever the others publish
    bench.run(2)
    assert np.all(bench.m["head"]["current_a"][:2] > 5.0)
    assert np.all(np.abs(bench.m["head"]["current_a"][2:]) < 0.2)


def test_a_fault_of_one_rack_leaves_the_others_alone() -> None:
    faults = [
        {"kind": "cell_v_missing", "index": [1, 3], "rack": [2], "at_s": 2.0, "until_s": 4.0},
        {"kind": "cell_v_frozen", "index": [0], "rack": [0, 3], "at_s": 2.0},
        {"kind": "sensor_missing", "index": [0], "rack": [1]},
        {"kind": "current_missing", "rack": [1]},
        {"kind": "interlock_open", "rack": [3]},
        {"kind": "insulation", "value": 1e4, "rack": [0]},
    ]
    bench = Bench(4, fault=faults)
    seen = []
    for _ in range(6):
        bench.run(1)
        seen.append(bench.m.copy())
    m = seen[2]
    assert [np.flatnonzero(q).tolist() for q in m["cell_v_quality"]] == [[], [], [1, 3], []]
    assert np.isnan(m["cell_v"][2, [1, 3]]).all()
    assert not seen[4]["cell_v_quality"].any()
    assert m["sensor_degc_quality"].tolist() == [[0] * 10, [Quality.MISSING] + [0] * 9, [0] * 10, [0] * 10]
    assert m["head"]["current_a_quality"].tolist() == [0, Quality.MISSING, 0, 0]
    assert m["head"]["interlock_closed"].tolist() == [1, 1, 1, 0]
    assert (m["head"]["insulation_ohm"] < 2e4).tolist() == [True, False, False, False]
    frozen = [len({float(x["cell_v"][k, 0]) for x in seen[1:]}) == 1 for k in range(4)]
    assert frozen == [True, False, False, True]


def test_a_welded_rack_and_a_stopped_pump() -> None:
    faults = [
        {"kind": "contactor_weld", "rack": [1], "at_s": 12.0},
        {"kind": "coolant_stop", "rack": [0], "at_s": 0.0},
    ]
    bench = Bench(3, fault=faults, duty={"kind": "constant", "c_rate": -0.5})
    bench.run(8, PRECHARGE)
    bench.run(300, MAINS)
    head = bench.m["head"]
    warming = head["coolant_out_degc"] - head["coolant_in_degc"]
    assert abs(warming[0]) < 0.3 < 0.4 < warming[1]
    bench.run(2, 0)
    assert head["contactors"].tolist() == [0, MAINS, 0]


def test_one_wrong_command_and_none_is_taken() -> None:
    bench = Bench(40)
    bench.commands["head"]["contactors"] = PRECHARGE
    bench.commands["head"]["limit_charge_a"][33] = math.nan
    with pytest.raises(ValueError, match=r"^rack 33: limit_charge_a = nan: a published limit"):
        bench.site.write(bench.commands)
    bench.clock.now += 1.0
    bench.site.read(bench.m)
    assert not bench.m["head"]["contactors"].any()


def test_what_harms_a_rack_is_told_with_its_number() -> None:
    bench = Bench(3)
    bench.run(1, 0)
    bench.commands["head"]["contactors"] = [0, MAINS, 0]
    # 37 cells on an empty link: 120 V over the resistance of cells and path
    bench.run(1)
    assert [(e.rack, "inrush" in e.text) for e in bench.site.events] == [(1, True)]


def test_closed_means_closed() -> None:
    bench = Bench(2)
    bench.site.close()
    bench.site.close()
    for action in (lambda: bench.site.read(bench.m), lambda: bench.site.write(bench.commands)):
        with pytest.raises(LinkError, match=r"sim:site\?racks=2&cell=lfp_280 is not open"):
            action()


def test_records_of_another_site_are_refused() -> None:
    bench = Bench(2)
    info = bench.site.info
    for action in (
        lambda: bench.site.read(bulk(MEASUREMENT, info, 3)),
        lambda: bench.site.read(bulk(COMMAND, info, 2)),
        lambda: bench.site.write(bulk(COMMAND, info, 1)),
        lambda: bench.site.truth(bulk(TRUTH, info, 5)),
    ):
        with pytest.raises(ValueError, match="do not fit 2 racks of 37 cells and 10 sensors"):
            action()


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ({}, {}, "how many racks? For example sim:site?racks=100"),
        ({"racks": "0"}, {}, "racks = 0: expected a whole number from 1 to 100,000"),
        ({"racks": "many"}, {}, "racks = many"),
        ({"racks": "2", "threads": "-1"}, {}, "threads = -1"),
        ({"racks": "2", "cell": "lpf_280"}, {}, "did you mean 'lfp_280'"),
        ({"racks": "2", "n_seris": "4"}, {}, "did you mean 'n_series'"),
        ({"racks": "2", "site.share": "0.1"}, {}, "[site]: unknown key 'share'"),
        ({"racks": "2", "site.share_spread": "2"}, {}, "share_spread = 2.0: must be in 0..0.3"),
        ({"racks": "2"}, {"fault": [{"kind": "interlock_open", "rack": [2]}]}, "rack 2 is not in 0..1"),
        ({"racks": "2"}, {"sites": {}}, "no table [sites] (did you mean 'site'?)"),
    ],
)
def test_anything_unknown_is_refused(query: dict[str, str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SimulatedSite(query=query, options=options)
    assert message in str(caught.value)


def test_a_site_is_no_rack_and_a_rack_no_site() -> None:
    with pytest.raises(ConfigError, match="a site of many racks, where one rack is needed"):
        open_rack("sim:site?racks=2")
    with pytest.raises(ConfigError, match="one rack, where a site is needed"):
        open_site("sim:lfp_280")
    with pytest.raises(ConfigError, match="rack 1 is not in 0..0"):
        open_rack("sim:lfp_280", options={"fault": [{"kind": "interlock_open", "rack": [1]}]})
