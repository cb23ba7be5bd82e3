"""A CAN profile as tables of C: where each signal lies, what it stands for, and how its frames are protected.

They are made from the tables by which Python reads and writes the same frames (`hal.codec`), so that a controller on
the bus takes every measurement, and sends every command, as a loop on this computer would. The board's `can.c` reads
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bms.firmware.baked import Baked
from hal.codec import can_profile
from hal.codec.can_profile import CanProfile
from hal.codec.can_protection import COUNTER_VALUES, CRC_TABLE, NO_CRC, Places
from hal.codec.can_wire import COOLANT_DEGC, NOT_KNOWN_TO_BE_SAFE, CommandWire, MeasurementWire, Part
from hal.codec.frames import Codec, Row
from hal.contract import COMMAND, MEASUREMENT, Layout
from hal.engine.frames import runs
from hal.errors import ConfigError

SOURCE, HEADER = "rackbms_can.c", "rackbms_can.h"
CLASSIC_BYTES = 8
EXACT_BITS = 51
"""Longest signal of a command: what rounds without a branch."""

NOWHERE = "CAN_NOWHERE"


def profile_of(found: Baked) -> CanProfile:
    """The reference profile for the rack of a configuration. Raises `ConfigError`."""
    size = {"n_cells": found.record.n_cells, "n_sensors": found.record.n_sensors}
    return can_profile.load(can_profile.REFERENCE, rack=size)


class CanTables:
    """The texts `header` and `source` of a profile. Raises `ConfigError` for one that `can.c` cannot follow."""

    def __init__(self, profile: CanProfile) -> None:
        self._profile = profile
        self._in = Codec(profile.database, profile.measurement_messages(), profile.protection)
        self._out = Codec(profile.database, profile.command_messages(), profile.protection)
        self._measurement = MeasurementWire(profile, self._in)
        self._command = CommandWire(profile, self._out)
        self._formats: dict[str, int] = {}
        self._refuse_what_is_not_there()

    def _refuse_what_is_not_there(self) -> None:
        profile, where = self._profile, f"{self._profile.source}: a controller on the bus cannot follow"
        for name in profile.fixed:
            raise ConfigError(f"{where} [fixed] {name}; leave it out")
        for row in (*self._in.rows, *self._out.rows):
            if row.page is not None:
                raise ConfigError(f"{where} the pages of message {row.message.name}; use a profile without pages")
            if row.message.length > CLASSIC_BYTES:
                raise ConfigError(f"{where} the {row.message.length} bytes of {row.message.name}; use classic CAN")
        for table, channels in (("measurement", profile.measurement), ("command", profile.command)):
            for channel in channels.values():
                if channel.bits or channel.table:
                    raise ConfigError(f"{where} [{table}] {channel.name}: bits or a table; use one signal as it is")
        sent = {int(place) for place in self._command.flat.places}
        for place, signal in enumerate(self._out.signals):
            if place in sent and signal.length > EXACT_BITS:
                raise ConfigError(f"{where} signal {signal.name}: {signal.length} bits; use {EXACT_BITS} at most")
            if place not in sent and signal.offset != 0.0:
                raise ConfigError(f"{where} signal {signal.name}, which nothing is sent in: it has an offset; use 0")

    @property
    def header(self) -> str:
        """Sizes of the tables."""
        told, info = self._measurement.sequence, self._profile.info
        return f"""\
/* Made by `bms build`; do not edit. The bus of {info.n_cells} cells and {info.n_sensors} sensors, as
 * {self._profile.source} has it. */
#ifndef RACKBMS_CAN_H
#define RACKBMS_CAN_H

