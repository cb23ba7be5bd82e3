"""The controller as a node of the bus: the decisions of the loop on this computer, a bus that is cut, and people."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bms.cli import main
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.firmware import node as command_line
from bms.firmware.baked import Baked, baked, config_header, config_source
from bms.firmware.build import HEADER, LIBRARY
from bms.firmware.can_tables import HEADER as CAN_HEADER
from bms.firmware.can_tables import SOURCE as CAN_SOURCE
from bms.firmware.can_tables import CanTables, profile_of
from bms.runtime.clock import VirtualClock
from bms.runtime.run import choose, configuration
from hal.backends.can import CanRack
from hal.codec import can_profile
from hal.contract import COMMAND, Command, Contactor, Measurement, RackState
from hal.engine.frames import Flag, Identity, NodeState, NodeStatus
from hal.errors import ConfigError
from hal.registry import open_rack
from hal.serve.can import CanServer
from tests.bms.firmware.hosted import Hosted, compiled

RACK = "sim:lfp_280?n_series=12&module_groups=4&seed=3"
PERIOD_MS = 100
SOC, STD = 0.5, 0.05
RACK_COMMAND = 0x020

PROGRAM = """
#include "control.h"
#include "node.h"
void host_tick(void);
static uint32_t others;
static slcan_frame other;
void node_other_frame(const slcan_frame *frame) { others++; other = *frame; }
uint32_t host_others(void) { return others; }
uint32_t host_other(void) { return other.identifier; }
void host_start(const float *soc, const float *soc_std) {
    slcan_start();
    control_start(soc, soc_std);
    control_run();
    node_start();
}
void host_pass(uint32_t time_ms) {
    while (node_listen()) { }
    while (time_ms--) {
        host_tick();
        control_millisecond(1);
        if (control_due) {
            control_due = false;
            node_step();
        }
    }
}
size_t host_look(uint8_t *to) {
    const node_status status = node_look(false);
    for (size_t k = 0; k < sizeof status; k++) to[k] = ((const uint8_t *)&status)[k];
    for (size_t k = 0; k < sizeof(rackbms_command_head); k++) to[sizeof status + k] = control_command()[k];
    return sizeof status + sizeof(rackbms_command_head);
}
"""


class Clock:
    """Whole milliseconds."""

    def __init__(self) -> None:
        self.time_ms = 0

    def now_s(self) -> float:
        return self.time_ms / 1000

    def wait_until(self, time_s: float, interrupted: object) -> None:
        raise AssertionError("nobody waits")


class Served:
    """A twin, and what a server makes of it: frames to the controller, frames back."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        scenario = choose(None, RACK, "lfp_280")
        self.rack = open_rack(scenario.rack, clock=self.clock, options=scenario.tables)
        self.rack.open()
        info = self.info = self.rack.info
        self.config = configuration(scenario, info)[1]
        self.server = CanServer("can:virtual:none", info, self.clock)
        self._frames: list[tuple[int, bytes]] = []
        link: Any = self.server.link
        link.send = self._frames.extend
        self.measurement, self.command = (
            Measurement(info.n_cells, info.n_sensors),
            Command(info.n_cells, info.n_sensors),
        )

    def scan(self) -> list[tuple[int, bytes]]:
        """The frames of what it measures now."""
        self._frames.clear()
        self.rack.read(self.measurement)
        self.server.publish(self.measurement)
        return list(self._frames)

    def act(self, frames: list[tuple[int, bytes]], time_s: float) -> None:
        """Time passes until a command comes."""
        self.clock.wait_until(time_s, lambda: False)
        for key, data in frames:
            self.server.inbox.accept(key, data, time_s)
        if self.server.take(self.command):
            self.rack.write(self.command)


@pytest.fixture(scope="module")
def found() -> Baked:
    return Baked(Served().config, PERIOD_MS / 1000, "the twin's")


