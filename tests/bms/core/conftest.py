"""A healthy rack of a few cells, measured: what the tests of the signals spoil in one place each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bms import cells
from bms.core import plausibility_model, signals
from bms.core.estimator_setup import estimator_config
from bms.core.faults import N_FAULTS, Fault
from bms.core.seen import Seen
from bms.core.signals_layout import signals_state
from bms.core.signals_setup import SignalSettings, signals_config
from bms.core.views import MeasurementView
from hal.contract import NO_INDEX, Capabilities, Measurement, RackInfo

f4 = np.float32
CELL = cells.load("lfp_280")
_COMPILED = estimator_config(CELL)
ESTIMATOR = _COMPILED._replace(scalars=_COMPILED.scalars.view(np.recarray))
"""Scalars as attributes, as plain Python wants them."""
EVERYTHING = Capabilities(
    balancing=True, cooling=True, insulation=True, coolant_flow=True, gas=True, bleed_feedback=True
)


class SignalBench:
    """Signals of a rack of `n` cells and `m` sensors, all of them usable: 3.3 V, 25 degC, 100 A of discharge.

    `look()` makes one step with a new sample, `judge()` what follows the estimator. `value(fault)` and `where(fault)`
    are what a fault sees. Change `head`, `m` (the record) or `asked` (cells asked to bleed) in between.
    """

    def __init__(
        self,
        n: int = 24,
        m: int = 6,
        can: Capabilities = EVERYTHING,
        n_parallel: int = 1,
        **settings: Any,
    ) -> None:
        self.cell = CELL
        self.info = RackInfo(
            "test", n, m, n_parallel, 280.0 * n_parallel, "lfp_280", (np.arange(n) * m // n).astype(np.uint16), can
        )
        self.config = signals_config(self.cell, self.info, SignalSettings(**settings))
        self.state = signals_state(n, m)
        signals.signals_init(self.config, self.state)
        self.estimator = ESTIMATOR
        self.m = Measurement(n, m)
        self.head = self.m.head
        self.m.cell_v[:] = 3.3
        self.m.sensor_degc[:] = 25.0
        for name, number in {
            "current_a": 100.0, "pack_v": 3.3 * n, "bus_v": 3.3 * n, "insulation_ohm": 1e6, "coolant_in_degc": 20.0,
            "coolant_flow_lpm": 15.0, "contactors": 3, "interlock_closed": 1,
        }.items():  # fmt: skip
            self.head[name] = number
        self.view = MeasurementView.of(self.m)
        self.asked = np.zeros(n, np.uint8)
        self.limits = (280.0, 250.0)
        self.values = np.full(N_FAULTS, np.nan, np.float32)
        self.places = np.full(N_FAULTS, NO_INDEX, np.uint16)
        self.innovation = np.zeros(n, np.float32)
        self.model_v = np.full(n, 3.3, np.float32)
        self.soc = np.full(n, 0.5, np.float32)
        self.soc_std = np.full(n, 0.01, np.float32)
        self.bias_a = 0.0
        self.resistance = np.ones(n, np.float32)
        self.resistance_std = np.full(n, 0.12, np.float32)  # nothing is known
        self.seen: Seen

    def look(self, dt_s: float = 1.0, new: bool = True) -> Seen:
        self.head["sequence"] += np.uint32(new)
        self.seen = signals.inspect(
            self.config, self.state, self.view, self.asked, f4(self.limits[0]), f4(self.limits[1]), self.values,
            self.places, f4(dt_s),
        )  # fmt: skip
        return self.seen

    def judge(self, dt_s: float = 1.0) -> None:
        plausibility_model.judge(
            self.config, self.state, self.estimator, self.seen, self.innovation, self.model_v, self.soc, self.soc_std, f4(self.bias_a),
            self.resistance, self.resistance_std, self.values, self.places, f4(dt_s),
        )  # fmt: skip

    def value(self, fault: Fault) -> float:
        return float(self.values[fault])

    def where(self, fault: Fault) -> int:
        return int(self.places[fault])


@pytest.fixture(scope="session")
def make_signals() -> Callable[..., SignalBench]:
    """`SignalBench`, to be made with sizes, capabilities and settings of your choice."""
    return SignalBench


@pytest.fixture
def bench() -> SignalBench:
    """A healthy rack that has every source, and whose cells have been seen where the others are."""
    bench = SignalBench()
    bench.state.sunk_soc[:] = np.nan
    return bench
