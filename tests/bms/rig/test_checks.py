"""Every finding is provoked on a twin, at rest and under load; healthy racks give none. What cannot be judged is said.

The checks of `checks`, `checks_values` and `checks_current` are tried together: one cause must be told once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bms import cells
from bms.core.machine_table import Request
from bms.rig.checks import judge
from bms.rig.driver import Driver
from bms.rig.verdict import GOOD, UNKNOWN, WRONG, Verdict
from bms.rig.watch import Watch
from bms.runtime.clock import VirtualClock
from bms.runtime.scenario import Scenario
from hal.backends.chaos import Change, Chaos
from hal.backends.chaos_wire import NO_FAULTS, WireFaults
from hal.contract import Measurement
from hal.registry import open_rack

KINDS = ("lfp_280", "na_185", "nmc_ev")
DUTIES: dict[str, dict[str, Any]] = {
    "rest": {"kind": "constant", "c_rate": 0.0},
    "load": {"kind": "constant", "c_rate": 0.3},
    "charge": {"kind": "constant", "c_rate": -0.3},
    "regulation": {"kind": "frequency"},
}


def look(
    kind: str = "lfp_280",
    changes: Sequence[Change] = (),
    wire: WireFaults = NO_FAULTS,
    *,
    duty: str = "load",
    connect: bool = True,
    n: int = 24,
    seconds: int = 60,
    seed: int = 1,
    known: bool = True,
) -> dict[str, Verdict]:
    """Watch a twin. The controller sees it as it is, the doctor what `changes` and `wire` make of it."""
    clock = VirtualClock()
    options = {"duty": DUTIES[duty]}
    with open_rack(f"sim:{kind}?n_series={n}&seed={seed}", clock=clock, options=options) as twin:
        watch = Watch(twin.info, cells.load(kind) if known else None)
        driver = Driver(twin, Scenario(rack=f"sim:{kind}"), clock)
        chaos = Chaos(twin, changes, seed, wire)
        chaos.open()
        seen = Measurement(twin.info.n_cells, twin.info.n_sensors)
        for _ in range(seconds):
            driver.step(Request.CONNECT if connect else Request.OPEN)
            chaos.read(seen)
            watch.take(seen, clock.now_s())
        driver.stop()
    return {verdict.check: verdict for verdict in judge(watch.seen())}


def wrong(verdicts: dict[str, Verdict]) -> dict[str, list[str]]:
    """{check: its findings as text}."""
    return {v.check: [f"{f.place}: {f.what}; {f.remedy}" for f in v.findings] for v in verdicts.values() if v.findings}


# --- healthy racks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duty", ["load", "charge"])
def test_a_healthy_rack_under_load_is_good_in_everything(kind: str, duty: str) -> None:
    for seed in (1, 2, 3):
        verdicts = look(kind, duty=duty, seed=seed)
        assert wrong(verdicts) == {}
        assert {v.state for v in verdicts.values()} == {GOOD}, verdicts


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_rack_at_rest_is_good_in_what_can_be_judged(kind: str) -> None:
    for seed in (1, 2, 3):
        verdicts = look(kind, connect=False, seed=seed)
        assert wrong(verdicts) == {}
        unknown = {name for name, v in verdicts.items() if v.state == UNKNOWN}
        assert unknown == {"sign of the current", "scale of the current"}
        assert "load the rack" in verdicts["sign of the current"].note


@pytest.mark.parametrize("kind", KINDS)
def test_whole_racks_cold_and_hot_are_good(kind: str) -> None:
    for seed in (4, 5):
        assert wrong(look(kind, n={"lfp_280": 416, "na_185": 352, "nmc_ev": 96}[kind], seed=seed)) == {}


def test_a_wire_that_loses_a_frame_of_a_hundred_is_good() -> None:
    verdicts = look(wire=WireFaults(drop=0.01), seconds=120)
    assert wrong(verdicts) == {}


def test_a_rack_whose_cells_nobody_knows_is_judged_as_far_as_that_goes() -> None:
    verdicts = look(known=False)
    assert wrong(verdicts) == {}
    assert verdicts["scale of the current"].state == UNKNOWN
    assert "--cell" in verdicts["scale of the current"].note
    assert verdicts["sign of the current"].state == GOOD


# --- what is wrong ----------------------------------------------------------------------------------------------------

C = Change
FINDINGS: dict[str, tuple[tuple[Change, ...], str, str]] = {
    # name: (changes, check, what the finding says); at rest and under load alike
    "a cell is missing": ((C("cell_v", "missing", 3),), "missing values", "cell 3: no value in any sample"),
    "a sensor is missing": ((C("sensor_degc", "missing", 1),), "missing values", "sensor 1: no value in any sample"),
    "the current is missing": ((C("current_a", "missing"),), "missing values", "current_a: no value in any sample"),
    "a cell comes and goes": ((C("cell_v", "flicker", 3, value=4.0),), "missing values", "cell 3: no value in up to"),
    "the feedback is missing": ((C("contactors", "missing"),), "missing values", "contactors: no value in 100%"),
    "a cell is no number": (
        (C("cell_v", "nan", 3),),
        "missing values",
        "cell 3: no value in any sample (not a number)",
    ),
    "a cell is old": ((C("cell_v", "stale", 3),), "age", "cell 3: up to"),
    "the current is old": ((C("current_a", "stale"),), "age", "current_a: up to"),
    "words of the cells": ((C("cell_v", "swap"),), "bytes and words", "with bytes in the other order"),
    "bytes of the string": ((C("pack_v", "swap"),), "bytes and words", "pack_v:"),
    "bytes of a sensor": ((C("sensor_degc", "swap"),), "bytes and words", "with bytes in the other order"),
    "cells in millivolts": ((C("cell_v", "gain", value=1000.0),), "scale of voltages", "1000 times too large"),
    "cells ten times too small": ((C("cell_v", "gain", value=0.1),), "scale of voltages", "10 times too small"),
    "one cell ten times too small": ((C("cell_v", "gain", 5, value=0.1),), "scale of voltages", "cell 5:"),
    "string ten times too small": ((C("pack_v", "gain", value=0.1),), "scale of voltages", "divide the scale"),
    "a cell that no cell can have": ((C("cell_v", "stuck", 5, value=7.0),), "scale of voltages", "cell 5: 7 V, which"),
    "kelvin": ((C("sensor_degc", "offset", value=273.15),), "temperatures", "kelvin"),
    "tenths of a degree": ((C("sensor_degc", "gain", value=10.0),), "temperatures", "10 times too large"),
    "an open sensor": ((C("sensor_degc", "stuck", 1, value=-127.0),), "temperatures", "sensor 1: -127 degC"),
    "a sensor unlike the others": ((C("sensor_degc", "offset", 1, value=35.0),), "temperatures", "sensor 1:"),
    "coolant in kelvin": ((C("coolant_in_degc", "offset", value=273.15),), "temperatures", "coolant_in_degc"),
    "string off by three per cent": ((C("pack_v", "gain", value=1.03),), "sum of the cells", "pack_v:"),
    "a cell left out": ((C("pack_v", "gain", value=25 / 24),), "sum of the cells", "25 cells would fit"),
    "everything stands still": (
        (C("cell_v", "stuck"), C("current_a", "stuck"), C("pack_v", "stuck")),
        "standing still",
        "rack: all 24 cells stand still",
    ),
    "two cells stand still": ((C("cell_v", "stuck", (3, 7)),), "standing still", "cells 3, 7: not a digit has changed"),
    "an open interlock": ((C("interlock_closed", "zero"),), "inputs", "interlock_closed: the loop is open"),
    "an emergency stop": ((C("emergency_stop", "stuck", value=1),), "inputs", "emergency_stop: is pressed"),
    "gas": ((C("gas_alarm", "stuck", value=1),), "inputs", "gas_alarm: smoke or gas"),
    "an input of the wrong bits": (
        (C("interlock_closed", "stuck", value=5),),
        "inputs",
        "5, which is none of its values",
    ),
    "samples dropped for ten seconds": ((C("", "drop", from_s=30.0, until_s=40.0),), "update", "no sample for 1"),
}


@pytest.mark.parametrize("connect", [False, True], ids=["at rest", "under load"])
@pytest.mark.parametrize("what", FINDINGS)
def test_it_finds(what: str, connect: bool) -> None:
    changes, check, says = FINDINGS[what]
    found = wrong(look(changes=changes, connect=connect))
    assert check in found, found
    assert any(says in text for text in found[check]), found
    assert all(len(text) < 300 and "\n" not in text for texts in found.values() for text in texts)
    # one cause is told once: what is wrong by itself does not spoil the other checks
    assert set(found) <= {check, "missing values" if "no number" in what else check}, found


LOADED: dict[str, tuple[tuple[Change, ...], str, str]] = {
    "charge is positive": (
        (C("current_a", "gain", value=-1.0),),
        "sign of the current",
        "turn the sign of the current",
    ),
    "ten times too large": ((C("current_a", "gain", value=10.0),), "scale of the current", "10 times too large"),
    "ten times too small": ((C("current_a", "gain", value=0.1),), "scale of the current", "10 times too small"),
    "in milliamperes": (
        (C("current_a", "gain", value=1000.0),),
        "scale of the current",
        "more than ten times the capacity",
    ),
    "the current stands still": ((C("current_a", "stuck", from_s=40.0),), "standing still", ""),
    "link at half of the string": ((C("bus_v", "gain", value=0.5),), "scale of voltages", "bus_v: 50% of pack_v"),
    "link in tenths": ((C("bus_v", "gain", value=10.0),), "scale of voltages", "bus_v: 10 times too large"),
    "the feedback says open": ((C("contactors", "zero"),), "inputs", "although all contactors are seen open"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", [name for name in LOADED if name != "the current stands still"])
def test_it_finds_under_load(what: str, kind: str) -> None:
    changes, check, says = LOADED[what]
    found = wrong(look(kind, changes=changes))
    assert set(found) == {check}, found
    assert says in found[check][0]


@pytest.mark.parametrize("what", ["charge is positive", "ten times too large", "ten times too small"])
def test_at_rest_sign_and_scale_of_the_current_are_not_judged(what: str) -> None:
    changes, check, _ = LOADED[what]
    verdicts = look(changes=changes, connect=False)
    assert verdicts[check].state == UNKNOWN


def test_cells_that_all_stand_still_are_found_under_load_and_not_called_good_at_rest() -> None:
    frozen = (C("cell_v", "stuck"),)
    verdict = look(changes=frozen, connect=False)["standing still"]
    assert (verdict.state, verdict.findings) == (UNKNOWN, [])
    assert verdict.note.startswith("at rest: no cell changes by a digit")
    assert "rack: all 24 cells stand still" in wrong(look(changes=frozen))["standing still"][0]


def test_a_current_that_stands_still_under_load_is_found() -> None:
    clock = VirtualClock()
    with open_rack("sim:lfp_280?n_series=24", clock=clock, options={"duty": DUTIES["load"]}) as twin:
        driver = Driver(twin, Scenario(rack="sim:lfp_280"), clock)
        driver.connect()
        driver.run(20.0)
        chaos = Chaos(twin, [Change("current_a", "stuck")])
        chaos.open()
        watch, seen = Watch(twin.info, cells.load("lfp_280")), Measurement(24, twin.info.n_sensors)
        for _ in range(40):
            driver.step()
            chaos.read(seen)
            watch.take(seen, clock.now_s())
        driver.stop()
    found = wrong({v.check: v for v in judge(watch.seen())})
    assert set(found) == {"standing still"}
    assert found["standing still"][0].startswith("current_a:")
    assert "not a digit has changed over 40 samples" in found["standing still"][0]


WIRES: dict[str, tuple[WireFaults, str]] = {
    "drop": (WireFaults(drop=0.3), "age"),
    "stale": (WireFaults(stale=1.0, from_s=30.0), "update"),
    "freeze": (WireFaults(freeze=1.0), "standing still"),
    "bus_off": (WireFaults(bus_off=1.0, from_s=10.0), "update"),
    "exception": (WireFaults(exception=0.1), "missing values"),
    "corrupt": (WireFaults(corrupt=0.3), "bytes and words"),
    "swap_words": (WireFaults(swap_words=1.0), "bytes and words"),
    "never heard of": (WireFaults(drop=1.0), "update"),
}


@pytest.mark.parametrize("connect", [False, True], ids=["at rest", "under load"])
@pytest.mark.parametrize("what", WIRES)
def test_it_finds_a_bad_wire(what: str, connect: bool) -> None:
    wire, check = WIRES[what]
    verdicts = look(wire=wire, connect=connect)
    assert verdicts[check].state == WRONG, wrong(verdicts)


def test_swapped_words_are_told_apart_from_swapped_bytes() -> None:
    found = wrong(look(wire=WireFaults(swap_words=1.0)))["bytes and words"]
    assert any("cells 0, 1, 2, 3 and 20 more" in text and "with words in the other order" in text for text in found)
    assert any("current_a" in text for text in found)
    assert any("sensor" in text for text in found)


def test_whole_numbers_with_swapped_bytes_are_found() -> None:
    """As a register of 16 bits in 0.1 mV, read in the wrong order."""

    def swapped(volt: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.rint(volt * 1e4).astype(np.uint16).byteswap() * np.float32(1e-4)

    clock = VirtualClock()
    with open_rack("sim:lfp_280?n_series=24", clock=clock) as twin:
        watch, m = Watch(twin.info, cells.load("lfp_280")), Measurement(24, twin.info.n_sensors)
        for _ in range(30):
            clock.wait_until(clock.now_s() + 1.0, lambda: False)
            twin.read(m)
            m.cell_v[:] = swapped(m.cell_v)
            watch.take(m, clock.now_s())
    found = wrong({v.check: v for v in judge(watch.seen())})
    assert "bytes and words" in found
    assert "with bytes in the other order" in found["bytes and words"][0]


# --- times ------------------------------------------------------------------------------------------------------------


def judged(times_s: Sequence[float], span_s: float | None = None) -> Verdict:
    """The verdict about samples that came at these times."""
    clock = VirtualClock()
    with open_rack("sim:lfp_280?n_series=4", clock=clock) as twin:
        watch, m = Watch(twin.info, None), Measurement(4, twin.info.n_sensors)
        for number, time_s in enumerate(times_s):
            twin.read(m)
            m.head["time_s"], m.head["sequence"] = time_s, number
            watch.take(m, time_s)
        if span_s is not None:
            watch.take(m, span_s)
        return judge(watch.seen())[0]


def test_the_period_is_told() -> None:
    verdict = judged([0.1 * k for k in range(100)])
    assert verdict.state == GOOD
    assert verdict.note == "100 ms, jitter 0 ms, longest gap 100 ms"


@pytest.mark.parametrize(
    ("times_s", "span_s", "says"),
    [
        ([], None, "no sample in"),
        ([0.0, 1.0], 60.0, "2 samples in 60 s"),
        ([2.0 * k for k in range(30)], None, "a sample every 2 s"),
        ([0.1 * k for k in range(50)] + [10.0 + 0.1 * k for k in range(50)], None, "no sample for 5.1 s"),
        ([0.1 * k for k in range(50)], 60.0, "no sample for 55.1 s"),
        ([0.1 * k + (0.9 if k % 10 > 6 else 0.0) for k in range(100)], None, "time: goes back by"),
        ([k * 0.2 + (1.2 * (k // 5)) for k in range(100)], None, "samples 200 to 1400 ms apart, 200 ms as a rule"),
    ],
)
def test_times_that_are_wrong(times_s: list[float], span_s: float | None, says: str) -> None:
    verdict = judged(times_s, span_s)
    assert verdict.state == WRONG
    assert says in f"{verdict.findings[0].place}: {verdict.findings[0].what}", verdict
