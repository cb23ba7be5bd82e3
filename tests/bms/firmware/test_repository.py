"""The repository: versions that rise, keys that fit, and nothing that is written over. What it is worth: hal/flash."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("tuf", reason="pip install 'rackbms[firmware]'")

from tuf.api.metadata import Metadata, Root

from bms.cli import main
from bms.firmware.repository import Expiry, Repository, signer
from hal.errors import ConfigError

EXPIRY = Expiry(datetime(2040, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    names = [tmp_path_factory.mktemp("keys") / f"{k}.pem" for k in range(4)]
    for name in names:
        assert main(["keygen", str(name)]) == 0
    return names


@pytest.fixture
def repository(keys: list[Path], tmp_path: Path) -> Repository:
    found = Repository(tmp_path / "repo")
    assert not found.exists
    found.create(keys[0], keys[1], EXPIRY)
    assert found.exists
    return found


def names(repository: Repository, folder: str) -> set[str]:
    return {path.name for path in (repository.folder / folder).iterdir()}


def test_each_change_is_a_version_and_the_timestamp_tells_the_newest(repository: Repository, keys: list[Path]) -> None:
    repository.add(keys[0], EXPIRY, {"x": b"1"})
    repository.renew(keys[0], EXPIRY)
    assert names(repository, "metadata") == {
        "1.root.json", "timestamp.json", *(f"{k}.{role}.json" for k in (1, 2, 3) for role in ("targets", "snapshot"))
    }  # fmt: skip
    timestamp = Metadata.from_file(str(repository.folder / "metadata" / "timestamp.json")).signed
    assert (timestamp.version, timestamp.snapshot_meta.version, timestamp.expires) == (3, 3, EXPIRY.others)
    (stored,) = names(repository, "targets")
    assert stored == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b.x", "SHA-256 of '1'"


def test_the_same_inputs_give_the_same_metadata(keys: list[Path], tmp_path: Path) -> None:
    content = []
    for k in range(2):
        made = Repository(tmp_path / str(k))
        made.create(keys[0], keys[1], EXPIRY)
        made.add(keys[0], EXPIRY, {"x": b"1", "y": b"2"})
        content.append({p.relative_to(made.folder): p.read_bytes() for p in made.folder.rglob("*.json")})
    assert content[0] == content[1]


def test_a_name_is_never_given_twice(repository: Repository, keys: list[Path]) -> None:
    repository.add(keys[0], EXPIRY, {"x": b"1"})
    repository.add(keys[0], EXPIRY, {"x": b"1"})
    with pytest.raises(ConfigError, match="x is in .* already, and was another one: give it a new --version"):
        repository.add(keys[0], EXPIRY, {"x": b"2"})


def test_only_the_key_that_the_root_names_signs(repository: Repository, keys: list[Path]) -> None:
    for call in (repository.renew, lambda key, expiry: repository.add(key, expiry, {"x": b"1"})):
        with pytest.raises(ConfigError, match="signed with another key; bms bundle rotate replaces it"):
            call(keys[2], EXPIRY)
    with pytest.raises(ConfigError, match="is not the key of the root"):
        repository.rotate(keys[0], keys[1], keys[2], EXPIRY)
    assert repository.root().version == 1


def test_keys_are_replaced(repository: Repository, keys: list[Path]) -> None:
    first = repository.root()
    assert repository.rotate(keys[1], keys[3], keys[2], EXPIRY) == 2
    second: Metadata[Root] = Metadata.from_file(str(repository.folder / "metadata" / "2.root.json"))
    for root in (first, second.signed):
        root.verify_delegate("root", second.signed_bytes, second.signatures)
    known = {name: [str(signer(key).public_key.keyid)] for name, key in (("root", keys[3]), ("targets", keys[2]))}
    assert {name: second.signed.roles[name].keyids for name in known} == known
    assert len(second.signed.keys) == 2, "the old ones are gone"
    repository.renew(keys[2], EXPIRY)
    with pytest.raises(ConfigError, match="another key"):
        repository.renew(keys[0], EXPIRY)


def test_what_is_no_repository(keys: list[Path], tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(ConfigError, match="no repository there"):
        Repository(tmp_path / "none").renew(keys[0], EXPIRY)
    (repository.folder / "metadata" / "timestamp.json").write_text("{")
    with pytest.raises(ConfigError, match=r"timestamp.json: no metadata of a repository"):
        repository.renew(keys[0], EXPIRY)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        Repository(tmp_path / "file").create(keys[0], keys[1], EXPIRY)
