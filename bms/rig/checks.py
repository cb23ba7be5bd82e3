"""What `bms doctor` looks for. Each check says good, wrong with findings, or why it cannot be judged.

Nothing of the wire is known here: a check compares what the channels of the contract say with each other, with the
physics of a string of cells in series, and with the cell file where there is one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bms.rig.checks_current import current_scale, sign
from bms.rig.checks_values import scale, sum_of_cells, swapped, temperatures
from bms.rig.verdict import COMES_AND_GOES, FEW, GOOD, LOAD_C, UNKNOWN, Doubt, Verdict, expected, places
from bms.rig.watch import CHANNELS, Seen
from hal.contract import Quality

LATE_S = 2.0  # a controller calls a sample lost from then on
PERIOD_S = 1.0  # the slowest update that the fault table is made for
OLD_S = {"insulation_ohm": 60.0, "coolant_in_degc": 30.0, "coolant_out_degc": 30.0, "coolant_flow_lpm": 30.0}
JITTER_S = 0.5
STILL_SAMPLES = 20


def judge(seen: Seen) -> list[Verdict]:
    """All verdicts, in the order in which they are told. What one check has found wrong, later ones leave out."""
    out = Doubt(seen)
    checks: Sequence[tuple[str, Callable[[Seen, Doubt, Verdict], None]]] = (
        ("update", _update),
        ("missing values", _missing),
        ("age", _age),
        ("bytes and words", swapped),
        ("scale of voltages", scale),
        ("temperatures", temperatures),
        ("sum of the cells", sum_of_cells),
        ("standing still", _still),
        ("inputs", _inputs),
        ("sign of the current", sign),
        ("scale of the current", current_scale),
    )
    verdicts = []
    for name, check in checks:
        verdict = Verdict(name)
        if seen.n == 0 and name != "update":
            verdict.state, verdict.note = UNKNOWN, "no sample came"
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # medians of nothing are not a number, as they should
                check(seen, out, verdict)
        verdicts.append(verdict)
    return verdicts


def _update(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Period and jitter of the samples."""
    if seen.n == 0:
        verdict.add("rack", f"no sample in {seen.span_s:.0f} s", "is the device on, and the address or channel right?")
        return
    gaps_s = np.diff(seen.time_s)
    late_s = max(
        float(np.diff(seen.arrived_s).max(initial=0.0)), seen.span_s - float(seen.arrived_s[-1] - seen.arrived_s[0])
    )
    if seen.n < 3:
        verdict.add(
            "rack", f"{seen.n} samples in {seen.span_s:.0f} s", "does the device send by itself, and the right frames?"
        )
        return
    period_s, low_s, high_s = (float(np.quantile(gaps_s, q)) for q in (0.5, 0.05, 0.95))
    verdict.note = f"{period_s * 1e3:.0f} ms, jitter {(high_s - low_s) * 1e3:.0f} ms, longest gap {late_s * 1e3:.0f} ms"
    if float(gaps_s.min()) < 0.0:
        verdict.add(
            "time", f"goes back by {-float(gaps_s.min()):g} s", "the rack's clock must never be set while it runs"
        )
    if period_s > PERIOD_S * 1.05:
        verdict.add(
            "rack",
            f"a sample every {period_s:.2g} s, which is more than {PERIOD_S:g} s",
            "let the device send more often",
        )
    elif high_s - low_s > max(period_s, JITTER_S):
        verdict.add(
            "rack",
            f"samples {low_s * 1e3:.0f} to {high_s * 1e3:.0f} ms apart, {period_s * 1e3:.0f} ms as a rule",
            "look for a bus that is too busy, or a device that waits for another one",
        )
    elif late_s > LATE_S:
        verdict.add(
            "rack",
            f"no sample for {late_s:.1f} s; from {LATE_S:g} s on a controller calls it lost",
            "look for a loose plug, a missing terminator, a bus that is too busy or off",
        )


