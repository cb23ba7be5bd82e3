"""A reading that stands still while noise moves all others, and racks whose readings stand still in good health."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import signals_layout as y
from bms.core import stillness as d

f4 = np.float32
N = 24
RATE, MOST, STEP = f4(5e-3), f4(1), f4(8)


class Channels:
    """Readings of 3.3 V in steps of 0.1 mV, with `noise` in units of a step; offsets within a step are random."""

    def __init__(self, noise: Any, seed: int = 1) -> None:
        self.noise = np.broadcast_to(np.asarray(noise, float), N)
        self.rng = np.random.default_rng(seed)
        self.true = 33000 + self.rng.uniform(-0.5, 0.5, N)
        self.read = np.rint(self.true)
        self.looks = np.zeros(y.N_LOOKS, f4)
        self.still_s, self.doubt, self.last, self.change = np.zeros((4, N), f4)
        self.change[:] = math.nan
        self.use = np.full(N, y.USABLE | y.CALM, np.uint8)

    def step(
        self, still: int | None = None, dt_s: float = 1.0, awake: Any = True, steady: bool = True
    ) -> tuple[float, int]:
        """One sample, in which `still` and those that are not `awake` read what they did."""
        new = np.where(awake, np.rint(self.true + self.noise * self.rng.standard_normal(N)), self.read)
        if still is not None:
            new[still] = self.read[still]
        self.still_s = np.where(new == self.read, self.still_s + f4(dt_s), f4(0)).astype(f4)
        self.read = new
        memory = self.looks, self.doubt, self.last, self.change
        now = (self.read - 33000).astype(f4)
        value, at = d.lifeless(*memory, now, self.still_s, self.use, y.CALM, steady, RATE, MOST, STEP, f4(dt_s))
        return float(value), int(at)

    def until(self, still: int, value_v: float, dt_s: float = 1.0) -> float:
        """Seconds until so much is told of `still`."""
        for k in range(1, 5000):
            value, at = self.step(still, dt_s)
            assert at in (-1, still)
            if value >= value_v:
                return k * dt_s
        return math.inf


def chance_s(noise: float, look_s: float = 1.0) -> float:
    """When chance is ruled out: the share of samples that repeat is that of two draws from one distribution."""
    level = np.arange(-60, 61)
    total = 0.0
    for offset in np.linspace(-0.5, 0.5, 101):
        edges = [0.5 * math.erf((k - 0.5 - offset) / (noise * math.sqrt(2))) for k in (*level, 61)]
        total += float((np.diff(edges) ** 2).sum()) / 101
    return look_s * 35 / -math.log(1 - (1 - total) ** 3)


@pytest.mark.parametrize("noise", [0.7, 1.0, 3.0, 10.0])
def test_it_is_told_when_chance_is_ruled_out(noise: float) -> None:
    rack = Channels(noise)
    for _ in range(300):
        assert rack.step() == (0.0, -1)
    assert rack.until(7, 1e-6) == pytest.approx(chance_s(noise), rel=0.25, abs=2)


def test_what_may_have_gone_unseen_grows_by_five_millivolts_a_second_to_a_volt() -> None:
    rack = Channels(3.0)
    for _ in range(300):
        rack.step()
    values = [rack.step(7)[0] for _ in range(300)]
    assert values[200] - values[100] == pytest.approx(0.5, abs=0.05)
    assert values[-1] == 1.0


@pytest.mark.parametrize("cells", [2, 8, 12, N])
def test_so_is_a_board_that_stands_still_or_a_whole_rack(cells: int) -> None:
    rack = Channels(3.0)
    for _ in range(300):
        rack.step()
    values = [rack.step(awake=np.arange(N) >= cells) for _ in range(120)]
    assert values[15] == (0.0, -1)
    assert values[60][0] > 0.05
    assert values[60][1] < cells
    assert values[-1][0] > 0.3


def test_a_board_that_dies_early_is_told_as_soon() -> None:
    rack = Channels(3.0)
    for _ in range(60):
        rack.step()
    values = [rack.step(awake=np.arange(N) >= 12)[0] for _ in range(90)]
    assert values[15] == 0.0
    assert values[60] > 0.05


def test_dead_readings_of_a_rack_that_starts_are_told_when_the_others_are_known() -> None:
    """More than half of them stand still from the first."""
    rack = Channels(3.0)
    values = [rack.step(awake=np.arange(N) >= 14)[0] for _ in range(1000)]
    assert max(values[:100]) == 0.0
    assert values[-1] == 1.0


def test_one_that_changes_again_is_well() -> None:
    rack = Channels(3.0)
    for _ in range(300):
        rack.step()
    rack.until(7, 0.05)
    for _ in range(3):
        last = rack.step()
    assert last == (0.0, -1)


def test_a_step_shorter_than_the_time_between_samples_is_none() -> None:
    """The controller looks ten times as often as the rack measures: it takes ten times as many steps, not fewer s."""
    rack = Channels(3.0)
    for k in range(3000):
        rack.step(awake=k % 10 == 0, dt_s=0.1)
    first_s = math.nan
    for k in range(2000):
        value, _ = rack.step(7, dt_s=0.1, awake=k % 10 == 0)
        if value > 0:
            first_s = 0.1 * (k + 1)
            break
    assert first_s == pytest.approx(chance_s(3.0), rel=0.25)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 3.0])
def test_no_healthy_rack_is_told(noise: float) -> None:
    for seed in range(3):
        rack = Channels(noise, seed)
        assert max(rack.step()[0] for _ in range(4000)) == 0.0


def test_a_quiet_channel_among_louder_ones_is_not_told() -> None:
    """It has half of the others' noise, and lies in the middle of a step."""
    for noise in (0.5, 0.6, 0.8, 1.0, 2.0):
        levels = np.full(N, noise)
        levels[7] = noise / 2
        rack = Channels(levels)
        rack.true[7] = 33000
        assert max(rack.step()[0] for _ in range(4000)) == 0.0


