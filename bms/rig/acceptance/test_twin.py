"""Where the rack is a twin, what the controller believes is compared with what is so."""

from __future__ import annotations

from bms.rig.driver import Driver
from hal.contract import HasTruth, Rack, Truth


def test_the_estimate_is_as_good_as_it_says(rack: Rack, twin: HasTruth, controller: Driver) -> None:
    """After a minute of use the mean SoC is within four of its own standard deviations of the truth."""
    controller.connect()
    controller.run(60.0)
    truth = Truth(rack.info.n_cells, rack.info.n_sensors)
    twin.truth(truth)
    head = controller.command.head[0]
    assert abs(float(head["soc_mean"]) - float(truth.soc.mean())) <= 4.0 * float(head["soc_std"])


def test_what_is_measured_is_what_is_so(rack: Rack, twin: HasTruth, controller: Driver) -> None:
    """Current, string voltage and temperatures are those of the truth, within the sensors."""
    controller.connect()
    controller.run(30.0)
    truth = Truth(rack.info.n_cells, rack.info.n_sensors)
    twin.truth(truth)
    head = controller.measurement.head[0]
    assert abs(float(head["current_a"]) - float(truth.head["current_a"][0])) < 0.02 * rack.info.capacity_ah
    assert abs(float(head["pack_v"]) / float(truth.head["pack_v"][0]) - 1.0) < 0.01
    assert abs(float(controller.measurement.sensor_degc.mean()) - float(truth.cell_degc.mean())) < 5.0
