"""The controller on an emulated board decides what the one on this computer decides, and tells where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bms.cli import main
from bms.core.jit import PROGRAM
from bms.core.layout import State
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state, step
from bms.firmware import boards, inloop, places
from bms.firmware.baked import baked
from bms.firmware.compare import Difference
from bms.firmware.inloop import Controlled, Elsewhere
from bms.runtime import engine
from hal.contract import Command, Contactor, Measurement, RackState
from hal.errors import ConfigError

RUN = ("--rack", "sim:lfp_280?n_series=8&module_groups=4&seed=3&duty.start_s=8", "--cell", "lfp_280", "--duration", "20s",
       "--quiet", "--no-report")  # fmt: skip

N_CELLS, N_SENSORS = 96, 12


@pytest.fixture(autouse=True)
def afterwards(arm: None, qemu: None):  # type: ignore[no-untyped-def]
    """Controllers of later tests run on this computer again."""
    yield
    PROGRAM.use(None)


def test_a_run_is_recorded_byte_for_byte_as_on_this_computer(tmp_path: Path) -> None:
    board = "qemu:cortex-m7"
    assert main(["run", *RUN, "--out", str(tmp_path / "here")]) == 0
    assert main(["run", *RUN, "--out", str(tmp_path / "there"), "--engine", f"{board},jit"]) == 0
    name = "recording.bms"
    assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert main(["replay", str(tmp_path / "here"), "--engine", board, "--quiet"]) == 0


class Pair:
    """A controller on the board and one here, on the same measurements."""

    def __init__(self, *, compared: bool = False, shift: int = 1) -> None:
        self.config = baked("nmc_ev", N_SENSORS).record
        self.there = Controlled(PROGRAM, "qemu:cortex-m7", self.config.bytes, compared=compared, shift=shift)
        soc, std = np.full(N_CELLS, 0.5, np.float32), np.full(N_CELLS, 0.1, np.float32)
        self.state, self.command = State(N_CELLS, N_SENSORS), Command(N_CELLS, N_SENSORS)
        self.there.start(self.config.bytes, self.state.bytes, soc, std)
        size = N_CELLS, N_SENSORS
        self.here = Controller(self.config, initial_state(self.config, soc, std), Measurement(*size), Command(*size))
        self.k = 0

    def step(self, dt_s: float = 0.5) -> None:
        measurement, self.k = self.here.measurement, self.k + 1
        head = measurement.head
        head["time_s"], head["sequence"], head["interlock_closed"] = 0.5 * self.k, self.k, 1
        rng = np.random.default_rng(self.k)
        measurement.cell_v[:], measurement.sensor_degc[:] = rng.normal(3.7, 0.01, N_CELLS), 25.0
        measurement.cell_v[self.k] = np.nan
        self.here.step(Request.CONNECT, dt_s)
        records = self.config.bytes, self.state.bytes, measurement.bytes, self.command.bytes
        self.there.step(*records, Request.CONNECT, dt_s)

    def same(self) -> bool:
        return self.command.bytes.tobytes() == self.here.command.bytes.tobytes() and (
            self.state.bytes.tobytes() == self.here.state.bytes.tobytes()
        )


def test_all_of_the_memory_is_the_same_and_what_is_altered_counts() -> None:
    pair = Pair()
    for _ in range(5):
        pair.step()
        assert pair.same()
    for controller in (pair.here.state, pair.state):
        controller.health_capacity[3] = 0.5
        controller.out[:4] = np.nan
    pair.config.nodes[5] += 1.0  # a flash that forgets
    for _ in range(3):
        pair.step()
        assert pair.same()
    pair.there.close()


def test_a_run_takes_the_same_time_every_time() -> None:
    taken = []
    for _ in range(2):
        pair = Pair()
        taken.append([(pair.step(), pair.there.ticks)[1] for _ in range(4)])
        pair.there.close()
    assert taken[0] == taken[1]
    assert min(taken[0]) > 1000


def test_a_difference_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(compared=True)
    pair.step()
    assert pair.there._reference is not None
    init, reference = pair.there._reference

    def otherwise(config, state, measurement, command, request, dt_s):  # type: ignore[no-untyped-def]
        status = reference(config, state, measurement, command, request, dt_s)
        command.view(Command.layout.dtype(N_CELLS, N_SENSORS))["head"]["soc_mean"] += 1
        return status

    monkeypatch.setattr(pair.there, "_reference", (lambda *arrays: None, otherwise))
    with pytest.raises(Difference, match="step 0 .* differ: state.bias_var "):
        pair.there.start(pair.config.bytes, pair.state.bytes, *[np.ones(N_CELLS, np.float32)] * 2)
    monkeypatch.setattr(pair.there, "_reference", (init, otherwise))
    with pytest.raises(Difference, match=r"step 1 \(t = 1 s\): .* differ: command.soc_mean 0\.\d+ \(0x"):
        pair.step()
    pair.there.close()


def test_a_step_that_takes_too_long_makes_the_outputs_safe(caplog: pytest.LogCaptureFixture) -> None:
    pair = Pair(shift=10)  # an instruction takes a microsecond: a step some 0.7 s
    pair.step()
    assert "step 1 took longer than its 0.5 s" in caplog.text
    pair.step(dt_s=5.0)
    head = pair.command.head[0]
    assert (head["contactors"], head["state"]) == (Contactor.NONE, RackState.FAULT), "safe until it is started again"
    assert (head["limit_discharge_a"], head["limit_charge_w"]) == (0, 0)
    pair.there.close()


@pytest.mark.parametrize("what", ["kernels", "layouts", "config"])
def test_another_firmware_is_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    header = places.rackbms_header("cortex-m7")
    if what == "config":
        monkeypatch.setattr(inloop.Baked, "digest", "0" * 16)
        original = boards.config_header
        monkeypatch.setattr(boards, "config_header", lambda found: original(found).replace("0" * 16, "1" * 16))
    else:
        text = rf'#define RACKBMS_{what.upper()} "'
        monkeypatch.setattr(places, "rackbms_header", lambda board: header.replace(text, text + "0"))
    config = baked("nmc_ev", N_SENSORS).record
    with pytest.raises(ConfigError, match=r"qemu-system-arm .* here it is .*; make the right one: bms build --target "):
        Controlled(PROGRAM, "qemu:cortex-m7", config.bytes)


def test_a_controller_lives_as_long_as_its_memory() -> None:
    elsewhere = Elsewhere(PROGRAM, "qemu:cortex-m7")
    PROGRAM.run_elsewhere(elsewhere.entries())
    config = baked("nmc_ev", N_SENSORS).record
    state = initial_state(config, 0.5, 0.1)
    first, new = elsewhere.controller(config.bytes, state.bytes)
    assert not new
    del state
    other = initial_state(config, 0.5, 0.1)
    assert not first.close.alive
    measurement, command = Measurement(N_CELLS, N_SENSORS), Command(N_CELLS, N_SENSORS)
    step(config.bytes, other.bytes, measurement.bytes, command.bytes, 0, 0.1)
    assert command.head["heartbeat"][0] == 1
    elsewhere.controller(config.bytes, other.bytes)[0].close()


def test_boards_and_racks_that_cannot_be() -> None:
    with pytest.raises(
        ConfigError, match=r"--engine qemu:cortex-m99: no such board \(known: cortex-m7, cortex-m4f, cortex-a53, "
    ):
        engine.ready("qemu:cortex-m99", (PROGRAM,), quiet=True)
    engine.ready("qemu:cortex-m7", (PROGRAM,), quiet=True)
    with pytest.raises(ConfigError, match="'step_racks' cannot run on the controller that --engine names"):
        PROGRAM.entries["step_racks"].implementation  # noqa: B018
