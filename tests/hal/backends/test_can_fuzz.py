"""A hundred thousand damaged frames: the rack stays alive, takes no memory, and believes nothing that is wrong.

Who decides what may be believed is written here once more, from the words of docs/can.md: the checksum, the counter,
and cantools for the values.
"""

import itertools
import tracemalloc
from functools import cache
from typing import Any

import can
import cantools
import numpy as np
import pytest
from can_bus import Far, wait_for

from hal.backends.can import CanRack
from hal.codec.can_profile import FOLDER
from hal.codec.frames import Verdict
from hal.contract import Measurement, Quality
from hal.profiles.foxbms.generate import unit
from hal.profiles.reference.generate import dbc_text

N_CELLS, N_SENSORS = 12, 3
FRAMES = 100_000
BUSES = itertools.count()


class Time:
    now = 0.0

    def now_s(self) -> float:
        return self.now


@cache
def divided(register: int) -> int:
    """The rest after eight steps of the division by x^8 + x^4 + x^3 + x^2 + 1."""
    for _ in range(8):
        register = (register << 1 ^ 0x11D) if register & 0x80 else register << 1
    return register


def right(key: int, data: bytes) -> bool:
    """Whether the checksum is that of SAE J1850 over identifier and bytes."""
    register = 0xFF
    for byte in (key & 0xFF, key >> 8, *data[1:]):
        register = divided(register ^ byte)
    return register ^ 0xFF == data[0]


class Judge:
    """What may be believed: the last frame of each identifier that is right and follows the one before."""

    def __init__(self, peer: Any) -> None:
        self.lengths = {m.frame_id: m.length for m in peer.messages}
        self.believed: dict[int, bytes] = {}
        self.counter: dict[int, int] = {}

    def hear(self, key: int, data: bytes) -> bool:
        if len(data) != self.lengths.get(key) or not right(key, data) or data[1] & 15 == 15:
            return False
        count, last = data[1] & 15, self.counter.get(key)
        self.counter[key] = count
        if last is not None and not 1 <= (count - last) % 15 <= 7:
            return False
        self.believed[key] = data
        return True


