"""Texts that cantools and our own reader understand alike, for signals of every kind."""

import cantools
from hypothesis import given
from hypothesis import strategies as st

from hal.codec.dbc import parse
from hal.profiles.dbc_text import MULTIPLEXER, Frame, Value, text


@given(
    st.integers(1, 40),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["1", "0.1", "0.25", "7"]),
    st.integers(0, 255),
    st.integers(1, 0x7FF),
    st.integers(0, 5000),
)
def test_what_is_written_is_what_is_read(
    bits: int, signed: bool, little: bool, scale: str, page: int, identifier: int, cycle_ms: int
) -> None:
    value = Value("x", 8 if little else 15, bits, scale, "V", signed, little, page, {0: "none", 1: "some"})
    frame = Frame("One", identifier, "A", "B", (Value("Page", 7, 8, page=MULTIPLEXER), value), cycle_ms)
    made = text([frame], "about")
    (peer,) = cantools.database.load_string(made, "dbc", strict=True).messages
    (ours,) = parse(made, "x.dbc").messages
    theirs = peer.get_signal_by_name("x")
    assert (theirs.start, theirs.length, theirs.is_signed, theirs.scale) == (value.start, bits, signed, float(scale))
    assert (theirs.byte_order == "little_endian", theirs.multiplexer_ids, theirs.unit) == (little, [page], "V")
    assert {int(number): str(word) for number, word in theirs.choices.items()} == {0: "none", 1: "some"}
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    assert abs(theirs.minimum - low * float(scale)) <= 1e-9 * abs(low)
    assert abs(theirs.maximum - high * float(scale)) <= 1e-9 * abs(high)
    assert (ours.name, ours.identifier, ours.cycle_s, ours.sender) == ("One", identifier, cycle_ms * 1e-3, "A")
    assert [s.page for s in ours.signals] == [None, page]
    assert ours.signals[0].multiplexer
    assert (peer.cycle_time or 0, peer.senders) == (cycle_ms, ["A"])
