"""Maps of plain registers: laid out as the manual says, the same from both ends, and mistakes told with their place."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.codec import register_profile
from hal.codec.register_map import RegisterMap
from hal.codec.register_plain import blocks, rack
from hal.codec.register_reader import Image, Reader
from hal.contract import Command, Measurement, Quality
from hal.errors import ConfigError

DOCS = Path(__file__).parents[3] / "docs" / "modbus.md"


def example() -> str:
    """The example of the documentation."""
    text = DOCS.read_text().partition("## Plain registers")[2]
    found = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "own.toml").write_text(text)
        return str(tmp_path / "own.toml")

    return write


class Ends:
    """A served rack of the example's size, and who reads it."""

    def __init__(self, path: str) -> None:
        self.profile = register_profile.load(path)
        assert self.profile.rack is not None
        self.map = RegisterMap(self.profile, self.profile.rack)
        self.reader = Reader(self.profile, self.map.placed, Image(), "own")

    def words(self, m: Measurement) -> dict[int, int]:
        self.map.source.measurement.copy_from(m)
        data = self.map.encode()
        return {self.map.base + k: int.from_bytes(data[2 * k : 2 * k + 2], "big") for k in range(self.map.size)}

    def over(self, m: Measurement) -> Measurement:
        image = Image()
        words = self.words(m)
        image.put(self.map.base, list(words.values()))
        out = Measurement(m.n_cells, m.n_sensors)
        self.reader.decode(image, out)
        return out


def measured(seed: int) -> Measurement:
    rng, m = np.random.default_rng(seed), Measurement(16, 4)
    m.cell_v[:] = rng.uniform(-1.0, 5.0, 16)
    m.sensor_degc[:] = rng.uniform(-60, 150, 4)
    m.bleeding[:] = rng.integers(0, 2, 16)
    m.head["current_a"], m.head["pack_v"] = rng.uniform(-3000, 3000), rng.uniform(0, 1500)
    m.head["contactors"], m.head["interlock_closed"] = rng.integers(0, 8), rng.integers(0, 2)
    return m


def test_registers_lie_where_the_manual_says(written: Callable[[str], str]) -> None:
    ends, m = Ends(written(example())), Measurement(16, 4)
    m.head["current_a"], m.head["pack_v"], m.head["contactors"] = 12.3, 100.0, 3
    m.cell_v[2], m.sensor_degc[3], m.bleeding[2] = -0.25, -7.5, 1
    ends.map.source.count = 70_000
    words = ends.words(m)
    assert (ends.map.base, ends.map.size) == (100, 911)
    assert words[100] == 70_000 % 65_535
    assert words[101] == 65_536 - 123, "charging is positive"
    assert (words[102], words[103]) == (100_000 & 0xFFFF, 100_000 >> 16), "low word first"
    assert words[104] == 3
    assert words[200 + 4 * 2] == 65_536 - 250
    assert (words[209], words[201], words[210]) == (1, 0, 0)
    assert words[303] == 65_536 - 75
    assert ends.map.writable == {1000, 1001, 1002, 1003, 1010}
    assert ends.map.commit == {1003}


