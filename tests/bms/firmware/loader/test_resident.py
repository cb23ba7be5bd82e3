"""When a program takes itself for good, and its contactors for open: `resident.c`, on this computer, asked step by step."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.firmware.baked import Baked, baked, config_header
from bms.firmware.build import rackbms_header
from hal.contract import Command, Measurement, RackState, Severity

SLOT, HEALTHY_S, DT_S = 1, 10.0, 0.5

AROUND = """
#include "boot.h"
#include "cortexm.h"
#include "desk.h"
#include "resident.h"
#include "uds.h"
uint32_t link_flash[1];
static port_facts facts;
const port_facts *const port = &facts;
static uint8_t *measurement;
static const uint8_t *command;
static uint32_t confirmed_slot, confirmed_evidence, confirmations;
static bool confirms = true;
uint8_t *control_measurement(void) { return measurement; }
const uint8_t *control_command(void) { return command; }
uint32_t control_now_ms(void) { return 0; }
image_verdict image_check(uint32_t slot, uint32_t counter, image_facts *found) {
    (void)counter; (void)found;
    return slot == 1 ? IMAGE_GOOD : IMAGE_ABSENT;
}
bool boot_confirm(uint32_t slot, uint32_t evidence) {
    confirmed_slot = slot; confirmed_evidence = evidence; confirmations++;
    return confirms;
}
void desk_start(uint32_t running, const image_facts *found) { (void)running; (void)found; }
bool desk_frame(const slcan_frame *frame, uint32_t now_ms) { (void)frame; (void)now_ms; return true; }
void desk_poll(uint32_t now_ms) { (void)now_ms; }
bool channel_was_open(void) { return false; }
void channel_is_open(bool open) { (void)open; }
bool slcan_is_open(void) { return false; }
void slcan_resume(void) { }
void around_start(uint8_t *measured, const uint8_t *decided, bool takes) {
    measurement = measured; command = decided; confirms = takes; confirmations = 0;
    facts.slots[1] = (uint32_t)(uintptr_t)link_flash;
    resident_start();
}
void around_step(int32_t status, uint32_t flags, float dt_s) {
    const control_answer answer = {status, flags, 0};
    resident_step(&answer, dt_s);
}
uint32_t around_confirmations(void) { return confirmations; }
uint32_t around_slot(void) { return confirmed_slot; }
uint32_t around_evidence(void) { return confirmed_evidence; }
"""


@pytest.fixture(scope="module")
def library(cc: str, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, sources = tmp_path_factory.mktemp("resident"), repository / "bms" / "firmware"
    found: Baked = baked("nmc_ev", 12)
    for name, content in (
        ("rackbms.h", rackbms_header()),
        ("rackbms_config.h", config_header(found)),
        ("rackbms_can.h", ""),
        ("around.c", AROUND),
    ):
        (folder / name).write_text(content)
    words = [cc, "-shared", "-fPIC", "-O1", "-DBOARD_SLOT", "-Wall", "-Wextra", "-Werror", f"-I{folder}"]
    words += [f"-I{sources / name}" for name in ("board", "boot", "loader")]
    words += [str(sources / "loader" / "resident.c"), str(folder / "around.c"), "-o", str(folder / "resident.so")]
    subprocess.run(words, check=True)
    return folder / "resident.so"


class Resident:
    """What remains of the boot loader, beside a controller of which the test says what it measures and decides."""

    def __init__(self, library: Path, folder: Path, takes: bool = True) -> None:
        own = folder / f"{len(list(folder.iterdir()))}.so"  # a copy of its own: what is static in C begins anew
        own.write_bytes(library.read_bytes())
        self.c: Any = ctypes.CDLL(str(own))
        self.measurement, self.command = Measurement(1, 1), Command(1, 1)
        self.command.head["state"] = RackState.STANDBY
        at = (array.bytes.ctypes.data_as(ctypes.c_void_p) for array in (self.measurement, self.command))
        self.c.around_start(*at, ctypes.c_bool(takes))
        self.c.uds_port_contactors_open.restype = ctypes.c_bool

    def step(self, *, status: int = 0, flags: int = 0, new: bool = True) -> int:
        """One step; gives how often it has confirmed itself until now."""
        self.measurement.head["sequence"] += new
        self.c.around_step(status, flags, ctypes.c_float(DT_S))
        return int(self.c.around_confirmations())

    def steps(self, seconds: float, **how: Any) -> int:
        """Steps for so long."""
        found = 0
        for _ in range(round(seconds / DT_S)):
            found = self.step(**how)
        return found


def test_it_confirms_itself_once_after_ten_healthy_seconds(library: Path, tmp_path: Path) -> None:
    resident = Resident(library, tmp_path)
    assert resident.steps(HEALTHY_S - DT_S) == 0
    assert resident.step() == 1
    assert (resident.c.around_slot(), resident.c.around_evidence()) == (SLOT, 3)
    assert resident.steps(10 * HEALTHY_S) == 1


def test_where_the_flash_does_not_take_it_it_tries_again_later(library: Path, tmp_path: Path) -> None:
    assert Resident(library, tmp_path, takes=False).steps(3 * HEALTHY_S) == 3


@pytest.mark.parametrize("state", [RackState.INIT, RackState.SELF_TEST, RackState.FAULT])
def test_the_self_test_comes_first(library: Path, tmp_path: Path, state: RackState) -> None:
    resident = Resident(library, tmp_path)
    resident.command.head["state"] = state
    assert resident.steps(3 * HEALTHY_S) == 0
    resident.command.head["state"] = RackState.STANDBY
    assert resident.steps(HEALTHY_S - DT_S) == 0
    assert resident.step() == 1


def bad_steps(resident: Resident) -> Iterable[dict[str, Any]]:
    yield {"status": 1}
    yield {"flags": 1}
    resident.command.head["severity"] = Severity.FATAL
    yield {}
    resident.command.head["severity"] = Severity.WARNING


def test_one_step_that_is_no_good_lets_it_begin_again(library: Path, tmp_path: Path) -> None:
    resident = Resident(library, tmp_path)
    for how in bad_steps(resident):
        assert resident.steps(HEALTHY_S - DT_S) == 0
        assert resident.step(**how) == 0
    assert resident.steps(HEALTHY_S - DT_S) == 0
    assert resident.step() == 1


def test_an_old_measurement_counts_for_a_second(library: Path, tmp_path: Path) -> None:
    resident = Resident(library, tmp_path)
    assert resident.steps(3 * HEALTHY_S, new=False) == 0
    resident = Resident(library, tmp_path)
    for _ in range(round(HEALTHY_S)):
        count = (resident.step(), resident.step(new=False))
    assert count == (0, 1)


@given(mains=st.integers(0, 7), seen=st.integers(0, 7))
def test_contactors_are_open_where_none_is_asked_or_seen_to_be_closed(
    library: Path, tmp_path_factory: pytest.TempPathFactory, mains: int, seen: int
) -> None:
    resident = Resident(library, tmp_path_factory.mktemp("own"))
    resident.command.head["contactors"], resident.measurement.head["contactors"] = mains, seen
    assert resident.c.uds_port_contactors_open() == (mains == 0 and seen == 0)
