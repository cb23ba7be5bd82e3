"""Expectations held against the rack: places, numbers of cells and bounds that could never fail, or never hold."""

from __future__ import annotations

import pytest

from bms.trial import play
from hal.errors import ConfigError

EIGHT = {"run": {"rack": "sim:lfp_280?n_series=8&module_groups=8&n_parallel=2", "duration": "2s"}}

WITHOUT = {"fault": {"cell_leak": {"info": {"enabled": False}}}}


@pytest.mark.parametrize(
    ("expect", "complaint"),
    [
        (
            {"row": [{"fault": "cell_sag", "at": 8}]},
            "row fault = 'cell_sag': at = 8: this rack has the cells 0..7; name",
        ),
        ({"row": [{"fault": "cell_sag", "at": [0, 8]}]}, r"at = \[0, 8\]: this rack has the cells 0..7"),
        ({"row": [{"fault": "discharge_hot", "at": 2}]}, "at = 2: this rack has the sensors 0..1"),
        ({"row": [{"fault": "gas_alarm", "at": 5}]}, "at = 5: this fault is of the rack as a whole; leave at out"),
        (
            {"row": [{"fault": "contactor_welded", "at": 3}]},
            "at = 3: expected 1 .main positive., 2 .main negative. or 4",
        ),
        ({"row": [{"fault": "insulation_positive", "at": 0}]}, "at = 0: expected 1 .positive. or 2 .negative."),
        ({"row": [{"fault": "reset_cause", "at": 4}]}, "at = 4: expected 1 .orderly end., 2 .operator. or 3 .crash."),
        (
            {"row": [{"fault": "cell_sag", "value": [4, 3]}]},
            r"value = \[4, 3\]: nothing lies between 4 and 3; take \[3, 4\]",
        ),
        (
            {"row": [{"fault": "cell_sag", "value": ["v_max", "v_min"]}]},
            r"value = \['v_max', 'v_min'\]: nothing lies between 3.65 and 2.5; take \['v_min', 'v_max'\]",
        ),
        ({"cause_at": [99]}, "cause_at = 99: this rack has the cells 0..7"),
        ({"vented": [0, 99]}, r"vented = \[0, 99\]: this rack has 16 cells; lessen the most"),
        ({"ignited": [0, 16]}, r"ignited = \[0, 16\]: any number of its 16 cells would do; leave it out"),
        ({"bounds": {"cell_v_max": "cell_leak.info"}}, r"bounds.cell_v_max = 'cell_leak.info': this rack has no row"),
    ],
)
def test_what_could_never_be_or_always_is_refused(expect: dict, complaint: str, make) -> None:
    with pytest.raises(ConfigError, match=rf"^mine\.toml: trial 'mine': \[expect\].*{complaint}") as raised:
        play.check(make({**EIGHT, "controller": WITHOUT}, expect=expect))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"fault": [{"kind": "interlock"}]}, r"\[\[fault\]\] kind = 'interlock' \(did you mean"),
        ({"change": [{"channel": "cell_v", "kind": "nan", "index": 8}]}, r"index = 8: not in 0\.\.7"),
        ({"internal": [{"kind": "estimate_lost", "index": 8}]}, r"index = 8: not in 0\.\.7"),
        ({"internal": [{"kind": "configuration_bit", "value": 99999}]}, r"value = 99999: not in 0\.\."),
        ({"rack": {"n_serie": 4}}, "n_serie"),
    ],
)
def test_what_the_rack_refuses_is_told_before_a_step(tables: dict, complaint: str, make) -> None:
    with pytest.raises(ConfigError, match=rf"^mine\.toml: trial 'mine': .*{complaint}"):
        play.check(make({**EIGHT, **tables}))


def test_what_fits_is_played_alike_after_it_was_checked(make) -> None:
    rows = [
        {"fault": "cell_sag", "at": [0, 7], "value": [0.1, 0.1]},
        {"fault": "discharge_hot", "at": 1},
        {"fault": "contactor_welded", "at": [1, 2, 4]},
        {"fault": "insulation_negative", "at": 2},
        {"fault": "reset_cause", "tiers": ["warning"], "at": 3},
    ]
    trial = make(EIGHT, expect={"row": rows, "cause_at": 7, "vented": [0, 15], "ignited": [1, 16]})
    before = play.play(trial).log
    play.check(trial)
    assert (play.play(trial).log.value == before.value).sum() == (before.value == before.value).sum()
