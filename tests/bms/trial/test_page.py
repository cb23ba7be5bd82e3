"""The page: self-contained, failures first, and escaped."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from bms.trial.coverage import covered
from bms.trial.outcome import Outcome
from bms.trial.page import render


class Loads(HTMLParser):
    """Notes everything that a browser would fetch, and the order of the trials."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.opened: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for key in ("src", "href", "xlink:href", "data", "poster", "action"):
            if (value := values.get(key)) is not None and not value.startswith(("data:", "#")):
                self.fetched.append(value)
        if tag == "link":
            self.fetched.append(tag)
        if tag == "details":
            self.ids.append(values["id"])
            self.opened.append("open" in values)


def test_it_fetches_nothing_and_shows_failures_first(passed: Outcome, failed: Outcome, gap: Outcome) -> None:
    page = render([passed, gap, failed], covered(passed.cells), 1.0, "Title")
    loads = Loads()
    loads.feed(page)
    assert not loads.fetched
    assert "http" not in page.replace("http-equiv", "")
    assert "@import" not in page
    assert "url(" not in page
    assert loads.ids == ["t-fails", "t-known", "t-mine"]
    assert loads.opened == [True, True, False]
    assert "simulation" in page
    assert "paraphrased" in page
    assert page.count("<svg") == 3


def test_text_is_escaped(passed: Outcome) -> None:
    page = render([replace(passed, description="<script>x</script>", failures=[])], covered([]), 1.0, "a & b")
    assert "<script>x" not in page
    assert "a &amp; b" in page
    assert "IEC 0 &amp; &lt;1&gt;" in page


def test_missing_rows_are_named(passed: Outcome) -> None:
    page = render([passed], covered(passed.cells, [13, 303]), 1.0, "T", complete=True)
    assert "Never exercised: cell_overvoltage.fatal" in page
    assert "1 / 2" in page
