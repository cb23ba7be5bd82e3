"""Trials on a board that is there: those that its configuration allows, one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from bms.cli import main
from bms.firmware import inloop
from bms.firmware.baked import Baked, baked
from bms.trial import board, command, pool
from bms.trial.case import Trial
from bms.trial.outcome import attempted, run_one
from bms.trial.play import configuration
from hal.errors import ConfigError, GoneError

PORT = "serial:/dev/ttyX"


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has a board with the configuration of this hash be there."""

    def connect(digest: str) -> None:
        monkeypatch.setattr(
            inloop, "introduced", lambda text: SimpleNamespace(config=digest, target="cortex-m7", text=text)
        )

    return connect


def digest(trial: Trial) -> str:
    return Baked.of(configuration(trial).bytes).digest


def test_what_needs_another_configuration_is_left_out(make: Callable[..., Trial], connected) -> None:
    flipped = [{"kind": "configuration_bit", "value": 3, "at_s": 5.0}]
    trials = [
        make(name="a"),
        make(name="b", controller={"fault": {"interlock_open": {"fatal": {"enabled": False}}}}),
        make(name="c", internal=flipped),
    ]
    assert digest(trials[0]) == digest(trials[2]) != digest(trials[1])
    connected(digest(trials[0]))
    played, told = board.fitting(trials, f"{PORT},jit")
    assert [trial.id for trial in played] == ["a"]
    assert told == "2 of 3 trials need another configuration, and are left out"
    assert board.fitting(trials[:1], PORT) == (trials[:1], "")


def test_a_board_that_fits_none_is_told_what_fits_most(make: Callable[..., Trial], connected) -> None:
    trial = make()
    connected("0" * 16)
    with pytest.raises(ConfigError, match=f"{PORT}: its configuration is 0{{16}}, which none .* for 1 of 1") as told:
        board.fitting([trial], PORT)
    named = re.search(r"--config (\S+) ", str(told.value))
    assert named is not None
    assert baked(named[1], None).digest == digest(trial)


def test_a_board_that_goes_ends_the_run(make: Callable[..., Trial]) -> None:
    def gone() -> None:
        raise GoneError(f"{PORT}: the port has gone")

    with pytest.raises(GoneError):
        attempted(make(), gone)  # type: ignore[arg-type]


def test_what_has_ended_before_is_kept(
    make: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def two_then_gone(jobs, *, told, **_):  # type: ignore[no-untyped-def]
        for trial, _changes in jobs[:2]:
            told(run_one(trial, curves=False))
        raise GoneError(f"{PORT}: the port has gone")

    trials = [make(name=name) for name in "abc"]
    monkeypatch.setattr(pool, "run_all", two_then_gone)
    monkeypatch.setattr(command, "chosen", lambda *_, **__: trials)
    assert main(["trial", "run", "--quiet", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"bms: error: {PORT}: the port has gone\n"
    told = json.loads((tmp_path / command.LEDGER).read_text())
    assert [one["id"] for one in told["trials"]] == ["a", "b"]


@pytest.mark.parametrize("words", [("sweep", "any.toml"), ("weaken",), ("campaign", "any.toml")])
def test_other_actions_do_not_take_a_board(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trial", *words, "--engine", PORT]) == 2
    assert "a board has one configuration: bms trial run takes it" in capsys.readouterr().err
