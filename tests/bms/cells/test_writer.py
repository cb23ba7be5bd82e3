"""What is written is read back, and the same cell gives the same bytes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.cells import CellParameters, parse
from bms.cells.writer import dump


def read(text: str) -> CellParameters:
    return parse(tomllib.loads(text), "written")


def test_everything_comes_back(plain_cell: CellParameters) -> None:
    cell = replace(plain_cell, filter={"voltage_std": 0.06, "q_std": 0.008})
    back = read(dump(cell))
    for field in fields(CellParameters):
        a, b = getattr(cell, field.name), getattr(back, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6, err_msg=field.name)
            assert a.shape == b.shape
        else:
            assert a == b, field.name


def test_writing_what_was_read_changes_nothing(plain_cell: CellParameters) -> None:
    text = dump(plain_cell)
    assert dump(read(text)) == text
    assert dump(plain_cell) == text


def test_voltages_keep_a_microvolt_and_charge_ten_microamperehours(
    make_plain_cell: Callable[..., CellParameters],
) -> None:
    rng = np.random.default_rng(0)
    plain = make_plain_cell()
    cell = make_plain_cell(
        ocv_v=plain.ocv_v + 1e-4 * rng.random(plain.ocv_v.shape), capacity=2.0 + 0.01 * rng.random(3)
    )
    back = read(dump(cell))
    assert np.max(np.abs(back.ocv_v - cell.ocv_v)) <= 0.5e-6 + 1e-12
    assert np.max(np.abs(back.capacity - cell.capacity)) <= 0.5e-5 + 1e-12


def test_numbers_of_any_size_are_numbers_of_toml(make_plain_cell: Callable[..., CellParameters]) -> None:
    cell = make_plain_cell(bend_a=1e-7, tau_s=np.array([1.0, 1e3, 1e5, 1e7]), gamma=np.array([1e-9, 120.0, 5e6]))
    back = read(dump(cell))
    assert back.bend_a == 1e-7
    np.testing.assert_allclose(back.tau_s, cell.tau_s)
    np.testing.assert_allclose(back.gamma, cell.gamma)


@pytest.mark.parametrize(
    "text", ['say "hello"', "back\\slash", "two\nlines", "tab\tbell\x07", "delete\x7f", "°C, Ω, 你好", ""]
)
def test_any_text_comes_back(plain_cell: CellParameters, text: str) -> None:
    assert read(dump(replace(plain_cell, source=text))).source == text


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_at_all_comes_back(plain_cell: CellParameters, text: str) -> None:
    assert read(dump(replace(plain_cell, source=text))).source == text
