"""Default rows of what watches the measurements, the cells' health and the controller itself."""

from __future__ import annotations

from bms.core.faults import Fault, Reaction
from bms.racks.basis import HELD, OPEN, RAMP, SERVICE, STOP, Basis, R, Table

_F = Fault


def monitoring_rows(t: Table, basis: Basis) -> None:
    """Add them to `t`."""
    _lost(t, basis)
    _plausibility(t, basis)
    _health(t)
    _controller(t, basis)


def _lost(t: Table, basis: Basis) -> None:
    def lost(
        fault: Fault, info_s: float, warning_s: float, fatal_s: float | None, ftti_s: float | None,
        derate: Reaction = R.DERATE, stop: Reaction = HELD,
    ) -> None:  # fmt: skip
        """Derate, then limits of 0, then open: the value is the time itself, so it needs no debounce."""
        period = basis.period_s  # one sample that is missing must not be taken for a loss
        info_s, warning_s = max(info_s, 1.5 * period), max(warning_s, 2.5 * period)
        back_s = 0.6 * info_s  # a rack that samples less often than the controller steps is well all the same
        fatal = None if fatal_s is None else (max(fatal_s, 4.5 * period), back_s, 0.0, 5.0, RAMP)
        t.add(fault, (info_s, back_s, 0.0, 5.0, derate), (warning_s, back_s, 0.0, 5.0, stop), fatal, ftti_s)

    # a cell that is missing now and then must be seen in peace while it is there
    lost(_F.CELL_VOLTAGE_LOST, 3.0, 5.0, 10.0, 30.0, R.DERATE | R.NO_BALANCING, HELD | R.NO_BALANCING)
    lost(_F.TEMPERATURE_LOST, 10.0, 30.0, 60.0, 90.0)  # cells of kilograms change by 1 K in a minute
    lost(_F.CURRENT_LOST, 2.0, 3.0, 5.0, 20.0)
    lost(_F.PACK_VOLTAGE_LOST, 5.0, 10.0, 30.0, 60.0, stop=R.DERATE | R.NO_CLOSE)  # the sum of the cells stands in
    # no one closes or tests for welding without it, but what is closed is safe
    lost(_F.BUS_VOLTAGE_LOST, 5.0, 10.0, 300.0, 360.0, R.NONE, R.DERATE | R.NO_CLOSE)
    lost(_F.FEEDBACK_LOST, 3.0, 5.0, 30.0, 60.0, stop=R.DERATE | R.NO_CLOSE)
    lost(_F.COOLANT_LOST, 60.0, 300.0, None, None, R.NONE, R.DERATE)  # temperatures of the cells remain
    lost(_F.GAS_LOST, 60.0, 300.0, 3600.0, 4200.0, R.NONE, R.DERATE | R.NO_CLOSE)
    lost(_F.BLEED_LOST, 60.0, 300.0, None, None, R.NONE, R.NO_BALANCING)
    lost(_F.SAMPLE_LOST, 2.0, 3.0, 5.0, 15.0)


