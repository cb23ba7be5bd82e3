"""Lints over the fault table by itself: order of the tiers, hysteresis, times, reactions."""

from __future__ import annotations

from bms.core.faults import ABOUT, Fault, Reaction, Row
from bms.racks.faults import key_of, reaction_names
from bms.racks.findings import Findings
from bms.racks.rows import default_rows
from hal.contract import Severity

_R = Reaction
SELF_ENDING = (Fault.PRECHARGE_TIMEOUT, Fault.PRECHARGE_VOLTAGE, Fault.PRECHARGE_CURRENT, Fault.PRECHARGE_RESISTOR)
"""Fatal rows that need no latch: they end an attempt, and the state machine counts attempts."""

AT_ONCE = (Fault.SHORT_CIRCUIT, Fault.PRECHARGE_CURRENT, Fault.PRECHARGE_TIMEOUT)
"""Measured faults for which one sample is meant to be enough."""

ACTUATION_S = 0.2
"""From the command to open contacts: 20..50 ms of release, arc and the electronics in between."""

MARGIN = 0.9
"""Share of a fault-tolerant time that may be used."""

NOISE = {"V": 0.001, "A": 0.0, "degC": 0.1, "K": 0.1, "K/min": 0.3}
"""What a signal of this unit moves by itself; A: a share of the capacity, below."""

NOISE_C = 5e-4


def lint(f: Findings) -> None:
    """All of them."""
    for fault in Fault:
        tiers = f.tiers(fault)
        _order(f, tiers)
        for row in tiers:
            _hysteresis(f, row)
            _debounce(f, row)
            _reaction(f, row)
            if row.severity is Severity.FATAL and row.reaction & (_R.OPEN | _R.RAMP_OPEN):
                _in_time(f, row)
    _missing(f)
    _period(f)


def _sign(row: Row) -> float:
    return 1.0 if ABOUT[row.fault].above else -1.0


def _order(f: Findings, tiers: list[Row]) -> None:
    """Info before warning before fatal, in the direction of the fault."""
    for k, mild in enumerate(tiers):
        for strict in tiers[k + 1 :]:
            unit, name = ABOUT[mild.fault].unit, strict.severity.name.lower()
            ahead = _sign(mild) * (mild.threshold - strict.threshold)
            side = "above" if _sign(mild) > 0 else "below"
            if ahead > 0:
                f.row_error(
                    mild, "threshold", mild.threshold,
                    f"dead row: lies {side} the {name} threshold {strict.threshold:g} {unit}, which acts first",
                    f"order the tiers info, warning, fatal: put it {'below' if _sign(mild) > 0 else 'above'} "
                    f"{strict.threshold:g}",
                )  # fmt: skip
                return  # one mistake, one finding
            if ahead == 0 and mild.set_s >= strict.set_s:
                f.row_warning(
                    mild, "set_s", mild.set_s,
                    f"dead row: {name} has the same threshold and is set after {strict.set_s:g} s",
                    f"take less than {strict.set_s:g} s, or a milder threshold",
                )  # fmt: skip


def _hysteresis(f: Findings, row: Row) -> None:
    about = ABOUT[row.fault]
    gap = _sign(row) * (row.threshold - row.clear)
    if gap < 0:
        f.row_error(
            row, "clear", row.clear,
            f"lies beyond the threshold {row.threshold:g} {about.unit}: the fault would clear while it is set",
            f"put it {'below' if about.above else 'above'} {row.threshold:g}",
        )  # fmt: skip
        return
    noise = NOISE_C * f.config.basis.capacity_ah if about.unit == "A" else NOISE.get(about.unit, 0.0)
    if about.unit == "ohm":
        noise = 0.02 * row.threshold
    if gap < 3 * noise and row.clear_s <= 10 * f.config.timing.period_s:
        f.row_warning(
            row, "clear", row.clear,
            f"{gap:.3g} {about.unit} from the threshold: noise of {noise:.2g} {about.unit} would set and clear it",
            f"leave at least {3 * noise:.2g} {about.unit}",
        )  # fmt: skip


def _measured(row: Row) -> bool:
    return ABOUT[row.fault].unit in ("V", "A", "degC", "K", "K/min", "ohm", "l/min")


def _debounce(f: Findings, row: Row) -> None:
    period = f.config.timing.period_s
    if row.severity is Severity.INFO:
        return
    if 0 < row.set_s < period:
        f.row_warning(
            row, "set_s", row.set_s,
            f"shorter than timing.period_s = {period:g} s: a single sample decides",
            f"take at least {2 * period:g} s, or 0 where one sample is meant to be enough",
        )  # fmt: skip
    elif row.set_s == 0 and _measured(row) and row.fault not in AT_ONCE:
        f.row_warning(
            row, "set_s", row.set_s,
            "a single disturbed sample decides",
            f"take at least {2 * period:g} s",
        )  # fmt: skip


