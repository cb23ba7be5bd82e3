"""A cell's reading that stands still while noise moves those of all others: nothing is measured there.

What a frozen value hides shows in the mean cell once the rack has moved (`plausibility.frozen`); a rack at rest, or on
the flat of its curve, does not move for hours. But a converter has noise, as a rule of more than half its step: then
the share `q` of readings that are the same as in the sample before is below a half, whatever the voltage, and `n`
samples without a change have a chance of `q ** n`. Channels are not alike, so each change counts as if only
`(1 - q) ** 3` of all samples had one: a channel with half of the others' noise is not suspected. Once chance is ruled
out, what may have gone unseen grows by `_UNSEEN_V_PER_S`.

What stands still for a third of that time no longer counts in `q`: a board that dies, or all cells, change it little.

Racks with less noise than half a step, or whose boards are read in turns, have cells that stand still in good health:
there `q` is above a half, and nothing is told.
"""

from __future__ import annotations

import numpy as np

from bms.core.jit import f4, kernel
from bms.core.mathf import logf
from bms.core.signals_layout import LOOK_S, LOOKS, SAME_SHARE, SINCE_LOOK_S, USABLE
from hal.contract import F4, U1

_ZERO, _ONE = f4(0), f4(1)
_INFINITE, _LEAST = f4(np.inf), f4(1e-6)
_LEAST_LOOKS, _MOST_LOOKS = f4(30), f4(3600)  # of the averages
_MOST_SAME = f4(0.5)
_SURE = f4(35)  # -ln of the chance that is ruled out: one in 1e15
_SUSPECT = f4(1 / 3)  # of the time that takes: from then on a reading is none of those that teach what is usual
_UNSEEN_V_PER_S = f4(5e-3)
_MOST_V = f4(1)
_LONGEST_LOOK_S = f4(10)


@kernel
def _by_chance_s(number: F4) -> f4:
    """For how long a reading that is alive may stand still; infinite while too little is known."""
    if number[LOOKS] < _LEAST_LOOKS:
        return _INFINITE
    alive = _ONE - number[SAME_SHARE]
    chance_s: f4 = number[LOOK_S] * _SURE / max(-logf(_ONE - alive * alive * alive), _LEAST)
    return chance_s


@kernel
def lifeless(number: F4, still_s: F4, use: U1, dt_s: f4) -> tuple[f4, int]:
    """(what may have gone unseen behind the reading that stands still beyond chance, V; its cell, or -1).

    `still_s` f4[n_cells] since each one's last change, `use` u1[n_cells], `number` the memory of the signals.
    """
    suspect_s = _SUSPECT * _by_chance_s(number)
    alive, changed, longest_s, at = 0, 0, _ZERO, 0
    for k in range(still_s.shape[0]):
        seen = use[k] & USABLE != 0
        alive += int(seen and still_s[k] <= suspect_s)
        changed += int(seen and still_s[k] == _ZERO)
        if seen and still_s[k] > longest_s:
            longest_s = still_s[k]
            at = k
    number[SINCE_LOOK_S] = min(number[SINCE_LOOK_S] + dt_s, _LONGEST_LOOK_S)
    if changed > 0 and dt_s > _ZERO:
        number[LOOKS] = min(number[LOOKS] + _ONE, _MOST_LOOKS)
        number[LOOK_S] += (number[SINCE_LOOK_S] - number[LOOK_S]) / number[LOOKS]
        number[SAME_SHARE] += (_ONE - f4(changed) / f4(alive) - number[SAME_SHARE]) / number[LOOKS]
        number[SINCE_LOOK_S] = _ZERO
    chance_s = _by_chance_s(number)
    if number[SAME_SHARE] > _MOST_SAME or not longest_s > chance_s:
        return _ZERO, -1
    return min((longest_s - chance_s) * _UNSEEN_V_PER_S, _MOST_V), at
