"""Where a controller is, from a URL."""

from __future__ import annotations

import pytest

from hal.errors import ConfigError
from hal.flash.can_bus import CanPlace, can_place
from hal.registry import parse_url


def place(url: str) -> CanPlace:
    return can_place(parse_url(url))


def test_identifiers_have_defaults_and_can_be_given() -> None:
    assert (place("can:virtual:a").request_id, place("can:virtual:a").response_id) == (0x7E0, 0x7E8)
    given = place("can:virtual:a?request_id=0x123&response_id=7&bitrate=250000")
    assert (given.request_id, given.response_id, given.address.bitrate) == (0x123, 7, 250000)
    assert str(given) == "can:virtual:a"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sim:lfp_280", "'sim:lfp_280': flashed over can: or serial:, for example can:socketcan:can0"),
        ("can:virtual:a?request_id=x", "request_id = x: expected an identifier from 0 to 0x7ff"),
        ("can:virtual:a?response_id=0x800", "response_id = 0x800: expected an identifier"),
        ("can:virtual:a?response_id=0x7e0", "request_id and response_id are the same"),
        ("can:virtual", "expected can:INTERFACE:CHANNEL"),
        ("can:virtual:a?requst_id=1", "unknown key 'requst_id'"),
    ],
)
def test_what_is_wrong_is_named(url: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        place(url)


def test_the_bus_is_opened() -> None:
    with place("can:virtual:test_can_bus").open() as bus:
        assert bus.channel_id == "test_can_bus"
