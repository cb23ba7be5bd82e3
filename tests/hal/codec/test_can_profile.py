"""Profiles: ours for any size, a user's own without code, and mistakes in one told with the remedy."""

from pathlib import Path

import numpy as np
import pytest

from hal.codec.can_profile import load, names
from hal.codec.can_protection import Protection
from hal.errors import ConfigError

DBC = """
BO_ 10 Measured: 8 Rack
 SG_ Amps : 0|16@0- (0.1,0) [0|0] "A" Bms
 SG_ Cell1 : 16|16@1+ (0.001,0) [0|0] "V" Bms
 SG_ Cell2 : 32|16@1+ (0.001,0) [0|0] "V" Bms
 SG_ Degc : 48|8@1- (1,0) [0|0] "degC" Bms
BO_ 11 Order: 1 Bms
 SG_ Close : 0|3@1+ (1,0) [0|0] "" Rack
BA_ "GenMsgCycleTime" BO_ 10 100;
BA_ "GenMsgCycleTime" BO_ 11 200;
""".replace("0|16@0-", "7|16@0-")

TOML = """
[can]
dbc = "own.dbc"
bitrate = 250000
commit = "Order"
[rack]
n_cells = 2
n_sensors = 1
capacity_ah = 100
[measurement]
current_a = { signal = "Amps", factor = -1 }
cell_v = { signal = "Cell{}", first = 1 }
sensor_degc = { signal = "Degc" }
interlock_closed = { constant = 1 }
[command]
contactors = { signal = "Close" }
"""


def write(folder: Path, toml: str = TOML, dbc: str = DBC) -> str:
    (folder / "own.dbc").write_text(dbc)
    path = folder / "own.toml"
    path.write_text(toml)
    return str(path)


def test_ours_is_for_a_rack_of_any_size() -> None:
    shipped = load("reference")
    assert (shipped.info.n_cells, shipped.info.n_sensors, shipped.info.cell) == (416, 104, "")
    assert (len(shipped.measurement_messages()), len(shipped.command_messages())) == (178, 12)
    assert shipped.command_messages()[-1].name == "RackCommand"
    assert shipped.protection == (Protection("Crc", "AliveCounter"),)
    small = load("reference", rack={"n_cells": 10, "n_sensors": 4, "cell": "na_185", "n_parallel": 2}, address="here")
    assert (small.info.name, small.info.cell, small.info.n_parallel) == ("here", "na_185", 2)
    assert small.info.sensor_of_cell.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert small.info.capabilities.balancing
    assert not small.info.capabilities.truth
    assert small.measurement["cell_v"].signals[9] == "CellVoltage_009"
    assert max(m.length for m in load("reference", fd=True).measurement_messages()) == 64


