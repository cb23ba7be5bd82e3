"""Numbers that follow from the rack."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms import racks
from bms.trial import quantity
from hal.errors import ConfigError

VALUES = {"v_max": 3.65, "capacity_ah": 280.0, "cell_overvoltage.fatal": 3.7}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (3, 3.0),
        (-0.5, -0.5),
        ("v_max", 3.65),
        ("1.1 x v_max", 4.015),
        ("1.1*v_max", 4.015),
        ("-0.5 x capacity_ah", -140.0),
        ("cell_overvoltage.fatal + 0.02", 3.72),
        ("-1 x capacity_ah - 2", -282.0),
        (" v_max - .05 ", 3.6),
    ],
)
def test_numbers(text: object, number: float) -> None:
    assert quantity.number(text, VALUES, "here") == pytest.approx(number)


@pytest.mark.parametrize(
    "text",
    ["", "v_max v_max", "2", "v_max x 2", "import os", "v_max +", True, None, [1], {}, "1e x v_max", "1e999 x v_max"],
)
def test_what_is_no_number_is_told(text: object) -> None:
    with pytest.raises(ConfigError, match="^here = "):
        quantity.number(text, VALUES, "here")


def test_a_name_that_is_misspelt_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'v_max'"):
        quantity.check("v_maxx", "here")
    with pytest.raises(ConfigError, match="did you mean 'cell_overvoltage.fatal'"):
        quantity.check("cell_overvoltag.fatal", "here")


def test_a_row_that_the_rack_does_not_have_is_told() -> None:
    with pytest.raises(ConfigError, match="this rack has no row 'insulation.info'"):
        quantity.number("insulation.info", VALUES, "here")


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.sampled_from(sorted(VALUES)), st.sampled_from("+-"))
def test_any_factor_and_offset(factor: float, offset: float, name: str, sign: str) -> None:
    found = quantity.number(f"{factor:.6f} x {name} {sign} {offset:.6f}", VALUES, "here")
    wanted = float(f"{factor:.6f}") * VALUES[name] + float(f"{sign}{offset:.6f}")
    assert found == pytest.approx(wanted)


@given(st.text(max_size=20))
def test_any_text_is_a_number_or_one_line_of_complaint(text: str) -> None:
    try:
        assert isinstance(quantity.number(text, VALUES, "here"), float)
    except ConfigError as error:
        assert str(error).startswith("here = ")


@pytest.mark.parametrize("name", racks.names())
def test_every_name_has_a_value_for_every_rack(name: str) -> None:
    config = racks.load(name)
    values = quantity.quantities(config)
    assert set(quantity.NAMES) <= set(values)
    assert values["pack_v_max"] == pytest.approx(config.rack.n_series * config.cell.limits.v_max)
    assert values["cell_overvoltage.fatal"] > values["v_max"]
    for key in values:
        quantity.check(key, key)


def test_words_stay_words() -> None:
    table = {"kind": "v_max", "value": "v_max", "list": ["2 x v_max", 1]}
    found = quantity.resolved(table, VALUES, "here", frozenset({"kind"}))
    assert found == {"kind": "v_max", "value": 3.65, "list": [7.3, 1]}
