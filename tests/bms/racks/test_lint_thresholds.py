"""Lints of thresholds at their edges; whole wrong files are in test_check.py."""

import pytest

from bms.core.power_setup import DERATINGS
from bms.racks.lint_thresholds import CHEMISTRIES, bears_0_v

from .conftest import Look


def test_every_chemistry_has_its_limits() -> None:
    assert set(CHEMISTRIES) == set(DERATINGS)
    assert [name for name in CHEMISTRIES if bears_0_v(name)] == ["na_layered", "na_pba", "na_nfpp"]


def fatal(look: Look, fault: str, **columns: float) -> list[str]:
    return [f.key for f in look(fault={fault: {"fatal": columns}})]


@pytest.mark.parametrize(
    ("fault", "good", "wrong", "clear"),
    [
        ("cell_overvoltage", 3.79, 3.81, 3.65),  # 3.8 V: what LFP bears
        ("cell_undervoltage", 2.01, 1.45, 2.48),
        ("deep_discharge", 1.51, 1.49, 2.1),
        ("pack_overvoltage", 1669.0, 1671.0, 1518.0),  # 1.1 times 416 x 3.65 V
        ("pack_undervoltage", 729.0, 727.0, 1020.0),
        ("charge_hot", 59.9, 60.0, 52.0),  # degc_max + 5 of IEC 62619 8.2.4
        ("discharge_hot", 59.9, 60.0, 52.0),
        ("charge_cold", -4.9, -5.1, -1.0),
        ("discharge_cold", -29.0, -31.0, -21.0),
        ("discharge_current", 335.0, 337.0, 290.0),  # 1.2 times 280 A
        ("charge_current", 335.0, 337.0, 290.0),
        ("insulation", 152000.0, 151000.0, 300000.0),  # 100 ohm/V at 1518.4 V
    ],
)
def test_limits_that_stand_behind_a_threshold(look: Look, fault: str, good: float, wrong: float, clear: float) -> None:
    key = f"fault.{fault}.fatal.threshold"
    assert key not in fatal(look, fault, threshold=good, clear=clear)
    assert key in fatal(look, fault, threshold=wrong, clear=clear)


def test_what_is_allowed_is_no_fault(look: Look) -> None:
    """Thresholds inside the window of the cell or at the rated current trip a sound rack."""
    for fault, inside in (
        ("pack_undervoltage", 1050.0), ("charge_hot", 55.0), ("charge_cold", 1.0), ("discharge_current", 280.0),
    ):  # fmt: skip
        off = {"info": {"enabled": False}, "warning": {"enabled": False}}
        clear = inside + (20.0 if "under" in fault or "cold" in fault else -20.0)
        found = look(fault={fault: {**off, "fatal": {"threshold": inside, "clear": clear}}})
        assert [f.key for f in found if f.severity == "error"] == [f"fault.{fault}.fatal.threshold"]


def test_warnings_at_full_and_at_500_ohm_per_volt(look: Look) -> None:
    off = {"enabled": False}
    found = look(fault={"cell_overvoltage": {"info": off, "warning": {"threshold": 3.6, "clear": 3.55}}})
    assert [(f.severity, f.key) for f in found] == [("warning", "fault.cell_overvoltage.warning.threshold")]
    found = look(fault={"insulation": {"warning": {"threshold": 400e3}}})
    assert [(f.severity, f.key) for f in found] == [("warning", "fault.insulation.warning.threshold")]
