"""The columns of a log against what each step's records said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bms.core.faults import N_FAULTS
from bms.trial.log import CHUNK, MAINS, Log
from hal.contract import NO_INDEX, Command, Measurement, Quality, RackInfo, Truth

N, SENSORS = 5, 3
INFO = RackInfo("log", N, SENSORS, 1, 100.0, "", np.zeros(N, np.uint16))


class Steps:
    """Records as they go by, filled at random; what a `Controller` has, as far as a log looks at it."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.measurement, self.command = Measurement(N, SENSORS), Command(N, SENSORS)
        self.truth = Truth(N, SENSORS)
        self.state: Any = self
        self.fault_value, self.fault_where = np.zeros(N_FAULTS, np.float32), np.zeros(N_FAULTS, np.uint16)

    def next(self) -> None:
        """Any values; now and then a cell, all cells or a sensor are not good."""
        rng, m, c = self.rng, self.measurement, self.command
        m.head["current_a"], m.head["contactors"] = rng.normal(), rng.integers(8)
        m.cell_v[:], m.sensor_degc[:] = rng.uniform(2, 4, N), rng.uniform(0, 50, SENSORS)
        m.cell_v_quality[:] = np.where(rng.random(N) < 0.2, Quality.STALE, Quality.GOOD)
        m.sensor_degc_quality[:] = np.where(rng.random(SENSORS) < 0.2, Quality.MISSING, Quality.GOOD)
        if rng.random() < 0.1:
            m.cell_v[:] = np.nan
        m.cell_v[rng.integers(N)] = rng.choice([np.nan, np.inf, 3.0])
        c.head["state"], c.head["contactors"], c.head["reset_refused"] = rng.integers(15), rng.integers(8), 2
        c.head["limit_discharge_a"], c.head["limit_charge_a"], c.head["cooling_degc"] = rng.normal(size=3)
        c.head["cause"], c.head["cause_index"], c.head["soc_mean"] = rng.integers(999), NO_INDEX, rng.random()
        c.balance[:] = rng.integers(2, size=N)
        for words in (c.fault_info, c.fault_warning, c.fault_fatal):
            words[:] = rng.integers(2**32, size=3)
        self.truth.head["current_a"] = rng.normal()
        self.truth.soc[:], self.truth.cell_degc[:] = rng.random(N), rng.uniform(0, 900, N)
        self.fault_value[:], self.fault_where[:] = rng.normal(size=N_FAULTS), rng.integers(99, size=N_FAULTS)

    def expected(self, twin: bool) -> dict[str, Any]:
        """The values of this step, one by one."""
        m, c = self.measurement, self.command
        head, told = m.head[0], c.head[0]
        good = m.cell_v[(m.cell_v_quality == Quality.GOOD) & np.isfinite(m.cell_v)]
        some = good.size > 0
        return {
            "state": told["state"], "asked": told["contactors"], "discharge_a": told["limit_discharge_a"],
            "charge_a": told["limit_charge_a"], "current_a": head["current_a"], "cause": told["cause"],
            "cause_index": NO_INDEX, "refused": 2, "cooling_degc": told["cooling_degc"],
            "value": self.fault_value.copy(), "where": self.fault_where.copy(),
            "v_min": good.min() if some else np.nan, "v_max": good.max() if some else np.nan,
            "v_mean": np.float32(good.astype(np.float64).mean()) if some else np.nan,
            "bled": c.balance.sum(), "bits": np.stack([c.fault_info, c.fault_warning, c.fault_fatal]),
            "degc": np.where(m.sensor_degc_quality == Quality.GOOD, m.sensor_degc, np.nan),
            "soc": np.float32(self.truth.soc.mean()) if twin else told["soc_mean"],
            "true_a": self.truth.head["current_a"][0] if twin else np.nan,
            "true_degc": self.truth.cell_degc.astype(np.float32) if twin else np.full(N, np.nan),
        }  # fmt: skip


@pytest.mark.parametrize("twin", [True, False])
@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, 2 * CHUNK + 7])
def test_every_column_is_what_the_records_said(n: int, twin: bool) -> None:
    steps: Any = Steps(n)
    log = Log(n + 2, INFO, steps, steps.truth if twin else None)
    wanted: list[dict[str, Any]] = []
    for k in range(n):
        steps.next()
        closed = [None, MAINS, MAINS | 4, 1][k % 4]
        log.add(100.0 + k, 1.0 + k, k % 3, closed)
        seen = steps.measurement.head["contactors"][0] if closed is None else closed
        times = {"time_s": 100.0 + k, "dt_s": 1.0 + k, "request": k % 3, "closed": seen & MAINS == MAINS}
        wanted.append(steps.expected(twin) | times)
    assert len(log) == n
    for name in wanted[0]:
        np.testing.assert_array_equal(getattr(log, name), np.stack([row[name] for row in wanted]), err_msg=name)


def test_a_log_may_be_looked_at_between_two_steps() -> None:
    steps: Any = Steps(0)
    log = Log(CHUNK, INFO, steps, steps.truth)
    for k in range(10):
        steps.next()
        log.add(float(k), 1.0, 1, MAINS)
        assert log.time_s.tolist() == list(range(k + 1))
        assert log.v_max[-1] == pytest.approx(steps.expected(True)["v_max"], nan_ok=True)


def test_rows_that_are_shown() -> None:
    steps: Any = Steps(0)
    log = Log(3, INFO, steps, None)
    for word in (0, 1 << 5, 0):
        steps.command.fault_warning[:] = (0, word, 0)
        log.add(0.0, 1.0, 1, None)
    assert log.shows(37, 2).tolist() == [False, True, False]
    assert not log.shows(37, 3).any()
    assert not log.shows(36, 2).any()


def test_there_are_no_other_columns() -> None:
    steps: Any = Steps(0)
    with pytest.raises(AttributeError, match="cell_v"):
        _ = Log(3, INFO, steps, None).cell_v
