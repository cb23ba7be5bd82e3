"""The loop on a bus that loses, spoils, repeats or delays frames: it rides through some, and opens when it is blind."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from can_bus import BusRack, Far

from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from hal.codec.frames import Verdict
from hal.contract import Quality, RackState
from hal.links.can_link import CanLink

N_CELLS = 32
TWIN = f"sim:lfp_280?n_series={N_CELLS}"
FROM_S, UNTIL_S, END_S = 20.0, 40.0, 60.0
BLIND_S = 5.0
"""No value is used that is older than 2 s; then the fault is set, the ramp runs, and the contactors open."""

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


def damaged(link: CanLink, damage: Damage, rate: float, clock: VirtualClock, seed: int) -> None:
    """Have what `link` sends damaged for a while."""
    send, rng = link.send, np.random.default_rng(seed)

    def sending(frames: Any) -> None:
        bad = FROM_S <= clock.now_s() < UNTIL_S
        send(damage(list(frames), rng, rate) if bad else frames)

    link.send = sending  # type: ignore[method-assign]


class Ride:
    """A run with a bad bus in its middle; `state`, `contactors` by step and `time_s`."""

    def __init__(self, damage: Damage, rate: float) -> None:
        clock = VirtualClock()
        url = f"can:virtual:lossy_{getattr(damage, '__name__', 'delay')}_{rate}?n_cells={N_CELLS}&n_sensors={N_CELLS // 4}"
        self.far = Far(url, TWIN, {"duty": {"kind": "constant", "c_rate": 0.3}})
        self.both = BusRack(url, self.far, clock)
        self.both.lossy = True
        damaged(self.both.rack.link, damage, rate, clock, 1)
        damaged(self.far.server.link, damage, rate, clock, 2)
        time_s: list[float] = []
        seen: list[npt.NDArray[np.void]] = []
        wrong: list[float] = []
        with self.both:
            scenario = Scenario(rack=TWIN, cell="lfp_280", period_s=0.1)
            controller = make_controller(scenario, self.both, clock)
            m = controller.measurement

            def observe(*_: object) -> None:
                time_s.append(clock.now_s())
                seen.append(controller.command.head.copy())
                true = self.far.measurement
                used = (m.cell_v_quality == 0) & (m.cell_v_age_s == 0.0)
                wrong.append(float(np.abs(m.cell_v - true.cell_v)[used].max(initial=0.0)))

            Loop(self.both, controller, clock, 0.1, observers=(observe,)).run(END_S)
            self.last_quality = int(m.cell_v_quality.max())
        head = np.concatenate(seen)
        self.time_s, self.state, self.contactors = np.array(time_s), head["state"], head["contactors"]
        self.wrong_v = max(wrong)

    def between(self, from_s: float, until_s: float) -> npt.NDArray[np.bool_]:
        within: npt.NDArray[np.bool_] = (self.time_s >= from_s) & (self.time_s < until_s)
        return within


@pytest.mark.parametrize("damage", [lose, spoil, repeat, Delay()], ids=["lose", "spoil", "repeat", "delay"])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_it_rides_through_some_damage_on_right_values_alone(damage: Damage, rate: float) -> None:
    ride = Ride(damage, rate)
    assert (ride.state[ride.between(15.0, END_S)] == RackState.CONNECTED).all()
    assert ride.wrong_v <= 0.51e-4, "a value that is called fresh and good is right"
    counts, lost = ride.both.rack.inbox.counts, ride.both.rack.inbox.lost
    spent = counts[Verdict.WRONG_CRC] + counts[Verdict.REPEATED] + counts[Verdict.OUT_OF_SEQUENCE] + lost
    assert spent > 0.5 * rate * (UNTIL_S - FROM_S) * 10 * len(ride.far.server.frame_s), "the damage was there"


@pytest.mark.parametrize("damage", [lose, spoil], ids=["lose", "spoil"])
def test_blind_it_opens_and_sees_again_when_the_bus_is_back(damage: Damage) -> None:
    ride = Ride(damage, 1.0)
    assert (ride.state[ride.between(15.0, FROM_S)] == RackState.CONNECTED).all()
    assert (ride.contactors[ride.between(FROM_S + BLIND_S, UNTIL_S)] == 0).all()
    assert (ride.state[ride.between(FROM_S + BLIND_S + 2.0, UNTIL_S)] == RackState.FAULT).all()
    assert (ride.contactors[ride.between(UNTIL_S, END_S)] == 0).all(), "it is latched until a person resets it"
    assert ride.last_quality == Quality.GOOD
