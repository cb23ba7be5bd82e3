"""The firmware as a process of Linux decides what this computer decides, on every processor that QEMU translates for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bms.cli import main
from bms.core.jit import PROGRAM
from bms.core.machine_table import Request
from bms.firmware import places, processes
from bms.firmware.baked import baked
from bms.firmware.build import rackbms_header
from hal.contract import Measurement
from hal.engine.frames import ANSWER, Answer, Kind, Parser, pack, question
from hal.engine.process import Process
from hal.errors import LinkError

RACK = ("--rack", "sim:lfp_280?n_series=8&module_groups=4&seed=3&duty.start_s=8", "--duration", "20s", "--quiet")


def needed(name: str) -> None:
    """Skips where the process `name` cannot be made or run."""
    machine = processes.MACHINES[name]
    for command in (machine.compiler, *machine.emulator[:1]):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed: .ci/toolchain")


@pytest.fixture(autouse=True)
def afterwards() -> Iterator[None]:
    """Controllers of later tests run on this computer again."""
    yield
    PROGRAM.use(None)


@pytest.mark.parametrize("name", list(processes.MACHINES))
def test_every_decision_is_that_of_this_computer(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed(name)
    engine = f"process:{name}" if name == processes.HOST else f"qemu:{name}"
    assert main(["fil", "--engine", engine, *RACK, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith(f"{engine} against jit: 3")
    assert said[-1].endswith(" steps, 0 differences")


@pytest.mark.parametrize("name", list(processes.MACHINES))
def test_the_c_sources_are_clean(name: str, tmp_path: Path) -> None:
    needed(name)
    kernels = places.kernels(PROGRAM, name)
    processes.compile_to(
        tmp_path / "f.elf", name, kernels, rackbms_header(name), baked("nmc_ev", 12), more=("-fanalyzer",)
    )


def test_it_runs_by_its_own_timer_and_ends_with_its_input(tmp_path: Path) -> None:
    needed(processes.HOST)
    found = replace(baked("nmc_ev", 12), period_s=0.02)
    elf = processes.link("host", places.kernels(PROGRAM, "host"), rackbms_header("host"), found)
    assert elf is not None
    record = Measurement(found.record.n_cells, found.record.n_sensors)
    with Process("process:host", elf) as process:
        process.send(pack(Kind.MEASURE, 0, question(Request.CONNECT, 0.0, 0, None, record.bytes)))
        parser, said = Parser(), list[Answer]()
        while len(said) < 3:
            data = process.receive(10.0)
            assert data
            said += [Answer.parse(f.content) for f in parser.feed(data) if f.kind == Kind.MEASURE | ANSWER]
        assert not any(answer.flags for answer in said)
        assert process._process is not None
        assert process._socket is not None
        process._socket.close()
        assert process._process.wait(10.0) == 0


def test_a_file_that_it_cannot_use_is_told(tmp_path: Path) -> None:
    needed(processes.HOST)
    elf = processes.link("host", places.kernels(PROGRAM, "host"), rackbms_header("host"), baked("nmc_ev", 12))
    assert elf is not None

    class Elsewhere(Process):
        def launch(self, words, link=None):  # type: ignore[no-untyped-def]
            return super().launch((*words[:-1], str(tmp_path)), link)

    with (
        Elsewhere("process:host", elf) as process,
        pytest.raises(LinkError, match="process:host has gone: the file for the memory cannot be used"),
    ):
        process.receive(10.0)


def test_without_its_compiler_there_is_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert processes.link("cortex-a53", b"", "", baked("nmc_ev", 12)) is None
