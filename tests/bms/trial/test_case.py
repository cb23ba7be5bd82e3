"""Trials from TOML: axes, defaults, and one clear line for what is wrong."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.core.machine_table import Request
from bms.trial import case
from hal.contract import RackState
from hal.errors import ConfigError


def parse(text: str) -> list[case.Trial]:
    return case.parse(tomllib.loads(text), "mine", "mine.toml")


RAMP = '[[fault]]\nkind = "sensor_offset"\nindex = [1]\nfrom = 0\nvalue = 9\n'


def test_a_file_without_trials_is_one() -> None:
    (trial,) = parse("""
        tags = ["a"]
        clause = "IEC 0"
        gap = "why"
        [run]
        description = "d"
        [[request]]
        request = "maintenance"
        [[fault]]
        kind = "interlock_open"
        at_s = "1min"
        [[change]]
        channel = "cell_v"
        kind = "offset"
        from = 0
        value = "v_max"
        ramp_s = 5
        [[internal]]
        kind = "late_step"
        value = 3
        at_state = "standby"
        [expect]
        state = "maintenance"
    """)
    assert trial.id == "mine"
    assert trial.scenario.rack == case.RACK
    assert trial.scenario.duration_s == case.DURATION_S
    assert trial.scenario.requests == ((0.0, Request.MAINTENANCE),)
    assert trial.tags == ("a", "clauses")
    assert (trial.clause, trial.gap) == ("IEC 0", "why")
    assert [len(trial.faults), len(trial.changes), len(trial.internals), len(trial.injected)] == [1, 1, 1, 3]
    assert trial.faults[0]["at_s"] == 60.0
    assert trial.expect.state == (RackState.MAINTENANCE,)


def test_axes_multiply_and_the_nearer_table_wins() -> None:
    trials = parse("""
        [run]
        duration = 10
        [rack]
        seed = 1
        [axis]
        tier = ["info", "fatal"]
        [axis.rack.lfp]
        run.rack = "sim:lfp_280"
        rack.initial_soc = 0.3
        [axis.rack.na]
        run.rack = "sim:na_185"
        rack.initial_soc = 0.4
        [[trial]]
        name = "one"
        over = ["rack", "tier"]
        rack.n_series = 8
        fault = [{ kind = "cell_v_stuck_at", index = [1], value = "cell_overvoltage.{tier} + 1" }]
        [[trial]]
        name = "two"
        over = ["rack"]
        rack.initial_soc = 0.5
        axis.where.low.rack.initial_soc = 0.6
        axis.where.high = {}
    """)
    ids = [trial.id for trial in trials]
    assert ids == [
        *("one-lfp-info", "one-lfp-fatal", "one-na-info", "one-na-fatal"),
        *("two-lfp-low", "two-lfp-high", "two-na-low", "two-na-high"),
    ]
    by_id = dict(zip(ids, trials, strict=True))
    assert by_id["one-na-fatal"].scenario.rack == "sim:na_185"
    assert by_id["one-na-fatal"].scenario.tables["rack"] == {"seed": 1, "initial_soc": 0.4, "n_series": 8}
    assert by_id["one-na-fatal"].faults[0]["value"] == "cell_overvoltage.fatal + 1"
    assert by_id["two-na-low"].scenario.tables["rack"]["initial_soc"] == 0.6
    assert by_id["two-na-high"].scenario.tables["rack"]["initial_soc"] == 0.5
    assert all(trial.scenario.duration_s == 10 for trial in trials)


def test_a_word_of_an_axis_that_is_a_number_becomes_one() -> None:
    trials = parse("""
        [[trial]]
        name = "one"
        axis.x = ["7", "-5.0", "1e3", "20min"]
        rack.seed = "{x}"
        duty.name = "x{x}"
    """)
    found = [(trial.scenario.tables["rack"]["seed"], trial.scenario.tables["duty"]["name"]) for trial in trials]
    assert found == [(7, "x7"), (-5.0, "x-5.0"), (1000.0, "x1e3"), ("20min", "x20min")]
    assert [type(seed) for seed, _ in found] == [int, float, float, str]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[faul]]", "unknown table or key 'faul'.*did you mean 'fault'"),
        ("[fault]", r"expected \[\[fault\]\] tables"),
        ("[[fault]]", "number 1: the key 'kind' is missing"),
        ('[[fault]]\nkind = "x"\nat = 3', "unknown key 'at'"),
        ('[[fault]]\nkind = "x"\nat_s = -1', "at_s = -1"),
        ('[[fault]]\nkind = "x"\nat_s = "never"', "at_s = 'never': expected a time"),
        ('[[fault]]\nkind = "x"\nat_s = 9\nuntil_s = 8', "must be later than at_s"),
        ('[[fault]]\nkind = "x"\nat_state = "conected"', "did you mean 'connected'"),
        ('[[fault]]\nkind = "x"\nvalue = "v_mux"', "no quantity 'v_mux'"),
        ('[[fault]]\nkind = "x"\nvalue = 1\nramp_s = 3', "a ramp goes from `from` to `value`"),
        ('[[fault]]\nkind = "x"\nvalue = 1\nfrom = 3', "only a ramp begins somewhere"),
        ('[[internal]]\nkind = "late"', "did you mean 'late_step'"),
        ('[[change]]\nkind = "offset"\nchannel = "cell_w"\nvalue = 1', "did you mean 'cell_v'"),
        ('[[change]]\nkind = "offset"\nchannel = "cell_v"', "value is missing"),
        ('[[change]]\nkind = "zero"\nchannel = "cell_v"\nindex = "a"', "index = 'a'"),
        ('[[change]]\nkind = "zero"\nchannel = 3', "channel = 3"),
        ("[run]\nduration = '30d'", "2,592,000 steps, at most 1,000,000"),
        ('[[internal]]\nkind = "late_step"\nvalue = -1', "value = -1: expected a number in 0"),
        ('[[internal]]\nkind = "reset_cause"\nvalue = 7', "in 1..3"),
        ("[run]\ndurtion = 3", r"\[run\]: unknown key 'durtion'"),
        ("[run]\nduration = 0", "must be greater than 0"),
        ("rack = 3", r"expected a table, \[rack\]"),
        ("tags = 3\n[run]", "tags = 3"),
        ("clause = 3\n[run]", "expected text"),
        ("trial = []", r"trial = \[\]: expected \[\[trial\]\] tables"),
        ("", r"holds no table of a trial; give at least \[run\], with what goes wrong in \[\[fault\]\]"),
        ("tags = ['cut off']", "holds no table of a trial"),
        ("[axis]\na = ['x']", r"\[axis\] is for a file with \[\[trial\]\]"),
        ("[trial]\nname = 'x'", r"expected \[\[trial\]\] tables"),
        ("[[trial]]", "the key 'name' is missing"),
        ("[[trial]]\nname = 'a b'", "without blanks"),
        ("[[trial]]\nname = 'a'\nover = ['x']", r"over = \['x'\]"),
        ("[axis]\nx = 3\n[[trial]]\nname = 'a'", "expected a list of names"),
        ("[axis]\nx = [1, 2]\n[[trial]]\nname = 'a'", r"\[axis\] x = \[1, 2\]: .* in quotes, such as x = \[\"1\""),
        ("[[trial]]\nname = 'a'\nrun.rack = 3", "trial 'a': .*rack = 3: expected text"),
        ("[controller.limit]\na = 3\n", "limit: unknown table"),
        (
            "[[trial]]\nname = 'a'\ndescription = 'all of {zz}'",
            r"trial 'a': \[run\] description = 'all of \{zz\}': no axis 'zz' goes with this trial; name it in its over, "
            r"give the trial axis.zz, or remove \{zz\}$",
        ),
        (
            "[axis]\nzz = ['1']\n[[trial]]\nname = 'a'\nover = ['zz']\n[[trial]]\nname = 'b'\n"
            "fault = [{ kind = 'x', index = ['{zz}'] }]",
            r"trial 'b': \[\[fault\]\] number 1: index = '\{zz\}': no axis 'zz'",
        ),
        ("[run]\ndescription = '{ a-1 }'", r"trial 'mine': \[run\] description = '\{ a-1 \}': no axis 'a-1'"),
        (
            "[axis]\nx = ['a', 'b']\ny = ['1']\n[[trial]]\nname = 'a'\nover = ['y']",
            r"\[axis\] x: no trial goes over it; give one over = \['x'\], or remove the axis$",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as raised:
        parse(text)
    assert str(raised.value).startswith("mine.toml: ")
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        case.load(tmp_path / "none.toml")
    for content in (b"[", b"\xff", b"x = 1" + 5000 * b"0"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match="not valid TOML"):
            case.load(tmp_path / "bad.toml")


def test_an_id_is_given_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text("[[trial]]\nname = 'same'\n")
    with pytest.raises(ConfigError, match=r"b.toml: the trial 'same' is in .*a.toml, too"):
        case.load_all([tmp_path / "a.toml", tmp_path / "b.toml"])


_LEAF = st.one_of(st.booleans(), st.integers(-5, 5), st.floats(allow_nan=True), st.text(max_size=6), st.none())
_VALUE = st.recursive(
    _LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from([*case.TABLES, *case.OWN, *case.GROUP, "other"])


@given(st.dictionaries(_KEYS, _VALUE, max_size=4))
def test_any_tables_are_trials_or_one_line_of_complaint(tables: dict[str, Any]) -> None:
    try:
        assert all(trial.id for trial in case.parse(tables, "mine", "mine.toml"))
    except ConfigError as error:
        assert str(error).startswith("mine.toml: ")


@given(
    st.dictionaries(st.sampled_from(["kind", "at_s", "until_s", "index", "value", "ramp_s", "from", "at_state"]), _LEAF)
)
def test_any_fault_is_one_or_one_line_of_complaint(entry: dict[str, Any]) -> None:
    try:
        (trial,) = case.parse({"fault": [entry]}, "mine", "mine.toml")
        assert trial.faults[0]["kind"] == entry["kind"]
    except ConfigError as error:
        assert str(error).startswith("mine.toml: trial 'mine': [[fault]] number 1: ")


def test_the_library_is_large_named_and_described() -> None:
    trials = case.load_all(case.library())
    assert len(trials) >= 80
    assert all(trial.scenario.description for trial in trials)
    assert {"states", "rows", "combined", "thermal", "clauses"} <= {tag for trial in trials for tag in trial.tags}
    assert {trial.scenario.rack.partition("?")[0] for trial in trials} == {"sim:lfp_280", "sim:na_185", "sim:nmc_ev"}


def test_the_library_is_counted_in_its_page(repository: Path) -> None:
    text = (repository / "docs" / "trial.md").read_text()
    for path in case.library():
        assert f"| `{path.name}` | {len(case.load(path))} |" in text


def test_a_hint_is_short() -> None:
    trials = parse("[[trial]]\nname = 'abc'\n[[trial]]\nname = 'xyz'\n")
    assert case.hint("abd", trials) == " (did you mean 'abc'?)"
    assert "bms trial list" in case.hint("?", trials)


@pytest.mark.parametrize(
    ("rack", "complaint"),
    [
        ("replay:none", "a recording does not answer to the controller"),
        ("record+replay:none", "a recording does not answer to the controller"),
        ("sim:site", "a site of many racks"),
        ("modbus:127.0.0.1", "a rack on a wire lives in real time"),
        ("simm:lfp_280", "unknown scheme 'simm'"),
        ("lfp_280", "expected scheme:address"),
    ],
)
def test_racks_that_no_trial_can_have(rack: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^m\.toml: trial 'm': \[run\] rack = '{re.escape(rack)}': .*{complaint}"):
        case.parse({"run": {"rack": rack}}, "m", "m.toml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '[[fault]]\nkind = "emergency_stop"\nat_s = 9000',
            r"\[\[fault\]\] number 1: at_s = 9000: after the last step, 119 s",
        ),
        ('[[fault]]\nkind = "emergency_stop"\nat_s = 119.5', "after the last step"),
        ('[[change]]\nkind = "nan"\nchannel = "current_a"\nat_s = 120', r"\[\[change\]\] number 1: at_s = 120"),
        ('[[internal]]\nkind = "transported"\nat_s = 120', r"\[\[internal\]\] number 1: at_s = 120"),
        ('[[request]]\nat = "1h"\nrequest = "open"', r"\[\[request\]\] number 1: at = 3600"),
        ("[controller.timing]\nperiod_s = 0.5", r"\[controller.timing\] period_s = 0.5: .* \[run\] period_s"),
        ("[expect]\nvented = [3, 1]", r"vented = \[3, 1\]: the fewest are more than the most"),
        ("[expect]\nignited = [1, 0]", r"ignited = \[1, 0\]: the fewest"),
        (
            '[[expect.row]]\nfault = "gas_alarm"\nsince = 200',
            r"\[expect\]: row fault = 'gas_alarm': since = 200: after the last step, 119 s",
        ),
        (
            f"{RAMP}at_s = 100\nramp_s = 21",
            r"\[\[fault\]\] number 1: ramp_s = 21: .* at 121 s, after the end of the run, 120 s",
        ),
        (
            f"{RAMP}at_s = 1\nramp_s = 40\nuntil_s = 10",
            r"ramp_s = 40: its value is reached at 41 s, after its until_s, 10 s",
        ),
        (f"{RAMP}at_state = 'connected'\nramp_s = 40\nuntil_s = 10", r"ramp_s = 40: its value is reached at 40 s"),
    ],
)
def test_what_would_try_nothing_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^mine\.toml: trial 'mine': .*{complaint}"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[expect.bounds]\ncell_v_max = nan", r"\[expect\.bounds\] cell_v_max = nan"),
        ('[[expect.row]]\nfault = "gas_alarm"\ndetect_ms = nan', r"\[\[expect\.row\]\] number 1: detect_ms = nan"),
        ('[[expect.row]]\nfault = "gas_alarm"\nvalue = [1, inf]', r"\[\[expect\.row\]\] number 1: value = inf"),
        ('[[fault]]\nkind = "gas_alarm"\n[[fault]]\nkind = "x"\nvalue = -inf', r"\[\[fault\]\] number 2: value = -inf"),
        ("[rack]\ninitial_soc = nan", r"\[rack\] initial_soc = nan"),
        ("[controller.limits]\nramp_s = nan", r"\[controller\.limits\] ramp_s = nan"),
        ("[run]\nduration = inf", r"\[run\] duration = inf"),
        ("[rack]\nseed = 1" + 400 * "0", r"\[rack\] seed = 1000000000\.\.\."),
        ("[rack]\nx = [[1, nan]]", r"\[rack\] x = nan"),
    ],
)
def test_a_number_that_is_none_is_refused_wherever_it_stands(text: str, place: str) -> None:
    key = text.splitlines()[-1].partition(" =")[0]
    with pytest.raises(ConfigError, match=rf"^mine\.toml: trial 'mine': {place}: not a finite.* or leave {key} out$"):
        parse(text)


def test_a_ramp_may_end_with_the_run() -> None:
    (trial,) = parse(f"{RAMP}at_s = 100\nramp_s = 20\nuntil_s = 120")
    assert trial.faults[0]["ramp_s"] == 20.0


@pytest.mark.parametrize(
    ("fault", "tier", "key", "complaint"),
    [
        ("voltage_spread", "info", "react_ms", "nothing in the reaction of its info row lowers a limit or opens"),
        (
            "gas_alarm",
            "fatal",
            "open_ms",
            "nothing in the reaction of its fatal row opens the contactors; leave open_ms",
        ),
    ],
)
def test_no_reaction_is_timed_that_a_row_does_not_demand(fault: str, tier: str, key: str, complaint: str) -> None:
    wanted = f"[[expect.row]]\nfault = '{fault}'\ntiers = '{tier}'\n{key} = 100\n"
    changed = f"[controller.fault.{fault}.{tier}]\nreaction = ['no_close']\n"
    where = rf"^mine\.toml: trial 'mine': \[expect\]: row fault = '{fault}': {key} = 100: "
    with pytest.raises(ConfigError, match=where + complaint):
        case.check_rows(parse(wanted + changed))
    case.check_rows(parse(wanted + changed.replace("no_close", "open")))
    case.check_rows(parse(f"{wanted}reaction = ['open']\n{changed}"))


def test_the_last_step_is_still_tried() -> None:
    (trial,) = parse('[[fault]]\nkind = "emergency_stop"\nat_s = 119')
    assert case.last_step_s(trial.scenario) == 119.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[fault]]\nkind = "gas_alarm"\nat_s = -5', r"at_s = -5: must be 0 or more and finite"),
        ('[[request]]\nat = -1\nrequest = "open"', r"at = -1: must be 0 or more and finite"),
        ("[[request]]\nat = 1", r"\[\[request\]\] number 1: the key 'request' is missing; one of: "),
        ("[[fault]]\nat_s = 5", r"\[\[fault\]\] number 1: the key 'kind' is missing"),
        ("[[expect.lead]]\nmin_s = 5", r"the key 'before' is missing; one of: vented"),
        ('[[internal]]\nkind = "capacity_share"\nvalue = 0.5', r"index is missing \(number of a cell\)"),
        ('[[internal]]\nkind = "capacity_share"\nindex = 3', r"value is missing \(share\)"),
        (
            '[[change]]\nkind = "nan"\nchannel = "current_a"\nindex = [99]',
            r"index = \[99\], where there is one value only: leave it out",
        ),
        (
            '[[change]]\nkind = "nan"',
            r"number 1: kind = 'nan': the key 'channel' is missing; name a field of a measure",
        ),
    ],
)
def test_messages_speak_the_language_of_the_file(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^mine\.toml: trial 'mine': .*{complaint}"):
        parse(text)


def test_a_trial_without_a_name_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"number 1: the key 'name' is missing"):
        parse("[[trial]]\nrun = { duration = 5 }")
