"""Side reactions of a cell that is too hot or charged past full, compiled: heat, gas, melting, and the short inside it.

Four reactions with conversion after Hatchard et al., J. Electrochem. Soc. 148 (2001) A755, and Kim, Pesaran and
Spotnitz, J. Power Sources 170 (2007) 476; k = A exp(-Ea / R T), per kilogram of cell:

    SEI          a' = k (1 - a)                        q = H a'
    anode        l' = k z exp(-l / l0)                 q = H l', z' = -l': the charge that it eats is lost
    plating      l' = k_p (z - z_p), z > z_p           q = H_p l': metal on the anode of an overcharged cell
    cathode      a' = k (1 - a)                        q = H (z + l) a': heat for the charge that left the cathode
    electrolyte  a' = k (1 - a)                        q = H a'

Separator, solvent after venting and aluminium take heat while they melt or boil, m' = (1 - m) (T - T_m) / theta above
T_m. The separator shrinks above T_c, b' = k (1 - b), and leaves a short of b g; plated metal grows through it. The
short is a conductance between the terminals, and the rack's own currents say what flows through it (`sim.kernels`):
E^2 / R until the cell is empty. What the straight line of the twin's open-circuit voltage keeps below 0 % is then
gone at once, without heat, for it is none of a real cell's. The pressure is that of the solvent's vapour [Clausius,
Clapeyron] and of the gas, n R T / V; at `vent_pa` the cell vents, once: its gas leaves, the vapour above the solvent,
and from then on what is made and what boils off. What leaves takes its heat along.

A face that a burning neighbour heats is hotter than the cell as a whole, and what starts there goes through the cell:
the reactions take place at T + s, s' = (q R_s - s) / tau_s for a heat flow q into the hotter of both faces.

A step is made of sub-steps that warm the cell by no more than `STEP_K`. In each, conversions follow their exponential
at the temperature of its middle, hence stay within 0..1 for any rate, and the temperature follows from what was
converted, hence energy is conserved to rounding.
"""

from __future__ import annotations

import math

from sim import layout as Y
from sim import mathd
from sim.jit import kernel

KELVIN = 273.15
GAS_J_PER_MOL_K = 8.314462618
STEFAN_BOLTZMANN = 5.670374419e-8

STEP_K = 0.5
"""By so much a sub-step of the reactions may change the temperature; it is tried anew where it is twice that."""

LONGEST_S, SHORTEST_S = 1.0, 1e-7
"""Bounds of a sub-step: melting is followed explicitly up to the one, the other makes sure that there is an end."""

LOOK_S = 0.999
"""So long after a look for hot cells there need not be another: at most once a second."""

PART_K, MOST_PARTS = 0.5, 100.0
"""Currents and conduction are made anew when a cell has changed by so much, at most so often in a sub-step."""

VENT_S = 0.01
"""Sub-steps become as short as this to find the time of venting."""

IGNITION_K_PER_S = 1.0
"""A cell whose side reactions alone heat it by so much is in runaway: 60 degC/min, as calorimetry has it."""

SMALL_SOC = 1e-4
"""Of a larger change in one step the stored energy is followed along the table, not along its slope at the start."""

OPEN_SCALE = 1e12
"""By so much the resistance of a cell rises whose aluminium has melted: hundreds of megohm when it is cold again."""

_LANES = Y.LANES


@kernel
def _rate(q, at, kelvin):
    """k of the reaction whose A and Ea / R stand at `at`, in 1/s."""
    return q[at] * mathd.exp(-q[at + 1] / kelvin)


@kernel
def _part(rate, dt):
    """Share of what is there that a first-order process of `rate` takes in `dt`."""
    return 1.0 - mathd.exp(-rate * dt)


