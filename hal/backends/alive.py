"""A wrapper that notices when a rack stands still as a whole: `alive+URL`.

A device that is stuck may go on sending its last values with new numbers, and no value then contradicts another. What
gives it away is that sensors have noise: while current flows, cells, current and string voltage never stay the same to
the last digit for long. When they do, every channel is flagged as `Quality.FROZEN`, so that the controller loses all of
them and does what its table says. A single change ends it. With little current nothing is flagged: a rack at rest
behind coarse converters may well stand still.

For racks whose wire has no alive counter. Keys: `alive.after_s`, the time from which on it counts, 10 s, and
`alive.least_c`, the smallest current, as a share of the capacity, 0.02.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hal.backends.wrapper import Wrapper
from hal.contract import MEASUREMENT, Clock, Measurement, Quality, Rack
from hal.errors import ConfigError, nearest

AFTER_S = 10.0
LEAST_C = 0.02
SAMPLES = 10
"""So many equal samples are more than chance, however far apart they are."""

_QUALITIES = tuple((field.name, bool(field.dims)) for field in MEASUREMENT.fields if field.name.endswith("_quality"))


class Alive(Wrapper):
    """A rack (`hal.contract.Rack`) whose values are flagged once it stands still as a whole. Raises `ConfigError`."""

    def __init__(self, rack: Rack, after_s: float = AFTER_S, least_c: float = LEAST_C) -> None:
        for name, value in (("after_s", after_s), ("least_c", least_c)):
            if not 0.0 < value < math.inf:
                raise ConfigError(f"alive.{name} = {value:g}: a number greater than 0")
        super().__init__(rack)
        self._after_s, self._least_c = after_s, least_c
        self._last: Measurement | None = None
        self._still_s = 0.0
        self._samples = 0

    def open(self) -> None:
        """Reach the device; what was seen before is forgotten."""
        super().open()
        self._last = None
        self._still_s, self._samples = 0.0, 0

    def read(self, out: Measurement) -> None:
        """Fill `out` with the newest values, flagged where all of them stand still."""
        self._rack.read(out)
        last = self._last
        if last is None:
            last = self._last = out.blank()
            last.copy_from(out)
        elif out.head["sequence"][0] != last.head["sequence"][0]:
            same = np.array_equal(out.cell_v, last.cell_v) and all(
                out.head[name][0] == last.head[name][0] for name in ("current_a", "pack_v")
            )
            passed_s = float(out.head["time_s"][0] - last.head["time_s"][0])
            self._still_s = self._still_s + passed_s if same else 0.0
            self._samples = self._samples + 1 if same else 0
            last.copy_from(out)
        flows = abs(float(out.head["current_a"][0])) > self._least_c * self.info.capacity_ah
        if flows and self._samples >= SAMPLES and self._still_s >= self._after_s:
            for name, array in _QUALITIES:
                values = out.raw[name] if array else out.head[name]
                values |= np.uint8(Quality.FROZEN)


def wrap(rack: Rack, *, keys: Mapping[str, str], clock: Clock | None, options: Mapping[str, Any], url: str) -> Alive:
    """`rack` watched: the keys, or those of the table `[alive]`, are `after_s` and `least_c`. Raises `ConfigError`."""
    given: dict[str, float] = {}
    for key, value in {**options, **keys}.items():
        if key not in ("after_s", "least_c"):
            raise ConfigError(f"rack URL '{url}': unknown key 'alive.{key}'{nearest(key, ('after_s', 'least_c'))}")
        try:
            given[key] = float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"rack URL '{url}': alive.{key} = {value}: expected a number") from None
    try:
        return Alive(rack, **given)
    except ConfigError as error:
        raise ConfigError(f"rack URL '{url}': {error}") from None
