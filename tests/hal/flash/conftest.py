"""A repository with bundles for a Linux controller, and the keys that sign it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tuf", reason="pip install 'rackbms[firmware]'")

from bundle_yard import Yard

from bms.cli import main
from hal.flash import trust


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("keys")
    names = [folder / name for name in ("fleet.pem", "root.pem", "other.pem")]
    for name in names:
        assert main(["keygen", str(name)]) == 0
    return names[0], names[1], names[2]


@pytest.fixture
def yard(keys: tuple[Path, Path, Path], tmp_path: Path) -> Yard:
    return Yard(tmp_path / "repo", *keys)


@pytest.fixture(scope="module")
def stock(keys: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """One that tests share and do not change: versions 1.0.0 and 1.1.0."""
    found = Yard(tmp_path_factory.mktemp("stock") / "repo", *keys)
    for number in ("1.0.0", "1.1.0"):
        found.offer(number)
    return found


@pytest.fixture(scope="module")
def offer(stock: Yard) -> trust.Offer:
    """What the stock offers, looked at once: a sweep need not look again."""
    return trust.refresh(stock.set_up(), stock.source)
