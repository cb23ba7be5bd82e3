"""What a current sensor tells besides what it measures: power, and what has flowed. Worked out of measurements."""

from __future__ import annotations

import math

from hal.contract import Field, Measurement, Quality

DERIVED = {
    "power_w": Field("power_w", "f4", "power of the string, positive = discharge"),
    "charge_as": Field("charge_as", "f4", "charge since the start, ampere-seconds, positive = discharged"),
    "energy_wh": Field("energy_wh", "f4", "energy since the start, positive = discharged"),
}
"""Fields that a server can send, and that are none of the contract."""

LONGEST_S = 10.0
"""Over a longer gap nothing is counted, as a sensor counts nothing while it is off."""


class Derived:
    """Values of `DERIVED` for the measurements that it is shown, one after the other.

    `charge_as` and `energy_wh` are what has flowed until now.
    """

    def __init__(self) -> None:
        self.charge_as = 0.0
        self.energy_wh = 0.0
        self._time_s = math.nan

    def take(self, measurement: Measurement) -> dict[str, tuple[float, int]]:
        """Value and quality of each field, with `measurement`: as good as the current, or current and voltage.

        The counters go on with good values alone, by the time between two measurements.
        """
        head = measurement.head[0]
        current_a, pack_v, time_s = float(head["current_a"]), float(head["pack_v"]), float(head["time_s"])
        current_q, pack_q = int(head["current_a_quality"]), int(head["pack_v_quality"])
        power_w, power_q = current_a * pack_v, current_q | pack_q
        passed_s = time_s - self._time_s
        self._time_s = time_s
        if 0.0 < passed_s <= LONGEST_S:
            if current_q == Quality.GOOD and math.isfinite(current_a):
                self.charge_as += current_a * passed_s
            if power_q == Quality.GOOD and math.isfinite(power_w):
                self.energy_wh += power_w * passed_s / 3600.0
        return {
            "power_w": (power_w, power_q),
            "charge_as": (self.charge_as, current_q),
            "energy_wh": (self.energy_wh, power_q),
        }
