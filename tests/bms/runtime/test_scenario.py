"""Scenario files: what is understood, and one clear line for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bms.core.machine_table import Request
from bms.runtime import scenario as s
from bms.runtime.clock import VirtualClock
from bms.runtime.run import open_rack
from hal.errors import ConfigError


@pytest.mark.parametrize("name", s.names())
def test_built_in_scenarios_are_accepted_by_their_rack(name: str) -> None:
    scenario = s.load(name)
    assert scenario.description
    assert scenario.name == name
    with open_rack(scenario, VirtualClock()) as rack:
        assert rack.info.n_cells >= 16


def test_the_default_is_there() -> None:
    assert s.DEFAULT in s.names()
    assert {"frequency_regulation", "sodium_cycle", "nmc_v2g", "open_wire", "sodium_transport"} <= set(s.names())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("90", 90.0),
        ("90s", 90.0),
        ("30min", 1800.0),
        ("30 m", 1800.0),
        ("1.5h", 5400.0),
        (".5 d", 43200.0),
    ],
)
def test_times(value: object, expected: float) -> None:
    assert s.seconds(value, "duration") == expected


@pytest.mark.parametrize(
    "value", [0, -1, "0", "", "abc", "1w", "1 h 30", "-5", "1e3", True, None, float("inf"), float("nan"), [1]]
)
def test_times_that_are_none(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^here = "):
        s.seconds(value, "here")


def test_everything_in_a_file_arrives(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("""
[run]
description = "d"
rack = "sim:lfp_280?n_series=4"
cell = "lfp_280"
duration = "2h"
period_s = 0.1
initial_soc = 0.7
initial_soc_std = 0.1
config = "lfp_280"
[[request]]
request = "connect"
[[request]]
at = "1h"
request = "open"
[controller.limits]
voltage_margin_v = 0.01
[rack]
seed = 7
[duty]
kind = "constant"
[sensors]
[environment]
ambient_degc = 30.0
[[fault]]
kind = "coolant_stop"
""")
    scenario = s.load(path)
    assert (scenario.name, scenario.description, scenario.rack, scenario.cell) == (
        "mine",
        "d",
        "sim:lfp_280?n_series=4",
        "lfp_280",
    )
    assert (scenario.duration_s, scenario.period_s) == (7200.0, 0.1)
    assert (scenario.initial_soc, scenario.initial_soc_std) == (0.7, 0.1)
    assert scenario.config == "lfp_280"
    assert scenario.controller == {"limits": {"voltage_margin_v": 0.01}}
    assert scenario.requests == ((0.0, Request.CONNECT), (3600.0, Request.OPEN))
    assert set(scenario.tables) == {"rack", "duty", "sensors", "environment", "fault"}
    assert scenario.tables["rack"] == {"seed": 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nduratoin = 1", "[run]: unknown key 'duratoin' (did you mean 'duration'?)"),
        ("[runn]\n", "unknown table [runn] (did you mean 'run'?)"),
        ("top = 1\n", "unknown table [top]"),
        ("[controller.limts]", "[controller]: limts: unknown table (did you mean 'limits'?)"),
        ("[controller.limits]\nramp = 1", "[controller]: limits.ramp = 1: unknown key (did you mean 'ramp_s'?)"),
        ("[controller.limits]\nramp_s = 'x'", '[controller]: limits.ramp_s = "x": expected a number'),
        (
            "[controller.fault.charge_hott]",
            "[controller]: fault.charge_hott: no fault has this name (did you mean 'char",
        ),
        ("[request]\nat = 1", "request = {'at': 1}: expected a table, [[request]]"),
        ("[[request]]\nrequest = 'conect'", "number 1: request = 'conect' (did you mean 'connect'?); one of: open,"),
        ("[[request]]\nrequest = 'open'\nwhen = 1", "number 1: unknown key 'when'"),
        ("[[request]]\nrequest='open'\nat=5\n[[request]]\nrequest='open'\nat=5", "at = 5: must be later than that of"),
        ("[run]\nrack = 3", "[run] rack = 3: expected text"),
        ("[run]\nduration = 'soon'", "[run] duration = 'soon': expected a time"),
        ("[run]\nperiod_s = 0", "[run] period_s = 0: must be greater than 0"),
        ("[run]\ninitial_soc = 50", "[run] initial_soc = 50: must be a number in 0..1"),
        ("[run]\ninitial_soc_std = 0.1", "initial_soc_std is given without initial_soc"),
        ("run = 1", "run = 1: expected a table"),
        ("fault = 1", "fault = 1: expected a table"),
        ("[run\n", "not valid TOML"),
        ("[run]\nperiod_s = inf", "[run] period_s = inf: not a finite number; give one, or leave period_s out"),
        ("[rack]\ninitial_soc = nan", "[rack] initial_soc = nan: not a finite number"),
        ("[[fault]]\nkind = 'gas_alarm'\nat_s = nan", "[[fault]] number 1: at_s = nan: not a finite number"),
        ("[controller.limits]\nramp_s = -inf", "[controller.limits] ramp_s = -inf: not a finite number"),
        ("[duty]\nknd = 'cycle'", "unknown key 'knd' (did you mean 'kind'?)"),
        ("[rack]\nn_seris = 4", "unknown key 'n_seris' (did you mean 'n_series'?)"),
        ("[sensors]\nnoise = 4", "unknown key 'noise'"),
        ("[environment]\nambient_degc = 'hot'", "ambient_degc = 'hot'"),
    ],
)
def test_mistakes_name_file_key_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        open_rack(s.load(str(path)), VirtualClock())
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("frequency_regulatoin", "did you mean 'frequency_regulation'?"),
        ("no/such.toml", "cannot be read"),
        ("nosuch.toml", "cannot be read"),
    ],
)
def test_scenarios_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        s.load(name)
    assert message in str(caught.value)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        s.load(path)
