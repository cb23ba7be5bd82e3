"""The ledger as one self-contained HTML page: totals, ledger, each trial with its curves (failures first), coverage."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from bms.core.faults import Fault, row_id
from bms.trial import lead as leads
from bms.trial.coverage import AXES, Coverage, row_text
from bms.trial.ledger import BANDS, Entry
from bms.trial.outcome import FAILED, GAP, PASSED, Outcome
from bms.trial.plot import picture
from bms.trial.screen import DISCLAIMER, LEAD_TITLE, ms, used
from hal.contract import Severity

_ORDER = {FAILED: 0, GAP: 1, PASSED: 2}


def render(
    outcomes: Sequence[Outcome],
    coverage: Coverage,
    wall_s: float,
    title: str,
    *,
    complete: bool = False,
    made: Mapping[str, str] | None = None,
) -> str:
    """The page as text.

    `complete`: the whole library, so that a row that is missing is a failure. `made` says what was tried.
    """
    tried = ", ".join(f"{name} {value}" for name, value in (made or {}).items())
    ordered = sorted(outcomes, key=lambda outcome: _ORDER[outcome.status])
    parts = [
        f"<header><h1>{html.escape(title)}</h1><p class='where'>{html.escape(DISCLAIMER)}</p>"
        f"<p class='where'>{html.escape(tried)}</p></header>",
        f'<section class="cards">{_cards(outcomes, coverage, wall_s, complete)}</section>',
        _failed(ordered),
        f"<section><h2>Ledger</h2><p>Times in ms since the injection: to detection, to the first reaction, to open "
        "contactors. The budget of a fatal row is its fault-tolerant time, to open contactors; else, to detection. "
        f"The line of a trial leads to its curves.</p>{_ledger(ordered)}</section>",
        _leads(ordered),
        "<section><h2>Trials</h2><p>Vertical lines: <b class='inject'>injection</b>, <b class='detect'>detection</b>, "
        "<b class='burn'>a cell vents or ignites</b>, <b class='open'>contactors open</b>. "
        "Positive current discharges; dashed: published limits.</p></section>",
        *(_trial(outcome) for outcome in ordered),
        _matrix(coverage),
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>
{"".join(parts)}
</main><script>{SCRIPT}</script></body></html>
"""


def _cards(outcomes: Sequence[Outcome], coverage: Coverage, wall_s: float, complete: bool) -> str:
    count = {status: sum(outcome.status == status for outcome in outcomes) for status in _ORDER}
    fatal = [entry for outcome in outcomes for entry in outcome.entries if entry.tier == "fatal"]
    shares = [share for entry in fatal if (share := used(entry)) is not None]
    simulated_s = sum(outcome.simulated_s for outcome in outcomes)
    cards = [
        (f"{len(outcomes)}", "trials", ""),
        (f"{count[PASSED]}", "passed", "good"),
        (f"{count[FAILED]}", "failed", "bad" if count[FAILED] else ""),
        (f"{count[GAP]}", "known gaps", "gap" if count[GAP] else ""),
        (
            f"{coverage.exercised} / {len(coverage.rows)}",
            "rows exercised",
            "bad" if complete and coverage.missing else "",
        ),
        (f"{max(shares, default=0):.0%}", "of a fatal budget, at most", ""),
        (f"{simulated_s:,.0f} s", f"simulated in {wall_s:.1f} s", ""),
    ]
    return "".join(
        f'<div class="card {kind}"><div class="value">{value}</div><div class="what">{what}</div></div>'
        for value, what, kind in cards
    )


def _failed(outcomes: Sequence[Outcome]) -> str:
    items = [
        f'<li><a href="#{_anchor(outcome)}">{html.escape(outcome.id)}</a> '
        f"<span class='badge {outcome.status}'>{outcome.status}</span>"
        f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in outcome.failures)}</ul></li>"
        for outcome in outcomes
        if outcome.status != PASSED
    ]
    return f"<section class='failures'><h2>Failures and gaps</h2><ul>{''.join(items)}</ul></section>" if items else ""


def _anchor(outcome: Outcome) -> str:
    return "t-" + html.escape(outcome.id, quote=True)


