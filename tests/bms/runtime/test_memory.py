"""What a controller remembers over a restart: all that should, nothing that should not, and only if it can be true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bms.core import machine as m
from bms.core.diagnosis import ACTIVE, LATCHED, N_TIERS
from bms.core.faults import Fault
from bms.core.guard import RESET_CAUSE, STORE_VERDICT
from bms.core.machine_table import Request
from bms.runtime.memory import Counters, Memory, expected, restore, schemas, sections_of
from bms.runtime.persist import pack, unpack
from hal.contract import RackState

DAY_S = 86400.0


def used(bench, **changes):
    """A rack that has run for a while: (info, controller)."""
    rack, controller, clock = bench(**changes)
    for k in range(40):
        rack.read(controller.measurement)
        controller.step(Request.CONNECT, 1.0)
        rack.write(controller.command)
        clock.wait_until(k + 1.0, lambda: False)
    assert controller.command.head["state"] == RackState.CONNECTED
    return rack.info, controller


def test_what_is_kept_comes_back(bench) -> None:
    info, controller = used(bench)
    state = controller.state
    row = N_TIERS * Fault.CELL_LEAK + 2
    state.fault_status[row] = ACTIVE | LATCHED
    state.machine_wear[0], state.machine_word[m.OPERATIONS] = 0.25, 17
    state.health_capacity[3], state.balancing_excess_ah[2], state.leak_a[1] = 0.9, 1.5, 0.02
    sections = sections_of(controller, Counters(1e9, 2e9, 3.0, 4.0))

    _, fresh = used(bench)
    counters = Counters()
    assert restore(fresh, info, sections, 0.0, counters) == []
    assert fresh.state.fault_status[row] == LATCHED, "whether the cause is there has to show"
    assert not (fresh.state.fault_status & ACTIVE).any()
    assert (fresh.state.machine_wear[0], fresh.state.machine_word[m.OPERATIONS]) == (0.25, 17)
    assert fresh.state.health_capacity[3] == np.float32(0.9)
    assert (fresh.state.balancing_excess_ah[2], fresh.state.leak_a[1]) == (1.5, np.float32(0.02))
    assert counters == Counters(1e9, 2e9, 3.0, 4.0)
    np.testing.assert_array_equal(fresh.soc, controller.soc)


def test_the_filters_go_on_from_what_was_kept(bench) -> None:
    """The next step of a restored controller is about where the old one would be, and it keeps what it knew."""
    info, controller = used(bench, initial_soc=0.5, initial_soc_std=0.004)
    sections = sections_of(controller, Counters())
    rack, fresh, _ = bench()
    assert fresh.soc_std.min() > 0.1
    restore(fresh, info, sections, 0.0, Counters())
    rack.read(fresh.measurement)
    fresh.step(Request.OPEN, 1.0)
    np.testing.assert_allclose(fresh.soc, controller.soc, atol=1e-3)
    assert fresh.soc_std.max() < 0.02


def test_time_away_makes_the_soc_less_certain(bench) -> None:
    info, controller = used(bench, initial_soc=0.5, initial_soc_std=0.004)
    sections = sections_of(controller, Counters())
    found = []
    for days in (0.0, 10.0, 100.0):
        _, fresh, _ = bench()
        restore(fresh, info, sections, days * DAY_S, Counters())
        found.append(float(fresh.soc_std.max()))
    assert found[0] < 0.015
    assert found[1] == pytest.approx(np.hypot(found[0], 0.03), rel=0.05)
    assert found[2] == pytest.approx(0.3, rel=0.05)


def test_voltages_at_rest_win_over_what_they_contradict(bench) -> None:
    """The store says 20 %, the voltages of full cells say otherwise."""
    rack = {"n_series": 8, "module_groups": 4, "seed": 3, "initial_soc": 0.2}
    info, controller = used(bench, rack=rack, initial_soc=0.2, initial_soc_std=0.005)
    sections = sections_of(controller, Counters())
    _, fresh, _ = bench(rack=rack | {"initial_soc": 0.99})
    before = fresh.soc.copy()
    refused = restore(fresh, info, sections, 0.0, Counters())
    assert len(refused) == 1
    assert "voltages at rest contradict it" in refused[0]
    np.testing.assert_array_equal(fresh.soc, before)


@pytest.mark.parametrize("name", ["estimate", "health", "balancing", "leak", "faults", "contactors", "counters"])
def test_a_section_that_is_missing_or_makes_no_sense_leaves_the_estimates_alone(bench, name: str) -> None:
    info, controller = used(bench, initial_soc=0.5, initial_soc_std=0.004)
    controller.state.machine_wear[0] = 0.5
    sections = sections_of(controller, Counters())
    arrays = {key: np.full_like(array, 77) for key, array in unpack(sections[name]).items()}
    arrays.pop(sorted(arrays)[0])
    for changed in ({k: v for k, v in sections.items() if k != name}, sections | {name: pack(arrays)}):
        _, fresh, _ = bench()
        before = fresh.state.out.tobytes()
        refused = restore(fresh, info, changed, 0.0, Counters())
        assert [text.partition(":")[0] for text in refused] == [name]
        assert fresh.state.out.tobytes() == before
        # faults and wear do not depend on the rest
        assert fresh.state.machine_wear[0] == (0.0 if name == "contactors" else 0.5)


@pytest.mark.parametrize(
    ("section", "array", "value"),
    [("estimate", "soc", 1.2), ("estimate", "soc", np.nan), ("estimate", "soc_var", -1.0), ("faults", "status", 9),
     ("contactors", "wear", np.nan), ("counters", "energy_out_j", -1.0)],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(bench, section: str, array: str, value: float) -> None:
    info, controller = used(bench)
    sections = sections_of(controller, Counters())
    arrays = unpack(sections[section])
    arrays[array].flat[0] = value
    _, fresh, _ = bench()
    refused = restore(fresh, info, sections | {section: pack(arrays)}, 0.0, Counters())
    assert len(refused) == 1
    assert array in refused[0]


def test_another_size_of_rack_is_another_layout(bench) -> None:
    info, controller = used(bench)
    other, single, _ = bench(rack={"n_series": 7, "module_groups": 4, "seed": 3})
    a, b = schemas(info, controller.state), schemas(other.info, single.state)
    assert a.keys() == b.keys() == expected(info, controller.state).keys()
    assert {name for name in a if a[name] == b[name]} == {"faults", "contactors", "counters"}


def test_a_memory_over_two_runs(bench, tmp_path: Path) -> None:
    """A first start, an ordered end, a second start after a crash: each is told, and the latched fault is there."""
    path = tmp_path / "rack"
    rack, controller, clock = bench()
    memory = Memory(path, controller, rack.info)
    assert memory.open() == "no state was saved yet"
    assert controller.state.guard_word[[RESET_CAUSE, STORE_VERDICT]].tolist() == [0, 0]
    for k in range(30):
        rack.read(controller.measurement)
        if k == 20:
            controller.measurement.head["interlock_closed"] = 0
        controller.step(Request.CONNECT, 1.0)
        rack.write(controller.command)
        memory(k + 1, float(k), 1.0, None)
        clock.wait_until(k + 1.0, lambda: False)
    assert memory.counters.running_s == 30.0
    assert 0.0 < memory.counters.connected_s < 20.0
    assert memory.close(ordered=True) is None

    rack, controller, _ = bench()
    memory = Memory(path, controller, rack.info)
    assert "is whole" in memory.open()
    assert memory.counters.running_s == 30.0
    assert controller.state.guard_word[RESET_CAUSE] == 1
    rack.read(controller.measurement)
    controller.step(Request.CONNECT, 1.0)
    assert controller.command.fault_fatal[0] == 1 << Fault.INTERLOCK_OPEN, "latched before, not there now"
    assert controller.command.head["cause"] == 10 * Fault.INTERLOCK_OPEN + 3
    memory._store.close()  # the process dies here

    rack, controller, _ = bench()
    memory = Memory(path, controller, rack.info)
    memory.open()
    assert controller.state.guard_word[RESET_CAUSE] == 3
    memory.close(ordered=True)


def test_a_damaged_store_is_a_fault_that_is_told(bench, tmp_path: Path) -> None:
    path = tmp_path / "rack"
    rack, controller, _ = bench()
    memory = Memory(path, controller, rack.info)
    memory.open()
    memory.close(ordered=True)
    for file in tmp_path.glob("rack-*.db"):
        file.write_bytes(b"\0" * 4096)
    rack, controller, _ = bench()
    memory = Memory(path, controller, rack.info)
    assert "lost" in memory.open()
    assert controller.state.guard_word[STORE_VERDICT] == 2
    rack.read(controller.measurement)
    controller.step(Request.OPEN, 1.0)
    assert controller.command.fault_warning[Fault.STORE_DAMAGED // 32] >> Fault.STORE_DAMAGED % 32 & 1
    memory.close(ordered=True)
