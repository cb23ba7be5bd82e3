"""The electronics of racks, compiled: contactors, watchdog, what a command changes, and the turn of a rack.

The entries work on the racks `lo` to `hi` - 1, so that threads can share a site. What a range adds up for the whole
site goes to its own row of `tally`: ranges do not depend on the number of threads, hence neither does the sum.
"""

from __future__ import annotations

import math

import numpy as np

from sim import layout as Y
from sim.jit import kernel
from sim.kernels import advance_rack, settle_rack
from sim.sensors import sample_rack
from sim.shuttle import FROM_NEXT

MAIN_POSITIVE, MAIN_NEGATIVE, PRECHARGE = 1, 2, 4  # bits of a command and of the feedback
MAINS = MAIN_POSITIVE | MAIN_NEGATIVE
UNDER_LOAD = 0.02  # of the 1C current: opening at more is worth a note

# what happened to a rack, as bits of L_EVENTS
EVENT_WATCHDOG, EVENT_INRUSH, EVENT_BREAK, EVENT_LOAD = 1, 2, 4, 8

# rows of `tally`: racks with events, earliest heart-beat of those that are not open, racks connected, the sums of their
# SoC and current, and the sum of the SoC of all racks
TALLY_EVENTS, TALLY_HEARTBEAT_S, TALLY_CONNECTED, TALLY_SOC, TALLY_PCS_A, TALLY_ALL_SOC, TALLY_SIZE = range(7)

# where a command stands in its record: places of float32 values (heart-beat: of an integer of 4 bytes), then of bytes
(
    AT_HEARTBEAT,
    AT_LIMIT_DISCHARGE_A,
    AT_LIMIT_CHARGE_A,
    AT_LIMIT_DISCHARGE_W,
    AT_LIMIT_CHARGE_W,
    AT_COOLING,
    AT_SOC,
    AT_CONTACTORS,
    AT_BALANCE,
    AT_SHUTTLE,
    AT_SIZE,
) = range(11)

# what is wrong with a command
WRONG_CONTACTORS, WRONG_LIMIT, WRONG_COOLING, WRONG_BALANCE = 1, 2, 6, 7
WRONG_SHUTTLE, WRONG_SHUTTLE_LAST, WRONG_SHUTTLE_ABSENT = 8, 9, 10
WRONG_CODES = 16

CHECK, TAKE = 1, 2
ADVANCE, SAMPLE = 1, 2


@kernel
def _switch(cells, groups, balance, s, logic, work, table, p, requested, now):
    """Let the contactors of a rack follow a request, with what that does to them and to the DC link."""
    before = logic[Y.L_PATH]
    logic[Y.L_REQUESTED] = requested
    closed = requested & ~logic[Y.L_STUCK] | logic[Y.L_WELDED]
    path = Y.OPEN
    if closed & MAINS == MAINS:
        path = Y.CLOSED
    elif closed & MAIN_NEGATIVE != 0 and closed & PRECHARGE != 0:
        path = Y.PRECHARGE
    if path == before:
        return
    ampere = s[Y.S_AMPERE]
    if path == Y.CLOSED:
        inrush = abs(s[Y.S_PACK_V] - s[Y.S_BUS_V]) / (s[Y.S_OHM] + p[Y.P_PATH_OHM])
        s[Y.S_INRUSH_A] = max(s[Y.S_INRUSH_A], inrush)
        if inrush > p[Y.P_MAKE_A]:
            logic[Y.L_WELDED] |= MAINS
            logic[Y.L_EVENTS] |= EVENT_INRUSH
            s[Y.S_EVENT_A], s[Y.S_EVENT_S] = inrush, now
    elif before == Y.CLOSED and abs(ampere) > p[Y.P_BREAK_A]:
        logic[Y.L_WELDED] |= MAINS
        logic[Y.L_EVENTS] |= EVENT_BREAK
        s[Y.S_EVENT_A], s[Y.S_EVENT_S] = ampere, now
        return
    elif before == Y.CLOSED and abs(s[Y.S_PCS_A]) > UNDER_LOAD * p[Y.P_CAPACITY_AH]:
        logic[Y.L_EVENTS] |= EVENT_LOAD
        s[Y.S_EVENT_A], s[Y.S_EVENT_S] = ampere, now
    logic[Y.L_PATH] = path
    if path == Y.OPEN:
        # no current from this instant on
        s[Y.S_AMPERE] = 0.0
        s[Y.S_PREVIOUS_A] = 0.0
        s[Y.S_PCS_A] = 0.0
        s[Y.S_POWER_W] = 0.0
        settle_rack(cells, groups, balance, s, work, table, p)


