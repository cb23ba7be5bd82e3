"""A rack on CAN: ages and qualities, what goes wrong on the way, and the ordered end."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import can
import numpy as np
import pytest
from can_bus import BusRack, Far, wait_for

from hal.backends.can import CLOSING_FRAMES, PATIENCE_S, CanRack
from hal.codec.frames import Verdict
from hal.contract import MEASUREMENT, Command, Measurement, Quality, Rack
from hal.errors import ConfigError, LinkError
from hal.links import can_link
from hal.registry import is_live, open_rack, programs
from hal.serve.hub import LOOPBACK, Hub

BUSES = itertools.count()
SIZE = "n_cells=12&n_sensors=3"


class Time:
    now = 0.0

    def now_s(self) -> float:
        return self.now


class Pair:
    """A twin and the rack that it is seen as, on a virtual bus and a clock of the test's."""

    def __init__(self, url: str | None = None) -> None:
        self.clock = Time()
        self.url = url or f"can:virtual:rack{next(BUSES)}?{SIZE}"
        self.far = Far(self.url, options={})
        self.both = BusRack(self.url, self.far, self.clock)
        self.rack = self.both.rack
        self.m, self.c = Measurement(12, 3), Command(12, 3)
        self.c.head["cooling_degc"] = 25.0

    def read(self, step_s: float = 0.0, publish: bool = True) -> Measurement:
        self.clock.now += step_s
        (self.both if publish else self.rack).read(self.m)
        return self.m


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    with made.both:
        yield made


def qualities(m: Measurement) -> set[int]:
    found: set[int] = set()
    for f in MEASUREMENT.fields:
        if f.name.endswith("_quality"):
            found |= set((m.raw[f.name][0] if f.dims else m.head[f.name]).tolist())
    return found


def test_what_the_twin_measures_is_read_within_the_steps_of_the_wire(pair: Pair) -> None:
    for _ in range(5):
        m, true = pair.read(0.1), pair.far.measurement
        assert np.abs(m.cell_v - true.cell_v).max() <= 0.51e-4
        assert np.abs(m.sensor_degc - true.sensor_degc).max() <= 0.051
        assert abs(m.head["pack_v"][0] - true.head["pack_v"][0]) <= 0.0051
        assert (m.head["time_s"], m.head["sequence"]) != (0.0, 0)
        assert qualities(m) == {0}
    assert pair.rack.inbox.counts[1:] == [0] * 5


def test_values_grow_old_and_become_stale_and_fresh_again(pair: Pair) -> None:
    pair.read(0.1)
    m = pair.read(0.45, publish=False)
    assert m.cell_v_age_s.tolist() == pytest.approx([0.45] * 12)
    assert qualities(m) == {0}
    m = pair.read(0.1, publish=False)
    assert qualities(m) == {int(Quality.STALE)}
    assert np.isfinite(m.cell_v).all()
    assert qualities(pair.read(0.1)) == {0}


def test_a_message_that_stays_away_is_stale_alone(pair: Pair) -> None:
    """The frames of a broken module stop; those of the others go on."""
    rows = [row.message.name for row in pair.rack._received.rows]
    away = {pair.rack._received.rows[rows.index("CellVoltages_002")].message.key}
    accept = pair.rack.inbox.accept
    pair.rack.inbox.accept = lambda key, *rest: Verdict.UNKNOWN if key in away else accept(key, *rest)  # type: ignore[method-assign]
    for _ in range(6):
        m = pair.read(0.1)
    assert m.cell_v_quality.tolist() == [0] * 6 + [int(Quality.STALE)] * 3 + [0] * 3
    assert m.head["current_a_quality"][0] == 0


def test_noise_and_damage_on_the_bus_are_counted_and_change_nothing(pair: Pair) -> None:
    before = pair.read(0.1).raw.tobytes()
    channel = pair.rack.address.channel
    received = pair.rack.link.counters.received
    with can.Bus(interface="virtual", channel=channel, ignore_config=True) as bus:
        bus.send(can.Message(arbitration_id=0x100, data=b"12345678", is_extended_id=False))
        bus.send(can.Message(arbitration_id=0x100, data=b"1234", is_extended_id=False))
        bus.send(can.Message(arbitration_id=0x7FF, data=b"1", is_extended_id=False))
        bus.send(can.Message(arbitration_id=0x100, data=b"12345678", is_extended_id=True))
        bus.send(can.Message(arbitration_id=0x100, is_remote_frame=True, is_extended_id=False))
        bus.send(can.Message(arbitration_id=0x2, is_error_frame=True))
        wait_for(lambda: pair.rack.link.counters.error_frames == 1, "the error frame")
    assert pair.rack.link.counters.received == received + 4
    counts = pair.rack.inbox.counts
    assert (counts[Verdict.WRONG_CRC], counts[Verdict.WRONG_LENGTH], counts[Verdict.UNKNOWN]) == (1, 1, 2)
    assert pair.read(publish=False).raw.tobytes() == before


