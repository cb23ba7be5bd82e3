"""Which faults the diagnosis is to look at in the present node of the state machine."""

from __future__ import annotations

from bms.core.faults import Context
from bms.core.jit import i4, kernel
from bms.core.machine import ASKED, TRANSPORTED, MachineState, node_of
from bms.core.machine_table import BOTH_MAINS
from bms.core.precharge import precharges

# plain integers, because kernels know no enumerations
_MAINS = int(BOTH_MAINS)
_C_CHARGING, _C_DISCHARGING, _C_RESTING = (int(c) for c in (Context.CHARGING, Context.DISCHARGING, Context.RESTING))
_C_CLOSED, _C_OPENED, _C_PRECHARGING = (int(c) for c in (Context.CLOSED, Context.OPENED, Context.PRECHARGING))
_C_WINDOW, _C_ALWAYS, _C_TRANSPORT = (int(c) for c in (Context.WINDOW, Context.ALWAYS, Context.TRANSPORT))


@kernel
def machine_context(state: MachineState, flow: int) -> int:
    """Bits of `faults.Context` for the diagnosis; `flow` is -1 charging, 0 resting, 1 discharging."""
    asked = int(i4(state.word[ASKED]))
    context = _C_ALWAYS
    if flow < 0:
        context |= _C_CHARGING
    elif flow > 0:
        context |= _C_DISCHARGING
    else:
        context |= _C_RESTING
    if asked & _MAINS == _MAINS:
        context |= _C_CLOSED
    if asked == 0:
        context |= _C_OPENED
    if precharges(node_of(state)):
        context |= _C_PRECHARGING
    context |= _C_WINDOW if state.word[TRANSPORTED] == 0 else _C_TRANSPORT
    return context
