"""Programs for boards: warnings are errors, the same bytes again, and what happens when a program goes wrong."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bms.core.jit import PROGRAM
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.firmware import boards
from bms.firmware.baked import Baked, baked, sizes
from bms.firmware.build import rackbms_header
from hal.contract import COMMAND, Command, Measurement
from hal.engine.emulator import Emulator
from hal.engine.frames import (
    ANSWER,
    NOT_STARTED,
    OTHER_MEASUREMENT,
    REFUSALS,
    REFUSED,
    Answer,
    Crash,
    Frame,
    Kind,
    Parser,
    pack,
    question,
)
from hal.engine.remote import Remote
from hal.errors import ConfigError, LinkError

PROVOKE = 9  # a kind of frame that only the program of these tests knows

PROVOCATIONS = """
extern uint32_t link_stack_guard[];
static volatile uint32_t *const anywhere = (volatile uint32_t *)0xD0000000;
__attribute__((noinline)) static int deeper(volatile int *above) {
    volatile int own[64] = {above[0] + 1};
    return deeper(own) + own[1];
}
static void provoke(uint8_t how) {
    volatile int zero[64] = {0};
    switch (how) {
    case 0: (void)deeper(zero); break;
    case 1: *(volatile uint32_t *)(uintptr_t)main = 0; break;
    case 2: *(volatile uint32_t *)(uintptr_t)rackbms_config = 0; break;
    case 3: __asm__ volatile("udf #0"); break;
    case 4: *anywhere = 0; break;
    case 5: ((void (*)(void))((uintptr_t)control_state() | 1u))(); break;
    case 6: link_stack_guard[60] = 0; break;
    default: for (;;) { }
    }
}
"""


@pytest.fixture(scope="session")
def found(arm: None) -> Baked:
    return baked("nmc_ev", 12)


@pytest.fixture(scope="session")
def kernels(arm: None) -> tuple[bytes, str]:
    return PROGRAM.image("cortex-m7")[0], rackbms_header("cortex-m7")


def test_the_same_bytes_in_another_folder(found: Baked, kernels: tuple[bytes, str]) -> None:
    first, second = boards.link("cortex-m7", *kernels, found), boards.link("cortex-m7", *kernels, found)
    assert first == second
    assert first.config == found.record.bytes.tobytes()
    assert first.flash[:4] == (0x20000000 + 256 + 16384 + 1024).to_bytes(4, "little")  # the stack of handlers
    deepest = first.stack[boards.PROGRAM]
    assert deepest.chain[:5] == ("start", "main", "node_step", "control_step", "rackbms_step")
    assert 4096 < deepest.size < 16384


@pytest.mark.parametrize("slot", [None, 0])
def test_the_c_sources_are_clean(found: Baked, kernels: tuple[bytes, str], slot: int | None, tmp_path: Path) -> None:
    boards.compile_to(tmp_path / "firmware.elf", "cortex-m7", *kernels, found, slot=slot, more=("-fanalyzer",))


def test_a_program_for_a_slot_lies_in_it(found: Baked, kernels: tuple[bytes, str]) -> None:
    own, other = (boards.link("cortex-m7", *kernels, found, slot) for slot in (0, 1))
    assert (own.config, other.config) == (b"", b"")
    assert found.record.bytes.tobytes() in own.flash
    for made, slot in ((own, boards.BOARDS["cortex-m7"].slots[0]), (other, boards.BOARDS["cortex-m7"].slots[1])):
        stack, start = (int.from_bytes(made.flash[k : k + 4], "little") for k in (0, 4))
        assert stack == 0x20000000 + 256 + 16384 + 1024
        assert slot + 512 < start < slot + boards.SLOT_SIZE


def test_a_stack_that_is_too_small_is_refused(
    found: Baked, kernels: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "SAVED", 12_000)
    with pytest.raises(
        ConfigError, match=r"cortex-m7: the program can take \d+ bytes of stack, program.ld has room for 16384"
    ):
        boards.link("cortex-m7", *kernels, found)


def test_what_the_compiler_says_is_passed_on(found: Baked, kernels: tuple[bytes, str], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"arm-none-eabi-gcc cannot make the firmware of cortex-m7: .*error: .*unused"
    ):
        boards.compile_to(tmp_path / "f.elf", "cortex-m7", *kernels, found, main="static int unused; int main(void);\n")


def answers(emulator: Emulator, parser: Parser, question: bytes) -> list[Frame]:
    """What the firmware says to a question."""
    emulator.send(question)
    found: list[Frame] = []
    while not found:
        data = emulator.receive(10.0)
        assert data
        found = parser.feed(data)
    return found


def test_a_question_makes_one_step_however_often_it_is_asked(
    found: Baked, kernels: tuple[bytes, str], qemu: None, tmp_path: Path
) -> None:
    own, n, size = boards.BOARDS["cortex-m7"], found.record.n_cells, sizes(found.record.n_cells, found.record.n_sensors)
    elf = tmp_path / "firmware.elf"
    boards.compile_to(elf, "cortex-m7", *kernels, found)
    record = np.zeros(size["measurement"], np.uint8)
    asked = question(Request.CONNECT, 0.1, 100, None, record)
    with Emulator(own.emulator, own.machine, elf.read_bytes(), own.store) as emulator:
        parser = Parser()

        def refusal(frame: bytes) -> int:
            (answer,) = answers(emulator, parser, frame)
            assert answer.kind == REFUSED
            return int.from_bytes(answer.content, "little")

        assert refusal(pack(Kind.STEP, 1, asked)) == NOT_STARTED
        assert refusal(pack(77, 2)) in REFUSALS
        assert refusal(pack(Kind.START, 3, bytes(8 * n - 4))) in REFUSALS
        Remote(emulator).start(np.full(n, 0.5, np.float32), np.full(n, 0.1, np.float32))
        assert refusal(pack(Kind.STEP, 4, asked[:-1])) in REFUSALS
        assert refusal(pack(Kind.STEP, 5, asked[:16] + bytes(4))) == OTHER_MEASUREMENT
        assert refusal(pack(Kind.STEP, 6, asked + bytes((255, 255)) * 200)) == OTHER_MEASUREMENT
        beats = []
        for number in (7, 7, 8, 8, 7):
            (answer,) = answers(emulator, parser, pack(Kind.STEP, number, asked))
            command = np.frombuffer(Answer.parse(answer.content).command, COMMAND.dtype(n, found.record.n_sensors))
            assert (answer.kind, answer.sequence) == (Kind.STEP | ANSWER, number)
            beats.append(int(command["head"]["heartbeat"][0]))
        assert beats == [1, 1, 2, 2, 3]


def test_it_runs_by_its_own_timer(found: Baked, kernels: tuple[bytes, str], qemu: None, tmp_path: Path) -> None:
    own, size = boards.BOARDS["cortex-m7"], (found.record.n_cells, found.record.n_sensors)
    elf = tmp_path / "firmware.elf"
    boards.compile_to(elf, "cortex-m7", *kernels, replace(found, period_s=0.05))
    state = initial_state(found.record, 0.5, 0.29)
    here = Controller(found.record, state, Measurement(*size), Command(*size))
    head = here.measurement.head
    head["time_s"], head["sequence"], head["interlock_closed"] = 1.0, 1, 1
    here.measurement.cell_v[:], here.measurement.sensor_degc[:] = 3.7, 25.0
    expected = []
    for _ in range(4):
        status = here.step(Request.CONNECT, np.float32(50000) * np.float32(1e-6))
        expected.append((status, here.command.bytes.tobytes()))
    with Emulator(own.emulator, own.machine, elf.read_bytes(), own.store) as emulator:
        remote, parser = Remote(emulator), Parser()
        assert remote.hello().period_us == 50_000
        assert emulator.receive(0.2) == b"", "nothing is decided before something is measured"
        emulator.send(pack(Kind.MEASURE, 0, question(Request.CONNECT, 0.0, 0, None, here.measurement.bytes)))
        said: list[Answer] = []
        while len(said) < 4:
            data = emulator.receive(10.0)
            assert data
            said += [Answer.parse(f.content) for f in parser.feed(data) if f.kind == Kind.MEASURE | ANSWER]
        assert [(answer.status, answer.command) for answer in said[:4]] == expected
        assert not any(answer.flags for answer in said)
        remote.start(np.zeros(size[0], np.float32), np.ones(size[0], np.float32))
        emulator.receive(0.1)
        assert emulator.receive(0.2) == b"", "in lock-step it waits"


@pytest.fixture(scope="session")
def provoked(
    repository: Path, found: Baked, kernels: tuple[bytes, str], qemu: None, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """The firmware with a frame more, that has it go wrong."""
    main = (repository / "bms" / "firmware" / "board" / "main.c").read_text()
    main = main.replace("static void dispatch", PROVOCATIONS + "static void dispatch")
    main, n = re.subn(
        r"    default:\n", f"    case {PROVOKE}: provoke(frame->content[0]); break;\n    default:\n", main
    )
    assert n == 1
    main = '#pragma GCC diagnostic ignored "-Winfinite-recursion"\n#pragma GCC diagnostic ignored "-Wpedantic"\n' + main
    elf = tmp_path_factory.mktemp("provoked") / "firmware.elf"
    boards.compile_to(elf, "cortex-m7", *kernels, found, main=main)
    return elf.read_bytes()


@pytest.fixture
def board(provoked: bytes) -> Iterator[Emulator]:
    own = boards.BOARDS["cortex-m7"]
    with Emulator(own.emulator, own.machine, provoked, own.store, shift=8) as emulator:
        emulator.answer_s = 0.5  # what is sent while it starts anew is lost
        yield emulator


@pytest.mark.parametrize(
    ("how", "cause", "status", "address"),
    [
        (0, 4, 0x10, None),  # the stack has run into its guard: nothing could be saved there
        (1, 4, 0x82, None),  # a write to the flash
        (2, 4, 0x82, 0x60000000),  # ... and to the configuration
        (3, 6, 0x10000, None),  # an instruction that is none
        (4, 4, 0x82, 0xD0000000),  # memory that is not there
        (5, 4, 0x01, None),  # code in the memory for data
        (6, 4, 0x82, 0x20000000 + 240),  # below the stack
        (7, 2, 0, None),  # a program that does not come back: the watchdog
    ],
)
def test_a_crash_is_taken_down_and_the_program_starts_anew(
    board: Emulator, how: int, cause: int, status: int, address: int | None
) -> None:
    remote = Remote(board)
    assert remote.hello().crash is None
    board.send(pack(PROVOKE, 0, bytes([how])))
    for _ in range(40):  # however slow this computer is just now
        with contextlib.suppress(LinkError):
            crash = remote.hello().crash
            break
    assert isinstance(crash, Crash)
    assert crash.cause == cause
    assert crash.status & status == status
    assert address is None or crash.address == address
    assert remote.hello().crash == crash
