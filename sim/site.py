"""Many racks of one kind with their electronics, sensors and faults, under one duty: one rack is a site of one.

Per rack nothing runs in Python but what is rare: text for what happened to the hardware, and faults of the scenario.
Ranges of racks (chunks) can be given to threads; results do not depend on how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import duty as duties
from sim import electronics as E
from sim import layout as Y
from sim.breaking import Breaking
from sim.cell import COL_U, load
from sim.config import check_ranges, from_table, key, require
from sim.environment import EnvironmentConfig
from sim.faults import FaultConfig, fault_configs
from sim.rack import RackBank, RackConfig, RackTwin, rack_config
from sim.sensors import SensorBank, SensorConfig

F8 = npt.NDArray[np.float64]

CHUNK = 32  # racks in a range

FROM_THE_START = ("cell_heat", "joint_resistance")
"""Kinds of faults that need memory which a twin has only if it is made for them: a healthy one shall not pay."""

Job = Callable[[int, int, int, int], int]
"""Works on the racks lo..hi - 1 with a slot of work rows, for a chunk; returns -1 or what is wrong."""
Runner = Callable[[Job, int, int], int]
"""Gives the chunks of so many racks, so many in each, to a job; returns its first answer that is not -1."""


def serial(job: Job, n_racks: int, chunk: int) -> int:
    """Run a job in this thread, chunk after chunk."""
    for number in range(-(-n_racks // chunk)):
        answer = job(number * chunk, min((number + 1) * chunk, n_racks), 0, number)
        if answer >= 0:
            return answer
    return -1


@dataclass(frozen=True)
class SiteConfig:
    """Table `[site]`: how the racks differ beyond their cells."""

    share_spread: float = key(
        "standard deviation of a rack's share of the duty, relative, cut at three of them", 0.0, low=0, high=0.3
    )

    def __post_init__(self) -> None:
        check_ranges(self, "[site]")


@dataclass(frozen=True)
class Event:
    """Something that happened to the hardware of the twin."""

    time_s: float
    text: str
    rack: int = 0


class Site:
    """`n_racks` racks of cell `cell`. Time passes when `run` is told so; `sample` and `command` take records."""

    def __init__(
        self,
        cell: str,
        tables: Mapping[str, Any],
        n_racks: int = 1,
        *,
        n_threads: int = 1,
        runner: Runner = serial,
        qualities: tuple[int, int] = (4, 1),
    ) -> None:
        """`tables` are those of a scenario; `qualities` the codes of a value out of range and of one missing.

        Raises `TwinError`.
        """
        data = load(cell)
        config = rack_config(data, tables.get("rack", {}))
        self.environment = from_table(EnvironmentConfig, tables.get("environment", {}), "[environment]")
        sensor_config = from_table(SensorConfig, tables.get("sensors", {}), "[sensors]", **data.sensors)
        self.config = from_table(SiteConfig, tables.get("site", {}), "[site]")
        middle_v = float(data.table[len(data.table) // 2, COL_U])
        self.rating = duties.Rating(data.head.capacity_ah * config.n_parallel, middle_v * config.n_series)
        self.duty = duties.make(tables.get("duty", {}), self.rating)
        self.n_racks = n_racks
        self.faults: tuple[FaultConfig, ...] = self._checked(tables.get("fault", ()), config)
        broken = any(fault.kind in FROM_THE_START for fault in self.faults)
        self.bank = bank = RackBank(data, config, n_racks, n_threads, broken)
        self.sensors = SensorBank(bank, sensor_config, qualities[0])
        bank.string[:, Y.S_INSULATION_OHM] = self.environment.insulation_ohm
        if self.config.share_spread > 0.0:
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((config.seed, 0x517E))))
            spread = np.clip(rng.standard_normal(n_racks), -3, 3)
            bank.string[:, Y.S_SHARE] = 1.0 + self.config.share_spread * spread
        self.time_s = 0.0
        self.sequence = 0
        self.events: list[Event] = []
        self._breaking: Breaking | None = None
        self._sensor_config, self._missing = sensor_config.effective(), qualities[1]
        if self.faults:
            self._breaking = Breaking(self.faults, bank, self._sensor_config, self.environment, self._missing)
        self._chunk = min(CHUNK, n_racks)
        self._run_chunks = runner
        self._tally = np.zeros((-(-n_racks // self._chunk), E.TALLY_SIZE))
        self._totals = [0.0] * E.TALLY_SIZE
        self._silent_since = math.inf
        self._true_rows = [
            (name, bank.lanes(row)[:, :, 0])
            for name, row in (
                ("soc", Y.C_SOC), ("capacity_ah", Y.C_CAPACITY_AS), ("resistance", Y.C_SCALE), ("cell_degc", Y.C_DEGC),
            )
        ]  # fmt: skip
        self._lanes = np.empty(self._true_rows[0][1].shape)
        self._in_order = self._lanes.reshape(n_racks, -1)[:, : bank.n_series]
        self._view = duties.PcsView(soc=config.initial_soc)
        self._requests = np.zeros(64)
        self._arrays = (
            bank.cells, bank.groups, bank.balance, bank.string, bank.logic, bank.work, bank.table, bank.p,
        )  # fmt: skip

    def _checked(self, entries: Sequence[Mapping[str, Any]], config: RackConfig) -> tuple[FaultConfig, ...]:
        n_sensors = -(-config.n_series // config.cells_per_sensor)
        n_modules = -(-config.n_series // config.module_groups)
        return fault_configs(entries, config.n_series, n_sensors, self.n_racks, n_modules)

    def set_faults(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Have these faults, as entries of `[[fault]]`, instead of those that there were; after `attach`.

        What a fault has done (welded contactors, lost charge) stays. Raises `TwinError`, and changes nothing, for a
        mistake in an entry, and for heat from outside or a joint where the twin was made without such a fault.
        """
        faults = self._checked(entries, self.bank.config)
        if not self.bank.p[Y.P_BROKEN] > 0.0:
            for fault in faults:
                require(
                    fault.kind not in FROM_THE_START,
                    f"[[fault]] kind = '{fault.kind}': a twin can have this only if its scenario has a fault of the "
                    f"kinds {', '.join(FROM_THE_START)} from the start (at_s may be late): add one"
                    + (", or use kind = 'heater'" if fault.kind == "cell_heat" else ""),
                )
        if not self._bound:
            self._bind()
        before = self._breaking
        if before is not None:
            before.end()
            self._break_hardware()
            before.after_sample(self.time_s, self._record)
        self.faults = faults
        self._breaking = Breaking(faults, self.bank, self._sensor_config, self.environment, self._missing, before)
        self._break_hardware()

    def attach(self, record: npt.NDArray[np.void], commands: npt.NDArray[np.void]) -> None:
        """Say where samples go and where commands come from: structured arrays (n_racks,), see `SensorBank.record`.

        A command has in `head`: heartbeat (4 bytes), contactors, four limits, cooling_degc, soc_mean; and the arrays
        balance and shuttle.
        """
        self._record = record
        self._sample_to = SensorBank.record(record)
        fields = commands.dtype.fields
        assert fields is not None
        assert fields["head"][0].fields is not None
        start = int(fields["head"][1])
        head = {name: start + int(entry[1]) for name, entry in fields["head"][0].fields.items()}
        at = np.zeros(E.AT_SIZE, np.int64)
        at[E.AT_HEARTBEAT : E.AT_SOC + 1] = [
            head[name] // 4
            for name in (
                "heartbeat", "limit_discharge_a", "limit_charge_a", "limit_discharge_w", "limit_charge_w",
                "cooling_degc", "soc_mean",
            )
        ]  # fmt: skip
        at[E.AT_CONTACTORS], at[E.AT_BALANCE] = head["contactors"], fields["balance"][1]
        at[E.AT_SHUTTLE] = fields["shuttle"][1]
        rows = commands.view(np.uint8).reshape(len(commands), -1)
        self._command_from = at, rows.view(np.float32), rows.view(np.uint32), rows
        self._bound = False

    def _bind(self) -> None:
        """Give the entries their arrays, once: what is left to pass on in every step is scalars."""
        values, marks, places = self._sample_to
        x, tally = self.sensors, self._tally
        self._run_racks = E.run_racks.bind(
            *self._arrays, self._requests, tally, self.bank.burn, self.bank.chemistry,
            x.late, x.lagged, x.sensor_group, x.constants, places, values, marks,
        )  # fmt: skip
        self._command_racks = E.command_racks.bind(*self._arrays, tally, *self._command_from)
        self._expire_racks = E.expire_racks.bind(*self._arrays, tally)
        self._refresh_racks = E.refresh_racks.bind(*self._arrays, tally)
        self._release_racks = E.release_racks.bind(*self._arrays, tally)
        self._bound = True

    def twin(self, rack: int = 0) -> RackTwin:
        """Rack number `rack` on its own."""
        return RackTwin(self.bank.cell, bank=self.bank, index=rack)

    # --- time -----------------------------------------------------------------------------------------------------

    def start(self, now_s: float) -> None:
        """The electronics are switched on at `now_s`: the watchdog starts anew, and a sample is taken."""
        if not self._bound:
            self._bind()
        self.bank.string[:, Y.S_HEARTBEAT_S] = now_s
        self.bank.logic[:, Y.L_EXPIRED] = 0
        self._break_hardware()
        self._turn(E.SAMPLE, 0, 0.0, 0.0)

    def run(self, elapsed_s: float) -> None:
        """Let time pass under the last commands, then sample; racks open by themselves when heart-beats stop."""
        rest = elapsed_s
        while True:
            patience = self._silent_since + self.bank.config.watchdog_s - self.time_s
            if rest <= patience + 1e-9:
                break
            if patience > 0.0:
                self._advance(patience, 0.0)
                rest -= patience
            self._each(self._expire_racks, self.time_s)
        self._advance(rest, elapsed_s)

    def _advance(self, elapsed: float, sample_s: float) -> None:
        """Advance by `elapsed` in equal sub-steps, and sample at the end where `sample_s` is not 0."""
        self._break_hardware()
        n = max(1, math.ceil(elapsed / self.bank.config.substep_s - 1e-9))
        if n > len(self._requests):
            self._requests = np.zeros(2 * n)
            self._bind()
        dt = elapsed / n
        view, totals = self._view, self._totals
        connected = totals[E.TALLY_CONNECTED]
        view.connected = connected > 0.0
        if connected > 0.0:
            view.soc = totals[E.TALLY_SOC] / connected
            view.current_a = totals[E.TALLY_PCS_A] / connected
        else:
            view.soc = totals[E.TALLY_ALL_SOC] / self.n_racks
            view.current_a = 0.0
        for k in range(n):
            self._requests[k] = self.duty.request(self.time_s + k * dt, view)
        start_s = self.time_s
        self.time_s = start_s + elapsed
        self._turn(E.ADVANCE | E.SAMPLE if sample_s > 0.0 else E.ADVANCE, n, dt, sample_s, start_s)

    def _turn(self, what: int, n_steps: int, dt: float, sample_s: float, start_s: float = 0.0) -> None:
        breaking = None
        if what & E.SAMPLE:
            self.sequence += 1
            breaking = self._breaking
        if breaking is not None:
            breaking.before_sample(self.time_s, self._record, self.sequence)
        scalars = (
            what, n_steps, self.duty.in_ampere, dt, self.environment.ambient_at(start_s), sample_s,
            self.bank.config.seed, self.sequence,
        )  # fmt: skip
        run_racks = self._run_racks
        if self.n_racks == 1:
            run_racks(*scalars, 0, 1, 0, 0)
            self._look()
        else:

            def job(lo: int, hi: int, slot: int, chunk: int) -> int:
                run_racks(*scalars, lo, hi, slot, chunk)
                return -1

            self._give(job)
        if breaking is not None:
            breaking.after_sample(self.time_s, self._record)

    def _each(self, entry: Callable[..., Any], now: float) -> None:
        """Run a bound entry that needs the time alone on every rack."""

        def job(lo: int, hi: int, slot: int, chunk: int) -> int:
            entry(now, lo, hi, slot, chunk)
            return -1

        self._give(job)

    def _give(self, job: Job) -> int:
        answer = self._run_chunks(job, self.n_racks, self._chunk)
        self._look()
        return answer

    def _look(self) -> None:
        """See what the ranges have added up, and tell of what happened."""
        rows = self._tally.tolist()
        totals = rows[0]
        for row in rows[1:]:
            totals = [a + b for a, b in zip(totals, row, strict=True)]
        self._totals = totals
        self._silent_since = min(row[E.TALLY_HEARTBEAT_S] for row in rows)
        if totals[E.TALLY_EVENTS]:
            self._note()

    # --- commands -------------------------------------------------------------------------------------------------

    def command(self) -> tuple[int, int]:
        """Take the attached commands over. Returns (rack, `electronics.WRONG_...`) where one is wrong, else (-1, 0)."""
        environment, command_racks = self.environment, self._command_racks
        scalars = environment.coolant_min_degc, environment.coolant_max_degc, self.time_s

        def run(what: int) -> int:
            def job(lo: int, hi: int, slot: int, chunk: int) -> int:
                answer: int = command_racks(what, *scalars, lo, hi, slot, chunk)
                return answer

            return self._give(job)

        if self.n_racks == 1:
            wrong: int = command_racks(E.CHECK | E.TAKE, *scalars, 0, 1, 0, 0)
            self._look()
        else:
            wrong = run(E.CHECK)
            if wrong < 0:
                run(E.TAKE)
        if wrong >= 0:
            return divmod(wrong, E.WRONG_CODES)
        if self._breaking is not None:
            self._breaking.commanded()
        return -1, 0

    def stop(self) -> None:
        """The electronics are switched off: contactors are asked to open; a last sample is taken."""
        self._each(self._release_racks, self.time_s)
        if self._breaking is not None:
            self._breaking.commanded()
            self._break_hardware()
        self._turn(E.SAMPLE, 0, 0.0, 0.0)

    @property
    def stalled(self) -> npt.NDArray[np.bool_] | None:
        """Racks whose record is still that of an earlier sample, time and number included; None where none can be."""
        return None if self._breaking is None else self._breaking.stalled

    def truth(self, out: npt.NDArray[np.void], start_s: float) -> None:
        """Fill the structured array `out` (n_racks,) with what is true now.

        `start_s`: the time at which the twin's began. Parallel cells count together, the hottest for the temperature.
        """
        bank = self.bank
        head, s = out["head"], bank.string
        head["time_s"] = self.time_s + start_s
        for name, row in (
            ("current_a", Y.S_AMPERE), ("pack_v", Y.S_PACK_V), ("power_w", Y.S_POWER_W), ("heat_w", Y.S_HEAT_W),
            ("energy_out_j", Y.S_OUT_J), ("energy_in_j", Y.S_IN_J),
        ):  # fmt: skip
            head[name] = s[:, row]
        if bank.n_parallel == 1:
            for name, lanes in self._true_rows:
                self._lanes[...] = lanes
                out[name] = self._in_order
            out["capacity_ah"] /= 3600.0
            return
        capacity = bank.by_group(Y.C_CAPACITY_AS)
        total = capacity.sum(axis=2)
        out["soc"] = (bank.by_group(Y.C_SOC) * capacity).sum(axis=2) / total
        out["capacity_ah"] = total / 3600.0
        out["resistance"] = bank.by_group(Y.C_SCALE).mean(axis=2)
        out["cell_degc"] = bank.by_group(Y.C_DEGC).max(axis=2)

    # --- rare -----------------------------------------------------------------------------------------------------

    def _note(self) -> None:
        """Turn what the kernels flagged into text."""
        bank = self.bank
        watchdog_s = bank.config.watchdog_s
        for r in np.flatnonzero(bank.logic[:, Y.L_EVENTS]).tolist():
            happened = int(bank.logic[r, Y.L_EVENTS])
            time_s, ampere = float(bank.string[r, Y.S_EVENT_S]), float(bank.string[r, Y.S_EVENT_A])
            for bit, text in (
                (E.EVENT_WATCHDOG, f"no heart-beat for {watchdog_s:g} s: the rack opened its contactors"),
                (
                    E.EVENT_INRUSH,
                    f"closed onto an uncharged link: {ampere:.0f} A inrush, main contactors welded",
                ),
                (E.EVENT_BREAK, f"tried to break {ampere:.0f} A: main contactors welded"),
                (E.EVENT_LOAD, f"contactors opened under load, {ampere:.0f} A"),
            ):
                if happened & bit:
                    self.events.append(Event(time_s, text, r))
            bank.logic[r, Y.L_EVENTS] = 0
        self._tally[:, E.TALLY_EVENTS] = self._totals[E.TALLY_EVENTS] = 0.0

    def _break_hardware(self) -> None:
        """Faults that change the hardware, as opposed to what is measured of it."""
        if self._breaking is not None and self._breaking.hardware(self.time_s):
            self._each(self._refresh_racks, self.time_s)
