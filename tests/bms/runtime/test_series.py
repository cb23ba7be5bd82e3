"""Samples of a run: bounded, right in time, and summed up correctly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bms.core.faults import Fault, row_id
from bms.runtime import series as module
from bms.runtime.series import Series, load, round_trip, sample_every, save
from hal.contract import Quality, RackState, Severity, Truth


@pytest.mark.parametrize(
    ("duration_s", "period_s", "every"), [(86400, 1, 60), (60, 1, 1), (86400, 0.1, 600), (float("inf"), 1, 1)]
)
def test_a_run_of_known_length_is_sampled_about_a_thousand_times(
    duration_s: float, period_s: float, every: int
) -> None:
    assert sample_every(duration_s, period_s) == every


def test_a_run_of_any_length_stays_bounded_and_even(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SAMPLES", 16)
    rack, controller, _ = bench()
    series = Series(rack.info, controller, 3)
    for step in range(1, 1001):
        series(step, float(step - 1), 1.0, None)
        time_s = series.arrays()["time_s"]
        assert time_s.size <= 16
        assert time_s[0] == 0.0
        assert time_s.size < 3 or np.ptp(np.diff(time_s)) == 0
    assert time_s.size >= 8
    assert time_s[-1] > 900 - 100


def test_energy_and_states_count_every_step(bench) -> None:
    rack, controller, _ = bench()
    series = Series(rack.info, controller, 10)
    head, command = controller.measurement.head, controller.command.head
    head["pack_v"] = 100.0
    hot, cold, leak = Fault.DISCHARGE_HOT, Fault.DISCHARGE_COLD, Fault.CELL_LEAK
    for step, (current_a, state, fault, severity) in enumerate(
        [(10.0, 3, 0, 0), (-5.0, 3, leak, 2), (np.nan, 3, 0, 0), (0.0, 5, hot, 3), (1.0, 5, cold, 3)], 1
    ):
        head["current_a"], command["state"] = current_a, state
        command["n_faults"], command["severity"] = fault > 0, severity
        command["cause"] = row_id(Fault(fault), Severity.FATAL) if severity == 3 else 0
        for name in ("fault_warning", "fault_fatal"):
            getattr(controller.command, name)[:] = 0
        if fault:
            words = controller.command.fault_fatal if severity == 3 else controller.command.fault_warning
            words[fault // 32] = 1 << fault % 32
        series(step, float(step), 2.0, None)
    summary = series.summary(rack.info)
    assert summary["energy_out_kwh"] == pytest.approx((1000 * 2 + 100 * 2) / 3.6e6)
    assert summary["energy_in_kwh"] == pytest.approx(500 * 2 / 3.6e6)
    assert summary["steps_in_state"] == {"CONNECTED": 3, "FAULT": 2}
    assert summary["state_at_end"] == RackState.FAULT.name
    assert set(summary["faults"]) == {"DISCHARGE_HOT", "DISCHARGE_COLD"}
    assert summary["warnings"] == ["CELL_LEAK"]
    assert summary["cause"] == "discharge hot at sensor 0: 0 degC"
    assert summary["first_fault_s"] == 4.0
    assert summary["steps"] == 5
    assert summary["round_trip_percent"] is None
    assert "soc_rmse_percent" not in summary


def test_errors_against_the_truth(bench) -> None:
    rack, controller, _ = bench()
    series = Series(rack.info, controller, 1)
    truth = Truth(rack.info.n_cells, rack.info.n_sensors)
    truth.soc[:] = 0.5
    controller.soc[:], controller.soc_std[:] = 0.5, 0.01
    controller.soc[0], controller.soc[1] = 0.52, 0.46  # 2 and 4 sigma
    series(1, 0.0, 1.0, truth)
    controller.soc[:] = 0.9
    series(2, 1.0, 1.0, None)  # no truth: counts for nothing
    summary = series.summary(rack.info)
    assert summary["soc_rmse_percent"] == pytest.approx(100 * np.sqrt((0.02**2 + 0.04**2) / 8), rel=1e-4)
    assert summary["soc_max_error_percent"] == pytest.approx(4.0, rel=1e-4)
    assert summary["soc_within_3_sigma_percent"] == pytest.approx(100 * 7 / 8)
    assert summary["soc_mean_sigma_percent"] == pytest.approx(1.0, rel=1e-4)


def test_bad_values_are_left_out_of_the_spread(bench) -> None:
    rack, controller, _ = bench()
    series = Series(rack.info, controller, 1)
    m = controller.measurement
    m.cell_v[:] = 3.3
    m.cell_v[0], m.cell_v_quality[0] = 9.9, Quality.OUT_OF_RANGE
    m.cell_v[1] = np.nan
    m.sensor_degc_quality[:] = Quality.MISSING
    series(1, 0.0, 1.0, None)
    data = series.arrays()
    assert data["cell_v_max"][0] == data["cell_v_min"][0] == np.float32(3.3)
    assert np.isnan(data["degc_mean"][0])


def columns(out_kwh, in_kwh, charge_ah) -> dict[str, np.ndarray]:
    n = len(out_kwh)
    return {
        "energy_out_j": 3.6e6 * np.array(out_kwh),
        "energy_in_j": 3.6e6 * np.array(in_kwh),
        "charge_ah": np.array(charge_ah),
        "pack_v": np.full(n, 1000.0),
    }


def test_round_trip_is_corrected_for_what_is_left_in_the_rack() -> None:
    """100 Ah at 1,000 V: 100 kWh. In 50 kWh, out 45 kWh: 90 %, wherever the charge ends."""
    even = columns([0, 0, 45], [0, 50, 50], [50, 100, 50])
    np.testing.assert_allclose(round_trip(even, 100.0)[-1], 0.9)
    assert np.isnan(round_trip(even, 100.0)[:2]).all()  # nothing has come back yet
    fuller = columns([0, 45], [0, 60], [50, 60])  # 10 kWh more inside
    np.testing.assert_allclose(round_trip(fuller, 100.0)[-1], (45 + 10) / 60)
    emptier = columns([0, 45], [0, 40], [50, 40])
    np.testing.assert_allclose(round_trip(emptier, 100.0)[-1], 45 / 50)
    little = columns([0, 4.5], [0, 5], [50, 50])
    assert np.isnan(round_trip(little, 100.0)).all()


def test_samples_survive_the_disk(tmp_path: Path, bench) -> None:
    rack, controller, _ = bench()
    series = Series(rack.info, controller, 1)
    series(1, 0.0, 1.0, None)
    save(tmp_path / "s.npz", series.arrays())
    for name, array in load(tmp_path / "s.npz").items():
        np.testing.assert_array_equal(array, series.arrays()[name])
