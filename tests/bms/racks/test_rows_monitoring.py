"""Rows that watch the measurements: lost data in three steps, and time for it in periods."""

import pytest

from bms.core.faults import Fault, Reaction, Row
from bms.racks.basis import Basis, Table
from bms.racks.rows_monitoring import monitoring_rows
from hal.contract import Severity

F, R, S = Fault, Reaction, Severity


def table(period_s: float = 1.0) -> dict[tuple[Fault, Severity], Row]:
    rows = Table()
    monitoring_rows(rows, Basis(416, 280.0, 280.0, 280.0, period_s, 980.0, 60.0, 0.5, 3, 40.0))
    return {(row.fault, row.severity): row for row in rows.rows}


def test_lost_data_derates_then_stops_then_opens() -> None:
    rows = table()
    for fault in (F.CELL_VOLTAGE_LOST, F.TEMPERATURE_LOST, F.CURRENT_LOST, F.SAMPLE_LOST):
        info, warning, fatal = (rows[fault, s] for s in (S.INFO, S.WARNING, S.FATAL))
        calm = R.NO_BALANCING if fault is F.CELL_VOLTAGE_LOST else R.NONE
        assert info.reaction == R.DERATE | calm
        assert warning.reaction == R.NO_CHARGE | R.NO_DISCHARGE | R.NO_CLOSE | calm
        assert fatal.reaction & R.RAMP_OPEN
        assert info.threshold < warning.threshold < fatal.threshold


def test_a_slow_controller_does_not_take_one_sample_for_a_loss() -> None:
    for period_s in (0.1, 1.0, 10.0, 60.0):
        rows = table(period_s)
        for (fault, severity), row in rows.items():
            if fault.name.endswith("_LOST"):
                assert row.threshold >= (1.5, 2.5, 4.5)[severity - 1] * period_s, fault.name


def test_data_that_is_lost_opens_after_its_time() -> None:
    rows = table()
    times = {
        F.CURRENT_LOST: 5.0, F.SAMPLE_LOST: 5.0, F.CELL_VOLTAGE_LOST: 10.0, F.PACK_VOLTAGE_LOST: 30.0, F.FEEDBACK_LOST: 30.0,
        F.TEMPERATURE_LOST: 60.0, F.BUS_VOLTAGE_LOST: 300.0, F.GAS_LOST: 3600.0,
    }  # fmt: skip
    assert {f: rows[f, S.FATAL].threshold for f in times} == times
    assert (F.COOLANT_LOST, S.FATAL) not in rows  # the cells' own temperatures remain
    assert rows[F.COOLANT_LOST, S.WARNING].reaction == R.DERATE
    assert rows[F.BLEED_LOST, S.WARNING].reaction == R.NO_BALANCING


def test_a_loss_ends_well_inside_what_begins_it() -> None:
    """Front ends that deliver less often than the controller steps never let the time fall to 0."""
    rows = table(period_s=0.1)
    for (fault, severity), row in rows.items():
        if fault.name.endswith("_LOST"):
            assert row.clear == pytest.approx(0.6 * rows[fault, S.INFO].threshold), severity


@pytest.mark.parametrize(("period_s", "warning", "fatal"), [(0.1, 25.0, 50.0), (1.0, 5.0, 10.0), (10.0, 5.0, 10.0)])
def test_a_missed_deadline_counts_in_periods(period_s: float, warning: float, fatal: float) -> None:
    rows = table(period_s)
    tiers = [rows[F.DEADLINE_MISSED, s].threshold for s in (S.INFO, S.WARNING, S.FATAL)]
    assert tiers == [1.5, warning, fatal]


def test_a_leak_is_told_long_before_it_does_harm() -> None:
    rows = table()
    # healthy racks reach 120 mA
    assert [rows[F.CELL_LEAK, s].threshold for s in (S.INFO, S.WARNING, S.FATAL)] == [50.0, 200.0, 500.0]
    assert rows[F.CELL_LEAK, S.FATAL].reaction & R.SERVICE


def test_a_bleed_switch_is_judged_within_a_turn() -> None:
    rows = table()
    for fault in (F.BLEED_STUCK_ON, F.BLEED_STUCK_OFF):
        assert rows[fault, S.WARNING].set_s == 10.0
    assert rows[F.BLEED_STUCK_ON, S.WARNING].reaction == R.NO_BALANCING
