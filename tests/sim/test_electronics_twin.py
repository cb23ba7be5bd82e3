"""What the backends do not reach: codes, edges of the limits, and the sums of ranges. The rest: tests/hal/backends."""

import math
from typing import Any

import numpy as np
import pytest

from hal.contract import COMMAND, MEASUREMENT, Contactor
from sim import electronics as E
from sim import layout as Y
from sim.site import Site


def test_bits_are_those_of_the_contract() -> None:
    assert E.MAIN_POSITIVE == Contactor.MAIN_POSITIVE
    assert E.MAIN_NEGATIVE == Contactor.MAIN_NEGATIVE
    assert E.PRECHARGE == Contactor.PRECHARGE


def make(n_racks: int = 1, **rack: Any) -> tuple[Site, Any, Any]:
    site = Site("lfp_280", {"rack": {"n_series": 8, **rack}, "duty": {"kind": "constant"}}, n_racks)
    record = np.zeros(n_racks, MEASUREMENT.dtype(8, site.sensors.n_sensors))
    commands = np.zeros(n_racks, COMMAND.dtype(8, site.sensors.n_sensors))
    site.attach(record, commands)
    site.start(0.0)
    return site, record, commands["head"]


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("contactors", 7, 0),
        ("contactors", 8, E.WRONG_CONTACTORS),
        ("limit_discharge_a", -0.0, 0),
        ("limit_discharge_a", -1e-6, E.WRONG_LIMIT),
        ("limit_charge_a", math.nan, E.WRONG_LIMIT + 1),
        ("limit_discharge_w", math.inf, E.WRONG_LIMIT + 2),
        ("limit_charge_w", -math.inf, E.WRONG_LIMIT + 3),
        ("cooling_degc", 90.0, 0),
        ("cooling_degc", 90.1, E.WRONG_COOLING),
        ("cooling_degc", math.nan, E.WRONG_COOLING),
        ("soc_mean", math.nan, 0),
    ],
)
def test_commands_are_checked(name: str, value: float, wrong: int) -> None:
    site, _, head = make(3)
    head[name][1] = value
    assert site.command() == ((1, wrong) if wrong else (-1, 0))


def test_an_unknown_soc_leaves_the_last() -> None:
    site, _, head = make()
    head["soc_mean"] = 0.25
    site.command()
    head["soc_mean"] = math.nan
    site.command()
    assert site.bank.string[0, Y.S_SOC] == 0.25


@pytest.mark.parametrize(
    ("requested", "path"), [(0, Y.OPEN), (1, Y.OPEN), (4, Y.OPEN), (5, Y.OPEN), (2, Y.OPEN), (6, Y.PRECHARGE)]
)
def test_what_path_contactors_make(requested: int, path: int) -> None:
    site, record, head = make()
    head["contactors"] = requested
    site.command()
    site.run(0.1)
    assert site.bank.logic[0, Y.L_PATH] == path
    assert record["head"]["contactors"] == requested


def test_a_welded_contactor_keeps_its_rack_on_the_link_after_the_watchdog_has_asked_once() -> None:
    site, record, head = make(contactor_make_a=0.1, watchdog_s=2.0)
    head["contactors"] = E.MAINS
    head["heartbeat"] = 1
    site.command()
    site.run(10.0)
    assert record["head"]["contactors"] == E.MAINS
    assert [("inrush" in e.text, e.time_s) for e in site.events] == [(True, 0.0), (False, 2.0)]
    site.run(10.0)
    assert len(site.events) == 2
    head["heartbeat"] = 2  # the controller is back, and falls silent again
    site.command()
    site.run(1.0)
    site.run(3.0)
    assert [e.time_s for e in site.events] == [0.0, 2.0, 22.0]


def test_without_a_living_controller_nothing_closes() -> None:
    site, record, head = make(watchdog_s=2.0)
    head["contactors"], head["heartbeat"] = E.MAIN_NEGATIVE | E.PRECHARGE, 1
    site.command()
    site.run(5.0)
    site.command()
    site.run(0.1)
    assert record["head"]["contactors"] == 0
    head["heartbeat"] = 2
    site.command()
    site.run(0.1)
    assert record["head"]["contactors"] == E.MAIN_NEGATIVE | E.PRECHARGE
