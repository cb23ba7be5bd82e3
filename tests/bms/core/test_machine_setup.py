from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bms.core import machine as m
from bms.core.machine_setup import (
    MachineSettings,
    bearable_v,
    contactor_mask,
    link_fall,
    machine_config,
    rated_current_a,
    string_ohm,
)
from bms.core.machine_table import NODES, Node, arrays
from hal.contract import Capabilities, Contactor, Field, RackInfo

LIMITS = type("Limits", (), {"v_min": 2.5, "v_max": 3.65, "max_discharge_c": 0.5})()


def info(**capabilities: bool) -> RackInfo:
    return RackInfo("rack", 416, 104, 1, 280.0, "", np.zeros(416, np.uint16), Capabilities(**capabilities))


def test_numbers_come_from_cell_rack_and_settings() -> None:
    s = MachineSettings(precharge_ohm=50.0, link_f=2e-3, link_bleed_ohm=1e4)
    setting = machine_config(LIMITS, info(), s).setting
    assert setting[m.OPEN_A] == pytest.approx(0.02 * 280.0)
    assert setting[m.PRECHARGE_A] == pytest.approx(0.01 * 280.0)
    assert setting[m.RATED_A] == pytest.approx(0.5 * 280.0)
    assert setting[m.PACK_MAX_V] == pytest.approx(416 * 3.65)
    assert (setting[m.WINDOW_V], setting[m.FILLED_V]) == (2.5, pytest.approx(2.55))
    # the link's own resistor divides: 1e4/(1e4 + 50) of the string, RC of both side by side
    assert setting[m.LINK_FINAL] == pytest.approx(1e4 / 10050.0)
    assert setting[m.LINK_TAU_S] == pytest.approx(2e-3 * 50.0 * 1e4 / 10050.0)
    assert setting[m.WELD_FALL] == pytest.approx(0.5 * (1.0 - math.exp(-10.0 / 20.0)))
    assert machine_config(LIMITS, info(), MachineSettings(contactor_rated_a=33.0)).setting[m.RATED_A] == 33.0


def test_of_a_short_string_the_mains_close_onto_what_contactors_bear() -> None:
    """416 groups of 0.5 mohm are 0.208 ohm: 29 V at the 140 A that they are rated for, and 5 V are less; of 16 1.12 V."""
    r0_ohm = np.array([[0.9e-3, 0.8e-3, 0.7e-3], [0.4e-3, 0.6e-3, 0.5e-3]])  # of a cold cell and of a warm one
    assert string_ohm(r0_ohm, 416, 1) == pytest.approx(0.208)
    assert string_ohm(r0_ohm, 16, 2) == pytest.approx(0.004)
    for n_series, close_v in ((416, 5.0), (16, 1.12)):
        setting = machine_config(LIMITS, info(), ohm=string_ohm(r0_ohm, n_series, 1)).setting
        assert setting[m.CLOSE_V] == pytest.approx(close_v)
        assert setting[m.PRECHARGE_FLOOR_V] == 5.0  # by which voltages differ otherwise
    wider = machine_config(LIMITS, info(), MachineSettings(precharge_floor_v=8.0, contactor_rated_a=200.0), ohm=0.008)
    assert wider.setting[m.CLOSE_V] == pytest.approx(1.6)
    assert machine_config(LIMITS, info(), MachineSettings(precharge_floor_v=8.0)).setting[m.CLOSE_V] == 8.0
    assert bearable_v(140.0, 0.008) == rated_current_a(LIMITS, 280.0, MachineSettings()) * 0.008


def test_every_setting_has_an_effect() -> None:
    """None is accepted and ignored: a change of any shows in the arrays."""
    base = machine_config(LIMITS, info(), chemistry="na_layered")
    for f in dataclasses.fields(MachineSettings):
        value = f.default
        if isinstance(value, bool):
            other: object = not value
        elif isinstance(value, int):
            other = value + 1
        else:
            other = 0.7 * value if isinstance(value, float) else 100.0
        changed = machine_config(LIMITS, info(), MachineSettings(**{f.name: other}), "na_layered")
        assert any(not np.array_equal(a, b) for a, b in zip(base, changed, strict=True)), f.name


