"""Writes DBC files for profiles: messages and signals as data in, the text that tools read out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hal.errors import RackBmsError


@dataclass(frozen=True)
class Value:
    """One signal of `bits` bits from `start` on, as the DBC counts them; big-endian unless `little`.

    `page` is that of the multiplexer; `MULTIPLEXER` marks the multiplexer itself. `values` names raw numbers.
    """

    name: str
    start: int
    bits: int
    scale: str = "1"
    unit: str = ""
    signed: bool = False
    little: bool = False
    page: int | None = None
    values: Mapping[int, str] = field(default_factory=dict)

    def line(self, receiver: str) -> str:
        """Its line of the DBC; the range is all that the bits hold."""
        low = -(1 << (self.bits - 1)) if self.signed else 0
        ends = [f"{raw * float(self.scale):.12g}" for raw in (low, low + (1 << self.bits) - 1)]
        mux = "" if self.page is None else " M" if self.page == MULTIPLEXER else f" m{self.page}"
        order = f"{int(self.little)}{'-' if self.signed else '+'}"
        return (
            f" SG_ {self.name}{mux} : {self.start}|{self.bits}@{order} ({self.scale},0) [{ends[0]}|{ends[1]}] "
            f'"{self.unit}" {receiver}'
        )


MULTIPLEXER = -1
"""The page of a multiplexer."""


@dataclass(frozen=True)
class Frame:
    """One message: `cycle_ms` is the time between two of its frames, whatever their page."""

    name: str
    identifier: int
    sender: str
    receiver: str
    values: tuple[Value, ...]
    cycle_ms: int
    length: int = 8


def text(frames: Sequence[Frame], about: str) -> str:
    """The DBC of `frames`; `about` is its comment."""
    nodes = sorted({name for frame in frames for name in (frame.sender, frame.receiver)})
    lines = ['VERSION "1"', "", "NS_ :", "", "BS_:", "", f"BU_: {' '.join(nodes)}", ""]
    for frame in frames:
        lines.append(f"BO_ {frame.identifier} {frame.name}: {frame.length} {frame.sender}")
        lines += [value.line(frame.receiver) for value in frame.values]
        lines.append("")
    lines += [
        f'CM_ "{about}";',
        'BA_DEF_ "BusType" STRING ;',
        'BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;',
        'BA_DEF_DEF_ "BusType" "CAN";',
        'BA_DEF_DEF_ "GenMsgCycleTime" 0;',
        'BA_ "BusType" "CAN";',
    ]
    lines += [f'BA_ "GenMsgCycleTime" BO_ {frame.identifier} {frame.cycle_ms};' for frame in frames]
    lines += [
        f"VAL_ {frame.identifier} {value.name} {' '.join(_named(value.values))} ;"
        for frame in frames
        for value in frame.values
        if value.values
    ]
    return "\n".join(lines) + "\n"


def _named(values: Mapping[int, str]) -> Iterable[str]:
    return (f'{number} "{name}"' for number, name in values.items())


def main(words: Sequence[str] | None, module: str, kinds: Mapping[str, Callable[..., str]], sized: bool = True) -> int:
    """Write one of the DBC files `kinds`; where they are `sized`, each is made of the numbers of cells and sensors.

    Returns 0, or 2 for what cannot be.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="write the DBC")
    if len(kinds) > 1:
        parser.add_argument("kind", choices=sorted(kinds))
    if sized:
        parser.add_argument("--cells", type=int, required=True)
        parser.add_argument("--sensors", type=int, required=True, help="temperature sensors")
    parser.add_argument("-o", "--output", type=Path, help="file (default: standard output)")
    args = parser.parse_args(words)
    make = kinds[args.kind] if len(kinds) > 1 else next(iter(kinds.values()))
    return written(lambda: make(args.cells, args.sensors) if sized else make(), args.output)


def written(make: Callable[[], str], output: Path | None) -> int:
    """Write what `make` makes to a file or to standard output. Returns 0, or 2 with a line that says why not."""
    try:
        made = make()
        if output is None:
            sys.stdout.write(made)
        else:
            output.write_text(made, encoding="utf-8")
    except (OSError, RackBmsError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0
