"""`bms report`: one self-contained HTML page of a run. Pictures are inlined; nothing is fetched when it is opened."""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy.typing as npt

from bms.runtime import PAGE, SERIES, SUMMARY, figures
from bms.runtime.status import clock_text
from hal.errors import DataError

GOOD = 0

Arrays = Mapping[str, npt.NDArray[Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms report`."""
    parser.add_argument("dir", metavar="DIR", type=Path, help="the folder of a `bms run`")


def run(args: argparse.Namespace) -> int:
    """Run `bms report`: make the page, from the recording where the run left no summary, and print its path."""
    if not args.dir.is_dir():
        raise DataError(f"{args.dir}: no such folder; give the folder of a `bms run`")
    print(write_report(args.dir))
    return GOOD


def write_report(folder: Path) -> Path:
    """Write the page of the run in `folder` and return its path. Raises `DataError`."""
    arrays, summary = _load(folder)
    page = folder / PAGE
    page.write_text(render(arrays, summary), encoding="utf-8")
    return page


def _load(folder: Path) -> tuple[Arrays, dict[str, Any]]:
    """Samples and summary of a run: as it left them, or rebuilt from its recording."""
    from bms.runtime import series

    if not ((folder / SERIES).is_file() and (folder / SUMMARY).is_file()):
        return _again(folder)
    try:
        return series.load(folder / SERIES), json.loads((folder / SUMMARY).read_text())
    except (ValueError, OSError, KeyError, BadZipFile) as error:
        raise DataError(
            f"{folder}: {SERIES} or {SUMMARY} cannot be read ({error}); delete them to use the recording"
        ) from error


def _again(folder: Path) -> tuple[Arrays, dict[str, Any]]:
    """Replay the recording of a run that was killed before it could sum itself up."""
    from bms.core.step import Controller
    from bms.runtime.replay import Progress, replay
    from bms.runtime.series import Series, save
    from hal.backends.replay import Recording

    recording = Recording(folder)
    info, about = recording.info, recording.header["about"]
    made: list[Series] = []

    def observe(controller: Controller) -> Series:
        made.append(Series(info, controller, about["sample_every"]))
        return made[0]

    progress = Progress(recording)
    outcome = replay(recording, progress, observe)
    progress.clear()
    summary = made[0].summary(info) | {
        "rack": info.name,
        "n_cells": info.n_cells,
        "capacity_ah": info.capacity_ah,
        "scenario": about["scenario"],
        "replayed": outcome.lines()[-1],
    }
    save(folder / SERIES, made[0].arrays())
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    return made[0].arrays(), summary


def headline(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(value, unit, what) of the numbers at the top of the page; those that the run does not know are left out."""
    numbers: list[tuple[str, str, str]] = [(clock_text(summary["simulated_s"]), "", "simulated")]
    if "times_real_time" in summary:
        numbers.append((f"{summary['times_real_time']:,.0f}", "×", f"real time ({summary['wall_s']:.1f} s)"))
    numbers.append((f"{summary['energy_out_kwh']:,.1f}", "kWh", "delivered"))
    numbers.append((f"{summary['energy_in_kwh']:,.1f}", "kWh", "taken in"))
    if summary["round_trip_percent"] is not None:
        numbers.append((f"{summary['round_trip_percent']:.1f}", "%", "DC round trip"))
    if "soc_rmse_percent" in summary:
        numbers += [
            (f"{summary['soc_rmse_percent']:.2f}", "% SoC", "RMS error of all cells"),
            (f"{summary['soc_max_error_percent']:.2f}", "% SoC", "largest cell error"),
            (f"{summary['soc_within_3_sigma_percent']:.1f}", "%", "truth within 3&nbsp;σ"),
        ]
    if "loop" in summary:
        numbers.append((f"{summary['loop']['missed_deadlines']:,}", "", "missed deadlines"))
    numbers.append((f"{len(summary['faults'])}", "", "faults" if len(summary["faults"]) != 1 else "fault"))
    return numbers


def render(arrays: Arrays, summary: Mapping[str, Any]) -> str:
    """The page as text."""
    scenario = summary["scenario"]
    title = scenario["description"] or scenario["name"] or summary["rack"]
    cards = "".join(
        f'<div class="card"><div class="value">{value}<span>{unit}</span></div><div class="what">{what}</div></div>'
        for value, unit, what in headline(summary)
    )
    notes = []
    if summary["faults"]:
        names = ", ".join(summary["faults"]).lower().replace("_", " ")
        notes.append(f"Faults: {html.escape(names)}; first at {clock_text(summary['first_fault_s'])}.")
        if summary.get("cause"):
            notes.append(f"Cause: {html.escape(summary['cause'])}.")
    for key, title_ in (("warnings", "Warnings"), ("notes", "Notes")):
        if summary.get(key):
            notes.append(f"{title_}: {html.escape(', '.join(summary[key]).lower().replace('_', ' '))}.")
    if "replayed" in summary:
        notes.append(f"Rebuilt from the recording by replay: {summary['replayed']}.")
    parts = "".join(
        f"<figure><h2>{html.escape(f.title)}</h2><p>{html.escape(f.text)}</p>{f.svg}</figure>"
        for f in figures.all_figures(arrays, summary)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>
<header><p class="where">{html.escape(summary["rack"])} · {summary["n_cells"]} cells in series ·
{summary["capacity_ah"]:,.0f} Ah · period {scenario["period_s"]:g} s</p>
<h1>{html.escape(title[:1].upper() + title[1:])}</h1></header>
<section class="cards">{cards}</section>
{"".join(f'<p class="note">{note}</p>' for note in notes)}
{parts}
<section><h2>States of the controller</h2>{_states(summary)}</section>
{_limits(summary)}
{_time_split(summary)}
<details><summary>Configuration</summary><pre>{html.escape(json.dumps(scenario, indent=1))}</pre></details>
</main></body></html>
"""


def _states(summary: Mapping[str, Any]) -> str:
    total = max(sum(summary["steps_in_state"].values()), 1)
    return _bars([(name.lower(), n / total, f"{n:,} steps") for name, n in summary["steps_in_state"].items()])


def _limits(summary: Mapping[str, Any]) -> str:
    """What held down the limits in force, and for how long."""
    parts = []
    for key, title in (("discharge_limited_by", "Discharge limit"), ("charge_limited_by", "Charge limit")):
        steps: Mapping[str, int] = summary.get(key, {})
        total = max(sum(steps.values()), 1)
        rows = [(name.lower().replace("_", " "), n / total, f"{n:,} steps") for name, n in steps.items()]
        if rows:
            parts.append(f"<section><h2>{title}: held down by</h2>{_bars(rows)}</section>")
    return "".join(parts)


def _time_split(summary: Mapping[str, Any]) -> str:
    if "loop" not in summary:
        return ""
    loop, wall_s = summary["loop"], summary["wall_s"]
    names = {
        "read_s": "read the rack (the twin's physics)",
        "decide_s": "estimate and decide",
        "write_s": "command the rack",
        "record_s": "record",
        "observe_s": "sample and show",
    }
    rows = [(text, loop[name]) for name, text in names.items()]
    rows.append(("wait, and the loop itself", max(wall_s - sum(s for _, s in rows), 0.0)))
    steps = max(loop["steps"], 1)
    bars = _bars([(text, s / wall_s, f"{1e6 * s / steps:,.0f} µs a step") for text, s in rows])
    return f"<section><h2>Where the wall time went</h2>{bars}</section>"


def _bars(rows: list[tuple[str, float, str]]) -> str:
    return (
        '<table class="bars">'
        + "".join(
            f'<tr><th>{html.escape(name)}</th><td><div style="width:{max(100 * share, 0.2):.1f}%"></div></td>'
            f'<td class="number">{100 * share:.2f} %</td><td class="number">{html.escape(text)}</td></tr>'
            for name, share, text in rows
        )
        + "</table>"
    )


STYLE = """
:root{color-scheme:light}
body{margin:0;background:#f6f7f9;color:#1b1f24;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;line-height:1.25;margin:2px 0 18px}
h2{font-size:17px;margin:0 0 2px}
.where{color:#57606a;margin:0}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;margin-bottom:18px}
.card,figure,section:not(.cards),details{background:#fff;border:1px solid #d8dee4;border-radius:8px}
.card{padding:10px 14px}
.value{font-size:21px;font-weight:600;font-variant-numeric:tabular-nums;white-space:nowrap}
.value span{font-size:13px;font-weight:400;color:#57606a;margin-left:4px}
.what{font-size:13px;color:#57606a}
figure,section:not(.cards),details{margin:0 0 16px;padding:16px 18px}
figure p{margin:0 0 8px;color:#57606a;font-size:14px}
svg{width:100%;height:auto;display:block}
.note{background:#fff8e6;border:1px solid #e5c46b;border-radius:8px;padding:10px 14px;margin:0 0 16px}
.bars{width:100%;border-collapse:collapse;margin-top:8px}
.bars th{font-weight:400;text-align:left;white-space:nowrap;padding:3px 12px 3px 0;width:1%}
.bars td div{background:#0072b2;height:12px;border-radius:2px}
.number{text-align:right;white-space:nowrap;width:1%;padding-left:12px;font-variant-numeric:tabular-nums}
summary{cursor:pointer;font-weight:600}
pre{overflow:auto;font-size:13px}
"""
