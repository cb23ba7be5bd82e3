"""The truth about burnt cells, as reports read it."""

import numpy as np

from sim import cell
from sim import layout as Y
from sim.burning import burning
from sim.rack import RackTwin, rack_config


def test_nothing_has_burnt_in_a_new_rack() -> None:
    rack = RackTwin("nmc_ev")
    x = burning(rack)
    assert x.degc.shape == (96, 2)
    np.testing.assert_array_equal(x.degc.ravel(), rack.cells[Y.C_DEGC])
    for values in (x.hottest_degc, x.vented_s, x.ignited_s):
        assert np.isnan(values).all()
    for values in (
        x.sei,
        x.charge_lost,
        x.cathode,
        x.electrolyte,
        x.separator_melted,
        x.separator_shrunk,
        x.side_j,
        x.gas_mol,
    ):
        assert not values.any()
    assert not x.open_circuit.any()
    assert not x.burnt.any()


def test_the_cell_that_burns_is_told_by_group_and_place() -> None:
    data = cell.load("nmc_ev")
    rack = RackTwin(data, rack_config(data, {"n_series": 40, "initial_soc": 1.0}))
    at = 2 * 35 + 1
    rack.cells[Y.C_DEGC, at] = 220.0
    rack.settle()
    rack.advance(Y.OPEN, np.zeros(30), False, np.full(4, 1e12), 1.0)
    x = burning(rack)
    assert np.nanargmin(x.ignited_s) == at
    assert not np.delete(x.burnt, 35, axis=0).any()
    assert 0.0 < x.vented_s[35, 1] <= x.ignited_s[35, 1] < 30.0
    assert x.hottest_degc[35, 1] > 300.0
    assert x.hottest_degc[35, 1] >= x.degc[35, 1]
    assert x.short_s[35, 1] > 100.0
    assert x.side_j[35, 1] > 1e5
    assert x.gas_mol[35, 1] > 1.0
    assert x.cathode[35, 1] > 0.9
    assert x.degc[0].max() < 40.0