def _plausibility(t: Table, basis: Basis) -> None:
    c = basis.capacity_ah
    quiet = R.DERATE | R.NO_BALANCING
    # Info lies above the largest value of healthy racks (LFP, sodium-ion, NMC; -10..45 degC), warning at twice that or
    # more: 0.127 V, 9.5 mV, 0.16 K, 0.1 C, 0.12, 0.012 C, 0.5 %, 3.6 K, 2.5 K and 41 mV in this order.
    # A broken wire shifts two neighbours by most of a volt
    t.add(
        _F.OPEN_SENSE_WIRE,
        (0.2, 0.15, 10.0, 60.0, R.NONE),
        (0.3, 0.2, 10.0, 60.0, quiet),
        # quicker than over- and under-voltage, which a broken wire shows too: so the wire is named
        (0.5, 0.3, max(0.5, 2.0 * basis.period_s), 60.0, RAMP),
        20.0,
    )
    t.add(
        _F.CELL_VOLTAGE_FROZEN,
        (0.015, 0.01, 10.0, 10.0, R.NONE),
        (0.025, 0.015, 10.0, 10.0, quiet),
        (0.05, 0.025, 10.0, 10.0, RAMP),
        30.0,
    )
    t.add(
        _F.TEMPERATURE_FROZEN,
        (1.2, 0.8, 60.0, 10.0, R.NONE),
        (2.0, 1.5, 60.0, 10.0, R.DERATE),
        (5.0, 3.0, 60.0, 10.0, RAMP),
        120.0,
    )
    # a reading that stands still keeps its largest value, three times as large after ten seconds
    t.add(
        _F.CURRENT_IMPLAUSIBLE,
        (0.16 * c, 0.12 * c, 5.0, 30.0, R.NONE),
        (0.2 * c, 0.15 * c, 5.0, 30.0, R.DERATE),
        (0.35 * c, 0.2 * c, 5.0, 30.0, RAMP),
        30.0,
    )
    # known only as the current changes, or as charge and voltage part: voltages and temperatures protect meanwhile
    t.add(
        _F.CURRENT_GAIN,
        (0.25, 0.2, 60.0, 60.0, R.NONE),
        (0.35, 0.25, 60.0, 60.0, R.DERATE),
        (0.8, 0.5, 60.0, 60.0, RAMP),
        7200.0,
    )
    t.add(
        _F.CURRENT_OFFSET,
        (0.02 * c, 0.015 * c, 60.0, 600.0, R.NONE),
        (0.03 * c, 0.02 * c, 60.0, 600.0, R.DERATE),
        (0.08 * c, 0.05 * c, 60.0, 600.0, RAMP),
        8.0 * 3600.0,
    )
    # current steps between two samples that are taken one after the other
    t.add(
        _F.SUM_IMPLAUSIBLE,
        (0.01, 0.007, 5.0, 30.0, R.NONE),
        (0.015, 0.01, 5.0, 30.0, R.DERATE | R.NO_CLOSE),
        (0.03, 0.02, 5.0, 30.0, RAMP),
        30.0,
    )
    t.add(
        _F.TEMPERATURE_NEIGHBOUR,
        (5.0, 4.0, 60.0, 60.0, R.NONE),
        (8.0, 6.0, 60.0, 60.0, R.DERATE),
        (15.0, 10.0, 60.0, 60.0, RAMP),
        120.0,
    )
    t.add(
        _F.TEMPERATURE_MODEL,
        (5.0, 4.0, 60.0, 60.0, R.NONE),
        (8.0, 6.0, 60.0, 60.0, R.DERATE),
        (15.0, 10.0, 60.0, 60.0, RAMP),
        120.0,
    )
    t.add(
        _F.MODEL_RESIDUAL,
        (0.06, 0.045, 60.0, 60.0, R.NONE),
        (0.1, 0.07, 60.0, 60.0, R.DERATE),
        (0.2, 0.12, 60.0, 60.0, RAMP),
        120.0,
    )
    # 280 Ah that are shorted by 30 mohm inside sink by 35 to 44 mV within seconds
    t.add(
        _F.CELL_SAG,
        (0.016, 0.011, 5.0, 300.0, R.NO_BALANCING),
        (0.022, 0.015, 5.0, 300.0, R.DERATE | R.COOL | R.NO_BALANCING),
        (0.03, 0.02, 5.0, 300.0, RAMP | R.COOL),
        120.0,
    )
    # a hard short takes half a volt off a cell of 100 Ah; without a reading that stands still, it is half of a sag
    t.add(
        _F.STRING_SAG,
        (0.08, 0.05, 5.0, 60.0, R.NONE),
        (0.12, 0.08, 5.0, 60.0, R.DERATE | R.COOL),
        (0.16, 0.12, 3.0, 60.0, RAMP | R.COOL),
        30.0,
    )
    # what is out of range is not used: the rows of lost data follow
    t.add(
        _F.VALUE_OUT_OF_RANGE,
        (0.5, 0.5, 0.0, 10.0, R.NONE),
        (0.5, 0.5, 5.0, 10.0, R.DERATE | R.NO_CLOSE),
    )
    t.add(
        _F.FEEDBACK_INVALID,
        (0.5, 0.5, 0.0, 10.0, R.NONE),
        (0.5, 0.5, 3.0, 10.0, R.DERATE | R.NO_CLOSE),
        (0.5, 0.5, 10.0, 10.0, RAMP),
        20.0,
    )


