"""Laboratory files of both forms become slow curves; what cannot be right is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.lab.curves import as_columns, read_dynamic, read_slow
from bms.lab.fit import SOC_OCV
from bms.lab.trace import write_columns
from hal.errors import DataError

Columns = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def slow_columns(plain_cell: CellParameters, slow: Callable[..., Columns]) -> Columns:
    return slow(plain_cell)


def without(d: Columns, *names: str) -> Columns:
    return {k: v for k, v in d.items() if k not in names}


def scripts(d: Columns) -> Columns:
    """A slow test as Plett's four scripts: discharge to 3 %, the rest at 25 degC, charge to 98 %, the rest."""
    i, t = d["current_a"], d["time_s"]
    down, up = np.flatnonzero(i > 0), np.flatnonzero(i < 0)
    parts = [
        down[: int(0.97 * down.size)],
        down[int(0.97 * down.size) :],
        up[: int(0.98 * up.size)],
        up[int(0.98 * up.size) :],
    ]
    rows = {
        k: []
        for k in ("script", "step", "time_s", "current_a", "voltage_v", "temperature_degc", "charge_ah", "discharge_ah")
    }
    for k, part in enumerate(parts):
        ah = np.cumsum(np.abs(i[part])) * 60.0 / 3600.0
        rows["script"].append(np.full(part.size, k + 1.0))
        rows["step"].append(np.full(part.size, 2.0))
        rows["time_s"].append(t[part] - t[part[0]])
        rows["current_a"].append(i[part])
        rows["voltage_v"].append(d["voltage_v"][part])
        rows["temperature_degc"].append(d["temperature_degc"][part])
        rows["charge_ah"].append(ah if k > 1 else 0 * ah)
        rows["discharge_ah"].append(ah if k < 2 else 0 * ah)
    return {k: np.concatenate(v) for k, v in rows.items()}


@pytest.mark.parametrize("form", ["one discharge and charge", "without soc_true", "four scripts"])
def test_both_forms_tell_the_same_cell(
    slow_columns: Columns, plain_cell: CellParameters, tmp_path: Path, form: str
) -> None:
    d = scripts(slow_columns) if "scripts" in form else without(slow_columns, "soc_true" if "without" in form else "")
    write_columns(tmp_path / "slow.csv", d)
    s = read_slow("slow.csv", as_columns(tmp_path / "slow.csv"))
    assert s.capacity_ah == pytest.approx(2.0, rel=3e-3)
    assert s.rate_c == pytest.approx(0.04, rel=1e-2)
    assert s.degc == 25.0
    middle = (SOC_OCV > 0.1) & (SOC_OCV < 0.94)
    # drop and hysteresis are alike both ways at C/25 and cancel; what is left is where SoC was counted a little off
    ocv = np.interp(SOC_OCV, plain_cell.soc, plain_cell.ocv_v[1])
    assert np.max(np.abs(s.base_v - ocv)[middle]) < 2e-3
    assert s.half_gap_v is not None
    assert np.all(s.half_gap_v[middle] > 0.012), "no smaller than the hysteresis that the cell has"
    assert np.all(s.half_gap_v[middle] < 0.022)
    assert s.v_low == pytest.approx(d["voltage_v"].min())
    assert s.v_high == pytest.approx(d["voltage_v"].max())


def test_a_charge_that_ended_early_keeps_its_distance(slow_columns: Columns) -> None:
    cut = slow_columns["time_s"].size - 60 - 400
    s = read_slow("x", {k: v[:cut] for k, v in slow_columns.items()})
    assert s.charge_v is not None
    top = SOC_OCV > 0.8
    gap = (s.charge_v - s.discharge_v)[top]
    assert np.ptp(gap) < 1e-3


def test_a_fast_charge_is_no_slow_curve(slow_columns: Columns) -> None:
    d = dict(slow_columns)
    d["current_a"] = np.where(d["current_a"] < 0, 12 * d["current_a"], d["current_a"])
    s = read_slow("x", d)
    assert s.charge_v is None
    assert s.half_gap_v is None
    np.testing.assert_array_equal(s.base_v, s.discharge_v)


def test_a_current_of_the_wrong_sign_is_named(slow_columns: Columns) -> None:
    only_charge = {k: v[: 60 * 25] for k, v in slow_columns.items()} | {
        "current_a": -slow_columns["current_a"][: 60 * 25]
    }
    with pytest.raises(DataError, match="wrong.csv: no discharge found.*positive current = discharge"):
        read_slow("wrong.csv", only_charge)
    d = scripts(slow_columns)
    with pytest.raises(DataError, match="wrong.csv: script 1 has no discharge.*positive current = discharge"):
        read_slow("wrong.csv", {**d, "current_a": -d["current_a"]})


def test_scripts_that_do_not_make_a_test(slow_columns: Columns) -> None:
    d = scripts(slow_columns)
    for column in ("step", "charge_ah", "discharge_ah"):
        with pytest.raises(DataError, match=f"x.csv: column '{column}' is missing"):
            read_slow("x.csv", without(d, column))
    with pytest.raises(DataError, match="x.csv: script 4 is missing"):
        read_slow("x.csv", {k: v[d["script"] < 4] for k, v in d.items()})
    with pytest.raises(DataError, match="x.csv: .*discharge_ah counts what scripts 1 and 2 remove"):
        read_slow("x.csv", {**d, "discharge_ah": 0 * d["discharge_ah"]})


def test_a_dynamic_test_with_a_reference_is_taken_as_it_is(
    plain_cell: CellParameters, slow_columns: Columns, dynamic: Callable[..., Columns]
) -> None:
    d = dynamic(plain_cell)
    t, warning = read_dynamic("duty", d, read_slow("slow", slow_columns))
    assert warning == ""
    np.testing.assert_array_equal(t.soc, d["soc_true"])
    assert t.degc == 25.0


def test_without_a_reference_the_discharge_to_empty_is_counted(slow_columns: Columns) -> None:
    s = read_slow("slow", slow_columns)
    t, warning = read_dynamic("x", without(slow_columns, "soc_true"), s)
    assert "no soc_true" in warning
    assert "to empty" in warning
    assert t.soc[0] == 1.0
    assert t.soc[-1] == pytest.approx(0.0, abs=1e-9)
    assert np.all(t.current_a > 0)


def test_without_a_reference_and_without_an_end_the_slow_capacity_counts(slow_columns: Columns) -> None:
    s = read_slow("slow", slow_columns)
    half = {k: v[:750] for k, v in without(slow_columns, "soc_true").items()}
    t, warning = read_dynamic("x", half, s)
    assert "by the capacity of the slow test" in warning
    assert t.soc[-1] == pytest.approx(0.5, abs=5e-3)


def test_a_reference_that_does_not_belong_to_the_current(
    plain_cell: CellParameters, slow_columns: Columns, dynamic: Callable[..., Columns]
) -> None:
    s, d = read_slow("slow", slow_columns), dynamic(plain_cell)
    with pytest.raises(
        DataError, match="duty.csv: soc_true does not fall while current_a is positive; positive current = discharge"
    ):
        read_dynamic("duty.csv", {**d, "current_a": -d["current_a"]}, s)
    with pytest.raises(DataError, match="duty.csv: soc_true covers only 0 %"):
        read_dynamic("duty.csv", {**d, "soc_true": 0 * d["soc_true"] + 0.5}, s)
    with pytest.raises(DataError, match="neither a column 'soc_true' nor a discharge"):
        read_dynamic("duty.csv", {**without(d, "soc_true"), "current_a": 0 * d["current_a"]}, s)
