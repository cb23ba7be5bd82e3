"""The DBC of the reference profile for a rack of any size: `python -m hal.profiles.reference.generate --cells 416`.

Every frame begins with a CRC-8 in byte 0 and an alive counter in the low half of byte 1 (`hal.codec.frames`). Then come
the validity bits of its values, then the values, from the next whole byte on. All ones (the lowest number, where there
is a sign) with a validity bit of 0 says that there is no value. Identifiers rise with what can wait.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.errors import ConfigError
from hal.profiles.dbc_text import written

LAYOUT_VERSION = 1
CYCLE_MS = 100
IDENTITY_CYCLE_MS = 1000
CLASSIC_BYTES, FD_BYTES = 8, 64
HEAD_BITS = 12  # CRC and alive counter

COMMANDS, STATUS, BLEEDING, CELLS, SENSORS, END = 0x020, 0x080, 0x090, 0x100, 0x500, 0x800
BALANCE = COMMANDS + 0x10

RACK, CONTROLLER = "Rack", "Controller"


@dataclass(frozen=True)
class Value:
    """One signal: `raw_max` is the largest raw number in use; `comment` says what it is."""

    name: str
    bits: int
    scale: str = "1"
    offset: str = "0"
    unit: str = ""
    signed: bool = False
    absent: bool = False  # the last code says that there is no value
    comment: str = ""


@dataclass(frozen=True)
class Frame:
    """One message: flags of one bit each, then values."""

    name: str
    identifier: int
    sender: str
    flags: tuple[str, ...]
    values: tuple[Value, ...]
    length: int = CLASSIC_BYTES
    cycle_ms: int = CYCLE_MS


def measured(name: str, bits: int, scale: str, unit: str, offset: str = "0", signed: bool = False) -> Value:
    """A value that may be absent."""
    return Value(name, bits, scale, offset, unit, signed, absent=True)


def frames(n_cells: int, n_sensors: int, fd: bool = False) -> list[Frame]:
    """All messages for so many cells and sensors. Raises `ConfigError` for a size that has no identifiers."""
    if not (1 <= n_cells <= 4095 and 1 <= n_sensors <= 4095):
        raise ConfigError(f"profile reference: {n_cells} cells and {n_sensors} sensors: 1 to 4095 of each")
    room = 8 * (FD_BYTES if fd else CLASSIC_BYTES) - HEAD_BITS
    length = FD_BYTES if fd else CLASSIC_BYTES
    switches = (
        Value("Contactors", 3, comment="feedback: bit 0 main positive, 1 main negative, 2 precharge"),
        Value("InterlockClosed", 1),
        Value("EmergencyStop", 1),
        Value("GasAlarm", 1),
        Value("InsulationRail", 2, comment="the rail of the value: 1 positive, 2 negative, 0 not told"),
        measured("Insulation", 30, "1", "Ohm"),
    )
    found = [
        Frame(
            "RackCommand",
            COMMANDS,
            CONTROLLER,
            (),
            (
                Value("ContactorRequest", 3, comment="1 closes: bit 0 main positive, 1 main negative, 2 precharge"),
                Value("State", 5),
                Value("Severity", 2),
                Value("Flow", 2),
                Value("Heartbeat", 32, comment="counts control steps; a rack that sees it stand still must open"),
            ),
        ),
        Frame(
            "CurrentLimits",
            COMMANDS + 1,
            CONTROLLER,
            (),
            (Value("LimitDischarge", 24, "0.01", unit="A"), Value("LimitCharge", 24, "0.01", unit="A")),
        ),
        Frame(
            "PowerLimits",
            COMMANDS + 2,
            CONTROLLER,
            (),
            (Value("LimitDischargePower", 24, unit="W"), Value("LimitChargePower", 24, unit="W")),
        ),
        Frame(
            "CoolingCommand",
            COMMANDS + 3,
            CONTROLLER,
            (),
            (
                Value("CoolingSetPoint", 12, "0.1", "-60", "degC"),
                Value("FaultCount", 16),
                Value("FaultCause", 16, comment="the fatal fault that came first; 0 none"),
            ),
        ),
        Frame(
            "RackStatus",
            STATUS,
            RACK,
            ("ContactorsValid", "GasAlarmValid", "InsulationValid", "BleedingValid"),
            switches,
        ),
        Frame(
            "RackCurrent",
            STATUS + 1,
            RACK,
            ("CurrentValid",),
            (
                measured("Current", 24, "0.01", "A", signed=True),
                Value("SampleNumber", 24, comment="counts samples; unchanged: nothing new was measured"),
            ),
        ),
        Frame(
            "RackVoltages",
            STATUS + 2,
            RACK,
            ("PackVoltageValid", "BusVoltageValid"),
            (
                measured("PackVoltage", 24, "0.01", "V", signed=True),
                measured("BusVoltage", 24, "0.01", "V", signed=True),
            ),
        ),
        Frame(
            "Coolant",
            STATUS + 3,
            RACK,
            ("CoolantInValid", "CoolantOutValid", "CoolantFlowValid"),
            (
                measured("CoolantIn", 14, "0.05", "degC", "-100"),
                measured("CoolantOut", 14, "0.05", "degC", "-100"),
                measured("CoolantFlow", 14, "0.1", "l/min"),
            ),
        ),
        Frame(
            "RackIdentity",
            STATUS + 4,
            RACK,
            (),
            (
                Value("LayoutVersion", 4),
                Value("NumberOfCells", 12),
                Value("NumberOfSensors", 12),
                Value("CellsInParallel", 8),
                Value("Capacity", 16, "0.1", unit="Ah"),
            ),
            cycle_ms=IDENTITY_CYCLE_MS,
        ),
    ]
    found += [
        Frame(f"BalanceMask_{k:02}", BALANCE + k, CONTROLLER, tuple(f"Balance_{i:03}" for i in part), (), length)
        for k, part in enumerate(_parts(n_cells, room, STATUS - BALANCE))
    ]
    found += [
        Frame(f"Bleeding_{k:02}", BLEEDING + k, RACK, tuple(f"Bleeding_{i:03}" for i in part), (), length)
        for k, part in enumerate(_parts(n_cells, room, CELLS - BLEEDING))
    ]
    found += [
        Frame(
            f"CellVoltages_{k:03}",
            CELLS + k,
            RACK,
            tuple(f"CellVoltageValid_{i:03}" for i in part),
            tuple(measured(f"CellVoltage_{i:03}", 16, "0.0001", "V", "-1.5") for i in part),
            length,
        )
        for k, part in enumerate(_parts(n_cells, room // 17, SENSORS - CELLS))
    ]
    found += [
        Frame(
            f"Temperatures_{k:03}",
            SENSORS + k,
            RACK,
            tuple(f"TemperatureValid_{i:03}" for i in part),
            tuple(measured(f"Temperature_{i:03}", 12, "0.1", "degC", "-60") for i in part),
            length,
        )
        for k, part in enumerate(_parts(n_sensors, room // 13, END - SENSORS))
    ]
    return found


def _parts(count: int, each: int, identifiers: int) -> list[range]:
    """The numbers 0..count - 1, so many to each frame. Raises `ConfigError` if there are too few identifiers."""
    found = [range(first, min(first + each, count)) for first in range(0, count, each)]
    if len(found) > identifiers:
        raise ConfigError(
            f"profile reference: {count} values need {len(found)} identifiers, {identifiers} are theirs; use fd=1"
        )
    return found


def dbc_text(n_cells: int, n_sensors: int, fd: bool = False) -> str:
    """The DBC for a rack of `n_cells` series groups and `n_sensors` temperature sensors. Raises `ConfigError`."""
    found = frames(n_cells, n_sensors, fd)
    lines = ['VERSION "1"', "", "NS_ :", "", "BS_:", "", f"BU_: {RACK} {CONTROLLER}", ""]
    comments = []
    for frame in found:
        receiver = CONTROLLER if frame.sender == RACK else RACK
        lines.append(f"BO_ {frame.identifier} {frame.name}: {frame.length} {frame.sender}")
        lines.append(f' SG_ Crc : 0|8@1+ (1,0) [0|255] "" {receiver}')
        lines.append(f' SG_ AliveCounter : 8|4@1+ (1,0) [0|14] "" {receiver}')
        bit = HEAD_BITS
        for name in frame.flags:
            lines.append(f' SG_ {name} : {bit}|1@1+ (1,0) [0|1] "" {receiver}')
            bit += 1
        if frame.flags:
            bit = -(-bit // 8) * 8
        for value in frame.values:
            lines.append(_signal(value, bit, receiver))
            bit += value.bits
            if value.comment:
                comments.append(f'CM_ SG_ {frame.identifier} {value.name} "{value.comment}";')
        assert bit <= 8 * frame.length, frame.name
        lines.append("")
    lines += [
        f'CM_ "Reference profile for {n_cells} cells and {n_sensors} sensors. A positive current discharges.";',
        *comments,
        'BA_DEF_ "BusType" STRING ;',
        'BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;',
    ]
    if fd:
        kinds = ["StandardCAN", "ExtendedCAN", *["reserved"] * 12, "StandardCAN_FD", "ExtendedCAN_FD"]
        lines.append(f'BA_DEF_ BO_ "VFrameFormat" ENUM {",".join(f"{chr(34)}{kind}{chr(34)}" for kind in kinds)};')
    lines += ['BA_DEF_DEF_ "BusType" "CAN";', f'BA_DEF_DEF_ "GenMsgCycleTime" {CYCLE_MS};']
    if fd:
        lines.append('BA_DEF_DEF_ "VFrameFormat" "StandardCAN";')
    lines.append(f'BA_ "BusType" "{"CAN FD" if fd else "CAN"}";')
    lines += [f'BA_ "GenMsgCycleTime" BO_ {frame.identifier} {frame.cycle_ms};' for frame in found]
    if fd:
        lines += [f'BA_ "VFrameFormat" BO_ {frame.identifier} 14;' for frame in found]
    return "\n".join(lines) + "\n"


def _signal(value: Value, bit: int, receiver: str) -> str:
    """A line of the DBC; the range leaves the code out that says that there is no value."""
    low = -(1 << (value.bits - 1)) if value.signed else 0
    high = low + (1 << value.bits) - 1
    if value.absent:
        low, high = (low + 1, high) if value.signed else (low, high - 1)
    ends = [f"{raw * float(value.scale) + float(value.offset):.12g}" for raw in (low, high)]
    sign = "-" if value.signed else "+"
    return (
        f" SG_ {value.name} : {bit}|{value.bits}@1{sign} ({value.scale},{value.offset}) "
        f'[{ends[0]}|{ends[1]}] "{value.unit}" {receiver}'
    )


def main(words: Sequence[str] | None = None) -> int:
    """Write a DBC. Returns 0, or 2 for a size that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m hal.profiles.reference.generate", description="write the DBC")
    parser.add_argument("--cells", type=int, required=True)
    parser.add_argument("--sensors", type=int, help="temperature sensors (default: one for 4 cells)")
    parser.add_argument("--fd", action="store_true", help="frames of 64 bytes")
    parser.add_argument("-o", "--output", type=Path, help="file (default: standard output)")
    args = parser.parse_args(words)
    return written(lambda: dbc_text(args.cells, args.sensors or -(-args.cells // 4), args.fd), args.output)


if __name__ == "__main__":
    sys.exit(main())