@given(st.integers(0, 2**32 - 1))
def test_a_measurement_survives(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.toml"
    path.write_text(example())
    m = measured(seed)
    out = Ends(str(path)).over(m)
    assert np.abs(out.cell_v - m.cell_v).max() <= 0.501e-3
    assert np.abs(out.sensor_degc - m.sensor_degc).max() <= 0.05001
    assert out.bleeding.tolist() == m.bleeding.tolist()
    for name, step in (("current_a", 0.05001), ("pack_v", 0.5001e-3)):
        assert abs(float(out.head[name][0]) - float(m.head[name][0])) <= step + 1e-4
    for name in ("contactors", "interlock_closed"):
        assert out.head[name] == m.head[name]
    assert not out.cell_v_quality.any()
    assert out.head["insulation_ohm_quality"][0] == Quality.MISSING


def test_a_command_arrives(written: Callable[[str], str]) -> None:
    ends, c, out = Ends(written(example())), Command(16, 4), Command(16, 4)
    c.head["heartbeat"], c.head["contactors"], c.head["limit_discharge_a"] = 0x12345, 3, 70.0
    c.balance[[0, 9]] = 1
    writes = ends.reader.writes(c)
    assert writes == [(1010, [0x201]), (1000, [1, 0x2345, 700, 3])], "the contactors go out last"
    data = bytearray(ends.map.encode())
    for start, values in writes:
        for k, value in enumerate(values):
            at = 2 * (start + k - ends.map.base)
            data[at : at + 2] = value.to_bytes(2, "big")
    ends.map.decode_command(bytes(data), out)
    for name in ("heartbeat", "contactors", "limit_discharge_a"):
        assert out.head[name] == c.head[name]
    assert out.balance.tolist() == c.balance.tolist()


def test_the_device_is_what_the_profile_says(written: Callable[[str], str]) -> None:
    ends = Ends(written(example()))
    info = ends.reader.info
    assert (info.n_cells, info.n_sensors, info.capacity_ah, info.cell, info.name) == (16, 4, 280.0, "lfp_280", "own")
    assert info.sensor_of_cell.tolist() == [k // 4 for k in range(16)]
    assert info.capabilities.balancing
    assert not info.capabilities.precharge
    assert ends.reader.writable
    with pytest.raises(ConfigError, match="n_cells = 16, n_sensors = 4: the rack has 12 and 3; change the profile"):
        RegisterMap(ends.profile, rack({"n_cells": 12, "n_sensors": 3, "capacity_ah": 1}, "x"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[rack]\n", "[racks]\n", "unknown key 'racks'"),
        ("n_cells = 16", "n_cells = 0", "[rack]: n_cells = 0: expected a whole number, 1..65535"),
        ("capacity_ah = 280\n", "", "[rack] capacity_ah = None: expected the capacity in Ah, above 0"),
        ('"balancing"', '"balance"', "[rack] capabilities: there is none 'balance' (did you mean 'balancing'?)"),
        ('sensor_of_cell = "even"', "sensor_of_cell = [0, 1]", "[rack] sensor_of_cell: 16 numbers from 0 to 3"),
        ("format = 1", "format = 2", "format = 2: this version reads format 1"),
        ('name = "Cells"', 'name = "Pack"', "[[block]] Pack: the name is given twice; rename one"),
        ('name = "Cells"', "", "[[block]] number 2: name = None: expected a name of letters and digits"),
        ("address = 200", "address = 65500", "(Cells): address = 65500: it ends at 65561, and addresses at 65535; take a lower"),
        ("address = 200", "", "(Cells): address = None: expected a whole number, 0..65535"),
        ("address = 200", "address = 250", "[[block]] Sensors.Degrees = 302: overlaps Cells.Voltage; move one of them"),
        ("at = 2, type = \"uint32\"", "at = 1, type = \"uint32\"", "[[block]] Pack.Voltage = 101: overlaps Pack.Current; move one of them"),
        ("stride = 4 ", "stride = 1 ", "(Cells): stride = 1: its points take 2 registers; give 2 at least"),
        ('each = "cell"', 'each = "cells"', "(Cells): each = 'cells': expected one of rack, cell, sensor, mask"),
        ("writable = true", "writable = 1", "(Order): writable = 1: expected true or false"),
        ('at = 0, type = "uint32"', 'at = 0, type = "unit32"', "(Order): Heartbeat: type = 'unit32' (did you mean 'uint32'?)"),
        ("low_word_first = true", "low_word_first = 1", "Pack: Voltage: low_word_first = 1: expected true or false"),
        ("at = 5, ", "", "(Pack): Loop: at = None: expected a whole number, 0..65535"),
        ('"pack_v"', '"pack_w"', "[[block]] Pack: Voltage: there is no field 'pack_w' (did you mean 'pack_v'?)"),
        ('"Pack.Counter"', '"Pack.Count"', "step: 'Pack.Count': expected block.point, both of this profile, for example Order.Heartbeat"),
        ('"Order.Contactors"', '"Orders.Contactors"', "commit: 'Orders.Contactors': expected block.point"),
        ('["Pack.Counter"]', '["Pack.Counter", "Pack.Current", "Pack.Loop"]', ": expected a list of one point, or the first and the last"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(written: Callable[[str], str], old: str, new: str, complaint: str) -> None:
    text = example()
    assert old in text
    with pytest.raises(ConfigError) as caught:
        register_profile.load(written(text.replace(old, new, 1)))
    assert complaint in str(caught.value)
    assert "own.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_overlaps_are_told_where_somebody_collects_them() -> None:
    table: Any = tomllib.loads(example())
    table["block"][1]["address"] = 95
    table["block"][2]["address"] = 101
    flaws: list[ConfigError] = []
    found = blocks(table["block"], rack(table["rack"], "x"), "x", flaws)
    assert len(found) == 5
    told = [str(flaw) for flaw in flaws]
    assert told[0] == "x: [[block]] Cells.Bleeds = 100: overlaps Pack.Counter; move one of them"
    assert len(told) == len(set(told)) == 6
    with pytest.raises(ConfigError, match=r"no \[\[block\]\]"):
        blocks([], rack(table["rack"], "x"), "x")
