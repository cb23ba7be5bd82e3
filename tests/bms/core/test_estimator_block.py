"""Sixteen cells at a time: the look-up, the sums, and that lanes without a cell are not heard."""

from __future__ import annotations

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.core import estimator_block as b
from bms.core import estimator_layout as e
from bms.core.estimator import estimator_step
from bms.core.estimator_setup import cell_rows, estimator_config, estimator_state, lanes_of
from hal.contract import LANES

f4 = np.float32
PARAMETERS = slice(e.WORK_ROWS * LANES, (e.WORK_ROWS + e.NODE) * LANES)


def row(work: np.ndarray, offset: np.uint64) -> np.ndarray:
    """One row of the scratch, (LANES,): a view."""
    return work[int(offset) : int(offset) + LANES]


# ----------------------------------------------------------------------------------------------------------- look-up


def test_a_look_up_at_a_node_gives_its_sixteen_numbers_bit_for_bit() -> None:
    """Any 256 numbers turned from cells x parameters to parameters x cells, none of them altered."""
    rng = np.random.default_rng(1)
    nodes = rng.normal(size=e.N_DEGC * e.N_SOC * e.NODE).astype(f4)
    work, index = rng.normal(size=e.WORK).astype(f4), np.empty(LANES, np.int32)
    index[:] = rng.choice((e.N_DEGC - 1) * e.N_SOC - 1, LANES, replace=False)
    row(work, b._FT)[:] = row(work, b._FZ)[:] = 0.0
    b.look_up(work, index, nodes, np.zeros(e.BLOCK, f4), 0)
    expected = nodes.reshape(-1, e.NODE)[index]  # cells x parameters
    np.testing.assert_array_equal(work[PARAMETERS].reshape(e.NODE, LANES), expected.T)


def test_a_look_up_between_nodes_is_bilinear() -> None:
    rng = np.random.default_rng(2)
    nodes = rng.normal(size=e.N_DEGC * e.N_SOC * e.NODE).astype(f4)
    work = np.zeros(e.WORK, f4)
    index = rng.integers(0, (e.N_DEGC - 1) * e.N_SOC - 1, LANES).astype(np.int32)
    ft, fz = rng.random((2, LANES)).astype(f4)
    ft[:2], fz[:2] = 1.0, (0.0, 1.0)
    row(work, b._FT)[:], row(work, b._FZ)[:] = ft, fz
    b.look_up(work, index, nodes, np.zeros(e.BLOCK, f4), 0)
    near, far, warm_near, warm_far = (
        nodes.reshape(-1, e.NODE)[index + offset].T for offset in (0, 1, e.N_SOC, e.N_SOC + 1)
    )
    # in this order: so the bits are the same on every processor
    cold, warm = near + fz * (far - near), warm_near + fz * (warm_far - warm_near)
    found = work[PARAMETERS].reshape(e.NODE, LANES)
    np.testing.assert_array_equal(found, cold + ft * (warm - cold))
    np.testing.assert_allclose(found[:, 1], warm_far[:, 1], atol=1e-6)


def test_the_place_in_the_table_stays_inside_it(plain_cell: CellParameters) -> None:
    config = estimator_config(plain_cell)
    soc = np.array([-0.02, 0.0, 0.5, 1.0, 1.02, 0.3, 0.3, 0.3], f4)
    degc = np.array([25.0, 25.0, 25.0, 25.0, 25.0, -30.0, 60.0, 62.0], f4)
    work, index, block = np.zeros(e.WORK, f4), np.zeros(LANES, np.int32), np.zeros(e.BLOCK, f4)
    for moved in (0.0, 5.0, -5.0, np.inf):
        block[e.Z * LANES : e.Z * LANES + 8] = soc
        volt, good = np.full(8, 3.3, f4), np.zeros(8, np.uint8)
        b.clear_sums(work)
        b.gather(work, index, block, volt, good, degc, config.scalars[0], f4(moved))
        assert b.total(work)[2], "every voltage is usable"
        assert np.all((index >= 0) & (index <= (e.N_DEGC - 2) * e.N_SOC + e.N_SOC - 2))
        assert np.all((row(work, b._FT) >= 0) & (row(work, b._FT) <= 1))
        assert np.all((row(work, b._FZ) >= -4.1) & (row(work, b._FZ) <= 5.1)), "the last slope goes on for 2 % SoC"