@kernel
def _changes(q, degc, skin, soc, lost_mid, sei, lost, cathode, electrolyte, separator, boiled, metal, vented, dt):
    """What the processes convert in `dt` at one temperature, and the heat of it in J. Reactions are `skin` hotter.

    Returns (SEI, charge lost, cathode, electrolyte, separator, solvent boiled, aluminium, heat).
    """
    kelvin = degc + skin + KELVIN
    d_sei = (1.0 - sei) * _part(_rate(q, Y.Q_SEI, kelvin), dt)
    film = mathd.exp(-lost_mid * q[Y.Q_FILM])
    inside = max(min(soc, q[Y.Q_PLATING_SOC]), 0.0)
    d_anode = inside * _part(_rate(q, Y.Q_ANODE, kelvin) * film, dt)
    d_plated = max(soc - q[Y.Q_PLATING_SOC], 0.0) * _part(_rate(q, Y.Q_PLATING, kelvin), dt)
    d_cathode = (1.0 - cathode) * _part(_rate(q, Y.Q_CATHODE, kelvin), dt)
    d_electrolyte = (1.0 - electrolyte) * _part(_rate(q, Y.Q_ELECTROLYTE, kelvin), dt)
    d_separator = (1.0 - separator) * _part(max(degc - q[Y.Q_MELT_DEGC], 0.0) * q[Y.Q_MELT_RATE], dt)
    d_boiled = 0.0
    if vented:
        d_boiled = (1.0 - boiled) * _part(max(degc - q[Y.Q_BOIL_DEGC], 0.0) * q[Y.Q_BOIL_RATE], dt)
    d_metal = (1.0 - metal) * _part(max(degc - q[Y.Q_METAL_DEGC], 0.0) * q[Y.Q_METAL_RATE], dt)
    charged = max(soc + lost, 0.0)
    heat = (
        q[Y.Q_SEI_J] * d_sei
        + q[Y.Q_ANODE_J] * d_anode
        + q[Y.Q_PLATING_J] * d_plated
        + q[Y.Q_CATHODE_J] * charged * d_cathode
        + q[Y.Q_ELECTROLYTE_J] * d_electrolyte
        - q[Y.Q_MELT_J] * d_separator
        - q[Y.Q_METAL_J] * d_metal
    )
    return d_sei, d_anode + d_plated, d_cathode, d_electrolyte, d_separator, d_boiled, d_metal, heat


@kernel
def _vapour_mol(q, degc):
    """Vapour of the solvent in the free volume of a closed cell, in mol."""
    kelvin = degc + KELVIN
    pascal = q[Y.Q_VAPOUR_PA] * mathd.exp(-q[Y.Q_VAPOUR_K] / kelvin)
    return pascal / (GAS_J_PER_MOL_K * kelvin * q[Y.Q_PER_FREE_M3])


@kernel
def _pressure(q, degc, gas):
    """Pressure in a closed cell with `gas` mol made: vapour of the solvent and gas, in Pa."""
    return (_vapour_mol(q, degc) + gas) * GAS_J_PER_MOL_K * (degc + KELVIN) * q[Y.Q_PER_FREE_M3]


@kernel
def short_s(q, collapse, soc):
    """Conductance of the short that a shrunk separator leaves and of the metal that grew through it, in S."""
    return q[Y.Q_SHORT_S] * collapse + q[Y.Q_DENDRITE_S] * max(soc - q[Y.Q_DENDRITE_SOC], 0.0)


