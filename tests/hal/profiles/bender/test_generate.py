"""The DBC of the insulation monitor: the shipped file, its command, and what its one frame says."""

import cantools
import pytest

from hal.codec.can_profile import FOLDER
from hal.profiles.bender.generate import dbc, main


def test_the_shipped_file_is_what_the_generator_writes() -> None:
    assert (FOLDER / "bender" / "bender.dbc").read_text() == dbc()


def test_a_frame_is_read_as_the_public_description_has_it() -> None:
    """Resistance in the first two bytes, low byte first; bit 40, outdated, is the highest of the troubles."""
    peer = cantools.database.load_string(dbc(), "dbc", strict=True)
    assert peer.decode_message(0x37, bytes.fromhex("e80300000001")) == {"Resistance": 1000, "Trouble": 256}
    assert peer.decode_message(0x37, bytes.fromhex("e80300000700")) == {"Resistance": 1000, "Trouble": 7}


def test_the_command_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == dbc()
