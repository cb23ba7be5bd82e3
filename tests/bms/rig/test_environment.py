from pathlib import Path

import pytest

from bms.rig.environment import Environment, falsifiable, load
from hal.errors import ConfigError


def test_a_file_tells_what_the_url_cannot(tmp_path: Path) -> None:
    path = tmp_path / "rack.toml"
    path.write_text(
        "rig = 'bench 3'\nurl = 'can:socketcan:can0?profile=reference'\ncell = 'lfp_280'\nperiod = '100 s'\n"
        "lacks = ['gas', 'cooling']\n[bus]\ninterface = 'virtual'\n[controller.limits]\nramp_s = 2\n[duty]\nkind = 'constant'\n"
    )
    env = load(None, path)
    assert (env.rig, env.rack, env.cell, env.period_s) == (
        "bench 3",
        "can:socketcan:can0?profile=reference",
        "lfp_280",
        100.0,
    )
    assert env.lacks == ("gas", "cooling")
    assert env.bus == {"interface": "virtual"}
    assert not env.virtual
    assert env.seed == "default"
    scenario = env.scenario()
    assert scenario.controller == {"limits": {"ramp_s": 2}}
    assert scenario.tables == {"duty": {"kind": "constant"}}
    assert load("sim:lfp_280", path).rack == "sim:lfp_280"


def test_what_is_below_prefixes_counts() -> None:
    env = Environment("record+chaos+sim:lfp_280?seed=3&chaos.seed=4&chaos.drop=0.1&record.to=x")
    assert env.virtual
    assert env.url.query == {"seed": "3"}
    assert env.seed == "rack 3, chaos 4"


@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("sim:lfp_280", "chaos+sim:lfp_280"),
        ("record+sim:lfp_280?record.to=x", "record+chaos+sim:lfp_280?record.to=x"),
        ("chaos+sim:lfp_280", "chaos+sim:lfp_280"),
        ("record+alive+sim:lfp_280", "record+alive+chaos+sim:lfp_280"),
        ("record+chaos+sim:lfp_280", "record+chaos+sim:lfp_280"),
        ("modbus:tcp://h:502?unit=1", "chaos+modbus:tcp://h:502?unit=1"),
    ],
)
def test_faults_come_below_all_other_prefixes(url: str, made: str) -> None:
    assert falsifiable(url) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "url is missing: write url = 'can:...', or give --rack URL"),
        ("ulr = 'sim:x'", "unknown key 'ulr' (did you mean 'url'?)"),
        ("url = 3", "url = 3: expected a text"),
        ("url = 'sim:x'\nlacks = 'gas'", "lacks = 'gas': expected a list of names"),
        ("url = 'sim:x'\nlacks = ['gass']", "lacks = 'gass': no such capability (did you mean 'gas'?)"),
        ("url = 'sim:x'\nduty = 3", "duty = 3: expected a table"),
        ("url = 'sim:x'\nperiod = '3 parsec'", "period = '3 parsec': expected a time"),
        ("url = ", "not valid TOML"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rack.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(None, path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_firmware_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rack.toml"
    path.write_text("url = 'sim:lfp_280'\nfirmware = 'none.bin'\n")
    with pytest.raises(ConfigError, match="firmware = 'none.bin': cannot be read"):
        load(None, path).firmware_hash()
    assert Environment("sim:lfp_280").firmware_hash() == ""
