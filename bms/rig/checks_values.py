"""Checks of values by themselves and against each other: bytes, scales, temperatures, the sum of the cells."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bms.rig.verdict import (
    COMES_AND_GOES,
    FEW,
    SCALES,
    UNKNOWN,
    Doubt,
    Verdict,
    expected,
    factor_of,
    mostly,
    places,
    ranges,
    times,
)
from bms.rig.watch import DEGC, Floats, Seen

SUM_OFF = 0.01  # the tier info of sum_implausible
OUTLIER_K = 20.0
LINK_OFF = 0.05
KELVIN = 273.15
USUAL_DEGC = 25.0
DUST = 1e-9


def swapped(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Values that are impossible as they are and possible with their bytes or words in another order."""
    for name, (low, high) in ranges(seen).items():
        values = seen.told[name]
        there = seen.flags[name] == 0
        flagged = ~there.any(axis=0)
        outside = ((~((values >= low) & (values <= high)) | _dust(values)) & there).mean(axis=0)
        suspects = np.flatnonzero((outside > COMES_AND_GOES) & ~flagged)
        found: dict[str, list[int]] = {}
        for k in suspects:
            told = values[there[:, k], k]
            if factor_of(told, low, high) is not None or mostly(told - KELVIN, low, high):
                continue  # a wrong scale or offset is the simpler explanation: told by another check
            word = next(
                (word for word, back in _orders(told) if mostly(np.where(_dust(back), np.inf, back), low, high)), None
            )
            if word is not None:
                found.setdefault(word, []).append(int(k))
        for word, at in found.items():
            example = float(values[-1, at[0]])
            verdict.add(
                places(name, at),
                f"{example:.4g} cannot be, and makes sense with {word} in the other order",
                f"change the order of {word} of this signal in the profile",
            )
            out.add(name, at)
        told_apart = [k for at in found.values() for k in at]
        rest = [int(k) for k in suspects if outside[k] <= 0.5 and k not in told_apart]
        now_and_then = np.array(rest, int)
        if now_and_then.size:
            share = float(outside[now_and_then].max())
            verdict.add(
                places(name, now_and_then),
                f"impossible in up to {share:.0%} of the samples, and possible in the others",
                "bits are flipped on the way: look at shield, terminators and ground, and use checksums",
            )
            out.add(name, now_and_then)


def _dust(values: Floats) -> npt.NDArray[np.bool_]:
    """Numbers that no sensor tells, but that bytes in a wrong order often make."""
    small: npt.NDArray[np.bool_] = (values != 0.0) & (np.abs(values) < DUST)
    return small


def _orders(told: Floats) -> Iterable[tuple[str, Floats]]:
    """The same values with bytes or words in other orders: of numbers of 32 bits, and of whole ones of 16 bits."""
    with np.errstate(all="ignore"):
        single = told.astype(np.float32)
        words = single.view(np.uint16).reshape(-1, 2)[:, ::-1].copy().view(np.float32).ravel()
        yield "words", words.astype(float)
        yield "bytes", single.byteswap().astype(float)
        for scale in (1e-4, 1e-3, 1e-2, 0.1, 1.0):
            raw = told / scale
            if np.all(np.isfinite(raw) & (raw >= 0.0) & (raw <= 65535.0)) and np.all(np.abs(raw - np.rint(raw)) < 0.02):
                yield "bytes", np.rint(raw).astype(np.uint16).byteswap().astype(float) * scale


