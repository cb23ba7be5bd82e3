"""What is seen of a site: a series of a few numbers over all racks, progress on the terminal, the summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from bms.runtime.explain import SEVERITIES, fault_text, faults_in, mask_of
from bms.runtime.series import J_PER_KWH, MAX_SAMPLES
from bms.runtime.status import LIVE_EVERY_S, PLAIN_EVERY_S, clock_text
from hal.contract import RackState, Severity, Truth

if TYPE_CHECKING:
    from bms.runtime.site import SiteController

COLUMNS = (
    "time_s", "power_w", "connected", "faulted", "soc_min", "soc_mean", "soc_max", "soc_spread",
    "limit_discharge_w", "limit_charge_w", "cell_v_min", "cell_v_max", "degc_min", "degc_max",
    "energy_out_j", "energy_in_j",
)  # fmt: skip
"""Columns of the series: sums of power, limits and energy over the site; least and largest over all its cells.

`connected` and `faulted` count racks; `soc_spread` is the standard deviation of the racks' mean SoC.
"""


class SiteSeries:
    """Observer of a site's loop: a row of `COLUMNS` every so many steps, twice as many once `MAX_SAMPLES` are reached.

    Energy is integrated in every step from the measured voltages and currents.
    """

    def __init__(self, controller: SiteController, every: int) -> None:
        self._measurement, self._command = controller.measurement, controller.command
        self._volts, self._amps = (controller.measurement.head[name] for name in ("pack_v", "current_a"))
        self._severity, self._n_faults = (controller.command.head[name] for name in ("severity", "n_faults"))
        self._every = every
        self._n = 0
        self._rows = np.zeros((MAX_SAMPLES, len(COLUMNS)))
        self.steps = 0
        self.time_s = 0.0
        self.power_w = 0.0
        self.energy_out_j = 0.0
        self.energy_in_j = 0.0
        self.seen = dict.fromkeys(SEVERITIES, 0)  # every fault that any rack has shown, as bits
        self.first_fault_s = np.nan

    def __call__(self, step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        """Take note of one step."""
        self.steps, self.time_s = step, now_s
        # a missing value carries no energy
        watt = np.nan_to_num(self._volts.astype(np.float64) * self._amps)
        self.power_w = float(watt.sum())
        self.energy_out_j += float(watt[watt > 0].sum()) * dt_s
        self.energy_in_j -= float(watt[watt < 0].sum()) * dt_s
        if self._n_faults.any():
            for name in SEVERITIES:
                self.seen[name] |= mask_of(self._command.raw[name])
            if np.isnan(self.first_fault_s) and (self._severity == Severity.FATAL).any():
                self.first_fault_s = now_s
        if (step - 1) % self._every == 0:
            self._sample()

    def _sample(self) -> None:
        if self._n == MAX_SAMPLES:
            self._rows[: MAX_SAMPLES // 2] = self._rows[::2]
            self._n = MAX_SAMPLES // 2
            self._every *= 2
        m, head = self._measurement.raw, self._command.head
        self._rows[self._n] = (
            self.time_s,
            self.power_w,
            np.count_nonzero(head["state"] == RackState.CONNECTED),
            np.count_nonzero(self._severity == Severity.FATAL),
            head["soc_min"].min(),
            head["soc_mean"].mean(dtype=np.float64),
            head["soc_max"].max(),
            head["soc_mean"].std(dtype=np.float64),
            head["limit_discharge_w"].sum(dtype=np.float64),
            head["limit_charge_w"].sum(dtype=np.float64),
            *_ends(m["cell_v"], m["cell_v_quality"]),
            *_ends(m["sensor_degc"], m["sensor_degc_quality"]),
            self.energy_out_j,
            self.energy_in_j,
        )
        self._n += 1

    def columns(self) -> dict[str, npt.NDArray[np.float64]]:
        """All samples, by name."""
        return {name: self._rows[: self._n, k] for k, name in enumerate(COLUMNS)}

    def save(self, path: Path) -> None:
        """Write the samples as CSV."""
        with path.open("w", encoding="utf-8") as file:
            np.savetxt(file, self._rows[: self._n], fmt="%.9g", delimiter=",", header=",".join(COLUMNS), comments="")

    def summary(self) -> dict[str, Any]:
        """Headline numbers, as JSON."""
        head = self._command.head
        states, counts = np.unique(head["state"], return_counts=True)
        rows = self.columns()
        return {
            "steps": self.steps,
            "simulated_s": self.time_s,
            "energy_out_kwh": self.energy_out_j / J_PER_KWH,
            "energy_in_kwh": self.energy_in_j / J_PER_KWH,
            "largest_power_w": float(np.abs(rows["power_w"]).max(initial=0.0)),
            "most_connected": int(rows["connected"].max(initial=0)),
            "faults": [fault.name for fault in faults_in(self.seen["fault_fatal"])],
            "warnings": [fault.name for fault in faults_in(self.seen["fault_warning"])],
            "notes": [fault.name for fault in faults_in(self.seen["fault_info"])],
            "first_fault_s": None if np.isnan(self.first_fault_s) else self.first_fault_s,
            "racks_with_faults_at_end": int(np.count_nonzero(self._severity == Severity.FATAL)),
            "states_at_end": {RackState(s).name: n for s, n in zip(states.tolist(), counts.tolist(), strict=True)},
            "soc_at_end": [float(x) for x in (head["soc_min"].min(), head["soc_mean"].mean(), head["soc_max"].max())],
        }


def _ends(values: npt.NDArray[np.float32], quality: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Least and largest of the good values; NaN where there is none."""
    if not quality.any() and not np.isnan(low := values.min()):
        return float(low), float(values.max())
    good = values[(quality == 0) & np.isfinite(values)]
    return (float(good.min()), float(good.max())) if good.size else (np.nan, np.nan)