def test_the_number_of_the_sample_is_the_racks(pair: Pair) -> None:
    first = int(pair.read(0.1).head["sequence"][0])
    assert int(pair.read(0.1).head["sequence"][0]) == first + 1
    stalled = pair.far.measurement
    pair.far.rack.read = lambda out: None  # type: ignore[method-assign]  # the rack's electronics hang
    assert int(pair.read(0.1).head["sequence"][0]) == first + 1
    assert qualities(pair.m) == {0}, "frames still come"
    stalled.head["sequence"] += 3
    assert int(pair.read(0.1).head["sequence"][0]) == first + 4
    stalled.head["sequence"] = 1  # it was started again
    assert int(pair.read(0.1).head["sequence"][0]) == first + 5
    stalled.head["sequence"] = 2
    assert int(pair.read(0.1).head["sequence"][0]) == first + 6


def test_closing_opens_the_contactors_whatever_was_commanded(pair: Pair) -> None:
    c = pair.c
    c.head["contactors"], c.head["heartbeat"], c.head["limit_charge_a"] = 0b110, 40, 20.0
    c.balance[3] = 1
    for _ in range(10):
        pair.both.write(c)
        pair.read(0.1)
    assert pair.far.command.head["contactors"][0] == 0b110
    sent = pair.rack.link.counters.sent
    pair.both.close()
    last = pair.far.command
    assert (last.head["contactors"][0], last.head["limit_charge_a"][0], last.balance.any()) == (0, 0.0, False)
    assert last.head["heartbeat"][0] == 40 + CLOSING_FRAMES
    assert pair.rack.link.counters.sent - sent == CLOSING_FRAMES * len(pair.rack._sent.rows)


def test_an_impossible_command_raises_and_is_not_sent(pair: Pair) -> None:
    sent = pair.rack.link.counters.sent
    for name, value in (("contactors", 9), ("limit_charge_a", -1.0), ("limit_charge_a", 1e6), ("cooling_degc", np.nan)):
        c = Command(12, 3)
        c.head[name] = value
        with pytest.raises(ValueError, match=name):
            pair.rack.write(c)
    assert pair.rack.link.counters.sent == sent


def test_the_rack_says_what_it_is(pair: Pair) -> None:
    """Capacity and cells in parallel come from the rack; what the URL says stands."""
    info, true = pair.rack.info, pair.far.rack.info
    assert (info.name, info.n_parallel, info.capacity_ah) == (pair.rack.address.url, true.n_parallel, true.capacity_ah)
    assert info.sensor_of_cell.tolist() == true.sensor_of_cell.tolist()
    own = Pair(f"can:virtual:rack{next(BUSES)}?{SIZE}&capacity_ah=123.5&n_parallel=3&cell=na_185")
    with own.both:
        assert (own.rack.info.capacity_ah, own.rack.info.n_parallel, own.rack.info.cell) == (123.5, 3, "na_185")


def opened(url: str, far: Far, look: Callable[[Rack], object] = bool) -> BaseException | None:
    """What opening `url` says while the twin is being published all the time; `look` is called with the open rack."""
    rack, error = open_rack(url), []
    far.start(0.0)

    def opening() -> None:
        try:
            rack.open()
            look(rack)
            rack.close()
        except Exception as caught:
            error.append(caught)

    thread = threading.Thread(target=opening)
    thread.start()
    now_s = 0.0
    while thread.is_alive():
        now_s += 0.05
        far.publish(now_s)
        thread.join(0.005)
    far.stop()
    return error[0] if error else None


def test_a_rack_of_another_size_is_told_before_the_time_is_up() -> None:
    channel = f"can:virtual:rack{next(BUSES)}"
    started_s = time.monotonic()
    error = opened(f"{channel}?n_cells=16&timeout_s=60", Far(channel))
    assert isinstance(error, ConfigError)
    assert "the profile has 16 cells and 104 sensors, the rack says n_cells=12&n_sensors=3; put that into" in str(error)
    assert time.monotonic() - started_s < 30.0


def test_without_a_size_in_the_url_the_racks_own_is_taken() -> None:
    channel = f"can:virtual:rack{next(BUSES)}"
    seen = []
    error = opened(f"{channel}?timeout_s=60", Far(channel), lambda rack: seen.append(rack.info))
    assert error is None
    assert (seen[0].n_cells, seen[0].n_sensors, seen[0].cell) == (12, 3, "")
    assert seen[0].sensor_of_cell.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_another_layout_is_told() -> None:
    channel = f"can:virtual:rack{next(BUSES)}"
    far = Far(channel)
    far.server._sent.value[far.server._sent.place("LayoutVersion")] = 2
    error = opened(f"{channel}?{SIZE}", far)
    assert isinstance(error, ConfigError)
    assert "the rack speaks layout 2 of 'reference', this is layout 1" in str(error)


