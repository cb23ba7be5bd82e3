"""Places that `--engine` names."""

from __future__ import annotations

import pytest

from bms.firmware.places import EMULATED, Place, parse
from hal.engine.serial_port import BAUD
from hal.errors import ConfigError


def test_every_kind_of_place() -> None:
    assert parse("qemu:cortex-m7") == Place("qemu:cortex-m7", "cortex-m7")
    assert parse("process:host").target == "host"
    assert "host" not in EMULATED
    assert parse("serial:/dev/ttyX") == Place("serial:/dev/ttyX", "", "/dev/ttyX", BAUD)
    assert parse("serial:/dev/ttyX?baud=115200").baud == 115_200


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("qemu:host", r"no such board \(known: cortex-m7, cortex-m4f, cortex-a53, cortex-m33, riscv32imafc\)"),
        ("qemu:", "no such board"),
        ("process:cortex-a53", "expected process:host"),
        ("serial:", "which device"),
        ("serial:/dev/ttyX?baud", "expected serial:DEVICE or serial:DEVICE.baud=N"),
        ("serial:/dev/ttyX?baud=0", "baud = 0: expected a number above 0"),
        ("serial:/dev/ttyX?baud=fast", "baud = fast: expected a number above 0"),
        ("serial:/dev/ttyX?bud=9600", r"unknown key 'bud' \(did you mean 'baud'"),
    ],
)
def test_places_that_cannot_be(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse(text)
