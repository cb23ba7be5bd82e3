"""Settings of the controller, and the constants that the kernels take."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from bms.core import control as c
from bms.core.control_setup import ControlSettings, control_config
from hal.contract import Capabilities, RackInfo

CELL = SimpleNamespace(
    v_min=2.5,
    v_max=3.65,
    degc_min_charge=0.0,
    degc_min_discharge=-20.0,
    degc_max=55.0,
    max_charge_c=0.5,
    max_discharge_c=1.0,
)
INFO = RackInfo("test", 4, 2, 1, 280.0, "", np.zeros(4, np.uint16), Capabilities(balancing=True, precharge=False))


def test_numbers_come_from_the_cell_and_the_rack() -> None:
    config = control_config(CELL, INFO, ControlSettings(taper_v=0.2))
    number = {
        name: config.number[getattr(c, name)] for name in ("CHARGE_A", "DISCHARGE_A", "V_MIN", "TAPER_V", "OPEN_A")
    }
    assert number == {
        "CHARGE_A": 140,
        "DISCHARGE_A": 280,
        "V_MIN": 2.5,
        "TAPER_V": np.float32(0.2),
        "OPEN_A": np.float32(5.6),
    }
    assert np.isfinite(config.number).all()
    assert config.has.tolist() == [1, 0, 1]


def test_every_row_of_the_fault_table_has_room_to_clear() -> None:
    """A fault must not clear above where it is set."""
    config = control_config(CELL, INFO)
    table = config.table.reshape(len(c.Fault), 4)
    assert (table[:, c.CLEAR] <= table[:, c.THRESHOLD]).all()
    assert config.table.dtype == config.number.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("taper_v", 0.0),
        ("open_wait_s", -1.0),
        ("max_age_s", math.nan),
        ("taper_degc", "x"),
        ("taper_v", True),
        ("limit_fall_s", 0),
        ("cooling_min_degc", 30.0),
    ],
)
def test_settings_that_cannot_work_are_refused(name, value) -> None:
    with pytest.raises(ValueError, match=name):
        ControlSettings(**{name: value})


def test_temperatures_may_be_negative() -> None:
    assert ControlSettings(cooling_min_degc=-5.0).cooling_min_degc == -5.0
