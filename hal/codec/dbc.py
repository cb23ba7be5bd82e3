"""The part of the DBC format that says where values lie in CAN frames, read from text. No file access.

Read: `BO_` (messages), `SG_` (byte order, sign, scale, offset, range, unit, one multiplexer), `BA_` and `BA_DEF_DEF_`
of `GenMsgCycleTime`, `VAL_` (names of values). Everything else of the format is skipped. Numbering of bits: bit 8 i + j
is bit j (0 the lowest) of byte i. A little-endian signal (`@1`) starts at its lowest bit and goes up through the bytes;
a big-endian one (`@0`) starts at its highest bit and goes down, on to bit 7 of the next byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hal.errors import ConfigError, noting

EXTENDED = 1 << 31
"""Bit of the number of a `BO_` that marks a 29-bit identifier."""

MAX_BYTES = 64
MAX_SIGNAL_BITS = 64

_NO_MESSAGE = 0xC0000000  # `VECTOR__INDEPENDENT_SIG_MSG`: a place for signals that are in no message
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_MESSAGE = re.compile(r"BO_\s+(\d+)\s+(\w+)\s*:\s*(\d+)\s+(\w+)")
_SIGNAL = re.compile(
    r"SG_\s+(\w+)\s*(?:(m\d+M|m\d+|M)\s*)?:\s*(\d+)\|(\d+)@([01])([+-])\s*"
    rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)\s*\[\s*({_NUMBER})\s*\|\s*({_NUMBER})\s*\]\s*"
    r'"([^"]*)"\s*(.*)'
)
_CYCLE = re.compile(rf'BA_\s+"GenMsgCycleTime"\s+BO_\s+(\d+)\s+({_NUMBER})\s*;')
_CYCLE_DEFAULT = re.compile(rf'BA_DEF_DEF_\s+"GenMsgCycleTime"\s+({_NUMBER})\s*;')
_VALUES = re.compile(r"VAL_\s+(\d+)\s+(\w+)\s+(.*);", re.DOTALL)
_VALUE = re.compile(r'(-?\d+)\s+"([^"]*)"')


@dataclass(frozen=True)
class Signal:
    """One value in a message: physical = raw * scale + offset.

    `start` as the DBC counts it. `minimum` = `maximum` = 0 where no range is given. `page` is the value of the
    multiplexer that this signal needs, None for one that is always there.
    """

    name: str
    start: int
    length: int
    little_endian: bool
    signed: bool
    scale: float
    offset: float
    minimum: float
    maximum: float
    unit: str
    multiplexer: bool = False
    page: int | None = None
    values: dict[int, str] = field(default_factory=dict, compare=False)

    def bits(self) -> Iterator[int]:
        """Numbers of its bits, from the one that it starts at."""
        bit = self.start
        for _ in range(self.length):
            yield bit
            if self.little_endian:
                bit += 1
            else:
                bit = bit + 15 if bit % 8 == 0 else bit - 1

    def raw_range(self) -> tuple[int, int]:
        """Smallest and largest whole number that its bits hold."""
        if self.signed:
            return -(1 << (self.length - 1)), (1 << (self.length - 1)) - 1
        return 0, (1 << self.length) - 1


@dataclass(frozen=True)
class Message:
    """One message: `identifier` without the mark of 29 bits, `length` in bytes, `cycle_s` 0 where it has no cycle."""

    name: str
    identifier: int
    extended: bool
    length: int
    sender: str
    signals: tuple[Signal, ...]
    cycle_s: float = 0.0

    @property
    def key(self) -> int:
        """The identifier with the mark of 29 bits, as the DBC writes it."""
        return self.identifier | (EXTENDED if self.extended else 0)

    @property
    def multiplexer(self) -> Signal | None:
        """The signal that tells which page of the message a frame is."""
        return next((signal for signal in self.signals if signal.multiplexer), None)


@dataclass(frozen=True)
class Database:
    """The messages of a DBC, in their order."""

    source: str
    messages: tuple[Message, ...]


class DbcError(ConfigError):
    """A mistake in a DBC: the `source` with its line, `key` says what it is about, `value` what stands there."""

    def __init__(self, source: str, key: str, value: str, text: str) -> None:
        super().__init__(f"{source}: {text}")
        self.source, self.key, self.value, self.text = source, key, value, text


class _Reader:
    """Collects the statements of one text. With `flaws`, mistakes go there, and what they are in is passed over."""

    def __init__(self, source: str, flaws: list[ConfigError] | None) -> None:
        self.source = source
        self.flaws = flaws
        self.messages: list[Message] = []
        self.signals: list[list[Signal]] = []
        self.lines: dict[tuple[str, str], int] = {}
        self.cycles: dict[int, float] = {}
        self.values: dict[tuple[int, str], dict[int, str]] = {}
        self.default_s = 0.0
        self.skipping = False  # inside a message that is none

    def fail(self, line: int, what: str, key: str = "", value: object = "") -> DbcError:
        return DbcError(f"{self.source}:{line}", key, str(value), what)

    def message(self, line: int, text: str) -> None:
        found = _MESSAGE.fullmatch(text)
        if found is None:
            raise self.fail(line, f"'{text[:60]}' is not a message; write BO_ NUMBER NAME: BYTES SENDER")
        key, name, length = int(found[1]), found[2], int(found[3])
        self.skipping = True  # until it is seen to be one
        if key == _NO_MESSAGE:
            return
        identifier, extended = key & ~EXTENDED, key & EXTENDED != 0
        largest = 0x1FFFFFFF if extended else 0x7FF
        if identifier > largest or key >= 1 << 32:
            raise self.fail(
                line,
                f"message {name}: identifier {key} is above {largest}; add {EXTENDED} for one of 29 bits",
                f"message {name}",
                key,
            )
        if length > MAX_BYTES:
            raise self.fail(
                line, f"message {name}: {length} bytes; a frame holds at most {MAX_BYTES}", f"message {name}", length
            )
        for other in self.messages:
            if other.name == name or other.key == key:
                shared = f"name {name}" if other.name == name else f"identifier {key}"
                raise self.fail(
                    line, f"message {name}: the {shared} is given twice; remove or rename one", f"message {name}", key
                )
        self.skipping = False
        self.messages.append(Message(name, identifier, extended, length, found[4], ()))
        self.signals.append([])

    def signal(self, line: int, text: str) -> None:
        if self.skipping:
            return
        if not self.messages:
            raise self.fail(line, "a signal before the first message; put it below a BO_ line")
        message, signals = self.messages[-1], self.signals[-1]
        found = _SIGNAL.fullmatch(text)
        if found is None:
            raise self.fail(
                line,
                f"'{text[:60]}' is not a signal; write SG_ NAME : START|LENGTH@ORDER SIGN (SCALE,OFFSET) [MIN|MAX] "
                '"UNIT" RECEIVER',
            )
        name, mux = found[1], found[2] or ""
        where = f"message {message.name}: signal {name}"
        if mux.startswith("m") and mux.endswith("M"):
            raise self.fail(
                line, f"{where}: a multiplexer inside a page ({mux}) cannot be read; use one multiplexer", where, mux
            )
        signal = Signal(
            name=name,
            start=int(found[3]),
            length=int(found[4]),
            little_endian=found[5] == "1",
            signed=found[6] == "-",
            scale=float(found[7]),
            offset=float(found[8]),
            minimum=float(found[9]),
            maximum=float(found[10]),
            unit=found[11],
            multiplexer=mux == "M",
            page=int(mux[1:]) if mux.startswith("m") else None,
        )
        if not 1 <= signal.length <= MAX_SIGNAL_BITS:
            raise self.fail(
                line, f"{where}: {signal.length} bits; a signal has 1 to {MAX_SIGNAL_BITS}", where, signal.length
            )
        if signal.scale == 0.0:
            raise self.fail(line, f"{where}: the scale is 0; give the step of the value, for example 1", where, 0)
        if max(signal.bits()) >= 8 * message.length:
            raise self.fail(
                line,
                f"{where}: its bits end at {max(signal.bits())}, outside of the frame of {message.length} bytes; "
                "move it or lengthen the message",
                where,
                f"{signal.start}|{signal.length}",
            )
        if any(other.name == name for other in signals):
            raise self.fail(line, f"{where}: the name is given twice; remove or rename one", where)
        if signal.multiplexer and any(other.multiplexer for other in signals):
            raise self.fail(line, f"{where}: a second multiplexer; a message has one", where)
        signals.append(signal)
        self.lines[message.name, name] = line

    def statement(self, line: int, text: str) -> None:
        """A statement that ends with a semicolon."""
        if found := _CYCLE.fullmatch(text):
            cycle_ms = float(found[2])
            if cycle_ms < 0:
                raise self.fail(
                    line,
                    f"GenMsgCycleTime {cycle_ms:g} of message {found[1]}: a time in ms, at least 0",
                    "GenMsgCycleTime",
                    found[2],
                )
            self.cycles[int(found[1])] = cycle_ms * 1e-3
        elif found := _CYCLE_DEFAULT.fullmatch(text):
            self.default_s = float(found[1]) * 1e-3
        elif found := _VALUES.fullmatch(text):
            self.values[int(found[1]), found[2]] = {int(n): word for n, word in _VALUE.findall(found[3])}
        elif text.startswith("SIG_VALTYPE_") and not re.search(r":?\s*0\s*;$", text):
            raise self.fail(line, f"'{text[:60]}': floating-point signals cannot be read; send whole numbers")
        elif text.startswith("SG_MUL_VAL_"):
            raise self.fail(line, f"'{text[:60]}': extended multiplexing cannot be read; use one multiplexer")

    def database(self) -> Database:
        messages = []
        for message, signals in zip(self.messages, self.signals, strict=True):
            for error in self._check(message, signals):
                with noting(self.flaws):
                    raise error
            named = tuple(replace(s, values=self.values.get((message.key, s.name), {})) for s in signals)
            cycle_s = self.cycles.get(message.key, self.default_s)
            messages.append(replace(message, signals=named, cycle_s=cycle_s))
        return Database(self.source, tuple(messages))

    def _check(self, message: Message, signals: list[Signal]) -> Iterator[DbcError]:
        """Signals that can be in one frame and share a bit, each pair once, and pages without a multiplexer."""
        multiplexer = next((s for s in signals if s.multiplexer), None)
        taken: dict[int, list[Signal]] = {}
        for signal in signals:
            line = self.lines[message.name, signal.name]
            where = f"message {message.name}: signal {signal.name}"
            if signal.page is not None:
                if multiplexer is None:
                    yield self.fail(
                        line,
                        f"{where}: page {signal.page} of no multiplexer; mark one signal with M",
                        where,
                        signal.page,
                    )
                elif signal.page > multiplexer.raw_range()[1]:
                    yield self.fail(
                        line,
                        f"{where}: {multiplexer.name} never becomes {signal.page}; give it more bits",
                        where,
                        signal.page,
                    )
            told = set()
            for bit in signal.bits():
                for other in taken.get(bit, ()):
                    together = signal.page is None or other.page is None or signal.page == other.page
                    if together and other.name not in told:
                        told.add(other.name)
                        place = f"{signal.start}|{signal.length}"
                        text = f"{where} overlaps {other.name} at bit {bit}; move one of them"
                        yield self.fail(line, text, where, place)
                taken.setdefault(bit, []).append(signal)


def parse(text: str, source: str, flaws: list[ConfigError] | None = None) -> Database:
    """The messages of the DBC `text`; `source` names it in errors.

    Raises `ConfigError` naming source, line and remedy: what is no message or signal, signals that overlap or reach
    out of the frame, names or identifiers given twice, floating-point signals and nested multiplexers. Where `flaws`
    are given, such mistakes are added to them, and what they are in is left out.
    """
    reader = _Reader(source, flaws)
    rest, began = "", 0  # a statement that goes on
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if rest:
            rest = f"{rest}\n{stripped}"
        elif stripped.startswith(("BO_ ", "SG_ ")):
            with noting(flaws):
                (reader.message if stripped.startswith("BO_ ") else reader.signal)(number, stripped)
            continue
        elif stripped.startswith(("CM_", "BA_", "VAL_", "SIG_VALTYPE_", "SG_MUL_VAL_")):
            rest, began = stripped, number
        else:
            continue
        if rest.endswith(";") and rest.replace('\\"', "").count('"') % 2 == 0:
            with noting(flaws):
                reader.statement(began, rest)
            rest = ""
    if rest:
        raise reader.fail(began, f"'{rest[:40]}' has no end; close the text with \" and the statement with ;")
    if not reader.messages:
        raise ConfigError(f"{source}: holds no message; it needs lines BO_ NUMBER NAME: BYTES SENDER")
    return reader.database()
