"""Bundles: the same files give the same bytes, and nothing but what is packed is unpacked."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from bundle_yard import Yard
from hypothesis import given
from hypothesis import strategies as st

from hal.errors import DataError
from hal.flash.bundle import Entry, Manifest, misfit, pack, unpack, version
from hal.flash.image import Version

YARD = Yard(*[None] * 4)  # type: ignore[arg-type]
MANIFEST, FILES = YARD.bundle("1.2.3+4", 7)
PACKED = pack(MANIFEST, FILES)

texts = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
hashes = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
manifests = st.builds(
    Manifest,
    version=st.builds(Version, *[st.integers(0, 9_999_999_999)] * 4),
    counter=st.integers(0, 2**32 - 1),
    board=st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,15}", fullmatch=True),
    machine=texts,
    configuration=hashes,
    layouts=hashes,
    kernels=hashes,
    rackbms=texts,
    run=st.lists(st.text(min_size=1, max_size=8), max_size=4).map(tuple),
    files=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True),
        st.builds(Entry, st.integers(0, 1000), st.from_regex(r"[0-9a-f]{64}", fullmatch=True)),
        max_size=4,
    ),
)


@given(manifests)
def test_a_manifest_gives_back_what_it_was_made_of(manifest: Manifest) -> None:
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@given(st.binary(max_size=100) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_anything_else_is_no_manifest(raw: bytes) -> None:
    with pytest.raises(DataError, match="make it with bms bundle"):
        Manifest.from_bytes(raw)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1.2"}, {"version": "01.2.3"}, {"version": 1}, {"security_counter": -1}, {"security_counter": True},
        {"security_counter": 2**32}, {"board": "Rack PC"}, {"board": "x" * 17}, {"layouts": "1" * 15}, {"machine": ""},
        {"run": [1]}, {"run": None}, {"files": []}, {"format": 2}, {"more": 1}, {"files": {"../x": {}}},
        {"files": {"x": {"size": 65 << 20, "sha256": "0" * 64}}}, {"files": {"x": {"size": 1, "sha256": "0"}}},
        {"files": {"manifest.json": {"size": 1, "sha256": "0" * 64}}},
    ],
)  # fmt: skip
def test_a_manifest_with_a_value_out_of_range(change: dict[str, object]) -> None:
    content = {**json.loads(MANIFEST.to_bytes()), **change}
    with pytest.raises(DataError, match="x.json: no"):
        Manifest.from_bytes((json.dumps(content, indent=1, sort_keys=True) + "\n").encode(), "x.json")


def test_the_same_files_give_the_same_bytes_in_any_order() -> None:
    again = pack(MANIFEST, dict(reversed(FILES.items())))
    assert again == PACKED
    assert unpack(PACKED) == (MANIFEST, FILES)
    with tarfile.open(fileobj=io.BytesIO(PACKED)) as archive:
        facts = {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in archive}
        assert facts == {(0, 0, 0, "", "", 0o644)}
        assert archive.getnames() == sorted([*FILES, "manifest.json"])


@given(st.integers(0, len(PACKED) - 1), st.integers(0, 7))
def test_a_bundle_with_any_bit_flipped_is_none(at: int, bit: int) -> None:
    with pytest.raises(DataError):
        unpack(PACKED[:at] + bytes([PACKED[at] ^ 1 << bit]) + PACKED[at + 1 :])


@given(st.integers(0, len(PACKED) - 1))
def test_a_bundle_that_is_cut_short_is_none(size: int) -> None:
    with pytest.raises(DataError):
        unpack(PACKED[:size])


def tar(*infos: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info in infos:
            archive.addfile(info)
    return out.getvalue()


def test_links_and_devices_have_no_place_in_a_bundle() -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("x")
        info.type, info.linkname = kind, "/etc/passwd"
        with pytest.raises(DataError, match="x is no file"):
            unpack(tar(info))
    with pytest.raises(DataError, match="has no manifest.json"):
        unpack(tar(tarfile.TarInfo("x")))


def test_what_is_wrong_with_files() -> None:
    found = {name: Entry.of(data) for name, data in FILES.items()}
    assert misfit(MANIFEST, found) == ""
    assert misfit(MANIFEST, {**found, "more": Entry.of(b"")}) == "more does not belong to it"
    assert misfit(MANIFEST, {**found, "rack.toml": Entry.of(b"")}) == "rack.toml was changed after it was signed"
    del found["rack.toml"]
    assert misfit(MANIFEST, found) == "rack.toml is missing"


def test_versions() -> None:
    assert version("1.2.3+4") == Version(1, 2, 3, 4)
    assert version("1.10.0") > version("1.9.99+7")
    for text in ("1.2.3+0", "1.2.3 ", "1.2.-3", "1.2.3.4", "\u0661.2.3", None):
        with pytest.raises(ValueError, match="expected a version"):
            version(text)
