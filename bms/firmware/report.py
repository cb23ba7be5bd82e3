"""`report.txt` of a build: what the controller takes of its processor, and what it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bms.firmware.baked import sizes
from hal.contract import Layout
from hal.engine.elf import Elf
from hal.engine.stack import Depth
from hal.engine.targets import Processor

USUAL_RACK = (416, 52)
"""Cells and temperature sensors of the rack whose records are measured where no configuration is given."""


@dataclass(frozen=True)
class Facts:
    """What a report tells; `stack` is by function, `hashes` and `versions` by name."""

    target: str
    processor: Processor
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    layouts: Sequence[Layout]
    rack: tuple[int, int]
    kernels: Elf
    stack: Mapping[str, Depth]
    """Of the kernels alone, without what helpers take; of a program with all that it contains."""
    firmware: Elf | None = None


def text(facts: Facts) -> str:
    """The report."""
    return "\n".join(_lines(facts)) + "\n"


def flash_and_ram(elf: Elf) -> tuple[int, int]:
    """Bytes that a file takes of the two kinds of memory: what is kept in it, and what programs write."""
    loaded = [section for section in elf.sections if section.loaded]
    flash = sum(section.size for section in loaded if section.kept)
    return flash, sum(section.size for section in loaded if section.written)


def _lines(facts: Facts) -> Iterator[str]:
    target, (n_cells, n_sensors) = facts.processor.target, facts.rack
    yield f"The controller for {facts.target}: {facts.processor.about}"
    yield ""
    yield from _table(
        "made by",
        {"target": " ".join(filter(None, (target.triple, target.cpu, target.features, target.abi))), **facts.versions},
    )
    yield from _table("hashes", {**facts.hashes, **{f"layout of {x.name}": x.digest() for x in facts.layouts}})
    records = sizes(n_cells, n_sensors)
    flash, ram = flash_and_ram(facts.kernels)
    memory = {"kernels, in flash": flash, "kernels, in RAM": ram, "configuration, in flash": records["config"]}
    memory |= {f"{name}, in RAM": records[name] for name in ("state", "measurement", "command")}
    if facts.firmware is not None:
        whole = flash_and_ram(facts.firmware)
        memory |= {"whole firmware, in flash": whole[0], "whole firmware, in RAM": whole[1]}
    title = f"memory for {n_cells} cells and {n_sensors} temperature sensors, bytes"
    yield from _table(title, {name: f"{size:>9,}" for name, size in memory.items()})
    title = "most stack, bytes, from the emitted instructions, and the chain of calls that takes it"
    yield from _table(title, {name: f"{d.size:>9,}  {' > '.join(d.chain)}" for name, d in facts.stack.items()})
    symbols = facts.kernels.symbols()
    defined = sorted(symbol.name for symbol in symbols if symbol.section and symbol.name.startswith("rackbms_"))
    needed = sorted(facts.kernels.undefined())
    yield from _table("symbols of the kernels", {"defined": " ".join(defined), "needed": " ".join(needed)})
    wide = target.helpers & set(needed)
    allowed = "memory functions" + (" and exact helpers for integers of 64 bits" if wide else "")
    yield f"forbidden symbols: none (allowed: {allowed})"


def _table(title: str, rows: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, rows), default=0)
    yield f"{title}:"
    for name, value in rows.items():
        yield f"    {name:<{width}}  {value}".rstrip()
    yield ""