def test_a_reading_in_the_middle_of_a_coarse_step_is_not_told() -> None:
    """With so little noise it never leaves the step, while cells near an edge change all the time."""
    rack = Channels(0.12)
    rack.true[7] = 33000
    assert max(rack.step()[0] for _ in range(20000)) == 0.0
    assert 0.5 < rack.looks[y.SAME_SHARE] < 0.9
    assert rack.still_s[7] > 10000


def test_boards_that_are_read_in_turns_are_not_told() -> None:
    rack = Channels(3.0)
    assert max(rack.step(awake=np.arange(N) // 8 == k % 3)[0] for k in range(2000)) == 0.0


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_coarse_readings_of_cells_that_come_to_rest_are_not_told(noise: float) -> None:
    """All change in every sample at first, one way; then ever more seldom."""
    for seed in range(3):
        rack = Channels(noise, seed)
        pace = np.random.default_rng(seed).uniform(0.7, 1.3, N)
        told = 0.0
        for k in range(3000):
            rack.true += 3.0 * pace * math.exp(-k / 200.0)
            told = max(told, rack.step()[0])
        assert told == 0.0
        assert rack.still_s.max() > 500


@pytest.mark.parametrize("pace", [0.5, 3.0, 12.0])
def test_noise_shows_in_readings_that_all_move_one_way(pace: float) -> None:
    """From the first half minute on, as soon as in a rack at rest."""
    for way in (-1.0, 1.0):
        rack = Channels(3.0)
        for _ in range(40):
            rack.true += way * pace
            rack.step()
        first_s = next(k for k in range(1, 100) if rack.step(7)[1] == 7)
        assert first_s <= (1.5 if pace < 10.0 else 2.0) * chance_s(3.0)


def test_a_movement_in_coarse_steps_is_no_noise() -> None:
    """What is left of each change without that of all is less than a step; nor does one reading that moves on its own
    for long go back.
    """
    rack = Channels(0.0)
    rack.true[3:] += 0.3 * np.arange(N - 3)
    for k in range(400):
        rack.true += 5.0 + 2.0 * math.sin(k / 30.0) + 0.2 * (np.arange(N) == 2)
        rack.step()
    assert rack.looks[y.SAME_SHARE] < 0.05
    assert rack.looks[y.BACK_SHARE] < 0.02


def test_a_first_change_may_go_back_as_well_as_not() -> None:
    memory = known(0.4)
    memory[y.BACK_SHARE] = 0.0
    look(memory, np.zeros(N), by=np.where(np.arange(N) % 2 == 0, 1.0, -1.0), before=math.nan)
    assert memory[y.BACK_SHARE] == pytest.approx(2 / 3 / 101)


@pytest.mark.parametrize("steady", [True, False])
def test_a_common_movement_is_taken_off_under_a_steady_load_and_from_a_step_on(steady: bool) -> None:
    """All came from below; one went back by more than the others go on."""
    by = np.where(np.arange(N) == 0, -8.5, 9.0)
    common = float(by.mean())
    for least, taken_off in ((common - 0.1, steady), (common + 0.1, False)):
        memory = known(0.4)
        kind = 0 if steady else y.N_LOOK_NUMBERS
        memory[kind + y.LOOKS] = 100
        memory[kind + y.BACK_SHARE] = 0.0
        memory[y.LEAST_SEEN] = least
        look(memory, np.zeros(N), by=by, steady=steady, before=-1.0)
        went_back = 0 if taken_off else N - 1  # the rest of the others is less than a step
        assert memory[kind + y.BACK_SHARE] == pytest.approx(went_back / N / 101)


def test_a_reading_that_dies_while_all_others_rise_is_told() -> None:
    rack = Channels(3.0)
    told = []
    for k in range(360):
        rack.true += 1.0
        told.append(rack.step(7 if k >= 300 else None)[1])
    assert set(told[:310]) == {-1}
    assert told[-1] == 7


def test_nothing_is_known_in_the_first_half_minute() -> None:
    rack = Channels(3.0)
    assert max(rack.step(7)[0] for _ in range(30)) == 0.0


def test_a_cell_that_is_not_usable_is_not_told() -> None:
    rack = Channels(3.0)
    rack.use[7] = 0
    for _ in range(500):
        last = rack.step(7)
    assert last == (0.0, -1)


def test_a_reading_that_stands_still_while_the_load_changes_is_told_sooner() -> None:
    """Where little noise moves it: a share of 0.4 is the same under a steady load, and none while it changes."""
    rack = Channels(0.7)
    for k in range(600):
        rack.true += 50.0 * (k % 2 == 0) * (-1) ** (k // 2)
        rack.step(steady=k % 2 == 1)
    steady_s = rack.until(7, 1e-6)
    rack.step()
    for seconds in range(1, 1000):
        rack.true += 50.0 * (-1) ** seconds
        if rack.step(7, steady=False)[1] == 7:
            break
    assert seconds < 0.3 * steady_s


# at exact bounds


def known(same: float = 0.0, looks: int = 100, look_s: float = 1.0, kind: int = 0) -> Any:
    """The memory of a rack of which so large a share of readings is the same as before, after so many samples."""
    memory = np.zeros(y.N_LOOKS, f4)
    memory[[kind + y.SAME_SHARE, kind + y.BACK_SHARE, kind + y.LOOKS, kind + y.LOOK_S]] = same, 1.0, looks, look_s
    return memory


def look(
    memory: Any,
    still_s: Any,
    doubt: Any = 0.0,
    dt_s: float = 1.0,
    steady: bool = True,
    by: Any = -1.0,
    use: Any = 3,
    before: float = 1.0,
) -> tuple[float, int, list[float]]:
    """(what is told of readings that have stood still for `still_s`, its place, their doubt).

    Those that have changed were at 0 and are at `by` now; before, they went by `before`. All are usable and measured in peace.
    """
    still_s = np.asarray(still_s, f4)
    doubts, now, uses = (
        np.broadcast_to(np.asarray(x, t), still_s.shape).copy() for x, t in ((doubt, f4), (by, f4), (use, np.uint8))
    )
    last, change = np.zeros_like(still_s), np.full_like(still_s, before)
    value, at = d.lifeless(memory, doubts, last, change, now, still_s, uses, y.CALM, steady, RATE, MOST, STEP, f4(dt_s))
    return float(value), int(at), [float(x) for x in doubts]


def per_s(same: float, look_s: float = 1.0) -> float:
    """-ln of the chance that a reading stands still for a second."""
    return -math.log(1 - (1 - same) ** 3) / look_s


STILL = np.ones(N)


@pytest.mark.parametrize(("same", "look_s"), [(0.1, 1.0), (0.3, 1.0), (0.6, 1.0), (0.3, 0.1), (0.5, 4.0)])
@pytest.mark.parametrize("steady", [True, False])
def test_each_second_adds_its_chance(same: float, look_s: float, steady: bool) -> None:
    memory = known(float(f4(same)), look_s=look_s, kind=0 if steady else y.N_LOOK_NUMBERS)
    for seconds in (1.0, 3.0):
        doubt = look(memory, STILL, 2.0, seconds, steady)[2]
        assert doubt == pytest.approx([2.0 + seconds * per_s(same, look_s)] * N, rel=1e-5)
    assert look(memory, STILL, 2.0, 3.0, not steady)[2] == [2.0] * N  # of the other kind nothing is known


def test_a_change_or_a_loss_begins_anew() -> None:
    still_s = STILL.copy()
    still_s[3] = 0.0
    assert look(known(0.3), still_s, 5.0)[2][3] == 0.0
    doubt = look(known(0.3), np.ones(3), 5.0, use=[y.USABLE | y.CALM, 0, y.USABLE])[2]
    assert doubt[1] == 0.0
    assert min(doubt[0], doubt[2]) > 5.0


def test_beyond_one_in_a_million_billions_seconds_count() -> None:
    sure = float(d._SURE)
    assert sure == pytest.approx(-math.log(1e-15), rel=0.02)
    below = float(np.nextafter(f4(sure), f4(0)))
    assert look(known(0.1), STILL, below) == (0.0, -1, [sure] * N)
    assert look(known(0.1), STILL, sure) == (pytest.approx(5e-3), 0, [sure + 1.0] * N)
    assert look(known(0.9), STILL, sure + 20.0)[0] == pytest.approx(0.1)  # what has been told stays
    assert look(known(0.1, looks=29), STILL, sure + 20.0)[0] == pytest.approx(0.1)
    assert look(known(0.1), STILL, sure + 500.0)[0] == 1.0


def test_six_tenths_of_the_readings_may_be_the_same_as_before_and_no_more() -> None:
    """With more they become suspect, and teach nothing; but nothing is told."""
    share, suspect = np.nextafter(f4(0.6), f4(0)), float(d._SUSPECT)
    assert look(known(float(share)), STILL, suspect + 2.0)[2][0] > suspect + 2.0
    more = known(float(np.nextafter(f4(0.6), f4(1))))
    assert look(more, STILL, suspect + 2.0)[2][0] == pytest.approx(suspect + 2.0)
    assert look(more, STILL, suspect, 99.0)[2][0] == pytest.approx(suspect + 1.0)


def test_thirty_samples_are_enough() -> None:
    assert look(known(looks=29), STILL)[2][0] == 0.0
    assert look(known(looks=30), STILL)[2][0] > 0.0


def test_averages_are_of_an_hour_of_samples() -> None:
    memory = known(0.4, looks=3600, look_s=2.0)
    look(memory, np.zeros(N))
    assert memory[y.SAME_SHARE] == pytest.approx(0.4 - 0.4 / 3600, rel=1e-7)
    assert memory[y.LOOK_S] == pytest.approx(2.0 - 1.0 / 3600, rel=1e-7)
    assert memory[y.LOOKS] == 3600


def test_a_pause_counts_as_ten_seconds() -> None:
    memory = known(looks=3)
    look(memory, STILL, dt_s=3600.0)
    look(memory, np.zeros(N))
    assert memory[y.LOOK_S] == pytest.approx((3 * 1.0 + 10.0) / 4)
    assert memory[y.LOOKED_S] == 0.0


def test_each_kind_of_sample_has_its_own_averages() -> None:
    memory = known(0.4, looks=3)
    look(memory, np.zeros(N), steady=False)
    assert memory[: y.N_LOOK_NUMBERS].tolist() == known(0.4, looks=3)[: y.N_LOOK_NUMBERS].tolist()
    assert memory[y.N_LOOK_NUMBERS + y.LOOKS] == 1


def test_a_single_reading_that_changes_is_a_sample_and_a_step_of_no_length_is_none() -> None:
    still_s = np.full(N, 2.0)
    still_s[3] = 0.0
    memory = known(looks=9)
    look(memory, still_s, dt_s=0.0)
    assert memory[y.LOOKS] == 9
    look(memory, still_s)
    assert memory[y.LOOKS] == 10
    assert memory[y.SAME_SHARE] == pytest.approx(23 / 24 / 10)


def test_what_stands_still_for_a_third_of_the_chance_teaches_nothing() -> None:
    """Half of the readings; the others have changed."""
    third = f4(35 / 3)
    for doubt, share in ((third, 0.5), (np.nextafter(third, f4(99)), 0.0)):
        memory = known(0.4)
        half = np.arange(N) < 12
        look(memory, np.where(half, 9.0, 0.0), np.where(half, doubt, 0.0))
        assert memory[y.SAME_SHARE] == pytest.approx((100 * 0.4 + share) / 101)


def test_a_single_channel_teaches_nothing() -> None:
    memory = known(0.4)
    look(memory, [0.0])
    look(memory, [0.0, 99.0], [0.0, 30.0])  # nor one beside one that is suspect
    assert memory[y.LOOKS] == 100
    look(memory, [0.0, 1.0])
    assert memory[y.LOOKS] == 101


def test_readings_that_all_wake_up_are_no_share_below_none() -> None:
    """Suspect ones change again: more have changed than were alive."""
    memory = known(0.4)
    look(memory, np.zeros(N), np.where(np.arange(N) < 12, 30.0, 0.0))
    assert memory[y.SAME_SHARE] == pytest.approx(0.4 - 0.4 / 101)


def test_changes_that_go_back_are_counted_beside_all_others() -> None:
    memory = known(0.4)
    memory[y.BACK_SHARE] = 0.3
    look(memory, np.where(np.arange(N) < 18, 0.0, 1.0), by=np.where(np.arange(N) < 8, -1.0, 1.0))
    assert memory[y.SAME_SHARE] == pytest.approx((100 * 0.4 + 6 / N) / 101)
    assert memory[y.BACK_SHARE] == pytest.approx((100 * 0.3 + 8 / N) / 101)


@pytest.mark.parametrize(("back", "same"), [(0.0, 1.0), (0.3, 0.475), (0.34, 0.405), (0.35, 0.4), (1.0, 0.4)])
def test_no_more_changes_count_than_seven_for_four_that_go_back(back: float, same: float) -> None:
    memory = known(0.4)
    memory[y.BACK_SHARE] = back
    assert look(memory, STILL, 2.0)[2] == pytest.approx([2.0 + per_s(same)] * N, rel=1e-5)


def test_what_is_measured_while_it_is_disturbed_teaches_nothing() -> None:
    """Nor the way back from that: what has gone down as bleeding began comes up as it ends."""
    rack = Channels(0.0)
    for k in range(200):
        bled = k % 20 < 10
        rack.use[:8] = y.USABLE if bled else y.USABLE | y.CALM
        rack.true[:8] += (-150.0 if k % 20 == 0 else 150.0 if k % 20 == 10 else 0.0) if k else 0.0
        rack.step()
    assert rack.looks[y.LOOKS] >= 9
    assert rack.looks[y.BACK_SHARE] == 0.0


def test_the_smallest_change_of_any_reading_is_kept() -> None:
    memory = known()
    for by, least in ((0.0, 0.0), (5.0, 5.0), (-2.0, 2.0), (3.0, 2.0), (0.0, 2.0)):
        look(memory, [0.0, 1.0], by=by)
        assert memory[y.LEAST_CHANGE] == least
    look(memory, [0.0, 1.0], by=1.0, use=y.USABLE)  # disturbed
    assert memory[y.LEAST_CHANGE] == 2.0
    look(memory, [0.0, 1.0], by=math.nan)
    assert memory[y.LEAST_CHANGE] == 2.0


def test_what_no_converter_has_is_no_step() -> None:
    memory = known()
    look(memory, [0.0, 1.0], by=float(np.nextafter(STEP, f4(99))))
    assert memory[y.LEAST_CHANGE] == 0.0
    look(memory, [0.0, 1.0], by=float(STEP))
    assert memory[y.LEAST_CHANGE] == STEP


def test_of_two_that_have_stood_still_for_as_long_the_first_is_named() -> None:
    doubt = np.zeros(N)
    doubt[[7, 11]] = 100.0
    assert look(known(), STILL, doubt)[1] == 7
    doubt[12] = 101.0
    assert look(known(), STILL, doubt)[1] == 12


@pytest.mark.parametrize(("n", "told"), [(7, False), (8, True)])
def test_of_few_thermometers_nothing_is_told(make_signals: Any, n: int, told: bool) -> None:
    state = make_signals(24, n).state
    state.degc_looks[[y.SAME_SHARE, y.BACK_SHARE, y.LOOKS, y.LOOK_S]] = 0.3, 1.0, 100, 1.0
    state.degc_still_s[:], state.degc_doubt[:], state.sensor_use[:] = 1.0, d._SURE + f4(9), y.USABLE
    assert d.lifeless_sensor(state, f4(1)) == ((pytest.approx(0.1), 0) if told else (0.0, -1))


@pytest.mark.parametrize(("beyond_s", "volt", "kelvin"), [(9.0, 0.05, 0.1), (999.0, 1.0, 10.0), (2000.0, 1.0, 10.0)])
def test_what_may_go_unseen_is_a_hard_short_or_a_cell_without_cooling(
    make_signals: Any, beyond_s: float, volt: float, kelvin: float
) -> None:
    """5 mV/s up to 1 V, and 0.6 K/min up to 10 K."""
    bench = make_signals(24, 8)
    state = bench.state
    for looks, still_s, doubt, use in (
        (state.cell_looks, state.cell_still_s, state.cell_doubt, state.cell_use),
        (state.degc_looks, state.degc_still_s, state.degc_doubt, state.sensor_use),
    ):
        looks[[y.SAME_SHARE, y.BACK_SHARE, y.LOOKS, y.LOOK_S]] = 0.3, 1.0, 100, 1.0
        still_s[:], doubt[:], use[:] = 1.0, d._SURE + f4(beyond_s), y.USABLE
    assert d.lifeless_cell(bench.config, state, f4(1)) == (pytest.approx(volt), 0)
    assert d.lifeless_sensor(state, f4(1)) == (pytest.approx(kelvin), 0)


@pytest.mark.parametrize(("share", "steady"), [(0.99, True), (-0.99, True), (1.0, False), (-1.0, False)])
def test_a_load_is_steady_within_what_counts_as_none(make_signals: Any, share: float, steady: bool) -> None:
    """Against the step before: samples of either kind are counted apart."""
    bench = make_signals()
    state, rest_a = bench.state, float(bench.config.number[y.REST_A])
    state.number[y.HELD_A] = rest_a  # so that single precision adds exactly
    d.lifeless_cell(bench.config, state, f4(1))
    state.cell_looks[:], state.cell_use[:] = 0.0, y.USABLE | y.CALM
    state.number[y.HELD_A] += f4(share * rest_a)
    d.lifeless_cell(bench.config, state, f4(1))
    assert [int(state.cell_looks[kind + y.LOOKS]) for kind in (0, y.N_LOOK_NUMBERS)] == [steady, not steady]


def test_channels_that_are_not_usable_teach_nothing() -> None:
    """Of three that change one is read, and of two that stand still one."""
    memory = known(0.4)
    look(memory, [0.0, 0.0, 0.0, 1.0, 1.0], use=[3, 0, 0, 3, 0])
    assert memory[y.SAME_SHARE] == pytest.approx((100 * 0.4 + 0.5) / 101)


def test_a_step_is_known_after_thirty_samples_from_the_first_on() -> None:
    memory = known(looks=29)
    for by, seen, least in ((2.0, 2.0, 0.0), (3.0, 2.0, 2.0), (-1.0, 1.0, 1.0)):
        look(memory, [0.0, 1.0], by=by)
        assert (memory[y.LEAST_SEEN], memory[y.LEAST_CHANGE]) == (seen, least)


def test_while_no_step_is_known_it_may_be_the_coarsest() -> None:
    """Changes of 10 and 20 are steps of no converter that is looked at: what is left of them, 5, tells nothing."""
    memory = known(0.4)
    memory[y.BACK_SHARE] = 0.0
    look(memory, np.zeros(N), by=np.where(np.arange(N) % 2 == 0, 10.0, 20.0))
    assert memory[y.LEAST_SEEN] == 0.0
    assert memory[y.BACK_SHARE] == 0.0
