"""Walks that see one control step, commands that take effect as a whole, and one controller at a time."""

import struct
from typing import Any

import numpy as np
import pytest

from hal.codec.modbus import Refusal, Refused, answer
from hal.serve.registers import Session, followable
from hal.serve.sessions import LONGEST_WALK


def step_of(session: Session, site: Any) -> int:
    """The number of the control step in a walk that goes on."""
    return int(struct.unpack(">I", session.read(site.address(64801, "Snap"), 2))[0])


def publish(served: Any, site: Any, times: int = 1) -> None:
    for _ in range(times):
        served.publish(site.measured(site.info))


def test_a_walk_in_rising_addresses_sees_one_control_step(site: Any) -> None:
    served = site.served()
    publish(served, site)
    session, whole = served.session(), b""
    for start in range(40000, 40000 + site.map.size, 50):
        whole += session.read(start, min(50, 40000 + site.map.size - start))
        publish(served, site)
    assert len(whole) == 2 * site.map.size
    snap, end = 2 * (site.address(64801, "Snap") - 40000), len(whole)
    assert struct.unpack_from(">I", whole, snap)[0] == 1
    assert struct.pack(">I", 1) in whole[snap + 4 : end]  # SnapEnd
    assert step_of(session, site) == 1  # it is still the same walk
    assert step_of(session, site) > 1  # the same question again begins a new one


def test_going_back_to_where_the_walk_began_begins_a_new_one(site: Any) -> None:
    served = site.served()
    publish(served, site)
    session = served.session()
    low_half = site.address(64801, "Snap") + 1
    session.read(40070, 4)
    publish(served, site)
    assert step_of(session, site) == 1
    assert session.read(low_half, 1) == b"\0\1"
    session.read(40050, 4)
    assert session.read(low_half, 2)[:2] == b"\0\2", "asked in another way: it is not this request that begins a walk"


def test_a_scan_that_reads_headers_before_the_models_sees_one_step(site: Any) -> None:
    """As pysunspec2 does it: the mark and the first id, then each length, then the whole of each model."""
    served = site.served()
    publish(served, site)
    session = served.session()
    seen = session.read(40000, 3)
    for placed in site.map.placed:
        publish(served, site)
        session.read(placed.address + 1, 1)
        seen = session.read(placed.address, min(125, placed.end - placed.address))
    assert seen
    assert step_of(session, site) == 1


def test_an_old_walk_ends_by_itself(site: Any) -> None:
    served = site.served(hold_s=2.0)
    publish(served, site)
    session = served.session()
    session.read(40000, 4)
    publish(served, site)
    site.clock.now += 2.1
    assert step_of(session, site) == 2


def test_polling_one_place_is_always_fresh(site: Any) -> None:
    served = site.served()
    session = served.session()
    for k in range(1, 6):
        publish(served, site)
        assert step_of(session, site) == k


def test_sessions_walk_apart(site: Any) -> None:
    served = site.served()
    publish(served, site)
    first, second = served.session(), served.session()
    first.read(40000, 2)
    publish(served, site)
    second.read(40000, 2)
    assert (step_of(first, site), step_of(second, site)) == (1, 2)


