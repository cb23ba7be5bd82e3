"""The summary of a campaign as one self-contained HTML page: shares, lead times, what is varied, the worst samples."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from bms.trial.campaign_sample import Row
from bms.trial.campaign_summary import QUANTILES, TIMES
from bms.trial.page import STYLE
from bms.trial.plot import BLUE, GREEN, GREY, INK, ORANGE, RED

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 260, 60, 190, 12, 40
BAR_H = 22
MOST_POINTS = 400  # of a curve
NUMBER_HEAD = "<th class='number'>"
MORE = """
svg{max-width:100%;height:auto;font-family:inherit}.number{text-align:right;font-variant-numeric:tabular-nums}
table.plain{border-collapse:collapse}table.plain td,table.plain th{padding:2px 12px 2px 0;text-align:left}
table.plain td.number,table.plain th.number{text-align:right}
table.plain td{vertical-align:top}table.plain td.why{white-space:normal;overflow-wrap:anywhere}
"""
COLOURS = {"detect_s": BLUE, "open_s": GREEN, "lead_venting_s": ORANGE, "lead_ignition_s": RED}


def render(summary: dict[str, Any], rows: Sequence[Row]) -> str:
    """The page as text."""
    name = html.escape(summary["campaign"])
    tried = ", ".join(f"{key} {value}" for key, value in summary["made_with"].items())
    about = f"{summary['samples']} of {summary['of']} samples, seed {summary['seed']}, {summary['digest']}, {tried}"
    parts = [
        f"<header><h1>Campaign {name}</h1><p>{html.escape(summary['description'])}</p>"
        f"<p class='where'>{html.escape(summary['note'])}</p><p class='where'>{html.escape(about)}</p></header>",
        f'<section class="cards">{_cards(summary)}</section>',
        _missed(summary),
        f"<section><h2>Shares</h2><p>With 95 % intervals (Wilson).</p>{_shares(summary)}</section>",
        _times(summary, rows),
        _worst(summary),
        _alarms(summary),
        _nearest(summary),
        *(_by(key, bars) for key, bars in summary["by"].items()),
        _counts("Detected by", summary["detected_by"]),
        _counts("First fatal cause", summary["first_cause"]),
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Campaign {name}</title><style>{STYLE}{MORE}</style></head><body><main>
{"".join(parts)}
</main></body></html>
"""


def _cards(summary: dict[str, Any]) -> str:
    shares, alarms, times = summary["shares"], summary["false_alarms"], summary["times"]
    cards = [(f"{summary['samples']:,}", f"samples of {summary['of']:,}", "")]
    for name in ("passed", "detected"):
        if name in shares:
            whole = shares[name]["hits"] == shares[name]["n"]
            cards.append((f"{shares[name]['share']:.1%}", name, "good" if whole else "bad" if name == "passed" else ""))
    if "lead_venting_s" in times:
        cards.append((f"{times['lead_venting_s']['p50']:,.0f} s", "median lead before venting", ""))
    if alarms["trips"]["upper"] is not None:
        kind = "bad" if alarms["trips"]["count"] else "good"
        cards.append((f"{alarms['trips']['count']}", f"false trips in {alarms['rack_years']:.3g} rack-years", kind))
    if summary["max_degc"] is not None:
        cards.append((f"{summary['max_degc']:.0f} degC", "hottest cell, true", ""))
    cards.append((f"{summary['simulated_s'] / 3600:,.0f} h", "simulated", ""))
    return "".join(
        f'<div class="card {kind}"><div class="value">{value}</div><div class="what">{html.escape(what)}</div></div>'
        for value, what, kind in cards
    )


def _missed(summary: dict[str, Any]) -> str:
    items = "".join(f"<li>{html.escape(text)}</li>" for text in summary.get("missed", []))
    return f"<section class='failures'><h2>Not reached</h2><ul>{items}</ul></section>" if items else ""


def _shares(summary: dict[str, Any]) -> str:
    return _bars([{"value": name, **share} for name, share in summary["shares"].items()], label_w=330)


def _by(name: str, bars: Sequence[dict[str, Any]]) -> str:
    return (
        f"<section><h2>Detected, by {html.escape(name)}</h2><p>Whatever else is varied is as it was drawn.</p>"
        f"{_bars(bars, label_w=150)}</section>"
    )


def _bars(bars: Sequence[dict[str, Any]], label_w: int) -> str:
    """Shares as bars, each with its interval."""
    width = WIDTH - label_w - 130
    parts = []
    for number, bar in enumerate(bars):
        y = 4 + number * BAR_H
        middle = y + BAR_H / 2
        share = bar["share"] or 0.0
        low, high = (label_w + width * bar[end] for end in ("low", "high"))
        parts.append(
            f'<text x="{label_w - 8}" y="{middle + 4:.1f}" text-anchor="end">{html.escape(str(bar["value"]))}</text>'
            f'<rect x="{label_w}" y="{y + 3}" width="{width}" height="{BAR_H - 6}" fill="#eef1f4"/>'
            f'<rect x="{label_w}" y="{y + 3}" width="{width * share:.1f}" height="{BAR_H - 6}" fill="{BLUE}" '
            f'opacity="0.75"/><path d="M{low:.1f} {middle}H{high:.1f}" stroke="{INK}" stroke-width="1.6"/>'
            f'<text x="{label_w + width + 8}" y="{middle + 4:.1f}">{share:.1%} ({bar["hits"]} of {bar["n"]})</text>'
        )
    height = 8 + len(bars) * BAR_H
    return f'<svg viewBox="0 0 {WIDTH} {height}" font-size="12" role="img" aria-label="shares">{"".join(parts)}</svg>'


