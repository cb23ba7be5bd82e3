"""CAN frames to arrays and back, with the tables of a DBC: all signals of a scan in one call. No sockets.

The frames of a scan lie in an image, one row of whole 64-bit words for each frame: a message has a row, and one more
for each page of its multiplexer. The image is followed by room for the same words with their bytes reversed, where a
big-endian signal is a run of bits as a little-endian one is in the image itself. What checksum and alive counter of a
frame are is told in `hal.codec.can_protection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from hal.codec.can_protection import COUNTER_VALUES, CRC_TABLE, MAX_STEP, NO_CRC, Places, Protection, crc8, places_of
from hal.codec.dbc import Database, Message, Signal
from hal.codec.jit import can_kernel
from hal.errors import ConfigError, nearest

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
U1 = npt.NDArray[np.uint8]
U8 = npt.NDArray[np.uint64]

NEVER_S = -np.inf
"""When a frame arrived that never did."""

_WORD = 64
_EXACT = 4503599627370496.0  # 2^52: a float64 of that size is a whole number
_ROUNDS = 6755399441055744.0  # 1.5 * 2^52: a number within 2^51 added to it stands rounded in the lowest 51 bits
_LOW51 = np.uint64((1 << 51) - 1)


@can_kernel("void(u8[::1], i4[::1], i4[::1], u1[::1], u1[::1], u1[::1], f8[::1], f8[::1], u8[::1], f8[::1], i8)")
def decode(
    words: U8,
    low: I4,
    high: I4,
    shift: U1,
    length: U1,
    signed: U1,
    scale: F8,
    offset: F8,
    raw: U8,
    value: F8,
    swapped: int,
) -> None:
    """Take all signals out of the image: `raw` u8[n] with the sign extended, `value` f8[n] = raw * scale + offset.

    `words` u8[2 n_words]: the image, then room for the reversed words, filled here if `swapped`. A signal has its
    lowest bit at `shift` of the word `low`, and what does not fit there in the word `high`.
    """
    half = words.size // 2
    if swapped != 0:
        for k in range(half):
            w = words[k]
            turned = np.uint64(0)
            for _ in range(8):
                turned = (turned << np.uint64(8)) | (w & np.uint64(0xFF))
                w = w >> np.uint64(8)
            words[half + k] = turned
    for k in range(value.size):
        bits = words[low[k]] >> np.uint64(shift[k])
        if high[k] != low[k]:
            bits |= words[high[k]] << (np.uint64(64) - np.uint64(shift[k]))
        mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> (np.uint64(64) - np.uint64(length[k]))
        bits &= mask
        if signed[k] != 0 and (bits >> (np.uint64(length[k]) - np.uint64(1))) != 0:
            bits |= ~mask
            value[k] = -np.float64(~bits + np.uint64(1)) * scale[k] + offset[k]
        else:
            value[k] = np.float64(bits) * scale[k] + offset[k]
        raw[k] = bits


@can_kernel(
    "void(u8[::1], i4[::1], i4[::1], u1[::1], u8[::1], f8[::1], f8[::1], f8[::1], f8[::1], u8[::1], f8[::1], u8[::1], "
    "i8, i8)"
)
def encode(
    words: U8,
    low: I4,
    high: I4,
    shift: U1,
    mask: U8,
    scale: F8,
    offset: F8,
    smallest: F8,
    largest: F8,
    absent: U8,
    value: F8,
    raw: U8,
    swapped: int,
    long: int,
) -> None:
    """Write `value` f8[n] into the image, the rest of which becomes 0; `raw` u8[n] is scratch, `mask` the bits of each.

    Rounded to the nearest step (half to even), held within `smallest` and `largest` (raw); NaN gets the code `absent`.
    `long`: there are signals of more than 51 bits.
    """
    half = words.size // 2
    for k in range(words.size):
        words[k] = np.uint64(0)
    for k in range(value.size):  # without a branch, so that it becomes SIMD
        x = min(max((value[k] - offset[k]) / scale[k], smallest[k]), largest[k])
        bits = np.float64(x + _ROUNDS).view(np.uint64)
        raw[k] = absent[k] if np.isnan(value[k]) else bits
    if long != 0:
        for k in range(value.size):
            if mask[k] > _LOW51 and not np.isnan(value[k]):
                x = min(max((value[k] - offset[k]) / scale[k], smallest[k]), largest[k])
                size = abs(x)
                if size < _EXACT:
                    size = (size + _EXACT) - _EXACT
                bits = np.uint64(size)
                if x < 0.0 and bits != 0:
                    bits = ~bits + np.uint64(1)
                raw[k] = bits
    for k in range(value.size):
        bits = raw[k] & mask[k]
        words[low[k]] |= bits << np.uint64(shift[k])
        if high[k] != low[k]:
            words[high[k]] |= bits >> (np.uint64(64) - np.uint64(shift[k]))
    if swapped != 0:
        for k in range(half):
            w = words[half + k]
            turned = np.uint64(0)
            for _ in range(8):
                turned = (turned << np.uint64(8)) | (w & np.uint64(0xFF))
                w = w >> np.uint64(8)
            words[k] |= turned


@can_kernel("void(u1[::1], i4[::1], i4[::1], u1[::1], u1[::1], u1[::1], u1[::1], u1[::1], u1[::1])")
def seal(
    image: U1, at: I4, identifier: I4, length: U1, crc_at: U1, counter_at: U1, counter_shift: U1, counter: U1, table: U1
) -> None:
    """Write alive counter and CRC into the rows that begin at the bytes `at` i4[n] of the image.

    `crc_at` is `NO_CRC` where a row has none.
    """
    for k in range(at.size):
        place = at[k] + counter_at[k]
        image[place] = (image[place] & ~(np.uint8(15) << counter_shift[k])) | (counter[k] << counter_shift[k])
        if crc_at[k] == NO_CRC:
            continue
        crc = table[np.uint8(0xFF) ^ np.uint8(identifier[k] & 0xFF)]
        crc = table[crc ^ np.uint8((identifier[k] >> 8) & 0xFF)]
        for j in range(length[k]):
            if j != crc_at[k]:
                crc = table[crc ^ image[at[k] + j]]
        image[at[k] + crc_at[k]] = crc ^ np.uint8(0xFF)


@dataclass(frozen=True)
class Row:
    """A row of the image: the frame of `message`, or what only page `page` of it has. `signals` begin at `first`.

    `cycle_s` is how often it comes: the pages of a message take turns.
    """

    message: Message
    page: int | None
    first: int
    signals: tuple[Signal, ...]
    cycle_s: float


class Codec:
    """Tables and image of some messages of a database.

    `words` u8 is the image (see the module), `rows` its rows, `stride` the bytes of a row, `raw` u8[n] and `value`
    f8[n] the signals in the order of the rows; `smallest` and `largest` f8[n] are the raw numbers that they are held
    within when they are sent, `absent` u8[n] what says that there is no value. `index` finds a signal by its name, or
    by `Message.Signal` where several messages have one of that name. Raises `ConfigError` for a protected message whose
    signals cannot hold it.
    """

    def __init__(self, database: Database, messages: Sequence[Message], protection: Sequence[Protection] = ()) -> None:
        self.database = database
        rows: list[Row] = []
        count = 0
        for message in messages:
            pages = sorted({s.page for s in message.signals if s.page is not None})
            for page in (None, *pages):
                signals = tuple(s for s in message.signals if s.page == page)
                turns = 1 if page is None else len(pages)
                rows.append(Row(message, page, count, signals, turns * message.cycle_s))
                count += len(signals)
        self.rows = tuple(rows)
        n_words = max((-(-message.length // 8) for message in messages), default=1)
        self.stride = 8 * n_words
        half = n_words * len(rows)
        self.words: U8 = np.zeros(2 * half, np.uint64)
        self.image: U1 = self.words[:half].view(np.uint8)
        self.raw: U8 = np.zeros(count, np.uint64)
        self.value: F8 = np.zeros(count)
        self.index: dict[str, int] = {}
        self.signals: list[Signal] = []
        self._tables(half, n_words)
        found = {r: places_of(row.message, protection, database.source) for r, row in enumerate(self.rows)}
        self.protected: dict[int, Places] = {r: at for r, at in found.items() if at is not None}
        swapped = int(any(not s.little_endian for s in self.signals))
        places = self._low, self._high, self._shift
        self._decode = decode.bind(
            self.words, *places, self._length, self._signed, self._scale, self._offset, self.raw, self.value
        )
        masks = np.array([(1 << signal.length) - 1 for signal in self.signals], np.uint64)
        ends = self._scale, self._offset, self.smallest, self.largest, self.absent
        self._encode = encode.bind(self.words, *places, masks, *ends, self.value, np.zeros_like(self.raw))
        self._long = int(any(signal.length > 51 for signal in self.signals))
        self._swapped = swapped

    def _tables(self, half: int, n_words: int) -> None:
        n = len(self.value)
        self._low, self._high = np.zeros(n, np.int32), np.zeros(n, np.int32)
        self._shift, self._length, self._signed = (np.zeros(n, np.uint8) for _ in range(3))
        self._scale, self._offset, self.smallest, self.largest = (np.zeros(n) for _ in range(4))
        self.absent: U8 = np.zeros(n, np.uint64)
        names: dict[str, int] = {}
        for r, row in enumerate(self.rows):
            for k, signal in enumerate(row.signals, start=row.first):
                self.signals.append(signal)
                self.index[f"{row.message.name}.{signal.name}"] = k
                names[signal.name] = -1 if signal.name in names else k
                if signal.little_endian:
                    base, lowest, highest = 0, signal.start, signal.start + signal.length - 1
                    self._shift[k] = lowest % _WORD
                else:
                    base = half
                    highest = signal.start // 8 * 8 + 7 - signal.start % 8
                    lowest = highest + signal.length - 1
                    self._shift[k] = 63 - lowest % _WORD
                self._low[k] = base + r * n_words + lowest // _WORD
                self._high[k] = base + r * n_words + highest // _WORD
                low, high = signal.raw_range()
                self.absent[k] = low % (1 << 64) if signal.signed else high  # as `raw` has it
                if signal.minimum < signal.maximum:
                    ends = ((edge - signal.offset) / signal.scale for edge in (signal.minimum, signal.maximum))
                    bottom, top = sorted(round(end) for end in ends)
                    low, high = max(low, bottom), min(high, top)
                self.smallest[k] = low
                self.largest[k] = high if high < 1 << 53 else np.nextafter(float(high), 0.0)
                self._length[k], self._signed[k] = signal.length, signal.signed
                self._scale[k], self._offset[k] = signal.scale, signal.offset
        self.index |= {name: k for name, k in names.items() if k >= 0 and name not in self.index}

    def place(self, name: str) -> int:
        """Where the signal `name` (or `Message.Signal`) is in `value`. Raises `ConfigError`."""
        place = self.index.get(name)
        if place is None:
            plain = {key for key in self.index if "." not in key}
            raise ConfigError(f"{self.database.source}: there is no signal {name}{nearest(name, sorted(plain)[:2000])}")
        return place

    def decode(self) -> None:
        """Fill `raw` and `value` from the image."""
        self._decode(self._swapped)

    def encode(self) -> None:
        """Fill the image from `value`, counters and CRCs apart."""
        self._encode(self._swapped, self._long)


class Verdict(IntEnum):
    """What becomes of a frame."""

    ACCEPTED = 0
    UNKNOWN = 1  # no message of ours has this identifier
    WRONG_LENGTH = 2
    WRONG_CRC = 3
    REPEATED = 4  # the counter stands still: the frame came before
    OUT_OF_SEQUENCE = 5  # the counter went too far, see `MAX_STEP`


class Inbox:
    """Takes frames as they arrive, into an image of its own: what is wrong changes nothing but the count of it.

    `snapshot` brings them to the codec. `arrived_s` f8[n_rows] is when the frame of each row was accepted last,
    `counts[verdict]` how many frames had that verdict, `lost` how many the counters tell never came. `counter` is that
    of the newest frame of each row, `fresh` tells whether one was accepted since whoever uses it set it to False.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.arrived_s: F8 = np.full(len(codec.rows), NEVER_S)
        self.counts = [0] * len(Verdict)
        self.lost = 0
        self.counter = [-1] * len(codec.rows)
        self.fresh = [False] * len(codec.rows)
        self._image = np.zeros_like(codec.image)
        self._bytes = memoryview(self._image)  # type: ignore[arg-type]
        self._rows: dict[int, int] = {row.message.key: r for r, row in enumerate(codec.rows) if row.page is None}
        self._pages: dict[int, tuple[Signal, dict[int, int]]] = {}
        for r, row in enumerate(codec.rows):
            multiplexer = row.message.multiplexer
            if row.page is not None and multiplexer is not None:
                self._pages.setdefault(row.message.key, (multiplexer, {}))[1][row.page] = r
        self._length = [row.message.length for row in codec.rows]
        self._start = [crc8(bytes((row.message.key & 0xFF, row.message.key >> 8 & 0xFF))) ^ 0xFF for row in codec.rows]

    def accept(self, key: int, data: bytes | bytearray, now_s: float) -> Verdict:
        """Take the frame `data` of identifier `key` (`hal.codec.dbc.EXTENDED` marks 29 bits) that came at `now_s`."""
        verdict = self._accept(key, data, now_s)
        self.counts[verdict] += 1
        return verdict

    def _accept(self, key: int, data: bytes | bytearray, now_s: float) -> Verdict:
        row = self._rows.get(key)
        if row is None:
            return Verdict.UNKNOWN
        length = self._length[row]
        if len(data) != length:
            return Verdict.WRONG_LENGTH
        protected = self.codec.protected.get(row)
        if protected is not None:
            if protected.crc_at != NO_CRC and not self._crc_fits(row, protected.crc_at, data):
                return Verdict.WRONG_CRC
            counter, last = data[protected.counter_at] >> protected.shift & 15, self.counter[row]
            if counter >= protected.values:
                return Verdict.OUT_OF_SEQUENCE
            self.counter[row] = counter
            if last >= 0:
                step = (counter - last) % protected.values
                if step == 0:
                    return Verdict.REPEATED
                if step > MAX_STEP:
                    return Verdict.OUT_OF_SEQUENCE
                self.lost += step - 1
        self._store(row, data, now_s)
        if key in self._pages:
            multiplexer, pages = self._pages[key]
            page = pages.get(_multiplexed(multiplexer, data))
            if page is not None:
                self._store(page, data, now_s)
        return Verdict.ACCEPTED

    def _crc_fits(self, row: int, crc_at: int, data: bytes | bytearray) -> bool:
        crc = self._start[row]
        if crc_at:
            crc = crc8(data[:crc_at], crc) ^ 0xFF
        return crc8(data[crc_at + 1 :], crc) == data[crc_at]

    def _store(self, row: int, data: bytes | bytearray, now_s: float) -> None:
        at = row * self.codec.stride
        self._bytes[at : at + len(data)] = data
        self.arrived_s[row] = now_s
        self.fresh[row] = True

    def snapshot(self) -> None:
        """Put what has arrived into the image of the codec, to be decoded."""
        self.codec.image[...] = self._image

    def forget_counters(self) -> None:
        """Take the next frame of every row whatever its counter: after the link was away."""
        self.counter = [-1] * len(self.counter)


