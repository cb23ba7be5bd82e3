"""Software bill of materials (SBOM) of a bundle, as CycloneDX 1.6 JSON (ECMA-424): what it was made of, and with which.

The files of the bundle with their hashes, the compilers, and every distribution that `rackbms` on a controller needs,
in the versions that are installed here. The same parts give the same bytes: there is no time in it, and its
serial number is made of its content.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

SPEC = "1.6"
PACKAGE = "rackbms"
EXTRAS = ("firmware",)
"""Extras that a controller needs beside the package."""


def sbom(name: str, version: str, files: Mapping[str, bytes], compilers: Mapping[str, str]) -> bytes:
    """The document about a bundle. Raises `importlib.metadata.PackageNotFoundError` where rackbms is not installed."""
    distributions = needed(PACKAGE, EXTRAS)
    components: list[dict[str, Any]] = [
        *({"type": "file", "bom-ref": f"file:{file}", "name": file, "hashes": [_hash(data)]}
          for file, data in sorted(files.items())),
        *({"type": "application", "bom-ref": f"tool:{tool}", "name": tool, "version": number, "scope": "excluded"}
          for tool, number in sorted(compilers.items())),
        *(_distribution(own) for own in distributions),
    ]  # fmt: skip
    refs = sorted(str(component["bom-ref"]) for component in components)
    content: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {"component": {"type": "firmware", "bom-ref": "bundle", "name": name, "version": version}},
        "components": components,
        "dependencies": [{"ref": "bundle", "dependsOn": refs}],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    content["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}"
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def needed(package: str, extras: tuple[str, ...]) -> list[metadata.Distribution]:
    """The installed distributions that a package needs with its extras, itself among them, by name."""
    found: dict[str, metadata.Distribution] = {}
    todo, seen = [(package, frozenset(extras))], set()
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        name, wanted = one
        try:
            found[_normal(name)] = own = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name == package:
                raise
            continue  # an optional part that is not installed is no part of this
        for text in own.requires or ():
            requirement = Requirement(text)
            if any(_applies(requirement, extra) for extra in ("", *wanted)):
                todo.append((_normal(requirement.name), frozenset(requirement.extras)))
    return [found[name] for name in sorted(found)]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _distribution(own: metadata.Distribution) -> dict[str, Any]:
    name = _normal(own.name)
    purl = f"pkg:pypi/{name}@{own.version}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": own.version, "purl": purl}
    expression = own.metadata.json.get("license_expression")
    return component if expression is None else {**component, "licenses": [{"expression": expression}]}


def _normal(name: str) -> str:
    """A name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _hash(data: bytes) -> dict[str, str]:
    return {"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}
