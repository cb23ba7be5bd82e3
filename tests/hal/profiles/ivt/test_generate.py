"""The DBC of the current sensor: the shipped file, its command, and the counter that runs to 15."""

from pathlib import Path

import cantools
import pytest

from hal.codec.can_profile import FOLDER
from hal.profiles.ivt.generate import RESULTS, dbc, main


def test_the_shipped_file_is_what_the_generator_writes() -> None:
    assert (FOLDER / "ivt" / "ivt.dbc").read_text() == dbc()


def test_each_result_is_a_message_of_six_bytes_with_its_number() -> None:
    peer = cantools.database.load_string(dbc(), "dbc", strict=True)
    assert [(m.name, m.frame_id, m.length) for m in peer.messages] == [(*result[:2], 6) for result in RESULTS]
    for name, _, number, value, unit in RESULTS:
        message = peer.get_message_by_name(name)
        told = message.decode(bytes((number, 0xE9, 0xFF, 0xFF, 0xFF, 0x9C)), decode_choices=False)
        assert told == {"Result": number, "Errors": 7, "MessageCount": 9, f"Ivt{value}": -100}
        assert message.get_signal_by_name(f"Ivt{value}").unit == unit


def test_the_command_writes_it_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == dbc()
    assert main(["-o", str(tmp_path / "no" / "x.dbc")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
