"""A board at the end of a serial line, with an emulated one at a pseudo-terminal in its place."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bms.cli import main
from bms.core.jit import PROGRAM
from bms.core.step import initial_state
from bms.firmware import boards, inloop, places
from bms.firmware.baked import Baked, baked, keep
from bms.firmware.inloop import Elsewhere
from hal.backends.replay import FILE_NAME
from hal.engine.emulator import Emulator
from hal.errors import ConfigError

RACK = ("--rack", "sim:lfp_280?n_series=16&seed=3&duty.start_s=8", "--cell", "lfp_280", "--duration", "15s", "--quiet")


@pytest.fixture(autouse=True)
def afterwards(arm: None, qemu: None) -> Iterator[None]:
    """Controllers of later tests run on this computer again."""
    pytest.importorskip("serial")
    yield
    PROGRAM.use(None)


@pytest.fixture
def plugged() -> Iterator[Callable[[Baked], tuple[str, Emulator]]]:
    """Starts a board with a configuration; gives the place that it is at."""
    running = []

    def start(found: Baked) -> tuple[str, Emulator]:
        board = boards.BOARDS["cortex-m7"]
        elf = places._made(PROGRAM, "cortex-m7", found)
        emulator = Emulator(board.emulator, board.machine, elf, board.store, first="pty")
        running.append(emulator)
        for _ in range(500):
            if named := re.search(r"redirected to (\S+)", emulator.said()):
                return f"serial:{named[1]}", emulator
            time.sleep(0.01)
        pytest.fail(f"no pseudo-terminal: {emulator.said()}")

    yield start
    for emulator in running:
        emulator.close()


@pytest.fixture
def needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Baked:
    """The configuration of the rack of these tests, as a board with another is told to have it."""
    found = []
    with monkeypatch.context() as patched:
        patched.setattr(inloop, "agree", lambda identity, program, wanted, name: found.append(wanted))
        assert main(["run", *RACK, "--no-report", "--engine", "process:host", "--out", str(tmp_path / "any")]) == 0
    return found[0]  # type: ignore[no-any-return]


def test_a_run_and_its_replay_on_a_board_are_those_of_this_computer(
    plugged: Callable[[Baked], tuple[str, Emulator]],
    needed: Baked,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, emulator = plugged(baked(str(keep(needed)), None))
    assert main(["run", *RACK, "--no-report", "--out", str(tmp_path / "here")]) == 0
    assert main(["fil", *RACK, "--engine", place, "--out", str(tmp_path / "there")]) == 0
    assert capsys.readouterr().out.endswith(" steps, 0 differences\n")
    assert (tmp_path / "there" / FILE_NAME).read_bytes() == (tmp_path / "here" / FILE_NAME).read_bytes()
    assert main(["replay", str(tmp_path / "here"), "--quiet", "--engine", place]) == 0

    step, steps = inloop.Controlled.step, 0

    def unplugged(*words):  # type: ignore[no-untyped-def]
        nonlocal steps
        steps += 1
        if steps == 6:
            emulator.close()
        return step(*words)

    inloop.Controlled.step = unplugged  # type: ignore[method-assign, assignment]
    try:
        capsys.readouterr()
        assert main(["run", *RACK, "--no-report", "--engine", place, "--out", str(tmp_path / "cut")]) == 2
    finally:
        inloop.Controlled.step = step  # type: ignore[method-assign]
    error = capsys.readouterr().err
    assert f"bms: error: {place}: the port has gone: was it unplugged?" in error
    assert error.count("\n") == 1
    PROGRAM.use(None)
    assert main(["replay", str(tmp_path / "cut"), "--quiet"]) == 0
    assert capsys.readouterr().out == "5 steps, 0 differences\n"


def test_a_board_with_another_configuration_is_refused_with_the_command_that_makes_the_right_one(
    plugged: Callable[[Baked], tuple[str, Emulator]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, _ = plugged(baked("nmc_ev", 12))
    assert main(["fil", *RACK, "--engine", place, "--out", str(tmp_path / "there")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    told = re.search(r"its configuration is \w{16}, here it is (\w{16}); make the right one: bms build (.*) -o ", error)
    assert told is not None
    assert told[2].startswith("--target cortex-m7 --config ")
    assert baked(told[2].split()[-1], None).digest == told[1]
    assert not (tmp_path / "there").exists()


def test_one_board_is_one_controller(plugged: Callable[[Baked], tuple[str, Emulator]]) -> None:
    found = baked("nmc_ev", 12)
    place, _ = plugged(found)
    elsewhere = Elsewhere(PROGRAM, place)
    PROGRAM.run_elsewhere(elsewhere.entries())
    first = initial_state(found.record, 0.5, 0.1)
    with pytest.raises(ConfigError, match=f"{place}: one board is one controller, and it is one already"):
        initial_state(found.record, 0.5, 0.1)
    del first
    state = initial_state(found.record, 0.5, 0.1)
    assert np.isfinite(state.out).all()
    elsewhere.controller(found.record.bytes, state.bytes)[0].close()
