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

import numpy as np

from bms.cells import CellParameters
from bms.core.faults import Fault, Row
from bms.racks.basis import OPEN, RAMP, SERVICE, STOP, Basis, R, Table, Tier, rounded
from bms.racks.rows_monitoring import monitoring_rows

_F = Fault

SODIUM = ("na_layered", "na_pba", "na_nfpp")
"""Chemistries that bear 0 V: no copper that would dissolve."""


def default_rows(cell: CellParameters, basis: Basis) -> list[Row]:
    """The rows of every fault for `cell` in a rack as `basis` tells, in the order of their ids."""
    table = Table()
    _voltages(table, cell, basis)
    _currents(table, basis)
    _temperatures(table, cell, basis)
    _charge(table)
    _safety(table, cell, basis)
    _contactors(table, basis)
    monitoring_rows(table, basis)
    return sorted(table.rows, key=lambda row: row.id)


def _voltages(t: Table, cell: CellParameters, basis: Basis) -> None:
    low, high, n = cell.v_min, cell.limits.v_max, basis.n_series
    t.add(
        _F.CELL_OVERVOLTAGE,
        (high, high - 0.02, 5.0, 10.0, R.NONE),
        (high + 0.02, high - 0.01, 2.0, 10.0, R.NO_CHARGE),
        # 50 mV: plating and electrolyte oxidation set in slowly here, and far below the 1.1 x V of GB 44240-2024 8.3
        (high + 0.05, high, 1.5, 10.0, OPEN),
        4.0,  # the foxBMS example: 3.5 s to detect, 0.5 s to react
    )
    t.add(
        _F.CELL_UNDERVOLTAGE,
        (low + 0.05, low + 0.1, 5.0, 10.0, R.NONE),
        (low - 0.02, low + 0.03, 2.0, 10.0, R.NO_DISCHARGE),
        # an empty cell is in no hurry: time for the ramp
        (low - 0.1, low - 0.05, 1.5, 10.0, RAMP),
        10.0,
    )
    # copper of the anode's collector dissolves below; sodium-ion has aluminium there and is only lost track of
    reaction = OPEN if cell.chemistry in SODIUM else SERVICE
    t.add(_F.DEEP_DISCHARGE, fatal=(low - 0.5, low - 0.4, 1.5, 60.0, reaction), ftti_s=4.0)
    # the string's mean cell: its sum catches what a wrong scale of all cell voltages hides
    t.add(
        _F.PACK_OVERVOLTAGE,
        (n * high, n * (high - 0.02), 5.0, 10.0, R.NONE),
        (n * (high + 0.015), n * (high - 0.01), 2.0, 10.0, R.NO_CHARGE),
        (n * (high + 0.04), n * high, 1.0, 10.0, OPEN),
        4.0,
    )
    t.add(
        _F.PACK_UNDERVOLTAGE,
        (n * (low + 0.05), n * (low + 0.1), 5.0, 10.0, R.NONE),
        (n * (low - 0.015), n * (low + 0.03), 2.0, 10.0, R.NO_DISCHARGE),
        (n * (low - 0.08), n * (low - 0.04), 1.0, 10.0, RAMP),
        10.0,
    )
    # cells that are apart by a tenth of their SoC, by a fifth, and by more than the curve explains; healthy ones reach
    # a third of the middle one
    info, warning = spread_v(cell, 0.1) + 0.01, spread_v(cell, 0.2) + 0.02
    fatal = 1.2 * spread_v(cell, 0.3) + 0.15
    t.add(
        _F.VOLTAGE_SPREAD,
        (info, 0.8 * info, 60.0, 60.0, R.NONE),
        (warning, 0.9 * warning, 300.0, 60.0, R.DERATE),
        (fatal, 0.9 * fatal, 300.0, 60.0, RAMP),
        600.0,
    )


def spread_v(cell: CellParameters, share: float) -> float:
    """Largest difference of the open-circuit voltages of two cells whose SoC differs by `share`, at 25 degC.

    The ends of the curve are left out, where healthy cells fan out; the signal is not looked at there.
    """
    curve = np.array([cell.ocv(z) for z in np.linspace(0.15, 0.95, 161)])
    steps = round(share * 200)
    return float(np.max(curve[steps:] - curve[:-steps]))


