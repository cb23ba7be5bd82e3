"""A string that sinks against the sum of its cells: what a cell behind a dead reading does, and what it is not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import signals_layout as y
from bms.core.faults import Fault
from bms.core.string_sag import fallen, risen_alone, still_cell
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32
N = 24
LSB_V = 0.1
GROUP_OHM = 3.56e-4  # of the bench's cell, what answers within seconds
PRIOR_OHM = 0.1 * GROUP_OHM * N


class Rack:
    """A healthy rack whose cells have noise of 0.3 mV; what is wrong is given to `run`."""

    def __init__(self, bench: Any, ohm: float = 0.0, noise_v: float = 0.0) -> None:
        self.bench, self.ohm, self.noise_v = bench, ohm, noise_v
        self.rng = np.random.default_rng(7)
        self.current_a = 0.0
        self.level_v = 0.0  # by so much every cell lies above 3.3 V

    def run(
        self,
        steps: int,
        fall_v: float = 0.0,
        still: tuple[int, ...] = (),
        dt_s: float = 1.0,
        jump_v: float = 0.0,
        at: int = 13,
    ) -> float:
        """Steps in which the string lies `fall_v` lower and the cells `still` read what they did; the last value.

        In the first of them the reading of the cell `at`, still or not, jumps by `jump_v`, which the string does not
        show.
        """
        bench = self.bench
        for step in range(steps):
            v = 3.3 + self.level_v - GROUP_OHM * self.current_a + self.rng.normal(0.0, 3e-4, N)
            total = v.sum() if self.noise_v == 0.0 else N * 3.3 + self.rng.normal(0.0, self.noise_v)
            bench.head["pack_v"] = total - self.ohm * self.current_a - fall_v
            bench.head["current_a"] = self.current_a
            for k in still:
                v[k] = bench.m.cell_v[k]
            v[at] += jump_v if step == 0 else 0.0
            bench.m.cell_v[:] = v
            bench.look(dt_s)
        return bench.value(F.STRING_SAG)

    @property
    def number(self) -> Any:
        return self.bench.state.number


@pytest.fixture
def rack(bench: Any) -> Rack:
    return Rack(bench)


def test_a_cell_that_sinks_behind_a_dead_reading_is_told_and_named(rack: Rack) -> None:
    rack.run(120)
    assert rack.run(20, 0.0, (13,)) == 0.0
    # a sample late, because of three the middle one counts; then half of what is left in each step
    seen_v = [rack.run(1, 0.5, (13,)) for _ in range(6)]
    assert seen_v[0] == 0.0
    assert seen_v[1:] == pytest.approx([0.5 * (1 - 0.5**k) - LSB_V for k in range(1, 6)], abs=0.02)
    assert rack.bench.where(F.STRING_SAG) == 13
    # its average of a minute follows six times as slowly as long as it is there
    assert rack.run(60, 0.5, (13,)) == pytest.approx(0.5 * math.exp(-62 / 360) - LSB_V, abs=0.02)


def test_where_all_readings_live_half_of_it_counts_less_what_a_sensor_may_do(rack: Rack) -> None:
    rack.run(120)
    assert rack.run(6, 0.5) == pytest.approx(0.5 * (0.5 * 31 / 32 - LSB_V - 5e-4 * 79.2), abs=0.01)
    assert rack.bench.where(F.STRING_SAG) == NO_INDEX


def test_a_string_that_rises_does_not_sag(rack: Rack) -> None:
    rack.run(120)
    assert max(rack.run(1, -2.0, (13,)) for _ in range(30)) == 0.0


@pytest.mark.parametrize("jump_v", [0.15, 0.5, 1.5])
@pytest.mark.parametrize("at", [0, 13, N - 1])
def test_a_reading_that_jumps_up_and_sticks_is_no_fall(rack: Rack, jump_v: float, at: int) -> None:
    rack.run(120)
    assert max(rack.run(1, jump_v=jump_v if k == 0 else 0.0, still=(at,), at=at) for k in range(120)) == 0.0
    # a fall is told beside it
    assert rack.run(6, 0.5, (at,)) > 0.3
    assert rack.bench.where(F.STRING_SAG) == at


def test_one_that_jumps_as_the_load_steps_is_none_either(rack: Rack) -> None:
    rack.run(120)
    rack.current_a = 100.0
    rack.run(120, still=(13,))
    rack.current_a = 0.0
    assert rack.run(1, still=(13,), jump_v=0.5) == 0.0
    assert max(rack.run(1, still=(13,)) for _ in range(60)) == 0.0


def test_a_small_rise_a_dead_reading_and_one_that_is_usual_lift_nothing(rack: Rack) -> None:
    """0.09 V may be anything. What did not change, or is where it is among the others as a rule, has not jumped."""
    rack.run(120)
    before_v = float(rack.number[y.OFF_SLOW_V])
    rack.run(1, jump_v=0.09)
    assert rack.number[y.OFF_SLOW_V] == pytest.approx(before_v, abs=0.005)
    rack.run(1)
    before_v = float(rack.number[y.OFF_SLOW_V])
    rack.run(1, -0.3, jump_v=0.5)  # nor does what the string shows
    assert rack.number[y.OFF_SLOW_V] == pytest.approx(before_v - 0.2, abs=0.01)
    state, mean_v = rack.bench.state, f4(3.3)
    state.cell_v[:], state.cell_still_s[:], state.apart_v[:] = 3.3, 0.0, 0.0
    assert risen_alone(state, mean_v) == 0.0
    state.cell_v[:2], mean_v = 3.8, f4(3.3 + 1.0 / N)
    assert risen_alone(state, mean_v) == pytest.approx((0.5 - 1.0 / N) * N / (N - 1))
    state.cell_still_s[:2] = 1.0
    assert risen_alone(state, mean_v) == 0.0
    state.cell_still_s[:2], state.apart_v[:2] = 0.0, 0.4
    assert risen_alone(state, mean_v) == pytest.approx((0.1 - 1.0 / N) * N / (N - 1), abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 24])
def test_of_any_number_of_cells_one_that_rises_takes_the_mean_along(make_signals: Any, n: int) -> None:
    state = make_signals(n, 2).state
    state.cell_v[:], state.cell_still_s[:], state.apart_v[:] = 3.3, 0.0, 0.0
    state.cell_v[1] = 3.8
    assert risen_alone(state, f4(3.3 + 0.5 / n)) == pytest.approx(0.5, abs=1e-5)


def test_a_string_that_falls_while_readings_stand_high_has_fallen(rack: Rack) -> None:
    """They excuse no more than the sum has risen by in the same sample."""
    rack.run(120)
    rack.run(20, still=(13,))
    rack.bench.state.apart_v[:] = -1.0  # as if each had risen
    assert rack.run(6, 0.5, (13,)) > 0.3


def test_a_single_wrong_sample_is_nothing(rack: Rack) -> None:
    rack.run(120, 0.0, (3,))
    rack.run(1, 3.0, (3,))
    assert max(rack.run(1, 0.0, (3,)) for _ in range(10)) == 0.0
    rack.run(2, 1.0, (3,))
    assert rack.bench.value(F.STRING_SAG) > 0.3  # two are something


def test_nothing_is_told_before_half_a_minute(rack: Rack) -> None:
    rack.run(23, 0.0, (3,))
    assert rack.run(6, 1.0, (3,)) == 0.0
    assert rack.number[y.STRING_SEEN_S] == 29.0
    assert rack.run(1, 1.0, (3,)) > 0.3


def test_a_fall_of_more_than_a_cell_has_is_the_sensors(rack: Rack) -> None:
    """Its new place is taken over, and the next fall is seen from there; what one cell may do is told."""
    rack.run(120, 0.0, (5,))
    assert rack.run(3, 1.2 * 3.3, (5,)) > 2.0
    rack.run(600, 0.0)
    assert max(rack.run(1, 1.3 * 3.3, (5,)) for _ in range(60)) == 0.0
    assert rack.run(8, 1.3 * 3.3 + 0.5, (5,)) > 0.3


def test_what_the_current_explains_is_no_fall() -> None:
    number = np.zeros(y.N_STATE_NUMBERS, f4)
    number[[y.OFF_SLOW_V, y.LAST_A, y.STRING_SLOW_A, y.PATH_OHM, y.PATH_VAR]] = 1.0, 50.0, -50.0, 0.02, 0.005**2
    assert fallen(number, f4(-4.0)) == pytest.approx(5.0 - 0.02 * 100 - 3 * 0.005 * 100)
    number[[y.LAST_A, y.STRING_SLOW_A]] = -50.0, 50.0
    assert fallen(number, f4(-4.0)) == pytest.approx(5.0 + 0.02 * 100 - 3 * 0.005 * 100)


def test_a_pause_begins_anew(rack: Rack) -> None:
    rack.run(120, 0.0, (5,))
    rack.bench.m.cell_v_quality[2] = Quality.MISSING
    for _ in range(60):
        assert math.isnan(rack.run(1, 0.5, (5,)))
    assert rack.bench.where(F.STRING_SAG) == NO_INDEX
    rack.bench.m.cell_v_quality[2] = 0
    assert max(rack.run(1, 0.5, (5,)) for _ in range(60)) == 0.0
    assert rack.number[y.STRING_SEEN_S] == 60.0 + 61.0 - 1.0


def test_a_short_loss_hides_nothing(rack: Rack) -> None:
    rack.run(120, 0.0, (5,))
    rack.bench.m.cell_v_quality[2] = Quality.MISSING
    assert math.isnan(rack.run(10, 0.5, (5,)))
    rack.bench.m.cell_v_quality[2] = 0
    assert rack.run(6, 0.5, (5,)) > 0.25


@pytest.mark.parametrize("lost", ["pack_v", "current_a"])
def test_without_string_voltage_or_current_nothing_is_compared(rack: Rack, lost: str) -> None:
    rack.run(120, 0.0, (5,))
    rack.bench.head[f"{lost}_quality"] = Quality.MISSING
    assert math.isnan(rack.run(6, 0.5, (5,)))


@pytest.mark.parametrize("sense_ohm", [0.0, 0.1])
def test_over_unknown_sense_wires_nothing_is_compared_while_cells_are_bled(make_signals: Any, sense_ohm: float) -> None:
    """A pause of ten seconds in each minute is enough to see it."""
    rack = Rack(make_signals(sense_ohm=sense_ohm))
    for _ in range(3):
        rack.bench.asked[6] = 0
        rack.run(10, 0.0, (9,))
        rack.bench.asked[6] = 1
        assert math.isnan(rack.run(49, 0.0, (9,))) is (sense_ohm == 0.0)
    assert math.isnan(rack.run(5, 0.5, (9,))) is (sense_ohm == 0.0)
    rack.bench.asked[6] = 0
    assert rack.run(4, 0.5, (9,)) > 0.3
    assert rack.bench.where(F.STRING_SAG) == 9


def test_between_two_samples_the_last_one_counts(rack: Rack) -> None:
    """Whatever stands in the record: a controller that is faster than its rack sees the same."""
    rack.run(120, 0.0, (5,))
    first_v = rack.run(3, 0.5, (5,))
    seen_s = float(rack.number[y.STRING_SEEN_S])
    for _ in range(10):
        rack.bench.look(0.1, new=False)
        assert rack.bench.value(F.STRING_SAG) == pytest.approx(first_v)
        assert rack.bench.where(F.STRING_SAG) == 5
    # the next sample is one of two seconds
    next_v = rack.run(1, 0.5, (5,))
    assert rack.number[y.STRING_SEEN_S] == pytest.approx(seen_s + 2.0)
    off_v = 0.5 * (1 - 0.25 / 3)
    assert next_v == pytest.approx(off_v - LSB_V, abs=0.02)


def test_a_step_without_duration_changes_nothing(rack: Rack) -> None:
    rack.run(120)
    kept = rack.number.copy()
    rack.run(3, 0.5, (), 0.0)
    assert np.array_equal(rack.number[y.STRING_SINCE_S :], kept[y.STRING_SINCE_S :])


# bus bars


def test_what_bus_bars_take_is_learnt(bench: Any) -> None:
    rack = Rack(bench, ohm=0.8 * PRIOR_OHM)
    rack.run(60)
    for current_a in (100.0, -100.0, 0.0, 60.0, -80.0):
        rack.current_a = current_a
        assert max(rack.run(1) for _ in range(60)) == 0.0
    assert float(rack.number[y.PATH_OHM]) == pytest.approx(0.8 * PRIOR_OHM, rel=0.1)
    assert math.sqrt(rack.number[y.PATH_VAR]) < 0.3 * PRIOR_OHM
    # a fall while current flows is seen as at rest
    rack.current_a = 40.0
    rack.run(30, 0.0, (9,))
    assert rack.run(6, 0.5, (9,)) > 0.25


def test_the_first_load_explains_what_bus_bars_may_take(bench: Any) -> None:
    """Three deviations of what is not known yet, and no more."""
    for share, told in ((2.5, False), (6.0, True)):
        rack = Rack(bench, ohm=share * PRIOR_OHM)
        bench.state.number[[y.STRING_SEEN_S, y.PATH_OHM]] = 0.0
        rack.run(60, 0.0, (9,))
        rack.current_a = 280.0
        assert (max(rack.run(1, 0.0, (9,)) for _ in range(4)) > 0.1) is told


def test_what_is_known_of_the_bus_bars_fades(rack: Rack) -> None:
    """A tenth of the first deviation comes back within an hour, and never more than that itself."""
    rack.run(1)
    rack.number[y.PATH_VAR] = 0.0
    rack.run(360, dt_s=10.0)
    assert math.sqrt(rack.number[y.PATH_VAR]) == pytest.approx(0.1 * PRIOR_OHM, rel=0.01)
    rack.number[y.PATH_VAR] = 2 * PRIOR_OHM**2
    rack.run(1)
    assert rack.number[y.PATH_VAR] <= f4(1.0001 * PRIOR_OHM**2)


def test_a_change_of_the_level_explains_a_hundredth_of_itself(rack: Rack) -> None:
    """Cells that rise by 0.5 V together, 12 V in all; the string reads 1 % less of it."""
    rack.run(120, 0.0, (9,))
    rack.level_v = 0.5
    assert max(rack.run(1, 0.12) for _ in range(6)) == 0.0
    assert rack.run(8, 0.12 + 0.5, (9,)) < 0.5 - LSB_V - 0.5 * 0.12


def test_a_current_that_is_not_measured_explains_more_where_no_reading_stands_still(bench: Any) -> None:
    """The cells sink by 2.4 V together, as with 280 A, and the string by 0.3 V more."""
    for still, most_v in ((), 0.01), ((9,), 0.3):
        rack = Rack(bench)
        bench.state.number[y.STRING_SEEN_S] = 0.0
        rack.run(120, 0.0, still)
        rack.level_v = -0.1
        seen_v = rack.run(5, 0.3, still)
        assert (seen_v > 0.05) is bool(still)
        assert seen_v < most_v


# the string's own sensor


def test_a_string_that_stands_still_has_not_sunk(rack: Rack) -> None:
    """Charge that begins lifts the cells, and a sensor that is stuck does not follow."""
    rack.run(120, 0.0, (9,))
    stuck_v, read_v = float(rack.bench.head["pack_v"][0]), float(rack.bench.m.cell_v[9])
    for k in range(30):
        rack.bench.m.cell_v[:] = 3.3 + min(0.01 * k, 0.1) + rack.rng.normal(0.0, 3e-4, N)
        rack.bench.m.cell_v[9] = read_v
        rack.bench.head["pack_v"] = stuck_v
        rack.bench.look()
        assert rack.bench.value(F.STRING_SAG) < 0.05, k
    assert rack.bench.where(F.STRING_SAG) == NO_INDEX


def test_noise_of_the_sensor_is_learnt_and_taken_off(bench: Any) -> None:
    """0.15 V in each sample, as of 1 V in 7,000, leave 0.08 V behind filters: no row, and a fall is seen beyond."""
    rack = Rack(bench, noise_v=0.15)
    rack.run(30)
    seen_v = [rack.run(1) for _ in range(2000)]
    assert max(seen_v) < 0.08
    remains_v = math.sqrt(rack.number[y.STRING_VAR])
    assert 0.05 < remains_v < 0.11
    rack.run(20, 0.0, (9,))
    assert rack.run(8, 1.0, (9,)) == pytest.approx(1.0 - 4 * remains_v, abs=0.35)


def test_a_fall_is_not_taken_for_noise(rack: Rack) -> None:
    rack.run(700)
    rack.run(120, 2.0, (9,))
    # a sixteenth of the resolution squared, for two minutes of an hour; before it is seen, ten minutes
    assert math.sqrt(rack.number[y.STRING_VAR]) < 0.25 * LSB_V * math.sqrt(150 / 3600)


def test_a_finer_sensor_sees_more(make_signals: Any) -> None:
    seen_v = {}
    for lsb_v in (0.01, 0.1, 0.3):
        rack = Rack(make_signals(pack_v_lsb_v=lsb_v))
        rack.run(120, 0.0, (9,))
        seen_v[lsb_v] = rack.run(10, 0.5, (9,))
    assert seen_v[0.01] - seen_v[0.1] == pytest.approx(0.09, abs=0.01)
    assert seen_v[0.1] - seen_v[0.3] == pytest.approx(0.2, abs=0.01)


# which reading stands still


@pytest.mark.parametrize(
    ("still", "at"),
    [
        ((), -1),
        ((6,), 6),
        ((6, 2, 20), 6),  # the first of those that are alike
        (tuple(range(6)), 0),  # a quarter is few
        (tuple(range(7)), -1),  # more is how coarse they are
        (tuple(range(24)), -1),
    ],
)
def test_few_stand_out(still: tuple[int, ...], at: int) -> None:
    still_s = np.zeros(N, f4)
    still_s[list(still)] = 10.0
    if at == 6:
        still_s[6] = 11.0
    assert still_cell(still_s, f4(10)) == at


def test_one_of_any_number_stands_out_but_not_the_only_one() -> None:
    assert still_cell(np.array([10.0, 9.9], f4), f4(10)) == 0
    assert still_cell(np.array([9.9, 10.0], f4), f4(10)) == 1
    assert still_cell(np.array([10.0, 10.0], f4), f4(10)) == -1
    assert still_cell(np.array([10.0], f4), f4(10)) == -1


def test_the_reading_that_has_stood_still_for_longest_is_named(rack: Rack) -> None:
    rack.run(120)
    rack.run(5, 0.0, (7,))
    rack.run(20, 0.0, (3, 7))
    rack.run(6, 0.5, (3, 7))
    assert rack.bench.where(F.STRING_SAG) == 7
    rack.run(1, 0.5, (3,))
    assert rack.bench.where(F.STRING_SAG) == 3


def test_a_reading_stands_still_after_ten_seconds_and_five_samples(rack: Rack) -> None:
    rack.run(10)
    for dt_s, samples in ((1.0, 10), (0.5, 20), (2.0, 5), (60.0, 5)):
        rack.run(1)
        rack.run(samples - 1, 0.0, (4,), dt_s)
        assert rack.bench.state.cell_still_s[4] < 10.0
        rack.run(1, 0.0, (4,), dt_s)
        assert rack.bench.state.cell_still_s[4] == pytest.approx(10.0)
        assert np.count_nonzero(rack.bench.state.cell_still_s) == 1


def test_a_reading_that_is_missing_does_not_stand_still(rack: Rack) -> None:
    rack.run(10, 0.0, (4,))
    rack.bench.m.cell_v_quality[4] = Quality.MISSING
    rack.run(1, 0.0, (4,))
    assert rack.bench.state.cell_still_s[4] == 0.0


def test_the_first_cell_is_named_as_any_other(rack: Rack) -> None:
    rack.run(120, 0.0, (0,))
    assert rack.run(10, 0.5, (0,)) > 0.3
    assert rack.bench.where(F.STRING_SAG) == 0


# the whole, in double precision


class Reference:
    """The same as its description says it, in float64; `wide` is the deviation of the bus bars' resistance at first."""

    def __init__(self, n: int, wide: float, tau_s: float) -> None:
        self.n, self.wide, self.tau_s = n, wide, tau_s
        self.seen = self.sag = self.path = self.noise = 0.0

    def begin(self, pack: float, total: float, a: float) -> None:
        self.seen = self.sag = 0.0
        self.offs = [pack - total] * 2
        self.last = [pack - total, total, a]
        self.fast = [pack - total, total, a]
        self.slow = list(self.fast)
        self.read = (pack, total)
        self.var = self.wide**2

    def step(self, pack: float, total: float, a: float, dt: float, still: bool) -> float:
        fresh = self.seen == 0.0 or dt > 60.0
        if not fresh:
            middle = sorted([pack - total, *self.offs])[1]
            changed = self.last[2] - self.slow[2]
            fallen = self.slow[0] - middle - self.path * changed - 3 * math.sqrt(self.var) * abs(changed)
            fresh = fallen > 1.25 * total / self.n
        if fresh:
            self.begin(pack, total, a)
            middle = pack - total
        suspect = 1 / 6 if self.sag > 0 else 1.0
        for k, x in enumerate((middle, self.last[1], self.last[2])):
            self.fast[k] += dt / (self.tau_s + dt) * (x - self.fast[k])
            self.slow[k] += suspect * dt / (min(self.seen, 60) + dt) * (self.fast[k] - self.slow[k])
        self.offs = [pack - total, self.offs[0]]
        self.last = [pack - total, total, a]
        self.read = (pack, total) if pack != self.read[0] else self.read
        self.seen += dt
        y, level, x = (f - s for f, s in zip(self.fast, self.slow, strict=True))
        off = y + self.path * x
        gain = 0.01 * abs(level)
        doubt = 3 * math.sqrt(self.var) * abs(x) + gain
        least = LSB_V**2 / 16
        noise = self.noise + least + gain**2
        spread = self.var * x * x
        most = 3 * math.sqrt(spread + noise)
        learnt = self.var * x / (spread + noise * (1 + 2 * self.tau_s / dt))
        self.path -= learnt * max(min(off, most), -most)
        self.var = min((1 - learnt * x) * self.var + (0.1 * self.wide) ** 2 * dt / 3600, self.wide**2)
        odd = min(max(abs(off) - doubt, 0.0) ** 2, 9 * self.noise + least)
        self.noise += suspect * dt / (min(self.seen, 600) + dt) * (odd - self.noise)
        own = max(LSB_V, 4 * math.sqrt(self.noise), abs(total - self.read[1]))
        self.sag = max(-off - doubt - own, 0.0) if self.seen >= 30 else 0.0
        return self.sag if still else 0.5 * max(self.sag - 0.15 * abs(level) - 5e-4 * abs(pack), 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_the_description_says(make_signals: Any, seed: int) -> None:
    """Steps of the current, noise, two falls, some of them large, a pause, steps of any length."""
    rng = np.random.default_rng(seed)
    n_parallel = 1 + seed % 2
    bench = make_signals(n_parallel=n_parallel)
    wide = 0.1 * float(bench.config.number[y.FAST_OHM]) * N / n_parallel
    tau_s = bench.config.number[y.STRING_TAU_S] = 1.0 if seed < 5 else 2.5
    reference = Reference(N, wide, tau_s)
    ohm, noise_v = rng.uniform(0, 3) * wide, rng.choice([0.0, 0.02, 0.1])
    falls = [(int(rng.integers(80, 360)), size) for size in (rng.choice([1.0, 2.0]), rng.choice([0.4, 1.0, 3.0, 6.0]))]
    current_a, told = 0.0, 0
    for k in range(400):
        if rng.random() < 0.1:
            current_a = rng.uniform(-80, 80)
        dt_s = 90.0 if rng.random() < 0.004 else float(rng.choice([0.5, 1.0, 2.0]))
        cell_v = (3.3 - 2e-3 * current_a + rng.normal(0.0, 3e-4, N)).astype(f4)
        fall_v = sum(size for at, size in falls if k >= at)
        pack_v = f4(np.round((cell_v.sum() - ohm * current_a - fall_v + rng.normal(0.0, noise_v)) / LSB_V) * LSB_V)
        if k % 100 >= 40:  # a reading that stands still
            cell_v[3] = bench.m.cell_v[3]
        bench.m.cell_v[:], bench.head["pack_v"], bench.head["current_a"] = cell_v, pack_v, f4(current_a)
        bench.look(dt_s)
        still = bool(bench.state.cell_still_s[3] >= 10.0)
        expected_v = reference.step(float(pack_v), float(cell_v.astype(float).sum()), float(f4(current_a)), dt_s, still)
        assert bench.value(F.STRING_SAG) == pytest.approx(expected_v, abs=2e-3), k
        told += expected_v > 0.0
        assert (bench.where(F.STRING_SAG) == 3) is (still and reference.sag > 0.0), k
    assert told > 5
    assert bench.state.number[y.PATH_OHM] == pytest.approx(reference.path, abs=0.01 * wide)
    assert math.sqrt(bench.state.number[y.PATH_VAR]) == pytest.approx(math.sqrt(reference.var), abs=0.01 * wide)
    assert math.sqrt(bench.state.number[y.STRING_VAR]) == pytest.approx(math.sqrt(reference.noise), abs=1e-3)


# whatever comes


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-0.5, 5.5, width=32),
            st.floats(-100, 200, width=32),
            st.floats(-900, 900, width=32),
            st.sampled_from([0.0, 1e-3, 0.1, 1.0, 30.0, 1e4]),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_any_value_in_range_leaves_numbers(
    make_signals: Any, samples: list[tuple[float, float, float, float, bool]]
) -> None:
    bench = make_signals()
    for v, pack_v, current_a, dt_s, new in samples:
        bench.m.cell_v[:] = v
        bench.head["pack_v"], bench.head["current_a"] = pack_v, current_a
        bench.look(dt_s, new)
        assert np.isfinite(bench.state.number[y.STRING_SINCE_S :]).all()
        assert math.isnan(bench.value(F.STRING_SAG)) or bench.value(F.STRING_SAG) >= 0.0
        assert bench.state.number[y.PATH_VAR] >= 0.0
        assert bench.state.number[y.STRING_VAR] >= 0.0
