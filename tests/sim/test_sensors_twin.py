from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim import layout as Y
from sim import sensors as S
from sim.config import TwinError
from sim.rack import RackTwin
from sim.sensors import SensorBank, SensorConfig

Plain = Callable[..., RackTwin]
RANGE = 4


SCALARS = (
    "current_a", "pack_v", "bus_v", "insulation_ohm", "coolant_in_degc", "coolant_out_degc", "coolant_flow_lpm",
)  # fmt: skip


class Samples:
    """A bank of sensors with a record of its own."""

    def __init__(self, rack: RackTwin, **config: Any) -> None:
        self.rack = rack
        self.bank = SensorBank(rack.bank, SensorConfig(**config), RANGE)
        head = np.dtype(
            [(name, "f4") for name in SCALARS]
            + [("current_a_quality", "u1"), ("contactors", "u1"), ("gas_alarm", "u1")],
            align=True,
        )
        n = rack.n_series
        fields = [
            ("head", head),
            ("cell_v", "f4", (n,)),
            ("cell_v_quality", "u1", (n,)),
            ("bleeding", "u1", (n,)),
            ("sensor_degc", "f4", (self.bank.n_sensors,)),
        ]
        self.record = np.zeros(1, np.dtype(fields, align=True))
        self.values, self.marks, self.places = SensorBank.record(self.record)
        self.cell_v, self.quality, self.degc = (
            self.record[name][0] for name in ("cell_v", "cell_v_quality", "sensor_degc")
        )

    def take(self, sequence: int = 1, dt_s: float = 1.0, insulation_ohm: float = 1e6) -> dict[str, float]:
        b, x = self.rack.bank, self.bank
        b.string[0, Y.S_INSULATION_OHM] = insulation_ohm
        S.sample_rack(
            b.cells[0], b.groups[0], b.balance[0], b.string[0], b.logic[0], b.work[0], b.p, x.late, x.lagged[0],
            x.sensor_group, x.constants, self.places, self.values[0], self.marks[0], self.rack.config.seed, sequence, dt_s,
        )  # fmt: skip
        return {name: float(self.record["head"][name][0]) for name in SCALARS}


def quiet(**only: Any) -> dict[str, Any]:
    """Every error off but those given."""
    off = SensorConfig(ideal=True).effective()
    return {**{name: getattr(off, name) for name in SensorConfig.__dataclass_fields__}, "ideal": False, **only}


def test_ideal_sensors_tell_the_truth(plain: Plain, hold: Callable[..., None]) -> None:
    rack = plain(rack={"n_series": 6, "soc_spread": 0.05, "degc_spread": 1.0, "cells_per_sensor": 2})
    hold(rack, 12.0, 5)
    samples = Samples(rack, ideal=True, cell_v_noise_v=1.0)
    values = samples.take()
    np.testing.assert_array_equal(samples.cell_v, rack.levels[Y.V_NOW].astype(np.float32))
    np.testing.assert_array_equal(samples.degc, rack.cells[Y.C_DEGC][[0, 2, 4]].astype(np.float32))
    assert values["current_a"] == pytest.approx(12.0, abs=1e-9)
    assert values["pack_v"] == np.float32(rack.string[Y.S_PACK_V])
    assert values["bus_v"] == np.float32(rack.string[Y.S_BUS_V])
    assert values["insulation_ohm"] == 1e6
    assert values["coolant_in_degc"] == rack.string[Y.S_COOLANT_IN]
    assert values["coolant_out_degc"] == rack.string[Y.S_COOLANT_OUT]
    assert not samples.quality.any()


def test_noise_offset_gain_and_quantisation_have_the_size_asked_for(plain: Plain) -> None:
    n = 400
    rack = plain(rack={"n_series": n})
    samples = Samples(rack, **quiet(cell_v_noise_v=1e-3, cell_v_offset_spread_v=2e-3, cell_v_gain_spread=1e-3))
    reads = []
    for k in range(300):
        samples.take(k + 1)
        reads.append(samples.cell_v.astype(float) - 3.3)
    errors = np.array(reads)
    assert (errors - errors.mean(axis=0)).std() == pytest.approx(1e-3, rel=0.02)
    # per channel: offset 2 mV and 1e-3 of 3.3 V; its standard deviation is known to 1/sqrt(2n) = 3.5 %
    assert errors.mean(axis=0).std() == pytest.approx(np.hypot(2e-3, 3.3e-3), rel=0.12)
    coarse = Samples(rack, **quiet(cell_v_lsb_v=7e-3))
    coarse.take()
    np.testing.assert_allclose(coarse.cell_v, 471 * 7e-3, rtol=1e-6)