def damaged(scans: list[list[tuple[int, bytes]]], seed: int, n: int) -> Any:
    """Frames of the scans, nine of ten of them spoilt in one of many ways: (identifier, bytes)."""
    rng = np.random.default_rng(seed)
    kinds, picks = rng.integers(0, 10, n).tolist(), rng.integers(0, 1 << 30, (n, 3)).tolist()
    noise = rng.bytes(64 * 1024)
    for k, (kind, (a, b, c)) in enumerate(zip(kinds, picks, strict=True)):
        scan = scans[k // len(scans[0]) % len(scans)]
        key, data = scan[k % len(scan)]
        bits = int.from_bytes(data, "big")
        if kind == 0:
            pass
        elif kind == 1:  # one bit
            data = (bits ^ 1 << a % (8 * len(data))).to_bytes(len(data), "big")
        elif kind == 2:  # three bits
            for bit in (a, b, c):
                bits ^= 1 << bit % (8 * len(data))
            data = bits.to_bytes(len(data), "big")
        elif kind == 3:  # a burst
            data = (bits ^ (a % 65535 + 1) << b % (8 * len(data) - 16)).to_bytes(len(data), "big")
        elif kind == 4:  # another length
            data = (data + noise[a % 60_000 :][:64])[: b % (2 * len(data))]
        elif kind == 5:  # under the name of another
            key = scan[a % len(scan)][0]
        elif kind == 6:  # a name of nobody, or of 29 bits
            key = a % 0x800 if b % 2 else key | 1 << 31
        elif kind == 7:  # noise
            data = noise[a % 60_000 :][: len(data)]
        elif kind == 8:  # from long ago
            key, data = scans[b % len(scans)][a % len(scan)]
        else:  # two halves of two
            other = scan[a % len(scan)][1]
            data = data[: len(data) // 2] + other[len(data) // 2 :]
        yield key, data


class Bench:
    """A rack that has heard one sound scan, and many more scans to spoil."""

    def __init__(self, query: str) -> None:
        channel = f"fuzz{next(BUSES)}"
        self.clock = Time()
        self.rack = CanRack(
            f"virtual:{channel}", query=dict(pair.split("=") for pair in query.split("&")), clock=self.clock
        )
        self.bus = can.Bus(interface="virtual", channel=channel, ignore_config=True)
        self.m = Measurement(N_CELLS, N_SENSORS)

    def open(self, scan: list[tuple[int, bytes]]) -> None:
        """Start it, with one scan over the bus."""
        self.rack.link.open()
        for key, data in scan:
            self.bus.send(can.Message(arbitration_id=key, data=data, is_extended_id=False, is_fd=len(data) > 8))
        wait_for(lambda: self.rack.link.counters.received == len(scan), "frames are missing")
        self.rack._open = True
        self.rack.read(self.m)

    def hear(self, key: int, data: bytes) -> None:
        """A frame, as the reader of the link takes it; a bus would be too slow."""
        extended = key >> 31 != 0
        self.rack.link._take(
            can.Message(arbitration_id=key & 0x1FFFFFFF, data=data, is_extended_id=extended, is_fd=len(data) > 8)
        )

    def close(self) -> None:
        self.rack._open = False
        self.rack.link.close()
        self.bus.shutdown()


def scans_of(query: str, n: int = 40) -> list[list[tuple[int, bytes]]]:
    """What a server of the profile sends, scan by scan."""
    far = Far(f"can:virtual:scans{next(BUSES)}?{query}", options={"duty": {"kind": "constant", "c_rate": 0.5}})
    found: list[list[tuple[int, bytes]]] = []
    far.server.link.send = lambda frames: found.append(list(frames))  # type: ignore[method-assign, assignment]
    far.rack.open()
    for k in range(n):
        far.publish(10.0 * k)
    far.rack.close()
    return found


@pytest.mark.parametrize("fd", [0, 1])
def test_nothing_wrong_is_believed_and_memory_stays_flat(fd: int) -> None:
    query = f"n_cells={N_CELLS}&n_sensors={N_SENSORS}&fd={fd}"
    scans = scans_of(query)
    peer = cantools.database.load_string(dbc_text(N_CELLS, N_SENSORS, fd=bool(fd)), "dbc")
    judge, bench = Judge(peer), Bench(query)
    bench.open(scans[0])
    for key, data in scans[0]:
        judge.hear(key, data)
    counts = bench.rack.inbox.counts
    n, taken = FRAMES if not fd else FRAMES // 10, [0, 0]
    tracemalloc.start()
    for k, (key, data) in enumerate(damaged(scans, 7, n)):
        before = counts[Verdict.ACCEPTED]
        bench.hear(key, data)
        assert counts[Verdict.ACCEPTED] - before == judge.hear(key, data), f"frame {k}: {key:#x} {data.hex()}"
        if k % 500 == 0:
            bench.rack.read(bench.m)
        if k == n // 10:
            taken[0] = tracemalloc.get_traced_memory()[0]
    taken[1] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken[1] - taken[0] < 65_536, "bytes"
    bench.rack.read(bench.m)
    told: dict[str, Any] = {}
    for key, data in judge.believed.items():
        told |= peer.decode_message(key, data, decode_choices=False)
    codec = bench.rack._received
    wrong = {}
    for row in codec.rows:
        for place, signal in enumerate(row.signals, start=row.first):
            if signal.name not in ("Crc", "AliveCounter") and codec.value[place] != pytest.approx(told[signal.name]):
                wrong[signal.name] = codec.value[place], told[signal.name]
    assert not wrong
    assert sum(counts) == n + len(scans[0])
    assert all(counts), "every verdict was reached"
    assert counts[Verdict.ACCEPTED] > n // 20
    for key, data in scans[-1]:  # and it goes on: at the latest the second sound frame of each is taken
        for step in (1, 2):
            count = (judge.counter[key] + step) % 15
            sound = bytes((0, data[1] & 0xF0 | count)) + data[2:]
            sound = next(bytes((crc,)) + sound[1:] for crc in range(256) if right(key, bytes((crc,)) + sound[1:]))
            bench.hear(key, sound)
    bench.rack.read(bench.m)
    assert not bench.m.cell_v_quality.any()
    bench.close()


def test_a_wire_without_checksums_stays_alive_and_within_its_range() -> None:
    """Nothing tells here what is wrong; what is read is at least a number that the wire can hold."""
    query = f"profile=foxbms,ivt&n_cells={N_CELLS}&n_sensors={N_SENSORS}"
    peer = cantools.database.load_string(unit(N_CELLS, N_SENSORS), "dbc")
    ivt = cantools.database.load_file(FOLDER / "ivt" / "ivt.dbc")
    rng = np.random.default_rng(11)
    scans = []
    for k in range(16):
        scan = []
        for message in (*peer.messages, *(m for m in ivt.messages if m.frame_id in (0x521, 0x522, 0x524))):
            mux = next((s for s in message.signals if s.is_multiplexer), None)
            for page in sorted({p for s in message.signals for p in s.multiplexer_ids or [-1]} - {-1}) or [-1]:
                bits = bytearray(rng.bytes(message.length))
                if mux is not None:
                    bits[0] = page
                if message.length == 6:
                    bits[1] = k
                scan.append((message.frame_id, bytes(bits)))
        scans.append([frame for frame in scan if frame[0] != 0x210])
    bench = Bench(query)
    bench.open(scans[0])
    n, taken = FRAMES // 4, [0, 0]
    tracemalloc.start()
    for k, (key, data) in enumerate(damaged(scans, 9, n)):
        bench.hear(key, data)
        if k % 500 == 0:
            bench.rack.read(bench.m)
            cell_v, degc = bench.m.cell_v, bench.m.sensor_degc
            assert ((cell_v >= 0) & (cell_v <= 8.1915) | np.isnan(cell_v)).all()
            assert ((degc >= -128) & (degc <= 127) | np.isnan(degc)).all()
            assert bench.m.cell_v_quality[np.isnan(cell_v)].all()
            assert int(bench.m.head["contactors"][0]) in (0, 2, 3)
            assert not {*bench.m.cell_v_quality.tolist()} - {0, Quality.MISSING, Quality.DEVICE_INVALID}
        if k == n // 10:
            taken[0] = tracemalloc.get_traced_memory()[0]
    taken[1] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken[1] - taken[0] < 65_536, "bytes"
    counts = bench.rack.inbox.counts
    assert counts[Verdict.REPEATED] > 0, "the counter of the sensor is followed"
    assert counts[Verdict.WRONG_CRC] == 0
    bench.close()
