"""Every mistake in a CAN profile is a finding of its own, with file, field, value and remedy; the shipped have none."""

from pathlib import Path

import pytest

from bms.racks.findings import ERROR, WARNING, Finding, of_error
from bms.racks.lint_profile_can import lint
from hal.codec.can_profile import names
from hal.errors import ConfigError

DBC = """
BO_ 10 Measured: 8 Rack
 SG_ Crc : 0|8@1+ (1,0) [0|0] "" Bms
 SG_ Alive : 8|4@1+ (1,0) [0|0] "" Bms
 SG_ Amps : 16|16@1- (0.1,0) [0|0] "A" Bms
 SG_ Volts : 32|16@1+ (0.1,0) [0|0] "V" Bms
 SG_ Degc : 48|8@1- (1,0) [0|0] "degC" Bms
 SG_ Loop : 56|1@1+ (1,0) [0|0] "" Bms
 SG_ Closed : 57|3@1+ (1,0) [0|0] "" Bms
BO_ 12 Cells: 8 Rack
 SG_ Crc : 0|8@1+ (1,0) [0|0] "" Bms
 SG_ Alive : 8|4@1+ (1,0) [0|0] "" Bms
 SG_ Cell1 : 16|16@1+ (0.001,0) [0|0] "V" Bms
 SG_ Cell2 : 32|16@1+ (0.001,0) [0|0] "V" Bms
BO_ 11 Order: 4 Bms
 SG_ Crc : 0|8@1+ (1,0) [0|0] "" Rack
 SG_ Alive : 8|4@1+ (1,0) [0|0] "" Rack
 SG_ Close : 16|3@1+ (1,0) [0|0] "" Rack
 SG_ Node : 24|4@1+ (1,0) [0|0] "" Rack
BA_DEF_DEF_ "GenMsgCycleTime" 100;
"""
TOML = """
[can]
dbc = "own.dbc"
bitrate = 250000
commit = "Order"
protection = { crc = "Crc", counter = "Alive" }
[rack]
n_cells = 2
n_sensors = 1
capacity_ah = 100
[capabilities]
contactors = true
[measurement]
current_a = { signal = "Amps" }
pack_v = { signal = "Volts" }
cell_v = { signal = "Cell{}", first = 1 }
sensor_degc = { signal = "Degc" }
interlock_closed = { signal = "Loop" }
contactors = { signal = "Closed" }
[command]
contactors = { signal = "Close" }
[fixed]
Node = 3
"""


def found(folder: Path, dbc: str = DBC, toml: str = TOML) -> list[Finding]:
    (folder / "own.dbc").write_text(dbc)
    (folder / "own.toml").write_text(toml)
    return lint(str(folder / "own.toml"))[1]


