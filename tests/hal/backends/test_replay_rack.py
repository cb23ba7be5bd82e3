"""A recording played back as a rack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hal.backends.replay import Recording, ReplayRack, info_from_json, info_to_json, layout_digests
from hal.codec import recording as codec
from hal.contract import Capabilities, Command, HasTruth, Measurement, Quality, Rack, RackInfo, Truth
from hal.errors import ConfigError, DataError
from hal.registry import open_rack

INFO = RackInfo("old", 3, 2, 1, 50.0, "lfp_280", np.array([0, 0, 1], np.uint16), Capabilities(truth=True))
N_STEPS = 6


class Clock:
    def __init__(self) -> None:
        self.time_s = 500.0

    def now_s(self) -> float:
        return self.time_s


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Six steps, one each 2 s from t = 100 s, truth in every third."""
    header = {"format": 1, "layouts": layout_digests(), "rack": info_to_json(INFO), "about": {}}
    encoder = codec.StepCodec(3, 2)
    measurement, command, truth = Measurement(3, 2), Command(3, 2), Truth(3, 2)
    data = codec.MAGIC + codec.frame(0, codec.json_payload(codec.Kind.HEADER, header))
    for k in range(N_STEPS):
        measurement.head["time_s"], measurement.head["sequence"] = 100.0 + 2 * k, 10 + k
        measurement.cell_v[:] = 3.0 + 0.01 * k
        truth.soc[:] = 0.1 * k
        encoder.row["dt_s"] = 2.0
        data += codec.frame(k + 1, encoder.encode(measurement, command, truth if k % 3 == 0 else None))
    path = tmp_path / "recording.bms"
    path.write_bytes(data + codec.frame(N_STEPS + 1, codec.json_payload(codec.Kind.END, {})))
    return path


def test_the_description_survives() -> None:
    again = info_from_json(info_to_json(INFO))
    assert again.capabilities == INFO.capabilities
    assert again.sensor_of_cell.tolist() == [0, 0, 1]
    assert again.sensor_of_cell.dtype == np.uint16
    assert (again.name, again.n_cells, again.capacity_ah, again.cell) == ("old", 3, 50.0, "lfp_280")


@pytest.mark.parametrize("whole_folder", [False, True])
def test_the_clock_decides_which_measurement_is_newest(file: Path, whole_folder: bool) -> None:
    clock = Clock()
    out, truth = Measurement(3, 2), Truth(3, 2)
    with open_rack(f"replay:{file.parent if whole_folder else file}", clock=clock) as rack:
        assert isinstance(rack, Rack)
        assert isinstance(rack, HasTruth)
        assert rack.info.name == "old"
        seen = []
        for time_s in (0, 0, 1.9, 2.0, 7.0, 10.0):
            clock.time_s = 500.0 + time_s
            rack.read(out)
            rack.truth(truth)
            seen.append((int(out.head["sequence"][0]), round(float(truth.soc[0]), 3)))
            rack.write(Command(3, 2))
        assert seen == [(10, 0.0), (10, 0.0), (10, 0.0), (11, 0.0), (13, 0.3), (15, 0.3)]
        assert not out.cell_v_quality.any()
        # past the end: the last values, marked stale, ever older
        for late_s in (1.5, 4.0):
            clock.time_s = 510.0 + late_s
            rack.read(out)
            assert out.cell_v[0] == np.float32(3.05)
            assert (out.cell_v_quality == Quality.STALE).all()
            assert out.head["current_a_quality"][0] == Quality.STALE
            assert out.cell_v_age_s[0] == pytest.approx(late_s)


def test_opening_again_starts_again(file: Path) -> None:
    clock = Clock()
    rack = ReplayRack(str(file), clock=clock)
    out = Measurement(3, 2)
    for _ in range(2):
        with rack:
            clock.time_s += 4.0
            rack.read(out)
            assert out.head["sequence"][0] == 12
    with pytest.raises(RuntimeError, match="not open"):
        rack.read(out)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("replay:", {}, "which recording"),
        ("replay:x?speed=2", {}, "speed"),
        ("replay:x", {"rack": {"seed": 1}}, "rack"),
    ],
)
def test_options_that_a_recording_cannot_follow_are_refused(url: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_rack(url, clock=Clock(), options=options)


def test_a_recording_needs_a_clock() -> None:
    with pytest.raises(ConfigError, match="clock"):
        ReplayRack("x")


def test_an_empty_recording_is_refused(file: Path) -> None:
    header = codec.MAGIC + codec.frame(0, next(iter(codec.Frames(file.read_bytes())))[1])
    file.write_bytes(header)
    with pytest.raises(DataError, match="no step"), ReplayRack(str(file), clock=Clock()):
        pass


def test_a_payload_of_another_size_names_its_step(file: Path) -> None:
    data = file.read_bytes()
    payloads = [payload for _, payload in codec.Frames(data)]
    payloads[3] = payloads[3][:-4]
    file.write_bytes(codec.MAGIC + b"".join(codec.frame(k, p) for k, p in enumerate(payloads)))
    with pytest.raises(codec.DamagedError) as caught:
        list(Recording(file))
    assert caught.value.step == 3
