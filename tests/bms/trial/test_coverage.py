"""The coverage matrix: what is counted, and that a row that is missing shows."""

from __future__ import annotations

from bms.trial.coverage import covered, lines, row_text, table_rows

CELLS = [
    (13, "connected", "lfp", "mild", "middle"),
    (13, "connected", "nmc", "mild", "full"),
    (13, "connected", "lfp", "mild", "middle"),
]


def test_cells_are_counted() -> None:
    coverage = covered(CELLS, [12, 13])
    assert coverage.exercised == 1
    assert coverage.missing == [12]
    assert coverage.along(1, [13]) == {"lfp": 2, "nmc": 1}
    assert coverage.along(3, [13]) == {"middle": 2, "full": 1}
    document = coverage.to_json()
    assert document["missing"] == ["cell_overvoltage.warning"]
    assert [13, "connected", "lfp", "mild", "middle", 2] in document["cells"]


def test_the_matrix_as_text() -> None:
    text = lines(covered(CELLS, [12, 13, 303]))
    assert any(line.startswith("cell_overvoltage") and "lfp 2 nmc 1" in line for line in text)
    assert "never exercised: cell_overvoltage.warning (row 12)" in text
    assert "never exercised: interlock_open.fatal (row 303)" in text


def test_the_rows_are_those_of_the_shipped_racks() -> None:
    rows = table_rows()
    assert len(rows) == 203
    assert row_text(rows[0]) == "cell_overvoltage.info"
    assert covered([]).rows == rows
