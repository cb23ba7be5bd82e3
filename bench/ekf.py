"""How near to the machine's limit is the estimator: against the same algorithm in C, and against the memory?

Run with `python bench/ekf.py` (a minute). The reference, bench/ekf.c, is compiled here and now with the system's C
compiler in several ways, works on the same records, and must leave the same numbers. Everything is timed in turns, the
best of many rounds counts, so that the ratios hold on a machine that others use too.

- In the cache: one rack of 416 cells, one thread, nanoseconds per cell and step; ratio to the best C.
- In memory: 2,684 racks, 1,116,544 cells, one thread per core; ratio to the time that the bytes alone take when they
  are copied as fast as this machine can.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tables import Table

from bms.cells import load
from bms.core.estimator import estimator_step
from bms.core.estimator_layout import BLOCK_ROWS, OUT_ROWS, SOC
from bms.core.estimator_setup import lanes_of
from bms.core.jit import kernel
from bms.core.layout import CONFIG, STATE, Config, State, config_of, state_of
from bms.core.step import initial_state
from bms.racks.config import default
from bms.racks.record import record
from hal.contract import RackInfo

CELLS, RACKS = 416, 2684
CURRENT_A, DT_S = 60.0, 1.0
CC = os.environ.get("CC", "cc")
SOURCE = Path(__file__).with_suffix(".c")

_COMMON = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-std=gnu11")
VARIANTS: dict[str, tuple[str, ...]] = {
    "scalar": ("-fno-tree-vectorize", "-ffp-contract=off", "-DSCALAR"),
    "strict": ("-ffp-contract=off",),
    "strict, 512 bits": ("-ffp-contract=off", "-mprefer-vector-width=512"),
    "with FMA": ("-ffp-contract=fast",),
    "with FMA, 512 bits": ("-ffp-contract=fast", "-mprefer-vector-width=512"),
    "fast-math": ("-ffast-math",),
    "fast-math, 512 bits": ("-ffast-math", "-mprefer-vector-width=512"),
}
EXACT = ("scalar", "strict", "strict, 512 bits")  # the same operations in the same order: the same bits


@kernel("void(u1[::1], u1[:,::1], f4[:,::1], u1[:,::1], f4[:,::1], f4, f4, i8, i8, i8)")
def filter_racks(
    config: Any,
    states: Any,
    cell_v: Any,
    quality: Any,
    cell_degc: Any,
    current_a: Any,
    dt_s: Any,
    first: int,
    last: int,
    steps: int,
) -> None:
    """`steps` samples of the racks first..last; the current changes its sign every step."""
    c = config_of(config)
    head = c.estimator.scalars[0]
    n_cells, n_sensors = int(head.n_cells), int(head.n_sensors)
    good = np.uint8(0)
    for k in range(steps):
        ampere = -current_a if k % 2 else current_a
        for r in range(first, last):
            s = state_of(states[r], n_cells, n_sensors).estimator
            estimator_step(c.estimator, s, cell_v[r], quality[r], cell_degc[r], ampere, good, dt_s)


class Site:
    """Racks of `CELLS` cells each, their filters started around half full."""

    def __init__(self, n_racks: int) -> None:
        cell = load("lfp_280")
        info = RackInfo("bench", CELLS, 1, 1, cell.capacity_ah, "lfp_280", np.zeros(CELLS, np.uint16))
        self.config = record(default(cell, info), info)
        start = initial_state(self.config, np.linspace(0.48, 0.52, CELLS), 0.05)
        room = np.zeros(n_racks * start.bytes.size + 64, np.uint8)
        at = -room.ctypes.data % 64
        self.states = room[at : at + n_racks * start.bytes.size].reshape(n_racks, start.bytes.size)
        self.states[:] = start.bytes
        self.cell_v = np.ascontiguousarray(np.tile(np.linspace(3.28, 3.30, CELLS, dtype=np.float32), (n_racks, 1)))
        self.quality = np.zeros((n_racks, CELLS), np.uint8)
        self.degc = np.full((n_racks, CELLS), 25.0, np.float32)

    def ours(self) -> Callable[[int, int, int], None]:
        """Run racks first..last for so many steps, compiled from Python."""
        bound = filter_racks.bind(self.config.bytes, self.states, self.cell_v, self.quality, self.degc)
        return lambda first, last, steps: bound(CURRENT_A, DT_S, first, last, steps)

    def c(self, library: Any) -> Callable[[int, int, int], None]:
        """The same with a compiled variant of bench/ekf.c."""
        record = State(CELLS, 1).raw.dtype.fields
        assert record is not None
        config = self.config
        pointers = [a.ctypes.data for a in (config.head, config.nodes, self.states)]
        offsets = [self.states.shape[1], record["blocks"][1], record["out"][1], record["flags"][1]]
        data = [a.ctypes.data for a in (self.cell_v, self.quality, self.degc)]
        function = library.filter_racks
        function.restype = None
        pointer, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
        function.argtypes = [pointer] * 3 + [whole] * 4 + [pointer] * 3 + [whole, real, real] + [whole] * 3

        def run(first: int, last: int, steps: int, owner: Site = self) -> None:  # `owner` keeps the arrays alive
            function(*pointers, *offsets, *data, CELLS, CURRENT_A, DT_S, first, last, steps)

        return run


def c_head(config: Config) -> str:
    """The structures that bench/ekf.c expects in front of it, from the layouts."""
    kinds = {"f4": "float", "u4": "uint32_t"}
    assert (BLOCK_ROWS, OUT_ROWS) == (64, 4)
    text = "#include <stdint.h>\n"
    for name, layout in (("head", CONFIG), ("shared", STATE)):
        fields = " ".join(f"{kinds[f.kind]} {f.name};" for f in layout.scalars)
        text += f"struct {name} {{ {fields} }} __attribute__((aligned(64)));\n"
        text += f'_Static_assert(sizeof(struct {name}) == {layout.head_dtype.itemsize}, "{name}");\n'
    return text


def compiled(config: Config, folder: Path) -> dict[str, Any]:
    """bench/ekf.c compiled in every way, by name."""
    source = folder / "ekf.c"
    source.write_text(c_head(config) + SOURCE.read_text())
    found = {}
    for k, (name, flags) in enumerate(VARIANTS.items()):
        target = folder / f"ekf{k}.so"
        subprocess.run([CC, *_COMMON, *flags, str(source), "-o", str(target), "-lm"], check=True)
        found[name] = ctypes.CDLL(str(target))
    return found


def check_numbers(libraries: dict[str, Any], steps: int = 200) -> dict[str, float]:
    """Largest difference of SoC between ours and each variant after `steps`; the exact ones must have the same bits."""
    ours = Site(1)
    ours.ours()(0, 1, steps)
    differences = {}
    for name, library in libraries.items():
        theirs = Site(1)
        theirs.c(library)(0, 1, steps)
        a, b = (soc(site) for site in (ours, theirs))
        differences[name] = float(np.abs(a - b).max())
        if name in EXACT:
            assert _filters(ours) == _filters(theirs), f"{name}: not the same bits"
        assert differences[name] < 1e-5, f"{name}: {differences[name]} of SoC"
    assert np.ptp(soc(ours)) > 1e-3, "the filters must have done something"
    return differences


def _record(site: Site) -> Any:
    return site.states[0].view(State(CELLS, 1).raw.dtype)


def soc(site: Site) -> Any:
    """SoC of the first rack's cells."""
    return _record(site)["out"][0][SOC * lanes_of(CELLS) :][:CELLS]


