"""A controller's memory, asked for over the link, is what is seen from outside; what cannot be altered is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core.jit import PROGRAM
from bms.firmware.baked import Baked, baked
from bms.firmware.inloop import Controlled
from bms.firmware.memory import Asked, Seen, blocks
from hal.contract import U1
from hal.engine.frames import BLOCK, PIECE, PIECE_MOST, Kind, Record
from hal.engine.remote import Remote
from hal.errors import ConfigError, LinkError


@dataclass
class Looked:
    """A controller as a process, its memory seen, and asked for."""

    found: Baked
    remote: Remote
    seen: Seen
    asked: Asked
    size: int

    def state(self) -> U1:
        return self.seen.state(None)


@pytest.fixture(scope="module")
def looked() -> Iterator[Looked]:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) is installed")
    found = baked("nmc_ev", 12)
    controlled = Controlled(PROGRAM, "process:host", found.record.bytes)
    n = found.record.n_cells
    controlled.remote.start(np.full(n, 0.5, np.float32), np.full(n, 0.1, np.float32))
    assert isinstance(controlled.memory, Seen)
    remote, size = controlled.remote, controlled.identity.state_size
    yield Looked(found, remote, controlled.memory, Asked(remote, found.record.bytes), size)
    controlled.close()


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_put_is_there_and_what_differs_is_found(looked: Looked, data: st.DataObject) -> None:
    config = looked.found.record.bytes
    wanted = looked.state().copy()
    places = data.draw(st.lists(st.integers(0, looked.size - 1), max_size=5))
    wanted[places] ^= 0x55
    looked.asked.put(config, wanted)
    assert np.array_equal(looked.state(), wanted)
    expected = wanted.copy()
    expected[data.draw(st.lists(st.integers(0, looked.size - 1), max_size=5))] ^= 1
    assert np.array_equal(looked.asked.state(expected), wanted)


def test_what_is_as_expected_is_not_sent(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looked.remote, "read", None)  # nobody may call it
    assert np.array_equal(looked.asked.state(looked.state().copy()), looked.state())
    looked.asked.put(looked.found.record.bytes, looked.state())
    monkeypatch.setattr(looked.remote, "write", None)
    looked.asked.put(looked.found.record.bytes, looked.state())


def test_every_record_can_be_read(looked: Looked) -> None:
    config = looked.found.record.bytes
    assert looked.remote.read(Record.CONFIG, 0, config.size) == config.tobytes()
    assert len(looked.remote.sums(Record.CONFIG)) == -(-config.size // BLOCK)
    assert not any(looked.remote.read(Record.MEASUREMENT, 0, 64))


def test_a_configuration_in_flash_cannot_be_altered(looked: Looked) -> None:
    altered = looked.found.record.bytes.copy()
    altered[100] ^= 1
    with pytest.raises(ConfigError, match="process:host: its configuration lies in its flash and cannot be altered"):
        looked.asked.put(altered, looked.state())
    for record in (Record.CONFIG, Record.COMMAND, Record.MEASUREMENT):
        with pytest.raises(LinkError, match="keeps what was to be written where nothing can be written"):
            looked.remote.write(record, 0, b"x")


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Kind.READ, PIECE.pack(1, 0)),  # how many bytes?
        (Kind.READ, PIECE.pack(1, 0) + (PIECE_MOST + 1).to_bytes(4, "little")),
        (Kind.READ, PIECE.pack(1, 1 << 31) + (4).to_bytes(4, "little")),
        (Kind.READ, PIECE.pack(1, 0xFFFFFFFF) + (4).to_bytes(4, "little")),
        (Kind.READ, PIECE.pack(4, 0) + (4).to_bytes(4, "little")),
        (Kind.WRITE, b"\1\0\0\0"),
        (Kind.WRITE, PIECE.pack(1, 0xFFFFFFFE) + b"abc"),
        (Kind.WRITE, PIECE.pack(1, 0) + bytes(PIECE_MOST + 1)),
        (Kind.SUMS, b""),
        (Kind.SUMS, b"\4\0\0\0"),
        (Kind.SUMS, bytes(8)),
    ],
)
def test_questions_that_do_not_fit_are_refused(looked: Looked, kind: Kind, content: bytes) -> None:
    before = looked.state().copy()
    with pytest.raises(LinkError, match="the controller finds the frame too short or too long"):
        looked.remote._ask(kind, content)
    assert np.array_equal(looked.state(), before)


def test_a_controller_that_runs_by_itself_is_not_altered(looked: Looked) -> None:
    looked.remote._ask(Kind.RUN)
    with pytest.raises(LinkError, match="the controller has not been started"):
        looked.remote.write(Record.STATE, 0, b"x")
    assert len(looked.remote.read(Record.STATE, 0, 8)) == 8
    n = looked.found.record.n_cells
    looked.remote.start(np.full(n, 0.5, np.float32), np.full(n, 0.1, np.float32))


def test_another_number_of_checksums_is_told(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looked.remote, "sums", lambda record: np.zeros(3, np.uint32))
    with pytest.raises(LinkError, match=r"process:host: 3 checksums of its memory, expected \d+"):
        looked.asked.state(looked.state().copy())


def test_blocks_cover_a_record_once() -> None:
    assert list(blocks(2 * BLOCK + 1)) == [(0, BLOCK), (BLOCK, 2 * BLOCK), (2 * BLOCK, 2 * BLOCK + 1)]
    assert list(blocks(0)) == []
