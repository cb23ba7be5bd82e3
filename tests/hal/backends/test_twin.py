"""The twin's program: complete, and what the twin runs once the backend is there."""

import importlib
import pkgutil

import sim
from hal.backends.twin import PROGRAM
from hal.engine.load import Native
from sim import jit


def test_every_entry_of_the_twin_is_in_its_program() -> None:
    for module in pkgutil.iter_modules(sim.__path__, "sim."):
        importlib.import_module(module.name)
    entries = [entry for entry in jit.ENTRIES if entry.__module__.startswith("sim.")]
    assert set(PROGRAM.entries.values()) == set(entries)


def test_entries_run_the_program() -> None:
    for entry in PROGRAM.entries.values():
        assert isinstance(entry.implementation, Native)
