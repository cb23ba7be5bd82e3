"""Settings of the balancing, and from them the constants that its kernels take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from bms.core import balancing as b
from bms.core.balancing import BalancingConfig
from hal.contract import RackInfo

PASSIVE, ACTIVE = "passive", "active"
_DAY_S = 86400.0


class BalancedCell(Protocol):
    """What the balancing takes from the limits of a cell file."""

    @property
    def v_min(self) -> float:
        """Lower voltage limit, V."""

    @property
    def v_max(self) -> float:
        """Upper voltage limit, V."""

    @property
    def degc_max(self) -> float:
        """Hottest temperature."""


@dataclass(frozen=True)
class BalancingSettings:
    """Table `[balancing]` of a rack."""

    strategy: str = PASSIVE  # passive: bleed what is too much; active: move it between neighbours of a module
    bleed_ohm: float = 33.0  # resistor of a group, ohm
    board_cells: int = 16  # groups whose bleed resistors share a board
    board_w: float = 4.0  # largest heat on a board, W
    bleed_on_s: float = 50.0  # s of bleeding, then
    bleed_off_s: float = 10.0  # s of pause for the whole rack, in which every cell is measured
    decide_s: float = 60.0  # s between two decisions who is bled
    start_soc: float = 0.001  # excess at which it begins, share of the capacity, beyond what is uncertain
    stop_soc: float = 0.0003  # excess at which it ends
    k_sigma: float = 1.0  # an excess counts as far as it is beyond this many standard deviations
    own_share: float = 0.4  # share of the filter's variance that is the cell's own; the rest is alike in all cells
    common_share: float = 0.1  # what is left of the mean cell's variance where cells stand at different places
    capacity_std: float = 0.01  # how well the relative capacity of a cell is known
    learn_s: float = 1200.0  # time constant with which the memory follows measurements that are no better than it, s
    drift_soc_per_day: float = 0.0003  # how far cells may drift apart unseen, share of the capacity a day
    degc_stop: float | None = None  # no bleeding while a sensor is hotter, degC; if left out, degc_max of the cell - 5
    v_stop: float | None = None  # nor while a cell is lower, V; if left out, a tenth of its window above v_min
    module_cells: int = 52  # groups inside which an active balancer moves charge
    shuttle_a: float = 2.0  # its current, A
    shuttle_efficiency: float = 0.9  # energy that arrives over energy that leaves

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that no balancing can work with."""
        if self.strategy not in (PASSIVE, ACTIVE):
            raise ValueError(f"strategy = {self.strategy!r}: must be '{PASSIVE}' or '{ACTIVE}'")
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "strategy" or value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{f.name} = {value!r}: must be a number")
            if value < 0 and f.name != "degc_stop":
                raise ValueError(f"{f.name} = {value}: must not be negative")
        for name in (
            "bleed_ohm", "board_w", "bleed_on_s", "bleed_off_s", "decide_s", "start_soc", "own_share", "learn_s",
            "shuttle_a", "shuttle_efficiency",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be greater than 0")
        for name in ("board_cells", "module_cells"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be a whole number of at least 1")
        if self.stop_soc >= self.start_soc:
            raise ValueError(f"stop_soc = {self.stop_soc}: must be smaller than start_soc = {self.start_soc}")
        for name in ("own_share", "common_share", "shuttle_efficiency"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at most 1")


def balancing_config(cell: BalancedCell, info: RackInfo, settings: BalancingSettings | None = None) -> BalancingConfig:
    """Constants of the balancing for a cell with the limits `cell` in the rack `info`.

    Raises `ValueError` where the strategy is active and the rack cannot move charge, or the budget of a board is too
    small for a single cell.
    """
    s = settings or BalancingSettings()
    if s.strategy == ACTIVE and not info.capabilities.shuttle:
        raise ValueError(f"strategy = '{ACTIVE}': rack '{info.name}' cannot move charge between cells; use '{PASSIVE}'")
    one_w = cell.v_max**2 / s.bleed_ohm
    if s.board_w < one_w:
        raise ValueError(f"board_w = {s.board_w}: must be at least the {one_w:.3g} W of one cell at {cell.v_max} V")
    setting = np.empty(b.N_SETTINGS, np.float32)
    ah = info.capacity_ah
    setting[b.CAPACITY_AH], setting[b.BLEED_OHM], setting[b.BOARD_W] = ah, s.bleed_ohm, s.board_w
    setting[b.START_AH], setting[b.STOP_AH], setting[b.K_SIGMA] = s.start_soc * ah, s.stop_soc * ah, s.k_sigma
    setting[b.ON_S], setting[b.OFF_S], setting[b.DECIDE_S] = s.bleed_on_s, s.bleed_off_s, s.decide_s
    setting[b.DEGC_STOP] = cell.degc_max - 5.0 if s.degc_stop is None else s.degc_stop
    setting[b.V_STOP] = cell.v_min + 0.1 * (cell.v_max - cell.v_min) if s.v_stop is None else s.v_stop
    setting[b.V_MAX] = cell.v_max
    setting[b.SHUTTLE_A], setting[b.SHUTTLE_EFFICIENCY] = s.shuttle_a, s.shuttle_efficiency
    setting[b.DRIFT_AH_PER_S] = s.drift_soc_per_day * ah / _DAY_S
    setting[b.LEARN_S], setting[b.OWN], setting[b.COMMON] = s.learn_s, s.own_share, s.common_share
    setting[b.CAPACITY_VAR] = s.capacity_std**2
    size = np.zeros(b.N_SIZES, np.uint32)
    size[b.BOARD_CELLS], size[b.MODULE_CELLS] = s.board_cells, s.module_cells
    size[b.BLEED] = info.capabilities.balancing
    size[b.SHUTTLE] = s.strategy == ACTIVE
    return BalancingConfig(setting, size)