@kernel
def _tally(string, logic, tally, lo, hi):
    """Add up what the whole site needs to know of a range of racks."""
    events = 0.0
    heartbeat_s = math.inf
    connected = 0.0
    soc = 0.0
    pcs_a = 0.0
    all_soc = 0.0
    for r in range(lo, hi):
        if logic[r, Y.L_EVENTS] != 0:
            events += 1.0
        if logic[r, Y.L_PATH] != Y.OPEN:
            heartbeat_s = min(heartbeat_s, string[r, Y.S_HEARTBEAT_S])
        if logic[r, Y.L_PATH] == Y.CLOSED:
            connected += 1.0
            soc += string[r, Y.S_SOC]
            pcs_a += string[r, Y.S_PCS_A]
        all_soc += string[r, Y.S_SOC]
    tally[TALLY_EVENTS] = events
    tally[TALLY_HEARTBEAT_S] = heartbeat_s
    tally[TALLY_CONNECTED] = connected
    tally[TALLY_SOC] = soc
    tally[TALLY_PCS_A] = pcs_a
    tally[TALLY_ALL_SOC] = all_soc


@kernel(
    "void(f8[:,::1], f8[:,::1], u1[:,::1], f8[:,::1], i8[:,::1], f8[:,::1], f8[:,::1], f8[::1], f8[::1], f8[:,::1], "
    "f8[:,::1], f8[::1], f8[::1], f8[:,::1], i8[::1], f8[::1], i8[::1], f4[:,::1], u1[:,::1], i8, i8, b1, "
    "f8, f8, f8, i8, i8, i8, i8, i8, i8)"
)
def run_racks(
    cells, groups, balance, string, logic, work, table, p, requests, tally, burn, chemistry,
    late, lagged, sensor_group, sensor_c, places, values, marks,
    what, n_steps, request_is_current, dt, ambient, sample_dt, seed, sequence, lo, hi, slot, chunk,
):  # fmt: skip
    """Advance racks by `n_steps` sub-steps of `dt` (ADVANCE in `what`) and sample their sensors (SAMPLE).

    A rack has the seed `seed` + its number. In a bank of one rack, `work` still holds what follows from its state.
    """
    kept = cells.shape[0] == 1
    for r in range(lo, hi):
        s = string[r]
        w = work[slot]
        if what & ADVANCE == 0:
            settle_rack(cells[r], groups[r], balance[r], s, w, table, p)
        else:
            s[Y.S_AMBIENT] = ambient
            path = logic[r, Y.L_PATH]
            following = min(r + 1, hi - 1)
            there = 1 if following > r else 0
            ahead, ahead_groups = (
                cells[following, : there * cells.shape[1]],
                groups[following, : there * groups.shape[1]],
            )
            advance_rack(
                cells[r], groups[r], balance[r], burn[r], s, w, table, chemistry, p, requests[:n_steps], ahead,
                ahead_groups, path, request_is_current, kept, dt,
            )  # fmt: skip
        if what & SAMPLE != 0:
            sample_rack(
                cells[r], groups[r], balance[r], s, logic[r], w, p, late, lagged[r], sensor_group, sensor_c, places,
                values[r], marks[r], seed + r, sequence, sample_dt,
            )  # fmt: skip
    _tally(string, logic, tally[chunk], lo, hi)


@kernel(
    "void(f8[:,::1], f8[:,::1], u1[:,::1], f8[:,::1], i8[:,::1], f8[:,::1], f8[:,::1], f8[::1], "
    "f8[:,::1], f8, i8, i8, i8, i8)"
)
def expire_racks(cells, groups, balance, string, logic, work, table, p, tally, now, lo, hi, slot, chunk):
    """Open the racks whose controller has been silent for too long at `now`."""
    for r in range(lo, hi):
        silent = now - string[r, Y.S_HEARTBEAT_S] >= p[Y.P_WATCHDOG_S] - 1e-9
        if logic[r, Y.L_PATH] != Y.OPEN and silent:
            if logic[r, Y.L_EXPIRED] == 0:
                logic[r, Y.L_EXPIRED] = 1
                logic[r, Y.L_EVENTS] |= EVENT_WATCHDOG
                string[r, Y.S_EVENT_S] = now
            _switch(cells[r], groups[r], balance[r], string[r], logic[r], work[slot], table, p, 0, now)
            # welded contactors stay, and nobody needs to be asked again
            string[r, Y.S_HEARTBEAT_S] = math.inf if logic[r, Y.L_PATH] != Y.OPEN else string[r, Y.S_HEARTBEAT_S]
    _tally(string, logic, tally[chunk], lo, hi)


@kernel
def _wrong(values, marks, at, n_series, has_shuttle):
    """What is wrong with a command, 0 where nothing is."""
    if marks[at[AT_CONTACTORS]] > MAINS | PRECHARGE:
        return WRONG_CONTACTORS
    for k in range(4):
        limit = values[at[AT_LIMIT_DISCHARGE_A + k]]
        if not (limit >= 0.0 and limit < math.inf):
            return WRONG_LIMIT + k
    cooling = values[at[AT_COOLING]]
    if not (cooling >= -60.0 and cooling <= 90.0):
        return WRONG_COOLING
    largest = np.uint8(0)
    for k in range(n_series):
        largest = max(largest, marks[at[AT_BALANCE] + k])
    if largest > 1:
        return WRONG_BALANCE
    largest = np.uint8(0)
    for k in range(n_series):
        largest = max(largest, marks[at[AT_SHUTTLE] + k])
    if largest == 0:
        return 0
    if not has_shuttle:
        return WRONG_SHUTTLE_ABSENT
    if largest > FROM_NEXT:
        return WRONG_SHUTTLE
    return WRONG_SHUTTLE_LAST if marks[at[AT_SHUTTLE] + n_series - 1] != 0 else 0


