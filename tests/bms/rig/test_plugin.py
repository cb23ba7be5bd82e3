"""The plugin as its users see it: fixtures, skips, strictness, reports, and contactors that open on every way out."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from hal.backends.replay import Recording

RACK = "sim:lfp_280?n_series=16"
Play = Any

USES_ALL = """
from hal.contract import Rack, HasTruth, RackState

def test_a(rack, controller):
    assert isinstance(rack, Rack) and rack.info.n_cells == 16
    took_s = controller.connect()
    assert 2 < took_s < 60 and controller.closed == 0b011

def test_b(controller, twin):
    assert isinstance(twin, HasTruth)
    assert controller.state == RackState.INIT and controller.closed == 0   # led back to rest in between

def test_c(controller, faults):
    controller.connect()
    faults.change("interlock_closed", "zero")
    controller.until(lambda d: d.asked == 0, 3.0)

def test_d(controller, faults):
    assert controller.cause is None
    controller.connect()
"""


def test_fixtures_give_a_rack_that_every_test_finds_at_rest(play: Play) -> None:
    session = play(USES_ALL, "--rack", RACK, "--strict-markers")
    assert session.code == 0, session.out
    assert "4 passed" in session.last


def test_without_a_rack_it_costs_nothing_and_skips_what_needs_one(play: Play) -> None:
    source = """
import sys

def test_nothing_is_imported():
    ours = [name for name in sys.modules if name.partition(".")[0] in ("bms", "hal", "sim")]
    assert sorted(ours) == ["bms", "bms.rig", "bms.rig.plugin"]
    for name in ("numpy", "numba", "can", "pymodbus"):
        assert name not in sys.modules

def test_needs(rack): ...
"""
    session = play(source, "-p", "no:hypothesispytest", "-p", "no:benchmark")
    assert session.code == 0, session.out
    assert "1 passed, 1 skipped" in session.last
    assert "needs a rack: pytest --rack URL, for example --rack sim:lfp_280" in session.out
    strict = play(source, "-p", "no:hypothesispytest", "-p", "no:benchmark", "--rack-strict")
    assert strict.code == 1
    assert "needs a rack" in strict.out


NEEDS = """
import pytest

@pytest.mark.rack_needs("shuttle")
def test_shuttle(): ...

@pytest.mark.rack_needs("contactors", "virtual_time")
def test_there(): ...

def test_bus(bus): ...

@pytest.mark.rack_needs("gas")
def test_gas(): ...
"""


def test_what_a_bench_cannot_do_is_skipped_with_the_reason_or_fails(play: Play, tmp_path: Path) -> None:
    env = tmp_path / "rack.toml"
    env.write_text(f"url = '{RACK}'\nlacks = ['gas']\n")
    session = play(NEEDS, "--rack-env", env)
    assert session.code == 0, session.out
    assert "1 passed, 3 skipped" in session.last
    assert f"{RACK} has no shuttle" in session.out
    assert "is not on a CAN bus: give [bus] in --rack-env" in session.out
    assert "rack.toml: lacks = 'gas'" in session.out
    strict = play(NEEDS, "--rack-env", env, "--rack-strict")
    assert strict.code == 1
    assert "1 passed" in strict.last
    assert "skipped" not in strict.last
    unknown = play(NEEDS.replace('"gas"', '"gass"'), "--rack-env", env)
    assert "no rack has the capability 'gass'" in unknown.out
    assert unknown.code == 1


def test_a_bus_is_opened_where_the_environment_names_one(play: Play, tmp_path: Path) -> None:
    env = tmp_path / "rack.toml"
    env.write_text(f"url = '{RACK}'\n[bus]\ninterface = 'virtual'\nchannel = 'x'\n")
    source = "def test_it(bus):\n    assert bus.channel_info.startswith('Virtual bus')\n"
    session = play(source, "--rack-env", env)
    assert "1 passed" in session.last, session.out


def test_the_report_says_what_was_tested(play: Play, tmp_path: Path) -> None:
    env = tmp_path / "rack.toml"
    (tmp_path / "image.bin").write_bytes(b"image")
    env.write_text(f"rig = 'bench 3'\nurl = '{RACK}&seed=5'\nfirmware = '{tmp_path}/image.bin'\n")
    session = play(USES_ALL, "--rack-env", env, f"--junitxml={tmp_path}/junit.xml")
    assert session.code == 0, session.out
    root = ET.parse(tmp_path / "junit.xml").getroot()
    told = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert told["rig"] == "bench 3"
    assert told["rack"] == f"{RACK}&seed=5"
    assert told["seed"] == "rack 5"
    assert told["firmware"] == "6105d6cc76af4003"  # sha256 of b"image"
    assert len(told["kernels"] or "") == len(told["configuration"] or "") == 16


# --- every way out ----------------------------------------------------------------------------------------------------

ENDS = {
    "a test that fails": ("def test_it(controller):\n    controller.connect()\n    assert False\n", 1),
    "an interrupt": ("def test_it(controller):\n    controller.connect()\n    raise KeyboardInterrupt\n", 2),
    "an exit": ("import pytest\ndef test_it(controller):\n    controller.connect()\n    pytest.exit('now')\n", 2),
    "a fixture that crashes": (
        "import pytest\n@pytest.fixture\ndef broken(controller):\n    controller.connect()\n    raise OSError\n"
        "def test_it(broken): ...\n",
        1,
    ),
    "a finaliser that crashes": (
        "import pytest\n@pytest.fixture(scope='session')\ndef broken(controller):\n    controller.connect()\n    yield\n"
        "    controller.connect()\n    raise OSError\ndef test_it(broken): ...\n",
        1,
    ),
    "a test that exits": ("import sys\ndef test_it(controller):\n    controller.connect()\n    sys.exit(3)\n", 1),
    "a controller that crashes": (
        "def test_it(controller):\n    controller.connect()\n"
        "    controller.controller.step = lambda *a: 1 / 0\n    controller.run(5.0)\n",
        1,
    ),
}


def check_opened(path: Path) -> None:
    """The rack was closed at some time in the recording, and is open at its end."""
    seen = [
        (int(s.measurement["head"]["contactors"][0]), int(s.command["head"]["contactors"][0])) for s in Recording(path)
    ]
    assert 0b011 in [closed for closed, _ in seen]
    assert seen[-1] == (0, 0)


@pytest.mark.parametrize("way", ENDS)
def test_the_contactors_open_on_every_way_out(way: str, play: Play, tmp_path: Path) -> None:
    source, code = ENDS[way]
    path = tmp_path / "run.bms"
    session = play(source, "--rack", f"record+{RACK}&record.to={path}")
    assert session.code == code, session.out
    check_opened(path)


def test_the_contactors_open_when_the_session_is_terminated(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "run.bms"
    source = (
        "def test_it(controller, capsys):\n    controller.connect()\n    with capsys.disabled():\n"
        "        print('CONNECTED', flush=True)\n    while True:\n        controller.run(1.0)\n"
    )
    words = play.command(source, "--rack", f"record+{RACK}&record.to={path}")
    with subprocess.Popen(words, cwd=tmp_path, env=play.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "CONNECTED" in line:
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM, rest
    assert "ended by SIGTERM" in rest
    check_opened(path)


def test_contactors_that_do_not_open_fail_the_session(play: Play, tmp_path: Path) -> None:
    source = """
