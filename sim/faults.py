"""What can be wrong with a rack of the twin, as a scenario says it: kinds of faults, and the entries of `[[fault]]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.config import Range, TwinError, from_table, hint, require

LOGARITHMIC, LINEAR = "logarithmic", "linear"
ANY, POSITIVE, NOT_NEGATIVE = Range(), Range(above=0.0), Range(low=0.0)


@dataclass(frozen=True)
class Kind:
    """One kind of fault: what it does, what its `index` numbers and what its `value` is (`''`: it has none)."""

    about: str
    index: str = ""  # group, sensor, pair (two groups), wire, contactor, rail or module
    value: str = ""  # the unit
    index_optional: bool = False
    value_optional: bool = False
    allowed: Range = ANY  # what the value may be
    ramp: str = ""  # it may come little by little, over `ramp_s`: `LOGARITHMIC` or `LINEAR`; '' = it may not
    healthy: float = 0.0  # where a linear ramp begins


FAULT_KINDS: dict[str, Kind] = {
    # voltages of the groups
    "cell_v_missing": Kind("the voltages of the groups `index` are not received", "group"),
    "cell_v_frozen": Kind("the voltages of the groups `index` keep their last value, marked as good", "group"),
    "cell_v_stuck_at": Kind("the groups `index` read `value`", "group", "V"),
    "cell_v_offset": Kind("the groups `index` read `value` too high", "group", "V"),
    "cell_v_swapped": Kind("the readings of the two groups `index` are exchanged", "pair"),
    "open_wire": Kind(
        "the sense wire between the groups `index` - 1 and `index` is broken: the lower one reads `value` (0.8 V) "
        "more, the upper one so much less",
        "wire",
        "V",
        value_optional=True,
    ),
    # temperatures
    "sensor_missing": Kind("the temperature sensors `index` are not received", "sensor"),
    "sensor_frozen": Kind("the temperature sensors `index` keep their last value, marked as good", "sensor"),
    "sensor_stuck_at": Kind("the temperature sensors `index` read `value`", "sensor", "degC"),
    "sensor_offset": Kind("the temperature sensors `index` read `value` too high", "sensor", "K"),
    # current, pack and link voltage
    "current_missing": Kind("the current is not received"),
    "current_frozen": Kind("the current keeps its last value, marked as good"),
    "current_stuck_at": Kind("the current reads `value`", "", "A"),
    "current_offset": Kind("the current reads `value` too high", "", "A"),
    "current_gain": Kind("the current reads `value` times what it is", "", "times"),
    "current_sign": Kind("the current reads with the wrong sign"),
    "pack_v_missing": Kind("the pack voltage is not received"),
    "pack_v_gain": Kind("the pack voltage reads `value` times what it is", "", "times"),
    "bus_v_missing": Kind("the link voltage is not received"),
    "bus_v_stuck_at": Kind("the link voltage reads `value`", "", "V"),
    # insulation, interlock, gas, emergency stop
    "insulation": Kind(
        "the insulation resistance falls to `value`; `index` names the rail, 1 positive, 2 negative",
        "rail",
        "ohm",
        index_optional=True,
        allowed=NOT_NEGATIVE,
    ),
    "insulation_missing": Kind("the insulation resistance is not received"),
    "interlock_open": Kind("the interlock loop is open"),
    "emergency_stop": Kind("an emergency stop is pressed"),
    "gas_alarm": Kind("the gas detector gives alarm"),
    "gas_missing": Kind("the gas detector is not received"),
    # coolant
    "coolant_stop": Kind("the pump stands still: no flow"),
    "coolant_hot": Kind("the coolant comes in at `value`, whatever the set-point", "", "degC"),
    "coolant_blocked": Kind("the branches of the coolant through the modules `index` (from 0) are blocked", "module"),
    "coolant_flow_missing": Kind("the coolant flow is not received"),
    # contactors and DC link
    "contactor_weld": Kind(
        "the contactors `index` (0 positive, 1 negative, 2 precharge; both mains where left out) weld when they are "
        "closed, for good",
        "contactor",
        index_optional=True,
    ),
    "contactor_stuck_open": Kind(
        "the contactors `index` (as above) do not close, and open if they are closed: a burnt coil",
        "contactor",
        index_optional=True,
    ),
    "feedback_stuck_at": Kind("the auxiliary contacts say `value`, as bits, whatever is so", "", "bits"),
    "feedback_missing": Kind("the auxiliary contacts are not received"),
    "link_load": Kind("a resistor of `value` hangs across the DC link", "", "ohm", allowed=POSITIVE),
    "precharge_open": Kind("the precharge resistor is burnt: no current through it"),
    "pcs_ignores_limits": Kind("the PCS draws `value`, whatever the duty and the limits say", "", "A"),
    # groups themselves
    "cell_leak": Kind("`value` across each of the groups `index`: an internal short", "group", "ohm", allowed=POSITIVE),
    "cell_heat": Kind(
        "`value` of heat from outside into each of the groups `index`", "group", "W", allowed=NOT_NEGATIVE
    ),
    "internal_short": Kind(
        "a short of `value` inside the first parallel cell of each of the groups `index`; with `ramp_s` it falls to "
        "that from 1,000 times as much, evenly on a logarithmic scale",
        "group",
        "ohm",
        allowed=POSITIVE,
        ramp=LOGARITHMIC,
    ),
    "heater": Kind(
        "a heater gives `value` to the first parallel cell of each of the groups `index`",
        "group",
        "W",
        allowed=POSITIVE,
    ),
    "joint_resistance": Kind(
        "the joint after each of the groups `index` (bus bar, contact) has `value` too much; the group's sense wire "
        "sits beyond it, so that this group alone reads the drop; half of the heat goes into each group beside it",
        "group",
        "ohm",
        allowed=NOT_NEGATIVE,
        ramp=LINEAR,
    ),
    "cell_capacity": Kind(
        "the cells of the groups `index` have `value` of their capacity left, for good: what is lost is cut off with "
        "the charge that it held",
        "group",
        "times",
        allowed=Range(above=0.0, high=1.0),
        ramp=LINEAR,
        healthy=1.0,
    ),
    "bleed_stuck_on": Kind("the bleed switches of the groups `index` are on, whatever is asked", "group"),
    "bleed_stuck_off": Kind("the bleed switches of the groups `index` are off, whatever is asked", "group"),
    "bleed_feedback_missing": Kind("the state of the bleed switches is not received"),
    # the whole
    "scan_stalled": Kind("the device delivers the same sample for ever: values, ages, time and sequence number stand"),
}
"""Every kind of fault."""

OPEN_WIRE_V = 0.8
"""By how much the leakage of a front-end's inputs moves a floating wire, where a fault does not say."""