# -------------------------------------------------------------------------------------------------------------- sums


def documented_sum(lanes: np.ndarray) -> np.float32:
    """Halves added to halves."""
    while lanes.size > 1:
        half = lanes.size // 2
        lanes = (lanes[:half] + lanes[half:]).astype(f4)
    return f4(lanes[0])


def test_sums_over_the_lanes_have_the_documented_order() -> None:
    rng = np.random.default_rng(3)
    differ = 0
    for _ in range(50):
        work = np.zeros(e.WORK, f4)
        info, pull = ((rng.normal(size=LANES) * 10.0 ** rng.integers(-4, 4, LANES)).astype(f4) for _ in range(2))
        row(work, b._INFO)[:], row(work, b._PULL)[:] = info, pull
        assert b.total(work)[:2] == (documented_sum(info), documented_sum(pull))
        differ += documented_sum(info) != np.add.accumulate(info)[-1]
    assert differ > 10, "another order would give other bits"


def test_sums_start_at_nothing() -> None:
    work = np.full(e.WORK, 7.0, f4)
    b.clear_sums(work)
    assert b.total(work) == (0.0, 0.0, True)
    row(work, b._ALL_OK)[5] = 0.0
    assert not b.total(work)[2], "one lane is enough"
    np.testing.assert_array_equal(work[2 * LANES : int(b._INFO)], 7.0)


# ------------------------------------------------------------------------------------------------ lanes without a cell


class Cells:
    """Duty and start of 48 cells, all different; any selection of them can be run as a rack."""

    def __init__(self, n: int = 48, steps: int = 130) -> None:
        rng = np.random.default_rng(4)
        self.soc = rng.uniform(0.1, 0.95, n)
        self.std = rng.uniform(0.01, 0.3, n)
        self.degc = rng.uniform(-5.0, 40.0, n).astype(f4)
        self.ampere = rng.normal(0.0, 1.5, steps).astype(f4)
        self.volt = (3.28 - 0.03 * self.ampere[:, None] + rng.normal(0.0, 0.02, (steps, n))).astype(f4)
        self.volt[rng.random(self.volt.shape) < 0.03] = np.nan

    def run(self, config: e.EstimatorConfig, chosen: np.ndarray) -> tuple[e.EstimatorState, list[int]]:
        state = estimator_state(config, chosen.size, self.soc[chosen], self.std[chosen])
        quality, degc = np.zeros(chosen.size, np.uint8), self.degc[chosen]
        status = [
            int(estimator_step(config, state, volt, quality, degc, ampere, np.uint8(0), f4(1.0)))
            for ampere, volt in zip(self.ampere, self.volt[:, chosen], strict=True)
        ]
        return state, status


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 33])
def test_a_cell_is_the_same_wherever_it_sits(plain_cell: CellParameters, n: int) -> None:
    """Without the shared bias: bit for bit the same in a rack of n cells, and elsewhere in a rack of 48."""
    cells = Cells()
    config = estimator_config(plain_cell, {"bias_std_c": 0.0, "bias_walk_c": 0.0})
    order = np.random.default_rng(n).permutation(48)
    here, _ = cells.run(config, np.arange(n))
    there, _ = cells.run(config, order)
    at = np.argsort(order)[:n]  # where the first n cells sit in the rack of 48
    assert np.any(at % LANES != np.arange(n) % LANES), "in other lanes"
    np.testing.assert_array_equal(cell_rows(here.blocks, n), cell_rows(there.blocks, 48)[:, at])
    np.testing.assert_array_equal(here.out.reshape(e.OUT_ROWS, -1)[:, :n], there.out.reshape(e.OUT_ROWS, -1)[:, at])
    np.testing.assert_array_equal(here.flags[:n], there.flags[at])


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 33])
def test_lanes_without_a_cell_are_never_reported(plain_cell: CellParameters, n: int) -> None:
    cells = Cells()
    _, status = cells.run(estimator_config(plain_cell), np.arange(n))
    missing = np.isnan(cells.volt[:, :n]).any(axis=1)
    assert [s == e.STATUS_VOLTAGE_BAD for s in status] == missing.tolist()
    assert not all(missing)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 33])
