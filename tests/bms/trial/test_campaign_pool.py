"""Workers: the same rows from one, from two, and from a Dask cluster; one that dies costs its own sample alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from bms.trial import campaign_pool
from bms.trial.campaign_pool import TRIES, progress, run_dask, run_local
from hal.errors import ConfigError, DataError


def collected(into: list):
    return lambda row: into.append(row)


def by_number(found: list) -> list:
    return sorted(found, key=lambda row: row["sample"])


@pytest.mark.parametrize("jobs", [1, 2])
def test_any_number_of_processes_gives_the_same_rows(plan, rows, jobs: int) -> None:
    found: list[Any] = []
    assert run_local(plan(), range(8), jobs, "jit", collected(found)) == []
    assert by_number(found) == rows


def test_a_killed_worker_costs_its_sample_alone(plan, rows, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    started: list[Any] = []
    give, start = campaign_pool._Worker.give, campaign_pool._Worker.__init__

    def counted(self, *args: Any) -> None:
        start(self, *args)
        started.append(self)

    def murderous(self, sample: int | None) -> None:
        give(self, sample)
        if sample == 5 and not killed:
            killed.append(sample)
            os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(campaign_pool._Worker, "__init__", counted)
    monkeypatch.setattr(campaign_pool._Worker, "give", murderous)
    found: list[Any] = []
    assert run_local(plan(), range(8), 2, "jit", collected(found)) == []
    assert killed == [5]
    assert len(started) == 3  # one came instead of it, the other went on
    assert by_number(found) == rows


def test_a_sample_that_kills_every_worker_is_lost_and_told(plan, rows, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    give = campaign_pool._Worker.give

    def murderous(self, sample: int | None) -> None:
        give(self, sample)
        if sample == 2:
            tries.append(sample)
            os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(campaign_pool._Worker, "give", murderous)
    found: list[Any] = []
    assert run_local(plan(), range(4), 2, "jit", collected(found)) == [2]
    assert len(tries) == TRIES
    assert by_number(found) == [rows[k] for k in (0, 1, 3)]


def test_workers_that_do_nothing_but_die_end_it(plan, monkeypatch: pytest.MonkeyPatch) -> None:
    give = campaign_pool._Worker.give

    def murderous(self, sample: int | None) -> None:
        give(self, sample)
        os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(campaign_pool._Worker, "give", murderous)
    monkeypatch.setattr(campaign_pool, "DEATHS", 4)
    with pytest.raises(DataError, match="4 workers died one after another, the last at shorts-00000"):
        run_local(plan(), range(8), 2, "jit", print)


def test_a_wrong_field_ends_it_in_a_worker_too(plan) -> None:
    with pytest.raises(ConfigError, match=r"trial 'shorts-00000\d'.*initial_sok"):
        run_local(plan(rack={"initial_sok": 0.5}), range(4), 2, "jit", print)


def test_an_interrupt_ends_the_processes(plan) -> None:
    import multiprocessing

    def interrupted(row: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_local(plan(), range(8), 2, "jit", interrupted)
    assert multiprocessing.active_children() == []


# --- Dask -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="no Dask: pip install 'rackbms[dask]'")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as found:
        yield found


def test_a_dask_cluster_gives_the_same_rows(plan, rows, cluster) -> None:
    found: list[Any] = []
    assert run_dask(plan(), range(8), cluster.scheduler_address, "jit", collected(found)) == []
    assert by_number(found) == rows


def test_a_killed_worker_of_a_cluster_costs_its_samples_alone(plan, rows, cluster) -> None:
    killed: list[int] = []
    found: list[Any] = []

    def done(row: Any) -> None:
        found.append(row)
        if not killed:
            killed.append(next(iter(cluster.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)

    assert run_dask(plan(), range(8), cluster.scheduler_address, "jit", done) == []
    assert killed
    assert by_number(found) == rows


def test_a_wrong_field_ends_it_on_a_cluster(plan, cluster) -> None:
    with pytest.raises(ConfigError, match="initial_sok"):
        run_dask(plan(rack={"initial_sok": 0.5}), range(2), cluster.scheduler_address, "jit", print)


def test_a_scheduler_that_is_not_there(plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="no Dask: pip install 'rackbms[dask]'")
    monkeypatch.setattr(campaign_pool, "CONNECT_S", 0.2)
    with pytest.raises(ConfigError, match=r"--scheduler tcp://127.0.0.1:9: cannot be reached"):
        run_dask(plan(), range(2), "tcp://127.0.0.1:9", "jit", print)


def test_progress_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign_pool, "SAY_S", 0.0)
    with progress(4, 2) as told:
        told({"passed": True})
        told({"passed": False})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("samples: 3 of 4, ")
    assert lines[1] == "samples: 4 of 4, 1 failed, 0 s left"
    with progress(4, quiet=True) as told:
        told({"passed": True})
    assert capsys.readouterr().err == ""
