"""Profiles of register maps: the shipped one is sound, and a mistake in one is told with its place and a remedy."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bms.core.faults import Fault
from hal.codec.register_map import RegisterMap
from hal.codec.register_profile import SCOPES, TAKES, Spec, load, names, parse
from hal.codec.register_reader import Image, Reader
from hal.contract import COMMAND, MEASUREMENT, Measurement
from hal.errors import ConfigError

GOOD: dict[str, Any] = {
    "format": 1,
    "model": [
        {
            "id": 805,
            "each": "module",
            "points": {"CellV_SF": {"value": -3}},
            "groups": {"lithium-ion-module-cell": {"each": "cell", "CellV": "cell_v"}},
        }
    ],
}
CELLS = "lithium-ion-module-cell"


def test_the_shipped_profile_carries_every_field_of_a_measurement() -> None:
    profile = load("sunspec")
    specs = [
        s
        for one in profile.models
        for table in (one.points, *(p for _, p in one.groups.values()))
        for s in table.values()
    ]
    carried = {s.channel for s in specs if s.plain}
    ages_of_single_values = {f.name for f in MEASUREMENT.fields}
    assert ages_of_single_values - carried == {"sensor_degc"}
    assert "cell_degc" in carried


def test_the_shipped_profile_carries_what_a_rack_needs_of_a_command() -> None:
    profile = load("sunspec")
    carried = {s.channel for one in profile.models if one.writable for s in one.points.values()}
    carried |= {s.channel for one in profile.models if one.writable for _, p in one.groups.values() for s in p.values()}
    left = {f"command.{f.name}" for f in COMMAND.fields} - carried
    assert left == {
        f"command.{name}"
        for name in ("horizon_a", "horizon_w", "reason_value", "reason_margin", "reason_index", "reason")
    }


def test_the_bits_of_a_runaway_are_those_of_the_fault_table() -> None:
    one = load("sunspec").find(802)
    assert one is not None
    assert one.points["EvtVnd1"].bits[3:] == (
        f"command.fault_fatal:{int(Fault.RUNAWAY)}",
        f"command.fault_fatal:{int(Fault.RUNAWAY_RATES)}",
    )


def test_profiles_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    assert "sunspec" in names()
    with pytest.raises(ConfigError, match="did you mean 'sunspec'"):
        load("sunspek")
    path = tmp_path / "mine.toml"
    path.write_text('format = 1\n[[model]]\nid = 1\n[model.points]\nMn = { value = "me" }\n')
    assert load(str(path)).models[0].points == {"Mn": Spec(value="me")}
    path.write_text("format =")
    with pytest.raises(ConfigError, match=r"mine.toml: cannot be read"):
        load(str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(tmp_path / "absent.toml"))


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def points(**entries: Any) -> dict[str, Any]:
    return changed(model=[{**GOOD["model"][0], "points": entries}])


def cells(**entries: Any) -> dict[str, Any]:
    return changed(model=[{**GOOD["model"][0], "groups": {CELLS: entries}}])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (changed(format=2), "format = 2"),
        (changed(bases=[1]), "unknown key 'bases' (did you mean 'base'?)"),
        (changed(base=[70000]), "base = [70000]"),
        (changed(base=[]), "base = []"),
        (changed(cells_per_module=0), "cells_per_module = 0"),
        (changed(cells_per_module=True), "cells_per_module = True"),
        (changed(model=[]), "no [[model]]"),
        (changed(model=[{"id": 0}]), "id = 0"),
        (changed(model=[{"id": 805, "each": "cell"}]), "each = 'cell': expected rack or module"),
        (changed(model=[{"id": 805, "writable": 1}]), "writable = 1"),
        (changed(model=[{"id": 805, "needs": "wings"}]), "needs = 'wings'"),
        (changed(model=[{"id": 805}]), f"the group '{CELLS}' of the model is missing"),
        (changed(model=[{"id": 805, "groups": {"cels": {"each": "cell"}}}]), "no such group"),
        (changed(step=["805.V"]), "'805.V': expected model.point"),
        (changed(step=3 * ["805.CellV"]), "expected a list of one point, or the first and the last"),
        (changed(commit="1.Hb"), "'1.Hb': expected model.point"),
        (points(CelV_SF={"value": 1}), "no point 'CelV_SF' (did you mean"),
        (points(V=7), "V = 7: expected the name of a field"),
        (points(V={"value": 1, "channel": "pack_v"}), "exactly one of"),
        (points(V={}), "exactly one of"),
        (points(V="packv"), "no field 'packv' (did you mean 'pack_v'?)"),
        (points(V={"product": ["pack_v", "amps"]}), "no field 'amps'"),
        (points(V={"bits": ["!gas"]}), "no field 'gas'"),
        (points(V="cell_v"), "'cell_v' has many values: give take"),
        (points(V={"channel": "cell_v", "take": "maxx"}), "take = 'maxx'"),
        (points(V={"channel": "pack_v", "factor": 0}), "factor = 0"),
        (points(V={"channel": "pack_v", "scale": 1}), "unknown key 'scale'"),
        (cells(CellV="cell_v"), "each = None"),
        (cells(each="sensor", CellV="cell_v"), "'cell_v' is not counted for each sensor"),
    ],
)
def test_a_mistake_is_told_with_its_place(table: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        parse(table, tmp_path, "profile mine")
    assert str(error.value).startswith("profile mine: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_good_one_that_the_mistakes_start_from_is_good(tmp_path: Path) -> None:
    assert parse(GOOD, tmp_path, "x").find(805) is not None
    assert parse(changed(step=["805.CellV_SF", "805.CellV"]), tmp_path, "x").step == ((805, "CellV_SF"), (805, "CellV"))


def test_the_page_names_every_take_and_scope(repository: Path) -> None:
    text = (repository / "docs" / "modbus.md").read_text()
    assert not [name for name in (*TAKES, *SCOPES) if f"`{name}`" not in text]


def test_the_example_of_the_page_is_a_profile(repository: Path, tmp_path: Path, info_of: Any, measured: Any) -> None:
    """Served and read, it carries the cells and the current."""
    text = (repository / "docs" / "modbus.md").read_text()
    (example,) = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[model]]" in block]
    path = tmp_path / "mine.toml"
    path.write_text(example)
    profile = load(str(path))
    served = RegisterMap(profile, info_of(20))
    served.source.measurement.copy_from(measured(info_of(20)))
    image = Image()
    image.put(served.base, np.frombuffer(served.encode(), ">u2").tolist())
    out = Measurement(20, 20)
    Reader(profile, served.placed, image, "mine").decode(image, out)
    assert np.allclose(out.cell_v, served.source.measurement.cell_v, atol=0.6e-3)  # CellV_SF = -3
    assert out.head["current_a"] == pytest.approx(served.source.measurement.head["current_a"], abs=0.06)
    assert out.head["bleeding_quality"] == 0
