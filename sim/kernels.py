"""The physics of a rack, compiled: currents, charge, polarisation, hysteresis, heat, DC link, energy accounts.

State lives in four caller-owned float64 arrays: `cells` [C_ROWS, n] (series groups one after the other, the parallel
cells of a group side by side), `groups` [G_ROWS, n_series], `string` [S_SIZE], and the constants `p` [P_SIZE].

Every update is exact for a current that is constant over the sub-step, or implicit, hence stable for any sub-step:

- RC pairs and the DC link use exponentials; the hysteresis a Pade form whose factor stays within -1..1;
- the terminal voltage over a sub-step is the mean over it, affine in the current, v = E - R i with R the ohmic
  resistance plus what the current itself moves within the sub-step (half the OCV slope, the RC pairs' build-up), so
  that parallel cells share the current exactly, v = (sum E/R - I) / (sum 1/R + G), and the energy accounts close.
"""

from __future__ import annotations

import math

import numpy as np

from sim.jit import kernel

# rows of `cells`: state
C_SOC, C_HYST, C_X1, C_X2, C_X3, C_X4, C_DEGC = range(7)
# constants of each cell
C_CAPACITY_AS, C_OHMIC_OHM, C_POLAR_SCALE, C_HEAT_CAPACITY, C_COOLANT_W_PER_K = range(7, 12)
# derived at the end of each sub-step, for the next one and for the sensors
C_U, C_SLOPE, C_DUDT, C_DUDT_SLOPE, C_R0, C_K1, C_KP, C_E = range(12, 20)
# results of the last sub-step
C_AMPERE, C_HEAT_W, C_EMEAN, C_RMEAN = range(20, 24)
C_ROWS = 24

# rows of `groups`: conductances across the group, busbar after it, voltages, accounts
G_BLEED_S, G_BALANCE_S, G_LEAK_S, G_BUSBAR_OHM, G_V, G_VMEAN, G_SUM_S, G_EFF_OHM = range(8)
G_ROWS = 8

# `string`: state and results of the series string and the DC link, then the accounts in joule and ampere-second
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
    S_COOLANT_J,
    S_AMBIENT_J,
    S_SIZE,
) = range(23)

# `p`: constants of the rack
(
    P_N_PARALLEL,
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
    P_R1,
    P_R2,
    P_R3,
    P_R4,
    P_CONDUCTION,
    P_AMBIENT_G,
    P_MODULE,
    P_FLOW_W_PER_K,
    P_COOLANT_TAU,
    P_PATH_OHM,
    P_PRECHARGE_OHM,
    P_LINK_F,
    P_LINK_OHM,
    P_SIZE,
) = range(25)

OPEN, PRECHARGE, CLOSED = 0, 1, 2
"""Path from the string to the DC link."""

KELVIN = 273.15
BOLTZMANN_EV = 8.617333262e-5


@kernel
def _look_up(cells, table, p, sign):
    """Refresh the derived rows of every cell from its state."""
    n = cells.shape[1]
    last = table.shape[0] - 1
    step = 1.0 / last
    ref_degc = p[P_REF_DEGC]
    inv_ref = 1.0 / (ref_degc + KELVIN)
    m0 = p[P_M0] * sign
    r1, r2, r3, r4 = p[P_R1], p[P_R2], p[P_R3], p[P_R4]
    for k in range(n):
        x = cells[C_SOC, k] * last
        i = min(max(math.floor(min(max(x, -1.0), last + 1.0)), 0), last - 1)
        t = x - i
        tc = min(max(t, 0.0), 1.0)
        slope = (table[i + 1, 0] - table[i, 0]) * last
        dudt = table[i, 2] + tc * (table[i + 1, 2] - table[i, 2])
        dudt_slope = (table[i + 1, 2] - table[i, 2]) * last if tc == t else 0.0
        m = table[i, 1] + tc * (table[i + 1, 1] - table[i, 1])
        warmer = cells[C_DEGC, k] - ref_degc
        arrhenius = (1.0 / (cells[C_DEGC, k] + KELVIN) - inv_ref) / BOLTZMANN_EV
        u = table[i, 0] + t * step * slope + warmer * dudt
        kp = (
            (table[i, 4] + tc * (table[i + 1, 4] - table[i, 4]))
            * cells[C_POLAR_SCALE, k]
            * math.exp(p[P_EA_POLAR] * arrhenius)
        )
        # the fastest pair is the charge transfer: its resistance falls with the current as Butler and Volmer have it
        thermal_v = 2.0 * BOLTZMANN_EV * (cells[C_DEGC, k] + KELVIN)
        linear = kp * r1 * cells[C_X1, k]
        transfer = thermal_v * math.asinh(linear / thermal_v)
        cells[C_U, k] = u
        cells[C_SLOPE, k] = slope + warmer * dudt_slope
        cells[C_DUDT, k] = dudt
        cells[C_DUDT_SLOPE, k] = dudt_slope
        cells[C_R0, k] = (
            (table[i, 3] + tc * (table[i + 1, 3] - table[i, 3]))
            * cells[C_OHMIC_OHM, k]
            * math.exp(p[P_EA_OHMIC] * arrhenius)
        )
        cells[C_K1, k] = kp * transfer / linear if linear != 0.0 else kp
        cells[C_KP, k] = kp
        cells[C_E, k] = (
            u
            + m * cells[C_HYST, k]
            - m0
            - transfer
            - kp * (r2 * cells[C_X2, k] + r3 * cells[C_X3, k] + r4 * cells[C_X4, k])
        )


