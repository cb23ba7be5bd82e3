from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hal.contract import COMMAND, MEASUREMENT
from sim import electronics as E
from sim import layout as Y
from sim.config import TwinError
from sim.site import CHUNK, Job, Site, serial


def make(n_racks: int, **tables: Any) -> Site:
    site = Site("lfp_280", {"rack": {"n_series": 3}, "duty": {"kind": "constant"}, **tables}, n_racks)
    site.attach(np.zeros(n_racks, MEASUREMENT.dtype(3, 1)), np.zeros(n_racks, COMMAND.dtype(3, 1)))
    return site


def test_ranges_cover_every_rack_once_and_stop_at_an_answer() -> None:
    seen: list[tuple[int, int, int, int]] = []

    def job(lo: int, hi: int, slot: int, number: int) -> int:
        seen.append((lo, hi, slot, number))
        return lo if lo == 6 else -1

    assert serial(job, 5, 2) == -1
    assert seen == [(0, 2, 0, 0), (2, 4, 0, 1), (4, 5, 0, 2)]
    seen.clear()
    assert serial(job, 20, 3) == 6
    assert [lo for lo, *_ in seen] == [0, 3, 6]


def test_a_rack_is_drawn_from_its_own_seed() -> None:
    site = make(3, rack={"n_series": 3, "seed": 5})
    for k in range(3):
        alone = make(1, rack={"n_series": 3, "seed": 5 + k})
        np.testing.assert_array_equal(site.bank.cells[k], alone.bank.cells[0])
        np.testing.assert_array_equal(site.bank.groups[k], alone.bank.groups[0])
        np.testing.assert_array_equal(site.sensors.lagged[k], alone.sensors.lagged[0])
        assert site.twin(k).config.seed == 5 + k


def test_what_is_asked_of_a_rack_is_the_duty_times_its_share() -> None:
    site = make(200, site={"share_spread": 0.1})
    share = site.bank.string[:, Y.S_SHARE]
    assert share.std() == pytest.approx(0.1, rel=0.2)
    assert np.abs(share - 1.0).max() <= 0.3 + 1e-12
    assert np.all(make(2).bank.string[:, Y.S_SHARE] == 1.0)


def test_time_passes_for_all_racks_and_long_waits_are_cut_into_sub_steps() -> None:
    site = make(2, rack={"n_series": 3, "substep_s": 0.5})
    site.start(0.0)
    site.run(100.25)
    assert site.time_s == 100.25
    np.testing.assert_allclose(site.bank.string[:, Y.S_TIME_S], 100.25)
    assert site.sequence == 2


def test_more_racks_than_one_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """The duty sees the mean over all ranges."""
    n = CHUNK + 5
    seen: list[float] = []
    site = make(n)
    request: Callable[..., float] = site.duty.request

    def spy(time_s: float, view: Any) -> float:
        seen.append(view.soc)
        return request(time_s, view)

    monkeypatch.setattr(site.duty, "request", spy)
    site.start(0.0)
    site._command_from[1][:, site._command_from[0][E.AT_SOC]] = np.linspace(0.2, 0.8, n)
    assert site.command() == (-1, 0)
    site.run(1.0)
    assert seen == [pytest.approx(0.5)]


def test_jobs_see_slots_and_ranges_of_the_runner() -> None:
    calls: list[tuple[int, int]] = []

    def backwards(job: Job, n_racks: int, chunk: int) -> int:
        calls.append((n_racks, chunk))
        for number in reversed(range(-(-n_racks // chunk))):
            job(number * chunk, min((number + 1) * chunk, n_racks), 1, number)
        return -1

    found = []
    for runner, threads in ((serial, 1), (backwards, 2)):
        site = Site("lfp_280", {"rack": {"n_series": 3}}, 70, n_threads=threads, runner=runner)
        record = np.zeros(70, MEASUREMENT.dtype(3, 1))
        site.attach(record, np.zeros(70, COMMAND.dtype(3, 1)))
        site.start(0.0)
        site.run(3.0)
        found.append(record.tobytes() + site.bank.cells.tobytes())
    assert calls == [(70, CHUNK)] * 2
    assert found[0] == found[1]


def test_bad_tables_are_refused() -> None:
    with pytest.raises(TwinError, match="rack 3 is not in 0..2"):
        make(3, fault=[{"kind": "interlock_open", "rack": [0, 3]}])
    with pytest.raises(TwinError, match=r"\[site\]: unknown key 'shares'"):
        make(3, site={"shares": 1})
