"""A register map may take models over from the profile beside it, and change them."""

from pathlib import Path

import pytest

from hal.codec.register_profile import load
from hal.errors import ConfigError

BASE = """
format = 1
base = [50000]
cells_per_module = 12
step = ["802.Hb"]
[[model]]
id = 802
[model.points]
Hb = { channel = "served.count", take = "counter" }
V = "pack_v"
[[model]]
id = 805
each = "module"
[model.groups.lithium-ion-module-cell]
each = "cell"
CellV = "cell_v"
"""
CHANGES = """
format = 1
models = [802, 805]
[[model]]
id = 802
writable = true
[model.points]
V = { channel = "pack_v", factor = 2 }
A = "current_a"
[[model]]
id = 805
[model.groups.lithium-ion-module-cell]
CellTmp = "cell_degc"
[[model]]
id = 1
[model.points]
DA = { value = 7 }
"""


def written(folder: Path, base: str = BASE, changes: str = CHANGES) -> str:
    (folder / "profile.toml").write_text(base)
    (folder / "own.toml").write_text(changes)
    return str(folder / "own.toml")


def test_points_are_changed_and_added_and_the_rest_stays(tmp_path: Path) -> None:
    profile = load(written(tmp_path))
    assert (profile.base, profile.cells_per_module, profile.step) == ((50000,), 12, ())
    battery, module, common = profile.models
    assert [one.model.id for one in profile.models] == [802, 805, 1]
    assert battery.writable
    assert (battery.points["V"].factor, battery.points["A"].channel) == (2, "current_a")
    assert battery.points["Hb"].take == "counter"
    assert module.each == "module"
    scope, points = module.groups["lithium-ion-module-cell"]
    assert (scope, {name: spec.channel for name, spec in points.items()}) == (
        "cell",
        {"CellV": "cell_v", "CellTmp": "cell_degc"},
    )
    assert common.points["DA"].value == 7


def test_only_what_is_named_is_taken_over(tmp_path: Path) -> None:
    profile = load(written(tmp_path, changes="format = 1\nmodels = [805]\nbase = [7]\n"))
    assert [one.model.id for one in profile.models] == [805]
    assert profile.base == (7,)


@pytest.mark.parametrize(
    ("base", "changes", "said"),
    [
        (BASE, CHANGES.replace("[802, 805]", "[803]"), "models = [803]: expected numbers of models of profile.toml"),
        (BASE, CHANGES.replace("[802, 805]", "802"), "models = 802: expected numbers of models of profile.toml (802"),
        (BASE, CHANGES.replace("[802, 805]", "[[802]]"), "models = [[802]]: expected numbers"),
        ("x", CHANGES, "models: the profile.toml beside it cannot be read"),
        ("model = 3", CHANGES, "models: profile.toml: model = 3: expected tables [[model]]"),
        (BASE, "format = 1\nmodels = [802]\nmodel = [3]\n", "model = [3]: expected tables [[model]]"),
        (BASE, "format = 1\nmodels = [802]\n[[model]]\nid = 802\npoints = 3\n", "points = 3: expected a table"),
        (BASE, "format = 1\nmodels = [805]\n[[model]]\nid = 805\ngroups = { x = 3 }\n", "groups.x = 3: expected a"),
    ],
)
def test_a_mistake_is_told(base: str, changes: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, base, changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
