"""Lints of the parts' settings: sensors, precharge, contactors, balancing, limits, cooling, against each other."""

from __future__ import annotations

import math
from itertools import pairwise

from bms.core.faults import ABOUT, Fault
from bms.core.machine_setup import bearable_v, link_fall, rated_current_a, string_ohm
from bms.core.power_setup import Polyline, polylines
from bms.racks.findings import Findings
from bms.racks.lint_rows import MARGIN
from bms.racks.lint_thresholds import bears_0_v
from bms.racks.rows import precharge_timeout_s
from hal.contract import Severity

_F = Fault
_FATAL, _WARNING = Severity.FATAL, Severity.WARNING

BUS_ERROR = 0.005
"""What two voltage sensors of a string are off from each other, share."""

BLEED_C = 0.01
"""More than this is no trickle: it warms boards, and an error of the estimate is soon a discharge."""


def lint(f: Findings) -> None:
    """All of them."""
    _sensors(f)
    _ages(f)
    _precharge(f)
    _weld_test(f)
    _contactors(f)
    _fuse(f)
    _transport(f)
    _balancing(f)
    _limits(f)
    _derating(f)
    _cooling(f)


def _sensors(f: Findings) -> None:
    """Every threshold must be something that its sensor can show."""
    s, basis, n = f.config.signals, f.config.basis, f.config.rack.n_series
    pack = (
        n * s.cell_v_min_v if s.pack_v_min_v is None else s.pack_v_min_v,
        n * s.cell_v_max_v if s.pack_v_max_v is None else s.pack_v_max_v,
    )
    cells = ("cell_v", s.cell_v_min_v, s.cell_v_max_v)
    string = ("pack_v", *pack)
    sensor = ("sensor", s.sensor_min_degc, s.sensor_max_degc)
    current = ("current_range_c", -basis.current_range_a, basis.current_range_a)
    coolant = ("coolant", s.coolant_min_degc, s.coolant_max_degc)
    insulation = ("insulation_max_ohm", 0.0, s.insulation_max_ohm)
    ranges = {
        _F.CELL_OVERVOLTAGE: cells, _F.CELL_UNDERVOLTAGE: cells, _F.DEEP_DISCHARGE: cells, _F.TRANSPORT_REVERSED: cells,
        _F.PACK_OVERVOLTAGE: string, _F.PACK_UNDERVOLTAGE: string,
        _F.DISCHARGE_CURRENT: current, _F.CHARGE_CURRENT: current, _F.SHORT_CIRCUIT: current,
        _F.CHARGE_HOT: sensor, _F.DISCHARGE_HOT: sensor, _F.CHARGE_COLD: sensor, _F.DISCHARGE_COLD: sensor,
        _F.COOLANT_HOT: coolant, _F.COOLANT_COLD: coolant, _F.COOLANT_FLOW: ("flow_max_lpm", 0.0, s.flow_max_lpm),
        _F.INSULATION: insulation, _F.INSULATION_POSITIVE: insulation, _F.INSULATION_NEGATIVE: insulation,
    }  # fmt: skip
    for fault, (key, low, high) in ranges.items():
        for row in f.tiers(fault):
            if low < row.threshold < high:
                continue
            unit = ABOUT[fault].unit
            note = f.row_error if row.severity is _FATAL else f.row_warning
            note(
                row, "threshold", row.threshold,
                f"dead row: the sensor shows {low:g}..{high:g} {unit} (signals.{key}...), so this is never seen",
                "take a threshold inside the range, or correct the range of the sensor",
            )  # fmt: skip
    high, v_max = s.cell_v_max_v, f.config.cell.limits.v_max
    if high < 1.1 * v_max:
        f.error(
            "signals.cell_v_max_v", high, f"the sensor ends near the cell's v_max = {v_max:g} V",
            f"a range of 1.1 x v_max = {1.1 * v_max:.3g} V or more is needed to see over-voltage",
        )  # fmt: skip


