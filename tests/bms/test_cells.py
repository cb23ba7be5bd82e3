"""Cell files: those of the package are all good, and a bad one is refused with one line that says what to mend."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bms import cells
from bms.cells import CellParameters, load, names, parse
from bms.cells.writer import dump
from bms.core.estimator_setup import TUNING
from hal.errors import ConfigError


@pytest.fixture
def table(plain_cell: CellParameters) -> dict[str, Any]:
    """A good cell file, parsed: to be spoilt."""
    return tomllib.loads(dump(plain_cell))


def refused(table: dict[str, Any], *mentions: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(table, "cell.toml")
    message = str(caught.value)
    assert "\n" not in message
    for mention in ("cell.toml", *mentions):
        assert mention in message
    return message


# -------------------------------------------------------------------------------------------------------- the package


def test_the_package_brings_cells() -> None:
    assert len(names()) >= 5
    assert {load(name).chemistry for name in names()} >= {"lfp", "na_layered", "nmc"}


@pytest.mark.parametrize("name", names())
def test_a_cell_of_the_package(name: str) -> None:
    cell = load(name)
    assert cell.name == name
    assert len(cell.source) > 10, "where the data come from is part of the file"
    assert cell.limits.degc_min_discharge <= cell.limits.degc_min_charge < cell.limits.degc_max
    assert cell.limits.max_charge_c > 0
    assert cell.limits.max_discharge_c > 0
    assert 0.1 < cell.capacity_ah < 1000
    # the voltage limits enclose the curve where it is used
    assert cell.v_min - 0.05 <= cell.ocv(0.02) < cell.ocv(0.98) <= cell.v_max + 0.05
    assert np.all((cell.coulombic_efficiency > 0.9) & (cell.coulombic_efficiency <= 1.0))
    assert set(cell.filter) <= set(TUNING)
    # a resistance drops no more than a tenth of the voltage at 1 C at 25 degC
    middle = [
        float(np.interp(25.0, cell.degc, t[:, cell.soc_r.size // 2])) for t in (cell.r0_ohm, cell.rct_ohm, *cell.r_ohm)
    ]
    assert 0 < sum(middle) * cell.capacity_ah < 0.12 * cell.ocv(0.5)


@pytest.mark.parametrize("name", names())
def test_a_cell_of_the_package_is_what_the_writer_writes(name: str) -> None:
    text = (Path(cells.__file__).parent / f"{name}.toml").read_text()
    assert dump(load(name)) == text


def test_a_path_and_a_name_lead_to_the_same(tmp_path: Path) -> None:
    name = names()[0]
    path = tmp_path / "mine.toml"
    path.write_bytes((Path(cells.__file__).parent / f"{name}.toml").read_bytes())
    for given in (path, str(path)):
        np.testing.assert_array_equal(load(given).ocv_v, load(name).ocv_v)


def test_capacity_and_voltage_between_the_nodes(plain_cell: CellParameters) -> None:
    assert plain_cell.capacity_ah == 2.0
    assert plain_cell.ocv(0.01, 25.0) == pytest.approx(0.5 * (2.6 + 2.95))
    assert plain_cell.ocv(0.5, 12.5) == pytest.approx(plain_cell.ocv(0.5, 25.0) - 2e-3)
    assert (plain_cell.v_min, plain_cell.v_max) == (2.0, 3.65)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_an_unknown_name_suggests_the_nearest() -> None:
    name = names()[0]
    with pytest.raises(ConfigError, match=f"unknown cell '{name[:-1]}x'.*did you mean '{name}'"):
        load(f"{name[:-1]}x")
    with pytest.raises(ConfigError, match=f"known: .*{name}"):
        load("qqqqqqq")


@pytest.mark.parametrize("given", ["no/such.toml", "./nothing", "nothing.toml"])
def test_a_path_that_does_not_exist(given: str) -> None:
    with pytest.raises(ConfigError, match="No such file.*or one of: "):
        load(given)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b"a = 1\na = 2\n", b"\x1f\x8b\x08"])
def test_what_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cell.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cell.toml: not a valid TOML file") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_an_empty_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "cell.toml").write_bytes(b"")
    with pytest.raises(ConfigError, match="format = None, expected 1"):
        load(tmp_path / "cell.toml")
    with pytest.raises(ConfigError, match="directory"):
        load(tmp_path)


def test_the_table_is_good_before_it_is_spoilt(table: dict[str, Any]) -> None:
    assert parse(table, "cell.toml").name == "plain"


@pytest.mark.parametrize("section", ["model", "limits"])
def test_every_key_is_needed(table: dict[str, Any], section: str) -> None:
    for key in list(table[section]):
        spoilt = {**table, section: {k: v for k, v in table[section].items() if k != key}}
        refused(spoilt, f"{section}.{key}")
    del table[section]
    refused(table, f"[{section}] is missing")


@pytest.mark.parametrize("key", ["name", "chemistry", "source"])
def test_the_texts_are_needed(table: dict[str, Any], key: str) -> None:
    for value in (None, 3, ["x"]):
        refused({**table, key: value}, f"'{key}' must be a text")


def test_a_misspelt_key_names_the_nearest(table: dict[str, Any]) -> None:
    refused({**table, "modle": {}}, "unknown key 'modle'", "did you mean 'model'?")
    refused({**table, "model": {**table["model"], "ocv_w": []}}, "unknown key 'model.ocv_w'", "did you mean 'ocv_v'?")
    refused(
        {**table, "limits": {**table["limits"], "v_maxi": 1}}, "unknown key 'limits.v_maxi'", "did you mean 'v_max'?"
    )
    refused(
        {**table, "filter": {"voltage_sdt": 0.1}}, "unknown key 'filter.voltage_sdt'", "did you mean 'voltage_std'?"
    )


def test_another_format_is_not_guessed_at(table: dict[str, Any]) -> None:
    refused({**table, "format": 2}, "format = 2, expected 1", "bms identify")


def test_a_curve_that_is_not_monotone_is_named_with_its_place(table: dict[str, Any]) -> None:
    row = table["model"]["ocv_v"][1]
    row[7] = row[6]
    message = refused(table, "model.ocv_v at 25 degC is not monotone", "at SoC 0.400", "OCV must rise with SoC")
    assert "3.28000 V" in message


@pytest.mark.parametrize("key", ["ocv_v", "r0_ohm", "rc_ohm", "capacity_ah", "rc_tau_s", "hysteresis_v", "rct_ohm"])
def test_a_table_of_another_shape(table: dict[str, Any], key: str) -> None:
    table["model"][key] = table["model"][key][:-1]
    refused(table, f"model.{key} has shape", "expected")


@pytest.mark.parametrize("key", ["ocv_v", "r0_ohm", "capacity_ah", "soc", "temperature_degc"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite(table: dict[str, Any], key: str, value: float) -> None:
    target = table["model"][key]
    (target[0] if isinstance(target[0], list) else target)[0] = value
    refused(table, f"model.{key} has a value that is not finite")


@pytest.mark.parametrize("value", ["text", [[1.0, 2.0], [3.0]], {"a": 1}, [["x"]]])
def test_a_table_that_is_none(table: dict[str, Any], value: object) -> None:
    table["model"]["ocv_v"] = value
    refused(table, "model.ocv_v must be a table of numbers")


@pytest.mark.parametrize("key", ["soc", "soc_r", "temperature_degc"])
def test_nodes_rise(table: dict[str, Any], key: str) -> None:
    nodes = table["model"][key]
    nodes[1], nodes[2] = nodes[2], nodes[1]
    refused(table, f"model.{key} must rise from node to node")


@pytest.mark.parametrize("key", ["soc", "soc_r"])
def test_nodes_of_soc_span_all_of_it(table: dict[str, Any], key: str) -> None:
    table["model"][key][0] = 0.001
    refused(table, f"model.{key} must start at 0 and end at 1")


def test_empty_nodes(table: dict[str, Any]) -> None:
    table["model"]["soc"], table["model"]["ocv_v"], table["model"]["hysteresis_v"] = [], [[]] * 3, [[]] * 3
    refused(table, "two nodes of soc")


@pytest.mark.parametrize(("key", "value"), [("capacity_ah", 0.0), ("rc_tau_s", -3.0), ("coulombic_efficiency", 0.0)])
def test_what_must_be_positive(table: dict[str, Any], key: str, value: float) -> None:
    table["model"][key][0] = value
    refused(table, f"model.{key} must be positive")


def test_an_efficiency_in_per_cent(table: dict[str, Any]) -> None:
    table["model"]["coulombic_efficiency"] = [99.5, 99.5, 99.5]
    refused(table, "model.coulombic_efficiency must not exceed 1")


@pytest.mark.parametrize("key", ["hysteresis_gamma", "voltage_error_v", "knee_error_soc"])
def test_what_must_not_be_negative(table: dict[str, Any], key: str) -> None:
    table["model"][key][0] = -1e-3
    refused(table, f"model.{key} must not be negative")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "x", True, None])
def test_the_bend_is_a_positive_number(table: dict[str, Any], value: object) -> None:
    table["model"]["bend_a"] = value
    refused(table, "model.bend_a", "must be a positive number")


@pytest.mark.parametrize("value", [float("nan"), "x", True, None, [1.0]])
def test_a_limit_is_a_number(table: dict[str, Any], value: object) -> None:
    table["limits"]["v_max"] = value
    refused(table, "limits.v_max", "must be a number")


def test_voltage_limits_the_wrong_way_round(table: dict[str, Any]) -> None:
    table["limits"]["v_min"] = 4.0
    refused(table, "limits.v_min = 4.0 V must be below limits.v_max = 3.65 V")


@pytest.mark.parametrize("value", [float("nan"), "x", True, -0.1])
def test_tuning_is_a_number(table: dict[str, Any], value: object) -> None:
    refused({**table, "filter": {"voltage_std": value}}, "filter.voltage_std", "must be a number")
    refused({**table, "filter": 3}, "filter = 3")


def test_tuning_of_the_file_reaches_the_cell(
    table: dict[str, Any], make_plain_cell: Callable[..., CellParameters]
) -> None:
    assert parse({**table, "filter": {"voltage_std": 1}}, "x").filter == {"voltage_std": 1.0}
    assert parse(table, "x").filter == {} == make_plain_cell().filter
