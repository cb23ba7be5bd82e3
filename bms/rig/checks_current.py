"""Checks of the current against the cells: what only a changing current shows."""

from __future__ import annotations

import math

import numpy as np

from bms.rig.verdict import FEW, UNKNOWN, Doubt, Verdict, ranges, times
from bms.rig.watch import Floats, Seen

ENOUGH_C = 0.005  # share of the capacity: a smaller change of the current is its noise


def _pairs(seen: Seen, out: Doubt) -> tuple[Floats, Floats]:
    """Changes of the current, A, from a sample to one of the next three, and what the mean cell did, V."""
    current = out.left(seen, "current_a")[:, 0]
    mean_v = np.nanmean(out.left(seen, "cell_v"), axis=1)
    changed_a, moved_v = [], []
    for step in (1, 2, 3):
        changed_a.append(current[step:] - current[:-step])
        moved_v.append(mean_v[step:] - mean_v[:-step])
    a, v = np.concatenate(changed_a), np.concatenate(moved_v)
    low = ENOUGH_C * seen.info.capacity_ah
    usable = np.isfinite(a) & np.isfinite(v)
    return a[usable & (np.abs(a) > low)], v[usable & (np.abs(a) > low)]


def _response(seen: Seen, out: Doubt) -> tuple[float, str]:
    """Resistance of the mean cell as current and voltage tell it, ohm; and why it cannot be told, or ''."""
    if not out.good("current_a").all() or not out.good("cell_v").any():
        return math.nan, "current or cells are not to be used"
    cells = out.left(seen, "cell_v")
    noise_v = float(np.nanmedian(np.abs(np.diff(np.nanmean(cells, axis=1))))) if seen.n > FEW else math.nan
    a, v = _pairs(seen, out)
    if a.size < 3:
        return (
            math.nan,
            f"at rest: the current has not changed by {ENOUGH_C:.1%} of the capacity; load the rack (--connect)",
        )
    ohm = -float((a * v).sum() / (a * a).sum())
    if not abs(ohm) * float(np.abs(a).max()) > 3.0 * noise_v:
        return math.nan, "the cells answer less than their noise; load the rack more"
    agree = float((np.sign(a * v) == -np.sign(ohm)).mean())
    return (ohm, "") if agree > 0.75 else (math.nan, "current and cells do not move together")


def sign(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Discharge, which is positive, lowers the voltage of the cells."""
    ohm, why = _response(seen, out)
    if why:
        verdict.state, verdict.note = UNKNOWN, why
    elif ohm < 0.0:
        verdict.add(
            "current_a",
            f"the cells rise by {-ohm * 1e3:.3g} mV for each ampere more of discharge",
            "positive must discharge: turn the sign of the current round in the profile, or the sensor",
        )
    else:
        verdict.note = "more discharge lowers the cells"


def current_scale(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """The resistance that current and voltage tell is that of the cell, within a factor that cold and age explain."""
    _, high = ranges(seen)["current_a"]
    middle = float(np.nanmedian(np.abs(out.left(seen, "current_a")[:, 0])))
    if middle > high:
        verdict.add(
            "current_a",
            f"{middle:.4g} A, more than ten times the capacity in an hour",
            "look at its scale in the profile",
        )
        return
    ohm, why = _response(seen, out)
    if not why and seen.cell is None:
        why = "no cell file tells the resistance; give --cell"
    if why:
        verdict.state, verdict.note = UNKNOWN, why
        return
    assert seen.cell is not None
    cell = seen.cell
    degc = float(np.nanmedian(out.left(seen, "sensor_degc")))
    degc = 25.0 if math.isnan(degc) else degc
    known = float(np.interp(degc, cell.degc, np.median(cell.r0_ohm, axis=1)))
    known *= cell.capacity_ah / seen.info.capacity_ah
    ratio = abs(ohm) / known
    verdict.note = f"{abs(ohm) * 1e3:.3g} mohm a cell, of which the cell file's ohmic part is {known * 1e3:.3g} mohm"
    if not 0.3 < ratio < 5.0:
        # half way between powers of ten: a response within a second is up to three times the ohmic part
        power = round(math.log10(ratio / 1.5))
        factor = 10.0**-power
        verdict.add(
            "current_a",
            f"{times(factor)}: {verdict.note}",
            f"divide the scale of the current in the profile by {factor:g}",
        )
