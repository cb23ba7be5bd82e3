"""Pictures are PNG files, the same for the same numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.lab.curves import Slow, read_dynamic, read_slow
from bms.lab.fit import Dynamic
from bms.lab.plots import plot_cell, plot_estimate
from bms.lab.trace import Trace
from hal.errors import ConfigError

Columns = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def laboratory(
    plain_cell: CellParameters, slow: Callable[..., Columns], dynamic: Callable[..., Columns]
) -> tuple[Slow, Dynamic]:
    s = read_slow("slow", slow(plain_cell))
    return s, read_dynamic("duty", dynamic(plain_cell), s)[0]


def test_a_picture_of_a_cell(plain_cell: CellParameters, laboratory: tuple[Slow, Dynamic], tmp_path: Path) -> None:
    s, d = laboratory
    a = plot_cell(plain_cell, [s], [d], tmp_path / "a.png").read_bytes()
    b = plot_cell(plain_cell, [s], [d], tmp_path / "b.png").read_bytes()
    assert a.startswith(b"\x89PNG")
    assert len(a) > 20000
    assert a == b
    one_way = Slow(s.name, s.degc, s.rate_c, s.capacity_ah, s.discharge_v, None, s.v_low, s.v_high)
    assert plot_cell(plain_cell, [one_way], [d], tmp_path / "c.png").read_bytes() != a


@pytest.mark.parametrize("truth", [True, False])
def test_a_picture_of_an_estimate(laboratory: tuple[Slow, Dynamic], tmp_path: Path, truth: bool) -> None:
    d = laboratory[1]
    trace = Trace(d.time_s, d.current_a, d.voltage_v, d.temperature_degc, d.soc if truth else None)
    path = plot_estimate(trace, d.soc, 0.01 + 0 * d.soc, d.voltage_v, "title", tmp_path / "picture.anything")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["picture.anything"]


def test_without_matplotlib_the_line_to_install_it(
    plain_cell: CellParameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'rackbms\[lab\]'"):
        plot_cell(plain_cell, [], [], tmp_path / "a.png")


def test_a_folder_that_does_not_exist(
    plain_cell: CellParameters, laboratory: tuple[Slow, Dynamic], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        plot_cell(plain_cell, [], [laboratory[1]], tmp_path / "none" / "a.png")
