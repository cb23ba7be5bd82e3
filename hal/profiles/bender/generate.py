"""The DBC of a Bender ISO165C insulation monitor: `python -m hal.profiles.bender.generate`.

One message of 6 bytes, little-endian, at the identifier where foxBMS 2 v1.11 expects it (0x37): the resistance, and
bits that say why it should not be used: measurement off, monitor unreachable or dead, command failed, value outdated.
"""

from __future__ import annotations

import sys

from hal.profiles import dbc_text
from hal.profiles.dbc_text import Frame, Value


def dbc() -> str:
    """The DBC; a monitor is the same for a rack of any size."""
    values = (Value("Resistance", 0, 16, unit="kOhm", little=True), Value("Trouble", 32, 9, little=True))
    frame = Frame("BenderInfo", 0x37, "Bender", "Controller", values, 1000, length=6)
    return dbc_text.text([frame], "A Bender ISO165C insulation monitor.")


def main(words: list[str] | None = None) -> int:
    """Write the DBC. Returns 0, or 2 where the file cannot be written."""
    return dbc_text.main(words, "hal.profiles.bender.generate", {"bender": dbc}, sized=False)


if __name__ == "__main__":
    sys.exit(main())
