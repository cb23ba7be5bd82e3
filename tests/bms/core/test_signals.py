"""The measurement looked through: what may be used, what the faults see of cells and sensors, any value anywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import signals_layout as y
from bms.core.faults import ABOUT, N_FAULTS, Fault, Place
from bms.core.signals import signals_init
from bms.core.signals_layout import CALM, HELD, USABLE
from hal.contract import MEASUREMENT, NO_INDEX, Capabilities, Quality

F = Fault
ODD = [math.nan, math.inf, -math.inf, 0.0, 1e30, -1e30, 3.4e38, 1e9, -273.0, 5.6, -0.6, 121.0]
LOST = (
    F.CELL_VOLTAGE_LOST, F.TEMPERATURE_LOST, F.CURRENT_LOST, F.PACK_VOLTAGE_LOST, F.BUS_VOLTAGE_LOST, F.FEEDBACK_LOST,
    F.COOLANT_LOST, F.GAS_LOST, F.BLEED_LOST, F.INSULATION_INVALID,
)  # fmt: skip


def test_a_healthy_rack_is_complete_and_nothing_is_lost(bench: Any) -> None:
    seen = bench.look()
    assert seen.complete
    assert not seen.emergency_stop
    assert (seen.closed, seen.flow) == (3, 1)
    assert seen.current_a == 100.0
    assert seen.pack_v == pytest.approx(24 * 3.3)
    assert seen.bus_v == pytest.approx(24 * 3.3)
    assert (seen.cell_v_low, seen.cell_v_high) == (pytest.approx(3.3), pytest.approx(3.3))
    assert (seen.degc_low, seen.degc_high, seen.degc_mean) == (25.0, 25.0, 25.0)
    assert seen.coolant_in_degc == 20.0
    for fault in (*LOST, F.SAMPLE_LOST, F.VALUE_OUT_OF_RANGE, F.FEEDBACK_INVALID, F.INTERLOCK_OPEN, F.EMERGENCY_STOP):
        assert bench.value(fault) == 0.0, fault.name
    assert not bench.state.cell_quality.any()
    assert (bench.state.cell_use == USABLE | CALM | HELD).all()


def test_extremes_and_their_places(bench: Any) -> None:
    bench.m.cell_v[[5, 17]] = 3.1, 3.6
    bench.m.sensor_degc[[1, 4]] = 12.0, 40.0
    seen = bench.look()
    assert (seen.cell_low_at, seen.cell_high_at) == (5, 17)
    assert (seen.sensor_low_at, seen.sensor_high_at) == (1, 4)
    assert seen.cell_v_mean == pytest.approx((22 * 3.3 + 3.1 + 3.6) / 24, rel=1e-6)
    assert seen.degc_mean == pytest.approx((4 * 25 + 52) / 6)
    for fault, value, where in (
        (F.CELL_OVERVOLTAGE, 3.6, 17),
        (F.CELL_UNDERVOLTAGE, 3.1, 5),
        (F.DEEP_DISCHARGE, 3.1, 5),
        (F.CHARGE_HOT, 40.0, 4),
        (F.DISCHARGE_HOT, 40.0, 4),
        (F.CHARGE_COLD, 12.0, 1),
        (F.DISCHARGE_COLD, 12.0, 1),
        (F.TEMPERATURE_SPREAD, 28.0, 4),
    ):
        assert bench.value(fault) == pytest.approx(value, abs=1e-5), fault.name
        assert bench.where(fault) == where, fault.name


def test_every_cell_has_the_temperature_of_its_sensor(bench: Any) -> None:
    bench.look()
    assert (bench.state.cell_degc == 25.0).all()
    bench.m.sensor_degc[:] = np.arange(6)
    bench.look()
    assert list(bench.state.cell_degc) == [k * 6 // 24 for k in range(24)]


def test_a_lost_sensor_keeps_its_last_value(bench: Any) -> None:
    bench.m.sensor_degc[2] = 33.0
    bench.look()
    bench.m.sensor_degc[2] = math.nan
    bench.look(4.0)
    assert bench.state.cell_degc[8] == 33.0
    assert bench.seen.degc_high == 25.0  # but is not counted any more
    assert not bench.seen.complete


def test_before_a_sensor_has_told_anything_its_cells_have_the_start_temperature(make_signals: Any) -> None:
    bench = make_signals(start_degc=17.0)
    bench.m.sensor_degc_quality[:] = Quality.MISSING
    bench.look()
    assert (bench.state.cell_degc == 17.0).all()
    assert math.isnan(bench.seen.degc_mean)


# what may be used


@pytest.mark.parametrize("v", [math.nan, math.inf, -math.inf, 5.6, -0.6, 3.4e38])
def test_a_voltage_that_no_sensor_shows_is_refused_and_reported(bench: Any, v: float) -> None:
    bench.look()
    bench.m.cell_v[7] = v
    bench.look(0.5)
    seen = bench.look(0.5)
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 1.0
    assert bench.where(F.VALUE_OUT_OF_RANGE) == 7
    assert bench.value(F.CELL_VOLTAGE_LOST) == 1.0
    assert bench.where(F.CELL_VOLTAGE_LOST) == 7
    assert bench.state.cell_quality[7] & Quality.STALE
    assert not seen.complete
    assert seen.cell_v_high == pytest.approx(3.3)
    assert bench.state.cell_v[7] == pytest.approx(3.3)  # the last usable one


@pytest.mark.parametrize("v", [-0.5, 0.0, 5.5])
def test_a_voltage_inside_the_range_is_used(bench: Any, v: float) -> None:
    bench.m.cell_v[7] = v
    assert bench.look().complete
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 0.0


@pytest.mark.parametrize("degc", [-50.0, 0.0, 120.0])
def test_a_temperature_inside_the_range_is_used(bench: Any, degc: float) -> None:
    bench.m.sensor_degc[2] = degc
    assert bench.look().complete
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 0.0


@pytest.mark.parametrize("degc", [math.nan, math.inf, -math.inf, -60.0, 200.0])
def test_a_temperature_that_no_sensor_shows_is_refused_and_reported(bench: Any, degc: float) -> None:
    bench.look()
    bench.m.sensor_degc[2] = degc
    seen = bench.look()
    assert not seen.complete
    assert (seen.degc_low, seen.degc_mean, seen.degc_high) == (25.0, 25.0, 25.0)
    assert (bench.value(F.TEMPERATURE_LOST), bench.where(F.TEMPERATURE_LOST)) == (1.0, 2)
    assert (bench.value(F.VALUE_OUT_OF_RANGE), bench.where(F.VALUE_OUT_OF_RANGE)) == (1.0, NO_INDEX)


@pytest.mark.parametrize("cell", range(24))
def test_the_first_voltage_out_of_range_is_named(bench: Any, cell: int) -> None:
    bench.m.cell_v[cell:] = 9.0
    bench.look()
    assert (bench.value(F.VALUE_OUT_OF_RANGE), bench.where(F.VALUE_OUT_OF_RANGE)) == (24 - cell, cell)


@pytest.mark.parametrize("quality", [int(q) for q in Quality if q])
def test_any_flag_makes_a_value_unusable(bench: Any, quality: int) -> None:
    bench.m.cell_v_quality[3] = quality
    bench.m.sensor_degc_quality[2] = quality
    seen = bench.look()
    assert bench.value(F.CELL_VOLTAGE_LOST) == 1.0
    assert bench.value(F.TEMPERATURE_LOST) == 1.0
    assert (bench.where(F.CELL_VOLTAGE_LOST), bench.where(F.TEMPERATURE_LOST)) == (3, 2)
    assert bench.state.cell_quality[3] == quality | Quality.STALE
    assert not seen.complete
    assert bench.value(F.VALUE_OUT_OF_RANGE) == (2.0 if quality == Quality.OUT_OF_RANGE else 0.0)


@pytest.mark.parametrize("age_s", [2.1, math.nan, math.inf, -math.inf, -3.0])
def test_a_value_that_is_too_old_is_not_used(bench: Any, age_s: float) -> None:
    bench.m.cell_v_age_s[3] = age_s
    bench.m.sensor_degc_age_s[2] = age_s
    bench.look()
    assert bench.value(F.CELL_VOLTAGE_LOST) == 1.0
    assert bench.value(F.TEMPERATURE_LOST) == 1.0
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 0.0


def test_a_value_exactly_as_old_as_allowed_is_used(bench: Any) -> None:
    bench.m.cell_v_age_s[:] = 2.0
    bench.m.sensor_degc_age_s[:] = 2.0
    for name in ("current_a", "pack_v", "bus_v", "coolant_in_degc", "coolant_flow_lpm"):
        bench.head[name + "_age_s"] = 2.0
    assert bench.look().complete


def test_an_unchanged_sample_ages(bench: Any) -> None:
    bench.m.cell_v_age_s[3] = 1.5
    assert bench.look().complete
    assert bench.look(0.5, new=False).complete
    assert bench.value(F.SAMPLE_LOST) == 0.5
    assert not bench.look(0.5, new=False).complete
    assert bench.value(F.CELL_VOLTAGE_LOST) == 0.5
    assert bench.value(F.CURRENT_LOST) == 0.0  # measured later
    for _ in range(4):
        bench.look(0.5, new=False)
    for fault in set(LOST) - {F.INSULATION_INVALID}:
        assert bench.value(fault) > 0.0, fault.name
    assert bench.value(F.SAMPLE_LOST) == 3.0
    assert bench.seen.closed == -1
    assert bench.look().complete
    assert bench.value(F.SAMPLE_LOST) == 0.0


def test_an_unchanged_sample_is_good_as_long_as_a_value_may_be_old(bench: Any) -> None:
    bench.look()
    assert bench.look(2.0, new=False).complete
    assert bench.seen.closed == 3
    assert bench.value(F.GAS_LOST) == bench.value(F.BLEED_LOST) == 0.0
    assert not bench.look(0.25, new=False).complete
    assert bench.value(F.FEEDBACK_LOST) == bench.value(F.GAS_LOST) == bench.value(F.BLEED_LOST) == 0.25


def test_the_first_sample_is_new_whatever_its_number(bench: Any) -> None:
    bench.head["sequence"] = np.uint32(0xFFFFFFFF)
    bench.look()  # counts over to 0, as fresh memory has it
    assert bench.value(F.SAMPLE_LOST) == 0.0
    bench.look(new=False)
    assert bench.value(F.SAMPLE_LOST) == 1.0


def test_the_longest_loss_is_told_with_its_place(bench: Any) -> None:
    bench.m.cell_v_quality[11] = Quality.MISSING
    bench.look()
    bench.m.cell_v_quality[4] = Quality.MISSING
    bench.look()
    assert (bench.value(F.CELL_VOLTAGE_LOST), bench.where(F.CELL_VOLTAGE_LOST)) == (2.0, 11)
    bench.m.cell_v_quality[11] = 0
    bench.look()
    assert (bench.value(F.CELL_VOLTAGE_LOST), bench.where(F.CELL_VOLTAGE_LOST)) == (2.0, 4)
    bench.m.cell_v_quality[4] = 0
    bench.look()
    assert (bench.value(F.CELL_VOLTAGE_LOST), bench.where(F.CELL_VOLTAGE_LOST)) == (0.0, NO_INDEX)


def test_of_equal_losses_the_first_is_named(bench: Any) -> None:
    bench.m.cell_v_quality[[4, 11]] = Quality.MISSING
    bench.m.sensor_degc_quality[[0, 3]] = Quality.MISSING
    bench.look()
    assert (bench.where(F.CELL_VOLTAGE_LOST), bench.where(F.TEMPERATURE_LOST)) == (4, 0)


def test_without_any_usable_cell_nothing_is_known(bench: Any) -> None:
    bench.m.cell_v_quality[:] = Quality.MISSING
    bench.m.sensor_degc_quality[:] = Quality.MISSING
    seen = bench.look()
    assert all(math.isnan(x) for x in (seen.cell_v_low, seen.cell_v_high, seen.cell_v_mean, seen.degc_low))
    assert (seen.cell_low_at, seen.cell_high_at, seen.sensor_low_at, seen.sensor_high_at) == (-1, -1, -1, -1)
    for fault in (F.CELL_OVERVOLTAGE, F.CELL_UNDERVOLTAGE, F.DISCHARGE_HOT, F.DISCHARGE_COLD, F.TEMPERATURE_RISE):
        assert math.isnan(bench.value(fault)), fault.name
        assert bench.where(fault) == NO_INDEX
    assert seen.pack_v == pytest.approx(24 * 3.3)  # measured


# any value anywhere


def test_memory_and_its_fields_fit(bench: Any) -> None:
    size = {"cells": 24, "sensors": 6}
    for fields, arrays in ((y.CONFIG_FIELDS, bench.config), (y.STATE_FIELDS, bench.state)):
        for field, array in zip(fields, arrays, strict=True):
            assert array.dtype == np.dtype(field.kind), field.name
            assert array.size == (size[field.dims] if field.dims in size else int(field.dims)), field.name


def test_init_writes_everything(make_signals: Any) -> None:
    bench = make_signals()
    fresh = [array.tobytes() for array in bench.state]
    for array in bench.state:
        array[:] = 77
    signals_init(bench.config, bench.state)
    assert [array.tobytes() for array in bench.state] == fresh
    for array in (bench.state.cell_use, bench.state.sensor_use, bench.state.word, bench.state.number):
        assert not array.any()  # nothing may be used before it has been looked at
    assert (bench.state.cell_quality == Quality.STALE).all()


def check_defined(bench: Any) -> None:
    """Whatever was measured: nothing of it has got into the memory, and every fault has a value of its kind."""
    seen = bench.seen
    for name in seen._fields:
        assert not math.isinf(getattr(seen, name)), name
    assert seen.complete in (True, False)
    assert seen.closed in range(-1, 8)
    assert seen.flow in (-1, 0, 1)
    state = bench.state
    for name in ("number", "cell_lost_s", "residual_v", "cell_degc", "degc", "degc_lost_s", "degc_error"):
        assert np.isfinite(getattr(state, name)).all(), name
    for name in ("cell_v", "cell_mean_v", "degc_mean", "degc_fast", "degc_slow", "degc_model"):
        assert not np.isinf(getattr(state, name)).any(), name
    assert set(np.unique(state.cell_use)) <= {0, HELD, USABLE | HELD, USABLE | CALM | HELD}
    for fault in F:
        where = bench.where(fault)
        sizes = {Place.CELL: 24, Place.SENSOR: 6, Place.RAIL: 3}
        assert where == NO_INDEX or where < sizes.get(ABOUT[fault].place, 1), fault.name
    for fault in LOST:
        assert bench.value(fault) >= 0.0, fault.name


def spoil(bench: Any, name: str, index: int, number: float) -> None:
    """Write `number` to a field of the record, whatever its type: whole numbers take what is left of it."""
    array = bench.head[name] if name in bench.head.dtype.names else getattr(bench.m, name)
    if array.dtype.kind == "u":
        number = int(abs(number)) % 256 if math.isfinite(number) else 255
    array[index % array.size] = number


NAMES = [f.name for f in MEASUREMENT.fields if f.name not in ("time_s", "sequence")]


@pytest.mark.parametrize("name", NAMES)
def test_every_channel_takes_any_value(bench: Any, name: str) -> None:
    bench.look()
    healthy = bench.m.bytes.copy()
    array = bench.head[name] if name in bench.head.dtype.names else getattr(bench.m, name)
    checked = ("cell_v", "sensor_degc", "current_a", "pack_v", "bus_v", "insulation_ohm", "coolant_in_degc")
    for k, number in enumerate(ODD):
        bench.m.bytes[:] = healthy
        bench.head["sequence"] = 10 * (k + 1)
        spoil(bench, name, 3, number)
        for new in (True, False):
            bench.look(0.5, new)
            bench.judge(0.5)
            check_defined(bench)
        if name in checked and not math.isfinite(array[3 % array.size]):
            assert not bench.seen.complete
            assert bench.value(F.VALUE_OUT_OF_RANGE) == 1.0


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(NAMES), st.integers(0, 23), st.one_of(st.sampled_from(ODD), st.floats(width=32))),
        max_size=12,
    ),
    bleeding=st.lists(st.integers(0, 23), max_size=6),
    limits=st.tuples(st.floats(width=32), st.floats(width=32)),
    dt_s=st.sampled_from([0.01, 0.1, 1.0, 60.0, math.nan, 0.0, -1.0, math.inf]),
    new=st.booleans(),
)
def test_any_mixture_of_values_is_defined_and_forgotten(
    make_signals: Any,
    changes: list[tuple[str, int, float]],
    bleeding: list[int],
    limits: tuple[float, float],
    dt_s: float,
    new: bool,
) -> None:
    bench = make_signals()
    healthy = bench.m.bytes.copy()
    bench.look()
    for name, index, number in changes:
        spoil(bench, name, index, number)
    bench.asked[bleeding] = 1
    bench.limits = limits
    for _ in range(3):
        bench.look(dt_s, new)
        bench.judge(dt_s)
        check_defined(bench)
    bench.m.bytes[:] = healthy
    bench.head["sequence"] = 1000
    bench.look()
    bench.judge()
    assert bench.seen.complete
    for fault in LOST:
        assert bench.value(fault) == 0.0, fault.name


def test_swapped_channels_are_noticed(bench: Any) -> None:
    """The string's voltage where a cell's should be, current where voltage should be, cells where sensors should be."""
    bench.look()
    bench.m.cell_v[0] = 79.2
    bench.head["pack_v"] = 3.3
    bench.look()
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 1.0
    bench.m.cell_v[0] = 3.3
    bench.look()
    assert bench.value(F.SUM_IMPLAUSIBLE) > 1.0
    bench.head["pack_v"], bench.head["current_a"] = 1000.0, 79.2
    bench.look()
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 1.0
    assert not bench.seen.complete


def test_a_rack_without_sources_loses_none(make_signals: Any) -> None:
    bench = make_signals(can=Capabilities(contactors=False, precharge=False))
    for name in ("insulation_ohm", "coolant_in_degc", "coolant_flow_lpm", "bus_v"):
        bench.head[name + "_quality"] = Quality.MISSING
        bench.head[name] = math.nan
    for name in ("contactors", "bleeding", "gas_alarm"):
        bench.head[name + "_quality"] = Quality.MISSING
    seen = bench.look()
    assert seen.complete
    assert seen.closed == 0
    assert math.isnan(seen.bus_v)
    assert math.isnan(seen.coolant_in_degc)
    for fault in LOST:
        assert bench.value(fault) == 0.0, fault.name
    for fault in (
        F.INSULATION, F.INSULATION_POSITIVE, F.INSULATION_NEGATIVE, F.COOLANT_FLOW, F.COOLANT_HOT, F.COOLANT_COLD,
        F.GAS_ALARM, F.BLEED_STUCK_ON, F.BLEED_STUCK_OFF,
    ):  # fmt: skip
        assert math.isnan(bench.value(fault)), fault.name


def test_each_fault_of_the_signals_is_written_in_every_step(bench: Any) -> None:
    """What these parts know nothing of stays as it was; everything else is written anew."""
    others = {
        F.CONTACTOR_WELDED, F.CONTACTOR_STUCK_OPEN, F.WELD_CURRENT, F.WELD_VOLTAGE, F.STUCK_OPEN_VOLTAGE,
        F.CONTACTOR_WORN, F.PRECHARGE_TIMEOUT, F.PRECHARGE_VOLTAGE, F.PRECHARGE_CURRENT, F.PRECHARGE_RESISTOR,
        F.PRECHARGE_ATTEMPTS, F.CELL_LEAK, F.CAPACITY_LOW, F.RESISTANCE_HIGH, F.TRANSPORT_REVERSED,
        F.TRANSPORT_VOLTAGE, F.CONFIG_MISMATCH, F.CONFIG_DAMAGED, F.RESET_CAUSE, F.STORE_DAMAGED, F.SELF_TEST,
        F.RUNAWAY, F.RUNAWAY_RATES, F.HEAT_RESIDUAL, F.CELL_HOT,
    }  # fmt: skip
    bench.values[:] = -12345.0
    bench.look()
    bench.judge()
    written = {f for f in F if bench.value(f) != -12345.0}
    assert written == set(F) - others
    assert bench.values.size == N_FAULTS