def test_single_sensors_have_exactly_the_errors_asked_for(plain: Plain, hold: Callable[..., None]) -> None:
    rack = plain(rack={"n_series": 2, "n_parallel": 2})
    hold(rack, 10.0, 3)
    values = Samples(rack, **quiet(current_offset_c=0.01, current_gain_error=0.02, pack_v_gain_error=0.1)).take()
    assert values["current_a"] == pytest.approx(10.0 * 1.02 + 0.01 * 20.0)  # 1C of two parallel cells of 10 Ah is 20 A
    assert values["pack_v"] == pytest.approx(1.1 * rack.string[Y.S_PACK_V])
    values = Samples(rack, **quiet(current_lsb_c=0.1, bus_v_gain_error=-0.2, pack_v_lsb_v=0.5)).take()
    assert values["current_a"] == 10.0
    assert values["bus_v"] == pytest.approx(0.8 * rack.string[Y.S_BUS_V], abs=0.25)
    assert values["bus_v"] % 0.5 == 0.0


def test_current_noise(plain: Plain) -> None:
    samples = Samples(plain(), **quiet(current_noise_c=0.01))
    read = np.array([samples.take(k)["current_a"] for k in range(4000)])
    assert read.std() == pytest.approx(0.1, rel=0.05)
    assert abs(read.mean()) < 4 * 0.1 / np.sqrt(4000)


def test_temperature_noise_and_offset(plain: Plain) -> None:
    samples = Samples(plain(rack={"n_series": 200}), **quiet(degc_noise=0.1, degc_offset_spread=0.5))
    reads = []
    for k in range(200):
        samples.take(k + 1)
        reads.append(samples.degc.astype(float) - 25.0)
    errors = np.array(reads)
    assert (errors - errors.mean(axis=0)).std() == pytest.approx(0.1, rel=0.05)
    assert errors.mean(axis=0).std() == pytest.approx(0.5, rel=0.2)  # 200 sensors: 5 % (1 sigma)


def test_other_values_have_their_noise(plain: Plain) -> None:
    rack = plain(rack={"n_series": 4})
    rack.string[Y.S_BUS_V] = 10.0
    samples = Samples(rack, **quiet(pack_v_noise=1e-3, insulation_noise=0.05, degc_noise=0.2))
    read = [samples.take(k + 1) for k in range(2000)]
    for column, mean, spread in (
        ("pack_v", 13.2, 13.2e-3),
        ("bus_v", 10.0, 10e-3),
        ("insulation_ohm", 1e6, 5e4),
        ("coolant_in_degc", 25.0, 0.2),
        ("coolant_out_degc", 25.0, 0.2),
    ):
        values = np.array([sample[column] for sample in read])
        assert values.mean() == pytest.approx(mean, abs=4 * spread / np.sqrt(2000))
        assert values.std() == pytest.approx(spread, rel=0.07)


def test_current_beyond_the_range_is_held(plain: Plain, hold: Callable[..., None]) -> None:
    rack = plain()
    hold(rack, -50.0, 1)
    samples = Samples(rack, **quiet(current_max_c=3.0))
    assert samples.take()["current_a"] == -30.0
    assert samples.bank.current_max_a == 30.0


def test_voltage_beyond_the_range_is_held_and_flagged(plain: Plain) -> None:
    rack = plain(rack={"n_series": 3})
    rack.cells[Y.C_SOC, 1] = 5.0
    rack.settle()
    samples = Samples(rack, **quiet())
    samples.take()
    assert samples.cell_v[1] == 5.0
    assert samples.quality.tolist() == [0, RANGE, 0]
    rack.cells[Y.C_SOC, 1] = 0.5
    rack.settle()
    samples.take(2)
    assert samples.quality.tolist() == [0, 0, 0]


