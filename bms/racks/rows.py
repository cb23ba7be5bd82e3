"""Default rows of the fault table, from the cell's limits and what is known of the rack.

What the tiers mean, and how they follow each other:

- info tells. It has no reaction, except that lost data derates at once.
- warning reduces: limits fall, or nothing closes any more. Most limits of use end here: the limit has ramped to 0.
- fatal opens, and stays until it is reset. `RAMP_OPEN` where the ramp still helps. `OPEN` where current must stop now:
  short circuit, over-current, emergency stop, interlock, gas, runaway, and over-voltage, for which the warning before
  has already taken the charge limit to 0: whoever still charges does not follow limits.

Times. foxBMS 2 qualifies over-voltage in 0.7 s, temperature in 6 s, over-current in 0.2 s and contactor feedback in
0.3 s; its example of a fault-tolerant time is 4 s for over-voltage. Ours: set time + one period + ramp + contactors,
with a tenth to spare (`bms check` adds them up). IEC 62619 8.2.2 (over-voltage), 8.2.3 (120 % of the largest charge
current), 8.2.4 (limit + 5 degC), GB 44240-2024 8.3..8.6 (1.1 x V, 1.2 x I, T + 5 degC) are tests that these rows have
to pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bms.cells import CellParameters
from bms.core.faults import Fault, Reaction, Row
from hal.contract import Severity

_F, _R = Fault, Reaction
_LATCHED = _R.LATCH | _R.NO_CLOSE
_RAMP = _R.RAMP_OPEN | _LATCHED
_OPEN = _R.OPEN | _LATCHED
_SERVICE = _OPEN | _R.SERVICE
_STOP = _R.NO_CHARGE | _R.NO_DISCHARGE
_HELD = _STOP | _R.NO_CLOSE

SODIUM = ("na_layered", "na_pba", "na_nfpp")
"""Chemistries that bear 0 V: no copper that would dissolve."""


@dataclass(frozen=True)
class Basis:
    """What the thresholds follow from, besides the cell.

    `capacity_ah`, `charge_a` and `discharge_a` (the largest currents allowed, magnitudes) are the string's.
    """

    n_series: int
    capacity_ah: float
    charge_a: float
    discharge_a: float
    period_s: float
    current_range_a: float  # what the current sensor can show
    precharge_rc_s: float
    precharge_attempts: int
    coolant_flow_lpm: float  # nominal


Tier = tuple[float, float, float, float, Reaction]
"""Threshold, clear threshold, set time, clear time, reaction."""


class _Table:
    """Collects rows."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(
        self,
        fault: Fault,
        info: Tier | None = None,
        warning: Tier | None = None,
        fatal: Tier | None = None,
        ftti_s: float | None = None,
    ) -> None:
        """The tiers of one fault; `ftti_s` is that of the fatal one."""
        for severity, tier in ((Severity.INFO, info), (Severity.WARNING, warning), (Severity.FATAL, fatal)):
            if tier is not None:
                threshold, clear, set_s, clear_s, reaction = tier
                ftti = ftti_s if severity is Severity.FATAL else None
                # seven digits are what float32 keeps, and more would only look exact
                self.rows.append(Row(fault, severity, _round(threshold), _round(clear), set_s, clear_s, reaction, ftti))


def _round(value: float) -> float:
    return float(f"{value:.6g}")


def default_rows(cell: CellParameters, basis: Basis) -> list[Row]:
    """The rows of every fault for `cell` in a rack as `basis` tells, in the order of their ids."""
    table = _Table()
    _voltages(table, cell, basis)
    _currents(table, basis)
    _temperatures(table, cell)
    _charge(table)
    _safety(table, cell, basis)
    _contactors(table, basis)
    _lost(table, basis)
    _plausibility(table, basis)
    _health(table)
    _controller(table, basis)
    return sorted(table.rows, key=lambda row: row.id)


