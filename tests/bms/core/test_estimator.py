"""What the estimator does in cases that can be worked out by hand, with bad inputs, and on a plateau."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.cells import CellParameters
from bms.core import estimator_layout as e
from bms.core.estimator import estimator_step
from bms.core.estimator_setup import cell_rows, estimator_config, estimator_state

f4 = np.float32
NAN = f4(np.nan)
COVARIANCE = np.array([[e.p_row(i, j) for j in range(e.NX)] for i in range(e.NX)])
VARIANCES = [e.p_row(j, j) for j in range(e.NX)]


class Filter:
    """An estimator with its arrays, one value per argument for all cells unless an array is given."""

    def __init__(self, cell: CellParameters, n: int = 1, soc: float = 0.5, std: float = 0.1, **tuning: float) -> None:
        self.config = estimator_config(cell, tuning)
        self.state = estimator_state(self.config, n, soc, std)
        self.n = n

    def step(
        self, volt: object = NAN, ampere: float = 0.0, degc: object = 25.0, dt: float = 1.0, *, quality: object = 0,
        current_quality: int = 0,
    ) -> int:  # fmt: skip
        def array(value: object, kind: type) -> np.ndarray:
            return np.full(self.n, value, kind)

        return int(
            estimator_step(
                self.config, self.state, array(volt, np.float32), array(quality, np.uint8), array(degc, np.float32),
                f4(ampere), np.uint8(current_quality), f4(dt),
            )
        )  # fmt: skip

    def rest(self, seconds: int, volt: object = NAN, ampere: float = 0.0, dt: float = 1.0) -> None:
        for _ in range(round(seconds / dt)):
            self.step(volt, ampere, dt=dt)

    @property
    def rows(self) -> np.ndarray:
        """States, covariance and sensitivities of the cells, (BLOCK_ROWS, n): a copy."""
        return cell_rows(self.state.blocks, self.n)

    @property
    def variances(self) -> np.ndarray:
        return self.rows[VARIANCES]

    def smallest_eigenvalue(self) -> float:
        """Of the matrices of correlation of all cells: what rounding takes from a covariance, it takes here first."""
        p = self.rows.astype(np.float64)[COVARIANCE].transpose(2, 0, 1)
        scale = 1.0 / np.sqrt(np.einsum("cii->ci", p))
        return float(np.linalg.eigvalsh(p * scale[:, :, None] * scale[:, None, :]).min())

    def out(self, row: int) -> np.ndarray:
        """One row of the results, (n,)."""
        return self.state.out.reshape(e.OUT_ROWS, -1)[row, : self.n]

    @property
    def flags(self) -> np.ndarray:
        return self.state.flags[: self.n]

    @property
    def soc(self) -> float:
        return float(self.out(e.SOC)[0])

    @property
    def std(self) -> float:
        return float(self.out(e.SOC_STD)[0])


def copied(state: e.EstimatorState) -> e.EstimatorState:
    return e.EstimatorState(*(array.copy() for array in state))


def bytes_of(state: e.EstimatorState) -> list[bytes]:
    """Everything that is state or output (`work` and `node` are scratch)."""
    scratch = ("work", "node")
    return [array.tobytes() for name, array in zip(state._fields, state, strict=True) if name not in scratch]


@pytest.fixture
def straight_cell(make_plain_cell: Callable[..., CellParameters]) -> CellParameters:
    """A cell that can be worked out by hand: straight OCV, no hysteresis, the same at all temperatures and SoC."""
    same = np.ones(3)
    return make_plain_cell(
        soc=np.array([0.0, 1.0]), ocv_v=np.tile([3.0, 4.0], (3, 1)), hysteresis_v=np.zeros((3, 2)),
        r0_ohm=np.full((3, 5), 0.01), rct_ohm=np.zeros((3, 5)), r_ohm=np.full((4, 3, 5), 0.005), capacity=2.0 * same,
        coulombic_efficiency=0.99 * same, hysteresis_instant_v=0.0 * same,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- worked out by hand


def test_without_voltage_it_counts_charge(straight_cell: CellParameters) -> None:
    f = Filter(straight_cell, soc=0.8)
    f.rest(1800, ampere=1.0)
    assert f.soc == pytest.approx(0.8 - 0.5 / 2.0 + 0.0, abs=1e-6)
    f.rest(1, ampere=-1.0)  # the mean of +1 and -1 A is nothing
    f.rest(1800, ampere=-1.0)
    assert f.soc == pytest.approx(0.55 + 0.99 * 0.5 / 2.0, abs=2e-6)


def test_the_current_between_two_samples_is_their_mean(straight_cell: CellParameters) -> None:
    f = Filter(straight_cell, soc=0.5)
    for k in range(11):
        f.step(ampere=0.2 * k, dt=36.0)
    # the first sample holds for its whole step: 0; then a ramp from 0 to 2 A over 360 s
    assert f.soc == pytest.approx(0.5 - 360.0 / 3600.0 / 2.0, abs=1e-6)


def test_an_rc_pair_answers_a_step_as_an_exponential(straight_cell: CellParameters) -> None:
    f = Filter(straight_cell)
    for k in range(1, 301):
        f.step(ampere=2.0)
        for j, tau_s in enumerate(straight_cell.tau_s):
            expected = 2.0 * 0.005 * (1.0 - np.exp(-k / tau_s))
            assert float(f.rows[e.V1 + j, 0]) == pytest.approx(expected, rel=1e-4)
    model_v = 3.0 + (0.5 - 300 * 2.0 / 7200.0) - float(f.rows[: e.NRC, 0].sum()) - 0.01 * 2.0
    assert float(f.out(e.MODEL_V)[0]) == pytest.approx(model_v, abs=2e-6)


@pytest.mark.parametrize("dt", [0.1, 1.0, 30.0])
def test_the_answer_does_not_depend_on_the_step(straight_cell: CellParameters, dt: float) -> None:
    f = Filter(straight_cell, soc=0.9)
    f.rest(600, ampere=2.0, dt=dt)
    for j, tau_s in enumerate(straight_cell.tau_s):
        assert float(f.rows[e.V1 + j, 0]) == pytest.approx(0.01 * (1.0 - np.exp(-600 / tau_s)), rel=1e-3)
    assert f.soc == pytest.approx(0.9 - 1200 / 7200, abs=2e-6)


def test_hysteresis_runs_into_its_limits_exponentially(plain_cell: CellParameters) -> None:
    f = Filter(plain_cell, soc=0.9)
    gamma, capacity_as = 80.0, 7200.0
    for k in range(1, 501):
        f.step(ampere=1.0)
        assert float(f.rows[e.H, 0]) == pytest.approx(-1.0 + np.exp(-gamma * k / capacity_as), abs=2e-5)
    h = float(f.rows[e.H, 0])
    f.step(ampere=-1.0)
    for k in range(1, 501):
        f.step(ampere=-1.0)
        charged = 0.995 * gamma * k / capacity_as
        assert float(f.rows[e.H, 0]) == pytest.approx(1.0 - (1.0 - h) * np.exp(-charged), abs=5e-5)
    f.rest(3000, ampere=-1.0)
    assert float(f.rows[e.H, 0]) == pytest.approx(1.0, abs=1e-5)  # nearer, a step is below half an ulp
    assert np.all(np.abs(f.rows[e.H]) <= 1.0)


def test_rest_leaves_hysteresis_where_it_was(plain_cell: CellParameters) -> None:
    f = Filter(plain_cell)
    f.rest(60, ampere=1.0)
    f.step()
    h = float(f.rows[e.H, 0])
    f.rest(3600)
    assert float(f.rows[e.H, 0]) == h


def test_temperature_chooses_the_parameters(plain_cell: CellParameters) -> None:
    drop = {}
    for degc in (0.0, 12.5, 25.0):
        f = Filter(plain_cell)
        f.step(degc=degc)
        rest_v = float(f.out(e.MODEL_V)[0])
        f.step(ampere=0.002, degc=degc)
        drop[degc] = (rest_v - float(f.out(e.MODEL_V)[0])) / 0.002
    assert drop[0.0] > drop[12.5] > drop[25.0]
    assert drop[25.0] == pytest.approx(float(np.interp(0.5, plain_cell.soc_r, (plain_cell.r0_ohm + plain_cell.rct_ohm)[1])), rel=0.05)  # fmt: skip


def test_a_voltage_on_a_steep_curve_corrects_at_once(straight_cell: CellParameters) -> None:
    f = Filter(replace(straight_cell, voltage_error_v=np.full(3, 1e-4)), soc=0.3, std=0.2, voltage_std=0.002)
    f.rest(600, volt=3.5)
    assert f.soc == pytest.approx(0.5, abs=0.005)
    assert f.std < 0.01


# ---------------------------------------------------------------------------------------------------- single precision


def test_charge_too_small_for_single_precision_is_not_lost(straight_cell: CellParameters) -> None:
    """0.1 C at 100 ms moves SoC by 2.8e-6 a step; 0.002 C by 5.6e-8, less than half an ulp of 0.7."""
    for c_rate, tolerance in ((0.1, 1e-5), (0.002, 1e-6)):
        f = Filter(straight_cell, soc=0.7)
        naive = f4(0.7)
        step = f4(f4(c_rate * 2.0) * f4(f4(0.1) / f4(7200.0)))
        for _ in range(36000):
            f.step(ampere=c_rate * 2.0, dt=0.1)
            naive = f4(naive - step)
        assert f.soc == pytest.approx(0.7 - c_rate, abs=tolerance)
        assert abs(float(naive) - (0.7 - c_rate)) > 3 * tolerance, "plain float32 would do: this test tests nothing"


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -1e20, 4000.0])
def test_a_cell_without_voltage_is_predicted_only_and_its_neighbours_do_not_notice(
    plain_cell: CellParameters, bad: float
) -> None:
    good, mixed = Filter(plain_cell, 3, common=1.0), Filter(plain_cell, 3, common=1.0)
    for f in (good, mixed):
        f.state.shared["bias_var"] = 0.0  # the bias is what the cells of a string share: leave it out
    std0 = mixed.std
    for _ in range(300):
        assert good.step(3.25, 0.5) == e.STATUS_OK
        assert mixed.step(np.array([3.25, bad, 3.25]), 0.5) == e.STATUS_VOLTAGE_BAD
    assert mixed.flags.tolist() == [m | s for m, s in zip(good.flags.tolist(), [0, e.SKIPPED, 0], strict=True)]
    np.testing.assert_array_equal(good.rows[:, [0, 2]], mixed.rows[:, [0, 2]])
    for row in range(e.OUT_ROWS):
        np.testing.assert_array_equal(good.out(row)[[0, 2]], mixed.out(row)[[0, 2]])
    assert np.isnan(mixed.out(e.INNOVATION)[1])
    assert np.all(np.isfinite(mixed.rows))
    assert mixed.out(e.SOC)[1] == pytest.approx(0.5 - 300 * 0.5 / 7200, abs=1e-6)
    assert mixed.out(e.SOC_STD)[1] >= std0
    assert mixed.out(e.SOC_STD)[0] < std0


def test_a_voltage_of_bad_quality_is_not_used_however_good_it_looks(plain_cell: CellParameters) -> None:
    a, b = Filter(plain_cell, 2), Filter(plain_cell, 2)
    for _ in range(50):
        assert a.step(np.array([3.3, np.nan]), 0.2) & e.STATUS_VOLTAGE_BAD
        assert b.step(np.array([3.3, 2.9]), 0.2, quality=np.array([0, 2])) & e.STATUS_VOLTAGE_BAD
    assert bytes_of(a.state) == bytes_of(b.state)


@pytest.mark.parametrize(("bad", "quality"), [(np.nan, 0), (np.inf, 0), (-np.inf, 0), (1e30, 0), (0.7, 2)])
def test_a_current_that_cannot_be_used_is_replaced_by_the_last_good_one(
    plain_cell: CellParameters, bad: float, quality: int
) -> None:
    f, g = Filter(plain_cell), Filter(plain_cell)
    for x in (f, g):
        assert x.step(ampere=1.0) & e.STATUS_CURRENT_BAD == 0
    for _ in range(600):
        assert f.step(ampere=bad, current_quality=quality) & e.STATUS_CURRENT_BAD
        g.step(ampere=1.0)
    np.testing.assert_array_equal(f.rows[e.Z], g.rows[e.Z])
    assert f.std > g.std, "not knowing the current costs certainty"
    assert f.step(ampere=1.0) & e.STATUS_CURRENT_BAD == 0
    assert np.all(np.isfinite(f.rows))


@pytest.mark.parametrize("dt", [0.1, 1.0, 10.0])
def test_a_missing_current_costs_the_same_certainty_at_every_step_size(
    straight_cell: CellParameters, dt: float
) -> None:
    """Off by 0.1 C and the last current, the same for about ten minutes: std = doubt sqrt(1200 s t) / (3600 s Q)."""
    f = Filter(straight_cell, std=0.01, bias_std_c=0.0, bias_walk_c=0.0, q_std=1e-6)
    capacity_ah = straight_cell.capacity_ah
    f.step(ampere=0.25 * capacity_ah, dt=dt)
    f.rest(1800, ampere=np.nan, dt=dt)
    grown = 0.35 * np.sqrt(1200.0 * 1800.0) / 3600.0
    assert np.sqrt(f.std**2 - 0.01**2) == pytest.approx(grown, rel=0.02)
    assert f.std > 0.25 * 0.5 / 3.0, "had nothing flowed, the truth (12.5 % away) would still be within three"


def test_a_step_without_a_duration_changes_no_charge(straight_cell: CellParameters) -> None:
    f = Filter(straight_cell)
    f.step(3.3, 0.5)
    before = f.rows[e.Z].copy()
    for dt in (np.nan, 0.0, -1.0):
        f.step(np.nan, 0.5, dt=dt)
    np.testing.assert_array_equal(f.rows[e.Z], before)
    assert np.all(np.isfinite(f.rows))


def test_a_first_current_that_cannot_be_used_counts_as_none(plain_cell: CellParameters) -> None:
    f = Filter(plain_cell)
    assert f.step(ampere=np.nan) == e.STATUS_CURRENT_BAD | e.STATUS_VOLTAGE_BAD
    assert f.soc == 0.5


@pytest.mark.parametrize(("degc", "taken"), [(np.nan, 25.0), (np.inf, 25.0), (500.0, 60.0), (-200.0, -30.0)])
def test_a_temperature_beyond_belief_is_limited(plain_cell: CellParameters, degc: float, taken: float) -> None:
    f, g = Filter(plain_cell), Filter(plain_cell)
    for _ in range(20):
        f.step(3.28, 1.0, degc)
        g.step(3.28, 1.0, taken)
    assert bytes_of(f.state) == bytes_of(g.state)


def test_an_outlier_moves_the_estimate_less_than_its_own_deviation(straight_cell: CellParameters) -> None:
    f = Filter(straight_cell, std=0.02)
    f.rest(300, volt=3.5)
    before, std = f.soc, f.std
    f.step(9.0)
    assert abs(f.soc - before) < std
    f.rest(300, volt=3.5)
    assert f.soc == pytest.approx(0.5, abs=2 * std)


any32 = st.floats(width=32)
plausible_v = st.floats(2.0, 4.0, width=32)
sample = st.tuples(
    st.one_of(plausible_v, any32), st.one_of(st.floats(-20, 20, width=32), st.floats(-1999, 1999, width=32), any32), st.one_of(st.floats(-40, 70, width=32), any32),
    st.sampled_from([0.0010000000474974513, 0.1, 1.0, 10.0, 60.0, 3600.0, 1e6]), st.sampled_from([0, 0, 0, 1, 2, 64]), st.sampled_from([0, 0, 0, 2]),
)  # fmt: skip


@settings(max_examples=150)
@given(st.lists(sample, min_size=1, max_size=40), st.floats(0.0, 1.0), st.floats(1e-3, 0.5))
def test_nothing_that_is_measured_can_break_the_filter(
    plain_cell: CellParameters, samples: list[tuple[float, ...]], soc: float, std: float
) -> None:
    f = Filter(plain_cell, 2, soc, std)
    for volt, ampere, degc, dt, quality, current_quality in samples:
        for _ in range(5):
            f.step(np.array([volt, 3.3]), ampere, np.array([degc, 25.0]), dt, quality=np.array([quality, 0]), current_quality=current_quality)  # fmt: skip
        for array in (f.state.blocks, f.out(e.SOC), f.out(e.SOC_STD), f.out(e.MODEL_V)):
            assert np.all(np.isfinite(array))
        assert np.all(np.isfinite([f.state.shared[0][k] for k in ("bias_a", "bias_var", "last_a")]))
        assert np.all((f.out(e.SOC) >= 0) & (f.out(e.SOC) <= 1))
        assert np.all(f.out(e.SOC_STD) > 0)
        assert np.all(f.variances > 0)
        assert f.smallest_eigenvalue() > 1e-7
        assert f.state.shared["bias_var"][0] >= 0


@pytest.mark.parametrize("ampere", [20.0, 200.0, 1900.0])
@pytest.mark.parametrize("then", [np.nan, 0.0], ids=["lost", "none"])
@pytest.mark.parametrize("dt", [1.0, 60.0, 3600.0, 1e6])
def test_not_knowing_has_an_end(plain_cell: CellParameters, ampere: float, then: float, dt: float) -> None:
    """A current up to the edge of belief, then none or a lost one, and no voltage for long; then all is well again.

    More than everything cannot be unknown. The variance of the SoC stops there, so that the first voltage does not have
    to take more from it than single precision can tell apart.
    """
    f = Filter(plain_cell, soc=0.5)
    f.rest(round(100 * dt), ampere=ampere, dt=dt)
    f.rest(round(300 * dt), ampere=then, dt=dt)
    assert f.smallest_eigenvalue() > 1e-7
    assert f.variances[e.Z] <= 4.0
    for _ in range(200):
        f.step(plain_cell.ocv(0.03), dt=dt)
        assert f.smallest_eigenvalue() > 1e-7
    assert np.all(np.isfinite(f.rows))
    assert abs(f.soc - 0.03) < 3 * f.std


# --------------------------------------------------------------------------------------------------- honest on a plateau


def test_on_the_plateau_the_voltage_does_not_pull_the_estimate_to_the_table(plain_cell: CellParameters) -> None:
    """0.65 told, 0.45 true: 8 mV apart. After an hour at rest the estimate still admits the truth, and says so."""
    f = Filter(plain_cell, soc=0.65, std=0.15)
    volt = plain_cell.ocv(0.45)
    largest = 0.0
    for _ in range(3600):
        before = f.soc
        f.step(volt)
        largest = max(largest, abs(f.soc - before))
        assert abs(f.soc - 0.45) < 3 * f.std
    assert largest < 0.01, "no jump"
    assert f.std > 0.05
    assert not f.state.flags[0] & e.OBSERVABLE


def test_where_the_curve_is_steep_the_same_error_is_mended(plain_cell: CellParameters) -> None:
    f = Filter(plain_cell, soc=0.15, std=0.15)
    volt = plain_cell.ocv(0.03)
    f.rest(1800, volt=volt)
    assert f.soc == pytest.approx(0.03, abs=0.02)
    assert f.std < 0.02
    assert f.state.flags[0] & e.OBSERVABLE


def test_the_flag_tells_where_the_voltage_knows(plain_cell: CellParameters) -> None:
    seen = {}
    for soc in (0.01, 0.03, 0.45, 0.5, 0.65, 0.995):
        f = Filter(plain_cell, soc=soc, std=0.01)
        f.step(plain_cell.ocv(soc))
        seen[soc] = bool(f.state.flags[0] & e.OBSERVABLE)
    assert seen == {0.01: True, 0.03: True, 0.45: False, 0.5: False, 0.65: False, 0.995: True}


def test_uncertainty_grows_where_the_voltage_says_nothing(plain_cell: CellParameters) -> None:
    """A flat curve: counting with an unknown bias is all there is, and 0.8 % of 1 C adds up to 0.8 % SoC an hour."""
    flat = replace(plain_cell, ocv_v=np.broadcast_to(3.3 + 1e-6 * plain_cell.soc, plain_cell.ocv_v.shape).copy())
    f = Filter(flat, soc=0.5, std=0.005, bias_std_c=0.008)
    deviations = []
    for _ in range(6):
        f.rest(3600, volt=3.3)
        deviations.append(f.std)
    assert np.all(np.diff(deviations) > 0.003)
    assert deviations[-1] == pytest.approx(6 * 0.008, rel=0.35)


def test_without_voltage_uncertainty_grows_as_the_bias_adds_up(straight_cell: CellParameters) -> None:
    f = Filter(
        straight_cell, soc=0.5, std=0.005, bias_std_c=0.008, bias_walk_c=0.0, current_std_c=0.0, q_std=0.0, q_walk=0.0
    )
    for hours in range(1, 6):
        f.rest(3600)
        expected = np.hypot(
            np.hypot(0.005, 0.99 * 0.008 * hours), f.config.scalars["soc_floor"][0]
        )  # at rest eta holds
        assert f.std == pytest.approx(float(expected), rel=2e-3)


def test_no_deviation_below_the_floor(straight_cell: CellParameters) -> None:
    sure = replace(straight_cell, voltage_error_v=np.zeros(3), knee_error_soc=np.zeros(3))
    f = Filter(sure, std=0.001, voltage_std=1e-4, soc_floor=0.002)
    f.rest(2000, volt=3.5)
    assert f.std >= 0.002


# ------------------------------------------------------------------------------------------------- the same every time


def string_of_cells(plain_cell: CellParameters, order: np.ndarray, common: float = 0.5, bias: bool = True) -> Filter:
    rng = np.random.default_rng(3)
    n = order.size
    offsets = np.linspace(-0.02, 0.02, n)[order]
    f = Filter(plain_cell, n, common=common, **({} if bias else {"bias_std_c": 0.0, "bias_walk_c": 0.0}))
    degc = np.linspace(5, 40, n)[order]
    for _ in range(400):
        ampere, noise = float(rng.normal(0, 1)), rng.normal(0, 1e-3, n)[order]
        f.step(3.28 - 0.03 * ampere + offsets + noise, ampere, degc)
    return f


def test_the_same_input_gives_the_same_bits(plain_cell: CellParameters) -> None:
    order = np.arange(5)
    assert bytes_of(string_of_cells(plain_cell, order).state) == bytes_of(string_of_cells(plain_cell, order).state)


def test_a_copy_of_the_state_goes_on_as_the_original(plain_cell: CellParameters) -> None:
    f = string_of_cells(plain_cell, np.arange(4))
    twin = copied(f.state)
    f.step(3.2, 1.0)
    original, f.state = f.state, twin
    f.step(3.2, 1.0)
    assert bytes_of(original) == bytes_of(f.state)


def test_the_place_in_the_string_does_not_matter(plain_cell: CellParameters) -> None:
    order = np.array([4, 2, 0, 1, 3])
    straight = string_of_cells(plain_cell, np.arange(5), bias=False)
    mixed = string_of_cells(plain_cell, order, bias=False)
    np.testing.assert_array_equal(straight.rows[:, order], mixed.rows)
    for row in range(e.OUT_ROWS):
        np.testing.assert_array_equal(straight.out(row)[order], mixed.out(row))
    # with the shared bias, the order of a sum of five rounds differently
    straight, mixed = string_of_cells(plain_cell, np.arange(5)), string_of_cells(plain_cell, order)
    np.testing.assert_allclose(straight.out(e.SOC)[order], mixed.out(e.SOC), atol=2e-6)
    bias_a = float(straight.state.shared["bias_a"][0])
    assert bias_a == pytest.approx(float(mixed.state.shared["bias_a"][0]), abs=1e-6)


def test_a_string_of_one_kind_of_cell_equals_its_cells_alone_without_a_shared_bias(plain_cell: CellParameters) -> None:
    together = string_of_cells(plain_cell, np.arange(5), bias=False)
    alone = string_of_cells(plain_cell, np.arange(5), common=0.0, bias=False)
    np.testing.assert_array_equal(together.rows, alone.rows)


def test_a_bias_of_the_sensor_is_found_by_the_string(plain_cell: CellParameters) -> None:
    """Cells at rest on a steep curve, a sensor that reads 1 % of 1 C: after a few hours the string knows."""
    flat = np.zeros_like(plain_cell.hysteresis_v)
    steep = replace(plain_cell, ocv_v=3.0 + np.tile(plain_cell.soc, (3, 1)), hysteresis_v=flat)
    f = Filter(steep, 4, soc=0.6, std=0.02)
    f.rest(6 * 3600, volt=3.6, ampere=0.02)
    found, deviation = float(f.state.shared["bias_a"][0]), float(np.sqrt(f.state.shared["bias_var"][0]))
    assert found == pytest.approx(0.02, abs=3 * deviation)
    assert deviation < 0.005
    np.testing.assert_allclose(f.out(e.SOC), 0.6, atol=0.01)
