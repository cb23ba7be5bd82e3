from typing import Any

import pytest

from hal.backends.record import Listener
from hal.backends.wrapper import PRIVATE, Wrapper
from hal.contract import HasTruth, Measurement, Rack
from hal.registry import open_rack


class Listening:
    """A rack that a recorder could be."""

    own = 7

    def steered(self, header: object) -> None: ...

    def decided(self, *details: object) -> None: ...


def test_all_that_it_does_not_change_is_the_racks_own() -> None:
    rack = Wrapper(open_rack("sim:lfp_280?n_series=4"))
    assert isinstance(rack, Rack)
    assert isinstance(rack, HasTruth)
    m = Measurement(4, 1)
    with rack as entered:
        assert entered is rack
        entered.read(m)
        assert m.cell_v.min() > 3.0
    assert rack.info.n_cells == 4
    assert rack.twin.config.n_series == 4


def test_what_it_hides_stays_hidden() -> None:
    rack: Any = Wrapper(Listening())  # type: ignore[arg-type]
    assert rack.own == 7
    assert isinstance(Listening(), Listener)
    assert not isinstance(rack, Listener)
    for name in (*PRIVATE, "_secret"):
        with pytest.raises(AttributeError, match=name):
            getattr(rack, name)