def test_a_walk_does_not_remember_without_end(site: Any) -> None:
    served = site.served()
    session = served.session()
    for k in range(2 * LONGEST_WALK):
        session.read(40000 + 1 + k % 500, 1 + k // 500 % 50)
    assert len(session._walk.asked) <= LONGEST_WALK


@pytest.mark.parametrize(("start", "count"), [(39999, 1), (0, 1), (40000, 0x7FFF), (65535, 125)])
def test_outside_the_map_there_is_nothing(site: Any, start: int, count: int) -> None:
    with pytest.raises(Refusal) as refusal:
        site.served().session().read(start, count)
    assert refusal.value.code == Refused.ILLEGAL_ADDRESS


# ------------------------------------------------------------------------------------------------------------ commands


def test_a_command_arrives_as_it_was_sent(site: Any) -> None:
    served = site.served()
    session, command, out = served.session(), site.commanded(site.info), site.commanded(site.info, 2)
    assert not served.take(out)
    for pdu in site.requests(command):
        assert answer(pdu, session)[0] == 16
    assert served.take(out)
    assert out.bytes.tobytes() == command.bytes.tobytes()
    assert not served.take(out)
    assert served.commands == 1


def test_portions_take_effect_together_with_the_heart_beat(site: Any) -> None:
    served = site.served()
    session, command = served.session(), site.commanded(site.info)
    (pdu,) = site.requests(command)
    start, values = struct.unpack_from(">H", pdu, 1)[0], pdu[6:]
    beat = site.address(64802, "Hb")
    words = [values[k : k + 2] for k in range(0, len(values), 2)]
    outside = [(start + k, word) for k, word in enumerate(words) if start + k not in (beat, beat + 1)]
    out = command.blank()
    for at, word in outside:
        session.write(at, word)
        assert not served.take(out)
    other = served.session().read(start, len(words))
    assert other != values, "what is staged is nobody else's business"
    assert session.read(outside[0][0], 1) == outside[0][1]
    session.write(beat, b"".join(words[beat - start : beat - start + 2]))
    assert served.take(out)
    assert out.bytes.tobytes() == command.bytes.tobytes()


def test_what_was_written_is_read_back_by_everybody(site: Any) -> None:
    served = site.served()
    session = served.session()
    command = site.commanded(site.info)
    for pdu in site.requests(command):
        answer(pdu, session)
    beat = site.address(64802, "Hb")
    told = struct.pack(">I", int(command.head["heartbeat"][0]))
    assert session.read(beat, 2) == served.session().read(beat, 2) == told
    publish(served, site)
    assert served.session().read(site.address(802, "SoC"), 1) != b"\xff\xff"


def test_the_newest_command_wins(site: Any) -> None:
    served = site.served()
    session, out = served.session(), site.commanded(site.info)
    for seed in (1, 2, 3):
        for pdu in site.requests(site.commanded(site.info, seed)):
            answer(pdu, session)
    assert served.take(out)
    assert out.bytes.tobytes() == site.commanded(site.info, 3).bytes.tobytes()
    assert not served.take(out)


@pytest.mark.parametrize(
    ("model", "point"),
    [(802, "SetOp"), (802, "AlmRst"), (802, "CtrlHb"), (804, "SetEna"), (64802, "NMask"), (805, "NCell")],
)
def test_the_rest_is_for_reading_only(site: Any, model: int, point: str) -> None:
    served = site.served()
    with pytest.raises(Refusal) as refusal:
        served.session().write(site.address(model, point), b"\0\1")
    assert refusal.value.code == Refused.ILLEGAL_ADDRESS
    assert not served.take(site.commanded(site.info))


def test_a_write_across_the_border_writes_nothing(site: Any) -> None:
    served = site.served()
    session = served.session()
    last = max(site.map.writable)
    before = session.read(last, 1)
    with pytest.raises(Refusal):
        session.write(last, b"\0\1\0\2")
    assert session.read(last, 1) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("contactors", 8),
        ("limit_discharge_a", -1),
        ("limit_charge_w", np.nan),
        ("cooling_degc", np.inf),
        ("state", None),
    ],
)
def test_a_command_that_no_rack_could_follow_is_refused(site: Any, field: str, value: float | None) -> None:
    served = site.served()
    session, command = served.session(), site.commanded(site.info)
    if value is None:
        session.write(site.address(64802, "State"), b"\x01\x00")
        pdu = struct.pack(">BHHB2H", 16, site.address(64802, "Hb"), 2, 4, 0, 1)
        assert answer(pdu, session) == bytes((0x90, Refused.ILLEGAL_VALUE))
    else:
        command.head[field] = value
        assert followable(site.commanded(site.info))
        assert not followable(command)
        (pdu,) = site.requests(command)
        assert answer(pdu, session) == bytes((0x90, Refused.ILLEGAL_VALUE))
    assert not served.take(command)
    assert served.commands == 0
    for good in site.requests(site.commanded(site.info)):
        assert answer(good, session)[0] == 16  # what was wrong is forgotten


def test_one_controller_at_a_time(site: Any) -> None:
    served = site.served(control_s=5.0)
    first, second = served.session(), served.session()
    (pdu,) = site.requests(site.commanded(site.info))
    assert answer(pdu, first)[0] == 16
    assert answer(pdu, second) == bytes((0x90, Refused.BUSY))
    site.clock.now += 4.0
    assert answer(pdu, first)[0] == 16
    site.clock.now += 4.0
    assert answer(pdu, second) == bytes((0x90, Refused.BUSY))
    site.clock.now += 1.5
    assert answer(pdu, second)[0] == 16, "the first has been silent for longer than control_s"
    assert answer(pdu, first) == bytes((0x90, Refused.BUSY))
    second.close()
    assert answer(pdu, first)[0] == 16


def test_what_is_staged_dies_with_the_connection(site: Any) -> None:
    served = site.served()
    session = served.session()
    session.write(site.address(64802, "Con"), b"\0\3")
    session.close()
    assert served.session().read(site.address(64802, "Con"), 1) == b"\0\0"