@kernel
def _terminals(cells, groups, n_parallel, ampere):
    """Group voltages at this instant under the string current `ampere`; returns the string's, busbars included."""
    total = 0.0
    for g in range(groups.shape[1]):
        sum_s = 0.0
        sum_es = 0.0
        for k in range(g * n_parallel, (g + 1) * n_parallel):
            s = 1.0 / cells[C_R0, k]
            sum_s += s
            sum_es += s * cells[C_E, k]
        v = (sum_es - ampere) / (sum_s + groups[G_BLEED_S, g] + groups[G_LEAK_S, g])
        groups[G_V, g] = v
        groups[G_EFF_OHM, g] = 1.0 / (sum_s + groups[G_BLEED_S, g] + groups[G_LEAK_S, g])
        total += v - groups[G_BUSBAR_OHM, g] * ampere
    return total


@kernel
def settle(cells, groups, table, p, string):
    """Make every derived value agree with the state, with the string current as it is: after a change from outside."""
    _look_up(cells, table, p, string[S_SIGN])
    string[S_PACK_V] = _terminals(cells, groups, int(p[P_N_PARALLEL]), string[S_AMPERE])


@kernel
def _source(cells, groups, p, dt, means):
    """Mean over the sub-step of the string's voltage at zero current, and its resistance: v = E - R I.

    `means` are the weights of the RC pairs: for each, the mean of exp(-t/tau) over the sub-step.
    """
    n_parallel = int(p[P_N_PARALLEL])
    share1 = p[P_R1] * (1.0 - means[0])
    share2 = p[P_R2] * (1.0 - means[1])
    share3 = p[P_R3] * (1.0 - means[2])
    share4 = p[P_R4] * (1.0 - means[3])
    emf = 0.0
    ohm = 0.0
    for g in range(groups.shape[1]):
        sum_s = 0.0
        sum_es = 0.0
        for k in range(g * n_parallel, (g + 1) * n_parallel):
            kp = cells[C_KP, k]
            # x_mean = b x + (1 - b) i, with b the mean of the exponential; the charge transfer is held on its secant
            first = cells[C_K1, k] * share1
            e = (
                cells[C_E, k]
                + first * cells[C_X1, k]
                + kp * (share2 * cells[C_X2, k] + share3 * cells[C_X3, k] + share4 * cells[C_X4, k])
            )
            r = (
                cells[C_R0, k]
                + cells[C_SLOPE, k] * dt / (2.0 * cells[C_CAPACITY_AS, k])
                + first
                + kp * (share2 + share3 + share4)
            )
            cells[C_EMEAN, k] = e
            cells[C_RMEAN, k] = r
            s = 1.0 / r
            sum_s += s
            sum_es += s * e
        total_s = sum_s + groups[G_BLEED_S, g] + groups[G_LEAK_S, g]
        groups[G_SUM_S, g] = total_s
        groups[G_VMEAN, g] = sum_es / total_s  # at zero string current; the current's share is taken off later
        emf += sum_es / total_s
        ohm += 1.0 / total_s + groups[G_BUSBAR_OHM, g]
    return emf, ohm


@kernel
def _current_for(e, r, watt):
    """Current at which (e - r I) I = watt, the smaller root; beyond e^2/4r the one of the largest power there is."""
    square = e * e - 4.0 * r * watt
    return 2.0 * watt / (e + math.sqrt(square)) if square > 0.0 else e / (2.0 * r)


