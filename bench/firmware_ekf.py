"""How many instructions does the estimator take on a microcontroller, beside the same algorithm written in C?

Run with `python bench/firmware_ekf.py` (a minute). On the emulated Cortex-M7, 416 cells are estimated so many times by
the kernels, and by bench/ekf.c (see bench/ekf.py) as arm-none-eabi-gcc compiles it with -O2 and with -O3; the
emulator's timer counts instructions, 20 for each of its ticks. All of them start from the same memory, and must leave
the same bits in it as the kernels do on this computer. The bar: 1.1 times what C takes.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
from pathlib import Path

import numpy as np
from ekf import CELLS, CURRENT_A, DT_S, SOURCE, Site, c_head, filter_racks
from tables import Table

from bms.core.layout import CONFIG, STATE
from bms.firmware import boards
from bms.firmware.baked import Baked
from bms.firmware.build import rackbms_header
from hal.engine.elf import Elf
from hal.engine.emulator import NS_A_INSTRUCTION, Emulator
from hal.engine.frames import Parser, pack
from hal.engine.load import Table as Program
from hal.engine.targets import PROCESSORS

BOARD, TICK_NS, BAR = "cortex-m7", 40.0, 1.1
OURS, THEIRS = 10, 11

MATH = """
#include <stdbool.h>
#include <stdint.h>
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wunused-function"
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define fabsf __builtin_fabsf
#define sqrtf __builtin_sqrtf
#define copysignf __builtin_copysignf
#define fmaxf(a, b) ((a) > (b) ? (a) : (b))
#define fminf(a, b) ((a) < (b) ? (a) : (b))
static inline float ldexpf(float x, int n) {
    union { uint32_t bits; float value; } power = {(uint32_t)(n + 127) << 23};
    return x * power.value;
}
"""
"""What bench/ekf.c takes of the mathematical library, for there is none."""

MAIN = """
#include "board.h"
#include "cortexm.h"
#include "link.h"
#define RECORD __attribute__((section(".records"), aligned(64)))
enum {{ CELLS = {cells}, STATE_SIZE = {state} }};
RECORD uint8_t bench_state[STATE_SIZE];
RECORD float bench_cell_v[CELLS], bench_degc[CELLS];
RECORD uint8_t bench_quality[CELLS];
void rackbms_filter_racks(uint8_t *config, int64_t config_size, uint8_t *states, int64_t n_states, int64_t state_size,
                          float *cell_v, int64_t n_v, int64_t cells_v, uint8_t *quality, int64_t n_q, int64_t cells_q,
                          float *degc, int64_t n_degc, int64_t cells_degc, float current_a, float dt_s, int64_t first,
                          int64_t last, int64_t steps);
