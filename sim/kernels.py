"""The physics of a rack, compiled: currents, charge, polarisation, hysteresis, heat, DC link, energy accounts.

How state lies in memory: `sim.layout` (imported as `Y`). Every update is exact for a current that is constant over the
sub-step, or implicit, hence stable for any sub-step:

- RC pairs and the DC link use exponentials; the hysteresis a Pade form whose factor stays within -1..1;
- the terminal voltage over a sub-step is the mean over it, affine in the current, v = E - R i with R the ohmic
  resistance plus what the current itself moves within the sub-step (half the OCV slope, the RC pairs' build-up), so
  that parallel cells share the current exactly, v = (sum E/R - I) / (sum 1/R + G), and the energy accounts close.

Loops over the lanes of a block have a constant length, one base and constant distances: they become SIMD. What cannot
(table look-up, the coolant that warms along its module) is kept apart from the arithmetic. Sums have an order of
their own, so that a result depends neither on the width of vectors nor on the number of threads.

Arguments of the helpers: one rack's rows `cells`, `groups`, `balance`, `s` (string) and its slot `work`, all one-
dimensional; `c` and `d` are one block of `cells` and of the derived rows, `t` the spare rows.
"""

from __future__ import annotations

import numpy as np

from sim import layout as Y
from sim import mathd
from sim.jit import interpolate, kernel, prefetch
from sim.link import flow, sign_of
from sim.runaway import LOOK_S, at_rest, awake, parts_of, react_rack
from sim.shuttle import lost_w, move_charge

KELVIN = 273.15
BOLTZMANN_EV = 8.617333262e-5

_LANES = Y.LANES
_FIRST, _SECOND, _THIRD, _FOURTH = range(Y.T_SUMS, Y.T_SUMS + 4 * Y.ADD_LANES, Y.ADD_LANES)


@kernel
def _clear_sums(t):
    """Start all sums at nothing."""
    for k in range(4 * Y.ADD_LANES):
        t[_FIRST + k] = 0.0


@kernel
def _add(t, row, total, m):
    """Add the first `m` lanes of `row` to the partial sums at `total`."""
    for k in range(m, _LANES):
        t[row + k] = 0.0
    for k in range(8):
        t[total + k] += (t[row + k] + t[row + 8 + k]) + (t[row + 16 + k] + t[row + 24 + k])


@kernel
def _sum(t, total):
    """The partial sums at `total`, added up."""
    return ((t[total] + t[total + 4]) + (t[total + 2] + t[total + 6])) + (
        (t[total + 1] + t[total + 5]) + (t[total + 3] + t[total + 7])
    )


@kernel
def _look_up(c, t, table):
    """Find the places of a block's cells in `table` (see `RackBank`) and interpolate there."""
    last = table.shape[0] - 1.0
    top = last - 1.0
    for k in range(_LANES):
        x = c[Y.C_SOC + k] * last
        low = np.floor(x)
        low = low if low > 0.0 else 0.0
        low = low if low < top else top
        t[Y.T_INDEX + k] = low
        t[Y.T_PLACE + k] = x - low
        t[Y.T_INSIDE + k] = min(max(x - low, 0.0), 1.0)
    for k in range(0, _LANES, 8):
        interpolate(table, t, Y.T_INDEX + k, Y.T_INSIDE + k, Y.T_U + k, _LANES)


