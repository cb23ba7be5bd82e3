from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim import kernels as K
from sim import sensors as S
from sim.config import TwinError
from sim.rack import RackTwin
from sim.sensors import SensorBank, SensorConfig

Plain = Callable[..., RackTwin]
RANGE = 4


class Samples:
    """A bank of sensors with its arrays."""

    def __init__(self, rack: RackTwin, **config: Any) -> None:
        self.bank = SensorBank(rack, SensorConfig(**config))
        self.cell_v = np.zeros(rack.n_series, np.float32)
        self.quality = np.zeros(rack.n_series, np.uint8)
        self.degc = np.zeros(self.bank.n_sensors, np.float32)

    def take(self, sequence: int = 1, dt_s: float = 1.0, insulation_ohm: float = 1e6) -> dict[int, float]:
        values = self.bank.sample(sequence, dt_s, insulation_ohm, self.cell_v, self.quality, self.degc, RANGE)
        return dict(enumerate(values.tolist()))


def quiet(**only: Any) -> dict[str, Any]:
    """Every error off but those given."""
    off = SensorConfig(ideal=True).effective()
    return {**{name: getattr(off, name) for name in SensorConfig.__dataclass_fields__}, "ideal": False, **only}


def test_ideal_sensors_tell_the_truth(plain: Plain, hold: Callable[..., None]) -> None:
    rack = plain(rack={"n_series": 6, "soc_spread": 0.05, "degc_spread": 1.0, "cells_per_sensor": 2})
    hold(rack, 12.0, 5)
    samples = Samples(rack, ideal=True, cell_v_noise_v=1.0)
    values = samples.take()
    np.testing.assert_array_equal(samples.cell_v, rack.groups[K.G_V].astype(np.float32))
    np.testing.assert_array_equal(samples.degc, rack.cells[K.C_DEGC][[0, 2, 4]].astype(np.float32))
    assert values[S.AMPERE] == pytest.approx(12.0, abs=1e-9)
    assert values[S.PACK_V] == rack.string[K.S_PACK_V]
    assert values[S.BUS_V] == rack.string[K.S_BUS_V]
    assert values[S.INSULATION] == 1e6
    assert values[S.COOLANT_IN] == rack.string[K.S_COOLANT_IN]
    assert values[S.COOLANT_OUT] == rack.string[K.S_COOLANT_OUT]
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
    assert values[S.AMPERE] == pytest.approx(10.0 * 1.02 + 0.01 * 20.0)  # 1C of two parallel cells of 10 Ah is 20 A
    assert values[S.PACK_V] == pytest.approx(1.1 * rack.string[K.S_PACK_V])
    values = Samples(rack, **quiet(current_lsb_c=0.1, bus_v_gain_error=-0.2, pack_v_lsb_v=0.5)).take()
    assert values[S.AMPERE] == 10.0
    assert values[S.BUS_V] == pytest.approx(0.8 * rack.string[K.S_BUS_V], abs=0.25)
    assert values[S.BUS_V] % 0.5 == 0.0


def test_current_noise(plain: Plain) -> None:
    samples = Samples(plain(), **quiet(current_noise_c=0.01))
    read = np.array([samples.take(k)[S.AMPERE] for k in range(4000)])
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
    rack.string[K.S_BUS_V] = 10.0
    samples = Samples(rack, **quiet(pack_v_noise=1e-3, insulation_noise=0.05, degc_noise=0.2))
    read = np.array([list(samples.take(k + 1).values()) for k in range(2000)])
    for column, mean, spread in (
        (S.PACK_V, 13.2, 13.2e-3),
        (S.BUS_V, 10.0, 10e-3),
        (S.INSULATION, 1e6, 5e4),
        (S.COOLANT_IN, 25.0, 0.2),
        (S.COOLANT_OUT, 25.0, 0.2),
    ):
        assert read[:, column].mean() == pytest.approx(mean, abs=4 * spread / np.sqrt(2000))
        assert read[:, column].std() == pytest.approx(spread, rel=0.07)


def test_current_beyond_the_range_is_held(plain: Plain, hold: Callable[..., None]) -> None:
    rack = plain()
    hold(rack, -50.0, 1)
    samples = Samples(rack, **quiet(current_max_c=3.0))
    assert samples.take()[S.AMPERE] == -30.0
    assert samples.bank.current_max_a == 30.0


def test_voltage_beyond_the_range_is_held_and_flagged(plain: Plain) -> None:
    rack = plain(rack={"n_series": 3})
    rack.cells[K.C_SOC, 1] = 5.0
    rack.settle()
    samples = Samples(rack, **quiet())
    samples.take()
    assert samples.cell_v[1] == 5.0
    assert samples.quality.tolist() == [0, RANGE, 0]
    rack.cells[K.C_SOC, 1] = 0.5
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
    assert values[S.AMPERE] == pytest.approx(7.5)
    hold(rack, 10.0, 1)  # a steady current: no skew to see
    samples.take(2)
    np.testing.assert_allclose(samples.cell_v, 3.3 - 2e-2, rtol=1e-7)


def test_temperature_sensors_lag(plain: Plain) -> None:
    rack = plain(rack={"n_series": 4, "cells_per_sensor": 4})
    samples = Samples(rack, **quiet(degc_tau_s=20.0))
    rack.cells[K.C_DEGC] = 35.0
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
    np.testing.assert_allclose(samples.degc, rack.cells[K.C_DEGC][[1, 5, 8]], rtol=1e-6)


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