def test_lanes_without_a_cell_say_nothing_about_the_bias(plain_cell: CellParameters, n: int) -> None:
    """One step of n equal cells whose errors are independent: n times the information of one, and of no lane more."""
    told = {}
    for count in (1, n):
        config = estimator_config(plain_cell, {"common": 0.0, "bias_walk_c": 0.0})
        state = estimator_state(config, count, 0.5, 0.05)
        before = 1.0 / float(state.shared["bias_var"][0])
        volt, quality, degc = np.full(count, 3.3, f4), np.zeros(count, np.uint8), np.full(count, 25.0, f4)
        estimator_step(config, state, volt, quality, degc, f4(0.5), np.uint8(0), f4(60.0))
        told[count] = 1.0 / float(state.shared["bias_var"][0]) - before
    assert told[n] == pytest.approx(n * told[1], rel=5e-3)
    assert told[1] > 0.0


@pytest.mark.parametrize("n", [1, 17, 33])
def test_whatever_lies_in_lanes_without_a_cell_changes_nothing(plain_cell: CellParameters, n: int) -> None:
    cells = Cells()
    config = estimator_config(plain_cell)
    plain, _ = cells.run(config, np.arange(n))
    state = estimator_state(config, n, cells.soc[:n], cells.std[:n])
    blocks = state.blocks.reshape(-1, e.BLOCK_ROWS, LANES)
    blocks[-1, :, (n - 1) % LANES + 1 :] = np.random.default_rng(6).normal(
        0.0, 0.1, (e.BLOCK_ROWS, LANES - 1 - (n - 1) % LANES)
    )
    state.work[:] = np.nan
    quality = np.zeros(n, np.uint8)
    for ampere, volt in zip(cells.ampere, cells.volt[:, :n], strict=True):
        estimator_step(config, state, volt, quality, cells.degc[:n], ampere, np.uint8(0), f4(1.0))
    np.testing.assert_array_equal(cell_rows(state.blocks, n), cell_rows(plain.blocks, n))
    assert state.shared.tobytes() == plain.shared.tobytes()
    assert lanes_of(n) > n


# ---------------------------------------------------------------------------------------------------- slow noises


def test_slow_noise_weakens_every_relation_and_no_variance() -> None:
    """Without noise to add, each covariance falls by its share and each variance stays, bit for bit."""
    rng = np.random.default_rng(7)
    block = rng.uniform(1e-4, 1e-2, e.BLOCK).astype(f4)
    before = block.reshape(e.BLOCK_ROWS, LANES).copy()
    b.add_slow(block, f4(0.0), f4(0.0), f4(0.0), f4(1.0))
    after = block.reshape(e.BLOCK_ROWS, LANES)
    for i in range(e.NX):
        for j in range(i):
            row_ = e.p_row(i, j)
            np.testing.assert_array_equal(after[row_], before[row_] * (f4(1.0) - b._DECORRELATE))
            assert np.all(after[row_] < before[row_])
        np.testing.assert_array_equal(after[e.p_row(i, i)], before[e.p_row(i, i)])
    np.testing.assert_array_equal(after[: e.P_FIRST], before[: e.P_FIRST])
    np.testing.assert_array_equal(after[e.S_FIRST :], before[e.S_FIRST :])


def test_slow_noise_goes_where_it_belongs() -> None:
    """r and q get theirs, and the walk of the bias adds the outer product of the sensitivities."""
    rng = np.random.default_rng(8)
    block = np.zeros(e.BLOCK, f4)
    rows = block.reshape(e.BLOCK_ROWS, LANES)
    s = rng.normal(size=(e.NX, LANES)).astype(f4)
    rows[e.S_FIRST :] = s
    b.add_slow(block, f4(3e-4), f4(2e-6), f4(0.01), f4(0.75))
    for i in range(e.NX):
        for j in range(i + 1):
            expected = 0.01 * s[i].astype(float) * s[j] + (i == j) * {e.R: 3e-4, e.Q: 2e-6}.get(i, 0.0)
            np.testing.assert_allclose(rows[e.p_row(i, j)], expected, rtol=2e-5, atol=1e-9)
    np.testing.assert_array_equal(rows[e.S_FIRST :], s * f4(0.75))