@kernel
def _derive(c, d, t, table, p, sign):
    """Refresh the derived rows of a block from its state."""
    _look_up(c, t, table)
    last = table.shape[0] - 1.0
    ref_degc = p[Y.P_REF_DEGC]
    inverse_ref = 1.0 / (ref_degc + KELVIN)
    ohmic_k, polar_k = p[Y.P_EA_OHMIC] / BOLTZMANN_EV, p[Y.P_EA_POLAR] / BOLTZMANN_EV
    m0 = p[Y.P_M0] * sign
    r0, r1, r2, r3, r4 = p[Y.P_R0], p[Y.P_R1], p[Y.P_R2], p[Y.P_R3], p[Y.P_R4]
    for k in range(_LANES):
        inverse = 1.0 / (c[Y.C_DEGC + k] + KELVIN)
        arrhenius = inverse - inverse_ref
        t[Y.T_B + k] = inverse
        d[Y.D_R0 + k] = mathd.exp(ohmic_k * arrhenius)
        d[Y.D_KP + k] = mathd.exp(polar_k * arrhenius)
    for k in range(_LANES):
        x = t[Y.T_PLACE + k]
        inside = t[Y.T_INSIDE + k]
        warmer = c[Y.C_DEGC + k] - ref_degc
        dudt = t[Y.T_DUDT + k]
        dudt_slope = t[Y.T_DDUDT + k] * last if inside == x else 0.0
        u = t[Y.T_U + k] + (x - inside) * t[Y.T_DU + k] + warmer * dudt  # beyond the table along its last slope
        scale = c[Y.C_SCALE + k]
        kp = t[Y.T_POLAR + k] * scale * d[Y.D_KP + k]
        d[Y.D_U + k] = u
        d[Y.D_SLOPE + k] = t[Y.T_DU + k] * last + warmer * dudt_slope
        d[Y.D_DUDT + k] = dudt
        d[Y.D_DUDT_SLOPE + k] = dudt_slope
        d[Y.D_R0 + k] = t[Y.T_OHMIC + k] * (r0 * scale) * d[Y.D_R0 + k]
        d[Y.D_KP + k] = kp
        slow = r2 * c[Y.C_X2 + k] + r3 * c[Y.C_X3 + k] + r4 * c[Y.C_X4 + k]
        d[Y.D_E + k] = u + t[Y.T_M + k] * c[Y.C_HYST + k] - m0 - kp * slow
        # the fastest pair is the charge transfer: its resistance falls with the current as Butler and Volmer have it
        t[Y.T_A + k] = kp * r1 * c[Y.C_X1 + k]
    for k in range(_LANES):
        ratio = mathd.asinh_ratio(t[Y.T_A + k] * t[Y.T_B + k] * (0.5 / BOLTZMANN_EV))
        d[Y.D_K1 + k] = d[Y.D_KP + k] * ratio
        d[Y.D_E + k] -= t[Y.T_A + k] * ratio


@kernel
def _lanes_of(p, b):
    """How many groups of block `b` the rack has."""
    return min(int(p[Y.P_N_SERIES]) - b * _LANES, _LANES)


@kernel
def _terminals(groups, balance, work, t, p, ampere, b, first_sum, second_sum):
    """Voltage and resistance of the groups of block `b` at this instant; adds resistances and voltages up."""
    balance_s = p[Y.P_BALANCE_S]
    n_parallel = int(p[Y.P_N_PARALLEL])
    levels = int(p[Y.P_LEVELS_AT])
    v = work[levels + b * Y.V_BLOCK : levels + (b + 1) * Y.V_BLOCK]
    g = groups[b * Y.G_BLOCK : (b + 1) * Y.G_BLOCK]
    bleed = balance[b * _LANES : (b + 1) * _LANES]
    for k in range(_LANES):
        t[Y.T_A + k] = bleed[k] * balance_s + g[Y.G_LEAK_S + k]
        t[Y.T_B + k] = -ampere
    for q in range(n_parallel):
        j = b * n_parallel + q
        d = work[j * Y.D_BLOCK : (j + 1) * Y.D_BLOCK]
        for k in range(_LANES):
            conductance = 1.0 / d[Y.D_R0 + k]
            t[Y.T_A + k] += conductance
            t[Y.T_B + k] += conductance * d[Y.D_E + k]
    for k in range(_LANES):
        ohm = 1.0 / t[Y.T_A + k]
        volt = t[Y.T_B + k] * ohm
        v[Y.V_EFF_OHM + k] = ohm
        v[Y.V_NOW + k] = volt
        t[Y.T_A + k] = ohm
        t[Y.T_B + k] = volt
    m = _lanes_of(p, b)
    _add(t, Y.T_A, first_sum, m)
    _add(t, Y.T_B, second_sum, m)


