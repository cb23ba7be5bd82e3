"""The ledger on the screen."""

from __future__ import annotations

from dataclasses import replace

from bms.trial import screen
from bms.trial.coverage import covered
from bms.trial.outcome import Outcome


def test_failures_come_first(passed: Outcome, failed: Outcome, gap: Outcome) -> None:
    text = screen.ledger([passed, gap, failed], everything=True)
    assert text[0].startswith("FAILED  fails")
    assert "500 ms allowed" in "".join(text[1:3])
    assert any(line.startswith("known gap  known") and "too much is asked" in line for line in text)
    table = text[text.index(screen.HEADER) + 1 :]
    assert table[0].startswith("fails ")
    assert "990" in table[-1]
    assert "2,000" in table[-1]
    assert table[-1].endswith("55%")


def test_only_the_tightest_are_shown_of_many(passed: Outcome) -> None:
    text = screen.ledger([passed] * 40, everything=False)
    assert len(text) == screen.TIGHTEST + 3
    assert f"{screen.TIGHTEST} fatal lines of 40" in text[1]
    assert len(screen.ledger([passed] * 40, everything=True)) == 43


def test_the_longest_name_of_a_row_is_told_whole(passed: Outcome) -> None:
    (entry,) = passed.entries
    longest = max((row for row in screen.FAULTS), key=len)
    text = screen.line(passed, replace(entry, fault=longest, tier="warning"))
    assert f" {longest}.warning " in text
    assert len(text) == len(screen.HEADER) == len(screen.line(passed, entry))


def test_the_last_line(passed: Outcome, failed: Outcome, gap: Outcome) -> None:
    text = screen.totals([passed, failed, gap], covered(passed.cells, [303, 13]), 2.0)
    assert text == "3 trials: 1 passed, 1 failed, 1 known gaps; 1 of 2 rows exercised; 180 s simulated in 2.0 s"
    assert screen.ms(None) == "-"
    assert "simulation" in screen.DISCLAIMER
    assert "paraphrased" in screen.DISCLAIMER