def _times(summary: dict[str, Any], rows: Sequence[Row]) -> str:
    if not summary["times"]:
        return ""
    head = "".join(f"{NUMBER_HEAD}{round(100 * q)} %</th>" for q in QUANTILES)
    body = "".join(
        f"<tr><td>{TIMES[name]}</td><td class='number'>{found['n']}</td>"
        + "".join(f"<td class='number'>{found[f'p{round(100 * q)}']:,.1f}</td>" for q in QUANTILES)
        + "</tr>"
        for name, found in summary["times"].items()
    )
    leads = [name for name in ("lead_venting_s", "lead_ignition_s") if name in summary["times"]]
    delays = [name for name in ("detect_s", "open_s") if name in summary["times"]]
    curves = "".join(_curve(names, rows) for names in (leads, delays) if names)
    return (
        "<section><h2>Times</h2><p>In s, over the samples in which both ends came. A lead below 0: seen too late.</p>"
        f"<div class='scroll'><table class='plain'><tr><th></th>{NUMBER_HEAD}samples</th>{head}</tr>{body}</table>"
        f"</div>{curves}</section>"
    )


def _curve(names: Sequence[str], rows: Sequence[Row]) -> str:
    """Cumulative distributions: the share of the samples in which it took no longer."""
    values = {name: np.sort([row[name] for row in rows if row[name] is not None]) for name in names}
    low = min(0.0, *(float(v[0]) for v in values.values()))
    high = max(low + 1.0, *(float(v[-1]) for v in values.values()))
    plot_w, plot_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(value: float) -> float:
        return LEFT + plot_w * (value - low) / (high - low)

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = TOP + plot_h * (1.0 - share)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{LEFT + plot_w}" stroke="#e3e7eb"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{GREY}">{share:.0%}</text>'
        )
    for tick in _ticks(low, high):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{TOP + plot_h + 16}" text-anchor="middle" fill="{GREY}">{tick:g}</text>'
        )
    if low < 0.0:
        parts.append(f'<path d="M{x(0.0):.1f} {TOP}V{TOP + plot_h}" stroke="{INK}" stroke-dasharray="3 3"/>')
    for number, (name, known) in enumerate(values.items()):
        at = np.unique(np.linspace(0, len(known) - 1, min(len(known), MOST_POINTS)).astype(int))
        path = f"M{x(float(known[0])):.1f} {TOP + plot_h}"
        for k in at:
            path += f"H{x(float(known[k])):.1f}V{TOP + plot_h * (1.0 - (k + 1) / len(known)):.1f}"
        parts.append(
            f'<path d="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.8"/><text x="{LEFT + plot_w + 10}" '
            f'y="{TOP + 14 + 16 * number}" fill="{COLOURS[name]}">{TIMES[name].replace("injection to ", "to ")}</text>'
        )
    parts.append(f'<text x="{LEFT + plot_w / 2}" y="{HEIGHT - 6}" text-anchor="middle">time / s</text>')
    label = " and ".join(TIMES[name] for name in names)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** np.floor(np.log10((high - low) / 4.0))
    step = next(step * factor for factor in (1.0, 2.0, 5.0, 10.0) if (high - low) / (step * factor) <= 8.0)
    return [float(round(k * step, 9)) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _alarms(summary: dict[str, Any]) -> str:
    alarms = summary["false_alarms"]
    if alarms["trips"]["upper"] is None:
        return ""
    body = "".join(
        f"<tr><td>{text}</td><td class='number'>{alarms[name]['count']}</td>"
        f"<td class='number'>{alarms[name]['per_rack_year']:.3g}</td>"
        f"<td class='number'>{alarms[name]['upper']:.3g}</td></tr>"
        for name, text in (("warnings", "warnings"), ("trips", "fatal rows"))
    )
    return (
        f"<section><h2>False alarms</h2><p>Rows shown while nothing was wrong, in {alarms['rack_years']:.4g} "
        "rack-years. The upper bound holds with 95 % confidence (Poisson, one-sided).</p>"
        f"<table class='plain'><tr><th></th>{NUMBER_HEAD}count</th>{NUMBER_HEAD}a rack-year</th>"
        f"{NUMBER_HEAD}at most</th></tr>{body}</table></section>"
    )


def _nearest(summary: dict[str, Any]) -> str:
    if not summary["nearest"]:
        return ""
    body = "".join(
        f"<tr><td>{html.escape(one['fault'])}</td><td class='number'>{one['share']:.2f}</td>"
        f"<td><code>{html.escape(one['id'])}</code></td></tr>"
        for one in summary["nearest"]
    )
    return (
        "<section><h2>Nearest to a warning</h2><p>While nothing was wrong: the share of its threshold that held for "
        f"its time, and in which sample. 1 is the warning.</p><table class='plain'><tr><th></th>{NUMBER_HEAD}share</th>"
        f"<th>sample</th></tr>{body}</table></section>"
    )


def _counts(title: str, counts: dict[str, int]) -> str:
    if not counts:
        return ""
    body = "".join(
        f"<tr><td>{html.escape(name)}</td><td class='number'>{count}</td></tr>" for name, count in counts.items()
    )
    return f"<section><h2>{title}</h2><table class='plain'>{body}</table></section>"


def _worst(summary: dict[str, Any]) -> str:
    if not summary["worst"]:
        return ""
    body = "".join(
        f"<tr><td><code>{html.escape(one['id'])}</code></td><td class='why'>{html.escape(one['why'])}</td></tr>"
        for one in summary["worst"]
    )
    return (
        "<section><h2>Worst samples</h2><p><code>bms trial campaign ... --only ID</code> plays one again, bit for bit, "
        f"and leaves a recording.</p><table class='plain'>{body}</table></section>"
    )