@kernel
def _string(s, p, ohm, volt):
    """Resistance and voltage of the string at this instant from the sums over its groups, busbars included."""
    busbars = p[Y.P_BUSBAR_OHM] * p[Y.P_N_SERIES] + s[Y.S_JOINT_OHM]
    s[Y.S_OHM] = ohm + busbars
    s[Y.S_PACK_V] = volt - busbars * s[Y.S_AMPERE]


@kernel
def settle_rack(cells, groups, balance, s, work, table, p):
    """Make every derived value agree with the state, with the string current as it is: after a change from outside."""
    spare = int(p[Y.P_SPARE_AT])
    t = work[spare : spare + Y.T_SIZE]
    _clear_sums(t)
    n_parallel = int(p[Y.P_N_PARALLEL])
    for b in range(int(p[Y.P_BLOCKS])):
        for q in range(n_parallel):
            j = b * n_parallel + q
            c = cells[j * Y.C_BLOCK : (j + 1) * Y.C_BLOCK]
            _derive(c, work[j * Y.D_BLOCK : (j + 1) * Y.D_BLOCK], t, table, p, s[Y.S_SIGN])
        _terminals(groups, balance, work, t, p, s[Y.S_AMPERE], b, _FIRST, _SECOND)
    moved_v = move_charge(balance, work, p, Y.V_NOW, Y.V_EFF_OHM) if p[Y.P_SHUTTLE_A] > 0.0 else 0.0
    _string(s, p, _sum(t, _FIRST), _sum(t, _SECOND) - moved_v)


@kernel
def _source(cells, groups, balance, work, table, p, derived, sign, shift, dt, b1, b2, b3, b4):
    """Mean over the sub-step of the string's voltage at zero current, and its resistance: v = E - R I.

    `b1` to `b4` are the weights of the RC pairs: for each, the mean of exp(-t/tau) over the sub-step. Where the derived
    rows are not `derived` yet, they are made with the `sign` of the last current; then it changes, by `shift` volts.
    """
    n_parallel = int(p[Y.P_N_PARALLEL])
    levels = int(p[Y.P_LEVELS_AT])
    spare = int(p[Y.P_SPARE_AT])
    t = work[spare : spare + Y.T_SIZE]
    balance_s = p[Y.P_BALANCE_S]
    share1, share2 = p[Y.P_R1] * (1.0 - b1), p[Y.P_R2] * (1.0 - b2)
    share3, share4 = p[Y.P_R3] * (1.0 - b3), p[Y.P_R4] * (1.0 - b4)
    slow_share = share2 + share3 + share4
    half_dt = 0.5 * dt
    _clear_sums(t)
    for b in range(int(p[Y.P_BLOCKS])):
        v = work[levels + b * Y.V_BLOCK : levels + (b + 1) * Y.V_BLOCK]
        g = groups[b * Y.G_BLOCK : (b + 1) * Y.G_BLOCK]
        bleed = balance[b * _LANES : (b + 1) * _LANES]
        for k in range(_LANES):
            v[Y.V_MEAN_OHM + k] = bleed[k] * balance_s + g[Y.G_LEAK_S + k]  # conductance, at first
            v[Y.V_MEAN + k] = 0.0
        for q in range(n_parallel):
            j = b * n_parallel + q
            c = cells[j * Y.C_BLOCK : (j + 1) * Y.C_BLOCK]
            d = work[j * Y.D_BLOCK : (j + 1) * Y.D_BLOCK]
            if not derived:
                _derive(c, d, t, table, p, sign)
            if shift != 0.0:
                for k in range(_LANES):
                    d[Y.D_E + k] -= shift
            for k in range(_LANES):
                # x_mean = b x + (1 - b) i, b the mean of the exponential; the charge transfer is held on its secant
                kp = d[Y.D_KP + k]
                first = d[Y.D_K1 + k] * share1
                slow = share2 * c[Y.C_X2 + k] + share3 * c[Y.C_X3 + k] + share4 * c[Y.C_X4 + k]
                inverse = 1.0 / c[Y.C_CAPACITY_AS + k]
                e = d[Y.D_E + k] + first * c[Y.C_X1 + k] + kp * slow
                r = d[Y.D_R0 + k] + d[Y.D_SLOPE + k] * half_dt * inverse + first + kp * slow_share
                conductance = 1.0 / r
                d[Y.D_INVERSE_AS + k] = inverse
                d[Y.D_EMEAN + k] = e
                d[Y.D_MEAN_S + k] = conductance
                v[Y.V_MEAN_OHM + k] += conductance
                v[Y.V_MEAN + k] += conductance * e
        for k in range(_LANES):
            ohm = 1.0 / v[Y.V_MEAN_OHM + k]
            volt = v[Y.V_MEAN + k] * ohm
            v[Y.V_MEAN_OHM + k] = ohm
            v[Y.V_MEAN + k] = volt  # at zero string current; the current's share is taken off later
            t[Y.T_A + k] = ohm
            t[Y.T_B + k] = volt
        m = _lanes_of(p, b)
        _add(t, Y.T_A, _FIRST, m)
        _add(t, Y.T_B, _SECOND, m)
    moved_v = move_charge(balance, work, p, Y.V_MEAN, Y.V_MEAN_OHM) if p[Y.P_SHUTTLE_A] > 0.0 else 0.0
    return _sum(t, _SECOND) - moved_v, _sum(t, _FIRST) + p[Y.P_BUSBAR_OHM] * p[Y.P_N_SERIES]


