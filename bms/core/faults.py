"""The faults that the controller knows: what each one looks at, and the rows of the fault table.

A fault has up to three tiers (info, warning and fatal; MOL, RSL and MSL of foxBMS), each of them a row {threshold,
clear threshold, set time, clear time, latch, reaction, FTTI}. The id of a row, `row_id(fault, severity)`, is stable:
ten times the fault's, plus the severity. `bms.core.diagnosis` runs the table; what a fault looks at is written to
`value[fault]`, and where it was seen to `where[fault]`, by the kernels of whoever knows it.

Numbers are never given to another fault; new faults take free ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from hal.contract import N_FAULT_WORDS, Severity


class Fault(IntEnum):
    """What can be wrong. The number is also the bit in `Command.fault_info`, `fault_warning` and `fault_fatal`."""

    CELL_OVERVOLTAGE = 1
    CELL_UNDERVOLTAGE = 2
    DEEP_DISCHARGE = 3
    PACK_OVERVOLTAGE = 4
    PACK_UNDERVOLTAGE = 5
    VOLTAGE_SPREAD = 6

    DISCHARGE_CURRENT = 8
    CHARGE_CURRENT = 9
    DISCHARGE_I2T = 10
    CHARGE_I2T = 11
    SHORT_CIRCUIT = 12
    DISCHARGE_LIMIT = 13
    CHARGE_LIMIT = 14

    CHARGE_HOT = 16
    DISCHARGE_HOT = 17
    CHARGE_COLD = 18
    DISCHARGE_COLD = 19
    TEMPERATURE_RISE = 20
    TEMPERATURE_SPREAD = 21

    SOC_LOW = 22
    SOC_HIGH = 23
    SOC_UNCERTAIN = 24

    INSULATION = 26
    INSULATION_POSITIVE = 27
    INSULATION_NEGATIVE = 28
    INSULATION_INVALID = 29
    INTERLOCK_OPEN = 30
    EMERGENCY_STOP = 31
    GAS_ALARM = 32

    CONTACTOR_WELDED = 34
    CONTACTOR_STUCK_OPEN = 35
    WELD_CURRENT = 36
    WELD_VOLTAGE = 37
    STUCK_OPEN_VOLTAGE = 38
    CONTACTOR_WORN = 39
    PRECHARGE_TIMEOUT = 40
    PRECHARGE_VOLTAGE = 41
    PRECHARGE_CURRENT = 42
    PRECHARGE_RESISTOR = 43
    PRECHARGE_ATTEMPTS = 44
    SELF_TEST = 45

    COOLANT_FLOW = 46
    COOLANT_HOT = 47
    COOLANT_COLD = 48

    CELL_VOLTAGE_LOST = 50
    TEMPERATURE_LOST = 51
    CURRENT_LOST = 52
    PACK_VOLTAGE_LOST = 53
    BUS_VOLTAGE_LOST = 54
    FEEDBACK_LOST = 55
    COOLANT_LOST = 56
    GAS_LOST = 57
    BLEED_LOST = 58
    SAMPLE_LOST = 59

    CURRENT_OFFSET = 60
    OPEN_SENSE_WIRE = 61
    CELL_VOLTAGE_FROZEN = 62
    TEMPERATURE_FROZEN = 63
    CURRENT_IMPLAUSIBLE = 64
    SUM_IMPLAUSIBLE = 65
    TEMPERATURE_NEIGHBOUR = 66
    TEMPERATURE_MODEL = 67
    MODEL_RESIDUAL = 68
    VALUE_OUT_OF_RANGE = 69
    FEEDBACK_INVALID = 70
    CURRENT_GAIN = 71

    CELL_LEAK = 72
    BLEED_STUCK_ON = 73
    BLEED_STUCK_OFF = 74
    CAPACITY_LOW = 75
    RESISTANCE_HIGH = 76
    TRANSPORT_REVERSED = 77
    TRANSPORT_VOLTAGE = 78

    DEADLINE_MISSED = 80
    CONFIG_MISMATCH = 81
    CONFIG_DAMAGED = 82
    RESET_CAUSE = 83
    STORE_DAMAGED = 84
    ESTIMATE_INVALID = 85

    RUNAWAY = 86
    RUNAWAY_RATES = 87
    HEAT_RESIDUAL = 88
    CELL_SAG = 89
    STRING_SAG = 90
    CELL_HOT = 91


N_FAULTS = max(Fault) + 1
"""Places in arrays over faults; those without a fault stay unused."""

N_TIERS = 3
"""Tier t of a fault is severity t + 1."""

assert N_FAULTS <= 32 * N_FAULT_WORDS

# columns of a row of the table
THRESHOLD, CLEAR, SET_S, CLEAR_S = range(4)
COLUMNS = 4


class Reaction(IntFlag):
    """What a row demands while it is active or latched; together, the strictest of each kind counts."""

    NONE = 0
    DERATE = 1  # both limits are reduced to the share `derate` of the configuration
    NO_CHARGE = 2  # the charge limit ramps to 0
    NO_DISCHARGE = 4  # the discharge limit ramps to 0
    NO_CLOSE = 8  # contactors do not close
    RAMP_OPEN = 16  # ramp to 0 A, then open
    OPEN = 32  # open at once, whatever flows
    NO_BALANCING = 64  # no cell is bled, no charge moved
    COOL = 128  # coolant as cold as it goes
    LATCH = 256  # stays until it is reset, which is refused while the cause is present
    SERVICE = 512  # a reset counts in MAINTENANCE only


class Context(IntFlag):
    """When a fault is looked at: in any of the situations of its `gate`. Otherwise it counts as not there."""

    CHARGING = 1
    DISCHARGING = 2
    RESTING = 4
    CLOSED = 8  # both main contactors are asked to be closed
    OPENED = 16  # no contactor is asked to be closed
    PRECHARGING = 32
    WINDOW = 64  # the cells should be inside their voltage window: not in transport
    ALWAYS = 128
    TRANSPORT = 256
    DRAINING = 512  # in transport, and the cells have a fifth of their charge yet: they behave as inside their window


class Place(IntEnum):
    """What `where[fault]` counts."""

    RACK = 0  # nothing: it concerns the rack
    CELL = 1
    SENSOR = 2
    CONTACTOR = 3  # bit of `Contactor`
    RAIL = 4  # 1 positive, 2 negative
    CAUSE = 5  # a code


@dataclass(frozen=True)
class About:
    """What a fault looks at: `above` tells whether large or small values are wrong, `unit` is that of thresholds."""

    text: str
    unit: str
    above: bool = True
    gate: Context = Context.ALWAYS
    place: Place = Place.RACK


_F, _C, _P = Fault, Context, Place

ABOUT: dict[Fault, About] = {
    _F.CELL_OVERVOLTAGE: About("highest cell voltage", "V", place=_P.CELL),
    _F.CELL_UNDERVOLTAGE: About("lowest cell voltage", "V", above=False, gate=_C.WINDOW, place=_P.CELL),
    _F.DEEP_DISCHARGE: About(
        "lowest cell voltage, so low that the cell is damaged", "V", above=False, gate=_C.WINDOW, place=_P.CELL
    ),
    _F.PACK_OVERVOLTAGE: About("string voltage", "V"),
    _F.PACK_UNDERVOLTAGE: About("string voltage", "V", above=False, gate=_C.WINDOW),
    _F.VOLTAGE_SPREAD: About("highest less lowest cell voltage, at small current", "V", gate=_C.WINDOW, place=_P.CELL),
    _F.DISCHARGE_CURRENT: About("discharge current", "A"),
    _F.CHARGE_CURRENT: About("charge current", "A"),
    _F.DISCHARGE_I2T: About(
        "heat in fuse and contactors from discharge beyond the rated current, 1 = all that they bear", "1"
    ),
    _F.CHARGE_I2T: About("the same from charge", "1"),
    _F.SHORT_CIRCUIT: About("current in either direction", "A"),
    _F.DISCHARGE_LIMIT: About(
        "discharge current beyond the published limit; where it lasts, with the charge that has flowed beyond", "A"
    ),
    _F.CHARGE_LIMIT: About("the same of charge", "A"),
    _F.CHARGE_HOT: About("hottest sensor, while charging", "degC", gate=_C.CHARGING, place=_P.SENSOR),
    _F.DISCHARGE_HOT: About("hottest sensor, always", "degC", place=_P.SENSOR),
    _F.CHARGE_COLD: About("coldest sensor, while charging", "degC", above=False, gate=_C.CHARGING, place=_P.SENSOR),
    _F.DISCHARGE_COLD: About(
        "coldest sensor, while discharging", "degC", above=False, gate=_C.DISCHARGING, place=_P.SENSOR
    ),
    _F.TEMPERATURE_RISE: About("fastest rise of a sensor over half a minute", "K/min", place=_P.SENSOR),
    _F.TEMPERATURE_SPREAD: About("hottest less coldest sensor", "K", place=_P.SENSOR),
    _F.SOC_LOW: About("lowest cell SoC", "1", above=False, gate=_C.WINDOW, place=_P.CELL),
    _F.SOC_HIGH: About("highest cell SoC", "1", place=_P.CELL),
    _F.SOC_UNCERTAIN: About("largest standard deviation of a cell's SoC", "1", place=_P.CELL),
    _F.INSULATION: About("insulation resistance, rail not told", "ohm", above=False),
    _F.INSULATION_POSITIVE: About("insulation resistance of the positive rail", "ohm", above=False, place=_P.RAIL),
    _F.INSULATION_NEGATIVE: About("insulation resistance of the negative rail", "ohm", above=False, place=_P.RAIL),
    _F.INSULATION_INVALID: About("time without a valid insulation resistance", "s"),
    _F.INTERLOCK_OPEN: About("1 = the high-voltage interlock loop is open", "1"),
    _F.EMERGENCY_STOP: About("1 = an emergency stop is pressed or requested", "1"),
    _F.GAS_ALARM: About("1 = smoke or gas", "1"),
    _F.CONTACTOR_WELDED: About("1 = feedback says closed, open was asked", "1", place=_P.CONTACTOR),
    _F.CONTACTOR_STUCK_OPEN: About("1 = feedback says open, closed was asked", "1", place=_P.CONTACTOR),
    _F.WELD_CURRENT: About("current through contactors that are asked to be open", "A", gate=_C.OPENED),
    _F.WELD_VOLTAGE: About("1 = the link held its voltage in the weld test after opening", "1"),
    _F.STUCK_OPEN_VOLTAGE: About(
        "link and string apart although both main contactors are asked to be closed, share of the string voltage",
        "1",
        gate=_C.CLOSED,
    ),
    _F.CONTACTOR_WORN: About("wear of the main contactors, 1 = end of life", "1"),
    _F.PRECHARGE_TIMEOUT: About("time since precharge began, all its stages", "s", gate=_C.PRECHARGING),
    _F.PRECHARGE_VOLTAGE: About(
        "link voltage behind that of the RC curve, share of the string voltage", "1", gate=_C.PRECHARGING
    ),
    _F.PRECHARGE_CURRENT: About(
        "precharge current over the largest that string and resistor allow", "1", gate=_C.PRECHARGING
    ),
    _F.PRECHARGE_RESISTOR: About("heat in the precharge resistor, 1 = all that it bears", "1"),
    _F.PRECHARGE_ATTEMPTS: About("failed attempts to precharge in a row", "1"),
    _F.SELF_TEST: About("time in the self-test, for which everything must be there and in order", "s"),
    _F.COOLANT_FLOW: About("coolant flow", "l/min", above=False),
    _F.COOLANT_HOT: About("coolant at the inlet", "degC"),
    _F.COOLANT_COLD: About("coolant at the inlet", "degC", above=False),
    _F.CELL_VOLTAGE_LOST: About("longest time without a usable voltage of a cell", "s", place=_P.CELL),
    _F.TEMPERATURE_LOST: About("longest time without a usable value of a sensor", "s", place=_P.SENSOR),
    _F.CURRENT_LOST: About("time without a usable current", "s"),
    _F.PACK_VOLTAGE_LOST: About("time without a usable string voltage", "s"),
    _F.BUS_VOLTAGE_LOST: About("time without a usable link voltage", "s"),
    _F.FEEDBACK_LOST: About("time without usable feedback of the contactors", "s"),
    _F.COOLANT_LOST: About("time without usable values of coolant flow and inlet", "s"),
    _F.GAS_LOST: About("time without the gas detector", "s"),
    _F.BLEED_LOST: About("time without feedback of the bleed switches", "s"),
    _F.SAMPLE_LOST: About("time since the rack delivered a new sample", "s"),
    _F.OPEN_SENSE_WIRE: About(
        "how far two neighbours are off the rest in opposite directions: the smaller, less what their sum is off",
        "V",
        place=_P.CELL,
    ),
    _F.CELL_VOLTAGE_FROZEN: About(
        "how far the mean cell has moved while this cell's value stood still; 5 mV a second where noise moves others",
        "V",
        place=_P.CELL,
    ),
    _F.TEMPERATURE_FROZEN: About(
        "how far the mean sensor has moved while this one stood still; the heat that should have moved it, if all did",
        "K",
        place=_P.SENSOR,
    ),
    _F.CURRENT_IMPLAUSIBLE: About(
        "sudden current that the cells' common response asks for beyond the measured one; held while that stands still",
        "A",
        gate=_C.WINDOW,
    ),
    _F.CURRENT_GAIN: About(
        "factor by which the current sensor reads too little or too much, less 1 and what the resistance explains",
        "1",
        gate=_C.WINDOW,
    ),
    _F.CURRENT_OFFSET: About(
        "size of the current sensor's offset, as the estimator finds it, or as it reads while nothing can flow",
        "A",
        gate=_C.WINDOW,
    ),
    _F.SUM_IMPLAUSIBLE: About("sum of the cells less string voltage, share of it", "1", gate=_C.WINDOW),
    _F.TEMPERATURE_NEIGHBOUR: About(
        "a sensor less the mean of its neighbours; at an end, the better of the nearest two", "K", place=_P.SENSOR
    ),
    _F.TEMPERATURE_MODEL: About("a sensor less its thermal model", "K", place=_P.SENSOR),
    _F.MODEL_RESIDUAL: About(
        "a cell's filtered innovation less the mean cell's and what the doubt of its SoC explains",
        "V",
        gate=_C.WINDOW,
        place=_P.CELL,
    ),
    _F.CELL_SAG: About(
        "how far a cell has suddenly sunk against the others, beyond what the doubt of its SoC explains; "
        "of one cell of its group, as at 25 degC",
        "V",
        gate=_C.WINDOW | _C.DRAINING,
        place=_P.CELL,
    ),
    _F.STRING_SAG: About(
        "how far the string has suddenly sunk against the sum of its cells; where no value stands still, half of it",
        "V",
        gate=_C.WINDOW,
        place=_P.CELL,
    ),
    _F.VALUE_OUT_OF_RANGE: About("values outside what their sensors can measure", "1", place=_P.CELL),
    _F.FEEDBACK_INVALID: About("1 = contactor feedback or a digital input has a value that does not exist", "1"),
    _F.CELL_LEAK: About("leak of a cell beyond that of the mean cell", "mA", place=_P.CELL),
    _F.BLEED_STUCK_ON: About("1 = a bleed switch is on that should be off", "1", place=_P.CELL),
    _F.BLEED_STUCK_OFF: About("1 = a bleed switch is off that should be on", "1", place=_P.CELL),
    _F.CAPACITY_LOW: About("smallest capacity of a cell, relative to its type's", "1", above=False, place=_P.CELL),
    _F.RESISTANCE_HIGH: About("largest resistance of a cell, relative to its type's", "1", place=_P.CELL),
    _F.TRANSPORT_REVERSED: About(
        "lowest cell voltage in transport: reversed", "V", above=False, gate=_C.TRANSPORT, place=_P.CELL
    ),
    _F.TRANSPORT_VOLTAGE: About("highest cell voltage at rest in transport", "V", gate=_C.TRANSPORT, place=_P.CELL),
    _F.DEADLINE_MISSED: About("time since the last step over the period", "1"),
    _F.CONFIG_MISMATCH: About("1 = the memory belongs to another configuration", "1"),
    _F.CONFIG_DAMAGED: About("1 = the configuration has changed since the start", "1"),
    _F.RESET_CAUSE: About(
        "why the controller started, until it is reset: 1 after an orderly end, 2 by an operator, 3 after a crash",
        "1",
        place=_P.CAUSE,
    ),
    _F.STORE_DAMAGED: About(
        "what the state store gave, until it is reset: 1 an older state, 2 none of what was there", "1"
    ),
    _F.ESTIMATE_INVALID: About("cells whose estimate is not a number", "1", place=_P.CELL),
    _F.RUNAWAY: About(
        "for how long a hot cell, or one whose voltage has dropped, has risen at the rate of a runaway",
        "s",
        place=_P.CELL,
    ),
    _F.RUNAWAY_RATES: About("rates of a runaway in a row, whatever voltage and temperature", "1", place=_P.CELL),
    _F.HEAT_RESIDUAL: About(
        "heat of a sensor's cells that the current does not explain, beyond the mean and what is usual at its place",
        "W",
        place=_P.SENSOR,
    ),
    _F.CELL_HOT: About(
        "by how much a cell is hotter than its sensor lets expect, told by how little it answers the current",
        "K",
        gate=_C.WINDOW,
        place=_P.CELL,
    ),
}
"""Every fault, what it looks at, and when."""


@dataclass(frozen=True)
class Row:
    """One row of the fault table. `threshold` sets the fault if it holds for `set_s`; `clear` for `clear_s` ends it.

    `ftti_s` is the fault-tolerant time interval of a fatal row: from the fault's appearance to open contactors.
    """

    fault: Fault
    severity: Severity
    threshold: float
    clear: float
    set_s: float
    clear_s: float
    reaction: Reaction
    ftti_s: float | None = None

    @property
    def id(self) -> int:
        """The stable number of the row."""
        return row_id(self.fault, self.severity)


def row_id(fault: Fault, severity: Severity) -> int:
    """The stable number of a row of the fault table."""
    return 10 * fault + severity


def row_of(number: int) -> tuple[Fault, Severity]:
    """Fault and severity of a row's number. Raises `ValueError` for a number that no row has."""
    fault, severity = divmod(number, 10)
    return Fault(fault), Severity(severity)


def text_of(fault: Fault) -> str:
    """The fault's name as people read it."""
    return fault.name.lower().replace("_", " ")
