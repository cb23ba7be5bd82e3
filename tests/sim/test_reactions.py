"""Data of the side reactions: what is in the files, what is refused, and how it is scaled to a cell."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import cell, reactions
from sim import layout as Y
from sim.config import TwinError
from sim.rack import RackTwin, rack_config


def tables(repository: Path, name: str = "lfp") -> dict[str, Any]:
    path = repository / "sim" / "cells" / "reactions" / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_every_chemistry_of_the_twin_has_its_reactions() -> None:
    assert reactions.names() == ("lfp", "na_layered", "na_nfpp", "na_pba", "nmc")
    assert {cell.load(name).head.chemistry for name in cell.names()} <= set(reactions.names())


@pytest.mark.parametrize("name", reactions.names())
def test_activation_energies_are_those_of_reactions(repository: Path, name: str) -> None:
    """80..275 kJ/mol for reactions: the range of the literature; shrinking of the separator is a threshold."""
    data = reactions.load(name)
    for reaction in (data.sei, data.anode, data.cathode, data.electrolyte):
        assert 80e3 <= reaction.ea_j_per_mol <= 275e3
    assert data.separator.ea_j_per_mol > 3e5
    text = (repository / "sim" / "cells" / "reactions" / f"{name}.toml").read_text(encoding="utf-8")
    assert len(re.findall(r"\n#[^\n]*\n(?:#[^\n]*\n)*\[", text)) == len(
        tables(repository, name)
    )  # each with its source


def test_nothing_that_is_left_asleep_would_heat_a_cell() -> None:
    """Below the temperature at which the twin looks, no full cell warms itself by more than 2 mK/min."""
    for name in cell.names():
        data = cell.load(name)
        rack = RackTwin(
            data, rack_config(data, {"n_series": 1, "n_parallel": 1, "initial_soc": 1.0, "soc_spread": 0.0})
        )
        rack.cells[Y.C_DEGC] = reactions.WAKE_DEGC + 1e-6
        rack.settle()
        rack.react(60.0)
        assert 0.0 < rack.cells[Y.C_DEGC][0] - reactions.WAKE_DEGC < 2e-3, name


def test_constants_scale_with_mass_and_charge() -> None:
    data = reactions.load("nmc")
    small = cell.load("nmc_ev")
    large = cell.load("lfp_280")
    a, b = data.constants(small), data.constants(large)
    for at in (Y.Q_SEI_J, Y.Q_ANODE_J, Y.Q_CATHODE_J, Y.Q_ELECTROLYTE_J, Y.Q_MELT_J, Y.Q_BOIL_J, Y.Q_METAL_J):
        assert b[at] / a[at] == pytest.approx(5.4 / 0.92)
    for at in (Y.Q_SEI_MOL, Y.Q_ANODE_MOL, Y.Q_CATHODE_MOL, Y.Q_ELECTROLYTE_MOL, Y.Q_SHORT_S, Y.Q_DENDRITE_S):
        assert b[at] / a[at] == pytest.approx(280.0 / 56.3)
    made = sum(b[at] for at in (Y.Q_SEI_MOL, Y.Q_ANODE_MOL, Y.Q_CATHODE_MOL, Y.Q_ELECTROLYTE_MOL))
    assert made == pytest.approx(0.07 * 280.0)
    k = b[Y.Q_ANODE] * np.exp(-b[Y.Q_ANODE_K] / 400.0)
    assert k == pytest.approx(data.anode.a_per_s * np.exp(-data.anode.ea_j_per_mol / 8.314462618 / 400.0))


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("anode", "filn", 1.0, "[anode]: unknown key 'filn' (did you mean 'film'?)"),
        ("anodes", "film", 1.0, "unknown table [anodes] (did you mean 'anode'?)"),
        ("sei", "heat_j_per_kg", -1.0, "[sei] heat_j_per_kg: is negative"),
        ("sei", "heat_j_per_kg", "much", "expected a finite number"),
        ("sei", "gas_share", 0.3, "the shares of the gas add up to"),
        ("separator", "melt_k_s", 0.0, "[separator] melt_k_s: must be positive"),
        ("overcharge", "plating_soc", 1.0, "[overcharge] plating_soc: must be at least 1.02"),
        ("overcharge", "dendrite_soc", 1.01, "[overcharge] dendrite_soc: below plating_soc"),
    ],
)
def test_files_that_are_not_sound_are_refused(repository: Path, table: str, key: str, value: Any, message: str) -> None:
    data = tables(repository)
    data.setdefault(table, {})[key] = value
    with pytest.raises(TwinError, match=re.escape(message)):
        reactions.build(data, "file")


def test_a_missing_table_is_named(repository: Path) -> None:
    data = tables(repository)
    del data["gas"]
    with pytest.raises(TwinError, match=re.escape("file: the table [gas] is missing")):
        reactions.build(data, "file")


def test_a_rack_may_have_the_reactions_of_another_chemistry_or_none() -> None:
    data = cell.load("na_185")
    own, other, none = (
        RackTwin(data, rack_config(data, {"n_series": 1, "side_reactions": name})).bank
        for name in ("", "na_nfpp", "none")
    )
    assert own.chemistry[Y.Q_CATHODE_J] > 10 * other.chemistry[Y.Q_CATHODE_J] > 0.0
    assert own.p[Y.P_BURNS] == other.p[Y.P_BURNS] == 1.0
    assert none.p[Y.P_BURNS] == 0.0
    with pytest.raises(
        TwinError, match=re.escape("side_reactions = 'na_nfp': unknown side reactions (did you mean 'na_nfpp'?)")
    ):
        RackTwin(data, rack_config(data, {"n_series": 1, "side_reactions": "na_nfp"}))