def _voltages(t: _Table, cell: CellParameters, basis: Basis) -> None:
    low, high, n = cell.v_min, cell.limits.v_max, basis.n_series
    t.add(
        _F.CELL_OVERVOLTAGE,
        (high, high - 0.02, 5.0, 10.0, _R.NONE),
        (high + 0.02, high - 0.01, 2.0, 10.0, _R.NO_CHARGE),
        # 50 mV: plating and electrolyte oxidation set in slowly here, and far below the 1.1 x V of GB 44240-2024 8.3
        (high + 0.05, high, 1.0, 10.0, _OPEN),
        4.0,  # the foxBMS example: 3.5 s to detect, 0.5 s to react
    )
    t.add(
        _F.CELL_UNDERVOLTAGE,
        (low + 0.05, low + 0.1, 5.0, 10.0, _R.NONE),
        (low, low + 0.05, 2.0, 10.0, _R.NO_DISCHARGE),
        # an empty cell is in no hurry: time for the ramp
        (low - 0.1, low - 0.05, 1.0, 10.0, _RAMP),
        10.0,
    )
    # copper of the anode's collector dissolves below; sodium-ion has aluminium there and is only lost track of
    reaction = _OPEN if cell.chemistry in SODIUM else _SERVICE
    t.add(_F.DEEP_DISCHARGE, fatal=(low - 0.5, low - 0.4, 1.0, 60.0, reaction), ftti_s=4.0)
    # the string's mean cell: its sum catches what a wrong scale of all cell voltages hides
    t.add(
        _F.PACK_OVERVOLTAGE,
        (n * high, n * (high - 0.02), 5.0, 10.0, _R.NONE),
        (n * (high + 0.015), n * (high - 0.01), 2.0, 10.0, _R.NO_CHARGE),
        (n * (high + 0.04), n * high, 1.0, 10.0, _OPEN),
        4.0,
    )
    t.add(
        _F.PACK_UNDERVOLTAGE,
        (n * (low + 0.05), n * (low + 0.1), 5.0, 10.0, _R.NONE),
        (n * low, n * (low + 0.05), 2.0, 10.0, _R.NO_DISCHARGE),
        (n * (low - 0.08), n * (low - 0.04), 1.0, 10.0, _RAMP),
        10.0,
    )
    # as far apart as cells are whose SoC differs by so much, where the curve is steepest
    info, warning, fatal = (spread_v(cell, share) for share in (0.06, 0.12, 0.25))
    t.add(
        _F.VOLTAGE_SPREAD,
        (info, 0.8 * info, 60.0, 60.0, _R.NONE),
        (warning, 0.9 * warning, 300.0, 60.0, _R.DERATE),
        (fatal, 0.9 * fatal, 300.0, 60.0, _RAMP),
        600.0,
    )


def spread_v(cell: CellParameters, share: float) -> float:
    """Largest difference of the open-circuit voltages of two cells whose SoC differs by `share`, at 25 degC."""
    curve = np.array([cell.ocv(z) for z in np.linspace(0.0, 1.0, 201)])
    steps = max(1, round(share * 200))
    return float(np.max(curve[steps:] - curve[:-steps]))


