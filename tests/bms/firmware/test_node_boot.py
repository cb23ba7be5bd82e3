"""`bms node --boot`: options that go together, a flash that is gone on with, and a watch that outlives restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="pip install 'rackbms[firmware]'")

from bms.cli import main
from bms.core.machine_table import Request
from bms.firmware import node_boot
from bms.firmware.node_boot import Watch
from hal.errors import LinkError


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--flash", "f"], "--flash belongs to a board with a boot loader: give --boot, too"),
        (["--image", "f"], "--image belongs to a board with a boot loader: give --boot, too"),
        (["--boot", "k.pub"], "--boot: in which file is its flash to be kept? Give --flash FILE"),
        (["--boot", "k.pub", "--flash", "f", "--config", "lfp_280"], "--config: with --boot, that is what the image"),
        (["--boot", "k.pub", "--flash", "f", "--initial-soc", "0.5"], "--initial-soc: with --boot, that is what"),
        (["--boot", "no.pub", "--flash", "f"], "no.pub: cannot be read"),
        (["--bus", "modbus:tcp://x"], "--bus modbus:tcp://x: expected can:INTERFACE:CHANNEL"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error
    assert not Path("f").exists()


class Remote:
    """A program that comes and goes."""

    def __init__(self, *statuses: str | None) -> None:
        self.statuses = list(statuses)
        self.requests: list[int] = []

    def node(self, request: int) -> Any:
        self.requests.append(request)
        status = self.statuses.pop(0)
        if status is None:
            raise LinkError("silent")
        return status

    def hello(self) -> Any:
        return "identity"


def test_each_program_that_starts_is_told_what_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote("one", None, "two")
    monkeypatch.setattr(node_boot, "Remote", lambda emulator: remote)
    emulator: Any = None
    watch = Watch(emulator, Request.OPEN, lambda status, identity, time_s: f"{status} {identity}", quiet=False)
    lines = [watch.look(float(k)) for k in range(3)]
    assert (lines[0], lines[2]) == ("one identity", "two identity")
    assert "the boot loader runs" in lines[1]
    assert remote.requests == [Request.OPEN] * 3
