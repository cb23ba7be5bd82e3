"""What is pinned is used, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from bms.firmware.boot import sources
from hal.engine import cache
from hal.errors import ConfigError


def test_the_pinned_files_are_there_and_kept(workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_download", lambda pinned: pytest.fail("it is at hand"))
    if any(cache.load(pinned.name, bytes.fromhex(pinned.sha256)) is None for pinned in sources.DISTRIBUTIONS):
        pytest.skip("the boot loader was not compiled on this computer, but came from the cache")
    sources.fetch(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} == {
        name for pinned in sources.DISTRIBUTIONS for name in pinned.files.values()
    }
    assert "Monocypher version 4.0.3" in (tmp_path / "monocypher.c").read_text()


def test_another_file_under_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sources, "_download", lambda pinned: b"something else")
    with pytest.raises(ConfigError, match="pymonocypher 4.0.3.4: another file than the pinned one"):
        sources.fetch(tmp_path)


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, tmp_path.as_uri())
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(ConfigError, match="pymonocypher 4.0.3.4 cannot be fetched: ERROR: .*; is there a network"):
        sources.fetch(tmp_path)
