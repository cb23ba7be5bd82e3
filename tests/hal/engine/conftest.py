"""A small program, made anew for each process that a test pretends to be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.engine import Program

MODULE = "hal.engine"  # any module that is imported: the entries below pretend to come from it


def _weighted(values: Any, weights: Any, out: Any, offset: Any) -> Any:
    for k in range(out.shape[0]):
        out[k] = values[k] * weights[k] + offset
    return np.int32(out.shape[0])


def _total(values: Any) -> Any:
    total = 0.0
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            total += values[row, column]
    return total


def _fill(out: Any, flag: Any, number: Any) -> Any:
    for k in range(out.shape[0]):
        out[k] = number if flag else -number


SIGNATURES = {
    "weighted": ("i4(f4[::1], f4[::1], f4[::1], f4)", _weighted),
    "total": ("f8(f8[:,::1])", _total),
    "fill": ("void(i8[::1], b1, i8)", _fill),
}


def make_program(name: str = "small", **options: Any) -> Program:
    """A program with three entries, as a process that has just started has it."""
    program = Program(
        name, place="nowhere:NOTHING", about="three sums", modules=(MODULE,), sources=(Path(__file__),), **options
    )
    for entry, (signature, function) in SIGNATURES.items():
        made = program.kernel(signature)(function)
        made.__name__ = entry
        made.py_func.__module__ = MODULE
    return program


def answers(program: Program) -> list[Any]:
    """What the three entries of the program say, bit for bit."""
    values = np.linspace(-3, 5, 37, dtype=np.float32)
    out, filled = np.zeros_like(values), np.zeros(3, np.int64)
    said = program.entries["weighted"](values, values[::-1].copy(), out, 0.1)
    program.entries["fill"](filled, True, -7)
    return [said, out.tobytes(), program.entries["total"](np.arange(12.0).reshape(3, 4)), filled.tolist()]


@pytest.fixture
def small() -> Callable[..., Program]:
    return make_program


@pytest.fixture
def expected() -> list[Any]:
    """The same numbers from plain numpy."""
    values = np.linspace(-3, 5, 37, dtype=np.float32)
    return [37, (values * values[::-1] + np.float32(0.1)).tobytes(), 66.0, [-7, -7, -7]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of compiled programs, empty."""
    monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rackbms"


@pytest.fixture
def said() -> Callable[[Program], list[Any]]:
    return answers