from hal.contract import Command

def test_it(controller, rack):
    controller.connect()
    rack._rack.write = lambda command: None       # whatever is asked, nothing happens
    rack._rack.twin.electronics = None
"""
    session = play(source, "--rack", f"{RACK}&rack.watchdog_s=1e9")
    assert session.code == 1, session.out
    assert "the contactors did not open" in session.out


def test_contactors_that_do_not_open_at_the_very_end_fail_the_session(play: Play) -> None:
    source = """
import pytest

@pytest.fixture(scope="session")
def late(controller, rack):
    yield
    controller.connect()
    rack._rack.write = lambda command: None

def test_it(late): ...
"""
    session = play(source, "--rack", f"{RACK}&rack.watchdog_s=1e9")
    assert session.code == 1, session.out
    assert "the contactors did not open at the end of the session" in session.out


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rack", "sin:lfp_280"], "rack URL 'sin:lfp_280': unknown scheme 'sin' (did you mean 'sim'?)"),
        (["--rack", "sim:lfp_28"], "lfp_28"),
        (["--rack", "sim:site?racks=3"], "a site of many racks, where one rack is needed"),
        (["--rack-env", "none.toml"], "none.toml: cannot be read"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str, play: Play) -> None:
    session = play(USES_ALL, *options)
    assert session.code == 4, session.out
    lines = [line for line in session.out.splitlines() if message in line]
    assert lines
    assert "Traceback" not in session.out


# --- the text ---------------------------------------------------------------------------------------------------------


def test_the_examples_of_the_text_run(play: Play, repository: Path, tmp_path: Path) -> None:
    text = (repository / "docs" / "bench_rig.md").read_text()
    (source,) = re.findall(r"```python\n(# test_my_rack.py\n.*?)```", text, re.DOTALL)
    (env,) = re.findall(r"```toml\n(# rack.toml.*?)```", text, re.DOTALL)
    (tmp_path / "rack.toml").write_text(env)
    session = play(source, "--rack-env", "rack.toml")
    assert session.code == 0, session.out
    assert "3 passed" in session.last


def test_two_processes_do_not_share_a_rack(play: Play) -> None:
    play.environment["PYTEST_XDIST_WORKER"] = "gw0"
    assert "1 passed" in play("def test_it(rack): ...\n", "--rack", RACK).last
    session = play("def test_it(rack): ...\n", "--rack", "modbus:tcp://127.0.0.1:1")
    assert session.code == 4
    assert "one rack, one process: leave out -n" in session.out
