"""`bms replay`: run the controller again over a recording and compare every decision, bit for bit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bms.runtime import engine
from hal.errors import DataError

if TYPE_CHECKING:
    from bms.core.step import Controller
    from hal.backends.replay import Recording, Step
    from hal.contract import Truth

    Observer = Callable[[Controller], Callable[[int, float, float, Truth | None], None]]

GOOD, FAILED = 0, 1
PROGRESS_EVERY_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms replay`."""
    parser.add_argument("record", metavar="RECORD", type=Path, help="a recording, or the folder of a `bms run`")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    engine.add_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run `bms replay`. Returns 0 if every decision is the same, 1 if one differs or a step is damaged."""
    from bms.core.jit import PROGRAM as CORE
    from hal.backends.replay import Recording
    from hal.codec.jit import PROGRAM as CODEC

    recording = Recording(args.record)
    engine.ready(args.engine, (CORE, CODEC), quiet=args.quiet)
    progress = None if args.quiet else Progress(recording)
    outcome = replay(recording, progress)
    if progress is not None:
        progress.clear()
    for line in outcome.lines():
        print(line)
    return FAILED if outcome.steps_differing or outcome.damage else GOOD


@dataclass
class Outcome:
    """What a replay found."""

    steps: int = 0
    steps_differing: int = 0
    first_step: int = 0  # the first step that differs
    first_time_s: float = 0.0
    first_fields: list[str] = field(default_factory=list)
    damage: str = ""  # what ended the replay before the end of the file
    truncated_bytes: int = 0
    closed: bool = False  # the run was closed in order

    def lines(self) -> list[str]:
        """The outcome for a person; the verdict comes last."""
        lines = []
        if self.truncated_bytes:
            lines.append(f"the last step is cut off ({self.truncated_bytes:,} bytes of it are there) and left out")
        elif not self.closed and not self.damage:
            lines.append("the recording has no end: the run was cut short")
        if self.steps_differing:
            lines.append(
                f"first difference: step {self.first_step:,} (t = {self.first_time_s:g} s): "
                + "; ".join(self.first_fields)
            )
        if self.damage:
            lines.append(f"{self.damage}; what follows cannot be replayed")
        lines.append(f"{self.steps:,} steps, {self.steps_differing:,} differences")
        return lines


def replay(
    recording: Recording,
    progress: Callable[[int, float], None] | None = None,
    observe: Observer | None = None,
) -> Outcome:
    """Run the recorded controller over the recorded measurements.

    `progress` is told (step, time_s); `observe(controller)` makes an observer as a `Loop` has it. A damaged step ends
    the replay; the steps before it count. Raises `DataError` where another version of the controller recorded.
    """
    import numpy as np

    from bms.runtime.recording import controller_of, estimate_crc
    from hal.codec.recording import DamagedError
    from hal.contract import Truth

    controller = controller_of(recording)
    observer = observe(controller) if observe is not None else None
    truth = Truth(recording.info.n_cells, recording.info.n_sensors)
    # whole records as bytes: numpy copies and compares structures field by field, far slower
    measured, decided = controller.measurement.raw.view(np.uint8), controller.command.raw.view(np.uint8)
    start_s, time_s = 0.0, 0.0
    outcome = Outcome()
    try:
        for step in recording:
            measured[...] = step.measurement.view(np.uint8)
            status = controller.step(step.request, step.dt_s)
            crc = estimate_crc(controller)
            outcome.steps += 1
            time_s += step.dt_s
            start_s = step.dt_s if outcome.steps == 1 else start_s
            same = status == step.status and crc == step.estimate_crc
            if not (same and decided.tobytes() == step.command.tobytes()):
                outcome.steps_differing += 1
                if outcome.steps_differing == 1:
                    outcome.first_step, outcome.first_time_s = step.number, time_s - start_s
                    outcome.first_fields = differences(controller, status, crc, step)
            if observer is not None:
                if step.truth is not None:
                    truth.raw[...] = step.truth
                observer(step.number, time_s - start_s, step.dt_s, truth if step.truth is not None else None)
            if progress is not None:
                progress(step.number, time_s)
    except DamagedError as error:
        outcome.damage = str(error)
    outcome.truncated_bytes = recording.truncated_bytes
    outcome.closed = recording.end is not None
    if not outcome.steps and not outcome.damage:
        raise DataError(f"{recording.path}: holds no step")
    return outcome


def differences(controller: Controller, status: int, crc: int, step: Step) -> list[str]:
    """Name every field in which a replayed step differs from the recorded one, with both values."""
    found = []
    if crc != step.estimate_crc:
        found.append(f"estimates of the cells: checksum {crc:08x}, recorded {step.estimate_crc:08x}")
    if status != step.status:
        found.append(f"status: {status}, recorded {step.status}")
    ours: Any = controller.command.raw
    for name in controller.command.head.dtype.names or ():
        mine, theirs = ours["head"][name][0], step.command["head"][name][0]
        if mine.tobytes() != theirs.tobytes():
            found.append(f"command {name}: {mine}, recorded {theirs}")
    for spec in controller.command.layout.arrays:
        for k, (mine, theirs) in enumerate(zip(ours[spec.name][0], step.command[spec.name][0], strict=True)):
            if mine.tobytes() != theirs.tobytes():
                found.append(f"command {spec.name}[{k}]: {mine}, recorded {theirs}")
                break
    return found or ["bytes between the fields of the command"]


class Progress:
    """Shows how far a replay is, on a terminal as one line that is overwritten, else as a line now and then."""

    def __init__(self, recording: Recording) -> None:
        scenario = recording.header["about"].get("scenario", {})
        self._duration_s = scenario.get("duration_s") or 0.0
        self._live = sys.stdout.isatty()
        self._next_s = perf_counter() + PROGRESS_EVERY_S
        self._every_s = PROGRESS_EVERY_S if self._live else 10 * PROGRESS_EVERY_S

    def __call__(self, step: int, time_s: float) -> None:
        """Show it, unless that was done a moment ago."""
        if step % 64 or perf_counter() < self._next_s:
            return
        self._next_s = perf_counter() + self._every_s
        share = f" {min(time_s / self._duration_s, 1):4.0%}" if self._duration_s else ""
        text = f"replayed {step:,} steps{share}"
        print(f"\r{text}\033[K" if self._live else text, end="" if self._live else "\n", flush=True)

    def clear(self) -> None:
        """Wipe the line."""
        if self._live:
            print("\r\033[K", end="", flush=True)
