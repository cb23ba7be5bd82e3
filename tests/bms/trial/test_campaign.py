"""Campaigns from TOML: what a sample depends on, what is refused and how, ageing, and those that are shipped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bms.trial import campaign
from bms.trial.campaign import load, parse, shipped
from hal.errors import ConfigError

SHORT: dict[str, Any] = {"fault": [{"kind": "interlock_open", "at_s": 39.01}], "run": {"duration": "60s"}}
VARY: dict[str, Any] = {
    "ohm": {"path": "fault.0.value", "log_uniform": [1e-3, 1.0]},
    "cell": {"path": "fault.0.index", "integers": [0, 15]},
    "years": {"path": "age.years", "grid": [0, 10]},
}
RACK_TIME = {"path": "fault.0.at_s", "uniform": [10, 20]}


def test_a_sample_depends_on_nothing_but_seed_and_number(plan) -> None:
    shorts = plan()
    backwards = {k: shorts.values(k) for k in reversed(range(shorts.total))}
    assert [shorts.values(k) for k in range(shorts.total)] == [backwards[k] for k in range(shorts.total)]
    longer = plan(campaign={"n": 50, "seed": 7})
    assert longer.values(3) == shorts.values(3)
    assert plan(campaign={"n": 4, "seed": 8}).values(3) != shorts.values(3)
    assert len({str(longer.values(k)) for k in range(longer.total)}) == 100


def test_one_more_variation_leaves_the_others_as_they_were(plan) -> None:
    shorts = plan()
    more = plan(vary={"degc": {"path": "rack.initial_degc", "uniform": [0, 40]}, **VARY})
    for k in range(shorts.total):
        assert {name: value for name, value in more.values(k).items() if name != "degc"} == shorts.values(k)


def test_grids_are_a_full_product(plan) -> None:
    both = plan(
        SHORT,
        campaign={"n": 3},
        vary={
            "soc": {"path": "rack.initial_soc", "grid": [0.2, 0.5, 0.8]},
            "degc": {"path": ["rack.initial_degc", "environment.ambient_degc"], "grid": [5, 25]},
        },
    )
    assert (both.points, both.total) == (6, 18)
    points = [tuple(both.values(k).values()) for k in range(both.total)]
    assert sorted(set(points)) == [(s, d) for s in (0.2, 0.5, 0.8) for d in (5, 25)]
    assert points[:6] == points[6:12]
    tables = both.trial(4).scenario.tables
    assert tables["rack"]["initial_degc"] == tables["environment"]["ambient_degc"] == points[4][1]


def test_values_go_where_the_path_says(plan) -> None:
    shorts = plan()
    for k in range(3):
        values, trial = shorts.values(k), shorts.trial(k)
        assert trial.faults[0]["value"] == values["ohm"]
        assert trial.faults[0]["index"] == [values["cell"]]
        assert trial.id == f"shorts-{k:06d}"


def test_a_choice_of_tables_is_laid_over(plan) -> None:
    kinds = {"stop": {"kind": "coolant_stop"}, "heat": {"kind": "heater", "index": [2], "value": 100.0}}
    found = plan(
        {"run": {"duration": "60s"}, "fault": [{"kind": "coolant_stop", "at_s": 39.0}]},
        vary={"what": {"path": "fault.0", "choice": kinds}},
    )
    seen = {found.shown(k)["what"]: found.trial(k).faults[0] for k in range(20)}
    assert seen["stop"] == {"kind": "coolant_stop", "at_s": 39.0}
    assert seen["heat"] == {"kind": "heater", "index": [2], "value": 100.0, "at_s": 39.0}


def test_years_become_keys_of_the_rack(plan) -> None:
    shorts = plan(rack={"capacity_factor": 0.98})
    new, old = (shorts.trial(k).scenario.tables["rack"] for k in (0, 1))
    assert new["capacity_factor"] == 0.98
    assert old["capacity_factor"] == pytest.approx(0.98 * 0.888, abs=0.002)
    assert old["resistance_factor"] > 1.2
    assert old["capacity_spread"] > 0.015


def test_a_trial_of_the_library_as_base(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[base]\ntrial = "interlock_open-lfp"\n[vary.t]\npath = "fault.0.at_s"\nuniform = [20, 30]\n'
    )
    found = load(str(tmp_path / "mine.toml"), n=5)
    assert found.total == 5
    assert found.trial(2).faults[0]["kind"] == "interlock_open"
    assert found.trial(2).expect.rows
    (tmp_path / "own.toml").write_text('[run]\nduration = "50s"\n')
    (tmp_path / "mine.toml").write_text('[base]\ntrial = "own"\nfile = "own.toml"\n')
    assert load(str(tmp_path / "mine.toml"), n=1).trial(0).scenario.duration_s == 50.0


@pytest.mark.parametrize("name", ["healthy", "short_circuits"])
def test_those_that_are_shipped(name: str) -> None:
    found = load(name)
    assert shipped()[name].is_file()
    assert found.source == f"campaigns/{name}.toml"
    assert found.description
    assert {"years", "degc", "soc", "rack_seed"} <= {vary.name for vary in found.varied}
    assert found.trial(found.total - 1).id == f"{name}-{found.total - 1:06d}"


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"campain": {}}, "unknown table or key 'campain' .did you mean 'campaign'"),
        ({"campaign": {"n": 0}}, r"\[campaign\] n = 0: expected a whole number, at least 1"),
        ({"campaign": {"sead": 1}}, r"\[campaign\]: unknown key 'sead' .did you mean 'seed'"),
        ({"campaign": {"n": 2_000_000}}, "2,000,000 samples with its grids, at most 1,000,000"),
        ({"base": {"trial": "interlock_opn-lfp"}}, "no such trial .did you mean 'interlock_open-lfp'"),
        ({"base": {"file": "x.toml"}}, r"\[base\] trial = None: expected the id"),
        ({"vary": {"a": {"path": "racks.seed", "integers": [1, 2]}}}, "no table 'racks' to vary .did you mean 'rack'"),
        ({"vary": {"a": {"path": "age.yeers", "integers": [1, 2]}}}, "unknown key 'yeers' .did you mean 'years'"),
        ({"vary": {"a": {"path": "fault.3.at_s", "uniform": [1, 2]}}}, "'fault' has 1 entries, counted from 0; '3' is"),
        ({"vary": {"a": {"path": "fault.0.at_s.x", "uniform": [1, 2]}}}, "'fault.0.at_s' is 39.01, no table"),
        ({"vary": {"a": RACK_TIME, "b": RACK_TIME}}, r"\[vary.a\] varies it, too"),
        (
            {"vary": {"a": {"path": "run.period_s", "uniform": [-2, -1]}}},
            r"\[run\] period_s = -1.*must be greater than 0",
        ),
        ({"vary": {"a": {"path": "rack.seed", "integers": [1, 9]}}}, "sets seed, which wins; remove it from the URL"),
        ({"age": {"year": 3}}, r"\[age\]: unknown key 'year'"),
        ({"age": {"years": 50}}, r"sample 0: \[age\] years = 50: must be in 0..30"),
        ({"age": {"years": 5}, "run": {"rack": "sim:na_185"}}, "no ageing data of na_layered, only of lfp"),
        ({"age": {"years": 5}, "run": {"rack": "sim:lfp_280?capacity_factor=0.9"}}, "sets capacity_factor, which wins"),
        ({"detect": {"tier": "loud"}}, r"\[detect\] tier = 'loud': expected info, warning, fatal"),
        ({"detect": {"faults": ["cel_leak"]}}, "no such fault .did you mean 'cell_leak'"),
        ({"campaign": {"n": math.nan}}, r"\[campaign\] n = nan: not a finite number; give one, or leave n out"),
        (
            {"require": {"false_alarms_per_rack_year": math.inf}},
            r"\[require\] false_alarms_per_rack_year = inf: not a fin",
        ),
        (
            {"vary": {"a": {"path": "rack.x", "choice": [1, math.nan]}}},
            r"\[vary\.a\] choice = nan: not a finite number",
        ),
        ({"expect": {"bounds": {"cell_v_max": math.nan}}}, r"\[expect\.bounds\] cell_v_max = nan: not a finite"),
        ({"require": {"passed": 2}}, r"\[require\] passed = 2: expected a share in 0..1"),
    ],
)
def test_what_is_refused(tables: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        parse({**SHORT, **tables}, "mine", "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert "\n" not in str(caught.value)


def test_names_of_samples(plan) -> None:
    shorts = plan()
    assert shorts.number_of("shorts-000003") == shorts.number_of("3") == 3
    for text in ("8", "shorts-000008", "x", "other-000001", "-1"):
        with pytest.raises(ConfigError, match="no such sample; shorts-000000 to shorts-000007"):
            shorts.number_of(text)


def test_the_digest_is_of_what_samples_follow_from(plan) -> None:
    shorts = plan()
    assert plan(campaign={"n": 9, "seed": 7}).digest == shorts.digest
    assert plan(campaign={"n": 4, "seed": 8}).digest != shorts.digest
    assert plan(rack={"initial_soc": 0.4}).digest != shorts.digest


def test_unknown_campaigns() -> None:
    with pytest.raises(ConfigError, match="unknown campaign 'helthy' .did you mean 'healthy'"):
        load("helthy")
    with pytest.raises(ConfigError, match="nowhere/x.toml: cannot be read"):
        load("nowhere/x.toml")


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=True) | st.text(max_size=4)
WORDS = st.sampled_from(
    ["n", "seed", "path", "uniform", "grid", "choice", "normal", "weights", "years", "trial", "x", "0"]
)
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=8
)
TABLES = st.dictionaries(
    st.sampled_from(["campaign", "base", "vary", "age", "detect", "require", "run", "fault", "rack", "tags"]),
    ANY,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@example({"rack": None, "age": {"years": None}}, {})
@example({"run": None, "age": {"years": None}}, {})
@example({"run": None}, {"rack.x": [None]})
@given(TABLES, st.dictionaries(st.sampled_from(["fault.0.at_s", "rack.x", "a..b", "age.years"]), ANY, max_size=2))
def test_whatever_a_file_holds_it_is_a_campaign_or_one_clear_line(tables: dict, varied: dict) -> None:
    if varied:
        tables["vary"] = {
            f"v{k}": {"path": path, **(content if isinstance(content, dict) else {"grid": content})}
            for k, (path, content) in enumerate(varied.items())
        }
    try:
        found = parse(tables, "mine", "mine.toml")
    except ConfigError as error:
        assert str(error).startswith("mine.toml: ")
        assert "\n" not in str(error)
    else:
        assert found.total >= 1
        assert found.trial(0).id == "mine-000000"


def test_a_campaign_can_be_handed_to_another_process(plan) -> None:
    import pickle

    shorts = plan()
    again = pickle.loads(pickle.dumps(shorts))
    assert again == shorts
    assert again.values(5) == shorts.values(5)
    assert campaign.FORMAT == 1
