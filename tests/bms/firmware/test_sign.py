"""`bms sign` makes images that imgtool, by MCUboot, finds right; what cannot be signed is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bms.cli import main
from bms.firmware.identity import config_hash, layouts_hash

pytest.importorskip("imgtool", reason="pip install 'rackbms[firmware]'")

from bms.firmware import sign
from hal.errors import ConfigError
from hal.flash.image import Flag, Kind, Version, parse

PROGRAM = bytes(range(256)) * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two keys and a program."""
    folder = tmp_path_factory.mktemp("signing")
    for name in ("key.pem", "other.pem"):
        assert main(["keygen", str(folder / name)]) == 0
    (folder / "program.bin").write_bytes(PROGRAM)
    return folder


def call(folder: Path, *words: str) -> int:
    """`bms sign` with what every call needs, unless `words` say otherwise."""
    usual = {
        "--key": "key.pem",
        "--version": "1.2.3",
        "--security-counter": "7",
        "--board": "mps2-an500",
        "-o": "out.bin",
    }
    given = dict(zip(words[::2], words[1::2], strict=True))
    program = given.pop("program", "program.bin")
    if "--config" not in given:
        usual["--config-hash"] = "00112233445566aa"
    here = Path.cwd()
    os.chdir(folder)
    try:
        return main(["sign", program, *(word for pair in (usual | given).items() for word in pair)])
    finally:
        os.chdir(here)


def verify(folder: Path, key: str) -> str:
    words = [sys.executable, "-c", "from imgtool.main import imgtool; imgtool()", "verify", "--key", key, "out.bin"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_imgtool_agrees(folder: Path) -> None:
    assert call(folder, "--version", "1.2.3+4", "--address", "0x20000", "--config", "lfp_280") == 0
    assert "Image was correctly validated" in verify(folder, "key.pub")
    assert "Image version: 1.2.3+4" in verify(folder, "key.pub")
    assert "correctly validated" not in verify(folder, "other.pub")
    data = (folder / "out.bin").read_bytes()
    image = parse(data)
    assert image.size == len(data)
    assert image.sound
    assert data[image.header_size :][: image.program_size] == PROGRAM
    assert (image.version, image.counter, image.board) == (Version(1, 2, 3, 4), 7, "mps2-an500")
    assert (image.flags, image.address) == (Flag.ROM_FIXED, 0x20000)
    assert image.value(Kind.CONFIG) == config_hash("lfp_280")
    assert image.value(Kind.LAYOUTS) == layouts_hash()
    assert all(tlv.protected == (tlv.kind >= Kind.CONFIG or tlv.kind == Kind.COUNTER) for tlv in image.tlvs)


def test_the_same_inputs_give_the_same_bytes(folder: Path) -> None:
    assert call(folder, "-o", "one.bin") == call(folder, "-o", "two.bin") == 0
    assert (folder / "one.bin").read_bytes() == (folder / "two.bin").read_bytes()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--version", "1.2"), "argument --version: '1.2': expected a version such as 1.2.3 or 1.2.3+4"),
        (("--version", "256.0.0"), "'256.0.0': the largest is 255.255.65535+4294967295"),
        (("--security-counter", "-1"), "'-1': expected a whole number"),
        (("--board", "Ärger"), "'Ärger': expected up to 16 of a-z"),
        (("--config-hash", "12"), "'12': expected 16 hexadecimal digits"),
    ],
)
def test_wrong_options(
    folder: Path, words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        call(folder, *words)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("program", "none.bin"), "none.bin: cannot be read: No such file"),
        (("--key", "program.bin"), "program.bin: no private key in PEM"),
        (("--key", "key.pub"), "key.pub: no private key in PEM"),
        (("--config", "lfp_281"), "unknown rack 'lfp_281' (did you mean 'lfp_280'?)"),
        (("--sensors", "3"), "--sensors belongs to a configuration"),
        (("-o", "no/out.bin"), "no/out.bin: cannot be written"),
        (("--header-size", "8"), "refuses: Error: Invalid value for '-H'"),
    ],
)  # fmt: skip
def test_what_cannot_be_signed(
    folder: Path, words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(folder, *words) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_an_empty_program_and_an_absent_imgtool(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {"version": "1.0.0", "counter": 0, "board": "b", "config": bytes(8), "layouts": bytes(8)}
    with pytest.raises(ConfigError, match="the program is empty"):
        sign.signed(b"", folder / "key.pem", **usual)
    monkeypatch.setattr(sign.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rackbms\[firmware\]'"):
        sign.signed(b"p", folder / "key.pem", **usual)


def test_a_slot_is_known_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "--slot", "b") == 0
    image = parse((folder / "out.bin").read_bytes())
    assert (image.address, Flag.ROM_FIXED in image.flags) == (0x60900000, True)
    assert call(folder, "--slot", "a", "--board", "other") == 2
    assert "where the slots of 'other' are is not known; give --address" in capsys.readouterr().err
