"""What default rows follow from, and how they are put together."""

from __future__ import annotations

from dataclasses import dataclass

from bms.core.faults import Fault, Reaction, Row
from hal.contract import Severity

R = Reaction
LATCHED = R.LATCH | R.NO_CLOSE
RAMP = R.RAMP_OPEN | LATCHED
OPEN = R.OPEN | LATCHED
SERVICE = OPEN | R.SERVICE
STOP = R.NO_CHARGE | R.NO_DISCHARGE
HELD = STOP | R.NO_CLOSE


@dataclass(frozen=True)
class Basis:
    """What the thresholds follow from, besides the cell.

    `capacity_ah`, `charge_a` and `discharge_a` (the largest currents allowed, magnitudes) are the string's.
    """

    n_series: int
    capacity_ah: float
    charge_a: float
    discharge_a: float
    period_s: float
    current_range_a: float  # what the current sensor can show
    self_test_s: float  # time-out of the self-test
    precharge_rc_s: float
    precharge_attempts: int
    coolant_flow_lpm: float  # nominal


Tier = tuple[float, float, float, float, Reaction]
"""Threshold, clear threshold, set time, clear time, reaction."""


class Table:
    """Collects rows."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(
        self,
        fault: Fault,
        info: Tier | None = None,
        warning: Tier | None = None,
        fatal: Tier | None = None,
        ftti_s: float | None = None,
    ) -> None:
        """The tiers of one fault; `ftti_s` is that of the fatal one."""
        for severity, tier in ((Severity.INFO, info), (Severity.WARNING, warning), (Severity.FATAL, fatal)):
            if tier is not None:
                threshold, clear, set_s, clear_s, reaction = tier
                ftti = ftti_s if severity is Severity.FATAL else None
                self.rows.append(
                    Row(fault, severity, rounded(threshold), rounded(clear), set_s, clear_s, reaction, ftti)
                )


def rounded(value: float) -> float:
    """Six digits: float32 keeps seven, and more would only look exact."""
    return float(f"{value:.6g}")
