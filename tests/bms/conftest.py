"""A small cell that the tests of the estimator and of the laboratory share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bms.cells import CellParameters, Limits

SOC = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.75, 0.9, 0.95, 0.98, 1.0])
PLATEAU_V = np.array([2.6, 2.95, 3.08, 3.18, 3.24, 3.268, 3.280, 3.290, 3.300, 3.318, 3.322, 3.330, 3.370, 3.52])


def make_cell(**changes: Any) -> CellParameters:
    """A lithium iron phosphate cell of 2 Ah in round numbers, three temperatures; `changes` replace its fields."""
    degc = np.array([0.0, 25.0, 45.0])
    warm = np.array([2.5, 1.0, 0.7])[:, None]
    r = np.linspace(1.2, 0.9, 5)[None, :] * warm
    fields: dict[str, Any] = {
        "name": "plain", "chemistry": "lfp", "source": "made for the tests",
        "limits": Limits(2.0, 3.65, 0.0, -20.0, 55.0, 1.0, 1.0),
        "soc": SOC, "soc_r": np.linspace(0.0, 1.0, 5), "degc": degc,
        "ocv_v": PLATEAU_V[None, :] + np.array([-4e-3, 0.0, 2e-3])[:, None],
        "hysteresis_v": np.full((3, SOC.size), 0.012) * np.array([1.5, 1.0, 0.8])[:, None],
        "r0_ohm": 0.010 * r, "r_ohm": np.stack([f * r for f in (0.004, 0.006, 0.008, 0.010)]), "rct_ohm": 0.012 * r,
        "bend_a": 0.4, "tau_s": np.array([3.0, 20.0, 120.0, 900.0]), "capacity": np.array([1.98, 2.0, 2.02]),
        "coulombic_efficiency": np.array([0.98, 0.995, 0.998]), "gamma": np.array([60.0, 80.0, 100.0]),
        "hysteresis_instant_v": np.full(3, 1e-3), "voltage_error_v": np.array([0.003, 0.002, 0.002]),
        "knee_error_soc": np.full(3, 0.006), "filter": {},
    }  # fmt: skip
    return CellParameters(**(fields | changes))


@pytest.fixture(scope="session")
def make_plain_cell() -> Callable[..., CellParameters]:
    """`make_cell`: the plain cell, with fields of your choice."""
    return make_cell


@pytest.fixture(scope="session")
def plain_cell() -> CellParameters:
    """The plain cell as it is."""
    return make_cell()
