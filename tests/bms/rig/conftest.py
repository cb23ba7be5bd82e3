"""Sessions of pytest on racks of their own, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest


@dataclass
class Session:
    """What a session of pytest left."""

    code: int
    out: str

    @property
    def last(self) -> str:
        """The line that sums it up."""
        return self.out.strip().splitlines()[-1] if self.out.strip() else ""


class Play:
    """`play(source, *options)`: a session over a file with this source; without one, over what the options name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # what starts this session is no business of those
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}

    def command(self, source: str | None, *options: str | Path) -> list[str]:
        """The words that start a session."""
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rsfE", *(str(word) for word in options)]
        if source is None:
            return words
        (self.folder / "test_it.py").write_text(source)
        return [*words, str(self.folder / "test_it.py")]

    def __call__(self, source: str | None, *options: str | Path) -> Session:
        words = self.command(source, *options)
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        return Session(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Sessions in a folder of their own."""
    if not [point for point in metadata.entry_points(group="pytest11") if point.value == "bms.rig.plugin"]:
        pytest.skip("the plugin is not installed: pip install -e .")
    return Play(tmp_path)
