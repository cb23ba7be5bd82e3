"""Tables, fixed signals and protection of a profile's file; the rest of its mistakes: test_can_profile.py."""

from typing import Any

import pytest

from hal.codec.can_profile_file import ProfileFile
from hal.codec.can_protection import Protection
from hal.contract import COMMAND
from hal.errors import ConfigError

FIELDS = {f.name: f for f in COMMAND.fields}


def channel(**entry: Any) -> Any:
    file = ProfileFile("own.toml", {"command": {"contactors": {"signal": "Mode", **entry}}})
    return file.channels("command", {}, FIELDS)["contactors"]


def test_a_table_goes_both_ways() -> None:
    found = channel(table={"0": 0, "1": 3, "2": 3}, send={"2": 1})
    assert found.table == {0: 0, 1: 3, 2: 3}
    assert found.send == {0: 0, 3: 1, 2: 1}, "the first signal that means 3 is sent for it"
    assert found.other == 0
    assert channel().table == {}


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"table": {"a": 3}}, "[command] contactors table: invalid literal for int() with base 10: 'a'; write whole"),
        ({"table": {"1": "x"}}, "[command] contactors table 1 = 'x': expected a whole number"),
        ({"table": 3}, "[command] contactors table = 3: expected a table such as"),
        ({"table": {"1": 3}}, "[command] contactors other = 0: no signal of the table stands for it; add one"),
        ({"table": {"1": 3}, "other": 3, "factor": 2}, "[command] contactors table: for one whole number, without factor"),
        ({"send": {"1": 3}}, "[command] contactors: send and other go with a table"),
        ({"other": 1}, "[command] contactors: send and other go with a table"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_told(entry: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        channel(**entry)
    assert str(caught.value).startswith(f"own.toml: {complaint}")


def test_a_table_is_for_one_whole_number() -> None:
    for name, entry in (
        ("balance", {"signal": "B_{}", "table": {"0": 0}}),
        ("limit_charge_a", {"signal": "L", "table": {"0": 0}}),
    ):
        with pytest.raises(ConfigError, match="for one whole number"):
            ProfileFile("own.toml", {"command": {name: entry}}).channels("command", {"cells": 2}, FIELDS)


def test_fixed_signals_are_numbers() -> None:
    assert ProfileFile("own.toml", {"fixed": {"One.Id": 3, "x": 0.5}}).fixed() == {"One.Id": 3.0, "x": 0.5}
    with pytest.raises(ConfigError, match=r"own.toml: \[fixed\] x = 'a': expected a number"):
        ProfileFile("own.toml", {"fixed": {"x": "a"}}).fixed()


def test_protection_has_a_counter_and_perhaps_a_checksum() -> None:
    def told(**guard: Any) -> Protection | None:
        return ProfileFile("own.toml", {"can": {"protection": guard}}).protection()

    assert told() is None
    assert told(crc="C", counter="N") == Protection("C", "N", 15)
    assert told(counter="N", values=16) == Protection("", "N", 16)
    for guard, complaint in (
        ({"crc": "C"}, r"\[can.protection\] has the keys crc and counter, or counter and values, not crc"),
        ({"counter": "N", "values": 14}, "values = 14: a counter has 15, as AUTOSAR's, or 16"),
        ({"counter": 3}, "counter = 3: expected a text in quotes"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            told(**guard)


def test_names_are_a_list() -> None:
    assert ProfileFile("own.toml", {"can": {"add": ["ivt"]}}).names("can", "add") == ("ivt",)
    with pytest.raises(ConfigError, match=r"\[can\] add = 'ivt': expected a list such as"):
        ProfileFile("own.toml", {"can": {"add": "ivt"}}).names("can", "add")
