"""`bms fil`: the verdict, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bms.cli import main
from bms.core.jit import PROGRAM
from bms.firmware import fil, inloop
from bms.firmware.build import LIBRARY
from bms.firmware.compare import Decision

RACK = ("--rack", "sim:na_185?n_series=4&module_groups=4&seed=5&duty.start_s=6", "--duration", "12s", "--quiet")


@pytest.fixture(autouse=True)
def afterwards(arm: None, qemu: None) -> Iterator[None]:
    """Controllers of later tests run on this computer again."""
    yield
    PROGRAM.use(None)


def test_three_engines_decide_the_same(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = f"lib:{built / LIBRARY}"
    assert main(["fil", *RACK, "--against", library, "--out", str(tmp_path / "lib")]) == 0
    assert f"qemu:cortex-m7 against {library}: " in (said := capsys.readouterr().out)
    assert said.endswith(" steps, 0 differences\n")
    assert main(["replay", str(tmp_path / "lib"), "--quiet"]) == 0
    assert capsys.readouterr().out.endswith(" steps, 0 differences\n")


def test_the_first_difference_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = inloop.check

    def fifth(step: int, time_s: float, size: tuple[int, int], theirs: Decision, ours: Decision) -> None:
        if step == 5:
            ours.command[4] ^= 1
        original(step, time_s, size, theirs, ours)

    monkeypatch.setattr(inloop, "check", fifth)
    assert main(["fil", *RACK, "--out", str(tmp_path)]) == fil.FAILED
    said = capsys.readouterr().out
    assert said.startswith("step 5 (t = 4 s): the board and this computer differ: command.time_s ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ("--engine", "jit"),
            "--engine jit: expected qemu:BOARD, process:host or serial:DEVICE; what it is compared with is told by --against",
        ),
        (("--engine", "qemu:cortex-m7,jit"), "expected qemu:BOARD"),
        (("--against", "c"), "--engine qemu:cortex-m7,c: expected jit, lib:PATH"),
        (("--rack", "sim:site?racks=2"), "a board controls a single rack, not a site"),
    ],
)
def test_options_that_do_not_fit(
    words: tuple[str, ...], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fil", *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error