#define RACKBMS_CAN_IN_ROWS {len(self._in.rows)}
#define RACKBMS_CAN_OUT_ROWS {len(self._command.sendable)}
#define RACKBMS_CAN_NEEDED {len(self._measurement.sendable)}
#define RACKBMS_CAN_IN_CHANNELS {len(self._measurement.flat.parts)}
#define RACKBMS_CAN_OUT_CHANNELS {len(self._command.flat.parts)}
#define RACKBMS_CAN_IDENTITY {len(self._identity())}
#define RACKBMS_CAN_SAMPLE_BITS {0 if told is None else self._in.signals[told].length}
#define RACKBMS_CAN_HAS_SHUTTLE {int(info.capabilities.shuttle)}
#define RACKBMS_CAN_COLDEST_DEGC {COOLANT_DEGC[0]}f
#define RACKBMS_CAN_HOTTEST_DEGC {COOLANT_DEGC[1]}f

#endif
"""

    @property
    def source(self) -> str:
        """The tables."""
        limits_s = self._profile.stale_cycles * np.array([row.cycle_s for row in self._in.rows])
        body = [
            _rows("can_in", self._in, range(len(self._in.rows)), limits_s),
            _rows("can_out", self._out, self._command.sendable, np.zeros(len(self._out.rows))),
            _array("uint16_t", "can_needed", (str(row) for row in self._measurement.sendable)),
            *self._channels("in", MEASUREMENT, self._measurement),
            *self._channels("out", COMMAND, self._command),
            self._sample(),
            _array("can_expected", "can_identity", self._identity()),
            _array("uint8_t", "can_crc_table", (str(byte) for byte in CRC_TABLE)),
            self._blank(),
        ]
        opening = '/* Made by `bms build`; do not edit. */\n#include "can_tables.h"\n'
        formats = _array("can_format", "can_formats", self._formats)  # the others have filled it
        return "\n".join([opening, formats, *body])

    def _format(self, codec: Codec, place: int, ends: tuple[float, float]) -> int:
        """The number of the format of a signal; signals that are alike share one."""
        s = codec.signals[place]
        numbers = (s.scale, s.offset, *ends, codec.smallest[place], codec.largest[place])
        absent = f"{int(codec.absent[place]):#x}u"
        flags = f"{s.length}, {_bool(s.signed)}, {_bool(not s.little_endian)}"
        text = f"{{{', '.join(_number(number) for number in numbers)}, {absent}, {flags}}}"
        return self._formats.setdefault(text, len(self._formats))

    def _signal(self, wire: MeasurementWire | CommandWire, place: int, ends: tuple[float, float] = (0.0, 0.0)) -> str:
        """Row, shift and format of a signal."""
        row, s = int(wire.flat.row_of[place]), wire.codec.signals[place]
        if wire is self._command:
            row = self._command.sendable.index(row)
        lowest = s.start if s.little_endian else 63 - (s.start // 8 * 8 + 7 - s.start % 8 + s.length - 1)
        return f"{{{row}, {lowest}, {self._format(wire.codec, place, ends)}}}"

    def _channels(self, side: str, layout: Layout, wire: MeasurementWire | CommandWire) -> Iterable[str]:
        """Arrays of the signals of all channels of one side, of what guards them, and of the channels themselves."""
        flat, channels = wire.flat, []
        at = _places(layout, self._profile.info.n_cells, self._profile.info.n_sensors)
        for part in flat.parts:
            span = range(part.lo, part.hi)
            ends = [(0.0, 0.0)] * len(span)
            if isinstance(wire, CommandWire):
                ends = [(float(wire.low[k]), float(wire.high[k])) for k in span]
            name = f"{side}_{part.name}"
            signals = [self._signal(wire, int(flat.places[k]), e) for k, e in zip(span, ends, strict=True)]
            yield _array("can_signal", f"{name}_signals", signals, "static ")
            guards = "0"
            if flat.guarded[part.lo]:
                guards = f"{name}_guards"
                told = [self._signal(wire, int(flat.valid[k])) for k in span]
                yield _array("can_signal", guards, told, "static ")
            channels.append(self._channel(part, f"{name}_signals", guards, wire, at))
        yield _array("can_channel", f"can_{side}_channels", channels)

    def _channel(
        self, part: Part, signals: str, guards: str, wire: MeasurementWire | CommandWire, at: dict[str, Any]
    ) -> str:
        flat = wire.flat
        kind = at[part.name][1].upper()
        quality, age = f"{part.name}_quality", f"{part.name}_age_s"
        wrap = 0
        if part.name == "heartbeat" and isinstance(wire, CommandWire):
            wrap = round(1.0 + float(wire.high[part.lo]))
        words = (
            signals, guards, _number(float(flat.factor[part.lo])), _number(float(flat.offset[part.lo])), f"{wrap}u",
            part.hi - part.lo, at[part.name][0], at[age][0] if age in at else NOWHERE,
            at[quality][0] if quality in at else NOWHERE, f"CAN_{kind}", _bool(part.array),
            _bool(quality in at and at[quality][2]), _bool(part.name in NOT_KNOWN_TO_BE_SAFE), int(flat.good[part.lo]),
        )  # fmt: skip
        return f"{{{', '.join(str(word) for word in words)}}}"

    def _sample(self) -> str:
        """The signal of the sample's number."""
        told = self._measurement.sequence
        signal = "{0, 0, 0}" if told is None else self._signal(self._measurement, told)
        return f"const can_signal can_sample = {signal};\n"

    def _identity(self) -> list[str]:
        """Signals by which the rack says what it is, and the raw numbers that are expected of it."""
        info, found = self._profile.info, []
        expected = {"layout": self._profile.layout, "n_cells": info.n_cells, "n_sensors": info.n_sensors}
        for key, value in expected.items():
            if (name := self._profile.identity.get(key)) is not None:
                place = self._in.place(name)
                signal = self._in.signals[place]
                raw = round((value - signal.offset) / signal.scale)
                found.append(f"{{{self._signal(self._measurement, place)}, {raw}u}}")
        return found

    def _blank(self) -> str:
        """A measurement in which nothing has come yet, as runs."""
        record = self._measurement.record.bytes
        told = runs(np.zeros_like(record), record)
        return "".join(
            [
                _array("uint8_t", "can_blank", (str(byte) for byte in told)),
                f"const uint32_t can_blank_size = {len(told)};\n",
            ]
        )


