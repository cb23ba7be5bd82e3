"""What the sensors of a rack make of the truth: noise, quantisation, offset, gain error, lag and sampling skew.

The errors of many-channel sensors (cell voltages, temperatures) are drawn per channel from the seed; those of single
sensors (current, pack and link voltage) are given exactly, so that a scenario can ask for a certain bias.

Sampling skew: the channels of a front-end chip are converted one after the other while the current changes. Between the
instants at which the twin is solved the current is taken to have gone in a straight line, so that a channel sampled
`delta` before the end of the scan sees the voltage for I - (I - I_previous) delta / dt.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import kernels as K
from sim.config import require
from sim.jit import kernel
from sim.rack import RackTwin

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
U1 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SensorConfig:
    """Table `[sensors]`. `_noise` is a standard deviation per sample, `_spread` one over the channels."""

    ideal: bool = False  # no errors at all, whatever the other keys say
    scan_s: float = 0.004  # time that a front-end takes for all its channels
    cells_per_chip: int = 16
    cell_v_noise_v: float = 3e-4
    cell_v_offset_spread_v: float = 5e-4
    cell_v_gain_spread: float = 1e-4
    cell_v_lsb_v: float = 1e-4
    cell_v_max_v: float = 5.0
    current_noise_c: float = 2e-4  # in units of the 1C current of the rack
    current_offset_c: float = 5e-4
    current_gain_error: float = 1e-3
    current_lsb_c: float = 1e-4
    current_max_c: float = 3.0
    current_skew_s: float = 0.0  # the current is sampled this long before the end of the scan
    pack_v_noise: float = 1e-4  # relative
    pack_v_gain_error: float = 5e-4
    bus_v_gain_error: float = -5e-4
    pack_v_lsb_v: float = 0.1
    degc_noise: float = 0.05
    degc_offset_spread: float = 0.3
    degc_lsb: float = 0.1
    degc_tau_s: float = 20.0  # lag between cell and sensor
    insulation_noise: float = 0.02  # relative

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if not f.name.endswith(("_error", "offset_c")):
                require(value >= 0, f"[sensors] {f.name} = {value}: must not be negative")
        require(self.cells_per_chip >= 1, f"[sensors] cells_per_chip = {self.cells_per_chip}: must be at least 1")

    def effective(self) -> SensorConfig:
        """Itself, or with every error gone where `ideal` is set (ranges and the channel order stay)."""
        if not self.ideal:
            return self
        keep = ("ideal", "cells_per_chip", "cell_v_max_v", "current_max_c")
        zero: dict[str, Any] = {f.name: 0.0 for f in dataclasses.fields(self) if f.name not in keep}
        return dataclasses.replace(self, **zero)


# scalars that one sample returns, in this order
AMPERE, PACK_V, BUS_V, INSULATION, COOLANT_IN, COOLANT_OUT, N_SCALARS = range(7)

# rows of calibration constants per cell channel
_GAIN, _OFFSET, _DELTA = range(3)

# constants of the sensors
(
    _C_NOISE_V,
    _C_LSB_V,
    _C_MAX_V,
    _C_NOISE_A,
    _C_OFFSET_A,
    _C_GAIN_A,
    _C_LSB_A,
    _C_MAX_A,
    _C_SKEW_A,
    _C_NOISE_PACK,
    _C_GAIN_PACK,
    _C_GAIN_BUS,
    _C_LSB_PACK,
    _C_NOISE_T,
    _C_LSB_T,
    _C_TAU_T,
    _C_NOISE_ISO,
    _C_SIZE,
) = range(18)


@kernel
def _quantise(value: float, lsb: float) -> float:
    return float(np.rint(value / lsb) * lsb) if lsb > 0.0 else value


@kernel
def _sample(
    cells: F8,
    groups: F8,
    string: F8,
    n_parallel: int,
    channels: F8,
    sensors: F8,
    sensor_group: npt.NDArray[np.int64],
    constants: F8,
    seed: int,
    sequence: int,
    dt: float,
    insulation: float,
    cell_v: F4,
    cell_quality: U1,
    sensor_degc: F4,
    scalars: F8,
    range_code: int,
) -> None:
    c = constants
    step_a = string[K.S_AMPERE] - string[K.S_PREVIOUS_A] if dt > 0.0 else 0.0
    rate = step_a / dt if dt > 0.0 else 0.0
    n = groups.shape[1]
    for g in range(n):
        earlier_a = rate * min(channels[_DELTA, g], dt)  # by so much the current was lower then
        v = groups[K.G_V, g] + earlier_a * groups[K.G_EFF_OHM, g]
        v = v * channels[_GAIN, g] + channels[_OFFSET, g]
        if c[_C_NOISE_V] > 0.0:
            v += c[_C_NOISE_V] * K.gauss(seed, sequence, g)
        v = _quantise(v, c[_C_LSB_V])
        quality = 0
        if v > c[_C_MAX_V] or v < 0.0:
            v = min(max(v, 0.0), c[_C_MAX_V])
            quality = range_code
        cell_v[g] = v
        cell_quality[g] = quality
    follow = 1.0 - np.exp(-dt / c[_C_TAU_T]) if c[_C_TAU_T] > 0.0 else 1.0
    for s in range(sensors.shape[1]):
        g = sensor_group[s]
        degc = 0.0
        for k in range(g * n_parallel, (g + 1) * n_parallel):
            degc += cells[K.C_DEGC, k]
        sensors[0, s] += follow * (degc / n_parallel - sensors[0, s])
        t = sensors[0, s] + sensors[1, s]
        if c[_C_NOISE_T] > 0.0:
            t += c[_C_NOISE_T] * K.gauss(seed, sequence, n + s)
        sensor_degc[s] = _quantise(t, c[_C_LSB_T])
    first = n + sensors.shape[1]
    a = (string[K.S_AMPERE] - rate * min(c[_C_SKEW_A], dt)) * (1.0 + c[_C_GAIN_A]) + c[_C_OFFSET_A]
    a = _quantise(a + c[_C_NOISE_A] * K.gauss(seed, sequence, first), c[_C_LSB_A])
    scalars[AMPERE] = min(max(a, -c[_C_MAX_A]), c[_C_MAX_A])
    pack = string[K.S_PACK_V] * (1.0 + c[_C_GAIN_PACK] + c[_C_NOISE_PACK] * K.gauss(seed, sequence, first + 1))
    scalars[PACK_V] = _quantise(pack, c[_C_LSB_PACK])
    bus = string[K.S_BUS_V] * (1.0 + c[_C_GAIN_BUS] + c[_C_NOISE_PACK] * K.gauss(seed, sequence, first + 2))
    scalars[BUS_V] = _quantise(bus, c[_C_LSB_PACK])
    scalars[INSULATION] = insulation * max(1.0 + c[_C_NOISE_ISO] * K.gauss(seed, sequence, first + 3), 0.0)
    scalars[COOLANT_IN] = _quantise(
        string[K.S_COOLANT_IN] + c[_C_NOISE_T] * K.gauss(seed, sequence, first + 4), c[_C_LSB_T]
    )
    scalars[COOLANT_OUT] = _quantise(
        string[K.S_COOLANT_OUT] + c[_C_NOISE_T] * K.gauss(seed, sequence, first + 5), c[_C_LSB_T]
    )


class SensorBank:
    """The sensors of one rack; every sample is a pure function of the truth, the seed and the sample's number."""

    def __init__(self, rack: RackTwin, config: SensorConfig) -> None:
        e = config.effective()
        self.config = config
        self._rack = rack
        one_c = rack.cell.head.capacity_ah * rack.n_parallel
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((rack.config.seed, 0x5E45))))
        n = rack.n_series
        self.n_sensors = -(-n // rack.config.cells_per_sensor)
        self.sensor_of_cell = (np.arange(n) // rack.config.cells_per_sensor).astype(np.uint16)
        # the sensor sits in the middle of its cells
        first = np.arange(self.n_sensors) * rack.config.cells_per_sensor
        last = np.minimum(first + rack.config.cells_per_sensor, n) - 1
        self._sensor_group = ((first + last) // 2).astype(np.int64)
        self._channels: F8 = np.empty((3, n))
        self._channels[_GAIN] = 1 + e.cell_v_gain_spread * rng.standard_normal(n)
        self._channels[_OFFSET] = e.cell_v_offset_spread_v * rng.standard_normal(n)
        place = np.arange(n) % e.cells_per_chip
        self._channels[_DELTA] = e.scan_s * (1 - (place + 1) / e.cells_per_chip)
        self.cell_age_s: F4 = self._channels[_DELTA].astype(np.float32)
        self.current_age_s = e.current_skew_s
        self.current_max_a = e.current_max_c * one_c
        self._sensors: F8 = np.zeros((2, self.n_sensors))
        self._sensors[0] = rack.by_group(K.C_DEGC).mean(axis=1)[self._sensor_group]
        self._sensors[1] = e.degc_offset_spread * rng.standard_normal(self.n_sensors)
        c = self._constants = np.zeros(_C_SIZE)
        c[_C_NOISE_V], c[_C_LSB_V], c[_C_MAX_V] = e.cell_v_noise_v, e.cell_v_lsb_v, e.cell_v_max_v
        c[_C_NOISE_A], c[_C_OFFSET_A] = e.current_noise_c * one_c, e.current_offset_c * one_c
        c[_C_GAIN_A], c[_C_LSB_A], c[_C_MAX_A] = e.current_gain_error, e.current_lsb_c * one_c, e.current_max_c * one_c
        c[_C_SKEW_A] = e.current_skew_s
        c[_C_NOISE_PACK], c[_C_GAIN_PACK], c[_C_GAIN_BUS] = e.pack_v_noise, e.pack_v_gain_error, e.bus_v_gain_error
        c[_C_LSB_PACK] = e.pack_v_lsb_v
        c[_C_NOISE_T], c[_C_LSB_T], c[_C_TAU_T] = e.degc_noise, e.degc_lsb, e.degc_tau_s
        c[_C_NOISE_ISO] = e.insulation_noise
        self.scalars: F8 = np.zeros(N_SCALARS)

    def sample(
        self,
        sequence: int,
        dt_s: float,
        insulation_ohm: float,
        cell_v: F4,
        cell_quality: U1,
        sensor_degc: F4,
        range_code: int,
    ) -> F8:
        """Take sample number `sequence`, `dt_s` after the one before; fills the arrays and returns the scalars.

        A cell voltage beyond the converter's range is held at its end and gets the quality `range_code`; the others 0.
        """
        rack = self._rack
        _sample(
            rack.cells, rack.groups, rack.string, rack.n_parallel, self._channels, self._sensors, self._sensor_group,
            self._constants, rack.config.seed, sequence, dt_s, insulation_ohm,
            cell_v, cell_quality, sensor_degc, self.scalars, range_code,
        )  # fmt: skip
        return self.scalars
