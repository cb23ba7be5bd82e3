"""Default rows: complete, in order, in time, and with the numbers that cells, ratings and standards ask for."""

import dataclasses

import pytest

from bms import cells, racks
from bms.core.diagnosis import N_ROWS, diagnosis_config
from bms.core.faults import ABOUT, Fault, Reaction, Row
from bms.racks.basis import Basis
from bms.racks.rows import SODIUM, default_rows, heating_k_per_min, precharge_timeout_s, spread_v
from hal.contract import Severity

F, R, S = Fault, Reaction, Severity
BASIS = Basis(
    n_series=416, capacity_ah=280.0, charge_a=280.0, discharge_a=280.0, period_s=1.0, current_range_a=980.0, self_test_s=60.0,
    precharge_rc_s=0.5, precharge_attempts=3, coolant_flow_lpm=40.0,
)  # fmt: skip


def table(name: str, **changes: float) -> dict[tuple[Fault, Severity], Row]:
    rows = default_rows(cells.load(name), dataclasses.replace(BASIS, **changes))
    return {(row.fault, row.severity): row for row in rows}


@pytest.mark.parametrize("name", cells.names())
def test_every_fault_has_a_row_that_warns_or_opens(name: str) -> None:
    rows = table(name)
    told = {fault for fault, severity in rows if severity in (S.WARNING, S.FATAL)}
    assert told == set(Fault)
    assert len(rows) <= N_ROWS
    diagnosis_config(rows.values())  # raises for a row given twice, or a number that is none


@pytest.mark.parametrize("name", cells.names())
def test_tiers_follow_each_other_and_clear_inside(name: str) -> None:
    rows = table(name)
    for fault in Fault:
        sign = 1.0 if ABOUT[fault].above else -1.0
        tiers = [rows[fault, severity] for severity in (S.INFO, S.WARNING, S.FATAL) if (fault, severity) in rows]
        thresholds = [sign * row.threshold for row in tiers]
        assert thresholds == sorted(thresholds), fault.name
        for row in tiers:
            assert sign * row.clear <= sign * row.threshold, fault.name


def test_fatal_rows_open_hold_and_have_a_time() -> None:
    once = {F.PRECHARGE_TIMEOUT, F.PRECHARGE_VOLTAGE, F.PRECHARGE_CURRENT, F.PRECHARGE_RESISTOR}
    for (fault, severity), row in table("lfp_280").items():
        if severity is S.FATAL:
            assert row.reaction & (R.OPEN | R.RAMP_OPEN), fault.name
            assert row.reaction & R.NO_CLOSE, fault.name
            assert bool(row.reaction & R.LATCH) == (fault not in once), fault.name
            assert row.ftti_s is not None, fault.name
            assert row.ftti_s > row.set_s, fault.name
        else:
            assert not row.reaction & (R.OPEN | R.RAMP_OPEN), fault.name
            assert row.ftti_s is None, fault.name


def test_current_stops_at_once_where_it_must() -> None:
    rows = table("lfp_280")
    at_once = {fault for (fault, severity), row in rows.items() if severity is S.FATAL and row.reaction & R.OPEN}
    assert at_once >= {
        F.SHORT_CIRCUIT, F.EMERGENCY_STOP, F.INTERLOCK_OPEN, F.DISCHARGE_CURRENT, F.CHARGE_CURRENT, F.GAS_ALARM,
        F.TEMPERATURE_RISE, F.CONTACTOR_WELDED, F.CELL_OVERVOLTAGE,
    }  # fmt: skip
    assert rows[F.CELL_UNDERVOLTAGE, S.FATAL].reaction & R.RAMP_OPEN  # an empty cell is in no hurry


@pytest.mark.parametrize(("name", "low", "high"), [("lfp_280", 2.5, 3.65), ("na_185", 1.5, 4.05), ("nmc_ev", 2.8, 4.2)])
def test_voltages_follow_the_cell(name: str, low: float, high: float) -> None:
    rows = table(name)
    over = [rows[F.CELL_OVERVOLTAGE, s] for s in (S.INFO, S.WARNING, S.FATAL)]
    assert [row.threshold for row in over] == pytest.approx([high, high + 0.02, high + 0.05])
    assert over[1].reaction == R.NO_CHARGE
    assert (over[2].set_s, over[2].ftti_s) == (1.5, 4.0)  # the example of foxBMS: 4 s
    under = [rows[F.CELL_UNDERVOLTAGE, s] for s in (S.INFO, S.WARNING, S.FATAL)]
    assert [row.threshold for row in under] == pytest.approx([low + 0.05, low - 0.02, low - 0.1])
    assert under[1].reaction == R.NO_DISCHARGE
    assert rows[F.PACK_OVERVOLTAGE, S.FATAL].threshold == pytest.approx(416 * (high + 0.04), rel=1e-5)


def test_a_deep_discharge_wants_service_except_of_sodium() -> None:
    assert table("lfp_280")[F.DEEP_DISCHARGE, S.FATAL].reaction & R.SERVICE
    assert table("lfp_280")[F.DEEP_DISCHARGE, S.FATAL].threshold == 2.0
    assert "na_layered" in SODIUM
    assert not table("na_185")[F.DEEP_DISCHARGE, S.FATAL].reaction & R.SERVICE


