"""DBC texts: what is read, what is passed over, and what is refused with file, line and remedy."""

import cantools
import pytest

from hal.codec.dbc import Database, DbcError, Signal, parse
from hal.errors import ConfigError

TEXT = """VERSION "3"

NS_ :
    CM_
    BA_

BS_:

BU_: Rack Controller
VAL_TABLE_ OnOff 0 "off" 1 "on" ;

BO_ 256 Cells: 8 Rack
 SG_ Volt : 0|16@1+ (0.0001,-1.5) [-1.5|5] "V" Controller
 SG_ Amps : 23|16@0- (1E-2,0) [0|0] "A" Controller, Other
 SG_ Word : 32|8@1+ (1,0) [0|0] "" Vector__XXX

BO_ 2147483905 Pages: 8 Rack
 SG_ Page M : 0|4@1+ (1,0) [0|0] "" Controller
 SG_ First m0 : 8|8@1+ (1,0) [0|0] "" Controller
 SG_ Second m1 : 8|12@1- (1,0) [0|0] "" Controller

BO_ 3221225472 VECTOR__INDEPENDENT_SIG_MSG: 0 Vector__XXX
 SG_ Lost : 0|8@1+ (1,0) [0|0] "" Vector__XXX

CM_ "of the
whole; file";
CM_ SG_ 256 Volt "a \\"quoted\\"; comment";
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;
BA_DEF_ SG_ "GenSigStartValue" FLOAT 0 1;
BA_DEF_DEF_ "GenMsgCycleTime" 1000;
BA_DEF_DEF_ "GenSigStartValue" 0;
BA_ "GenMsgCycleTime" BO_ 256 100;
BA_ "GenSigStartValue" SG_ 256 Volt 1;
VAL_ 256 Word 0 "off" 1 "on; really" -1 "minus" ;
SIG_GROUP_ 256 Both 1 : Volt Amps;
SIG_VALTYPE_ 256 Word : 0;
"""


def message(*signals: str, head: str = "BO_ 1 M: 8 A", after: str = "") -> str:
    return "\n".join([head, *(f' SG_ {signal} (1,0) [0|0] "" B' for signal in signals), after])


@pytest.fixture(scope="module")
def database() -> Database:
    return parse(TEXT, "x.dbc")


def test_messages_are_read(database: Database) -> None:
    cells, pages = database.messages
    assert (cells.name, cells.identifier, cells.extended, cells.key) == ("Cells", 256, False, 256)
    assert (cells.length, cells.sender, cells.cycle_s, cells.multiplexer) == (8, "Rack", 0.1, None)
    assert (pages.identifier, pages.extended, pages.key, pages.cycle_s) == (257, True, 2147483905, 1.0)


def test_signals_are_read(database: Database) -> None:
    volt, amps, word = database.messages[0].signals
    assert volt == Signal("Volt", 0, 16, True, False, 0.0001, -1.5, -1.5, 5.0, "V")
    assert amps == Signal("Amps", 23, 16, False, True, 0.01, 0.0, 0.0, 0.0, "A")
    assert word.values == {0: "off", 1: "on; really", -1: "minus"}
    assert [(s.multiplexer, s.page) for s in database.messages[1].signals] == [(True, None), (False, 0), (False, 1)]
    assert volt.raw_range() == (0, 65535)
    assert amps.raw_range() == (-32768, 32767)


def test_bits_go_up_through_bytes_or_down_in_them() -> None:
    little = Signal("l", 4, 6, True, False, 1, 0, 0, 0, "")
    big = Signal("b", 2, 6, False, False, 1, 0, 0, 0, "")
    assert list(little.bits()) == [4, 5, 6, 7, 8, 9]
    assert list(big.bits()) == [2, 1, 0, 15, 14, 13]


