"""The DBC files of the foxbms profile for a rack of any size.

`python -m hal.profiles.foxbms.generate unit --cells 216 --sensors 180` is a foxBMS 2 unit that is read and commanded,
`afe` what it is sent in the place of its measuring electronics. Identifiers, places and steps are those of the CAN
description of foxBMS 2 v1.11 (https://github.com/foxBMS/foxbms-2); names are ours. All of it is big-endian.

Cells come in pages, 4 voltages or 6 temperatures a frame, the number of the page in byte 0. The bit beside each value
is 1 where the value is good, although foxBMS calls it an invalid flag.
"""

from __future__ import annotations

import sys

from hal.errors import ConfigError
from hal.profiles import dbc_text
from hal.profiles.dbc_text import MULTIPLEXER, Frame, Value

CELLS_PER_FRAME, SENSORS_PER_FRAME = 4, 6
PAGES = 256
ROUND_MS = 100
"""A unit is sent all voltages about so often, and all temperatures half as often."""

UNIT, CONTROLLER, RACK = "FoxBms", "Controller", "Rack"

_CELL_STARTS = (11, 30, 33, 52)

BMS_STATES = {
    0: "uninitialized", 1: "initialization", 2: "initialized", 3: "idle", 4: "opening", 5: "standby", 6: "precharge",
    7: "normal", 8: "discharge", 9: "charge", 10: "error", 11: "undefined",
}  # fmt: skip


def cells(name: str, identifier: int, n_cells: int, cycle_ms: int, sender: str, receiver: str) -> Frame:
    """Voltages of cells, 13 bits in mV, with their validity in the high half of byte 1."""
    values = [Value(f"{name}Page", 7, 8, page=MULTIPLEXER)]
    for k in range(n_cells):
        page, place = divmod(k, CELLS_PER_FRAME)
        values.append(Value(f"CellVoltageValid_{k:03}", 12 + place, 1, page=page))
        values.append(Value(f"CellVoltage_{k:03}", _CELL_STARTS[place], 13, unit="mV", page=page))
    return Frame(name, identifier, sender, receiver, tuple(values), cycle_ms)


def temperatures(name: str, identifier: int, n_sensors: int, cycle_ms: int, sender: str, receiver: str) -> Frame:
    """Temperatures of sensors, 8 bits in degC, with their validity in byte 1."""
    values = [Value(f"{name}Page", 7, 8, page=MULTIPLEXER)]
    for k in range(n_sensors):
        page, place = divmod(k, SENSORS_PER_FRAME)
        values.append(Value(f"TemperatureValid_{k:03}", 8 + place, 1, page=page))
        values.append(Value(f"Temperature_{k:03}", 23 + 8 * place, 8, unit="degC", signed=True, page=page))
    return Frame(name, identifier, sender, receiver, tuple(values), cycle_ms)


def unit(n_cells: int, n_sensors: int) -> str:
    """The DBC of a unit that is a rack: what it tells, and what it is asked for. Raises `ConfigError`."""
    _check(n_cells, n_sensors)
    frames = [
        Frame(
            "StateRequest",
            0x210,
            CONTROLLER,
            UNIT,
            (
                Value("RequestedMode", 1, 2, values={0: "standby", 1: "discharge", 2: "charge"}),
                Value("ResetFlags", 2, 1),
                Value("PrechargeExternal", 3, 1),
                Value("ChargerConnected", 4, 1),
                Value("InsulationMonitoringOff", 5, 1),
                Value("Balancing", 8, 1),
                Value("BalancingThreshold", 23, 8, unit="mV"),
            ),
            100,
        ),
        Frame(
            "State",
            0x220,
            UNIT,
            CONTROLLER,
            (
                Value("BmsState", 3, 4, values=BMS_STATES),
                Value("InsulationMonitoring", 13, 1),
                Value("InterlockOpen", 22, 1),
            ),
            100,
        ),
        Frame(
            "PackValues",
            0x233,
            UNIT,
            CONTROLLER,
            (
                Value("BatteryVoltage", 7, 15, "0.1", "V", signed=True),
                Value("BusVoltage", 8, 15, "0.1", "V", signed=True),
                Value("Current", 40, 17, "0.01", "A", signed=True),
            ),
            100,
        ),
        Frame("Insulation", 0x234, UNIT, CONTROLLER, (Value("InsulationResistance", 7, 13, "7", "kOhm"),), 100),
        Frame(
            "StringState",
            0x240,
            UNIT,
            CONTROLLER,
            (
                Value("StringNumber", 3, 4, page=MULTIPLEXER),
                Value("ContactorErrors", 33, 2, page=0),
                Value("CurrentError", 43, 1, page=0),
                Value("StringVoltageError", 46, 1, page=0),
            ),
            100,
        ),
        cells("CellVoltages", 0x250, n_cells, 100, UNIT, CONTROLLER),
        temperatures("CellTemperatures", 0x260, n_sensors, 200, UNIT, CONTROLLER),
    ]
    about = "A foxBMS 2 unit as a rack of {} cells and {} sensors. A positive current discharges; string 0 alone."
    return dbc_text.text(frames, about.format(n_cells, n_sensors))


def afe(n_cells: int, n_sensors: int) -> str:
    """The DBC of what a unit is sent in the place of its electronics, and of what it answers. Raises `ConfigError`."""
    _check(n_cells, n_sensors)
    pages = -(-n_cells // CELLS_PER_FRAME), -(-n_sensors // SENSORS_PER_FRAME)
    frames = [
        Frame("State", 0x220, UNIT, RACK, (Value("BmsState", 3, 4, values=BMS_STATES),), 100),
        Frame(
            "Limits",
            0x232,
            UNIT,
            RACK,
            (
                Value("MaximumDischargeCurrent", 7, 12, "0.25", "A"),
                Value("MaximumChargeCurrent", 11, 12, "0.25", "A"),
                Value("MaximumDischargePower", 31, 12, "0.1", "kW"),
                Value("MaximumChargePower", 35, 12, "0.1", "kW"),
            ),
            100,
        ),
        cells("AfeCellVoltages", 0x270, n_cells, -(-ROUND_MS // pages[0]), RACK, UNIT),
        temperatures("AfeCellTemperatures", 0x280, n_sensors, -(-2 * ROUND_MS // pages[1]), RACK, UNIT),
    ]
    about = "A rack of {} cells and {} sensors as the measuring electronics of a foxBMS 2 unit."
    return dbc_text.text(frames, about.format(n_cells, n_sensors))


def _check(n_cells: int, n_sensors: int) -> None:
    most = PAGES * CELLS_PER_FRAME, PAGES * SENSORS_PER_FRAME
    if not (1 <= n_cells <= most[0] and 1 <= n_sensors <= most[1]):
        raise ConfigError(
            f"profile foxbms: {n_cells} cells and {n_sensors} sensors: at most {most[0]} and {most[1]} have pages"
        )


def main(words: list[str] | None = None) -> int:
    """Write a DBC. Returns 0, or 2 for a size that cannot be."""
    return dbc_text.main(words, "hal.profiles.foxbms.generate", {"unit": unit, "afe": afe})


if __name__ == "__main__":
    sys.exit(main())
