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

from sim import layout as Y
from sim import mathd
from sim.config import check_ranges, key, require
from sim.jit import kernel
from sim.rack import RackBank

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SensorConfig:
    """Table `[sensors]`. `_noise` is a standard deviation per sample, `_spread` one over the channels."""

    ideal: bool = key("no errors at all, whatever the other keys say", False)
    scan_s: float = key("time that a front-end takes for all its channels", 0.004, low=0)
    cells_per_chip: int = key("channels of a front-end, converted one after the other", 16, low=1)
    cell_v_noise_v: float = key("noise of a cell voltage", 3e-4, low=0)
    cell_v_offset_spread_v: float = key("offsets of the channels", 5e-4, low=0)
    cell_v_gain_spread: float = key("gain errors of the channels", 1e-4, low=0)
    cell_v_lsb_v: float = key("step of a cell voltage", 1e-4, low=0)
    # front-ends made for busbars between cells see reversed ones, too (BQ79616 class)
    cell_v_min_v: float = key("what a front-end sees at least; held there and flagged", -2.0)
    cell_v_max_v: float = key("what it sees at most; larger than cell_v_min_v", 5.0, low=0)
    current_noise_c: float = key("noise of the current", 2e-4, low=0)
    current_offset_c: float = key("offset of the current", 5e-4)
    current_gain_error: float = key("gain error of the current", 1e-3)
    current_lsb_c: float = key("step of the current", 1e-4, low=0)
    current_max_c: float = key("what the current sensor sees at most, in both directions", 3.0, low=0)
    current_skew_s: float = key("the current is sampled this long before the end of the scan", 0.0, low=0)
    pack_v_noise: float = key("noise of pack and link voltage, relative", 1e-4, low=0)
    pack_v_gain_error: float = key("gain error of the pack voltage", 5e-4)
    bus_v_gain_error: float = key("gain error of the link voltage", -5e-4)
    pack_v_lsb_v: float = key("step of pack and link voltage", 0.1, low=0)
    degc_noise: float = key("noise of a temperature", 0.05, low=0, unit="K")
    degc_offset_spread: float = key("offsets of the temperature sensors", 0.3, low=0, unit="K")
    degc_lsb: float = key("step of a temperature", 0.1, low=0, unit="K")
    degc_tau_s: float = key("lag between cell and sensor", 20.0, low=0)
    insulation_noise: float = key("noise of the insulation resistance, relative", 0.02, low=0)
    flow_noise: float = key("noise of the coolant's flow, relative", 0.01, low=0)
    gas_alarm_ppm: float = key(
        "of vented gas in the air: a tenth of the lower explosive limit, 41 % hydrogen", 1000.0, above=0
    )

    def __post_init__(self) -> None:
        check_ranges(self, "[sensors]")
        require(
            self.cell_v_min_v < self.cell_v_max_v, f"[sensors] cell_v_min_v = {self.cell_v_min_v}: above cell_v_max_v"
        )

    def effective(self) -> SensorConfig:
        """Itself, or with every error gone where `ideal` is set (ranges and the channel order stay)."""
        if not self.ideal:
            return self
        keep = ("ideal", "cells_per_chip", "cell_v_min_v", "cell_v_max_v", "current_max_c", "gas_alarm_ppm")
        zero: dict[str, Any] = {f.name: 0.0 for f in dataclasses.fields(self) if f.name not in keep}
        return dataclasses.replace(self, **zero)


# where a sample goes in a record: places of float32 values, then places of bytes (see `SensorBank.record`)
(
    AT_CELL_V,
    AT_SENSOR_DEGC,
    AT_AMPERE,
    AT_PACK_V,
    AT_BUS_V,
    AT_INSULATION,
    AT_COOLANT_IN,
    AT_COOLANT_OUT,
    AT_FLOW,
    AT_CELL_QUALITY,
    AT_AMPERE_QUALITY,
    AT_CONTACTORS,
    AT_BLEEDING,
    AT_GAS,
    AT_SIZE,
) = range(15)

# constants of the sensors
(
    _C_NOISE_V,
    _C_LSB_V,
    _C_MIN_V,
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
    _C_NOISE_FLOW,
    _C_LPM,  # flow for each W/K of the coolant's heat capacity flow
    _C_RANGE_CODE,
    _C_GAS_PPM,
    _C_SIZE,
) = range(23)

