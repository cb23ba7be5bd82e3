"""`bms serve`: the loop between a rack and its wires, the command, and a controller in another process."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from can_bus import ATTEMPTS
from modbus_wire import Wired

from bms import cli
from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop, StopFlag
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from bms.runtime.serve import ServeLoop
from hal.backends.replay import Recording
from hal.contract import Command, Measurement, Rack, RackState
from hal.registry import open_rack


class Shelf:
    """A server without a wire: keeps what is published, hands out what a test puts in."""

    def __init__(self) -> None:
        self.shown: list[Measurement] = []
        self.waiting: list[Command] = []

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def publish(self, measurement: Measurement) -> None:
        kept = measurement.blank()
        kept.copy_from(measurement)
        self.shown.append(kept)

    def take(self, out: Command) -> bool:
        if not self.waiting:
            return False
        out.copy_from(self.waiting.pop())
        self.waiting.clear()
        return True


class Bench:
    """A loop with a twin and two shelves, moved by hand."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        options = {"duty": {"kind": "constant", "c_rate": 0.2}}
        self.rack = open_rack("sim:lfp_280?n_series=4", clock=self.clock, options=options)
        self.rack.open()
        self.one, self.other = Shelf(), Shelf()
        self.loop = ServeLoop(self.rack, [self.one, self.other], self.clock, 0.5, heartbeat_s=3.0)
        self.beat = 0

    def command(self, contactors: int, *, beat: bool = True) -> Command:
        info = self.rack.info
        command = Command(info.n_cells, info.n_sensors)
        self.beat += beat
        command.head["heartbeat"], command.head["contactors"] = self.beat, contactors
        command.head["cooling_degc"] = 25.0
        command.head["limit_discharge_a"], command.head["limit_discharge_w"] = 100.0, 1e6
        return command

    def go(self, seconds: float, contactors: int | None = None, *, beat: bool = True) -> int:
        """Step for so long, with a command each time; returns the feedback at the end."""
        for _ in range(round(seconds / 0.5)):
            if contactors is not None:
                self.one.waiting.append(self.command(contactors, beat=beat))
            self.loop.step()
            self.clock.wait_until(self.clock.now_s() + 0.5, lambda: False)
        return int(self.one.shown[-1].head["contactors"][0])


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.rack.close()


def test_every_server_sees_every_measurement(bench: Bench) -> None:
    bench.go(2.0)
    assert len(bench.one.shown) == len(bench.other.shown) == bench.loop.steps == 4
    for a, b in zip(bench.one.shown, bench.other.shown, strict=True):
        assert a.bytes.tobytes() == b.bytes.tobytes()


def test_commands_close_the_contactors_and_current_flows(bench: Bench) -> None:
    assert bench.go(10.0, 0b110) == 0b110
    assert bench.go(3.0, 0b011) == 0b011
    assert bench.one.shown[-1].head["current_a"][0] > 10
    assert bench.loop.commands == 26
    assert not bench.loop.silent


def test_a_heart_beat_that_stands_still_opens(bench: Bench) -> None:
    bench.go(10.0, 0b110)
    bench.go(2.0, 0b011)
    assert bench.go(2.5, 0b011, beat=False) == 0b011, "not before its time"
    assert bench.go(1.5, 0b011, beat=False) == 0
    assert bench.loop.timeouts == 1
    assert bench.go(5.0, 0b011, beat=False) == 0, "and the old number closes nothing"
    assert abs(bench.one.shown[-1].head["current_a"][0]) < 1
    bench.go(10.0, 0b110)
    assert bench.go(2.0, 0b011) == 0b011, "a heart-beat that moves again is obeyed"


def test_a_controller_that_says_nothing_any_more_is_the_same(bench: Bench) -> None:
    bench.go(10.0, 0b110)
    bench.go(2.0, 0b011)
    assert bench.go(4.0) == 0
    assert bench.loop.state()["controlled"] is False
    assert bench.loop.state()["heartbeat_timeouts"] == 1


def test_the_last_command_counts_whichever_wire_it_came_by(bench: Bench) -> None:
    bench.go(10.0, 0b110)
    bench.one.waiting.append(bench.command(0b110))
    bench.other.waiting.append(bench.command(0))
    bench.loop.step()
    assert bench.go(1.0) == 0


