"""The tables of keys in the page of the twin: in step, complete, and right about keys that are known."""

from dataclasses import fields
from pathlib import Path

import pytest

from sim import document
from sim.faults import FAULT_KINDS


def test_the_page_is_in_step_with_the_code(repository: Path) -> None:
    text = (repository / "docs" / "twin.md").read_text()
    assert text == document.with_key_tables(text), "run: python -m sim.document docs"
    for name in (*document.TABLES, document.FAULTS):
        assert text.count(f"<!-- keys {name} -->\n") == 1, name


@pytest.mark.parametrize("name", list(document.TABLES))
def test_every_key_is_told(name: str) -> None:
    lines = document.key_table(name).splitlines()
    told = [field.name for field in fields(document.TABLES[name]) if field.name != "kind"]
    assert [line.split("`")[1] for line in lines[2:]] == told
    assert all(line.count(" | ") == 4 and not line.endswith("|  |") for line in lines[2:])


def test_keys_are_told_as_they_are() -> None:
    rack, sensors = document.key_table("rack"), document.key_table("sensors")
    assert "| `n_series` |  | 416 / 352 / 96 | 1..65535 | groups in series |" in rack
    assert "| `substep_s` | s | 1 | > 0, <= 1 | longest step of the physics |" in rack
    assert "| `current_max_c` | C | 3 / 3 / 8 | >= 0 |" in sensors
    assert "| `path` |  | must be given |  | the file |" in document.key_table("duty csv")


def test_every_fault_is_told_with_what_it_needs() -> None:
    lines = document.fault_table().splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == list(FAULT_KINDS)
    assert "| `cell_v_swapped` | pair |  |  |  | the readings of the two groups `index` are exchanged |" in lines
    (wire,) = (line for line in lines if line.startswith("| `open_wire` |"))
    assert wire.startswith("| `open_wire` | wire | V (optional) |  |  | ")
    (capacity,) = (line for line in lines if line.startswith("| `cell_capacity` |"))
    assert capacity.startswith("| `cell_capacity` | group | times | > 0, <= 1 | linear | ")


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "twin.md"
    page.write_text("before\n<!-- keys site -->\nold\n<!-- end -->\nafter\n")
    assert document.main([str(tmp_path)]) == 0
    assert page.read_text() == f"before\n<!-- keys site -->\n{document.key_table('site')}<!-- end -->\nafter\n"