def _health(t: Table) -> None:
    # the leak is known hours before it does harm; what one cell alone turns into heat: 500 mA are 1.7 W. One of
    # 352 sodium-ion cells that are cycled at 1C and 5 degC looks for a day as if it leaked 120 mA
    t.add(
        _F.CELL_LEAK,
        (50.0, 40.0, 600.0, 3600.0, R.NONE),
        (200.0, 130.0, 600.0, 3600.0, R.DERATE),
        (500.0, 300.0, 300.0, 3600.0, RAMP | R.SERVICE),
        600.0,
    )
    # shorter than the shortest turn of the interleave, or the timer would never get there
    t.add(
        _F.BLEED_STUCK_ON,
        (0.5, 0.5, 5.0, 600.0, R.NONE),
        (0.5, 0.5, 10.0, 600.0, R.NO_BALANCING),
    )
    t.add(
        _F.BLEED_STUCK_OFF,
        (0.5, 0.5, 5.0, 600.0, R.NONE),
        (0.5, 0.5, 10.0, 600.0, R.NONE),
    )
    t.add(
        _F.CAPACITY_LOW,
        (0.8, 0.82, 3600.0, 3600.0, R.NONE),
        (0.6, 0.65, 3600.0, 3600.0, R.DERATE),
    )
    t.add(
        _F.RESISTANCE_HIGH,
        # the filter follows a resistance to twice its type's, and no further
        (1.6, 1.5, 3600.0, 3600.0, R.NONE),
        (1.95, 1.8, 3600.0, 3600.0, R.DERATE),
    )
    # bleeding alone never takes a cell below 0 V: a cell that is reversed is driven by current from outside
    t.add(
        _F.TRANSPORT_REVERSED,
        (-0.02, -0.01, 5.0, 10.0, R.NONE),
        (-0.05, -0.02, 5.0, 10.0, STOP),
        (-0.1, -0.05, 2.0, 10.0, OPEN),
        5.0,
    )
    # hard carbon recovers by itself; what rises above half a volt is being charged
    t.add(
        _F.TRANSPORT_VOLTAGE,
        (0.2, 0.15, 600.0, 600.0, R.NONE),
        (0.5, 0.3, 600.0, 600.0, R.NO_CLOSE),
    )


def _controller(t: Table, basis: Basis) -> None:
    # in periods; a desktop that sleeps for a second is no reason to open at ten steps a second
    most = max(10.0, 5.0 / basis.period_s)
    t.add(
        _F.DEADLINE_MISSED,
        (1.5, 1.2, 0.0, 10.0, R.NONE),
        (0.5 * most, 1.2, 0.0, 10.0, R.DERATE),
        (most, 1.2, 0.0, 10.0, RAMP),
        30.0,
    )
    t.add(_F.CONFIG_MISMATCH, warning=(0.5, 0.5, 0.0, 0.0, R.NO_CLOSE))
    t.add(_F.CONFIG_DAMAGED, fatal=(0.5, 0.5, 0.0, 0.0, SERVICE), ftti_s=5.0)
    t.add(_F.RESET_CAUSE, (0.5, 0.5, 0.0, 0.0, R.NONE), (2.5, 2.5, 0.0, 0.0, R.NONE))
    t.add(_F.STORE_DAMAGED, (0.5, 0.5, 0.0, 0.0, R.NONE), (1.5, 1.5, 0.0, 0.0, R.NONE))
    t.add(
        _F.ESTIMATE_INVALID,
        warning=(0.5, 0.5, 5.0, 10.0, HELD),
        fatal=(0.5, 0.5, 30.0, 10.0, RAMP),
        ftti_s=60.0,
    )
