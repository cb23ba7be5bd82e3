"""What does a bad wire cost, and does it ever keep the contactors closed on what is not so?

Run with `python bench/chaos.py` (a minute). Each fault of `hal.backends.chaos_wire` at 1 %, 10 % and 100 % of the
frames for two minutes, on a connected twin of each shipped rack under the whole controller. The value is the longest
time that a cell, the current or the string voltage was old, missing or wrong while the contactors were asked to close.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from tables import Table

from bms.core.faults import Fault
from bms.core.machine_table import Request
from bms.core.step import Controller
from bms.runtime.clock import VirtualClock
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from hal.backends.alive import Alive
from hal.backends.chaos import Chaos
from hal.backends.chaos_wire import KINDS, WireFaults
from hal.contract import Measurement, Rack, RackState
from hal.registry import open_rack

RACKS = ("lfp_280", "na_185", "nmc_ev")
RATES = (0.01, 0.1, 1.0)
CONNECTED_S, FOR_S, AFTER_S = 60, 120, 120
OLD_S = {"cell_v": 3.0, "current_a": 2.0, "pack_v": 5.0}  # the tier `info` of what is lost
OFF = {"cell_v": 0.2, "current_a": 0.35, "pack_v": 0.03}  # V; share of the capacity in A; share of the string


class Bench:
    """A controller on a twin behind a wire."""

    def __init__(self, kind: str, seed: int, *, watched: bool) -> None:
        self.clock = VirtualClock()
        options = {"duty": {"kind": "constant", "c_rate": 0.2}}
        self.twin: Rack = open_rack(f"sim:{kind}?n_series=48&seed={seed}", clock=self.clock, options=options)
        self.wire = Chaos(self.twin, (), seed)
        self.rack: Rack = Alive(self.wire) if watched else self.wire
        self.rack.open()
        self.controller: Controller = make_controller(Scenario(rack=f"sim:{kind}"), self.rack, self.clock)
        self.true = self.controller.measurement.blank()
        self.now_s, self.worst_s, self.opened_s = self.clock.now_s(), 0.0, np.nan
        self._bad_s: dict[str, np.ndarray] = {}

    def run(self, seconds: int, request: Request = Request.CONNECT) -> str:
        """Steps of a second; returns the state of the last."""
        head = self.controller.command.head
        for _ in range(seconds):
            self.now_s += 1.0
            self.clock.wait_until(self.now_s, lambda: False)
            self.rack.read(self.controller.measurement)
            self.controller.step(request, 1.0)
            self.rack.write(self.controller.command)
            self.twin.read(self.true)
            closed = bool(head["contactors"][0])
            for name, bad in self._bad().items():
                held_s = self._bad_s.get(name, 0.0)
                self._bad_s[name] = np.where(bad & closed, held_s + 1.0, 0.0)
                self.worst_s = max(self.worst_s, float(self._bad_s[name].max()))
            if not closed and np.isnan(self.opened_s):
                self.opened_s = self.now_s
        return RackState(int(head["state"][0])).name

    def _bad(self) -> dict[str, np.ndarray]:
        """Which values of each channel are old, missing or wrong."""
        shown = self.controller.measurement
        scale = {"cell_v": 1.0, "current_a": self.rack.info.capacity_ah, "pack_v": float(self.true.cell_v.sum())}
        bad = {}
        for name, old_s in OLD_S.items():
            value, age_s, quality = (_of(shown, f"{name}{end}") for end in ("", "_age_s", "_quality"))
            gap = np.abs(value - _of(self.true, name)) / scale[name]
            bad[name] = (quality != 0) | (age_s > old_s) | ~(gap <= OFF[name])
        return bad


def _of(m: Measurement, name: str) -> np.ndarray:
    values = np.atleast_1d(m.raw[name] if name in (m.raw.dtype.names or ()) else m.head[name])
    with np.errstate(all="ignore"):  # a flipped bit makes signalling numbers that are none
        return values.astype(float)


def main() -> int:
    """Print the table. Returns 1 where a rack that is not latched does not come back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    Table.add_arguments(parser)
    args = parser.parse_args()
    table = Table("chaos", "Longest time on bad data with closed contactors, worst of all racks and seeds", "s")
    lost = 0
    for kind, watched in [*((kind, False) for kind in KINDS), ("freeze", True)]:
        for rate in RATES:
            worst_s, opened_s, causes, ends = 0.0, [], set(), []
            for rack in RACKS:
                for seed in range(1, args.seeds + 1):
                    bench = Bench(rack, seed, watched=watched)
                    if bench.run(CONNECTED_S) != "CONNECTED":
                        raise SystemExit(f"{rack} did not connect")
                    begun_s, bench.opened_s = bench.now_s, np.nan
                    bench.wire.inject(wire=WireFaults(**{kind: rate}))
                    bench.run(FOR_S)
                    bench.wire.clear()
                    ends.append(bench.run(AFTER_S))
                    worst_s = max(worst_s, bench.worst_s)
                    if not np.isnan(bench.opened_s):
                        opened_s.append(bench.opened_s - begun_s)
                        causes.add(int(bench.controller.command.head["cause"][0]) // 10)
            lost += sum(end == "CONNECTED" for end in ends) + len(opened_s) < len(ends)
            names = ", ".join(sorted(Fault(cause).name.lower() for cause in causes if cause))
            note = (
                f"{len(opened_s)} of {len(ends)} opened, the last after {max(opened_s):.0f} s: {names}"
                if opened_s
                else "in use"
            )
            table.row(f"{kind} {rate:.0%}{', behind alive+' if watched else ''}", worst_s, note)
    table.finish(args)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