@kernel
def burn_cell(b, k, q, degc, soc, watt, skin, heat_capacity, dt, now):
    """Side reactions over `dt` of the cell in lane `k` of the block `b` of `burn`, which `watt` from elsewhere heats.

    They take place at a temperature that is `skin` above the cell's own. Returns (temperature, state of charge, heat
    of the reactions and of melting in J, heat that left through the vent in J, mol that left).
    """
    sei, lost, cathode, electrolyte = b[Y.B_SEI + k], b[Y.B_LOST + k], b[Y.B_CATHODE + k], b[Y.B_ELECTROLYTE + k]
    separator, collapse, boiled, metal = b[Y.B_SEPARATOR + k], b[Y.B_COLLAPSE + k], b[Y.B_BOILED + k], b[Y.B_METAL + k]
    gas, peak = b[Y.B_GAS_MOL + k], b[Y.B_PEAK_DEGC + k]
    vent_s, ignition_s = b[Y.B_VENT_S + k], b[Y.B_IGNITION_S + k]
    per_j = 1.0 / heat_capacity
    left = dt
    h = min(dt, LONGEST_S)
    side_j, vent_j, vented_mol = 0.0, 0.0, 0.0
    while left > 0.0:
        h = min(h, left)
        vented = vent_s > 0.0
        half = _changes(
            q, degc, skin, soc, lost, sei, lost, cathode, electrolyte, separator, boiled, metal, vented, 0.5 * h
        )  # fmt: skip
        out_half = q[Y.Q_BOIL_J] * half[5]
        middle = degc + (half[7] - out_half + 0.5 * h * watt) * per_j
        whole = _changes(
            q, middle, skin, soc, lost + half[1], sei, lost, cathode, electrolyte, separator, boiled, metal, vented, h
        )  # fmt: skip
        charged = max(soc + lost, 0.0)
        d_gas = (
            q[Y.Q_SEI_MOL] * whole[0]
            + q[Y.Q_ANODE_MOL] * whole[1]
            + q[Y.Q_CATHODE_MOL] * charged * whole[2]
            + q[Y.Q_ELECTROLYTE_MOL] * whole[3]
        )
        out_j = q[Y.Q_BOIL_J] * whole[5]
        out_solvent = out_j / (q[Y.Q_VAPOUR_K] * GAS_J_PER_MOL_K)  # by its heat of evaporation
        if vented:
            out_j += q[Y.Q_GAS_J_PER_K] * d_gas * (middle - q[Y.Q_OUT_DEGC])
        change = (whole[7] - out_j + h * watt) * per_j
        if abs(change) > 2.0 * STEP_K and h > SHORTEST_S:
            h = max(h * max(STEP_K / abs(change), 0.05), SHORTEST_S)
            continue
        bursts = not vented and _pressure(q, degc + change, gas + d_gas) > q[Y.Q_VENT_PA]
        if bursts and h > VENT_S:
            h = max(0.25 * h, VENT_S)
            continue
        degc += change
        side_j += whole[7]
        vent_j += out_j
        sei += whole[0]
        lost += whole[1]
        soc -= whole[1]
        cathode += whole[2]
        electrolyte += whole[3]
        separator += whole[4]
        boiled += whole[5]
        metal += whole[6]
        gas += d_gas
        left -= h
        if middle + skin > q[Y.Q_COLLAPSE_DEGC]:
            collapse += (1.0 - collapse) * _part(_rate(q, Y.Q_COLLAPSE, middle + skin + KELVIN), h)
        if vented:
            vented_mol += d_gas + out_solvent
        elif bursts:
            vent_s = now - left
            vented_mol += gas + _vapour_mol(q, degc)
        if ignition_s == 0.0 and whole[7] * per_j > IGNITION_K_PER_S * h:
            ignition_s = now - left
        peak = max(peak, degc)
        h *= min(max(STEP_K / max(abs(change), 1e-9), 0.2), 2.0)
        h = min(max(h, SHORTEST_S), LONGEST_S)
    b[Y.B_SEI + k], b[Y.B_LOST + k], b[Y.B_CATHODE + k], b[Y.B_ELECTROLYTE + k] = sei, lost, cathode, electrolyte
    b[Y.B_SEPARATOR + k], b[Y.B_COLLAPSE + k], b[Y.B_BOILED + k], b[Y.B_METAL + k] = separator, collapse, boiled, metal
    b[Y.B_GAS_MOL + k], b[Y.B_PEAK_DEGC + k] = gas, peak
    b[Y.B_VENT_S + k], b[Y.B_IGNITION_S + k] = vent_s, ignition_s
    b[Y.B_SIDE_J + k] += side_j
    return degc, soc, side_j, vent_j, vented_mol


