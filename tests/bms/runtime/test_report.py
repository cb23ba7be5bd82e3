"""The page of a run: complete in itself, and rebuilt from a recording."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bms.cli import main
from bms.runtime import PAGE, SERIES, SUMMARY, series
from bms.runtime.report import render, write_report
from hal.backends.replay import FILE_NAME
from hal.errors import DataError


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "run"))


class Outline(HTMLParser):
    """Headings, ids and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        for name in ("src", "href", "xlink:href"):
            if name in values and not values[name].startswith("#"):
                self.fetched.append(values[name])

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "link", "br", "img"):
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_the_page_is_complete_in_itself(folder: Path) -> None:
    page = write_report(folder)
    text = page.read_text()
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert outline.fetched == []
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)
    assert len(outline.ids) == len(set(outline.ids)), "pictures must not share ids"
    for reference in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text):
        assert (reference[0] or reference[1]) in outline.ids
    for heading in ("Power and current", "State of charge", "Error of the estimate", "Cell voltages", "Temperatures",
                    "Energy and efficiency", "States of the controller", "Discharge limit: held down by", "Where the wall time went"):  # fmt: skip
        assert heading in outline.headings
    assert page.stat().st_size < 3_000_000


def test_headline_numbers_are_those_of_the_summary(folder: Path) -> None:
    summary = json.loads((folder / SUMMARY).read_text())
    text = write_report(folder).read_text()
    assert f"{summary['soc_rmse_percent']:.2f}" in text
    assert f"{summary['soc_within_3_sigma_percent']:.1f}" in text
    assert "00:02:0" in text
    summary |= {"faults": ["DISCHARGE_HOT"], "first_fault_s": 61.0, "cause": "discharge hot at sensor 2: 60 degC"}
    (folder / SUMMARY).write_text(json.dumps(summary | {"warnings": ["CELL_LEAK"]}))
    text = write_report(folder).read_text()
    for note in ("Faults: discharge hot; first at 00:01:01.", "Cause: discharge hot at sensor 2: 60 degC.",
                 "Warnings: cell leak."):  # fmt: skip
        assert note in text


def test_the_same_run_gives_the_same_page(folder: Path) -> None:
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


def test_names_are_escaped(folder: Path) -> None:
    summary = json.loads((folder / SUMMARY).read_text())
    summary["scenario"]["description"] = "<script>alert(1)</script>"
    assert "<script>" not in render(series.load(folder / SERIES), summary)


def test_a_killed_run_is_reported_from_its_recording(folder: Path, capsys) -> None:
    told = json.loads((folder / SUMMARY).read_text())
    before = series.load(folder / SERIES)
    (folder / SUMMARY).unlink()
    (folder / SERIES).unlink()
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / PAGE)
    again = json.loads((folder / SUMMARY).read_text())
    for name in ("steps", "soc_rmse_percent", "steps_in_state", "state_at_end", "faults"):
        assert again[name] == told[name], name
    assert again["energy_out_kwh"] == pytest.approx(told["energy_out_kwh"], rel=1e-6)
    assert "0 differences" in again["replayed"]
    for name, array in series.load(folder / SERIES).items():
        np.testing.assert_allclose(array, before[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("spoil", ["folder", "nothing in it", "summary", "samples"])
def test_what_cannot_be_reported_is_one_line(folder: Path, capsys, spoil: str) -> None:
    target = folder
    if spoil == "folder":
        target = folder / "missing"
    elif spoil == "nothing in it":
        for name in (FILE_NAME, SERIES, SUMMARY):
            (folder / name).unlink()
    elif spoil == "summary":
        (folder / SUMMARY).write_text("{")
    else:
        (folder / SERIES).write_bytes(b"PK\x03\x04 not an archive")
    assert main(["report", str(target)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("bms: error: ")
    assert str(target) in err
    assert err.count("\n") == 1


def test_a_damaged_recording_is_reported_as_far_as_it_goes(folder: Path) -> None:
    (folder / SUMMARY).unlink()
    data = bytearray((folder / FILE_NAME).read_bytes())
    data[-3000] ^= 1
    (folder / FILE_NAME).write_bytes(data)
    write_report(folder)
    assert json.loads((folder / SUMMARY).read_text())["steps"] > 50


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        write_report(tmp_path)
