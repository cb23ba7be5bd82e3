import numpy as np
import pytest

from sim import cell, lab
from sim.config import TwinError

Traces = dict[str, dict[str, np.ndarray]]
TEMPERATURES = ("N05", "P10", "P25", "P40")


@pytest.fixture(scope="module")
def traces() -> Traces:
    return lab.run("nmc_ev", seed=1)


def test_names_and_columns(traces: Traces) -> None:
    assert set(traces) == {f"{kind}_{t}" for kind in ("ocv", "dynamic") for t in TEMPERATURES}
    for name, trace in traces.items():
        columns = ["time_s", "current_a", "voltage_v", "temperature_degc"]
        assert list(trace) == columns + (["soc_true"] if name.startswith("dynamic") else [])
        assert len({len(column) for column in trace.values()}) == 1
        assert all(np.isfinite(column).all() for column in trace.values())


@pytest.mark.parametrize("name", [f"ocv_{t}" for t in TEMPERATURES])
def test_slow_test_goes_down_and_up_between_the_limits(traces: Traces, name: str) -> None:
    head, trace = cell.load("nmc_ev").head, traces[name]
    current, voltage = trace["current_a"], trace["voltage_v"]
    down, up = current > 0, current < 0
    assert np.median(np.diff(trace["time_s"])) == 10.0
    assert np.diff(np.flatnonzero(down)).max() == np.diff(np.flatnonzero(up)).max() == 1  # in one go each
    assert np.flatnonzero(down)[-1] < np.flatnonzero(up)[0]
    np.testing.assert_allclose(np.abs(current[down | up]), head.capacity_ah / 30, rtol=0.02)  # noise 0.3 %
    assert voltage[down][-1] == pytest.approx(head.v_min, abs=0.01)
    assert voltage[up][-1] == pytest.approx(head.v_max, abs=0.01)
    charge_ah = current[down].sum() / 360
    assert charge_ah == pytest.approx(head.capacity_ah, rel=0.02)


@pytest.mark.parametrize("name", [f"dynamic_{t}" for t in TEMPERATURES])
def test_dynamic_test_empties_the_cell_with_charges_and_rests(traces: Traces, name: str) -> None:
    head, trace = cell.load("nmc_ev").head, traces[name]
    soc, current = trace["soc_true"], trace["current_a"]
    assert np.all(np.diff(trace["time_s"]) == pytest.approx(1.0, abs=1e-6))
    assert 8 * 3600 < len(soc) < 16 * 3600
    assert soc[0] == 1.0
    assert soc[-1] < 0.06
    counted = soc[0] - np.cumsum(np.where(current > 0, 1.0, 0.999) * current) / 3600 / head.capacity_ah
    np.testing.assert_allclose(soc, counted, atol=2e-3)  # gain error of the meter 1e-4 (1 sigma), self-discharge
    assert 0.1 < np.mean(current == 0) < 0.6
    charged = -current[current < 0].sum() / 3600 / head.capacity_ah
    assert charged > 0.2
    assert abs(current).max() < 3 * head.capacity_ah
    assert abs(trace["temperature_degc"][0] - {"N": -1, "P": 1}[name[8]] * float(name[9:])) < 0.6


def test_the_meters_are_good_but_not_ideal(traces: Traces) -> None:
    voltage = traces["ocv_P25"]["voltage_v"][:61]  # at rest
    assert 5e-5 < voltage.std() < 4e-4
    np.testing.assert_allclose(voltage * 1e4, np.rint(voltage * 1e4), atol=1e-6)


def test_the_same_seed_gives_the_same_traces(traces: Traces) -> None:
    data = cell.load("nmc_ev")
    again = lab.ocv_test(data, 25.0, 1)
    for column, values in traces["ocv_P25"].items():
        np.testing.assert_array_equal(values, again[column])
    other = lab.ocv_test(data, 25.0, 2)
    assert not np.array_equal(other["voltage_v"][:60], again["voltage_v"][:60])


def test_unknown_cell() -> None:
    with pytest.raises(TwinError, match="did you mean 'nmc_ev'"):
        lab.run("nmc_evs")
