"""Racks of the twin that have aged: keys of `[rack]` that follow from years, and chemistries without data."""

import pytest

from hal.backends.simulated import SimulatedRack, aged_rack
from hal.errors import ConfigError


def test_a_rack_that_has_aged() -> None:
    assert aged_rack("lfp_280", {}, {}) == aged_rack("na_185", {"years": 0.0}, {}) == {}
    old = aged_rack("lfp_280", {"years": 10.0}, {"capacity_spread": 0.05})
    assert old["capacity_factor"] == pytest.approx(0.888, abs=0.0015)
    assert old["capacity_spread"] > 0.05
    SimulatedRack("lfp_280", options={"rack": {"n_series": 16, **old}})
    for cell, use, text in (
        ("na_185", {"years": 5.0}, "no ageing data of na_layered, only of lfp; give .rack. capacity_factor"),
        ("lfp_280", {"yaers": 5.0}, "unknown key 'yaers'"),
        ("lpf_280", {"years": 5.0}, "did you mean 'lfp_280'"),
    ):
        with pytest.raises(ConfigError, match=text):
            aged_rack(cell, use, {})
