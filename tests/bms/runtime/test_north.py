"""A twin under the controller, seen and steered from the north by clients that nobody here wrote, on a virtual clock."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import can
import pytest
import sunspec2.device
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP
from sunspec2.modbus.modbus import ModbusClientException

from bms.cli import main
from bms.core.faults import Fault
from bms.core.machine_table import Request
from bms.core.step import Controller
from bms.runtime import SUMMARY
from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.north import NorthSide, open_sides, ratings_of
from bms.runtime.run import make_controller, rack_config
from bms.runtime.scenario import Scenario
from hal.contract import Contactor, RackState
from hal.pcs import Ask
from hal.pcs.inverter_can import ALIVE
from hal.registry import open_rack

PERIOD_S, SILENT_S = 0.1, 5.0
TWIN = "sim:lfp_280?n_series=16"
DUTY = {"duty": {"kind": "constant", "c_rate": 0.3}}
PATIENCE_S = 20.0


class Plant:
    """Twin, controller and loop in steps, with the sides of `urls`; what an energy manager does happens in between."""

    def __init__(self, *urls: str, options: dict[str, Any] | None = None) -> None:
        self.clock = VirtualClock()
        scenario = Scenario(rack=TWIN, period_s=PERIOD_S, initial_soc=0.5)
        self.rack: Any = open_rack(TWIN, clock=self.clock, options=options or DUTY)
        self.rack.open()
        self.controller: Controller = make_controller(scenario, self.rack, self.clock)
        self.config = rack_config(scenario, self.rack.info)
        self.sides = open_sides(urls, self.rack.info, self.config, self.controller, self.clock)
        self.request = Request.CONNECT
        self.loop = Loop(self.rack, self.controller, self.clock, PERIOD_S, observers=(self.sides,))
        self.each_second: Callable[[], None] = lambda: None
        self.sides.__enter__()

    @property
    def state(self) -> RackState:
        return RackState(int(self.controller.command.head["state"][0]))

    @property
    def closed(self) -> bool:
        return bool(self.controller.measurement.head["contactors"][0] & Contactor.MAIN_POSITIVE)

    def step(self) -> None:
        self.loop.step(self.sides.steer(self.request, self.clock.now_s()))

    def run(self, time_s: float) -> None:
        for k in range(round(time_s / PERIOD_S)):
            if k % 10 == 0:
                self.each_second()
            self.step()

    def run_until(self, done: Callable[[], bool], most_s: float) -> float:
        """Steps until `done`; the time that passed."""
        start_s = self.clock.now_s()
        while not done():
            assert self.clock.now_s() - start_s < most_s, self.state
            self.run(PERIOD_S)
        return self.clock.now_s() - start_s

    def close(self) -> None:
        self.sides.__exit__(None, None, None)
        self.rack.close()


class EnergyManager:
    """pysunspec2's client, which knows our model by its definition."""

    def __init__(self, port: int) -> None:
        self.device = SunSpecModbusClientDeviceTCP(1, "127.0.0.1", port, timeout=10)
        self.device.scan()
        self.device.connect()
        self.battery, self.string = self.device.models[802][0], self.device.models[804][0]
        self.own = self.device.models[64804][0]
        self.beat = 0

    def read(self) -> Any:
        for model in (self.battery, self.string, self.own):
            model.read()
        return self.battery

    def write(self, name: str, value: int, model: Any = None) -> None:
        model = model or self.battery
        getattr(model, name).value = value
        model.write()

    def alive(self) -> None:
        self.beat = (self.beat + 1) % 60
        self.write("CtrlHb", self.beat)

    def limits(self) -> tuple[float, float]:
        battery = self.read()
        return battery.AChaMax.cvalue, battery.ADisChaMax.cvalue


@pytest.fixture
def own_models(repository: Path) -> Iterator[None]:
    before = sunspec2.device.get_model_defs_path()
    sunspec2.device.set_model_defs_path([*before, str(repository / "hal" / "profiles" / "sunspec")])
    yield
    sunspec2.device.set_model_defs_path(before)


@pytest.fixture
def plants() -> Iterator[Callable[..., Plant]]:
    made: list[Plant] = []

    def make(*urls: str, **about: Any) -> Plant:
        made.append(Plant(*urls, **about))
        return made[-1]

    yield make
    for plant in made:
        plant.close()


