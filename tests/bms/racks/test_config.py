"""Loading configurations: the shipped ones, mistakes, what a scenario lays over them, and the way back to a file."""

import dataclasses
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms import cells, racks
from bms.core.faults import Fault, Reaction
from bms.racks import config as module
from bms.racks import faults
from hal.backends.simulated import SimulatedRack
from hal.contract import Capabilities, RackInfo, Severity
from hal.errors import ConfigError

SIZES = {"lfp_280": (416, 1, 280.0), "na_185": (352, 1, 185.0), "nmc_ev": (96, 2, 112.6)}


def info(name: str, n_series: int | None = None) -> RackInfo:
    n, n_parallel, capacity_ah = SIZES[name]
    n = n_series or n
    return RackInfo(
        name=f"sim:{name}", n_cells=n, n_sensors=n, n_parallel=n_parallel, capacity_ah=capacity_ah, cell=name,
        sensor_of_cell=np.arange(n, dtype=np.uint16), capabilities=Capabilities(),
    )  # fmt: skip


def test_the_three_racks_are_shipped() -> None:
    assert racks.names() == sorted(SIZES)


@pytest.mark.parametrize("name", list(SIZES))
def test_a_shipped_rack_is_what_its_twin_says(name: str) -> None:
    config = racks.load(name)
    assert (config.rack.n_series, config.rack.n_parallel, config.rack.capacity_ah) == SIZES[name]
    assert config.cell.name == name
    assert config.basis.capacity_ah == SIZES[name][2]
    assert racks.misfit(config, info(name)) == ""
    assert racks.load(name) == config


@pytest.mark.parametrize("name", list(SIZES))
def test_a_shipped_rack_and_its_defaults_protect_alike(name: str) -> None:
    """What the file adds is what the defaults cannot know: sensors, link, pump."""
    shipped, default = racks.load(name), racks.default(cells.load(name), info(name))
    apart = {Fault.SHORT_CIRCUIT, Fault.COOLANT_FLOW, Fault.PRECHARGE_TIMEOUT}
    kept = [[row for row in config.rows if row.fault not in apart] for config in (shipped, default)]
    assert kept[0] == kept[1]
    for key in ("max_charge_c", "max_discharge_c"):
        assert getattr(shipped.limits, key) == getattr(shipped.cell.limits, key)


def test_only_the_sodium_rack_may_go_to_0_v() -> None:
    assert [name for name in racks.names() if racks.load(name).machine.transport_allowed] == ["na_185"]


HEAD = 'format = 1\n[rack]\ncell = "lfp_280"\nn_series = 16\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format = 1\n[rack\n", "not valid TOML"),
        ('[rack]\ncell = "lfp_280"\n', "format = missing: expected format = 1 at the top of the file"),
        ("format = 2\n", "format = 2: expected format = 1"),
        ("format = 1\n", 'rack.cell = "": which cell is it? Give one of: lfp_280'),
        ('format = 1\n[rack]\ncell = "lfp_281"\n', "rack.cell = \"lfp_281\": unknown cell 'lfp_281' (did you mean 'lfp_280'?)"),
        (HEAD + "[limit]\n", "limit: unknown table (did you mean 'limits'?)"),
        ("qxqxq = 3\n" + HEAD, "qxqxq: unknown key (known: balancing,"),
        (HEAD + "[limits]\nsoc_mim = 0.1\n", "limits.soc_mim = 0.1: unknown key (did you mean 'soc_min'?)"),
        (HEAD + "[limits]\nsoc_min = 2\n", "limits.soc_min = 2: must be 0..1"),
        (HEAD + "[limits]\ncharge_soc = [[0, 1], [0, 0]]\n", "places must rise from point to point"),
        (HEAD + "[machine]\nweld_test = 1\n", "machine.weld_test = 1: expected true or false"),
        (HEAD + "[signals]\nperiod_s = 1\n", "signals.period_s = 1: told in another place; give timing.period_s instead"),
        (HEAD + "[timing]\nperiod_s = 0\n", "timing.period_s = 0.0: must be in 0.01..60"),
        (HEAD + "[fault.cell_overvolt.fatal]\n", "fault.cell_overvolt: no fault has this name (did you mean 'cell_overvoltage'?)"),
        (HEAD + "[fault.gas_alarm.fatl]\n", "fault.gas_alarm.fatl: no such tier (did you mean 'fatal'?)"),
        (HEAD + "[fault.gas_alarm.fatal]\nset = 1\n", "fault.gas_alarm.fatal.set = 1: unknown key (did you mean 'set_s'?)"),
        (HEAD + "[fault.gas_alarm.fatal]\nset_s = -1\n", "fault.gas_alarm.fatal.set_s = -1: a time must not be negative"),
        (HEAD + '[fault.gas_alarm.fatal]\nreaction = ["opn"]\n', "no reaction 'opn' (did you mean 'open'?)"),
        (HEAD + '[fault.gas_alarm.fatal]\nreaction = "open"\n', "expected a list in [ ]"),
        (HEAD + "[fault.cell_leak.info]\nftti_s = 1\n", "only a fatal tier has this budget; remove the key"),
        (HEAD + "[fault.gas_alarm.info]\nthreshold = 1\n", "this row has no defaults; give clear, set_s, clear_s, reaction too"),
        (HEAD + "[fault.capacity_low.fatal]\nthreshold = 0.3\n", "give clear, set_s, clear_s, reaction, ftti_s too"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rack.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        racks.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_and_paths_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="unknown rack 'lfp_281' \\(did you mean 'lfp_280'\\?\\)"):
        racks.load("lfp_281")
    with pytest.raises(ConfigError, match="nowhere/rack.toml: cannot be read: No such file"):
        racks.load("nowhere/rack.toml")


