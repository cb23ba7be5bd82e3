"""Where checksum and counter lie in a message, whatever its byte order, and mistakes in that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.codec.can_protection import NO_CRC, Places, Protection, crc8, places_of
from hal.codec.dbc import Message, parse
from hal.codec.frames import Codec, Inbox, Outbox, Verdict
from hal.errors import ConfigError

BOTH, COUNTER = Protection("Crc", "Count"), Protection("", "Count", 16)


def message(*signals: str) -> Message:
    lines = [f' SG_ {signal} (1,0) [0|0] "" B\n' for signal in signals]
    return parse(f"BO_ 5 One: 4 A\n{''.join(lines)}", "x.dbc").messages[0]


@given(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans())
def test_both_byte_orders_have_the_same_places(byte: int, shift: int, little_crc: bool, little_counter: bool) -> None:
    at, low = (byte + 1) % 4, shift
    crc = f"Crc : {8 * byte}|8@1+" if little_crc else f"Crc : {8 * byte + 7}|8@0+"
    counter = f"Count : {8 * at + low}|4@1+" if little_counter else f"Count : {8 * at + low + 3}|4@0+"
    assert places_of(message(crc, counter), [BOTH], "x") == Places(byte, at, low, 15)
    assert places_of(message(counter), [BOTH, COUNTER], "x") == Places(NO_CRC, at, low, 16)
    assert places_of(message("x : 0|8@1+"), [BOTH, COUNTER], "x") is None


@pytest.mark.parametrize(
    ("signals", "complaint"),
    [
        (("Crc : 1|8@1+", "Count : 12|4@1+"), "x.dbc: message One: signal Crc is not one whole byte"),
        (("Crc : 0|7@1+", "Count : 12|4@1+"), "signal Crc is not one whole byte"),
        (("Crc : 0|8@1+", "Count : 8|5@1+"), "signal Count is not 4 bits of one byte"),
        (("Crc : 0|8@1+", "Count : 14|4@1+"), "signal Count is not 4 bits of one byte"),
        (("Crc : 7|8@0+", "Count : 9|4@0+"), "signal Count is not 4 bits of one byte"),
        (("Crc : 0|8@1+",), "has a CRC and no signal Count; add it, 4 bits"),
    ],
)
def test_a_wrong_place_is_told(signals: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        places_of(message(*signals), [BOTH], "x.dbc")


def test_a_counter_alone_runs_to_15_and_is_followed() -> None:
    database = parse('BO_ 5 One: 2 A\n SG_ Count : 3|4@0+ (1,0) [0|0] "" B\n SG_ x : 15|8@0+ (1,0) [0|0] "" B\n', "x")
    sender, receiver = (Codec(database, database.messages, [COUNTER]) for _ in range(2))
    outbox, inbox = Outbox(sender), Inbox(receiver)
    counts = []
    for x in range(40):
        sender.value[sender.place("x")] = x
        sender.encode()
        ((key, data),) = outbox.frames([0])
        counts.append(data[0])
        assert inbox.accept(key, data, 0.0) == Verdict.ACCEPTED
        assert inbox.accept(key, data, 0.0) == Verdict.REPEATED
    assert counts == [k % 16 for k in range(40)]
    inbox.snapshot()
    receiver.decode()
    assert receiver.value[receiver.place("x")] == 39
    assert inbox.accept(5, bytes((counts[-1] + 3 & 15, 1)), 0.0) == Verdict.ACCEPTED
    assert inbox.lost == 2


def test_the_checksum_is_sae_j1850() -> None:
    """AUTOSAR, Specification of CRC Routines, the check values of CRC8."""
    assert [crc8(bytes.fromhex(text)) for text in ("00000000", "F20183", "332255AABBCCDDEEFF")] == [0x59, 0x37, 0xCB]