@pytest.fixture
def steered(plants: Callable[..., Plant], own_models: None) -> Iterator[tuple[Plant, EnergyManager]]:
    """A rack in standby, and the energy manager at it."""
    plant = plants(f"modbus:tcp://127.0.0.1:0?silent={SILENT_S:g}")
    plant.run_until(lambda: plant.state == RackState.STANDBY, 10.0)
    manager = EnergyManager(plant.sides.sides[0].wire.port)
    yield plant, manager
    manager.device.disconnect()


def connect(plant: Plant, manager: EnergyManager) -> None:
    plant.each_second = manager.alive
    manager.alive()
    manager.write("SetOp", 1)
    plant.run_until(lambda: manager.read().State.value == 3, 15.0)
    plant.run(25.0)  # limits rise


def test_pysunspec2_walks_all_models_while_the_rack_runs(steered: tuple[Plant, EnergyManager]) -> None:
    plant, manager = steered
    connect(plant, manager)
    found = manager.device.model_list
    assert [one.model_id for one in found] == [1, 802, 803, 804, 805, 64804]
    assert [one.error_info for one in found if one.error_info] == []
    battery, m, c = manager.read(), plant.controller.measurement, plant.controller.command.head[0]
    assert manager.own.Snap.value == manager.own.SnapEnd.value
    assert manager.own.RackSt.value == c["state"] == RackState.CONNECTED
    assert battery.SoC.cvalue == pytest.approx(100 * c["soc_mean"], abs=0.006)
    assert battery.SoH.cvalue == pytest.approx(100 * c["soh_mean"], abs=0.006)
    assert battery.V.cvalue == pytest.approx(m.head["pack_v"][0], abs=0.051)
    assert battery.A.cvalue == pytest.approx(m.head["current_a"][0], abs=0.051)
    assert battery.A.cvalue > 80.0, "0.3 C flow"
    assert battery.W.cvalue == pytest.approx(m.head["pack_v"][0] * m.head["current_a"][0], abs=0.51)
    assert battery.CellVMin.cvalue == pytest.approx(m.cell_v.min(), abs=1e-4)
    assert battery.AChaMax.cvalue == pytest.approx(c["limit_charge_a"], abs=0.11)
    assert battery.AChaMax.cvalue <= c["limit_charge_a"]
    assert manager.own.DisWhy.value == plant.controller.command.reason[8]
    assert (battery.SetOp.value, battery.Evt1.value, manager.string.St.value) == (1, 0, 3)
    assert battery.Hb.value == int(plant.clock.now_s() - PERIOD_S)


def test_set_op_connects_and_disconnects(steered: tuple[Plant, EnergyManager]) -> None:
    plant, manager = steered
    plant.run(5.0)
    assert (manager.read().State.value, plant.closed) == (1, False), "nobody has asked for it"
    seen = []
    plant.each_second = manager.alive
    manager.alive()
    manager.write("SetOp", 1)
    while not seen or seen[-1] != 3:
        plant.run(PERIOD_S)
        seen.append(manager.read().State.value)
        assert len(seen) < 150
    assert set(seen) <= {1, 2, 3, 4}
    assert 2 in seen
    plant.run(10.0)
    assert plant.closed
    manager.write("SetCon", 2, manager.string)
    assert manager.read() is manager.battery
    assert manager.string.SetCon.value == 2
    plant.run(PERIOD_S)
    assert (manager.read().State.value, manager.string.SetCon.value, manager.battery.SetOp.value) == (6, 0, 2)
    plant.run_until(lambda: manager.read().State.value == 1, 30.0)
    assert not plant.closed


def test_silence_ramps_to_nothing_and_opens_each_in_its_time(
    steered: tuple[Plant, EnergyManager], caplog: pytest.LogCaptureFixture
) -> None:
    plant, manager = steered
    connect(plant, manager)
    machine, ramp_s = plant.config.machine, plant.config.limits.ramp_s
    full_a = manager.limits()[1]
    assert full_a > 80.0
    flowing_a = float(plant.controller.measurement.head["current_a"][0])
    plant.each_second = lambda: None
    heard_s = plant.run_until(lambda: manager.read().State.value == 6, 2 * SILENT_S)
    assert SILENT_S - 1.0 <= heard_s <= SILENT_S + 2 * PERIOD_S
    assert manager.battery.Evt1.value & 1
    assert manager.battery.EvtVnd1.value == 1 << 15
    assert manager.own.Mgr.value == 2
    assert [record.getMessage() for record in caplog.records if "nobody is heard there" in record.getMessage()] == [
        f"{plant.sides}: nobody is heard there any more: the rack is opened"
    ]
    limits: list[float] = [manager.limits()[1]]
    start_s = plant.clock.now_s()
    while plant.closed:
        plant.run(PERIOD_S)
        limits.append(manager.limits()[1])
        assert plant.clock.now_s() - start_s <= machine.ramp_time_out_s + 3 * PERIOD_S
    assert all(a >= b for a, b in pairwise(limits)), "a ramp"
    assert 0.0 < limits[1] < full_a, "it does not fall at once"
    assert limits[min(len(limits) - 1, round(ramp_s / PERIOD_S) + 1)] == 0.0
    assert flowing_a > 80.0
    plant.run_until(lambda: manager.read().State.value == 1, 30.0)
    assert plant.state == RackState.STANDBY, "no fault is left behind"
    with pytest.raises(ModbusClientException):
        manager.write("SetOp", 1)  # somebody without a heart-beat
    connect(plant, manager)
    assert (manager.read().Evt1.value, plant.sides.told()[0]["silences"]) == (0, 1)