def heating_k_per_min(cell: CellParameters, basis: Basis) -> float:
    """How fast the largest current warms a cell at 25 degC without cooling: I^2 R / C, C = 19 J/K for each Ah."""
    current_a = max(basis.charge_a, basis.discharge_a) / basis.capacity_ah * cell.capacity_ah
    tables = (cell.r0_ohm, cell.rct_ohm, *cell.r_ohm)
    ohm = sum(float(np.interp(25.0, cell.degc, np.median(table, axis=1))) for table in tables)
    return 60.0 * current_a**2 * ohm / (19.0 * cell.capacity_ah)


def _currents(t: Table, basis: Basis) -> None:
    c = basis.capacity_ah
    for fault, rated in ((_F.DISCHARGE_CURRENT, basis.discharge_a), (_F.CHARGE_CURRENT, basis.charge_a)):
        t.add(
            fault,
            (1.05 * rated, 1.02 * rated, 10.0, 10.0, R.NONE),
            (1.1 * rated, 1.05 * rated, 5.0, 10.0, R.DERATE),
            # below the 120 % at which IEC 62619 8.2.3 and GB 44240-2024 8.4 look
            (1.15 * rated, 1.05 * rated, 2.0, 10.0, OPEN),
            5.0,
        )
    for fault in (_F.DISCHARGE_I2T, _F.CHARGE_I2T):
        t.add(
            fault,
            (0.5, 0.4, 0.0, 10.0, R.NONE),
            (0.8, 0.6, 0.0, 10.0, R.DERATE),
            (1.0, 0.5, 0.0, 10.0, OPEN),
            5.0,
        )
    # the fuse is faster; this keeps the rack open after it, and acts where the arc of a bad contact limits the current
    worst = max(basis.charge_a, basis.discharge_a)
    short = min(3.0 * worst, max(0.9 * basis.current_range_a, 1.3 * worst))
    t.add(_F.SHORT_CIRCUIT, fatal=(short, worst, 0.0, 10.0, SERVICE), ftti_s=2.0)
    for fault in (_F.DISCHARGE_LIMIT, _F.CHARGE_LIMIT):
        t.add(
            fault,
            (0.05 * c, 0.02 * c, 5.0, 10.0, R.NONE),
            (0.1 * c, 0.05 * c, 10.0, 10.0, R.DERATE),
            # an inverter that does not follow: what it still does is inside every other limit, hence the time
            (0.2 * c, 0.05 * c, 15.0, 10.0, RAMP),
            30.0,
        )


def _temperatures(t: Table, cell: CellParameters, basis: Basis) -> None:
    hot = cell.limits.degc_max
    # IEC 62619 8.2.4 and GB 44240-2024 8.6 heat to the limit + 5 degC while charging: fatal comes before
    t.add(
        _F.CHARGE_HOT,
        (hot - 5.0, hot - 7.0, 30.0, 60.0, R.COOL),
        (hot, hot - 3.0, 10.0, 60.0, R.NO_CHARGE | R.COOL),
        (hot + 2.0, hot - 3.0, 5.0, 60.0, RAMP | R.COOL),
        30.0,  # a sensor lags by 20 s
    )
    t.add(
        _F.DISCHARGE_HOT,
        (hot - 3.0, hot - 5.0, 30.0, 60.0, R.COOL),
        (hot + 1.0, hot - 2.0, 10.0, 60.0, STOP | R.NO_BALANCING | R.COOL),
        (hot + 4.0, hot - 3.0, 5.0, 60.0, RAMP | R.NO_BALANCING | R.COOL),
        30.0,
    )
    # half a degree below: what sensors are off by; the limit has reached 0 at the limit itself
    for fault, cold, reaction in (
        (_F.CHARGE_COLD, cell.limits.degc_min_charge, R.NO_CHARGE),
        (_F.DISCHARGE_COLD, cell.limits.degc_min_discharge, R.NO_DISCHARGE),
    ):
        t.add(
            fault,
            (cold + 2.0, cold + 3.0, 30.0, 60.0, R.NONE),
            (cold - 0.5, cold + 0.5, 10.0, 60.0, reaction),
            (cold - 3.0, cold - 1.0, 10.0, 60.0, RAMP),
            30.0,
        )
    # Joule heat at full current, three times as much in the cold; healthy racks reach a third of the warning. A cell in
    # runaway is far beyond: GB 38031-2025 takes 60 K/min for 3 s, at the cell itself; ours averages half a minute and
    # lags. A sensor that jumps for good is past after five seconds
    warm = heating_k_per_min(cell, basis)
    t.add(
        _F.TEMPERATURE_RISE,
        (max(2.0, 2.0 * warm), max(1.5, 1.5 * warm), 5.0, 60.0, R.NONE),
        (max(3.0, 3.0 * warm), max(2.0, 2.0 * warm), 5.0, 60.0, R.DERATE | R.COOL),
        (max(6.0, 6.0 * warm), max(3.0, 3.0 * warm), 5.0, 60.0, OPEN | R.COOL),
        60.0,
    )
    # GB 38031-2025: for more than 3 s; GB/T 36276-2023: three in a row
    t.add(_F.RUNAWAY, fatal=(3.0, 0.5, 0.0, 60.0, SERVICE | R.COOL), ftti_s=10.0)
    t.add(_F.RUNAWAY_RATES, fatal=(2.5, 0.5, 0.0, 60.0, SERVICE | R.COOL), ftti_s=10.0)
    t.add(
        _F.HEAT_RESIDUAL,
        # healthy racks reach 11 W
        (15.0, 10.0, 60.0, 60.0, R.NONE),
        (25.0, 18.0, 60.0, 60.0, R.DERATE | R.COOL),
        (60.0, 40.0, 60.0, 60.0, RAMP | R.COOL | R.SERVICE),
        600.0,
    )
    t.add(
        _F.CELL_HOT,
        # healthy racks of ten years reach 7 K; a spread of resistances of 15 % reaches 19 K until it has been learnt
        (8.0, 6.0, 10.0, 300.0, R.NONE),
        (14.0, 10.0, 10.0, 300.0, R.DERATE | R.COOL),
        (20.0, 15.0, 10.0, 300.0, RAMP | R.COOL),
        120.0,
    )
    t.add(
        _F.TEMPERATURE_SPREAD,
        (8.0, 7.0, 60.0, 60.0, R.NONE),
        (12.0, 10.0, 60.0, 60.0, R.DERATE),
        (20.0, 15.0, 60.0, 60.0, RAMP),
        120.0,
    )