def _currents(t: _Table, basis: Basis) -> None:
    c = basis.capacity_ah
    for fault, rated in ((_F.DISCHARGE_CURRENT, basis.discharge_a), (_F.CHARGE_CURRENT, basis.charge_a)):
        t.add(
            fault,
            (1.05 * rated, 1.02 * rated, 10.0, 10.0, _R.NONE),
            (1.1 * rated, 1.05 * rated, 5.0, 10.0, _R.DERATE),
            # below the 120 % at which IEC 62619 8.2.3 and GB 44240-2024 8.4 look
            (1.15 * rated, 1.05 * rated, 2.0, 10.0, _OPEN),
            5.0,
        )
    for fault in (_F.DISCHARGE_I2T, _F.CHARGE_I2T):
        t.add(
            fault,
            (0.5, 0.4, 0.0, 10.0, _R.NONE),
            (0.8, 0.6, 0.0, 10.0, _R.DERATE),
            (1.0, 0.5, 0.0, 10.0, _OPEN),
            5.0,
        )
    # the fuse is faster; this keeps the rack open after it, and acts where the arc of a bad contact limits the current
    worst = max(basis.charge_a, basis.discharge_a)
    short = min(3.0 * worst, max(0.9 * basis.current_range_a, 1.3 * worst))
    t.add(_F.SHORT_CIRCUIT, fatal=(short, worst, 0.0, 10.0, _SERVICE), ftti_s=2.0)
    for fault in (_F.DISCHARGE_LIMIT, _F.CHARGE_LIMIT):
        t.add(
            fault,
            (0.05 * c, 0.02 * c, 5.0, 10.0, _R.NONE),
            (0.1 * c, 0.05 * c, 10.0, 10.0, _R.DERATE),
            # an inverter that does not follow: what it still does is inside every other limit, hence the time
            (0.2 * c, 0.05 * c, 15.0, 10.0, _RAMP),
            30.0,
        )


def _temperatures(t: _Table, cell: CellParameters) -> None:
    hot = cell.limits.degc_max
    # IEC 62619 8.2.4 and GB 44240-2024 8.6 heat to the limit + 5 degC while charging: fatal comes before
    t.add(
        _F.CHARGE_HOT,
        (hot - 5.0, hot - 7.0, 30.0, 60.0, _R.COOL),
        (hot, hot - 3.0, 10.0, 60.0, _R.NO_CHARGE | _R.COOL),
        (hot + 2.0, hot - 3.0, 5.0, 60.0, _RAMP | _R.COOL),
        30.0,  # a sensor lags by 20 s
    )
    t.add(
        _F.DISCHARGE_HOT,
        (hot - 3.0, hot - 5.0, 30.0, 60.0, _R.COOL),
        (hot + 1.0, hot - 2.0, 10.0, 60.0, _STOP | _R.NO_BALANCING | _R.COOL),
        (hot + 4.0, hot - 3.0, 5.0, 60.0, _RAMP | _R.NO_BALANCING | _R.COOL),
        30.0,
    )
    # half a degree below: what sensors are off by; the limit has reached 0 at the limit itself
    for fault, cold, reaction in (
        (_F.CHARGE_COLD, cell.limits.degc_min_charge, _R.NO_CHARGE),
        (_F.DISCHARGE_COLD, cell.limits.degc_min_discharge, _R.NO_DISCHARGE),
    ):
        t.add(
            fault,
            (cold + 2.0, cold + 3.0, 30.0, 60.0, _R.NONE),
            (cold - 0.5, cold + 0.5, 10.0, 60.0, reaction),
            (cold - 3.0, cold - 1.0, 10.0, 60.0, _RAMP),
            30.0,
        )
    # Joule heat at full current warms a cell by 1 K/min, in the cold by 3; a sensor on a cell in runaway sees far more.
    # GB 38031-2025 takes 60 K/min for 3 s, at the cell itself; ours averages half a minute and lags
    t.add(
        _F.TEMPERATURE_RISE,
        (5.0, 4.0, 5.0, 60.0, _R.NONE),
        (10.0, 6.0, 5.0, 60.0, _R.DERATE | _R.COOL),
        (20.0, 10.0, 3.0, 60.0, _OPEN | _R.COOL),
        60.0,
    )
    t.add(
        _F.TEMPERATURE_SPREAD,
        (8.0, 7.0, 60.0, 60.0, _R.NONE),
        (15.0, 12.0, 60.0, 60.0, _R.DERATE),
        (25.0, 20.0, 60.0, 60.0, _RAMP),
        120.0,
    )


