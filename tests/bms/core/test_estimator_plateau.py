"""A string of LFP cells that is worked hard from a guess of SoC: the filter must not stay where the curve has a step."""

import numpy as np
import pytest

from bms.core import estimator_layout as e
from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from hal.contract import Truth
from hal.registry import open_rack

N = 16
RACK = f"sim:lfp_280?n_series={N}&module_groups={N}&seed=2"


@pytest.mark.parametrize(("soc", "c_rate"), [(0.5, 1.0), (0.6, 0.5), (0.6, 1.0)])
def test_cycles_from_a_guess_stay_within_three_deviations(soc: float, c_rate: float) -> None:
    """From a first guess with a deviation of 10 %, over the step at 70 % to the end, and down again.

    A tangent in place of the wide slope has 88, 77 and 62 % of all estimates within three deviations.
    """
    clock = VirtualClock()
    duty = {"kind": "cycle", "charge_c": c_rate, "discharge_c": c_rate}
    rack = open_rack(RACK, clock=clock, options={"duty": duty, "rack": {"initial_soc": soc}})
    off = []

    def look(step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        assert truth is not None
        found, std = controller.state.out.reshape(e.OUT_ROWS, -1)[[e.SOC, e.SOC_STD], :N]
        off.append((found - np.clip(truth.soc[:N], 0.0, 1.0)) / std)

    with rack:
        controller = make_controller(Scenario(rack=RACK, cell="lfp_280", period_s=1.0), rack, clock)
        Loop(rack, controller, clock, 1.0, observers=(look,)).run(10_800.0)
    assert len(off) >= 10_800
    far = np.abs(off)
    assert np.mean(far < 3.0) > 0.98
    assert np.max(far) < 4.5


def test_a_first_charge_in_the_heat_stays_within_three_deviations() -> None:
    """A guess of 50 %, C/2 until full at 40 degC: the model is 10 to 15 mV too high from 70 % on.

    If the slowest pair is believed, almost five deviations.
    """
    clock = VirtualClock()
    options = {
        "duty": {"kind": "constant", "c_rate": -0.5},
        "rack": {"initial_soc": 0.5, "initial_degc": 38.0},
        "environment": {"ambient_degc": 40.0, "coolant_min_degc": 32.0, "coolant_max_degc": 45.0},
    }
    rack = open_rack(f"sim:lfp_280?n_series={N}&seed=4", clock=clock, options=options)
    far = []

    def look(step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        assert truth is not None
        found, std = controller.state.out.reshape(e.OUT_ROWS, -1)[[e.SOC, e.SOC_STD], :N]
        far.append(float(np.max(np.abs(found - np.clip(truth.soc[:N], 0.0, 1.0)) / std)))

    with rack:
        controller = make_controller(Scenario(rack=RACK, cell="lfp_280", period_s=1.0), rack, clock)
        Loop(rack, controller, clock, 1.0, observers=(look,)).run(4_800.0)
    assert len(far) >= 4_800
    assert max(far) < 3.0