def _charge(t: Table) -> None:
    # the estimate ends at -0.02 and 1.02: empty and full are no faults, beyond them it contradicts the voltages
    t.add(
        _F.SOC_LOW,
        (0.03, 0.04, 60.0, 60.0, R.NONE),
        (-0.01, 0.0, 60.0, 60.0, R.NO_DISCHARGE),
    )
    t.add(
        _F.SOC_HIGH,
        (0.995, 0.985, 60.0, 60.0, R.NONE),
        (1.01, 1.0, 60.0, 60.0, R.NO_CHARGE),
    )
    # 0.29 is the deviation of a cell of which nothing is known
    t.add(
        _F.SOC_UNCERTAIN,
        (0.15, 0.12, 600.0, 60.0, R.NONE),
        (0.3, 0.25, 3600.0, 60.0, R.DERATE),
    )


def _safety(t: Table, cell: CellParameters, basis: Basis) -> None:
    volt = basis.n_series * cell.limits.v_max
    for fault in (_F.INSULATION, _F.INSULATION_POSITIVE, _F.INSULATION_NEGATIVE):
        t.add(
            fault,
            # ohm per volt: 100 is the least of ISO 6469-3 for d.c. and of UL 1973, 500 what a rack should have
            (700.0 * volt, 800.0 * volt, 60.0, 60.0, R.NONE),
            (500.0 * volt, 600.0 * volt, 30.0, 60.0, R.NO_CLOSE),
            # a first fault to ground of an unearthed rack is not dangerous yet: time to measure, ramp and open
            (100.0 * volt, 200.0 * volt, 10.0, 60.0, RAMP),
            30.0,
        )
    t.add(
        _F.INSULATION_INVALID,
        (30.0, 18.0, 0.0, 10.0, R.NONE),
        (60.0, 18.0, 0.0, 10.0, R.NO_CLOSE),
        (1800.0, 18.0, 0.0, 10.0, RAMP),
        3600.0,
    )
    on: Tier = (0.5, 0.5, 0.0, 5.0, OPEN)
    t.add(_F.INTERLOCK_OPEN, fatal=on, ftti_s=2.0)
    t.add(_F.EMERGENCY_STOP, fatal=on, ftti_s=2.0)
    t.add(_F.GAS_ALARM, fatal=(0.5, 0.5, 2.0, 60.0, SERVICE | R.COOL), ftti_s=5.0)
    # no fatal tier: what lost cooling does to cells, their temperatures tell in time (IEC 62619 8.2.4)
    flow = basis.coolant_flow_lpm
    t.add(
        _F.COOLANT_FLOW,
        (0.7 * flow, 0.8 * flow, 30.0, 30.0, R.NONE),
        (0.4 * flow, 0.5 * flow, 30.0, 30.0, R.DERATE),
    )
    t.add(
        _F.COOLANT_HOT,
        (47.0, 45.0, 60.0, 60.0, R.COOL),
        (55.0, 50.0, 60.0, 60.0, R.DERATE | R.COOL),
    )
    # water with a half of glycol freezes at -37 degC
    t.add(
        _F.COOLANT_COLD,
        (-20.0, -18.0, 60.0, 60.0, R.NONE),
        (-30.0, -25.0, 60.0, 60.0, R.DERATE),
    )


