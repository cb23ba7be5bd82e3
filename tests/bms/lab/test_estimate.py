"""`bms estimate`: the kernel over a trace, its score, and every mistake in one line with exit code 2."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.cli import main
from bms.core import estimator_layout as e
from bms.core.estimator import estimator_step
from bms.core.estimator_setup import estimator_config, estimator_state
from bms.lab.estimate import DEFAULT_STD, Estimate, estimate, score
from bms.lab.trace import Trace, read_columns, read_trace

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bms(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, str, str]:
        try:
            code = main([str(w) for w in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def trace(files: Path) -> Trace:
    return read_trace(files / "duty.csv")


# ---------------------------------------------------------------------------------------------------------- the numbers


def test_it_is_the_kernel_of_the_controller_bit_for_bit(plain_cell: CellParameters, trace: Trace) -> None:
    found = estimate(trace, plain_cell, 0.9, 0.1)
    config = estimator_config(plain_cell)
    state = estimator_state(config, 1, 0.9, 0.1, degc=float(trace.temperature_degc[0]))
    out = state.out.reshape(e.OUT_ROWS, -1)
    good = np.zeros(1, np.uint8)
    for k in range(600):
        volt, degc = (x[k : k + 1].astype(np.float32) for x in (trace.voltage_v, trace.temperature_degc))
        estimator_step(config, state, volt, good, degc, np.float32(trace.current_a[k]), np.uint8(0), np.float32(1.0))
        assert (found.soc[k], found.soc_std[k], found.model_v[k]) == tuple(out[: e.INNOVATION, 0].astype(float))


def test_a_right_start_stays_right(plain_cell: CellParameters, trace: Trace) -> None:
    found = estimate(trace, plain_cell, 1.0)
    s = score(trace, found)
    assert s.rmse < 0.005
    assert s.coverage > 0.99
    assert np.sqrt(np.mean((found.model_v - trace.voltage_v)[60:] ** 2)) < 5e-3


def test_without_a_start_the_first_voltage_tells(plain_cell: CellParameters, trace: Trace) -> None:
    found = estimate(trace, plain_cell)
    assert found.soc[0] == pytest.approx(1.0, abs=0.03)
    assert found.soc_std[0] < 0.05


def test_a_start_without_a_deviation_has_the_default_unless_the_voltage_contradicts_it(
    plain_cell: CellParameters, trace: Trace
) -> None:
    assert estimate(trace, plain_cell, 1.0).soc_std[0] == pytest.approx(DEFAULT_STD, rel=0.2)
    told = estimate(trace, plain_cell, 0.8)
    assert told.soc_std[0] > 2 * DEFAULT_STD
    assert abs(told.soc[600] - trace.soc_true[600]) < 3 * told.soc_std[600]  # type: ignore[index]


def test_missing_voltages_are_counted_and_bridged(plain_cell: CellParameters, trace: Trace) -> None:
    volt = trace.voltage_v.copy()
    volt[[0, 1, 2]] = np.nan
    volt[1000:1600] = np.nan
    found = estimate(replace(trace, voltage_v=volt), plain_cell, 1.0)
    np.testing.assert_array_equal(found.skipped, np.isnan(volt))
    assert np.all(np.isfinite(found.soc))
    assert score(trace, found).rmse < 0.01
    nothing = estimate(replace(trace, voltage_v=np.full_like(volt, np.nan)), plain_cell)
    assert nothing.soc[0] == pytest.approx(0.5, abs=1e-3)
    assert nothing.soc_std[0] == pytest.approx(0.29, abs=0.01)


def test_the_score_is_arithmetic() -> None:
    n = np.arange(10.0)
    truth = Trace(100.0 + 360.0 * n, 0 * n, 0 * n, 0 * n, np.full(10, 0.5))
    soc, std, never = np.full(10, 0.5), np.full(10, 0.01), np.zeros(10, bool)
    soc[0], soc[9], std[9] = 0.8, 0.54, 0.02
    s = score(truth, Estimate(soc, std, 0 * n, 0.0, never, never))
    assert s.rmse == pytest.approx(np.sqrt((0.3**2 + 0.04**2) / 10))
    assert s.max_error == pytest.approx(0.3)
    assert s.coverage == pytest.approx(0.9)
    assert s.mean_std == pytest.approx(0.011)
    late = score(truth, Estimate(soc, std, 0 * n, 0.0, never, never), 360.0)
    assert late.max_error == pytest.approx(0.04)
    assert late.rmse == pytest.approx(0.04 / 3)
    with pytest.raises(ValueError, match="no soc_true"):
        score(replace(truth, soc_true=None), Estimate(soc, std, 0 * n, 0.0, never, never))


# ------------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_columns_and_summary(bms: Run, files: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"soc{suffix}"
    code, text, err = bms(
        "estimate", files / "duty.csv", "--cell", files / "plain.toml", "--initial-soc", 1.0, "-o", out
    )
    assert code == 0, err
    d = read_columns(out, ["time_s", "soc", "soc_std", "voltage_model_v"])
    trace = read_trace(files / "duty.csv")
    np.testing.assert_array_equal(d["time_s"], trace.time_s)
    assert trace.soc_true is not None
    rmse = 100 * np.sqrt(np.mean((d["soc"] - trace.soc_true) ** 2))
    assert f"RMSE {rmse:.2f} %" in text
    assert "within 3 sigma 100.00 %" in text
    assert f"estimate: {out}" in text


def test_a_plot(bms: Run, files: Path, tmp_path: Path) -> None:
    args = ("estimate", files / "duty.csv", "--cell", files / "plain.toml", "-o", tmp_path / "soc.csv", "--plot")
    code, text, err = bms(*args, tmp_path / "soc.png")
    assert code == 0, err
    assert (tmp_path / "soc.png").read_bytes().startswith(b"\x89PNG")
    assert f"plot: {tmp_path / 'soc.png'}" in text
    refused(bms(*args, tmp_path / "none/soc.png"), "does not exist")


def test_only_what_comes_after_is_judged(bms: Run, files: Path, tmp_path: Path) -> None:
    args = ("estimate", files / "duty.csv", "--cell", files / "plain.toml", "--initial-soc", 0.6, "--initial-soc-std", 0.3, "-o", tmp_path / "o.csv")  # fmt: skip
    _, all_text, _ = bms(*args)
    _, late_text, _ = bms(*args, "--after", 0.5)

    def largest(text: str) -> float:
        return float(text.partition("maximum ")[2].split()[0])

    assert largest(all_text) > 20 > 5 > largest(late_text)
    refused(bms(*args, "--after", 1000), "--after 1000", "only")
    refused(bms(*args, "--after", -1), "--after -1")


def test_a_shipped_cell_by_its_name(bms: Run, files: Path, tmp_path: Path) -> None:
    code, _, err = bms("estimate", files / "duty.csv", "--cell", "lfp_a123", "-o", tmp_path / "o.csv")
    assert code == 0, err


def refused(result: tuple[int, str, str], *mentions: str) -> None:
    code, _, err = result
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("bms: error: ")
    for mention in mentions:
        assert mention in err


HEADER = "time_s,current_a,voltage_v,temperature_degc"
ROWS = ["0,1,3.3,25", "1,1,3.3,25", "2,1,3.3,25"]


def spoilt(line: int, text: str) -> bytes:
    return "\n".join([HEADER, *ROWS[:line], text, *ROWS[line + 1 :]]).encode()


@pytest.mark.parametrize(
    ("content", "mentions"),
    [
        (b"", ("empty",)),
        ((HEADER + "\n").encode(), ("row",)),
        ("\n".join([HEADER.replace("voltage_v", "volts"), *ROWS]).encode(), ("voltage_v",)),
        (spoilt(1, "1,one,3.3,25"), ("current_a", "one", "line 3")),
        (spoilt(1, "1,nan,3.3,25"), ("current_a", "line 3")),
        (spoilt(2, "0.5,1,3.3,25"), ("time_s", "line 4")),
        (spoilt(2, "2,1,3.3"), ("line 4",)),
        (spoilt(2, "2,inf,3.3,25"), ("current_a",)),
        (gzip.compress("\n".join([HEADER, *ROWS * 50]).encode())[:-9], ("trace.csv",)),
        ("\n".join([HEADER + ",soc_true", *[f"{r},95" for r in ROWS]]).encode(), ("soc_true", "per cent")),
    ],
    ids=["empty", "no rows", "missing column", "text", "nan current", "time backwards", "short row", "infinite", "torn gzip", "per cent"],
)  # fmt: skip
def test_a_bad_trace(bms: Run, files: Path, tmp_path: Path, content: bytes, mentions: tuple[str, ...]) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    refused(bms("estimate", path, "--cell", files / "plain.toml", "-o", tmp_path / "o.csv"), str(path), *mentions)
    assert not (tmp_path / "o.csv").exists()


def test_a_bad_cell(bms: Run, files: Path, tmp_path: Path) -> None:
    args = ("estimate", files / "duty.csv", "-o", tmp_path / "o.csv", "--cell")
    refused(bms(*args, "lfp_a132"), "unknown cell 'lfp_a132'", "did you mean 'lfp_a123'?")
    refused(bms(*args, tmp_path / "none.toml"), "none.toml")
    good = (files / "plain.toml").read_text()
    bad = tmp_path / "bad.toml"
    bad.write_text(good.replace("3.280000, 3.290000", "3.290000, 3.280000"))
    refused(bms(*args, bad), "bad.toml", "not monotone")
    bad.write_text(good + "\n[filter]\nvoltage_sdt = 1\n")
    refused(bms(*args, bad), "filter.voltage_sdt", "voltage_std")


def test_bad_options(bms: Run, files: Path, tmp_path: Path) -> None:
    args = ("estimate", files / "duty.csv", "--cell", files / "plain.toml", "-o", tmp_path / "o.csv")
    refused(bms(*args, "--initial-soc", 80), "--initial-soc 80", "between 0 and 1")
    refused(bms(*args, "--initial-soc", "nan"), "--initial-soc nan")
    refused(bms(*args, "--initial-soc-std", -0.1), "--initial-soc-std -0.1")
    refused(bms(*args, "--initial-soc", "full"), "--initial-soc", "full")
    refused(bms("estimate", files / "none.csv", *args[2:]), "none.csv")
    refused(bms(*args[:-1], tmp_path / "none/o.csv"), "does not exist")
    refused(bms(*args[:2], "-o", tmp_path / "o.csv"), "--cell")
