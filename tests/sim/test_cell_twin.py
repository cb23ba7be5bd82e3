import copy
import tomllib
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import cell
from sim.config import TwinError


@pytest.mark.parametrize("name", cell.names())
def test_every_cell_is_sound(name: str) -> None:
    data = cell.load(name)
    assert data.head.name == name
    u, m = data.table[:, cell.COL_U], data.table[:, cell.COL_M]
    assert np.all(np.diff(u - m) > 0)
    assert np.all(np.diff(u + m) > 0)
    assert np.all(m >= 0)
    # full and empty are where a slow test of the cell ends: within 1 % of SoC of the voltage limits
    slope = np.diff(u)[[0, -1]] * (cell.GRID - 1)
    assert abs(u[0] - m[0] - data.head.v_min) / slope[0] < 0.01
    assert abs(u[-1] + m[-1] - data.head.v_max) / slope[1] < 0.02
    # each number says where it comes from
    text = (resources.files("sim") / "cells" / f"{name}.toml").read_text()
    assert text.count("#") > 10


def test_plateau_of_lfp_has_its_steps() -> None:
    data = cell.load("lfp_280")
    z = np.linspace(0, 1, cell.GRID)
    inside = (z > 0.22) & (z < 0.9)
    for sign, steps in ((-1, (0.74, 0.31)), (1, (0.64, 0.25))):
        curve = data.table[:, cell.COL_U] + sign * data.table[:, cell.COL_M]
        slope = np.gradient(curve, z)
        for where in steps:
            near = inside & (np.abs(z - where) < 0.06)
            assert slope[near].max() > 3 * slope[inside & (np.abs(z - 0.5) < 0.05)].max()
        assert slope[np.abs(z - 0.5) < 0.05].max() < 0.1  # V per unit SoC: flat in between


def test_stored_energy_is_the_integral() -> None:
    data = cell.load("lfp_280")
    u = data.table[:, cell.COL_U] - 298.15 * data.table[:, cell.COL_DUDT]
    z = np.linspace(0, 1, cell.GRID)
    assert data.stored_energy_j_per_as(1.0) == pytest.approx(np.trapezoid(u, z), rel=1e-12)
    fine = np.linspace(0, 0.4321, 200001)
    assert data.stored_energy_j_per_as(0.4321) == pytest.approx(np.trapezoid(np.interp(fine, z, u), fine), rel=1e-9)
    assert data.stored_energy_j_per_as(0.0) == 0.0
    top = (data.stored_energy_j_per_as(1.001) - data.stored_energy_j_per_as(1.0)) / 0.001
    assert u[-1] < top < u[-1] + 0.02


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_pchip_meets_its_points_and_never_overshoots(ys: list[float], random) -> None:  # type: ignore[no-untyped-def]
    inner = sorted({round(random.uniform(0.02, 0.98), 4) for _ in range(len(ys) - 2)})
    xs = [0.0, *inner, 1.0]
    ys = ys[: len(xs)]
    at = np.linspace(0, 1, 301)
    curve = cell.pchip(xs, ys, at, "here")
    np.testing.assert_allclose(cell.pchip(xs, ys, np.array(xs), "here"), ys, atol=1e-12)
    for left, right, a, b in zip(xs, xs[1:], ys, ys[1:], strict=False):
        part = curve[(at >= left) & (at <= right)]
        assert np.all(part >= min(a, b) - 1e-9)
        assert np.all(part <= max(a, b) + 1e-9)


def test_unknown_name_gets_a_hint() -> None:
    with pytest.raises(TwinError, match=r"unknown twin cell 'lfp280' \(did you mean 'lfp_280'\?\)"):
        cell.load("lfp280")


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("ocv", "discharge_v", [3.0, 3.2, 3.1, 3.5], "discharge_v: does not rise"),
        ("ocv", "charge_v", [2.9, 3.2, 3.4, 3.6], "charge curve runs below"),
        ("ocv", "charge_v", [3.1, 3.4], "2 values for 4 SoC points"),
        ("ocv", "soc", [0.0, 0.5, 0.4, 1.0], "soc must rise from 0 to 1"),
        ("ocv", "soc", [0.0, 0.4, 0.5, 0.9], "soc must rise from 0 to 1"),
        ("resistance", "rc_ohm", [1e-3], "four RC pairs"),
        ("resistance", "ohmic_ohm", 0.0, "not positive"),
        ("hysteresis", "gamma", 0.0, "gamma: must be positive"),
        ("ageing", "coulombic_efficiency", 1.2, "coulombic_efficiency"),
        ("cell", "capacity", 5.0, "unknown key 'capacity' (did you mean 'capacity_ah'?)"),
        ("thermal", "ambient_w_per_k", "much", "expected a finite number"),
    ],
)
def test_unsound_data_is_refused(table: str, key: str, value: object, message: str) -> None:
    data = tomllib.loads((resources.files("sim") / "cells" / "lfp_280.toml").read_text())
    data["ocv"] = {
        "degc": 25.0,
        "soc": [0.0, 0.3, 0.6, 1.0],
        "discharge_v": [3.0, 3.2, 3.3, 3.5],
        "charge_v": [3.1, 3.3, 3.4, 3.6],
    }
    cell.build(copy.deepcopy(data), "good.toml")
    data[table][key] = value
    with pytest.raises(TwinError) as caught:
        cell.build(data, "bad.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("bad.toml")


def test_missing_and_unknown_tables_are_refused() -> None:
    data = tomllib.loads((resources.files("sim") / "cells" / "lfp_280.toml").read_text())
    with pytest.raises(TwinError, match=r"unknown table \[thermel\] \(did you mean 'thermal'\?\)"):
        cell.build({**data, "thermel": {}}, "x.toml")
    del data["thermal"]
    with pytest.raises(TwinError, match=r"x.toml: the table \[thermal\] is missing"):
        cell.build(data, "x.toml")