def test_skew_shows_the_current_of_earlier(plain: Plain, hold: Callable[..., None]) -> None:
    rack = plain(rack={"n_series": 8}, cell={"capacity_ah": 1e9})
    hold(rack, 0.0, 1)
    hold(rack, 10.0, 1)
    samples = Samples(rack, **quiet(scan_s=0.4, cells_per_chip=4, current_skew_s=0.25))
    values = samples.take()
    before = np.tile([0.3, 0.2, 0.1, 0.0], 2)  # two chips of four channels, the last channel at the end of the scan
    np.testing.assert_allclose(samples.bank.cell_age_s, before, rtol=1e-6)
    np.testing.assert_allclose(samples.cell_v, 3.3 - 2e-3 * 10.0 * (1 - before), rtol=1e-7)
    assert values["current_a"] == pytest.approx(7.5)
    hold(rack, 10.0, 1)  # a steady current: no skew to see
    samples.take(2)
    np.testing.assert_allclose(samples.cell_v, 3.3 - 2e-2, rtol=1e-7)


@pytest.mark.parametrize("n_series", [6, 40])
def test_bleed_currents_take_their_share_of_the_measured_voltages(plain: Plain, n_series: int) -> None:
    """Chips of three channels, 33 ohm, 0.5 ohm a wire: by hand. 3.3 V over 33 ohm is 100 mA, 50 mV on a wire."""
    rack = plain(rack={"n_series": n_series, "bleed_ohm": 33.0, "sense_ohm": 0.5})
    mask = np.zeros(n_series, np.uint8)
    mask[[0, 2, 3, 4]] = 1
    rack.set_balance(mask)
    rack.settle()
    samples = Samples(rack, **quiet(cells_per_chip=3))
    samples.take()
    volt = rack.levels[Y.V_NOW]
    amp = volt / 33.0 * mask
    expected = volt.copy()
    expected[0] -= 0.5 * 2 * amp[0]  # its own two wires
    expected[1] += 0.5 * (amp[0] + amp[2])  # both its wires carry a neighbour's current, the other way round
    expected[2] -= 0.5 * 2 * amp[2]  # the next group is on another chip, with a wire of its own
    expected[3] -= 0.5 * (2 * amp[3] - amp[4])
    expected[4] -= 0.5 * (2 * amp[4] - amp[3])
    expected[5] += 0.5 * amp[4]
    np.testing.assert_allclose(samples.cell_v, expected, rtol=1e-7)
    assert expected[0] - volt[0] == pytest.approx(-0.1, abs=1e-3)
    assert samples.record["bleeding"][0].tolist() == mask.tolist()
    rack.set_balance(np.zeros(n_series, np.uint8))
    samples.take(2)
    np.testing.assert_allclose(samples.cell_v, volt, rtol=1e-4)
    assert not samples.record["bleeding"].any()


def test_neighbours_across_the_blocks_of_the_memory_share_their_wire(plain: Plain) -> None:
    rack = plain(rack={"n_series": 40, "sense_ohm": 0.5})
    mask = np.zeros(40, np.uint8)
    mask[31] = 1
    rack.set_balance(mask)
    rack.settle()
    samples = Samples(rack, **quiet(cells_per_chip=40))
    samples.take()
    shift = (samples.cell_v - rack.levels[Y.V_NOW]) / (0.5 * rack.levels[Y.V_NOW, 31] / 33.0)
    np.testing.assert_allclose(shift[[29, 30, 31, 32, 33]], [0, 1, -2, 1, 0], atol=1e-5)


def test_the_flow_is_that_of_the_rack_and_stands_with_the_pump(plain: Plain) -> None:
    samples = Samples(plain(), **quiet())
    assert samples.take()["coolant_flow_lpm"] == 12.0
    noisy = Samples(samples.rack, **quiet(flow_noise=0.02))
    read = np.array([noisy.take(k)["coolant_flow_lpm"] for k in range(2000)])
    assert read.mean() == pytest.approx(12.0, abs=4 * 0.24 / np.sqrt(2000))
    assert read.std() == pytest.approx(0.24, rel=0.07)
    samples.rack.string[Y.S_FLOW_W_PER_K] = 0.0
    assert noisy.take()["coolant_flow_lpm"] == 0.0