uint32_t program_steps(void) {{ return 0; }}
static void ours(int64_t steps) {{
    rackbms_filter_racks((uint8_t *)(uintptr_t)rackbms_config, RACKBMS_CONFIG_SIZE, bench_state, 1, STATE_SIZE,
                         bench_cell_v, 1, CELLS, bench_quality, 1, CELLS, bench_degc, 1, CELLS, {current}f, {dt}f, 0, 1,
                         steps);
}}
static void theirs(int64_t steps) {{
    filter_racks((const struct head *)(const void *)rackbms_config, (const float *)rackbms_config + {nodes} / 4,
                 (char *)bench_state, STATE_SIZE, {blocks}, {out}, {flags}, bench_cell_v, bench_quality, bench_degc,
                 CELLS, {current}f, {dt}f, 0, 1, steps);
}}
int main(void) {{
    link_frame frame;
    const bool never = false;
    board_init();
    for (;;) {{
        if (!link_receive(&frame)) {{
            board_wait(&never);
            continue;
        }}
        board_timer_start();
        const uint32_t before = board_timer_ticks();
        if (frame.kind == {ours}) {{
            ours(frame.content[0]);
        }} else {{
            theirs(frame.content[0]);
        }}
        const uint32_t ticks = board_timer_ticks() - before;
        link_send(frame.kind, frame.sequence, &ticks, sizeof ticks, NULL, 0);
    }}
}}
"""


def program(site: Site) -> str:
    """The program of the board: bench/ekf.c, what it needs, and a loop that runs either on request."""
    state, config = STATE.dtype(CELLS, 1).fields, CONFIG.dtype(CELLS, 1).fields
    assert state is not None
    assert config is not None
    numbers = {name: state[name][1] for name in ("blocks", "out", "flags")}
    text = SOURCE.read_text().replace("#include <math.h>\n", "")
    numbers |= {"nodes": config["nodes"][1], "cells": CELLS, "state": site.states.shape[1], "ours": OURS}
    return MATH + c_head(site.config) + text + MAIN.format(current=CURRENT_A, dt=DT_S, **numbers)


def asked(emulator: Emulator, kind: int, steps: int) -> float:
    """Instructions that `steps` steps take."""
    parser, found = Parser(), []
    emulator.send(pack(kind, 1, bytes([steps])))
    while not found:
        found = parser.feed(emulator.receive(60.0))
    (ticks,) = struct.unpack("<I", found[0].content)
    return float(ticks * TICK_NS / NS_A_INSTRUCTION)


def measured(emulator: Emulator, site: Site, at: dict[str, int], kind: int, steps: int) -> tuple[float, np.ndarray]:
    """Instructions that `steps` steps from the memory of `site` on take, and the memory that they leave."""
    asked(emulator, kind, 0)  # it has started now, and touches nothing by itself
    places = {"state": site.states, "cell_v": site.cell_v, "degc": site.degc, "quality": site.quality}
    for name, array in places.items():
        data = array.view(np.uint8).ravel()
        emulator.memory(at[f"bench_{name}"], data.size)[:] = data
    taken = asked(emulator, kind, steps)
    return taken, without_scratch(emulator.memory(at["bench_state"], site.states.size).copy())


def without_scratch(state: np.ndarray) -> np.ndarray:
    """The bytes of a state, with zeros where the filter only works things out."""
    record = state.view(STATE.dtype(CELLS, 1))
    record["work"] = record["node"] = 0
    return state


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=70, help="steps of the filter, 255 at most (default: 70)")
    Table.add_arguments(parser)
    args = parser.parse_args()
    board, site = boards.BOARDS[BOARD], Site(1)
    name = filter_racks.__name__
    kernels = filter_racks.program._object(
        Program(name, "", {name: str(filter_racks.signature)}), {name: filter_racks}, PROCESSORS[BOARD].target
    )
    taken: dict[str, float] = {}
    left: dict[str, np.ndarray] = {}
    for level in ("-O2", "-O3"):
        with tempfile.TemporaryDirectory() as folder:
            elf = Path(folder) / "bench.elf"
            more = (level, "-DSCALAR", "-fno-math-errno", "-fno-trapping-math", "-std=gnu11", "-Wno-stringop-overflow")
            boards.compile_to(
                elf, BOARD, kernels, rackbms_header(BOARD), Baked.of(site.config.bytes), main=program(site), more=more
            )
            code = elf.read_bytes()
        at = {symbol.name: symbol.value for symbol in Elf(code).symbols()}
        with Emulator(board.emulator, board.machine, code, board.store) as emulator:
            for who, kind in (("ours", OURS), (f"C, gcc {level}", THEIRS)):
                taken[who], left[who] = measured(emulator, site, at, kind, args.steps)
    site.ours()(0, 1, args.steps)
    expected = without_scratch(site.states[0])
    for who, memory in left.items():
        assert np.array_equal(memory, expected), f"{who}: not the same bits as on this computer"
    table = Table("firmware_ekf", f"The estimator of {CELLS} cells on a {BOARD}", "instructions a cell and step")
    best = min(value for who, value in taken.items() if who != "ours")
    for who, value in taken.items():
        ratio = f"{value / best:.2f} x the better C (bar {BAR:g})" if who == "ours" else f"{value / best:.2f}"
        table.row(who, value / args.steps / CELLS, ratio)
    table.finish(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