@kernel
def stored_j_per_as(q, soc):
    """Enthalpy stored from 0 up to `soc` per As of capacity: `CellData.stored_energy_j_per_as` of one number."""
    points = (q.shape[0] - Y.Q_SIZE) // 2
    last = points - 1
    low = int(min(max(math.floor(soc * last), 0.0), last - 1.0))
    step = 1.0 / last
    t = soc - low * step
    inside = min(max(t, 0.0), step)
    beyond = t - inside
    upto, here, there = q[Y.Q_SIZE + low], q[Y.Q_SIZE + points + low], q[Y.Q_SIZE + points + low + 1]
    edge, slope = (q[Y.Q_SIZE + 2 * points - 1], q[Y.Q_SLOPE_FULL]) if beyond > 0.0 else (
        q[Y.Q_SIZE + points], q[Y.Q_SLOPE_EMPTY]
    )  # fmt: skip
    energy = upto + here * inside + (there - here) * last * inside * inside * 0.5
    return energy + edge * beyond + slope * beyond * beyond * 0.5


@kernel
def _kinks(q, before, after):
    """Enthalpy that a change of the state of charge frees beyond what its slope at first says, per As of capacity."""
    points = (q.shape[0] - Y.Q_SIZE) // 2
    last = points - 1
    low = int(min(max(math.floor(before * last), 0.0), last - 1.0))
    here, there = q[Y.Q_SIZE + points + low], q[Y.Q_SIZE + points + low + 1]
    inside = min(max(before - low / last, 0.0), 1.0 / last)
    slope = (there - here) * last
    mean = here + slope * inside
    if before > 1.0 + 1e-12:  # not by the rounding of a step that began at the end of the table
        slope = q[Y.Q_SLOPE_FULL]
        mean += slope * (before - 1.0)
    elif before < -1e-12:
        slope = q[Y.Q_SLOPE_EMPTY]
        mean += slope * before
    mean += 0.5 * slope * (after - before)
    return stored_j_per_as(q, before) - stored_j_per_as(q, after) - (before - after) * mean


@kernel
def awake(cells, work, p, q):
    """Whether a cell of the rack is so hot, or charged so far past full, that its side reactions must be looked at."""
    spare = int(p[Y.P_SPARE_AT])
    t = work[spare : spare + Y.T_SIZE]
    for k in range(_LANES):
        t[Y.T_A + k] = -1e9
        t[Y.T_B + k] = -1e9
    for j in range(int(p[Y.P_BLOCKS]) * int(p[Y.P_N_PARALLEL])):
        c = cells[j * Y.C_BLOCK : (j + 1) * Y.C_BLOCK]
        for k in range(_LANES):
            t[Y.T_A + k] = max(t[Y.T_A + k], c[Y.C_DEGC + k])
        for k in range(_LANES):
            t[Y.T_B + k] = max(t[Y.T_B + k], c[Y.C_SOC + k])
    degc, soc = t[Y.T_A], t[Y.T_B]
    for k in range(_LANES):
        degc = max(degc, t[Y.T_A + k])
        soc = max(soc, t[Y.T_B + k])
    return degc > q[Y.Q_WAKE_DEGC] or soc > q[Y.Q_WAKE_SOC]


@kernel
def parts_of(s, dt):
    """In how many parts a sub-step is made, so that currents and conduction follow the cell that warms fastest."""
    return int(min(max(math.ceil(s[Y.S_FASTEST_K_PER_S] * dt / PART_K), 1.0), MOST_PARTS))


@kernel
def at_rest(cells, work, p):
    """Prepare `work` for side reactions alone: temperatures as they are, nothing conducted, no current."""
    n_parallel = int(p[Y.P_N_PARALLEL])
    flat, stride = int(p[Y.P_FLAT_AT]), int(p[Y.P_FLAT_STRIDE])
    for at in range(3 * stride, 4 * stride):
        work[flat + at] = 0.0
    for at in range(int(p[Y.P_BLOCKS]) * n_parallel * Y.D_BLOCK):
        work[at] = 0.0
    for at in range(int(p[Y.P_N_SERIES]) * n_parallel):
        g = at // n_parallel
        j = g // _LANES * n_parallel + at % n_parallel
        work[flat + at] = cells[j * Y.C_BLOCK + Y.C_DEGC + g % _LANES]


