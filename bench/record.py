"""What does recording a step cost, and how large does a day become?

Run with `make bench`, or `python -m pytest bench/record.py --benchmark-only -q`. A day at 1 s is 86,400 steps.
"""

import io

import pytest
from loop import CELLS, rack_and_controller
from pytest_benchmark.fixture import BenchmarkFixture

from bms.runtime.recording import estimate_crc
from hal.codec.recording import StepCodec, frame


def test_record(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Checksum, pack and frame a step of 416 cells, with measurements as the twin's sensors make them."""
    rack, controller, clock = rack_and_controller(CELLS)
    codec, out = StepCodec(CELLS, rack.info.n_sensors), io.BytesIO()
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
    with capsys.disabled():
        print(
            f"\nrecord a step      {CELLS} cells {1e6 * second:8.1f} us {each:9.0f} bytes, "
            f"{each * 86.4e-3:.0f} MB a day at 1 s",
            end="",
        )