def _contactors(t: Table, basis: Basis) -> None:
    c, period = basis.capacity_ah, basis.period_s
    feedback = max(1.0, 2.0 * period)  # contactors take 50 ms; the answer is in the sample after the next at the latest
    t.add(_F.CONTACTOR_WELDED, fatal=(0.5, 0.5, feedback, 5.0, SERVICE), ftti_s=5.0)
    t.add(_F.CONTACTOR_STUCK_OPEN, fatal=(0.5, 0.5, feedback, 5.0, OPEN), ftti_s=5.0)
    t.add(
        _F.WELD_CURRENT,
        warning=(0.01 * c, 0.005 * c, 10.0, 10.0, R.NO_CLOSE),
        fatal=(0.02 * c, 0.01 * c, 5.0, 10.0, SERVICE),
        ftti_s=10.0,
    )
    # the test itself has waited; its verdict needs no debounce
    t.add(_F.WELD_VOLTAGE, fatal=(0.5, 0.5, 0.0, 0.0, SERVICE), ftti_s=5.0)
    t.add(
        _F.STUCK_OPEN_VOLTAGE,
        warning=(0.05, 0.03, 5.0, 10.0, R.DERATE),
        fatal=(0.1, 0.05, 5.0, 10.0, OPEN),
        ftti_s=10.0,
    )
    # a worn contactor still opens: it is replaced at the next service
    t.add(_F.CONTACTOR_WORN, (0.7, 0.6, 0.0, 0.0, R.NONE), (1.0, 0.9, 0.0, 0.0, R.NONE))

    # A failed precharge ends itself and may be tried again, so these rows do not latch; the machine counts the attempts
    once = R.OPEN | R.NO_CLOSE
    timeout_s = precharge_timeout_s(basis)
    t.add(
        _F.PRECHARGE_TIMEOUT,
        fatal=(timeout_s, 1.0, 0.0, 0.0, once),
        ftti_s=rounded(1.2 * (timeout_s + period + 1.0)),
    )
    t.add(_F.PRECHARGE_VOLTAGE, fatal=(0.4, 0.4, max(1.0, 2.0 * period), 0.0, once), ftti_s=5.0)
    t.add(_F.PRECHARGE_CURRENT, fatal=(1.3, 1.3, 0.0, 0.0, once), ftti_s=2.0)
    t.add(
        _F.PRECHARGE_RESISTOR,
        (0.5, 0.4, 0.0, 0.0, R.NONE),
        (0.8, 0.5, 0.0, 0.0, R.NO_CLOSE),
        (1.0, 0.5, 0.0, 0.0, once),
        2.0,
    )
    # a little before the machine's own time-out, so that its FAULT has a cause
    latest_s = basis.self_test_s - max(1.0, 2.0 * period)
    t.add(
        _F.SELF_TEST,
        warning=(0.5 * latest_s, 0.0, 0.0, 0.0, R.NONE),
        fatal=(latest_s, 0.0, 0.0, 0.0, RAMP),
        ftti_s=rounded(1.4 * basis.self_test_s),
    )
    # thresholds lie between whole numbers of attempts
    t.add(
        _F.PRECHARGE_ATTEMPTS,
        (0.5, 0.5, 0.0, 0.0, R.NONE),
        (basis.precharge_attempts - 0.5, 0.5, 0.0, 0.0, R.NONE),
    )


def precharge_timeout_s(basis: Basis) -> float:
    """Time for a precharge: ten time constants of resistor and link, and three steps for each of its four stages.

    A sound one takes four time constants and two steps for each stage: 10 s for RC = 0.5 s and steps of a second.
    """
    return rounded(2.0 + 10.0 * basis.precharge_rc_s + 12.0 * basis.period_s)