def _charge(t: _Table) -> None:
    t.add(
        _F.SOC_LOW,
        (0.03, 0.04, 60.0, 60.0, _R.NONE),
        (0.005, 0.015, 60.0, 60.0, _R.NO_DISCHARGE),
    )
    # the estimate ends at 1.02; full cells are full, not wrong
    t.add(
        _F.SOC_HIGH,
        (0.995, 0.985, 60.0, 60.0, _R.NONE),
        (1.01, 1.0, 60.0, 60.0, _R.NO_CHARGE),
    )
    # 0.29 is the deviation of a cell of which nothing is known
    t.add(
        _F.SOC_UNCERTAIN,
        (0.1, 0.08, 600.0, 60.0, _R.NONE),
        (0.3, 0.25, 3600.0, 60.0, _R.DERATE),
    )


def _safety(t: _Table, cell: CellParameters, basis: Basis) -> None:
    volt = basis.n_series * cell.limits.v_max
    for fault in (_F.INSULATION, _F.INSULATION_POSITIVE, _F.INSULATION_NEGATIVE):
        t.add(
            fault,
            # ohm per volt: 100 is the least of ISO 6469-3 for d.c. and of UL 1973, 500 what a rack should have
            (700.0 * volt, 800.0 * volt, 60.0, 60.0, _R.NONE),
            (500.0 * volt, 600.0 * volt, 30.0, 60.0, _R.NO_CLOSE),
            # a first fault to ground of an unearthed rack is not dangerous yet: time to measure, ramp and open
            (100.0 * volt, 200.0 * volt, 10.0, 60.0, _RAMP),
            30.0,
        )
    t.add(
        _F.INSULATION_INVALID,
        (60.0, 1.0, 0.0, 10.0, _R.NONE),
        (300.0, 1.0, 0.0, 10.0, _R.NO_CLOSE),
        (1800.0, 1.0, 0.0, 10.0, _RAMP),
        3600.0,
    )
    on: Tier = (0.5, 0.5, 0.0, 5.0, _OPEN)
    t.add(_F.INTERLOCK_OPEN, fatal=on, ftti_s=2.0)
    t.add(_F.EMERGENCY_STOP, fatal=on, ftti_s=2.0)
    t.add(_F.GAS_ALARM, fatal=(0.5, 0.5, 2.0, 60.0, _SERVICE | _R.COOL), ftti_s=5.0)
    # no fatal tier: what lost cooling does to cells, their temperatures tell in time (IEC 62619 8.2.4)
    flow = basis.coolant_flow_lpm
    t.add(
        _F.COOLANT_FLOW,
        (0.7 * flow, 0.8 * flow, 30.0, 30.0, _R.NONE),
        (0.4 * flow, 0.5 * flow, 30.0, 30.0, _R.DERATE),
    )
    t.add(
        _F.COOLANT_HOT,
        (47.0, 45.0, 60.0, 60.0, _R.COOL),
        (55.0, 50.0, 60.0, 60.0, _R.DERATE | _R.COOL),
    )
    # water with a half of glycol freezes at -37 degC
    t.add(
        _F.COOLANT_COLD,
        (-20.0, -18.0, 60.0, 60.0, _R.NONE),
        (-30.0, -25.0, 60.0, 60.0, _R.DERATE),
    )


