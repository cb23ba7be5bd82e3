"""The pages of docs/ that are written from the code: in step, complete, and right about a row that is known."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from bms import racks
from bms.core.faults import Fault
from bms.racks import document


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    docs = Path(__file__).parents[3] / "docs"
    return {path.name: text for path, text in document.pages(docs).items()}


@pytest.mark.parametrize("name", ["faults.md", "configuration.md"])
def test_the_pages_are_in_step_with_the_code(pages: dict[str, str], name: str) -> None:
    written = (Path(__file__).parents[3] / "docs" / name).read_text()
    assert written == pages[name], "run: python -m bms.racks.document docs"


def test_the_page_of_faults_has_every_fault_and_every_row(pages: dict[str, str]) -> None:
    lines = pages["faults.md"].splitlines()
    for fault in Fault:
        assert any(line.startswith(f"| {int(fault)} | `{fault.name.lower()}` |") for line in lines)
    for row in racks.load("lfp_280").rows:
        assert sum(line.startswith(f"| {row.id} | ") for line in lines) == (2 if row.id in set(Fault) else 1)


def test_a_row_is_told_as_it_is(pages: dict[str, str]) -> None:
    line = "| 13 | cell overvoltage | fatal | V | 3.7 (3.65) | 4.1 (4.05) | 4.25 (4.2) | 1.5 | 10 | no_close open latch | 4 |"
    assert line in pages["faults.md"].splitlines()


def test_racks_that_differ_in_times_show_both(pages: dict[str, str]) -> None:
    line = next(line for line in pages["faults.md"].splitlines() if line.startswith("| 403 |"))
    assert line.endswith("| 0 | 0 | no_close open | 25.2 / 19.68 |")  # RC 0.5 s and 0.04 s


@dataclass(frozen=True)
class Example:
    """A class of settings."""

    first: float = 1.5  # what it is, V
    second: str = "a"  # text
    # a remark
    third: float | None = None


def test_keys_come_with_defaults_and_comments() -> None:
    assert document.keys(Example) == [("first", "1.5", "what it is, V"), ("second", '"a"', "text"), ("third", "", "")]


def test_keys_that_are_told_elsewhere_are_left_out() -> None:
    assert "`period_s`" not in document.key_table("signals")
    assert "`max_age_s`" in document.key_table("signals")


def test_the_command_writes_both_pages(tmp_path: Path) -> None:
    (tmp_path / "configuration.md").write_text("before\n<!-- keys timing -->\nold\n<!-- end -->\nafter\n")
    assert document.main([str(tmp_path)]) == 0
    text = (tmp_path / "configuration.md").read_text()
    assert text.startswith("before\n<!-- keys timing -->\n| key | default | |\n")
    assert "old" not in text
    assert text.endswith("<!-- end -->\nafter\n")
    assert (tmp_path / "faults.md").read_text().startswith("# Faults\n")
