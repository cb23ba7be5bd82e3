import threading

import pytest

from hal.ranges import Ranges, processors


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize(("n_racks", "size"), [(1, 1), (7, 3), (64, 32), (3, 100)])
def test_every_rack_is_worked_on_once(n_threads: int, n_racks: int, size: int) -> None:
    seen: list[tuple[int, int, int]] = []
    lock = threading.Lock()

    def job(lo: int, hi: int, thread: int, number: int) -> int:
        assert 0 <= thread < n_threads
        with lock:
            seen.append((number, lo, hi))
        return -1

    with Ranges(n_threads) as ranges:
        assert ranges(job, n_racks, size) == -1
    racks = [rack for _, lo, hi in sorted(seen) for rack in range(lo, hi)]
    assert racks == list(range(n_racks))
    assert [number for number, _, _ in sorted(seen)] == list(range(-(-n_racks // size)))


def test_two_threads_work_at_the_same_time_each_with_a_number_of_its_own() -> None:
    meeting = threading.Barrier(2, timeout=10.0)
    numbers = []

    def job(lo: int, hi: int, thread: int, number: int) -> int:
        meeting.wait()
        numbers.append(thread)
        return -1

    with Ranges(2) as ranges:
        ranges(job, 2, 1)
    assert sorted(numbers) == [0, 1]


def test_the_answer_of_the_first_range_that_has_one_counts() -> None:
    with Ranges(2) as ranges:
        assert ranges(lambda lo, hi, thread, number: lo if lo >= 6 else -1, 20, 2) == 6


def test_an_error_in_any_thread_is_raised() -> None:
    def job(lo: int, hi: int, thread: int, number: int) -> int:
        raise KeyError(number)

    for n_threads in (1, 2):
        with Ranges(n_threads) as ranges, pytest.raises(KeyError):
            ranges(job, 4, 1)


def test_there_is_a_processor() -> None:
    assert processors() >= 1
