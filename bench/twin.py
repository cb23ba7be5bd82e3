"""What does a step of the twin cost: of one rack at 100 ms, and of a site of 1.1 million cells at 1 s?

Run with `python bench/twin.py` (a minute); `--racks` for a smaller site. One rack is read and written through the
contract as a control loop does it, and its kernels are timed alone: physics, then physics and sensors. The site is
read and written with one thread and with two. Rounds alternate and the best one of each counts, so that the numbers
hold on a machine that others use too. Bars: 2,000 x real time for the rack at 100 ms, 20 x for the site.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import numpy as np
from tables import Table

from hal.backends.simulated import SimulatedRack
from hal.backends.site import SimulatedSite
from hal.contract import COMMAND, MEASUREMENT, Command, Measurement, bulk
from sim import electronics as E

RACKS = 2684
PRECHARGE, MAINS = 0b110, 0b011
OPTIONS = {"duty": {"start_s": 0.0}}


class Clock:
    """A clock that the bench moves."""

    now = 0.0

    def now_s(self) -> float:
        return self.now


def best(rounds: int, calls: int, *jobs: Callable[[], None]) -> list[float]:
    """Seconds of one call of each job: the best of `rounds`, in turns."""
    found = [float("inf")] * len(jobs)
    for _ in range(rounds):
        for k, job in enumerate(jobs):
            start = perf_counter()
            for _ in range(calls):
                job()
            found[k] = min(found[k], (perf_counter() - start) / calls)
    return found


def command(head: np.ndarray, capacity_ah: float) -> None:
    """Fill in what a controller would publish."""
    head["cooling_degc"], head["soc_mean"] = 25.0, 0.5
    head["limit_discharge_a"] = head["limit_charge_a"] = 0.5 * capacity_ah
    head["limit_discharge_w"] = head["limit_charge_w"] = 1e6


class OneRack:
    """A connected rack, read and written in turn."""

    def __init__(self, cell: str, dt_s: float) -> None:
        self.clock, self.dt_s = Clock(), dt_s
        self.rack = SimulatedRack(cell, clock=self.clock, options=OPTIONS)
        self.rack.open()
        info = self.rack.info
        self.n_cells = info.n_cells * info.n_parallel
        self.measurement, self.command = (
            Measurement(info.n_cells, info.n_sensors),
            Command(info.n_cells, info.n_sensors),
        )
        command(self.command.head, info.capacity_ah)
        for contactors in (PRECHARGE, MAINS):
            self.command.head["contactors"] = contactors
            for _ in range(round(10 / dt_s)):
                self.read()
                self.write()
        assert not self.rack.events
        assert self.measurement.head["contactors"][0] == MAINS

    def read(self) -> None:
        self.clock.now += self.dt_s
        self.rack.read(self.measurement)

    def write(self) -> None:
        self.command.head["heartbeat"] += 1
        self.rack.write(self.command)

    def turn(self) -> None:
        self.read()
        self.write()

    def kernel(self, what: int, n_steps: int) -> Callable[[], None]:
        """The kernels alone, `n_steps` sub-steps in a call."""
        site, dt_s = self.rack.site, self.dt_s
        site._requests[:n_steps] = 0.0
        run = site._run_racks
        return lambda: run(what, n_steps, False, dt_s, 25.0, dt_s, 1, 2, 0, 1, 0, 0)


class WholeSite:
    """A connected site, read and written in turn."""

    def __init__(self, racks: int, threads: int) -> None:
        self.clock = Clock()
        query = {"racks": str(racks), "threads": str(threads)}
        start = perf_counter()
        self.site = SimulatedSite(query=query, clock=self.clock, options=OPTIONS)
        self.made_s = perf_counter() - start
        self.site.open()
        self.measurements, self.commands = (bulk(x, self.site.info, racks) for x in (MEASUREMENT, COMMAND))
        command(self.commands["head"], self.site.info.capacity_ah)
        for contactors in (PRECHARGE, MAINS):
            self.commands["head"]["contactors"] = contactors
            for _ in range(8):
                self.read()
                self.write()
        assert not self.site.events

    def read(self) -> None:
        self.clock.now += 1.0
        self.site.read(self.measurements)

    def write(self) -> None:
        self.commands["head"]["heartbeat"] += 1
        self.site.write(self.commands)

    def physics(self) -> None:
        self.site.site._turn(E.ADVANCE, 1, 1.0, 0.0)


def one_rack(args: argparse.Namespace) -> None:
    table = Table("twin_rack", "One rack at 100 ms, one thread", "us a step")
    for cell in ("lfp_280", "na_185", "nmc_ev"):
        one = OneRack(cell, 0.1)
        physics, long, both = best(
            args.rounds, 50, one.kernel(E.ADVANCE, 1), one.kernel(E.ADVANCE, 40), one.kernel(E.ADVANCE | E.SAMPLE, 1)
        )
        turn, read = best(args.rounds, 50, one.turn, one.read)
        step_s = (long - physics) / 39
        name = f"{cell}, {one.n_cells} cells"
        ns = 1e9 / one.n_cells
        table.row(f"{name}: sub-step of the physics", 1e6 * step_s, f"{ns * step_s:.1f} ns a cell")
        table.row(f"{name}: physics, called once", 1e6 * physics, f"{ns * physics:.1f} ns a cell")
        table.row(f"{name}: physics and sensors", 1e6 * both, f"{ns * both:.1f} ns a cell")
        table.row(f"{name}: read", 1e6 * read, f"{0.1 / read:,.0f} x real time")
        table.row(f"{name}: read and write", 1e6 * turn, f"{0.1 / turn:,.0f} x real time")
    table.finish(args)


def whole_site(args: argparse.Namespace) -> None:
    racks = args.racks
    cells = 0
    table = Table("twin_site", f"A site of {racks:,} racks at 1 s", "ms a step")
    for threads in args.threads:
        one = WholeSite(racks, threads)
        cells = racks * one.site.info.n_cells
        read, write, physics = best(args.rounds, 2, one.read, one.write, one.physics)
        name = f"{threads} thread{'s' if threads > 1 else ''}"
        ns = 1e9 / cells
        table.row(f"{name}: physics", 1e3 * physics, f"{ns * physics:.1f} ns a cell")
        table.row(
            f"{name}: read (with sensors)", 1e3 * read, f"{1 / read:.1f} x real time", f"{ns * read:.1f} ns a cell"
        )
        table.row(f"{name}: write", 1e3 * write, f"{1 / write:.1f} x real time")
        table.row(f"{name}: read and write", 1e3 * (read + write), f"{1 / (read + write):.1f} x real time")
        table.row(f"{name}: making the site", 1e3 * one.made_s)
        del one
    table.finish(args)
    print(f"  {cells:,} cells")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--racks", type=int, default=RACKS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=20)
    Table.add_arguments(parser)
    args = parser.parse_args()
    one_rack(args)
    whole_site(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