def _missing(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Channels without a value."""
    for name in CHANNELS:
        gone = np.isnan(seen.values[name]).mean(axis=0)
        flagged = (seen.flags[name] != 0).mean(axis=0)
        if not expected(seen, name):
            out.add(name, np.flatnonzero(gone > 0.0))
            continue
        never, often = np.flatnonzero(gone == 1.0), np.flatnonzero((flagged > COMES_AND_GOES) & (gone < 1.0))
        if never.size:
            verdict.add(
                places(name, never), f"no value in any sample ({_why(seen.flags[name][:, never])})", _never(seen, name)
            )
            out.add(name, never)
        if often.size:
            share = float(flagged[often].max())
            verdict.add(
                places(name, often),
                f"no value in up to {share:.0%} of the samples ({_why(seen.flags[name][:, often])})",
                "look for a loose plug, a bus that is too busy, or a device that answers some requests with an error",
            )
    for name in ("contactors", "gas_alarm", "bleeding"):
        has = {"gas_alarm": seen.info.capabilities.gas, "bleeding": seen.info.capabilities.bleed_feedback}
        gone_now = float((seen.flags[name] != 0).mean())
        if has.get(name, seen.info.capabilities.contactors) and gone_now > COMES_AND_GOES:
            verdict.add(
                name,
                f"no value in {gone_now:.0%} of the samples ({_why(seen.flags[name])})",
                "is the frame or register sent at all, and as often as the profile says?",
            )


def _why(flags: npt.NDArray[np.uint8]) -> str:
    """What the quality says, for people."""
    bits = int(np.bitwise_or.reduce(flags, axis=None))
    names = [flag.name.lower().replace("_", " ") for flag in Quality if flag and bits & flag and flag.name]
    return ", ".join(names) or "not a number"


def _never(seen: Seen, name: str) -> str:
    bits = int(np.bitwise_or.reduce(seen.flags[name], axis=None))
    if bits & Quality.OPEN_WIRE:
        return "a sense wire or sensor cable is open: look at the plug"
    if bits & Quality.DEVICE_INVALID:
        return "the device itself marks it invalid: look at the device"
    return "is it in the profile, and does the device send it? A rack with fewer of them needs its own profile"


def _age(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Values that are too old to be used."""
    for name in CHANNELS:
        if not expected(seen, name):
            continue
        limit_s = OLD_S.get(name, LATE_S)
        share = (seen.ages_s[name] > limit_s).mean(axis=0)
        old = np.flatnonzero((share > COMES_AND_GOES) & out.good(name))
        if old.size:
            worst_s = float(seen.ages_s[name][:, old].max())
            verdict.add(
                places(name, old),
                f"up to {worst_s:.1f} s old; from {limit_s:g} s on it is not used",
                "let the device send it more often, or find out why it has stopped",
            )
            out.add(name, old)


def _still(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Values that never change while others do."""
    if seen.n < STILL_SAMPLES:
        verdict.state, verdict.note = UNKNOWN, f"{seen.n} samples: at least {STILL_SAMPLES} are needed (--for)"
        return
    cells = out.left(seen, "cell_v")
    there = ~np.isnan(cells).any(axis=0)
    still = there & (np.ptp(cells, axis=0) == 0.0)
    alive = int(there.sum() - still.sum())
    currents = out.left(seen, "current_a")[:, 0]
    current_still = bool(np.isfinite(currents).all() and np.ptp(currents) == 0.0)
    loaded = abs(float(np.nanmedian(currents))) > LOAD_C * seen.info.capacity_ah
    if alive == 0 and there.any() and (current_still or loaded):
        verdict.add(
            "rack",
            f"all {int(there.sum())} cells stand still over {seen.n} new samples" + (" under load" if loaded else ""),
            "the device sends old values with new numbers: start it again, and look at what feeds it",
        )
        return
    if still.any() and alive >= still.sum():
        verdict.add(
            places("cell_v", np.flatnonzero(still)),
            f"not a digit has changed over {seen.n} samples, {alive} others did",
            "the converter or the frame of these cells is stuck: start the device again, then replace it",
        )
    if current_still and loaded and alive:
        verdict.add(
            "current_a",
            f"{float(currents[0]):.4g} A, not a digit has changed over {seen.n} samples",
            "the current sensor is stuck: start it again, then replace it",
        )
    degc = out.left(seen, "sensor_degc")
    moved_k = np.nan_to_num(np.ptp(degc, axis=0))
    stuck = np.flatnonzero((moved_k == 0.0) & ~np.isnan(degc).any(axis=0))
    if stuck.size and float(np.median(moved_k)) > 1.0:
        verdict.add(
            places("sensor_degc", stuck),
            f"stands still while the others moved by {float(np.median(moved_k)):.1f} K",
            "the sensor or its channel is stuck",
        )
    if alive == 0 and there.any() and verdict.state == GOOD:
        verdict.state = UNKNOWN
        verdict.note = "at rest: no cell changes by a digit, which coarse converters do not; load the rack (--connect)"
        return
    told = [f"{alive} of {int(there.sum())} cells change"]
    if current_still and not loaded:
        told.append("the current does not, which at rest may be so")
    verdict.note = "; ".join(told)


def _inputs(seen: Seen, out: Doubt, verdict: Verdict) -> None:
    """Inputs that contradict what else is told."""
    for name, values in (
        ("contactors", range(8)),
        ("interlock_closed", (0, 1)),
        ("emergency_stop", (0, 1)),
        ("gas_alarm", (0, 1)),
    ):
        odd = ~np.isin(seen.values[name][:, 0], list(values))
        if float(odd.mean()) > COMES_AND_GOES:
            verdict.add(
                name,
                f"{int(seen.values[name][odd, 0][0])}, which is none of its values",
                "the wrong bits of the frame or register are read: correct start and length in the profile",
            )
    head = {
        name: float(np.median(seen.values[name][:, 0])) for name in ("interlock_closed", "emergency_stop", "gas_alarm")
    }
    if head["interlock_closed"] == 0.0:
        verdict.add(
            "interlock_closed", "the loop is open", "plug in what is open, or turn the sense round in the profile"
        )
    if head["emergency_stop"] == 1.0:
        verdict.add("emergency_stop", "is pressed", "release it, or turn the sense round in the profile")
    if head["gas_alarm"] == 1.0:
        verdict.add(
            "gas_alarm", "smoke or gas", "leave the room; if there is none, turn the sense round in the profile"
        )
    current = out.left(seen, "current_a")[:, 0]
    opened = (seen.values["contactors"][:, 0] == 0.0) & (seen.flags["contactors"][:, 0] == 0) & np.isfinite(current)
    if opened.sum() >= FEW:
        flowing_a = float(np.median(current[opened]))
        if abs(flowing_a) > LOAD_C * seen.info.capacity_ah:
            verdict.add(
                "current_a",
                f"{flowing_a:.4g} A although all contactors are seen open",
                "an offset of the sensor, or feedback that does not come from these contactors",
            )
