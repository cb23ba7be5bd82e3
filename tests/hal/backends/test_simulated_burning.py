"""A scenario that sets the twin on fire, seen through the contract, and the truth beside it."""

import numpy as np

from hal.backends.simulated import SimulatedRack
from hal.contract import Measurement, Truth


class Clock:
    now = 5.0

    def now_s(self) -> float:
        return self.now


def test_the_truth_of_a_fire_can_be_read() -> None:
    clock = Clock()
    options = {
        "rack": {"n_series": 6, "module_groups": 6, "initial_soc": 0.9},
        "fault": [{"kind": "internal_short", "index": [2], "value": 2e-3, "at_s": 60.0, "ramp_s": 120.0}],
    }
    with SimulatedRack("lfp_280", clock=clock, options=options) as rack:
        m, truth = Measurement(rack.info.n_cells, rack.info.n_sensors), Truth(rack.info.n_cells, rack.info.n_sensors)
        assert not rack.burning().burnt.any()
        for _ in range(600):
            clock.now += 1.0
            rack.read(m)
        rack.truth(truth)
        x = rack.burning()
        assert np.argwhere(x.burnt).tolist() == [[2, 0]]
        assert 60.0 < x.vented_s[2, 0] < x.ignited_s[2, 0] < 600.0
        np.testing.assert_allclose(truth.cell_degc, x.degc[:, 0], rtol=1e-6)
        assert m.head["gas_alarm"][0] == 1
        assert abs(m.cell_v[2]) < 0.5