@kernel
def _move(c, d, v, t, p, dt, a1, a2, a3, a4):
    """Cells of a block over the sub-step at the group voltages V_MEAN; leaves the heat in D_HEAT_W."""
    eta = p[Y.P_ETA]
    kelvin_ref = p[Y.P_REF_DEGC] + KELVIN
    half_gamma = 0.5 * p[Y.P_GAMMA] * dt
    for k in range(_LANES):
        volt = v[Y.V_MEAN + k]
        inverse = d[Y.D_INVERSE_AS + k]
        i = (d[Y.D_EMEAN + k] - volt) * d[Y.D_MEAN_S + k]
        # hysteresis relaxes towards -sgn(i) over charge, with factor exp(-alpha) ~ (1 - a/2)/(1 + a/2)
        half = half_gamma * abs(i) * inverse
        keep = (1.0 - half) / (1.0 + half)
        towards = -1.0 if i > 0.0 else 1.0
        c[Y.C_HYST + k] = towards + (c[Y.C_HYST + k] - towards) * keep
        eff = eta if i < 0.0 else 1.0
        dz = -eff * i * dt * inverse
        u = d[Y.D_U + k] + 0.5 * d[Y.D_SLOPE + k] * dz
        dudt = d[Y.D_DUDT + k] + 0.5 * d[Y.D_DUDT_SLOPE + k] * dz
        kelvin = c[Y.C_DEGC + k] + KELVIN
        # i (U - v) - i T dU/dT [Bernardi 1985], the enthalpy of the charge lost in side reactions, the leak (T_C)
        u_ref = u - (kelvin - kelvin_ref) * dudt
        lost = (1.0 - eff) * (u_ref - kelvin_ref * dudt)
        d[Y.D_HEAT_W + k] = i * (u - volt - kelvin * dudt - lost) + t[Y.T_C + k]
        d[Y.D_AMPERE + k] = i
        c[Y.C_SOC + k] += dz
        c[Y.C_X1 + k] = i + (c[Y.C_X1 + k] - i) * a1
        c[Y.C_X2 + k] = i + (c[Y.C_X2 + k] - i) * a2
        c[Y.C_X3 + k] = i + (c[Y.C_X3 + k] - i) * a3
        c[Y.C_X4 + k] = i + (c[Y.C_X4 + k] - i) * a4


