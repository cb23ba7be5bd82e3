"""Logs of a bus on which a twin speaks, in the formats that tools write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import can
import numpy as np
import numpy.typing as npt

from hal.codec import can_profile
from hal.codec.can_wire import MeasurementWire
from hal.codec.dbc import EXTENDED
from hal.codec.frames import Codec, Outbox
from hal.contract import Measurement
from hal.registry import open_rack

EPOCH_S = 1.7e9
N, SENSORS = 12, 3


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now


def write_log(
    path: Path, seconds: float, options: dict[str, Any] | None = None, period_s: float = 0.1, n_cells: int = N
) -> npt.NDArray[np.void]:
    """Log a twin of `n_cells` for so long, one scan each period; returns what was measured."""
    clock = Time()
    measured = []
    with open_rack(f"sim:lfp_280?n_series={n_cells}", clock=clock, options=options or {}) as twin:
        info = twin.info
        sizes = {"n_cells": info.n_cells, "n_sensors": info.n_sensors}
        profile = can_profile.load(can_profile.REFERENCE, rack=sizes, address=info.name)
        codec = Codec(profile.database, profile.measurement_messages(), profile.protection)
        wire, outbox = MeasurementWire(profile, codec), Outbox(codec)
        for key, name in profile.identity.items():
            codec.value[codec.place(name)] = {
                "layout": profile.layout, "n_cells": info.n_cells, "n_sensors": info.n_sensors,
                "n_parallel": info.n_parallel, "capacity_ah": info.capacity_ah,
            }[key]  # fmt: skip
        m = Measurement(info.n_cells, info.n_sensors)
        with can.Logger(path) as log:
            for k in range(round(seconds / period_s)):
                clock.now = k * period_s
                twin.read(m)
                measured.append(m.raw.copy())
                wire.load(m)
                codec.encode()
                for key, data in outbox.frames(wire.sendable):
                    log.on_message_received(
                        can.Message(
                            timestamp=EPOCH_S + clock.now,
                            arbitration_id=key & ~EXTENDED,
                            is_extended_id=key & EXTENDED != 0,
                            data=data,
                            channel="can0",
                        )
                    )
    return np.concatenate(measured)
