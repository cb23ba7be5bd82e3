"""Many twins as one site: `sim:site?racks=2684&cell=lfp_280&...`.

`racks` is needed; `cell` (lfp_280) is the cell of all racks, `threads` (all processors) how many share the work. The
other keys and the tables of a scenario are those of one rack (`hal.backends.simulated`), and `[site]` with
`share_spread`. Rack k is drawn from the seed + k; a fault has `rack = [k, ...]` where not every rack has it.

There is one duty: the PCS of each rack is asked for its share, inside the limits published for that rack. It sees the
mean SoC and current of the racks that are connected. A site of one rack is the rack itself, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hal.backends.simulated import QUALITIES, TABLES, MonotonicClock, complaint, prepare, rack_info, scenario_tables
from hal.backends.twin import PROGRAM
from hal.contract import COMMAND, MEASUREMENT, TRUTH, Clock, Layout, RackInfo, bulk
from hal.errors import ConfigError, LinkError
from hal.ranges import Ranges, processors
from sim.config import TwinError
from sim.site import Event, Site

SITE_TABLES = (*TABLES, "site")
DEFAULT_CELL = "lfp_280"
MAX_RACKS = 100_000
MAX_THREADS = 256


class SimulatedSite:
    """Twins behind the contract (`hal.contract.Site` and `HasSiteTruth`)."""

    programs = (PROGRAM,)
    """Native programs that the site runs; whoever opens it may prepare them before."""

    def __init__(
        self,
        address: str = "site",
        *,
        query: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the twins. Raises `ConfigError` for anything unknown in `query` or `options`."""
        url, keys = f"sim:{address}", dict(query or {})
        if "racks" not in keys:
            raise ConfigError(f"rack URL '{url}': how many racks? For example {url}?racks=100")
        n_racks = _whole(url, "racks", keys.pop("racks"), MAX_RACKS)
        cell = keys.pop("cell", DEFAULT_CELL)
        threads = _whole(url, "threads", keys.pop("threads", str(min(processors(), MAX_THREADS))), MAX_THREADS)
        tables = scenario_tables(options or {}, keys, url, SITE_TABLES)
        self._clock: Clock = clock if clock is not None else MonotonicClock()
        self._ranges = Ranges(min(threads, n_racks))
        try:
            self.site = Site(
                cell, tables, n_racks, n_threads=self._ranges.n_threads, runner=self._ranges, qualities=QUALITIES
            )
        except TwinError as error:
            raise ConfigError(str(error)) from None
        self._info = rack_info(f"{url}?racks={n_racks}&cell={cell}", self.site)
        self._open = False
        self._start_s: float | None = None
        self._last = bulk(MEASUREMENT, self._info, n_racks)
        self._commands = bulk(COMMAND, self._info, n_racks)
        prepare(self._last, self.site)
        self.site.attach(self._last, self._commands)

    @property
    def info(self) -> RackInfo:
        """Description of each rack."""
        return self._info

    @property
    def n_racks(self) -> int:
        """How many racks there are."""
        return self.site.n_racks

    @property
    def events(self) -> list[Event]:
        """What happened to the hardware, and to which rack."""
        return self.site.events

    def open(self) -> None:
        """Switch the electronics of all racks on; the twins' time starts with the first opening."""
        if self._open:
            return
        self._open = True
        now = self._clock.now_s()
        if self._start_s is None:
            self._start_s = now
        self.site.start(now - self._start_s)
        self._stamp()

    def read(self, out: npt.NDArray[np.void]) -> None:
        """Advance the physics to the clock's time and fill `out`. Raises `LinkError` when not open."""
        self._need_open()
        self._need_fitting(out, MEASUREMENT)
        assert self._start_s is not None
        elapsed = self._clock.now_s() - self._start_s - self.site.time_s
        if elapsed > 0.0:
            self.site.run(elapsed)
            self._stamp()
        _copy(out, self._last)

    def write(self, commands: npt.NDArray[np.void]) -> None:
        """Take the commands over. Raises `ValueError` for one that no rack could follow, `LinkError` when not open."""
        self._need_open()
        self._need_fitting(commands, COMMAND)
        _copy(self._commands, commands)
        rack, wrong = self.site.command()
        if rack >= 0:
            raise ValueError(f"rack {rack}: {complaint(self._commands[rack], wrong)}")

    def close(self) -> None:
        """Open all contactors and switch the electronics off."""
        if self._open:
            self.site.stop()
            self._stamp()
            self._open = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def truth(self, out: npt.NDArray[np.void]) -> None:
        """Fill `out` with the state at the time of the last `read`."""
        self._need_fitting(out, TRUTH)
        self.site.truth(out, self._start_s or 0.0)

    def _stamp(self) -> None:
        head, stalled = self._last["head"], self.site.stalled
        fresh = slice(None) if stalled is None else ~stalled  # the others' records are old ones
        head["time_s"][fresh] = self.site.time_s + (self._start_s or 0.0)
        head["sequence"][fresh] = self.site.sequence & 0xFFFFFFFF

    def _need_open(self) -> None:
        if not self._open:
            raise LinkError(f"{self._info.name} is not open")

    def _need_fitting(self, records: npt.NDArray[np.void], layout: Layout) -> None:
        dtype = layout.dtype(self._info.n_cells, self._info.n_sensors)
        if records.dtype != dtype or records.shape != (self.n_racks,):
            raise ValueError(
                f"{layout.name}: {records.shape} records do not fit {self.n_racks} racks "
                f"of {self._info.n_cells} cells and {self._info.n_sensors} sensors"
            )


def _copy(out: npt.NDArray[np.void], records: npt.NDArray[np.void]) -> None:
    """Copy records as plain bytes: numpy would go through them field by field."""
    out.view(np.uint8)[...] = records.view(np.uint8)


def _whole(url: str, key: str, text: str, largest: int) -> int:
    """A whole number from 1 to `largest`. Raises `ConfigError`."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= largest):
        raise ConfigError(f"rack URL '{url}': {key} = {text}: expected a whole number from 1 to {largest:,}")
    return int(text)