# rows of a block of temperature sensors: what the lag has left of the cell, error
_LAGGED, _ERROR, _SENSOR_BLOCK = 0, Y.LANES, 2 * Y.LANES

_LANES = Y.LANES
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_HALVES = np.uint64(0x0000FFFF0000FFFF)
_LOW = np.uint64(0xFFFFFFFF)
_TWO52 = 4503599627370496.0
_TWO52_BITS = np.uint64(0x4330000000000000)


@kernel
def _mixed(z):
    """The sum of four 16-bit uniforms from one word of splitmix64 whose counter is `z`, in two halves."""
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    z = z ^ (z >> np.uint64(31))
    return (z & _HALVES) + ((z >> np.uint64(16)) & _HALVES)


@kernel
def gauss(seed, sequence, channel):
    """Standard normal number that depends on its three integers alone: bit-identical wherever it is drawn.

    Two words of splitmix64 [Steele, Lea, Flood 2014] give eight 16-bit uniforms; their scaled sum is normal within 4.9
    standard deviations (Irwin-Hall, n = 8, excess kurtosis -0.15).
    """
    state = np.uint64(seed) * _MIX2 + np.uint64(sequence) * _MIX1 + np.uint64(channel) * np.uint64(2) * _MIX
    halves = _mixed(state + _MIX) + _mixed(state + _MIX + _MIX)
    whole = (halves & _LOW) + (halves >> np.uint64(32))
    # a whole number below 2^52 becomes a float64 in its bits
    total = np.uint64(whole | _TWO52_BITS).view(np.float64) - _TWO52
    return (total / 65535.0 - 4.0) * 1.224744871391589


@kernel
def _quantise(value, lsb):
    return mathd.nearest(value / lsb) * lsb if lsb > 0.0 else value


@kernel
def _sense_wires(balance, work, p, late):
    """Leave in the second flat row of `work` what the bleed currents take off the measured voltages.

    A bleed resistor hangs on the sense wires, and between two groups of a chip there is one wire for both: group k
    reads v_k - R (2 I_k - I_{k-1} - I_{k+1}). The wires at a chip's ends carry the current of its own group alone.
    Returns whether any group is bled.
    """
    size = int(p[Y.P_BLOCKS]) * _LANES
    any_on = np.uint8(0)
    for k in range(size):
        any_on |= balance[k]
    if any_on == 0:
        return False
    levels = int(p[Y.P_LEVELS_AT])
    flat, stride = int(p[Y.P_FLAT_AT]), int(p[Y.P_FLAT_STRIDE])
    amps = work[flat : flat + stride]  # of group k at place k + 1
    drop = work[flat + stride : flat + 2 * stride]
    below, above = late[size : 2 * size], late[2 * size : 3 * size]
    bleed_s, ohm = p[Y.P_BALANCE_S], p[Y.P_SENSE_OHM]
    for b in range(int(p[Y.P_BLOCKS])):
        v = work[levels + b * Y.V_BLOCK : levels + (b + 1) * Y.V_BLOCK]
        bleed = balance[b * _LANES : (b + 1) * _LANES]
        for k in range(_LANES):
            amps[b * _LANES + k + 1] = bleed[k] * bleed_s * v[Y.V_NOW + k]
    amps[0] = 0.0
    amps[size + 1] = 0.0
    for k in range(size):
        drop[k] = ohm * (2.0 * amps[k + 1] - below[k] * amps[k] - above[k] * amps[k + 2])
    return True


