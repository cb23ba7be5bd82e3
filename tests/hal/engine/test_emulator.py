"""The emulator as a channel: what is said where it is missing, does not start, or ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.engine.child import Child
from hal.engine.emulator import MAIL_AT, MAIL_BYTES, STORE_BYTES, Emulator
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


class Mailbox(Emulator):
    """The mail alone, without an emulator: the other side is what a test does."""

    def __init__(self, counted: int) -> None:
        Child.__init__(self, "mail", b"", (STORE, STORE_BYTES))
        self._socket, self.bell = socket.socketpair()
        self._mail_is_used = True
        self._numbers = self.memory(STORE + MAIL_AT, 20).view("<u4")
        self._numbers[1:] = counted
        self.rings = [self.memory(STORE + MAIL_AT + 64 + k * MAIL_BYTES, MAIL_BYTES) for k in (0, 1)]
        self.seen = counted

    def taken(self) -> bytes:
        """What has been left, as the firmware takes it."""
        count = int(self._numbers[1]) - self.seen & 0xFFFFFFFF
        places = (self.seen + np.arange(count)) % MAIL_BYTES
        self.seen = self.seen + count & 0xFFFFFFFF
        self._numbers[2] = self.seen
        return self.rings[0][places].tobytes()

    def leave(self, data: bytes) -> None:
        """Send as the firmware does."""
        sent = int(self._numbers[3])
        self.rings[1][(sent + np.arange(len(data))) % MAIL_BYTES] = np.frombuffer(data, np.uint8)
        self._numbers[3] = sent + len(data) & 0xFFFFFFFF
        self.bell.send(b"\0")


@given(
    pieces=st.lists(st.tuples(st.integers(0, MAIL_BYTES), st.booleans()), min_size=1, max_size=4),
    counted=st.sampled_from([0, MAIL_BYTES - 3, 2**32 - 100_000, 2**32 - 1]),
)
@settings(max_examples=25, deadline=None)
def test_mail_arrives_whole_wherever_its_numbers_wrap(pieces: list[tuple[int, bool]], counted: int) -> None:
    with Mailbox(counted) as mail:
        for k, (size, inwards) in enumerate(pieces):
            data = np.random.default_rng(k).bytes(size)
            if inwards:
                mail.send(data)
                assert mail.taken() == data
            else:
                mail.leave(data)
                assert mail.receive(10.0 if size else 0.0) == data
        assert mail.receive(0.0) == b"", "a bell without mail is no end of waiting"
        mail.bell.close()


def test_a_program_that_takes_nothing_is_given_up() -> None:
    with Mailbox(5) as mail:
        mail.answer_s = 0.01
        with pytest.raises(LinkError, match="mail takes no bytes any more"):
            mail.send(bytes(MAIL_BYTES + 1))
        assert mail.taken() == bytes(MAIL_BYTES)
        mail.bell.close()


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
