"""Writes the tables of docs/twin.md from the code: keys and faults, with unit, default, range and meaning.

python -m sim.document docs
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim import cell as cells
from sim.config import unit_of
from sim.duty import KINDS
from sim.environment import EnvironmentConfig
from sim.faults import FAULT_KINDS
from sim.rack import RackConfig
from sim.sensors import SensorConfig
from sim.site import SiteConfig

PAGE = "twin.md"

TABLES: dict[str, type[Any]] = {
    "rack": RackConfig,
    **{f"duty {kind}": config for kind, (config, _) in KINDS.items()},
    "sensors": SensorConfig,
    "environment": EnvironmentConfig,
    "site": SiteConfig,
}
"""The tables of a scenario by the names of their marks in the page; a duty has one for each kind."""

FAULTS = "fault"
"""The name of the mark for the kinds of faults."""

_MARKED = re.compile(r"<!-- keys ([\w ]+) -->\n.*?<!-- end -->", re.DOTALL)


def key_table(name: str) -> str:
    """The keys of one of `TABLES` as a table of Markdown. `kind` of a duty is told by the name."""
    lines = ["| key | unit | default | range | |", "| --- | --- | --- | --- | --- |"]
    for field in dataclasses.fields(TABLES[name]):
        if field.name != "kind":
            default = " / ".join(_defaults(field, name))
            row = f"`{field.name}`", unit_of(field), default, field.metadata["range"], field.metadata["about"]
            lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines) + "\n"


def _defaults(field: dataclasses.Field[Any], name: str) -> list[str]:
    """The default as a file would give it, for each cell of the package: their files may have others."""
    found = []
    for cell in cells.names():
        own = getattr(cells.load(cell), name, {}) if name in ("rack", "sensors") else {}
        value = own.get(field.name, field.default)
        found.append(
            "must be given"
            if value is dataclasses.MISSING
            else f"{value:g}"
            if type(value) is float
            else json.dumps(value)
        )
    return found if len(set(found)) > 1 else found[:1]


def fault_table() -> str:
    """Every kind of `[[fault]]`."""
    lines = ["| kind | `index` | `value` | range | ramp | what |", "| --- | --- | --- | --- | --- | --- |"]
    for name, kind in FAULT_KINDS.items():
        index = kind.index + " (optional)" * kind.index_optional
        value = kind.value + " (optional)" * kind.value_optional
        lines.append(f"| `{name}` | {index} | {value} | {kind.allowed} | {kind.ramp} | {kind.about} |")
    return "\n".join(lines) + "\n"


def with_key_tables(text: str) -> str:
    """A page with the tables between `<!-- keys NAME -->` and `<!-- end -->` written anew."""

    def table(mark: re.Match[str]) -> str:
        rows = fault_table() if mark[1] == FAULTS else key_table(mark[1])
        return f"<!-- keys {mark[1]} -->\n{rows}<!-- end -->"

    return _MARKED.sub(table, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables of keys and faults into the page of the twin."""
    parser = argparse.ArgumentParser(prog="python -m sim.document", description=main.__doc__)
    parser.add_argument("docs", type=Path, help="folder of the page")
    page = parser.parse_args(argv).docs / PAGE
    page.write_text(with_key_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