def test_a_fault_is_told_and_reset_only_when_its_cause_has_gone(steered: tuple[Plant, EnergyManager]) -> None:
    plant, manager = steered
    connect(plant, manager)
    plant.rack.inject({"kind": "interlock_open"})
    plant.run_until(lambda: manager.read().State.value == 99, 15.0)
    battery = manager.battery
    assert not plant.closed
    assert battery.Evt1.value == 1 << 25
    assert battery.EvtVnd1.value == 1 << 2
    assert manager.own.Cause.value == 10 * Fault.INTERLOCK_OPEN + 3
    assert (manager.string.ConFail.value, battery.SetOp.value) == (8, 2)
    plant.run_until(lambda: plant.state == RackState.FAULT, 30.0)  # opened, and tested for welding
    with pytest.raises(ModbusClientException):
        manager.write("SetOp", 1)
    manager.write("AlmRst", 1)
    assert manager.read().AlmRst.value == 1
    plant.run(2 * PERIOD_S)
    assert (manager.read().AlmRst.value, battery.State.value, battery.Evt1.value) == (0, 99, 1 << 25)
    assert manager.own.RstRef.value == 1, "refused: the cause is there"
    plant.rack.clear()
    plant.run(10.0)
    assert manager.read().State.value == 99, "latched"
    manager.write("AlmRst", 1)
    plant.run(2 * PERIOD_S)
    assert (manager.read().State.value, battery.Evt1.value, battery.AlmRst.value) == (1, 0, 0)
    assert (manager.string.ConFail.value, battery.SetOp.value) == (0, 2)
    plant.run(10.0)
    assert not plant.closed, "what a fault has opened is closed by a new order alone"
    connect(plant, manager)
    assert plant.closed


def test_a_disabled_string_opens_and_says_why(steered: tuple[Plant, EnergyManager]) -> None:
    plant, manager = steered
    connect(plant, manager)
    manager.write("SetEna", 2, manager.string)
    plant.run_until(lambda: manager.read().State.value == 1, 30.0)
    assert (manager.string.SetEna.value, manager.string.St.value, manager.string.ConFail.value) == (0, 0, 4)
    with pytest.raises(ModbusClientException):
        manager.write("SetOp", 1)
    manager.write("SetEna", 1, manager.string)
    connect(plant, manager)
    assert (manager.string.St.value, manager.string.ConFail.value) == (3, 0)


def test_somebody_at_the_rack_comes_first(steered: tuple[Plant, EnergyManager]) -> None:
    plant, manager = steered
    connect(plant, manager)
    plant.request = Request.MAINTENANCE
    plant.run_until(lambda: plant.state == RackState.MAINTENANCE, 30.0)
    plant.run(1.0)
    assert (manager.read().LocRemCtl.value, manager.battery.State.value, manager.battery.SetOp.value) == (1, 1, 2)
    plant.request = Request.CONNECT
    plant.run(30.0)
    assert (manager.read().LocRemCtl.value, plant.state) == (0, RackState.STANDBY)


# --------------------------------------------------------------------------------------------------- several sides


class Wish:
    """A side that wants what it is told."""

    address, silences = "here", 0

    def __init__(self, wish: Ask) -> None:
        self.wish, self.shown, self.running = wish, 0, False

    def start(self) -> None:
        self.running = True

    def ask(self, now_s: float) -> Ask:
        return self.wish

    def publish(self, measurement: Any, command: Any, now_s: float, *, local: bool) -> None:
        self.shown += 1

    def stop(self) -> None:
        self.running = False


class Paper:
    """No controller."""

    measurement = command = None