def _contactors(t: _Table, basis: Basis) -> None:
    c, period = basis.capacity_ah, basis.period_s
    feedback = max(1.0, 2.0 * period)  # contactors take 50 ms; the answer is in the sample after the next at the latest
    t.add(_F.CONTACTOR_WELDED, fatal=(0.5, 0.5, feedback, 5.0, _SERVICE), ftti_s=5.0)
    t.add(_F.CONTACTOR_STUCK_OPEN, fatal=(0.5, 0.5, feedback, 5.0, _OPEN), ftti_s=5.0)
    t.add(
        _F.WELD_CURRENT,
        warning=(0.01 * c, 0.005 * c, 10.0, 10.0, _R.NO_CLOSE),
        fatal=(0.02 * c, 0.01 * c, 5.0, 10.0, _SERVICE),
        ftti_s=10.0,
    )
    # the test itself has waited; its verdict needs no debounce
    t.add(_F.WELD_VOLTAGE, fatal=(0.5, 0.5, 0.0, 0.0, _SERVICE), ftti_s=5.0)
    t.add(
        _F.STUCK_OPEN_VOLTAGE,
        warning=(0.05, 0.03, 5.0, 10.0, _R.DERATE),
        fatal=(0.1, 0.05, 5.0, 10.0, _OPEN),
        ftti_s=10.0,
    )
    # a worn contactor still opens: it is replaced at the next service
    t.add(_F.CONTACTOR_WORN, (0.7, 0.6, 0.0, 0.0, _R.NONE), (1.0, 0.9, 0.0, 0.0, _R.NONE))

    # A failed precharge ends itself and may be tried again, so these rows do not latch; the machine counts the attempts
    once = _R.OPEN | _R.NO_CLOSE
    timeout_s = precharge_timeout_s(basis)
    t.add(
        _F.PRECHARGE_TIMEOUT,
        fatal=(timeout_s, 1.0, 0.0, 0.0, once),
        ftti_s=_round(1.2 * (timeout_s + period + 1.0)),
    )
    t.add(_F.PRECHARGE_VOLTAGE, fatal=(0.4, 0.4, max(1.0, 2.0 * period), 0.0, once), ftti_s=5.0)
    t.add(_F.PRECHARGE_CURRENT, fatal=(1.3, 1.3, 0.0, 0.0, once), ftti_s=2.0)
    t.add(
        _F.PRECHARGE_RESISTOR,
        (0.5, 0.4, 0.0, 0.0, _R.NONE),
        (0.8, 0.5, 0.0, 0.0, _R.NO_CLOSE),
        (1.0, 0.5, 0.0, 0.0, once),
        2.0,
    )
    # thresholds lie between whole numbers of attempts
    t.add(
        _F.PRECHARGE_ATTEMPTS,
        (0.5, 0.5, 0.0, 0.0, _R.NONE),
        (basis.precharge_attempts - 0.5, 0.5, 0.0, 0.0, _R.NONE),
    )


def precharge_timeout_s(basis: Basis) -> float:
    """Time for a precharge: ten time constants of resistor and link, the contactors, and a few steps to notice."""
    return _round(2.0 + 10.0 * basis.precharge_rc_s + 5.0 * basis.period_s)


def _lost(t: _Table, basis: Basis) -> None:
    def lost(
        fault: Fault, info_s: float, warning_s: float, fatal_s: float | None, ftti_s: float | None,
        derate: Reaction = _R.DERATE, stop: Reaction = _HELD,
    ) -> None:  # fmt: skip
        """Derate, then limits of 0, then open: the value is the time itself, so it needs no debounce."""
        period = basis.period_s  # one sample that is missing must not be taken for a loss
        info_s, warning_s = max(info_s, 1.5 * period), max(warning_s, 2.5 * period)
        back_s = 0.6 * info_s  # a rack that samples less often than the controller steps is well all the same
        fatal = None if fatal_s is None else (max(fatal_s, 4.5 * period), back_s, 0.0, 5.0, _RAMP)
        t.add(fault, (info_s, back_s, 0.0, 5.0, derate), (warning_s, back_s, 0.0, 5.0, stop), fatal, ftti_s)

    lost(_F.CELL_VOLTAGE_LOST, 3.0, 5.0, 10.0, 30.0)
    lost(_F.TEMPERATURE_LOST, 10.0, 30.0, 60.0, 90.0)  # cells of kilograms change by 1 K in a minute
    lost(_F.CURRENT_LOST, 2.0, 3.0, 5.0, 20.0)
    lost(_F.PACK_VOLTAGE_LOST, 5.0, 10.0, 30.0, 60.0, stop=_R.DERATE | _R.NO_CLOSE)  # the sum of the cells stands in
    # no one closes or tests for welding without it, but what is closed is safe
    lost(_F.BUS_VOLTAGE_LOST, 5.0, 10.0, 300.0, 360.0, _R.NONE, _R.DERATE | _R.NO_CLOSE)
    lost(_F.FEEDBACK_LOST, 3.0, 5.0, 30.0, 60.0, stop=_R.DERATE | _R.NO_CLOSE)
    lost(_F.COOLANT_LOST, 60.0, 300.0, None, None, _R.NONE, _R.DERATE)  # temperatures of the cells remain
    lost(_F.GAS_LOST, 60.0, 300.0, 3600.0, 4200.0, _R.NONE, _R.DERATE | _R.NO_CLOSE)
    lost(_F.BLEED_LOST, 60.0, 300.0, None, None, _R.NONE, _R.NO_BALANCING)
    lost(_F.SAMPLE_LOST, 2.0, 3.0, 5.0, 15.0)