def _ages(f: Findings) -> None:
    s, period = f.config.signals, f.config.timing.period_s
    if s.max_age_s < period:
        f.error(
            "signals.max_age_s", s.max_age_s,
            f"values are too old before the next sample comes, timing.period_s = {period:g} s",
            f"take at least {2 * period:g} s",
        )  # fmt: skip
    for fault in Fault:
        if not fault.name.endswith("_LOST"):
            continue
        for row in f.tiers(fault):
            if row.threshold < period:
                f.row_error(
                    row, "threshold", row.threshold,
                    f"one sample that is missing counts as a loss, timing.period_s = {period:g} s",
                    f"take at least {2.5 * period:g} s",
                )  # fmt: skip
    b = f.config.balancing
    if b.bleed_off_s < 3 * period:
        f.warning(
            "balancing.bleed_off_s", b.bleed_off_s,
            f"leaves no step in which all cells are measured undisturbed, timing.period_s = {period:g} s",
            f"take at least {3 * period:g} s",
        )  # fmt: skip
    for row in f.tiers(_F.BLEED_STUCK_OFF):
        if row.set_s > b.bleed_on_s:
            f.row_warning(
                row, "set_s", row.set_s,
                f"dead row: after balancing.bleed_on_s = {b.bleed_on_s:g} s every switch is off anyway",
                f"take less than {b.bleed_on_s:g} s",
            )  # fmt: skip
    fatal = f.row(_F.CELL_VOLTAGE_LOST, _FATAL)
    if fatal is not None and s.max_age_s > fatal.threshold:
        f.warning(
            "signals.max_age_s", s.max_age_s,
            f"a voltage counts as fresh for longer than its loss is borne, {fatal.threshold:g} s",
            "take 2 s, or twice the time of a scan",
        )  # fmt: skip


def _precharge(f: Findings) -> None:
    m, period = f.config.machine, f.config.timing.period_s
    rc_s = m.precharge_ohm * m.link_f
    done_s = -rc_s * math.log(m.precharge_ratio)
    what = f"RC = {m.precharge_ohm:g} ohm x {m.link_f:g} F = {rc_s:.3g} s"
    # the state machine waits for the link alone, the fault for all four stages of closing, two steps each
    limits = [(m.precharge_time_out_s, "machine.precharge_time_out_s", 3)]
    row = f.row(_F.PRECHARGE_TIMEOUT, _FATAL)
    if row is not None:
        limits.append((row.threshold, "fault.precharge_timeout.fatal.threshold", 8))
    for time_s, key, steps in limits:
        if time_s < 5 * rc_s:
            f.error(
                key, time_s, f"shorter than five time constants, {5 * rc_s:.3g} s: {what}",
                f"take {precharge_timeout_s(f.config.basis):.3g} s, or a smaller machine.precharge_ohm",
            )  # fmt: skip
        elif time_s < done_s + steps * period:
            f.error(
                key, time_s,
                f"the link is charged after {done_s:.3g} s at the earliest ({what}), and {steps} steps are needed",
                f"take {precharge_timeout_s(f.config.basis):.3g} s",
            )  # fmt: skip
    pack_v = f.config.rack.n_series * f.config.cell.limits.v_max
    once_j = 0.5 * m.link_f * pack_v**2
    if once_j > m.resistor_restart * m.resistor_j:
        f.error(
            "machine.resistor_j", m.resistor_j,
            f"one precharge leaves {once_j:.3g} J (C V^2 / 2 at {pack_v:g} V) in the resistor, "
            f"and above {m.resistor_restart * m.resistor_j:.3g} J no other may begin",
            f"a resistor for {3 * once_j:.2g} J or more is needed, or a smaller link",
        )  # fmt: skip
    elif m.precharge_attempts * once_j > m.resistor_j:
        f.error(
            "machine.precharge_attempts", m.precharge_attempts,
            f"so many attempts leave {m.precharge_attempts * once_j:.3g} J in a resistor that bears {m.resistor_j:g} J",
            f"take {int(m.resistor_j / once_j)}, or a larger resistor (machine.resistor_j)",
        )  # fmt: skip
    _inrush(f)
    if m.precharge_ratio > 0.05:
        f.warning(
            "machine.precharge_ratio", m.precharge_ratio,
            f"the mains close onto a difference of {m.precharge_ratio * pack_v:.3g} V: that is hard on their contacts",
            "take 0.02",
        )  # fmt: skip
    if m.contactor_time_out_s < 2 * period:
        f.error(
            "machine.contactor_time_out_s", m.contactor_time_out_s,
            f"over before the feedback can have come, timing.period_s = {period:g} s",
            f"take at least {3 * period:g} s",
        )  # fmt: skip


