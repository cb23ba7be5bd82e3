"""The ledger as a table on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from bms.trial import lead as leads
from bms.trial.coverage import Coverage
from bms.trial.expect import FAULTS, TIERS
from bms.trial.ledger import Entry
from bms.trial.outcome import FAILED, GAP, PASSED, Outcome

TIGHTEST = 12
DISCLAIMER = (
    "A simulation: a twin of the rack, not the rack. Clauses of standards are paraphrased from summaries, not quoted; "
    "passing here replaces no test of theirs."
)

LEAD_TITLE = (
    "lead times in s, from the first fatal row to what burnt (the shortest of the trials; negative: it came too late)"
)
ROW = max(len(f"{fault}.{tier}") for fault in FAULTS for tier in TIERS)
"""Width of the longest name of a row."""
HEADER = f"{'trial':44} {'row':{ROW}} {'detect':>9} {'react':>9} {'open':>9} {'budget':>9} {'used':>6}"


def ms(value: float | None) -> str:
    """A time in ms for the table; a dash where there is none."""
    return "-" if value is None else f"{value:,.0f}"


def used(entry: Entry) -> float | None:
    """Share of the budget that was used, 1 = all."""
    if entry.spent_ms is None or not entry.budget_ms:
        return None
    return entry.spent_ms / entry.budget_ms


def line(outcome: Outcome, entry: Entry) -> str:
    """One line of the ledger."""
    share = used(entry)
    return (
        f"{outcome.id[:44]:44} {f'{entry.fault}.{entry.tier}':{ROW}} {ms(entry.detect_ms):>9} "
        f"{ms(entry.react_ms):>9} "
        f"{ms(entry.open_ms):>9} {ms(entry.budget_ms):>9} {'-' if share is None else f'{share:.0%}':>6}"
    )


def ledger(outcomes: Sequence[Outcome], *, everything: bool) -> list[str]:
    """The table: failures first, then all lines, or those that leave the least of their budget."""
    text = []
    for status, title in ((FAILED, "FAILED"), (GAP, "known gap")):
        for outcome in outcomes:
            if outcome.status == status:
                text.append(
                    f"{title}  {outcome.id}: {outcome.description}" + (f" ({outcome.gap})" if outcome.gap else "")
                )
                text += [f"        {failure}" for failure in outcome.failures]
    lines = [(outcome, entry) for outcome in outcomes for entry in outcome.entries]
    lines.sort(key=lambda pair: pair[0].status == PASSED)
    shown = lines
    if not everything and len(lines) > TIGHTEST:
        # only a fatal row has a budget of its own; that of another follows from its set time
        fatal = [pair for pair in lines if pair[1].tier == "fatal"]
        shown = sorted(fatal, key=lambda pair: -(used(pair[1]) or 0.0))[:TIGHTEST]
    if shown:
        text += ["", "times in ms since the injection"]
        if len(shown) < len(lines):
            text[-1] += f"; the {len(shown)} fatal lines of {len(lines)} that leave the least of their budget"
        text += [HEADER, *(line(outcome, entry) for outcome, entry in shown)]
    return text + _leads(outcomes, everything)


def _leads(outcomes: Sequence[Outcome], everything: bool) -> list[str]:
    """Lead times where something burnt: by fault and chemistry, and of each trial where everything is asked for."""
    found = [(outcome.id, outcome.lead) for outcome in outcomes if outcome.lead is not None]
    if not found:
        return []
    shown = [lead for _, lead in found]
    shown = shown if everything else leads.alone(shown)
    text = ["", LEAD_TITLE, *leads.text(shown)] if shown else []
    if everything:
        text += ["", f"{'trial':44} {'told by':{ROW}} {'told':>9} " + " ".join(f"{e[:9]:>9}" for e in leads.EVENTS)]
        text += [
            f"{name[:44]:44} {lead.row:{ROW}} {_s(lead.told_s):>9} "
            + " ".join(f"{_s(getattr(lead, f'{event}_s')):>9}" for event in leads.EVENTS)
            for name, lead in found
        ]
    return text


def _s(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def totals(outcomes: Sequence[Outcome], coverage: Coverage, wall_s: float) -> str:
    """The last line."""
    count = {status: sum(outcome.status == status for outcome in outcomes) for status in (PASSED, FAILED, GAP)}
    simulated_s = sum(outcome.simulated_s for outcome in outcomes)
    gaps = f", {count[GAP]} known gaps" if count[GAP] else ""
    return (
        f"{len(outcomes)} trials: {count[PASSED]} passed, {count[FAILED]} failed{gaps}; {coverage.exercised} of "
        f"{len(coverage.rows)} rows exercised; {simulated_s:,.0f} s simulated in {wall_s:.1f} s"
    )