def test_a_cell_file_counts_from_the_folder_of_the_rack(tmp_path: Path) -> None:
    source = Path(cells.__file__).parent / "na_185.toml"
    (tmp_path / "mine.toml").write_bytes(source.read_bytes())
    rack = tmp_path / "rack.toml"
    rack.write_text('format = 1\n[rack]\ncell = "./mine.toml"\nn_series = 4\n')
    assert racks.load(rack).cell.chemistry == "na_layered"
    assert racks.load(rack, cells.load("nmc_ev")).cell.name == "nmc_ev"


def test_a_chemistry_that_nobody_knows_is_refused() -> None:
    strange = dataclasses.replace(cells.load("lfp_280"), chemistry="unobtainium")
    with pytest.raises(ConfigError, match='chemistry "unobtainium" is not known'):
        racks.default(strange, info("lfp_280"))


def test_single_columns_of_a_row_can_change(lfp: racks.RackConfig) -> None:
    change = {"cell_overvoltage": {"fatal": {"set_s": 0.5, "latch": False, "reaction": ["ramp_open", "no_close"]}}}
    changed = racks.overlay(lfp, {"fault": change}, "s")
    rows = {row.id: row for row in changed.rows}
    usual = {row.id: row for row in lfp.rows}
    assert rows[13].set_s == 0.5
    assert rows[13].reaction == Reaction.RAMP_OPEN | Reaction.NO_CLOSE
    assert dataclasses.replace(rows[13], set_s=1.5, reaction=usual[13].reaction) == usual[13]
    assert [rows[n] for n in rows if n != 13] == [usual[n] for n in usual if n != 13]


def test_a_reaction_keeps_the_latch_of_the_row(lfp: racks.RackConfig) -> None:
    changed = racks.overlay(lfp, {"fault": {"cell_leak": {"fatal": {"reaction": ["open"]}}}}, "s")
    row = next(row for row in changed.rows if row.id == 723)
    assert row.reaction == Reaction.OPEN | Reaction.LATCH | Reaction.SERVICE


def test_rows_can_be_taken_away_and_added(lfp: racks.RackConfig) -> None:
    new = {"threshold": 0.3, "clear": 0.4, "set_s": 60.0, "clear_s": 60.0, "reaction": ["ramp_open", "no_close"]}
    change = {
        "cell_leak": {"info": {"enabled": False}},
        "capacity_low": {"fatal": {**new, "latch": True, "ftti_s": 99.0}},
    }
    changed = racks.overlay(lfp, {"fault": change}, "s")
    rows = {row.id: row for row in changed.rows}
    assert 721 not in rows
    assert (rows[753].severity, rows[753].threshold, rows[753].ftti_s) == (Severity.FATAL, 0.3, 99.0)
    assert len(changed.rows) == len(lfp.rows)
    assert racks.overlay(changed, {"fault": {"cell_leak": {"info": {"enabled": True}}}}, "s").rows[0:3] == lfp.rows[0:3]


def test_default_rows_follow_what_an_overlay_changes(lfp: racks.RackConfig) -> None:
    slower = racks.overlay(lfp, {"limits": {"max_discharge_c": 0.5}, "timing": {"period_s": 0.1}}, "s")
    rows = {row.id: row for row in slower.rows}
    assert rows[83].threshold == pytest.approx(161.0)
    assert slower.signals.period_s == 0.1
    assert slower.basis.period_s == 0.1
    assert slower.machine == lfp.machine
    assert racks.overlay(lfp, {}, "s") is lfp