@kernel
def _flow(string, p, path, emf, ohm, request, request_is_current, limits, dt):
    """Current of the string over the sub-step, in three cases of the path; updates the DC link.

    Returns (mean current, current at the end, energy delivered to the link in J).
    `limits`: discharge A, charge A, discharge W, charge W, all magnitudes.
    """
    link_f = p[P_LINK_F]
    link_ohm = p[P_LINK_OHM]
    bus = string[S_BUS_V]
    if path == OPEN:
        string[S_BUS_V] = bus * math.exp(-dt / (link_f * link_ohm))
        string[S_PCS_A] = 0.0
        return 0.0, 0.0, 0.0
    if path == PRECHARGE:
        series = ohm + p[P_PATH_OHM] + p[P_PRECHARGE_OHM]
        final = emf * link_ohm / (series + link_ohm)
        tau = link_f * series * link_ohm / (series + link_ohm)
        decay = math.exp(-dt / tau)
        end = final + (bus - final) * decay
        mean = final + (bus - final) * tau * (1.0 - decay) / dt
        mean_square = (
            final * final
            + 2.0 * final * (bus - final) * tau * (1.0 - decay) / dt
            + (bus - final) ** 2 * tau * (1.0 - decay * decay) / (2.0 * dt)
        )
        energy = 0.5 * link_f * (end * end - bus * bus) + mean_square / link_ohm * dt
        string[S_BUS_V] = end
        string[S_PCS_A] = 0.0
        return link_f * (end - bus) / dt + mean / link_ohm, (emf - end) / series, energy
    # closed: the link's capacitor (backward Euler) and its bleed resistor hang on the terminals
    series = ohm + p[P_PATH_OHM]
    divide = 1.0 + series / link_ohm + series * link_f / dt
    e = (emf + series * link_f / dt * bus) / divide
    r = series / divide
    if request_is_current:
        amp = min(max(request, _current_for(e, r, -limits[3])), _current_for(e, r, limits[2]))
    else:
        amp = _current_for(e, r, min(max(request, -limits[3]), limits[2]))
    amp = min(max(amp, -limits[1]), limits[0])
    bus_new = e - r * amp
    total = amp + bus_new / link_ohm + link_f * (bus_new - bus) / dt
    string[S_BUS_V] = bus_new
    string[S_PCS_A] = amp
    return total, total, bus_new * total * dt