SOFT = 1000.0
"""A short that becomes hard starts at so many times its final resistance."""


@dataclass(frozen=True)
class FaultConfig:
    """One entry of `[[fault]]`: `kind` (see `FAULT_KINDS`) from `at_s` until `until_s` (for good where left out).

    `rack` numbers the racks of a site that have it; every rack where left out. `ramp_s`: how long it takes to come.
    """

    kind: str
    at_s: float = 0.0
    until_s: float | None = None
    index: tuple[int, ...] = ()
    value: float | None = None
    rack: tuple[int, ...] = ()
    ramp_s: float = 0.0

    def __post_init__(self) -> None:
        where = f"[[fault]] kind = '{self.kind}'"
        if self.kind not in FAULT_KINDS:
            raise TwinError(f"{where}{hint(self.kind, FAULT_KINDS)}")
        kind = FAULT_KINDS[self.kind]
        if self.index or not kind.index_optional:
            numbers = f"missing (numbers of a {kind.index})" if kind.index else "not used by this kind: leave it out"
            require(bool(self.index) == bool(kind.index), f"{where}: index is {numbers}")
        if self.value is not None or not kind.value_optional:
            unit = f"missing (in {kind.value})" if kind.value else "not used by this kind: leave it out"
            require((self.value is not None) == bool(kind.value), f"{where}: value is {unit}")
        require(self.ramp_s >= 0, f"{where}: ramp_s = {self.ramp_s:g}: must not be negative")
        require(kind.ramp != "" or self.ramp_s == 0, f"{where}: ramp_s is not used by this kind: leave it out")
        if self.value is not None:
            value = f"value = {self.value:g} {kind.value}".rstrip()
            require(kind.allowed.holds(self.value), f"{where}: {value}: {kind.allowed.demand()}")
        if kind.value == "bits" and self.value is not None:
            require(self.value in range(8), f"{where}: value = {self.value:g}: contactor bits are a whole number, 0..7")
        if kind.index == "pair":
            two = len(set(self.index)) == len(self.index) == 2
            require(two, f"{where}: index = {list(self.index)}: name two groups")
        if kind.index == "rail":
            require(len(self.index) <= 1, f"{where}: index = {list(self.index)}: name one rail")
        require(len(set(self.index)) == len(self.index), f"{where}: index = {list(self.index)}: a number stands twice")
        require(self.until_s is None or self.until_s > self.at_s, f"{where}: until_s must be later than at_s")

    def active(self, time_s: float) -> bool:
        """Whether the fault is there at `time_s`."""
        return self.at_s <= time_s and (self.until_s is None or time_s < self.until_s)

    def ramped(self, time_s: float) -> float:
        """`value` at `time_s`, which comes over `ramp_s`.

        Logarithmic: from `SOFT` times as much down to it, evenly on a logarithmic scale. Linear: from what is healthy.
        """
        assert self.value is not None
        kind = FAULT_KINDS[self.kind]
        rest = max(1.0 - (time_s - self.at_s) / self.ramp_s, 0.0) if self.ramp_s > 0.0 else 0.0
        if kind.ramp == LOGARITHMIC:
            return self.value * float(SOFT**rest)
        return self.value + rest * (kind.healthy - self.value)


def fault_configs(
    entries: Sequence[Mapping[str, Any]], n_cells: int, n_sensors: int, n_racks: int = 1, n_modules: int = 1
) -> tuple[FaultConfig, ...]:
    """The faults of a scenario for racks of that size. Raises `TwinError`."""
    numbers = {
        "group": (0, n_cells - 1),
        "pair": (0, n_cells - 1),
        "wire": (1, n_cells - 1),
        "sensor": (0, n_sensors - 1),
        "contactor": (0, 2),
        "rail": (1, 2),
        "module": (0, n_modules - 1),
    }
    faults = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise TwinError(f"[[fault]] number {number + 1}: expected a table")
        fault = from_table(FaultConfig, entry, f"[[fault]] number {number + 1}")
        for index in fault.index:
            first, last = numbers[FAULT_KINDS[fault.kind].index]
            require(first <= index <= last, f"[[fault]] kind = '{fault.kind}': index {index} is not in {first}..{last}")
        for rack in fault.rack:
            require(0 <= rack < n_racks, f"[[fault]] kind = '{fault.kind}': rack {rack} is not in 0..{n_racks - 1}")
        faults.append(fault)
    return tuple(faults)
