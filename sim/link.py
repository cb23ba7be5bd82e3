"""The DC link and the PCS behind it, compiled: what current flows, in each state of the contactors."""

from __future__ import annotations

import math

from sim import layout as Y
from sim import mathd
from sim.jit import kernel


@kernel
def current_for(e, r, watt):
    """Current at which (e - r I) I = watt, the smaller root; beyond e^2/4r the one of the largest power there is.

    Nothing can be drawn from a source that is empty or reversed.
    """
    if watt >= 0.0 and e <= 0.0:
        return 0.0
    square = e * e - 4.0 * r * watt
    return 2.0 * watt / (e + math.sqrt(square)) if square > 0.0 else e / (2.0 * r)


@kernel
def flow(s, p, path, emf, ohm, request, request_is_current, dt):
    """Current of the string over the sub-step, in three cases of the path; updates the DC link.

    Returns (mean current, current at the end, energy delivered to the link in J).
    """
    link_f = p[Y.P_LINK_F]
    link_ohm = s[Y.S_LINK_OHM]
    bus = s[Y.S_BUS_V]
    if path == Y.OPEN:
        s[Y.S_BUS_V] = bus * mathd.exp(-dt / (link_f * link_ohm))
        s[Y.S_PCS_A] = 0.0
        return 0.0, 0.0, 0.0
    if path == Y.PRECHARGE:
        series = ohm + p[Y.P_PATH_OHM] + s[Y.S_PRECHARGE_OHM]
        final = emf * link_ohm / (series + link_ohm)
        tau = link_f * series * link_ohm / (series + link_ohm)
        decay = mathd.exp(-dt / tau)
        end = final + (bus - final) * decay
        mean = final + (bus - final) * tau * (1.0 - decay) / dt
        mean_square = (
            final * final
            + 2.0 * final * (bus - final) * tau * (1.0 - decay) / dt
            + (bus - final) * (bus - final) * tau * (1.0 - decay * decay) / (2.0 * dt)
        )
        energy = 0.5 * link_f * (end * end - bus * bus) + mean_square / link_ohm * dt
        s[Y.S_BUS_V] = end
        s[Y.S_PCS_A] = 0.0
        return link_f * (end - bus) / dt + mean / link_ohm, (emf - end) / series, energy
    # closed: the link's capacitor (backward Euler) and its bleed resistor hang on the terminals
    series = ohm + p[Y.P_PATH_OHM]
    divide = 1.0 + series / link_ohm + series * link_f / dt
    e = (emf + series * link_f / dt * bus) / divide
    r = series / divide
    discharge_w, charge_w = s[Y.S_LIMIT_DISCHARGE_W], s[Y.S_LIMIT_CHARGE_W]
    forced = s[Y.S_FORCED_A]
    if request_is_current:
        amp = min(max(request, current_for(e, r, -charge_w)), current_for(e, r, discharge_w))
    else:
        amp = current_for(e, r, min(max(request, -charge_w), discharge_w))
    amp = min(max(amp, -s[Y.S_LIMIT_CHARGE_A]), s[Y.S_LIMIT_DISCHARGE_A])
    if amp < 0.0 and e - r * amp < 0.0 and (e - r * amp) * amp > charge_w:
        # a charging current that does not lift a reversed string above 0 V takes power out of it: the limit holds, too
        amp = 2.0 * charge_w / (e - math.sqrt(max(e * e - 4.0 * r * charge_w, 0.0)))
    if not math.isnan(forced):
        amp = min(forced, e / r)  # a short circuit is the most that there is
    bus_new = e - r * amp
    total = amp + bus_new / link_ohm + link_f * (bus_new - bus) / dt
    s[Y.S_BUS_V] = bus_new
    s[Y.S_PCS_A] = amp
    return total, total, bus_new * total * dt


@kernel
def sign_of(s, path, request):
    """Sign that the instantaneous hysteresis takes: that of the current that is about to flow."""
    if path == Y.CLOSED:
        if not math.isnan(s[Y.S_FORCED_A]):
            return s[Y.S_SIGN] if s[Y.S_FORCED_A] == 0.0 else math.copysign(1.0, s[Y.S_FORCED_A])
        if request > 0.0 and min(s[Y.S_LIMIT_DISCHARGE_A], s[Y.S_LIMIT_DISCHARGE_W]) > 0.0:
            return 1.0
        if request < 0.0 and min(s[Y.S_LIMIT_CHARGE_A], s[Y.S_LIMIT_CHARGE_W]) > 0.0:
            return -1.0
    elif path == Y.PRECHARGE and s[Y.S_PACK_V] > s[Y.S_BUS_V]:
        return 1.0
    return s[Y.S_SIGN]