@kernel
def _between(degc, extra, face, p, n):
    """What only matters between hot neighbours: heat through busbars and terminals, radiation between faces, in W.

    `extra` is what each cell gets of it. `face` holds what is conducted to the next cell, at place k + 1, and has the
    radiation added.
    """
    module, every = int(p[Y.P_MODULE]), int(p[Y.P_BARRIER_EVERY])
    terminal_g, radiation = p[Y.P_TERMINAL_G], p[Y.P_RADIATION]
    for k in range(n):
        extra[k] = 0.0
    for k in range(n - 1):
        place = (k + 1) % module
        if place == 0:
            continue
        flow = terminal_g * (degc[k] - degc[k + 1])
        if every == 0 or place % every != 0:
            a, b = degc[k] + KELVIN, degc[k + 1] + KELVIN
            radiated = radiation * (a * a * a * a - b * b * b * b)
            flow += radiated
            face[k + 1] += radiated
        extra[k] -= flow
        extra[k + 1] += flow


@kernel
def _short_of(b, c, k):
    """Conductance of the shorts inside a cell; of one that is open nothing is left."""
    return b[Y.B_SHORT_S + k] + b[Y.B_FAULT_S + k] if c[Y.C_SCALE + k] < OPEN_SCALE else 0.0


@kernel
def _open(c, k):
    """Let a cell whose aluminium has melted be open for good."""
    c[Y.C_SCALE + k] *= OPEN_SCALE
    for row in range(Y.C_X1, Y.C_X4 + Y.LANES, Y.LANES):
        c[row + k] = 0.0


@kernel
def _shorts(cells, groups, burn, p):
    """Put the shorts of the cells into the leaks of their groups; a group that is open has no leak at all.

    Returns whether there is any short.
    """
    n_parallel = int(p[Y.P_N_PARALLEL])
    n_series = int(p[Y.P_N_SERIES])
    some = False
    for b in range(int(p[Y.P_BLOCKS])):
        first = burn[b * n_parallel * Y.B_BLOCK : (b * n_parallel + 1) * Y.B_BLOCK]
        for k in range(min(n_series - b * _LANES, _LANES)):
            total, sound = 0.0, 0
            for cell in range(n_parallel):
                j = b * n_parallel + cell
                c = cells[j * Y.C_BLOCK : (j + 1) * Y.C_BLOCK]
                total += _short_of(burn[j * Y.B_BLOCK : (j + 1) * Y.B_BLOCK], c, k)
                sound += 1 if c[Y.C_SCALE + k] < OPEN_SCALE else 0
            at = b * Y.G_BLOCK + Y.G_LEAK_S + k
            some = some or total > 0.0
            if sound == 0:
                total = first[Y.B_ADDED_S + k] - groups[at]
            if total != first[Y.B_ADDED_S + k]:
                groups[at] = max(groups[at] + (total - first[Y.B_ADDED_S + k]), 0.0)
                first[Y.B_ADDED_S + k] = total
    return some


