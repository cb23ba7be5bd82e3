"""Configurations of racks: one TOML each, its loader, the default rows of the fault table, and the lints."""

from bms.racks.basis import Basis
from bms.racks.config import RackConfig, default, dump, fitted, load, misfit, names, overlay, parse, read, to_tables
from bms.racks.rows import default_rows

__all__ = [
    "Basis",
    "RackConfig",
    "default",
    "default_rows",
    "dump",
    "fitted",
    "load",
    "misfit",
    "names",
    "overlay",
    "parse",
    "read",
    "to_tables",
]
