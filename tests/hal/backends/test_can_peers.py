"""Peers that nobody here wrote: python-can's own player in front of a rack, and its bus of multicast datagrams."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import can
import can.player
import can_bus
import numpy as np
import pytest
from bus_log import SENSORS, N, write_log
from can_bus import wait_for

from hal.contract import Command, Measurement
from hal.registry import open_rack


class Wall:
    def now_s(self) -> float:
        return time.monotonic()


def player(path: Path, channel: str, *words: str) -> None:
    """The command `can_player`, in this process, where the bus is."""
    before, sys.argv = sys.argv, ["can_player", "-i", "virtual", "-c", channel, *words, str(path)]
    try:
        can.player.main()
    finally:
        sys.argv = before


@pytest.mark.parametrize("name", ["run.log", "run.blf", "run.asc"])
def test_a_log_that_python_can_plays_is_a_rack(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a second of a twin in its own pace: ages and qualities are those of a rack that speaks."""
    measured = write_log(tmp_path / name, 0.6, {"duty": {"kind": "constant", "c_rate": 0.5}})
    channel = f"player-{name}"
    rack = open_rack(f"can:virtual:{channel}?n_cells={N}&n_sensors={SENSORS}&timeout_s=20", clock=Wall())
    opening = threading.Thread(target=rack.open)
    opening.start()
    wait_for(lambda: rack.link.connected, "the bus does not open")  # type: ignore[attr-defined]
    began_s = time.monotonic()
    player(tmp_path / name, channel)
    played_s = time.monotonic() - began_s
    opening.join()
    link, inbox = rack.link, rack.inbox  # type: ignore[attr-defined]
    with can.LogReader(tmp_path / name) as reader:
        n = len(list(reader))
    wait_for(lambda: link.counters.received == n, "frames are missing")
    m = Measurement(N, SENSORS)
    rack.read(m)
    last = measured[-1]
    assert played_s >= 0.5, "in the log's own pace"
    assert (inbox.counts[0], sum(inbox.counts[1:]), inbox.lost) == (n, 0, 0)
    assert not m.cell_v_quality.any()
    assert np.abs(m.cell_v - last["cell_v"]).max() <= 0.5001e-4
    assert np.abs(m.sensor_degc - last["sensor_degc"]).max() <= 0.05001
    assert m.head["current_a"][0] == pytest.approx(float(last["head"]["current_a"]), abs=0.0051)
    assert float(m.cell_v_age_s.max()) < 5.0
    rack.close()
    capsys.readouterr()


def test_messages_in_step_may_be_fed_by_hand(tmp_path: Path) -> None:
    """`LogReader` and `MessageSync` without the log's pauses, as a test bench would."""
    measured = write_log(tmp_path / "run.log", 10.0)
    rack = open_rack(f"can:virtual:fed?n_cells={N}&n_sensors={SENSORS}&timeout_s=20", clock=Wall())
    opening = threading.Thread(target=rack.open)
    opening.start()
    wait_for(lambda: rack.link.connected, "the bus does not open")  # type: ignore[attr-defined]
    n = 0
    with (
        can.Bus(interface="virtual", channel="fed", ignore_config=True) as bus,
        can.LogReader(tmp_path / "run.log") as log,
    ):
        for message in can.MessageSync(log, timestamps=False, gap=0.0):
            bus.send(message)
            n += 1
        wait_for(lambda: rack.link.counters.received == n, "frames are missing")  # type: ignore[attr-defined]
    opening.join()
    m = Measurement(N, SENSORS)
    rack.read(m)
    assert np.abs(m.cell_v - measured[-1]["cell_v"]).max() <= 0.5001e-4
    assert rack.inbox.counts[0] == n  # type: ignore[attr-defined]
    rack.close()


def multicast() -> str:
    """A group of this process's own, that stays on this computer; the test is skipped where there is none."""
    pytest.importorskip("msgpack", reason="python-can's udp_multicast needs it")
    address = f"239.74.{os.getpid() % 251}.{os.getpid() // 251 % 251}"
    try:
        with (
            can.Bus(interface="udp_multicast", channel=address, hop_limit=0, ignore_config=True) as one,
            can.Bus(interface="udp_multicast", channel=address, hop_limit=0, ignore_config=True) as two,
        ):
            one.send(can.Message(arbitration_id=1, data=b"x", is_extended_id=False))
            if two.recv(2.0) is None:
                pytest.skip("multicast datagrams do not come back on this computer")
    except (OSError, can.CanError) as error:
        pytest.skip(f"no multicast on this computer: {error}")
    return address


def test_a_rack_in_another_process_is_reached_over_multicast() -> None:
    url = f"can:udp_multicast:{multicast()}?bus.hop_limit=0"
    words = [sys.executable, can_bus.__file__, url, f"sim:lfp_280?n_series={N}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == "ready\n"
        rack = open_rack(f"{url}&n_cells={N}&n_sensors={SENSORS}&timeout_s=20", clock=Wall())
        with rack:
            m, c = Measurement(N, SENSORS), Command(N, SENSORS)
            c.head["cooling_degc"] = 25.0
            c.head["contactors"] = 0b010
            until_s = time.monotonic() + 20.0
            while m.head["contactors"][0] != 0b010:
                assert time.monotonic() < until_s, "the command does not arrive"
                c.head["heartbeat"] += 1
                rack.write(c)
                time.sleep(0.05)
                rack.read(m)
            assert not m.cell_v_quality.any()
            assert 3.0 < m.cell_v.min() < m.cell_v.max() < 3.6
        server.stdin.close()
        told = json.loads(server.stdout.read())
    assert told["refused"] == 0
    assert told["counts"][2:] == [0] * 4, "its own frames, which it hears too, are of nobody: nothing is spoilt"
    assert told["counts"][0] > 0
