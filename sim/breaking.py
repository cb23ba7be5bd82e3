"""The faults of a scenario at work: on the hardware of racks before time passes, on what is measured after each sample.

Everything is set anew from what a healthy rack would have, so that a fault that ends leaves nothing behind but what it
did (welded contactors, lost charge). Faults apply in the order of the scenario.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import electronics as E
from sim import layout as Y
from sim.environment import EnvironmentConfig
from sim.faults import OPEN_WIRE_V, FaultConfig
from sim.rack import RackBank
from sim.sensors import SensorConfig

BURNT_OHM = 1e12
"""A resistor that is none any more: finite, so that the solution of the precharge stays a number."""

_FROZEN = {"cell_v_frozen": "cell_v", "sensor_frozen": "sensor_degc", "current_frozen": "current_a"}
_MISSING = {
    "cell_v_missing": "cell_v",
    "sensor_missing": "sensor_degc",
    "current_missing": "current_a",
    "pack_v_missing": "pack_v",
    "bus_v_missing": "bus_v",
    "insulation_missing": "insulation_ohm",
    "coolant_flow_missing": "coolant_flow_lpm",
    "gas_missing": "gas_alarm",
    "feedback_missing": "contactors",
    "bleed_feedback_missing": "bleeding",
}
_STUCK = {
    "cell_v_stuck_at": "cell_v",
    "sensor_stuck_at": "sensor_degc",
    "current_stuck_at": "current_a",
    "bus_v_stuck_at": "bus_v",
    "feedback_stuck_at": "contactors",
}
_OFFSET = {"cell_v_offset": "cell_v", "sensor_offset": "sensor_degc", "current_offset": "current_a"}
_GAIN = {"current_gain": "current_a", "pack_v_gain": "pack_v", "current_sign": "current_a"}
_FLAG = {
    "interlock_open": ("interlock_closed", 0),
    "emergency_stop": ("emergency_stop", 1),
    "gas_alarm": ("gas_alarm", 1),
}

_OF_HARDWARE = {
    "internal_short", "heater", "contactor_weld", "contactor_stuck_open", "coolant_stop", "coolant_hot", "link_load",
    "precharge_open", "pcs_ignores_limits", "coolant_blocked", "cell_leak", "cell_heat", "joint_resistance",
    "cell_capacity", "bleed_stuck_on", "bleed_stuck_off",
}  # fmt: skip
# fields that a sample leaves alone, and what they are on a healthy rack
_HEALTHY = {"interlock_closed": 1, "emergency_stop": 0, "insulation_rail": 0}
_SAMPLED = ("cell_v_quality", "current_a_quality")


class Breaking:
    """The faults of the racks of a bank. `missing` is the quality code of a value that is not received.

    `before`: what broke the same bank until now, after its `end`.
    """

    def __init__(
        self,
        faults: Iterable[FaultConfig],
        bank: RackBank,
        sensors: SensorConfig,
        environment: EnvironmentConfig,
        missing: int,
        before: Breaking | None = None,
    ) -> None:
        self.faults = tuple(faults)
        self._bank, self._environment, self._missing = bank, environment, missing
        self._range_v = sensors.cell_v_min_v, sensors.cell_v_max_v
        kinds = {fault.kind for fault in self.faults}
        blocks = Y.blocks(bank.n_series)
        grouped = bank.groups[:, : blocks * Y.G_BLOCK].reshape(bank.n_racks, blocks, Y.G_BLOCK)
        self._leak_s = grouped[:, :, Y.G_LEAK_S : Y.G_LEAK_S + Y.LANES]
        self._healthy_leak_s: npt.NDArray[np.float64] = (
            self._leak_s.copy() if before is None else before._healthy_leak_s
        )
        extra_rows = Y.X_ROWS if bank.p[Y.P_BROKEN] > 0.0 else 0
        self._extra = bank.groups[:, blocks * Y.G_BLOCK :].reshape(bank.n_racks, extra_rows, blocks * Y.LANES)
        width = bank.n_parallel * Y.B_BLOCK
        burn = bank.burn.reshape(bank.n_racks, blocks, width)
        self._added_s, self._short_s, self._heater_w = (
            burn[:, :, row : row + Y.LANES] for row in (Y.B_ADDED_S, Y.B_FAULT_S, Y.B_HEATER_W)
        )
        self._burns = bool(kinds & {"internal_short", "heater"})
        shares = bank.cells.reshape(bank.n_racks, blocks, bank.n_parallel, Y.C_BLOCK)
        self._coolant_share = shares[..., Y.C_COOLANT_SHARE : Y.C_COOLANT_SHARE + Y.LANES]
        self._blocks = "coolant_blocked" in kinds
        if self._blocks:
            self._healthy_share = self._coolant_share.copy()
        self._capacity_as = shares[..., Y.C_CAPACITY_AS : Y.C_CAPACITY_AS + Y.LANES]
        self._soc = shares[..., Y.C_SOC : Y.C_SOC + Y.LANES]
        self._healthy_as: npt.NDArray[np.float64] = self._capacity_as.copy() if before is None else before._healthy_as
        self._bleeds = bool(kinds & {"bleed_stuck_on", "bleed_stuck_off"})
        self._heats = "coolant_hot" in kinds
        self.stalled: npt.NDArray[np.bool_] | None = None
        """Racks whose record is that of an earlier sample; nothing where no fault of this kind is configured."""
        if "scan_stalled" in kinds:
            self.stalled = np.zeros(bank.n_racks, np.bool_)
        names = [_MISSING[kind] + "_quality" for kind in kinds if kind in _MISSING]
        self._reset = {name: 0 for name in names if name not in _SAMPLED} | _HEALTHY
        self._kept: list[tuple[FaultConfig, npt.NDArray[Any]]] = []
        self._stale: tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]] | None = None
        self._at = {id(fault): np.ix_(self._racks(fault), list(fault.index)) for fault in self.faults}
        self._whole = False  # the hardware is that of a healthy rack
        self._record: npt.NDArray[np.void] | None = None  # whose fields `_resets` are
        self._resets: list[tuple[npt.NDArray[Any], int]] = []
        self.commanded()

    def end(self) -> None:
        """No fault from now on: `hardware` and `after_sample`, called once more, leave the bank without any."""
        self.faults, self._kept, self._stale = (), [], None

    def commanded(self) -> None:
        """Remember what was asked of the hardware: faults come on top of it."""
        if self._bleeds:
            self._asked_balance = self._bank.balance.copy()
        if self._heats:
            self._asked_coolant = self._bank.string[:, Y.S_COOLANT_SET].copy()

    def _racks(self, fault: FaultConfig) -> list[int]:
        return list(fault.rack or range(self._bank.n_racks))

    def _channels(self, fault: FaultConfig) -> Any:
        """The groups or sensors `index` of the racks that have the fault, as an index."""
        return self._at[id(fault)]

    # --- hardware -------------------------------------------------------------------------------------------------

    def hardware(self, now_s: float) -> bool:
        """Break the hardware as it is from `now_s` on. Returns whether contactors must be looked at anew."""
        active = [fault for fault in self.faults if fault.kind in _OF_HARDWARE and fault.active(now_s)]
        if self._whole and not active:
            return False
        self._whole = not active
        bank = self._bank
        s, logic, config = bank.string, bank.logic, bank.config
        s[:, Y.S_FLOW_W_PER_K] = config.coolant_w_per_k_flow
        s[:, Y.S_LINK_OHM], s[:, Y.S_PRECHARGE_OHM] = config.dc_link_bleed_ohm, config.precharge_ohm
        s[:, Y.S_FORCED_A] = np.nan
        self._extra[...] = 0.0
        s[:, Y.S_JOINT_OHM] = 0.0
        if self._burns:
            self._inside_cells(now_s)
        self._leak_s[...] = np.maximum(self._healthy_leak_s + self._added_s, 0.0)
        if self._blocks:
            self._coolant_share[...] = self._healthy_share
        if self._bleeds:
            bank.balance[...] = self._asked_balance
        if self._heats:
            s[:, Y.S_COOLANT_SET] = self._asked_coolant
        stuck = logic[:, Y.L_STUCK].copy()
        logic[:, Y.L_STUCK] = 0
        for fault in active:
            self._break_hardware(fault, now_s)
        return bool((stuck != logic[:, Y.L_STUCK]).any())

    def _inside_cells(self, now_s: float) -> None:
        """Shorts and heaters at the first parallel cells: what burns looks after the heat of them."""
        self._added_s -= self._short_s
        self._short_s[...] = 0.0
        self._heater_w[...] = 0.0
        for fault in self.faults:
            if fault.kind in ("internal_short", "heater") and fault.active(now_s):
                racks, index = np.asarray(self._racks(fault))[:, None], np.asarray(fault.index)
                at = racks, index // Y.LANES, index % Y.LANES
                if fault.kind == "internal_short":
                    self._short_s[at] += 1.0 / fault.ramped(now_s)
                else:
                    self._heater_w[at] += fault.value
                self._bank.string[racks, Y.S_AWAKE] = 1.0
        self._added_s += self._short_s

    def _join(self, racks: list[int], index: npt.NDArray[np.int64], ohm: float) -> None:
        """Put `ohm` into the joints after groups; what the last of the string heats is on one side alone."""
        for group in index.tolist():
            self._extra[racks, Y.X_JOINT_OHM, group] += ohm
            for side in (group, min(group + 1, self._bank.n_series - 1)):
                self._extra[racks, Y.X_WARMING_OHM, side] += 0.5 * ohm
        self._bank.string[racks, Y.S_JOINT_OHM] += ohm * len(index)

    def _cut_off(self, racks: list[int], index: npt.NDArray[np.int64], share: float) -> None:
        """Leave groups no more than `share` of their capacity. What is lost is booked with the enthalpy it held."""
        at = np.asarray(racks)[:, None], index // Y.LANES, slice(None), index % Y.LANES
        left_as = np.minimum(self._capacity_as[at], share * self._healthy_as[at])
        held_j = self._bank.cell.stored_energy_j_per_as(self._soc[at]) * (self._capacity_as[at] - left_as)
        self._bank.string[racks, Y.S_CONSUMED_J] += held_j.sum(axis=(1, 2))
        self._capacity_as[at] = left_as

    def _break_hardware(self, fault: FaultConfig, now_s: float) -> None:
        s, logic, racks, value = self._bank.string, self._bank.logic, self._racks(fault), fault.value
        index = np.asarray(fault.index, np.int64)
        match fault.kind:
            case "contactor_weld":
                closed = logic[racks, Y.L_REQUESTED] & ~logic[racks, Y.L_STUCK]
                logic[racks, Y.L_WELDED] |= closed & _bits(fault)
            case "contactor_stuck_open":
                logic[racks, Y.L_STUCK] |= _bits(fault)
            case "coolant_stop":
                s[racks, Y.S_FLOW_W_PER_K] = 0.0
            case "coolant_hot":
                s[racks, Y.S_COOLANT_SET] = value
                s[racks, Y.S_COOLANT_IN] = value
            case "link_load":
                assert value is not None
                s[racks, Y.S_LINK_OHM] = 1.0 / (1.0 / s[racks, Y.S_LINK_OHM] + 1.0 / value)
            case "precharge_open":
                s[racks, Y.S_PRECHARGE_OHM] = BURNT_OHM
            case "pcs_ignores_limits":
                s[racks, Y.S_FORCED_A] = value
            case "coolant_blocked":
                per_module = self._bank.config.module_groups
                groups = np.arange(self._bank.n_series)
                groups = groups[np.isin(groups // per_module, index)]
                at = np.asarray(racks)[:, None], groups // Y.LANES, slice(None), groups % Y.LANES
                self._coolant_share[at] = 0.0
            case "cell_leak":
                assert value is not None
                self._leak_s[np.asarray(racks)[:, None], index // Y.LANES, index % Y.LANES] += 1.0 / value
            case "cell_heat":
                self._extra[np.asarray(racks)[:, None], Y.X_HEAT_W, index] += value
            case "joint_resistance":
                self._join(racks, index, fault.ramped(now_s))
            case "cell_capacity":
                self._cut_off(racks, index, fault.ramped(now_s))
            case "bleed_stuck_on":
                self._bank.balance[self._channels(fault)] = 1
            case "bleed_stuck_off":
                self._bank.balance[self._channels(fault)] = 0

    # --- samples --------------------------------------------------------------------------------------------------

    def before_sample(self, now_s: float, record: npt.NDArray[np.void], sequence: int) -> None:
        """Before sample number `sequence`: the insulation as it is, and what will be kept of the last sample."""
        insulation = self._bank.string[:, Y.S_INSULATION_OHM]
        insulation[:] = self._environment.insulation_ohm
        self._kept, self._stale = [], None
        active = [fault for fault in self.faults if fault.active(now_s)]
        for fault in active:
            if fault.kind == "insulation":
                insulation[self._racks(fault)] = fault.value
        if sequence <= 1:
            return  # there is nothing to keep yet
        for fault in active:
            if fault.kind in _FROZEN:
                field, at = self._place(record, _FROZEN[fault.kind], fault)
                self._kept.append((fault, field[at].copy()))
        if self.stalled is not None:
            self.stalled[:] = False
            for fault in active:
                if fault.kind == "scan_stalled":
                    self.stalled[self._racks(fault)] = True
            rows = record.view(np.uint8).reshape(len(record), -1)
            self._stale = self.stalled, rows[self.stalled].copy()

    def after_sample(self, now_s: float, record: npt.NDArray[np.void]) -> None:
        """Break what was just measured at `now_s`."""
        if record is not self._record:
            self._record = record
            self._resets = [(_field(record, name), healthy) for name, healthy in self._reset.items()]
        for field, healthy in self._resets:
            field[...] = healthy
        kept = {id(fault): values for fault, values in self._kept}
        for fault in self.faults:
            if fault.active(now_s):
                self._break_measured(fault, record, kept.get(id(fault)))
        if self._stale is not None:
            stalled, rows = self._stale
            record.view(np.uint8).reshape(len(record), -1)[stalled] = rows

    def _place(self, record: npt.NDArray[np.void], name: str, fault: FaultConfig) -> tuple[npt.NDArray[Any], Any]:
        """A field of the records, and where in it the fault is."""
        return _field(record, name), self._channels(fault) if fault.index else self._racks(fault)

    def _break_measured(self, fault: FaultConfig, record: npt.NDArray[np.void], kept: npt.NDArray[Any] | None) -> None:
        kind = fault.kind
        if kind in _FROZEN and kept is not None:
            field, at = self._place(record, _FROZEN[kind], fault)
            field[at] = kept
        elif kind in _MISSING:
            field, at = self._place(record, _MISSING[kind], fault)
            field[at] = np.nan if field.dtype.kind == "f" else 0
            quality, at = self._place(record, _MISSING[kind] + "_quality", fault)
            quality[at] = self._missing
        elif kind in _STUCK:
            field, at = self._place(record, _STUCK[kind], fault)
            field[at] = fault.value
        elif kind in _OFFSET:
            field, at = self._place(record, _OFFSET[kind], fault)
            field[at] += fault.value
        elif kind in _GAIN:
            field, at = self._place(record, _GAIN[kind], fault)
            field[at] *= -1.0 if kind == "current_sign" else fault.value
        elif kind in _FLAG:
            name, raised = _FLAG[kind]
            _field(record, name)[self._racks(fault)] = raised
        elif kind == "insulation" and fault.index:
            _field(record, "insulation_rail")[self._racks(fault)] = fault.index[0]
        elif kind == "cell_v_swapped":
            at = self._channels(fault)
            for name in ("cell_v", "cell_v_quality"):
                record[name][at] = record[name][at][:, ::-1]
        elif kind == "open_wire":
            self._open_wire(fault, record["cell_v"])
        if kind in ("cell_v_offset", "cell_v_stuck_at"):
            at = self._channels(fault)
            record["cell_v"][at] = np.clip(record["cell_v"][at], *self._range_v)

    def _open_wire(self, fault: FaultConfig, cell_v: npt.NDArray[np.float32]) -> None:
        """Move the floating node between two groups: one reads more, the other as much less, within the range."""
        moved = OPEN_WIRE_V if fault.value is None else fault.value
        for rack in self._racks(fault):
            for index in fault.index:
                both = float(cell_v[rack, index - 1]) + float(cell_v[rack, index])
                lower = float(np.clip(cell_v[rack, index - 1] + moved, *self._range_v))
                cell_v[rack, index - 1] = lower
                cell_v[rack, index] = np.clip(both - lower, *self._range_v)


def _bits(fault: FaultConfig) -> int:
    """The contactors that a fault is about, as bits of the feedback."""
    return sum(1 << index for index in fault.index) or E.MAINS


def _field(record: npt.NDArray[np.void], name: str) -> npt.NDArray[Any]:
    """A field of records, of their head or an array."""
    names = record.dtype.names
    assert names is not None
    field: npt.NDArray[Any] = record[name] if name in names else record["head"][name]
    return field
