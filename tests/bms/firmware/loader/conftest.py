"""A boot loader, and a program for its slots."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="pip install 'rackbms[firmware]'")
pytest.importorskip("imgtool", reason="pip install 'rackbms[firmware]'")
pytest.importorskip("can", reason="pip install 'rackbms[can]'")

from bms.cli import main
from bms.core.jit import PROGRAM
from bms.firmware import boards, keys
from bms.firmware.baked import Baked, baked
from bms.firmware.build import rackbms_header
from bms.firmware.loader import made
from tests.bms.firmware.loader.emulated import CRASH, Workshop


@pytest.fixture(scope="session")
def configuration(arm: None, tmp_path_factory: pytest.TempPathFactory) -> Baked:
    path = tmp_path_factory.mktemp("rack") / "small.toml"
    path.write_text('format = 1\n[rack]\ncell = "lfp_280"\nn_series = 16\n[timing]\nperiod_s = 0.2\n')
    return baked(str(path), 4)


@pytest.fixture(scope="session")
def workshop(configuration: Baked, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Programs that confirm themselves after a second, and can be made to crash."""
    key = tmp_path_factory.mktemp("keys") / "fleet.pem"
    assert main(["keygen", str(key)]) == 0
    public = keys.public_key(key)
    program = (repository / "bms" / "firmware" / "board" / "main.c").read_text()
    crashing = program.replace(
        "    default:\n", f'    case {CRASH}: __asm__ volatile("udf #0"); break;\n    default:\n', 1
    )
    assert crashing != program
    own = PROGRAM.image("cortex-m7")[0], rackbms_header("cortex-m7"), configuration
    programs = [
        boards.link("cortex-m7", *own, slot, main=crashing, more=("-DHEALTHY_S=1.0f",)).flash for slot in (0, 1)
    ]
    return Workshop(
        key,
        made.link("cortex-m7", public, public, ("-DLISTEN_AFTER_CRASH_MS=2000u",)).elf,
        (programs[0], programs[1]),
        bytes.fromhex(configuration.digest),
    )
