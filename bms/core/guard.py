"""The controller's watch over itself: is the configuration the one that the memory belongs to, and unchanged?

The configuration's digest is FNV-1a [Fowler, Noll, Vo; IETF draft-eastlake-fnv] over its 32-bit words: each step of it
is a bijection, so that any change of one word changes the digest for certain. It is compared with the one that the
memory was made for in every step. The words themselves are looked at in two ways:

- their sum, modulo 2^32, in every step: it changes for certain with any one word, so that memory that has lost a bit
  shows at once, although nobody writes to it. What was read at the start counts as right.
- their digest, a few words in every step, against the one that the configuration carries: a pass takes some minutes. It
  sees what was wrong before the start, and nearly all that leaves the sum as it was.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core.faults import Fault
from bms.core.jit import f4, i4, kernel
from hal.contract import F4, U2, Field

# guard_word
DIGEST, POSITION, RUNNING, DAMAGED, RESET_CAUSE, STORE_VERDICT, SUM = range(7)
N_WORDS = 7

WORDS_A_STEP = 64

STATE_FIELDS = (
    Field(
        "guard_word",
        "u4",
        "digest, the pass over the configuration, why it started, what was restored, sum",
        f"{N_WORDS}",
    ),
)

_BASIS = np.uint32(2166136261)
_PRIME = np.uint64(16777619)
_LOW = np.uint64(0xFFFFFFFF)
_MISMATCH, _CONFIG_DAMAGED = int(Fault.CONFIG_MISMATCH), int(Fault.CONFIG_DAMAGED)
_RESET, _STORE = int(Fault.RESET_CAUSE), int(Fault.STORE_DAMAGED)
_NOWHERE = np.uint16(65535)


class GuardState(NamedTuple):
    """Memory of the guard."""

    word: npt.NDArray[np.uint32]


@kernel
def digest_of(words: Any, first: int, last: int, digest: np.uint32) -> np.uint32:
    """FNV-1a over `words[first:last]`, going on from `digest`."""
    for k in range(first, last):
        digest = np.uint32((np.uint64(digest ^ words[k]) * _PRIME) & _LOW)  # the product fits into 64 bits
    return digest


@kernel
def sum_of(words: Any) -> np.uint32:
    """The sum of all `words`, modulo 2^32."""
    total = np.uint64(0)  # cannot overflow: there are fewer than 2^32 words
    for k in range(words.shape[0]):
        total += np.uint64(words[k])
    return np.uint32(total & _LOW)


@kernel
def guard_init(state: GuardState, words: Any, expected: np.uint32) -> None:
    """Fresh memory that belongs to the configuration of these `words` with the digest `expected`."""
    state.word[:] = np.uint32(0)
    state.word[SUM] = sum_of(words)
    state.word[DIGEST] = expected
    state.word[RUNNING] = _BASIS


@kernel
def guard_step(state: GuardState, words: Any, expected: np.uint32, reset: bool, value: F4, where: U2) -> None:
    """Sum up the configuration, digest a few more words of it, and write the values of the guard's faults.

    `words`: those of the configuration that its digest is made of; `expected`: the digest that it carries. `reset`: a
    person has seen why the controller started and what was restored.
    """
    word = state.word
    if reset:
        word[RESET_CAUSE] = np.uint32(0)
        word[STORE_VERDICT] = np.uint32(0)
    n = words.shape[0]
    first = int(word[POSITION])
    if first >= n:
        first = 0
        word[RUNNING] = _BASIS
    last = min(first + WORDS_A_STEP, n)
    word[RUNNING] = digest_of(words, first, last, word[RUNNING])
    word[POSITION] = np.uint32(last)
    if last == n:
        word[DAMAGED] = np.uint32(0) if word[RUNNING] == expected else np.uint32(1)
    # by way of signed numbers: several of them at once would become float32 by way of doubles
    value[_MISMATCH] = f4(0) if word[DIGEST] == expected else f4(1)
    value[_CONFIG_DAMAGED] = f4(i4(word[DAMAGED])) if sum_of(words) == word[SUM] else f4(1)
    value[_RESET] = f4(i4(word[RESET_CAUSE]))
    value[_STORE] = f4(i4(word[STORE_VERDICT]))
    where[_MISMATCH] = _NOWHERE
    where[_CONFIG_DAMAGED] = _NOWHERE
    where[_RESET] = np.uint16(word[RESET_CAUSE])
    where[_STORE] = _NOWHERE


def whole_digest(words: npt.NDArray[np.uint32]) -> int:
    """The digest of `words`, as the kernel makes it; in plain Python, so that nothing needs a compiler to start."""
    digest, prime = int(_BASIS), int(_PRIME)
    for word in words.tolist():
        digest = (digest ^ word) * prime & 0xFFFFFFFF
    return digest
