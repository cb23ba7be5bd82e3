"""How much faster is the estimator than those of other packages, on the same cells, samples and processor core?

Run with `python bench/peers.py` (half a minute). `python bench/peers.py --install` fetches the packages before, into an
environment of their own, .venv-peers (1 GB; the extra `peers` of pyproject.toml names them); a package that is not
there is skipped. One peer is not on PyPI: see `MOIRAE`.

A rack of 416 sodium-ion cells, whose steep voltage curve shows within minutes whether a filter works, follows a current
that jumps, for 15 min at 1 s. Every filter gets the same voltages, currents and temperatures with the same noise,
starts 10 % SoC too low, and must end near the truth. Ours has nine states and shares the bias of the current sensor
between all cells; for each peer there are a filter as close to that as the package allows and one of four states, which
is kinder to it (bench/peer.py). All run on one core and one thread, in turns, and the best round of each counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports numpy, and for the peers' processes
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from ekf import in_turns
from peer import COLUMNS
from tables import Table

from bms.cells import load
from bms.core import estimator_layout as e
from bms.core.estimator import estimator_step
from bms.core.jit import kernel
from bms.core.layout import Config, State, config_of, state_of
from bms.core.step import initial_state
from bms.racks.config import default
from bms.racks.record import record
from hal.contract import RackInfo

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".venv-peers"
MOIRAE = "git+https://github.com/ROVI-org/auto-soh"
"""Where moirae comes from: what PyPI calls moirae is another package, which runs workflows."""

PEERS = {"filterpy": "filterpy", "dynamax": "dynamax", "moirae": MOIRAE}

CELL, CELLS, STEPS, DT_S = "na_185", 416, 900, 1.0
WRONG_BY, BAR = 0.10, 0.03
"""Error of the SoC at the start, and the largest RMSE at the end of a filter that works."""


@kernel("void(u1[::1], u1[::1], f4[::1], f4[:,::1], f4[:,::1], u1[::1], f4)")
def filter_duty(config: Any, state: Any, current_a: Any, cell_v: Any, cell_degc: Any, quality: Any, dt_s: Any) -> None:
    """The filters of a rack over a duty: `current_a` (n,), `cell_v` and `cell_degc` (n, cells)."""
    c = config_of(config).estimator
    head = c.scalars[0]
    s = state_of(state, int(head.n_cells), int(head.n_sensors)).estimator
    for k in range(current_a.size):
        estimator_step(c, s, cell_v[k], quality, cell_degc[k], current_a[k], np.uint8(0), dt_s)


class Duty:
    """Samples of a simulated rack, from the tables of the controller's cell file in double precision."""

    def __init__(self) -> None:
        cell = load(CELL)
        info = RackInfo("bench", CELLS, 1, 1, cell.capacity_ah, CELL, np.zeros(CELLS, np.uint16))
        self.config: Config = record(default(cell, info), info)
        self.nodes = self.config.nodes.reshape(e.N_DEGC, e.N_SOC, e.NODE).astype(float)
        rng = np.random.default_rng(5)
        levels = rng.uniform(-0.8, 0.8, STEPS // 15)
        true_a = np.repeat(levels - levels.mean(), 15) * cell.capacity_ah
        self.degc = np.tile(rng.uniform(22.0, 28.0, CELLS), (STEPS, 1))
        z = np.linspace(0.55, 0.65, CELLS)
        self.soc = z - WRONG_BY
        volts = np.empty((STEPS, CELLS))
        tune = self.config.head
        kept = np.exp(-DT_S / np.array([tune[f"tau{j}_s"] for j in range(1, 5)], float)).reshape(4, 1)
        rc, h = np.zeros((4, CELLS)), np.zeros(CELLS)
        for k, i in enumerate(true_a):
            p = self._parameters(z, self.degc[k])
            moved = p[e.RATE] * (1.0 if i > 0.0 else p[e.ETA]) * i * DT_S
            z = z - moved
            p = self._parameters(z, self.degc[k])
            rc = kept * rc + (1.0 - kept) * p[e.R1 : e.R4 + 1] * i
            keep_h = np.exp(-np.abs(moved * p[e.GAMMA]))
            h = keep_h * h - (1.0 - keep_h) * np.sign(i)
            bent = tune["bend_a"][0] * np.arcsinh(i / tune["bend_a"][0])
            ohmic = p[e.R0] * i + p[e.RCT] * bent
            volts[k] = p[e.OCV] + p[e.M] * h + p[e.M0] * np.sign(i) - rc.sum(axis=0) - ohmic
        self.truth = z
        self.cell_v = np.ascontiguousarray(volts + rng.normal(0.0, 0.001, volts.shape), np.float32)
        self.degc = np.ascontiguousarray(self.degc, np.float32)
        self.current_a = (true_a + rng.normal(0.0, 0.001 * cell.capacity_ah, STEPS)).astype(np.float32)
        self.start = initial_state(self.config, self.soc, WRONG_BY)

    def _parameters(self, z: Any, degc: Any) -> Any:
        """Parameters of the cells, (NODE, cells), at SoC `z` and temperature `degc`."""
        tune, nodes = self.config.head, self.nodes
        at = (degc - tune["degc_first"]) * tune["nodes_per_kelvin"]
        t = at.astype(int)
        ft = (at - t)[:, None]
        column = z * tune["nodes_per_soc"]
        c = column.astype(int)
        fz = (column - c)[:, None]
        low = nodes[t, c] + fz * (nodes[t, c + 1] - nodes[t, c])
        high = nodes[t + 1, c] + fz * (nodes[t + 1, c + 1] - nodes[t + 1, c])
        return (low + ft * (high - low)).T

    def write(self, path: Path) -> None:
        """What bench/peer.py reads; the means and signs of the current, which our kernel finds itself, ready-made."""
        a = self.current_a
        np.savez(
            path,
            current_a=a,
            middle_a=np.concatenate([a[:1], 0.5 * (a[1:] + a[:-1])]),
            sign=np.sign(a),
            cell_v=self.cell_v,
            degc=self.degc,
            soc=self.soc,
            soc_std=np.full(CELLS, WRONG_BY),
            dt_s=DT_S,
            nodes=self.nodes[..., [getattr(e, name) for name in COLUMNS]].astype(np.float32),
            rates=self.nodes[:, 0, e.RATE] * np.stack([np.ones(e.N_DEGC), self.nodes[:, 0, e.ETA]]),
            tune=self.config.head[[field.name for field in e.SETTINGS]].copy(),
        )

    def ours(self) -> tuple[Callable[[], None], Callable[[], float]]:
        """A function that runs our filters over the duty once, from the start, and one that tells their RMSE."""
        state = State(CELLS, 1)
        quality = np.zeros(CELLS, np.uint8)
        go = filter_duty.bind(self.config.bytes, state.bytes, self.current_a, self.cell_v, self.degc, quality)

        def run() -> None:
            state.bytes[:] = self.start.bytes
            go(DT_S)

        return run, lambda: self.rmse(range(CELLS), state.out[e.SOC * CELLS : (e.SOC + 1) * CELLS])

    def rmse(self, cells: Any, soc: Any) -> float:
        """Error of the SoC at the end over `cells`."""
        return float(np.sqrt(np.mean((np.asarray(soc, float) - self.truth[list(cells)]) ** 2)))


class Peer:
    """A package at work in a process of its own. `about` has its version and cases, and is None if it cannot start."""

    def __init__(self, name: str, python: str, duty: Path) -> None:
        self.name = name
        command = [python, str(Path(__file__).with_name("peer.py")), name, str(duty)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.about = self._read()
        self.answers: dict[int, Any] = {}

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def run(self, case: int) -> None:
        """One round of a case; its answer has the SoC of its cells at the end."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{case}\n")
        self.process.stdin.flush()
        self.answers[case] = self._read()
        if self.answers[case] is None:
            raise SystemExit(f"bench/peers.py: {self.name} failed: {self.close()}")

    def close(self) -> str:
        """End it; returns the last line of what it complained about."""
        _, complaints = self.process.communicate()
        return (complaints.strip().splitlines() or ["nothing was said"])[-1]


def install() -> int:
    """Make `PLACE` and fetch the packages; returns pip's exit code."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    subprocess.run([sys.executable, "-m", "venv", str(PLACE)], check=True)
    pip = [str(interpreter()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, MOIRAE]).returncode:
        print(f"bench/peers.py: no {MOIRAE}: moirae will be skipped", file=sys.stderr)
    return subprocess.run([*pip, *extras["peers"]]).returncode


def interpreter() -> Path:
    """The Python that has the peers: that of `PLACE`, if it is there."""
    path = PLACE / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return path if path.exists() else Path(sys.executable)


def one_core() -> None:
    """Stay on one processor core, with all processes started from here, where the system can be told so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def started(names: Iterable[str], python: str, duty: Path) -> list[Peer]:
    """The peers that are installed; says of the others how to get them."""
    found = []
    for name in names:
        peer = Peer(name, python, duty)
        if peer.about is None:
            print(f"{name} is skipped ({peer.close()}): {python} -m pip install {PEERS[name]}")
        else:
            found.append(peer)
    return found


def measure(peers: list[Peer], duty: Duty, rounds: int, table: Table) -> bool:
    """Fill the table, ours first, and say how many times faster ours is; returns whether every filter works."""
    ours, our_error = duty.ours()
    cases = [(peer, k, case) for peer in peers for k, case in enumerate(peer.about["cases"])]
    functions: dict[str, Callable[[], None]] = {}
    for peer, k, _ in cases:
        functions[f"ours before {peer.name} {k}"] = ours
        functions[f"{peer.name} {k}"] = lambda peer=peer, k=k: peer.run(k)
    for function in functions.values():  # once to warm up
        function()
    best = in_turns(functions, rounds)
    mine = min(value for name, value in best.items() if name.startswith("ours")) / CELLS
    errors = [our_error()]
    note = f"{CELLS} cells in the cache; SoC {100 * errors[0]:.2f} % off at the end"
    table.row("ours: EKF, 9 states and bias", mine / STEPS * 1e9, "1.00 x", note)
    ratios: dict[str, list[float]] = {}
    for peer, k, case in cases:
        theirs = best[f"{peer.name} {k}"] / case["cells"]
        errors.append(duty.rmse(**peer.answers[k]))
        note = f"{case['how']}, {case['cells']} cells; SoC {100 * errors[-1]:.2f} % off at the end"
        name = f"{peer.name} {peer.about['version']}: {case['title']}"
        table.row(name, theirs / STEPS * 1e9, f"{theirs / mine:,.0f} x ours", note)
        ratios.setdefault(peer.name, []).append(theirs / mine)
    for name, of in ratios.items():
        print(f"ours is {min(of):,.0f} times as fast as {name} at its fastest")
    return max(errors) < BAR


def main() -> int:
    """Print the table; exit code 1 if a filter does not find the SoC."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="fetch the packages into .venv-peers, and stop")
    parser.add_argument("--python", help="interpreter that has the packages (default: .venv-peers, or this one)")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one (may be given again)")
    parser.add_argument("--rounds", type=int, default=10)
    Table.add_arguments(parser)
    args = parser.parse_args()
    if args.install:
        return install()
    one_core()
    duty = Duty()
    table = Table("peers", "The estimator and those of other packages, one core each", "ns per cell-step")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "duty.npz"
        duty.write(path)
        peers = started(args.peer or PEERS, args.python or str(interpreter()), path)
        if not peers:
            print("no peer is installed: python bench/peers.py --install")
            return 0
        good = measure(peers, duty, args.rounds, table)
        for peer in peers:
            peer.close()
    table.finish(args)
    if not good:
        print(f"a filter ends more than {100 * BAR:.0f} % off: the comparison is worth nothing", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