def test_reversed_cells_are_seen_down_to_the_end_of_the_range(plain: Plain) -> None:
    rack = plain(rack={"n_series": 3})
    rack.cells[Y.C_SOC] = [0.5, -6.0, -20.0]  # 3 V and 0.6 V per unit: -0.6 V and -9 V
    rack.settle()
    samples = Samples(rack, **quiet())
    samples.take()
    np.testing.assert_allclose(samples.cell_v, [3.3, -0.6, -2.0], rtol=1e-6)
    assert samples.quality.tolist() == [0, 0, RANGE]
    with pytest.raises(TwinError, match=r"\[sensors\] cell_v_min_v = 6.0: above cell_v_max_v"):
        SensorConfig(cell_v_min_v=6.0)


def test_temperature_sensors_lag(plain: Plain) -> None:
    rack = plain(rack={"n_series": 4, "cells_per_sensor": 4})
    samples = Samples(rack, **quiet(degc_tau_s=20.0))
    rack.cells[Y.C_DEGC] = 35.0
    samples.take(1, 5.0)
    assert samples.degc[0] == pytest.approx(35 - 10 * np.exp(-0.25))
    samples.take(2, 15.0)
    assert samples.degc[0] == pytest.approx(35 - 10 * np.exp(-1.0))


def test_sensors_map_to_cells(plain: Plain) -> None:
    rack = plain(rack={"n_series": 10, "cells_per_sensor": 4, "degc_spread": 3.0})
    samples = Samples(rack, **quiet())
    assert samples.bank.n_sensors == 3
    assert samples.bank.sensor_of_cell.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    samples.take()
    np.testing.assert_allclose(samples.degc, rack.cells[Y.C_DEGC][[1, 5, 8]], rtol=1e-6)


def test_samples_depend_on_seed_and_number_alone(plain: Plain) -> None:
    def reads(seed: int) -> bytes:
        samples = Samples(plain(rack={"n_series": 5, "seed": seed}))
        out = []
        for k in (1, 2, 9):
            out.append(str(samples.take(k)) + str(samples.cell_v.tobytes()) + str(samples.degc.tobytes()))
        return "".join(out).encode()

    assert reads(1) == reads(1)
    assert reads(1) != reads(2)


@pytest.mark.parametrize("key", ["cell_v_noise_v", "scan_s", "degc_lsb", "current_max_c"])
def test_negative_sizes_are_refused(key: str) -> None:
    with pytest.raises(TwinError, match=rf"\[sensors\] {key} = -1"):
        SensorConfig(**{key: -1.0})
    with pytest.raises(TwinError, match="cells_per_chip"):
        SensorConfig(cells_per_chip=0)
    SensorConfig(current_offset_c=-0.01, current_gain_error=-0.01)


def test_normal_numbers_are_normal_and_always_the_same() -> None:
    draws = np.array([[S.gauss(7, sequence, channel) for channel in range(50)] for sequence in range(1, 801)])
    n = draws.size
    assert abs(draws.mean()) < 4 / np.sqrt(n)
    assert draws.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * n))
    # neighbours in time and over the channels know nothing of each other
    assert abs(np.corrcoef(draws[1:].ravel(), draws[:-1].ravel())[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(draws[:, 1:].ravel(), draws[:, :-1].ravel())[0, 1]) < 4 / np.sqrt(n)
    share = np.mean(np.abs(draws) > 2)
    assert share == pytest.approx(0.0455, abs=0.006)
    for key in ((1, 2, 3), (0, 0, 0), (2**31, 86400, 415)):
        assert S.gauss(*key) == reference(*key)  # every bit


def reference(seed: int, sequence: int, channel: int) -> float:
    """Splitmix64 in whole numbers, as published."""
    mask = 2**64 - 1
    state = (seed * 0x94D049BB133111EB + sequence * 0xBF58476D1CE4E5B9 + 2 * channel * 0x9E3779B97F4A7C15) & mask
    total = 0.0
    for _ in range(2):
        state = z = (state + 0x9E3779B97F4A7C15) & mask
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        z ^= z >> 31
        total += sum(z >> shift & 0xFFFF for shift in (0, 16, 32, 48))
    return (total / 65535.0 - 4.0) * 1.5**0.5