def _inrush(f: Findings) -> None:
    """The floor for the link must not be more than the contactors bear, which is all that the machine lets it be."""
    m, rack, cell = f.config.machine, f.config.rack, f.config.cell
    ohm = string_ohm(cell.r0_ohm, rack.n_series, rack.n_parallel)
    rated_a = rated_current_a(cell.limits, f.config.basis.capacity_ah, m)
    most_v, floor_v = bearable_v(rated_a, ohm), m.precharge_floor_v
    if floor_v is not None and floor_v > max(most_v, m.precharge_ratio * rack.n_series * cell.limits.v_max):
        f.warning(
            "machine.precharge_floor_v", floor_v,
            f"across the {1e3 * ohm:.3g} mohm of {rack.n_series} groups this is {floor_v / ohm:.3g} A of inrush, more "
            f"than the {rated_a:.3g} A of the contactors (machine.contactor_rated_a): the mains close within "
            f"{most_v:.2g} V, or precharge_ratio of the string voltage, only",
            f"take {most_v:.2g}, or leave it out",
        )  # fmt: skip


def _weld_test(f: Findings) -> None:
    m = f.config.machine
    fall = m.weld_drop * link_fall(m)
    if m.weld_test and fall < BUS_ERROR:
        tau_s = m.link_f * m.link_bleed_ohm
        f.error(
            "machine.weld_test_s", m.weld_test_s,
            f"the link (RC = {tau_s:.3g} s) falls by {100 * link_fall(m):.2g} % in this time: too little to see",
            f"take {-tau_s * math.log1p(-2 * BUS_ERROR / m.weld_drop):.2g} s, or a smaller machine.link_bleed_ohm",
        )  # fmt: skip


def _contactors(f: Findings) -> None:
    m, break_a = f.config.machine, f.config.rack.contactor_break_a
    if break_a is not None:
        for fault in (_F.DISCHARGE_CURRENT, _F.CHARGE_CURRENT):
            row = f.row(fault, _FATAL)
            if row is not None and row.threshold > break_a:
                f.row_error(
                    row, "threshold", row.threshold,
                    f"contactors that break {break_a:g} A (rack.contactor_break_a) would be opened at more, and weld",
                    f"take less than {break_a:g} A, or contactors that break more",
                )  # fmt: skip
    for fault in (_F.CONTACTOR_WELDED, _F.CONTACTOR_STUCK_OPEN):
        row = f.row(fault, _FATAL)
        if row is not None and row.set_s < m.contactor_actuation_s:
            f.row_error(
                row, "set_s", row.set_s,
                f"shorter than machine.contactor_actuation_s = {m.contactor_actuation_s:g} s: all switching is a fault",
                f"take {max(1.0, 2 * f.config.timing.period_s):g} s",
            )  # fmt: skip
    limits = f.config.limits
    least_s = limits.ramp_s + 2.0 * f.config.timing.period_s  # for the last of the ramp to act, and to be seen
    if m.ramp_time_out_s < least_s:
        f.warning(
            "machine.ramp_time_out_s", m.ramp_time_out_s,
            f"over before the limits have ramped to 0 in limits.ramp_s = {limits.ramp_s:g} s: they open under load",
            f"take {least_s:g} s or more, or a shorter ramp",
        )  # fmt: skip


def _fuse(f: Findings) -> None:
    """The heat budget must not fill at currents that are allowed for ever, and must fill before others are reached."""
    s, basis, limits = f.config.signals, f.config.basis, f.config.cell.limits
    for key, rated_c, most_a in (
        ("rated_charge_c", s.rated_charge_c or limits.max_charge_c, basis.charge_a),
        ("rated_discharge_c", s.rated_discharge_c or limits.max_discharge_c, basis.discharge_a),
    ):
        rated_a = rated_c * basis.capacity_ah
        filled = (s.overload**2 - 1) * s.i2t_tau_s * (1 - math.exp(-s.overload_s / s.i2t_tau_s))
        settles = ((most_a / rated_a) ** 2 - 1) * s.i2t_tau_s  # where the heat of a current for ever ends
        pulse = f.config.limits.pulse_discharge if "discharge" in key else f.config.limits.pulse_charge
        if settles > filled and pulse <= 1:
            f.error(
                f"signals.{key}", rated_c,
                f"{most_a:g} A, which the limits allow for ever, fills the heat budget of fuse and contactors "
                f"({rated_a:g} A for ever, {s.overload:g} times that for {s.overload_s:g} s)",
                f"lower limits.max_{key.split('_')[1]}_c to {rated_c:g}, or correct the rating",
            )  # fmt: skip