def _multiplexed(signal: Signal, data: bytes | bytearray) -> int:
    """The value of the multiplexer in a frame."""
    if signal.little_endian:
        bits = int.from_bytes(data, "little") >> signal.start
    else:
        lowest = signal.start // 8 * 8 + 7 - signal.start % 8 + signal.length - 1
        bits = int.from_bytes(data, "big") >> (8 * len(data) - 1 - lowest)
    return bits & ((1 << signal.length) - 1)


def _mark(row: Row, stride: int) -> list[int]:
    """The bytes of a frame of which only the multiplexer is set, to the page of `row`."""
    found, multiplexer = [0] * stride, row.message.multiplexer
    assert multiplexer is not None
    bits = list(multiplexer.bits())
    for weight, bit in enumerate(bits if multiplexer.little_endian else reversed(bits)):
        found[bit // 8] |= ((row.page or 0) >> weight & 1) << bit % 8
    return found


class Outbox:
    """Makes frames of the values of a codec, each with the next alive counter of its row."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        n = len(codec.rows)
        none = Places(NO_CRC, 0, 0, COUNTER_VALUES)
        protected = [codec.protected.get(r, none) for r in range(n)]
        self._values = np.array([at.values for at in protected], np.uint8)
        self.counter: U1 = self._values - np.uint8(1)
        self._at: I4 = (np.arange(n) * codec.stride).astype(np.int32)
        self._key = np.array([row.message.key & 0x7FFFFFFF for row in codec.rows], np.int32)
        self._length = np.array([row.message.length for row in codec.rows], np.uint8)
        triples = [(at.crc_at, at.counter_at, at.shift) for at in protected]
        self._protection = np.array(triples, np.uint8).reshape(n, 3)
        self._table = np.frombuffer(CRC_TABLE, np.uint8).copy()
        self._image = codec.image.reshape(n, codec.stride)
        bases = {row.message.key: r for r, row in enumerate(codec.rows) if row.page is None}
        self._pages = [r for r, row in enumerate(codec.rows) if row.page is not None]
        self._bases = [bases[codec.rows[r].message.key] for r in self._pages]
        self._marks = np.array([_mark(codec.rows[r], codec.stride) for r in self._pages], np.uint8)
        for base in self._bases:
            if base in codec.protected:
                name = codec.rows[base].message.name
                raise ConfigError(f"{codec.database.source}: message {name} has pages and a CRC, and cannot be sent")

    def frames(self, rows: Sequence[int]) -> list[tuple[int, bytes]]:
        """(identifier with its mark, bytes) of the frames of `rows`, after `Codec.encode`.

        The row of a page is sent with what all pages of its message share.
        """
        if self._pages:
            self._image[self._pages] |= self._image[self._bases] | self._marks
        at = np.array([r for r in rows if r in self.codec.protected], np.int64)
        if len(at):
            self.counter[at] = (self.counter[at] + 1) % self._values[at]
            crc_at, counter_at, shift = (np.ascontiguousarray(self._protection[at, k]) for k in range(3))
            keys, lengths, counters = self._key[at], self._length[at], self.counter[at]
            seal(self.codec.image, self._at[at], keys, lengths, crc_at, counter_at, shift, counters, self._table)
        image, stride = self.codec.image.tobytes(), self.codec.stride
        found = ((r, self.codec.rows[r].message) for r in rows)
        return [(message.key, image[r * stride : r * stride + message.length]) for r, message in found]
