"""Every mistake in a register map and in its own models is a finding, with file, field, value and remedy."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bms.racks.findings import ERROR, WARNING, Finding
from bms.racks.lint_profile_registers import lint
from hal.errors import ConfigError

MODEL: dict[str, Any] = {
    "id": 64999,
    "group": {
        "name": "own",
        "points": [
            {"name": "ID", "type": "uint16", "size": 1},
            {"name": "L", "type": "uint16", "size": 1},
            {"name": "A", "type": "int16", "size": 1, "sf": "A_SF"},
            {"name": "V", "type": "uint32", "size": 2},
            {"name": "T", "type": "int16", "size": 1},
            {"name": "A_SF", "type": "sunssf", "size": 1},
            {"name": "N", "type": "count", "size": 1},
            {"name": "Con", "type": "uint16", "size": 1, "access": "RW"},
            {"name": "Hb", "type": "uint32", "size": 2, "access": "RW"},
        ],
        "groups": [
            {"name": "cell", "count": "N", "points": [{"name": "Cv", "type": "uint16", "size": 1}]},
            {"name": "rest", "count": 0, "points": [{"name": "Ct", "type": "int16", "size": 1}]},
        ],
    },
}
TOML = """
format = 1
commit = "64999.Hb"
[[model]]
id = 64999
writable = true
[model.points]
A = "current_a"
A_SF = { value = -1 }
V = "pack_v"
T = "contactors"
Con = "command.contactors"
Hb = "command.heartbeat"
[model.groups.cell]
each = "cell"
Cv = "cell_v"
[model.groups.rest]
each = "cell"
Ct = "cell_degc"
"""


def found(folder: Path, model: Any = MODEL, toml: str = TOML) -> list[Finding]:
    (folder / "model_64999.json").write_text(json.dumps(model))
    (folder / "own.toml").write_text(toml)
    return lint(str(folder / "own.toml"))[1]


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The model with the value at `path` changed."""
    model: Any = copy.deepcopy(MODEL)
    place = model
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    assert model != MODEL
    return dict(model)


def test_a_sound_one_has_none(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    assert lint(str(tmp_path / "own.toml"))[0] == f"profile {tmp_path}/own.toml: 1 models, 8 points"


def test_the_shipped_one_has_none() -> None:
    assert lint("sunspec") == ("profile sunspec: 9 models, 224 points", [])


PLAIN = """
format = 1
step = ["Pack.Count"]
[rack]
n_cells = 4
n_sensors = 2
capacity_ah = 100
[[block]]
name = "Pack"
address = 10
[block.points]
Count = { at = 0, type = "uint16", channel = "served.count" }
Current = { at = 1, type = "int16", channel = "current_a" }
Voltage = { at = 2, type = "uint16", channel = "pack_v" }
Closed = { at = 3, type = "bitfield16", channel = "contactors" }
[[block]]
name = "Cells"
address = 20
each = "cell"
[block.points]
Voltage = { at = 0, type = "uint16", channel = "cell_v", factor = 1000 }
[[block]]
name = "Sensors"
address = 30
each = "sensor"
[block.points]
Degrees = { at = 0, type = "int16", channel = "sensor_degc" }
"""


def plain(folder: Path, text: str = PLAIN) -> tuple[str, list[Finding]]:
    (folder / "plain.toml").write_text(text)
    return lint(str(folder / "plain.toml"))


def test_a_sound_map_of_plain_registers_has_none(tmp_path: Path) -> None:
    assert plain(tmp_path) == (f"profile {tmp_path}/plain.toml: 3 blocks, 6 points", [])


def test_registers_that_overlap_are_findings(tmp_path: Path) -> None:
    text = PLAIN.replace("address = 30", "address = 23").replace("at = 2", "at = 1").replace('"pack_v"', '"pack_x"')
    _, found = plain(tmp_path, text)
    assert [str(finding).partition("plain.toml: ")[2] for finding in found] == [
        "[[block]] Pack.Voltage = 11: overlaps Pack.Current; move one of them",
        "[[block]] Sensors.Degrees = 23: overlaps Cells.Voltage; move one of them",
        "[[block]] Pack: Voltage: there is no field 'pack_x' (did you mean 'pack_v'?)",
        "field pack_v: missing: the sum of the cells is compared with nothing; name the point that carries it",
    ]
    assert [finding.severity for finding in found] == [ERROR] * 3 + [WARNING]


def test_a_model_under_the_number_of_another_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"model_64999.json: id = 64998: the file is that of 64999; rename one of them"
    ):
        found(tmp_path, changed("id", to=64998))


POINTS = ("group", "points")


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (changed(*POINTS, 3, "size", to=1), "model_64999.json: point V size = 1: uint32 takes 2: all that follows is shifted; write 2, or another type"),
        (changed(*POINTS, 4, "name", to="A"), "model_64999.json: point A: the name is given twice in one group; rename one of them"),
        (changed(*POINTS, 2, "sf", to="X_SF"), "model_64999.json: point A sf = X_SF: the model has no such point; name one, or a number"),
        (changed("group", "groups", 0, "count", to="M"), "model_64999.json: group cell count = M: the model has no such point; name one, or give"),
        (changed("group", "groups", 0, "count", to=0), "model_64999.json: group cell count = 0: takes all that is left, and other groups follow: their length is wrong; move"),
        (changed(*POINTS, 1, "type", to="uint32"), "model_64999.json: points = ID uint16, L uint32: a model begins with its number and its length; begin with ID and L"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_model_is_a_finding(tmp_path: Path, model: dict[str, Any], line: str) -> None:
    toml = TOML.replace('T = "contactors"\n', "") if "name is given twice" in line else TOML
    told = found(tmp_path, model, toml)
    assert any(line in str(finding) and finding.severity == ERROR for finding in told), [str(f) for f in told]


@pytest.mark.parametrize(
    ("old", "new", "severity", "line"),
    [
        ('Cv = "cell_v"\n', "", ERROR, "field cell_v: missing: no model tells the voltages of the cells; name the point that carries it"),
        ('A = "current_a"\n', "", WARNING, "field current_a: missing: the current is not told"),
        ('Ct = "cell_degc"\n', "", WARNING, "field sensor_degc: missing: no temperature is told"),
        ("A_SF = { value = -1 }\n", "", WARNING, "model 64999: point A: its scale factor A_SF has no value"),
        ('commit = "64999.Hb"\n', "", ERROR, 'commit: missing: no write makes a command effective; write commit = "MODEL.POINT"'),
        ('Con = "command.contactors"\n', "", WARNING, "field command.contactors: missing: nothing opens them"),
        ('Hb = "command.heartbeat"\n', 'Hb = "command.time_s"\n', WARNING, "field command.heartbeat: missing: the device cannot see a controller that hangs"),
        ("[[model]]", "[[model]]\nid = 64999\ngroups.cell = { each = 'cell' }\ngroups.rest = { each = 'cell' }\n[[model]]", ERROR, "[[model]] id = 64999: is given twice: the second is never found"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_profile_is_a_finding(tmp_path: Path, old: str, new: str, severity: str, line: str) -> None:
    assert old in TOML
    toml = TOML.replace(old, new)
    if "twice" in line:
        toml = toml.replace('commit = "64999.Hb"\n', "")
    told = found(tmp_path, toml=toml)
    assert any(line in str(finding) and finding.severity == severity for finding in told), [str(f) for f in told]
