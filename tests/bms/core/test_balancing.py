"""Balancing: what is known of the excesses, who is bled, when, and where charge goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.cells import Limits
from bms.core import balancing as b
from bms.core import estimator_layout as e
from bms.core.balancing_setup import ACTIVE, BalancingSettings, balancing_config
from bms.core.seen import Seen
from hal.contract import LANES, Capabilities, Layout, RackInfo, Shuttle

f4 = np.float32
AH = 280.0
LIMITS = Limits(2.5, 3.65, 0.0, -20.0, 55.0, 0.5, 0.5)
NAN = f4(np.nan)
Array = npt.NDArray[Any]


def fake_estimator(soc: npt.ArrayLike, std: npt.ArrayLike) -> e.EstimatorState:
    """Filters that say `soc` with the cell's own deviation `std`, (n,)."""
    soc = np.asarray(soc, np.float32)
    lanes = -(-soc.size // LANES) * LANES
    state = e.EstimatorState(
        np.zeros(lanes * e.BLOCK_ROWS, np.float32),
        np.zeros(1, Layout("Shared", e.SHARED).head_dtype),
        np.zeros(e.OUT_ROWS * lanes, np.float32),
        np.full(lanes, e.OBSERVABLE, np.uint8),
        np.zeros(e.WORK, np.float32),
        np.zeros(LANES, np.int32),
    )
    say(state, soc, std)
    return state


def row(state: e.EstimatorState, number: int) -> Array:
    """Row `number` of all blocks, (n_blocks, LANES): a view."""
    return state.blocks.reshape(-1, e.BLOCK_ROWS, LANES)[:, number]


def say(state: e.EstimatorState, soc: npt.ArrayLike, std: npt.ArrayLike) -> None:
    soc = np.asarray(soc, np.float32)
    lanes = state.flags.size
    for number, values in ((e.Z, soc), (e.p_row(e.Z, e.Z), np.broadcast_to(np.square(std), soc.shape))):
        padded = np.resize(values, lanes)
        padded[soc.size :] = values[-1]
        row(state, number)[:] = padded.reshape(-1, LANES)
    state.out[: soc.size] = soc


class Balancer:
    """A balancing with everything that it is called with; `soc` are the true ones, which follow what it does."""

    def __init__(self, soc: npt.ArrayLike, std: npt.ArrayLike = 0.001, **changes: Any) -> None:
        self.soc = np.array(soc, np.float64)
        n = self.n = self.soc.size
        shuttle = changes.get("strategy") == ACTIVE
        info = RackInfo("r", n, 1, 1, AH, "", np.zeros(n, np.uint16), Capabilities(balancing=True, shuttle=shuttle))
        self.settings = BalancingSettings(**({"common_share": 0.0, "own_share": 1.0} | changes))
        self.config = balancing_config(LIMITS, info, self.settings)
        self.state = b.balancing_state(n)
        b.balancing_init(self.config, self.state)
        self.estimator = fake_estimator(self.soc, std)
        self.rel = np.ones(n, np.float32)
        self.v = np.full(n, 3.3, np.float32)
        self.balance, self.shuttle = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
        self.allowed, self.drain = True, False
        self.degc, self.v_low = 25.0, 3.3

    def seen(self) -> Seen:
        nothing = Seen(*[NAN] * len(Seen._fields))
        return nothing._replace(degc_high=f4(self.degc), cell_v_low=f4(self.v_low))

    def step(self, dt_s: float = 60.0) -> int:
        """One step, after what was asked in the last one has happened to the cells."""
        taken = self.balance * np.where(np.isfinite(self.v), self.v, 0.0) / self.settings.bleed_ohm * dt_s
        moved = self.settings.shuttle_a * dt_s
        for k in np.flatnonzero(self.shuttle):
            giver, taker = (k, k + 1) if self.shuttle[k] == Shuttle.TO_NEXT else (k + 1, k)
            taken[giver] += moved
            taken[taker] -= moved * self.v[giver] / self.v[taker] * self.settings.shuttle_efficiency
        self.soc -= taken / 3600.0 / AH
        return int(
            b.balance_step(
                self.config, self.state, self.estimator, self.rel, self.v, self.seen(), self.allowed, self.drain,
                self.balance, self.shuttle, f4(dt_s),
            )
        )  # fmt: skip

    def run(self, steps: int, dt_s: float = 60.0, *, std: float | None = None) -> None:
        """Steps in which the filters know the true SoC, with `std`; None: they are not told anything new."""
        for _ in range(steps):
            if std is not None:
                say(self.estimator, self.soc, std)
            self.step(dt_s)


# what is known


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_middle_is_the_lower_median_of_what_is_finite(values: list[float], bad: int) -> None:
    data = np.array(values + [np.nan, np.inf, -np.inf, np.nan, np.nan][:bad], np.float32)
    expected = float(np.sort(np.array(values, np.float32))[(len(values) - 1) // 2])
    span = max(values) - min(values)
    assert b.middle(data) == pytest.approx(expected, rel=3e-7, abs=3e-7 * span + 1e-30)


def test_the_middle_of_nothing_is_zero() -> None:
    assert b.middle(np.array([np.nan, np.inf], np.float32)) == 0.0


def noise_of(estimator: e.EstimatorState, n: int, own: float, common: float, capacity_var: float) -> Array:
    noise = np.zeros(n, np.float32)
    b.own_noise(estimator, np.ones(n, np.float32), f4(AH), f4(own), f4(common), f4(capacity_var), noise)
    return noise


def test_the_noise_is_the_cells_own_variance_and_what_the_others_have_left() -> None:
    estimator = fake_estimator([0.5, 0.5, 0.5, 0.5], [0.01, 0.01, 0.01, 0.03])
    mean = (3 * 0.01**2 + 0.03**2) / 4
    np.testing.assert_allclose(noise_of(estimator, 4, 0.4, 0.1, 0.0)[0], AH**2 * (0.4 * 1e-4 + 0.1 * mean), rtol=1e-5)
    np.testing.assert_allclose(noise_of(estimator, 4, 0.4, 0.1, 0.0)[3], AH**2 * (0.4 * 9e-4 + 0.1 * mean), rtol=1e-5)


def test_a_bias_counts_only_as_far_as_it_moves_cells_differently() -> None:
    estimator = fake_estimator([0.5] * 4, 0.0)
    estimator.shared["bias_var"] = 4.0
    row(estimator, e.S_FIRST + e.Z)[:] = 0.02
    np.testing.assert_allclose(noise_of(estimator, 4, 1.0, 1.0, 0.0), 0.0, atol=1e-6)
    row(estimator, e.S_FIRST + e.Z)[0, 0] = 0.06  # mean 0.03: apart by 0.03 and by 0.01
    np.testing.assert_allclose(
        noise_of(estimator, 4, 1.0, 1.0, 0.0), AH**2 * 4.0 * np.array([0.03, 0.01, 0.01, 0.01]) ** 2, rtol=1e-4
    )


def test_an_unknown_capacity_counts_with_the_charge_that_is_missing() -> None:
    noise = noise_of(fake_estimator([1.0, 0.9, 0.1], 0.0), 3, 1.0, 1.0, 0.01**2)
    np.testing.assert_allclose(np.sqrt(noise), [0.0, 0.1 * 2.8, 0.9 * 2.8], atol=1e-5)


def test_a_filter_without_numbers_knows_nothing() -> None:
    estimator = fake_estimator([0.5] * 3, 0.01)
    row(estimator, e.p_row(e.Z, e.Z))[0, 1] = np.nan
    row(estimator, e.p_row(e.Z, e.Z))[0, 2] = -1.0
    noise = noise_of(estimator, 3, 1.0, 0.0, 0.0)
    np.testing.assert_allclose(noise, [AH**2 * 1e-4, np.inf, np.inf], rtol=1e-5)


def test_the_excess_is_the_charge_over_the_middle_cell() -> None:
    r = Balancer([0.90, 0.91, 0.92, 0.88, 0.91])
    r.step()
    np.testing.assert_allclose(r.state.excess_ah, AH * np.array([-0.01, 0.0, 0.01, -0.03, 0.0]), atol=2e-3)
    assert r.state.number[b.SPREAD_AH] == pytest.approx(0.04 * AH, rel=1e-3)


def test_the_capacity_of_each_cell_counts() -> None:
    r = Balancer([0.8, 0.8, 0.8])
    r.rel[:] = 0.9, 1.0, 1.1
    r.step()
    np.testing.assert_allclose(r.state.excess_ah, AH * 0.2 * np.array([0.1, 0.0, -0.1]), atol=2e-3)


def test_what_all_cells_have_in_common_cancels() -> None:
    soc = np.array([0.50, 0.51, 0.49, 0.53])
    r = Balancer(soc, 0.001, start_soc=0.1)
    r.step()
    before = r.state.excess_ah.copy()
    for k in range(60):
        say(r.estimator, soc + 0.002 * k, 0.0009)
        r.step()
    np.testing.assert_allclose(r.state.excess_ah, before, atol=5e-3)


def test_nothing_replaces_what_is_better_known() -> None:
    r = Balancer([0.9, 0.91, 0.92], 0.002, start_soc=0.1, capacity_std=0.0)
    r.run(3, std=0.002)
    before = r.state.excess_ah.copy()
    say(r.estimator, [0.5, 0.4, 0.6], 0.05)  # a plateau: the filters know little, and are wrong
    r.run(600)
    np.testing.assert_allclose(r.state.excess_ah, before, atol=1e-4)
    # the doubt has grown with time, by 0.0003 of the capacity a day
    expected = AH * (0.002 + 0.0003 * 600 / 1440)
    np.testing.assert_allclose(np.sqrt(r.state.var), expected, rtol=0.02)


def test_nothing_is_learnt_where_no_voltage_tells() -> None:
    """A filter at rest on a plateau grows sure of what may be the offset of its sensor."""
    r = Balancer([0.56, 0.60, 0.64] * 5, 0.02)
    r.estimator.flags[:] = 0
    for std in (0.02, 0.01, 0.005):
        r.run(2000, std=std)
    np.testing.assert_array_equal(r.state.excess_ah, 0.0)
    np.testing.assert_allclose(np.sqrt(r.state.var), 0.3 * AH, rtol=1e-6)
    assert r.state.bled_ah.max() == 0.0


def test_a_cell_on_the_plateau_is_learnt_while_most_are_not() -> None:
    for flagged, learnt in ((8, True), (7, False)):
        r = Balancer([0.86] + [0.9] * 14, 0.002, start_soc=0.1)
        r.estimator.flags[:] = 0
        r.estimator.flags[r.n - flagged : r.n] = e.OBSERVABLE
        r.run(3)
        assert (r.state.excess_ah[0] < -5.0) == learnt


def test_a_cell_alone_at_the_knee_is_known_as_well_as_the_others_it_is_compared_with() -> None:
    """What the others err by is alike in them, but not in this one: nothing of it cancels."""
    std = np.array([0.002] + [0.02] * 14)
    r = Balancer([0.97] + [0.9] * 14, std, start_soc=0.1, own_share=0.5, common_share=0.1, capacity_std=0.0)
    r.estimator.flags[:] = 0
    r.estimator.flags[0] = e.OBSERVABLE
    r.step()
    expected = AH * np.sqrt(0.5 * 0.002**2 + np.mean(std**2))
    assert np.sqrt(r.state.var[0]) == pytest.approx(expected, rel=0.1)  # and some of the prior is left
    assert np.sqrt(r.state.var[1]) == pytest.approx(0.3 * AH, rel=1e-3)
    r.estimator.flags[:] = e.OBSERVABLE
    r.run(2, std=std)
    assert np.sqrt(r.state.var[0]) == pytest.approx(AH * np.sqrt(0.5 * 0.002**2 + 0.1 * np.mean(std**2)), rel=0.2)


def test_many_measurements_do_not_make_it_more_certain_than_one() -> None:
    r = Balancer([0.9, 0.91, 0.92], 0.003, start_soc=0.1, capacity_std=0.0)
    r.run(500, std=0.003)
    np.testing.assert_allclose(np.sqrt(r.state.var), 0.003 * AH, rtol=0.01)


def test_a_better_measurement_is_taken_over_as_far_as_it_is_better() -> None:
    r = Balancer([0.5, 0.5, 0.5], 0.02, start_soc=0.1, capacity_std=0.0)
    r.step()
    assert r.state.excess_ah[2] == pytest.approx(0.0, abs=1e-3)
    known = np.sqrt(r.state.var[2]) / AH
    say(r.estimator, [0.5, 0.5, 0.52], 0.01)
    r.step()
    gain = 1.0 - (0.01 / known) ** 2
    assert known == pytest.approx(0.02, rel=0.1)
    assert r.state.excess_ah[2] == pytest.approx(gain * 0.02 * AH, rel=0.01)
    # both may have erred in the same way
    assert np.sqrt(r.state.var[2]) / AH == pytest.approx((1 - gain) * known + gain * 0.01, rel=0.01)


# who is bled


def test_a_full_cell_is_bled_down_to_the_others_and_no_further() -> None:
    r = Balancer([0.9] * 15 + [0.907], 0.0005, capacity_std=0.0)
    r.run(48 * 60, std=0.0005)
    # it ends at `stop` above what the lowest cell may have, one deviation more than it is believed to have
    assert r.state.number[b.SPREAD_AH] == pytest.approx((r.settings.stop_soc + 0.0005) * AH, abs=0.03)
    assert r.soc[15] == pytest.approx(0.9, abs=2 * r.settings.start_soc)
    assert r.soc[:15].min() == pytest.approx(0.9, abs=1e-9)  # nobody else was touched
    assert r.balance.sum() == 0
    gone = (0.907 - r.soc[15]) * AH
    assert r.state.bled_ah[15] == pytest.approx(gone, rel=2e-3)
    energy = r.state.number[b.ENERGY_WH]
    assert energy == pytest.approx(gone * 3.3, rel=2e-3)


def test_the_count_goes_on_where_nothing_can_be_measured() -> None:
    r = Balancer([0.9] * 15 + [0.907], 0.0005)
    r.run(2, std=0.0005)
    say(r.estimator, r.soc, 0.1)
    r.run(48 * 60)
    assert r.soc[15] == pytest.approx(0.9, abs=2 * r.settings.start_soc)
    assert r.balance.sum() == 0


def test_the_filters_are_told_what_was_bled() -> None:
    r = Balancer([0.9] * 15 + [0.91], 0.0005)
    r.run(300)
    z = row(r.estimator, e.Z)[0] + row(r.estimator, e.Z_LOW)[0].astype(np.float64)
    assert z[15] == pytest.approx(r.soc[15], abs=2e-5)  # one decision's charge is still pending
    assert z[15] < 0.9097
    assert z[0] == f4(0.9)


@pytest.mark.parametrize("std", [0.05, 0.2, np.nan, np.inf])
def test_what_is_uncertain_is_left_alone(std: float) -> None:
    r = Balancer(np.linspace(0.45, 0.55, 32), std)
    r.run(200)
    assert r.state.bled_ah.max() == 0.0
    assert r.state.word[b.N_BLEEDING] == 0


def test_an_excess_must_be_beyond_its_doubt() -> None:
    for excess, bled in ((0.004, False), (0.008, True)):  # 2 x 0.002 and the start of 0.001: 0.005
        r = Balancer([0.9] * 15 + [0.9 + excess], 0.002, k_sigma=1.0, capacity_std=0.0)
        r.run(3)
        assert (r.state.bled_ah[15] > 0) == bled


def test_a_board_bears_its_budget_and_the_largest_go_first() -> None:
    soc = np.append(np.linspace(0.95, 0.92, 31), 0.80)
    r = Balancer(soc, 0.0005, board_w=1.7, board_cells=16)  # 3.3^2 / 33 = 0.33 W: five cells
    r.run(3, std=0.0005)
    on = r.state.chosen == 1
    assert on[:16].sum() == 5
    assert on[16:].sum() == 5
    assert np.flatnonzero(on).tolist() == [0, 1, 2, 3, 4, 16, 17, 18, 19, 20]


def test_a_rack_without_resistors_bleeds_nobody() -> None:
    r = Balancer([0.9, 0.95], 0.0005)
    r.config.size[b.BLEED] = 0
    r.run(5)
    assert r.balance.max() == 0


# when


def pattern(r: Balancer, steps: int, dt_s: float) -> list[int]:
    return [int(r.step(dt_s) > 0) for _ in range(steps)]


def bleeding_balancer(**changes: Any) -> Balancer:
    r = Balancer([0.9] * 15 + [0.95], 0.0005, **changes)
    r.run(1)
    while r.state.word[b.PAUSE] == 0:
        r.step(10.0)
    return r


def test_bleeding_pauses_for_all_cells_together() -> None:
    r = bleeding_balancer()
    assert "0" * 10 + "1" * 50 + "0" * 10 + "1" * 50 in "".join(map(str, pattern(r, 200, 1.0)))


def test_long_steps_alternate() -> None:
    seen = pattern(bleeding_balancer(), 20, 300.0)
    assert seen == [1, 0] * 10 or seen == [0, 1] * 10


@given(st.lists(st.floats(0.125, 40.0, width=32), min_size=5, max_size=60))
@settings(max_examples=40, deadline=None)
def test_no_stretch_of_bleeding_or_pause_is_longer_than_a_step_more(steps: list[float]) -> None:
    r = Balancer([0.9] * 15 + [0.95], 0.0005)
    r.run(2)
    stretch, last = 0.0, -1
    for dt_s in steps:
        on = int(r.step(dt_s) > 0)
        stretch = stretch + dt_s if on == last else dt_s
        last = on
        assert stretch <= (50.0 if on else 10.0) + 2 * 40.0


@pytest.mark.parametrize(
    "forbid",
    [
        lambda r: setattr(r, "allowed", False),
        lambda r: setattr(r, "degc", 50.5),
        lambda r: setattr(r, "degc", np.nan),
        lambda r: setattr(r, "v_low", 2.6),
        lambda r: setattr(r, "v_low", np.nan),
    ],
)
def test_bleeding_stops_at_once(forbid: Callable[[Balancer], None]) -> None:
    r = bleeding_balancer()
    while r.step(1.0) == 0:
        pass
    forbid(r)
    assert r.step(1.0) == 0
    assert r.balance.max() == 0
    assert sum(pattern(r, 130, 1.0)) == 0


@pytest.mark.parametrize(("name", "stop", "still", "again"), [("degc", 50.1, 48.0, 46.9), ("v_low", 2.61, 2.64, 2.67)])
def test_it_goes_on_only_when_well_inside(name: str, stop: float, still: float, again: float) -> None:
    r = bleeding_balancer()
    for value, some in ((stop, False), (still, False), (again, True), (still, True)):
        setattr(r, name, value)
        assert (sum(pattern(r, 120, 1.0)) > 0) == some


# towards 0 V


def test_draining_takes_every_cell_in_turn_within_the_budget() -> None:
    r = Balancer(np.full(40, 0.3), 0.2, board_w=1.7)
    r.drain = True
    r.v_low = 0.5  # the lowest voltage does not stop it
    seen = np.zeros(40)
    for _ in range(16 * 12):
        r.step(10.0)
        seen += r.balance
        for board in (r.balance[:16], r.balance[16:32], r.balance[32:]):
            assert board.sum() <= 5
    assert seen.min() > 0
    assert seen[:32].max() <= 2 * seen[:32].min()


def test_low_cells_are_drained_all_together() -> None:
    r = Balancer(np.full(16, 0.01), 0.2, board_w=1.7)
    r.drain, r.v[:] = True, 1.0  # 0.03 W each
    r.run(3, 1.0)
    assert r.balance.sum() == 16


def test_draining_begins_at_once_and_ends_at_once() -> None:
    r = Balancer(np.full(16, 0.5), 0.2)
    r.run(1, 1.0)
    r.drain = True
    assert r.step(1.0) > 0
    r.drain = False
    assert r.step(1.0) == 0


def test_heat_stops_draining_too() -> None:
    r = Balancer(np.full(16, 0.5), 0.2)
    r.drain, r.degc = True, 60.0
    assert r.step(1.0) == 0


# charge moved between neighbours


def test_charge_flows_down_a_chain() -> None:
    soc = np.full(8, 0.9)
    soc[0] = 0.94
    r = Balancer(soc, 0.0003, strategy=ACTIVE, module_cells=8)
    r.run(60 * 40, std=0.0003)
    assert np.ptp(r.soc) < 0.004
    assert r.shuttle.max() == 0
    # moving it costs some of it, bleeding would have cost 0.04 x 280 Ah
    assert (soc.sum() - r.soc.sum()) * AH < 0.5 * 0.04 * AH


def test_modules_are_brought_to_one_level_by_bleeding() -> None:
    r = Balancer([0.92] * 4 + [0.9] * 4, 0.0003, strategy=ACTIVE, module_cells=4)
    r.run(5)
    assert r.shuttle.max() == 0
    assert (r.state.chosen == 1).tolist() == [True] * 4 + [False] * 4


def test_a_transfer_is_counted_with_its_loss() -> None:
    r = Balancer([0.92, 0.9], 0.0003, strategy=ACTIVE, module_cells=2)
    r.v[:] = 3.4, 3.2
    r.config.size[b.BLEED] = 0
    r.config.setting[b.ON_S] = 1e9
    r.run(1)
    assert r.shuttle.tolist() == [Shuttle.TO_NEXT, Shuttle.NONE]
    r.run(30)
    assert r.state.bled_ah[0] == pytest.approx(2.0 * 30 / 60, rel=1e-3)
    assert r.state.bled_ah[1] == pytest.approx(-2.0 * 30 / 60 * 3.4 / 3.2 * 0.9, rel=1e-3)
    assert r.state.number[b.ENERGY_WH] == pytest.approx(0.1 * 2.0 * 30 / 60 * 3.4, rel=1e-3)  # a tenth is lost


@given(st.lists(st.floats(-5.0, 5.0, width=32), min_size=2, max_size=40), st.integers(2, 20))
@settings(max_examples=40, deadline=None)
def test_no_cell_takes_part_in_two_transfers(excess: list[float], module: int) -> None:
    r = Balancer(0.5 + np.array(excess) / AH, 0.0003, strategy=ACTIVE, module_cells=module)
    for _ in range(4):
        r.step(60.0)
        used = np.zeros(r.n, int)
        for k in np.flatnonzero(r.shuttle):
            assert (k + 1) % module != 0  # never across the border of a module
            used[k : k + 2] += 1
        assert used.max() <= 1


# whatever comes in


BAD = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, 3.4e38, 5.0, 0.5])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_input_gives_a_mask(data: st.DataObject) -> None:
    r = Balancer(np.linspace(0.85, 0.95, 20), 0.001, strategy=data.draw(st.sampled_from(["passive", ACTIVE])))
    r.run(2)
    for _ in range(4):
        at = data.draw(st.integers(0, 19))
        which = data.draw(st.sampled_from(["soc", "var", "z", "s", "v", "rel", "degc", "v_low", "bias"]))
        bad = f4(data.draw(BAD))
        if which == "soc":
            r.estimator.out[at] = bad
        elif which in ("var", "z", "s"):
            number = {"var": e.p_row(e.Z, e.Z), "z": e.Z, "s": e.S_FIRST + e.Z}[which]
            row(r.estimator, number)[at // LANES, at % LANES] = bad
        elif which == "bias":
            r.estimator.shared["bias_var"] = bad
        elif which in ("v", "rel"):
            getattr(r, which)[at] = bad
        else:
            setattr(r, which, bad)
        r.drain = data.draw(st.booleans())
        count = b.balance_step(
            r.config, r.state, r.estimator, r.rel, r.v, r.seen(), True, r.drain, r.balance, r.shuttle, f4(60.0)
        )
        assert 0 <= count <= 40
        assert r.balance.max() <= 1
        assert r.shuttle.max() <= 2
        assert np.isfinite(r.state.excess_ah).all()
        assert np.isfinite(r.state.var).all()
        assert np.isfinite(r.state.number).all()


def test_small_charges_are_not_lost_in_a_long_life() -> None:
    r = Balancer([0.9] * 15 + [0.95], 0.0005)
    r.state.bled_ah[15] = 2000.0
    for _ in range(20000):
        r.state.pending_as[15] = 0.36  # 0.1 mAh, less than a unit in the last place of 2000
        b._take_away(r.config, r.state, r.estimator, r.rel)
    assert r.state.bled_ah[15] == pytest.approx(2002.0, abs=2e-3)


def test_a_fresh_memory_is_written_whole() -> None:
    r = Balancer([0.9] * 4)
    for array in r.state:
        array[:] = 77
    b.balancing_init(r.config, r.state)
    for name, array in zip(b.BalancingState._fields, r.state, strict=True):
        assert array == pytest.approx(0.09 * AH * AH if name in ("var", "noise") else 0), name


def test_fields_are_those_of_the_tuples_in_their_order() -> None:
    assert [f.name for f in b.CONFIG_FIELDS] == [f"balancing_{name}" for name in b.BalancingConfig._fields]
    assert [f.name for f in b.STATE_FIELDS] == [f"balancing_{name}" for name in b.BalancingState._fields]
    kinds = [f.kind for f in b.STATE_FIELDS]
    assert kinds == sorted(kinds, key=["f4", "u4", "u2", "u1"].index)
