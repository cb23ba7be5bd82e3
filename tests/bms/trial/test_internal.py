"""Damage inside the controller: each kind is seen as what it is, and wrong entries are told."""

from __future__ import annotations

import pytest

from bms.core.faults import Fault
from bms.trial import internal
from bms.trial.play import play
from hal.errors import ConfigError


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"kind": "reset"}, "did you mean 'reset_cause'"),
        ({"kind": "reset_cause"}, r"value is missing \(code\)"),
        ({"kind": "transported", "value": 1}, "leave it out"),
        ({"kind": "estimate_lost"}, r"index is missing \(number of a cell\)"),
        ({"kind": "estimate_lost", "index": -1}, "index = -1"),
    ],
)
def test_wrong_entries(entry: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        internal.check(entry, "here")


@pytest.mark.parametrize("name", internal.KINDS)
def test_every_kind_is_in_the_library_or_does_something(name: str, make) -> None:
    kind = internal.KINDS[name]
    entry = {"kind": name, "at_s": 5.0}
    if kind.value:
        entry["value"] = 0.5 if kind.value == "share" else 2
    if kind.index:
        entry["index"] = 3
    internal.check(entry, "here")
    tables = {"run": {"duration": "12s"}, "rack": {"watchdog_s": 60.0}}
    healthy = play(make(tables)).log
    damaged = play(make({**tables, "internal": [entry]})).log
    if name in ("transported", "capacity_share"):
        assert len(damaged) == len(healthy)  # seen later: the library tries it
    else:
        assert (healthy.bits.any(), damaged.bits.any()) == (False, True)


@pytest.mark.parametrize("cell", [0, 4, 9, 15])
@pytest.mark.parametrize("rack", ["lfp_280", "na_185", "nmc_ev"])
def test_an_estimate_that_is_lost_is_told_where_it_is(cell: int, rack: str, make) -> None:
    tables = {
        "run": {"duration": "15s", "rack": f"sim:{rack}?n_series=32&module_groups=16&seed=3"},
        "internal": [{"kind": "estimate_lost", "index": cell, "at_s": 5.0}],
    }
    log = play(make(tables)).log
    assert log.value[6:, Fault.ESTIMATE_INVALID].tolist() == [1.0] * 9
    assert set(log.where[6:, Fault.ESTIMATE_INVALID].tolist()) == {cell}


def test_a_flipped_bit_of_the_configuration_is_told_at_once(make) -> None:
    entry = {"kind": "configuration_bit", "value": 3, "at_s": 5.0}
    log = play(make({"run": {"duration": "8s"}, "internal": [entry]})).log
    assert log.value[:, Fault.CONFIG_DAMAGED].tolist() == [0.0] * 5 + [1.0] * 3
    assert log.shows(Fault.CONFIG_DAMAGED, 3)[5:].all()


@pytest.mark.parametrize(
    "entry", [{"kind": "estimate_lost", "index": 16}, {"kind": "configuration_bit", "value": 99999}]
)
def test_places_that_do_not_exist(entry: dict, make) -> None:
    with pytest.raises(ConfigError, match="not in 0.."):
        play(make({"run": {"duration": "3s"}, "internal": [entry]}))
