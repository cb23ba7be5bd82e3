"""The loop on a bus that loses, spoils, repeats, delays or holds back frames, 1 %, 10 % and all of them.

It rides through what checksums, counters and a missing frame or two can bear, and opens when it is blind.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from can_bus import BusRack, Far

from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from hal.codec.frames import Verdict
from hal.contract import RackState
from hal.links.can_link import CanLink

N_CELLS = 32
TWIN = f"sim:lfp_280?n_series={N_CELLS}"
PERIOD_S = 0.1
BEGINS_S, HEALED_S, END_S = 15.0, 45.0, 55.0
RATES = ((BEGINS_S, 23.0, 0.01), (23.0, 31.0, 0.1), (31.0, HEALED_S, 1.0))
"""From when until when which share of the frames is hit, in both directions."""
HOLD_TURNS = 10
RACK_STATUS = 0x080
HALF_STEP_V = 0.51e-4
UNSEEN = 1 / 256
"""Of other damage than bursts of up to 8 bits, so much has the right checksum."""
BLIND_S = 10.0
"""No value is used that is older than 2 s; a voltage that is lost for 10 s opens. Where nothing comes, 5 s open."""

Frame = tuple[int, bytes]
Damage = Callable[[list[Frame], np.random.Generator, float], list[Frame]]


def lose(frames: list[Frame], rng: np.random.Generator, rate: float) -> list[Frame]:
    return [frame for frame in frames if rng.random() >= rate]


def spoil(frames: list[Frame], rng: np.random.Generator, rate: float) -> list[Frame]:
    """Up to 8 bits in a row become others."""
    out = []
    for key, data in frames:
        bits = int.from_bytes(data, "big")
        if rng.random() < rate:
            bits ^= int(rng.integers(1, 256)) << int(rng.integers(0, 49))
        out.append((key, bits.to_bytes(8, "big")))
    return out


def swap(frames: list[Frame], rng: np.random.Generator, rate: float) -> list[Frame]:
    """The words of 16 bits in the other order."""
    turned = [(key, data[2:4] + data[:2] + data[6:] + data[4:6]) for key, data in frames]
    return [turned[k] if rng.random() < rate else frame for k, frame in enumerate(frames)]


def repeat(frames: list[Frame], rng: np.random.Generator, rate: float) -> list[Frame]:
    return [frame for frame in frames for _ in range(1 + (rng.random() < rate))]


class Delay:
    """Frames come one turn late, and so behind those that came after them."""

    def __init__(self) -> None:
        self.held: list[Frame] = []

    def __call__(self, frames: list[Frame], rng: np.random.Generator, rate: float) -> list[Frame]:
        late = [frame for frame in frames if rng.random() < rate]
        out = [frame for frame in frames if frame not in late] + self.held
        self.held = late
        return out


class Freeze:
    """A frame comes as it was when it was first hit, for a second."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[int, Frame]] = {}

    def __call__(self, frames: list[Frame], rng: np.random.Generator, rate: float) -> list[Frame]:
        out = []
        for frame in frames:
            left, held = self.held.get(frame[0], (0, frame))
            if left == 0 and rng.random() < rate:
                left, held = HOLD_TURNS, frame
            self.held[frame[0]] = max(left - 1, 0), held
            out.append(held if left else frame)
        return out


class Away(Freeze):
    """A frame stays away for a second."""

    def __call__(self, frames: list[Frame], rng: np.random.Generator, rate: float) -> list[Frame]:
        super().__call__(frames, rng, rate)
        return [frame for frame in frames if not self.held[frame[0]][0]]


class Off:
    """Nothing comes for a second."""

    def __init__(self) -> None:
        self.left = 0

    def __call__(self, frames: list[Frame], rng: np.random.Generator, rate: float) -> list[Frame]:
        self.left = HOLD_TURNS if rng.random() < rate else max(self.left - 1, 0)
        return [] if self.left else frames


class StatusAway:
    """The frame that tells of contactors, interlock and emergency stop stays away for so many turns, the others come."""

    def __init__(self, turns: int) -> None:
        self.left = turns

    def __call__(self, frames: list[Frame], rng: np.random.Generator, rate: float) -> list[Frame]:
        self.left -= 1
        return [frame for frame in frames if frame[0] != RACK_STATUS] if self.left >= 0 else frames


DAMAGE: dict[str, Callable[[], Damage]] = {
    "drop": lambda: lose,
    "corrupt": lambda: spoil,
    "swap_words": lambda: swap,
    "duplicate": lambda: repeat,
    "delay, reorder": Delay,
    "freeze": Freeze,
    "stale": Away,
    "bus_off": Off,
}
ROUGH = ("freeze", "stale", "bus_off")
"""They take a frame away for a second at a time: at 10 % that is for most of the time, and it may open."""
BLINDS = ("drop", "corrupt", "swap_words", "freeze", "stale", "bus_off")
"""Nothing good comes where all frames are hit."""