@kernel(
    "i8(f8[:,::1], f8[:,::1], u1[:,::1], f8[:,::1], i8[:,::1], f8[:,::1], f8[:,::1], f8[::1], "
    "f8[:,::1], i8[::1], f4[:,::1], u4[:,::1], u1[:,::1], i8, f8, f8, f8, i8, i8, i8, i8)"
)
def command_racks(
    cells, groups, balance, string, logic, work, table, p, tally, at, values, whole, marks,
    what, coolant_min, coolant_max, now, lo, hi, slot, chunk,
):  # fmt: skip
    """Check the commands of racks (CHECK in `what`), then take them over (TAKE). Nothing is taken where one is wrong.

    `values` f4, `whole` u4 and `marks` u1 are the same bytes, a row for each rack; `at` says where what stands.
    Returns -1, or the number of the first rack whose command is wrong times WRONG_CODES, plus what is wrong.
    """
    n_series = int(p[Y.P_N_SERIES])
    has_shuttle = p[Y.P_SHUTTLE_A] > 0.0
    if what & CHECK != 0:
        for r in range(lo, hi):
            wrong = _wrong(values[r], marks[r], at, n_series, has_shuttle)
            if wrong != 0:
                return r * WRONG_CODES + wrong
    if what & TAKE == 0:
        return -1
    for r in range(lo, hi):
        s = string[r]
        s[Y.S_COOLANT_SET] = min(max(np.float64(values[r, at[AT_COOLING]]), coolant_min), coolant_max)
        for k in range(n_series):
            balance[r, k] = marks[r, at[AT_BALANCE] + k]
        if has_shuttle:
            codes = int(p[Y.P_BLOCKS]) * Y.LANES
            for k in range(n_series):
                balance[r, codes + k] = marks[r, at[AT_SHUTTLE] + k]
        for k in range(4):
            s[Y.S_LIMIT_DISCHARGE_A + k] = values[r, at[AT_LIMIT_DISCHARGE_A + k]]
        soc = np.float64(values[r, at[AT_SOC]])
        if math.isfinite(soc):  # not a number: the controller does not know it (yet), the energy manager keeps the last
            s[Y.S_SOC] = soc
        heartbeat = np.int64(whole[r, at[AT_HEARTBEAT]])
        if heartbeat != logic[r, Y.L_HEARTBEAT]:
            logic[r, Y.L_HEARTBEAT] = heartbeat
            s[Y.S_HEARTBEAT_S] = now
            logic[r, Y.L_EXPIRED] = 0
        # without a living controller nothing closes
        requested = 0 if logic[r, Y.L_EXPIRED] != 0 else np.int64(marks[r, at[AT_CONTACTORS]])
        _switch(cells[r], groups[r], balance[r], s, logic[r], work[slot], table, p, requested, now)
    _tally(string, logic, tally[chunk], lo, hi)
    return -1


@kernel(
    "void(f8[:,::1], f8[:,::1], u1[:,::1], f8[:,::1], i8[:,::1], f8[:,::1], f8[:,::1], f8[::1], "
    "f8[:,::1], f8, i8, i8, i8, i8)"
)
def refresh_racks(cells, groups, balance, string, logic, work, table, p, tally, now, lo, hi, slot, chunk):
    """Let contactors follow what is asked of them anew, after something happened to them."""
    for r in range(lo, hi):
        requested = logic[r, Y.L_REQUESTED]
        _switch(cells[r], groups[r], balance[r], string[r], logic[r], work[slot], table, p, requested, now)
    _tally(string, logic, tally[chunk], lo, hi)


@kernel(
    "void(f8[:,::1], f8[:,::1], u1[:,::1], f8[:,::1], i8[:,::1], f8[:,::1], f8[:,::1], f8[::1], "
    "f8[:,::1], f8, i8, i8, i8, i8)"
)
def release_racks(cells, groups, balance, string, logic, work, table, p, tally, now, lo, hi, slot, chunk):
    """Ask racks to open, to take no power and to bleed no cell: their electronics are switched off."""
    for r in range(lo, hi):
        s = string[r]
        _switch(cells[r], groups[r], balance[r], s, logic[r], work[slot], table, p, 0, now)
        for k in range(4):
            s[Y.S_LIMIT_DISCHARGE_A + k] = 0.0
        for k in range(balance.shape[1]):
            balance[r, k] = 0
    _tally(string, logic, tally[chunk], lo, hi)
