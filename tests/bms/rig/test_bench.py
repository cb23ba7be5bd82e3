from typing import Any

import pytest

from bms.rig.bench import Bench
from bms.rig.environment import Environment
from hal.contract import RackState
from hal.errors import ConfigError

RACK = "sim:lfp_280?n_series=16"


def test_it_opens_a_rack_and_closes_it_once() -> None:
    with Bench(Environment(RACK)) as bench:
        bench.controller.connect()
        twin: Any = bench.rack
        assert twin.contactors_closed == 0b011
    assert twin.contactors_closed == 0
    assert not bench.open
    assert bench.close()


def test_rest_forgets_everything() -> None:
    with Bench(Environment(RACK)) as bench:
        driver = bench.controller
        driver.connect()
        bench.faults.wire(drop=1.0)
        bench.faults.change("emergency_stop", "stuck", value=1.0)
        driver.until(lambda d: d.asked == 0, 30.0)
        bench.rest()
        assert driver.state == RackState.INIT
        assert driver.cause is None
        driver.connect()
        assert driver.shown() == []


def test_what_it_lacks_is_told() -> None:
    env = Environment(RACK, lacks=("gas",), source="rack.toml")
    with Bench(env) as bench:
        assert bench.lacks("contactors") == ""
        assert bench.lacks("truth") == ""
        assert bench.lacks("virtual_time") == ""
        assert bench.lacks("gas") == "rack.toml: lacks = 'gas'"
        assert bench.lacks("shuttle") == f"{RACK} has no shuttle"
        assert "not on a CAN bus" in bench.lacks("bus")
        with pytest.raises(ConfigError, match="no rack has the capability 'truht'"):
            bench.lacks("truht")


def test_the_bus_follows_from_the_url() -> None:
    with Bench(Environment(RACK)) as bench:
        bench.environment = Environment("can:socketcan:can0?bitrate=500000&fd=true&profile=reference")
        assert bench.bus_arguments() == {"interface": "socketcan", "channel": "can0", "bitrate": 500000, "fd": True}
        assert bench.lacks("bus") == ""
        bench.environment = Environment(
            "can:socketcand:can0?host=127.0.0.1&port=29536&bus.sleep_after_open=0&n_cells=12"
        )
        assert bench.bus_arguments() == {
            "interface": "socketcand",
            "channel": "can0",
            "host": "127.0.0.1",
            "port": 29536,
            "sleep_after_open": 0,
        }
        bench.environment = Environment(RACK, bus={"interface": "virtual"})
        assert bench.bus_arguments() == {"interface": "virtual"}


def test_the_configuration_is_in_the_properties() -> None:
    with Bench(Environment(RACK)) as one, Bench(Environment(RACK, controller={"limits": {"ramp_s": 4.0}})) as other:
        a, b = one.properties(), other.properties()
    assert a["configuration"] != b["configuration"]
    assert {k: v for k, v in a.items() if k != "configuration"} == {k: v for k, v in b.items() if k != "configuration"}
