"""What a rack is, apart from the settings of the controller's parts."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RackSettings:
    """Table `[rack]`."""

    name: str = ""  # what people call it
    cell: str = ""  # cell file: its name in the package, or a path; left out, what the rack says it has
    n_series: int = 1  # groups in series
    n_parallel: int = 1  # cells in a group
    capacity_ah: float | None = None  # nominal capacity of the string, Ah; left out, that of the cell file
    coolant_flow_lpm: float | None = None  # nominal coolant flow of the rack, l/min; left out, 3 are expected
    contactor_break_a: float | None = None  # largest current that the main contactors break, A; only `bms check` asks

    def __post_init__(self) -> None:
        """Raise `ValueError` for what no rack can be."""
        for name, most in (("n_series", 65534), ("n_parallel", 1000)):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise ValueError(f"{name} = {value}: must be in 1..{most}")
        for name in ("capacity_ah", "coolant_flow_lpm", "contactor_break_a"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value}: must be greater than 0; leave it out where it is not known")


@dataclass(frozen=True)
class TimingSettings:
    """Table `[timing]`."""

    period_s: float = 1.0  # time from one control step to the next, s

    def __post_init__(self) -> None:
        """Raise `ValueError` for a period that the controller is not made for."""
        if not 0.01 <= self.period_s <= 60.0:
            raise ValueError(f"period_s = {self.period_s}: must be in 0.01..60")