def test_an_impossible_command_is_counted_and_the_loop_goes_on(bench: Bench) -> None:
    bench.one.waiting.append(bench.command(0b1000))
    bench.loop.step()
    assert bench.loop.refused == 1
    assert bench.go(10.0, 0b110) == 0b110


def test_the_end_opens_the_contactors_and_shows_it(bench: Bench) -> None:
    bench.go(10.0, 0b110)
    bench.go(1.0, 0b011)
    bench.loop.run(1.0)
    assert bench.one.shown[-2].head["contactors"][0] == 0b011
    bench.clock.wait_until(bench.clock.now_s() + 0.5, lambda: False)
    bench.loop.publish()
    assert bench.one.shown[-1].head["contactors"][0] == 0
    stopped = StopFlag(signal.SIGINT)
    bench.loop.stop = stopped
    before = bench.loop.steps
    bench.loop.run()
    assert bench.loop.steps == before + 1


def test_the_state_can_be_written_as_json(bench: Bench) -> None:
    assert json.loads(json.dumps(bench.loop.state()))["heartbeat"] is None
    bench.go(1.0, 0)
    bench.loop.measurement.head["pack_v"] = np.nan
    told = json.loads(json.dumps(bench.loop.state(), allow_nan=False))
    assert told["heartbeat"] == 2
    assert told["pack_v"] is None


# -------------------------------------------------------------------------------------------------- the same decisions


class Passing(VirtualClock):
    """A clock that a loop waits on and a test moves."""

    def move(self, seconds: float) -> None:
        self.wait_until(self.now_s() + seconds, lambda: False)


SCENARIO = Scenario(
    name="wire",
    rack="sim:lfp_280?n_series=32",
    tables={
        "rack": {"initial_soc": 0.4},
        "duty": {"kind": "constant", "c_rate": 0.3},
        "fault": [
            {"kind": "cell_v_missing", "index": [5], "at_s": 30.0, "until_s": 34.0},
            {"kind": "insulation", "value": 1e4, "at_s": 45.0},
        ],
    },
)


def decisions(rack: Rack, clock: VirtualClock, period_s: float = 0.5) -> list[Command]:
    """Every command of a run of a minute, in a scenario that connects, loses a cell's voltage, and trips."""
    found: list[Command] = []
    with rack:
        controller = make_controller(SCENARIO, rack, clock)

        def keep(*_: Any) -> None:
            kept = controller.command.blank()
            kept.copy_from(controller.command)
            found.append(kept)

        Loop(rack, controller, clock, period_s, observers=(keep,)).run(60.0)
    return found


def test_decisions_over_the_wire_are_those_of_the_twin() -> None:
    clock = VirtualClock()
    direct = decisions(open_rack(SCENARIO.rack, clock=clock, options=SCENARIO.tables), clock)
    clock = Passing()
    wire = Wired("tcp://127.0.0.1:0", clock, open_rack(SCENARIO.rack, clock=clock, options=SCENARIO.tables))
    wired = decisions(wire, clock)
    wire.end()
    assert len(direct) == len(wired)
    states = [int(command.head["state"][0]) for command in direct]
    assert {RackState.PRECHARGE, RackState.CONNECTED, RackState.FAULT} <= set(states)
    # to the bit: the wire's 0.1 mV and 0.1 degC are those of the twin's sensors, all else is carried as it is
    different = [
        k for k, (a, b) in enumerate(zip(direct, wired, strict=True)) if a.bytes.tobytes() != b.bytes.tobytes()
    ]
    assert different == []


# ---------------------------------------------------------------------------------------------------------- the command