def test_a_message_that_never_comes_is_named() -> None:
    channel = f"can:virtual:rack{next(BUSES)}"
    far = Far(channel)
    far.server.start = far.server.link.open  # type: ignore[method-assign]  # which leaves the times alone
    names = [row.message.name for row in far.server._sent.rows]
    far.server._due_s = np.where([name == "Coolant" for name in names], np.inf, -np.inf)
    error = opened(f"{channel}?{SIZE}&timeout_s=0.5", far)
    assert isinstance(error, LinkError)
    assert f"{len(names) - 1} of {len(names)} messages came in 0.5 s, not Coolant (0x83); is the rack on" in str(error)


def test_a_silent_bus_is_told() -> None:
    with pytest.raises(LinkError, match=r"no frame came in 0\.1 s, not RackStatus \(0x80\); is the rack on, does it"):
        open_rack(f"can:virtual:rack{next(BUSES)}?timeout_s=0.1").open()


def test_a_bus_of_strangers_is_told() -> None:
    rack = open_rack(f"can:virtual:rack{next(BUSES)}?timeout_s=0.5&{SIZE}")
    assert isinstance(rack, CanRack)
    with can.Bus(interface="virtual", channel=rack.address.channel, ignore_config=True) as bus:
        thread = threading.Timer(
            0.1, lambda: bus.send(can.Message(arbitration_id=0x80, data=b"x" * 8, is_extended_id=False))
        )
        thread.start()
        with pytest.raises(LinkError, match="1 frames came, and none of them was good in 0.5 s"):
            rack.open()
        thread.join()


def test_a_hub_that_dies_makes_values_stale_and_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(can_link, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(can_link, "LONGEST_PAUSE_S", 0.05)
    hub = Hub(0).__enter__()
    pair = Pair(f"can:socketcand:can0?host={LOOPBACK}&port={hub.port}&{SIZE}")
    pair.both.open()
    assert qualities(pair.read(0.1)) == {0}
    hub.__exit__(None, None, None)
    wait_for(lambda: not pair.rack.link.connected, "the death of the hub")
    pair.rack.write(pair.c)
    assert pair.rack.link.counters.not_sent > 0
    assert qualities(pair.read(1.0, publish=False)) == {int(Quality.STALE)}
    links = pair.rack.link, pair.far.server.link
    wait_for(lambda: not links[1].connected, "the death of the hub")
    pair.both._missed = links[1].counters.sent - links[0].counters.received
    with Hub(hub.port):
        wait_for(lambda: all(link.connected for link in links), "the new hub")
        assert qualities(pair.read(1.0)) == {0}
        assert [link.counters.reconnects for link in links] == [1, 1]
        pair.rack.close()
        pair.far.stop()


def test_tables_of_a_scenario_are_the_twins() -> None:
    with pytest.raises(ConfigError, match=r"a rack on a bus has no table \[duty\]; take it out"):
        open_rack("can:virtual:a", options={"duty": {"kind": "rest"}})
    open_rack("can:virtual:a", options={"duty": {}})


def test_a_dbc_with_overlapping_signals_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.dbc").write_text(
        'BO_ 1 M: 8 R\n SG_ a : 0|8@1+ (1,0) [0|0] "" B\n SG_ b : 7|8@1+ (1,0) [0|0] "" B\n'
    )
    (tmp_path / "bad.toml").write_text(
        '[can]\ndbc = "bad.dbc"\nbitrate = 1\ncommit = "M"\n[rack]\nn_cells = 1\nn_sensors = 1\n'
    )
    with pytest.raises(ConfigError, match=r"bad\.dbc:3: message M: signal b overlaps a at bit 7; move one of them$"):
        open_rack(f"can:virtual:a?profile={tmp_path / 'bad.toml'}")


def test_it_runs_is_live_and_names_its_kernels() -> None:
    assert is_live("can:virtual:a")
    assert is_live("chaos:f.toml?rack=can:virtual:a")
    assert not is_live("sim:lfp_280")
    assert not is_live("chaos:f.toml?rack=sim:lfp_280")
    assert [program.name for program in programs("can:virtual:a")] == ["can"]


def test_slow_pages_are_waited_for_twice_as_long_as_they_take() -> None:
    def patience_s(query: dict[str, str]) -> float:
        return CanRack("virtual:nobody", query=query)._patience_s()

    assert patience_s({}) == PATIENCE_S
    assert patience_s({"profile": "foxbms"}) == pytest.approx(12.0), "30 pages of temperatures, 0.2 s each"
    assert patience_s({"profile": "foxbms", "timeout_s": "3"}) == 3.0
    rack = CanRack("virtual:nobody", query={"timeout_s": "0.05"})
    with pytest.raises(LinkError, match="no frame came in 0.05 s"):
        rack.open()