def _plausibility(t: _Table, basis: Basis) -> None:
    c = basis.capacity_ah
    quiet = _R.DERATE | _R.NO_BALANCING
    # a broken wire shifts two neighbours by most of a volt; half of that is more than SoC alone sets two of them apart
    t.add(
        _F.OPEN_SENSE_WIRE,
        (0.15, 0.1, 10.0, 60.0, _R.NONE),
        (0.25, 0.15, 10.0, 60.0, quiet),
        (0.4, 0.2, 10.0, 60.0, _RAMP),
        30.0,
    )
    t.add(
        _F.CELL_VOLTAGE_FROZEN,
        (0.01, 0.005, 10.0, 10.0, _R.NONE),
        (0.03, 0.01, 10.0, 10.0, quiet),
        (0.1, 0.03, 10.0, 10.0, _RAMP),
        30.0,
    )
    t.add(
        _F.TEMPERATURE_FROZEN,
        (1.5, 1.0, 60.0, 10.0, _R.NONE),
        (3.0, 2.0, 60.0, 10.0, _R.DERATE),
        (6.0, 4.0, 60.0, 10.0, _RAMP),
        120.0,
    )
    t.add(
        _F.CURRENT_IMPLAUSIBLE,
        (0.15 * c, 0.1 * c, 10.0, 30.0, _R.NONE),
        (0.25 * c, 0.15 * c, 10.0, 30.0, _R.DERATE),
        (0.5 * c, 0.25 * c, 10.0, 30.0, _RAMP),
        30.0,
    )
    t.add(
        _F.SUM_IMPLAUSIBLE,
        (0.01, 0.007, 10.0, 30.0, _R.NONE),
        (0.02, 0.01, 10.0, 30.0, _R.DERATE | _R.NO_CLOSE),
        (0.05, 0.03, 10.0, 30.0, _RAMP),
        30.0,
    )
    t.add(
        _F.TEMPERATURE_NEIGHBOUR,
        (4.0, 3.0, 60.0, 60.0, _R.NONE),
        (8.0, 6.0, 60.0, 60.0, _R.DERATE),
        (15.0, 10.0, 60.0, 60.0, _RAMP),
        120.0,
    )
    t.add(
        _F.TEMPERATURE_MODEL,
        (5.0, 4.0, 60.0, 60.0, _R.NONE),
        (10.0, 7.0, 60.0, 60.0, _R.DERATE),
        (20.0, 12.0, 60.0, 60.0, _RAMP),
        120.0,
    )
    t.add(
        _F.MODEL_RESIDUAL,
        (0.03, 0.02, 60.0, 60.0, _R.NONE),
        (0.06, 0.04, 60.0, 60.0, _R.DERATE),
        (0.12, 0.08, 60.0, 60.0, _RAMP),
        120.0,
    )
    # what is out of range is not used: the rows of lost data follow
    t.add(
        _F.VALUE_OUT_OF_RANGE,
        (0.5, 0.5, 0.0, 10.0, _R.NONE),
        (0.5, 0.5, 5.0, 10.0, _R.DERATE | _R.NO_CLOSE),
    )
    t.add(
        _F.FEEDBACK_INVALID,
        (0.5, 0.5, 0.0, 10.0, _R.NONE),
        (0.5, 0.5, 3.0, 10.0, _R.DERATE | _R.NO_CLOSE),
        (0.5, 0.5, 10.0, 10.0, _RAMP),
        20.0,
    )