def accuracy(
    soc: npt.NDArray[np.float32], std: npt.NDArray[np.float32], true: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Errors of the SoC of all cells against the truth, in per cent SoC, as of a single rack."""
    error = soc.astype(np.float64) - true
    return {
        "soc_rmse_percent": 100 * float(np.sqrt(np.mean(error**2))),
        "soc_max_error_percent": 100 * float(np.abs(error).max()),
        "soc_within_3_sigma_percent": 100 * float(np.mean(np.abs(error) <= 3 * std)),
    }


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not tell."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (ImportError, OSError):
        return 0


class SiteStatus:
    """Observer that tells a person how a site does. Used as a context manager; `quiet` shows nothing."""

    def __init__(
        self, controller: SiteController, series: SiteSeries, duration_s: float, *, quiet: bool = False
    ) -> None:
        self._controller = controller
        self._series = series
        self._duration_s = duration_s
        self._quiet = quiet
        self._live: Any = None
        self._start = perf_counter()
        self._shown = float("-inf")

    def __enter__(self) -> Self:
        if not self._quiet and sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live("", console=Console(highlight=False), auto_refresh=False, transient=True)
            self._live.start()
        self._start = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        """Show how it goes, unless that was done a moment ago."""
        if self._quiet:
            return
        now = perf_counter()
        if now - self._shown < (LIVE_EVERY_S if self._live is not None else PLAIN_EVERY_S):
            return
        self._shown = now
        progress, values = self.parts(now_s, now - self._start)
        if self._live is None:
            print(f"{progress}  {values}", flush=True)
        else:
            fits = len(progress) + 2 + len(values) <= self._live.console.width
            self._live.update(f"{progress}{'  ' if fits else chr(10)}{values}", refresh=True)

    def parts(self, now_s: float, wall_s: float) -> tuple[str, str]:
        """How far it is and in which states; and power, SoC (lowest, mean, highest, spread of racks), memory."""
        c = self._controller.command.head
        progress = [clock_text(now_s)]
        if self._duration_s < float("inf"):
            progress.append(f"{min(now_s / self._duration_s, 1):4.0%}")
        if wall_s > 0:
            progress.append(f"{now_s / wall_s:,.1f} x real time")
        states, counts = np.unique(c["state"], return_counts=True)
        named = (f"{n:,} {RackState(s).name}" for s, n in zip(states.tolist(), counts.tolist(), strict=True))
        progress.append(", ".join(named))
        if faulted := int(np.count_nonzero(c["severity"] == Severity.FATAL)):
            shown = mask_of(self._controller.command.raw["fault_fatal"])
            progress.append(f"FAULTS in {faulted:,}: {fault_text(shown)}")
        low, mean, high = c["soc_min"].min(), c["soc_mean"].mean(), c["soc_max"].max()
        values = [
            f"{self._series.power_w / 1e6:+,.2f} MW",
            f"SoC {100 * low:.1f}/{100 * mean:.1f}/{100 * high:.1f} % (racks +-{100 * c['soc_mean'].std():.2f})",
            f"{resident_bytes() / 2**20:,.0f} MiB",
        ]
        return "  ".join(progress), "  ".join(values)


def print_summary(summary: Mapping[str, Any]) -> None:
    """The headline numbers, as text."""
    loop = summary["loop"]
    print(
        f"{summary['n_racks']:,} racks, {summary['n_cells']:,} cells: {loop['steps']:,} steps, "
        f"{clock_text(summary['simulated_s'])} in {summary['wall_s']:.1f} s wall time "
        f"({summary['times_real_time']:,.1f} x real time), {loop['missed_deadlines']} missed deadlines"
    )
    parts = {"read": "read_s", "decide": "decide_s", "write": "write_s"}
    shares = ", ".join(f"{name} {1e3 * loop[key] / max(loop['steps'], 1):.1f} ms" for name, key in parts.items())
    print(f"a step: {shares}; {summary['resident_bytes'] / 2**20:,.0f} MiB of memory")
    print(f"energy: {summary['energy_out_kwh']:,.1f} kWh out, {summary['energy_in_kwh']:,.1f} kWh in")
    if "soc_rmse_percent" in summary:
        print(
            f"SoC against the truth, at the end: RMSE {summary['soc_rmse_percent']:.2f} %, "
            f"largest error {summary['soc_max_error_percent']:.2f} %, "
            f"{summary['soc_within_3_sigma_percent']:.1f} % within 3 sigma"
        )
    if summary["faults"]:
        when = clock_text(summary["first_fault_s"])
        print(f"faults: {', '.join(summary['faults']).lower().replace('_', ' ')}; first at {when}")
    for event in summary["events"][:5]:
        print(f"rack {event['rack']}, {clock_text(event['time_s'])}: {event['text']}")
    if len(summary["events"]) > 5:
        print(f"and {len(summary['events']) - 5:,} more, in the summary")
