"""Sides by URL: which there are, and mistakes in one line."""

from typing import Any

import pytest

from hal.errors import ConfigError
from hal.pcs import SCHEMES, Ratings, open_north

RATINGS = Ratings(charge_v=58.0, discharge_v=42.0)


class Still:
    def now_s(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("modbus:tcp://127.0.0.1:0?silent=5&access=read", "SunSpecNorth"),
        ("modbus:rtu://pty?baud=19200", "SunSpecNorth"),
        ("can:virtual:sides?silent=5&maker=ME&modules=3&profile=pylontech&bitrate=250000", "InverterNorth"),
    ],
)
def test_the_scheme_says_which_side_it_is(url: str, kind: str, info_of: Any) -> None:
    side = open_north(url, info_of(16), Still(), RATINGS)
    assert type(side).__name__ == kind
    assert SCHEMES[url.partition(":")[0]].endswith(kind)
    assert side.silences == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("tcp://127.0.0.1:5020", "unknown scheme 'tcp'"),
        ("modbus", "expected scheme:address"),
        ("modbus:udp://127.0.0.1:1", "expected tcp://HOST:PORT"),
        ("modbus:tcp://127.0.0.1:0?silent=0.5", "silent = 0.5: expected a number in 1..3600"),
        ("modbus:tcp://127.0.0.1:0?access=write", "access = write: expected control, or read"),
        ("modbus:tcp://127.0.0.1:0?profile=sunspec", "unknown option 'profile'"),
        ("modbus:tls://127.0.0.1:0", "cert is missing"),
        ("can:virtual", "expected can:INTERFACE:CHANNEL"),
        ("can:virtual:a?profile=other", "profile = other: no protocol of inverters (known: pylontech)"),
        ("can:virtual:a?silent=x", "silent = x: expected a number"),
        ("can:virtual:a?silent=0.5", "silent_s = 0.5: more than 1 s"),
        ("can:virtual:a?modules=1.5", "modules = 1.5: expected a whole number"),
        ("can:virtual:a?maker=FARTOOLONG", "maker = 'FARTOOLONG': up to eight"),
        ("can:virtual:a?n_cells=16", "keys of a rack, have no meaning"),
        ("can:virtual:a?fd=1", "no meaning for an inverter"),
        ("can:virtual:a?silence=3", "unknown key 'silence'"),
    ],
)
def test_mistakes_are_told_in_one_line(url: str, said: str, info_of: Any) -> None:
    with pytest.raises(ConfigError) as error:
        open_north(url, info_of(16), Still(), RATINGS)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