@kernel
def _cell_voltages(groups, balance, s, work, p, late, c, values, marks, at_v, at_quality, seed, sequence, rate, dt):
    """Voltages of a rack's groups as its front-ends see them, and their quality."""
    n = int(p[Y.P_N_SERIES])
    levels = int(p[Y.P_LEVELS_AT])
    spare = int(p[Y.P_SPARE_AT])
    t = work[spare : spare + Y.T_SIZE]
    noise, lsb, code = c[_C_NOISE_V], c[_C_LSB_V], np.uint8(c[_C_RANGE_CODE])
    bottom, top = c[_C_MIN_V], c[_C_MAX_V]
    drops = int(p[Y.P_FLAT_AT]) + int(p[Y.P_FLAT_STRIDE])
    bled = _sense_wires(balance, work, p, late)
    broken = p[Y.P_BROKEN] > 0.0
    joints = int(p[Y.P_BLOCKS]) * (Y.G_BLOCK + Y.X_JOINT_OHM * _LANES)
    for b in range(int(p[Y.P_BLOCKS])):
        v = work[levels + b * Y.V_BLOCK : levels + (b + 1) * Y.V_BLOCK]
        g = groups[b * Y.G_BLOCK : (b + 1) * Y.G_BLOCK]
        delta = late[b * _LANES : (b + 1) * _LANES]
        for k in range(_LANES):
            earlier_a = rate * min(delta[k], dt)  # by so much the current was lower then
            volt = v[Y.V_NOW + k] + earlier_a * v[Y.V_EFF_OHM + k]
            t[Y.T_A + k] = volt * (1.0 + g[Y.G_GAIN + k]) + g[Y.G_OFFSET + k]
        if bled:
            drop = work[drops + b * _LANES : drops + (b + 1) * _LANES]
            for k in range(_LANES):
                t[Y.T_A + k] -= drop[k] * (1.0 + g[Y.G_GAIN + k])
        if broken:
            joint = groups[joints + b * _LANES : joints + (b + 1) * _LANES]
            for k in range(_LANES):
                then_a = s[Y.S_AMPERE] - rate * min(delta[k], dt)
                t[Y.T_A + k] -= joint[k] * then_a * (1.0 + g[Y.G_GAIN + k])
        if noise > 0.0:
            first = b * _LANES
            for k in range(_LANES):
                t[Y.T_A + k] += noise * gauss(seed, sequence, first + k)
        if lsb > 0.0:
            for k in range(_LANES):
                t[Y.T_A + k] = mathd.nearest(t[Y.T_A + k] / lsb) * lsb
        m = min(n - b * _LANES, _LANES)
        out = values[at_v + b * _LANES : at_v + b * _LANES + m]
        quality = marks[at_quality + b * _LANES : at_quality + b * _LANES + m]
        for k in range(m):
            out[k] = np.float32(min(max(t[Y.T_A + k], bottom), top))
        for k in range(m):
            quality[k] = code if t[Y.T_A + k] > top or t[Y.T_A + k] < bottom else np.uint8(0)


