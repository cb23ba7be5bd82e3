"""Traces: what is written is read back, and every mistake is named by file, line and column."""

import gzip
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bms.lab import trace
from bms.lab.trace import read_columns, read_trace, write_atomically, write_columns
from hal.errors import ConfigError, DataError

HEADER = "time_s,current_a,voltage_v,temperature_degc\n"
GOOD = HEADER + "0,1.5,3.30,25\n1,1.5,3.29,25\n2,-0.5,3.31,25\n"

same_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Each example overwrites the file of the one before, which is what these tests want."""


def write(folder: Path, content: str | bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refuse(path: Path, *mentions: str) -> str:
    """Read a trace that must be refused; the one line of the error names the file and every mention."""
    with pytest.raises(DataError) as caught:
        read_trace(path)
    message = str(caught.value)
    assert "\n" not in message
    for mention in (str(path), *mentions):
        assert mention in message
    return message


# ------------------------------------------------------------------------------------------------------ good input


def test_reads_the_columns_of_a_trace(tmp_path: Path) -> None:
    t = read_trace(write(tmp_path, GOOD))
    assert t.time_s.tolist() == [0.0, 1.0, 2.0]
    assert t.current_a.tolist() == [1.5, 1.5, -0.5]
    assert t.voltage_v.tolist() == [3.30, 3.29, 3.31]
    assert t.temperature_degc.tolist() == [25.0, 25.0, 25.0]
    assert t.soc_true is None
    for array in (t.time_s, t.current_a, t.voltage_v, t.temperature_degc):
        assert array.dtype == np.float64
        assert array.flags.c_contiguous


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.rstrip("\n"),
        "\ufeff" + GOOD,
        "\n\n" + GOOD.replace("1,1.5", "\n \n1,1.5") + "\n\n",
        GOOD.replace(",", " , "),
        "".join(f"{line},note {i}\n" for i, line in enumerate(GOOD.splitlines())),
        re.sub(r"[^,\n]+", r'"\g<0>"', GOOD),
        "".join(f'"a, b",{line}\n' for line in GOOD.splitlines()),
        GOOD.replace("-0.5", "-5E-1").replace("25", "+25."),
    ],
    ids=[
        "crlf",
        "cr",
        "no last newline",
        "bom",
        "blank lines",
        "spaces",
        "text column",
        "quotes",
        "commas in quotes",
        "exponent",
    ],
)
def test_the_way_of_writing_does_not_matter(tmp_path: Path, text: str) -> None:
    expected = read_trace(write(tmp_path, GOOD, "good.csv"))
    found = read_trace(write(tmp_path, text))
    for name in ("time_s", "current_a", "voltage_v", "temperature_degc"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path, "soc_true,voltage_v,time_s,temperature_degc,current_a\n0.5,3.3,0,20,1\n0.4,3.2,9,21,2\n")
    t = read_trace(path)
    assert t.soc_true is not None
    assert t.soc_true.tolist() == [0.5, 0.4]
    assert (t.voltage_v[1], t.time_s[1], t.temperature_degc[1], t.current_a[1]) == (3.2, 9.0, 21.0, 2.0)


def test_an_optional_column_may_be_absent(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert list(read_columns(path, ["voltage_v"], ["soc_true", "time_s"])) == ["voltage_v", "time_s"]


@pytest.mark.parametrize("missing", ["", "nan", "NaN", '""'])
def test_a_voltage_that_was_not_measured_is_data(tmp_path: Path, missing: str) -> None:
    t = read_trace(write(tmp_path, GOOD.replace("3.29", missing)))
    np.testing.assert_array_equal(t.voltage_v, [3.30, np.nan, 3.31])


def test_a_wrong_suffix_does_not_matter_when_reading(tmp_path: Path) -> None:
    plain = read_trace(write(tmp_path, GOOD))
    zipped = read_trace(write(tmp_path, gzip.compress(GOOD.encode()), "zipped.csv"))
    np.testing.assert_array_equal(plain.voltage_v, zipped.voltage_v)


def test_two_samples_at_one_time_are_allowed(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path, GOOD.replace("2,-0.5", "1,-0.5"))).time_s.tolist() == [0.0, 1.0, 1.0]


def test_time_may_restart_with_each_script(tmp_path: Path) -> None:
    path = write(tmp_path, "script,time_s\n1,0\n1,60\n2,0\n2,60\n")
    assert read_columns(path, ["script", "time_s"], restart="script")["time_s"].tolist() == [0.0, 60.0, 0.0, 60.0]
    with pytest.raises(DataError, match="line 4: column 'time_s' goes backwards, from 60.0 to 0.0 s"):
        read_columns(path, ["script", "time_s"])
    path = write(tmp_path, "script,time_s\n1,0\n1,60\n1,30\n2,0\n")
    with pytest.raises(DataError, match="line 4: column 'time_s' goes backwards, from 60.0 to 30.0 s"):
        read_columns(path, ["script", "time_s"], restart="script")


def test_laboratory_files_are_read(shared_data: Path) -> None:
    t = read_trace(shared_data / "a123" / "dyn_P25.csv.gz")
    assert t.soc_true is not None
    assert t.time_s.shape == t.soc_true.shape == (36_880,)
    assert (t.soc_true[0], t.temperature_degc[0]) == (1.0, 25.0)
    ocv = read_columns(
        shared_data / "a123" / "ocv_P25.csv.gz",
        ["script", "step", "time_s", "current_a", "voltage_v", "temperature_degc", "charge_ah", "discharge_ah"],
        restart="script",
    )
    assert sorted(set(ocv["script"].tolist())) == [1.0, 2.0, 3.0, 4.0]


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("", ["empty"]),
        ("\n \n", ["empty"]),
        ("\u2003\n", ["line 1", "blank"]),
        ('""\n', ["line 1", "blank"]),
        (HEADER, ["line 1", "no rows"]),
        (GOOD.replace("current_a", "current"), ["column 'current_a' is missing", "did you mean 'current'?"]),
        (GOOD.replace(",", ";"), ["column 'time_s' is missing", "semicolons"]),
        (GOOD.replace(",", "\t"), ["column 'time_s' is missing", "tabs"]),
        (GOOD.removeprefix(HEADER), ["column 'time_s' is missing", "must name the columns"]),
        (GOOD.replace("current_a", "voltage_v"), ["column 'voltage_v' appears 2 times"]),
        (GOOD.replace("3.29", "abc"), ["line 3", "'voltage_v'", "'abc' is not a number"]),
        (GOOD.replace("3.29", "1_000"), ["line 3", "'voltage_v'", "'1_000' is not a number"]),
        (GOOD.replace("3.29", "\u0663.29"), ["line 3", "'voltage_v'", "is not a number"]),
        (GOOD.replace("3.29", "0x10"), ["line 3", "'voltage_v'", "'0x10' is not a number"]),
        (GOOD.replace("3.29", "x" * 500), ["line 3", "..."]),
        (GOOD.replace("1,1.5", "1,"), ["line 3", "'current_a' is empty"]),
        (GOOD.replace("1,1.5", "1,nan"), ["line 3", "'current_a' is NaN"]),
        (GOOD.replace("1,1.5", "nan,1.5"), ["line 3", "'time_s' is NaN"]),
        (GOOD.replace("2,-0.5", "2,-inf"), ["line 4", "'current_a' is infinite"]),
        (GOOD.replace("3.29", "1e999"), ["line 3", "'voltage_v' is infinite"]),
        (GOOD.replace("\n1,", "\n\n\n1,").replace("2,-0.5", "0.5,-0.5"), ["line 6", "'time_s'", "from 1.0 to 0.5 s"]),
        (GOOD + "3,1.5,3.3", ["line 5", "3 fields", "header has 4"]),
        (GOOD + "3,1.5,3,3,25\n", ["line 5", "5 fields", "header has 4"]),
        (GOOD + '3,"1.5,3.3,25\n', ["line 5", "not CSV"]),
        (HEADER + "0,1,3.3,25\n", ["one row"]),
    ],
)  # fmt: skip
def test_bad_text_is_named(tmp_path: Path, text: str, mentions: list[str]) -> None:
    assert len(refuse(write(tmp_path, text), *mentions)) < 400


def test_per_cent_is_not_taken_for_a_fraction(tmp_path: Path) -> None:
    path = write(
        tmp_path, "".join(f"{a},{b}\n" for a, b in zip(GOOD.split(), ["soc_true", "90", "89.9", "89.8"], strict=True))
    )
    refuse(path, "'soc_true'", "89.8 to 90", "0..1")


def test_bad_bytes_are_named(tmp_path: Path) -> None:
    refuse(write(tmp_path, GOOD.replace("3.29", "3\u00b729").encode("latin-1")), "line 3", "UTF-8")
    refuse(write(tmp_path, GOOD.encode("utf-16")), "line 1", "UTF-8")


def test_a_truncated_gzip_file_is_named_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = gzip.compress(GOOD.encode())
    assert read_trace(write(tmp_path, whole, "cut.csv.gz")).time_s.shape == (3,)
    refuse(write(tmp_path, b"", "cut.csv.gz"), "empty")
    for size in range(1, len(whole)):
        refuse(write(tmp_path, whole[:size], "cut.csv.gz"), "truncated" if size > 1 else "not a gzip file")


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(GOOD.encode()))
    whole[-6] ^= 1  # the checksum
    refuse(write(tmp_path, bytes(whole), "bad.csv.gz"), "damaged")
    refuse(write(tmp_path, GOOD, "plain.csv.gz"), "not a gzip file")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    refuse(tmp_path / "absent.csv", "no such file")
    refuse(tmp_path, "is a folder")
    refuse(tmp_path / ("x" * 300), "cannot be read")


@same_file
@given(content=st.binary(max_size=300), start=st.sampled_from([b"", GOOD.encode(), b"\x1f\x8b\x08\x00", b"PAR1"]))
@pytest.mark.parametrize("name", ["any.csv", "any.csv.gz", "any.parquet"])
def test_any_bytes_are_read_or_refused(tmp_path: Path, name: str, content: bytes, start: bytes) -> None:
    if name.endswith("parquet") or start == b"PAR1":
        pytest.importorskip("pyarrow")
    try:
        read_trace(write(tmp_path, start + content, name))
    except DataError as error:
        assert "\n" not in str(error)


@same_file
@given(
    lines=st.lists(
        st.text(st.sampled_from(' ,"019.-+eE_naNif;\t\r\n\x00\x0b\x85\u2028\u0663'), max_size=20),
        min_size=1,
        max_size=4,
    )
)
@example(lines=['"', '"'])
def test_any_rows_are_read_or_refused(tmp_path: Path, lines: list[str]) -> None:
    path = write(tmp_path, "a,b\n" + "\n".join(lines))
    try:
        columns = read_columns(path, ["a"], ["b"], nan_ok=["b"])
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(columns["a"]) == len(columns["b"]) >= 1
        assert np.isfinite(columns["a"]).all()


@same_file
@given(
    rows=st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats()), min_size=1, max_size=8),
    bad=st.integers(0, 7),
)
def test_the_quick_and_the_thorough_way_agree(tmp_path: Path, rows: list[tuple[float, float]], bad: int) -> None:
    finite = [(a, 0.0 if np.isinf(b) else b) for a, b in rows]
    text = "a,b\n" + "".join(f"{a!r},{b!r}\n" for a, b in finite)
    quick = read_columns(write(tmp_path, text), ["a", "b"], nan_ok=["b"])
    thorough = read_columns(write(tmp_path, text + '"0",0\n'), ["a", "b"], nan_ok=["b"])
    for name in "ab":
        np.testing.assert_array_equal(quick[name], thorough[name][:-1])
    spoilt = text.splitlines()
    spoilt[1 + bad % len(rows)] = "x,0"
    with pytest.raises(DataError, match=f"line {2 + bad % len(rows)}: column 'a': 'x' is not a number"):
        read_columns(write(tmp_path, "\n".join(spoilt)), ["a", "b"], nan_ok=["b"])


# --------------------------------------------------------------------------------------------------------- parquet


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "bad.parquet"
    good = {
        "time_s": [0, 1, 2],
        "current_a": [0.0, 1.0, 2.0],
        "voltage_v": [3.3, None, 3.1],
        "temperature_degc": [25, 25, 25],
    }
    pq.write_table(pa.table(good), path)
    np.testing.assert_array_equal(read_trace(path).voltage_v, [3.3, np.nan, 3.1])
    pq.write_table(pa.table(good | {"time_s": [0, 2, 1]}), path)
    refuse(path, "row 3", "'time_s'", "backwards")
    pq.write_table(pa.table(good | {"current_a": [0.0, None, 0.0]}), path)
    refuse(path, "row 2", "'current_a'", "NaN")
    pq.write_table(pa.table(good | {"current_a": ["0", "1", "2"]}), path)
    refuse(path, "'current_a'", "string")
    pq.write_table(pa.table({k: v for k, v in good.items() if k != "current_a"}), path)
    refuse(path, "'current_a' is missing")
    pq.write_table(pa.table({k: v[:0] for k, v in good.items()}), path)
    refuse(path, "no rows")
    pq.write_table(pa.table(good), path)
    path.write_bytes(path.read_bytes()[:-20])
    refuse(path, "Parquet")


def test_parquet_without_pyarrow_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'rackbms\[parquet\]'"):
        read_trace(write(tmp_path, b"PAR1", "trace.parquet"))
    with pytest.raises(ConfigError, match=r"pip install 'rackbms\[parquet\]'"):
        write_columns(tmp_path / "out.parquet", {"a": [1.0]})


# --------------------------------------------------------------------------------------------------------- writing


@same_file
@given(values=hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(allow_infinity=False)))
@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.parquet"])
def test_what_is_written_is_read_back_exactly(tmp_path: Path, name: str, values: np.ndarray) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    write_columns(tmp_path / name, {"n": np.arange(len(values)), "x": values})
    found = read_columns(tmp_path / name, ["n", "x"], nan_ok=["x"])
    np.testing.assert_array_equal(
        found["x"].view(np.int64)[~np.isnan(values)], values.view(np.int64)[~np.isnan(values)]
    )
    np.testing.assert_array_equal(np.isnan(found["x"]), np.isnan(values))
    np.testing.assert_array_equal(found["n"], np.arange(len(values)))


def test_single_precision_is_written_short_and_exact(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    values = np.array([0.1, 1 / 3, 3.3e-12, 16_777_216], np.float32)
    write_columns(path, {"x": values})
    assert path.read_text().splitlines()[1] == "0.1"
    np.testing.assert_array_equal(read_columns(path, ["x"])["x"].astype(np.float32), values)


def test_the_same_columns_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_columns(tmp_path / "a.csv.gz", {"x": np.arange(5.0)})
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_columns(tmp_path / "b.csv.gz", {"x": np.arange(5.0)})
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_columns_of_unequal_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one length"):
        write_columns(tmp_path / "out.csv", {"a": [1.0], "b": [1.0, 2.0]})
    with pytest.raises(ValueError, match="1-D"):
        write_columns(tmp_path / "out.csv", {"a": np.zeros((2, 2))})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trace.os, "fsync", full)
    with pytest.raises(ConfigError, match=r"trace\.csv: cannot be written: No space left on device"):
        write_columns(path, {"x": [1.0]})
    assert path.read_text() == GOOD
    assert [p.name for p in tmp_path.iterdir()] == ["trace.csv"]


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    target = write(tmp_path, "old", "target.csv")
    (tmp_path / "link.csv").symlink_to(target)
    write_atomically(tmp_path / "link.csv", b"new")
    assert (tmp_path / "link.csv").is_symlink()
    assert target.read_bytes() == b"new"


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    # stands for /dev/stdout and /dev/null too: a test must never aim at the real ones, where a failure would stay
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, b"x")
        assert os.read(reader, 10) == b"x"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        write_atomically(tmp_path, b"x")
    with pytest.raises(ConfigError, match="does not exist; create it first"):
        write_atomically(tmp_path / "absent" / "out.csv", b"x")
