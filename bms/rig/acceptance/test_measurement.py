"""What the rack tells: complete, fresh, plausible."""

from __future__ import annotations

import numpy as np

from bms.rig.driver import Driver
from hal.contract import MEASUREMENT, Rack


def test_the_configuration_is_for_this_rack(rack: Rack, controller: Driver) -> None:
    """Cells, sensors and capacity are those that the controller was configured for."""
    info = rack.info
    assert controller.settings.rack.n_series == info.n_cells
    assert len(info.sensor_of_cell) == info.n_cells
    assert int(info.sensor_of_cell.max()) < info.n_sensors


def test_every_value_is_there_and_good(controller: Driver) -> None:
    """Nothing is missing, invalid or not a number."""
    controller.run(10 * controller.period_s)
    m = controller.measurement
    for field in MEASUREMENT.fields:
        values = np.atleast_1d(m.raw[field.name][0] if field.dims else m.head[field.name])
        if field.name.endswith("_quality"):
            assert not values.any(), f"{field.name}: flags {np.unique(values).tolist()} at {np.flatnonzero(values)[:5]}"
        elif field.kind == "f4":
            assert np.isfinite(values).all(), f"{field.name}: no number at {np.flatnonzero(~np.isfinite(values))[:5]}"


def test_time_goes_on_and_no_value_is_older_than_the_controller_bears(controller: Driver) -> None:
    """New samples come, and every age stays below that from which on a value counts as lost."""
    oldest_s, numbers = 0.0, set()
    controller.step()
    before_s = float(controller.measurement.head["time_s"][0])
    for _ in range(20):
        controller.step()
        m = controller.measurement
        numbers.add(int(m.head["sequence"][0]))
        oldest_s = max(oldest_s, *(float(x.max()) for x in (m.cell_v_age_s, m.sensor_degc_age_s)))
        oldest_s = max(oldest_s, float(m.head["current_a_age_s"][0]), float(m.head["pack_v_age_s"][0]))
    assert len(numbers) >= 10, f"{len(numbers)} new samples in 20 steps"
    assert float(controller.measurement.head["time_s"][0]) > before_s
    assert oldest_s <= controller.settings.signals.max_age_s


def test_the_cells_add_up_to_the_string(controller: Driver) -> None:
    """Sum of the cells against the string's own voltage, within what the fault table calls implausible (info)."""
    controller.step()
    m = controller.measurement
    assert abs(float(m.cell_v.sum()) / float(m.head["pack_v"][0]) - 1.0) < 0.01


def test_an_open_rack_carries_no_current(rack: Rack, controller: Driver) -> None:
    """Contactors are open, their feedback says so, and the current is within the sensor's offset."""
    controller.run(5 * controller.period_s)
    assert controller.closed == 0
    assert abs(float(controller.measurement.head["current_a"][0])) < 0.02 * rack.info.capacity_ah


def test_inputs_are_at_rest(controller: Driver) -> None:
    """The interlock loop is closed, no emergency stop is pressed, no gas is detected, nobody is bled."""
    controller.run(5 * controller.period_s)
    head = controller.measurement.head[0]
    assert head["interlock_closed"] == 1, "the interlock loop is open"
    assert head["emergency_stop"] == 0, "an emergency stop is pressed"
    assert head["gas_alarm"] == 0, "the gas detector is on"
    assert not controller.measurement.bleeding.any()
