"""A whole site under one loop: every rack has a controller of its own, and all of them decide in one call.

The kernels are those of a single rack (`bms.core.step.step_racks`), given to threads range by range; the loop, its
deadlines and its ordered end are those of `bms.runtime.loop`. Decisions of single racks are recorded where asked for.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from bms.core.estimator_layout import SOC, SOC_STD
from bms.core.layout import STATE, Config, State
from bms.core.step import Controller, init, step_racks
from bms.runtime import SITE_SERIES, SUMMARY, engine
from bms.runtime.clock import LoopClock, RealClock, VirtualClock
from bms.runtime.loop import Loop, StopFlag, stop_on_signals
from bms.runtime.recording import Recorder, header_of
from bms.runtime.run import FAILED, FIRST_READS, GOOD, SIGNALLED, configuration, first_guess, named, prepare_folder
from bms.runtime.scenario import Scenario
from bms.runtime.site_view import SiteSeries, SiteStatus, accuracy, print_summary, resident_bytes
from hal.backends.replay import FILE_NAME
from hal.contract import (
    COMMAND,
    F4,
    MEASUREMENT,
    TRUTH,
    U1,
    Command,
    HasSiteTruth,
    Layout,
    Measurement,
    Rack,
    RackInfo,
    RackState,
    Site,
    Truth,
    bulk,
    rows_of,
)
from hal.errors import ConfigError, DataError
from hal.ranges import Ranges, processors

RANGE = 32  # racks that a thread takes at a time
SAMPLES = 240  # of a run whose length is known


class Bulk:
    """Records of all racks: `raw` (n_racks,), `head` of every one, `rows` their bytes."""

    def __init__(self, layout: Layout, info: RackInfo, n_racks: int) -> None:
        self._made_of = layout, info, n_racks
        self.raw: npt.NDArray[np.void] = bulk(layout, info, n_racks)
        self.head: npt.NDArray[np.void] = self.raw["head"]
        self.rows: U1 = rows_of(self.raw)

    def blank(self) -> Bulk:
        """Records of the same size, all zeros."""
        return Bulk(*self._made_of)


class SiteAsRack:
    """A site as the loop takes a rack: records are `Bulk`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    @property
    def info(self) -> RackInfo:
        """Description of each rack."""
        return self.site.info

    def open(self) -> None:
        """Reach the devices."""
        self.site.open()

    def read(self, out: Any) -> None:
        """Fill the records."""
        self.site.read(out.raw)

    def write(self, command: Any) -> None:
        """Pass the commands on."""
        self.site.write(command.raw)

    def close(self) -> None:
        """Release the devices."""
        self.site.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SiteController:
    """Controllers of all racks, of one configuration: give them measurements, they fill commands."""

    def __init__(self, config: Config, measurement: Bulk, command: Bulk, info: RackInfo, ranges: Ranges) -> None:
        self.config = config
        self.measurement = measurement
        self.command = command
        self.n_racks = len(measurement.raw)
        self.states = bulk(STATE, info, self.n_racks)
        self._ranges = ranges
        self._status = [0] * -(-self.n_racks // RANGE)
        self._step = step_racks.bind(config.bytes, rows_of(self.states), measurement.rows, command.rows)

    def start(self, soc: npt.ArrayLike, soc_std: npt.ArrayLike) -> None:
        """Fresh memory: what the cells are believed to hold, scalars or (n_racks, n_cells)."""
        shape = self.n_racks, self.config.n_cells
        believed, deviation = (
            np.ascontiguousarray(np.broadcast_to(np.asarray(x, np.float32), shape)) for x in (soc, soc_std)
        )
        rows = rows_of(self.states)
        for k in range(self.n_racks):
            init(self.config.bytes, rows[k], believed[k], deviation[k])

    def step(self, request: int, dt_s: float) -> int:
        """Answer all measurements in all commands; returns the status bits of all racks together."""
        request, status = int(request), self._status
        step = self._step

        def job(lo: int, hi: int, thread: int, number: int) -> int:
            status[number] = step(request, dt_s, lo, hi)
            return -1

        self._ranges(job, self.n_racks, RANGE)
        together = 0
        for part in status:
            together |= part
        return together

    def soc(self) -> tuple[F4, F4]:
        """Estimated SoC of each cell and its standard deviation, (n_racks, n_cells): views."""
        out: F4 = self.states["out"].reshape(self.n_racks, -1, self.states["flags"].shape[1])
        n = self.config.n_cells
        return out[:, SOC, :n], out[:, SOC_STD, :n]


class ChosenRacks:
    """Records every decision of chosen racks, each in a folder of its own.

    Beside the controller in the site runs one more of each chosen rack, on the same measurements: the recording is one
    of a rack on its own, for `bms replay`, and `differing` counts the steps in which the two did not command the same.
    """

    def __init__(self, racks: tuple[int, ...], folder: Path, controller: SiteController, info: RackInfo) -> None:
        self._racks = racks
        self._folder = folder
        self._site = controller
        self._info = info
        self._controllers: list[Controller] = []
        self.recorders: list[Recorder] = []
        self.differing = 0

    def open(self, about: dict[str, Any]) -> None:
        """Begin, with the controllers as they are now. Raises `DataError`."""
        size = self._info.n_cells, self._info.n_sensors
        for rack in self._racks:
            state = State(*size)
            state.raw[0] = self._site.states[rack]
            made = Controller(self._site.config, state, Measurement(*size), Command(*size))
            folder = rack_folder(self._folder, rack)
            prepare_folder(folder)
            self._controllers.append(made)
            header = header_of(self._info, made, {**about, "rack": rack})
            self.recorders.append(Recorder(folder / FILE_NAME, header, *size))

    def add(self, dt_s: float, request: int, status: int, controller: Any, truth: Truth | None) -> None:
        """Record the step that the site has just made; `status` is that of all racks, each has its own here."""
        for rack, made, recorder in zip(self._racks, self._controllers, self.recorders, strict=True):
            made.measurement.raw[0] = self._site.measurement.raw[rack]
            own = made.step(request, dt_s)
            self.differing += made.command.bytes.tobytes() != self._site.command.rows[rack].tobytes()
            recorder.add(dt_s, request, own, made, truth)

    def close(self, outcome: dict[str, Any]) -> None:
        """End the recordings."""
        for recorder in self.recorders:
            recorder.close(outcome)


def rack_folder(folder: Path, rack: int) -> Path:
    """Where the recording of one rack lies."""
    return folder / f"rack-{rack}"


def chosen(text: str | None, n_racks: int) -> tuple[int, ...]:
    """The racks that `--record-racks` names: '0,17'. Raises `ConfigError`."""
    if text is None:
        return ()
    racks = []
    for part in text.split(","):
        number = part.strip()
        if not (number.isascii() and number.isdigit() and int(number) < n_racks):
            raise ConfigError(f"--record-racks {text}: expected numbers in 0..{n_racks - 1} with commas between")
        racks.append(int(number))
    return tuple(dict.fromkeys(racks))


def open_site(scenario: Scenario, clock: LoopClock) -> Site:
    """The scenario's site, not open yet. Raises `ConfigError`; a mistake in a table names the scenario."""
    from hal.registry import open_site as open_url

    with named(scenario):
        return open_url(scenario.rack, clock=clock, options=scenario.tables)


def make_controller(scenario: Scenario, site: Site, clock: LoopClock, ranges: Ranges) -> SiteController:
    """The controllers of an open site, as `run.make_controller` makes one. Raises `ConfigError`."""
    info = site.info
    cell, config = configuration(scenario, info)
    measurement = Bulk(MEASUREMENT, info, site.n_racks)
    for k in range(FIRST_READS):
        site.read(measurement.raw)
        if not measurement.raw["cell_v_quality"].any() and np.isfinite(measurement.raw["cell_v"]).all():
            break
        clock.wait_until((k + 1) * scenario.period_s, lambda: False)
    site.read(measurement.raw)
    controller = SiteController(config, measurement, Bulk(COMMAND, info, site.n_racks), info, ranges)
    controller.start(*first_guess(scenario, cell, measurement.raw, info))
    return controller


def sample_every(duration_s: float, period_s: float) -> int:
    """Steps between two samples of a run of this length (1 where it is not known)."""
    return max(1, round(duration_s / period_s / SAMPLES)) if math.isfinite(duration_s) else 1


def execute(
    scenario: Scenario,
    folder: Path,
    *,
    speed: float = math.inf,
    quiet: bool = True,
    engine_text: str = engine.JIT,
    record_racks: str | None = None,
) -> int:
    """Run `scenario` on its site and leave series and summary in `folder`. Returns the exit code, as `bms run`'s."""
    started = time.perf_counter()
    from bms.core.jit import PROGRAM as CORE
    from hal.codec.jit import PROGRAM as CODEC
    from hal.registry import programs

    clock: LoopClock = VirtualClock() if math.isinf(speed) else RealClock(speed)
    every = sample_every(scenario.duration_s, scenario.period_s)
    stop = StopFlag()
    if not quiet:
        print(f"{scenario.rack}: {scenario.description or scenario.name}", flush=True)
    engine.ready(engine_text, (CORE, CODEC, *programs(scenario.rack)), quiet=quiet)
    site = open_site(scenario, clock)
    racks = chosen(record_racks, site.n_racks)
    with stop_on_signals(stop), ExitStack() as stack:
        ranges = stack.enter_context(Ranges(min(processors(), site.n_racks)))
        rack = stack.enter_context(SiteAsRack(site))
        controller = make_controller(scenario, site, clock, ranges)
        prepare_folder(folder)
        recorder = ChosenRacks(racks, folder, controller, site.info)
        about = {"scenario": scenario.to_json(), "sample_every": every, "speed": None if math.isinf(speed) else speed}
        recorder.open(about)
        series = SiteSeries(controller, every)
        status = SiteStatus(controller, series, scenario.duration_s, quiet=quiet)
        loop = Loop(
            cast(Rack, rack),
            controller,
            clock,
            scenario.period_s,
            stop=stop,
            recorder=recorder if racks else None,
            observers=(series, status),
        )
        looping = time.perf_counter()
        try:
            with status:
                stats = loop.run(scenario.duration_s)
        finally:
            recorder.close({"ended_by": loop.stats.ended_by, "opened": loop.stats.opened})
        wall_s = time.perf_counter() - looping
        summary = series.summary() | {
            "loop": asdict(stats),
            "wall_s": wall_s,
            "times_real_time": series.time_s / wall_s,
            "start_s": looping - started,
            "rack": site.info.name,
            "n_racks": site.n_racks,
            "n_cells": site.n_racks * site.info.n_cells,
            "capacity_ah": site.info.capacity_ah,
            "events": [asdict(event) for event in getattr(site, "events", [])],
            "recorded_racks": list(racks),
            "recorded_steps_differing": recorder.differing,
            "scenario": scenario.to_json(),
        }
        if isinstance(site, HasSiteTruth):
            truth = bulk(TRUTH, site.info, site.n_racks)
            site.truth(truth)
            summary |= accuracy(*controller.soc(), truth["soc"])
        summary["resident_bytes"] = resident_bytes()
    try:
        series.save(folder / SITE_SERIES)
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from error
    if not quiet:
        print_summary(summary)
    if not stats.opened:
        print("not all contactors did open")
    for made in recorder.recorders:
        if made.error is not None:
            raise DataError(f"{made.path}: the recording is incomplete: {made.error.strerror}")
    print(folder)
    if stop:
        return SIGNALLED + stop.signal_number
    return GOOD if stats.opened and RackState.FAULT.name not in summary["states_at_end"] else FAILED
