"""The same loop on a rack behind CAN: its decisions are those on the twin itself, in step and in real time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import can_bus
import numpy as np
import numpy.typing as npt
import pytest
from can_bus import ATTEMPTS, BusRack, Far, hub_process

from bms.cli import main
from bms.runtime import SUMMARY
from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from hal.backends.replay import FILE_NAME, Recording
from hal.contract import RackState
from hal.registry import open_rack
from hal.serve.hub import LOOPBACK

STEPS = 20
TWIN = "sim:lfp_280?n_series={}"


def decisions(n_cells: int, options: dict[str, Any], url: str | None) -> npt.NDArray[np.void]:
    """Every command of a run at 10 Hz, on the twin or on the twin behind `url`."""
    twin, clock = TWIN.format(n_cells), VirtualClock()
    if url is None:
        rack: Any = open_rack(twin, clock=clock, options=options)
    else:
        rack = BusRack(f"{url}?n_cells={n_cells}&n_sensors={-(-n_cells // 4)}", Far(url, twin, options), clock)
    seen = []
    with rack:
        controller = make_controller(Scenario(rack=twin, cell="lfp_280", period_s=0.1), rack, clock)
        loop = Loop(rack, controller, clock, 0.1, observers=(lambda *_: seen.append(controller.command.raw.copy()),))
        loop.run(60.0)
    return np.concatenate(seen)


FAULTS = {
    "": RackState.STANDBY,
    "cell_v_missing": RackState.FAULT,
    "sensor_missing": None,
    "current_missing": RackState.FAULT,
    "pack_v_missing": None,
    "interlock_open": RackState.FAULT,
    "emergency_stop": RackState.EMERGENCY_STOP,
    "gas_alarm": RackState.FAULT,
    "insulation": RackState.FAULT,
}
"""Fault of the twin after 30 s, and the state that it must lead to at some time (None: any)."""


@pytest.mark.parametrize("kind", FAULTS)
def test_decisions_are_those_on_the_twin_itself(kind: str) -> None:
    """The twin's steps are 0.1 mV, 0.1 degC, 0.1 V and 28 mA; the wire's are as fine, but for 10 mA of the current.

    Half a step of the current is 5 mA of 280 A, 2e-5: what depends on it may differ by as much. The cause of a fault is
    the value seen, half a step of 1 kohm off.
    """
    n_cells = 16 if kind else 416
    fault: dict[str, Any] = {"kind": kind, "at_s": 30.0}
    fault |= {"index": [1]} if kind in ("cell_v_missing", "sensor_missing") else {}
    fault |= {"value": 1e3} if kind == "insulation" else {}
    options = {"duty": {"kind": "constant", "c_rate": 0.3}, "fault": [fault] if kind else []}
    a, b = decisions(n_cells, options, None), decisions(n_cells, options, f"can:virtual:decide{kind}")
    assert RackState.CONNECTED in a["head"]["state"]
    assert FAULTS[kind] is None or FAULTS[kind] in a["head"]["state"]
    for name in a["head"].dtype.names:
        x, y = a["head"][name], b["head"][name]
        if x.dtype.kind == "f" and name != "time_s":
            assert np.allclose(x, y, rtol=1e-3 if name == "cause_value" else 1e-4, atol=2e-6, equal_nan=True), name
        else:
            assert np.array_equal(x, y), name
    for name in ("balance", "reason", "reason_index", "fault_info", "fault_warning", "fault_fatal"):
        assert np.array_equal(a[name], b[name]), name
    assert np.allclose(a["horizon_a"], b["horizon_a"], rtol=1e-4, atol=0.01)


def states(folder: Path) -> list[str]:
    """The states of a run in order, each once; without the wait for the first words of a busy machine."""
    found: list[str] = []
    for step in Recording(folder / FILE_NAME):
        name = RackState(int(step.command["head"]["state"][0])).name
        if not found or found[-1] != name:
            found.append(name)
    return found[found[0] == RackState.INIT.name :]


def run_for_a_while(url: str, folder: Path) -> dict[str, Any]:
    """`bms run` for `STEPS` seconds at 10 Hz; its exit code is added to the summary."""
    words = ["run", "--rack", url, "--cell", "lfp_280", "--period", "0.1", "--duration", f"{STEPS}"]
    code = main([*words, "--no-report", "--quiet", "--out", str(folder)])
    return json.loads((folder / SUMMARY).read_text()) | {"code": code}


def run_over_a_hub(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Three processes in real time: hub, twin, controller; gives the summary, and what the twin's side has counted."""
    with hub_process() as query:
        url = f"can:socketcand:can0?{query}"
        words = [sys.executable, can_bus.__file__, url, TWIN.format(400)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdin is not None
            assert server.stdout.readline() == "ready\n"
            summary = run_for_a_while(url, folder)
            server.stdin.close()
            return summary, json.loads(server.stdout.read())


def test_a_run_over_a_hub_of_a_twin_in_another_process(tmp_path: Path) -> None:
    """The controller learns from the bus how many cells there are."""
    assert run_for_a_while(TWIN.format(400), tmp_path / "sim")["code"] == 0
    for attempt in range(ATTEMPTS):
        folder = tmp_path / f"can{attempt}"
        summary, served = run_over_a_hub(folder)
        if summary["code"] == 0 and states(folder) == states(tmp_path / "sim"):  # else a busy machine was late
            break
    assert summary["code"] == 0, (summary["faults"], summary.get("cause"), summary["loop"])
    assert states(folder) == states(tmp_path / "sim")
    assert "CONNECTED" in states(folder)
    assert summary["loop"]["opened"]
    assert summary["loop"]["steps"] >= 10 * STEPS - summary["loop"]["missed_deadlines"]
    assert served["counts"][1:] == [0] * 5
    assert (served["lost"], served["refused"]) == (0, 0)


@pytest.mark.parametrize(
    ("rack", "complaint"),
    [
        ("can:socketcn:can0", "unknown interface 'socketcn' (did you mean"),
        ("can:socketcan:nosuch0", "can:socketcan:nosuch0: cannot be opened: "),
        (f"can:socketcand:can0?host={LOOPBACK}&port=1", f"no socketcand server at {LOOPBACK}:1 ("),
        ("can:virtual:empty?timeout_s=0.1", "no frame came in 0.1 s, not RackStatus (0x80); is the rack on"),
        (
            "can:virtual:a?profile=foxbmss",
            "profile 'foxbmss': unknown; write bender, foxbms, ivt, reference, or the path of a .toml file (did you mean 'foxbms'?)",
        ),
        ("can:virtual:a?bitrat=1", "unknown key 'bitrat' (did you mean 'bitrate'?)"),
        ("can:virtual", "expected can:INTERFACE:CHANNEL, for example can:socketcan:can0"),
    ],
)
def test_what_does_not_work_is_one_line_and_exit_code_2(
    rack: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--rack", rack, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert len(said.strip().splitlines()) == 1


def test_a_bus_does_not_wait(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--rack", "can:virtual:a", "--speed", "max"]) == 2
    assert "--speed max: the rack can:virtual:a lives in real time: leave it out" in capsys.readouterr().err