def _ledger(outcomes: Sequence[Outcome]) -> str:
    rows = "".join(
        f'<tr class="{outcome.status}"><td><a href="#{_anchor(outcome)}">{html.escape(outcome.id)}</a></td>'
        f"{_cells(entry)}</tr>"
        for outcome in outcomes
        for entry in outcome.entries
    )
    return (
        '<input id="filter" placeholder="filter: name, fault or tier" aria-label="filter"><div class="scroll">'
        '<table class="ledger"><thead><tr><th>trial</th><th>row</th><th>where</th><th>value</th><th>detect</th>'
        f"<th>react</th><th>open</th><th>budget</th><th>used</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _leads(outcomes: Sequence[Outcome]) -> str:
    """How long before a fire the controller knew."""
    rows = leads.table([outcome.lead for outcome in outcomes if outcome.lead is not None])
    if not rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in leads.COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(word)}</td>' for word in row)}</tr>" for row in rows)
    return (
        f"<section><h2>Lead times</h2><p>{html.escape(LEAD_TITLE[0].upper() + LEAD_TITLE[1:])}.</p>"
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _lead_text(lead: leads.Lead | None) -> str:
    """The fire of one trial in words."""
    if lead is None:
        return ""
    told = f"{lead.row} {lead.place} after {lead.told_s:.0f} s" if lead.told_s is not None else "never told"
    came = [
        f"{event.replace('_', ' ')} after {at_s:.0f} s"
        for event in leads.EVENTS
        if (at_s := getattr(lead, f"{event}_s")) is not None
    ]
    return f"{told}; {', '.join(came) or 'nothing burnt'} ({lead.n_vented} cells vented, {lead.n_ignited} ignited)"


def _cells(entry: Entry) -> str:
    share = used(entry)
    value = "" if entry.value is None else f"{entry.value:.4g} {entry.unit if entry.unit != '1' else ''}"
    bar = "" if share is None else f'<div class="used"><div style="width:{min(share, 1):.0%}"></div></div>{share:.0%}'
    return (
        f"<td>{entry.fault}.{entry.tier}</td><td>{html.escape(entry.place)}</td><td>{value}</td>"
        + "".join(
            f'<td class="number">{ms(v)}</td>'
            for v in (entry.detect_ms, entry.react_ms, entry.open_ms, entry.budget_ms)
        )
        + f'<td class="number">{bar}</td>'
    )


def _trial(outcome: Outcome) -> str:
    about = [
        ("clause", outcome.clause), ("gap", outcome.gap), ("rack", outcome.rack), ("seed", str(outcome.seed)),
        ("configuration", outcome.digest), ("file", outcome.source), ("state at the end", outcome.state_at_end),
        ("fire", _lead_text(outcome.lead)),
        ("injected", "; ".join(f"{at_s:g} s {text}" for at_s, text in outcome.injected)),
    ]  # fmt: skip
    facts = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in about if text)
    wrong = "".join(f'<p class="wrong">{html.escape(text)}</p>' for text in outcome.failures)
    table = "".join(f"<tr>{_cells(entry)}</tr>" for entry in outcome.entries)
    names = ("row", "where", "value", "detect", "react", "open", "budget", "used")
    head = "<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    return (
        f'<details id="{_anchor(outcome)}" class="trial"{" open" if outcome.status != PASSED else ""}><summary>'
        f'<span class="badge {outcome.status}">{outcome.status}</span> <b>{html.escape(outcome.id)}</b> '
        f"<span class='where'>{html.escape(outcome.description)}</span></summary>{wrong}"
        f"{f'<table class=ledger><thead>{head}</thead><tbody>{table}</tbody></table>' if table else ''}"
        f"{picture(outcome)}<dl>{facts}</dl></details>"
    )


