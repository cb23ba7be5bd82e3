"""The emulator as a channel: what is said where it is missing, does not start, or ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hal.engine.emulator import STORE_BYTES, Emulator
from hal.errors import ConfigError, LinkError

QEMU, MACHINE, STORE = "qemu-system-arm", "mps2-an500", 0x60000000

LOOP = bytes.fromhex("00100020 09000000 fee7fee7")
"""Vectors (stack, entry at 8) and a jump to itself: a program that does nothing."""


@pytest.fixture
def idle() -> Emulator:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed: .ci/toolchain")
    return Emulator(QEMU, MACHINE, LOOP, STORE)


def test_a_missing_emulator_names_its_package() -> None:
    with pytest.raises(ConfigError, match=r"qemu-none is not installed: apt-get install qemu-none"):
        Emulator("qemu-none", MACHINE, LOOP, STORE)


def test_a_machine_that_it_does_not_know() -> None:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed: .ci/toolchain")
    with pytest.raises(LinkError, match=f"{QEMU} -M no-such does not start: "):
        Emulator(QEMU, "no-such", LOOP, STORE)


def test_its_memory_is_seen_where_it_is(idle: Emulator) -> None:
    with idle:
        assert idle.receive(0.01) == b""
        idle.memory(STORE + 4, 8)[:] = range(8)
        assert idle.memory(STORE, 8).tolist() == [0, 0, 0, 0, 0, 1, 2, 3]
        for address, size in ((STORE - 1, 4), (STORE, STORE_BYTES + 1)):
            with pytest.raises(LinkError, match="are not in the memory that can be seen"):
                idle.memory(address, size)


def test_a_machine_on_a_bus_has_a_second_port_and_ends_with_us_alone(idle: Emulator) -> None:
    with idle, pytest.raises(LinkError, match="has no second serial port"):
        _ = idle.port
    with Emulator(QEMU, MACHINE, LOOP, STORE, shift=None) as live:
        assert Path(live.port).is_char_device()
        assert live._process is not None
        assert os.getsid(live._process.pid) != os.getsid(0), "Ctrl-C would end it first"


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed: util-linux")
def test_it_ends_with_the_process_that_has_started_it(idle: Emulator) -> None:
    idle.close()
    code = (
        "from hal.engine.emulator import Emulator; import os, signal, sys\n"
        f"made = Emulator({QEMU!r}, {MACHINE!r}, bytes.fromhex({LOOP.hex()!r}), {STORE})\n"
        "print(made._process.pid, made._folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    number, folder = done.stdout.split()
    shutil.rmtree(folder)
    for _ in range(500):
        if not Path(f"/proc/{number}").exists() or "Z" in Path(f"/proc/{number}/stat").read_text().split()[2]:
            return
        time.sleep(0.01)
    pytest.fail(f"process {number} goes on")


def test_an_emulator_that_has_ended_is_told(idle: Emulator) -> None:
    folder = idle._folder
    with idle:
        assert idle._process is not None
        idle._process.kill()
        idle._process.wait()
        with pytest.raises(LinkError, match="has gone"):
            idle.receive(1.0)
        with pytest.raises(LinkError, match="has gone"):
            idle.send(b"x" * (1 << 22))
    assert not folder.exists()
    idle.close()