def served(*words: str) -> tuple[subprocess.Popen[str], "queue.Queue[str]"]:
    """`bms serve` as a process, and the lines that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "bms", "serve", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    return process, lines


def wait_for(lines: "queue.Queue[str]", pattern: str) -> str:
    seen = []
    deadline = time.monotonic() + 300.0  # the twin may have to be compiled
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=max(deadline - time.monotonic(), 0.01))
        except queue.Empty:
            break
        seen.append(line)
        if match := re.search(pattern, line):
            return match[1]
    pytest.fail(f"no line like {pattern}: {seen}")


def run_of_a_twin_in_another_process(out: Path, duration_s: int) -> int:
    """`bms serve` and, in this process, `bms run` for so long over Modbus/TCP; its exit code."""
    process, lines = served(
        "--rack", "sim:lfp_280?n_series=416", "--modbus", "tcp://127.0.0.1:0", "--control", "0"
    )  # fmt: skip
    try:
        address = wait_for(lines, r"serving at (\S+)")
        words = ["run", "--rack", f"modbus:{address}", "--period", "0.1", "--duration", f"{duration_s}"]
        code = cli.main([*words, "--out", str(out), "--no-report", "--quiet"])
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        wait_for(lines, r"took (\d+) commands; the contactors are open")
    finally:
        process.kill()
        process.wait()
    return code


@pytest.mark.skipif(os.name == "nt", reason="signals of another process")
def test_a_controller_in_another_process_runs_the_twin(tmp_path: Path) -> None:
    for attempt in range(ATTEMPTS):
        out = tmp_path / f"run{attempt}"
        code = run_of_a_twin_in_another_process(out, 6 * 2**attempt)
        summary = json.loads((out / "summary.json").read_text())
        states = [int(step.command["head"]["state"][0]) for step in Recording(out)]
        order = [state for k, state in enumerate(states) if k == 0 or states[k - 1] != state]
        if code == 0 and RackState.CONNECTED in order:  # else a busy machine was late
            break
    assert code == 0, (summary["faults"], summary.get("cause"), summary["loop"])
    assert order[-4:] == [RackState.CONNECTED, RackState.RAMP_DOWN, RackState.OPENING, RackState.STANDBY]
    assert RackState.FAULT not in order
    assert summary["faults"] == []
    assert summary["loop"]["opened"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "on which wire? Give --modbus"),
        (["--modbus", "tcp://127.0.0.1:0", "--speed", "max"], "--speed max: who is connected lives in real time"),
        (["--modbus", "tcp://127.0.0.1:0", "--speed", "0"], "--speed 0"),
        (["--modbus", "tcp://127.0.0.1:0", "--rack", "sim:site?racks=2"], "one rack is served at a time"),
        (["--modbus", "udp://127.0.0.1:0"], "expected tcp://HOST:PORT"),
        (["--modbus", "tcp://203.0.113.1:5020", "--duration", "1"], "cannot listen on 203.0.113.1:5020"),
        (
            ["--modbus", "rtu:///dev/no_such_port", "--duration", "1"],
            "the serial port /dev/no_such_port cannot be opened",
        ),
        (["--modbus", "tcp://127.0.0.1:0", "--period", "x"], "--period"),
        (["--modbus", "tcp://127.0.0.1:0", "--control", "70000"], "--control 70000"),
        (["--modbus", "tcp://127.0.0.1:0", "--rack", "sim:lpf_280"], "lpf_280"),
        (["--modbus", "tcp://127.0.0.1:0", "--rack", "modbus:tcp://127.0.0.1:1", "--speed", "2"], "lives in real time"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--quiet", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("bms: error: ")
    assert told.count("\n") == 1
    assert said in told


def test_a_run_on_a_wire_is_paced_and_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--rack", "modbus:tcp://127.0.0.1:1", "--speed", "max", "--quiet"]) == 2
    assert "lives in real time: leave it out" in capsys.readouterr().err
    assert cli.main(["run", "--rack", "modbus:tcp://127.0.0.1:1", "--quiet"]) == 2
    assert "is the device on, and are host, port and unit right?" in capsys.readouterr().err


def test_it_ends_after_its_duration(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", "--rack", "sim:lfp_280?n_series=4", "--modbus", "tcp://127.0.0.1:0", "--control", "0"]
    assert cli.main([*words, "--speed", "20", "--duration", "4", "--period", "0.5"]) == 0
    told = capsys.readouterr().out
    assert "serving at tcp://127.0.0.1:" in told
    assert "control at http://127.0.0.1:" in told
    assert re.search(r"served \d+ measurements, took 0 commands; the contactors are open", told)
