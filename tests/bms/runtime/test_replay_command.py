"""`bms replay`: nothing differs where nothing was changed, and one bit is found where it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bms.cli import main
from bms.runtime.recording import rewrite
from bms.runtime.replay import replay
from hal.backends.replay import FILE_NAME, Recording
from hal.codec import recording as codec


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(w) for w in words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_run_replays_without_a_difference(recorded: Path, capsys) -> None:
    steps = len(list(Recording(recorded)))
    for target in (recorded, recorded / FILE_NAME):
        code, out, err = said(capsys, "replay", target, "--quiet")
        assert (code, err) == (0, "")
        assert out == f"{steps} steps, 0 differences\n"


@pytest.mark.parametrize("bit", [0, 11, 22])
@pytest.mark.parametrize("step", [1, 2, 57])
def test_a_flipped_bit_in_a_voltage_is_named(recorded: Path, tmp_path: Path, capsys, bit: int, step: int) -> None:
    def flip(number: int, row) -> None:
        if number == step:
            row["measurement"]["cell_v"].view(np.uint32)[0, 5] ^= 1 << bit

    rewrite(recorded, tmp_path / "flipped.bms", flip)
    code, out, _ = said(capsys, "replay", tmp_path / "flipped.bms", "--quiet")
    assert code == 1
    assert f"first difference: step {step} (t = {step - 1} s): estimates of the cells" in out
    assert ", 0 differences" not in out


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda row: row["command"]["head"]["contactors"].__ixor__(4), "command contactors: 3, recorded 7"),
        (lambda row: row["command"]["head"]["limit_charge_w"].view(np.uint32).__ixor__(1), "command limit_charge_w"),
        (lambda row: row["command"]["balance"][0].__setitem__(3, 1), "command balance[3]: 0, recorded 1"),
        (lambda row: row["estimate_crc"].__ixor__(1), "estimates of the cells"),
        (lambda row: row["status"].__ixor__(2), "status: 0, recorded 2"),
        (
            lambda row: row["measurement"]["head"]["interlock_closed"].__setitem__(0, 0),
            "command fault_fatal[0]: 1073741824, recorded 0",
        ),
    ],
)
def test_every_field_that_differs_is_named(recorded: Path, tmp_path: Path, change, field: str) -> None:
    rewrite(recorded, tmp_path / "other.bms", lambda number, row: change(row) if number == 100 else None)
    outcome = replay(Recording(tmp_path / "other.bms"))
    assert outcome.first_step == 100
    assert any(field in text for text in outcome.first_fields), outcome.first_fields


def test_a_changed_request_or_time_step_changes_decisions(recorded: Path, tmp_path: Path) -> None:
    for name, value in (("request", 0), ("dt_s", 2.0)):
        rewrite(
            recorded,
            tmp_path / "o.bms",
            lambda n, row, name=name, value=value: row[name].fill(value) if n == 60 else None,
        )
        assert replay(Recording(tmp_path / "o.bms")).first_step == 60


def test_a_flipped_bit_in_the_file_is_placed(recorded: Path, tmp_path: Path, capsys) -> None:
    data = (recorded / FILE_NAME).read_bytes()
    at, step = len(codec.MAGIC), 0
    while step < 33:
        at, step = at + codec.FRAME.size + codec.FRAME.unpack_from(data, at)[0], step + 1
    spoilt = bytearray(data)
    spoilt[at + codec.FRAME.size + 20] ^= 0x40
    (tmp_path / "spoilt.bms").write_bytes(spoilt)
    code, out, _ = said(capsys, "replay", tmp_path / "spoilt.bms", "--quiet")
    assert code == 1
    assert "step 33 is damaged" in out
    assert out.endswith("32 steps, 0 differences\n")


def test_a_cut_recording_replays_what_is_whole_and_says_so(recorded: Path, tmp_path: Path, capsys) -> None:
    data = (recorded / FILE_NAME).read_bytes()
    (tmp_path / "cut.bms").write_bytes(data[: len(data) * 2 // 3])
    code, out, _ = said(capsys, "replay", tmp_path / "cut.bms", "--quiet")
    assert code == 0
    assert "cut off" in out
    assert ", 0 differences" in out
    last = codec.FRAME.size + len(list(codec.Frames(data))[-1][1])
    (tmp_path / "cut.bms").write_bytes(data[:-last])
    code, out, _ = said(capsys, "replay", tmp_path / "cut.bms", "--quiet")
    assert code == 0
    assert "the run was cut short" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a recording"),
        (b"time_s,current_a\n0,1\n", "not a recording"),
        (codec.MAGIC, "cut off inside the header"),
        (codec.MAGIC + b"\0" * 40, "header is damaged"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_recording_is_one_line(tmp_path: Path, capsys, content: bytes | None, message: str) -> None:
    path = tmp_path / "r.bms"
    if content is not None:
        path.write_bytes(content)
    code, out, err = said(capsys, "replay", path)
    assert (code, out) == (2, "")
    assert err.startswith("bms: error: ")
    assert str(path) in err
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_without_a_recording_is_one_line(tmp_path: Path, capsys) -> None:
    code, _, err = said(capsys, "replay", tmp_path)
    assert code == 2
    assert FILE_NAME in err


def test_progress_is_shown(recorded: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bms.runtime.replay.PROGRESS_EVERY_S", 0.0)
    _, out, _ = said(capsys, "replay", recorded)
    assert "replayed 64 steps  53%" in out
