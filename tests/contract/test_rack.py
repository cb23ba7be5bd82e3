"""What every rack behind the HAL does, whatever it is. A backend joins by one entry in `BACKENDS`."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from bus_log import write_log
from can_bus import BusRack, Far, FarProcess, SlcanPair, hub_process
from modbus_wire import Wired

from hal.backends import replay
from hal.codec import recording as codec
from hal.contract import (
    COMMAND,
    MEASUREMENT,
    TRUTH,
    Command,
    HasSiteTruth,
    HasTruth,
    Measurement,
    Quality,
    Rack,
    RackInfo,
    Site,
    Truth,
    bulk,
)
from hal.errors import LinkError
from hal.registry import open_rack, open_site


class Time:
    """A clock that the suite moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Subject:
    """One backend under test: how to make it, and what it can be asked."""

    make: Callable[[Time, Path], Rack]
    reacts: bool = True  # follows commands; a recording cannot


OPTIONS = {
    "duty": {"kind": "constant", "c_rate": 0.3},
    "fault": [
        {"kind": "cell_v_missing", "index": [1], "at_s": 20.0},
        {"kind": "sensor_missing", "index": [0], "at_s": 20.0},
    ],
}


TWIN = "sim:lfp_280?n_series=12"


def simulated_rack(clock: Time, folder: Path) -> Rack:
    return open_rack(TWIN, clock=clock, options=OPTIONS)


def replayed_rack(clock: Time, folder: Path) -> Rack:
    """A recording of half a minute of the simulated rack."""
    then = Time()
    with simulated_rack(then, folder) as rack:
        info = rack.info
        m, command = records(rack)
        truth = Truth(info.n_cells, info.n_sensors)
        header = {"format": replay.FORMAT, "layouts": replay.layout_digests(), "rack": replay.info_to_json(info)}
        encoder = codec.StepCodec(info.n_cells, info.n_sensors)
        data = codec.MAGIC + codec.frame(0, codec.json_payload(codec.Kind.HEADER, header))
        for number in range(1, 61):
            rack.read(m)
            assert isinstance(rack, HasTruth)
            rack.truth(truth)
            data += codec.frame(number, encoder.encode(m, command, truth))
            then.now += 0.5
    path = folder / replay.FILE_NAME
    path.write_bytes(data + codec.frame(61, codec.json_payload(codec.Kind.END, {})))
    return open_rack(f"replay:{path}", clock=clock)


