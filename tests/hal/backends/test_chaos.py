"""Damage to measurements: each kind does what it says, deterministically, and none ever raises."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hal.backends.chaos import KINDS, Change, Chaos
from hal.backends.simulated import SimulatedRack
from hal.contract import MEASUREMENT, Command, HasTruth, Measurement, Quality, Rack, Truth
from hal.errors import ConfigError, LinkError
from hal.registry import open_rack

FIELDS = {field.name: field for field in MEASUREMENT.fields}
N, SENSORS = 6, 2


class Time:
    now = 50.0

    def now_s(self) -> float:
        return self.now


class Bench:
    """A healthy twin of six groups, and the same twin behind damage."""

    def __init__(self, *changes: Change, seed: int = 0) -> None:
        self.clock = Time()
        twins = [
            SimulatedRack("lfp_280", query={"n_series": str(N), "cells_per_sensor": "3"}, clock=self.clock)
            for _ in range(2)
        ]
        self.healthy, self.chaos = twins[0], Chaos(twins[1], changes, seed)
        self.true, self.m = Measurement(N, SENSORS), Measurement(N, SENSORS)
        self.healthy.open()
        self.chaos.open()
        self.read()

    def read(self) -> None:
        self.healthy.read(self.true)
        self.chaos.read(self.m)

    def step(self, dt_s: float = 1.0) -> Measurement:
        self.clock.now += dt_s
        self.read()
        return self.m

    def differing(self) -> set[str]:
        """Fields whose bytes are not those of the healthy twin."""
        found = set()
        for name, field in FIELDS.items():
            a, b = ((x.raw[name] if field.dims else x.head[name]).tobytes() for x in (self.true, self.m))
            if a != b:
                found.add(name)
        return found


def test_without_changes_it_is_the_rack_itself() -> None:
    bench = Bench()
    assert isinstance(bench.chaos, Rack)
    assert isinstance(bench.chaos, HasTruth)
    for _ in range(3):
        bench.step()
        assert bench.differing() == set()
    truths = Truth(N, SENSORS), Truth(N, SENSORS)
    bench.healthy.truth(truths[0])
    bench.chaos.truth(truths[1])
    assert truths[0].raw.tobytes() == truths[1].raw.tobytes()
    assert bench.chaos.info.name == bench.healthy.info.name
    assert bench.chaos.events == []  # what only a twin has
    with pytest.raises(AttributeError):
        bench.chaos.nothing_of_this_name  # noqa: B018


def test_commands_and_closing_reach_the_rack() -> None:
    bench = Bench()
    command = Command(N, SENSORS)
    command.head["cooling_degc"], command.head["contactors"] = 25.0, 0b110
    bench.chaos.write(command)
    assert bench.chaos.contactors_closed == 0b110
    command.balance[0] = 2
    with pytest.raises(ValueError, match="balance = 2"):
        bench.chaos.write(command)
    bench.chaos.close()
    assert bench.chaos.contactors_closed == 0
    with pytest.raises(LinkError):
        bench.chaos.read(bench.m)
    with bench.chaos as again:
        again.read(bench.m)
    with pytest.raises(LinkError, match="not open"):
        Chaos(SimulatedRack("lfp_280"), []).read(bench.m)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change("cell_v", "nan", 2), lambda v: math.nan),
        (Change("cell_v", "inf", 2, value=-1.0), lambda v: -math.inf),
        (Change("cell_v", "zero", 2), lambda v: 0.0),
        (Change("cell_v", "full_scale", 2, value=5.0), lambda v: 5.0),
        (Change("cell_v", "stuck", 2, value=3.0), lambda v: 3.0),
        (Change("cell_v", "offset", 2, value=-0.25), lambda v: v - 0.25),
        (Change("cell_v", "gain", 2, value=1.5), lambda v: v * 1.5),
        (Change("pack_v", "nan"), lambda v: math.nan),
        (Change("pack_v", "gain", value=-1.0), lambda v: -v),
        (Change("current_a_quality", "stuck", value=64.0), lambda v: 64),
        (Change("contactors", "nan"), lambda v: 255),
        (Change("contactors", "offset", value=300.0), lambda v: 255),
        (Change("contactors", "gain", value=-2.0), lambda v: 0),
        (Change("gas_alarm", "inf"), lambda v: 255),
        (Change("sequence", "full_scale"), lambda v: 2**32 - 1),
        (Change("time_s", "offset", value=-7.5), lambda v: v - 7.5),
    ],
)
def test_values_are_damaged_while_it_lasts_and_nothing_else_is(change: Change, expected: Any) -> None:
    bench = Bench(Change(**{**change.__dict__, "from_s": 2.0, "until_s": 4.0}))
    at = slice(None) if change.index is None else [change.index]
    for second in range(1, 6):
        bench.step()
        true, seen = (
            np.atleast_1d(x.raw[change.channel][0] if FIELDS[change.channel].dims else x.head[change.channel])[at]
            for x in (bench.true, bench.m)
        )
        want = expected(float(true[0])) if 2 <= second < 4 else float(true[0])
        np.testing.assert_allclose(seen.astype(float), want, rtol=1e-6)
        assert bench.differing() <= ({change.channel} if 2 <= second < 4 else set())


def test_the_largest_number_and_the_sign_are_drawn_from_the_seed() -> None:
    signs = set()
    for seed in range(8):
        m = Bench(Change("bus_v", "inf"), Change("pack_v", "full_scale"), seed=seed).m
        assert abs(m.head["pack_v"][0]) == np.finfo(np.float32).max
        signs.add((bool(m.head["bus_v"][0] > 0), bool(m.head["pack_v"][0] > 0)))
    assert len(signs) > 2


def test_stuck_keeps_what_was_reported_before_and_later_changes_come_on_top() -> None:
    bench = Bench(Change("cell_v", "stuck", (0, 5), from_s=3.0), Change("cell_v", "offset", 5, value=1.0))
    seen = [bench.step().cell_v.copy() for _ in range(6)]
    assert len({float(v[0]) for v in seen[1:]}) == 1
    assert len({float(v[1]) for v in seen}) > 3
    assert seen[4][5] == pytest.approx(seen[1][5] + 1.0, abs=1e-6)  # stuck at what was reported, then moved again


def test_two_places_change_places() -> None:
    bench = Bench(Change("cell_v", "swap", (1, 4)))
    bench.step()
    np.testing.assert_array_equal(bench.m.cell_v, bench.true.cell_v[[0, 4, 2, 3, 1, 5]])


def test_swapped_bytes() -> None:
    bench = Bench(Change("current_a", "swap"), Change("cell_v", "swap"), Change("contactors", "swap"))
    bench.step()
    assert bench.m.head["current_a"].tobytes() == bench.true.head["current_a"].tobytes()[::-1]
    np.testing.assert_array_equal(bench.m.cell_v.byteswap(), bench.true.cell_v)
    assert bench.differing() == {"current_a", "cell_v"}


def test_missing_says_so() -> None:
    bench = Bench(Change("sensor_degc", "missing", 1), Change("current_a", "missing"), Change("bleeding", "nan", 0))
    m = bench.step()
    assert np.isnan(m.sensor_degc).tolist() == [False, True]
    assert m.sensor_degc_quality.tolist() == [0, Quality.MISSING]
    assert math.isnan(m.head["current_a"][0])
    assert m.head["current_a_quality"][0] == Quality.MISSING
    assert m.bleeding.tolist() == [255, 0, 0, 0, 0, 0]


def test_an_array_with_one_quality_for_all_is_missing_as_a_whole() -> None:
    m = Bench(Change("bleeding", "missing", (1, 4))).m
    assert m.head["bleeding_quality"][0] == Quality.MISSING
    assert not m.bleeding.any()


def test_a_stale_value_grows_old() -> None:
    bench = Bench(Change("cell_v", "stale", (2, 3), from_s=2.0, until_s=6.0))
    age_s = float(bench.m.cell_v_age_s[2])
    seen = []
    for _ in range(7):
        m = bench.step()
        seen.append((float(m.cell_v[2]), float(m.cell_v_age_s[2]) - age_s))
    assert len({volt for volt, _ in seen[:5]}) == 1
    np.testing.assert_allclose([age for _, age in seen], [0, 1, 2, 3, 4, 0, 0], atol=1e-5)
    assert not bench.m.cell_v_quality.any()


def test_a_delayed_value_comes_samples_later() -> None:
    bench = Bench(Change("pack_v", "delay", value=3.0))
    true = [float(bench.true.head["pack_v"][0])]
    for k in range(1, 10):
        bench.step()
        true.append(float(bench.true.head["pack_v"][0]))
        assert bench.m.head["pack_v"][0] == np.float32(true[max(k - 3, 0)])
    bench = Bench(Change("cell_v", "delay", 1, value=1.0), seed=1)
    before = bench.true.cell_v.copy()
    bench.step()
    assert bench.m.cell_v[1] == before[1]
    assert bench.m.cell_v[0] == bench.true.cell_v[0]


def test_a_dropped_measurement_is_the_last_one_whole() -> None:
    bench = Bench(Change("", "drop", from_s=2.0, until_s=4.0))
    seen = [bench.step().raw.tobytes() for _ in range(5)]
    assert seen[0] == seen[1] == seen[2]
    assert len(set(seen)) == 3
    assert bench.differing() == set()


def test_a_flickering_value_is_away_half_of_the_time() -> None:
    away: dict[int, list[bool]] = {}
    for seed in (1, 2, 3):
        bench = Bench(Change("current_a", "flicker", value=4.0), seed=seed)
        away[seed] = [bool(bench.step().head["current_a_quality"][0]) for _ in range(40)]
        assert sum(away[seed]) == 20
        assert away[seed][:36] == away[seed][4:]
    assert len({tuple(v) for v in away.values()}) > 1


def test_reading_twice_gives_the_same() -> None:
    bench = Bench(Change("current_a", "delay", value=2.0), Change("bus_v", "stale"))
    bench.step()
    first = bench.m.raw.tobytes()
    bench.read()
    assert bench.m.raw.tobytes() == first


def changes() -> st.SearchStrategy[Change]:
    """Any change that can be made."""

    @st.composite
    def one(draw: st.DrawFn) -> Change:
        kind = draw(st.sampled_from(KINDS))
        need = {"missing": "_quality", "flicker": "_quality", "stale": "_age_s"}.get(kind)
        names = [name for name in FIELDS if need is None or name + need in FIELDS]
        name = "" if kind == "drop" else draw(st.sampled_from(names))
        index: tuple[int, ...] | None = None
        if name and FIELDS[name].dims:
            place = st.integers(0, (N if FIELDS[name].dims == "cells" else SENSORS) - 1)
            count = 2 if kind == "swap" else draw(st.integers(1, 3))
            index = draw(st.one_of(st.none(), st.tuples(*[place] * count)))
        value = draw(st.one_of(st.none(), st.floats(allow_nan=False))) if kind not in ("delay", "flicker") else None
        if kind in ("offset", "gain"):
            value = draw(st.floats(allow_nan=False))
        elif kind == "delay":
            value = draw(st.integers(1, 5))
        elif kind == "flicker":
            value = draw(st.floats(0.1, 10.0))
        from_s = draw(st.floats(0.0, 5.0))
        until_s = draw(st.one_of(st.none(), st.floats(from_s, 6.0)))
        return Change(name, kind, index, value, from_s, until_s)

    return one()


@given(wanted=st.lists(changes(), max_size=5), seed=st.integers(0, 3))
@example(wanted=[Change("time_s", "nan", from_s=3.0), Change("time_s", "swap"), Change("current_a", "stale")], seed=0)
@settings(max_examples=150)
@pytest.mark.filterwarnings("error")
def test_any_changes_raise_nothing_and_are_the_same_again(wanted: list[Change], seed: int) -> None:
    runs = []
    for _ in range(2):
        bench = Bench(*wanted, seed=seed)
        runs.append([bench.step(0.7).raw.tobytes() for _ in range(8)])
        touched = (
            {c.channel for c in wanted}
            | {f"{c.channel}_quality" for c in wanted}
            | {f"{c.channel}_age_s" for c in wanted}
        )
        if not any(c.kind == "drop" for c in wanted):
            assert bench.differing() <= touched
        bench.chaos.close()
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"channel": "current", "kind": "nan"}, "no such field (did you mean 'current_a'?)"),
        ({"channel": "current_a", "kind": "nam"}, "unknown kind (did you mean 'nan'?)"),
        ({"channel": "current_a", "kind": "drop"}, "'drop' is of the whole measurement"),
        ({"channel": "", "kind": "nan"}, "'drop' is of the whole measurement"),
        ({"channel": "current_a", "kind": "gain"}, "value is missing"),
        ({"channel": "current_a", "kind": "gain", "value": math.nan}, "value is not a number"),
        ({"channel": "current_a", "kind": "delay", "value": 0.5}, "value = 0.5: samples, a whole number"),
        ({"channel": "current_a", "kind": "flicker", "value": 0.0}, "value = 0: a period in s"),
        ({"channel": "interlock_closed", "kind": "missing"}, "this field has no quality"),
        ({"channel": "contactors", "kind": "stale"}, "this field has no age"),
        ({"channel": "current_a", "kind": "nan", "index": 0}, "one value only: leave it out"),
        ({"channel": "cell_v", "kind": "swap", "index": 0}, "name two places"),
    ],
)
def test_changes_that_cannot_be_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Change(**keys)
    assert message in str(caught.value)
    assert f"change '{keys['kind']}' of '{keys['channel']}'" in str(caught.value)


def test_places_that_the_rack_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"change 'nan' of 'cell_v': index = 6: not in 0\.\.5"):
        Bench(Change("cell_v", "nan", 6))
    with pytest.raises(ConfigError, match="seed = -1"):
        Bench(seed=-1)


# --- as a URL ---------------------------------------------------------------------------------------------------------


def test_a_file_names_the_changes_and_the_url_the_rack(tmp_path: Path) -> None:
    path = tmp_path / "changes.toml"
    path.write_text(
        "seed = 3\n[[change]]\nchannel = 'cell_v'\nkind = 'nan'\nindex = [0, 2]\nfrom_s = 1\n[[change]]\nkind = 'drop'\n"
        "from_s = 3.0\n"
    )
    clock = Time()
    rack = open_rack(
        f"chaos:{path}?rack=sim:lfp_280?n_series=4&seed=7", clock=clock, options={"duty": {"kind": "constant"}}
    )
    assert isinstance(rack, Chaos)
    m = Measurement(4, 1)
    with rack:
        nans = []
        for _ in range(5):
            rack.read(m)
            clock.now += 1.0
            nans.append((int(np.isnan(m.cell_v).sum()), int(m.head["sequence"][0])))
    assert nans == [(0, 1), (2, 2), (2, 3), (2, 3), (2, 3)]
    assert rack.twin.config.seed == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ""),
        ("[[change]]\nkind = 'nan'\nchanel = 'current_a'", "number 1: unknown key 'chanel' (did you mean 'channel'?)"),
        ("[[change]]\nchannel = 'current_a'", "number 1: the key 'kind' is missing"),
        ("[[change]]\nchannel = 3\nkind = 'nan'", "channel = 3: expected text"),
        ("[[change]]\nchannel = 'cell_v'\nkind = 'nan'\nindex = 1.5", "index = 1.5: expected a whole number"),
        ("[[change]]\nchannel = 'cell_v'\nkind = 'gain'\nvalue = 'x'", "value = 'x': expected a number"),
        ("[change]\nkind = 'nan'", "expected [[change]] tables"),
        ("sed = 1", "unknown key 'sed' (did you mean 'seed'?)"),
        ("seed = 1.5", "seed = 1.5: expected a whole number"),
        ("seed = ", "cannot be read"),
    ],
)
def test_files_that_cannot_be_used_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "changes.toml"
    path.write_text(text)
    if not message:
        open_rack(f"chaos:{path}?rack=sim:lfp_280")
        return
    with pytest.raises(ConfigError) as caught:
        open_rack(f"chaos:{path}?rack=sim:lfp_280")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_urls_without_a_rack_or_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which rack"):
        open_rack("chaos:x.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        open_rack(f"chaos:{tmp_path}/none.toml?rack=sim:lfp_280")
