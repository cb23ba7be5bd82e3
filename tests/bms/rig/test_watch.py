import numpy as np

from bms import cells
from bms.rig.watch import ANY_CELL_V, CHANNELS, Watch
from bms.runtime.clock import VirtualClock
from hal.contract import Measurement, Quality
from hal.registry import open_rack


def watched(n: int, every: int = 1) -> tuple[Watch, list[Measurement]]:
    clock = VirtualClock()
    kept = []
    with open_rack("sim:lfp_280?n_series=4", clock=clock) as rack:
        watch = Watch(rack.info, cells.load("lfp_280"))
        m = Measurement(4, rack.info.n_sensors)
        for k in range(n * every):
            clock.wait_until(float(k // every), lambda: False)
            rack.read(m)
            if k % every == 0:
                kept.append(m.blank())
                kept[-1].copy_from(m)
            watch.take(m, k / every)
    return watch, kept


def test_every_sample_is_kept_once() -> None:
    watch, kept = watched(5, every=3)
    seen = watch.seen()
    assert seen.n == 5
    assert seen.arrived_s.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert round(seen.span_s, 6) == round(14 / 3, 6)
    np.testing.assert_array_equal(seen.values["cell_v"], np.array([m.cell_v for m in kept], np.float64))
    assert seen.values["current_a"].shape == (5, 1)
    assert set(seen.values) > set(CHANNELS)
    assert not seen.closed().any()


def test_flagged_values_are_no_numbers_but_still_told() -> None:
    watch, kept = watched(2)
    m = kept[0]
    m.head["sequence"] = 99
    m.cell_v_quality[2] = Quality.STALE
    watch.take(m, 9.0)
    seen = watch.seen()
    assert np.isnan(seen.values["cell_v"][2]).tolist() == [False, False, True, False]
    assert seen.told["cell_v"][2, 2] == m.cell_v[2]
    assert seen.flags["cell_v"][2].tolist() == [0, 0, Quality.STALE, 0]


def test_the_cell_file_tells_what_a_cell_can_have() -> None:
    watch, _ = watched(1)
    low, high = watch.seen().cell_v_range
    assert (low, high) == (2.0, 4.15)
    watch.cell = None
    assert watch.seen().cell_v_range == ANY_CELL_V


def test_nothing_is_nothing() -> None:
    watch, _ = watched(1)
    seen = Watch(watch.info, None).seen()
    assert seen.n == 0
    assert seen.span_s == 0.0
