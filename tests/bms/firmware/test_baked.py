"""A configuration as a constant of C: the record that the controller in Python takes, byte for byte."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bms import racks
from bms.firmware.baked import baked, config_header, config_source, keep, sizes
from hal.contract import Command, Measurement
from hal.errors import ConfigError


def test_a_program_has_the_bytes_of_the_record(compiled: Callable[..., Path], built: Path) -> None:
    found = baked("nmc_ev", 7)
    assert (found.record.n_cells, found.record.n_sensors) == (racks.load("nmc_ev").rack.n_series, 7)
    source = '#include <stdio.h>\n' + config_source(found) + (
        "int main(void) {\n    return fwrite(rackbms_config, 1, RACKBMS_CONFIG_SIZE, stdout) != RACKBMS_CONFIG_SIZE;\n}\n"
    )  # fmt: skip
    header = built / "rackbms_config.h"
    header.write_text(config_header(found))
    try:
        done = subprocess.run([compiled(source, "-std=gnu11")], capture_output=True, check=True)
    finally:
        header.unlink()
    assert done.stdout == found.record.bytes.tobytes()


def test_the_header_tells_hash_and_sizes() -> None:
    found = baked("lfp_280", None)
    text = config_header(found)
    told = dict(re.findall(r"#define RACKBMS_CONFIG_(\w+) (\S+)", text))
    assert (told["CELLS"], told["SENSORS"], told["PERIOD_US"]) == ("416", "52", "1000000")
    assert told["HASH"] == f'"{found.digest}"'
    assert int(told["MEASUREMENT_SIZE"]) == Measurement(416, 52).bytes.size == sizes(416, 52)["measurement"]
    assert int(told["COMMAND_SIZE"]) == Command(416, 52).bytes.size
    assert found.digest != baked("lfp_280", 51).digest


def test_sensors_stand_for_as_many_cells_each() -> None:
    _, counts = np.unique(baked("lfp_280", 52).record.sensor_of_cell, return_counts=True)
    assert counts.tolist() == [8] * 52


@pytest.mark.parametrize("n", [0, -1, 417])
def test_a_number_of_sensors_that_cannot_be(n: int) -> None:
    with pytest.raises(ConfigError, match=rf"--sensors {n}: expected 1..416"):
        baked("lfp_280", n)


def test_a_kept_record_is_the_configuration_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path))
    found = baked("nmc_ev", 12)
    path = keep(found)
    again = baked(str(path), None)
    assert path.is_relative_to(tmp_path)
    assert (again.digest, again.record.n_sensors, again.source) == (found.digest, 12, str(path))
    with pytest.raises(ConfigError, match="--sensors 3: .* says how many there are"):
        baked(str(path), 3)
    (tmp_path / "rackbms" / "short.bin").write_bytes(path.read_bytes()[:-1])
    (tmp_path / "rackbms" / "empty.bin").write_bytes(b"")
    (tmp_path / "rackbms" / "noise.bin").write_bytes(b"\xff" * 300_000)
    for name in ("short", "empty", "noise"):
        with pytest.raises(ConfigError, match=f"--config .*{name}.bin: not the configuration of a rack"):
            baked(str(tmp_path / "rackbms" / f"{name}.bin"), None)
    with pytest.raises(ConfigError, match="--config none.bin: cannot be read: No such file"):
        baked("none.bin", None)
    monkeypatch.setenv("RACKBMS_CACHE_DIR", "/dev/null")
    with pytest.raises(ConfigError, match="the configuration cannot be kept"):
        keep(found)