def scale(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Voltages that are off by a power of ten, or that no cell has."""
    for name in ("cell_v", "pack_v"):
        low, high = ranges(seen)[name]
        values = out.left(seen, name)
        middle = np.nanmedian(values, axis=0)
        wrong = np.flatnonzero(np.isfinite(middle) & ~((middle >= low) & (middle <= high)))
        groups: dict[float | None, list[int]] = {}
        for k in wrong:
            groups.setdefault(factor_of(middle[k : k + 1], low, high), []).append(int(k))
        for factor, at in groups.items():
            example = float(middle[at[0]])
            if factor is None:
                verdict.add(
                    places(name, at),
                    f"{example:.4g} V, which nothing of {low:.3g} to {high:.3g} V can have",
                    "is it the right signal, and the right cell file (--cell)?",
                )
            else:
                verdict.add(
                    places(name, at),
                    f"{example:.4g} V: {times(factor)}",
                    f"divide the scale in the profile by {factor:g}",
                )
            out.add(name, at)
    _bus(seen, out, verdict)


def _bus(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Behind closed contactors the link has the voltage of the string."""
    closed = seen.closed()
    pack, bus = out.left(seen, "pack_v")[:, 0], out.left(seen, "bus_v")[:, 0]
    both = closed & np.isfinite(pack) & np.isfinite(bus)
    if not expected(seen, "bus_v") or both.sum() < FEW:
        return
    ratio = float(np.median(bus[both] / pack[both]))
    if abs(ratio - 1.0) <= LINK_OFF:
        return
    factor = next((f for f in SCALES if abs(ratio / f - 1.0) < LINK_OFF), None)
    if factor is not None:
        verdict.add("bus_v", f"{times(factor)} against pack_v, contactors closed", f"divide its scale by {factor:g}")
    else:
        verdict.add(
            "bus_v",
            f"{ratio:.0%} of pack_v although both main contactors are seen closed",
            "is the feedback of the contactors, or the place of the measurement, another one?",
        )


def temperatures(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Temperatures that cannot be, and sensors that do not fit the others."""
    for name in ("sensor_degc", "coolant_in_degc", "coolant_out_degc"):
        if not expected(seen, name):
            continue
        middle = np.nanmedian(out.left(seen, name), axis=0)
        low, high = DEGC
        wrong = np.flatnonzero(np.isfinite(middle) & ~((middle >= low) & (middle <= high)))
        groups: dict[tuple[str, str], list[int]] = {}
        for k in wrong:
            groups.setdefault(_explained(float(middle[k])), []).append(int(k))
        for (what, remedy), at in groups.items():
            verdict.add(places(name, at), f"{float(middle[at[0]]):.4g} degC: {what}", remedy)
        out.add(name, wrong)
    middle = np.nanmedian(out.left(seen, "sensor_degc"), axis=0)
    usual = float(np.nanmedian(middle))
    for k in np.flatnonzero(np.abs(middle - usual) > OUTLIER_K):
        verdict.add(
            places("sensor_degc", [int(k)]),
            f"{middle[k]:.1f} degC, the others {usual:.1f} degC",
            "unless the rack is really that hot there: a short or open sensor, or a wrong scale or offset",
        )
        out.add("sensor_degc", [int(k)])


def _explained(value: float) -> tuple[str, str]:
    """What an impossible temperature looks like, and what to do: that which makes it the most usual one."""
    low, high = DEGC
    factor = factor_of(np.array([value]), low, high) if value > 0.0 else None
    kelvin = low <= value - KELVIN <= high
    if kelvin and (factor is None or abs(value - KELVIN - USUAL_DEGC) <= abs(value / factor - USUAL_DEGC)):
        return "it looks like kelvin", f"set the offset in the profile to -{KELVIN:g}"
    if factor is not None:
        return times(factor), f"divide the scale in the profile by {factor:g}"
    return f"outside {low:g} to {high:g}", "is the sensor plugged in, and its offset in the profile right?"


def sum_of_cells(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """The cells add up to the string."""
    cells, pack = out.left(seen, "cell_v"), out.left(seen, "pack_v")[:, 0]
    if not out.good("pack_v").all():
        verdict.state, verdict.note = UNKNOWN, "pack_v is not to be used"
        return
    if not out.good("cell_v").all():
        verdict.state, verdict.note = UNKNOWN, f"{int((~out.good('cell_v')).sum())} cells are not to be used"
        return
    ratio = float(np.nanmedian(pack / cells.sum(axis=1)))
    if math.isnan(ratio):
        verdict.state, verdict.note = UNKNOWN, "no sample has all cells and pack_v"
        return
    verdict.note = f"pack_v is {ratio:.2%} of the sum"
    if abs(ratio - 1.0) > SUM_OFF:
        n = seen.info.n_cells
        count = (
            f"; {round(n * ratio)} cells would fit"
            if abs(n * ratio - round(n * ratio)) < 0.05 * max(ratio, 1.0)
            else ""
        )
        verdict.add(
            "pack_v",
            f"{float(np.nanmedian(pack)):.4g} V, the {n} cells {float(np.nanmedian(cells.sum(axis=1))):.4g} V{count}",
            "a gain of the string's sensor, a cell that is told twice or left out, or another number of cells",
        )