@kernel
def _update(cells, groups, balance, s, work, p, ahead, ahead_groups, amp, energy, dt, a1, a2, a3, a4):
    """State of all cells over the sub-step, with mean string current `amp`; keeps the accounts."""
    n_parallel = int(p[Y.P_N_PARALLEL])
    levels = int(p[Y.P_LEVELS_AT])
    spare = int(p[Y.P_SPARE_AT])
    t = work[spare : spare + Y.T_SIZE]
    flat, stride = int(p[Y.P_FLAT_AT]), int(p[Y.P_FLAT_STRIDE])
    degc = work[flat : flat + stride]
    share = work[flat + stride : flat + 2 * stride]
    balance_s = p[Y.P_BALANCE_S]
    per_cell = 1.0 / n_parallel
    broken = p[Y.P_BROKEN] > 0.0
    row = int(p[Y.P_BLOCKS]) * _LANES
    heater_at = int(p[Y.P_BLOCKS]) * Y.G_BLOCK + Y.X_HEAT_W * row
    joint_at = int(p[Y.P_BLOCKS]) * Y.G_BLOCK + Y.X_WARMING_OHM * row
    heater_w, joint_w, square = 0.0, 0.0, amp * amp
    _clear_sums(t)
    for b in range(int(p[Y.P_BLOCKS])):
        m = _lanes_of(p, b)
        v = work[levels + b * Y.V_BLOCK : levels + (b + 1) * Y.V_BLOCK]
        g = groups[b * Y.G_BLOCK : (b + 1) * Y.G_BLOCK]
        bleed = balance[b * _LANES : (b + 1) * _LANES]
        for k in range(_LANES):
            volt = v[Y.V_MEAN + k] - amp * v[Y.V_MEAN_OHM + k]
            v[Y.V_MEAN + k] = volt
            t[Y.T_A + k] = volt
            t[Y.T_B + k] = volt * volt * (bleed[k] * balance_s)
            t[Y.T_C + k] = volt * volt * g[Y.G_LEAK_S + k] * per_cell
        if broken:
            heater = groups[heater_at + b * _LANES : heater_at + (b + 1) * _LANES]
            joint = groups[joint_at + b * _LANES : joint_at + (b + 1) * _LANES]
            for k in range(_LANES):
                t[Y.T_C + k] += (heater[k] + square * joint[k]) * per_cell
            for k in range(m):
                heater_w += heater[k]
                joint_w += square * joint[k]
        _add(t, Y.T_A, _FIRST, m)
        _add(t, Y.T_B, _SECOND, m)
        if ahead_groups.size > 0:
            for line in range(b * Y.G_BLOCK, (b + 1) * Y.G_BLOCK, 8):
                prefetch(ahead_groups, line)
        for q in range(n_parallel):
            j = b * n_parallel + q
            d = work[j * Y.D_BLOCK : (j + 1) * Y.D_BLOCK]
            c = cells[j * Y.C_BLOCK : (j + 1) * Y.C_BLOCK]
            _move(c, d, v, t, p, dt, a1, a2, a3, a4)
            for k in range(m, _LANES):
                d[Y.D_HEAT_W + k] = 0.0  # nothing cools the lanes that nobody counts
            for k in range(_LANES):
                t[Y.T_A + k] = d[Y.D_HEAT_W + k]
            _add(t, Y.T_A, _THIRD, m)
            # the heat wants temperatures and coolant in the order of the cells
            if ahead.size > 0:
                for line in range(j * Y.C_BLOCK, (j + 1) * Y.C_BLOCK, 8):
                    prefetch(ahead, line)
            first = b * _LANES * n_parallel + q
            if n_parallel == 1:
                for k in range(_LANES):
                    degc[first + k] = c[Y.C_DEGC + k]
                for k in range(_LANES):
                    share[first + k] = c[Y.C_COOLANT_SHARE + k]
            else:
                for k in range(_LANES):
                    degc[first + k * n_parallel] = c[Y.C_DEGC + k]
                    share[first + k * n_parallel] = c[Y.C_COOLANT_SHARE + k]
    heat_w = _sum(t, _THIRD)
    s[Y.S_HEAT_W] = heat_w
    s[Y.S_HEAT_J] += heat_w * dt
    s[Y.S_BLEED_J] += _sum(t, _SECOND) * dt
    s[Y.S_PATH_J] += _sum(t, _FIRST) * amp * dt - energy - joint_w * dt  # a joint's heat is in the cells beside it
    s[Y.S_HEATER_J] += heater_w * dt
    if p[Y.P_SHUTTLE_A] > 0.0:
        s[Y.S_SHUTTLE_J] += lost_w(work, p, Y.V_MEAN) * dt
    s[Y.S_CHARGE_AS] += amp * dt
    s[Y.S_POWER_W] = energy / dt
    if energy > 0.0:
        s[Y.S_OUT_J] += energy
    else:
        s[Y.S_IN_J] -= energy