def _transport(f: Findings) -> None:
    m, chemistry = f.config.machine, f.config.cell.chemistry
    if m.transport_allowed and not bears_0_v(chemistry):
        f.error(
            "machine.transport_allowed", True, f"{chemistry} cells are destroyed at 0 V: copper dissolves",
            "set it to false; only sodium-ion cells with aluminium on both sides bear it",
        )  # fmt: skip
    low = f.row(_F.TRANSPORT_VOLTAGE, _WARNING)
    if m.transport_allowed and low is not None and low.threshold <= m.transport_v:
        f.row_warning(
            low, "threshold", low.threshold, f"cells are empty at machine.transport_v = {m.transport_v:g} V, not below",
            f"take {3 * m.transport_v:g} V or more",
        )  # fmt: skip


def _balancing(f: Findings) -> None:
    b, cell, basis = f.config.balancing, f.config.cell, f.config.basis
    v_max = cell.limits.v_max
    one_w = v_max**2 / b.bleed_ohm
    bleed_a = v_max / b.bleed_ohm
    if b.board_w < one_w:
        f.error(
            "balancing.board_w", b.board_w,
            f"less than the {one_w:.3g} W of a single cell, {v_max:g} V at balancing.bleed_ohm = {b.bleed_ohm:g}: "
            "nothing could be bled",
            f"take {1.05 * one_w:.2g} W, if the board bears it, or a larger resistor",
        )  # fmt: skip
    elif b.board_w > b.board_cells * one_w:
        f.warning(
            "balancing.board_w", b.board_w,
            f"more than all {b.board_cells} resistors of a board take, {b.board_cells * one_w:.3g} W: no limit",
            "give what the board bears",
        )  # fmt: skip
    if bleed_a > BLEED_C * basis.capacity_ah:
        f.warning(
            "balancing.bleed_ohm", b.bleed_ohm,
            f"bleeds {bleed_a:.3g} A, more than C/{1 / BLEED_C:g} of {basis.capacity_ah:g} Ah",
            f"take {v_max / (BLEED_C * basis.capacity_ah):.2g} ohm or more",
        )  # fmt: skip
    if b.degc_stop is not None and b.degc_stop >= cell.limits.degc_max:
        f.error(
            "balancing.degc_stop", b.degc_stop, f"boards still heat cells that are at {cell.limits.degc_max:g} degC",
            f"take {cell.limits.degc_max - 5:g}",
        )  # fmt: skip
    if b.v_stop is not None and b.v_stop < cell.v_min:
        f.error(
            "balancing.v_stop", b.v_stop, f"cells are bled below their v_min = {cell.v_min:g} V",
            f"take {cell.v_min + 0.1 * (v_max - cell.v_min):.3g} V",
        )  # fmt: skip
    n = f.config.rack.n_series
    for key in ("board_cells", "module_cells"):
        value = getattr(b, key)
        if value > n:
            f.warning(
                f"balancing.{key}", value, f"more than the {n} groups of the rack", f"take {n} or less",
            )  # fmt: skip


