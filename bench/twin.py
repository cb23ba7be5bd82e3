"""What does one step of the twin cost per cell, and one read and write of a whole simulated rack?

Run with `make bench`, or `python -m pytest bench/twin.py --benchmark-only -q`. A control loop at 1 s that simulates a
day makes 86,400 reads and writes: 65 us for both are 6 s. Figures are medians of rounds on an otherwise idle machine.
"""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hal.backends.simulated import SimulatedRack
from hal.contract import Command, Measurement
from sim import kernels as K
from sim.cell import load
from sim.rack import RackTwin, rack_config

NO_LIMIT = np.full(4, 1e9)


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n{line}", end="")


@pytest.mark.parametrize("steps_per_call", [1, 100])
@pytest.mark.parametrize(
    ("cell", "n_series", "n_parallel"), [("lfp_280", 416, 1), ("na_185", 352, 1), ("nmc_ev", 96, 2), ("lfp_280", 4, 1)]
)
def test_step(
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
    cell: str,
    n_series: int,
    n_parallel: int,
    steps_per_call: int,
) -> None:
    """Electrical and thermal step of 1 s under power that changes sign, so that the state of charge stays put."""
    data = load(cell)
    rack = RackTwin(data, rack_config(data, {"n_series": n_series, "n_parallel": n_parallel}))
    watt = np.empty(steps_per_call)
    watt[:] = 0.3 * data.head.capacity_ah * n_parallel * rack.string[K.S_PACK_V]

    def step() -> None:
        np.negative(watt, out=watt)
        rack.advance(K.CLOSED, watt, False, NO_LIMIT, 1.0)

    step()
    benchmark.pedantic(step, rounds=60, iterations=max(1, 20000 // (rack.n_cells * steps_per_call)), warmup_rounds=3)
    second = benchmark.stats.stats.median / steps_per_call
    ns = 1e9 * second / rack.n_cells
    benchmark.extra_info["ns_per_cell_step"] = ns
    what = f"{cell} {n_series}s{n_parallel}p, {steps_per_call} steps a call"
    tell(capsys, f"twin step   {what:38} {ns:7.1f} ns per cell-step {1e6 * second:8.1f} us a step")


@pytest.mark.parametrize("cell", ["lfp_280", "nmc_ev"])
def test_read_and_write(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], cell: str) -> None:
    """What a loop at 1 s pays for the rack: duty, physics, sensors, records."""

    class Clock:
        now = 0.0

        def now_s(self) -> float:
            return self.now

    clock = Clock()
    with SimulatedRack(cell, clock=clock, options={"duty": {"start_s": 0.0}}) as rack:
        info = rack.info
        measurement, command = Measurement(info.n_cells, info.n_sensors), Command(info.n_cells, info.n_sensors)
        head = command.head
        head["cooling_degc"], head["soc_mean"] = 25.0, 0.5
        head["limit_discharge_a"] = head["limit_charge_a"] = 0.5 * info.capacity_ah
        head["limit_discharge_w"] = head["limit_charge_w"] = 1e6

        def turn() -> None:
            clock.now += 1.0
            head["heartbeat"] += 1
            rack.read(measurement)
            rack.write(command)

        for contactors in (0b110, 0b011):  # precharge, then the mains
            head["contactors"] = contactors
            for _ in range(5):
                turn()
        benchmark.pedantic(turn, rounds=60, iterations=50, warmup_rounds=3)
        assert not rack.events
        assert measurement.head["contactors"][0] == 0b011
    second = benchmark.stats.stats.median
    tell(capsys, f"read, write {cell + f' {info.n_cells} cells, 1 s':38} {1e6 * second:8.1f} us a turn")
