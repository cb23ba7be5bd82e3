"""Progress of a run on the terminal: a live line where there is one, plain lines in a pipe."""

from __future__ import annotations

import sys
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from bms.core.step import Controller
from bms.runtime.explain import cause_text, fault_text, mask_of
from hal.contract import RackState, Truth

LIVE_EVERY_S = 0.2  # of wall time
PLAIN_EVERY_S = 5.0
LOOK_EVERY = 16  # steps between two looks at the wall clock, when steps are fast


def clock_text(time_s: float) -> str:
    """`time_s` as hours, minutes and seconds, with days in front where there are any."""
    days, rest = divmod(int(time_s), 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days} d {text}" if days else text


class Status:
    """Observer of a loop that tells a person how it goes. Used as a context manager; `quiet` shows nothing."""

    def __init__(self, controller: Controller, duration_s: float, *, quiet: bool = False, fast: bool = True) -> None:
        self._controller = controller
        self._duration_s = duration_s
        self._quiet = quiet
        self._look_every = LOOK_EVERY if fast else 1
        self._live: Any = None
        self._start = self._shown = perf_counter()
        self._state = -1

    def __enter__(self) -> Self:
        if not self._quiet and sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live("", console=Console(highlight=False), auto_refresh=False, transient=True)
            self._live.start()
        self._start = perf_counter()
        self._shown = float("-inf")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        """Show the state after a step, unless it was shown a moment ago. A change of state is always told."""
        if self._quiet:
            return
        state = int(self._controller.command.head["state"][0])
        changed = state != self._state
        if not changed and step % self._look_every:
            return
        now = perf_counter()
        every_s = LIVE_EVERY_S if self._live is not None else PLAIN_EVERY_S
        if not changed and now - self._shown < every_s:
            return
        self._shown, self._state = now, state
        progress, values = self.parts(now_s, now - self._start)
        if self._live is None:
            print(f"{progress}  {values}", flush=True)
        else:
            fits = len(progress) + 2 + len(values) <= self._live.console.width
            self._live.update(f"{progress}{'  ' if fits else chr(10)}{values}", refresh=True)

    def parts(self, now_s: float, wall_s: float) -> tuple[str, str]:
        """How far it is and in which state; and SoC (lowest, mean, highest), string values, temperatures."""
        m, c = self._controller.measurement, self._controller.command.head[0]
        head = m.head[0]
        power_kw = head["pack_v"] * head["current_a"] / 1e3
        progress = [clock_text(now_s)]
        if self._duration_s < float("inf"):
            progress.append(f"{min(now_s / self._duration_s, 1):4.0%}")
        if wall_s > 0:
            progress.append(f"{now_s / wall_s:,.0f} x real time")
        progress.append(RackState(int(c["state"])).name)
        if c["n_faults"]:
            command = self._controller.command
            if fatal := mask_of(command.fault_fatal):
                progress.append("FAULT: " + (cause_text(self._controller) or fault_text(fatal)))
            if warnings := mask_of(command.fault_warning) & ~fatal:
                progress.append("warning: " + fault_text(warnings))
        values = [
            f"SoC {100 * c['soc_min']:.1f}/{100 * c['soc_mean']:.1f}/{100 * c['soc_max']:.1f} %",
            f"{head['pack_v']:,.1f} V {head['current_a']:+,.1f} A {power_kw:+,.1f} kW",
            f"{m.sensor_degc.min():.1f}..{m.sensor_degc.max():.1f} degC",
        ]
        return "  ".join(progress), "  ".join(values)
