"""How much current cells bear over a horizon, by the estimator's own model and state of each: `bms.core.power` asks.

For a constant current i from now on (positive = discharge) the model of `bms.core.estimator` gives, after h seconds,

    v = OCV(z) + OCV(z_u - i h / Q) - OCV(z_u) + M h_h + M0 sgn(i) + w
        - exp(r) (sum v_j exp(-h / tau_j) + (R0 + sum R_j (1 - exp(-h / tau_j))) i + Rct i_b asinh(i / i_b))

    h_h = A h - (1 - A) sgn(i),  A = exp(-gamma |i| h / Q)

which falls as i rises, because OCV rises with z and no resistance is negative; so the largest current that keeps the
voltage inside its window is found by bracketing [G. L. Plett, *High-performance battery-pack power estimation using a
dynamic cell model*, IEEE Trans. Vehicular Technology 53(5), 2004; *Battery Management Systems* vol. II, 2016, ch. 6].
z_u is the SoC on the side that is worse for this direction, so many standard deviations from the estimate: a knee may
be nearer than believed. Resistances are those of now. Beyond empty and full, OCV goes on as it ended.

Sixteen cells are prepared at a time: as the estimator's, every loop over them has constant bounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bms.core.estimator_layout import BLOCK_ROWS, N_DEGC, N_SOC, NODE, OCV, V1, H, R, W, Z
from bms.core.estimator_layout import Q as RELATIVE
from bms.core.jit import f4, i4, kernel, transpose
from bms.core.mathf import asinhf, decay, expm1_small
from hal.contract import LANES, Constraint

N_HORIZONS = 4

# columns of a horizon: its length, then exp(-h / tau_j)
SECONDS, LEFT1, LEFT2, LEFT3, LEFT4 = range(5)
HORIZON = 5

u8 = np.uint64
_LANES = u8(LANES)
_NODE = u8(NODE)
_OCV = u8(OCV)


def _offsets(first: int, count: int) -> tuple[np.uint64, ...]:
    return tuple(u8((first + k) * LANES) for k in range(count))


# rows of the scratch: the parameters of 16 cells, room to transpose them, then what follows from them and the state
(
    _P_OCV, _P_SLOPE, _P_M, _P_R0, _P_R1, _P_R2, _P_R3, _P_R4, _P_RCT, _P_GAMMA, _P_M0, _, _, _P_RATE, _P_ETA,
) = _offsets(0, 15)  # fmt: skip
_BLENDED = u8(NODE * LANES)
_ROWS = 2 * NODE
OK, FT, DEGC, BASE, BENT_OHM, SETTLED_OHM, H_NOW = _offsets(_ROWS, 7)
# the first of a row for each direction, or for each horizon
SOC_U, OCV_U, PER_AS = u8((_ROWS + 7) * LANES), u8((_ROWS + 9) * LANES), u8((_ROWS + 11) * LANES)
LEFT_V, OHM = u8((_ROWS + 13) * LANES), u8((_ROWS + 17) * LANES)
_HOLDS, _NOW_V, _NOW_OHM = _offsets(_ROWS + 21, 3)
_FZ = _HOLDS  # needed before there is anything to hold
WORK = (_ROWS + 24) * LANES

_ZERO, _HALF, _ONE, _TWO = f4(0.0), f4(0.5), f4(1.0), f4(2.0)
_Z_MIN, _Z_MAX = f4(-0.02), f4(1.02)
_BEYOND = f4(N_SOC)  # nodes that are looked ahead beyond either end of the table
_INFINITE = f4(np.inf)
_JUST_BELOW = f4(1.0 - 1e-5)  # rounding must not put a current that was solved for on the wrong side
_TOLERANCE = f4(2e-4)  # of the largest current
_DEGC_MIN, _DEGC_MAX, _DEGC_UNKNOWN = f4(-60.0), f4(120.0), f4(25.0)
_NONE, _DATA, _CELL_VOLTAGE, _SOC, _HEAT = (
    int(c) for c in (Constraint.NONE, Constraint.DATA, Constraint.CELL_VOLTAGE, Constraint.SOC, Constraint.HEAT)
)


class Ask(NamedTuple):
    """One horizon in one direction: `sign` 1 discharge, -1 charge; edges of voltage and SoC on that side."""

    seconds: Any
    sign: Any
    v_edge: Any
    soc_edge: Any
    degc_edge: Any
    kelvin_per_j: Any
    bend_a: Any
    nodes_per_soc: Any
    soc_u: Any  # rows of the scratch
    ocv_u: Any
    per_as: Any
    left_v: Any
    ohm: Any


@kernel
def _within(x: f4, low: f4, high: f4) -> f4:
    """`x` limited to low..high; NaN gives `high`."""
    x = x if x < high else high
    return x if x > low else low


@kernel
def _node(k: i4, last: i4) -> i4:
    k = k if k > i4(0) else i4(0)
    return k if k < last else last


@kernel
def _ocv(nodes: Any, line: i4, ft: f4, at: f4) -> f4:
    """OCV between two lines of the table over temperature, at a place counted in nodes over SoC."""
    at = _within(at, -_BEYOND, _TWO * _BEYOND)
    k = _node(i4(at), i4(N_SOC - 2))
    fz = at - f4(k)
    low = u8(line + k) * _NODE + _OCV
    high = low + u8(N_SOC * NODE)
    cold = nodes[low] + fz * (nodes[low + _NODE] - nodes[low])
    warm = nodes[high] + fz * (nodes[high + _NODE] - nodes[high])
    v: f4 = cold + ft * (warm - cold)
    return v


@kernel
def prepare(
    w: Any, line: Any, cells: Any, estimator: Any, state: Any, cell_degc: Any, horizons: Any, soc_sigmas: f4
) -> None:
    """Parameters and state of the 16 cells of `cells` into the scratch `w`; `line` their lines of the table."""
    k1 = estimator.scalars[0]
    nodes, blocks, out = estimator.nodes, state.blocks, state.out
    n_lanes = state.flags.shape[0]
    degc_first, nodes_per_kelvin, nodes_per_soc = k1.degc_first, k1.nodes_per_kelvin, k1.nodes_per_soc
    last_t, last_z = i4(N_DEGC - 2), i4(N_SOC - 2)
    for c in range(_LANES):
        cell = int(cells[c])
        row = cell // LANES * (BLOCK_ROWS * LANES) + cell % LANES
        degc = cell_degc[cell]
        w[DEGC + c] = degc
        known = degc if abs(degc) < _INFINITE else _DEGC_UNKNOWN
        at = (_within(known, _DEGC_MIN, _DEGC_MAX) - degc_first) * nodes_per_kelvin
        t = _node(i4(at), last_t)
        w[FT + c] = _within(at - f4(t), _ZERO, _ONE)
        z = _within(blocks[row + Z * LANES], _Z_MIN, _Z_MAX)
        at = z * nodes_per_soc
        k = _node(i4(at), last_z)
        w[_FZ + c] = at - f4(k)
        line[c] = t * i4(N_SOC) + k
        std = soc_sigmas * out[n_lanes + cell]
        w[SOC_U + c] = _within(z - std, _Z_MIN, _Z_MAX)
        w[SOC_U + _LANES + c] = _within(z + std, _Z_MIN, _Z_MAX)
        v1, v2, v3, v4 = (
            blocks[row + V1 * LANES],
            blocks[row + (V1 + 1) * LANES],
            blocks[row + (V1 + 2) * LANES],
            blocks[row + (V1 + 3) * LANES],
        )
        h, r = blocks[row + H * LANES], blocks[row + R * LANES]
        e = _ONE + expm1_small(r * _HALF)
        e = e * e
        w[H_NOW + c] = h
        w[BASE + c] = blocks[row + W * LANES]
        w[_NOW_V + c] = -e * ((v1 + v2) + (v3 + v4))
        w[PER_AS + c] = _ONE - blocks[row + RELATIVE * LANES]
        w[BENT_OHM + c] = e
        for j in range(N_HORIZONS):
            left = horizons[j * HORIZON + LEFT1] * v1 + horizons[j * HORIZON + LEFT2] * v2
            left += horizons[j * HORIZON + LEFT3] * v3 + horizons[j * HORIZON + LEFT4] * v4
            w[LEFT_V + u8(j) * _LANES + c] = e * left
        numbers = (((v1 + v2) + (v3 + v4)) + (h + r)) + (blocks[row + Z * LANES] + w[BASE + c])
        w[OK + c] = _ONE if abs((numbers + w[PER_AS + c]) + (std + degc)) < _INFINITE else _ZERO
    below = u8(N_SOC * NODE)
    for c in range(_LANES):
        low = u8(line[c]) * _NODE
        high = low + below
        ft, fz = w[FT + c], w[_FZ + c]
        to = _BLENDED + c * _NODE
        for k in range(_NODE):
            cold = nodes[low + k] + fz * (nodes[low + _NODE + k] - nodes[low + k])
            warm = nodes[high + k] + fz * (nodes[high + _NODE + k] - nodes[high + k])
            w[to + k] = cold + ft * (warm - cold)
    transpose(w, _BLENDED, u8(0))
    for c in range(_LANES):
        line[c] = line[c] // i4(N_SOC) * i4(N_SOC)
        for side in range(2):
            place = u8(side) * _LANES + c
            w[OCV_U + place] = _ocv(nodes, line[c], w[FT + c], w[SOC_U + place] * nodes_per_soc)
    for c in range(_LANES):
        e, per_as = w[BENT_OHM + c], w[PER_AS + c] * w[_P_RATE + c]
        r0, r1, r2, r3, r4 = w[_P_R0 + c], w[_P_R1 + c], w[_P_R2 + c], w[_P_R3 + c], w[_P_R4 + c]
        for j in range(N_HORIZONS):
            s1, s2 = _ONE - horizons[j * HORIZON + LEFT1], _ONE - horizons[j * HORIZON + LEFT2]
            s3, s4 = _ONE - horizons[j * HORIZON + LEFT3], _ONE - horizons[j * HORIZON + LEFT4]
            w[OHM + u8(j) * _LANES + c] = e * (r0 + ((r1 * s1 + r2 * s2) + (r3 * s3 + r4 * s4)))
        w[BENT_OHM + c] = e * w[_P_RCT + c]
        w[SETTLED_OHM + c] = e * ((r0 + w[_P_RCT + c]) + ((r1 + r2) + (r3 + r4)))
        w[BASE + c] += w[_P_OCV + c]
        w[_NOW_V + c] += w[BASE + c] + w[_P_M + c] * w[H_NOW + c]
        w[_NOW_OHM + c] = e * r0
        w[PER_AS + c] = per_as
        w[PER_AS + _LANES + c] = per_as * w[_P_ETA + c]


@kernel
def _end_v(w: Any, line: Any, nodes: Any, c: u8, ask: Ask, a: f4, bent_a: f4) -> f4:
    """Voltage of the cell in lane `c` after the horizon, at the current `a`; `bent_a` the same, bent."""
    moved = w[ask.per_as + c] * (ask.seconds * a)
    at = (w[ask.soc_u + c] - moved) * ask.nodes_per_soc
    change = _ocv(nodes, line[c], w[FT + c], at) - w[ask.ocv_u + c]
    h = w[H_NOW + c]
    h -= decay(abs(moved) * w[_P_GAMMA + c]) * (h + ask.sign)
    rest = (w[BASE + c] + change) + (w[_P_M + c] * h + w[_P_M0 + c] * ask.sign)
    v: f4 = rest - (w[ask.left_v + c] + (w[ask.ohm + c] * a + w[BENT_OHM + c] * bent_a))
    return v


@kernel
def anchor(w: Any, lane: int, measured_v: f4, a: f4, sign: f4, bend_a: f4) -> None:
    """Let the prediction for the cell in `lane` start from `measured_v` at the current `a`, not from the model.

    `sign`: of the last current that was not zero.
    """
    c = u8(lane)
    drop = w[_NOW_OHM + c] * a + w[BENT_OHM + c] * (bend_a * asinhf(a / bend_a))
    w[BASE + c] += measured_v - (w[_NOW_V + c] + w[_P_M0 + c] * sign - drop)


@kernel
def check(w: Any, line: Any, nodes: Any, ask: Ask, most_a: f4) -> bool:
    """Whether all 16 cells bear `most_a` (>= 0) over the horizon; `holds` tells which."""
    a = ask.sign * most_a
    bent_a = ask.bend_a * asinhf(a / ask.bend_a)
    heat = a * a * (ask.seconds * ask.kelvin_per_j)
    lost = u8(0)
    for c in range(_LANES):
        spare_v = ask.sign * (_end_v(w, line, nodes, c, ask, a, bent_a) - ask.v_edge)
        spare_soc = ask.sign * (w[ask.soc_u + c] - ask.soc_edge) - w[ask.per_as + c] * (ask.seconds * most_a)
        spare_k = (ask.degc_edge - w[DEGC + c]) - heat * w[SETTLED_OHM + c]
        fine = (spare_v >= _ZERO) & (spare_soc >= _ZERO) & (spare_k >= _ZERO) & (w[OK + c] > _ZERO)
        w[_HOLDS + c] = _ONE if fine else _ZERO
        lost += u8(0) if fine else u8(1)
    return bool(lost == u8(0))


@kernel
def holds(w: Any, c: int) -> bool:
    """What `check` found of lane `c`."""
    return bool(w[_HOLDS + u8(c)] > _ZERO)


@kernel
def bears(w: Any, line: Any, nodes: Any, lane: int, ask: Ask, ceiling_a: f4, guess_a: f4) -> tuple[f4, int, f4, f4]:
    """Largest current up to `ceiling_a` that the cell in `lane` bears over the horizon, and why it is no larger.

    (current >= 0, `Constraint` or 0, what that looked at, how far it is from where nothing would be left).
    """
    c = u8(lane)
    if not w[OK + c] > _ZERO:
        return _ZERO, _DATA, _ZERO, _ZERO
    best_a, why, value, margin = ceiling_a, _NONE, _ZERO, _ZERO
    spare_soc = ask.sign * (w[ask.soc_u + c] - ask.soc_edge)
    by_soc_a = _JUST_BELOW * spare_soc / (w[ask.per_as + c] * ask.seconds)
    if not by_soc_a >= best_a:
        best_a, why, value, margin = by_soc_a, _SOC, w[ask.soc_u + c], spare_soc
    spare_k = ask.degc_edge - w[DEGC + c]
    by_heat_a = _ZERO
    if spare_k > _ZERO:
        by_heat_a = _JUST_BELOW * np.sqrt(spare_k / (w[SETTLED_OHM + c] * (ask.seconds * ask.kelvin_per_j)))
    if not by_heat_a >= best_a:
        best_a, why, value, margin = by_heat_a, _HEAT, w[DEGC + c], spare_k
    if not best_a > _ZERO:  # also NaN
        return _ZERO, why, value, margin

    high_a = best_a
    a = ask.sign * high_a
    high_v = ask.sign * (_end_v(w, line, nodes, c, ask, a, ask.bend_a * asinhf(a / ask.bend_a)) - ask.v_edge)
    if high_v >= _ZERO:
        return best_a, why, value, margin
    rest_v = _end_v(w, line, nodes, c, ask, _ZERO, _ZERO)
    low_a, low_v = _ZERO, ask.sign * (rest_v - ask.v_edge)
    spare_v = low_v
    if not low_v > _ZERO:
        return _ZERO, _CELL_VOLTAGE, rest_v, low_v
    # regula falsi; the end that stays twice is believed less (Illinois), and the end of now goes first
    least_a = _TOLERANCE * ceiling_a
    try_a = guess_a
    kept = 0
    for _ in range(24):
        if high_a - low_a <= least_a:
            break
        try_a = _within(try_a, low_a + _HALF * least_a, high_a - _HALF * least_a)
        a = ask.sign * try_a
        try_v = ask.sign * (_end_v(w, line, nodes, c, ask, a, ask.bend_a * asinhf(a / ask.bend_a)) - ask.v_edge)
        if try_v >= _ZERO:
            low_a, low_v = try_a, try_v
            high_v = high_v * _HALF if kept > 0 else high_v
            kept = 1
        else:
            high_a, high_v = try_a, try_v
            low_v = low_v * _HALF if kept < 0 else low_v
            kept = -1
        try_a = low_a + (high_a - low_a) * (low_v / (low_v - high_v))
    return low_a, _CELL_VOLTAGE, rest_v, spare_v


@kernel
def sum_ohm(w: Any, horizons: Any, j: int, count: int) -> f4:
    """Resistance over horizon `j` of the first `count` cells together, the loss of OCV by charge moved included."""
    total = _ZERO
    for k in range(count):
        c = u8(k)
        moved = w[PER_AS + c] * horizons[j * HORIZON + SECONDS]
        total += (w[OHM + u8(j) * _LANES + c] + w[BENT_OHM + c]) + w[_P_SLOPE + c] * moved
    return total
