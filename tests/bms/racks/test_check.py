"""Wrong configurations, each named precisely: a file in `wrong/` begins with the findings that it must lead to."""

import re
from pathlib import Path

import pytest

from bms import cells, racks
from bms.racks.check import check
from bms.racks.findings import ERROR

WRONG = sorted((Path(__file__).parent / "wrong").glob("*.toml"))


def expected(path: Path) -> list[str]:
    """'error: key = value: finding; remedy' for each finding that the head of the file foretells."""
    lines = path.read_text().splitlines()
    return [line[2:] for line in lines if line.startswith(("# error: ", "# warning: "))]


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_configuration_is_named_precisely(path: Path) -> None:
    found = check(racks.load(path))
    told = [f"{f.severity}: {str(f).removeprefix(f'{path}: ')}" for f in found]
    foretold = expected(path)
    assert foretold, "a wrong file begins with what must be found"
    assert [line for line in told if line in foretold] == foretold
    # nothing else is called an error, so that the line to look at is the one that was changed
    assert [line for line in told if line.startswith(ERROR)] == [line for line in foretold if line.startswith(ERROR)]


def test_there_are_enough_wrong_ones() -> None:
    assert len(WRONG) >= 20
    assert len({expected(path)[0] for path in WRONG}) == len(WRONG), "each is wrong in its own way"


@pytest.mark.parametrize("name", racks.names())
def test_the_shipped_racks_have_no_findings(name: str) -> None:
    assert [str(finding) for finding in check(racks.load(name))] == []


@pytest.mark.parametrize("name", cells.names())
def test_defaults_have_no_errors_for_any_cell(name: str) -> None:
    config = racks.parse({"format": 1, "rack": {"cell": name, "n_series": 100, "n_parallel": 4}}, name)
    assert [str(finding) for finding in check(config) if finding.severity == ERROR] == []


def test_errors_come_first() -> None:
    config = racks.overlay(
        racks.load("lfp_280"),
        {"fault": {"cell_overvoltage": {"warning": {"set_s": 0.1}}}, "cooling": {"min_degc": -40.0}},
        "mixed.toml",
    )
    assert [finding.severity for finding in check(config)] == ["error", "warning"]


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_remedy_that_names_a_number_helps(path: Path) -> None:
    """Where it says 'take 3.7', 3.7 makes the finding go away."""
    config = racks.load(path)
    for finding in check(config):
        number = re.match(r"take (?:about |at least )?(-?[\d.]+(?:e[+-]?\d+)?)\b", finding.remedy)
        if f"# {finding.severity}: {finding.key} = " not in path.read_text() or number is None:
            continue
        value = float(number[1])
        change: dict[str, object] = {finding.key.split(".")[-1]: int(value) if "attempts" in finding.key else value}
        for name in reversed(finding.key.split(".")[:-1]):
            change = {name: change}
        again = check(racks.overlay(config, change, "mended"))
        assert finding.key not in [other.key for other in again], str(finding)
