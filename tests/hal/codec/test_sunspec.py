"""Model definitions: offsets, lengths and counts, against those that pysunspec2 works out."""

import json
from pathlib import Path

import pytest
from sunspec2 import device, mdef

from hal.codec import sunspec
from hal.errors import ConfigError

NOTHING = Path("/nowhere")


@pytest.mark.parametrize("number", [1, 802, 803, 804, 805])
def test_points_lie_where_pysunspec2_has_them(number: int) -> None:
    ours = sunspec.model(number, NOTHING)
    theirs = device.get_model_def(number)["group"]
    offset = 0
    for point in theirs["points"]:
        mine = ours.fixed.points[point["name"]]
        assert (mine.offset, mine.size) == (offset, point["size"])
        assert mine.writable == (point.get("access") == "RW")
        offset += point["size"]
    assert ours.fixed.size == offset
    assert [g.name for g in ours.groups] == [g["name"] for g in theirs.get("groups", [])]


def test_lengths_are_those_of_the_standard() -> None:
    """802: 62; 803: 26 + 32 x strings; 804: 46 + 16 x modules; 805: 42 + 4 x cells."""
    assert sunspec.model(802, NOTHING).length({}) == 62
    assert sunspec.model(803, NOTHING).length({"string": 1}) == 58
    assert sunspec.model(804, NOTHING).length({"lithium_ion_string_module": 26}) == 46 + 16 * 26
    assert sunspec.model(805, NOTHING).length({"lithium-ion-module-cell": 16}) == 42 + 4 * 16


def test_the_count_comes_from_a_point_or_from_the_length() -> None:
    modules = sunspec.place(sunspec.model(804, NOTHING), 100, 46 + 16 * 3, {"NMod": 3})
    assert modules.counts == {"lithium_ion_string_module": 3}
    assert modules.end == 100 + 2 + 46 + 48
    cells = sunspec.place(sunspec.model(805, NOTHING), 100, 42 + 4 * 7, {})
    assert cells.counts == {"lithium-ion-module-cell": 7}
    assert cells.start("lithium-ion-module-cell") == 144
    with pytest.raises(KeyError):
        cells.start("string")
    with pytest.raises(ValueError, match="too short by 32"):
        sunspec.place(sunspec.model(804, NOTHING), 100, 46 + 16, {"NMod": 3})


def test_a_folder_of_its_own_wins(tmp_path: Path) -> None:
    table = {"id": 802, "group": {"name": "mine", "points": [{"name": "ID", "type": "uint16", "size": 1}]}}
    (tmp_path / "model_802.json").write_text(json.dumps(table))
    assert sunspec.model(802, tmp_path).fixed.name == "mine"
    (tmp_path / "model_802.json").write_text("{")
    with pytest.raises(ConfigError, match=r"model_802.json cannot be read"):
        sunspec.model(802, tmp_path)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"id": 1},
        {"id": 1, "group": {"name": "x", "points": [{"name": "a", "type": "int128"}]}},
        {"id": 1, "group": {"name": "x", "groups": [{"name": "y", "points": [], "groups": [{"name": "z"}]}]}},
        {"id": "one", "group": {"name": "x"}},
    ],
)
def test_what_is_no_model_is_told(table: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="here: "):
        sunspec.parse(table, "here")


def test_without_pysunspec2_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> None:
        raise ModuleNotFoundError(package)

    sunspec._public.cache_clear()
    monkeypatch.setattr(sunspec.resources, "files", missing)
    with pytest.raises(ConfigError, match=r"rackbms\[sunspec\]"):
        sunspec.model(1, NOTHING)


@pytest.mark.parametrize("number", [64800, 64801, 64802, 64803, 64804])
def test_pysunspec2_understands_our_own_models(number: int, repository: Path) -> None:
    folder = repository / "hal" / "profiles" / "sunspec"
    mdef.from_json_file(str(folder / f"model_{number}.json"))
    for point in sunspec.model(number, folder).fixed.points.values():
        assert point.size > 0