def test_a_sound_one_has_none(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    about, _ = lint(str(tmp_path / "own.toml"))
    assert about == f"{tmp_path}/own.toml: 2 cells, 1 sensors, 3 messages, 1% of 250000 bit/s"


def test_all_shipped_ones_have_none() -> None:
    add_ons = {"ivt", "bender"}
    assert set(names()) == {"reference", "foxbms"} | add_ons
    for name in ("reference", "foxbms", "foxbms,ivt", "foxbms,bender", "foxbms,ivt,bender", "reference,ivt"):
        assert lint(name)[1] == [], name


@pytest.mark.parametrize(
    ("old", "new", "severity", "line"),
    [
        ("Volts : 32|16", "Volts : 31|16", ERROR, "own.dbc:6: message Measured: signal Volts = 31|16: overlaps Amps at bit 31; move one of them"),
        ("Amps : 16|16@1- (0.1,0)", "Amps : 16|16@1- (0,0)", ERROR, "own.dbc:5: message Measured: signal Amps = 0: the scale is 0; give the step"),
        ("Cell2 : 32|16", "Cell2 : 50|16", ERROR, "own.dbc:14: message Cells: signal Cell2 = 50|16: its bits end at 65, outside of the frame of 8 bytes; move it"),
        ("BO_ 12", "BO_ 10", ERROR, "own.dbc:10: message Cells = 10: the identifier 10 is given twice; remove or rename one"),
        ('TIME" 100', 'TIME" 0', ERROR, 'message Measured: has no cycle time; add BA_ "GenMsgCycleTime" BO_ 10 MILLISECONDS; or [can.cycle_ms] Measured to '),
        ('TIME" 100', 'TIME" 2', WARNING, "own.toml: [can] bitrate = 250000: the messages take 73%"),
        (" SG_ Loop", ' SG_ Spare : 60|4@1+ (1,0) [0|0] "" Bms\n SG_ Loop', WARNING, "own.toml: message Measured = Spare: are not used; name them in a channel, or in [can] unused = ["),
        ("Node", "Other", WARNING, "own.toml: message Order = Other: are sent as 0; name them in a channel or in [fixed]"),
        ("Crc : 0|8@1+", "Crc : 1|8@1+", ERROR, "message Measured: signal Crc is not one whole byte; write it as N*8|8@1+"),
        ("Alive : 8|4@1+", "Alive : 6|4@1+", ERROR, "message Measured: signal Alive is not 4 bits of one byte; write it as N*8|4@1+"),
        ("Alive", "Count", ERROR, "own.toml: [can.protection] = Alive: no message has this signal; name one, or take it out"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_dbc_is_a_finding(tmp_path: Path, old: str, new: str, severity: str, line: str) -> None:
    old = old.replace("TIME", "GenMsgCycleTime")
    assert old in DBC
    told = found(tmp_path, DBC.replace(old, new.replace("TIME", "GenMsgCycleTime")))
    assert any(line in str(finding) and finding.severity == severity for finding in told), [str(f) for f in told]
    for finding in told:
        assert str(finding).startswith(str(tmp_path)), "file first"
        assert "\n" not in str(finding)
        assert finding.remedy


@pytest.mark.parametrize(
    ("old", "new", "severity", "line"),
    [
        ('current_a = { signal = "Amps" }\n', "", ERROR, "own.toml: [measurement] current_a: is missing; a controller cannot do without it"),
        ('pack_v = { signal = "Volts" }\n', "", WARNING, "own.toml: [measurement] pack_v: missing: the sum of the cells is compared with nothing; name its"),
        ('interlock_closed = { signal = "Loop" }\n', "", ERROR, "own.toml: [measurement] interlock_closed: missing: it counts as open, and the contactors never close; name"),
        ('[command]\ncontactors = { signal = "Close" }', '[command]\nstate = { signal = "Close" }', ERROR, "own.toml: [command] contactors: is missing; a controller must be able to open them"),
        ('"Amps"', '"Ampere"', ERROR, "own.toml: [measurement] current_a = Ampere: the DBC has no such signal (did you mean 'Amps'?)"),
        ('"Amps"', '"Crc"', ERROR, "own.toml: [measurement] current_a = Crc: 3 messages have this signal; write Measured.Crc or Cells.Crc or Order.Crc"),
        ('"Amps" }', '"Amps", factor = 0 }', ERROR, "own.toml: [measurement] current_a factor = 0: give the size of one unit"),
        ('"Amps" }', '"Amps", frist = 0 }', ERROR, "own.toml: [measurement] current_a: has no key 'frist'"),
        ("contactors = true", "contactors = true\ngas = true", ERROR, "own.toml: [capabilities] gas = true: there is no [measurement] gas_alarm; add it, or write false"),
        ("contactors = true", "", WARNING, "own.toml: [command] contactors: not used, for the rack has no contactors; write [capabilities] contactors = true, or take"),
        ("Node = 3", "Node = 16", ERROR, "own.toml: [fixed] Node = 16: the signal holds 0 to 15; give a value that it holds"),
        ("Node = 3", "Node = 3\nNoed = 1", ERROR, "own.toml: [fixed] Noed: no such signal (did you mean 'Node'?)"),
        ('commit = "Order"', 'commit = "Order"\nunused = ["Spare*"]', WARNING, "own.toml: [can] unused = Spare*: fits no signal that is unused; take it out"),
        ("bitrate = 250000", "bitrate = 4000", WARNING, "own.toml: [can] bitrate = 4000: the messages take"),
        ("bitrate = 250000", "bitrate = 3000", ERROR, "own.toml: [can] bitrate = 3000: the messages take"),
        ('commit = "Order"', 'commit = "Oder"', ERROR, "own.toml: [can] commit = 'Oder': a message of [command] signals is needed"),
        ("[capabilities]", "[capability]", ERROR, "own.toml: unknown table [capability] (did you mean 'capabilities'?)"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_profile_is_a_finding(tmp_path: Path, old: str, new: str, severity: str, line: str) -> None:
    assert old in TOML
    told = found(tmp_path, toml=TOML.replace(old, new, 1))
    assert any(line in str(finding) and finding.severity == severity for finding in told), [str(f) for f in told]


def test_unused_signals_may_be_named(tmp_path: Path) -> None:
    spare = ' SG_ Spare1 : 60|2@1+ (1,0) [0|0] "" Bms\n SG_ Spare2 : 62|2@1+ (1,0) [0|0] "" Bms\n SG_ Loop'
    dbc = DBC.replace(" SG_ Loop", spare)
    assert [finding.value for finding in found(tmp_path, dbc)] == ["Spare1, Spare2"]
    assert found(tmp_path, dbc, TOML.replace("[rack]", 'unused = ["Measured.Spare*"]\n[rack]')) == []


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    dbc = DBC.replace("Volts : 32|16", "Volts : 31|16").replace("Degc : 48|8@1- (1,0)", "Degc : 48|8@1- (0,0)")
    toml = TOML.replace('"Loop"', '"Lop"').replace("Node = 3", "Node = 99").replace("[rack]", "oops = 1\n[rack]")
    told = {finding.key: finding.value for finding in found(tmp_path, dbc, toml)}
    assert told == {
        "message Measured: signal Volts": "31|16",
        "message Measured: signal Degc": "0",
        "[can]": "",
        "[measurement] sensor_degc": "Degc",
        "[measurement] interlock_closed": "Lop",
        "[fixed] Node": "99",
        "message Measured": "Loop",
    }


def test_what_a_rack_is_served_as_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "served.toml").write_text(TOML.replace("Node = 3", "Node = 77"))
    told = found(tmp_path, toml=TOML.replace("[can]", '[can]\nserve = "served.toml"'))
    assert [(Path(finding.source).name, finding.value) for finding in told] == [("served.toml", "77")]


def test_pages_that_cannot_be_sent_are_told(tmp_path: Path) -> None:
    dbc = DBC.replace(" SG_ Node : 24|4@1+", ' SG_ Page M : 28|1@1+ (1,0) [0|0] "" Rack\n SG_ Node m0 : 24|4@1+')
    told = found(tmp_path, dbc)
    assert [str(finding).partition("own.toml: ")[2] for finding in told] == [
        "message Order: has pages and a CRC or counter, and cannot be sent; leave one of them out"
    ]


def test_any_error_becomes_a_finding() -> None:
    plain = of_error(ConfigError("own.toml: something else; mend it"))
    assert (plain.source, plain.key, plain.value, plain.text, plain.remedy) == (
        "own.toml", "", "", "something else", "mend it"
    )  # fmt: skip
    assert str(plain) == "own.toml: something else; mend it"
