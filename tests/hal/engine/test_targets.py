"""Processors by name: code for each of them, strict, small in its needs, and the same every time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hal.engine import Program, cache
from hal.engine.elf import Elf
from hal.engine.stack import deepest, frames
from hal.engine.targets import PROCESSORS, WIDE, Target

MACHINES = {"cortex-m7": 40, "cortex-m4f": 40, "cortex-m33": 40, "cortex-a53": 183, "riscv32imafc": 243}


def _busy(values: Any, out: Any, n: Any) -> Any:
    for k in range(out.shape[0]):
        out[k] = values[k] * values[n - k - 1] + values[0]
    return np.float32(n % out.shape[0])


@pytest.fixture
def busy(small: Callable[..., Program]) -> Program:
    """A program whose one entry multiplies, adds, and divides integers of 64 bits."""
    program = small()
    made = program.kernel("f4(f4[::1], f4[::1], i8)")(_busy)
    made.py_func.__module__ = "hal.engine"
    program.__dict__.pop("entries", None)
    for name in ("total", "fill", "weighted"):
        program.entries.pop(name)
    return program


@pytest.mark.parametrize("name", sorted(PROCESSORS))
def test_objects_of_every_processor(busy: Program, name: str) -> None:
    code, assembly = busy.image(name)
    assert int.from_bytes(code[18:20], "little") == MACHINES[name]
    assert Elf(code).undefined() == (set() if name == "cortex-a53" else {"__moddi3", "__floatdisf"})
    fused = r"\b(vfn?m[as]|fn?madd|fn?msub|fml[as])\b"  # a product that is rounded together with its sum
    assert not re.search(fused, assembly)
    assert re.search(r"\b(vmul|fmul|vmla)", assembly)
    assert deepest(frames(assembly), "rackbms_small__busy", 64).size < 512


def test_numba_lowers_once_for_all(busy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    store = cache.store

    def storing(program: str, key: bytes, code: bytes) -> Any:
        made.append(program)
        return store(program, key, code)

    monkeypatch.setattr(cache, "store", storing)
    first = busy.image("cortex-m7")
    assert made == ["small.ir", "small.cortex-m7"]
    busy.image("cortex-a53")
    assert made[2:] == ["small.cortex-a53"]
    assert busy.image("cortex-m7") == first
    assert len(made) == 3


def test_the_same_bytes_from_an_empty_cache(busy: Program, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name in ("one", "two"):
        monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path / name))
        made.append(busy.image("cortex-m33"))
    assert made[0] == made[1]


def test_only_processors_of_32_bits_have_helpers() -> None:
    assert Target.host().helpers == frozenset() == PROCESSORS["cortex-a53"].target.helpers
    assert all(p.target.helpers == WIDE for name, p in PROCESSORS.items() if name != "cortex-a53")
