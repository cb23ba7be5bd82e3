"""Settings of the state machine, and from them the constants that its kernels take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bms.core import machine as m
from bms.core.machine_table import NODES, arrays
from hal.contract import Contactor, RackInfo


class MachineLimits(Protocol):
    """What the state machine takes from the limits of a cell file."""

    @property
    def v_min(self) -> float:
        """Lower voltage limit, V."""
        ...

    @property
    def v_max(self) -> float:
        """Upper voltage limit, V."""
        ...

    @property
    def max_discharge_c(self) -> float:
        """Largest continuous discharge current, 1/h."""
        ...


FLOOR_V = 5.0
"""A difference that is lost in the errors of sensors for 1500 V."""


@dataclass(frozen=True)
class MachineSettings:
    """Settings of contactors, precharge, weld test and transport. Times are those after which the machine goes on by
    itself; the fault table may be quicker.
    """

    # start
    init_time_out_s: float = 10.0  # the first complete sample is awaited for so long
    self_test_s: float = 1.0  # everything must be in order for so long
    self_test_time_out_s: float = 60.0  # or FAULT

    # precharge, and the link behind it
    precharge_ohm: float = 100.0  # precharge resistor
    link_f: float = 5e-3  # capacitance of the DC link
    link_bleed_ohm: float = 5e4  # what discharges it
    precharge_ratio: float = 0.02  # the link is charged within this share of the string voltage
    precharge_floor_v: float | None = None  # or within this much of it; None = 5 V. Short strings: what contactors bear
    precharge_done_c: float = 0.01  # and the current is below this C-rate
    precharge_zero_c: float = 0.03  # so much of what the sensor reads while all is open is taken off that current
    precharge_sum_ratio: float = 0.05  # string voltage and sum of the cells must agree this well for it
    precharge_time_out_s: float = 30.0  # longest time for the link; the fault table is quicker
    precharge_attempts: int = 3  # failed in a row, then LOCKOUT, and a reset before the next
    resistor_j: float = 30e3  # heat that the precharge resistor bears, above ambient temperature
    resistor_tau_s: float = 300.0  # time constant of its cooling
    resistor_restart: float = 0.5  # share of `resistor_j` below which another attempt may begin
    lockout_s: float = 60.0  # shortest time in LOCKOUT, once the resistor is below that share
    lockout_time_out_s: float = 3600.0  # it should have cooled down by then, or FAULT

    # contactors
    contactor_settle_s: float = 0.05  # the feedback must hold for so long before the next contactor
    contactor_actuation_s: float = 0.1  # from request to contact: the RC curve starts so late
    contactor_time_out_s: float = 5.0  # for the feedback, in each stage of closing
    contactor_rated_a: float | None = None  # current of `contactor_load_operations`; None = largest discharge current
    contactor_load_operations: float = 1000.0  # openings at that current, until the end of life
    contactor_mechanical_operations: float = 1e5  # openings without current
    open_c: float = 0.02  # contactors open below this C-rate, or
    ramp_time_out_s: float = 5.0  # after this time, whatever flows
    opening_time_out_s: float = 5.0  # for the feedback, or FAULT

    # weld test, after each opening
    weld_test: bool = True  # False where other sources may hold the link's voltage
    weld_test_s: float = 10.0  # the link is watched for so long
    weld_drop: float = 0.5  # it must fall by this share of what its RC predicts
    weld_match: float = 0.02  # welded contactors hold the link within this share of the string voltage
    weld_low: float = 0.1  # a link below this share of the string voltage proves nothing

    # transport at 0 V
    transport_allowed: bool = False  # only sodium-ion cells whose maker allows 0 V
    transport_v: float = 0.1  # a cell below is empty
    transport_settle_s: float = 3600.0  # all cells must be empty for so long: they recover once their current ends
    transport_drain_time_out_s: float = 60.0 * 86400.0  # bleed resistors need weeks
    transport_margin_v: float = 0.05  # a cell is inside its window this much above v_min
    transport_filled_s: float = 60.0  # all of them must be for so long
    transport_behind_v: float = 0.5  # with the mean above v_min, a cell below this stays behind
    transport_charge_time_out_s: float = 2.0 * 86400.0  # longest time for it

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that no state machine can work with."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in ("weld_test", "transport_allowed"):
                if not isinstance(value, bool):
                    raise ValueError(f"{f.name} = {value!r}: must be true or false")
            elif value is None and f.name in ("contactor_rated_a", "precharge_floor_v"):
                continue
            elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{f.name} = {value!r}: must be a number")
            elif value <= 0 and f.name not in _MAY_BE_ZERO:
                raise ValueError(f"{f.name} = {value}: must be greater than 0")
            elif value < 0:
                raise ValueError(f"{f.name} = {value}: must not be negative")
            if f.name in _SHARES and value >= 1:
                raise ValueError(f"{f.name} = {value}: must be a share below 1")
            if f.name in _HOLDS and value > 1e4:
                raise ValueError(f"{f.name} = {value}: must not be longer than 10000 s")
        if isinstance(self.precharge_attempts, float) or self.precharge_attempts < 1:
            raise ValueError(f"precharge_attempts = {self.precharge_attempts}: must be a whole number, 1 or more")


_MAY_BE_ZERO = (
    "self_test_s",
    "contactor_settle_s",
    "contactor_actuation_s",
    "lockout_s",
    "transport_filled_s",
    "precharge_zero_c",
)
_SHARES = ("precharge_ratio", "precharge_sum_ratio", "resistor_restart", "weld_drop", "weld_match", "weld_low")
_HOLDS = ("self_test_s", "contactor_settle_s", "lockout_s", "transport_settle_s", "transport_filled_s")


def contactor_mask(info: RackInfo) -> Contactor:
    """The contactors that the rack has."""
    if not info.capabilities.contactors:
        return Contactor.NONE
    mains = Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE
    return mains | Contactor.PRECHARGE if info.capabilities.precharge else mains


def link_fall(settings: MachineSettings) -> float:
    """Share of its voltage that the link loses within the weld test through its own resistor: 1 - exp(-t/RC)."""
    return -math.expm1(-settings.weld_test_s / (settings.link_f * settings.link_bleed_ohm))


def string_ohm(r0_ohm: npt.NDArray[np.float64], n_series: int, n_parallel: int) -> float:
    """Resistance of a string of cells that are warm, the median over SoC; `r0_ohm` (n_degc, n_soc_r) of a cell."""
    return float(np.median(r0_ohm, axis=1).min()) * n_series / n_parallel


def bearable_v(rated_a: float, ohm: float) -> float:
    """Largest difference that contactors for `rated_a` may close onto, V: the cells, `ohm`, alone limit the inrush.

    They make several times the current that they are rated for: that is the margin.
    """
    return rated_a * ohm


def rated_current_a(cell: MachineLimits, capacity_ah: float, settings: MachineSettings) -> float:
    """What the contactors are made for, A."""
    given = settings.contactor_rated_a
    return cell.max_discharge_c * capacity_ah if given is None else given


def machine_config(
    cell: MachineLimits,
    info: RackInfo,
    settings: MachineSettings | None = None,
    chemistry: str = "",
    ohm: float = math.inf,
) -> m.MachineConfig:
    """Constants of the state machine for the limits of a `cell` of this `chemistry` in the rack `info`.

    `ohm`: resistance of the string, see `string_ohm`; what is not known limits no inrush.
    Raises `ValueError` for transport of cells that are not sodium-ion (`na_...`).
    """
    s = settings or MachineSettings()
    if s.transport_allowed and not chemistry.startswith("na_"):
        raise ValueError(f"transport_allowed = True: only sodium-ion cells (na_...) bear 0 V, not {chemistry!r}")
    series_ohm = s.precharge_ohm * s.link_bleed_ohm / (s.precharge_ohm + s.link_bleed_ohm)
    rated_a = rated_current_a(cell, info.capacity_ah, s)
    floor_v = FLOOR_V if s.precharge_floor_v is None else s.precharge_floor_v
    setting = np.zeros(m.N_SETTINGS, np.float32)
    for index, value in {
        m.OPEN_A: s.open_c * info.capacity_ah,
        m.PRECHARGE_RATIO: s.precharge_ratio,
        m.PRECHARGE_FLOOR_V: floor_v,
        m.CLOSE_V: min(floor_v, bearable_v(rated_a, ohm)),
        m.PRECHARGE_A: s.precharge_done_c * info.capacity_ah,
        m.SUM_RATIO: s.precharge_sum_ratio,
        m.PRECHARGE_OHM: s.precharge_ohm,
        m.LINK_F: s.link_f,
        m.LINK_TAU_S: s.link_f * series_ohm,
        m.LINK_FINAL: s.link_bleed_ohm / (s.precharge_ohm + s.link_bleed_ohm),
        m.ACTUATION_S: s.contactor_actuation_s,
        m.RESISTOR_J: s.resistor_j,
        m.RESISTOR_TAU_S: s.resistor_tau_s,
        m.RESISTOR_RESTART: s.resistor_restart,
        m.PACK_MAX_V: cell.v_max * info.n_cells,
        m.WELD_FALL: s.weld_drop * link_fall(s),
        m.WELD_MATCH: s.weld_match,
        m.WELD_LOW: s.weld_low,
        m.RATED_A: rated_a,
        m.LOAD_OPERATIONS: s.contactor_load_operations,
        m.MECHANICAL_OPERATIONS: s.contactor_mechanical_operations,
        m.TRANSPORT_V: s.transport_v,
        m.FILLED_V: cell.v_min + s.transport_margin_v,
        m.WINDOW_V: cell.v_min,
        m.BEHIND_V: s.transport_behind_v,
        m.ZERO_A: s.precharge_zero_c * info.capacity_ah,
    }.items():
        setting[index] = value
    time = np.full((len(NODES), m.TIME_COLUMNS), np.inf, np.float32)
    for node in NODES:
        if node.time_out:
            time[node.node, m.TIME_OUT_S] = getattr(s, node.time_out)
        if node.hold_time:
            time[node.node, m.HOLD_TIME_S] = getattr(s, node.hold_time)
    transition, rows = arrays()
    flag = np.zeros(m.N_FLAGS, np.uint32)
    flag[m.CONTACTOR_MASK] = contactor_mask(info)
    flag[m.ATTEMPTS_MAX] = s.precharge_attempts
    flag[m.TRANSPORT_ALLOWED] = s.transport_allowed
    flag[m.WELD_TESTED] = s.weld_test
    flag[m.N_CELLS] = info.n_cells
    return m.MachineConfig(setting, time.ravel(), transition, rows, flag)
