"""The files that the pages show work as they are printed: each is written to disk and run with its command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bms import cli

WHOLE = {
    "trial.md": [["trial", "run", "FILE", "--jobs", "1"], ["trial", "run", "FILE", "--jobs", "1"]],
    "campaign.md": [["trial", "campaign", "FILE", "--jobs", "1", "--n", "3"]],
    "scenarios.md": [["run", "--scenario", "FILE"]],
    "ci.md": [],
}
"""The commands that take the TOML examples of each page, in order."""

SAYS = {
    "trial.md": ["1 trials: 1 passed, 0 failed", "8 trials: 8 passed, 0 failed"],
    "campaign.md": ["9 samples in"],
    "scenarios.md": ["72,001 steps, 02:00:00"],
}
"""The begin of a line that each of them prints."""


def examples(page: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", WHOLE)
def test_each_example_is_run(repository: Path, page: str) -> None:
    assert len(examples(repository / "docs" / page)) == len(WHOLE[page])


@pytest.mark.parametrize(("page", "k"), [(page, k) for page, commands in WHOLE.items() for k in range(len(commands))])
def test_it_works_as_printed(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], page: str, k: int
) -> None:
    file = tmp_path / "my_example.toml"
    file.write_text(examples(repository / "docs" / page)[k])
    words = [str(file) if word == "FILE" else word for word in WHOLE[page][k]]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 0, capsys.readouterr()
    assert f"\n{SAYS[page][k]}" in capsys.readouterr().out


def test_what_the_longer_first_trial_says_is_printed(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = repository / "docs" / "trial.md"
    (told,) = re.findall(r"With a `duration` of 90 s it ends with 1 and says `(.*?)`", page.read_text())
    first = examples(page)[0]
    assert 'duration = "50s"' in first
    file = tmp_path / "my_faults.toml"
    file.write_text(first.replace('duration = "50s"', 'duration = "90s"'))
    assert cli.main(["trial", "run", str(file), "--jobs", "1", "--out", str(tmp_path / "out")]) == 1
    assert f" {told}\n" in capsys.readouterr().out
    file.write_text(file.read_text().replace("[expect]", '[expect]\nallow = ["cell_voltage_frozen"]'))
    assert cli.main(["trial", "run", str(file), "--jobs", "1", "--out", str(tmp_path / "out")]) == 0
