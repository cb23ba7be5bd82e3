"""How long before a fire the controller knew: lead times before a cell vents, ignites, or its neighbour does.

What burnt is the truth of a twin that can burn (`burning()` of the rack); without such a rack there are no lead times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from bms.core.faults import Fault
from bms.runtime.explain import place_text
from hal.contract import Severity

if TYPE_CHECKING:
    from bms.trial.log import Log

EVENTS = ("vented", "ignited", "neighbour_ignited")
"""What a lead time may count to."""
BESIDE = ", with "
"""Between what sets cells on fire and what else is wrong, in `Lead.fault`."""
OF = {"warning": (Severity.WARNING, Severity.FATAL), "fatal": (Severity.FATAL,)}
"""What it may count from: the first row of at least this tier."""
_ONE_CELL = ("internal_short", "heater")  # at the first parallel cell
_GROUP = ("cell_leak", "cell_heat")
OVERCHARGE = f"pcs ignores limits{BESIDE}contactor weld"
HEATING = (*_ONE_CELL, *_GROUP, "pcs_ignores_limits", "coolant_stop", "coolant_blocked", "coolant_hot")

Times = npt.NDArray[np.float64]


@runtime_checkable
class HasFire(Protocol):
    """A rack that can tell which of its cells have burnt: arrays (groups, parallel cells), not a number: never."""

    def burning(self) -> Any:
        """Has `vented_s` and `ignited_s`, from the first opening of the rack."""
        ...


@dataclass(frozen=True)
class Fire:
    """When each cell vented and ignited, s of the run; NaN: never. `lit`: those that the trial itself set on fire."""

    vented_s: Times
    ignited_s: Times
    lit: npt.NDArray[np.bool_]

    def at(self, event: str) -> float | None:
        """When an event of `EVENTS` came; None if it did not."""
        times = self.vented_s if event == "vented" else self.ignited_s
        if event == "neighbour_ignited":
            # where nothing was done to a cell, the neighbour is the second
            times = times[~self.lit] if self.lit.any() else np.sort(times, axis=None)[1:]
        known = times[np.isfinite(times)]
        return float(known.min()) if known.size else None

    def cells(self, event: str) -> int:
        """How many cells have `vented` or `ignited`."""
        return int(np.isfinite(self.vented_s if event == "vented" else self.ignited_s).sum())


def fire_of(rack: object, faults: Iterable[Mapping[str, Any]]) -> Fire | None:
    """What has burnt in `rack`, where it can tell."""
    if not isinstance(rack, HasFire):
        return None
    found = rack.burning()
    lit = np.zeros(found.vented_s.shape, np.bool_)
    for fault in faults:
        if fault["kind"] in _ONE_CELL:
            lit[list(fault["index"]), 0] = True
        elif fault["kind"] in _GROUP:
            lit[list(fault["index"])] = True
    return Fire(found.vented_s, found.ignited_s, lit)


@dataclass(frozen=True)
class Lead:
    """Lead times of a trial in which a cell vented or ignited, or should have been kept from it. Times in s since that
    began which sets cells on fire; None: it did not come. `row` is the first fatal one to come; leads count from it.
    """

    fault: str
    chemistry: str
    row: str
    place: str
    warned_s: float | None
    told_s: float | None
    vented_s: float | None
    ignited_s: float | None
    neighbour_ignited_s: float | None
    n_vented: int
    n_ignited: int
    begun_s: float = 0.0  # of the run

    def before(self, event: str, of: str = "fatal") -> float | None:
        """Seconds from the first row to an event of `EVENTS`; infinite where the event did not come but was told of."""
        begun_s = self.told_s if of == "fatal" else self.warned_s
        came_s = getattr(self, f"{event}_s")
        if begun_s is None:
            return None
        return math.inf if came_s is None else came_s - begun_s

    def to_json(self) -> dict[str, Any]:
        """Everything, and the lead times; null where there is none."""
        leads = {f"lead_{event}_s": self.before(event) for event in EVENTS}
        return vars(self) | {key: None if v is None or math.isinf(v) else v for key, v in leads.items()}


def name_of(faults: Iterable[Mapping[str, Any]]) -> str:
    """What sets cells on fire: kinds, and of a short how hard it is and how it comes; then what else goes wrong."""
    words: dict[str, None] = {}
    beside: dict[str, None] = {}
    for fault in faults:
        kind, text = str(fault["kind"]), str(fault["kind"]).replace("_", " ")
        if kind in ("internal_short", "cell_leak"):
            text += f" {fault['value']} ohm" + (f" within {fault['ramp_s']:g} s" if "ramp_s" in fault else "")
        (words if kind in HEATING else beside)[text] = None
    return (" + ".join(words) or "none") + (f"{BESIDE}{', '.join(beside)}" if beside else "")


def lead_of(log: Log, fire: Fire, injected_s: float, fault: str, chemistry: str) -> Lead:
    """The lead times of one trial. A row that was shown before `injected_s` tells nothing, unless it comes again."""
    first: dict[str, tuple[int, Fault, Severity]] = {}
    later = log.time_s >= injected_s
    for fault_ in Fault:
        for severity in OF["warning"]:
            shown = log.shows(fault_, severity)
            hits = np.flatnonzero(shown & later & ~np.concatenate(([False], shown[:-1])))
            for of, severities in OF.items():
                if hits.size and severity in severities and (of not in first or hits[0] < first[of][0]):
                    first[of] = int(hits[0]), fault_, severity

    def seen_s(of: str) -> float | None:
        return float(log.time_s[first[of][0]]) - injected_s if of in first else None

    def since(event: str) -> float | None:
        came_s = fire.at(event)
        return None if came_s is None else came_s - injected_s

    row = place = ""
    if "fatal" in first:
        k, seen, severity = first["fatal"]
        row = f"{seen.name.lower()}.{severity.name.lower()}"
        place = place_text(seen, int(log.where[k, seen])).strip()
    return Lead(
        fault, chemistry, row, place, seen_s("warning"), seen_s("fatal"), since("vented"), since("ignited"),
        since("neighbour_ignited"), fire.cells("vented"), fire.cells("ignited"), injected_s,
    )  # fmt: skip


def alone(leads: Iterable[Lead]) -> list[Lead]:
    """Those of trials in which nothing is wrong but what sets cells on fire; it takes a weld to overcharge them."""
    return [lead for lead in leads if BESIDE not in lead.fault or lead.fault == OVERCHARGE]


# --- as tables ------------------------------------------------------------------------------------------------------

COLUMNS = ("fault", "chemistry", "trials", "told by", "told after, s", "before venting", "ignition", "the neighbour's")
"""Of the table of lead times."""


def table(leads: Sequence[Lead]) -> list[tuple[str, ...]]:
    """A line of text for each fault and chemistry: the shortest lead time of its trials, s; negative is too late.

    A dash: it came in none of them.
    """
    keys = sorted({(lead.fault, lead.chemistry) for lead in leads})
    return [_line(key, [lead for lead in leads if (lead.fault, lead.chemistry) == key]) for key in keys]


def _line(key: tuple[str, str], leads: list[Lead]) -> tuple[str, ...]:
    rows = dict.fromkeys(lead.row.partition(".")[0] for lead in leads if lead.row)
    told = [lead.told_s for lead in leads if lead.told_s is not None]
    after = f"{min(told):.0f}..{max(told):.0f}" if told else "never"
    if told and len(told) < len(leads):
        after += f" ({len(leads) - len(told)} of {len(leads)} never)"
    return (*key, str(len(leads)), ", ".join(rows), after, *(_shortest(leads, event) for event in EVENTS))


def _shortest(leads: list[Lead], event: str) -> str:
    came = [lead for lead in leads if getattr(lead, f"{event}_s") is not None]
    if not came:
        return "-"
    values = [lead.before(event) for lead in came]
    late = sum(value is None or value < 0 for value in values)  # what is never told is too late
    shortest = min((value for value in values if value is not None), default=None)
    if shortest is None:
        return "never told"
    return f"{shortest:.0f}" + (f" ({late} of {len(came)} too late)" if late else "")


def text(leads: Sequence[Lead]) -> list[str]:
    """The table for a screen."""
    rows = [COLUMNS, *table(leads)]
    wide = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    return ["  ".join(f"{word:{width}}" for word, width in zip(row, wide, strict=True)).rstrip() for row in rows]


def markdown(leads: Sequence[Lead]) -> list[str]:
    """The table for a page of the documentation."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *table(leads)]
    return [f"| {' | '.join(row)} |" for row in rows]
