"""Thermal runaway: two rules that say that it is there, and the heat of each sensor's cells that says it may come.

Rates of temperature are those between looks that are at least `LOOK_S` apart. The rules:

- GB 38031-2025: a cell's voltage has dropped by a quarter, or its temperature is above the largest allowed, and it
  rises by 1 K/s or more, for more than 3 s. The voltage is compared with the mean cell's: cells in series have no
  other reason to part so far.
- GB/T 36276-2023: three rates of 3 K/s or more in a row.

A jump of a sensor is one rate, and no sensor that jumps meets either of them.

The heat that a sensor's cells give off beyond what current and resistance explain is estimated from its temperature:

    C T' = I^2 r + q + G (T_coolant - T),    q' = 0

by an observer whose two poles lie at 1 / `OBSERVER_S` (alpha-beta filter, critically damped). What surroundings, flow
and entropy do to all sensors alike is taken off with the mean, what a place in the rack does to its sensor with its own
average over hours. Both follow slowly what stays: a leak that grows in days is for `bms.core.leak`.

Entropy does not heat all cells alike where their SoC differ. The reversible heat is - I T dU/dT (Bernardi, Pawlikowski
and Newman, J. Electrochem. Soc. 132 (1985) 5), and near the ends of the curve dU/dT changes much over a few per cent of
SoC: a cell that is emptier than the others gives off 20 W more at 1C. Of the cells of a sensor the one whose SoC is
furthest from the mean is taken. What it gives off more than the mean cell is explained, once it has passed two lags of
`OBSERVER_S`, as all heat has that the observer sees.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bms.core.faults import Fault
from bms.core.jit import f4, kernel
from bms.core.plausibility import elapsed, put, warmth
from bms.core.seen import Seen
from bms.core.signals_layout import (
    CELL_OHM,
    COOLANT_W_PER_K,
    HEAT_CAPACITY_J_PER_K,
    HELD_A,
    PER_CELL,
    USABLE,
    SignalConfig,
    SignalState,
)
from hal.contract import F4, NO_INDEX, U2, U4, Field

# runaway_setting
LOOK_S, RATE, FAST_RATE, HOT_DEGC, DROP, OBSERVER_S, PLACE_S = range(7)
N_SETTINGS = 7

# runaway_number
SINCE_S, MEAN_W, DUE, SUM_SOC, KNOWN, MEAN_SOC, MEAN_V_PER_K = range(7)
N_STATE_NUMBERS = 7

N_ENTROPY = 21  # nodes of dU/dT over SoC, 0..1

CONFIG_FIELDS = (
    Field("runaway_setting", "f4", "settings of the runaway detection", f"{N_SETTINGS}"),
    Field("runaway_entropy", "f4", "dU/dT over SoC, V/K", f"{N_ENTROPY}"),
)

STATE_FIELDS = (
    Field(
        "runaway_number",
        "f4",
        "time since the last look, mean unexplained heat; of the sweep over the cells: cells that are due, sum of SoC "
        "and how many so far, then mean SoC and dU/dT there of the last one",
        f"{N_STATE_NUMBERS}",
    ),
    Field("runaway_next", "u4", "cell that the sweep comes to next", "1"),
    Field("runaway_then", "f4", "temperature of each sensor at the last look", "sensors"),
    Field("runaway_rising_s", "f4", "for how long each has risen at the rate of a runaway", "sensors"),
    Field("runaway_rates", "f4", "how many fast rates each has shown in a row", "sensors"),
    Field("runaway_degc", "f4", "temperature of each that the observer expects", "sensors"),
    Field("runaway_heat_w", "f4", "heat that it does not explain", "sensors"),
    Field("runaway_place_w", "f4", "what of it is the sensor's place in the rack", "sensors"),
    Field("runaway_far", "u2", "cell of each sensor whose SoC is furthest from the mean; 65535 = none yet", "sensors"),
    Field("runaway_v_per_k", "f4", "its dU/dT", "sensors"),
    Field("runaway_passing_w", "f4", "reversible heat of it beyond the mean cell's, after one lag", "sensors"),
    Field("runaway_reversible_w", "f4", "and after two", "sensors"),
)


class RunawayConfig(NamedTuple):
    """Constants of the detection."""

    setting: F4
    entropy: F4


class RunawayState(NamedTuple):
    """Memory of the detection, owned by the caller."""

    number: F4
    next: U4
    then: F4
    rising_s: F4
    rates: F4
    degc: F4
    heat_w: F4
    place_w: F4
    far: U2
    v_per_k: F4
    passing_w: F4
    reversible_w: F4


_ZERO, _ONE = f4(0), f4(1)
_NAN = f4(np.nan)
# a sensor that is further off what is expected has jumped: no heat makes a cell do that
_JUMP_K, _JUMP_K_PER_S = f4(5), f4(1)
_SWEEP_S = f4(10)  # all cells are asked for their SoC once in this time: 0.3 % at 1C
_KELVIN = f4(273.15)
_ABSURD_SOC = f4(10)
_MOST_W = f4(50)  # a sensor counts for the mean with no more beyond it: it must not make others look cold, or hot
_RUNAWAY, _RATES, _HEAT = int(Fault.RUNAWAY), int(Fault.RUNAWAY_RATES), int(Fault.HEAT_RESIDUAL)


@kernel
def runaway_init(state: RunawayState) -> None:
    """Fresh memory: no sensor has been seen; all of `state` is written."""
    state.number[:] = _ZERO
    state.then[:] = _NAN
    state.rising_s[:] = _ZERO
    state.rates[:] = _ZERO
    state.degc[:] = _NAN
    state.heat_w[:] = _ZERO
    state.place_w[:] = _ZERO
    state.number[MEAN_SOC] = _NAN
    state.number[MEAN_V_PER_K] = _NAN
    state.next[:] = np.uint32(0)
    state.far[:] = np.uint16(NO_INDEX)
    state.v_per_k[:] = _ZERO
    state.passing_w[:] = _ZERO
    state.reversible_w[:] = _ZERO


@kernel
def _lowest(signal_config: SignalConfig, signal: SignalState, sensor: int) -> tuple[f4, int]:
    """(voltage, number) of the lowest of the cells that `sensor` stands for; NaN and -1 if none has been read."""
    lowest, at = _NAN, -1
    for k in range(signal.cell_v.shape[0]):
        if int(signal_config.sensor_of_cell[k]) == sensor and (at < 0 or signal.cell_v[k] < lowest):
            lowest = signal.cell_v[k]
            at = k
    return lowest, at


@kernel
def _look(config: RunawayConfig, state: RunawayState, signal: SignalState, since_s: f4) -> None:
    """Take the rates of all sensors over `since_s`; one that is not usable begins anew."""
    c = config.setting
    for k in range(state.then.shape[0]):
        degc = signal.degc[k] if signal.sensor_use[k] & USABLE != 0 else _NAN
        rate = (degc - state.then[k]) / since_s
        state.then[k] = degc
        # of a long step the first rate may be a jump of the sensor
        more_s = since_s if state.rising_s[k] > _ZERO else min(since_s, c[LOOK_S])
        state.rising_s[k] = state.rising_s[k] + more_s if rate >= c[RATE] else _ZERO
        state.rates[k] = state.rates[k] + _ONE if rate >= c[FAST_RATE] else _ZERO


@kernel
def _rules(
    config: RunawayConfig,
    state: RunawayState,
    signal_config: SignalConfig,
    signal: SignalState,
    seen: Seen,
    value: F4,
    where: U2,
) -> None:
    """Hold what was looked at against both rules; of the cells of a sensor the lowest is named."""
    c = config.setting
    longest_s, cell, most, at = _ZERO, -1, _ZERO, -1
    for k in range(state.then.shape[0]):
        if state.rising_s[k] > longest_s or state.rates[k] > most:
            lowest_v, lowest = _lowest(signal_config, signal, k)
            dropped = lowest_v < (_ONE - c[DROP]) * seen.cell_v_mean
            if state.rising_s[k] > longest_s and (dropped or signal.degc[k] >= c[HOT_DEGC]):
                longest_s = state.rising_s[k]
                cell = lowest
            if state.rates[k] > most:
                most = state.rates[k]
                at = lowest
    put(value, where, _RUNAWAY, longest_s, cell)
    put(value, where, _RATES, most, at)


@kernel
def _v_per_k(config: RunawayConfig, soc: f4) -> f4:
    """dU/dT at `soc`, V/K, linear between nodes; NaN where the SoC is none."""
    if not abs(soc) < _ABSURD_SOC:
        return _NAN
    x = min(max(soc, _ZERO), _ONE) * f4(N_ENTROPY - 1)
    k = min(int(x), N_ENTROPY - 2)
    below, above = config.entropy[k], config.entropy[k + 1]
    slope: f4 = below + (x - f4(k)) * (above - below)
    return slope


@kernel
def _sweep(config: RunawayConfig, state: RunawayState, sensor_of_cell: U2, soc: F4, dt_s: f4) -> None:
    """Ask the next few cells for their SoC: which of a sensor's is furthest from the mean, and its dU/dT.

    Where the sensor sits among its cells is not known. The one that was furthest so far stays until another is further.
    """
    number, n = state.number, sensor_of_cell.shape[0]
    number[DUE] = min(number[DUE] + f4(n) * dt_s / _SWEEP_S, f4(n))
    due = int(number[DUE])
    number[DUE] -= f4(due)
    k = int(state.next[0])
    mean = number[MEAN_SOC]
    for _ in range(due):
        sensor, z = int(sensor_of_cell[k]), soc[k]
        far = int(state.far[sensor])
        if abs(z) < _ABSURD_SOC:
            number[SUM_SOC] += z
            number[KNOWN] += _ONE
            if far != k and (far >= n or not abs(soc[far] - mean) >= abs(z - mean)):
                far = k
                state.far[sensor] = np.uint16(k)
        if far == k:
            state.v_per_k[sensor] = _v_per_k(config, z)
        k += 1
        if k >= n:
            k = 0
            mean = number[SUM_SOC] / number[KNOWN]
            number[MEAN_SOC] = mean
            number[MEAN_V_PER_K] = _v_per_k(config, mean)
            number[SUM_SOC], number[KNOWN] = _ZERO, _ZERO
    state.next[0] = np.uint32(k)


@kernel
def _observe(
    config: RunawayConfig, state: RunawayState, signal_config: SignalConfig, signal: SignalState, seen: Seen,
    factor: f4, dt_s: f4,
) -> tuple[f4, int]:  # fmt: skip
    """The largest unexplained heat of a sensor beyond the mean and its place's, W, and which; NaN if there is none."""
    c, number = config.setting, signal_config.number
    current_a = signal.number[HELD_A] * number[PER_CELL]
    joule_w = current_a * current_a * number[CELL_OHM] * factor
    capacity, coupling = number[HEAT_CAPACITY_J_PER_K], number[COOLANT_W_PER_K]
    coolant_degc = seen.coolant_in_degc
    if np.isnan(coolant_degc):
        coolant_degc = _ZERO
        coupling = _ZERO
    keep = c[OBSERVER_S] / (c[OBSERVER_S] + dt_s)
    alpha, beta = _ONE - keep * keep, (_ONE - keep) * (_ONE - keep)
    last_w, mean_v_per_k = state.number[MEAN_W], state.number[MEAN_V_PER_K]
    total, count = _ZERO, 0
    for k in range(state.degc.shape[0]):
        usable = signal.sensor_use[k] & USABLE != 0
        degc = state.degc[k]
        if np.isnan(degc):
            if usable:
                state.degc[k] = signal.degc[k]
            continue
        more_w = current_a * (degc + _KELVIN) * (mean_v_per_k - state.v_per_k[k])
        more_w = more_w if more_w > _ZERO else _ZERO
        state.passing_w[k] += (_ONE - keep) * (more_w - state.passing_w[k])
        state.reversible_w[k] += (_ONE - keep) * (state.passing_w[k] - state.reversible_w[k])
        gained = dt_s * (joule_w * warmth(signal_config, degc) + state.heat_w[k] + coupling * coolant_degc)
        degc = (capacity * degc + gained) / (capacity + dt_s * coupling)
        if usable and dt_s > _ZERO:
            error = signal.degc[k] - degc
            if abs(error) > _JUMP_K + _JUMP_K_PER_S * dt_s:
                degc = signal.degc[k]
            else:
                degc += alpha * error
                state.heat_w[k] += beta * capacity / dt_s * error
            total += min(max(state.heat_w[k], last_w - _MOST_W), last_w + _MOST_W)
            count += 1
        state.degc[k] = degc
    if count == 0:
        return _NAN, -1
    mean_w = total / f4(count)
    state.number[MEAN_W] = mean_w
    gain = dt_s / (c[PLACE_S] + dt_s)
    most_w, at = _ZERO, -1
    for k in range(state.degc.shape[0]):
        if signal.sensor_use[k] & USABLE != 0:
            own_w = state.heat_w[k] - mean_w
            state.place_w[k] += gain * (own_w - state.place_w[k])
            rest_w = own_w - state.place_w[k] - state.reversible_w[k]
            if rest_w > most_w:
                most_w = rest_w
                at = k
    return most_w, at


@kernel
def runaway_step(
    config: RunawayConfig,
    state: RunawayState,
    signal_config: SignalConfig,
    signal: SignalState,
    seen: Seen,
    factor: f4,
    soc: F4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> None:
    """One step, after the estimator's; writes RUNAWAY, RUNAWAY_RATES and HEAT_RESIDUAL.

    `factor`: resistance of the cells relative to their type's. `soc`: f4, a place for each cell at least. `dt_s` since
    the last step.
    """
    dt_s = elapsed(dt_s)
    _sweep(config, state, signal_config.sensor_of_cell, soc, dt_s)
    number = state.number
    number[SINCE_S] += dt_s
    if number[SINCE_S] >= config.setting[LOOK_S]:
        _look(config, state, signal, number[SINCE_S])
        number[SINCE_S] = _ZERO
        _rules(config, state, signal_config, signal, seen, value, where)
    heat_w, at = _observe(config, state, signal_config, signal, seen, factor, dt_s)
    put(value, where, _HEAT, heat_w, at)