def _places(layout: Layout, n_cells: int, n_sensors: int) -> dict[str, tuple[int, str, bool]]:
    """Offset, kind and whether it is an array, of each field of a record."""
    whole, head = layout.dtype(n_cells, n_sensors), layout.head_dtype
    assert whole.fields is not None
    assert head.fields is not None
    found = {f.name: (head.fields[f.name][1], f.kind, False) for f in layout.scalars}
    return found | {f.name: (whole.fields[f.name][1], f.kind, True) for f in layout.arrays}


def _rows(name: str, codec: Codec, rows: Sequence[int], limits_s: Any) -> str:
    """The frames of one side: identifier, length, protection, and after how long they are late."""
    none = Places(NO_CRC, 0, 0, COUNTER_VALUES)

    def text(row: Row, number: int) -> str:
        at = codec.protected.get(number, none)
        guard = f"{_bool(number in codec.protected)}, {at.crc_at}, {at.counter_at}, {at.shift}, {at.values}"
        return f"{{{_number(float(limits_s[number]))}, {row.message.key:#x}u, {row.message.length}, {guard}}}"

    return _array("can_row", f"{name}_rows", (text(codec.rows[r], r) for r in rows))


def _array(kind: str, name: str, items: Iterable[str], scope: str = "") -> str:
    """A constant array, a few items to a line."""
    listed = list(items) or ["{0}" if kind.startswith("can_") else "0"]  # C has no empty arrays
    per_line = max(1, 100 // max(len(item) + 2 for item in listed))
    lines = [", ".join(listed[k : k + per_line]) for k in range(0, len(listed), per_line)]
    text = ",\n    ".join(lines)
    return f"{scope}const {kind} {name}[] = {{\n    {text},\n}};\n"


def _number(value: float) -> str:
    """A number as C reads it back, to the last bit."""
    return repr(float(value))


def _bool(value: Any) -> str:
    return "true" if value else "false"