def test_times_stand_at_their_nodes() -> None:
    time = machine_config(LIMITS, info()).time.reshape(-1, m.TIME_COLUMNS)
    assert time[Node.RAMP_DOWN, m.TIME_OUT_S] == 5.0
    assert time[Node.TRANSPORT_LINK, m.TIME_OUT_S] == 30.0
    assert time[Node.LOCKOUT, m.HOLD_TIME_S] == 60.0
    assert np.isinf(time[Node.CONNECTED]).all()
    for n in NODES:
        assert bool(n.time_out) == bool(np.isfinite(time[n.node, m.TIME_OUT_S]))


def test_arrays_have_the_size_of_their_fields() -> None:
    def size(f: Field) -> int:
        return math.prod(int(part) for part in f.dims.split("*"))

    config, state = machine_config(LIMITS, info()), m.machine_state()
    for fields, parts in ((m.CONFIG_FIELDS, config), (m.STATE_FIELDS, state)):
        assert [(f.kind, size(f)) for f in fields] == [(a.dtype.str[1:].replace("<", ""), a.size) for a in parts]
        assert [f.name for f in fields] == [f"machine_{name}" for name in parts._fields]
    np.testing.assert_array_equal(config.transition, arrays()[0])


def test_init_writes_all_of_the_memory() -> None:
    config, state, other = machine_config(LIMITS, info()), m.machine_state(), m.machine_state()
    for a in state:
        a.view(np.uint8)[:] = 0xA5
    m.machine_init(config, state)
    m.machine_init(config, other)
    for a, b in zip(state, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert state.word[m.NODE] == Node.INIT
    assert state.word[m.ROW] == m.NO_ROW


def test_the_rack_tells_which_contactors_there_are() -> None:
    assert contactor_mask(info()) == Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE | Contactor.PRECHARGE
    assert contactor_mask(info(precharge=False)) == Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE
    assert contactor_mask(info(contactors=False)) == Contactor.NONE
    assert link_fall(MachineSettings()) == pytest.approx(1.0 - math.exp(-10.0 / 250.0))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("precharge_ohm", 0.0, "precharge_ohm = 0.0: must be greater than 0"),
        ("precharge_ohm", "100", "precharge_ohm = '100': must be a number"),
        ("link_f", math.nan, "link_f = nan: must be a number"),
        ("ramp_time_out_s", True, "ramp_time_out_s = True: must be a number"),
        ("lockout_s", -1.0, "lockout_s = -1.0: must not be negative"),
        ("precharge_ratio", 1.0, "precharge_ratio = 1.0: must be a share below 1"),
        ("transport_settle_s", 1e5, "transport_settle_s = 100000.0: must not be longer than 10000 s"),
        ("precharge_attempts", 2.5, "precharge_attempts = 2.5: must be a whole number, 1 or more"),
        ("precharge_attempts", 0, "precharge_attempts = 0: must be greater than 0"),
        ("weld_test", 1, "weld_test = 1: must be true or false"),
        ("contactor_rated_a", 0.0, "contactor_rated_a = 0.0: must be greater than 0"),
    ],
)
def test_impossible_settings_are_named(key: str, value: object, text: str) -> None:
    with pytest.raises(ValueError) as error:
        MachineSettings(**{key: value})  # type: ignore[arg-type]
    assert str(error.value) == text


@pytest.mark.parametrize("key", ["self_test_s", "contactor_settle_s", "contactor_actuation_s", "lockout_s"])
def test_some_times_may_be_zero(key: str) -> None:
    assert getattr(MachineSettings(**{key: 0.0}), key) == 0.0


def test_only_sodium_ion_cells_go_to_0_v() -> None:
    allowed = MachineSettings(transport_allowed=True)
    for chemistry in ("lfp", "nmc", ""):
        with pytest.raises(ValueError, match=r"transport_allowed = True: only sodium-ion"):
            machine_config(LIMITS, info(), allowed, chemistry)
    assert machine_config(LIMITS, info(), allowed, "na_nfpp").flag[m.TRANSPORT_ALLOWED] == 1
    assert machine_config(LIMITS, info(), None, "lfp").flag[m.TRANSPORT_ALLOWED] == 0
