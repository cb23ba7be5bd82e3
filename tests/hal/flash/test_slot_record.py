"""The record of a Linux controller: what is read is what was written, or nothing."""

from __future__ import annotations

import json

import pytest
from frail_disk import FrailDisk, Watched
from hypothesis import given
from hypothesis import strategies as st

from hal.flash import disk as disks
from hal.flash import slot_record
from hal.flash.slot_record import FILES, LOG_LINES, LONGEST_LINE, SLOTS, Event, Record

slots = st.sampled_from(("", *SLOTS))
lines = st.text(max_size=40)
records = st.builds(
    Record,
    number=st.integers(0, 2**53),
    active=slots,
    trial=slots,
    failed=slots,
    running=slots,
    tries=st.integers(0, 1_000_000),
    counter=st.integers(0, 2**32 - 1),
    event=st.sampled_from(Event),
    why=lines,
    log=st.lists(lines, max_size=LOG_LINES).map(tuple),
)


@given(records)
def test_a_record_gives_back_what_it_was_made_of(record: Record) -> None:
    assert Record.from_bytes(record.to_bytes()) == record


@given(records, st.data())
def test_a_record_with_a_byte_changed_or_missing_is_none(record: Record, data: st.DataObject) -> None:
    raw = record.to_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    flip = data.draw(st.integers(1, 255))
    assert Record.from_bytes(raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :]) is None
    assert Record.from_bytes(raw[:at]) is None


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_anything_else_is_none(raw: bytes) -> None:
    assert Record.from_bytes(raw) is None


@pytest.mark.parametrize(
    "change",
    [
        {"active": "c"}, {"trial": 1}, {"tries": -1}, {"tries": True}, {"counter": 2**32}, {"number": 1.0},
        {"event": "?"}, {"why": 3}, {"why": "x" * (LONGEST_LINE + 1)}, {"log": ["x"] * (LOG_LINES + 1)}, {"log": [1]},
        {"format": 2}, {"more": 1},
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_though_the_checksum_is_right(change: dict[str, object]) -> None:
    content = {**json.loads(Record().to_bytes()), **change}
    del content["check"]
    content["check"] = slot_record._check(content)
    assert Record.from_bytes((json.dumps(content, indent=1) + "\n").encode()) is None


def test_the_newest_that_is_good_counts_and_the_oldest_is_replaced_first() -> None:
    disk = FrailDisk()
    assert slot_record.load(disk) == (None, True)
    first = slot_record.store(disk, Record(active="a"))
    assert slot_record.load(disk) == (first, True)
    second = slot_record.store(disk, Record(active="b"))
    assert (second.number, slot_record.load(disk)) == (first.number + 1, (second, True))
    for damaged, whole in (FILES, FILES[::-1]):
        other = disk.copy()
        disks.replace(other, damaged, b"rotten")
        assert slot_record.load(other) == (second, False)
        watched = Watched(other)
        third = slot_record.store(watched, Record(trial="a"))  # type: ignore[arg-type]
        assert watched.calls[0] == f"create {damaged}.new", "the one that counts is replaced last"
        assert slot_record.load(other) == (third, True)
        disks.replace(other, whole, second.to_bytes())
        assert slot_record.load(other) == (third, False)


def test_the_log_keeps_the_last_lines_each_in_one() -> None:
    record = Record()
    for k in range(LOG_LINES + 5):
        record = record.told(Event.REFUSED, "2026", f"bundle {k}", "first\nsecond " + "x" * 1000)
    assert len(record.log) == LOG_LINES
    assert record.log[-1].startswith(f"2026 bundle {LOG_LINES + 4}: a new bundle was refused: first second xxx")
    assert Record.from_bytes(record.to_bytes()) == record