def _matrix(coverage: Coverage) -> str:
    """Faults by tier and chemistry, and the states and conditions in which each was exercised."""
    chemistries = sorted({cell[2] for cell in coverage.cells})
    head = "".join(
        f"<th>{name}</th>" for name in ("fault", "tier", *chemistries, *(a for a in AXES if a != "chemistry"))
    )
    body = []
    for fault in Fault:
        for severity in (Severity.INFO, Severity.WARNING, Severity.FATAL):
            row = row_id(fault, severity)
            if row not in coverage.rows:
                continue
            along = coverage.along(1, [row])
            marks = "".join(
                f'<td class="{"hit" if along[name] else "none"}">{along[name] or ""}</td>' for name in chemistries
            )
            rest = "".join(
                f"<td>{' '.join(f'{name}&nbsp;{n}' for name, n in sorted(coverage.along(axis, [row]).items()))}</td>"
                for axis in (0, 2, 3)
            )
            missing = "" if along else ' class="failed"'
            body.append(f"<tr{missing}><td>{fault.name.lower()}</td><td>{severity.name.lower()}</td>{marks}{rest}</tr>")
    bands = ", ".join(f"{name}: {meaning}" for name, meaning in BANDS.items())
    missing_text = ", ".join(row_text(row) for row in coverage.missing)
    note = f'<p class="wrong">Never exercised: {missing_text}</p>' if missing_text else ""
    return (
        f"<section><h2>Coverage</h2><p>Trials in which a row was expected and seen: by chemistry, and by what was so "
        f"at the injection ({html.escape(bands)}).</p>{note}<div class='scroll'><table class='matrix'>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div></section>"
    )


SCRIPT = """
const box=document.getElementById('filter');
box&&box.addEventListener('input',()=>{const words=box.value.toLowerCase().split(' ').filter(Boolean);
document.querySelectorAll('.scroll .ledger tbody tr,details.trial').forEach(e=>{
const text=e.textContent.toLowerCase();e.style.display=words.every(w=>text.includes(w))?'':'none'})});
function show(){
const e=document.getElementById(decodeURIComponent(location.hash.slice(1)));if(e&&e.tagName==='DETAILS')e.open=true}
addEventListener('hashchange',show);show();
"""

STYLE = """
:root{color-scheme:light}
body{margin:0;background:#f6f7f9;color:#1b1f24;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;line-height:1.25;margin:2px 0 6px}h2{font-size:17px;margin:0 0 4px}
.where{color:#57606a;margin:0}a{color:#0969da;text-decoration:none}a:hover{text-decoration:underline}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(140px,1fr));gap:10px;margin:16px 0}
.card,section:not(.cards),details{background:#fff;border:1px solid #d8dee4;border-radius:8px}
.card{padding:10px 14px}.value{font-size:21px;font-weight:600;font-variant-numeric:tabular-nums}
.what{font-size:13px;color:#57606a}.good .value{color:#00724f}.bad .value{color:#b3261e}.gap .value{color:#9a6b00}
section:not(.cards),details{margin:0 0 12px;padding:14px 18px}section p{color:#57606a;margin:0 0 8px}
.failures{border-color:#e0a39a!important}.failures ul{margin:4px 0;padding-left:20px}
.badge{display:inline-block;min-width:48px;text-align:center;
border-radius:9px;padding:0 8px;font-size:12px;font-weight:600}
.badge.passed{background:#d5f0e3;color:#00573c}.badge.failed{background:#fbd9d3;color:#8c1d13}.badge.gap{background:#ffedc2;color:#7a5500}
.scroll{max-height:560px;overflow:auto;border:1px solid #eaeef2;border-radius:6px}
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th{position:sticky;top:0;background:#f0f3f6;text-align:left;font-weight:600}th,td{padding:3px 8px;white-space:nowrap}
tr:nth-child(even) td{background:#fafbfc}tr.failed td{background:#fdecea}tr.gap td{background:#fff8e6}
details .ledger th{position:static}.number{text-align:right}
.used{display:inline-block;width:54px;height:7px;background:#e4e8ec;border-radius:4px;margin-right:6px;vertical-align:1px}
.used div{height:7px;background:#0072b2;border-radius:4px}
.hit{background:#d5f0e3!important;text-align:center}.none{background:#f3f4f6!important}
#filter{width:100%;box-sizing:border-box;
padding:7px 10px;margin-bottom:8px;border:1px solid #d0d7de;border-radius:6px;font:inherit}
summary{cursor:pointer}.wrong{color:#8c1d13!important;margin:4px 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:1px 14px;font-size:13px;margin:8px 0 0}
dt{color:#57606a}dd{margin:0;overflow-wrap:anywhere}
svg{width:100%;height:auto;display:block;margin-top:8px}
.inject{color:#d55e00}.burn{color:#e69f00}.detect{color:#0072b2}.open{color:#1b1f24}
@media print{.scroll{max-height:none}details{break-inside:avoid}#filter{display:none}}
"""
