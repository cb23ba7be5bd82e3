"""Power, charge and energy of a stream of measurements, against sums over its steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.codec.can_derived import DERIVED, LONGEST_S, Derived
from hal.contract import Measurement, Quality


@given(st.integers(0, 2**32 - 1))
def test_they_are_what_has_flowed_while_it_was_measured(seed: int) -> None:
    rng, m, derived = np.random.default_rng(seed), Measurement(1, 1), Derived()
    charge_as = energy_wh = last_s = 0.0
    for step in range(30):
        passed_s = float(rng.choice([0.0, 0.1, 0.5, 0.99 * LONGEST_S, 1.01 * LONGEST_S]))
        time_s, current_a, pack_v = last_s + passed_s, float(rng.normal(0, 100)), float(rng.uniform(500, 800))
        bad = rng.random(2) < 0.2
        m.head["time_s"], m.head["current_a"], m.head["pack_v"] = time_s, current_a, pack_v
        m.head["current_a_quality"], m.head["pack_v_quality"] = Quality.STALE * bad[0], Quality.FROZEN * bad[1]
        told = derived.take(m)
        if step and passed_s <= LONGEST_S:
            charge_as += 0.0 if bad[0] else current_a * passed_s
            energy_wh += 0.0 if bad.any() else current_a * pack_v * passed_s / 3600
        last_s = time_s
        assert told["power_w"][0] == pytest.approx(current_a * pack_v, rel=1e-6)
        assert told["charge_as"][0] == pytest.approx(charge_as, rel=1e-5, abs=1e-3)
        assert told["energy_wh"][0] == pytest.approx(energy_wh, rel=1e-5, abs=1e-3)
        both = Quality.STALE * bad[0] | Quality.FROZEN * bad[1]
        assert [told[name][1] for name in DERIVED] == [both, Quality.STALE * bad[0], both]


def test_no_number_is_counted() -> None:
    m, derived = Measurement(1, 1), Derived()
    for step in range(3):
        m.head["time_s"], m.head["current_a"], m.head["pack_v"] = 0.5 * step, np.nan if step == 1 else 10.0, 100.0
        derived.take(m)
    assert (derived.charge_as, derived.energy_wh) == (5.0, pytest.approx(500 / 3600))