class FirstOfSite:
    """A site of three racks, shown as its first."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.measurements = bulk(MEASUREMENT, site.info, site.n_racks)
        self.commands = bulk(COMMAND, site.info, site.n_racks)

    @property
    def info(self) -> RackInfo:
        return self.site.info

    def open(self) -> None:
        self.site.open()

    def read(self, out: Measurement) -> None:
        self.site.read(self.measurements if out.n_cells == self.info.n_cells else bulk(MEASUREMENT, self.info, 2))
        out.raw[...] = self.measurements[0]

    def write(self, command: Command) -> None:
        if command.n_cells == self.info.n_cells:
            self.commands[...] = command.raw
        self.site.write(self.commands if command.n_cells == self.info.n_cells else bulk(COMMAND, self.info, 2))

    def truth(self, out: Truth) -> None:
        truth = bulk(TRUTH, self.info, self.site.n_racks)
        assert isinstance(self.site, HasSiteTruth)
        self.site.truth(truth)
        out.raw[...] = truth[0]

    def close(self) -> None:
        self.site.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def rack_of_site(clock: Time, folder: Path) -> Rack:
    return FirstOfSite(open_site("sim:site?racks=3&n_series=12", clock=clock, options=OPTIONS))


def damaged_rack(clock: Time, folder: Path) -> Rack:
    """The simulated rack behind a wrapper that will damage it, a day later."""
    path = folder / "changes.toml"
    path.write_text("[[change]]\nchannel = 'cell_v'\nkind = 'nan'\nfrom_s = 86400.0\n")
    return open_rack(f"chaos:{path}?rack=sim:lfp_280?n_series=12", clock=clock, options=OPTIONS)


def logged_rack(clock: Time, folder: Path) -> Rack:
    """Half a minute of the simulated rack on a bus."""
    write_log(folder / "bus.log", 30.0, OPTIONS)
    return open_rack(f"replay:{folder}/bus.log?n_cells=12&n_sensors=3", clock=clock)


def recorded_rack(clock: Time, folder: Path) -> Rack:
    return open_rack(f"record+sim:lfp_280?n_series=12&record.to={folder}/run.bms", clock=clock, options=OPTIONS)


def watched_rack(clock: Time, folder: Path) -> Rack:
    return open_rack("alive+sim:lfp_280?n_series=12", clock=clock, options=OPTIONS)


def badly_wired_rack(clock: Time, folder: Path) -> Rack:
    """The simulated rack behind a wire that will lose everything, a day later, and a recorder."""
    url = "record+chaos+sim:lfp_280?n_series=12&chaos.drop=1&chaos.from_s=86400"
    return open_rack(f"{url}&record.to={folder}/run.bms", clock=clock, options=OPTIONS)


def rack_on_tcp(clock: Time, folder: Path) -> Rack:
    return Wired("tcp://127.0.0.1:0", clock, open_rack(TWIN, clock=clock, options=OPTIONS))


def rack_on_serial_line(clock: Time, folder: Path) -> Rack:
    return Wired("rtu://pty?baud=921600", clock, open_rack(TWIN, clock=clock, options=OPTIONS))


def rack_over_tls(clock: Time, folder: Path) -> Rack:
    pytest.importorskip("cryptography", reason="certificates are made with it")
    from certificates import Authority, utf8

    authority = Authority(folder, "authority")
    cert, key = authority.issue("server")
    url = f"tls://127.0.0.1:0?cert={cert}&key={key}&ca={authority.path}"
    cert, key = authority.issue("loop", utf8("controller"))
    options = f"&ca={authority.path}&cert={cert}&key={key}&name=rack"
    return Wired(url, clock, open_rack(TWIN, clock=clock, options=OPTIONS), options)


BUSES = itertools.count()


def rack_on_virtual_bus(clock: Time, folder: Path) -> Rack:
    url = f"can:virtual:contract{next(BUSES)}?n_cells=12&n_sensors=3"
    return BusRack(url, Far(url), clock)


def rack_on_virtual_fd_bus(clock: Time, folder: Path) -> Rack:
    url = f"can:virtual:contract{next(BUSES)}?n_cells=12&n_sensors=3&fd=1"
    return BusRack(url, Far(url), clock)


def rack_on_serial_adapters(clock: Time, folder: Path) -> Rack:
    pair = SlcanPair()
    ours, theirs = (f"can:slcan:{name}?n_cells=12&n_sensors=3&bus.sleep_after_open=0" for name in pair.names)
    return BusRack(ours, Far(theirs), clock, pair.close)


def rack_in_another_process(clock: Time, folder: Path) -> Rack:
    hub = ExitStack()
    url = f"can:socketcand:can0?{hub.enter_context(hub_process())}&n_cells=12&n_sensors=3"
    far = FarProcess(url)
    return BusRack(url, far, clock, far.end, hub.close)


BACKENDS = {
    "simulated": Subject(simulated_rack),
    "site": Subject(rack_of_site),
    "replay": Subject(replayed_rack, reacts=False),
    "chaos": Subject(damaged_rack),
    "log": Subject(logged_rack, reacts=False),
    "record": Subject(recorded_rack),
    "chaos_wire": Subject(badly_wired_rack),
    "alive": Subject(watched_rack),
    "modbus:tcp": Subject(rack_on_tcp),
    "modbus:tls": Subject(rack_over_tls),
    "modbus:rtu": Subject(rack_on_serial_line),
    "can:virtual": Subject(rack_on_virtual_bus),
    "can:virtual, fd": Subject(rack_on_virtual_fd_bus),
    "can:slcan": Subject(rack_on_serial_adapters),
    "can:socketcand, two processes": Subject(rack_in_another_process),
}


@pytest.fixture(params=BACKENDS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return BACKENDS[request.param]


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def rack(subject: Subject, clock: Time, tmp_path: Path) -> Iterator[Rack]:
    made = subject.make(clock, tmp_path)
    yield made
    if isinstance(made, Wired | BusRack):
        made.end()


def records(rack: Rack) -> tuple[Measurement, Command]:
    info = rack.info
    command = Command(info.n_cells, info.n_sensors)
    command.head["cooling_degc"] = 25.0
    return Measurement(info.n_cells, info.n_sensors), command


def test_it_satisfies_the_protocol(rack: Rack) -> None:
    with rack as entered:
        assert isinstance(rack, Rack)
        assert entered is rack
        if rack.info.capabilities.truth:
            assert isinstance(rack, HasTruth)


def test_the_description_fits_the_measurement(rack: Rack) -> None:
    with rack:
        info = rack.info
        assert info.n_cells > 0
        assert info.n_parallel > 0
        assert info.capacity_ah > 0
        assert info.sensor_of_cell.shape == (info.n_cells,)
        assert info.sensor_of_cell.dtype == np.uint16
        assert set(info.sensor_of_cell.tolist()) == set(range(info.n_sensors))


def test_opening_and_closing_twice_is_harmless(rack: Rack) -> None:
    rack.open()
    rack.open()
    m, _ = records(rack)
    rack.read(m)
    rack.close()
    rack.close()
    rack.open()
    rack.read(m)
    assert m.head["contactors"][0] == 0
    rack.close()


def test_a_closed_rack_cannot_be_read_or_written(rack: Rack) -> None:
    with rack:
        m, command = records(rack)
    for action in (lambda: rack.read(m), lambda: rack.write(command)):
        with pytest.raises((LinkError, RuntimeError)):
            action()


def test_leaving_by_an_exception_closes(rack: Rack) -> None:
    rack.open()
    m, _ = records(rack)
    with pytest.raises(KeyError), rack:
        raise KeyError
    with pytest.raises((LinkError, RuntimeError)):
        rack.read(m)


def test_time_and_sequence_never_decrease(rack: Rack, clock: Time) -> None:
    with rack:
        m, command = records(rack)
        time_s, sequence = -np.inf, -1
        for step_s in (0.0, 0.1, 0.0, 1.0, 0.01, 3.0, 0.0, 0.5):
            clock.now += step_s
            rack.read(m)
            assert m.head["time_s"][0] >= time_s
            assert m.head["sequence"][0] >= sequence
            time_s, sequence = float(m.head["time_s"][0]), int(m.head["sequence"][0])
            command.head["heartbeat"] += 1
            rack.write(command)
        assert sequence > 1


def test_reading_does_not_depend_on_what_was_in_the_record(rack: Rack) -> None:
    with rack:
        clean, _ = records(rack)
        dirty, _ = records(rack)
        for field in dirty.layout.fields:
            target = dirty.raw[field.name] if field.dims else dirty.head[field.name]
            target[...] = 77
        rack.read(clean)
        rack.read(dirty)
        assert clean.raw.tobytes() == dirty.raw.tobytes()


def test_records_of_another_size_are_refused(rack: Rack, subject: Subject) -> None:
    with rack:
        info = rack.info
        with pytest.raises(ValueError, match=r"\d"):
            rack.read(Measurement(info.n_cells + 1, info.n_sensors))
        if subject.reacts:
            with pytest.raises(ValueError, match=r"\d"):
                rack.write(Command(info.n_cells + 1, info.n_sensors))


def test_values_are_plausible_with_their_quality(rack: Rack, clock: Time) -> None:
    with rack:
        m, _ = records(rack)
        clock.now += 1.0
        rack.read(m)
        assert not m.cell_v_quality.any()
        qualities = [name for name in m.head.dtype.names or () if name.endswith("_quality")]
        assert not any(m.head[name][0] for name in qualities)
        assert m.head["interlock_closed"][0] == 1
        for name in ("emergency_stop", "gas_alarm", "insulation_rail"):
            assert m.head[name][0] == 0
        assert not m.bleeding.any()
        if rack.info.capabilities.coolant_flow:
            assert m.head["coolant_flow_lpm"][0] > 0
        assert np.all((m.cell_v > 1.0) & (m.cell_v < 5.0))
        assert m.head["pack_v"][0] == pytest.approx(m.cell_v.sum(), rel=0.01)
        assert np.all((m.sensor_degc > -40) & (m.sensor_degc < 90))
        ages = [f.name for f in m.layout.fields if f.name.endswith("_age_s")]
        for name in ages:
            values = getattr(m, name, None)
            values = m.head[name] if values is None else values
            assert np.all((values >= 0) & (values < 10))


def run(rack: Rack, clock: Time, m: Measurement, command: Command, contactors: int, seconds: int) -> None:
    for _ in range(seconds):
        command.head["contactors"] = contactors
        command.head["heartbeat"] += 1
        rack.write(command)
        clock.now += 1.0
        rack.read(m)


def test_positive_current_discharges(rack: Rack, subject: Subject, clock: Time) -> None:
    if not subject.reacts:
        pytest.skip("cannot be told to discharge")
    with rack:
        m, command = records(rack)
        run(rack, clock, m, command, 0b110, 10)
        rest_v = m.cell_v.copy()
        command.head["limit_discharge_a"] = 1e3
        command.head["limit_discharge_w"] = 1e6
        run(rack, clock, m, command, 0b011, 3)
        assert m.head["contactors"][0] == 0b011
        assert m.head["current_a"][0] > 0.2 * rack.info.capacity_ah
        assert np.all(m.cell_v < rest_v)
        if isinstance(rack, HasTruth):
            truth = Truth(rack.info.n_cells, rack.info.n_sensors)
            rack.truth(truth)
            before = truth.soc.copy()
            run(rack, clock, m, command, 0b011, 3)
            rack.truth(truth)
            assert np.all(truth.soc < before)
            assert truth.head["power_w"][0] > 0
    rack.open()
    rack.read(m)
    assert m.head["contactors"][0] == 0
    assert abs(m.head["current_a"][0]) < 0.01 * rack.info.capacity_ah
    rack.close()


def test_what_the_bleed_switches_do_is_seen(rack: Rack, subject: Subject, clock: Time) -> None:
    with rack:
        if not (subject.reacts and rack.info.capabilities.bleed_feedback):
            pytest.skip("has no switches to see")
        m, command = records(rack)
        command.balance[3] = 1
        run(rack, clock, m, command, 0, 2)
        assert np.flatnonzero(m.bleeding).tolist() == [3]


def test_missing_values_are_flagged_and_not_numbers(rack: Rack, subject: Subject, clock: Time) -> None:
    if not subject.reacts:
        pytest.skip("shows only what was recorded")
    with rack:
        m, command = records(rack)
        run(rack, clock, m, command, 0, 25)
        assert m.cell_v_quality.tolist()[:3] == [0, Quality.MISSING, 0]
        assert m.sensor_degc_quality.tolist() == [Quality.MISSING, 0, 0]
        assert np.isnan(m.cell_v[1])
        assert np.isnan(m.sensor_degc[0])


def test_every_backend_of_ours_is_here() -> None:
    """A new backend must join the suite (`twin` is the native program of two, `wrapper` what wrappers share)."""
    ours = {p.stem for p in Path(replay.__file__).parent.glob("*.py")} - {"__init__", "twin", "wrapper"}
    assert ours == {name.partition(":")[0] for name in BACKENDS}
