"""The reference DBC: the shipped files are what the generator writes, and tools that nobody here wrote read them."""

import logging
import warnings
from pathlib import Path

import cantools
import pytest

from hal.codec import can_profile
from hal.codec.can_wire import MeasurementWire
from hal.codec.dbc import parse
from hal.codec.frames import Codec, Outbox
from hal.contract import Measurement
from hal.errors import ConfigError
from hal.profiles.reference.generate import dbc_text, main

FOLDER = can_profile.FOLDER / can_profile.REFERENCE


@pytest.mark.parametrize(("name", "fd"), [("reference_416.dbc", False), ("reference_416_fd.dbc", True)])
def test_the_shipped_file_is_what_the_generator_writes(name: str, fd: bool) -> None:
    assert (FOLDER / name).read_text() == dbc_text(416, 104, fd), (
        "python -m hal.profiles.reference.generate --cells 416"
    )


@pytest.mark.parametrize("fd", [False, True])
@pytest.mark.parametrize("n_cells", [1, 12, 416])
def test_cantools_reads_it_strictly_and_without_a_warning(
    n_cells: int, fd: bool, caplog: pytest.LogCaptureFixture
) -> None:
    text = dbc_text(n_cells, -(-n_cells // 4), fd)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        peer = cantools.database.load_string(text, "dbc", strict=True)
    assert not caplog.records
    ours = parse(text, "reference")
    assert [m.name for m in peer.messages] == [m.name for m in ours.messages]
    for m, o in zip(ours.messages, peer.messages, strict=True):
        assert o.cycle_time == m.cycle_s * 1e3
        assert o.is_fd == fd
        assert o.senders == [m.sender]
    identifiers = [m.identifier for m in ours.messages]
    assert len(set(identifiers)) == len(identifiers)


@pytest.mark.parametrize("fd", [False, True])
def test_cantools_decodes_every_frame_of_a_scan(fd: bool) -> None:
    """The values of a measurement, as one who has nothing but the DBC sees them."""
    profile = can_profile.load("reference", fd=fd)
    peer = cantools.database.load_file(FOLDER / ("reference_416_fd.dbc" if fd else "reference_416.dbc"))
    codec = Codec(profile.database, profile.measurement_messages(), profile.protection)
    m = Measurement(416, 104)
    m.cell_v[:] = [3.0 + 1e-4 * k for k in range(416)]
    m.sensor_degc[:] = [-20.0 + k for k in range(104)]
    m.head["current_a"], m.head["pack_v"], m.head["contactors"] = -123.45, 1310.25, 3
    m.bleeding[::5] = 1
    wire = MeasurementWire(profile, codec)
    wire.load(m)
    codec.encode()
    seen: dict[str, float] = {}
    for key, data in Outbox(codec).frames(range(len(codec.rows))):
        seen |= peer.decode_message(key, data, decode_choices=False)
    assert [seen[f"CellVoltage_{k:03}"] for k in range(416)] == pytest.approx(m.cell_v.tolist(), abs=0.5001e-4)
    assert [seen[f"Temperature_{k:03}"] for k in range(104)] == pytest.approx(m.sensor_degc.tolist(), abs=0.05)
    assert [seen[f"Bleeding_{k:03}"] for k in range(416)] == m.bleeding.tolist()
    assert (seen["Current"], seen["PackVoltage"], seen["Contactors"]) == pytest.approx((-123.45, 1310.25, 3), abs=0.005)
    assert all(value == 1 for name, value in seen.items() if "Valid" in name)


def test_a_frame_holds_as_much_as_fits() -> None:
    """3 cells or 4 temperatures beside checksum and counter in 8 bytes, 29 or 38 in 64."""
    counts = [(len(parse(dbc_text(416, 104, fd), "x").messages)) for fd in (False, True)]
    assert counts == [139 + 26 + 8 + 5 + 12, 15 + 3 + 1 + 5 + 5]


def test_the_command_writes_a_file_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cells", "8", "-o", str(tmp_path / "eight.dbc")]) == 0
    assert (tmp_path / "eight.dbc").read_text() == dbc_text(8, 2)
    assert main(["--cells", "8", "--sensors", "3", "--fd"]) == 0
    assert capsys.readouterr().out == dbc_text(8, 3, fd=True)
    assert main(["--cells", "9999"]) == 2
    assert main(["--cells", "9", "-o", str(tmp_path / "no" / "x.dbc")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "9999 cells" in said[0]


def test_a_size_without_identifiers_is_refused() -> None:
    with pytest.raises(ConfigError, match="use fd=1"):
        dbc_text(3200, 100)
    dbc_text(3200, 100, fd=True)
