"""Time that frames take: the lengths of tests/hal/serve/test_can.py, and shares of a bus."""

import pytest

from hal.codec.bus_time import frame_s, load
from hal.codec.dbc import parse
from hal.codec.frames import Codec

PAGES = """
BO_ 5 Plain: 8 A
 SG_ x : 0|8@1+ (1,0) [0|0] "" B
BO_ 6 Paged: 8 A
 SG_ Page M : 0|8@1+ (1,0) [0|0] "" B
 SG_ a m0 : 8|8@1+ (1,0) [0|0] "" B
 SG_ b m1 : 8|8@1+ (1,0) [0|0] "" B
BA_DEF_DEF_ "GenMsgCycleTime" 10;
"""


def test_a_message_with_pages_takes_no_more_than_one_without() -> None:
    """One frame in 10 ms each: 44 + 64 bits, 24 of stuffing at the most and 3 of pause, of 5000 bits."""
    database = parse(PAGES, "x")
    rows = Codec(database, database.messages).rows
    assert len(rows) == 4
    assert load(rows, 500_000, None) == pytest.approx(2 * 135 / 5000)
    assert frame_s(database.messages[0], 500_000, None) == pytest.approx(135 / 500_000)
    assert load(rows, 500_000, 2_000_000) == pytest.approx(2 * frame_s(database.messages[0], 500_000, 2_000_000) / 0.01)
