"""The filter of sixteen cells at once: kernels that work on one block. See `bms.core.estimator` for what they compute.

Loops over the lanes have constant bounds and strides and write to arrays that do not overlap, so that the compiler
turns them into vector instructions without asking whether arrays overlap.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from bms.core.estimator_layout import (
    BLOCK_ROWS,
    N_DEGC,
    N_P,
    N_SOC,
    NODE,
    NX,
    OBSERVABLE,
    P_FIRST,
    S_FIRST,
    SKIPPED,
    WORK_ROWS,
)
from bms.core.jit import f4, i4, kernel, prefetch, transpose
from bms.core.mathf import decay, expm1_small
from hal.contract import LANES

# Unsigned offsets of rows, so that an index needs no test for being negative.
u8 = np.uint64
_LANES = u8(LANES)
_NODE = u8(NODE)


def _offsets(first: int, count: int) -> tuple[np.uint64, ...]:
    return tuple(u8((first + k) * LANES) for k in range(count))


# states; the letters a b c d stand for the four RC voltages
_XA, _XB, _XC, _XD, _XH, _XW, _XZ, _XR, _XQ, _XL = _offsets(0, NX + 1)
# fmt: off
(
    _PAA,
    _PAB, _PBB,
    _PAC, _PBC, _PCC,
    _PAD, _PBD, _PCD, _PDD,
    _PAH, _PBH, _PCH, _PDH, _PHH,
    _PAW, _PBW, _PCW, _PDW, _PHW, _PWW,
    _PAZ, _PBZ, _PCZ, _PDZ, _PHZ, _PWZ, _PZZ,
    _PAR, _PBR, _PCR, _PDR, _PHR, _PWR, _PZR, _PRR,
    _PAQ, _PBQ, _PCQ, _PDQ, _PHQ, _PWQ, _PZQ, _PRQ, _PQQ,
) = _offsets(P_FIRST, N_P)
# fmt: on
_SA, _SB, _SC, _SD, _SH, _SW, _SZ, _SR, _SQ = _offsets(S_FIRST, NX)

# rows of the scratch: measured values, place in the table, sums per lane; parameters, and room to transpose them
_V, _OK, _Z, _FT, _FZ, _INFO, _PULL, _ALL_OK = _offsets(0, WORK_ROWS)
_PARAMETERS = u8(WORK_ROWS * LANES)
_BLENDED = u8((WORK_ROWS + NODE) * LANES)
(
    _OCV, _SLOPE, _M, _R0, _R1, _R2, _R3, _R4, _RCT, _GAMMA, _M0, _W_STD, _W_KNEE, _RATE, _ETA, _WIDE,
) = _offsets(WORK_ROWS, NODE)  # fmt: skip

_ZERO = f4(0.0)
_ONE = f4(1.0)
_TWO = f4(2.0)
_HALF = f4(0.5)
_Z_MIN = f4(-0.02)
_Z_MAX = f4(1.02)
_R_MAX = f4(0.7)
_Q_MIN, _Q_MAX = f4(-0.45), f4(0.2)  # of 69 to 125 % of the capacity
# what keeps the covariance positive in float32, whatever is measured
_DECORRELATE = f4(1e-5)
_VARIANCE_MIN = f4(1e-14)
_NOISE_MIN = f4(1e-4)  # of the voltage, as a share of the variance that the states leave open in it
_UNKNOWN = f4(1.0)  # variance of z that no noise raises any more
_R_VAR_MAX = _R_MAX * _R_MAX  # the same of r
_Q_VAR_MAX = _Q_MAX * _Q_MAX  # and of q
_PER_GATE2 = f4(1.0 / 25.0)
_ABSURD_V = f4(100.0)
_GOOD = np.uint8(0)
_NO_FLAG = np.uint8(0)
_INFINITE = f4(np.inf)
_NAN = f4(np.nan)
_DEGC_MIN, _DEGC_MAX, _DEGC_UNKNOWN = f4(-60.0), f4(120.0), f4(25.0)


class StepValues(NamedTuple):
    """What is the same for all cells of the string in one step."""

    dt_s: Any
    i_mid: Any  # mean current of the step, less the bias
    i_end: Any  # current at its end, less the bias
    i_ct: Any  # the same, bent
    di_ct: Any  # d i_ct / d i_end
    towards: Any  # where the current drives the hysteresis: -1 or 1
    sign: Any  # sign of the last current that was not zero
    b1: Any  # 1 - exp(-dt / tau)
    b2: Any
    b3: Any
    b4: Any
    bw: Any
    current_var: Any
    rc_var: Any  # variance of an RC voltage per squared resistance, if it were renewed at once
    bias_var: Any
    sz_max: Any  # sensitivity of z at which the bias alone makes the SoC unknown


@kernel
def _within(x: np.float32, low: np.float32, high: np.float32) -> np.float32:
    """`x` limited to low..high; NaN gives `high`."""
    x = x if x < high else high
    return x if x > low else low


@kernel
def _at_least(x: np.float32, low: np.float32) -> np.float32:
    """The larger of the two; NaN gives `low`."""
    return x if x > low else low


@kernel
def _at_most(x: np.float32, high: np.float32) -> np.float32:
    """The smaller of the two; NaN gives `high`."""
    return x if x < high else high


@kernel
def _node(k: np.int32, last: np.int32) -> np.int32:
    """A whole number limited to 0..last: limiting the number and not the float keeps the loop free of branches."""
    k = k if k > i4(0) else i4(0)
    return k if k < last else last


@kernel
def gather(w: Any, index: Any, f: Any, cell_v: Any, cell_v_quality: Any, cell_degc: Any, k1: Any, moved: f4) -> None:
    """Measured values of one block into the scratch, and the place in the table: node and fractions of each cell.

    `moved` is the SoC that the current of this step moves in a cell of nominal capacity at 25 degC. What there is of
    the arrays of measured values is a block, or its first cells. Lanes without a cell, and bad values, get `_OK` = 0.
    `_ALL_OK` keeps the least of `_OK` over the cells.
    """
    degc_first, nodes_per_kelvin, nodes_per_soc = k1.degc_first, k1.nodes_per_kelvin, k1.nodes_per_soc
    last_t, last_z, columns = i4(N_DEGC - 2), i4(N_SOC - 2), i4(N_SOC)
    here = u8(cell_v.shape[0])
    if here == _LANES:
        for c in range(_LANES):
            v = cell_v[c]
            good = (abs(v) < _ABSURD_V) & (cell_v_quality[c] == _GOOD)
            w[_V + c] = v if good else _ZERO
            ok = _ONE if good else _ZERO
            w[_OK + c] = ok
            w[_ALL_OK + c] = _at_most(w[_ALL_OK + c], ok)
        for c in range(_LANES):
            w[_FT + c] = cell_degc[c]
    else:
        for c in range(_LANES):
            k = c if c < here else here - u8(1)
            v = cell_v[k]
            good = (abs(v) < _ABSURD_V) & (cell_v_quality[k] == _GOOD)
            w[_V + c] = v if good else _ZERO
            w[_OK + c] = _ONE if good & (c < here) else _ZERO
            w[_ALL_OK + c] = _at_most(w[_ALL_OK + c], _ONE if good else _ZERO)
            w[_FT + c] = cell_degc[k]
    for c in range(_LANES):
        degc = w[_FT + c]
        degc = degc if abs(degc) < _INFINITE else _DEGC_UNKNOWN
        at = (_within(degc, _DEGC_MIN, _DEGC_MAX) - degc_first) * nodes_per_kelvin
        t = _node(i4(at), last_t)
        ft = _within(at - f4(t), _ZERO, _ONE)
        soc = _within(f[_XZ + c] - moved, _Z_MIN, _Z_MAX)
        at = soc * nodes_per_soc
        z = _node(i4(at), last_z)
        index[c] = t * columns + z
        w[_Z + c] = soc
        w[_FT + c] = ft
        w[_FZ + c] = at - f4(z)


@kernel
def look_up(w: Any, index: Any, nodes: Any, blocks: Any, following: int) -> None:
    """Bilinear look-up of all parameters of each cell, then 16 cells x 16 parameters into 16 rows.

    Between the cells, the lines of the block at `following` are sent for: a page is beyond what the processor foresees.
    """
    below = u8(N_SOC * NODE)
    for c in range(_LANES):
        for k in range(BLOCK_ROWS // LANES):
            prefetch(blocks, following + (int(c) * (BLOCK_ROWS // LANES) + k) * LANES)
        low = u8(index[c]) * _NODE
        high = low + below
        ft, fz = w[_FT + c], w[_FZ + c]
        to = _BLENDED + c * _NODE
        for k in range(_NODE):
            cold = nodes[low + k] + fz * (nodes[low + _NODE + k] - nodes[low + k])
            warm = nodes[high + k] + fz * (nodes[high + _NODE + k] - nodes[high + k])
            w[to + k] = cold + ft * (warm - cold)
    transpose(w, _BLENDED, _PARAMETERS)


@kernel
def update(f: Any, w: Any, flags: Any, model_v: Any, innovation: Any, k1: Any, u: Any) -> None:
    """Prediction and correction of one block: `f` its rows, `w` scratch, `flags` of its cells."""
    a1, a2, a3, a4, aw = _ONE - u.b1, _ONE - u.b2, _ONE - u.b3, _ONE - u.b4, _ONE - u.bw
    a11, a12, a13, a14 = a1 * a1, a1 * a2, a1 * a3, a1 * a4
    a22, a23, a24, a33, a34, a44 = a2 * a2, a2 * a3, a2 * a4, a3 * a3, a3 * a4, a4 * a4
    a1w, a2w, a3w, a4w, aww = a1 * aw, a2 * aw, a3 * aw, a4 * aw, aw * aw
    n1, n2 = u.rc_var * (u.b1 * (_TWO - u.b1)), u.rc_var * (u.b2 * (_TWO - u.b2))
    n3, n4 = u.rc_var * (u.b3 * (_TWO - u.b3)), u.rc_var * (u.b4 * (_TWO - u.b4))
    nw = u.bw * (_TWO - u.bw)
    h_var = k1.h_noise * k1.h_noise
    white_v2 = k1.voltage_std * k1.voltage_std
    slow_share = k1.slow_share
    model_corr, knee_corr = k1.model_corr, k1.knee_corr
    charging = u.i_mid <= _ZERO
    wide2 = k1.wide_soc * k1.wide_soc
    per_wide2 = _ONE / wide2
    observable2 = k1.observable_soc * k1.observable_soc
    per_second = _ONE / min(max(u.dt_s, f4(1e-3)), f4(60.0))
    for c in range(_LANES):
        ocv, narrow, m, m0 = w[_OCV + c], w[_SLOPE + c], w[_M + c], w[_M0 + c]
        r0, r1, r2, r3, r4, rct = w[_R0 + c], w[_R1 + c], w[_R2 + c], w[_R3 + c], w[_R4 + c], w[_RCT + c]
        slowest = slow_share * f[_XD + c]
        w_var = w[_W_STD + c] * w[_W_STD + c] + slowest * slowest
        knee_v = narrow * w[_W_KNEE + c]
        knee_v2 = knee_v * knee_v
        slow_v2 = w_var + knee_v2
        gain = w[_RATE + c] * (w[_ETA + c] if charging else _ONE) * u.dt_s  # SoC per ampere
        moved = gain * u.i_mid  # SoC moved if the capacity is the nominal one: dz'/dq
        bh = decay(abs(moved * w[_GAMMA + c]))
        unknown = f[_PZZ + c] > _UNKNOWN
        lever = _ZERO if unknown else _within(moved, -_ONE, _ONE)
        z_var = _ZERO if unknown else _within(gain * gain * u.current_var, _ZERO, _ONE)
        ah = _ONE - bh

        # states at the end of the step
        before = f[_XZ + c]
        q = f[_XQ + c]
        low = f[_XL + c] - moved * (_ONE - q)
        z = before + low
        low = low - (z - before)
        va, vb, vc, vd = f[_XA + c], f[_XB + c], f[_XC + c], f[_XD + c]
        va += u.b1 * (r1 * u.i_mid - va)
        vb += u.b2 * (r2 * u.i_mid - vb)
        vc += u.b3 * (r3 * u.i_mid - vc)
        vd += u.b4 * (r4 * u.i_mid - vd)
        h, wv, r = f[_XH + c], f[_XW + c], f[_XR + c]
        h += bh * (u.towards - h)
        wv -= u.bw * wv

        # their sensitivities to the bias
        sa, sb, sc, sd = f[_SA + c], f[_SB + c], f[_SC + c], f[_SD + c]
        sa -= u.b1 * (r1 + sa)
        sb -= u.b2 * (r2 + sb)
        sc -= u.b3 * (r3 + sc)
        sd -= u.b4 * (r4 + sd)
        sh, sw, sr, sq = f[_SH + c], f[_SW + c], f[_SR + c], f[_SQ + c]
        sh -= bh * sh
        sw -= u.bw * sw
        sz = _within(f[_SZ + c] + gain + lever * sq, -u.sz_max, u.sz_max)

        # their covariance: F P F^T + noise
        paa = f[_PAA + c] * a11 + n1 * r1 * r1
        pab = f[_PAB + c] * a12
        pbb = f[_PBB + c] * a22 + n2 * r2 * r2
        pac = f[_PAC + c] * a13
        pbc = f[_PBC + c] * a23
        pcc = f[_PCC + c] * a33 + n3 * r3 * r3
        pad = f[_PAD + c] * a14
        pbd = f[_PBD + c] * a24
        pcd = f[_PCD + c] * a34
        pdd = f[_PDD + c] * a44 + n4 * r4 * r4
        pah = f[_PAH + c] * (a1 * ah)
        pbh = f[_PBH + c] * (a2 * ah)
        pch = f[_PCH + c] * (a3 * ah)
        pdh = f[_PDH + c] * (a4 * ah)
        phh = f[_PHH + c] * (ah * ah) + h_var * (bh * (_TWO - bh))
        paw = f[_PAW + c] * a1w
        pbw = f[_PBW + c] * a2w
        pcw = f[_PCW + c] * a3w
        pdw = f[_PDW + c] * a4w
        phw = f[_PHW + c] * (ah * aw)
        pww = f[_PWW + c] * aww + slow_v2 * nw
        paq = f[_PAQ + c] * a1
        pbq = f[_PBQ + c] * a2
        pcq = f[_PCQ + c] * a3
        pdq = f[_PDQ + c] * a4
        phq = f[_PHQ + c] * ah
        pwq = f[_PWQ + c] * aw
        pzq0 = f[_PZQ + c]
        prq = f[_PRQ + c]
        pqq = f[_PQQ + c]
        paz = f[_PAZ + c] * a1 + lever * paq
        pbz = f[_PBZ + c] * a2 + lever * pbq
        pcz = f[_PCZ + c] * a3 + lever * pcq
        pdz = f[_PDZ + c] * a4 + lever * pdq
        phz = f[_PHZ + c] * ah + lever * phq
        pwz = f[_PWZ + c] * aw + lever * pwq
        pzq = pzq0 + lever * pqq
        pzz = f[_PZZ + c] + lever * (pzq0 + pzq) + z_var
        pzr = f[_PZR + c] + lever * prq
        par = f[_PAR + c] * a1
        pbr = f[_PBR + c] * a2
        pcr = f[_PCR + c] * a3
        pdr = f[_PDR + c] * a4
        phr = f[_PHR + c] * ah
        pwr = f[_PWR + c] * aw
        prr = f[_PRR + c]

        # where SoC is hardly known, a correction meets a wide piece of the curve, and what that is bent is an error
        more = (w[_WIDE + c] - narrow) * _at_most(pzz * per_wide2, _ONE)
        slope = narrow + more
        bend = _HALF * more
        bend_v2 = bend * bend * _at_most(pzz, wide2)

        # the voltage that the model expects
        er = _ONE + expm1_small(r * _HALF)
        er = er * er
        drop = ((va + vb) + (vc + vd)) + (r0 * u.i_end + rct * u.i_ct)
        model = ocv + slope * (z - w[_Z + c]) + m * h + m0 * u.sign + wv - er * drop
        ok = w[_OK + c]
        nu = (w[_V + c] - model) * ok
        model_v[c] = model
        innovation[c] = nu if ok > _ZERO else _NAN

        # g = P h^T with h = (-er, -er, -er, -er, m, 1, slope, -er drop, 0), and the effect of the bias on the voltage
        ga = (m * pah + (slope * paz + paw)) - er * (drop * par + ((paa + pab) + (pac + pad)))
        gb = (m * pbh + (slope * pbz + pbw)) - er * (drop * pbr + ((pab + pbb) + (pbc + pbd)))
        gc = (m * pch + (slope * pcz + pcw)) - er * (drop * pcr + ((pac + pbc) + (pcc + pcd)))
        gd = (m * pdh + (slope * pdz + pdw)) - er * (drop * pdr + ((pad + pbd) + (pcd + pdd)))
        gh = (m * phh + (slope * phz + phw)) - er * (drop * phr + ((pah + pbh) + (pch + pdh)))
        gw = (m * phw + (slope * pwz + pww)) - er * (drop * pwr + ((paw + pbw) + (pcw + pdw)))
        gz = (m * phz + (slope * pzz + pwz)) - er * (drop * pzr + ((paz + pbz) + (pcz + pdz)))
        gr = (m * phr + (slope * pzr + pwr)) - er * (drop * prr + ((par + pbr) + (pcr + pdr)))
        gq = (m * phq + (slope * pzq + pwq)) - er * (drop * prq + ((paq + pbq) + (pcq + pdq)))
        told = (m * gh + slope * gz) + (gw - er * (((ga + gb) + (gc + gd)) + drop * gr))
        hb = er * (r0 + rct * u.di_ct) + (m * sh + sw + slope * sz - er * (((sa + sb) + (sc + sd)) + drop * sr))
        noise = (white_v2 + w_var * model_corr + (knee_v2 + bend_v2) * knee_corr) * per_second
        spread = pww + slope * slope * pzz + m * m * phh + er * er * ((paa + pbb) + (pcc + pdd) + drop * drop * prr)
        total = _at_least(told, _ZERO) + _at_least(noise, _NOISE_MIN * spread)
        # an outlier counts as if the noise were as large as it takes: believe it less, the more unlikely it is
        total = _at_least(total, nu * nu * _PER_GATE2 - hb * hb * u.bias_var)
        inv = ok / total

        ka = ga * inv
        kb = gb * inv
        kc = gc * inv
        kd = gd * inv
        kh = gh * inv
        kw = gw * inv
        kz = gz * inv
        kr = gr * inv
        kq = gq * inv
        f[_XA + c] = va + ka * nu
        f[_XB + c] = vb + kb * nu
        f[_XC + c] = vc + kc * nu
        f[_XD + c] = vd + kd * nu
        f[_XH + c] = h + kh * nu
        f[_XW + c] = wv + kw * nu
        low = low + kz * nu
        z1 = z + low
        f[_XL + c] = low - (z1 - z)
        f[_XZ + c] = z1
        f[_XR + c] = r + kr * nu
        f[_XQ + c] = q + kq * nu
        f[_SA + c] = sa - ka * hb
        f[_SB + c] = sb - kb * hb
        f[_SC + c] = sc - kc * hb
        f[_SD + c] = sd - kd * hb
        f[_SH + c] = sh - kh * hb
        f[_SW + c] = sw - kw * hb
        f[_SZ + c] = sz - kz * hb
        f[_SR + c] = sr - kr * hb
        f[_SQ + c] = sq - kq * hb
        f[_PAB + c] = pab - ka * gb
        f[_PAC + c] = pac - ka * gc
        f[_PBC + c] = pbc - kb * gc
        f[_PAD + c] = pad - ka * gd
        f[_PBD + c] = pbd - kb * gd
        f[_PCD + c] = pcd - kc * gd
        f[_PAH + c] = pah - ka * gh
        f[_PBH + c] = pbh - kb * gh
        f[_PCH + c] = pch - kc * gh
        f[_PDH + c] = pdh - kd * gh
        f[_PAW + c] = paw - ka * gw
        f[_PBW + c] = pbw - kb * gw
        f[_PCW + c] = pcw - kc * gw
        f[_PDW + c] = pdw - kd * gw
        f[_PHW + c] = phw - kh * gw
        f[_PAZ + c] = paz - ka * gz
        f[_PBZ + c] = pbz - kb * gz
        f[_PCZ + c] = pcz - kc * gz
        f[_PDZ + c] = pdz - kd * gz
        f[_PHZ + c] = phz - kh * gz
        f[_PWZ + c] = pwz - kw * gz
        f[_PAR + c] = par - ka * gr
        f[_PBR + c] = pbr - kb * gr
        f[_PCR + c] = pcr - kc * gr
        f[_PDR + c] = pdr - kd * gr
        f[_PHR + c] = phr - kh * gr
        f[_PWR + c] = pwr - kw * gr
        f[_PZR + c] = pzr - kz * gr
        f[_PAQ + c] = paq - ka * gq
        f[_PBQ + c] = pbq - kb * gq
        f[_PCQ + c] = pcq - kc * gq
        f[_PDQ + c] = pdq - kd * gq
        f[_PHQ + c] = phq - kh * gq
        f[_PWQ + c] = pwq - kw * gq
        f[_PZQ + c] = pzq - kz * gq
        f[_PRQ + c] = prq - kr * gq
        f[_PAA + c] = _at_least(paa - ka * ga, _VARIANCE_MIN)
        f[_PBB + c] = _at_least(pbb - kb * gb, _VARIANCE_MIN)
        f[_PCC + c] = _at_least(pcc - kc * gc, _VARIANCE_MIN)
        f[_PDD + c] = _at_least(pdd - kd * gd, _VARIANCE_MIN)
        f[_PHH + c] = _at_least(phh - kh * gh, _VARIANCE_MIN)
        f[_PWW + c] = _at_least(pww - kw * gw, _VARIANCE_MIN)
        f[_PZZ + c] = _at_least(pzz - kz * gz, _VARIANCE_MIN)
        f[_PRR + c] = _at_least(prr - kr * gr, _VARIANCE_MIN)
        f[_PQQ + c] = _at_least(pqq - kq * gq, _VARIANCE_MIN)
        hb_inv = hb * inv
        known = abs(hb_inv * nu) < _INFINITE  # a cell whose memory is damaged tells the others nothing
        w[_INFO + c] += hb * hb_inv if known else _ZERO
        w[_PULL + c] += hb_inv * nu if known else _ZERO
        seen = narrow * narrow * observable2 > slow_v2 + m * m * h_var
        flags[c] = (OBSERVABLE if seen else _NO_FLAG) | (SKIPPED if ok == _ZERO else _NO_FLAG)


@kernel
def add_slow(f: Any, r_var: np.float32, q_var: np.float32, bias_rest: np.float32, bias_ratio: np.float32) -> None:
    """Noise of what changes in hours (r, q, the bias), and a little doubt about every relation between two states."""
    keep = _ONE - _DECORRELATE
    for c in range(_LANES):
        sa, sb, sc, sd, sh = f[_SA + c], f[_SB + c], f[_SC + c], f[_SD + c], f[_SH + c]
        sw, sz, sr, sq = f[_SW + c], f[_SZ + c], f[_SR + c], f[_SQ + c]
        r_more = r_var if f[_PRR + c] < _R_VAR_MAX else _ZERO
        q_more = q_var if f[_PQQ + c] < _Q_VAR_MAX else _ZERO
        sz_kept = sz * bias_ratio
        sz = sz if f[_PZZ + c] < _UNKNOWN else _ZERO
        ba, bb, bc, bd, bh = bias_rest * sa, bias_rest * sb, bias_rest * sc, bias_rest * sd, bias_rest * sh
        bw, bz, br, bq = bias_rest * sw, bias_rest * sz, bias_rest * sr, bias_rest * sq
        f[_PAB + c] = (f[_PAB + c] + ba * sb) * keep
        f[_PAC + c] = (f[_PAC + c] + ba * sc) * keep
        f[_PBC + c] = (f[_PBC + c] + bb * sc) * keep
        f[_PAD + c] = (f[_PAD + c] + ba * sd) * keep
        f[_PBD + c] = (f[_PBD + c] + bb * sd) * keep
        f[_PCD + c] = (f[_PCD + c] + bc * sd) * keep
        f[_PAH + c] = (f[_PAH + c] + ba * sh) * keep
        f[_PBH + c] = (f[_PBH + c] + bb * sh) * keep
        f[_PCH + c] = (f[_PCH + c] + bc * sh) * keep
        f[_PDH + c] = (f[_PDH + c] + bd * sh) * keep
        f[_PAW + c] = (f[_PAW + c] + ba * sw) * keep
        f[_PBW + c] = (f[_PBW + c] + bb * sw) * keep
        f[_PCW + c] = (f[_PCW + c] + bc * sw) * keep
        f[_PDW + c] = (f[_PDW + c] + bd * sw) * keep
        f[_PHW + c] = (f[_PHW + c] + bh * sw) * keep
        f[_PAZ + c] = (f[_PAZ + c] + ba * sz) * keep
        f[_PBZ + c] = (f[_PBZ + c] + bb * sz) * keep
        f[_PCZ + c] = (f[_PCZ + c] + bc * sz) * keep
        f[_PDZ + c] = (f[_PDZ + c] + bd * sz) * keep
        f[_PHZ + c] = (f[_PHZ + c] + bh * sz) * keep
        f[_PWZ + c] = (f[_PWZ + c] + bw * sz) * keep
        f[_PAR + c] = (f[_PAR + c] + ba * sr) * keep
        f[_PBR + c] = (f[_PBR + c] + bb * sr) * keep
        f[_PCR + c] = (f[_PCR + c] + bc * sr) * keep
        f[_PDR + c] = (f[_PDR + c] + bd * sr) * keep
        f[_PHR + c] = (f[_PHR + c] + bh * sr) * keep
        f[_PWR + c] = (f[_PWR + c] + bw * sr) * keep
        f[_PZR + c] = (f[_PZR + c] + bz * sr) * keep
        f[_PAQ + c] = (f[_PAQ + c] + ba * sq) * keep
        f[_PBQ + c] = (f[_PBQ + c] + bb * sq) * keep
        f[_PCQ + c] = (f[_PCQ + c] + bc * sq) * keep
        f[_PDQ + c] = (f[_PDQ + c] + bd * sq) * keep
        f[_PHQ + c] = (f[_PHQ + c] + bh * sq) * keep
        f[_PWQ + c] = (f[_PWQ + c] + bw * sq) * keep
        f[_PZQ + c] = (f[_PZQ + c] + bz * sq) * keep
        f[_PRQ + c] = (f[_PRQ + c] + br * sq) * keep
        f[_PAA + c] += ba * sa
        f[_PBB + c] += bb * sb
        f[_PCC + c] += bc * sc
        f[_PDD + c] += bd * sd
        f[_PHH + c] += bh * sh
        f[_PWW + c] += bw * sw
        f[_PZZ + c] += bz * sz
        f[_PRR + c] += br * sr + r_more
        f[_PQQ + c] += bq * sq + q_more
        f[_SA + c] = sa * bias_ratio
        f[_SB + c] = sb * bias_ratio
        f[_SC + c] = sc * bias_ratio
        f[_SD + c] = sd * bias_ratio
        f[_SH + c] = sh * bias_ratio
        f[_SW + c] = sw * bias_ratio
        f[_SZ + c] = sz_kept
        f[_SR + c] = sr * bias_ratio
        f[_SQ + c] = sq * bias_ratio


@kernel
def share_bias(f: Any, soc: Any, soc_std: Any, step_b: np.float32, bias_var: np.float32, floor2: np.float32) -> None:
    """Effect of the correction `step_b` of the bias on the states of one block, their limits, SoC and its deviation."""
    for c in range(_LANES):
        f[_XA + c] += f[_SA + c] * step_b
        f[_XB + c] += f[_SB + c] * step_b
        f[_XC + c] += f[_SC + c] * step_b
        f[_XD + c] += f[_SD + c] * step_b
        f[_XW + c] += f[_SW + c] * step_b
        f[_XH + c] = _within(f[_XH + c] + f[_SH + c] * step_b, -_ONE, _ONE)
        f[_XR + c] = _within(f[_XR + c] + f[_SR + c] * step_b, -_R_MAX, _R_MAX)
        f[_XQ + c] = _within(f[_XQ + c] + f[_SQ + c] * step_b, _Q_MIN, _Q_MAX)
        sz = f[_SZ + c]
        z = f[_XZ + c] + sz * step_b
        limited = _within(z, _Z_MIN, _Z_MAX)
        low = f[_XL + c]
        f[_XL + c] = low if limited == z else _ZERO
        f[_XZ + c] = limited
        soc[c] = _within(limited, _ZERO, _ONE)
        soc_std[c] = sqrt(f[_PZZ + c] + sz * sz * bias_var + floor2)


@kernel
def clear_sums(w: Any) -> None:
    """Start the sums over the cells."""
    for c in range(_LANES):
        w[_INFO + c] = _ZERO
        w[_PULL + c] = _ZERO
        w[_ALL_OK + c] = _ONE


@kernel
def total(w: Any) -> tuple[np.float32, np.float32, bool]:
    """The two sums, and whether all voltages were usable: halves of the lanes added, an order that no width changes."""
    half = u8(LANES // 2)
    while half > u8(0):
        for c in range(half):
            w[_INFO + c] += w[_INFO + half + c]
            w[_PULL + c] += w[_PULL + half + c]
            w[_ALL_OK + c] = _at_most(w[_ALL_OK + c], w[_ALL_OK + half + c])
        half = half >> u8(1)
    return w[_INFO], w[_PULL], bool(w[_ALL_OK] == _ONE)
