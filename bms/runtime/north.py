"""The north side of a run: energy managers and inverters that see the rack and steer its controller (docs/north.md)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from bms.core.machine_table import Request
from bms.core.step import Controller
from bms.racks import RackConfig
from hal.contract import Clock, RackInfo, Truth
from hal.pcs import Ask, North, Ratings, open_north

log = logging.getLogger(__name__)


def ratings_of(config: RackConfig, info: RackInfo) -> Ratings:
    """The nameplate of the rack `info`: voltages from the limits that it keeps, energy from its mean open voltage."""
    cell, limits, n = config.cell, config.limits, info.n_cells
    rest_v = n * float(np.mean([cell.ocv(soc) for soc in np.linspace(0.0, 1.0, 101)]))
    charge_v = n * (cell.limits.v_max - limits.voltage_margin_v)
    discharge_v = n * (cell.limits.v_min + limits.voltage_margin_v)
    return Ratings(
        charge_v=min(charge_v, limits.pack_v_max or charge_v),
        discharge_v=max(discharge_v, limits.pack_v_min or discharge_v),
        energy_wh=info.capacity_ah * rest_v,
        charge_w=config.basis.charge_a * rest_v,
        discharge_w=config.basis.discharge_a * rest_v,
        soc_min=limits.soc_min,
        soc_max=limits.soc_max,
    )


class NorthSide:
    """All sides of a run, asked before each step (`steer`) and shown it afterwards (as an observer of the loop).

    The rack is connected as long as every side wants it; a reset is given when any of them asks for it. A request of
    the run itself that is not to connect comes first: somebody at the rack has taken over.
    """

    def __init__(self, sides: Sequence[North], controller: Controller) -> None:
        self.sides, self._controller = tuple(sides), controller
        self._local = False
        self._silences = [0] * len(self.sides)
        self._stack = contextlib.ExitStack()

    def __str__(self) -> str:
        """Where the sides can be reached."""
        return ", ".join(side.address for side in self.sides)

    def __enter__(self) -> Self:
        """Start every side. Raises `LinkError` or `ConfigError`: a wire cannot be had."""
        self(0, 0.0, 0.0, None)  # who connects at once sees values
        with contextlib.ExitStack() as stack:
            for side in self.sides:
                side.start()
                stack.callback(side.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def steer(self, request: Request, now_s: float) -> Request:
        """The request for the step at `now_s`, of a run that asks for `request` itself."""
        self._local = request != Request.CONNECT
        asked = [side.ask(now_s) for side in self.sides]
        if self._local:
            return request
        if Ask.RESET in asked:
            return Request.RESET
        return Request.OPEN if Ask.OPEN in asked else Request.CONNECT

    def __call__(self, step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        """Show a step to every side."""
        controller = self._controller
        for k, side in enumerate(self.sides):
            side.publish(controller.measurement, controller.command, now_s, local=self._local)
            if side.silences != self._silences[k]:
                self._silences[k] = side.silences
                log.warning("%s: nobody is heard there any more: the rack is opened", side.address)

    def told(self) -> list[dict[str, Any]]:
        """What a summary says of every side."""
        return [{"address": side.address, "silences": side.silences} for side in self.sides]


def open_sides(
    urls: Sequence[str], info: RackInfo, config: RackConfig, controller: Controller, clock: Clock
) -> NorthSide:
    """The sides that `urls` name, not started yet. Raises `ConfigError`."""
    ratings = ratings_of(config, info)
    return NorthSide([open_north(url, info, clock, ratings) for url in urls], controller)
