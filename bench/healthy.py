"""Does the controller keep silent while nothing is wrong?

Run with `python bench/healthy.py` (an hour for 30 days of three full-size racks on two cores; `--cells 16 --days 3` for
minutes). Twins with spread between their cells and the errors of real sensors do what healthy racks do, -10 to 45 degC,
SoC 5 to 100 %: frequency regulation, full cycles at C/2 and 1C with rests, cars, partial cycles in the middle of the
plateau, days of rest. The month of each rack is made of segments of three days: a climate, a sensor set, one duty a
day; the controller starts each of them with what the voltages at rest tell.

For each segment: steps, rows of the fault table that were set, true SoC and temperatures that were reached, the largest
SoC error and how many of its sigmas that is, how near each fault came to its warning, and for which share of the time
the rack was at its limit or held by a reaction to a fault. Exit code 1 after a trip or a warning.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does, and before anything imports numpy

import numpy as np

from bms.core.diagnosis import N_ROWS
from bms.core.faults import ABOUT, COLUMNS, N_FAULTS, N_TIERS, SET_S, THRESHOLD, Context, Fault, row_of, text_of
from bms.core.machine_table import Request
from bms.core.step import Controller
from bms.runtime.clock import VirtualClock
from bms.runtime.explain import place_text
from bms.runtime.run import make_controller, open_rack, rack_config
from bms.runtime.scenario import Scenario
from hal.contract import Constraint, Flow, RackState, Severity, Truth
from sim import duty as duties

RACKS = ("lfp_280", "na_185", "nmc_ev")
DAY_S = 86400.0
LOOK_S = 30  # between two looks at the truth
PROGRESS_S = 600

DUTIES: dict[str, dict[str, Any]] = {
    "regulation": {"kind": "frequency_regulation", "power_c": 0.5},
    "regulation_1c": {"kind": "frequency_regulation", "power_c": 1.0},
    "regulation_low": {"kind": "frequency_regulation", "power_c": 0.5, "recentre_soc": 0.2},
    "regulation_high": {"kind": "frequency_regulation", "power_c": 0.5, "recentre_soc": 0.9},
    "cycle_half": {"kind": "cycle", "soc_low": 0.05, "rest_h": 1.0},
    "cycle_1c": {"kind": "cycle", "charge_c": 1.0, "discharge_c": 1.0, "soc_low": 0.05, "rest_h": 1.0},
    "plateau": {"kind": "cycle", "soc_low": 0.4, "soc_high": 0.7, "rest_h": 0.25},
    "v2g": {"kind": "v2g"},
    "rest": {"kind": "constant"},
}
COARSE = {"cell_v_lsb_v": 1e-3, "current_skew_s": 0.1}
"""A simple front end: steps of 1 mV, the current sampled before the voltages."""


@dataclass(frozen=True)
class Segment:
    """Three days of a rack: its climate, what it does each day, its sensors, and its state at the beginning."""

    name: str
    days: tuple[str, ...]
    soc: float = 0.5
    degc: float = 20.0  # of the cells at first, and of the surroundings
    ambient_degc: float | None = None  # of the surroundings, where they differ
    swing_degc: float = 5.0
    coolant_degc: tuple[float, float] = (15.0, 40.0)
    sensors: dict[str, Any] = field(default_factory=dict)


SEGMENTS = (
    Segment("mild", ("regulation", "cycle_half", "rest")),
    Segment("summer", ("cycle_1c", "v2g", "regulation_1c"), 0.3, 32.0, swing_degc=8.0),
    Segment("cold start", ("cycle_half", "regulation", "cycle_1c"), 0.6, -10.0, coolant_degc=(10.0, 25.0)),
    Segment("hot", ("cycle_1c", "regulation_1c", "cycle_half"), 0.8, 42.0, 45.0, 0.0, (38.0, 45.0)),
    Segment("plateau", ("plateau", "plateau", "cycle_half"), 0.55, sensors=COARSE),
    Segment("frost", ("regulation", "cycle_half", "plateau"), 0.5, -10.0, -8.0, 2.0, (-10.0, 5.0)),
    Segment("low", ("regulation_low", "cycle_half", "regulation_low"), 0.1, 15.0, swing_degc=10.0),
    Segment("full", ("regulation_high", "cycle_1c", "rest"), 1.0, 25.0, sensors=COARSE),
    Segment("chill", ("cycle_1c", "v2g", "cycle_half"), 0.4, 5.0, 0.0, 5.0, (5.0, 15.0), sensors=COARSE),
    Segment("heat", ("v2g", "rest", "regulation"), 0.7, 45.0, 40.0, 5.0, (40.0, 45.0), sensors=COARSE),
)


class Days(duties.Duty):
    """One duty after the other, each for a day."""

    def __init__(self, names: tuple[str, ...], rating: duties.Rating, day_s: float, seed: int) -> None:
        self._names, self._rating, self._day_s, self._seed = names, rating, day_s, seed
        self._day = -1
        self._duty: duties.Duty | None = None

    def request(self, time_s: float, view: duties.PcsView) -> float:
        """What the duty of the day asks for."""
        day = min(int(time_s / self._day_s), len(self._names) - 1)
        if day != self._day or self._duty is None:
            self._day = day
            table = dict(DUTIES[self._names[day]])
            if table["kind"] == "v2g":
                table["start_hour"] = 6.0
            if table["kind"] in ("v2g", "frequency_regulation"):
                table["seed"] = 10 * self._seed + day
            self._duty = duties.make(table, self._rating)
            self.in_ampere = self._duty.in_ampere
        return self._duty.request(time_s - day * self._day_s, view)


@dataclass
class Event:
    """A row of the fault table that was set: when first, at which value and where, how often, for how long."""

    first_s: float
    value: float
    where: int
    times: int = 0
    active_s: float = 0.0


@dataclass
class Outcome:
    """What was seen in a segment. `peaks`: of each fault with a warning, (value, share of the way, held share)."""

    rack: str
    segment: str
    steps: int = 0
    events: dict[int, Event] = field(default_factory=dict)  # by the id of the row
    peaks: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    soc: tuple[float, float] = (math.inf, -math.inf)
    degc: tuple[float, float] = (math.inf, -math.inf)
    soc_error: float = 0.0
    soc_sigmas: float = 0.0
    within_3_sigma: float = 1.0
    connected: float = 0.0
    at_limit: float = 0.0
    held_by_fault: float = 0.0
    throughput_h: float = 0.0  # charge moved, in capacities
    wall_s: float = 0.0
    happened: list[str] = field(default_factory=list)  # to the hardware

    def of(self, severity: Severity) -> dict[int, Event]:
        """The rows of one severity that were set."""
        return {row: event for row, event in self.events.items() if row % 10 == severity}


class Watch:
    """Looks at a controller after each of its steps."""

    def __init__(self, controller: Controller, outcome: Outcome) -> None:
        state, config = controller.state, controller.config
        self._c, self._o = controller, outcome
        self._value, self._where = state.fault_value, state.fault_where
        self._status, self._timer = state.fault_status, state.fault_timer
        self.table = np.array(config.fault_table).reshape(N_ROWS, COLUMNS)
        self._last = self._status.tobytes()
        self._head = controller.command.head
        self.high = np.full(N_FAULTS, -np.inf, np.float32)
        self.low = np.full(N_FAULTS, np.inf, np.float32)
        self.longest = np.zeros(N_ROWS, np.float32)
        self._applies: dict[tuple[int, int], Any] = {}
        self._looks = self._connected = self._limited = self._held = self._inside = 0

    def _mask(self, flow: int, state: int) -> Any:
        """Faults that are looked at now."""
        key = flow, state
        if key not in self._applies:
            context = Context.ALWAYS | Context.WINDOW
            context |= {Flow.CHARGE: Context.CHARGING, Flow.DISCHARGE: Context.DISCHARGING}.get(Flow(flow), Context(0))
            if state in (RackState.CONNECTED, RackState.RAMP_DOWN):
                context |= Context.CLOSED
            elif state == RackState.PRECHARGE:
                context |= Context.PRECHARGING
            else:
                context |= Context.OPENED
            mask = np.zeros(N_FAULTS, np.bool_)
            for fault, about in ABOUT.items():
                mask[fault] = bool(about.gate & context)
            self._applies[key] = mask
        return self._applies[key]

    def step(self, now_s: float, dt_s: float) -> None:
        """After a step."""
        head = self._head[0]
        mask = self._mask(int(head["flow"]), int(head["state"]))
        np.fmax(self.high, self._value, out=self.high, where=mask)
        np.fmin(self.low, self._value, out=self.low, where=mask)
        np.maximum(self.longest, self._timer, out=self.longest, where=self._status == 0)
        now = self._status.tobytes()
        if now != self._last or self._o.events:
            self._note(now_s, dt_s)
            self._last = now

    def _note(self, now_s: float, dt_s: float) -> None:
        before = np.frombuffer(self._last, np.uint8)
        for at in np.flatnonzero(self._status).tolist():
            fault, tier = divmod(at, N_TIERS)
            event = self._o.events.setdefault(
                10 * fault + tier + 1, Event(now_s, float(self._value[fault]), int(self._where[fault]))
            )
            event.times += int(before[at] == 0)
            event.active_s += dt_s

    def look(self, truth: Truth, capacity_ah: float) -> None:
        """Compare with the truth, now and then."""
        o, head = self._o, self._head[0]
        o.soc = min(o.soc[0], float(truth.soc.min())), max(o.soc[1], float(truth.soc.max()))
        o.degc = min(o.degc[0], float(truth.cell_degc.min())), max(o.degc[1], float(truth.cell_degc.max()))
        off = np.abs(self._c.soc - truth.soc)
        sigmas = off / self._c.soc_std
        o.soc_error = max(o.soc_error, float(off.max()))
        o.soc_sigmas = max(o.soc_sigmas, float(sigmas.max()))
        self._inside += int(np.count_nonzero(sigmas <= 3.0))
        self._looks += 1
        current_a = float(truth.head["current_a"][0])
        o.throughput_h += abs(current_a) * LOOK_S / 3600.0 / capacity_ah
        if head["state"] == RackState.CONNECTED:
            self._connected += 1
            limit_a = float(head["limit_discharge_a"] if current_a >= 0.0 else head["limit_charge_a"])
            self._limited += int(abs(current_a) > 0.98 * limit_a)
            self._held += int(Constraint.FAULT in self._c.command.reason[8:10])

    def finish(self, neutral: dict[Fault, float]) -> None:
        """Sum up."""
        o, looks = self._o, max(self._looks, 1)
        o.within_3_sigma = self._inside / (looks * self._c.config.n_cells)
        o.connected, o.at_limit, o.held_by_fault = (x / looks for x in (self._connected, self._limited, self._held))
        for fault in Fault:
            row = N_TIERS * fault + Severity.WARNING - 1
            threshold = float(self.table[row, THRESHOLD])
            if math.isnan(threshold):
                continue
            peak = float(self.high[fault] if ABOUT[fault].above else self.low[fault])
            set_s = float(self.table[row, SET_S])
            held = float(self.longest[row]) / set_s if set_s > 0.0 else 0.0
            o.peaks[fault.name] = peak, share_of_way(fault, peak, threshold, neutral), held


def share_of_way(fault: Fault, peak: float, threshold: float, neutral: dict[Fault, float]) -> float:
    """How far a value went from where it is at ease to its threshold, 1 = there."""
    if not math.isfinite(peak):
        return 0.0
    if fault in (Fault.INSULATION, Fault.INSULATION_POSITIVE, Fault.INSULATION_NEGATIVE):
        return threshold / peak if peak > 0 else math.inf
    start = neutral.get(fault, 0.0)
    return max((peak - start) / (threshold - start), 0.0)


def neutral_of(controller: Controller, cell: Any, basis_flow_lpm: float) -> dict[Fault, float]:
    """Where values are that mean nothing: for those that do not start at 0."""
    f = Fault
    middle_v, n = 0.5 * (cell.v_min + cell.limits.v_max), controller.config.n_cells
    neutral = dict.fromkeys((f.CELL_OVERVOLTAGE, f.CELL_UNDERVOLTAGE), middle_v)
    neutral |= dict.fromkeys((f.PACK_OVERVOLTAGE, f.PACK_UNDERVOLTAGE), n * middle_v)
    neutral |= dict.fromkeys(
        (f.CHARGE_HOT, f.DISCHARGE_HOT, f.CHARGE_COLD, f.DISCHARGE_COLD, f.COOLANT_HOT, f.COOLANT_COLD), 25.0
    )
    neutral |= dict.fromkeys((f.SOC_LOW, f.SOC_HIGH), 0.5)
    neutral |= dict.fromkeys((f.CAPACITY_LOW, f.RESISTANCE_HIGH), 1.0)
    return neutral | {f.COOLANT_FLOW: basis_flow_lpm}


def scenario_of(rack: str, segment: Segment, seed: int, cells: int | None) -> Scenario:
    """The scenario of a segment, but for the duty of its days."""
    low, high = segment.coolant_degc
    tables = {
        "rack": {"seed": seed, "initial_soc": segment.soc, "initial_degc": segment.degc},
        "environment": {
            "ambient_degc": segment.degc if segment.ambient_degc is None else segment.ambient_degc,
            "ambient_swing_degc": segment.swing_degc,
            "coolant_min_degc": low,
            "coolant_max_degc": high,
        },
        "sensors": segment.sensors,
    }
    if cells is not None:
        tables["rack"] |= {"n_series": cells}
    return Scenario(name=segment.name, rack=f"sim:{rack}", tables=tables)


def run_segment(
    rack_name: str, segment: Segment, days: float, seed: int, cells: int | None = None, progress: Any = None
) -> Outcome:
    """Let a rack do what `segment` says for `days` in all; `progress(steps)` is told how many steps were done."""
    started = time.perf_counter()
    outcome = Outcome(rack_name, segment.name)
    clock = VirtualClock()
    scenario = scenario_of(rack_name, segment, seed, cells)
    rack: Any = open_rack(scenario, clock)
    with rack:
        rack.site.duty = Days(segment.days, rack.site.rating, days * DAY_S / len(segment.days), seed)
        controller = make_controller(scenario, rack, clock)
        info, settings = rack.info, rack_config(scenario, rack.info)
        watch = Watch(controller, outcome)
        truth = Truth(info.n_cells, info.n_sensors)
        start_s = clock.now_s()
        outcome.steps = round(days * DAY_S)
        for k in range(1, outcome.steps + 1):
            clock.wait_until(start_s + k, bool)
            rack.read(controller.measurement)
            controller.step(Request.CONNECT, 1.0)
            rack.write(controller.command)
            watch.step(float(k), 1.0)
            if k % LOOK_S == 0:
                rack.truth(truth)
                watch.look(truth, info.capacity_ah)
                if progress is not None and k % PROGRESS_S == 0:
                    progress(k)
        watch.finish(neutral_of(controller, settings.cell, settings.rack.coolant_flow_lpm))
        outcome.happened = [f"{event.time_s:.0f} s: {event.text}" for event in rack.events]
    outcome.wall_s = time.perf_counter() - started
    return outcome


def event_text(row: int, event: Event) -> str:
    """One row that was set, in words."""
    fault, severity = row_of(row)
    unit = ABOUT[fault].unit
    place = place_text(fault, event.where)
    return (
        f"{severity.name.lower():7} {text_of(fault)}{place}: first at {event.first_s / 3600:.2f} h with "
        f"{event.value:.4g}{'' if unit == '1' else ' ' + unit}, {event.times} x, {event.active_s / 3600:.2f} h in all"
    )


def lines_of(o: Outcome) -> Iterator[str]:
    """The report of a segment."""
    n_fatal, n_warning, n_info = (len(o.of(s)) for s in (Severity.FATAL, Severity.WARNING, Severity.INFO))
    yield (
        f"{o.rack:8} {o.segment:10} {o.steps:8,d} steps  {n_fatal} trips {n_warning} warnings {n_info} infos  "
        f"SoC {100 * o.soc[0]:5.1f}..{100 * o.soc[1]:5.1f} %  {o.degc[0]:5.1f}..{o.degc[1]:4.1f} degC  "
        f"{o.throughput_h:5.1f} x capacity  SoC error {100 * o.soc_error:4.1f} % = {o.soc_sigmas:.1f} sigma, "
        f"{100 * o.within_3_sigma:.2f} % within 3  connected {100 * o.connected:.1f} %, at the limit "
        f"{100 * o.at_limit:.1f} %, held by a fault {100 * o.held_by_fault:.1f} %  [{o.wall_s:.0f} s]"
    )
    for row in sorted(o.events, key=lambda row: (-(row % 10), row)):
        yield f"    {event_text(row, o.events[row])}"
    for text in o.happened:
        yield f"    hardware: {text}"


def nearest_lines(outcomes: list[Outcome]) -> Iterator[str]:
    """Over all segments of a rack: how near each fault came to its warning."""
    for rack in dict.fromkeys(o.rack for o in outcomes):
        found: dict[str, tuple[float, float, float, str]] = {}
        for o in (o for o in outcomes if o.rack == rack):
            for name, (peak, share, held) in o.peaks.items():
                if name not in found or (share, held) > found[name][:2]:
                    found[name] = share, held, peak, o.segment
        yield f"\n{rack}: how near each fault came to its warning (share of the way; where beyond, of its set time)"
        for name, (share, _, peak, segment) in sorted(found.items(), key=lambda item: -item[1][0]):
            if share > 0.005:
                longest = max(o.peaks[name][2] for o in outcomes if o.rack == rack and name in o.peaks)
                note = f"  held for {100 * longest:.0f} % of the set time" if longest > 0.0 else ""
                unit = ABOUT[Fault[name]].unit
                yield f"  {text_of(Fault[name]):24} {share:6.2f}  {peak:10.4g} {unit:6} {segment}{note}"


_counters: Any = None


def _begin(counters: Any) -> None:
    global _counters
    _counters = counters


def _job(place: int, rack: str, segment: Segment, days: float, seed: int, cells: int | None) -> Outcome:
    def told(steps: int) -> None:
        _counters[place] = steps

    return run_segment(rack, segment, days, seed, cells, told)


def main() -> int:
    """Run the month, print the reports."""
    from rich.progress import Progress, TimeRemainingColumn

    from bms.core.jit import PROGRAM as CORE
    from bms.runtime import engine
    from hal.registry import programs

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--racks", nargs="*", choices=RACKS, default=list(RACKS))
    parser.add_argument("--segments", nargs="*", choices=[s.name for s in SEGMENTS], metavar="NAME")
    parser.add_argument("--days", type=float, default=30.0, help="of each rack; each segment is a tenth of it")
    parser.add_argument("--cells", type=int, help="in series (default: those of the real rack)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="segments at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen there as well")
    args = parser.parse_args()
    engine.ready(engine.JIT, (CORE, *programs(f"sim:{RACKS[0]}")))
    chosen = [(k, s) for k, s in enumerate(SEGMENTS) if not args.segments or s.name in args.segments]
    days = args.days / len(SEGMENTS)
    tasks = [(rack, s, days, args.seed + 100 * r + k) for r, rack in enumerate(args.racks) for k, s in chosen]
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    counters = context.Array("d", len(tasks), lock=False)
    outcomes: list[Outcome] = []
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    with (
        ProcessPoolExecutor(args.jobs, mp_context=context, initializer=_begin, initargs=(counters,)) as pool,
        Progress(*columns, transient=True) as bar,
    ):
        shown = bar.add_task("steps", total=len(tasks) * days * DAY_S)
        waiting = {pool.submit(_job, k, *task, args.cells) for k, task in enumerate(tasks)}
        while waiting:
            try:
                for done in as_completed(waiting, timeout=1.0):
                    waiting.discard(done)
                    outcomes.append(done.result())
                    for line in lines_of(outcomes[-1]):
                        bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
                    sys.stdout.flush()
            except TimeoutError:
                pass
            bar.update(shown, completed=sum(counters))
    for line in nearest_lines(outcomes):
        print(line)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n")
    trips, warnings = (sum(len(o.of(s)) for o in outcomes) for s in (Severity.FATAL, Severity.WARNING))
    steps = sum(o.steps for o in outcomes)
    print(f"\n{steps:,} steps, {steps / DAY_S:.1f} days: {trips} trips, {warnings} warnings")
    return 1 if trips or warnings else 0


if __name__ == "__main__":
    sys.exit(main())
