"""The guard notices another configuration at once, and one that has changed within a pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.core import guard as g
from bms.core.faults import N_FAULTS, Fault

N = 300  # five steps for a pass


class Bench:
    def __init__(self) -> None:
        self.words = np.arange(N, dtype=np.uint32) * np.uint32(2654435)
        self.expected = g.whole_digest(self.words)
        self.state = g.GuardState(np.zeros(g.N_WORDS, np.uint32))
        self.value, self.where = np.full(N_FAULTS, np.nan, np.float32), np.zeros(N_FAULTS, np.uint16)
        g.guard_init(self.state, self.words, np.uint32(self.expected))

    def step(self, steps: int = 1, expected: int | None = None, reset: bool = False) -> None:
        for _ in range(steps):
            g.guard_step(
                self.state,
                self.words,
                np.uint32(self.expected if expected is None else expected),
                reset,
                self.value,
                self.where,
            )

    def get(self, fault: Fault) -> float:
        return float(self.value[fault])


def test_the_digest_is_fnv_1a_over_words() -> None:
    digest, words = 2166136261, np.array([1, 2, 0xFFFFFFFF], np.uint32)
    for word in (1, 2, 0xFFFFFFFF):
        digest = (digest ^ word) * 16777619 % 2**32
    assert g.whole_digest(words) == digest
    assert g.digest_of(words, 0, 3, np.uint32(2166136261)) == digest


def test_the_sum_is_that_of_the_words_modulo_their_size() -> None:
    assert g.sum_of(np.array([5, 7, 11], np.uint32)) == 23
    assert g.sum_of(np.array([0xFFFFFFFF, 0xFFFFFFFF, 4], np.uint32)) == 2
    assert g.sum_of(np.array([], np.uint32)) == 0


def test_an_untouched_configuration_is_good_for_ever() -> None:
    bench = Bench()
    bench.step(23)
    for fault in (Fault.CONFIG_MISMATCH, Fault.CONFIG_DAMAGED, Fault.RESET_CAUSE, Fault.STORE_DAMAGED):
        assert bench.get(fault) == 0.0


@given(st.integers(0, N - 1), st.integers(0, 31), st.integers(0, 11))
def test_any_flipped_bit_shows_in_the_next_step_and_stays(word: int, bit: int, before: int) -> None:
    bench = Bench()
    bench.step(before)
    bench.words[word] ^= np.uint32(1 << bit)
    bench.step()
    assert bench.get(Fault.CONFIG_DAMAGED) == 1.0
    bench.step(9)
    assert bench.get(Fault.CONFIG_DAMAGED) == 1.0
    assert bench.get(Fault.CONFIG_MISMATCH) == 0.0
    bench.step(5)
    assert bench.get(Fault.CONFIG_DAMAGED) == 1.0
    assert (bench.where[[Fault.CONFIG_MISMATCH, Fault.CONFIG_DAMAGED, Fault.STORE_DAMAGED]] == 65535).all()
    bench.words[word] ^= np.uint32(1 << bit)
    bench.step(10)
    assert bench.get(Fault.CONFIG_DAMAGED) == 0.0


@pytest.mark.parametrize(("word", "bit", "before"), [(0, 0, 0), (63, 7, 3), (N - 2, 20, 11)])
def test_what_leaves_the_sum_shows_within_two_passes(word: int, bit: int, before: int) -> None:
    bench = Bench()
    bench.step(before)
    change = np.uint32(1 << bit)
    bench.words[word : word + 2] += np.array([change, np.uint32(2**32 - int(change))], np.uint32)
    bench.step(10)
    assert bench.get(Fault.CONFIG_DAMAGED) == 1.0


def test_a_step_digests_a_few_words_only() -> None:
    """A pass over 300 words takes five steps of 64: its result is there in the fifth, and the sixth begins anew."""
    bench = Bench()
    bench.words[:2] += np.array([1, 2**32 - 1], np.uint32)
    for step in range(1, 6):
        bench.step()
        assert bench.state.word[g.POSITION] == min(64 * step, N)
        assert bench.get(Fault.CONFIG_DAMAGED) == (1.0 if step == 5 else 0.0)
    bench.step()
    assert bench.state.word[g.POSITION] == 64


def test_another_configuration_shows_at_once() -> None:
    bench = Bench()
    bench.step(expected=bench.expected + 1)
    assert bench.get(Fault.CONFIG_MISMATCH) == 1.0


@pytest.mark.parametrize(
    ("word", "fault"), [(g.RESET_CAUSE, Fault.RESET_CAUSE), (g.STORE_VERDICT, Fault.STORE_DAMAGED)]
)
def test_what_the_runtime_found_is_told(word: int, fault: Fault) -> None:
    bench = Bench()
    bench.state.word[word] = 2
    bench.step()
    assert bench.get(fault) == 2.0
    bench.step(reset=True)
    assert bench.get(fault) == 0.0
    assert bench.get(Fault.CONFIG_MISMATCH) == 0.0
    bench.step()
    assert bench.get(fault) == 0.0
