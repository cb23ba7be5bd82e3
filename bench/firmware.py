"""How many instructions does a control step of a rack take on a microcontroller, how much flash, RAM and stack?

Run with `python bench/firmware.py` (a minute). The firmware of each board controls a twin of 416 cells for half a
minute at 10 Hz, in the emulator, whose timer counts instructions: 20 for each of its ticks, the timer's own interrupt
included. The bar: a step takes at most 20 % of a period of 100 ms at 400 MHz, if each instruction takes a cycle, and
everything fits into 512 kB of RAM.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from tables import Table

from bms.core.jit import PROGRAM
from bms.core.machine_table import Request
from bms.firmware import boards
from bms.firmware.baked import Baked
from bms.firmware.build import rackbms_header
from bms.firmware.inloop import Elsewhere
from bms.firmware.report import flash_and_ram
from bms.runtime.clock import VirtualClock
from bms.runtime.run import choose, make_controller, open_rack
from hal.engine.elf import Elf
from hal.engine.emulator import NS_A_INSTRUCTION

PERIOD_S, CLOCK_HZ, SHARE, RAM_BYTES = 0.1, 400e6, 0.2, 512 * 1024


def steps(board: str, n: int) -> tuple[Baked, np.ndarray]:
    """The configuration of the rack, and the instructions of each of `n` steps (n,)."""
    scenario = replace(choose("frequency_regulation", None, None), period_s=PERIOD_S)
    clock = VirtualClock()
    elsewhere = Elsewhere(PROGRAM, f"qemu:{board}")
    PROGRAM.run_elsewhere(elsewhere.entries())
    taken = np.zeros(n)
    with open_rack(scenario, clock) as rack:
        controller = make_controller(scenario, rack, clock)
        there, _ = elsewhere.controller(controller.config.bytes, controller.state.bytes)
        for k in range(n):
            rack.read(controller.measurement)
            controller.step(Request.CONNECT, PERIOD_S)
            rack.write(controller.command)
            taken[k] = there.ticks * (1e9 / there.identity.timer_hz / NS_A_INSTRUCTION)
            clock.wait_until(clock.now_s() + PERIOD_S, lambda: False)
        there.close()
    return Baked.of(controller.config.bytes), taken


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300, help="control steps of each board (default: 300)")
    Table.add_arguments(parser)
    args = parser.parse_args()
    work = Table("firmware_steps", "A control step of 416 cells", "instructions")
    memory = Table("firmware_memory", "Firmware for 416 cells and 52 temperature sensors", "bytes")
    for board in boards.BOARDS:
        found, taken = steps(board, args.steps)
        cells = found.record.n_cells
        for name, value in (("mean", taken.mean()), ("most", taken.max())):
            share = value / CLOCK_HZ / PERIOD_S
            ratio = f"{share / SHARE:.2f} x the bar of {SHARE:.0%} of {PERIOD_S * 1000:g} ms at {CLOCK_HZ / 1e6:g} MHz"
            work.row(f"{board}, {name}", value, ratio, f"{value / cells:,.0f} a cell, {share:.1%} of the period")
        made = boards.link(board, PROGRAM.image(board)[0], rackbms_header(board), found)
        flash, ram = flash_and_ram(Elf(made.elf))
        memory.row(f"{board}, flash", flash, "", f"of which {len(made.config):,} are the configuration")
        memory.row(f"{board}, RAM", ram, f"{ram / RAM_BYTES:.2f} x the bar of 512 kB", "stacks included")
        depth = made.stack[boards.PROGRAM]
        memory.row(f"{board}, most stack", depth.size + boards.SAVED, "", " > ".join(depth.chain))
    work.finish(args)
    memory.finish(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
