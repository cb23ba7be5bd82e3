"""The most stack that a function can take, read from the instructions that a compiler has emitted.

The text is assembly as LLVM writes it, or what `objdump -d` shows of a linked program. Every instruction that lowers
the stack pointer is added up, over all ways through a function, so that the sum is never too small; calls are followed.
What cannot be told from the text is an error, not a guess: a function that calls itself, a call through a pointer, a
stack pointer that is computed.

Understood are Thumb-2, AArch64 and RISC-V.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_LABEL = re.compile(r"(?:[0-9a-f]+ <)?([A-Za-z_][\w.$]*)>?:")
_LISTED = re.compile(r"\s*[0-9a-f]+:\t[0-9a-f ]+\t(.*)")
_NUMBER = r"#?(-?(?:0x[0-9a-f]+|\d+))"
_NOT_BELOW = {"bl", "blx", "b", "b.w", "b.n", "call", "tail", "j", "jal", "jalr"}


@dataclass
class Frame:
    """What one function takes for itself, and what it calls."""

    size: int = 0
    calls: set[str] = field(default_factory=set)
    unclear: str = ""
    """An instruction that cannot be followed, '' without one."""


@dataclass(frozen=True)
class Depth:
    """The most stack below a function, and the chain of calls that takes it."""

    size: int
    chain: tuple[str, ...]


def frames(text: str) -> dict[str, Frame]:
    """Every function of an assembly text or listing. Raises nothing: see `Frame.unclear`."""
    found: dict[str, Frame] = {}
    for name, lines in _functions(text):
        frame = found.setdefault(name, Frame())
        constants: dict[str, int] = {}
        for line in lines:
            _take(frame, line, constants)
    return found


def deepest(functions: Mapping[str, Frame], entry: str, outside: int = 0) -> Depth:
    """The most stack that a call of `entry` takes; a function that is not among `functions` takes `outside` bytes.

    Raises `ValueError` for recursion, and for what cannot be told.
    """
    known: dict[str, Depth] = {}

    def visit(name: str, above: tuple[str, ...]) -> Depth:
        if name in above:
            raise ValueError(f"{' -> '.join((*above, name))}: calls itself: its stack has no limit")
        if name in known:
            return known[name]
        frame = functions.get(name)
        if frame is None:
            return Depth(outside, (name,))
        if frame.unclear:
            raise ValueError(f"{name}: '{frame.unclear}': how much stack this takes cannot be told")
        below = [visit(callee, (*above, name)) for callee in sorted(frame.calls)]
        worst = max(below, key=lambda depth: depth.size, default=Depth(0, ()))
        known[name] = Depth(frame.size + worst.size, (name, *worst.chain))
        return known[name]

    return visit(entry, ())


def _functions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Name and instructions of each function; what is no instruction is left out."""
    name = ""
    lines: list[str] = []
    for line in text.splitlines():
        label = _LABEL.match(line)
        if label:
            if name:
                yield name, lines
            name, lines = label[1], []
            continue
        listed = _LISTED.fullmatch(line)
        instruction = listed[1] if listed else line if line.startswith("\t") else ""
        instruction = re.split(r"\s*(?:@|;|//|# )", instruction)[0].strip().replace("\t", " ")
        if name and instruction and not instruction.startswith("."):
            lines.append(re.sub(r"\s+", " ", instruction))
    if name:
        yield name, lines


def _take(frame: Frame, line: str, constants: dict[str, int]) -> None:
    """Add what one instruction takes and calls. `constants`: registers that hold a number, on RISC-V."""
    mnemonic, _, operands = line.partition(" ")
    pushed = _pushed(mnemonic, operands)
    if pushed:
        frame.size += pushed
    elif re.match(r"sp(!|,|$)", operands) and not mnemonic.startswith(("cmp", "ld", "add", "pop", "vld", "st")):
        lowered = _lowered(mnemonic, operands, constants)
        if lowered is None:
            frame.unclear = frame.unclear or line
        else:
            frame.size += lowered
    elif mnemonic == "addi" and (found := re.fullmatch(rf"sp, ?sp, ?{_NUMBER}", operands)):
        frame.size += max(0, -int(found[1], 0))
    elif mnemonic == "bfc" and (found := re.fullmatch(r"\w+, ?#0, ?#(\d+)", operands)):
        frame.size += (1 << int(found[1])) - 1  # an address that is rounded down, for the stack pointer perhaps
    else:
        _remember(mnemonic, operands, constants)
        _call(frame, mnemonic, operands, line)


def _pushed(mnemonic: str, operands: str) -> int:
    """Bytes that an instruction stores below the stack pointer, 0 if it does not."""
    listed = re.search(r"\{(.*)\}", operands)
    if listed and (
        mnemonic.startswith(("push", "vpush")) or (mnemonic.startswith(("stmdb", "vstmdb")) and "sp!" in operands)
    ):
        return sum(_width(part) for part in listed[1].split(","))
    stored = re.search(rf"\[sp, ?{_NUMBER}\]!", operands)
    return max(0, -int(stored[1], 0)) if stored else 0


def _width(part: str) -> int:
    """Bytes of a register or of a range of them, `d8-d15`."""
    names = [name.strip() for name in part.split("-")]
    count = int(names[1][1:]) - int(names[0][1:]) + 1 if len(names) == 2 else 1
    return count * (8 if names[0].startswith("d") else 4)


def _lowered(mnemonic: str, operands: str, constants: Mapping[str, int]) -> int | None:
    """Bytes by which the stack pointer is lowered; None where that cannot be told."""
    if mnemonic.startswith("sub"):
        if found := re.fullmatch(rf"sp, ?(?:sp, ?)?{_NUMBER}(?:, ?lsl #(\d+))?", operands):
            return int(found[1], 0) << int(found[2] or 0)
        if (found := re.fullmatch(r"sp, ?sp, ?(\w+)", operands)) and found[1] in constants:
            return constants[found[1]]
        return None
    # a register that was made from the stack pointer, before or on the way back
    return 0 if mnemonic.startswith("mov") or mnemonic == "mv" else None


def _remember(mnemonic: str, operands: str, constants: dict[str, int]) -> None:
    """Keep what registers of RISC-V hold after `lui`, `li` and `addi`: sizes of large frames are made so."""
    target = operands.partition(",")[0]
    loaded = re.fullmatch(rf"\w+, ?{_NUMBER}", operands)
    added = re.fullmatch(rf"\w+, ?(\w+), ?{_NUMBER}", operands)
    if loaded and mnemonic in ("lui", "li"):
        constants[target] = int(loaded[1], 0) << (12 if mnemonic == "lui" else 0)
    elif added and mnemonic == "addi" and added[1] in constants:
        constants[target] = constants[added[1]] + int(added[2], 0)
    else:
        constants.pop(target, None)


def _call(frame: Frame, mnemonic: str, operands: str, line: str) -> None:
    """Note a call, or a jump into another function."""
    if mnemonic not in _NOT_BELOW:
        return
    last = operands.split(",")[-1].split()[-1] if operands else ""
    listed = re.fullmatch(r"<([\w.$]+)(\+0x[0-9a-f]+)?>", last)
    name = listed[1] if listed else last
    if listed and listed[2]:
        return  # within a function
    if re.fullmatch(r"(r\d+|ip|lr|[ast]\d+|ra|x\d+|0\(\w+\))", name):
        if mnemonic in ("blx", "jalr"):
            frame.unclear = frame.unclear or line
    elif re.fullmatch(r"[A-Za-z_][\w.$]*", name):
        frame.calls.add(name)
