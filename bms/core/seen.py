"""What the parts of the controller know of one sample, once it has been looked through: see `bms.core.signals`."""

from __future__ import annotations

from typing import Any, NamedTuple


class Seen(NamedTuple):
    """Scalars of one sample; what is not usable is NaN, or -1 where it is a whole number.

    `closed`: feedback of the contactors, bits of `Contactor`. `complete`: every value that closing depends on is there,
    fresh and plausible. Places are cells and sensors; `flow` is -1 charging, 0 resting, 1 discharging.
    """

    current_a: Any
    pack_v: Any  # measured, or the sum of the cells where only that is known
    bus_v: Any
    cell_v_low: Any
    cell_v_high: Any
    cell_v_mean: Any
    cell_low_at: Any
    cell_high_at: Any
    degc_low: Any
    degc_high: Any
    degc_mean: Any
    sensor_low_at: Any
    sensor_high_at: Any
    coolant_in_degc: Any
    closed: Any
    flow: Any
    complete: Any
    emergency_stop: Any
