"""The DBC of an Isabellenhuette IVT-S sensor: `python -m hal.profiles.ivt.generate`.

Each result is a message of 6 bytes, big-endian: which result it is, three bits of errors and a counter 0..15, then 32
bits with a sign. Identifiers and places are those that foxBMS 2 v1.11 listens to (0x521 and on, the sensor's own
defaults). U2 and the temperature are left out: foxBMS does not use them, and a rack has no values for them.
"""

from __future__ import annotations

import sys

from hal.profiles import dbc_text
from hal.profiles.dbc_text import Frame, Value

SENSOR, LISTENER = "Ivt", "Controller"
CYCLE_MS = 100

RESULTS = (
    ("IvtCurrent", 0x521, 0, "Current", "mA"),
    ("IvtVoltage1", 0x522, 1, "Voltage1", "mV"),
    ("IvtVoltage3", 0x524, 3, "Voltage3", "mV"),
    ("IvtPower", 0x526, 5, "Power", "W"),
    ("IvtCharge", 0x527, 6, "Charge", "As"),
    ("IvtEnergy", 0x528, 7, "Energy", "Wh"),
)
"""Message, identifier, number of the result, value and its unit."""


def dbc() -> str:
    """The DBC; a sensor is the same for a rack of any size."""
    frames = [
        Frame(
            name,
            identifier,
            SENSOR,
            LISTENER,
            (
                Value("Result", 7, 8, values={number: value}),
                Value("Errors", 15, 3),
                Value("MessageCount", 11, 4),
                Value(f"Ivt{value}", 23, 32, unit=unit, signed=True),
            ),
            CYCLE_MS,
            length=6,
        )
        for name, identifier, number, value, unit in RESULTS
    ]
    return dbc_text.text(frames, "An IVT-S current sensor. A positive current discharges.")


def main(words: list[str] | None = None) -> int:
    """Write the DBC. Returns 0, or 2 where the file cannot be written."""
    return dbc_text.main(words, "hal.profiles.ivt.generate", {"ivt": dbc}, sized=False)


if __name__ == "__main__":
    sys.exit(main())