def rate_at(now_s: float) -> float:
    return next((rate for from_s, until_s, rate in RATES if from_s <= now_s < until_s), 0.0)


def damaged(link: CanLink, damage: Damage, clock: VirtualClock, seed: int) -> None:
    """Have what `link` sends damaged for a while."""
    send, rng = link.send, np.random.default_rng(seed)

    def sending(frames: Iterable[Frame]) -> None:
        rate = rate_at(clock.now_s())
        send(damage(list(frames), rng, rate) if rate else frames)

    link.send = sending  # type: ignore[method-assign]


class Ride:
    """A run with a bad bus in its middle; `state`, `contactors` and what was seen of the cells by step."""

    def __init__(self, kind: str, damage: Callable[[], Damage]) -> None:
        clock = VirtualClock()
        url = f"can:virtual:lossy_{kind}?n_cells={N_CELLS}&n_sensors={N_CELLS // 4}"
        self.far = Far(url, TWIN, {"duty": {"kind": "constant", "c_rate": 0.3}})
        self.both = BusRack(url, self.far, clock)
        self.both.lossy = True
        damaged(self.both.rack.link, damage(), clock, 1)
        damaged(self.far.server.link, damage(), clock, 2)
        seen: list[tuple[float, int, int, float, float]] = []
        with self.both:
            controller = make_controller(Scenario(rack=TWIN, cell="lfp_280", period_s=PERIOD_S), self.both, clock)
            m, head = controller.measurement, controller.command.head

            def observe(*_: object) -> None:
                good = m.cell_v_quality == 0
                used = good & (m.cell_v_age_s == 0.0)
                off_v = np.abs(m.cell_v - self.far.measurement.cell_v)[used].max(initial=0.0)
                age_s = np.where(good, m.cell_v_age_s, np.inf).max()
                seen.append((clock.now_s(), int(head["state"][0]), int(head["contactors"][0]), float(off_v), age_s))

            Loop(self.both, controller, clock, PERIOD_S, observers=(observe,)).run(END_S)
        self.time_s, self.state, self.contactors, self.wrong_v, self.age_s = map(np.array, zip(*seen, strict=True))

    def between(self, from_s: float, until_s: float) -> Any:
        return (self.time_s >= from_s - 1e-6) & (self.time_s < until_s - 1e-6)

    def blind_s(self) -> float:
        """The longest time for which a cell was missing or old while the contactors were to be closed."""
        longest = now = 0
        for closed, age_s in zip(self.contactors, self.age_s, strict=True):
            now = now + 1 if closed and age_s > 2.0 else 0
            longest = max(longest, now)
        return longest * PERIOD_S


@pytest.mark.parametrize("kind", DAMAGE)
def test_it_decides_on_right_values_alone_and_opens_when_it_is_blind(kind: str) -> None:
    ride = Ride(kind, DAMAGE[kind])
    inbox = ride.both.rack.inbox
    assert (ride.state[ride.between(12.0, BEGINS_S)] == RackState.CONNECTED).all()
    wrong = ride.wrong_v > HALF_STEP_V
    if kind == "swap_words":
        assert wrong.mean() < 2 * UNSEEN, "more than the checksum lets through"
    elif kind != "delay, reorder":
        assert not wrong.any(), "a value that is called fresh and good is right"
    assert ride.blind_s() <= BLIND_S
    ridden_s = RATES[0 if kind in ROUGH else 1][1]
    assert (ride.state[ride.between(BEGINS_S, ridden_s)] == RackState.CONNECTED).all()
    blind = ride.between(RATES[-1][0] + 5.0 + PERIOD_S, HEALED_S)
    if kind in BLINDS:
        assert (ride.contactors[blind] == 0).all()
        assert (ride.contactors[ride.between(HEALED_S, END_S)] == 0).all(), "latched until a person resets it"
    else:
        assert (ride.state[ride.between(BEGINS_S, END_S - 10.0)] == RackState.CONNECTED).all()
    assert ride.age_s[ride.between(HEALED_S + 1.0, HEALED_S + 5.0)].max() == 0.0, "all is heard again"
    spent = sum(inbox.counts[v] for v in (Verdict.WRONG_CRC, Verdict.REPEATED, Verdict.OUT_OF_SEQUENCE)) + inbox.lost
    assert spent > (0 if kind in ("stale", "bus_off") else 100), "the damage was there"


@pytest.mark.parametrize(("away_s", "opens"), [(1.0, False), (4.8, False), (5.3, True)])
def test_a_status_that_is_not_heard_is_borne_as_long_as_a_sample_that_does_not_come(away_s: float, opens: bool) -> None:
    ride = Ride(f"status{away_s}", lambda: StatusAway(round(away_s / PERIOD_S)))
    shut = ride.contactors[ride.between(BEGINS_S + 5.0 + PERIOD_S, END_S - 10.0)] != 0
    assert (ride.contactors[ride.between(BEGINS_S, BEGINS_S + 4.8)] != 0).all()
    assert not shut.any() if opens else shut.all()