def _filters(site: Site) -> bytes:
    record = _record(site)
    return bytes(record["blocks"].tobytes() + record["out"].tobytes() + record["head"].tobytes())


def in_turns(functions: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Seconds of the fastest of `rounds` calls of each, taken in turns."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def copied(threads: int, size: int = 256 << 20) -> tuple[Callable[[], None], int]:
    """A function that copies `size` bytes with each thread, and how many bytes it moves (read and written)."""
    pairs = [(np.ones(size, np.uint8), np.ones(size, np.uint8)) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def copy() -> None:
        list(pool.map(lambda pair: np.copyto(*pair), pairs))

    return copy, 2 * size * threads


def in_ranges(pool: ThreadPoolExecutor, run: Callable[[int, int, int], None], edges: list[int]) -> None:
    """One step of all racks, each thread its range."""
    list(pool.map(run, edges[:-1], edges[1:], [1] * (len(edges) - 1)))


def traffic_bytes() -> int:
    """Bytes that a step has to move per cell: the filter read and written, results written, measured values read."""
    blocks, results, measured = BLOCK_ROWS * 4, OUT_ROWS * 4 + 1, 4 + 4 + 1
    return 2 * blocks + results + measured


def main() -> int:
    """Print the tables; exit code 1 if no C compiler is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--racks", type=int, default=RACKS)
    Table.add_arguments(parser)
    args = parser.parse_args()
    if shutil.which(CC) is None:
        print(f"bench/ekf.py: no C compiler '{CC}': install gcc, or name one with CC=", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        site = Site(1)
        libraries = compiled(site.config, Path(folder))
        differences = check_numbers(libraries)
        steps = 1000
        functions = {"ours": partial(site.ours(), 0, 1, steps)}
        functions |= {f"C, {name}": partial(site.c(library), 0, 1, steps) for name, library in libraries.items()}
        best = in_turns(functions, args.rounds)
        fastest_c = min(value for name, value in best.items() if name != "ours")
        table = Table("ekf_cache", f"One rack of {CELLS} cells in the cache, one thread", "ns per cell-step")
        for name, value in best.items():
            note = "" if name == "ours" else f"SoC within {differences[name.removeprefix('C, ')]:.1e}"
            table.row(name, value / steps / CELLS * 1e9, f"{value / fastest_c:.2f} x the best C", note)
        table.finish(args)

        threads = os.cpu_count() or 1
        site = Site(args.racks)
        pool = ThreadPoolExecutor(threads)
        edges = np.linspace(0, args.racks, threads + 1).astype(int)

        def spread(run: Callable[[int, int, int], None]) -> partial[None]:
            return partial(in_ranges, pool, run, edges.tolist())

        copy, moved = copied(threads)
        wide = [name for name in libraries if name != "scalar"]
        functions = {"copy": partial(copy), "ours": spread(site.ours())}
        functions |= {f"C, {name}": spread(site.c(libraries[name])) for name in wide}
        best = in_turns(functions, max(5, args.rounds // 2))
        per_byte = best.pop("copy") / moved
        floor = per_byte * traffic_bytes()
        cells = args.racks * CELLS
        table = Table("ekf_memory", f"{cells:,} cells, {threads} threads", "ns per cell-step")
        table.row(f"memory alone, {traffic_bytes()} bytes at {1e-9 / per_byte:.1f} GB/s", floor * 1e9, "1.00 x", "")
        for name, value in best.items():
            table.row(name, value / cells * 1e9, f"{value / cells / floor:.2f} x memory alone", "")
        table.finish(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