@pytest.mark.parametrize("request_", list(Request))
@pytest.mark.parametrize(
    ("wishes", "asked"),
    [
        ((), Request.CONNECT),
        ((Ask.CONNECT, Ask.CONNECT), Request.CONNECT),
        ((Ask.CONNECT, Ask.OPEN), Request.OPEN),
        ((Ask.OPEN, Ask.RESET), Request.RESET),
        ((Ask.RESET, Ask.CONNECT), Request.RESET),
    ],
)
def test_all_must_agree_and_one_resets(wishes: tuple[Ask, ...], asked: Request, request_: Request) -> None:
    side = NorthSide([Wish(wish) for wish in wishes], Paper())  # type: ignore[arg-type]
    assert side.steer(request_, 0.0) == (asked if request_ == Request.CONNECT else request_)


def test_a_side_that_does_not_start_stops_the_others() -> None:
    class Broken(Wish):
        def start(self) -> None:
            raise OSError

    first = Wish(Ask.OPEN)
    with pytest.raises(OSError), NorthSide([first, Broken(Ask.OPEN)], Paper()):  # type: ignore[arg-type]
        pass
    assert (first.running, first.shown) == (False, 1)


# ------------------------------------------------------------------------------------------------------ the inverter


def test_an_inverter_that_is_not_heard_any_more_opens_the_rack(plants: Callable[..., Plant]) -> None:
    plant = plants("can:virtual:north?silent=5")
    north = plant.sides.sides[0]
    with can.Bus(interface="virtual", channel="north") as theirs:

        def beat() -> None:
            received = north.bus.link.counters.received
            theirs.send(can.Message(arbitration_id=ALIVE, data=bytes(8), is_extended_id=False))
            until_s = time.monotonic() + PATIENCE_S
            while north.bus.link.counters.received == received:
                assert time.monotonic() < until_s
                time.sleep(0.0005)

        plant.run(10.0)
        assert (plant.state, plant.closed) == (RackState.STANDBY, False)
        plant.each_second = beat
        plant.run_until(lambda: plant.state == RackState.CONNECTED, 20.0)
        plant.run(25.0)
        assert plant.controller.measurement.head["current_a"][0] > 80.0
        plant.each_second = lambda: None
        passed_s = plant.run_until(lambda: plant.state == RackState.RAMP_DOWN, 10.0)
        assert passed_s <= 5.0 + 2 * PERIOD_S
        plant.run_until(lambda: not plant.closed, plant.config.machine.ramp_time_out_s + 3 * PERIOD_S)
        plant.run(30.0)
        assert (plant.state, north.silences) == (RackState.STANDBY, 1)


# ----------------------------------------------------------------------------------------------------------- bms run


def test_the_nameplate_follows_from_the_configuration(plants: Callable[..., Plant]) -> None:
    plant = plants()
    ratings = ratings_of(plant.config, plant.rack.info)
    assert ratings.charge_v == pytest.approx(16 * 3.64)
    assert ratings.discharge_v == pytest.approx(16 * 2.51)
    assert 280 * 16 * 3.2 < ratings.energy_wh < 280 * 16 * 3.35
    assert ratings.discharge_w == pytest.approx(ratings.energy_wh)  # at 1 C
    assert (ratings.soc_min, ratings.soc_max) == (0.0, 1.0)


def test_a_run_tells_where_it_can_be_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--rack", TWIN, "--north", "modbus:tcp://127.0.0.1:0", "--north", "can:virtual:run"]
    code = main([*words, "--period", "0.1", "--duration", "1", "--no-report", "--out", str(tmp_path)])
    assert code == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("north: modbus:tcp://127.0.0.1:")]
    assert len(told) == 1
    assert told[0].endswith("can:virtual:run")
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert [side["silences"] for side in summary["north"]] == [0, 0]
    assert summary["state_at_end"] in ("SELF_TEST", "STANDBY"), "without an energy manager it stays open"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rack", "sim:lfp_280", "--north", "can:virtual:tall"], "this protocol is for batteries of up to 327.67 V"),
        (["--rack", TWIN, "--north", "modbus:tcp://127.0.0.1:0", "--speed", "max"], "lives in real time: leave it out"),
        (["--rack", TWIN, "--north", "http://here"], "unknown scheme 'http'"),
        (["--rack", TWIN, "--north", "modbus:tcp://192.0.2.1:5020"], "cannot listen on 192.0.2.1:5020"),
        (["--rack", "sim:site?racks=2", "--north", "modbus:tcp://127.0.0.1:0"], "for a single rack"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words, "--duration", "1", "--quiet", "--no-report", "--out", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
