"""The interface of a server: what serves a rack on a wire has exactly this."""

from collections.abc import Callable
from typing import Any

import pytest

from hal.contract import RackInfo
from hal.serve import Server
from hal.serve.modbus import ModbusServer


class Still:
    def now_s(self) -> float:
        return 0.0


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "rtu://pty?baud=9600"])
def test_starting_and_stopping_twice_is_harmless(
    url: str, info_of: Callable[..., RackInfo], measured: Any, commanded: Any
) -> None:
    info = info_of()
    server: Server = ModbusServer(url, info, Still())
    server.start()
    server.start()
    server.publish(measured(info))
    before = commanded(info)
    out = before.blank()
    out.copy_from(before)
    assert not server.take(out)
    assert out.bytes.tobytes() == before.bytes.tobytes()
    server.stop()
    server.stop()
    server.start()
    server.stop()
