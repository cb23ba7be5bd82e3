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


class Channels:
    """Readings of 3.3 V in steps of 0.1 mV, with `noise` in units of a step; offsets within a step are random."""

    def __init__(self, noise: Any, seed: int = 1) -> None:
        self.noise = np.broadcast_to(np.asarray(noise, float), N)
        self.rng = np.random.default_rng(seed)
        self.true = 33000 + self.rng.uniform(-0.5, 0.5, N)
        self.read = np.rint(self.true)
        self.number = np.zeros(y.N_STATE_NUMBERS, f4)
        self.still_s = np.zeros(N, f4)
        self.use = np.full(N, y.USABLE, np.uint8)

    def step(self, still: int | None = None, dt_s: float = 1.0, awake: Any = True) -> tuple[float, int]:
        """One sample, in which `still` and those that are not `awake` read what they did."""
        new = np.where(awake, np.rint(self.true + self.noise * self.rng.standard_normal(N)), self.read)
        if still is not None:
            new[still] = self.read[still]
        self.still_s = np.where(new == self.read, self.still_s + f4(dt_s), f4(0)).astype(f4)
        self.read = new
        value, at = d.lifeless(self.number, self.still_s, self.use, f4(dt_s))
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
    assert 0.5 < rack.number[y.SAME_SHARE] < 0.9
    assert rack.still_s[7] > 10000


def test_boards_that_are_read_in_turns_are_not_told() -> None:
    rack = Channels(3.0)
    assert max(rack.step(awake=np.arange(N) // 8 == k % 3)[0] for k in range(2000)) == 0.0


def test_nothing_is_known_in_the_first_half_minute() -> None:
    rack = Channels(3.0)
    assert max(rack.step(7)[0] for _ in range(30)) == 0.0


def test_a_cell_that_is_not_usable_is_not_told() -> None:
    rack = Channels(3.0)
    rack.use[7] = 0
    for _ in range(500):
        last = rack.step(7)
    assert last == (0.0, -1)


# at exact bounds


def known(same: float = 0.0, looks: int = 100, look_s: float = 1.0) -> Any:
    """The memory of a rack of which so large a share of readings is the same as before, after so many samples."""
    number = np.zeros(y.N_STATE_NUMBERS, f4)
    number[[y.SAME_SHARE, y.LOOKS, y.LOOK_S]] = same, looks, look_s
    return number


def look(number: Any, still_s: Any, dt_s: float = 1.0) -> tuple[float, int]:
    """What is told of readings that have stood still for `still_s`; all cells are usable."""
    still_s = np.asarray(still_s, f4)
    value, at = d.lifeless(number, still_s, np.full(still_s.size, y.USABLE, np.uint8), f4(dt_s))
    return float(value), int(at)


def all_still(longest_s: float, cell: int = 7) -> Any:
    """Times of `N` readings, none of which has just changed."""
    still_s = np.ones(N)
    still_s[cell] = longest_s
    return still_s


@pytest.mark.parametrize(("same", "look_s"), [(0.1, 1.0), (0.3, 1.0), (0.5, 1.0), (0.3, 0.1), (0.5, 4.0)])
def test_one_in_a_million_billions_is_ruled_out(same: float, look_s: float) -> None:
    chance_s = look_s * 35 / -math.log(1 - (1 - same) ** 3)
    value, at = look(known(same, look_s=look_s), all_still(chance_s + 20.0))
    assert value == pytest.approx(0.1, abs=1e-3)
    assert at == 7
    assert look(known(same, look_s=look_s), all_still(chance_s - 0.1)) == (0.0, -1)


def test_what_chance_may_just_do_is_not_told() -> None:
    number = known(0.3)
    chance_s = d._by_chance_s(number)
    assert look(number, all_still(chance_s)) == (0.0, -1)
    assert look(number, all_still(np.nextafter(chance_s, f4(np.inf))))[1] == 7


def test_half_of_the_readings_may_be_the_same_as_before_and_no_more() -> None:
    assert look(known(0.5), all_still(1000.0)) == (1.0, 7)
    assert look(known(float(np.nextafter(f4(0.5), f4(1)))), all_still(1000.0)) == (0.0, -1)


def test_thirty_samples_are_enough() -> None:
    assert look(known(looks=29), all_still(1000.0)) == (0.0, -1)
    assert look(known(looks=30), all_still(1000.0)) == (1.0, 7)


def test_averages_are_of_an_hour_of_samples() -> None:
    number = known(0.4, looks=3600, look_s=2.0)
    look(number, np.zeros(N))
    assert number[y.SAME_SHARE] == pytest.approx(0.4 - 0.4 / 3600, rel=1e-7)
    assert number[y.LOOK_S] == pytest.approx(2.0 - 1.0 / 3600, rel=1e-7)
    assert number[y.LOOKS] == 3600


def test_a_pause_counts_as_ten_seconds() -> None:
    number = known(looks=3)
    look(number, all_still(2.0), dt_s=3600.0)
    look(number, np.zeros(N))
    assert number[y.LOOK_S] == pytest.approx((3 * 1.0 + 10.0) / 4)


def test_a_single_reading_that_changes_is_a_sample_and_a_step_of_no_length_is_none() -> None:
    still_s = np.full(N, 2.0)
    still_s[3] = 0.0
    number = known(looks=9)
    look(number, still_s, dt_s=0.0)
    assert number[y.LOOKS] == 9
    look(number, still_s)
    assert number[y.LOOKS] == 10
    assert number[y.SAME_SHARE] == pytest.approx(23 / 24 / 10)


def test_what_stands_still_for_a_third_of_the_time_teaches_nothing() -> None:
    """Half of the readings; the others have changed."""
    for longer, share in ((False, 0.5), (True, 0.0)):
        number = known(0.4)
        suspect_s = f4(1 / 3) * d._by_chance_s(number)
        look(number, np.where(np.arange(N) < 12, np.nextafter(suspect_s, f4(np.inf)) if longer else suspect_s, 0.0))
        assert number[y.SAME_SHARE] == pytest.approx((100 * 0.4 + share) / 101)


def test_of_two_that_have_stood_still_for_as_long_the_first_is_named() -> None:
    still_s = all_still(1000.0)
    still_s[11] = 1000.0
    assert look(known(), still_s) == (1.0, 7)
    still_s[12] = 1001.0
    assert look(known(), still_s) == (1.0, 12)