@kernel
def _coolant(degc, share, gained, first, module, n, inlet):
    """Warm the coolant along the modules from cell `first` on, four side by side while there are four whole ones.

    `gained`: by how much each cell warms it, K. The chain along a module waits for itself, not for the other chains.
    Returns the number of cells done and the sum of the outlets' temperatures.
    """
    if first + 4 * module <= n:
        a, b, c, d = inlet, inlet, inlet, inlet
        for k in range(first, first + module):
            gain = share[k] * (degc[k] - a)
            gained[k] = gain
            a += gain
            gain = share[k + module] * (degc[k + module] - b)
            gained[k + module] = gain
            b += gain
            gain = share[k + 2 * module] * (degc[k + 2 * module] - c)
            gained[k + 2 * module] = gain
            c += gain
            gain = share[k + 3 * module] * (degc[k + 3 * module] - d)
            gained[k + 3 * module] = gain
            d += gain
        return 4 * module, (a + b) + (c + d)
    a = inlet
    last = min(first + module, n)
    for k in range(first, last):
        gain = share[k] * (degc[k] - a)
        gained[k] = gain
        a += gain
    return last - first, a


@kernel
def _warm(cells, groups, balance, s, work, table, p, dt, coolant_keep):
    """Heat over the sub-step: neighbours in a module, ambient, coolant. Then make what follows from the new state."""
    n_parallel = int(p[Y.P_N_PARALLEL])
    n = int(p[Y.P_N_SERIES]) * n_parallel
    n_blocks = int(p[Y.P_BLOCKS])
    size = n_blocks * n_parallel * _LANES
    flat, stride = int(p[Y.P_FLAT_AT]), int(p[Y.P_FLAT_STRIDE])
    degc = work[flat : flat + stride]
    share = work[flat + stride : flat + 2 * stride]
    gained = work[flat + 2 * stride : flat + 3 * stride]
    right = work[flat + 3 * stride : flat + 4 * stride]  # heat to the next cell, at place k + 1
    spare = int(p[Y.P_SPARE_AT])
    t = work[spare : spare + Y.T_SIZE]
    conduction = p[Y.P_CONDUCTION]
    module = int(p[Y.P_MODULE])
    for k in range(n):
        right[k + 1] = conduction * (degc[k] - degc[k + 1])
    right[0] = 0.0
    for m in range(1, (n - 1) // module + 1):
        right[m * module] = 0.0
    every = int(p[Y.P_BARRIER_EVERY])
    if every > 0:
        for k in range(1, n):
            if k % module % every == 0:
                right[k] *= p[Y.P_BARRIER_SHARE]
    for k in range(n, size + 1):
        right[k] = 0.0
    for k in range(n, size):
        gained[k] = 0.0
    inlet = s[Y.S_COOLANT_SET] + (s[Y.S_COOLANT_IN] - s[Y.S_COOLANT_SET]) * coolant_keep
    s[Y.S_COOLANT_IN] = inlet
    flow = s[Y.S_FLOW_W_PER_K]
    outlets = 0.0
    done = 0
    while done < n:
        step, warm = _coolant(degc, share, gained, done, module, n, inlet)
        outlets += warm
        done += step
    s[Y.S_COOLANT_OUT] = outlets / ((n + module - 1) // module) if flow > 0.0 else inlet

    warming = dt / p[Y.P_HEAT_CAPACITY]
    ambient_g = p[Y.P_AMBIENT_G]
    ambient = s[Y.S_AMBIENT]
    _clear_sums(t)
    for b in range(n_blocks):
        m = _lanes_of(p, b)
        for q in range(n_parallel):
            j = b * n_parallel + q
            c = cells[j * Y.C_BLOCK : (j + 1) * Y.C_BLOCK]
            d = work[j * Y.D_BLOCK : (j + 1) * Y.D_BLOCK]
            first = b * _LANES * n_parallel + q
            for k in range(_LANES):
                at = first + k * n_parallel
                t[Y.T_A + k] = gained[at]
                t[Y.T_C + k] = right[at] - right[at + 1]
            for k in range(_LANES):
                lost = ambient_g * (c[Y.C_DEGC + k] - ambient)
                taken = flow * t[Y.T_A + k]
                t[Y.T_B + k] = lost
                c[Y.C_DEGC + k] += warming * (d[Y.D_HEAT_W + k] + t[Y.T_C + k] - taken - lost)
            _add(t, Y.T_A, _FIRST, m)
            _add(t, Y.T_B, _SECOND, m)
            _derive(c, d, t, table, p, s[Y.S_SIGN])
        _terminals(groups, balance, work, t, p, s[Y.S_AMPERE], b, _THIRD, _FOURTH)
    moved_v = move_charge(balance, work, p, Y.V_NOW, Y.V_EFF_OHM) if p[Y.P_SHUTTLE_A] > 0.0 else 0.0
    _string(s, p, _sum(t, _THIRD), _sum(t, _FOURTH) - moved_v)
    s[Y.S_COOLANT_J] += flow * _sum(t, _FIRST) * dt
    s[Y.S_AMBIENT_J] += _sum(t, _SECOND) * dt


@kernel
def _steps(
    cells, groups, balance, s, work, table, chemistry, p, requests, ahead, ahead_groups, path, request_is_current,
    derived, look, dt,
):  # fmt: skip
    """Sub-steps of all but side reactions. Stops after one in which the rack wakes up, where it shall `look` for that.

    Returns how many it has made.
    """
    a1, a2 = mathd.exp(-dt / p[Y.P_TAU1]), mathd.exp(-dt / p[Y.P_TAU2])
    a3, a4 = mathd.exp(-dt / p[Y.P_TAU3]), mathd.exp(-dt / p[Y.P_TAU4])
    b1, b2 = p[Y.P_TAU1] * (1.0 - a1) / dt, p[Y.P_TAU2] * (1.0 - a2) / dt
    b3, b4 = p[Y.P_TAU3] * (1.0 - a3) / dt, p[Y.P_TAU4] * (1.0 - a4) / dt
    coolant_keep = mathd.exp(-dt / p[Y.P_COOLANT_TAU])
    for step in range(requests.shape[0]):
        request = requests[step] * s[Y.S_SHARE]
        before = s[Y.S_SIGN]
        s[Y.S_SIGN] = sign_of(s, path, request)
        shift = p[Y.P_M0] * (s[Y.S_SIGN] - before)
        known = derived or step > 0
        emf, ohm = _source(cells, groups, balance, work, table, p, known, before, shift, dt, b1, b2, b3, b4)
        ohm += s[Y.S_JOINT_OHM]
        amp, amp_end, energy = flow(s, p, path, emf, ohm, request, request_is_current, dt)
        s[Y.S_PREVIOUS_A] = s[Y.S_AMPERE]
        s[Y.S_AMPERE] = amp_end
        _update(cells, groups, balance, s, work, p, ahead, ahead_groups, amp, energy, dt, a1, a2, a3, a4)
        _warm(cells, groups, balance, s, work, table, p, dt, coolant_keep)
        s[Y.S_TIME_S] += dt
        if look and s[Y.S_TIME_S] >= s[Y.S_LOOK_S]:
            s[Y.S_LOOK_S] = s[Y.S_TIME_S] + LOOK_S
            if awake(cells, work, p, chemistry):
                s[Y.S_AWAKE] = 1.0
                return step + 1
    return requests.shape[0]


@kernel
def advance_rack(
    cells, groups, balance, burn, s, work, table, chemistry, p, requests, ahead, ahead_groups, path,
    request_is_current, derived, dt,
):  # fmt: skip
    """Integrate `len(requests)` sub-steps of `dt` seconds, one request of the PCS (W or A) for each.

    `path` is OPEN, PRECHARGE or CLOSED. `derived`: the derived rows in `work` are those of this rack's state already.
    `ahead` and `ahead_groups` are the rows of the rack that comes next, fetched into the cache meanwhile, or empty.
    Once it is awake, a sub-step is made in parts and each is followed by the side reactions (see `sim.runaway`).
    """
    done = 0
    burns = p[Y.P_BURNS] > 0.0
    if s[Y.S_AWAKE] == 0.0 or not burns:
        done = _steps(
            cells, groups, balance, s, work, table, chemistry, p, requests, ahead, ahead_groups, path,
            request_is_current, derived, burns, dt,
        )  # fmt: skip
    for step in range(done, requests.shape[0]):
        parts = parts_of(s, dt)
        for part in range(parts):
            _steps(
                cells, groups, balance, s, work, table, chemistry, p, requests[step : step + 1], ahead, ahead_groups,
                path, request_is_current, derived or step + part > 0, False, dt / parts,
            )  # fmt: skip
            react_rack(cells, groups, burn, s, work, p, chemistry, dt / parts)
            settle_rack(cells, groups, balance, s, work, table, p)


@kernel("void(f8[:,::1], f8[:,::1], u1[:,::1], f8[:,::1], f8[:,::1], f8[:,::1], f8[::1], i8, i8, i8)")
def settle_racks(cells, groups, balance, string, work, table, p, lo, hi, slot):
    """`settle_rack` for the racks `lo` to `hi` - 1, in slot `slot` of `work`."""
    for r in range(lo, hi):
        settle_rack(cells[r], groups[r], balance[r], string[r], work[slot], table, p)


@kernel(
    "void(f8[:,::1], f8[:,::1], u1[:,::1], f8[:,::1], f8[:,::1], f8[:,::1], f8[:,::1], f8[::1], f8[::1], f8[::1], "
    "i8, i8, b1, f8, i8, i8)"
)
def advance_racks(
    cells, groups, balance, burn, string, work, table, chemistry, p, requests, n_steps, path, request_is_current, dt,
    lo, hi,
):  # fmt: skip
    """`advance_rack` over the first `n_steps` requests, for the racks `lo` to `hi` - 1, each in a slot of its own."""
    for r in range(lo, hi):
        advance_rack(
            cells[r], groups[r], balance[r], burn[r], string[r], work[r], table, chemistry, p, requests[:n_steps],
            cells[r, :0], groups[r, :0], path, request_is_current, True, dt,
        )  # fmt: skip


@kernel(
    "void(f8[:,::1], f8[:,::1], u1[:,::1], f8[:,::1], f8[:,::1], f8[:,::1], f8[:,::1], f8[::1], f8[::1], f8, i8, i8)"
)
def react_racks(cells, groups, balance, burn, string, work, table, chemistry, p, dt, lo, hi):
    """Side reactions alone of the racks `lo` to `hi` - 1, in one step of `dt`, each in a slot of its own."""
    for r in range(lo, hi):
        at_rest(cells[r], work[r], p)
        string[r, Y.S_TIME_S] += dt
        react_rack(cells[r], groups[r], burn[r], string[r], work[r], p, chemistry, dt)
        settle_rack(cells[r], groups[r], balance[r], string[r], work[r], table, p)
