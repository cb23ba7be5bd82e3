"""Logs of a bus as racks: what was on the bus comes out again, in its time; damage is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bus_log import SENSORS, N, Time, write_log
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bms.cli import main
from hal.backends.log import LogRack, frames, span_s
from hal.contract import Command, Measurement, Quality
from hal.errors import ConfigError, DataError
from hal.registry import open_rack

OPTIONS: dict[str, Any] = {
    "duty": {"kind": "constant", "c_rate": 0.3},
    "fault": [{"kind": "cell_v_missing", "index": [1], "at_s": 3.0}],
}
SIZE = f"n_cells={N}&n_sensors={SENSORS}"


@pytest.fixture(scope="module", params=[".log", ".blf", ".asc"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A log of six seconds, and what was measured."""
    path = tmp_path_factory.mktemp("log") / f"bus{request.param}"
    return path, write_log(path, 6.0, OPTIONS)


def played(path: Path, query: str, times_s: list[float]) -> list[Measurement]:
    clock = Time()
    seen = []
    with open_rack(f"replay:{path}?{query}", clock=clock) as rack:
        for time_s in times_s:
            clock.now = time_s
            seen.append(Measurement(rack.info.n_cells, rack.info.n_sensors))
            rack.read(seen[-1])
    return seen


def test_what_was_on_the_bus_comes_out_again(log: tuple[Path, Any]) -> None:
    path, measured = log
    for k, m in enumerate(played(path, SIZE, [0.1 * k for k in range(59)])):
        true = measured[k]
        gap = np.abs(m.cell_v - true["cell_v"])
        assert np.nanmax(gap) <= 0.51e-4, k  # half a step of the wire
        assert m.cell_v_quality.tolist() == [0, Quality.MISSING if 0.1 * k >= 3.0 - 1e-9 else 0, *[0] * (N - 2)]
        assert m.head["pack_v"][0] == pytest.approx(true["head"]["pack_v"], abs=0.051)
        assert m.cell_v_age_s.max() <= 0.11
        assert m.head["sequence"][0] == 1 + k


def test_past_its_end_everything_grows_stale(log: tuple[Path, Any]) -> None:
    last, later, unheard = played(log[0], SIZE, [5.9, 8.0, 11.5])
    assert not (last.cell_v_quality & Quality.STALE).any()
    assert (later.cell_v_quality & Quality.STALE).all()
    assert later.head["interlock_closed"][0] == 1, "not heard for two seconds only"
    assert unheard.head["interlock_closed"][0] == 0
    assert later.cell_v_age_s.min() > 2.0


def test_the_size_of_the_rack_is_taken_from_the_log(log: tuple[Path, Any]) -> None:
    (m,) = played(log[0], "", [1.0])
    assert (m.n_cells, m.n_sensors) == (N, SENSORS)


def test_a_command_has_no_effect_and_opening_again_begins_anew(log: tuple[Path, Any]) -> None:
    clock = Time()
    rack: Any = open_rack(f"replay:{log[0]}?{SIZE}", clock=clock)
    m = Measurement(N, SENSORS)
    firsts = []
    for _ in range(2):
        with rack:
            clock.now += 3.0
            rack.write(Command(N, SENSORS))
            rack.read(m)
            firsts.append(m.cell_v.copy())
    assert isinstance(rack, LogRack)
    np.testing.assert_array_equal(firsts[0], firsts[1])


def test_the_controller_runs_on_a_log(log: tuple[Path, Any], tmp_path: Path) -> None:
    words = ["--cell", "lfp_280", "--out", str(tmp_path / "out"), "--no-report", "--quiet"]
    assert main(["run", "--rack", f"replay:{log[0]}?{SIZE}", *words]) in (0, 1)
    assert main(["replay", str(tmp_path / "out"), "--quiet"]) == 0
    assert span_s(log[0]) == pytest.approx(5.9, abs=1e-3)


def test_the_doctor_looks_a_log_over(log: tuple[Path, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--rack", f"replay:{log[0]}?{SIZE}", "--for", "5.5s"]) == 1
    out = capsys.readouterr().out
    assert "cell 1: no value in up to" in out
    assert "update                good       100 ms" in out


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_log_of_another_bus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.log"
    path.write_text("(1700000000.000000) can0 123#0011\n(1700000000.100000) can0 124#0011\n")
    with (
        pytest.raises(DataError, match=r"other.log: not every message of the profile is in it \(2 frames\)"),
        open_rack(f"replay:{path}?{SIZE}", clock=Time()),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.log", b"", "holds no frame"),
        ("a.log", b"rubbish\n", "damaged after 0 frames"),
        ("a.log", b"(1700000000.000000) can0 123#00\n(17000", "damaged after 1 frames"),
        ("a.blf", b"LOGG" + bytes(200), "a.blf: "),
        ("a.blf", b"", "a.blf: "),
    ],
)
def test_damaged_logs_are_one_line(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        frames(tmp_path / name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_frames_or_one_error(data: st.DataObject, log: tuple[Path, Any], tmp_path: Path) -> None:
    whole = log[0].read_bytes()[:20000]
    spoilt = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"spoilt{log[0].suffix}"
    path.write_bytes(bytes(spoilt[: data.draw(st.integers(0, len(spoilt)))]))
    try:
        assert frames(path)
    except DataError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("profil=reference", "unknown key 'profil' (did you mean 'profile'?)"),
        ("bitrate=500000", "unknown key 'bitrate'"),
        ("profile=foo", "profile 'foo': unknown"),
        ("n_cells=x", "n_cells = x: expected a number above 0"),
    ],
)
def test_keys_that_cannot_be_are_refused(query: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_rack(f"replay:a.log?{query}", clock=Time())
    assert says in str(caught.value)


def test_a_log_needs_a_clock_and_no_tables() -> None:
    with pytest.raises(ConfigError, match="a log needs the clock of a loop"):
        open_rack("replay:a.log")
    with pytest.raises(ConfigError, match="a log has no table 'duty'"):
        open_rack("replay:a.log", clock=Time(), options={"duty": {"kind": "constant"}})
    with pytest.raises(DataError, match=r"none.log: cannot be read"), open_rack("replay:none.log", clock=Time()):
        pass
