"""`bms run`: the control loop on a rack, with a recording and a report."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bms.runtime import PAGE, SERIES, SITE_SERIES, SUMMARY, engine
from bms.runtime import scenario as scenarios
from bms.runtime.scenario import Scenario
from hal.errors import ConfigError, DataError, nearest
from hal.registry import is_live, is_site, unwrapped

if TYPE_CHECKING:
    from bms.cells import CellParameters
    from bms.core.layout import Config
    from bms.core.step import Controller
    from bms.racks import RackConfig
    from bms.runtime.clock import LoopClock
    from hal.contract import Rack, RackInfo

GOOD, FAILED = 0, 1
SIGNALLED = 128  # + number of the signal, as a shell reports it
CAPACITY_RATIO = 1.5  # a cell file further off than this is that of another cell
LOG_PERIOD_S = 0.1  # between two steps on a log of a bus
FIRST_READS = 10  # for the first complete measurement, before the loop starts all the same


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms run`."""
    parser.add_argument("--rack", metavar="URL", help="sim:CELL?key=value, replay:FILE, ... (default: the scenario's)")
    parser.add_argument(
        "--cell", help="cell file of the controller; without --rack and --scenario also the cell of the twin"
    )
    parser.add_argument(
        "--scenario",
        metavar="FILE",
        help=f"a .toml file, or one of: {', '.join(scenarios.names())} (default: {scenarios.DEFAULT})",
    )
    parser.add_argument("--duration", metavar="TIME", help="for example 90, 30min, 1h, 1d (default: the scenario's)")
    parser.add_argument("--period", metavar="TIME", help="time between two steps (default: the scenario's)")
    parser.add_argument(
        "--speed",
        help="max: as fast as it can; 1: real time; 10: ten times real time (default: max, and 1 for a rack on a wire)",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for recording and report (default: runs/...)")
    parser.add_argument(
        "--no-report", action="store_true", help="write no HTML report; `bms report DIR` makes it later"
    )
    parser.add_argument(
        "--record-racks", metavar="0,17", help="racks of a site whose every decision is recorded (default: none)"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="configuration of the rack: name or .toml (default: its cell's)"
    )
    parser.add_argument(
        "--store",
        metavar="PATH",
        type=Path,
        help="state store: what the controller must not forget is kept there, and taken from there at the start",
    )
    parser.add_argument(
        "--record",
        choices=("all", "trips"),
        default="all",
        help="all: every step, and the minutes around a trip in a file of their own; trips: only those (default: all)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--north",
        metavar="URL",
        action="append",
        default=[],
        help="who sees and steers the rack: modbus:tcp://HOST:PORT (SunSpec; also tls://, rtu://), or "
        "can:INTERFACE:CHANNEL for an inverter of 48 V batteries; may be given several times",
    )
    parser.add_argument(
        "--confirm",
        metavar="linux:FOLDER?slot=a",
        help="as a bundle on trial, given by bms start: confirm it once self-test and rack are good for a minute",
    )
    engine.add_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run `bms run`. Returns 0, 1 if it ended in a fault, stopped or with closed contactors, 128 + n after signal n."""
    scenario = choose(args.scenario, args.rack, args.cell)
    if args.duration is not None:
        scenario = replace(scenario, duration_s=scenarios.seconds(args.duration, "--duration"))
    if args.config is not None:
        scenario = replace(scenario, config=args.config)
    if args.period is not None:
        scenario = replace(scenario, period_s=scenarios.seconds(args.period, "--period"))
    speed = _paced(args.speed, scenario.rack, args.north)
    folder = _folder(args.out, scenario.name)
    if is_site(scenario.rack):
        if args.store is not None or args.record != "all":
            raise ConfigError("--store and --record: for a single rack; of a site, --record-racks records chosen racks")
        if args.confirm is not None:
            raise ConfigError(f"--confirm {args.confirm}: for a single rack, and {scenario.rack} is a site of many")
        if args.north:
            raise ConfigError(f"--north {args.north[0]}: for a single rack, and {scenario.rack} is a site of many")
        from bms.runtime import site

        return site.execute(
            scenario,
            folder,
            speed=speed,
            quiet=args.quiet,
            engine_text=args.engine,
            record_racks=args.record_racks,
        )
    if args.record_racks is not None:
        raise ConfigError(f"--record-racks {args.record_racks}: for a site; a single rack is recorded anyway")
    return execute(
        scenario,
        folder,
        speed=speed,
        report=not args.no_report,
        quiet=args.quiet,
        engine_text=args.engine,
        store=args.store,
        record=args.record,
        north=args.north,
        confirm=args.confirm,
    )


def _paced(text: str | None, rack: str, north: Sequence[str]) -> float:
    """Times real time: what was asked for, else as fast as it can, or real time where somebody is on a wire."""
    if not (is_live(rack) or north):
        return speed_of(text or "max")
    speed = speed_of(text or "1")
    if math.isinf(speed):
        who = f"the rack {rack} lives" if is_live(rack) else f"who is at {north[0]} lives"
        raise ConfigError(f"--speed {text}: {who} in real time: leave it out")
    return speed


def speed_of(text: str) -> float:
    """Times real time; infinite for `max`. Raises `ConfigError`."""
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise ConfigError(f"--speed {text}: expected max, or a number greater than 0 (1 = real time)")
    return speed


def choose(scenario: str | None, rack: str | None, cell: str | None) -> Scenario:
    """The scenario that the options ask for: see docs/scenarios.md for how they go together.

    `cell` names the controller's cell. Where no rack is asked for, the twin gets the same cell; where no scenario is
    asked for either, the first built-in one made for this cell is taken. A recording played back brings times, cell and
    settings of its own run. Raises `ConfigError`.
    """
    if scenario is None and rack is None and cell is not None:
        fitting = [name for name in scenarios.names() if _twin_cell(scenarios.load(name).rack) == cell]
        scenario = scenarios.DEFAULT if scenarios.DEFAULT in fitting else next(iter(fitting), None)
    chosen = scenarios.load(scenario or scenarios.DEFAULT)
    if rack is not None:
        below = unwrapped(rack)[1]
        if scenario is None:
            chosen = _recorded(below.address) if below.scheme == "replay" else Scenario(name=below.scheme)
        chosen = replace(chosen, rack=rack)
    elif cell is not None and chosen.rack.startswith("sim:") and not is_site(chosen.rack):
        from bms import cells
        from hal.backends.simulated import cell_names

        if cell not in cell_names() and cell in cells.names():
            raise ConfigError(f"no twin has the cell '{cell}' (known: {', '.join(cell_names())}): give --rack")
        if cell in cell_names():
            _, _, query = chosen.rack.partition("?")
            chosen = replace(chosen, rack=f"sim:{cell}" + (f"?{query}" if query else ""))
    return replace(chosen, cell=cell) if cell is not None else chosen


def _recorded(path: str) -> Scenario:
    """The scenario of a recording that is played back, without what only its rack could use.

    Where none was recorded, the times are those of its steps.
    """
    from bms.core.machine_table import Request
    from hal.backends.replay import LOGS, Recording

    if Path(path).suffix.lower() in LOGS:
        from hal.backends.log import span_s

        return Scenario(name="replay", duration_s=span_s(Path(path)), period_s=LOG_PERIOD_S)
    recording = Recording(Path(path))
    about = recording.header["about"].get("scenario")
    if about is None:
        times_s = [float(step.measurement["head"]["time_s"][0]) for step in recording]
        if len(times_s) < 2 or not times_s[-1] > times_s[0]:
            raise DataError(f"{recording.path}: holds {len(times_s)} steps: too few to be played back; record longer")
        period_s = float(f"{(times_s[-1] - times_s[0]) / (len(times_s) - 1):.3g}")
        return Scenario(name="replay", duration_s=times_s[-1] - times_s[0], period_s=period_s)
    return Scenario(
        name="replay",
        description=about["description"],
        cell=about["cell"],
        duration_s=about["duration_s"],
        period_s=about["period_s"],
        initial_soc=about["initial_soc"],
        initial_soc_std=about["initial_soc_std"],
        config=about["config"],
        controller=about["controller"],
        requests=tuple((at_s, Request[name]) for at_s, name in about["requests"]),
    )


def _twin_cell(url: str) -> str:
    scheme, _, rest = url.partition(":")
    return rest.partition("?")[0] if scheme == "sim" else ""


def _folder(out: Path | None, name: str) -> Path:
    """Where a run goes: `out`, or a folder of its own under `runs`."""
    if out is not None:
        return out
    stem = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    found, k = stem, 1
    while found.exists():
        k += 1
        found = stem.with_name(f"{stem.name}-{k}")
    return found


def open_rack(scenario: Scenario, clock: LoopClock) -> Rack:
    """The scenario's rack, not open yet. Raises `ConfigError`; a mistake in a table names the scenario."""
    from hal.registry import open_rack as open_url

    with named(scenario):
        return open_url(scenario.rack, clock=clock, options=scenario.tables)


@contextlib.contextmanager
def named(scenario: Scenario) -> Iterator[None]:
    """A mistake in a table of the scenario is told with the scenario's name."""
    try:
        yield
    except ConfigError as error:
        prefix = f"scenario {scenario.source}: " if str(error).lstrip().startswith(("[", "the twin")) else ""
        raise ConfigError(f"{prefix}{error}") from error


def rack_config(scenario: Scenario, info: RackInfo) -> RackConfig:
    """The configuration of the rack `info` in this scenario. Raises `ConfigError`.

    The scenario's own, or that which comes with the package for the rack's cell, or the defaults for its cell; with
    what the scenario changes in it.
    """
    from bms import cells, racks

    name = scenario.cell or info.cell
    cell = cells.load(name) if name else None
    if scenario.config:
        config = racks.load(scenario.config, cell if scenario.cell else None)
        if wrong := racks.misfit(config, info):
            raise ConfigError(wrong)
    elif cell is None:
        raise ConfigError(f"rack {info.name} does not say which cells it has: give --cell{nearest('', cells.names())}")
    elif name in racks.names() and not scenario.cell:
        config = racks.fitted(racks.load(name), info)
    else:
        config = racks.default(cell, info)
    changes = {**scenario.controller, "timing": {"period_s": scenario.period_s}}
    config = racks.overlay(config, changes, f"scenario {scenario.source or scenario.name}: [controller]")
    _check_capacity(config.cell, info)
    return config


def _check_capacity(cell: CellParameters, info: RackInfo) -> None:
    """Raise `ConfigError` for a cell that cannot be that of the rack `info`."""
    if not 1 / CAPACITY_RATIO < cell.capacity_ah * info.n_parallel / info.capacity_ah < CAPACITY_RATIO:
        raise ConfigError(
            f"cell '{cell.name}' has {cell.capacity_ah:g} Ah, but the rack {info.name} has {info.capacity_ah:g} Ah "
            f"with {info.n_parallel} in parallel: choose --cell and --rack that fit (in a file, [run] cell and rack)"
        )


def configuration(scenario: Scenario, info: RackInfo) -> tuple[CellParameters, Config]:
    """The cell that the controller takes the rack's cells for, and its configuration. Raises `ConfigError`."""
    from bms.racks.record import record

    settings = rack_config(scenario, info)
    return settings.cell, record(settings, info)


def first_guess(scenario: Scenario, cell: CellParameters, measurement: Any, info: RackInfo) -> tuple[Any, Any]:
    """SoC and its deviation before the first step: the scenario's, or what the voltages at rest tell of each cell.

    `measurement`: one record, or an array of them; its shape and (n_cells,) is that of the answer.
    """
    import numpy as np

    from bms.core.estimator_setup import soc_prior

    if scenario.initial_soc is not None:
        return scenario.initial_soc, 0.05 if scenario.initial_soc_std is None else scenario.initial_soc_std
    cell_v = np.where(measurement["cell_v_quality"] == 0, measurement["cell_v"], np.nan)
    degc = measurement["sensor_degc"][..., info.sensor_of_cell]
    # many cells show the same voltage, for converters have steps
    both = np.empty(cell_v.shape, np.complex128)
    both.real, both.imag = cell_v, np.round(np.where(np.isfinite(degc), degc, np.nan))
    pairs, place = np.unique(both, return_inverse=True)
    soc, std = soc_prior(cell, pairs.real, pairs.imag)
    return soc[place].reshape(cell_v.shape), std[place].reshape(cell_v.shape)


def make_controller(scenario: Scenario, rack: Rack, clock: LoopClock) -> Controller:
    """The controller for an open rack: configuration from the cell file, initial SoC from the voltages at rest.

    Raises `ConfigError` for an unknown cell.
    """
    import numpy as np

    from bms.core.step import Controller, initial_state
    from hal.contract import Command, Measurement

    info = rack.info
    cell, config = configuration(scenario, info)
    measurement, command = Measurement(info.n_cells, info.n_sensors), Command(info.n_cells, info.n_sensors)
    for k in range(FIRST_READS):
        rack.read(measurement)
        if not measurement.cell_v_quality.any() and np.isfinite(measurement.cell_v).all():
            break
        clock.wait_until((k + 1) * scenario.period_s, lambda: False)
    rack.read(measurement)
    soc, std = first_guess(scenario, cell, measurement.raw[0], info)
    return Controller(config, initial_state(config, soc, std), measurement, command)


def execute(
    scenario: Scenario,
    folder: Path,
    *,
    speed: float = math.inf,
    report: bool = True,
    quiet: bool = True,
    engine_text: str = engine.JIT,
    store: Path | None = None,
    record: str = "all",
    north: Sequence[str] = (),
    confirm: str | None = None,
) -> int:
    """Run `scenario` and leave recording, samples, summary and report in `folder`. Returns the exit code.

    `engine_text`, `store`, `record`, `north`, `confirm`: as the options `--engine`, `--store`, `--record`, `--north`
    and `--confirm` say it.
    """
    started = time.perf_counter()
    from bms.core.jit import PROGRAM as CORE
    from bms.runtime import series as samples
    from bms.runtime.bundle_trial import open_trial
    from bms.runtime.clock import RealClock, VirtualClock
    from bms.runtime.loop import Loop, StopFlag, stop_on_signals
    from bms.runtime.memory import Memory
    from bms.runtime.north import open_sides
    from bms.runtime.status import Status
    from bms.runtime.takedown import TakeDown
    from hal.backends.replay import FILE_NAME
    from hal.codec.jit import PROGRAM as CODEC
    from hal.contract import RackState
    from hal.registry import programs

    clock: LoopClock = VirtualClock() if math.isinf(speed) else RealClock(speed)
    every = samples.sample_every(scenario.duration_s, scenario.period_s)
    stop = StopFlag()
    if not quiet:
        print(f"{scenario.rack}: {scenario.description or scenario.name}", flush=True)
    # now, not within the deadline of a first step
    engine.ready(engine_text, (CORE, CODEC, *programs(scenario.rack)), quiet=quiet)
    rack = open_rack(scenario, clock)
    with stop_on_signals(stop), rack:
        controller = make_controller(scenario, rack, clock)
        info = rack.info
        about = {"scenario": scenario.to_json(), "sample_every": every, "speed": None if math.isinf(speed) else speed}
        prepare_folder(folder)
        memory = Memory(store, controller, info) if store is not None else None
        if memory is not None:
            told = memory.open()
            if not quiet:
                print(f"state store {store}: {told}")
        recording = folder / FILE_NAME if record == "all" else None
        taken = TakeDown(folder, recording, info, controller, about, scenario.period_s, rack)
        series = samples.Series(info, controller, every)
        status = Status(controller, scenario.duration_s, quiet=quiet, fast=math.isinf(speed))
        sides = open_sides(north, info, rack_config(scenario, info), controller, clock) if north else None
        trial = open_trial(confirm, controller) if confirm is not None else None
        loop = Loop(
            rack,
            controller,
            clock,
            scenario.period_s,
            stop=stop,
            recorder=taken,
            observers=tuple(one for one in (sides, series, memory, status, trial) if one is not None),
            sample_every=every,
            requests=scenario.requests,
            steer=None if sides is None else sides.steer,
        )
        looping = time.perf_counter()
        forgot = None
        try:
            with sides or contextlib.nullcontext(), status:
                if sides is not None and not quiet:
                    print(f"north: {sides}", flush=True)
                stats = loop.run(scenario.duration_s)
        finally:
            taken.close({"ended_by": loop.stats.ended_by, "opened": loop.stats.opened})
            if trial is not None:
                trial.close()
            if memory is not None:
                forgot = memory.close(ordered=loop.stats.opened)
    wall_s = time.perf_counter() - looping
    summary = series.summary(info) | {
        "loop": asdict(stats),
        "wall_s": wall_s,
        "times_real_time": series.time_s / wall_s,
        "start_s": looping - started,
        "recording_bytes": taken.bytes_written,
        "trips": taken.box.trips,
        "rack": info.name,
        "n_cells": info.n_cells,
        "capacity_ah": info.capacity_ah,
        "scenario": scenario.to_json(),
    }
    if sides is not None:
        summary["north"] = sides.told()
    try:
        samples.save(folder / SERIES, series.arrays())
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from error
    if not quiet:
        print_summary(summary)
    if not stats.opened:
        print("the contactors did not open")
    taken.complain()
    if forgot is not None:
        raise forgot
    if report:
        _report(folder)
    else:
        print(folder)
    if stop:
        return SIGNALLED + stop.signal_number
    tripped = summary["state_at_end"] in (RackState.FAULT.name, RackState.EMERGENCY_STOP.name)
    return GOOD if stats.opened and not tripped else FAILED


def prepare_folder(folder: Path) -> None:
    """Make the folder of a run, without what an earlier run left: a report must not mix the two."""
    from hal.backends.replay import FILE_NAME

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (FILE_NAME, SERIES, SITE_SERIES, SUMMARY, PAGE):
            (folder / name).unlink(missing_ok=True)
        for box in folder.glob("blackbox-*.bms"):
            box.unlink()
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be used: {error.strerror}") from error


def _report(folder: Path) -> None:
    try:
        from bms.runtime.report import write_report
    except ModuleNotFoundError as error:
        print(f"no report: {error.name} is not installed (pip install 'rackbms[report]'); recording in {folder}")
        return
    print(write_report(folder))


def print_summary(summary: Mapping[str, Any]) -> None:
    """The headline numbers, as text."""
    from bms.runtime.status import clock_text

    loop = summary["loop"]
    print(
        f"{loop['steps']:,} steps, {clock_text(summary['simulated_s'])} in {summary['wall_s']:.1f} s wall time "
        f"({summary['times_real_time']:,.0f} x real time), {loop['missed_deadlines']} missed deadlines"
    )
    efficiency = summary["round_trip_percent"]
    print(
        f"energy: {summary['energy_out_kwh']:,.1f} kWh out, {summary['energy_in_kwh']:,.1f} kWh in"
        + (f", DC round trip {efficiency:.1f} %" if efficiency is not None else "")
    )
    if "soc_rmse_percent" in summary:
        print(
            f"SoC against the truth: RMSE {summary['soc_rmse_percent']:.2f} %, "
            f"largest error {summary['soc_max_error_percent']:.2f} %, "
            f"{summary['soc_within_3_sigma_percent']:.1f} % within 3 sigma"
        )
    if summary["faults"]:
        when = clock_text(summary["first_fault_s"])
        print(f"faults: {', '.join(summary['faults']).lower().replace('_', ' ')}; first at {when}")
        if summary.get("cause"):
            print(f"cause: {summary['cause']}")
    if summary["warnings"]:
        print(f"warnings: {', '.join(summary['warnings']).lower().replace('_', ' ')}")
