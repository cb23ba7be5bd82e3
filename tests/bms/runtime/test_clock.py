"""Clocks: virtual time jumps, real time sleeps in naps that a signal can end."""

from bms.runtime.clock import RealClock, VirtualClock


class Machine:
    """A computer whose time passes only while it sleeps."""

    def __init__(self) -> None:
        self.time_s = 1000.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time_s += seconds


def never() -> bool:
    return False


def test_virtual_clock_jumps_and_never_goes_back() -> None:
    clock = VirtualClock()
    assert clock.now_s() == 0
    clock.wait_until(5.0, never)
    clock.wait_until(3.0, never)
    assert clock.now_s() == 5.0


def test_real_clock_sleeps_until_the_time_in_naps() -> None:
    machine = Machine()
    clock = RealClock(1.0, monotonic=machine.monotonic, sleep=machine.sleep)
    assert clock.now_s() == 0
    clock.wait_until(0.12, never)
    assert abs(clock.now_s() - 0.12) < 1e-9
    assert max(machine.naps) <= RealClock.LONGEST_NAP_S
    before = len(machine.naps)
    clock.wait_until(0.1, never)  # past
    assert len(machine.naps) == before


def test_real_clock_at_ten_times_the_speed() -> None:
    machine = Machine()
    clock = RealClock(10.0, monotonic=machine.monotonic, sleep=machine.sleep)
    clock.wait_until(1.0, never)
    assert abs(sum(machine.naps) - 0.1) < 1e-9
    assert abs(clock.now_s() - 1.0) < 1e-9


def test_an_interruption_ends_the_wait_at_the_next_nap() -> None:
    machine = Machine()
    clock = RealClock(1.0, monotonic=machine.monotonic, sleep=machine.sleep)
    clock.wait_until(3600.0, lambda: len(machine.naps) >= 2)
    assert len(machine.naps) == 2