def test_an_overlay_names_itself_in_messages(lfp: racks.RackConfig) -> None:
    with pytest.raises(ConfigError, match="^day.toml: limits.max_discharge = 1: unknown key"):
        racks.overlay(lfp, {"limits": {"max_discharge": 1}}, "day.toml")


def test_an_overlay_may_name_another_cell(lfp: racks.RackConfig) -> None:
    assert racks.overlay(lfp, {"rack": {"cell": "na_185"}}, "s").cell.name == "na_185"
    assert racks.overlay(lfp, {"rack": {"cell": "lfp_280"}}, "s").cell is lfp.cell


def test_pulses_count_as_allowed_current(lfp: racks.RackConfig) -> None:
    pulses = racks.overlay(lfp, {"limits": {"pulse_discharge": 2.0, "max_discharge_a": 200.0}}, "s")
    assert (pulses.basis.charge_a, pulses.basis.discharge_a) == (280.0, 400.0)


def test_a_smaller_twin_of_the_kind(lfp: racks.RackConfig) -> None:
    small = info("lfp_280", 16)
    assert (
        racks.misfit(lfp, small)
        == "lfp_280.toml: rack.n_series = 416: rack 'sim:lfp_280' has 16; use the file made for it"
    )
    fits = racks.fitted(lfp, small)
    assert racks.misfit(fits, small) == ""
    assert fits.source == "lfp_280.toml"
    assert next(row for row in fits.rows if row.id == 43).threshold == pytest.approx(16 * 3.69)
    assert fits.machine == lfp.machine


@pytest.mark.parametrize("name", list(SIZES))
def test_a_dumped_file_loads_as_the_same(name: str, tmp_path: Path) -> None:
    config = racks.load(name)
    path = tmp_path / "again.toml"
    path.write_text(racks.dump(config))
    assert racks.load(path) == config


def kinds(wanted: Any) -> st.SearchStrategy[Any]:
    """Values of a settings field."""
    if isinstance(wanted, types.UnionType):
        wanted = next(kind for kind in typing.get_args(wanted) if kind is not type(None))
    if wanted is bool:
        return st.booleans()
    return st.integers(1, 50) if wanted is int else st.floats(0.001, 0.999)


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """One setting of each of some parts, and some columns of some rows."""
    result: dict[str, Any] = {}
    for name in draw(st.sets(st.sampled_from(["signals", "machine", "limits", "leak", "balancing", "cooling"]))):
        hints = typing.get_type_hints(module.PARTS[name])
        scalars = [key for key, kind in hints.items() if "tuple" not in str(kind) and kind is not str]
        key = draw(st.sampled_from([key for key in scalars if (name, key) not in module.TAKEN_OVER]))
        result[name] = {key: draw(kinds(hints[key]))}
    finite = st.floats(-1e4, 1e4).filter(math.isfinite)
    columns = st.fixed_dictionaries(
        {},
        optional={
            "threshold": finite, "clear": finite, "set_s": st.floats(0, 1e4), "clear_s": st.floats(0, 1e4),
            "reaction": st.lists(st.sampled_from(sorted(faults.REACTIONS)), max_size=3), "latch": st.booleans(),
            "service": st.booleans(), "enabled": st.booleans(),
        },
    )  # fmt: skip
    for name in draw(st.sets(st.sampled_from(["cell_overvoltage", "current_lost", "cell_leak"]))):
        tiers = draw(st.sets(st.sampled_from(sorted(faults.TIERS))))
        result.setdefault("fault", {})[name] = {tier: draw(columns) for tier in sorted(tiers)}
    return result


@settings(max_examples=40, deadline=None)
@given(changes())
def test_any_configuration_comes_back_from_its_file(lfp: racks.RackConfig, change: dict[str, Any]) -> None:
    try:
        changed = racks.overlay(lfp, change, "s")
    except ConfigError:
        return  # a value that the settings refuse
    assert racks.parse(tomllib.loads(racks.dump(changed)), "again") == changed


@pytest.mark.parametrize("name", racks.names())
def test_the_twin_of_a_shipped_rack_shows_what_its_configuration_says(name: str) -> None:
    """A row beyond what the current sensor of the twin shows could not be tried on it."""
    config = racks.load(name)
    rack = SimulatedRack(name, query={}, clock=None, options={})
    shown_a = float(rack.sensors.current_max_a)
    assert shown_a == pytest.approx(config.basis.current_range_a)
    thresholds = [row.threshold for row in config.rows if row.fault.name in ("SHORT_CIRCUIT", "DISCHARGE_CURRENT")]
    assert thresholds
    assert max(thresholds) < 0.95 * shown_a
