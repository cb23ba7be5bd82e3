"""The bill of materials: what is in it, and that the same parts give the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
from importlib import metadata

import pytest

pytest.importorskip("packaging", reason="pip install 'rackbms[firmware]'")

from bms.firmware.sbom import needed, sbom

FILES = {"librackbms.so": b"\x7fELF", "rack.toml": b"x = 1\n"}


def test_files_distributions_and_compilers_are_listed() -> None:
    content = json.loads(sbom("rackbms-rackpc", "1.2.3", FILES, {"LLVM": "22.1.0"}))
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", content["serialNumber"]
    )
    by_name = {component["name"]: component for component in content["components"]}
    assert by_name["librackbms.so"]["hashes"] == [
        {"alg": "SHA-256", "content": hashlib.sha256(FILES["librackbms.so"]).hexdigest()}
    ]
    for name in ("numpy", "cryptography", "rackbms"):
        assert by_name[name]["purl"] == f"pkg:pypi/{name}@{metadata.version(name)}"
    assert by_name["LLVM"]["version"] == "22.1.0"
    assert not {"pytest", "hypothesis", "mypy"} & by_name.keys(), "no controller needs them"
    refs = [component["bom-ref"] for component in content["components"]]
    assert len(set(refs)) == len(refs)
    assert set(content["dependencies"][0]["dependsOn"]) == set(refs)


def test_the_same_parts_give_the_same_bytes() -> None:
    made = sbom("a", "1", FILES, {})
    assert sbom("a", "1", dict(reversed(FILES.items())), {}) == made
    other = sbom("a", "1", {**FILES, "rack.toml": b"x = 2\n"}, {})
    assert json.loads(other)["serialNumber"] != json.loads(made)["serialNumber"]


def test_what_is_not_installed() -> None:
    with pytest.raises(metadata.PackageNotFoundError):
        needed("no-such-distribution", ())
    plain = {own.name.lower() for own in needed("rackbms", ())}
    assert "numpy" in plain
    assert "cryptography" not in plain
