"""The controller's codec in C against the one in Python: the same records and the same frames, bit for bit."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.firmware.baked import Baked, baked, config_header, config_source
from bms.firmware.build import rackbms_header
from bms.firmware.can_tables import HEADER, SOURCE, CanTables, profile_of
from hal.backends.can import CanRack
from hal.codec import can_profile
from hal.codec.can_protection import crc8
from hal.codec.frames import Verdict
from hal.contract import Command, Measurement
from hal.errors import ConfigError
from hal.serve.can import CanServer
from tests.bms.firmware.hosted import Hosted, compiled

SIZE = N_CELLS, N_SENSORS = 96, 12
CONTROL = """
#include "can.h"
#include "control.h"
static uint8_t measurement[RACKBMS_CONFIG_MEASUREMENT_SIZE] __attribute__((aligned(8)));
uint8_t *host_measurement(void) { return measurement; }
void host_blank(void) {
    uint32_t at = 0;
    for (uint32_t k = 0; k < can_blank_size; k += 2u + can_blank[k + 1]) {
        at += can_blank[k];
        for (uint32_t j = 0; j < can_blank[k + 1]; j++) measurement[at++] = can_blank[k + 2 + j];
    }
}
"""


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s


class Codec(Hosted):
    """The C, new."""

    def __init__(self, path: Path, n_bytes: int, n_frames: int) -> None:
        super().__init__(path)
        c = self.c
        c.host_measurement.restype = ctypes.POINTER(ctypes.c_uint8)
        c.can_frame.restype = ctypes.POINTER(ctypes.c_uint8 * 8)
        c.can_command.restype = c.can_rack_fits.restype = ctypes.c_bool
        c.can_missing.restype = ctypes.c_uint32
        c.can_count.restype = ctypes.POINTER(ctypes.c_uint32 * (len(Verdict) + 1))
        self.n_bytes, self.n_frames = n_bytes, n_frames
        c.can_start()
        c.host_blank()

    def accept(self, key: int, data: bytes, now_s: float) -> int:
        return int(self.c.can_accept(key, data, ctypes.c_size_t(len(data)), ctypes.c_double(now_s)))

    def measure(self, now_s: float) -> bytes:
        self.c.can_measure(self.c.host_measurement(), ctypes.c_double(now_s))
        return ctypes.string_at(self.c.host_measurement(), self.n_bytes)

    def command(self, record: Command) -> list[bytes] | None:
        data = ctypes.create_string_buffer(record.bytes.tobytes())
        if not self.c.can_command(data):
            return None
        return [bytes(self.c.can_frame(k).contents) for k in range(self.n_frames)]


@pytest.fixture(scope="session")
def found() -> Baked:
    return baked("nmc_ev", N_SENSORS)


@pytest.fixture(scope="session")
def library(cc: str, found: Baked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("can")
    tables = CanTables(profile_of(found))
    for name, content in (
        ("rackbms.h", rackbms_header()),
        ("rackbms_config.h", config_header(found)),
        ("rackbms_config.c", config_source(found)),
        (HEADER, tables.header),
        (SOURCE, tables.source),
        ("control_here.c", CONTROL),
    ):
        (folder / name).write_text(content)
    return compiled(cc, folder, ["can.c", folder / SOURCE, folder / "control_here.c"])


class Pair:
    """The codec in C, and the back end in Python; what one is shown, the other sees, too."""

    def __init__(self, library: Path) -> None:
        self.clock = Clock()
        query = {"n_cells": str(N_CELLS), "n_sensors": str(N_SENSORS)}
        self.rack = CanRack("virtual:none", query=query, clock=self.clock)
        self.rack._open = True
        self.out = Measurement(*SIZE)
        self.sent: list[tuple[int, bytes]] = []
        link: Any = self.rack.link
        link.send = self.sent.extend
        self.c = Codec(library, self.out.bytes.size, len(self.rack._commands.sendable))

    def accept(self, key: int, data: bytes) -> None:
        verdict = self.rack.inbox.accept(key, data, self.clock.time_s)
        assert self.c.accept(key, data, self.clock.time_s) == verdict

    def compare(self) -> None:
        self.rack.read(self.out)
        theirs = np.frombuffer(self.c.measure(self.clock.time_s), self.out.raw.dtype)
        for name in self.out.raw.dtype.names or ():
            assert theirs[name].tobytes() == self.out.raw[name].tobytes(), name
        assert theirs.tobytes() == self.out.bytes.tobytes()
        assert list(self.c.c.can_count().contents) == [*self.rack.inbox.counts, self.rack.inbox.lost]


def scans(measurements: int, seed: int) -> list[tuple[int, bytes]]:
    """Frames of a rack that measures something else each time, and nothing now and then."""
    rng, clock = np.random.default_rng(seed), Clock()
    query = {"n_cells": str(N_CELLS), "n_sensors": str(N_SENSORS)}
    info = CanRack("virtual:none", query=query).info
    server = CanServer("can:virtual:none", info, clock)
    found: list[tuple[int, bytes]] = []
    link: Any = server.link
    link.send = found.extend
    measurement = Measurement(*SIZE)
    for number in range(measurements):
        values = measurement.bytes
        values[:] = rng.integers(0, 256, values.size)
        for name in measurement.raw.dtype.names or ():
            field = measurement.raw[name]
            if field.dtype.base == np.float32:
                field[...] = rng.normal(3.0, 3.0, field.shape)
        head = measurement.head
        for name in head.dtype.names or ():
            if head.dtype[name] == np.float32:
                head[name] = rng.normal(0.0, 10.0 ** rng.integers(0, 6))
        head["sequence"] = number * int(rng.integers(1, 3))
        for name, field in [*((n, measurement.raw[n]) for n in measurement.raw.dtype.names or ())]:
            if name.endswith("_quality"):
                field[...] = rng.choice([0, 0, 0, 1, 2, 4], field.shape)
        for name in head.dtype.names or ():
            if name.endswith("_quality"):
                head[name] = rng.choice([0, 0, 1, 2])
        clock.time_s += 1.0
        server.publish(measurement)
    return found


SPOILT = ("no", "no", "no", "lost", "bit", "crc", "short", "twice", "other", "counter")


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(SPOILT), min_size=1, max_size=40), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_the_same_measurement_from_the_same_frames(library: Path, seed: int, spoilt: list[str], rounds: int) -> None:
    pair, rng = Pair(library), np.random.default_rng(seed)
    pair.clock.time_s = 1.0
    for k, (key, data) in enumerate(scans(rounds, seed)):
        how = spoilt[k % len(spoilt)] if k else "no"
        frame = bytearray(data)
        pair.clock.time_s += float(rng.choice([0.0, 0.0003, 0.1, 0.6], p=[0.4, 0.55, 0.04, 0.01]))
        if how == "bit":
            frame[int(rng.integers(8))] ^= 1 << int(rng.integers(8))
        elif how == "short":
            del frame[-1]
        elif how == "counter":
            frame[1] = frame[1] & 0xF0 | int(rng.integers(16))
        elif how == "other":
            key = int(rng.integers(2**29)) | int(rng.integers(2)) << 31
        if how in ("counter", "crc"):
            frame[2:] = rng.integers(0, 256, len(frame) - 2, np.uint8).tobytes()
            low = crc8(bytes((key & 0xFF, key >> 8 & 0xFF))) ^ 0xFF
            frame[0] = crc8(frame[1:], low)  # good again, whatever the frame says now
        for _ in range({"lost": 0, "twice": 2}.get(how, 1)):
            pair.accept(key, bytes(frame))
        if k % 97 == 5:
            pair.compare()
        if rng.integers(400) == 0:
            pair.rack.inbox.forget_counters()
            pair.c.c.can_forget_counters()
    pair.clock.time_s += float(rng.choice([0.0, 0.3, 0.499, 0.5, 0.501, 7.0]))
    pair.compare()
    assert pair.c.c.can_missing() == int((~np.isfinite(pair.rack.inbox.arrived_s)).sum())


def test_a_rack_of_another_size_is_not_ours(library: Path) -> None:
    pair = Pair(library)
    frames = dict(scans(1, 3))
    identity = 0x084
    for key, data in frames.items():
        pair.accept(key, data)
    assert pair.c.c.can_missing() == 0
    assert pair.c.c.can_rack_fits()
    other = bytearray(frames[identity])
    other[1] = other[1] & 0xF0 | 1
    other[2] ^= 1  # one cell more or fewer
    other[0] = crc8(other[1:], crc8(bytes((identity, 0))) ^ 0xFF)
    pair.accept(identity, bytes(other))
    assert not pair.c.c.can_rack_fits()


singles = st.floats(width=32)
commands = st.fixed_dictionaries(
    {
        "contactors": st.integers(0, 7) | st.integers(0, 255),
        "state": st.integers(0, 14) | st.integers(0, 255),
        "severity": st.integers(0, 3) | st.integers(0, 5),
        "flow": st.integers(0, 2) | st.integers(0, 9),
        "heartbeat": st.integers(0, 2**32 - 1),
        "n_faults": st.integers(0, 65535),
        "cause": st.integers(0, 65535),
        "cooling_degc": st.floats(-60, 90, width=32) | singles,
        **{
            f"limit_{way}_{unit}": st.floats(0, 2e5, width=32) | st.floats(0, 65536, width=32) | singles
            for way in ("discharge", "charge")
            for unit in ("a", "w")
        },
    }
)


@given(st.lists(commands, min_size=1, max_size=5), st.integers(0, 2**32 - 1), st.sampled_from([1, 1, 1, 2]))
@settings(max_examples=60, deadline=None)
def test_the_same_frames_of_the_same_command(library: Path, told: list[dict[str, float]], seed: int, most: int) -> None:
    pair, rng, command = Pair(library), np.random.default_rng(seed), Command(*SIZE)
    for one in told:
        for name, value in one.items():
            command.head[name] = value
        command.balance[:] = rng.integers(0, most + 1, N_CELLS)
        command.shuttle[:] = rng.integers(0, 20) == 0
        pair.sent.clear()
        try:
            pair.rack.write(command)
        except ValueError:
            assert pair.c.command(command) is None
        else:
            assert pair.c.command(command) == [data for _, data in pair.sent]


def test_what_c_cannot_follow_is_refused() -> None:
    for name, fd, says in (("foxbms", False, r"\[fixed\]"), ("reference", True, "64 bytes")):
        profile = can_profile.load(name, fd=fd)
        with pytest.raises(ConfigError, match=says):
            CanTables(profile)
