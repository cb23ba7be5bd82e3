"""Progress: what the line says, and how often."""

from __future__ import annotations

import pytest

from bms.core.faults import Fault, row_id
from bms.runtime import status as module
from bms.runtime.status import Status, clock_text
from hal.contract import RackState, Severity


@pytest.mark.parametrize(
    ("time_s", "text"), [(0, "00:00:00"), (59.9, "00:00:59"), (3725, "01:02:05"), (86400 * 2 + 61, "2 d 00:01:01")]
)
def test_clock_text(time_s: float, text: str) -> None:
    assert clock_text(time_s) == text


def test_the_line_tells_what_matters(bench) -> None:
    _, controller, _ = bench()
    head, command = controller.measurement.head, controller.command.head
    head["pack_v"], head["current_a"] = 1340.0, -100.0
    command["state"], command["n_faults"] = RackState.CONNECTED, 2
    controller.command.fault_fatal[Fault.DISCHARGE_COLD // 32] = 1 << Fault.DISCHARGE_COLD % 32
    controller.command.fault_warning[Fault.CELL_LEAK // 32] = 1 << Fault.CELL_LEAK % 32
    command["cause"], command["cause_index"] = row_id(Fault.DISCHARGE_COLD, Severity.FATAL), 3
    command["cause_value"] = -24.0
    command["soc_min"], command["soc_mean"], command["soc_max"] = 0.4, 0.5, 0.6
    controller.measurement.sensor_degc[:] = 20.0
    controller.measurement.sensor_degc[0] = 31.0
    text = "  ".join(Status(controller, 7200.0).parts(3600.0, 2.0))
    for part in (
        "01:00:00", " 50%", "1,800 x real time", "CONNECTED", "SoC 40.0/50.0/60.0 %", "1,340.0 V -100.0 A -134.0 kW",
        "20.0..31.0 degC", "FAULT: discharge cold at sensor 3: -24 degC", "warning: cell leak",
    ):  # fmt: skip
        assert part in text, part
    assert "%" not in Status(controller, float("inf")).parts(3600.0, 2.0)[0]


def test_in_a_pipe_a_line_comes_with_every_state_and_then_now_and_then(bench, capsys, monkeypatch) -> None:
    _, controller, _ = bench()
    wall = [0.0]
    monkeypatch.setattr(module, "perf_counter", lambda: wall[0])
    state = controller.command.head["state"]
    with Status(controller, 1000.0) as status:
        for step in range(1, 961):
            state[0] = RackState.STANDBY if step < 5 else RackState.CONNECTED
            wall[0] += 0.0125
            status(step, float(step), 1.0, None)
    lines = capsys.readouterr().out.splitlines()
    assert [("STANDBY" in line, "CONNECTED" in line) for line in lines] == [(True, False), *[(False, True)] * 3]
    # 12 s of wall time: at the start, and then every five seconds


def test_quiet_is_quiet(bench, capsys) -> None:
    _, controller, _ = bench()
    with Status(controller, 10.0, quiet=True) as status:
        status(1, 0.0, 1.0, None)
    assert capsys.readouterr().out == ""


def test_on_a_terminal_the_line_is_live(bench, capsys, monkeypatch) -> None:
    _, controller, _ = bench()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with Status(controller, 10.0) as status:
        assert status._live is not None
        status(1, 0.0, 1.0, None)
    assert "INIT" in str(status._live.renderable)