def _reaction(f: Findings, row: Row) -> None:
    reaction = row.reaction
    opens = bool(reaction & (_R.OPEN | _R.RAMP_OPEN))
    names = reaction_names(reaction)
    if reaction & _R.SERVICE and not reaction & _R.LATCH:
        f.row_error(row, "service", True, "a row without a latch has no reset", "set latch = true, or remove service")
    if row.severity is not Severity.FATAL:
        if opens:
            f.row_warning(
                row, "reaction", names,
                f"a row of severity {row.severity.name.lower()} opens, and no cause is published for it",
                "give this reaction to the fatal tier",
            )  # fmt: skip
        elif row.severity is Severity.INFO and reaction & (_R.NO_CHARGE | _R.NO_DISCHARGE):
            f.row_warning(
                row, "reaction", names, "an info row that no one is warned of stops the rack",
                "give this reaction to the warning tier",
            )  # fmt: skip
        return
    if not opens:
        f.row_error(
            row, "reaction", names, "a fatal row that does not open the contactors",
            'add "open" or "ramp_open", or make it a warning',
        )  # fmt: skip
    if not reaction & _R.NO_CLOSE:
        f.row_error(row, "reaction", names, "contactors could close while this is active", 'add "no_close"')
    if not reaction & _R.LATCH and row.fault not in SELF_ENDING:
        f.row_error(
            row, "latch", False,
            "a fatal row that ends by itself: the rack would close again without anyone having looked",
            "set latch = true",
        )  # fmt: skip


def detection_s(f: Findings, row: Row) -> float:
    """Longest time from the fault to the decision: a sample has to come, and the value to stand for the set time."""
    standing_s = row.threshold if ABOUT[row.fault].unit == "s" else 0.0  # the value itself is a time
    if row.fault.name.endswith("_LOST") and row.fault is not Fault.SAMPLE_LOST:
        standing_s += f.config.signals.max_age_s  # what is lost was usable until then
    return standing_s + row.set_s + f.config.timing.period_s


def reaction_s(f: Findings, row: Row) -> float:
    """Longest time from the decision to open contacts."""
    ramp = 0.0 if row.reaction & _R.OPEN else float(f.config.machine.ramp_time_out_s) + f.config.timing.period_s
    return ramp + ACTUATION_S


def _in_time(f: Findings, row: Row) -> None:
    if row.ftti_s is None:
        f.row_error(row, "ftti_s", "", "a fatal row without a fault-tolerant time", "give ftti_s")
        return
    detect, react = detection_s(f, row), reaction_s(f, row)
    whole = detect + react
    if whole <= MARGIN * row.ftti_s:
        return
    ramps = not row.reaction & _R.OPEN
    parts = f"detection {detect:.3g} s + {'ramp and ' if ramps else ''}opening {react:.3g} s = {whole:.3g} s"
    remedy = "shorten set_s" if row.set_s > f.config.timing.period_s else "shorten timing.period_s"
    if ramps:
        remedy += ' or machine.ramp_time_out_s, or open without a ramp: reaction = ["open", "no_close"]'
    if whole > row.ftti_s:
        f.row_error(row, "ftti_s", row.ftti_s, f"cannot be met: {parts}", remedy)
    else:
        f.row_warning(row, "ftti_s", row.ftti_s, f"less than a tenth to spare: {parts}", remedy)


def _missing(f: Findings) -> None:
    usual = default_rows(f.config.cell, f.config.basis)
    for row in usual:
        if row.severity is Severity.FATAL and f.row(row.fault, row.severity) is None:
            f.error(
                f"fault.{key_of(row)}.enabled", False,
                f"nothing opens the rack for it any more: {ABOUT[row.fault].text}",
                "remove the line, or change threshold and times instead",
            )  # fmt: skip
    for fault in Fault:
        if not f.tiers(fault):
            name = fault.name.lower()
            f.warning(
                f"fault.{name}", "", "no row looks at it: the fault can never be told",
                f"enable one of its tiers, for example [fault.{name}.warning]",
            )  # fmt: skip


def _period(f: Findings) -> None:
    times = [(row.ftti_s, row) for row in f.rows(Severity.FATAL) if row.ftti_s is not None]
    if not times:
        return
    ftti_s, row = min(times, key=lambda pair: pair[0])
    period = f.config.timing.period_s
    if period > 0.5 * ftti_s:
        f.error(
            "timing.period_s", period,
            f"longer than half the shortest fault-tolerant time, {ftti_s:g} s of fault.{key_of(row)}",
            f"take {0.25 * ftti_s:.3g} s or less",
        )  # fmt: skip
