"""The voltage model errs by much the same until charge flows: saying so again for a day must not move SoC."""

import numpy as np
import numpy.typing as npt
import pytest

from bms import cells
from bms.core import estimator_layout as e
from bms.core.estimator import estimator_step
from bms.core.estimator_setup import cell_rows, estimator_config, estimator_state, rows_view
from hal.contract import LANES

f4 = np.float32
LFP = cells.load("lfp_280")
BAD, GOOD = 1, 0
DT_S = 10.0
DAY_STEPS = round(24 * 3600 / DT_S)


def step(
    config: e.EstimatorConfig, state: e.EstimatorState, volt: npt.ArrayLike, amps: float, quality: int = GOOD
) -> None:
    n = state.flags.size
    volts = np.ascontiguousarray(np.broadcast_to(np.asarray(volt, f4), (n,)))
    qualities, degc = np.full(n, quality, np.uint8), np.full(n, 25.0, f4)
    estimator_step(config, state, volts, qualities, degc, f4(amps), np.uint8(0), f4(DT_S))


@pytest.mark.parametrize("sign", [-2.0, 2.0])
def test_a_day_at_rest_moves_neither_soc_nor_the_bias(sign: float) -> None:
    """Twice the expected error away from the model all the time; renewed every half hour, SoC leaves 3 deviations."""
    soc = 0.92
    error_v = sign * float(np.interp(25.0, LFP.degc, LFP.voltage_error_v))
    config = estimator_config(LFP)
    state = estimator_state(config, LANES, soc, 0.01)
    step(config, state, 0.0, 0.0, BAD)
    volt = state.out.reshape(e.OUT_ROWS, -1)[e.MODEL_V] + f4(error_v)
    known_a = float(np.sqrt(state.shared["bias_var"][0]))
    for _ in range(DAY_STEPS):
        step(config, state, volt, 0.0)
        found, std = state.out.reshape(e.OUT_ROWS, -1)[[e.SOC, e.SOC_STD]]
        assert np.all(np.abs(found - soc) < 3.0 * std)
    assert abs(state.shared["bias_a"][0]) < known_a


def test_the_error_of_the_model_is_another_one_once_charge_has_flowed() -> None:
    """A share of 1/e is left after `soc_w`, however fast it flows, whatever the direction; at rest almost all."""
    config = estimator_config(LFP)
    soc_w, tau_s = (float(config.scalars[name][0]) for name in ("soc_w", "tau_w_s"))
    for c_rate, soc in ((0.25, 0.6), (0.5, 0.6), (-0.5, 0.4)):
        state = estimator_state(config, LANES, soc, 0.01)
        rows_view(state.blocks)[e.W] = 5e-3
        amps = c_rate * float(config.scalars["capacity_ah"][0])
        n = round(soc_w * 3600.0 / abs(c_rate) / DT_S)
        for _ in range(n):
            step(config, state, 0.0, amps, BAD)
        left = cell_rows(state.blocks, 1)[e.W, 0] / 5e-3
        assert left == pytest.approx(np.exp(-1.0 - n * DT_S / tau_s), rel=1e-3)
        at_rest = estimator_state(config, LANES, soc, 0.01)
        rows_view(at_rest.blocks)[e.W] = 5e-3
        for _ in range(n):
            step(config, at_rest, 0.0, 0.0, BAD)
        assert cell_rows(at_rest.blocks, 1)[e.W, 0] > 0.9 * 5e-3


def test_what_the_slowest_pair_holds_is_doubted_in_part() -> None:
    """After a long charge the model may err by `slow_share` of that pair's voltage; after rests or pulses by less."""
    config = estimator_config(LFP)
    amps, share = -0.5 * float(config.scalars["capacity_ah"][0]), float(config.scalars["slow_share"][0])
    steady, pulsed = (estimator_state(config, LANES, 0.35, 0.01) for _ in range(2))
    for k in range(360):
        step(config, steady, 0.0, amps, BAD)
        step(config, pulsed, 0.0, amps if k % 2 else -amps, BAD)
    one, other = cell_rows(steady.blocks, 1)[:, 0], cell_rows(pulsed.blocks, 1)[:, 0]
    held_v = share * abs(one[e.V4])
    assert held_v > 2e-3
    more_v2 = one[e.p_row(e.W, e.W)] - other[e.p_row(e.W, e.W)]
    assert 0.3 * held_v**2 < more_v2 < 3.0 * held_v**2
