"""The picture of a trial as one inline SVG: state, voltages, current and limits, temperatures, on one axis of time."""

from __future__ import annotations

import base64
import html
import math
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bms.trial.lead import EVENTS
from bms.trial.outcome import Curves, Outcome

WIDTH, LEFT, RIGHT = 980, 62, 108
STATE_H, PLOT_H, GAP_H = 20, 108, 16
SEEN_PX = 0.4

# Okabe and Ito's colours, as in the report of a run
BLUE, ORANGE, GREEN, RED, GREY, INK = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8c959f", "#1b1f24"
STATES = {
    "connected": "#bfe3d3", "fault": "#f3b8a0", "opening": "#ffe2a8", "ramp_down": "#ffd27a", "precharge": "#cfe3f5",
    "emergency_stop": "#e8957a", "lockout": "#e5c5d8", "maintenance": "#d9d3ee",
}  # fmt: skip
# dark blue over purple and orange to light yellow, readable in grey as well (as matplotlib's inferno)
_HEAT = np.array(
    [
        [0, 0, 4],
        [40, 11, 84],
        [101, 21, 110],
        [159, 42, 99],
        [212, 72, 66],
        [245, 125, 21],
        [250, 193, 39],
        [252, 255, 164],
    ]
)
F4 = npt.NDArray[np.float32]


def picture(outcome: Outcome) -> str:
    """The picture, or nothing where a trial has no curves."""
    curves = outcome.curves
    if curves is None or len(curves.time_s) < 2:
        return ""
    view = _View(float(curves.time_s[0]), float(curves.time_s[-1]))
    y = 4.0
    parts = [_states(view, curves, y)]
    y += STATE_H + GAP_H
    lines = curves.lines
    parts.append(_panel(view, y, "cell / V", curves.time_s, _voltages(lines)))
    y += PLOT_H + GAP_H
    parts.append(_panel(view, y, "current / A", curves.time_s, _currents(lines), zero=True))
    y += PLOT_H + GAP_H
    parts.append(_heat(view, y, curves))
    y += PLOT_H
    parts.append(_marks(view, outcome, y))
    parts.append(_time_axis(view, y))
    height = y + 34
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" font-size="11.5" role="img" '
        f'aria-label="curves of {html.escape(outcome.id)}">'
        f"{''.join(parts)}</svg>"
    )


class _View:
    """The axis of time."""

    def __init__(self, first_s: float, last_s: float) -> None:
        self.first_s, self.last_s = first_s, last_s
        self.scale = (WIDTH - LEFT - RIGHT) / max(last_s - first_s, 1e-9)

    def x(self, time_s: float) -> float:
        """Place of a time, held within the picture."""
        return LEFT + (min(max(time_s, self.first_s), self.last_s) - self.first_s) * self.scale


Line = tuple[str, str, str, F4]  # label, colour, dashes, values


def _voltages(lines: dict[str, F4]) -> list[Line]:
    return [
        ("highest", RED, "", lines["v_max"]),
        ("mean", GREEN, "", lines["v_mean"]),
        ("lowest", BLUE, "", lines["v_min"]),
    ]


def _currents(lines: dict[str, F4]) -> list[Line]:
    found = [
        ("limits", ORANGE, "5 3", lines["discharge_a"]),
        ("", ORANGE, "5 3", -lines["charge_a"]),
        ("measured", BLUE, "", lines["current_a"]),
    ]
    if np.isfinite(lines["true_a"]).any():
        found.append(("true", INK, "2 3", lines["true_a"]))
    return found


def _panel(view: _View, top: float, label: str, time_s: F4, lines: Sequence[Line], *, zero: bool = False) -> str:
    """Lines over time with ticks and labels."""
    values = np.concatenate([values[np.isfinite(values)] for *_, values in lines])
    values = values[np.abs(values) < 1e5]  # a damaged value must not flatten the rest
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = max(0.08 * (high - low), 0.01 * max(abs(high), abs(low)), 1e-3)
    low, high = low - room, high + room

    def y(value: float) -> float:
        return top + PLOT_H * (high - min(max(value, low), high)) / (high - low)

    parts = [
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PLOT_H}" fill="none" stroke="#d0d7de"/>'
    ]
    for tick in _ticks(low, high, 4):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#eaeef2"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" fill="#57606a" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text transform="translate(13 {top + PLOT_H / 2}) rotate(-90)" text-anchor="middle">{label}</text>')
    named = [line for line in lines if line[0]]
    for k, (name, colour, _, _) in enumerate(named):
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{top + 14 + 16 * k}" fill="{colour}" font-weight="600">{name}</text>'
        )
    for _, colour, dashes, values in lines:
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        for piece in _pieces(view, time_s, values, y):
            parts.append(f'<polyline points="{piece}" stroke="{colour}"{dash} fill="none" stroke-width="1.4"/>')
    return "".join(parts)


def _pieces(view: _View, time_s: F4, values: F4, y: Callable[[float], float]) -> list[str]:
    """Points of a line, broken where a value is missing, without those that nobody could see."""
    pieces: list[list[str]] = [[]]
    places = [y(value) if math.isfinite(value) else math.nan for value in values.tolist()]
    kept = math.nan  # comparisons with it are false, so that the next point is drawn
    for k, (at_s, place) in enumerate(zip(time_s.tolist(), places, strict=True)):
        if math.isnan(place):
            pieces.append([])
            kept = math.nan
            continue
        following = places[k + 1] if k + 1 < len(places) else math.nan
        if not (abs(place - kept) < SEEN_PX and abs(following - place) < SEEN_PX):
            pieces[-1].append(f"{view.x(at_s):.1f},{place:.1f}")
            kept = place
    return [" ".join(piece) for piece in pieces if piece]


