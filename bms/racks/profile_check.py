"""`check(name)`: everything that is wrong, or probably not meant, in a profile: what a rack looks like on a wire."""

from __future__ import annotations

import tomllib
from pathlib import Path

from bms.racks import lint_profile_can, lint_profile_registers
from bms.racks.findings import ERROR, Finding
from hal.codec import can_profile, register_profile
from hal.errors import ConfigError, nearest


def check(name: str) -> tuple[str, list[Finding]]:
    """What the profile `name` is, and all findings, errors first.

    `name` is that of a profile of the package or the path of a .toml file, for CAN with add-ons behind commas. Raises
    `ConfigError` for one that cannot be read at all.
    """
    about, found = (lint_profile_can if _is_can(name) else lint_profile_registers).lint(name)
    return about, sorted(found, key=lambda finding: finding.severity != ERROR)


def _is_can(name: str) -> bool:
    """Whether it is a profile for CAN, by its name or by its table [can]; a register map has others."""
    first = name.split(",")[0]
    can, registers = can_profile.names(), register_profile.names()
    if not first.endswith(".toml"):
        if first not in (*can, *registers):
            raise ConfigError(f"--profile {name}: unknown{nearest(first, (*can, *registers))}; or give a .toml file")
        return first in can
    try:
        tables = tomllib.loads(Path(first).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{first}: cannot be read: {error}") from None
    return {"model", "block", "base"}.isdisjoint(tables)
