"""Settings of the controller, and from them the constants that its kernels take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from bms.core import control as c
from bms.core.control import ControlConfig, Fault
from hal.contract import RackInfo


class CellLimits(Protocol):
    """What the controller takes from a cell file."""

    @property
    def v_min(self) -> float:
        """Lower voltage limit, V."""
        ...

    @property
    def v_max(self) -> float:
        """Upper voltage limit, V."""
        ...

    @property
    def degc_min_charge(self) -> float:
        """Coldest temperature for charging."""
        ...

    @property
    def degc_min_discharge(self) -> float:
        """Coldest temperature for discharging."""
        ...

    @property
    def degc_max(self) -> float:
        """Hottest temperature."""
        ...

    @property
    def max_charge_c(self) -> float:
        """Largest continuous charge current, 1/h."""
        ...

    @property
    def max_discharge_c(self) -> float:
        """Largest continuous discharge current, 1/h."""
        ...


@dataclass(frozen=True)
class ControlSettings:
    """Settings of the `[controller]` table of a scenario; margins are taken from the limits of the cell file."""

    max_charge_c: float | None = None  # lower than the cell file's, if given
    max_discharge_c: float | None = None
    taper_v: float = 0.1  # the current limit falls to 0 over this voltage ahead of v_min and v_max
    taper_degc: float = 5.0
    limit_rise_s: float = 20.0  # time constants of the limits: slow up, fast down, or they would oscillate
    limit_fall_s: float = 2.0
    max_age_s: float = 2.0  # an older value counts as missing
    current_missing_s: float = 2.0
    cell_voltage_missing_s: float = 5.0
    temperature_missing_s: float = 30.0
    over_voltage_v: float = 0.05  # beyond v_max
    under_voltage_v: float = 0.1  # beyond v_min
    voltage_set_s: float = 2.0
    over_temperature_degc: float = 2.0  # beyond degc_max
    under_temperature_degc: float = 2.0
    temperature_set_s: float = 5.0
    over_current: float = 0.1  # share beyond the largest current
    over_current_set_s: float = 2.0
    contactor_set_s: float = 3.0
    precharge_timeout_s: float = 10.0
    precharge_done: float = 0.02  # |V_bus - V_pack| / V_pack
    precharge_done_c: float = 0.01  # and the current has decayed below this C-rate
    open_c: float = 0.02  # contactors open below this C-rate, or
    open_wait_s: float = 5.0  # after this time, whatever flows
    balance_below_v_max: float = 0.2  # balance where the highest cell is within this of v_max
    balance_step_v: float = 0.01  # bleed cells this far above the lowest
    cooling_degc: float = 25.0  # hottest cell at which the coolant set-point equals it
    cooling_gain: float = 1.0  # degC of set-point per degC of the hottest cell above it
    cooling_min_degc: float = 15.0
    cooling_max_degc: float = 25.0

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that no controller can work with."""
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{f.name} = {value!r} is not a number")
            if value < 0 and not f.name.endswith("_degc"):
                raise ValueError(f"{f.name} = {value} must not be negative")
        for name in ("taper_v", "taper_degc", "limit_rise_s", "limit_fall_s", "max_age_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be greater than 0")
        if self.cooling_min_degc > self.cooling_max_degc:
            raise ValueError(f"cooling_min_degc = {self.cooling_min_degc} is above cooling_max_degc")


def control_config(cell: CellLimits, info: RackInfo, settings: ControlSettings | None = None) -> ControlConfig:
    """Constants of the controller for `cell` in the rack `info`."""
    s = settings or ControlSettings()
    charge_c = cell.max_charge_c if s.max_charge_c is None else min(s.max_charge_c, cell.max_charge_c)
    discharge_c = cell.max_discharge_c if s.max_discharge_c is None else min(s.max_discharge_c, cell.max_discharge_c)
    charge_a, discharge_a = charge_c * info.capacity_ah, discharge_c * info.capacity_ah
    number = np.empty(c.N_NUMBERS, np.float32)
    number[c.CHARGE_A], number[c.DISCHARGE_A] = charge_a, discharge_a
    number[c.V_MIN], number[c.V_MAX], number[c.TAPER_V] = cell.v_min, cell.v_max, s.taper_v
    number[c.DEGC_MIN_CHARGE], number[c.DEGC_MIN_DISCHARGE] = cell.degc_min_charge, cell.degc_min_discharge
    number[c.DEGC_MAX], number[c.TAPER_DEGC] = cell.degc_max, s.taper_degc
    number[c.LIMIT_RISE_S], number[c.LIMIT_FALL_S], number[c.MAX_AGE_S] = s.limit_rise_s, s.limit_fall_s, s.max_age_s
    number[c.PRECHARGE_RATIO], number[c.PRECHARGE_A] = s.precharge_done, s.precharge_done_c * info.capacity_ah
    number[c.OPEN_A], number[c.OPEN_WAIT_S] = s.open_c * info.capacity_ah, s.open_wait_s
    number[c.BALANCE_V], number[c.BALANCE_STEP_V] = cell.v_max - s.balance_below_v_max, s.balance_step_v
    number[c.COOLING_DEGC], number[c.COOLING_GAIN] = s.cooling_degc, s.cooling_gain
    number[c.COOLING_MIN_DEGC], number[c.COOLING_MAX_DEGC] = s.cooling_min_degc, s.cooling_max_degc

    # values that must not become too small are negated, so that every row reads "value > threshold"
    v_high, v_low = cell.v_max + s.over_voltage_v, cell.v_min - s.under_voltage_v
    hot, cold = cell.degc_max + s.over_temperature_degc, cell.degc_min_discharge - s.under_temperature_degc
    too_much = 1.0 + s.over_current
    rows = {
        Fault.CELL_OVERVOLTAGE: (v_high, v_high - s.taper_v, s.voltage_set_s, 10.0),
        Fault.CELL_UNDERVOLTAGE: (-v_low, -v_low - s.taper_v, s.voltage_set_s, 10.0),
        Fault.CELL_HOT: (hot, hot - s.taper_degc, s.temperature_set_s, 60.0),
        Fault.CELL_COLD: (-cold, -cold - s.taper_degc, s.temperature_set_s, 60.0),
        Fault.DISCHARGE_CURRENT: (too_much * discharge_a, discharge_a, s.over_current_set_s, 10.0),
        Fault.CHARGE_CURRENT: (too_much * charge_a, charge_a, s.over_current_set_s, 10.0),
        Fault.CURRENT_MISSING: (0.5, 0.5, s.current_missing_s, 10.0),
        Fault.CELL_VOLTAGE_MISSING: (0.5, 0.5, s.cell_voltage_missing_s, 10.0),
        Fault.TEMPERATURE_MISSING: (0.5, 0.5, s.temperature_missing_s, 10.0),
        Fault.CONTACTOR_FEEDBACK: (0.5, 0.5, s.contactor_set_s, 10.0),
        Fault.PRECHARGE_TIMEOUT: (s.precharge_timeout_s, s.precharge_timeout_s, 0.0, 0.0),
        Fault.INTERLOCK_OPEN: (0.5, 0.5, 0.0, 10.0),
    }
    return ControlConfig(
        number,
        np.array([rows[fault] for fault in Fault], np.float32).ravel(),
        np.array(
            [info.capabilities.contactors, info.capabilities.precharge, info.capabilities.balancing],
            np.uint8,
        ),
    )