def _states(view: _View, curves: Curves, top: float) -> str:
    """A strip with the states of the controller."""
    ends = [*(begin for begin, _ in curves.states[1:]), view.last_s]
    parts = []
    for (begin, name), end in zip(curves.states, ends, strict=True):
        x, wide = view.x(begin), view.x(end) - view.x(begin)
        colour = STATES.get(name, "#e4e8ec")
        title = html.escape(f"{name} from {begin:g} s")
        parts.append(
            f'<rect x="{x:.1f}" y="{top}" width="{max(wide, 0.6):.1f}" height="{STATE_H}" fill="{colour}">'
            f"<title>{title}</title></rect>"
        )
        if wide > 7 * len(name):
            parts.append(f'<text x="{x + 4:.1f}" y="{top + 14}">{name.replace("_", " ")}</text>')
    return "".join(parts) + f'<text x="{WIDTH - RIGHT + 8}" y="{top + 14}" font-weight="600">state</text>'


def _heat(view: _View, top: float, curves: Curves) -> str:
    """The temperature of every cell or sensor over time, as an inlined picture."""
    finite = curves.heat[np.isfinite(curves.heat)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if high - low < 2.0:
        low, high = (low + high) / 2 - 1.0, (low + high) / 2 + 1.0
    share = np.nan_to_num((curves.heat - low) / (high - low), nan=-1.0)
    parts = [
        f'<image x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PLOT_H}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="{_png(share)}"/>',
        f'<text transform="translate(13 {top + PLOT_H / 2}) rotate(-90)" text-anchor="middle">{curves.heat_of}</text>',
    ]
    bar = np.linspace(1.0, 0.0, 32)[:, None]
    x = WIDTH - RIGHT + 10
    parts.append(
        f'<image x="{x}" y="{top}" width="10" height="{PLOT_H}" preserveAspectRatio="none" href="{_png(bar)}"/>'
    )
    for value, y in ((high, top + 10), ((high + low) / 2, top + PLOT_H / 2 + 4), (low, top + PLOT_H)):
        parts.append(f'<text x="{x + 15}" y="{y:.1f}" fill="#57606a">{value:.1f} degC</text>')
    n = len(curves.heat)
    for row, y in ((0, top + 10), (n - 1, top + PLOT_H)):
        parts.append(f'<text x="{LEFT - 6}" y="{y}" fill="#57606a" text-anchor="end">{row}</text>')
    return "".join(parts)


def _png(share: npt.NDArray[np.floating]) -> str:
    """A picture of values in 0..1 as a data URI; below 0: grey."""
    place = np.clip(share, 0.0, 1.0) * (len(_HEAT) - 1)
    k = np.minimum(place.astype(int), len(_HEAT) - 2)
    part = (place - k)[..., None]
    pixels = np.where((share < 0)[..., None], 200, _HEAT[k] * (1 - part) + _HEAT[k + 1] * part).astype(np.uint8)
    rows, columns = share.shape
    raw = b"".join(b"\0" + pixels[row].tobytes() for row in range(rows))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">2I5B", columns, rows, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(raw, 9))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _marks(view: _View, outcome: Outcome, bottom: float) -> str:
    """Lines at injection, first detection and opening, and where something burnt."""
    marks = [(at_s, RED, "inject", text) for at_s, text in outcome.injected[:4]]
    detected = [
        (e.inject_s + e.detect_ms / 1e3, f"{e.fault} {e.tier}") for e in outcome.entries if e.detect_ms is not None
    ]
    opened = [(e.inject_s + e.open_ms / 1e3, f"{e.fault} {e.tier}") for e in outcome.entries if e.open_ms is not None]
    if outcome.lead is not None:
        lead = outcome.lead
        detected += [] if lead.told_s is None else [(lead.begun_s + lead.told_s, lead.row)]
        came = [(getattr(lead, f"{event}_s"), event.replace("_", " ")) for event in EVENTS]
        marks += [(lead.begun_s + at_s, ORANGE, "burn", text) for at_s, text in came if at_s is not None]
    marks += [(at_s, BLUE, "detect", text) for at_s, text in detected]
    marks += [(at_s, INK, "open", text) for at_s, text in opened]
    return "".join(
        f'<line x1="{view.x(at_s):.1f}" x2="{view.x(at_s):.1f}" y1="4" y2="{bottom}" stroke="{colour}" '
        f'stroke-width="1.2" stroke-dasharray="4 3" opacity="0.85">'
        f"<title>{html.escape(f'{what} at {at_s:g} s: {text}')}</title></line>"
        for at_s, colour, what, text in marks
    )


def _time_axis(view: _View, bottom: float) -> str:
    span_s = view.last_s - view.first_s
    unit, per = ("h", 3600.0) if span_s > 7200 else ("min", 60.0) if span_s > 600 else ("s", 1.0)
    ticks = "".join(
        f'<text x="{view.x(tick * per):.1f}" y="{bottom + 15}" fill="#57606a" text-anchor="middle">{tick:g}</text>'
        for tick in _ticks(view.first_s / per, view.last_s / per, 9)
    )
    return ticks + f'<text x="{WIDTH - RIGHT + 8}" y="{bottom + 15}" fill="#57606a">{unit}</text>'


def _ticks(low: float, high: float, n: int) -> list[float]:
    """At most `n` round numbers within a range."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9) / n))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= n)
    first = math.ceil(low / step)
    return [round(k * step, 10) for k in range(first, math.floor(high / step) + 1)]