@kernel
def _temperatures(cells, lagged, work, p, sensor_group, c, values, at_degc, seed, sequence, dt):
    """Temperatures of a rack's sensors, each on the mean of the parallel cells of its group."""
    n_series = int(p[Y.P_N_SERIES])
    n_parallel = int(p[Y.P_N_PARALLEL])
    spare = int(p[Y.P_SPARE_AT])
    t = work[spare : spare + Y.T_SIZE]
    follow = 1.0 - mathd.exp(-dt / c[_C_TAU_T]) if c[_C_TAU_T] > 0.0 else 1.0
    noise, lsb = c[_C_NOISE_T], c[_C_LSB_T]
    n_sensors = sensor_group.shape[0]
    for b in range((n_sensors + _LANES - 1) // _LANES):
        first = b * _LANES
        m = min(n_sensors - first, _LANES)
        for k in range(m):
            g = sensor_group[first + k]
            place = g // _LANES * n_parallel * Y.C_BLOCK + Y.C_DEGC + g % _LANES
            degc = 0.0
            for q in range(n_parallel):
                degc += cells[place + q * Y.C_BLOCK]
            t[Y.T_A + k] = degc / n_parallel
        x = lagged[b * _SENSOR_BLOCK : (b + 1) * _SENSOR_BLOCK]
        for k in range(_LANES):
            x[_LAGGED + k] += follow * (t[Y.T_A + k] - x[_LAGGED + k])
            t[Y.T_A + k] = x[_LAGGED + k] + x[_ERROR + k]
        if noise > 0.0:
            for k in range(_LANES):
                t[Y.T_A + k] += noise * gauss(seed, sequence, n_series + first + k)
        if lsb > 0.0:
            for k in range(_LANES):
                t[Y.T_A + k] = mathd.nearest(t[Y.T_A + k] / lsb) * lsb
        out = values[at_degc + first : at_degc + first + m]
        for k in range(m):
            out[k] = np.float32(t[Y.T_A + k])


@kernel
def sample_rack(
    cells, groups, balance, s, logic, work, p, late, lagged, sensor_group, c, places, values, marks, seed, sequence, dt
):
    """Take sample number `sequence` of one rack, `dt` after the one before, into its record.

    `values` f4 and `marks` u1 are the same bytes, `places` says where in them. `late` f8[3 * blocks * LANES]: how long
    before the end of the scan a channel is converted; whether the group below, then the one above, is on the same chip
    (0 or 1). The levels in `work` must be this rack's.
    """
    rate = (s[Y.S_AMPERE] - s[Y.S_PREVIOUS_A]) / dt if dt > 0.0 else 0.0
    at_v, at_quality, at_degc = places[AT_CELL_V], places[AT_CELL_QUALITY], places[AT_SENSOR_DEGC]
    _cell_voltages(groups, balance, s, work, p, late, c, values, marks, at_v, at_quality, seed, sequence, rate, dt)
    _temperatures(cells, lagged, work, p, sensor_group, c, values, at_degc, seed, sequence, dt)
    first = int(p[Y.P_N_SERIES]) + sensor_group.shape[0]
    a = (s[Y.S_AMPERE] - rate * min(c[_C_SKEW_A], dt)) * (1.0 + c[_C_GAIN_A]) + c[_C_OFFSET_A]
    a = _quantise(a + c[_C_NOISE_A] * gauss(seed, sequence, first), c[_C_LSB_A])
    top = c[_C_MAX_A]
    marks[places[AT_AMPERE_QUALITY]] = np.uint8(c[_C_RANGE_CODE]) if abs(a) >= top else np.uint8(0)
    values[places[AT_AMPERE]] = np.float32(min(max(a, -top), top))
    noise = c[_C_NOISE_PACK]
    pack = s[Y.S_PACK_V] * (1.0 + c[_C_GAIN_PACK] + noise * gauss(seed, sequence, first + 1))
    values[places[AT_PACK_V]] = np.float32(_quantise(pack, c[_C_LSB_PACK]))
    bus = s[Y.S_BUS_V] * (1.0 + c[_C_GAIN_BUS] + noise * gauss(seed, sequence, first + 2))
    values[places[AT_BUS_V]] = np.float32(_quantise(bus, c[_C_LSB_PACK]))
    insulation = s[Y.S_INSULATION_OHM] * max(1.0 + c[_C_NOISE_ISO] * gauss(seed, sequence, first + 3), 0.0)
    values[places[AT_INSULATION]] = np.float32(insulation)
    noise, lsb = c[_C_NOISE_T], c[_C_LSB_T]
    inlet = s[Y.S_COOLANT_IN] + noise * gauss(seed, sequence, first + 4)
    values[places[AT_COOLANT_IN]] = np.float32(_quantise(inlet, lsb))
    outlet = s[Y.S_COOLANT_OUT] + noise * gauss(seed, sequence, first + 5)
    values[places[AT_COOLANT_OUT]] = np.float32(_quantise(outlet, lsb))
    flow = s[Y.S_FLOW_W_PER_K] * c[_C_LPM] * max(1.0 + c[_C_NOISE_FLOW] * gauss(seed, sequence, first + 6), 0.0)
    values[places[AT_FLOW]] = np.float32(flow)
    marks[places[AT_CONTACTORS]] = np.uint8(logic[Y.L_REQUESTED] & ~logic[Y.L_STUCK] | logic[Y.L_WELDED])
    marks[places[AT_GAS]] = np.uint8(1) if s[Y.S_DETECTOR_PPM] >= c[_C_GAS_PPM] else np.uint8(0)
    n, bleeding = int(p[Y.P_N_SERIES]), places[AT_BLEEDING]
    for k in range(n):
        marks[bleeding + k] = balance[k]


class SensorBank:
    """The sensors of a bank of racks; a sample is a pure function of the truth, the rack's seed and its number.

    `record` is the structured array (n_racks,) that samples are written to. It is made by the caller with these
    fields, float32 or bytes, aligned: current_a, current_a_quality, pack_v, bus_v, insulation_ohm, coolant_in_degc,
    coolant_out_degc, coolant_flow_lpm, contactors and gas_alarm in a nested struct `head`; cell_v, cell_v_quality and
    bleeding
    (n_series,); sensor_degc.
    """

    def __init__(self, bank: RackBank, config: SensorConfig, range_code: int) -> None:
        """`range_code` is the quality of a value beyond the range of its sensor."""
        e = config.effective()
        self.config = config
        rack = bank.config
        one_c = bank.cell.head.capacity_ah * bank.n_parallel
        n = bank.n_series
        self.n_sensors = -(-n // rack.cells_per_sensor)
        self.sensor_of_cell = (np.arange(n) // rack.cells_per_sensor).astype(np.uint16)
        # the sensor sits in the middle of its cells
        first = np.arange(self.n_sensors) * rack.cells_per_sensor
        last = np.minimum(first + rack.cells_per_sensor, n) - 1
        self.sensor_group: I8 = ((first + last) // 2).astype(np.int64)
        place = np.arange(Y.blocks(n) * Y.LANES) % e.cells_per_chip
        late = e.scan_s * (1 - (place + 1) / e.cells_per_chip)
        self.late: F8 = np.concatenate([late, place > 0, place < e.cells_per_chip - 1])
        self.cell_age_s: F4 = self.late[:n].astype(np.float32)
        self.current_age_s = e.current_skew_s
        self.current_max_a = e.current_max_c * one_c
        sensor_blocks = -(-self.n_sensors // Y.LANES)
        self.lagged: F8 = Y.aligned((bank.n_racks, sensor_blocks * _SENSOR_BLOCK))
        for r in range(bank.n_racks):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((rack.seed + r, 0x5E45))))
            groups = Y.Rows(bank.groups[r], n, 1, Y.G_BLOCK)
            groups[Y.G_GAIN] = e.cell_v_gain_spread * rng.standard_normal(n)
            groups[Y.G_OFFSET] = e.cell_v_offset_spread_v * rng.standard_normal(n)
            sensors = Y.Rows(self.lagged[r], self.n_sensors, 1, _SENSOR_BLOCK)
            cells = Y.Rows(bank.cells[r], n, bank.n_parallel, Y.C_BLOCK)
            sensors[_LAGGED] = cells[Y.C_DEGC].reshape(n, -1).mean(axis=1)[self.sensor_group]
            sensors[_ERROR] = e.degc_offset_spread * rng.standard_normal(self.n_sensors)
        c = self.constants = np.zeros(_C_SIZE)
        c[_C_NOISE_V], c[_C_LSB_V] = e.cell_v_noise_v, e.cell_v_lsb_v
        c[_C_MIN_V], c[_C_MAX_V] = e.cell_v_min_v, e.cell_v_max_v
        c[_C_NOISE_A], c[_C_OFFSET_A] = e.current_noise_c * one_c, e.current_offset_c * one_c
        c[_C_GAIN_A], c[_C_LSB_A], c[_C_MAX_A] = e.current_gain_error, e.current_lsb_c * one_c, e.current_max_c * one_c
        c[_C_SKEW_A] = e.current_skew_s
        c[_C_NOISE_PACK], c[_C_GAIN_PACK], c[_C_GAIN_BUS] = e.pack_v_noise, e.pack_v_gain_error, e.bus_v_gain_error
        c[_C_LSB_PACK] = e.pack_v_lsb_v
        c[_C_NOISE_T], c[_C_LSB_T], c[_C_TAU_T] = e.degc_noise, e.degc_lsb, e.degc_tau_s
        c[_C_NOISE_ISO], c[_C_NOISE_FLOW] = e.insulation_noise, e.flow_noise
        c[_C_LPM] = rack.coolant_flow_lpm / rack.coolant_w_per_k_flow
        c[_C_RANGE_CODE] = range_code
        c[_C_GAS_PPM] = e.gas_alarm_ppm

    @staticmethod
    def record(record: npt.NDArray[np.void]) -> tuple[F4, U1, I8]:
        """Views of `record` as float32 and as bytes, a row for each rack, and the places of the fields in a row."""
        fields = record.dtype.fields
        assert fields is not None
        assert fields["head"][0].fields is not None
        start = int(fields["head"][1])
        head = {name: start + int(entry[1]) for name, entry in fields["head"][0].fields.items()}
        places: I8 = np.zeros(AT_SIZE, np.int64)
        places[AT_CELL_V], places[AT_SENSOR_DEGC] = fields["cell_v"][1] // 4, fields["sensor_degc"][1] // 4
        names = (
            "current_a", "pack_v", "bus_v", "insulation_ohm", "coolant_in_degc", "coolant_out_degc", "coolant_flow_lpm",
        )  # fmt: skip
        places[AT_AMPERE : AT_FLOW + 1] = [head[name] // 4 for name in names]
        places[AT_CELL_QUALITY], places[AT_BLEEDING] = fields["cell_v_quality"][1], fields["bleeding"][1]
        places[AT_AMPERE_QUALITY], places[AT_CONTACTORS] = head["current_a_quality"], head["contactors"]
        places[AT_GAS] = head["gas_alarm"]
        rows = record.view(np.uint8).reshape(len(record), -1)
        return rows.view(np.float32), rows, places
