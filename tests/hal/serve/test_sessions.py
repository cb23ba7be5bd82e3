"""Walks and turns by themselves; with registers behind them they are tried in test_registers.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.codec.modbus import Refusal, Refused
from hal.serve.sessions import InControl, Walk

BASE, SIZE = 100, 50


class Time:
    now = 0.0

    def now_s(self) -> float:
        return self.now


def words(value: int) -> bytes:
    return bytes((0, value)) * SIZE


@given(st.lists(st.tuples(st.integers(BASE, BASE + SIZE - 1), st.integers(1, SIZE)), max_size=40))
def test_in_one_walk_all_registers_are_of_one_step(requests: list[tuple[int, int]]) -> None:
    walk, step, seen = Walk(BASE, SIZE, hold_s=2.0, monotonic=Time().now_s), 0, []
    for start, count in requests:
        step = (step + 1) % 256
        if start + count > BASE + SIZE:
            with pytest.raises(Refusal):
                walk.read(start, count, lambda: words(step))  # noqa: B023 - it is called at once, or never
            continue
        read = walk.read(start, count, lambda: words(step))  # noqa: B023
        assert read == walk.registers[2 * (start - BASE) : 2 * (start - BASE + count)]
        assert set(read[1::2]) == {read[1]}
        if read[1] == step:
            seen.clear()  # a new walk
        assert start > BASE or read[1] == step, "from the first register on, everything is new"
        assert (start, count) not in seen, "what is asked again is new"
        seen.append((start, count))


def test_an_owner_is_followed_by_another_when_it_has_gone_or_fallen_silent() -> None:
    class Session:
        def read(self, start: int, count: int) -> bytes:
            return b""

        def write(self, start: int, values: bytes) -> None: ...

        def close(self) -> None: ...

    time, first, second = Time(), Session(), Session()
    control = InControl(None, time, control_s=5.0)  # type: ignore[arg-type] - no register is needed for it
    control.claim(first)
    time.now = 5.0
    with pytest.raises(Refusal) as refusal:
        control.claim(second)
    assert refusal.value.code == Refused.BUSY
    control.release(second)  # it has nothing to give up
    with pytest.raises(Refusal):
        control.claim(second)
    control.release(first)
    control.claim(second)
    time.now = 10.1
    control.claim(first)