def test_a_users_own_is_read(tmp_path: Path) -> None:
    own = load(write(tmp_path))
    assert own.measurement["cell_v"].signals == ("Cell1", "Cell2")
    assert own.measurement["current_a"].factor == -1.0
    assert own.measurement["interlock_closed"].constant == 1.0
    assert own.info.sensor_of_cell.dtype == np.uint16
    assert (own.protection, own.bitrate, own.layout, own.stale_cycles) == ((), 250000, 0, 5.0)
    assert not any((own.info.capabilities.contactors, own.info.capabilities.precharge, own.info.capabilities.gas))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('dbc = "own.dbc"', "", "[can] dbc is missing"),
        ('dbc = "own.dbc"', 'dbc = "none.dbc"', "none.dbc: cannot be read"),
        ("[can]", "[cans]", "unknown table [cans] (did you mean 'can'?)"),
        ("bitrate", "bit_rate", "[can] has no key 'bit_rate' (did you mean 'bitrate'?)"),
        ("250000", '"fast"', "[can] bitrate = 'fast': expected a whole number"),
        ("250000", "true", "[can] bitrate = True: expected a whole number"),
        ('commit = "Order"', 'commit = "Ordr"', "[can] commit = 'Ordr': a message of [command] signals is needed"),
        ("[rack]", 'protection = { crc = "a" }\n[rack]', "[can.protection] has the keys crc and counter, or counter and values, not crc"),
        ("n_cells = 2", "n_cells = 0", "0 cells and 1 sensors: 1 to 65,535 of each"),
        ("n_cells = 2", "n_cells = 3", "there is no signal Cell3"),
        ("n_cells = 2", "n_cells = 2\nsensor_of_cell = [0, 1]", "[rack] sensor_of_cell: 2 numbers from 0 to 0"),
        ("capacity_ah = 100", "", "[rack] capacity_ah is missing"),
        ("cell_v", "cells_v", "[measurement] has no key 'cells_v' (did you mean 'cell_v'?)"),
        ("Cell{}", "Cell", "[measurement] cell_v: 2 signals are needed; write {} where their number stands"),
        ("Cell{}", "Cell{a}", "[measurement] cell_v: 'Cell{a}' is no template"),
        ("first", "frist", "[measurement] cell_v has no key 'frist' (did you mean 'first'?)"),
        ('{ signal = "Degc" }', "{ }", "[measurement] sensor_degc: name its signal, or its bits, or"),
        ('sensor_degc = { signal = "Degc" }', "", "[measurement] sensor_degc is missing; a controller cannot do without"),
        ('contactors = { signal = "Close" }', "", "[command] contactors is missing; a controller must be able to open"),
        ('{ signal = "Degc" }', '{ signal = "Degc", bits = ["a"] }', "[measurement] sensor_degc: name its signal, or its"),
        ('{ signal = "Degc" }', '{ bits = ["Degc"] }', "[measurement] sensor_degc bits: a list of signals, for one whole"),
        ('{ signal = "Close" }', "{ bits = [] }", "[command] contactors bits: a list of signals, for one whole number"),
        ('"Degc" }', '"Degc", valid = "a", invalid = "b" }', "[measurement] sensor_degc: valid or invalid, not both"),
        ("[rack]", "cycle_ms = { Ordr = 1 }\n[rack]", "[can.cycle_ms] Ordr: no such message (did you mean 'Order'?)"),
        ("[rack]", "cycle_ms = { Order = 0 }\n[rack]", "[can.cycle_ms] Order = 0: a time in ms, above 0"),
        ("factor = -1", "factor = 0", "[measurement] current_a factor = 0: give the size of one unit"),
        ("[measurement]", "[capabilities]\ngas = 1\n[measurement]", "[capabilities] gas = 1: expected true or false"),
        ("[can]", "= 3", "cannot be read"),
    ],
)  # fmt: skip
def test_a_mistake_in_one_is_told(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert old in TOML
    path = write(tmp_path, TOML.replace(old, new, 1))
    from hal.backends.can import CanRack

    with pytest.raises(ConfigError) as caught:
        CanRack("virtual:none", query={"profile": path})
    assert complaint in str(caught.value)
    assert "own." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_message_without_a_cycle_is_told_and_the_profile_may_give_it(tmp_path: Path) -> None:
    path = write(tmp_path, dbc=DBC.replace('BA_ "GenMsgCycleTime" BO_ 10 100;', ""))
    with pytest.raises(ConfigError, match=r'message Measured has no cycle time; add BA_ "GenMsgCycleTime" BO_ 10'):
        load(path)
    Path(path).write_text(TOML.replace("[rack]", "cycle_ms = { Measured = 250, Order = 50 }\n[rack]"))
    assert [m.cycle_s for m in load(path).database.messages] == [0.25, 0.05]


@pytest.mark.parametrize(
    ("name", "rack", "complaint"),
    [
        (
            "referenc",
            {},
            r"profile 'referenc': unknown; write .*reference, or the path of a .toml file \(did you mean 'reference'",
        ),
        ("none.toml", {}, "none.toml: cannot be read"),
        ("reference", {"n_cells": 5000}, "1 to 4095 of each"),
        ("reference", {"n_cells": 4000}, "need 1334 identifiers, 1024 are theirs; use fd=1"),
    ],
)
def test_what_is_no_profile_is_told(name: str, rack: dict[str, int], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(name, rack=rack)


def test_the_size_of_a_users_own_is_fixed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_cells = 3: the DBC is for 2; change the profile"):
        load(write(tmp_path), rack={"n_cells": 3})


ADD_ON = """
[can]
dbc = "sensor.dbc"
protection = { counter = "N", values = 16 }
[capabilities]
insulation = true
[measurement]
current_a = { signal = "I" }
"""
ADD_ON_DBC = """
BO_ 300 Sensor: 8 S
 SG_ N : 0|4@1+ (1,0) [0|0] "" B
 SG_ I : 8|16@1- (0.1,0) [0|0] "A" B
BA_ "GenMsgCycleTime" BO_ 300 10;
"""


def add_on(folder: Path, toml: str = ADD_ON, dbc: str = ADD_ON_DBC) -> str:
    (folder / "sensor.dbc").write_text(dbc)
    path = folder / "sensor.toml"
    path.write_text(toml)
    return str(path)


def test_an_add_on_replaces_what_the_rack_tells(tmp_path: Path) -> None:
    path = f"{write(tmp_path)},{add_on(tmp_path)}"
    own = load(path)
    assert own.measurement["current_a"].signals == ("I",)
    assert [m.name for m in own.measurement_messages()] == ["Measured", "Sensor"]
    assert own.protection == (Protection("", "N", 16),)
    assert own.info.capabilities.insulation
    write(tmp_path, TOML.replace("[can]", '[can]\nadd = ["sensor.toml"]'))
    assert load(str(tmp_path / "own.toml")).measurement["current_a"].signals == ("I",), "one that lies beside it"
    assert load(f"{tmp_path / 'own.toml'},ivt").measurement["current_a"].signals == ("IvtCurrent",)


def test_what_cannot_be_added_is_told(tmp_path: Path) -> None:
    own, sensor = write(tmp_path), add_on(tmp_path)
    (tmp_path / "two.toml").write_text(TOML)
    for name, complaint in (
        (sensor, "sensor.toml: an add-on, without the table [rack]; write for example foxbms,"),
        ("ivt", "profile ivt: an add-on, without the table [rack]; write for example foxbms,ivt"),
        (f"{own},{tmp_path / 'two.toml'}", "two.toml: a profile of its own, with the table [rack]; only an add-on can"),
        (f"{own},iv", "profile 'iv': unknown; write "),
        ("reference,bender", "message BenderInfo (0x37): "),
    ):
        with pytest.raises(ConfigError) as caught:
            load(name)
        assert complaint in str(caught.value)
    add_on(tmp_path, dbc=ADD_ON_DBC.replace("300", "10").replace("Sensor", "Measured"))
    with pytest.raises(
        ConfigError, match=r"message Measured \(0xa\): .*own.dbc has Measured \(0xa\); these two cannot"
    ):
        load(f"{own},{sensor}")


def test_a_profile_may_be_served_as_another(tmp_path: Path) -> None:
    own = write(tmp_path, TOML.replace("[can]", '[can]\nserve = "other.toml"'))
    (tmp_path / "other.toml").write_text(TOML.replace("250000", "125000"))
    assert (load(own).bitrate, load(own, serving=True).bitrate) == (250000, 125000)
    assert load("foxbms", serving=True).source == "profile foxbms (afe.toml)"


def test_foxbms_is_for_a_rack_of_any_size() -> None:
    small = load("foxbms,ivt", rack={"n_cells": 18, "n_sensors": 8})
    assert (small.info.n_cells, len(small.measurement["cell_v"].signals)) == (18, 18)
    pages = {s.page for m in small.database.messages if m.name == "CellVoltages" for s in m.signals}
    assert pages == {None, 0, 1, 2, 3, 4}
    assert [m.name for m in small.measurement_messages()][-2:] == ["IvtVoltage1", "IvtVoltage3"]
    assert names() == ["bender", "foxbms", "ivt", "reference"]