def _health(t: _Table) -> None:
    # the leak is known hours before it does harm; what one cell alone turns into heat: 500 mA are 1.7 W
    t.add(
        _F.CELL_LEAK,
        (50.0, 40.0, 600.0, 3600.0, _R.NONE),
        (150.0, 100.0, 600.0, 3600.0, _R.DERATE),
        (500.0, 300.0, 300.0, 3600.0, _RAMP | _R.SERVICE),
        600.0,
    )
    # shorter than the shortest turn of the interleave, or the timer would never get there
    t.add(
        _F.BLEED_STUCK_ON,
        (0.5, 0.5, 5.0, 600.0, _R.NONE),
        (0.5, 0.5, 10.0, 600.0, _R.NO_BALANCING),
    )
    t.add(
        _F.BLEED_STUCK_OFF,
        (0.5, 0.5, 5.0, 600.0, _R.NONE),
        (0.5, 0.5, 10.0, 600.0, _R.NONE),
    )
    t.add(
        _F.CAPACITY_LOW,
        (0.8, 0.82, 3600.0, 3600.0, _R.NONE),
        (0.6, 0.65, 3600.0, 3600.0, _R.DERATE),
    )
    t.add(
        _F.RESISTANCE_HIGH,
        (2.0, 1.9, 3600.0, 3600.0, _R.NONE),
        (3.0, 2.7, 3600.0, 3600.0, _R.DERATE),
    )
    # bleeding alone never takes a cell below 0 V: a cell that is reversed is driven by current from outside
    t.add(
        _F.TRANSPORT_REVERSED,
        (-0.02, -0.01, 5.0, 10.0, _R.NONE),
        (-0.05, -0.02, 5.0, 10.0, _STOP),
        (-0.1, -0.05, 2.0, 10.0, _OPEN),
        5.0,
    )
    # hard carbon recovers by itself; what rises above half a volt is being charged
    t.add(
        _F.TRANSPORT_VOLTAGE,
        (0.2, 0.15, 600.0, 600.0, _R.NONE),
        (0.5, 0.3, 600.0, 600.0, _R.NO_CLOSE),
    )


def _controller(t: _Table, basis: Basis) -> None:
    # in periods; a desktop that sleeps for a second is no reason to open at ten steps a second
    most = max(10.0, 5.0 / basis.period_s)
    t.add(
        _F.DEADLINE_MISSED,
        (1.5, 1.2, 0.0, 10.0, _R.NONE),
        (0.5 * most, 1.2, 0.0, 10.0, _R.DERATE),
        (most, 1.2, 0.0, 10.0, _RAMP),
        30.0,
    )
    t.add(_F.CONFIG_MISMATCH, warning=(0.5, 0.5, 0.0, 0.0, _R.NONE))
    t.add(_F.CONFIG_DAMAGED, fatal=(0.5, 0.5, 0.0, 0.0, _SERVICE), ftti_s=5.0)
    t.add(_F.RESET_CAUSE, (0.5, 0.5, 0.0, 60.0, _R.NONE), (1.5, 1.5, 0.0, 60.0, _R.NONE))
    t.add(_F.STORE_DAMAGED, (0.5, 0.5, 0.0, 0.0, _R.NONE), (1.5, 1.5, 0.0, 0.0, _R.NONE))
    t.add(
        _F.ESTIMATE_INVALID,
        warning=(0.5, 0.5, 5.0, 10.0, _HELD),
        fatal=(0.5, 0.5, 30.0, 10.0, _RAMP),
        ftti_s=60.0,
    )
