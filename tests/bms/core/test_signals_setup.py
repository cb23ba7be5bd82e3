"""Settings of the signals: what they become, and which of them no controller can work with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bms import cells
from bms.core import signals_layout as s
from bms.core.faults import Fault, Reaction, Row
from bms.core.signals_setup import SignalSettings, signals_config
from hal.contract import Capabilities, RackInfo, Severity


def info(n: int = 96, m: int = 24, n_parallel: int = 2, **changes: Any) -> RackInfo:
    """An NMC rack of two parallel cells of 56 Ah."""
    place = (np.arange(n) * m // n).astype(np.uint16)
    return replace(RackInfo("test", n, m, n_parallel, 112.0, "nmc_ev", place), **changes)


def test_currents_follow_the_rack_and_resistances_the_cell() -> None:
    cell = cells.load("nmc_ev")
    number = signals_config(cell, info()).number
    assert number[s.PER_CELL] == 0.5
    assert number[s.REST_A] == pytest.approx(1.12)
    assert number[s.CURRENT_RANGE_A] == pytest.approx(3.5 * 112)
    assert number[s.DISCHARGE_RATED_A] == pytest.approx(2.0 * 112)  # 2 C and 1 C in the cell file
    assert number[s.CHARGE_RATED_A] == pytest.approx(1.0 * 112)
    # nodes at 11 and 26 degC: 1.0 mohm of R0 and 0.25 of charge transfer and the first RC pair
    assert 1.1e-3 < number[s.FAST_OHM] < 1.5e-3
    assert number[s.CELL_OHM] > number[s.FAST_OHM]
    assert 0.02 < number[s.OHM_PER_KELVIN] < 0.05
    assert number[s.HEAT_CAPACITY_J_PER_K] == pytest.approx(19.0 * cell.capacity_ah)
    assert number[s.SPREAD_V_LOW] == pytest.approx(cell.ocv(0.2))
    assert number[s.SPREAD_V_HIGH] == pytest.approx(cell.ocv(0.9))


def test_voltages_of_string_and_link_follow_those_of_the_cells() -> None:
    cell = cells.load("nmc_ev")
    number = signals_config(cell, info()).number
    assert (number[s.PACK_V_LOW], number[s.PACK_V_HIGH], number[s.BUS_V_HIGH]) == (-48.0, 528.0, 528.0)
    assert number[s.SUM_FLOOR_V] == 48.0
    settings = SignalSettings(pack_v_min_v=-1.0, pack_v_max_v=600.0, bus_v_max_v=700.0, sum_floor_v=9.0)
    number = signals_config(cell, info(), settings).number
    assert (number[s.PACK_V_LOW], number[s.PACK_V_HIGH], number[s.BUS_V_HIGH]) == (-1.0, 600.0, 700.0)
    assert number[s.SUM_FLOOR_V] == 9.0


def test_ratings_can_be_those_of_fuse_and_contactors() -> None:
    settings = SignalSettings(
        rated_charge_c=0.5, rated_discharge_c=0.6, heat_capacity_j_per_k=1000.0, coolant_w_per_k=0.0
    )
    number = signals_config(cells.load("nmc_ev"), info(), settings).number
    assert (number[s.CHARGE_RATED_A], number[s.DISCHARGE_RATED_A]) == (56.0, pytest.approx(67.2))
    # (1.5^2 - 1) I^2 for 10 s, a 24th of it cooled away
    assert number[s.CHARGE_BUDGET_A2S] == pytest.approx(1.25 * 56**2 * 10 * (1 - 10 / 240), rel=0.003)
    assert (number[s.HEAT_CAPACITY_J_PER_K], number[s.COOLANT_W_PER_K]) == (1000.0, 0.0)


def test_every_number_is_set_and_finite() -> None:
    for name in ("lfp_280", "na_185", "nmc_ev", "lfp_a123", "na_hakadi"):
        number = signals_config(cells.load(name), info()).number
        assert number.size == s.N_NUMBERS
        assert np.isfinite(number).all()


def test_a_cell_known_at_one_temperature_has_no_slope(make_plain_cell: Any) -> None:
    cell = make_plain_cell()
    one = make_plain_cell(
        degc=cell.degc[1:2], ocv_v=cell.ocv_v[1:2], r0_ohm=cell.r0_ohm[1:2], rct_ohm=cell.rct_ohm[1:2],
        r_ohm=cell.r_ohm[:, 1:2], capacity=cell.capacity[1:2],
    )  # fmt: skip
    number = signals_config(one, info()).number
    assert number[s.OHM_PER_KELVIN] == 0.0
    assert number[s.FAST_OHM] == pytest.approx(float(np.median(cell.r0_ohm[1] + cell.rct_ohm[1] + cell.r_ohm[0, 1])))


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("contactors", s.HAS_CONTACTORS),
        ("precharge", s.HAS_PRECHARGE),
        ("insulation", s.HAS_INSULATION),
        ("cooling", s.HAS_COOLING),
        ("coolant_flow", s.HAS_COOLANT_FLOW),
        ("gas", s.HAS_GAS),
        ("bleed_feedback", s.HAS_BLEED_FEEDBACK),
    ],
)
def test_sources_are_those_of_the_rack(name: str, at: int) -> None:
    none = Capabilities(contactors=False, precharge=False)
    has = signals_config(cells.load("nmc_ev"), info(capabilities=replace(none, **{name: True}))).has
    assert list(np.flatnonzero(has)) == [at]


@pytest.mark.parametrize("sensors", [[], [0] * 95, [0] * 95 + [24], [0] * 97])
def test_every_cell_needs_a_sensor_that_exists(sensors: list[int]) -> None:
    with pytest.raises(ValueError, match="sensor_of_cell: must name one of 24 sensors for each of 96 cells"):
        signals_config(cells.load("nmc_ev"), info(sensor_of_cell=np.array(sensors, np.uint16)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_age_s": 0.0}, "max_age_s = 0.0: must be greater than 0"),
        ({"period_s": -1.0}, "period_s = -1.0: must be greater than 0"),
        ({"rise_tau_s": math.nan}, "rise_tau_s = nan: must be a number"),
        ({"rise_tau_s": math.inf}, "rise_tau_s = inf: must be a number"),
        ({"rise_tau_s": True}, "rise_tau_s = True: must be a number"),
        ({"rise_tau_s": "9"}, "rise_tau_s = '9': must be a number"),
        ({"cell_v_min_v": 5.5}, "cell_v_min_v = 5.5: must be below cell_v_max_v = 5.5"),
        ({"sensor_min_degc": 130.0}, "sensor_min_degc = 130.0: must be below sensor_max_degc"),
        ({"coolant_min_degc": 130.0}, "coolant_min_degc = 130.0: must be below coolant_max_degc"),
        ({"pack_v_min_v": 9.0, "pack_v_max_v": 8.0}, "pack_v_min_v = 9.0: must be below pack_v_max_v = 8.0"),
        ({"bus_v_max_v": -60.0}, "bus_v_min_v = -50.0: must be below bus_v_max_v = -60.0"),
        ({"insulation_max_ohm": 0.0}, "insulation_max_ohm = 0.0: must be greater than 0"),
        ({"flow_max_lpm": -1.0}, "flow_max_lpm = -1.0: must be greater than 0"),
        ({"coolant_w_per_k": -1.0}, "coolant_w_per_k = -1.0: must not be negative"),
        ({"overload": 1.0}, "overload = 1.0: must be greater than 1"),
        ({"start_degc": -300.0}, "start_degc = -300.0: must be above absolute zero"),
        ({"spread_soc_low": 0.95}, "spread_soc_low = 0.95: must be below spread_soc_high = 0.9"),
        ({"spread_soc_high": 1.1}, "spread_soc_low = 0.2: must be below spread_soc_high = 1.1"),
        ({"rated_charge_c": 0.0}, "rated_charge_c = 0.0: must be greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        SignalSettings(**changes)


def test_the_time_without_a_source_fades_within_a_third_more_than_its_first_row_bears() -> None:
    bare = signals_config(cells.load("lfp_280"), info()).number
    fades = np.arange(s.CELL_FADE_S, s.FADE_S + s.N_FADES)
    assert fades[-1] == s.N_NUMBERS - 1
    assert (bare[fades] == 0.0).all()  # without a row nothing is remembered
    rows = [
        Row(Fault.CELL_VOLTAGE_LOST, Severity.WARNING, 6.0, 1.0, 0.0, 5.0, Reaction.NONE),
        Row(Fault.CELL_VOLTAGE_LOST, Severity.INFO, 3.0, 1.0, 0.0, 5.0, Reaction.NONE),
        Row(Fault.TEMPERATURE_LOST, Severity.INFO, 9.0, 1.0, 0.0, 5.0, Reaction.NONE),
        Row(Fault.COOLANT_LOST, Severity.WARNING, 60.0, 1.0, 0.0, 5.0, Reaction.NONE),
        Row(Fault.CURRENT_LOST, Severity.FATAL, -1.0, -2.0, 0.0, 5.0, Reaction.NONE),
        Row(Fault.CELL_OVERVOLTAGE, Severity.INFO, 3.6, 3.5, 0.0, 5.0, Reaction.NONE),
    ]
    number = signals_config(cells.load("lfp_280"), info(), rows=rows).number
    expected = {
        s.CELL_FADE_S: 4.0, s.DEGC_FADE_S: 12.0, s.FADE_S + s.COOLANT_LOST_S - s.CURRENT_LOST_S: 80.0,
        s.FADE_S + s.FLOW_LOST_S - s.CURRENT_LOST_S: 80.0,
    }  # fmt: skip
    assert {int(at): float(number[at]) for at in fades if number[at]} == expected
    others = np.delete(np.arange(s.N_NUMBERS), fades)
    assert (number[others] == bare[others]).all()
