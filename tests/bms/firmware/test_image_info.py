"""`bms image info`: all that an image says of itself, and whether it was changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bms.cli import main
from hal.flash.image import AREA, ENTRY, HEADER, MAGIC, Flag, Kind


def write(path: Path, program: bytes = b"program", digest: bytes | None = None) -> None:
    tlvs = [(Kind.COUNTER, b"\x09\0\0\0"), (Kind.BOARD, b"mps2"), (Kind.CONFIG, bytes(8))]
    inner = b"".join(ENTRY.pack(kind, len(value)) + value for kind, value in tlvs)
    signed = (
        HEADER.pack(MAGIC, 0x20000, 32, AREA.size + len(inner), len(program), Flag.ROM_FIXED, 1, 2, 3, 0, 0) + program
    )
    signed += AREA.pack(0x6908, AREA.size + len(inner)) + inner
    digest = hashlib.sha512(signed).digest() if digest is None else digest
    path.write_bytes(signed + AREA.pack(0x6907, 8 + 64) + ENTRY.pack(Kind.SHA512, 64) + digest + b"tail")


def test_a_sound_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "i.bin")
    assert main(["image", "info", str(tmp_path / "i.bin")]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["version"] == "1.2.3"
    assert lines["flags"] == "0x100  ROM_FIXED"
    assert lines["counter"].split() == ["*", "9"]
    assert lines["board"].split() == ["*", "mps2"]
    assert lines["config"].split() == ["*", 16 * "0", "(8", "bytes)"]
    assert lines["whole"].endswith(", 4 more in the file")
    assert lines["hash"] == "is that of the image"


def test_a_changed_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "i.bin", digest=bytes(64))
    assert main(["image", "info", str(tmp_path / "i.bin")]) == 1
    assert "IS NOT that of the image" in capsys.readouterr().out
