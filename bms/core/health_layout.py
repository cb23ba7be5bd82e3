"""What the state of health keeps: settings, sums and moments of each cell, and where they lie in flat arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hal.contract import F4, U4, Field

# HealthConfig.number
PERIOD_S, MEMORY_H, R_MEMORY_H, MIN_SWING, MAX_STD, PRIOR_STD = 0, 1, 2, 3, 4, 5
DROP_SHARE, OFFSET_V, WHITE_V, GAIN_STD, EFFICIENCY_STD, LEAK_PER_H = 6, 7, 8, 9, 10, 11
LEAVE, LEAVE_H, Q_MIN, Q_MAX, KNOWN_STD, R_MIN_A, R_STD, PER_CELL = 12, 13, 14, 15, 16, 17, 18, 19
MODEL_ERROR_V, CHANGE_A = 20, 21
N_NUMBERS = 22

# HealthConfig.word
FEED = 0  # 1 = hand capacities to the filter
N_WORDS = 1

# HealthState.number, of the string
COUNT, COUNT_LOW, CHARGED, HOURS, HOURS_LOW, GAP, LAST_A, CREDIT = 0, 1, 2, 3, 4, 5, 6, 7
SWEEP_H, FADE, R_FADE, LOWEST, HIGHEST = 8, 9, 10, 11, 12
CAPACITY_LOW, RESISTANCE_HIGH, BEFORE_S, BEFORE_A = 13, 14, 15, 16
N_STATE_NUMBERS = 17

# HealthState.word
NEXT, STARTED, LOWEST_AT, HIGHEST_AT, CAPACITY_AT, RESISTANCE_AT, BEFORE_AT, WATCHING, SWEPT = range(9)
N_STATE_WORDS = 9

# HealthState.cell: numbers of one cell side by side. The sums of AWTLS, and of its deviation,
C1, C2, C3, C_PASSING, C_LASTING, PAIRS = 0, 1, 2, 3, 4, 5
# of the resistance, what was bled, and two moments of known SoC: the older one, and the best of this visit
R_WEIGHT, R_MEAN, R_VAR, STEP_DD, STEP_DV, BLED = 6, 7, 8, 9, 10, 11
MOMENT = 8
OLDER, NEWER = 12, 12 + MOMENT
ROWS = 12 + 2 * MOMENT
# of a moment; `M_PASSING` 0 = there is none
M_SOC, M_PASSING, M_LASTING, M_COUNT, M_CHARGED, M_HOURS, M_GAP, M_BLED = range(MOMENT)

# HealthState.before: a few cells before a change of the current
WATCHED = 4
B_VOLT, B_DROP, B_SOC = 0, WATCHED, 2 * WATCHED

CONFIG_FIELDS = (
    Field("health_number", "f4", "settings of the state of health", f"{N_NUMBERS}"),
    Field("health_word", "u4", "1 = capacities are handed to the filter", f"{N_WORDS}"),
)

STATE_FIELDS = (
    Field("health_capacity", "f4", "capacity relative to the type's", "cells"),
    Field("health_capacity_std", "f4", "its standard deviation", "cells"),
    Field("health_resistance", "f4", "resistance relative to the type's", "cells"),
    Field("health_resistance_std", "f4", "its standard deviation", "cells"),
    Field("health_bled_ah", "f4", "charge that had been taken from it when it was last looked at", "cells"),
    Field("health_cell", "f4", "sums and moments of each cell", f"cells*{ROWS}"),
    Field("health_count", "f4", "charge and time of the string, the sweep", f"{N_STATE_NUMBERS}"),
    Field("health_before", "f4", "a few cells before a change of the current", f"{3 * WATCHED}"),
    Field("health_place", "u4", "places of the sweep", f"{N_STATE_WORDS}"),
)


class HealthConfig(NamedTuple):
    """Constants: `number` f4[22] and `word` u4[1], by the index constants of this module."""

    number: F4
    word: U4


class HealthState(NamedTuple):
    """What is published: `capacity`, `capacity_std`, `resistance`, `resistance_std` f4[n_cells], all relative.

    And the memory: `bled_ah` f4[n_cells], `cell` f4[n_cells * ROWS], `number` f4[17], `before` f4[12], `word` u4[8].
    """

    capacity: F4
    capacity_std: F4
    resistance: F4
    resistance_std: F4
    bled_ah: F4
    cell: F4
    number: F4
    before: F4
    word: U4


def health_state(n_cells: int) -> HealthState:
    """Memory of zeros: `health_init` makes it a start."""
    capacity, capacity_std, resistance, resistance_std, bled_ah = np.zeros((5, n_cells), np.float32)
    return HealthState(
        capacity,
        capacity_std,
        resistance,
        resistance_std,
        bled_ah,
        np.zeros(n_cells * ROWS, np.float32),
        np.zeros(N_STATE_NUMBERS, np.float32),
        np.zeros(3 * WATCHED, np.float32),
        np.zeros(N_STATE_WORDS, np.uint32),
    )
