"""Writes what docs/ says of configurations from the code: docs/faults.md, and the key tables of docs/configuration.md.

python -m bms.racks.document docs
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import re
import sys
import textwrap
import tokenize
from collections.abc import Iterable, Sequence
from inspect import getsource
from pathlib import Path
from typing import Any

from bms.core.faults import ABOUT, Context, Fault, Reaction, Row, text_of
from bms.racks.config import PARTS, TAKEN_OVER, RackConfig, load, names
from bms.racks.faults import FLAGS, reaction_names
from bms.racks.tables import shown
from hal.contract import Severity

FAULTS, CONFIGURATION = "faults.md", "configuration.md"

HEAD = """\
# Faults

Every fault that the controller knows, what it looks at, and the rows of its table. This page is written by
`python -m bms.racks.document docs` from `bms/core/faults.py` and the shipped configurations; a test keeps it in step.
How the table is run is told in `bms/core/diagnosis.py`, how a row is changed in [configuration.md](configuration.md).

The id of a row is ten times the number of its fault, plus 1 for info, 2 for warning, 3 for fatal. Ids are never given
to another row. `Command.cause` is the id of the fatal row that came first.

- A row is set when the value has been beyond the threshold for the set time, and cleared when it has been at or inside
  the clear threshold for the clear time. A value that is not known holds both: what is missing has a fault of its own.
- The time towards set fades half as fast as it grows, so that what comes and goes is told if it is there for more than
  a third of the time: 8 s of every 12 after 16 s where the set time is 10 s, after 114 s where it is 60 s. The time
  towards clear starts anew: nothing is cleared while it comes and goes.
- `latch`: stays until it is reset, which is refused while the cause is there. `service`: the reset counts in
  maintenance only.
- `derate`: both limits fall to a share (`limits.derate`). `no_charge`, `no_discharge`: that limit ramps to 0.
  `no_close`: no contactor closes. `ramp_open`: ramp to 0 A, then open; `open`: open at once. `no_balancing`: no cell is
  bled. `cool`: coolant as cold as it goes.
- FTTI: fault-tolerant time interval, from the fault to open contacts. `bms check` adds up the period, the set time, the
  ramp and the contactors, and wants a tenth to spare.
"""


def keys(kind: type[Any]) -> list[tuple[str, str, str]]:
    """Name, default and comment of every field of a settings class, as its source tells them."""
    comments: dict[int, str] = {}
    names_at: dict[str, int] = {}
    source = textwrap.dedent(getsource(kind))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
    for number, line in enumerate(source.splitlines(), start=1):
        match = re.match(r"    (\w+): ", line)
        if match:
            names_at.setdefault(match[1], number)
    result = []
    for f in dataclasses.fields(kind):
        default = "" if f.default in (None, dataclasses.MISSING) else shown(f.default)
        result.append((f.name, default, comments.get(names_at.get(f.name, 0), "")))
    return result


def key_table(name: str) -> str:
    """The keys of the table [`name`] as a table of Markdown."""
    lines = ["| key | default | |", "| --- | --- | --- |"]
    for key, default, comment in keys(PARTS[name]):
        if (name, key) not in TAKEN_OVER:
            lines.append(f"| `{key}` | {default} | {comment} |")
    return "\n".join(lines) + "\n"


def with_key_tables(text: str) -> str:
    """A page with the tables between `<!-- keys NAME -->` and `<!-- end -->` written anew."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- keys {match[1]} -->\n{key_table(match[1])}<!-- end -->"

    return re.sub(r"<!-- keys (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def faults_page(configs: Sequence[RackConfig]) -> str:
    """The whole of docs/faults.md."""
    lines = [HEAD, "## What they look at", "", "| number | fault | looks at | unit | wrong | when | where |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for fault in Fault:
        about = ABOUT[fault]
        when = " or ".join(_context(about.gate))
        cells = [
            str(int(fault)),
            f"`{fault.name.lower()}`",
            about.text,
            about.unit,
            "above" if about.above else "below",
        ]
        lines.append(f"| {' | '.join(cells)} | {when} | {about.place.name.lower()} |")
    racks = " | ".join(config.source.removesuffix(".toml") for config in configs)
    lines += ["", "## Rows", "", "Thresholds, with the clear threshold in brackets, for each of the shipped racks.", ""]
    lines.append(f"| id | fault | tier | unit | {racks} | set, s | clear, s | reaction | FTTI, s |")
    lines.append("| --- " * (8 + len(configs)) + "|")
    rows = [{row.id: row for row in config.rows} for config in configs]
    for number in sorted({number for of in rows for number in of}):
        lines.append(_row_line([of.get(number) for of in rows]))
    return "\n".join(lines) + "\n"


def _context(gate: Context) -> list[str]:
    return [context.name.lower() for context in Context if gate & context and context.name]


def _row_line(rows: Sequence[Row | None]) -> str:
    there = [row for row in rows if row is not None]
    one = there[0]
    values = ["-" if row is None else f"{row.threshold:.6g} ({row.clear:.6g})" for row in rows]
    cells = [str(one.id), text_of(one.fault), one.severity.name.lower(), ABOUT[one.fault].unit, *values]
    cells += [_same(row.set_s for row in there), _same(row.clear_s for row in there)]
    cells.append(", ".join(dict.fromkeys(_reaction(row.reaction) for row in there)))
    cells.append(_same(row.ftti_s for row in there) if one.severity is Severity.FATAL else "")
    return f"| {' | '.join(cells)} |"


def _same(values: Iterable[float | None]) -> str:
    """One value where all racks have the same, else all."""
    return " / ".join(dict.fromkeys("-" if value is None else f"{value:g}" for value in values))


def _reaction(reaction: Reaction) -> str:
    return " ".join([*reaction_names(reaction), *(key for key, flag in FLAGS.items() if reaction & flag)])


def pages(docs: Path) -> dict[Path, str]:
    """The pages as they should be, by their paths."""
    configuration = docs / CONFIGURATION
    return {
        docs / FAULTS: faults_page([load(name) for name in names()]),
        configuration: with_key_tables(configuration.read_text(encoding="utf-8")),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write both pages."""
    parser = argparse.ArgumentParser(prog="python -m bms.racks.document", description=main.__doc__)
    parser.add_argument("docs", type=Path, help="folder of the pages")
    for path, text in pages(parser.parse_args(argv).docs).items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
