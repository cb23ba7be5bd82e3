"""How `bms flash` tells its progress; flashing itself is tried in boot/test_node_flashing.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="pip install 'rackbms[firmware]'")

from bms.cli import main
from bms.firmware.flash import Progress, _chosen, _Waiting
from hal.errors import ConfigError
from hal.flash.answers import Refused
from hal.flash.image import Image


def test_a_few_lines_where_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    for done in range(0, 1001, 10):
        progress(done, 1000)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert (lines[0], lines[-1]) == ("0 of 1000 bytes", "1000 of 1000 bytes")


def test_one_line_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    progress = Progress()
    for done in (300, 600, 1000):
        progress(done, 1000)
    assert (
        capsys.readouterr().out
        == "300 of 1000 bytes are there already\n\r300 of 1000 bytes\r600 of 1000 bytes\r1000 of 1000 bytes\n"
    )


def test_a_trial_is_told_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = _Waiting(60.0)
    for spent_s in range(12):
        waiting(float(spent_s))
    assert capsys.readouterr().out == "on trial for 5 of 60 s\non trial for 10 of 60 s\n"


@pytest.mark.parametrize("text", ["-1", "nan", "soon"])
def test_a_time_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["flash", "--to", "can:virtual:x", f"--wait={text}"])
    assert f"--wait: '{text}': expected seconds, 0 or more" in capsys.readouterr().err


@dataclass
class Flasher:
    """Of a controller whose free slot is at `free`."""

    free: int | None
    place: str = "place"

    def free_address(self) -> int | None:
        return self.free


def image(address: int) -> tuple[bytes, Any]:
    return b"", Image(Any, Any, address, 0, 0, 0, (), True)  # type: ignore[arg-type]


def test_the_image_for_the_free_slot_is_chosen() -> None:
    low, high, anywhere = image(0x1000), image(0x2000), image(0)

    def chosen(free: int | None, *images: tuple[bytes, Image]) -> tuple[bytes, Image]:
        flasher: Any = Flasher(free)
        return _chosen(flasher, images)

    assert chosen(0x2000, low, high) is high
    assert chosen(0x1000, low, high) is low
    assert chosen(0x1000, anywhere) is anywhere
    assert chosen(None, high) is high
    with pytest.raises(Refused, match=r"place: its free slot is at 0x00001000: none .* linked for it \(0x00002000\)"):
        chosen(0x1000, high)
    with pytest.raises(ConfigError, match="2 images, and place does not tell its slots apart: give one"):
        chosen(None, low, high)