def test_currents_follow_the_rating() -> None:
    rows = table("lfp_280", discharge_a=140.0)
    assert rows[F.DISCHARGE_CURRENT, S.FATAL].threshold == pytest.approx(161.0)  # below the 168 A of IEC 62619 8.2.3
    assert rows[F.CHARGE_CURRENT, S.FATAL].threshold == pytest.approx(322.0)
    assert rows[F.SHORT_CIRCUIT, S.FATAL].threshold == pytest.approx(840.0)  # three times the larger one
    assert rows[F.CHARGE_LIMIT, S.FATAL].threshold == pytest.approx(56.0)  # C/5


def test_a_short_circuit_lies_inside_what_the_sensor_shows() -> None:
    rows = table("lfp_280", current_range_a=500.0)
    assert rows[F.SHORT_CIRCUIT, S.FATAL].threshold == pytest.approx(450.0)
    # and yet above any over-current, even where the sensor is too small for that: the lints tell
    rows = table("lfp_280", current_range_a=300.0)
    assert rows[F.SHORT_CIRCUIT, S.FATAL].threshold == pytest.approx(364.0)


def test_temperatures_stay_below_the_heating_test_of_iec_62619() -> None:
    rows = table("lfp_280")
    assert rows[F.CHARGE_HOT, S.FATAL].threshold == 57.0 < 60.0
    assert rows[F.DISCHARGE_HOT, S.FATAL].threshold == 59.0 < 60.0
    assert rows[F.CHARGE_COLD, S.FATAL].threshold == -3.0
    assert table("na_185")[F.CHARGE_COLD, S.FATAL].threshold == -13.0


def test_insulation_keeps_100_ohm_per_volt() -> None:
    rows = table("lfp_280")
    volt = 416 * 3.65
    for fault in (F.INSULATION, F.INSULATION_POSITIVE, F.INSULATION_NEGATIVE):
        assert rows[fault, S.FATAL].threshold == pytest.approx(100 * volt)
        assert rows[fault, S.WARNING].threshold == pytest.approx(500 * volt)
        assert rows[fault, S.INFO].clear < 2e6  # what a sound rack of this size shows


def test_precharge_has_ten_time_constants_and_time_to_notice() -> None:
    assert precharge_timeout_s(BASIS) == pytest.approx(2.0 + 10 * 0.5 + 12 * 1.0)
    assert table("lfp_280", precharge_attempts=5)[F.PRECHARGE_ATTEMPTS, S.WARNING].threshold == 4.5


def test_spread_is_the_steepest_place_of_the_curve() -> None:
    lfp, nmc = cells.load("lfp_280"), cells.load("nmc_ev")
    assert spread_v(lfp, 0.8) == pytest.approx(lfp.ocv(0.95) - lfp.ocv(0.15))
    # never less than anywhere between, and the plateau is flatter than NMC
    for at in (0.2, 0.5, 0.8):
        assert spread_v(lfp, 0.1) >= lfp.ocv(at + 0.1) - lfp.ocv(at)
    assert spread_v(lfp, 0.1) < 0.6 * spread_v(nmc, 0.1)


HEALTHY = {
    F.VOLTAGE_SPREAD: {"lfp_280": 0.0213, "na_185": 0.1378, "nmc_ev": 0.05}, F.OPEN_SENSE_WIRE: 0.1265,
    F.CELL_VOLTAGE_FROZEN: 0.0095, F.TEMPERATURE_FROZEN: 0.16, F.SUM_IMPLAUSIBLE: 0.0049,
    F.CURRENT_IMPLAUSIBLE: {"lfp_280": 28.3, "na_185": 9.2, "nmc_ev": 0.3}, F.CURRENT_GAIN: 0.12,
    F.CURRENT_OFFSET: {"lfp_280": 3.4, "na_185": 1.6, "nmc_ev": 0.4},
    F.TEMPERATURE_NEIGHBOUR: 3.55, F.TEMPERATURE_MODEL: 2.52, F.MODEL_RESIDUAL: 0.041, F.TEMPERATURE_RISE: 1.07,
    F.TEMPERATURE_SPREAD: 6.4, F.SOC_UNCERTAIN: 0.127, F.HEAT_RESIDUAL: 11.3, F.STRING_SAG: 0.066,
}  # fmt: skip
"""Largest values that healthy twins reach: three racks, -10..45 degC, steps of 0.1 and 1 s, full cycles at 1C."""


@pytest.mark.parametrize("name", ["lfp_280", "na_185", "nmc_ev"])
def test_warnings_stay_away_from_healthy_racks(name: str) -> None:
    rows = table(name)
    for fault, most in HEALTHY.items():
        healthy = most[name] if isinstance(most, dict) else most
        assert rows[fault, S.WARNING].threshold > 1.8 * healthy, fault.name
        assert rows[fault, S.INFO].threshold > healthy, fault.name


def test_the_rise_of_temperature_follows_the_heat_of_the_largest_current() -> None:
    # 280 A through 0.777 mohm in 280 Ah x 19 J/K
    lfp = cells.load("lfp_280")
    assert heating_k_per_min(lfp, BASIS) == pytest.approx(60 * 280**2 * 0.777e-3 / (19 * 280), rel=1e-3)
    assert table("lfp_280")[F.TEMPERATURE_RISE, S.FATAL].threshold == 6.0
    fast = table("nmc_ev", discharge_a=560.0)  # 2C
    assert fast[F.TEMPERATURE_RISE, S.WARNING].threshold == pytest.approx(4.4, abs=0.1)


def test_rows_are_sorted_and_survive_float32() -> None:
    rows = racks.load("nmc_ev").rows
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    for row in rows:
        assert row.threshold == float(f"{row.threshold:.6g}")