def test_it_says_what_cantools_says(database: Database) -> None:
    peer = cantools.database.load_string(TEXT, "dbc")
    assert {m.name for m in database.messages} == {m.name for m in peer.messages}
    for m in database.messages:
        other = peer.get_message_by_name(m.name)
        assert (m.identifier, m.extended, m.length) == (other.frame_id, other.is_extended_frame, other.length)
        assert m.cycle_s * 1e3 == other.cycle_time
        for s in m.signals:
            o = other.get_signal_by_name(s.name)
            assert (s.start, s.length, s.signed, s.scale, s.offset) == (
                o.start,
                o.length,
                o.is_signed,
                o.scale,
                o.offset,
            )
            assert s.little_endian == (o.byte_order == "little_endian")
            assert s.unit == (o.unit or "")
            assert ([s.page] if s.page is not None else None) == o.multiplexer_ids


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (message("a : 0|8@1+", "b : 7|2@1+"), "x.dbc:3: message M: signal b overlaps a at bit 7; move one of them"),
        (message("a : 7|8@0+", "b : 0|8@1+"), "x.dbc:3: message M: signal b overlaps a at bit 0; move"),
        (message("p M : 0|8@1+", "a m0 : 8|8@1+", "b : 15|1@1+"), "x.dbc:4: message M: signal b overlaps a at bit 15"),
        (message("a : 60|5@1+"), "x.dbc:2: message M: signal a: its bits end at 64, outside of the frame of 8 bytes; move"),
        (message("a : 56|9@0+"), "x.dbc:2: message M: signal a: its bits end at 71, outside of the frame"),
        (message("a : 0|0@1+"), "x.dbc:2: message M: signal a: 0 bits; a signal has 1 to 64"),
        (message("a : 0|8@1+", "a : 8|8@1+"), "x.dbc:3: message M: signal a: the name is given twice; remove or rename"),
        (message("a M : 0|8@1+", "b M : 8|8@1+"), "x.dbc:3: message M: signal b: a second multiplexer"),
        (message("a m0 : 0|8@1+"), "x.dbc:2: message M: signal a: page 0 of no multiplexer; mark one signal with M"),
        (message("a M : 0|2@1+", "b m4 : 8|8@1+"), "x.dbc:3: message M: signal b: a never becomes 4; give it more bits"),
        (message("a m0M : 0|8@1+"), "a multiplexer inside a page (m0M) cannot be read; use one multiplexer"),
        (message("a 0|8@1+"), "x.dbc:2: 'SG_ a 0|8@1+ (1,0) [0|0] \"\" B' is not a signal; write SG_ NAME"),
        (' SG_ a : 0|8@1+ (1,0) [0|0] "" B', "x.dbc:1: a signal before the first message; put it below a BO_ line"),
        ('BO_ 1 M: 8 A\n SG_ a : 0|8@1+ (0,0) [0|0] "" B', "x.dbc:2: message M: signal a: the scale is 0"),
        ("BO_ 1 M 8 A", "x.dbc:1: 'BO_ 1 M 8 A' is not a message; write BO_ NUMBER NAME: BYTES SENDER"),
        ("BO_ 1 M: 65 A", "x.dbc:1: message M: 65 bytes; a frame holds at most 64"),
        ("BO_ 2048 M: 8 A", "x.dbc:1: message M: identifier 2048 is above 2047; add 2147483648 for one of 29 bits"),
        ("BO_ 1 M: 8 A\nBO_ 1 N: 8 A", "x.dbc:2: message N: the identifier 1 is given twice; remove or rename one"),
        ("BO_ 1 M: 8 A\nBO_ 2 M: 8 A", "x.dbc:2: message M: the name M is given twice; remove or rename one"),
        (message("a : 0|32@1+", after="SIG_VALTYPE_ 1 a : 1;"), "x.dbc:3: 'SIG_VALTYPE_ 1 a : 1;': floating-point signals"),
        (message("a : 0|8@1+", after="SG_MUL_VAL_ 1 a b 1-1;"), "x.dbc:3: 'SG_MUL_VAL_ 1 a b 1-1;': extended multiplexing"),
        (message("a : 0|8@1+", after='CM_ "no end'), "x.dbc:3: 'CM_ \"no end' has no end; close the text with"),
        (message(after='BA_ "GenMsgCycleTime" BO_ 1 -5;'), "x.dbc:2: GenMsgCycleTime -5 of message 1: a time in ms"),
        ("", "x.dbc: holds no message; it needs lines BO_ NUMBER NAME: BYTES SENDER"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line_and_remedy(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.dbc")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pages_may_share_bits() -> None:
    (m,) = parse(message("p M : 0|8@1+", "a m0 : 8|8@1+", "b m1 : 8|8@1+"), "x.dbc").messages
    assert [s.page for s in m.signals] == [None, 0, 1]


def test_all_mistakes_are_told_where_somebody_collects_them() -> None:
    text = """
BO_ 10 One: 8 A
 SG_ a : 0|8@1+ (1,0) [0|0] "" B
 SG_ b : 4|8@1+ (1,0) [0|0] "" B
 SG_ c : 60|8@1+ (1,0) [0|0] "" B
 SG_ d : 16|8@1+ (0,0) [0|0] "" B
BO_ 10 Two: 8 A
 SG_ e : 0|8@1+ (1,0) [0|0] "" B
BO_ 11 Three: 8 A
 SG_ f : 0|8@1+ (1,0) [0|0] "" B
BA_ "GenMsgCycleTime" BO_ 11 -5;
"""
    flaws: list[ConfigError] = []
    database = parse(text, "x.dbc", flaws)
    assert [(m.name, [s.name for s in m.signals]) for m in database.messages] == [("One", ["a", "b"]), ("Three", ["f"])]
    assert all(isinstance(flaw, DbcError) for flaw in flaws)
    assert [(f.source, f.key, f.value) for f in flaws if isinstance(f, DbcError)] == [
        ("x.dbc:5", "message One: signal c", "60|8"),
        ("x.dbc:6", "message One: signal d", "0"),
        ("x.dbc:7", "message Two", "10"),
        ("x.dbc:11", "GenMsgCycleTime", "-5"),
        ("x.dbc:4", "message One: signal b", "4|8"),
    ]