def _limits(f: Findings) -> None:
    s, limits, cell = f.config.limits, f.config.cell.limits, f.config.cell
    for key in ("max_charge_c", "max_discharge_c"):
        given, most = getattr(s, key), getattr(limits, key)
        if given is not None and given > most:
            f.error(
                f"limits.{key}", given, f"more than the {most:g} of the cell file, which stays in force",
                f"take {most:g} or less, or leave it out",
            )  # fmt: skip
    window = limits.v_max - limits.v_min
    for key in ("voltage_margin_v", "guard_margin_v"):
        value = getattr(s, key)
        if value > 0.1 * window:
            f.warning(
                f"limits.{key}", value, f"takes a fifth of the window {limits.v_min:g}..{limits.v_max:g} V, or more",
                "take 0.01 to 0.05",
            )  # fmt: skip
    n = f.config.rack.n_series
    for key, fault, side in (("pack_v_max", _F.PACK_OVERVOLTAGE, 1.0), ("pack_v_min", _F.PACK_UNDERVOLTAGE, -1.0)):
        value, row = getattr(s, key), f.row(fault, _FATAL)
        if value is not None and row is not None and side * (value - row.threshold) >= 0:
            f.error(
                f"limits.{key}", value, f"the string trips at {row.threshold:g} V, before this limit is reached",
                f"take {n * (limits.v_max if side > 0 else limits.v_min):g} V, or what the inverter asks for",
            )  # fmt: skip
    if s.degc_margin >= 0.5 * (limits.degc_max - 25.0):
        f.warning(
            "limits.degc_margin", s.degc_margin, f"leaves little between 25 degC and degc_max = {limits.degc_max:g}",
            "take 2",
        )  # fmt: skip
    if s.rise_per_s > 0.5:
        f.warning(
            "limits.rise_per_s", s.rise_per_s, "limits that come back within two seconds make inverter and rack swing",
            "take 0.05",
        )  # fmt: skip
    if s.scan_s < 2 * f.config.timing.period_s:
        f.warning(
            "limits.scan_s", s.scan_s, "all cells would be solved for in a step or two, and the step take long",
            f"take {max(30.0, 10 * f.config.timing.period_s):g} s",
        )  # fmt: skip
    if s.soc_max < 0.5 or s.soc_min > 0.5:
        key = "soc_max" if s.soc_max < 0.5 else "soc_min"
        f.warning(
            f"limits.{key}", getattr(s, key), f"leaves less than half of {cell.name}", "take 0 and 1 for all of it"
        )


def _derating(f: Findings) -> None:
    """Polylines must reach 0 where the cell file says that nothing is allowed, and cover the range."""
    limits = f.config.cell.limits
    for name, line in polylines(f.config.cell, f.config.limits).items():
        key = f"limits.{name}"
        points = [list(point) for point in line]
        if name.endswith("_soc"):
            if line[0][0] < 0 or line[-1][0] > 1:
                f.error(key, points, "places are SoC, 0..1", "correct the places that lie outside")
            continue
        cold = limits.degc_min_charge if name.startswith("charge") else limits.degc_min_discharge
        allowed = max(share(line, cold - 1e-3), share(line, cold - 5.0))
        if allowed > 0:
            f.error(
                key, points, f"allows {100 * allowed:.3g} % at and below {cold:g} degC, the coldest of the cell file",
                f"let the line start with [{cold:g}, 0]",
            )  # fmt: skip
        elif share(line, limits.degc_max) > 0:
            f.error(
                key, points,
                f"allows {100 * share(line, limits.degc_max):.3g} % at {limits.degc_max:g} degC, degc_max of the cell",
                f"let the line end with [{limits.degc_max:g}, 0]",
            )  # fmt: skip
        elif max(s for _, s in line) <= 0:
            f.error(key, points, "allows nothing at any temperature", "give shares up to 1")


def share(line: Polyline, place: float) -> float:
    """The share of a polyline at a place, flat beyond the ends."""
    if place <= line[0][0]:
        return line[0][1]
    for (x0, y0), (x1, y1) in pairwise(line):
        if place <= x1:
            return y0 + (y1 - y0) * (place - x0) / (x1 - x0)
    return line[-1][1]


def _cooling(f: Findings) -> None:
    c, limits, flow = f.config.cooling, f.config.cell.limits, f.config.basis.coolant_flow_lpm
    for row in f.tiers(_F.COOLANT_FLOW):
        if row.threshold >= MARGIN * flow:
            f.row_error(
                row, "threshold", row.threshold, f"a sound rack has {flow:g} l/min, rack.coolant_flow_lpm",
                f"take {0.4 * flow:g} l/min",
            )  # fmt: skip
    for fault, key in ((_F.COOLANT_COLD, "min_degc"), (_F.COOLANT_HOT, "max_degc")):
        worst = f.row(fault, _WARNING)
        value = getattr(c, key)
        side = 1.0 if ABOUT[fault].above else -1.0
        if worst is not None and side * (value - worst.threshold) >= 0:
            f.error(
                f"cooling.{key}", value, f"a set-point that is a fault itself, at {worst.threshold:g} degC",
                f"stay {'below' if side > 0 else 'above'} {worst.threshold:g}",
            )  # fmt: skip
    if c.hot_degc >= limits.degc_max - 10:
        f.warning(
            "cooling.hot_degc", c.hot_degc,
            f"cooling begins where the limits already fall, 10 K below degc_max = {limits.degc_max:g}",
            "take 25",
        )  # fmt: skip
