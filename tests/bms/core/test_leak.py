"""The leak of a cell: found from its charge, not from bleeding, capacity, or what cannot be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import estimator_layout as e
from bms.core import leak as lk
from bms.core.faults import N_FAULTS, Fault
from bms.core.leak_setup import LeakSettings, leak_config
from hal.contract import LANES, NO_INDEX, Layout, RackInfo

f4 = np.float32
AH = 280.0
LEAK = int(Fault.CELL_LEAK)
Array = npt.NDArray[Any]


def fake_estimator(n: int) -> e.EstimatorState:
    lanes = -(-n // LANES) * LANES
    return e.EstimatorState(
        np.zeros(lanes * e.BLOCK_ROWS, np.float32),
        np.zeros(1, Layout("Shared", e.SHARED).head_dtype),
        np.zeros(e.OUT_ROWS * lanes, np.float32),
        np.full(lanes, e.OBSERVABLE, np.uint8),
        np.zeros(e.WORK, np.float32),
        np.zeros(LANES, np.int32),
    )


class Watch:
    """A leak detection over `n` cells whose filters say `soc` with the deviation `std`."""

    def __init__(self, n: int = 20, std: float = 0.003, **changes: Any) -> None:
        self.n = n
        self.settings = LeakSettings(**({"own_share": 1.0, "common_share": 0.0} | changes))
        self.config = leak_config(RackInfo("r", n, 1, 1, AH, "", np.zeros(n, np.uint16)), self.settings)
        self.state = lk.leak_state(n)
        lk.leak_init(self.config, self.state)
        self.estimator = fake_estimator(n)
        self.soc = np.full(n, 0.6)
        self.rel, self.bled = np.ones(n, np.float32), np.zeros(n, np.float32)
        self.value = np.full(N_FAULTS, np.nan, np.float32)
        self.where = np.zeros(N_FAULTS, np.uint16)
        self.set_std(std)

    def set_std(self, std: float) -> None:
        self.row(e.p_row(e.Z, e.Z))[:] = std**2

    def row(self, number: int) -> Array:
        return self.estimator.blocks.reshape(-1, e.BLOCK_ROWS, LANES)[:, number]

    def step(self, dt_s: float = 60.0) -> None:
        self.estimator.out[: self.n] = self.soc
        lk.leak_step(self.config, self.state, self.estimator, self.rel, self.bled, self.value, self.where, f4(dt_s))

    def run(self, hours: float, leaks_a: dict[int, float] | None = None, dt_s: float = 300.0) -> None:
        for _ in range(round(hours * 3600.0 / dt_s)):
            for k, leak_a in (leaks_a or {}).items():
                self.soc[k] -= leak_a * dt_s / 3600.0 / AH
            self.step(dt_s)

    def std_a(self, which: int = lk.SLOW) -> Array:
        p = self.state.p.reshape(lk.N_FILTERS, lk.N_P, self.n)
        return np.sqrt(p[which, lk.II])


def test_a_leak_is_found_told_and_placed() -> None:
    w = Watch()
    w.run(8 * 24, {7: 0.1})
    assert w.state.leak_a[7] == pytest.approx(0.1, rel=0.1)
    assert w.where[LEAK] == 7
    expected = w.state.leak_a[7] - w.settings.k_sigma * w.std_a()[7]
    assert w.value[LEAK] == pytest.approx(1000 * expected, rel=1e-3)
    assert np.abs(np.delete(w.state.leak_a[: w.n], 7)).max() < 0.002


def test_a_large_leak_is_found_within_hours() -> None:
    w = Watch()
    w.run(48)
    w.run(6, {3: 5.0})
    assert w.value[LEAK] > 1000.0
    assert w.where[LEAK] == 3


def test_what_has_a_leak_no_longer_is_let_go() -> None:
    w = Watch()
    w.run(4 * 24, {3: 0.3})
    assert w.value[LEAK] > 100.0
    w.run(12 * 24)
    assert w.value[LEAK] < 25.0


def test_healthy_cells_leak_nothing() -> None:
    w = Watch()
    w.run(5 * 24)
    assert w.value[LEAK] == 0.0
    assert w.where[LEAK] == NO_INDEX
    np.testing.assert_allclose(w.state.leak_a, 0.0, atol=1e-4)


def test_nothing_is_told_before_anything_is_known() -> None:
    w = Watch()
    w.soc[:] = np.linspace(0.3, 0.9, w.n)  # unbalanced from the start
    for _ in range(600):
        w.step()
        assert w.value[LEAK] == 0.0
    np.testing.assert_allclose(w.state.leak_a, 0.0, atol=1e-2)


def test_noise_alone_does_not_alarm_and_the_deviation_is_honest() -> None:
    rng = np.random.default_rng(3)
    w = Watch(n=64, corr_s=300.0)
    for _ in range(12 * 24 * 10):
        w.soc[:] = 0.6 + 0.003 * rng.standard_normal(w.n)
        w.step(300.0)
        assert w.value[LEAK] == 0.0
    ratio = w.state.leak_a[: w.n] / w.std_a()
    assert np.abs(ratio).max() < 4.0
    assert 0.3 < ratio.std() < 1.3


def test_a_small_cell_is_no_leaking_cell() -> None:
    w = Watch(floor_soc=0.0005)
    capacity = 1.0 + np.append(np.zeros(w.n - 1), -0.03)
    for k in range(12 * 24 * 8):
        depth = 0.35 * np.sin(2 * np.pi * k / (12 * 24))
        w.soc[:] = 0.55 + depth / capacity
        w.step(300.0)
        assert w.value[LEAK] == 0.0
    # excess of the small cell over the middle one: depth (1/0.97 - 1), on a lever of depth
    assert w.state.capacity[w.n - 1] == pytest.approx(1 / 0.97 - 1, rel=0.25)
    assert abs(w.state.leak_a[w.n - 1]) < 0.02


def test_a_capacity_that_becomes_known_is_no_leak() -> None:
    """Cells of 80 % that nobody knows; of one after the other it is found out, of half of them never."""
    w = Watch()
    capacity = 0.8 + 0.01 * np.linspace(-1.0, 1.0, w.n)
    for k in range(20 * 10):
        depth = 0.36 * np.sin(2 * np.pi * k / (20 * 4))  # a cycle in 4 h
        w.soc[:] = 0.5 + depth / capacity
        known = max(k - 15, 0) // 4  # the first after three quarters of an hour, each 12 minutes one more
        for cell in range(min(known, w.n // 2)):
            w.rel[cell] = capacity[cell] + 0.01 * np.cos(7.0 * cell)
        w.step(180.0)
        assert w.value[LEAK] == 0.0
    np.testing.assert_array_equal(w.state.share, w.rel)
    assert np.abs(w.state.leak_a / np.ravel([w.std_a(lk.SLOW), w.std_a(lk.FAST)])).max() < 1.0


@pytest.mark.parametrize("soc", [0.2, 0.5, 0.9])
def test_a_capacity_that_becomes_known_hides_no_leak(soc: float) -> None:
    told, unaware = Watch(), Watch()
    for w in (told, unaware):
        w.soc[:] = soc
        w.run(48, {7: 0.3})
    told.rel[7] = 0.85
    for w in (told, unaware):
        w.run(3, {7: 0.3})
    assert told.where[LEAK] == 7
    assert told.value[LEAK] == pytest.approx(unaware.value[LEAK], rel=0.05)
    assert told.state.capacity[7] - unaware.state.capacity[7] == pytest.approx(-0.15, abs=0.01)


def test_a_capacity_that_is_known_from_the_start_is_reckoned_with() -> None:
    w = Watch()
    w.rel[7] = 0.8
    w.step()
    w.soc[:] = 0.3
    w.step()
    assert w.state.capacity[7] == pytest.approx(0.0, abs=0.01)
    assert w.state.share[7] == f4(0.8)


def test_a_capacity_waits_for_a_charge_that_is_a_number() -> None:
    w = Watch()
    w.step()
    w.rel[7], w.soc[7] = 0.8, np.nan
    w.step()
    assert (w.state.share[7], w.state.capacity[7]) == (1.0, 0.0)
    w.soc[7] = 0.6
    w.step()
    assert w.state.share[7] == f4(0.8)
    assert w.state.capacity[7] == pytest.approx(-0.2, abs=0.01)


def test_what_was_bled_has_not_leaked() -> None:
    w = Watch()
    for _ in range(12 * 24 * 8):
        w.soc[4] -= 0.1 / 12 / AH
        w.bled[4] += 0.1 / 12
        w.step(300.0)
        assert w.value[LEAK] == 0.0
    assert w.state.leak_a[4] == pytest.approx(0.0, abs=0.002)
    assert w.state.flow_a[4] == pytest.approx(0.1, rel=0.05)


def test_an_error_in_counting_does_not_alarm() -> None:
    w = Watch(count_error=0.05)
    for _ in range(12 * 24 * 15):
        w.soc[4] -= 0.104 / 12 / AH  # 4 % more is bled than is counted
        w.bled[4] += 0.1 / 12
        w.step(300.0)
        assert w.value[LEAK] == 0.0


def test_a_counter_that_is_set_anew_is_no_charge() -> None:
    w = Watch()
    w.bled[:] = 500.0
    w.step()
    np.testing.assert_array_equal(w.state.excess_ah, 0.0)
    np.testing.assert_array_equal(w.state.flow_a, 0.0)


def test_what_all_cells_lose_is_no_leak() -> None:
    w = Watch()
    w.run(24 * 4, dict.fromkeys(range(w.n), 0.5))
    assert w.value[LEAK] == 0.0
    np.testing.assert_allclose(w.state.leak_a, 0.0, atol=1e-3)


def test_a_plateau_teaches_nothing() -> None:
    w = Watch()
    w.run(72)
    before, std = w.state.leak_a.copy(), w.std_a().copy()
    w.estimator.flags[:] = 0
    w.run(72)  # the filters say the same as ever, because they learn nothing
    np.testing.assert_array_equal(w.state.leak_a, before)
    assert (w.std_a() > std).all()


def test_a_plateau_of_months_leaves_a_covariance_that_can_be_one() -> None:
    """The bound of x must bound what goes with it: alone it leaves a correlation of 8 after two weeks."""
    w = Watch()
    w.estimator.flags[:] = 0
    for days in (1, 13, 76):
        w.run(24 * days, dt_s=600.0)
        for xx, xi, ii, xc, ic, cc in w.state.p.reshape(lk.N_FILTERS, lk.N_P, w.n)[:, :, 0].astype(float):
            p = np.array([[xx, xi, xc], [xi, ii, ic], [xc, ic, cc]])
            std = np.sqrt(np.diag(p))
            assert np.linalg.eigvalsh(p / np.outer(std, std)).min() > 0.05
            assert std[0] == pytest.approx(0.3 * AH, rel=1e-3)
    # x has been within 84 Ah for 90 days: a leak of 84 Ah / 90 d is possible, and some more
    assert 84.0 / (90 * 24) < w.std_a(lk.SLOW)[0] < 0.2
    assert 84.0 / (90 * 24) < w.std_a(lk.FAST)[0] < 2.0


@pytest.mark.parametrize("days", [2, 14, 60])
def test_what_a_rest_on_the_plateau_hid_is_no_leak(days: int) -> None:
    """Two weeks of rest, and the first look shows SoC that differ by 4 %, more with each minute: as if 500 A leaked."""
    w = Watch(std=0.027)
    w.estimator.flags[:] = 0
    w.run(24 * days)
    w.estimator.flags[:] = e.OBSERVABLE
    off = np.linspace(-0.02, 0.02, w.n)
    for minute in range(240):
        w.soc = 0.6 + off * min(1.0 + minute / 15.0, 3.0)
        w.step(60.0)
        assert w.value[LEAK] == 0.0


def test_a_leak_during_a_rest_on_the_plateau_is_found_after_it() -> None:
    w = Watch()
    w.run(3 * 24)
    w.estimator.flags[:] = 0
    w.run(14 * 24, {7: 0.2})
    assert w.value[LEAK] == 0.0
    w.estimator.flags[:] = e.OBSERVABLE
    w.run(4, {7: 0.2})
    assert w.value[LEAK] > 100.0
    assert w.where[LEAK] == 7
    # it was tight before: what leaks now is more than the mean of the rest, if a leak grows as a random walk does
    assert 0.2 < w.state.leak_a[7] < 0.3


def test_a_cell_on_the_plateau_counts_while_most_are_not() -> None:
    for flagged, learnt in ((11, True), (10, False)):
        w = Watch()
        w.run(72)
        w.estimator.flags[:] = 0
        w.estimator.flags[w.n - flagged : w.n] = e.OBSERVABLE
        w.soc[0] -= 0.1
        w.run(1)
        assert (w.state.leak_a[0] != 0.0) == learnt


def test_uncertain_filters_teach_less() -> None:
    sure, unsure = Watch(std=0.003), Watch(std=0.03)
    for w in (sure, unsure):
        w.run(48, {2: 0.2})
    assert unsure.std_a()[2] > 2 * sure.std_a()[2]
    assert unsure.value[LEAK] == 0.0 < sure.value[LEAK]


def test_a_filter_that_does_not_explain_its_voltage_is_made_to_doubt() -> None:
    w = Watch()
    first = e.INNOVATION * w.estimator.flags.size
    w.estimator.out[first : first + w.n] = 0.02  # alike in all cells: an error of the model
    w.estimator.out[first + 5] = 0.02 - 0.012
    w.estimator.out[first + 6] = 0.02 - 0.004
    w.run(4, dt_s=60.0)
    std = np.sqrt(w.row(e.p_row(e.Z, e.Z)).ravel()[: w.n])
    np.testing.assert_allclose(np.delete(std, 5), 0.003, rtol=1e-4)
    # it is beyond 8 mV after 1800 s ln 3, and then grows by 0.05 an hour
    assert std[5] == pytest.approx(0.003 + 0.05 * (4 - 0.5 * np.log(3)), rel=0.03)


def test_innovations_that_are_no_numbers_say_nothing() -> None:
    w = Watch()
    first = e.INNOVATION * w.estimator.flags.size
    w.estimator.out[first : first + 4] = np.nan, np.inf, -np.inf, 50.0
    w.run(2)
    np.testing.assert_array_equal(w.state.innovation_v, 0.0)


def test_short_steps_add_up_to_a_period() -> None:
    short, long = Watch(), Watch()
    for w, dt_s in ((short, 0.5), (long, 60.0)):
        w.state.number[lk.SINCE_S] = 0.0
        w.run(1.0, {1: 2.0}, dt_s)
    np.testing.assert_allclose(short.state.leak_a, long.state.leak_a, rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(short.state.p, long.state.p, rtol=1e-3, atol=1e-4)


BAD = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, 3.4e38])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_input_gives_a_number_that_is_not_negative(data: st.DataObject) -> None:
    w = Watch()
    w.run(2)
    for _ in range(4):
        at = data.draw(st.integers(0, w.n - 1))
        which = data.draw(st.sampled_from(["soc", "var", "s", "rel", "bled", "innovation", "bias"]))
        bad = f4(data.draw(BAD))
        if which == "soc":
            w.soc[at] = bad
        elif which in ("var", "s"):
            w.row(e.p_row(e.Z, e.Z) if which == "var" else e.S_FIRST + e.Z)[at // LANES, at % LANES] = bad
        elif which == "innovation":
            w.estimator.out[e.INNOVATION * w.estimator.flags.size + at] = bad
        elif which == "bias":
            w.estimator.shared["bias_var"] = bad
        else:
            getattr(w, which)[at] = bad
        w.step(data.draw(st.sampled_from([0.01, 60.0, 1e6])))
        assert np.isfinite(w.value[LEAK])
        assert w.value[LEAK] >= 0.0
        for name in ("excess_ah", "leak_a", "capacity", "p", "flow_a", "innovation_v"):
            assert np.isfinite(getattr(w.state, name)).all(), name


def test_a_cell_without_numbers_does_not_hide_the_others() -> None:
    w = Watch()
    w.soc[0] = np.nan
    w.run(8 * 24, {7: 0.1})
    assert w.where[LEAK] == 7


def test_a_fresh_memory_is_written_whole() -> None:
    w = Watch()
    for array in w.state:
        array[:] = 77
    lk.leak_init(w.config, w.state)
    fresh = Watch().state
    for name, array in zip(lk.LeakState._fields, w.state, strict=True):
        np.testing.assert_array_equal(array, getattr(fresh, name), name)
    assert w.state.word[lk.WORST_AT] == NO_INDEX
    np.testing.assert_allclose(w.std_a(lk.SLOW), w.settings.prior_a)
    np.testing.assert_allclose(w.std_a(lk.FAST), w.settings.fast_prior_a)


def test_fields_are_those_of_the_tuples_in_their_order() -> None:
    assert [f.name for f in lk.CONFIG_FIELDS] == [f"leak_{name}" for name in lk.LeakConfig._fields]
    names = [f.name.removeprefix("leak_") for f in lk.STATE_FIELDS]
    assert [{"a": "leak_a"}.get(name, name) for name in names] == list(lk.LeakState._fields)
    kinds = [f.kind for f in lk.STATE_FIELDS]
    assert kinds == sorted(kinds, key=["f4", "u4", "u2", "u1"].index)