@kernel
def react_rack(cells, groups, burn, s, work, p, q, dt):
    """Side reactions of a rack over the sub-step of `dt` that the rest of the physics has just made.

    What the rest of the physics has done to a cell's temperature is taken as a power, constant over the sub-step, so
    that the reactions see the way from the temperature before. The rack falls asleep when there is nothing left to
    look at.
    """
    n_parallel = int(p[Y.P_N_PARALLEL])
    n_series = int(p[Y.P_N_SERIES])
    n = n_series * n_parallel
    levels = int(p[Y.P_LEVELS_AT])
    flat, stride = int(p[Y.P_FLAT_AT]), int(p[Y.P_FLAT_STRIDE])
    before = work[flat : flat + stride]
    extra = work[flat + 2 * stride : flat + 3 * stride]
    face = work[flat + 3 * stride : flat + 4 * stride]
    skin_ohm, skin_part = p[Y.P_SKIN_OHM], _part(1.0 / p[Y.P_SKIN_TAU], dt)
    heat_capacity = p[Y.P_HEAT_CAPACITY]
    now = s[Y.S_TIME_S]
    wake_degc, wake_soc = q[Y.Q_WAKE_DEGC], q[Y.Q_WAKE_SOC]
    _between(before, extra, face, p, n)
    heater_w, kinks_j, side_j, consumed_j, left_j, vented_mol = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    some = False
    fastest = 0.0
    for at in range(n):
        g, cell = at // n_parallel, at % n_parallel
        block, k = g // _LANES, g % _LANES
        j = block * n_parallel + cell
        c = cells[j * Y.C_BLOCK : (j + 1) * Y.C_BLOCK]
        b = burn[j * Y.B_BLOCK : (j + 1) * Y.B_BLOCK]
        watt = extra[at] + b[Y.B_HEATER_W + k]
        heater_w += b[Y.B_HEATER_W + k]
        some = some or b[Y.B_HEATER_W + k] != 0.0
        if n_parallel > 1:
            # the leak of a group warms all its cells alike, a short the cell that it is in
            total = burn[block * n_parallel * Y.B_BLOCK + Y.B_ADDED_S + k]
            if total > 0.0:
                volt = work[levels + block * Y.V_BLOCK + Y.V_MEAN + k]
                watt += volt * volt * (_short_of(b, c, k) - total / n_parallel)
        degc, soc = c[Y.C_DEGC + k], c[Y.C_SOC + k]
        d = work[j * Y.D_BLOCK : (j + 1) * Y.D_BLOCK]
        moved = d[Y.D_AMPERE + k] * d[Y.D_INVERSE_AS + k] * dt
        moved *= p[Y.P_ETA] if moved < 0.0 else 1.0
        if abs(moved) > SMALL_SOC:
            more_j = _kinks(q, soc + moved, soc) * c[Y.C_CAPACITY_AS + k]
            kinks_j += more_j
            watt += more_j / dt
        skin = b[Y.B_SKIN_K + k]
        skin += (skin_ohm * max(face[at], -face[at + 1], 0.0) - skin) * skin_part
        b[Y.B_SKIN_K + k] = skin
        if max(degc, before[at]) + skin > wake_degc or soc > wake_soc:
            some = True
            watt += heat_capacity * (degc - before[at]) / dt
            degc, rest, heat, out, mol = burn_cell(
                b, k, q, before[at], soc, watt, skin, heat_capacity, dt, now
            )  # fmt: skip
            if b[Y.B_COLLAPSE + k] > 0.01 and 0.5 * q[Y.Q_EMPTY_SOC] < rest < 0.0:
                rest = q[Y.Q_EMPTY_SOC]
            if rest != soc:
                eaten = stored_j_per_as(q, soc) - stored_j_per_as(q, rest)
                consumed_j += eaten * c[Y.C_CAPACITY_AS + k]
                c[Y.C_SOC + k] = rest
            side_j += heat
            left_j += out
            vented_mol += mol
            c[Y.C_DEGC + k] = degc
            fastest = max(fastest, abs(degc - before[at]))
            b[Y.B_SHORT_S + k] = short_s(q, b[Y.B_COLLAPSE + k], rest)
            if b[Y.B_METAL + k] > 0.5 and c[Y.C_SCALE + k] < OPEN_SCALE:
                _open(c, k)
        else:
            c[Y.C_DEGC + k] = degc + watt * dt / heat_capacity
    s[Y.S_FASTEST_K_PER_S] = fastest / dt
    shorted = _shorts(cells, groups, burn, p)
    s[Y.S_HEAT_J] += side_j + kinks_j + heater_w * dt
    s[Y.S_HEAT_W] += side_j / dt + heater_w
    s[Y.S_HEATER_J] += heater_w * dt
    s[Y.S_SIDE_J] += side_j
    s[Y.S_CONSUMED_J] += consumed_j
    s[Y.S_VENT_J] += left_j
    s[Y.S_GAS_MOL] += vented_mol
    air = s[Y.S_AIR_PPM] * mathd.exp(-dt / p[Y.P_AIR_TAU]) + 1e6 * vented_mol / p[Y.P_AIR_MOL]
    s[Y.S_AIR_PPM] = min(air, 1e6)
    s[Y.S_DETECTOR_PPM] += (s[Y.S_AIR_PPM] - s[Y.S_DETECTOR_PPM]) * _part(1.0 / p[Y.P_DETECTOR_TAU], dt)
    s[Y.S_AWAKE] = 1.0 if some or shorted or s[Y.S_DETECTOR_PPM] > 0.1 else 0.0