@pytest.fixture(scope="module")
def library(cc: str, built: Path, found: Baked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node")
    tables = CanTables(profile_of(found))
    for name, content in (
        (HEADER, (built / HEADER).read_text()),
        ("rackbms_config.h", config_header(found)),
        ("rackbms_config.c", config_source(found)),
        (CAN_HEADER, tables.header),
        (CAN_SOURCE, tables.source),
        ("program.c", PROGRAM),
    ):
        (folder / name).write_text(content)
    own = [folder / CAN_SOURCE, folder / "rackbms_config.c", folder / "program.c"]
    sources = ["node.c", "can.c", "slcan.c", "control.c", "link.c", *own]
    return compiled(cc, folder, sources, [built / LIBRARY, f"-Wl,-rpath,{built}"])


class Node(Hosted):
    """The firmware of the node, on this computer, with the bus open."""

    def __init__(self, path: Path, n_cells: int) -> None:
        super().__init__(path)
        soc, std = np.full(n_cells, SOC, np.float32), np.full(n_cells, STD, np.float32)
        pointer = ctypes.POINTER(ctypes.c_float)
        self.c.host_new()
        self.c.host_look.restype = ctypes.c_size_t
        self.c.host_start(soc.ctypes.data_as(pointer), std.ctypes.data_as(pointer))
        self.arrive(b"S6\rO\r")

    def pass_(self, frames: list[tuple[int, bytes]], time_ms: int = PERIOD_MS) -> list[tuple[int, bytes]]:
        """Frames come, time passes; gives the frames that it sends."""
        self.arrive(b"".join(b"t%03X%d%s\r" % (key, len(data), data.hex().encode()) for key, data in frames))
        self.c.host_pass(time_ms)
        lines = [line for line in self.said().decode().split("\r") if line.startswith("t")]
        return [(int(line[1:4], 16), bytes.fromhex(line[5:])) for line in lines]

    @property
    def status(self) -> NodeStatus:
        room = ctypes.create_string_buffer(4096)
        return NodeStatus.parse(ctypes.string_at(room, self.c.host_look(room)))

    @property
    def state(self) -> RackState:
        return RackState(int(np.frombuffer(self.status.command, COMMAND.head_dtype)["state"][0]))


class Loop:
    """The loop on this computer, at the other end of the same wire."""

    def __init__(self, served: Served) -> None:
        self.clock, info = Clock(), served.info
        query = {"n_cells": str(info.n_cells), "n_sensors": str(info.n_sensors)}
        self.rack = CanRack("virtual:none", query=query, clock=self.clock)
        self.rack._open = True
        self.sent: list[tuple[int, bytes]] = []
        link: Any = self.rack.link
        link.send = self.sent.extend
        size, state = (info.n_cells, info.n_sensors), initial_state(served.config, SOC, STD)
        self.controller = Controller(served.config, state, Measurement(*size), Command(*size))
        self._last_s: float | None = None

    def pass_(self, frames: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        for key, data in frames:
            self.rack.inbox.accept(key, data, self.clock.now_s())
        self.clock.time_ms += PERIOD_MS
        now_s, self.sent[:] = self.clock.now_s(), []
        self.rack.read(self.controller.measurement)
        self.controller.step(Request.CONNECT, 0.1 if self._last_s is None else now_s - self._last_s)
        self._last_s = now_s
        self.rack.write(self.controller.command)
        return list(self.sent)


def test_every_command_is_that_of_the_loop_here(library: Path) -> None:
    served, beside = Served(), Served()
    node, loop, plain = Node(library, served.info.n_cells), Loop(served), Served()
    own = Controller(plain.config, initial_state(plain.config, SOC, STD), plain.measurement, plain.command)  # no wire
    theirs, ours = [], []
    for k in range(1, 101):
        frames = served.scan()
        sent, expected = node.pass_(frames), loop.pass_(beside.scan())
        assert sent == expected, f"step {k}"
        served.act(sent, k / 10)
        beside.act(expected, k / 10)
        plain.rack.read(own.measurement)
        plain.clock.wait_until(k / 10, lambda: False)
        own.step(Request.CONNECT, 0.1)
        plain.rack.write(own.command)
        theirs.append(node.state)
        ours.append(RackState(int(own.command.head["state"][0])))
    assert list(dict.fromkeys(theirs)) == list(dict.fromkeys(ours))
    assert theirs[-1] == RackState.CONNECTED
    head = np.frombuffer(node.status.command, COMMAND.head_dtype)[0]
    assert head["limit_discharge_a"] > 50.0
    for name in ("limit_discharge_a", "limit_charge_a"):  # a period later, for frames come before the step
        assert head[name] == pytest.approx(own.command.head[name][0], rel=0.03)
    status = node.status
    assert (status.state, status.missing, status.steps, status.unfit, status.unsent) == (
        NodeState.RUNNING,
        0,
        100,
        0,
        0,
    )
    assert status.frames == (status.received, 0, 0, 0, 0, 0)


def connected(library: Path) -> tuple[Node, Served]:
    """A node that has closed the contactors of a twin."""
    served = Served()
    node = Node(library, served.info.n_cells)
    for k in range(1, 101):
        served.act(node.pass_(served.scan()), k / 10)
    assert node.state == RackState.CONNECTED
    assert node.c.host_contactors() == Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE
    return node, served


def test_a_bus_that_is_cut_opens_the_contactors(library: Path) -> None:
    node, _ = connected(library)
    for _ in range(50):  # 5 s, the longest that a fault may last
        sent = node.pass_([])
        assert [key for key, _ in sent][-1] == RACK_COMMAND, "it goes on telling"
    assert node.c.host_contactors() == 0
    assert node.state in (RackState.OPENING, RackState.FAULT)
    limit = np.frombuffer(node.status.command, COMMAND.head_dtype)["limit_discharge_a"][0]
    assert limit == 0.0


def test_a_bus_that_nobody_reads_or_has_closed_holds_nothing_up(library: Path) -> None:
    node, served = connected(library)
    steps = node.status.steps
    node.c.host_can_room(ctypes.c_size_t(0))
    assert node.pass_([]) == node.pass_([]) == []
    assert node.status.unsent == 2 * 5
    node.c.host_can_room(ctypes.c_size_t(1 << 16))
    node.arrive(b"C\r")
    assert node.pass_([]) == []
    node.arrive(b"O\r")
    assert len(node.pass_([])) == 5
    assert (node.status.steps, node.status.opened) == (steps + 4, 2)
    last, accepted = served.scan(), node.status.frames[0]
    node.pass_(last)
    node.pass_(last)  # the same counters again
    assert node.status.frames[0] == accepted + len(last)
    node.arrive(b"C\rO\r")
    node.pass_(last)  # ... after the bus was away
    assert node.status.frames[0] == accepted + 2 * len(last)


def test_nothing_is_decided_before_everything_has_come_of_the_right_rack(library: Path) -> None:
    served = Served()
    node, frames = Node(library, served.info.n_cells), served.scan()
    assert node.pass_(frames[1:]) == []
    assert (node.status.state, node.status.missing, node.status.steps) == (NodeState.WAITING, 1, 0)
    assert len(node.pass_(frames[:1])) == 5
    assert node.status.state == NodeState.RUNNING
    other = CanServer("can:virtual:none", replace(served.info, n_cells=13, n_sensors=served.info.n_sensors))
    link: Any = other.link
    told: list[tuple[int, bytes]] = []
    link.send = told.extend
    other.publish(Measurement(13, served.info.n_sensors))
    node = Node(library, served.info.n_cells)
    assert node.pass_(told) == []
    assert (node.status.state, node.status.missing) == (NodeState.OTHER_RACK, 0)


def test_frames_of_others_are_offered(library: Path) -> None:
    served = Served()
    node = Node(library, served.info.n_cells)
    node.pass_([*served.scan(), (0x7E0, b"\x02\x10\x03")])
    assert (node.c.host_others(), node.c.host_other()) == (1, 0x7E0)
    node.arrive(b"r0803\r")  # somebody asks for RackStatus: that is not the message
    node.pass_([])
    assert (node.c.host_others(), node.c.host_other()) == (2, 0x080)


@pytest.fixture(scope="module")
def emulated(arm: None, qemu: None) -> Iterator[Any]:
    small = replace(baked("nmc_ev", 12), period_s=0.1)
    with command_line.node(small, "cortex-m7") as made:
        yield made


def test_python_can_hears_its_commands_and_cantools_reads_them(emulated: Any, repository: Path) -> None:
    cantools = pytest.importorskip("cantools")
    slcan = pytest.importorskip("can.interfaces.slcan")
    import can

    emulator, remote, identity = emulated
    dbc = cantools.database.load_file(can_profile.FOLDER / "reference" / "reference_416.dbc")
    command_line.tell_soc(remote, identity.n_cells, SOC)
    info = replace(CanRack("virtual:none", query={"n_cells": "96", "n_sensors": "12"}).info)
    server, frames = CanServer("can:virtual:none", info), []
    link: Any = server.link
    link.send = frames.extend
    measurement = Measurement(96, 12)
    head = measurement.head
    head["interlock_closed"], head["insulation_ohm"], head["coolant_flow_lpm"] = 1, 1e6, 100.0
    measurement.cell_v[:], measurement.sensor_degc[:], head["pack_v"] = 3.7, 25.0, 3.7 * 96
    head["coolant_in_degc"], head["coolant_out_degc"] = 25.0, 25.0
    heard: dict[str, dict[str, Any]] = {}
    beats = 0
    until_s = time.monotonic() + 60.0  # of no meaning for a test that passes
    with slcan.slcanBus(emulator.port, bitrate=500000, sleep_after_open=0) as bus:
        while beats < 5 and time.monotonic() < until_s:
            head["sequence"] += 1
            server.publish(measurement)
            for key, data in frames:
                bus.send(can.Message(arbitration_id=key, is_extended_id=False, data=data))
            frames.clear()
            while (message := bus.recv(0.02)) is not None:
                name = dbc.get_message_by_frame_id(message.arbitration_id).name
                heard[name] = dbc.decode_message(message.arbitration_id, message.data, decode_choices=False)
            beats = int(heard.get("RackCommand", {}).get("Heartbeat", 0))
        assert beats >= 5, remote.node()
        assert {"RackCommand", "CurrentLimits", "PowerLimits", "CoolingCommand"} <= heard.keys()
        assert int(heard["RackCommand"]["State"]) in list(RackState)
        status = remote.node(Request.OPEN)
        assert (status.state, status.request, status.port_lost) == (NodeState.RUNNING, Request.OPEN, 0)
        assert remote.hello().crash is None
    assert "step" in command_line.line(status, identity, 1.0)
    remote.start(np.zeros(96, np.float32), np.ones(96, np.float32))
    assert remote.node().state == NodeState.OFF


def test_the_command_tells_its_port_and_ends(arm: None, qemu: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "--config", "nmc_ev", "--duration", "0.1", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("/dev/")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--engine", "qemu:abacus"], "--engine qemu:abacus: expected one of qemu:cortex-m7"),
        (["--engine", "jit"], "--engine jit"),
        (["--request", "closed"], "--request closed: expected one of connect, open"),
        (["--initial-soc", "1.5"], "--initial-soc 1.5: expected 0..1"),
        (["--period", "1h"], "--period 1h: expected 1 ms to 10 s"),
        (["--sensors", "0"], "--sensors 0: expected 1..416"),
        (["--config", "nothing"], "nothing"),
    ],
)
def test_wrong_options_are_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_lines_for_people() -> None:
    head = np.zeros(1, COMMAND.head_dtype)
    head["state"], head["contactors"], head["limit_discharge_a"] = RackState.CONNECTED, 3, 100.0
    frames = (7, 1, 0, 2, 0, 0)
    status = NodeStatus(
        NodeState.WAITING, 1, 3, 12, 25000, 50000, Flag(0), 0, 0, 0, 10, 0, 5, 0, frames, 4, head.tobytes()
    )
    identity = Identity(1, 96, 12, 0, 0, 0, 0, 0, 0, 25_000_000, 100_000, "", "", "", None)

    def said(**changes: Any) -> str:
        return command_line.line(replace(status, **changes), identity, 2.0)

    assert "waits for 3 messages, nobody has opened the bus" in said()
    assert "bus open" in said(opened=1)
    assert "not one of 96 cells and 12 sensors" in said(state=NodeState.OTHER_RACK)
    assert "over the link" in said(state=NodeState.OFF)
    running = said(state=NodeState.RUNNING, flags=Flag.OVERRUN)
    assert "CONNECTED  closed: main positive, main negative" in running
    assert "step 12: 1.0 ms, longest 2.0 ms" in running
    assert "a step was too late" in running
    assert running.endswith("10 frames in, 5 out  1 frames of others  2 frames wrong  4 frames lost")


def test_what_it_says_of_itself_has_a_size() -> None:
    with pytest.raises(ValueError, match="too short"):
        NodeStatus.parse(bytes(10))
    with pytest.raises(ConfigError, match="no such board|expected one of"):
        command_line.run(type("", (), {"engine": "qemu:no", "request": "open"})())
