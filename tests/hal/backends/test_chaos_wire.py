"""What each fault of a wire does to a frame, and that rates, seeds and times are kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.backends.chaos import Change, Chaos
from hal.backends.chaos_wire import KINDS, WireFaults, frames
from hal.contract import MEASUREMENT, Command, Measurement, Quality
from hal.errors import ConfigError, LinkError
from hal.registry import open_rack

N, SENSORS = 12, 3
ALL = math.inf


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now


class Bench:
    """A twin with moving values, and the same one behind a bad wire."""

    def __init__(self, seed: int = 0, **wire: float) -> None:
        self.clock = Time()
        options = {"duty": {"kind": "constant", "c_rate": 0.3}}
        url = f"sim:lfp_280?n_series={N}"
        self.plain = open_rack(url, clock=self.clock, options=options)
        self.chaos = Chaos(open_rack(url, clock=self.clock, options=options), (), seed, WireFaults(**wire))
        self.plain.open()
        self.chaos.open()
        self.true, self.seen = Measurement(N, SENSORS), Measurement(N, SENSORS)
        self.truths: list[np.ndarray[Any, Any]] = []
        self.step(0.0)

    def step(self, dt_s: float = 1.0) -> Measurement:
        self.clock.now += dt_s
        self.plain.read(self.true)
        self.chaos.read(self.seen)
        self.truths.append(self.true.cell_v.copy())
        return self.seen


def test_every_value_is_in_one_frame() -> None:
    held: dict[str, int] = {}
    for frame in frames(N, SENSORS):
        for name in frame.names:
            size = len(range(*frame.at.indices(N if name.startswith("cell") else SENSORS)))
            held[name] = held.get(name, 0) + (size if frame.at != slice(None) else 1)
    assert set(held) == {field.name for field in MEASUREMENT.fields} - {"time_s", "sequence"}
    assert held["cell_v"] == N
    assert held["sensor_degc_quality"] == SENSORS
    assert all(n == 1 for name, n in held.items() if not name.startswith(("cell", "sensor")))


def test_a_wire_without_faults_changes_nothing() -> None:
    bench = Bench(drop=1.0, from_s=1e6)
    for _ in range(5):
        assert bench.step().bytes.tobytes() == bench.true.bytes.tobytes()


@pytest.mark.parametrize("kind", ["drop", "stale"])
def test_what_does_not_come_grows_old(kind: str) -> None:
    bench = Bench(**{kind: 1.0}, from_s=2.5)
    for _ in range(6):
        bench.step()
    np.testing.assert_array_equal(bench.seen.cell_v, bench.truths[2])
    np.testing.assert_allclose(bench.seen.cell_v_age_s, bench.true.cell_v_age_s + 4.0, atol=1e-5)
    assert bench.seen.head["contactors_quality"][0] == Quality.STALE
    assert bench.seen.head["time_s"][0] == 2.0
    assert bench.seen.head["sequence"][0] == 3  # nothing new


def test_what_was_never_heard_is_missing() -> None:
    seen = Bench(drop=1.0).step()
    assert np.isnan(seen.cell_v).all()
    assert (seen.cell_v_quality == Quality.MISSING).all()
    assert seen.head["contactors_quality"][0] == Quality.MISSING
    assert seen.head["interlock_closed"][0] == 0
    assert seen.head["sequence"][0] == 0


@pytest.mark.parametrize(("wire", "lag"), [({"delay": 1.0, "delay_s": 2.0}, 2), ({"reorder": 1.0}, 1)])
def test_what_comes_late_looks_new(wire: dict[str, float], lag: int) -> None:
    bench = Bench(**wire, from_s=2.5)
    for k in range(1, 9):
        bench.step()
        if k >= 3 + lag:
            np.testing.assert_array_equal(bench.seen.cell_v, bench.truths[k - lag])
            np.testing.assert_allclose(bench.seen.cell_v_age_s, bench.true.cell_v_age_s, atol=1e-5)


def test_what_comes_twice_hides_the_new_one() -> None:
    bench = Bench(duplicate=1.0)
    for k in range(1, 5):
        bench.step()
        np.testing.assert_array_equal(bench.seen.cell_v, bench.truths[k - 1])
        assert bench.seen.head["sequence"][0] == k + 1


def test_a_reordered_frame_comes_on_top_of_the_next() -> None:
    bench = Bench(reorder=0.3, seed=4)
    kinds = set()
    for k in range(1, 40):
        bench.step()
        for first in range(0, N, 4):
            at = slice(first, first + 4)
            kinds.add(
                next(lag for lag in range(k + 1) if np.array_equal(bench.seen.cell_v[at], bench.truths[k - lag][at]))
            )
    assert kinds >= {0, 1, 2} or kinds >= {0, 1}
    assert max(kinds) <= 4


def test_corruption_flips_one_bit_of_a_frame() -> None:
    bench = Bench(corrupt=1.0)
    for _ in range(20):
        bench.step()
        for frame in frames(N, SENSORS):
            flipped = 0
            for name in frame.names:
                array = bool(MEASUREMENT.fields[[f.name for f in MEASUREMENT.fields].index(name)].dims)
                a, b = (
                    np.ascontiguousarray(m.raw[name][0][frame.at] if array else m.head[name]).view(np.uint8)
                    for m in (bench.true, bench.seen)
                )
                bits = int(np.unpackbits(a ^ b).sum())
                assert not bits or name in frame.values
                flipped += bits
            assert flipped == 1


def test_a_frozen_frame_looks_new() -> None:
    bench = Bench(freeze=1.0, from_s=1.5)
    for _ in range(6):
        bench.step()
    np.testing.assert_array_equal(bench.seen.cell_v, bench.truths[1])
    np.testing.assert_allclose(bench.seen.cell_v_age_s, bench.true.cell_v_age_s, atol=1e-5)
    assert bench.seen.head["sequence"][0] == bench.true.head["sequence"][0]


def test_a_bus_that_is_off_carries_no_command_either() -> None:
    bench = Bench(bus_off=1.0, from_s=20.0, until_s=22.0, hold_s=3.0)
    command = Command(N, SENSORS)
    command.head["cooling_degc"] = 25.0
    asked = []
    for k in range(30):
        command.head["heartbeat"] += 1
        command.head["contactors"] = 0b110 if k < 10 else 0b011
        bench.chaos.write(command)
        asked.append((int(bench.step().head["sequence"][0]), float(bench.seen.cell_v_age_s[0])))
    numbers = [sequence for sequence, _ in asked]
    assert numbers[18:26] == [
        20,
        20,
        20,
        20,
        20,
        21,
        22,
        23,
    ]  # off from the sample at 20 s until 3 s after that at 21 s
    assert asked[22][1] == pytest.approx(4.0, abs=0.1)
    assert bench.chaos.contactors_closed == 0b011  # too short for the watchdog of the rack


def test_the_rack_opens_by_itself_where_commands_do_not_come() -> None:
    bench = Bench(bus_off=1.0, from_s=20.0)
    command = Command(N, SENSORS)
    command.head["cooling_degc"] = 25.0
    closed = []
    for k in range(40):
        command.head["heartbeat"] += 1
        command.head["contactors"] = 0b110 if k < 10 else 0b011
        bench.chaos.write(command)
        bench.step()
        closed.append(bench.chaos.contactors_closed)
    assert closed[18] == 0b011
    assert closed[-1] == 0


def test_an_exception_is_an_answer_without_values() -> None:
    bench = Bench(exception=1.0, from_s=0.5)
    seen = bench.step()
    assert np.isnan(seen.cell_v).all()
    assert (seen.cell_v_quality == Quality.MISSING).all()
    assert seen.head["contactors_quality"][0] == Quality.MISSING
    assert seen.head["interlock_closed"][0] == 1


def test_swapped_words_are_swapped_back_to_the_value() -> None:
    bench = Bench(swap_words=1.0)
    bench.step()
    back = bench.seen.cell_v.view(np.uint16).reshape(-1, 2)[:, ::-1].copy().view(np.float32).ravel()
    np.testing.assert_array_equal(back, bench.true.cell_v)
    assert bench.seen.head["interlock_closed"][0] == 1


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_the_rate_is_the_share_of_frames(rate: float) -> None:
    bench = Bench(exception=rate, seed=9)
    hits = 0
    for _ in range(1500):
        hits += int((bench.step(0.1).cell_v_quality[::4] != 0).sum())
    n = 1500 * (N // 4)
    assert abs(hits - n * rate) < 5 * math.sqrt(n * rate * (1 - rate))  # five sigma of a binomial


def test_times_of_what_is_injected_count_from_then() -> None:
    bench = Bench()
    for _ in range(5):
        bench.step()
    bench.chaos.inject(Change("pack_v", "zero", from_s=2.0, until_s=4.0))
    assert [bool(bench.step().head["pack_v"][0] == 0.0) for _ in range(6)] == [False, True, True, False, False, False]


def test_faults_can_be_injected_and_cleared_while_it_runs() -> None:
    bench = Bench()
    bench.step()
    bench.chaos.inject(Change("current_a", "nan", from_s=1.0), wire=WireFaults(drop=1.0, until_s=3.0))
    old = bench.truths[-1]
    np.testing.assert_array_equal(bench.step().cell_v, old)
    assert math.isnan(bench.seen.head["current_a"][0])
    for _ in range(2):
        bench.step()
    np.testing.assert_array_equal(bench.seen.cell_v, bench.truths[-1])
    assert math.isnan(bench.seen.head["current_a"][0])
    bench.chaos.clear()
    assert bench.step().cell_v.tobytes() == bench.true.cell_v.tobytes()
    assert bench.seen.head["current_a"].tobytes() == bench.true.head["current_a"].tobytes()
    made = Bench(exception=1.0, until_s=1e6)
    made.chaos.inject(Change("coolant_in_degc", "zero"), wire=WireFaults(drop=1.0))
    made.step()
    made.chaos.clear()
    assert (made.step().cell_v_quality == Quality.MISSING).all()  # what it was made with stays
    assert made.seen.head["coolant_in_degc"][0] != 0.0
    own = Chaos(made.plain, [Change("pack_v", "zero")])  # changes, too
    own.open()
    own.read(made.seen)
    own.inject(Change("coolant_in_degc", "zero"))
    own.clear()
    made.clock.now += 1.0
    own.read(made.seen)
    assert made.seen.head["pack_v"][0] == 0.0
    assert made.seen.head["coolant_in_degc"][0] != 0.0
    with pytest.raises(ConfigError, match=r"index = 12: not in 0\.\.11"):
        bench.chaos.inject(Change("cell_v", "nan", index=12))
    with pytest.raises(LinkError, match="not open"):
        Chaos(open_rack("sim:lfp_280?n_series=4")).inject(Change("current_a", "nan"))


@given(
    rates=st.dictionaries(st.sampled_from(KINDS), st.floats(0.0, 1.0), max_size=5),
    times=st.tuples(st.floats(0.1, 5.0), st.floats(0.1, 5.0)),
    seed=st.integers(0, 3),
)
@settings(max_examples=60)
@pytest.mark.filterwarnings("error")
def test_any_wire_raises_nothing_is_the_same_again_and_heals(
    rates: dict[str, float], times: tuple[float, float], seed: int
) -> None:
    runs = []
    for _ in range(2):
        bench = Bench(seed, **rates, delay_s=times[0], hold_s=times[1], until_s=5.5)
        runs.append([bench.step(0.7).bytes.tobytes() for _ in range(8)])
        sequences = [int(np.frombuffer(b[:16], MEASUREMENT.head_dtype["sequence"], 1, 8)[0]) for b in runs[-1]]
        assert sequences == sorted(sequences)
        for _ in range(18):
            bench.step(0.7)
        healed = bench.seen
        for name in ("cell_v", "cell_v_quality", "sensor_degc"):
            assert getattr(healed, name).tobytes() == getattr(bench.true, name).tobytes()
        assert healed.head["contactors_quality"][0] == 0
    assert runs[0] == runs[1]


# --- as a URL ---------------------------------------------------------------------------------------------------------


def test_rates_come_in_the_url_or_in_a_file_that_the_url_wins_over(tmp_path: Path) -> None:
    path = tmp_path / "chaos.toml"
    path.write_text("seed = 4\n[wire]\ndrop = 0.5\nhold_s = 3\n[[change]]\nchannel = 'bus_v'\nkind = 'nan'\n")
    rack: Any = open_rack(f"chaos+sim:lfp_280?n_series=4&chaos.file={path}&chaos.drop=0.25&seed=9")
    assert rack._wire_faults == WireFaults(drop=0.25, hold_s=3.0)
    assert rack.seed == 4
    assert rack.twin.config.seed == 9
    options = {"chaos": {"seed": 2, "wire": {"stale": 0.1}}}
    rack = open_rack("chaos+sim:lfp_280?n_series=4&chaos.seed=3", options=options)
    assert (rack.seed, rack._wire_faults) == (3, WireFaults(stale=0.1))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("chaos.dorp=0.1", "unknown key 'chaos.dorp' (did you mean 'drop'?)"),
        ("chaos.drop=x", "chaos.drop = x: expected a number"),
        ("chaos.drop=1.5", "chaos.drop = 1.5: a rate is from 0 to 1"),
        ("chaos.drop=nan", "chaos.drop = nan: expected a number"),
        ("chaos.hold_s=0", "chaos.hold_s = 0: a time in s, greater than 0"),
        ("chaos.from_s=5&chaos.until_s=4", "chaos.from_s = 5: must not be negative, and earlier than until_s = 4"),
        ("chaos.seed=1.5", "chaos.seed = 1.5: expected a whole number"),
        ("chaos.seed=-1", "seed = -1: must not be negative"),
        ("chaos.file=none.toml", "none.toml: cannot be read"),
    ],
)
def test_rates_that_cannot_be_are_refused(query: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_rack(f"chaos+sim:lfp_280?n_series=4&{query}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[wire]\ndorp = 1", "[wire] unknown key 'dorp' (did you mean 'drop'?)"),
        ("[wire]\ndrop = true", "chaos.drop = True: expected a number"),
        ("wire = 3", "wire = 3: expected a table"),
        ("wires = 3", "unknown key 'wires' (did you mean 'wire'?)"),
    ],
)
def test_files_that_cannot_be_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "chaos.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        open_rack(f"chaos+sim:lfp_280?n_series=4&chaos.file={path}")
    assert message in str(caught.value)
