"""The limits whatever comes in: what is lost, what is no number, what never was there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import estimator_layout as e
from bms.core import power as p
from bms.core.faults import Reaction
from bms.core.power_setup import PowerSettings
from hal.contract import Constraint

from .power_rig import Bench


@pytest.mark.parametrize("lost", ["cell_v_low", "cell_v_high", "degc_low", "degc_high"])
@pytest.mark.parametrize("nothing", [float("nan"), float("inf")])
def test_what_is_lost_holds_the_limits_until_a_fault_or_time_ramps_them_to_0(lost: str, nothing: float) -> None:
    b = Bench()
    before = b.settle()
    well = {name: b.measured[name] for name in (lost, "pack_v")}
    watt = float(b.command.horizon_w[0])
    gone = {lost: nothing, "pack_v": nothing}
    for k in range(29):
        np.testing.assert_array_equal(b.step(dt_s=1.0, **gone), before)
        assert {b.reason(k) for k in range(8)} == {Constraint.DATA}
        assert float(b.command.reason_value[0]) == k + 1.0
    assert float(b.command.horizon_w[0]) == pytest.approx(watt, rel=1e-3)
    for left in (2 / 3, 1 / 3, 0.0, 0.0):
        np.testing.assert_allclose(b.step(dt_s=1.0, **gone), left * before, rtol=1e-5, atol=1e-4)
        assert b.reason(0) == b.reason(8) == Constraint.DATA
    np.testing.assert_allclose(b.settle(**well), before, rtol=1e-4)
    # a fault need not wait
    halved = b.step(dt_s=1.0, reaction=int(Reaction.DERATE), fault=473, **gone)
    np.testing.assert_allclose(halved, 0.5 * before, rtol=1e-4)
    both = int(Reaction.NO_CHARGE | Reaction.NO_DISCHARGE)
    for left in (2 / 3, 1 / 3, 0.0):
        np.testing.assert_allclose(b.step(dt_s=1.0, reaction=both, fault=473, **gone), left * before, atol=1e-3)
    assert b.reason(0) == Constraint.FAULT


def test_what_was_never_known_allows_nothing() -> None:
    b = Bench()
    for _ in range(5):
        assert b.step(degc_low=float("nan")).max() == 0.0
        assert b.reason(0) == Constraint.DATA
    assert b.settle(degc_low=25.0).min() > 0.0


@pytest.mark.parametrize("row", range(e.NX))
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_cell_without_a_state_allows_nothing(row: int, bad: float) -> None:
    b = Bench(n=40)
    b.step()
    values = b.get(row)
    values[33] = bad
    b.set(row, values)
    b.settle()
    assert b.command.horizon_a.max() == 0.0
    assert b.now() == (0.0, 0.0)
    assert {b.reason(k) for k in range(10)} == {Constraint.DATA}
    assert b.command.reason_index[0] == 33


def test_a_cell_without_a_temperature_allows_nothing() -> None:
    b = Bench(n=40)
    b.step()
    b.cell_degc[7] = np.nan
    b.settle()
    assert b.command.horizon_a.max() == 0.0
    assert b.reason(0) == Constraint.DATA
    assert b.command.reason_index[0] == 7


_ANY = st.floats(width=32)
_VALUE = st.one_of(_ANY, st.sampled_from([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 3.3, 65.0, 3.4e38]))


@settings(max_examples=150, deadline=None)
@given(
    seen=st.fixed_dictionaries(
        dict.fromkeys(("current_a", "pack_v", "cell_v_low", "cell_v_high", "degc_low", "degc_high"), _VALUE)
    ),
    states=st.lists(_VALUE, min_size=e.NX, max_size=e.NX),
    place=st.integers(-1, 70000),
    mode=st.integers(-1, 5),
    reaction=st.integers(0, 1023),
    heat=_VALUE,
    dt_s=_VALUE,
)
def test_whatever_comes_in_limits_are_numbers(
    seen: dict[str, float], states: list[float], place: int, mode: int, reaction: int, heat: float, dt_s: float
) -> None:
    b = Bench(n=17, settings=PowerSettings(pulse_charge=2.0, pack_v_min=50.0, pack_v_max=70.0))
    b.step()
    for row, value in enumerate(states):
        b.set(row, np.where(np.arange(17) == 3, value, b.get(row)))
    for _ in range(3):
        b.step(dt_s, cell_low_at=place, cell_high_at=place, mode=mode, reaction=reaction, i2t_charge=heat, **seen)
        for values in (b.command.horizon_a, b.command.horizon_w, b.state.number[p.NOW_A : p.NOW_W + 2]):
            assert np.all(values >= 0.0)
            assert not np.isinf(b.command.horizon_a).any()
        assert np.isfinite(b.command.reason_value).all()
        assert np.isfinite(b.command.reason_margin).all()
        assert b.command.horizon_a.max() <= 2.0 * b.cell.capacity_ah * 1.0001
