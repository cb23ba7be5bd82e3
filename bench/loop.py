"""What does the loop cost around the rack: one step of the controller, its call from Python, and recording it?

Run with `make bench`, or `python -m pytest bench/loop.py --benchmark-only -q`. A day at 1 s is 86,400 steps: 100 us for
all of it are 9 s. The call alone (a rack of two cells) is what many small racks would pay; it should stay below 60 us.
"""

import io

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bms.core.control import Request
from bms.runtime.clock import VirtualClock
from bms.runtime.recording import estimate_crc
from bms.runtime.run import make_controller, open_rack
from bms.runtime.scenario import Scenario
from hal.codec.recording import StepCodec, frame

CELL = "lfp_280"


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n{line}", end="")


def rack_and_controller(n_series: int):
    clock = VirtualClock()
    scenario = Scenario(rack=f"sim:{CELL}", cell=CELL, tables={"rack": {"n_series": n_series}})
    rack = open_rack(scenario, clock)
    rack.open()
    return rack, make_controller(scenario, rack, clock), clock


@pytest.mark.parametrize("n_cells", [2, 416])
def test_step(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], n_cells: int) -> None:
    """Estimator and control of a rack, called from Python once."""
    _, controller, _ = rack_and_controller(n_cells)
    sequence = controller.measurement.head["sequence"]

    def step() -> None:
        sequence[0] += 1
        controller.step(Request.CONNECT, 1.0)

    step()
    benchmark.pedantic(step, rounds=60, iterations=100, warmup_rounds=3)
    second = benchmark.stats.stats.median
    benchmark.extra_info["us_per_step"] = 1e6 * second
    tell(
        capsys,
        f"controller step   {n_cells:4} cells {1e6 * second:8.1f} us {1e9 * second / n_cells:9.1f} ns per cell-step",
    )


def test_record(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Checksum, pack and frame a step of 416 cells, with measurements as the twin's sensors make them."""
    rack, controller, clock = rack_and_controller(416)
    codec, out = StepCodec(416, rack.info.n_sensors), io.BytesIO()
    measured = []
    for k in range(50):
        clock.wait_until(float(k), lambda: False)
        rack.read(controller.measurement)
        measured.append(controller.measurement.raw.copy())
    turn = iter(range(1_000_000))

    def load() -> None:
        controller.measurement.raw[...] = measured[next(turn) % len(measured)]

    def record() -> None:
        codec.row["estimate_crc"] = estimate_crc(controller)
        out.write(frame(1, codec.encode(controller.measurement, controller.command, None)))

    load()
    record()
    size = out.tell()
    benchmark.pedantic(record, setup=load, rounds=500, warmup_rounds=10)
    second = benchmark.stats.stats.median
    each = (out.tell() - size) / 510
    benchmark.extra_info["bytes_per_step"] = each
    tell(
        capsys,
        f"record a step      416 cells {1e6 * second:8.1f} us {each:9.0f} bytes, {each * 86.4e-3:.0f} MB a day at 1 s",
    )
