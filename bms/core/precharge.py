"""Precharge: what the resistor takes up, and the curve that the link behind it follows.

The link, a capacitance C with a resistor R_b of its own, is charged from the string through the precharge resistor R.
Each function is one piece of that, of numbers alone; `bms.core.machine` knows when it applies.
"""

from __future__ import annotations

import numpy as np

from bms.core.jit import f4, kernel
from bms.core.machine_table import Node
from bms.core.mathf import expf, one_minus_exp

# plain integers, because kernels know no enumerations
_FIRST, _LAST = int(Node.PRECHARGE_NEGATIVE), int(Node.PRECHARGE_RELEASE)
_FIRST_TRANSPORT, _LAST_TRANSPORT = int(Node.TRANSPORT_NEGATIVE), int(Node.TRANSPORT_RELEASE)
_HOTTEST_J = f4(1e30)
_LATE = f4(1.5)  # periods


@kernel
def precharges(node: int) -> bool:
    """True in the stages of closing."""
    return bool(_FIRST <= node <= _LAST or _FIRST_TRANSPORT <= node <= _LAST_TRANSPORT)


@kernel
def resistor_heat_j(pack_v: f4, bus_v: f4, before_v: f4, current_a: f4, ohm: f4, link_f: f4, dt_s: f4) -> f4:
    """Heat that the resistor takes up in a step in which it carries current.

    The largest of three: what is left of the string's energy when the link has risen from `before_v` to `bus_v`,
    C dV (V - mean of the link), which is exact however long the step; what the voltage across the resistor makes of
    it, and what the current does, which see a link that does not rise. NaN for what is not known: of the link's voltage
    it counts as the worst, an empty link.
    """
    across_v = pack_v if np.isnan(bus_v) else pack_v - bus_v
    heat_j = across_v * across_v / ohm * dt_s
    if not np.isnan(current_a):
        heat_j = max(heat_j, current_a * current_a * ohm * dt_s)
    if not np.isnan(bus_v) and not np.isnan(before_v):
        risen_j = link_f * (bus_v - before_v) * (pack_v - f4(0.5) * (bus_v + before_v))
        heat_j = max(heat_j, risen_j)
    return f4(heat_j)


@kernel
def resistor_stored_j(stored_j: f4, heat_j: f4, tau_s: f4, dt_s: f4) -> f4:
    """Heat that is in the resistor after a step `dt_s` > 0: E' = P - E/tau, solved for a constant P = heat_j / dt_s."""
    # the gain is the mean of exp(-t/tau) over the step, 1 for short ones
    share = one_minus_exp(dt_s / tau_s)
    gain = share * tau_s / dt_s
    after_j = stored_j * (f4(1) - share) + heat_j * gain
    return f4(after_j if after_j < _HOTTEST_J else _HOTTEST_J)  # not a number counts as hot


@kernel
def link_v(final_v: f4, from_v: f4, flowing_s: f4, tau_s: f4) -> f4:
    """Voltage of the link after current has flown for `flowing_s`.

    V(t) = F - (F - V0) exp(-t/tau), with F = V_pack R_b/(R + R_b) and tau = C R R_b/(R + R_b).
    """
    return f4(final_v - (final_v - from_v) * expf(-(flowing_s / tau_s)))


@kernel
def doubted(was: bool, all_open: bool, pack_v: f4, bus_v: f4, before_v: f4, near_v: f4) -> bool:
    """Whether a link that stands at the string's voltage, within `near_v`, may be a sensor that shows nothing else.

    With open contactors a link of its own only falls: what is full when it is first seen, or all at once (`before_v`,
    NaN: not known), is doubted until it has been seen apart from the string. `was`: it was doubted before.
    """
    if abs(pack_v - bus_v) > near_v:
        return False
    appeared = abs(pack_v - bus_v) <= near_v and not bus_v - before_v <= near_v
    return bool(was or (all_open and appeared))


@kernel
def left_alone(periods: f4, operated_s: f4, actuation_s: f4) -> bool:
    """True if contactors that are found open were most likely opened by the rack, as its controller was silent.

    That is after a step that came late, by `periods`, and once they had their time to close. To go on asking would
    close both mains on a link that has discharged.
    """
    return bool(periods >= _LATE and operated_s >= actuation_s)
