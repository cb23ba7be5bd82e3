"""The tests of acceptance, played on good racks and on bad ones: test_measurement, test_connect, test_reaction, test_twin
and test_bus (which needs a bus: here it must be skipped with a reason), with their conftest.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from can_bus import ATTEMPTS

Play = Any
ACCEPT = ("--pyargs", "bms.rig.acceptance")

GOOD = {
    "LFP": "sim:lfp_280?n_series=16",
    "sodium": "sim:na_185?n_series=16",
    "NMC": "sim:nmc_ev?n_series=16",
    "a whole rack": "sim:lfp_280",
    "a poor wire": "chaos+sim:lfp_280?n_series=16&chaos.drop=0.01&chaos.seed=3",
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_racks_are_accepted(kind: str, play: Play) -> None:
    session = play(None, *ACCEPT, "--rack", GOOD[kind])
    assert session.code == 0, session.out
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|skipped|failed)", session.last)}
    assert counts["passed"] >= 30
    assert counts["skipped"] == 1
    assert "is not on a CAN bus" in session.out


BAD = {
    # what is wrong: (query, table of the environment, tests that must fail)
    "an interlock that is open": (
        "",
        "[chaos]\nchange = [{channel='interlock_closed', kind='zero'}]",
        "inputs_are_at_rest",
    ),
    "a cell without a wire": (
        "",
        "[chaos]\nchange = [{channel='cell_v', kind='missing', index=3}]",
        "every_value_is_there",
    ),
    "a string voltage in other units": ("", "[chaos]\nchange = [{channel='pack_v', kind='gain', value=10}]", "add_up"),
    "a dead wire": ("chaos.drop=1", "", "time_goes_on"),
    "a slow over-voltage": (
        "",
        "[controller.fault.cell_overvoltage.fatal]\nset_s = 60",
        r"opens_in_time\[cell_overvoltage",
    ),
    "a rack without a watchdog": ("rack.watchdog_s=1e6", "", "opens_by_itself"),
    "a precharge without a resistor": ("rack.precharge_ohm=1e9", "", "it_connects"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_racks_are_not(what: str, play: Play, tmp_path: Path) -> None:
    query, table, failing = BAD[what]
    env = tmp_path / "rack.toml"
    prefix = "chaos+" if "chaos" in query + table else ""
    env.write_text(f"url = '{prefix}sim:lfp_280?n_series=16{'&' + query if query else ''}'\n{table}\n")
    session = play(None, *ACCEPT, "--rack-env", env)
    assert session.code == 1, session.out
    assert re.search(f"FAILED .*{failing}", session.out), session.out


def test_without_a_rack_there_is_nothing_to_accept(play: Play) -> None:
    session = play(None, *ACCEPT)
    assert session.code == 4
    assert "needs a rack: pytest --rack URL" in session.out


# --- the same tests on a wire -----------------------------------------------------------------------------------------

QUICK = "measurement or bus or emergency_stop_that_is_requested"
"""Time is real here: all of them take a quarter of an hour."""


@contextlib.contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[str]]:
    """One of our commands in a process of its own."""
    with subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.terminate()


def line(started: subprocess.Popen[str], begins: str) -> str:
    """The first line that begins so."""
    assert started.stdout is not None
    return next(text for text in started.stdout if text.startswith(begins)).split()[-1]


@contextlib.contextmanager
def served(wire: str) -> Iterator[str]:
    """A twin in another process, behind CAN through a hub in a third one or behind Modbus TCP; gives its URL."""
    rack = "sim:lfp_280?n_series=16&module_groups=16"
    with contextlib.ExitStack() as running:
        if wire == "can":
            hub = running.enter_context(process("hal.serve.hub", "--port", "0"))
            host, _, port = line(hub, "").rpartition(":")
            url = f"can:socketcand:can0?host={host}&port={port}&n_cells=16&n_sensors=4"
            line(running.enter_context(process("bms", "serve", "--rack", rack, "--can", url)), "serving")
        else:
            words = ("bms", "serve", "--rack", rack, "--modbus", "tcp://127.0.0.1:0")
            url = f"modbus:{line(running.enter_context(process(*words)), 'serving')}"
        yield url


@pytest.mark.parametrize("wire", ["can", "modbus"])
def test_a_rack_on_a_wire_is_accepted_by_the_same_tests(wire: str, play: Play, tmp_path: Path) -> None:
    pytest.importorskip({"can": "can", "modbus": "sunspec2"}[wire])
    env = tmp_path / "rack.toml"
    for _ in range(ATTEMPTS):
        with served(wire) as url:
            env.write_text(f"url = '{url}'\nperiod = '0.1s'\ncell = 'lfp_280'\n")
            session = play(None, *ACCEPT, "--rack-env", env, "-k", QUICK, f"--junitxml={tmp_path}/junit.xml")
        if session.code == 0:
            break
    assert session.code == 0, session.out
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|skipped|failed)", session.last)}
    assert counts == ({"passed": 8} if wire == "can" else {"passed": 7, "skipped": 1})
    assert f'name="rack" value="{wire}:' in (tmp_path / "junit.xml").read_text()
