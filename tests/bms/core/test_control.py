"""The controller's kernels: limits, fault table, state machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import control as c
from bms.core.control import CommandView, Fault, MeasurementView, Request
from bms.core.control_setup import ControlSettings, control_config
from hal.contract import Capabilities, Command, Contactor, Measurement, Quality, RackInfo, RackState

N_CELLS, N_SENSORS = 6, 3
CELL = SimpleNamespace(
    v_min=2.5,
    v_max=3.65,
    degc_min_charge=0.0,
    degc_min_discharge=-20.0,
    degc_max=55.0,
    max_charge_c=0.5,
    max_discharge_c=1.0,
)
MAINS = Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE
LINK = Contactor.MAIN_NEGATIVE | Contactor.PRECHARGE


def rack_info(**capabilities: bool) -> RackInfo:
    return RackInfo(
        "test", N_CELLS, N_SENSORS, 1, 280.0, "lfp_280", np.repeat(np.arange(N_SENSORS, dtype=np.uint16), 2),
        Capabilities(**{"balancing": True, "cooling": True, **capabilities}),
    )  # fmt: skip


@dataclass
class Bench:
    """A controller on a bench: a measurement that obeys the contactors, and knobs to spoil it."""

    settings: ControlSettings
    info: RackInfo

    def __post_init__(self) -> None:
        self.config = control_config(CELL, self.info, self.settings)
        self.state = c.control_state(N_CELLS)
        self.measurement = Measurement(N_CELLS, N_SENSORS)
        self.command = Command(N_CELLS, N_SENSORS)
        self.soc = np.linspace(0.4, 0.6, N_CELLS, dtype=np.float32)
        self.measurement.cell_v[:] = 3.3
        self.measurement.sensor_degc[:] = 25.0
        self.head = self.measurement.head
        self.head["pack_v"] = 3.3 * N_CELLS
        self.head["interlock_closed"] = 1
        self.follow = True  # contactors obey, and the DC link charges in one step

    def step(self, request: int = Request.CONNECT, dt_s: float = 1.0, fresh: bool = True) -> int:
        if fresh:
            self.head["sequence"] += 1
            self.head["time_s"] += dt_s
        if self.follow:
            asked = int(self.command.head["contactors"][0])
            self.head["contactors"] = asked
            if asked & (Contactor.PRECHARGE | Contactor.MAIN_POSITIVE):
                self.head["bus_v"] = self.head["pack_v"]
        view, dt = MeasurementView.of(self.measurement), np.float32(dt_s)
        c.sample_age(self.state, view, dt)
        return c.control_step(self.config, self.state, self.soc, view, CommandView.of(self.command), int(request), dt)

    def get(self, name: str) -> float:
        return self.command.head[name][0].item()

    @property
    def mode(self) -> RackState:
        return RackState(self.command.head["state"][0])

    @property
    def asked(self) -> Contactor:
        return Contactor(int(self.command.head["contactors"][0]))

    def connect(self) -> None:
        for _ in range(10):
            self.step()
        assert self.mode is RackState.CONNECTED

    def settle(self, steps: int = 200) -> None:
        for _ in range(steps):
            self.step()


def bench(capabilities: dict[str, bool] | None = None, **overrides: float) -> Bench:
    return Bench(ControlSettings(**overrides), rack_info(**(capabilities or {})))


def test_connects_in_order() -> None:
    b = bench()
    seen = []
    for _ in range(8):
        b.step()
        if not seen or seen[-1] != (b.mode, b.asked):
            seen.append((b.mode, b.asked))
    assert seen == [
        (RackState.STANDBY, Contactor.NONE),
        (RackState.PRECHARGE, LINK),
        (RackState.PRECHARGE, LINK | Contactor.MAIN_POSITIVE),
        (RackState.CONNECTED, MAINS),
    ]


@pytest.mark.parametrize(
    ("bus_share", "current_a", "goes_on"),
    [
        (0.985, 0.0, True),
        (1.015, 0.0, True),
        (0.975, 0.0, False),
        (1.025, 0.0, False),
        (1.0, 2.7, True),
        (1.0, 2.9, False),
    ],
)
def test_precharge_ends_when_the_link_is_charged_and_the_current_decayed(bus_share, current_a, goes_on) -> None:
    """2 % of the pack voltage and 0.01 C = 2.8 A."""
    b = bench()
    while b.mode is not RackState.PRECHARGE:
        b.step()
    b.follow = False
    b.head["contactors"] = LINK
    b.head["bus_v"] = bus_share * b.head["pack_v"]
    b.head["current_a"] = current_a
    b.step()
    assert bool(b.asked & Contactor.MAIN_POSITIVE) is goes_on


def test_precharge_that_does_not_end_is_a_fault() -> None:
    b = bench(precharge_timeout_s=10.0)
    while b.mode is not RackState.PRECHARGE:
        b.step()
    b.follow = False
    b.head["bus_v"] = 0.0
    steps = 0
    while b.mode is RackState.PRECHARGE:
        b.head["contactors"] = b.command.head["contactors"]
        b.step()
        steps += 1
        assert not b.asked & Contactor.MAIN_POSITIVE
    assert steps == 12  # the value of the row is the time before this step; it must exceed 10 s
    b.follow = True
    b.settle(5)
    assert b.mode is RackState.FAULT
    assert b.asked == Contactor.NONE
    assert Fault(int(b.get("faults"))) == Fault.PRECHARGE_TIMEOUT


def test_limits_in_the_middle_are_the_static_ones() -> None:
    b = bench()
    b.connect()
    assert 0 < b.get("limit_discharge_a") < 280.0  # rising slowly
    b.settle()
    assert b.get("limit_discharge_a") == pytest.approx(280.0, rel=1e-4)
    assert b.get("limit_charge_a") == pytest.approx(140.0, rel=1e-4)
    assert b.get("limit_discharge_w") == pytest.approx(280.0 * 3.3 * N_CELLS, rel=1e-4)
    assert b.get("limit_charge_w") == pytest.approx(140.0 * 3.3 * N_CELLS, rel=1e-4)


def test_settings_lower_the_limits_and_never_raise_them() -> None:
    low, high = bench(max_discharge_c=0.25), bench(max_discharge_c=5.0)
    for b, expected in ((low, 70.0), (high, 280.0)):
        b.connect()
        b.settle()
        assert b.get("limit_discharge_a") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("cell_v", "degc", "discharge", "charge"),
    [
        (3.3, 25.0, 1.0, 1.0),
        (2.55, 25.0, 0.5, 1.0),
        (2.5, 25.0, 0.0, 1.0),
        (3.6, 25.0, 1.0, 0.5),
        (3.65, 25.0, 1.0, 0.0),
        (3.3, 52.5, 0.5, 0.5),
        (3.3, 55.0, 0.0, 0.0),
        (3.3, 2.5, 1.0, 0.5),
        (3.3, 0.0, 1.0, 0.0),
        (3.3, -17.5, 0.5, 0.0),
        (3.3, -20.0, 0.0, 0.0),
    ],
)
def test_limits_taper_to_zero(cell_v, degc, discharge, charge) -> None:
    """One cell or one sensor alone sets the limit; linear over 0.1 V and 5 degC."""
    b = bench()
    b.connect()
    b.settle()
    b.measurement.cell_v[2] = cell_v
    b.measurement.sensor_degc[1] = degc
    b.settle(300)
    assert b.get("limit_discharge_a") == pytest.approx(280.0 * discharge, abs=0.05)
    assert b.get("limit_charge_a") == pytest.approx(140.0 * charge, abs=0.05)
    assert b.mode is RackState.CONNECTED


def test_limit_falls_fast_and_rises_slowly() -> None:
    b = bench()
    b.connect()
    b.settle()
    b.measurement.cell_v[0] = 2.55
    b.step()
    assert b.get("limit_discharge_a") == pytest.approx(280.0 * (1 - 0.5 / 3), rel=1e-4)  # dt / (2 s + dt) of the way
    b.settle()
    b.measurement.cell_v[0] = 3.3
    b.step()
    assert b.get("limit_discharge_a") == pytest.approx(280.0 * (0.5 + 0.5 / 21), rel=1e-3)


@pytest.mark.parametrize("r_ohm", [0.3e-3, 0.6e-3, 1.2e-3])
def test_taper_does_not_oscillate_against_the_cells_resistance(r_ohm: float) -> None:
    """A power system that takes all it may near v_min: limit -> voltage -> limit must settle."""
    b = bench()
    b.connect()
    b.settle()
    limits = []
    for _ in range(600):
        b.measurement.cell_v[:] = 2.62 - r_ohm * b.get("limit_discharge_a")
        b.step()
        limits.append(b.get("limit_discharge_a"))
    assert np.ptp(limits[-50:]) < 0.5
    # fixed point of 280 (v - 2.5) / 0.1 with v = 2.62 - r I
    assert limits[-1] == pytest.approx(min(280.0, 2800.0 * 0.12 / (1 + 2800.0 * r_ohm)), abs=1.0)


@pytest.mark.parametrize(
    ("fault", "field", "value", "steps"),
    [
        (Fault.CELL_OVERVOLTAGE, "cell_v", 3.71, 2),
        (Fault.CELL_UNDERVOLTAGE, "cell_v", 2.39, 2),
        (Fault.CELL_HOT, "sensor_degc", 57.5, 5),
        (Fault.CELL_COLD, "sensor_degc", -22.5, 5),
        (Fault.DISCHARGE_CURRENT, "current_a", 310.0, 2),
        (Fault.CHARGE_CURRENT, "current_a", -156.0, 2),
        (Fault.CURRENT_MISSING, "current_a", math.nan, 2),
        (Fault.CELL_VOLTAGE_MISSING, "cell_v", math.nan, 5),
        (Fault.TEMPERATURE_MISSING, "sensor_degc", math.nan, 30),
        (Fault.INTERLOCK_OPEN, "interlock_closed", 0, 1),
    ],
)
def test_fault_is_set_after_its_time_and_opens(fault: Fault, field: str, value: float, steps: int) -> None:
    b = bench()
    b.connect()
    target = b.head[field] if field in b.head.dtype.names else getattr(b.measurement, field)
    good = target[0].copy()
    target[0] = value
    for k in range(steps):
        assert b.mode is RackState.CONNECTED, k
        b.step()
    assert b.mode is RackState.OPENING
    assert b.get("limit_discharge_a") == b.get("limit_charge_a") == 0
    assert b.asked == MAINS  # 0 A first
    b.settle(10)
    assert b.mode is RackState.FAULT
    assert b.asked == Contactor.NONE
    assert Fault(int(b.get("faults"))) == fault
    assert b.get("severity") == 3
    # never by itself, however good the world has become
    target[0] = good
    b.settle(500)
    assert b.mode is RackState.FAULT
    assert b.asked == Contactor.NONE
    b.step(Request.RESET)
    assert b.mode is RackState.STANDBY
    assert b.get("faults") == 0
    b.connect()


@pytest.mark.parametrize("field", ["cell_v", "sensor_degc", "current_a"])
def test_shorter_than_the_set_time_is_no_fault(field: str) -> None:
    """Bad, good, bad, good ...: the timer starts anew each time."""
    b = bench(current_missing_s=3.0)
    b.connect()
    quality = b.head[f"{field}_quality"] if field == "current_a" else getattr(b.measurement, f"{field}_quality")
    for _ in range(20):
        for bad in (Quality.DEVICE_INVALID, Quality.DEVICE_INVALID, Quality.GOOD):
            quality[0] = bad
            b.step()
    assert b.mode is RackState.CONNECTED
    assert b.get("faults") == 0


def test_old_values_and_a_frozen_sample_count_as_missing() -> None:
    b = bench(max_age_s=2.0)
    b.connect()
    b.measurement.cell_v_age_s[3] = 2.1
    b.settle(4)
    assert b.mode is RackState.CONNECTED
    b.step()
    assert b.mode is RackState.OPENING
    assert Fault(int(b.get("faults"))) == Fault.CELL_VOLTAGE_MISSING

    frozen = bench(max_age_s=2.0)
    frozen.connect()
    for _ in range(3):  # the first unusable step is the one that makes it 3 s old
        assert frozen.mode is RackState.CONNECTED
        frozen.step(fresh=False)
    frozen.step(fresh=False)
    assert frozen.mode is RackState.OPENING
    assert Fault(int(frozen.get("faults"))) & Fault.CURRENT_MISSING


def test_open_waits_for_the_current_but_not_for_ever() -> None:
    b = bench(open_wait_s=5.0)
    b.connect()
    b.head["current_a"] = 100.0
    steps = 0
    while b.asked != Contactor.NONE:
        b.step(Request.OPEN)
        assert b.get("limit_discharge_a") == 0
        steps += 1
    assert steps == 6  # the step that asks for 0 A, then 5 s

    b = bench()
    b.connect()
    b.step(Request.OPEN)
    assert b.asked == MAINS
    b.step(Request.OPEN)
    assert b.asked == Contactor.NONE
    b.step(Request.OPEN)
    assert b.mode is RackState.STANDBY
    assert b.get("faults") == 0


def test_opening_during_precharge_sees_the_feedback_too() -> None:
    b = bench()
    while b.mode is not RackState.PRECHARGE:
        b.step()
    b.follow = False
    b.head["contactors"] = LINK
    b.head["bus_v"] = 1.0
    b.step(Request.OPEN)
    assert b.mode is RackState.OPENING
    b.step(Request.OPEN)
    assert (b.mode, b.asked) == (RackState.OPENING, Contactor.NONE)
    b.step(Request.OPEN)
    assert b.mode is RackState.OPENING  # PRECHARGE still reads closed
    b.head["contactors"] = Contactor.NONE
    b.step(Request.OPEN)
    assert b.mode is RackState.STANDBY


@pytest.mark.parametrize(("stuck", "mode"), [(MAINS, RackState.FAULT), (Contactor.MAIN_NEGATIVE, RackState.FAULT)])
def test_welded_contactor_is_a_fault(stuck: Contactor, mode: RackState) -> None:
    b = bench()
    b.connect()
    b.follow = False
    b.head["contactors"] = stuck if stuck is not MAINS else MAINS
    for _ in range(20):
        b.step(Request.OPEN)
    assert b.mode is mode
    assert b.asked == Contactor.NONE
    assert Fault(int(b.get("faults"))) & Fault.CONTACTOR_FEEDBACK


def test_contactor_that_drops_out_is_a_fault() -> None:
    b = bench()
    b.connect()
    b.follow = False
    b.head["contactors"] = Contactor.MAIN_NEGATIVE
    for _ in range(3):
        b.step()
    assert b.mode is RackState.OPENING


def test_closed_contactors_at_the_start_prevent_closing() -> None:
    b = bench()
    b.follow = False
    b.head["contactors"] = MAINS
    for _ in range(30):
        b.step()
        assert b.asked == Contactor.NONE
        assert b.mode is RackState.INIT
    assert Fault(int(b.get("faults"))) & Fault.CONTACTOR_FEEDBACK


def test_rack_without_precharge_or_contactors() -> None:
    b = bench({"precharge": False})
    b.connect()
    assert b.asked == MAINS
    b = bench({"contactors": False, "precharge": False})
    b.connect()
    assert b.asked == Contactor.NONE
    for _ in range(3):
        b.step(Request.OPEN)
    assert b.mode is RackState.STANDBY


def test_balancing_bleeds_the_high_cells_near_full() -> None:
    b = bench()
    b.connect()
    b.measurement.cell_v[:] = [3.50, 3.503, 3.509, 3.511, 3.52, 3.50]
    b.step()
    assert b.command.balance.tolist() == [0, 0, 0, 1, 1, 0]
    b.measurement.cell_v[3] = 3.506  # goes on down to half the step
    b.step()
    assert b.command.balance.tolist() == [0, 0, 0, 1, 1, 0]
    b.measurement.cell_v[3] = 3.504
    b.measurement.cell_v_quality[4] = Quality.STALE
    b.step()
    assert b.command.balance.tolist() == [0, 0, 0, 0, 0, 0]
    b.measurement.cell_v_quality[4] = 0
    b.measurement.cell_v[:] -= 0.1  # plateau: voltage does not tell
    b.step()
    assert not b.command.balance.any()


def test_no_balancing_where_the_rack_cannot() -> None:
    b = bench({"balancing": False})
    b.connect()
    b.measurement.cell_v[:] = [3.50, 3.503, 3.509, 3.511, 3.52, 3.50]
    b.step()
    assert not b.command.balance.any()


@pytest.mark.parametrize(
    ("degc", "setpoint"), [(20.0, 25.0), (25.0, 25.0), (31.0, 19.0), (50.0, 15.0), (math.nan, 25.0)]
)
def test_cooling_setpoint_falls_as_the_hottest_cell_rises(degc: float, setpoint: float) -> None:
    b = bench()
    b.measurement.sensor_degc[:] = degc
    b.step()
    assert b.get("cooling_degc") == pytest.approx(setpoint)


def test_soc_summary_and_heartbeat() -> None:
    b = bench()
    b.step()
    b.step()
    assert b.get("soc_min") == np.float32(0.4)
    assert b.get("soc_max") == np.float32(0.6)
    assert b.get("soc_mean") == pytest.approx(0.5)
    assert b.get("heartbeat") == 2
    assert b.get("time_s") == 2.0


# ---------------------------------------------------------------------------------------------------------------------
# invariants of the state machine under arbitrary measurements, requests and steps

spoil = st.sampled_from(
    [
        "nothing", "cell_nan", "cell_bad", "cell_high", "cell_low", "sensor_nan", "current_nan", "current_high",
        "pack_missing", "bus_missing", "bus_low", "feedback_bad", "feedback_stuck", "interlock", "frozen",
    ]
)  # fmt: skip
moves = st.lists(
    st.tuples(spoil, st.sampled_from(list(Request)), st.sampled_from([0.1, 1.0, 7.0]), st.integers(1, 15)),
    min_size=1,
    max_size=12,
)


def apply(b: Bench, what: str) -> bool:
    """Spoil the measurement of one step; returns True if a value that closing depends on is missing."""
    m, h = b.measurement, b.head
    m.cell_v[:], m.cell_v_quality[:], m.sensor_degc[:] = 3.3, 0, 25.0
    h["current_a"], h["pack_v"], h["pack_v_quality"], h["bus_v_quality"] = 0.0, 3.3 * N_CELLS, 0, 0
    h["contactors_quality"], h["interlock_closed"], b.follow = 0, 1, what != "feedback_stuck"
    if what == "cell_nan":
        m.cell_v[1] = math.nan
    elif what == "cell_bad":
        m.cell_v_quality[4] = Quality.OPEN_WIRE
    elif what == "cell_high":
        m.cell_v[0] = 3.8
    elif what == "cell_low":
        m.cell_v[5] = 2.0
    elif what == "sensor_nan":
        m.sensor_degc[2] = math.nan
    elif what == "current_nan":
        h["current_a"] = math.nan
    elif what == "current_high":
        h["current_a"] = 400.0
    elif what == "pack_missing":
        h["pack_v_quality"], m.cell_v[2] = Quality.MISSING, math.inf
    elif what == "bus_missing":
        h["bus_v_quality"] = Quality.STALE
    elif what == "bus_low":
        h["bus_v"] = 1.0
    elif what == "feedback_bad":
        h["contactors_quality"] = Quality.MISSING
    elif what == "interlock":
        h["interlock_closed"] = 0
    return what in ("cell_nan", "cell_bad", "sensor_nan", "current_nan", "pack_missing", "bus_missing", "feedback_bad")


@settings(max_examples=300)
@given(moves)
def test_invariants(sequence) -> None:
    b = bench()
    fault_seen = False
    for what, request, dt_s, repeat in sequence:
        for _ in range(repeat):
            before, mode_before = b.asked, b.mode
            missing = apply(b, what)
            b.step(request, dt_s, fresh=what != "frozen")
            after, mode = b.asked, b.mode
            closing = after & ~before
            story = f"{mode_before.name} {before!r} -> {mode.name} {after!r} after {what}, {request!r}"
            assert not (closing and missing), story
            assert not (closing and request != Request.CONNECT), story
            # MAIN_POSITIVE closes only onto a link that PRECHARGE has charged, and with it still closed
            if closing & Contactor.MAIN_POSITIVE:
                assert before == LINK, story
                assert Contactor(int(b.head["contactors"][0])) == LINK, story
                assert abs(b.head["bus_v"][0] - b.head["pack_v"][0]) <= 0.021 * b.head["pack_v"][0], story
            assert after in (Contactor.NONE, LINK, LINK | Contactor.MAIN_POSITIVE, MAINS), story
            if mode in (RackState.INIT, RackState.STANDBY, RackState.FAULT):
                assert after == Contactor.NONE, story
            if mode is not RackState.CONNECTED:
                assert b.get("limit_discharge_a") == b.get("limit_charge_a") == 0, story
            # out of FAULT only by a reset
            if mode_before is RackState.FAULT and mode is not RackState.FAULT:
                assert request == Request.RESET, story
            fault_seen = (fault_seen or mode is RackState.FAULT) and request != Request.RESET
            assert not (fault_seen and after), story
            for name in ("limit_discharge_w", "limit_charge_w", "cooling_degc", "soc_mean"):
                assert math.isfinite(b.get(name)), (name, story)
    # every path ends open once opening is asked for
    apply(b, "nothing")
    for _ in range(30):
        b.step(Request.OPEN)
    assert b.asked == Contactor.NONE
    assert b.mode in (RackState.INIT, RackState.STANDBY, RackState.FAULT)
