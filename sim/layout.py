"""How the twin's numbers lie in memory: arrays of float64 over racks, so that loops over cells become SIMD.

The series groups of a rack stand in blocks of `LANES`, each row of a block contiguous: a row of one block is a few
vectors, at a distance from the other rows that the compiler knows, and a whole block lies in the first-level cache.
The parallel cells of the groups of a block follow each other: cell q of group g is lane g % LANES of the block
(g // LANES) * n_parallel + q. The lanes after the last group of a rack are copies of it that nobody counts.

- `cells` f8[n_racks, blocks * n_parallel * C_BLOCK]: state and data of each cell;
- `groups` f8[n_racks, blocks * G_BLOCK]: series groups; then, where P_BROKEN says so, rows X_... over all of them;
- `balance` u1[n_racks, blocks * LANES]: switch to bleed a group; then, where P_SHUTTLE_A is not 0, what the active
  balancer does with each (`sim.shuttle`);
- `string` f8[n_racks, S_SIZE], `logic` i8[n_racks, L_SIZE]: string, DC link, accounts, contactors, watchdog;
- `burn` f8[n_racks, blocks * n_parallel * B_BLOCK]: how far each cell has burnt (`sim.runaway`), 0 on a healthy rack,
  which never touches it;
- `chemistry` f8[Q_SIZE + 2 * points]: constants of the side reactions;
- `work` f8[n_slots, ...]: what follows from the state. A slot serves one rack at a time: `derived` (blocks *
  n_parallel * D_BLOCK), `levels` (blocks * V_BLOCK), `spare` (T_SIZE), then flat rows over the cells for the heat;
- `p` f8[P_SIZE]: constants that all racks of a bank share.

Names of rows are offsets inside a block: row C_DEGC of block j is `cells[r, j * C_BLOCK + C_DEGC :][:LANES]`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F8 = npt.NDArray[np.float64]

LANES = 32
ADD_LANES = 8  # sums over cells run in so many partial sums, whatever the width of the processor's vectors


def _rows(count: int) -> range:
    """Offsets of `count` rows of a block, and its size."""
    return range(0, (count + 1) * LANES, LANES)


# state, then data of each cell
(
    C_SOC,
    C_HYST,
    C_X1,
    C_X2,
    C_X3,
    C_X4,
    C_DEGC,
    C_CAPACITY_AS,
    C_SCALE,  # resistance relative to the data of its type
    C_COOLANT_SHARE,  # of the way to the cell's temperature that the coolant goes while it passes
    C_BLOCK,
) = _rows(10)

# follows from the state of each cell; then results of the last sub-step
(
    D_U,
    D_SLOPE,
    D_DUDT,
    D_DUDT_SLOPE,
    D_R0,
    D_K1,
    D_KP,
    D_E,
    D_EMEAN,
    D_MEAN_S,
    D_INVERSE_AS,
    D_AMPERE,
    D_HEAT_W,
    D_BLOCK,
) = _rows(13)

# series groups: leak conductance; gain error and offset of the voltage channel
G_LEAK_S, G_GAIN, G_OFFSET, G_BLOCK = _rows(3)

# what faults add to `groups`, in rows of blocks * LANES behind them: heat from outside, W; resistance of the joint
# after a group, which its voltage channel sees; the part of such resistances whose heat goes into the group, ohm
X_HEAT_W, X_JOINT_OHM, X_WARMING_OHM, X_ROWS = range(4)

# `burn`, of each cell: conversions of the side reactions (the anode's as charge lost, in units of SoC), of separator
# (melted, then shrunk), boiled solvent and aluminium; gas made so far; time of venting and of ignition (0 = not yet),
# hottest temperature; conductance of the short inside, and of the one that a fault puts there; power of a heater;
# heat of the side reactions so far; how much of the leak of its group is the shorts of its cells (first parallel
# cell); by how much the face that a neighbour heats is hotter than the cell
(
    B_SEI,
    B_LOST,
    B_CATHODE,
    B_ELECTROLYTE,
    B_SEPARATOR,
    B_COLLAPSE,
    B_BOILED,
    B_METAL,
    B_GAS_MOL,
    B_VENT_S,
    B_IGNITION_S,
    B_PEAK_DEGC,
    B_SHORT_S,
    B_FAULT_S,
    B_HEATER_W,
    B_SIDE_J,
    B_ADDED_S,
    B_SKIN_K,
    B_BLOCK,
) = _rows(18)

# series groups: voltage now and its resistance; mean voltage over the sub-step, inverse of the conductance
V_NOW, V_EFF_OHM, V_MEAN, V_MEAN_OHM, V_BLOCK = _rows(4)

# spare rows: place in the table, share of the way to its next point and the place between the two; what was found there
# (eight rows, as they stand in the table); products to be added up; partial sums
(
    T_INDEX,
    T_INSIDE,
    T_PLACE,
    T_U,
    T_M,
    T_DUDT,
    T_OHMIC,
    T_POLAR,
    T_DU,
    T_DDUDT,
    T_NOTHING,
    T_A,
    T_B,
    T_C,
    T_SUMS,
    T_SIZE,
) = (*_rows(14), 16 * LANES)  # fmt: skip

# `string`: state and results of the series string and the DC link, accounts in joule and ampere-second, commands
(
    S_TIME_S,
    S_AMPERE,
    S_PREVIOUS_A,
    S_PACK_V,
    S_BUS_V,
    S_SIGN,
    S_POWER_W,
    S_PCS_A,
    S_COOLANT_IN,
    S_COOLANT_OUT,
    S_COOLANT_SET,
    S_AMBIENT,
    S_INRUSH_A,
    S_HEAT_W,
    S_CHARGE_AS,
    S_OUT_J,
    S_IN_J,
    S_HEAT_J,
    S_BLEED_J,
    S_PATH_J,
    S_SHUTTLE_J,  # lost in the active balancer
    S_HEATER_J,  # from outside into the cells
    S_COOLANT_J,
    S_AMBIENT_J,
    S_OHM,  # of the string, at this instant
    S_FLOW_W_PER_K,
    S_LIMIT_DISCHARGE_A,
    S_LIMIT_CHARGE_A,
    S_LIMIT_DISCHARGE_W,
    S_LIMIT_CHARGE_W,
    S_SOC,  # as published by the controller
    S_HEARTBEAT_S,
    S_SHARE,  # of the site's duty, 1 = its own rating's
    S_INSULATION_OHM,
    S_LINK_OHM,  # across the DC link
    S_PRECHARGE_OHM,
    S_FORCED_A,  # what the PCS draws whatever the limits say; not a number = it follows its request
    S_EVENT_S,
    S_EVENT_A,
    S_LOOK_S,  # when to look next whether it must be
    S_AWAKE,  # 1 = side reactions are looked at
    S_SIDE_J,  # heat of side reactions and melting, a part of S_HEAT_J
    S_CONSUMED_J,  # enthalpy of the charge that side reactions ate
    S_VENT_J,  # left the cells with what they vented
    S_GAS_MOL,  # vented so far
    S_AIR_PPM,  # of it in the rack's air now
    S_DETECTOR_PPM,  # what has reached the detector
    S_FASTEST_K_PER_S,  # warming of the cell that warms fastest, in the last sub-step that looked at side reactions
    S_JOINT_OHM,  # what all joints have too much
    S_SIZE,
) = range(50)

# `logic`: path to the DC link; contactors asked for, welded, and those that do not close; last heart-beat, whether it
# is missed; event bits
L_PATH, L_REQUESTED, L_WELDED, L_STUCK, L_HEARTBEAT, L_EXPIRED, L_EVENTS, L_SIZE = range(8)

# `p`: constants of the bank, then the places in a slot of `work`
(
    P_N_SERIES,
    P_N_PARALLEL,
    P_BLOCKS,
    P_REF_DEGC,
    P_GAMMA,
    P_M0,
    P_ETA,
    P_EA_OHMIC,
    P_EA_POLAR,
    P_TAU1,
    P_TAU2,
    P_TAU3,
    P_TAU4,
    P_R0,
    P_R1,
    P_R2,
    P_R3,
    P_R4,
    P_HEAT_CAPACITY,
    P_CONDUCTION,
    P_AMBIENT_G,
    P_MODULE,
    P_COOLANT_TAU,
    P_BALANCE_S,
    P_SENSE_OHM,
    P_SHUTTLE_A,  # 0 = there is no active balancer
    P_SHUTTLE_EFFICIENCY,
    P_BROKEN,  # 1 = `groups` has the rows X_...
    P_BUSBAR_OHM,
    P_PATH_OHM,
    P_LINK_F,
    P_MAKE_A,
    P_BREAK_A,
    P_WATCHDOG_S,
    P_CAPACITY_AH,
    P_LEVELS_AT,
    P_SPARE_AT,
    P_FLAT_AT,
    P_FLAT_STRIDE,
    P_BURNS,  # 1 = the cells have side reactions
    P_TERMINAL_G,
    P_RADIATION,  # W/K^4 between the faces of neighbours
    P_BARRIER_EVERY,  # cells between barriers of a module, 0 = none
    P_BARRIER_SHARE,  # of the conduction that a barrier leaves
    P_AIR_MOL,
    P_AIR_TAU,
    P_DETECTOR_TAU,
    P_SKIN_OHM,  # K/W from the heated face to the mean of the cell
    P_SKIN_TAU,
    P_SIZE,
) = range(50)

# `chemistry`: constants of the side reactions of one cell; then for each point of the table the enthalpy stored from
# 0 up to there, in J/As, and for each its derivative. Of a reaction A (1/s) and, next to it, Ea / R (K); heats in J,
# gas in mol at full conversion
(
    Q_SEI,
    Q_SEI_K,
    Q_SEI_J,
    Q_SEI_MOL,
    Q_ANODE,
    Q_ANODE_K,
    Q_ANODE_J,
    Q_ANODE_MOL,
    Q_FILM,  # 1 / l0
    Q_CATHODE,
    Q_CATHODE_K,
    Q_CATHODE_J,
    Q_CATHODE_MOL,
    Q_ELECTROLYTE,
    Q_ELECTROLYTE_K,
    Q_ELECTROLYTE_J,
    Q_ELECTROLYTE_MOL,
    Q_PLATING,
    Q_PLATING_K,
    Q_PLATING_J,
    Q_PLATING_SOC,
    Q_DENDRITE_S,
    Q_DENDRITE_SOC,
    Q_MELT_DEGC,
    Q_MELT_RATE,  # 1 / theta
    Q_MELT_J,
    Q_BOIL_DEGC,
    Q_BOIL_RATE,
    Q_BOIL_J,
    Q_METAL_DEGC,
    Q_METAL_RATE,
    Q_METAL_J,
    Q_COLLAPSE,
    Q_COLLAPSE_K,
    Q_COLLAPSE_DEGC,
    Q_SHORT_S,
    Q_VAPOUR_PA,
    Q_VAPOUR_K,
    Q_PER_FREE_M3,
    Q_VENT_PA,
    Q_GAS_J_PER_K,  # heat capacity of what leaves with a mol of gas
    Q_OUT_DEGC,  # what leaves is counted from this temperature
    Q_WAKE_DEGC,
    Q_WAKE_SOC,
    Q_SLOPE_EMPTY,  # of the open-circuit voltage over SoC at 0, and at 1
    Q_SLOPE_FULL,
    Q_EMPTY_SOC,  # where the open-circuit voltage is 0
    Q_SIZE,
) = range(48)

OPEN, PRECHARGE, CLOSED = 0, 1, 2
"""Path from the string to the DC link."""

FLAT_ROWS = 4


def blocks(n_series: int) -> int:
    """Blocks of a rack."""
    return -(-n_series // LANES)


def work_places(n_series: int, n_parallel: int) -> tuple[int, int, int, int, int]:
    """Places of levels, spare rows and flat rows in a slot of `work`, stride of the flat rows, size of the slot."""
    n_blocks = blocks(n_series)
    levels = n_blocks * n_parallel * D_BLOCK
    spare = levels + n_blocks * V_BLOCK
    flat = spare + T_SIZE
    stride = n_blocks * n_parallel * LANES + 2 * LANES
    return levels, spare, flat, stride, flat + FLAT_ROWS * stride


def aligned(shape: tuple[int, ...]) -> F8:
    """Zeros at an address of whole cache lines, so that no vector lies across two."""
    count = int(np.prod(shape))
    raw = np.zeros(count + 8)
    skip = (-raw.ctypes.data // 8) % 8
    return raw[skip : skip + count].reshape(shape)


class Rows:
    """Rows of one rack in the order of its cells, read and written whole: `rows[C_SOC] = 0.5`, `rows[C_SOC, 3]`.

    What it returns are copies. `n_parallel` is 1 for rows over groups.
    """

    def __init__(self, data: F8, n_series: int, n_parallel: int, block: int) -> None:
        self._data = data[: blocks(n_series) * n_parallel * block].reshape(-1, n_parallel, block // LANES, LANES)
        self._n_series = n_series
        self._shape = (blocks(n_series) * LANES, n_parallel)

    def __getitem__(self, key: int | tuple[int, int]) -> F8:
        """Row `key`, (n_series * n_parallel,); or one value of it."""
        row, index = key if isinstance(key, tuple) else (key, None)
        whole = self._data[:, :, row // LANES, :].transpose(0, 2, 1).reshape(self._shape)[: self._n_series].flatten()
        return whole if index is None else whole[index]

    def __setitem__(self, key: int | tuple[int, int], values: npt.ArrayLike) -> None:
        """Set row `key`, or one value of it; the lanes beyond the rack take the last group's."""
        row, index = key if isinstance(key, tuple) else (key, None)
        whole = self[row]
        whole[slice(None) if index is None else index] = values
        n = self._n_series
        groups = whole.reshape(n, -1)[np.minimum(np.arange(self._shape[0]), n - 1)]
        self._data[:, :, row // LANES, :] = groups.reshape(-1, LANES, self._shape[1]).transpose(0, 2, 1)
