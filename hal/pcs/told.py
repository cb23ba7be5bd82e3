"""What a controller tells an energy manager in a step, beside its measurement and command: the fields `told.*`."""

from __future__ import annotations

import math

from hal.codec.register_map import COUNTER
from hal.contract import MEASUREMENT, Command, Contactor, Measurement, RackState
from hal.pcs import Ratings
from hal.pcs.energy_manager import EnergyManager, Presence
from hal.pcs.events import NO_FAILURE, Events

# of StrDisRsn: why a string is disabled
NONE, FAULT, MAINTENANCE, EXTERNAL, OTHER = range(5)
_DISABLED = {
    RackState.FAULT: FAULT,
    RackState.EMERGENCY_STOP: FAULT,
    RackState.MAINTENANCE: MAINTENANCE,
    RackState.LOCKOUT: OTHER,
    RackState.TRANSPORT_DRAIN: OTHER,
    RackState.TRANSPORT: OTHER,
}
_STATES = frozenset(int(state) for state in RackState)
_MAINS = int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE)
_CHANNELS = tuple(f.name for f in MEASUREMENT.fields if f.kind == "f4" and not f.name.endswith("_age_s"))


def known(measurement: Measurement, out: Measurement) -> None:
    """Copy a measurement to `out`, with NaN for every value that is not good: who reads it sees no quality."""
    out.copy_from(measurement)
    for name in _CHANNELS:
        values = out.head if name in (out.head.dtype.names or ()) else out.raw
        values[name][values[f"{name}_quality"] != 0] = math.nan


def state_of(command: Command) -> RackState:
    """The state that a command tells; FAULT for a number that is none."""
    number = int(command.head["state"][0])
    return RackState(number) if number in _STATES else RackState.FAULT


def tell(
    events: Events,
    ratings: Ratings,
    manager: EnergyManager,
    measurement: Measurement,
    command: Command,
    now_s: float,
    *,
    local: bool,
) -> dict[str, float]:
    """Values of `hal.codec.register_profile.TOLD` for a step. Limits are rounded down to 0.1 A: never more is told."""
    head = command.head[0]
    state = state_of(command)
    shown = events.shown(command)
    silent = manager.presence == Presence.SILENT
    charge_a, discharge_a = _down(head["limit_charge_a"]), _down(head["limit_discharge_a"])
    code = events.state[state]
    if state == RackState.CONNECTED and shown.state is not None:
        code = shown.state
    elif state == RackState.CONNECTED and charge_a == discharge_a == 0.0:
        code = events.standby
    con_fail, disabled_for = shown.con_fail, _DISABLED.get(state, NONE)
    if not manager.enabled:
        con_fail = events.not_enabled if con_fail == NO_FAILURE else con_fail
        disabled_for = disabled_for or EXTERNAL
    return {
        "state": code,
        "evt1": shown.evt1 | (events.communication if silent else 0),
        "evt_vnd1": shown.vendor | (events.silent if silent else 0),
        "evt_vnd2": shown.near,
        "con_fail": con_fail,
        "disabled_for": disabled_for,
        "closed": int(measurement.head["contactors"][0]) & _MAINS == _MAINS,
        "local": local,
        "hb": math.floor(now_s) % COUNTER,
        "manager": manager.presence,
        "silent_s": manager.silent_s,
        "enabled": manager.enabled,
        "charge_limit_a": charge_a,
        "discharge_limit_a": discharge_a,
        **ratings_told(ratings),
        **manager.shown(),
    }


def ratings_told(ratings: Ratings) -> dict[str, float]:
    """The nameplate."""
    names = ("energy_wh", "charge_w", "discharge_w", "charge_v", "discharge_v", "soc_min", "soc_max")
    return {name: getattr(ratings, name) for name in names}


def _down(limit_a: float) -> float:
    value = float(limit_a)
    return math.floor(10.0 * value + 1e-3) / 10.0 if 0.0 < value < math.inf else 0.0
