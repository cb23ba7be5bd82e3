"""Settings of the signals, and from them the constants that their kernels take."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bms.core import signals_layout as s
from bms.core.faults import Fault, Row
from bms.core.signals_layout import SignalConfig
from hal.contract import RackInfo

_REFERENCE_DEGC = 25.0
# of the faults that tell the time without a source
_LOST = {
    s.CELL_FADE_S: Fault.CELL_VOLTAGE_LOST,
    s.DEGC_FADE_S: Fault.TEMPERATURE_LOST,
    **{
        s.FADE_S + at - s.CURRENT_LOST_S: fault
        for at, fault in {
            s.CURRENT_LOST_S: Fault.CURRENT_LOST,
            s.PACK_LOST_S: Fault.PACK_VOLTAGE_LOST,
            s.BUS_LOST_S: Fault.BUS_VOLTAGE_LOST,
            s.FEEDBACK_LOST_S: Fault.FEEDBACK_LOST,
            s.INSULATION_LOST_S: Fault.INSULATION_INVALID,
            s.COOLANT_LOST_S: Fault.COOLANT_LOST,
            s.FLOW_LOST_S: Fault.COOLANT_LOST,
            s.GAS_LOST_S: Fault.GAS_LOST,
            s.BLEED_LOST_S: Fault.BLEED_LOST,
        }.items()
    },
}
# what is missing half of the time comes to the time that it fades within, one sample of three to half of that
_FADE_ROWS = 4 / 3
_POSITIVE = frozenset(
    {
        "period_s",
        "max_age_s",
        "insulation_max_age_s",
        "current_range_c",
        "rest_c",
        "spread_c",
        "rated_charge_c",
        "rated_discharge_c",
        "overload_s",
        "i2t_tau_s",
        "limit_band_c",
        "limit_tau_s",
        "sum_floor_v",
        "rise_tau_s",
        "model_tau_s",
        "model_error_tau_s",
        "heat_capacity_j_per_k",
        "bleed_ohm",
        "cells_per_chip",
        "current_still_s",
        "current_tau_s",
        "current_slow_tau_s",
        "current_gain_tau_s",
        "residual_tau_s",
        "sag_tau_s",
        "sensors_still_k",
        "pack_v_lsb_v",
        "string_tau_s",
        "string_slow_tau_s",
    }
)


class _Limits(Protocol):
    """The limits of a cell file that the signals need."""

    @property
    def v_max(self) -> float:
        """Largest voltage of a cell, V."""
        ...

    @property
    def max_charge_c(self) -> float:
        """Largest continuous charge current, 1/h."""
        ...

    @property
    def max_discharge_c(self) -> float:
        """Largest continuous discharge current, 1/h."""
        ...


class SignalCell(Protocol):
    """What the signals need of a cell file (`bms.cells.CellParameters` has it all)."""

    @property
    def limits(self) -> _Limits:
        """Limits for continuous use."""
        ...

    @property
    def capacity_ah(self) -> float:
        """Capacity at 25 degC, Ah."""
        ...

    def ocv(self, soc: float, degc: float = ...) -> float:
        """Open-circuit voltage at `soc`, V."""
        ...

    @property
    def degc(self) -> npt.NDArray[np.float64]:
        """Nodes over temperature, rising, (n_degc,)."""
        ...

    @property
    def r0_ohm(self) -> npt.NDArray[np.float64]:
        """Ohmic resistance, (n_degc, n_soc_r)."""
        ...

    @property
    def rct_ohm(self) -> npt.NDArray[np.float64]:
        """Charge-transfer resistance at small current, (n_degc, n_soc_r)."""
        ...

    @property
    def r_ohm(self) -> npt.NDArray[np.float64]:
        """Resistances of the RC pairs, the fastest first, (4, n_degc, n_soc_r)."""
        ...


@dataclass(frozen=True)
class SignalSettings:
    """Ranges, times and ratings. Names ending in `_c` are relative to the capacity of the rack: 1 = the 1 h current."""

    period_s: float = 1.0  # wanted time between two steps
    max_age_s: float = 2.0  # an older value is not used
    insulation_max_age_s: float = 60.0  # insulation monitors take their time
    hold_s: float = 3.0  # extremes hold a value that is missing for so long, and for one sample in any case
    start_degc: float = 25.0  # temperature of a cell before its sensor has told one

    # what the sensors can show: values outside are refused, and reported
    cell_v_min_v: float = -0.5  # a sodium-ion cell at 0 V is a legal cell
    cell_v_max_v: float = 5.5
    sensor_min_degc: float = -50.0
    sensor_max_degc: float = 120.0
    current_range_c: float = 3.5
    pack_v_min_v: float | None = None  # string voltage; default: that of cells at the ends of their range
    pack_v_max_v: float | None = None
    bus_v_min_v: float = -50.0  # an empty link may read a little below 0
    bus_v_max_v: float | None = None  # default: as for the string
    insulation_max_ohm: float = 1e9
    insulation_close_ohm_per_v: float = 500.0  # nothing closes below; of the string with all cells full
    coolant_min_degc: float = -50.0
    coolant_max_degc: float = 120.0
    flow_max_lpm: float = 1e4

    # bleeding, whose current flows through the sense wires
    sense_ohm: float = 0.0  # of one wire, with fuse and contacts; 0: not known, voltages are taken as they are read
    bleed_ohm: float = 33.0  # resistor of a group
    cells_per_chip: int = 16  # cells of a front end, with one wire between two of them

    # current
    rest_c: float = 0.01  # a smaller current is neither charge nor discharge
    spread_c: float = 0.02  # cells are compared for spread below this current, ...
    spread_soc_low: float = 0.2  # ... while the mean cell's voltage is between those of these two SoC,
    spread_soc_high: float = 0.9  # because at the ends of its window a healthy rack spreads widely
    rated_charge_c: float | None = None  # continuous rating of fuse and contactors; default: the cell's largest current
    rated_discharge_c: float | None = None
    overload: float = 1.5  # times the rated current ...
    overload_s: float = 10.0  # ... for so long fills the heat budget of fuse and contactors
    i2t_tau_s: float = 120.0  # their thermal time constant
    limit_band_c: float = 0.01  # so little beyond a limit adds up to nothing, nor does 2 % of the limit; ...
    limit_tau_s: float = 240.0  # ... the charge beyond that counts as a current that brings it within this time
    current_tau_s: float = 5.0  # the cells' common voltage response is averaged over this time, ...
    current_slow_tau_s: float = 30.0  # ... less its average over this: what changes more slowly is the model's error
    current_gain_tau_s: float = 600.0  # what was told of its gain fades in this time while the current does not change
    residual_tau_s: float = 10.0  # and each cell's own over this
    pack_v_lsb_v: float = 0.1  # resolution of the string voltage
    string_tau_s: float = 1.0  # the string less the sum of its cells is averaged over this, ...
    string_slow_tau_s: float = 60.0  # ... less its average over this
    sag_tau_s: float = 600.0  # what a cell's own is usually, is averaged over this time
    current_still_s: float = 10.0  # a reading that stands still for so long is suspect; a live sensor has noise

    # temperature
    sum_floor_v: float | None = None  # sum check: string voltages below count as this; default 0.5 V a cell
    rise_tau_s: float = 15.0  # the rise of a sensor is averaged over about twice this time
    heat_capacity_j_per_k: float | None = None  # of one cell; default 19 J/K per Ah
    coolant_w_per_k: float | None = None  # from one cell to the coolant; default 0.009 W/K per Ah
    model_tau_s: float = 300.0  # the thermal model is drawn to the measured temperature within this time
    sensors_still_k: float = 3.0  # cells that become so much warmer move at least one sensor
    model_error_tau_s: float = 20.0  # its difference from it is averaged over this

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that no controller can work with."""
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{f.name} = {value!r}: must be a number")
            if f.name in _POSITIVE and value <= 0:
                raise ValueError(f"{f.name} = {value}: must be greater than 0")
        for low, high in (
            ("cell_v_min_v", "cell_v_max_v"),
            ("sensor_min_degc", "sensor_max_degc"),
            ("coolant_min_degc", "coolant_max_degc"),
            ("pack_v_min_v", "pack_v_max_v"),
            ("bus_v_min_v", "bus_v_max_v"),
        ):
            below, above = getattr(self, low), getattr(self, high)
            if below is not None and above is not None and below >= above:
                raise ValueError(f"{low} = {below}: must be below {high} = {above}")
        for name in ("insulation_max_ohm", "flow_max_lpm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be greater than 0")
        if not isinstance(self.cells_per_chip, int):
            raise ValueError(f"cells_per_chip = {self.cells_per_chip}: must be a whole number")
        for name in ("coolant_w_per_k", "insulation_close_ohm_per_v", "hold_s", "sense_ohm"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must not be negative")
        if not 0 <= self.spread_soc_low < self.spread_soc_high <= 1:
            raise ValueError(
                f"spread_soc_low = {self.spread_soc_low}: must be below spread_soc_high = {self.spread_soc_high}, "
                "both 0..1"
            )
        if self.overload <= 1:
            raise ValueError(f"overload = {self.overload}: must be greater than 1")
        if not self.start_degc > -273.15:
            raise ValueError(f"start_degc = {self.start_degc}: must be above absolute zero")


def _at_reference(cell: SignalCell, table: npt.NDArray[np.float64]) -> float:
    """Resistance at 25 degC, the median over SoC: the ends of the window are steeper than what is met most."""
    return float(np.interp(_REFERENCE_DEGC, cell.degc, np.median(table, axis=1)))


def _per_kelvin(cell: SignalCell, table: npt.NDArray[np.float64]) -> float:
    """Relative rise of the resistance for each kelvin that it gets colder, over the temperatures that were measured."""
    if cell.degc.size < 2:
        return 0.0
    middle = np.median(table, axis=1)
    return float(np.log(middle[0] / middle[-1]) / (cell.degc[-1] - cell.degc[0]))


def _fades(rows: Iterable[Row]) -> dict[int, float]:
    """Times in which that without a source fades, s: longer than its first row bears; 0, at once, where it has none."""
    first: dict[Fault, float] = {}
    for row in rows:
        first[row.fault] = min(row.threshold, first.get(row.fault, math.inf))
    return {at: _FADE_ROWS * max(first.get(fault, 0.0), 0.0) for at, fault in _LOST.items()}


def signals_config(
    cell: SignalCell, info: RackInfo, settings: SignalSettings | None = None, rows: Iterable[Row] = ()
) -> SignalConfig:
    """Constants of the signals for `cell` in the rack `info`. Raises `ValueError` where the two do not fit.

    `rows` of the fault table: those that tell a loss say how long the time without a source is remembered.
    """
    t = settings or SignalSettings()
    sensors = np.asarray(info.sensor_of_cell, np.int64)
    if sensors.size != info.n_cells or sensors.size == 0 or sensors.min() < 0 or sensors.max() >= info.n_sensors:
        raise ValueError(f"sensor_of_cell: must name one of {info.n_sensors} sensors for each of {info.n_cells} cells")
    rack_c = info.capacity_ah
    fast_ohm = cell.r0_ohm + cell.rct_ohm + cell.r_ohm[0]
    whole_ohm = fast_ohm + cell.r_ohm[1:].sum(axis=0)
    pack_low = info.n_cells * t.cell_v_min_v if t.pack_v_min_v is None else t.pack_v_min_v
    pack_high = info.n_cells * t.cell_v_max_v if t.pack_v_max_v is None else t.pack_v_max_v
    charge_c = cell.limits.max_charge_c if t.rated_charge_c is None else t.rated_charge_c
    discharge_c = cell.limits.max_discharge_c if t.rated_discharge_c is None else t.rated_discharge_c
    # (k^2 - 1) I_rated^2 t with cooling on the way: what constant overload leaves after its time
    filled = (t.overload**2 - 1) * t.i2t_tau_s * (1 - math.exp(-t.overload_s / t.i2t_tau_s))
    heat_j_per_k = 19.0 * cell.capacity_ah if t.heat_capacity_j_per_k is None else t.heat_capacity_j_per_k
    coolant_w_per_k = 0.009 * cell.capacity_ah if t.coolant_w_per_k is None else t.coolant_w_per_k

    number = np.empty(s.N_NUMBERS, np.float32)
    for at, value in {
        s.PERIOD_S: t.period_s,
        s.MAX_AGE_S: t.max_age_s,
        s.INSULATION_MAX_AGE_S: t.insulation_max_age_s,
        s.START_DEGC: t.start_degc,
        s.CELL_V_LOW: t.cell_v_min_v,
        s.CELL_V_HIGH: t.cell_v_max_v,
        s.DEGC_LOW: t.sensor_min_degc,
        s.DEGC_HIGH: t.sensor_max_degc,
        s.CURRENT_RANGE_A: t.current_range_c * rack_c,
        s.PACK_V_LOW: pack_low,
        s.PACK_V_HIGH: pack_high,
        s.BUS_V_LOW: t.bus_v_min_v,
        s.BUS_V_HIGH: pack_high if t.bus_v_max_v is None else t.bus_v_max_v,
        s.INSULATION_RANGE_OHM: t.insulation_max_ohm,
        s.COOLANT_LOW_DEGC: t.coolant_min_degc,
        s.COOLANT_HIGH_DEGC: t.coolant_max_degc,
        s.FLOW_RANGE_LPM: t.flow_max_lpm,
        s.REST_A: t.rest_c * rack_c,
        s.SPREAD_A: t.spread_c * rack_c,
        s.SPREAD_V_LOW: cell.ocv(t.spread_soc_low),
        s.SPREAD_V_HIGH: cell.ocv(t.spread_soc_high),
        s.DISCHARGE_RATED_A: discharge_c * rack_c,
        s.CHARGE_RATED_A: charge_c * rack_c,
        s.DISCHARGE_BUDGET_A2S: filled * (discharge_c * rack_c) ** 2,
        s.CHARGE_BUDGET_A2S: filled * (charge_c * rack_c) ** 2,
        s.I2T_TAU_S: t.i2t_tau_s,
        s.LIMIT_BAND_A: t.limit_band_c * rack_c,
        s.LIMIT_TAU_S: t.limit_tau_s,
        s.SUM_FLOOR_V: 0.5 * info.n_cells if t.sum_floor_v is None else t.sum_floor_v,
        s.RISE_TAU_S: t.rise_tau_s,
        s.MODEL_TAU_S: t.model_tau_s,
        s.MODEL_ERROR_TAU_S: t.model_error_tau_s,
        s.HEAT_CAPACITY_J_PER_K: heat_j_per_k,
        s.COOLANT_W_PER_K: coolant_w_per_k,
        s.PER_CELL: 1.0 / info.n_parallel,
        s.CELL_OHM: _at_reference(cell, whole_ohm),
        s.FAST_OHM: _at_reference(cell, fast_ohm),
        s.OHM_PER_KELVIN: _per_kelvin(cell, fast_ohm),
        s.CURRENT_TAU_S: t.current_tau_s,
        s.CURRENT_SLOW_TAU_S: t.current_slow_tau_s,
        s.RESIDUAL_TAU_S: t.residual_tau_s,
        # one missing sample is none too many, however far apart they are
        s.HOLD_S: max(t.hold_s, 1.2 * t.period_s),
        s.SENSE_SHARE: t.sense_ohm / t.bleed_ohm,
        s.CELLS_PER_CHIP: t.cells_per_chip,
        s.CURRENT_STILL_AFTER_S: t.current_still_s,
        s.SENSORS_STILL_K: t.sensors_still_k,
        s.GAIN_TAU_S: t.current_gain_tau_s,
        s.SAG_TAU_S: t.sag_tau_s,
        s.PACK_V_LSB_V: t.pack_v_lsb_v,
        s.STRING_TAU_S: t.string_tau_s,
        s.STRING_SLOW_TAU_S: t.string_slow_tau_s,
        s.INSULATION_CLOSE_OHM: t.insulation_close_ohm_per_v * info.n_cells * cell.limits.v_max,
    }.items():
        number[at] = value
    for at, value in _fades(rows).items():
        number[at] = value
    can = info.capabilities
    has = np.zeros(s.N_HAS, np.uint8)
    has[s.HAS_CONTACTORS], has[s.HAS_PRECHARGE] = can.contactors, can.precharge
    has[s.HAS_INSULATION], has[s.HAS_COOLING] = can.insulation, can.cooling
    has[s.HAS_COOLANT_FLOW], has[s.HAS_GAS], has[s.HAS_BLEED_FEEDBACK] = can.coolant_flow, can.gas, can.bleed_feedback
    return SignalConfig(number, sensors.astype(np.uint16), has)
