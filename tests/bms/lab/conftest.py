"""A small laboratory: tests of the plain cell, computed from the model's equations in float64, written as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.cells.writer import dump
from bms.lab.trace import write_columns

Columns = dict[str, np.ndarray]


def simulate(
    cell: CellParameters, time_s: np.ndarray, current_a: np.ndarray, degc: float, *, soc: float = 1.0, h: float = 1.0
) -> Columns:
    """Voltage of `cell` under a current that holds its mean between samples, from rest; no noise."""

    def at_degc(table: np.ndarray) -> np.ndarray:
        return np.array([np.interp(degc, cell.degc, column) for column in np.atleast_2d(table.T)])

    ocv, m, r0, rct = (at_degc(t) for t in (cell.ocv_v, cell.hysteresis_v, cell.r0_ohm, cell.rct_ohm))
    pairs = [at_degc(t) for t in cell.r_ohm]
    capacity, eta, gamma, m0 = (
        float(np.interp(degc, cell.degc, t))
        for t in (cell.capacity, cell.coulombic_efficiency, cell.gamma, cell.hysteresis_instant_v)
    )
    x, s = np.zeros(4), 0.0
    volts, socs = [], []
    for k, now in enumerate(current_a):
        dt = time_s[k] - time_s[k - 1] if k else 0.0
        mid = 0.5 * (now + current_a[k - 1]) if k else now
        b = 1.0 - np.exp(-dt / cell.tau_s)
        x = x + b * (mid - x)
        moved = (1.0 if mid > 0 else eta) * mid * dt / (3600.0 * capacity)
        soc -= moved
        a = np.exp(-abs(mid) * gamma * dt / (3600.0 * capacity))
        h = a * h - (1.0 - a) * (1.0 if mid > 0 else -1.0)
        if abs(now) > 0.01 * capacity:
            s = 1.0 if now > 0 else -1.0
        drop = sum(np.interp(soc, cell.soc_r, r) * x[j] for j, r in enumerate(pairs))
        drop += np.interp(soc, cell.soc_r, r0) * now
        drop += np.interp(soc, cell.soc_r, rct) * cell.bend_a * np.arcsinh(now / cell.bend_a)
        volts.append(np.interp(soc, cell.soc, ocv) + np.interp(soc, cell.soc, m) * h + m0 * s - drop)
        socs.append(soc)
    return {
        "time_s": time_s, "current_a": current_a, "voltage_v": np.array(volts),
        "temperature_degc": np.full(time_s.size, degc), "soc_true": np.array(socs),
    }  # fmt: skip


def slow_test(cell: CellParameters, degc: float = 25.0, rate_c: float = 0.04) -> Columns:
    """Full to empty and back, an hour of rest between; one row a minute."""
    capacity = float(np.interp(degc, cell.degc, cell.capacity))
    eta = float(np.interp(degc, cell.degc, cell.coulombic_efficiency))
    down = round(60 / rate_c)
    current = (
        np.r_[np.full(down, 1.0), np.zeros(60), np.full(round(down / eta), -1.0), np.zeros(60)] * rate_c * capacity
    )
    return simulate(cell, 60.0 * np.arange(current.size), current, degc)


def dynamic_test(cell: CellParameters, degc: float = 25.0, seed: int = 0) -> Columns:
    """Pulses and rests from full to 4 %, one row a second, recuperation included."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(60)]
    removed, target = 0.0, 0.95 * 3600 * float(np.interp(degc, cell.degc, cell.capacity))
    while removed < target:
        level = rng.choice([0.0, -1.0, 1.0, 2.0, 4.0], p=[0.2, 0.15, 0.2, 0.25, 0.2])
        part = np.full(rng.integers(5, 90), level)
        if removed + part.sum() > target:
            part = part[: max(int((target - removed) / level), 1)]
        if removed + part.sum() >= 0.0:
            parts.append(part)
            removed += part.sum()
    current = np.concatenate([*parts, np.zeros(300)])
    return simulate(cell, np.arange(float(current.size)), current, degc)


@pytest.fixture(scope="session")
def slow() -> Callable[..., Columns]:
    return slow_test


@pytest.fixture(scope="session")
def dynamic() -> Callable[..., Columns]:
    return dynamic_test


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, plain_cell: CellParameters) -> Path:
    """A folder with slow.csv.gz, duty.csv, other.csv (another duty) and plain.toml; not to be written to."""
    folder = tmp_path_factory.mktemp("laboratory")
    write_columns(folder / "slow.csv.gz", slow_test(plain_cell))
    write_columns(folder / "duty.csv", dynamic_test(plain_cell))
    write_columns(folder / "other.csv", dynamic_test(plain_cell, seed=1))
    (folder / "plain.toml").write_text(dump(plain_cell))
    return folder