@kernel
def advance(cells, groups, table, p, string, path, requests, request_is_current, limits, dt):
    """Integrate `len(requests)` sub-steps of `dt` seconds, one request of the PCS (W or A) for each.

    `path` is OPEN, PRECHARGE or CLOSED; `limits` the published limits (A, A, W, W). Nothing is allocated.
    """
    n_parallel = int(p[P_N_PARALLEL])
    n = cells.shape[1]
    n_series = groups.shape[1]
    a1, a2, a3, a4 = (
        math.exp(-dt / p[P_TAU1]),
        math.exp(-dt / p[P_TAU2]),
        math.exp(-dt / p[P_TAU3]),
        math.exp(-dt / p[P_TAU4]),
    )
    means = (
        p[P_TAU1] * (1.0 - a1) / dt,
        p[P_TAU2] * (1.0 - a2) / dt,
        p[P_TAU3] * (1.0 - a3) / dt,
        p[P_TAU4] * (1.0 - a4) / dt,
    )
    eta = p[P_ETA]
    kelvin_ref = p[P_REF_DEGC] + KELVIN
    coolant_keep = math.exp(-dt / p[P_COOLANT_TAU])
    module = int(p[P_MODULE])
    for step in range(requests.shape[0]):
        request = requests[step]
        # the instantaneous hysteresis takes the sign of the current that is about to flow
        sign = string[S_SIGN]
        if path == CLOSED and request != 0.0:
            if (request > 0.0 and min(limits[0], limits[2]) > 0.0) or (
                request < 0.0 and min(limits[1], limits[3]) > 0.0
            ):
                sign = 1.0 if request > 0.0 else -1.0
        elif path == PRECHARGE and string[S_PACK_V] > string[S_BUS_V]:
            sign = 1.0
        if sign != string[S_SIGN]:
            shift = p[P_M0] * (sign - string[S_SIGN])
            string[S_SIGN] = sign
            for k in range(n):
                cells[C_E, k] -= shift
        emf, ohm = _source(cells, groups, p, dt, means)
        amp, amp_end, energy = _flow(string, p, path, emf, ohm, request, request_is_current, limits, dt)
        string[S_PREVIOUS_A] = string[S_AMPERE]
        string[S_AMPERE] = amp_end

        heat_w = 0.0
        cell_side_j = 0.0
        bleed_j = 0.0
        for g in range(n_series):
            v = groups[G_VMEAN, g] - amp / groups[G_SUM_S, g]
            groups[G_VMEAN, g] = v
            bleed_j += v * v * groups[G_BLEED_S, g] * dt
            leak_w = v * v * groups[G_LEAK_S, g] / n_parallel
            cell_side_j += v * amp * dt
            for k in range(g * n_parallel, (g + 1) * n_parallel):
                i = (cells[C_EMEAN, k] - v) / cells[C_RMEAN, k]
                q = cells[C_CAPACITY_AS, k]
                h = cells[C_HYST, k]
                # hysteresis relaxes towards -sgn(i) over charge, with factor exp(-alpha) ~ (1 - a/2)/(1 + a/2)
                half = 0.5 * p[P_GAMMA] * abs(i) * dt / q
                keep = (1.0 - half) / (1.0 + half)
                towards = -1.0 if i > 0.0 else 1.0
                cells[C_HYST, k] = towards + (h - towards) * keep
                eff = eta if i < 0.0 else 1.0
                dz = -eff * i * dt / q
                u_mean = cells[C_U, k] + 0.5 * cells[C_SLOPE, k] * dz
                dudt_mean = cells[C_DUDT, k] + 0.5 * cells[C_DUDT_SLOPE, k] * dz
                kelvin = cells[C_DEGC, k] + KELVIN
                # i (U - v) - i T dU/dT [Bernardi 1985], the enthalpy of the charge lost in side reactions, the leak
                u_ref = u_mean - (kelvin - kelvin_ref) * dudt_mean
                heat = (
                    i * (u_mean - v)
                    - i * kelvin * dudt_mean
                    - (1.0 - eff) * i * (u_ref - kelvin_ref * dudt_mean)
                    + leak_w
                )
                cells[C_SOC, k] += dz
                cells[C_X1, k] = i + (cells[C_X1, k] - i) * a1
                cells[C_X2, k] = i + (cells[C_X2, k] - i) * a2
                cells[C_X3, k] = i + (cells[C_X3, k] - i) * a3
                cells[C_X4, k] = i + (cells[C_X4, k] - i) * a4
                cells[C_AMPERE, k] = i
                cells[C_HEAT_W, k] = heat
                heat_w += heat
        string[S_HEAT_W] = heat_w
        string[S_HEAT_J] += heat_w * dt
        string[S_BLEED_J] += bleed_j
        string[S_PATH_J] += cell_side_j - energy
        string[S_CHARGE_AS] += amp * dt
        string[S_POWER_W] = energy / dt
        if energy > 0.0:
            string[S_OUT_J] += energy
        else:
            string[S_IN_J] -= energy

        # heat: neighbours in a module, ambient, and the coolant that warms along its module (one branch each)
        inlet = string[S_COOLANT_SET] + (string[S_COOLANT_IN] - string[S_COOLANT_SET]) * coolant_keep
        string[S_COOLANT_IN] = inlet
        flow = p[P_FLOW_W_PER_K]
        conduction = p[P_CONDUCTION]
        ambient = string[S_AMBIENT]
        coolant_w = 0.0
        ambient_w = 0.0
        outlet_sum = 0.0
        branches = 0
        start = 0
        while start < n:
            stop = min(start + module, n)
            coolant = inlet
            left_w = 0.0
            for k in range(start, stop):
                degc = cells[C_DEGC, k]
                right_w = conduction * (degc - cells[C_DEGC, k + 1]) if k + 1 < stop else 0.0
                to_coolant = cells[C_COOLANT_W_PER_K, k] * (degc - coolant)
                if flow > 0.0:
                    coolant += to_coolant / flow
                to_ambient = p[P_AMBIENT_G] * (degc - ambient)
                coolant_w += to_coolant
                ambient_w += to_ambient
                cells[C_DEGC, k] = degc + dt / cells[C_HEAT_CAPACITY, k] * (
                    cells[C_HEAT_W, k] + left_w - right_w - to_coolant - to_ambient
                )
                left_w = right_w
            outlet_sum += coolant
            branches += 1
            start = stop
        string[S_COOLANT_OUT] = outlet_sum / branches
        string[S_COOLANT_J] += coolant_w * dt
        string[S_AMBIENT_J] += ambient_w * dt
        string[S_TIME_S] += dt
        _look_up(cells, table, p, string[S_SIGN])
    string[S_PACK_V] = _terminals(cells, groups, n_parallel, string[S_AMPERE])


_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_U16 = np.uint64(0xFFFF)


@kernel
def gauss(seed, sequence, channel):
    """Standard normal number that depends on its three integers alone: bit-identical wherever it is drawn.

    Two words of splitmix64 [Steele, Lea, Flood 2014] give eight 16-bit uniforms; their scaled sum is normal within 4.9
    standard deviations (Irwin-Hall, n = 8, excess kurtosis -0.15).
    """
    state = np.uint64(seed) * _MIX2 + np.uint64(sequence) * _MIX1 + np.uint64(channel) * np.uint64(2) * _MIX
    total = 0.0
    for _ in range(2):
        state += _MIX
        z = state
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        z = z ^ (z >> np.uint64(31))
        for _ in range(4):
            total += np.float64(z & _U16)
            z >>= np.uint64(16)
    return (total / 65535.0 - 4.0) * 1.224744871391589
