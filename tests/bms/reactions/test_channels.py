"""Any value on any channel: nothing raises, every command can be followed, and what is wrong is seen and acted upon.

Each field of a measurement is damaged in each way that `Chaos` knows, while the rack is connected and from the start.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bms.core.faults import Fault, Reaction
from hal.backends.chaos import Change
from hal.contract import MEASUREMENT, RackState, Severity
from hal.errors import ConfigError

AT_S = 39.01
WATCHED_S = 100.0
F = Fault
FATAL = Severity.FATAL
LARGE = 3.4e38

KINDS: dict[str, tuple[str, float | None]] = {
    "nan": ("nan", None), "inf": ("inf", 1.0), "-inf": ("inf", -1.0), "zero": ("zero", None),
    "full_scale": ("full_scale", LARGE), "-full_scale": ("full_scale", -LARGE), "all_bits": ("full_scale", None),
    "stuck": ("stuck", None), "swap": ("swap", None), "stale": ("stale", None), "missing": ("missing", None),
}  # fmt: skip
GONE = {"nan", "inf", "-inf", "full_scale", "-full_scale", "all_bits", "stale", "missing"}
"""Ways after which a value is none."""

UNUSED = {
    "time_s": "for records: the controller counts its own time",
    "coolant_out_degc": "for people: inlet, flow and the temperatures of the cells decide",
}
"""Channels that no decision looks at, and why."""

LOST = {
    "current_a": F.CURRENT_LOST, "pack_v": F.PACK_VOLTAGE_LOST, "bus_v": F.BUS_VOLTAGE_LOST,
    "insulation_ohm": F.INSULATION_INVALID, "coolant_in_degc": F.COOLANT_LOST, "coolant_flow_lpm": F.COOLANT_LOST,
    "contactors": F.FEEDBACK_LOST, "gas_alarm": F.GAS_LOST, "bleeding": F.BLEED_LOST,
    "cell_v": F.CELL_VOLTAGE_LOST, "sensor_degc": F.TEMPERATURE_LOST,
}  # fmt: skip
"""What says that a channel is gone."""

SEEN: dict[tuple[str, str], Fault] = {
    ("sequence", "zero"): F.SAMPLE_LOST, ("sequence", "all_bits"): F.SAMPLE_LOST, ("sequence", "stuck"): F.SAMPLE_LOST,
    ("current_a", "zero"): F.CURRENT_IMPLAUSIBLE, ("pack_v", "zero"): F.PACK_UNDERVOLTAGE,
    ("bus_v", "zero"): F.STUCK_OPEN_VOLTAGE,
    ("insulation_ohm", "zero"): F.INSULATION, ("coolant_flow_lpm", "zero"): F.COOLANT_FLOW,
    ("contactors", "zero"): F.CONTACTOR_STUCK_OPEN, ("contactors", "all_bits"): F.FEEDBACK_INVALID,
    ("interlock_closed", "zero"): F.INTERLOCK_OPEN, ("interlock_closed", "all_bits"): F.INTERLOCK_OPEN,
    ("insulation_rail", "all_bits"): F.FEEDBACK_INVALID, ("emergency_stop", "all_bits"): F.EMERGENCY_STOP,
    ("gas_alarm", "all_bits"): F.GAS_ALARM, ("bleeding", "all_bits"): F.FEEDBACK_INVALID,
    ("cell_v", "zero"): F.CELL_UNDERVOLTAGE, ("sensor_degc", "zero"): F.TEMPERATURE_MODEL,
    ("cell_v", "stuck"): F.CELL_VOLTAGE_FROZEN,
}  # fmt: skip
"""Values that say something: what is shown of them."""

HEALTHY = {
    ("emergency_stop", "zero"): "what a healthy rack says", ("gas_alarm", "zero"): "what a healthy rack says",
    ("bleeding", "zero"): "nothing is being bled", ("insulation_rail", "zero"): "the rail is not told",
    ("coolant_in_degc", "zero"): "coolant may have 0 degC",
}  # fmt: skip
"""Values that may be right."""
# a value that stands still while nothing else moves is no fault yet: frozen values are tried with a truth that moves;
# a quality or an age of 0, or as it was, says that all is well; exchanged bytes may make any number


def channel_of(name: str) -> str:
    """The channel that a field belongs to."""
    return name.removesuffix("_quality").removesuffix("_age_s")


def change(name: str, way: str, from_s: float) -> Change | None:
    """A damage; None where the field cannot have it."""
    kind, value = KINDS[way]
    whole = next(f for f in MEASUREMENT.fields if f.name == name).kind.startswith("u")
    if whole == (way in ("nan", "inf", "-inf", "full_scale", "-full_scale")) and (whole or way == "all_bits"):
        return None  # of whole numbers there is one largest, and of real ones no other
    try:
        return Change(name, kind, value=value, from_s=from_s)
    except ConfigError:
        return None  # no quality, no age


def ways_of(name: str) -> list[str]:
    """The ways in which a field can be damaged."""
    return [way for way in KINDS if change(name, way, 0.0) is not None]


def expected(name: str, way: str) -> Fault | bool:
    """The fault that must be shown; False where nothing is to happen, True where it depends on the bits."""
    channel = channel_of(name)
    if channel in UNUSED or (name, way) in HEALTHY:
        return False
    if way == "swap":
        return True
    if name != channel:
        return LOST[channel] if way in GONE else False
    if (name, way) in SEEN:
        return SEEN[name, way]
    if way in GONE:
        return LOST[channel]
    assert way == "stuck"
    return False


def check_reactions(t: Any, what: object) -> None:
    """Whatever was fatal has opened the contactors, in its time."""
    ramp_s = t.settings.machine.ramp_time_out_s + t.period_s
    for fault in Fault:
        fatal = t.first(lambda m, fault=fault: m.shows(fault, FATAL))
        if fatal is not None:
            allowed_s = 0.0 if t.row(fault, FATAL).reaction & Reaction.OPEN else ramp_s
            opened = t.first(lambda m: not m.path and m.asked == 0, fatal.time_s)
            assert opened is not None, (what, fault)
            assert opened.time_s <= fatal.time_s + allowed_s, (what, fault)


FIELDS = [field.name for field in MEASUREMENT.fields]


def test_every_field_has_its_ways() -> None:
    assert sum(len(ways_of(name)) for name in FIELDS) >= 240
    assert all(len(ways_of(name)) >= 4 for name in FIELDS)
    assert {channel_of(name) for name in FIELDS} == set(LOST) | set(UNUSED) | {
        *("sequence", "interlock_closed", "insulation_rail", "emergency_stop")
    }


@pytest.mark.parametrize("name", FIELDS)
def test_damage_while_connected(name: str, trial: Any) -> None:
    for way in ways_of(name):
        t = trial(changes=[change(name, way, AT_S)], duty={"current_a": 60.0}, echo=name == "time_s")
        t.connected()
        t.run(AT_S + WATCHED_S)
        last, wanted = t.log[-1], expected(name, way)
        seen = {fault for m in t.log for severity in Severity if severity for fault in m.shown(severity)}
        what = (name, way, seen, last.state)
        t.check_truth()
        check_reactions(t, what)
        if wanted is False:
            assert not seen, what
            assert last.state == RackState.CONNECTED, what
        elif wanted is not True:
            assert wanted in seen, what
            row = t.rows.get((wanted, FATAL))
            if row is not None and row.threshold + row.set_s < WATCHED_S - 20.0:
                assert not last.path, what
                assert last.cause != 0, what


BEFORE_CLOSING = ("sequence", "current_a", "pack_v", "bus_v", "contactors", "cell_v", "sensor_degc")
"""Channels without which nothing closes, and switches that say no."""


@pytest.mark.parametrize("name", [name for name in FIELDS if channel_of(name) in BEFORE_CLOSING])
def test_what_is_gone_from_the_start_keeps_the_contactors_open(name: str, trial: Any) -> None:
    for way in ways_of(name):
        wanted = expected(name, way)
        t = trial(changes=[change(name, way, 0.0)], unknown=True)
        t.run(40.0)
        if isinstance(wanted, Fault) and (name, way) not in START:
            assert not any(m.path for m in t.log), (name, way)
            assert t.log[-1].state in (RackState.INIT, RackState.SELF_TEST, RackState.STANDBY, *STOPPED), (name, way)
        check_reactions(t, (name, way))


START = {
    ("sensor_degc", "zero"): "a rack may be at 0 degC", ("bus_v", "zero"): "as it is, before the precharge",
    ("current_a", "zero"): "as it is, while nothing flows",
    ("cell_v", "stuck"): "what noise is usual is learnt for half a minute",
}  # fmt: skip
"""What says nothing wrong as long as it stands alone: the precharge ends the one, the limits obey the other."""
STOPPED = (RackState.FAULT, RackState.LOCKOUT, RackState.OPENING, RackState.EMERGENCY_STOP, RackState.PRECHARGE)


@pytest.mark.parametrize(
    ("name", "way"),
    [("interlock_closed", "zero"), ("emergency_stop", "all_bits"), ("gas_alarm", "all_bits"), ("bus_v", "zero")],
)
def test_what_says_no_from_the_start_keeps_the_contactors_open(name: str, way: str, trial: Any) -> None:
    t = trial(changes=[change(name, way, 0.0)])
    t.run(120.0)
    assert not any(m.path for m in t.log)


@pytest.mark.parametrize("way", KINDS)
@pytest.mark.parametrize("at_s", [0.0, AT_S])
def test_all_channels_at_once(way: str, at_s: float, trial: Any) -> None:
    changes = [c for name in FIELDS if name != "time_s" if (c := change(name, way, at_s)) is not None]
    t = trial(changes=changes, duty={"current_a": 60.0}, unknown=True)
    t.run(at_s + 60.0)
    t.check_truth()
    check_reactions(t, way)
    if at_s == 0.0 and way != "swap":
        assert not any(m.path for m in t.log)
    if at_s > 0.0:
        assert not t.log[-1].path


@pytest.mark.parametrize(("amps", "soc"), [(-140.0, 0.9), (140.0, 0.15)])
def test_voltages_that_all_stand_still_end_before_a_cell_is_harmed(amps: float, soc: float, trial: Any) -> None:
    """None is still against the mean, but noise moves none of them."""
    t = trial(changes=[Change("cell_v", "stuck", from_s=AT_S)], duty={"current_a": amps}, rack={"initial_soc": soc})
    t.connected()
    t.run(1200.0)
    assert any(m.shows(F.CELL_VOLTAGE_FROZEN, FATAL) for m in t.log)
    assert not t.log[-1].path
    t.check_truth()


@pytest.mark.parametrize("off_v", [0.05, -0.05])
def test_a_reference_that_has_drifted_for_all_voltages_harms_no_cell(off_v: float, trial: Any) -> None:
    """Cells and string read alike, so nothing contradicts; the margins of the thresholds are for this."""
    changes = [
        Change("cell_v", "offset", value=off_v, from_s=AT_S),
        Change("pack_v", "gain", value=1.0 + off_v / 3.3, from_s=AT_S),
    ]
    t = trial(changes=changes, duty={"current_a": -140.0}, rack={"initial_soc": 0.9})
    t.run(3600.0)
    t.check_truth()


_DAMAGE = st.tuples(
    st.sampled_from([name for name in FIELDS if name != "time_s"]),
    st.sampled_from(list(KINDS)),
    st.sampled_from([None, 0, 3]),
    st.floats(0.0, 60.0),
    st.floats(0.5, 60.0),
)


@given(
    damages=st.lists(_DAMAGE, min_size=1, max_size=5), seed=st.integers(0, 1000), amps=st.sampled_from([-140.0, 200.0])
)
@settings(max_examples=120, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_combination_comes_and_goes(trial: Any, damages: list[Any], seed: int, amps: float) -> None:
    """No exception, no illegal command, and what is fatal opens; the cells stay well whatever is said of them."""
    changes = []
    for name, way, index, from_s, for_s in damages:
        if change(name, way, 0.0) is not None:
            kind, value = KINDS[way]
            dims = next(f for f in MEASUREMENT.fields if f.name == name).dims
            at = index if dims and kind != "swap" else None
            changes.append(Change(name, kind, index=at, value=value, from_s=from_s, until_s=from_s + for_s))
    t = trial(changes=changes, duty={"current_a": amps}, unknown=True, seed=seed)
    t.run(100.0)
    t.check_truth()
    check_reactions(t, changes)
