"""Healthy racks in hard use show nothing: a controller that cries wolf is switched off."""

from __future__ import annotations

from typing import Any

import pytest

from hal.contract import RackState, Severity

DUTIES = {
    "cycle": {"kind": "cycle", "charge_c": 0.5, "discharge_c": 0.5, "rest_h": 0.1},
    "grid": {"kind": "frequency_regulation"},
}


@pytest.mark.parametrize("kind", ["lfp_280", "na_185", "nmc_ev"])
@pytest.mark.parametrize(("degc", "duty"), [(-5.0, "grid"), (25.0, "cycle"), (42.0, "grid")])
def test_an_hour_and_a_half_without_a_warning(kind: str, degc: float, duty: str, trial: Any) -> None:
    t = trial(
        kind=kind,
        rack={"initial_degc": degc, "soc_spread": 0.01},
        duty=DUTIES[duty],
        environment={"ambient_degc": degc},
    )
    t.run(5400.0)
    assert t.log[-1].state == RackState.CONNECTED
    for severity in (Severity.WARNING, Severity.FATAL):
        assert not {fault for m in t.log for fault in m.shown(severity)}
    t.check_truth()
    assert max(abs(m.true_a) for m in t.log) > 0.1 * t.info.capacity_ah * (degc > 0.0)
