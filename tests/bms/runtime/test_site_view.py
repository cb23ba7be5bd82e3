from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bms.core.faults import Fault
from bms.runtime.series import MAX_SAMPLES
from bms.runtime.site import Bulk
from bms.runtime.site_view import SiteSeries, SiteStatus, accuracy, resident_bytes
from hal.contract import COMMAND, MEASUREMENT, RackInfo, RackState, Severity


def site(n_racks: int = 3) -> Any:
    info = RackInfo("x", 4, 2, 1, 280.0, "", np.zeros(4, np.uint16))
    made = SimpleNamespace(measurement=Bulk(MEASUREMENT, info, n_racks), command=Bulk(COMMAND, info, n_racks))
    made.measurement.head["pack_v"] = 1000.0
    made.measurement.raw["cell_v"] = 3.3
    made.measurement.raw["sensor_degc"] = 25.0
    made.command.head["soc_mean"] = [0.4, 0.5, 0.6][:n_racks]
    made.command.head["soc_min"], made.command.head["soc_max"] = 0.3, 0.7
    made.command.head["state"] = RackState.CONNECTED
    return made


def show(made: Any, rack: int, fault: Fault) -> None:
    """A fatal fault of one rack."""
    made.command.raw["fault_fatal"][rack, fault // 32] = 1 << fault % 32
    made.command.head["severity"][rack], made.command.head["n_faults"][rack] = Severity.FATAL, 1


def test_energy_is_integrated_each_way_and_a_missing_value_carries_none() -> None:
    made = site()
    series = SiteSeries(made, 1)
    made.measurement.head["current_a"] = [10.0, -30.0, np.nan]
    for k in range(5):
        series(k + 1, 2.0 * k, 2.0, None)
    assert series.power_w == -20e3
    assert (series.energy_out_j, series.energy_in_j) == (10e3 * 10.0, 30e3 * 10.0)
    summary = series.summary()
    assert summary["energy_out_kwh"] == pytest.approx(100e3 / 3.6e6)
    assert summary["largest_power_w"] == 20e3


def test_a_row_holds_what_its_columns_say() -> None:
    made = site()
    series = SiteSeries(made, 1)
    made.measurement.raw["cell_v"][1] = (3.1, np.nan, 3.6, 9.9)
    made.measurement.raw["cell_v_quality"][1, 3] = 4
    made.measurement.raw["sensor_degc"][2] = (12.0, 40.0)
    show(made, 2, Fault.INTERLOCK_OPEN)
    made.command.head["state"][2] = RackState.FAULT
    made.command.head["limit_charge_w"] = 1e5
    series(1, 7.0, 1.0, None)
    row = {name: column[0] for name, column in series.columns().items()}
    assert (row["time_s"], row["connected"], row["faulted"]) == (7.0, 2.0, 1.0)
    assert (row["cell_v_min"], row["cell_v_max"]) == pytest.approx((3.1, 3.6))
    assert (row["degc_min"], row["degc_max"]) == (12.0, 40.0)
    assert (row["soc_min"], row["soc_mean"], row["soc_max"]) == pytest.approx((0.3, 0.5, 0.7))
    assert row["soc_spread"] == pytest.approx(0.1 * np.sqrt(2 / 3))
    assert row["limit_charge_w"] == 3e5
    summary = series.summary()
    assert summary["faults"] == ["INTERLOCK_OPEN"]
    assert summary["first_fault_s"] == 7.0
    assert summary["states_at_end"] == {"CONNECTED": 2, "FAULT": 1}


def test_a_long_run_keeps_every_second_row() -> None:
    series = SiteSeries(site(1), 1)
    for k in range(3 * MAX_SAMPLES):
        series(k + 1, float(k), 1.0, None)
    times = series.columns()["time_s"]
    assert len(times) <= MAX_SAMPLES
    assert np.all(np.diff(times) == 4.0)


def test_nothing_good_to_see_is_no_number() -> None:
    made = site(1)
    made.measurement.raw["cell_v_quality"] = 1
    series = SiteSeries(made, 1)
    series(1, 0.0, 1.0, None)
    assert np.isnan(series.columns()["cell_v_min"][0])


def test_accuracy_in_per_cent() -> None:
    soc = np.array([[0.5, 0.52]], np.float32)
    found = accuracy(soc, np.full((1, 2), 0.005, np.float32), np.array([[0.5, 0.5]]))
    assert found["soc_max_error_percent"] == pytest.approx(2.0, rel=1e-5)
    assert found["soc_rmse_percent"] == pytest.approx(2.0 / np.sqrt(2), rel=1e-5)
    assert found["soc_within_3_sigma_percent"] == 50.0


def test_memory_is_told() -> None:
    assert resident_bytes() > 10 * 2**20


def test_progress_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    made = site()
    show(made, 1, Fault.INTERLOCK_OPEN)
    made.command.head["state"][1] = RackState.FAULT
    made.measurement.head["current_a"] = 1000.0
    series = SiteSeries(made, 1)
    with SiteStatus(made, series, 100.0) as status:
        series(1, 50.0, 1.0, None)
        status(1, 50.0, 1.0, None)
        status(2, 51.0, 1.0, None)  # a moment later: nothing new to tell
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    assert "00:00:50   50%" in out
    assert "2 CONNECTED, 1 FAULT" in out
    assert "FAULTS in 1: interlock open" in out
    assert "+3.00 MW" in out
    assert "SoC 30.0/50.0/70.0 % (racks +-8.16)" in out
    assert "MiB" in out


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    made = site()
    series = SiteSeries(made, 1)
    with SiteStatus(made, series, 100.0, quiet=True) as status:
        series(1, 50.0, 1.0, None)
        status(1, 50.0, 1.0, None)
    assert capsys.readouterr().out == ""
