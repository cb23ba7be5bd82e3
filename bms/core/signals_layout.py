"""Layout of the signals: settings, memory, and the places in their flat arrays. See `bms.core.signals`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hal.contract import F4, U1, U2, U4, Field

# SignalConfig.number
(
    PERIOD_S,
    MAX_AGE_S,
    INSULATION_MAX_AGE_S,
    START_DEGC,
    CELL_V_LOW,
    CELL_V_HIGH,
    DEGC_LOW,
    DEGC_HIGH,
    CURRENT_RANGE_A,
    PACK_V_LOW,
    PACK_V_HIGH,
    BUS_V_LOW,
    BUS_V_HIGH,
    INSULATION_RANGE_OHM,
    COOLANT_LOW_DEGC,
    COOLANT_HIGH_DEGC,
    FLOW_RANGE_LPM,
    REST_A,
    SPREAD_A,
    SPREAD_V_LOW,
    SPREAD_V_HIGH,
    DISCHARGE_RATED_A,
    CHARGE_RATED_A,
    DISCHARGE_BUDGET_A2S,
    CHARGE_BUDGET_A2S,
    I2T_TAU_S,
    LIMIT_BAND_A,
    LIMIT_TAU_S,
    SUM_FLOOR_V,
    RISE_TAU_S,
    MODEL_TAU_S,
    MODEL_ERROR_TAU_S,
    HEAT_CAPACITY_J_PER_K,
    COOLANT_W_PER_K,
    PER_CELL,
    CELL_OHM,
    FAST_OHM,
    OHM_PER_KELVIN,
    CURRENT_TAU_S,
    CURRENT_SLOW_TAU_S,
    RESIDUAL_TAU_S,
    INSULATION_CLOSE_OHM,
    HOLD_S,
    SENSE_SHARE,
    CELLS_PER_CHIP,
    CURRENT_STILL_AFTER_S,
    SENSORS_STILL_K,
    GAIN_TAU_S,
    SAG_TAU_S,
    PACK_V_LSB_V,
    STRING_TAU_S,
    STRING_SLOW_TAU_S,
    CELL_FADE_S,
    DEGC_FADE_S,
    FADE_S,
) = range(55)
N_FADES = 9  # from FADE_S on: one for each source of one value, in the order of `SignalState.number`
N_NUMBERS = FADE_S + N_FADES

# SignalConfig.has
(
    HAS_CONTACTORS,
    HAS_PRECHARGE,
    HAS_INSULATION,
    HAS_COOLING,
    HAS_COOLANT_FLOW,
    HAS_GAS,
    HAS_BLEED_FEEDBACK,
    N_HAS,
) = range(8)

# SignalState.number
(
    SAMPLE_AGE_S,
    CURRENT_LOST_S,
    PACK_LOST_S,
    BUS_LOST_S,
    FEEDBACK_LOST_S,
    INSULATION_LOST_S,
    COOLANT_LOST_S,
    FLOW_LOST_S,
    GAS_LOST_S,
    BLEED_LOST_S,
    HELD_A,
    DISCHARGE_A2S,
    CHARGE_A2S,
    DISCHARGE_BEYOND_AS,
    CHARGE_BEYOND_AS,
    COMMON_V,
    COMMON_SLOW_V,
    BAND_A,
    BAND_SLOW_A,
    READ_A,
    CURRENT_STILL_S,
    MOST_MISSING_A,
    RESPONSE_SEEN,
    START_RESPONSE_V,
    STILL_RISE_K,
    DOUBT_V,
    COMPARE_S,
    WENT_SOC,
    MOVED_SOC,
    START_S,
    STRING_SINCE_S,
    STRING_SEEN_S,
    STRING_SAG_V,
    LAST_OFF_V,
    BEFORE_OFF_V,
    OFF_V,
    OFF_SLOW_V,
    LAST_SUM_V,
    STRING_SUM_V,
    STRING_SUM_SLOW_V,
    LAST_A,
    STRING_A,
    STRING_SLOW_A,
    READ_PACK_V,
    READ_SUM_V,
    PATH_OHM,
    PATH_VAR,
    STRING_VAR,
    COMPARED_V,
    WAY_V,
    BLED_WAY,
    GAIN_V,
    GAIN_A,
    GAIN_WENT_SOC,
    RC1_A,
    RC2_A,
    SEEN_FAST_V,
    SEEN_V,
    EXPECTED_FAST_V,
    EXPECTED_V,
    CURVE_FAST_V,
    CURVE_V,
    EXPECTED_V2,
    EXPECTED_V4,
    BOTH_V2,
    SEEN_V2,
    GAIN_TOLD_S,
    GAIN_RISING,
    GAIN_WRONG,
    USUAL_SHARE,
    USUAL_S,
    MEAN_SLOW_V,
    LOOKED_A,
    BIAS_DOUBT_A,
    N_STATE_NUMBERS,
) = range(75)

# SignalState.cell_looks, degc_looks: of samples with a steady load, of others, then the time since the last one, and
# the smallest change of a reading, from the first on and as it is known after some; 0: none was seen
LOOKS, LOOK_S, SAME_SHARE, BACK_SHARE, N_LOOK_NUMBERS = 0, 1, 2, 3, 4
LOOKED_S, LEAST_SEEN, LEAST_CHANGE, N_LOOKS = range(2 * N_LOOK_NUMBERS, 2 * N_LOOK_NUMBERS + 4)

# SignalState.word
SEEN, SEQUENCE, MOVED, N_WORDS = 0, 1, 2, 3

# bits of SignalState.cell_use and, but for CALM, sensor_use
USABLE = 1  # may be used
CALM = 2  # and neither this cell nor a neighbour was being bled when it was measured
HELD = 4  # may be used, or could be a moment ago

CONFIG_FIELDS = (
    Field("signal_number", "f4", "ranges, times and ratings of the signals", f"{N_NUMBERS}"),
    Field("sensor_of_cell", "u2", "temperature sensor that stands for each cell", "cells"),
    Field("signal_has", "u1", "1 = the rack has this source", f"{N_HAS}"),
)

STATE_FIELDS = (
    Field(
        "signal_number",
        "f4",
        "times without sources, held values, heat, charge beyond limits, filters",
        f"{N_STATE_NUMBERS}",
    ),
    Field("signal_cell_v", "f4", "last usable voltage of each cell, less what bleeding does to it", "cells"),
    Field("signal_cell_read_v", "f4", "the same as it was read", "cells"),
    Field("signal_cell_lost_s", "f4", "time since it was usable", "cells"),
    Field("signal_cell_still_s", "f4", "time since its reading last changed", "cells"),
    Field("signal_cell_doubt", "f4", "-ln of the chance that it is alive; beyond 35, s", "cells"),
    Field("signal_cell_looks", "f4", "how often readings stand still, and since when; their step", f"{N_LOOKS}"),
    Field("signal_cell_last_v", "f4", "its reading since it last changed; NaN: none yet", "cells"),
    Field("signal_cell_change_v", "f4", "its last change", "cells"),
    Field("signal_cell_missed_s", "f4", "time without it, which fades while it is there", "cells"),
    Field("signal_cell_mean_v", "f4", "mean cell voltage when this one's value last changed", "cells"),
    Field("signal_residual_v", "f4", "filtered innovation of each cell less the mean cell's", "cells"),
    Field("signal_usual_v", "f4", "average of that over minutes", "cells"),
    Field("signal_own_v", "f4", "average over minutes of its innovation itself", "cells"),
    Field("signal_apart_v", "f4", "average over minutes of its voltage less the mean cell's", "cells"),
    Field(
        "signal_sunk_soc",
        "f4",
        "SoC less the mean cell's when it was first seen to sink; NaN: it does not; infinite: not seen yet",
        "cells",
    ),
    Field("signal_cell_degc", "f4", "temperature that each cell is taken to have", "cells"),
    Field("signal_degc", "f4", "last usable value of each sensor", "sensors"),
    Field("signal_degc_lost_s", "f4", "time since it was usable", "sensors"),
    Field("signal_degc_still_s", "f4", "time since its reading last changed", "sensors"),
    Field("signal_degc_doubt", "f4", "-ln of the chance that it is alive; beyond 35, s", "sensors"),
    Field("signal_degc_looks", "f4", "how often readings stand still, and since when; their step", f"{N_LOOKS}"),
    Field("signal_degc_last", "f4", "its reading since it last changed; NaN: none yet", "sensors"),
    Field("signal_degc_change", "f4", "its last change", "sensors"),
    Field("signal_degc_missed_s", "f4", "time without it, which fades while it is there", "sensors"),
    Field("signal_degc_mean", "f4", "mean sensor when this one's value last changed", "sensors"),
    Field("signal_degc_fast", "f4", "filtered once, for the rise", "sensors"),
    Field("signal_degc_slow", "f4", "filtered twice", "sensors"),
    Field("signal_degc_model", "f4", "what the thermal model expects of each sensor", "sensors"),
    Field("signal_degc_error", "f4", "filtered difference between the two", "sensors"),
    Field("signal_word", "u4", "a sample was seen, its sequence number, sensors that moved in it", f"{N_WORDS}"),
    Field("signal_cell_use", "u1", "1 = usable, 2 = and not disturbed by bleeding, 4 = held", "cells"),
    Field("signal_cell_quality", "u1", "quality of each voltage as the estimator is told", "cells"),
    Field("signal_sensor_use", "u1", "1 = usable, 4 = held", "sensors"),
)


class SignalConfig(NamedTuple):
    """Constants of the signals: see `CONFIG_FIELDS`."""

    number: F4
    sensor_of_cell: U2
    has: U1


class SignalState(NamedTuple):
    """Memory of the signals, owned by the caller: see `STATE_FIELDS`."""

    number: F4
    cell_v: F4
    cell_read_v: F4
    cell_lost_s: F4
    cell_still_s: F4
    cell_doubt: F4
    cell_looks: F4
    cell_last_v: F4
    cell_change_v: F4
    cell_missed_s: F4
    cell_mean_v: F4
    residual_v: F4
    usual_v: F4
    own_v: F4
    apart_v: F4
    sunk_soc: F4
    cell_degc: F4
    degc: F4
    degc_lost_s: F4
    degc_still_s: F4
    degc_doubt: F4
    degc_looks: F4
    degc_last: F4
    degc_change: F4
    degc_missed_s: F4
    degc_mean: F4
    degc_fast: F4
    degc_slow: F4
    degc_model: F4
    degc_error: F4
    word: U4
    cell_use: U1
    cell_quality: U1
    sensor_use: U1


def signals_state(n_cells: int, n_sensors: int) -> SignalState:
    """Room for the memory of a rack; `signals.signals_init` fills it."""
    size = {"cells": n_cells, "sensors": n_sensors}
    return SignalState(
        *(np.zeros(size[f.dims] if f.dims in size else int(f.dims), np.dtype(f.kind)) for f in STATE_FIELDS)
    )
