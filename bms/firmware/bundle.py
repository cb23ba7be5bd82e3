"""`bms bundle`: bundles for Linux controllers, and the signed repository that offers them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

from bms import racks
from bms.core.jit import PROGRAM as CORE
from bms.firmware import sbom, service
from bms.firmware import sign as signing
from bms.firmware.baked import baked
from bms.firmware.identity import layouts_hash
from bms.firmware.repository import Expiry, Repository
from bms.racks import tables
from bms.runtime.scenario import seconds
from hal.engine.program import compiler_versions
from hal.errors import ConfigError, DataError
from hal.flash.bundle import CELL, CONFIGURATION, LIBRARY, RECORD, SBOM, SERVICE, Entry, Manifest, pack, unpack, version

GOOD = 0
MACHINES = {62: "x86_64", 183: "aarch64"}
"""Processors by their number in the header of an ELF file, as `uname -m` calls them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms bundle`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    about = "make a bundle of what bms build made, and offer it in a repository"
    make = actions.add_parser("make", help=about, description=f"{about.capitalize()}.")
    make.add_argument("build", metavar="BUILD", type=Path, help=f"folder that bms build filled: {LIBRARY} is in it")
    make.add_argument("--config", required=True, metavar="CONFIG", help="configuration of the rack: name or .toml")
    make.add_argument("--sensors", metavar="N", type=int, help="temperature sensors of that rack")
    make.add_argument("--rack", required=True, metavar="URL", help="the rack that the controller runs, as in bms run")
    make.add_argument("--run", metavar="WORDS", default="", help="more options of bms run, in one argument")
    signing.add_facts(make)
    _repository(make)
    make.add_argument(
        "--folder", default="/opt/rackbms", help="of the controller, for the service file (default: %(default)s)"
    )
    make.add_argument("--bms", default="/usr/local/bin/bms", help="the command there (default: %(default)s)")
    about = "sign a repository again before it expires"
    _repository(actions.add_parser("renew", help=about, description=f"{about.capitalize()}."))
    about = "replace keys: a new root of trust, signed with the key of the root before"
    rotate = actions.add_parser("rotate", help=about, description=f"{about.capitalize()}.")
    _repository(rotate)
    rotate.add_argument("--new-root-key", metavar="KEY.pem", type=Path, help="key of the new root (default: the same)")
    about = "print what a bundle says of itself"
    info = actions.add_parser("info", help=about, description=f"{about.capitalize()}.")
    info.add_argument("bundle", metavar="BUNDLE.tar", type=Path, help="a bundle")


def _repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repo", required=True, metavar="DIR", type=Path, help="the repository; make begins a new one")
    parser.add_argument(
        "--key", required=True, metavar="KEY.pem", type=Path, help="key that signs bundles, from bms keygen"
    )
    parser.add_argument(
        "--root-key",
        metavar="KEY.pem",
        type=Path,
        help="key of the root of trust: to begin, to rotate (default: --key)",
    )
    parser.add_argument(
        "--expires",
        metavar="TIME",
        type=_expiry,
        default="90d",
        help="30d, or 2027-01-31T00:00Z (default: %(default)s)",
    )
    parser.add_argument(
        "--root-expires", metavar="TIME", type=_expiry, default="3650d", help="of the root (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run `bms bundle`. Returns 0."""
    if args.action == "info":
        _info(args.bundle)
        return GOOD
    repository = Repository(args.repo)
    expiry = Expiry(args.root_expires, args.expires)
    root_key = args.root_key or args.key
    if args.action == "make":
        _make(args, repository, root_key, expiry)
    elif args.action == "renew":
        repository.renew(args.key, expiry)
        print(f"{args.repo}  good until {args.expires:%Y-%m-%d}")
    else:
        number = repository.rotate(root_key, args.new_root_key or root_key, args.key, expiry)
        print(f"{args.repo}  root {number}, good until {args.root_expires:%Y-%m-%d}")
    return GOOD


def _make(args: argparse.Namespace, repository: Repository, root_key: Path, expiry: Expiry) -> None:
    files = configuration_files(args.config, args.sensors)
    configuration = baked(args.config, args.sensors).digest
    files[LIBRARY] = library = _library(args.build / LIBRARY)
    name = f"{args.board} {args.version}"
    files[SERVICE] = service.unit(name, args.folder, args.bms).encode()
    files[SBOM] = sbom.sbom(f"rackbms-{args.board}", args.version, files, compiler_versions())
    manifest = Manifest(
        version=version(args.version),
        counter=args.security_counter,
        board=args.board,
        machine=machine(library, args.build / LIBRARY),
        configuration=configuration,
        layouts=layouts_hash().hex(),
        kernels=CORE.table.digest[:16],
        rackbms=metadata.version("rackbms"),
        run=service.words(args.rack, shlex.split(args.run)),
        files={file: Entry.of(data) for file, data in files.items()},
    )
    archive = pack(manifest, files)
    if not repository.exists:
        repository.create(args.key, root_key, expiry)
    repository.add(args.key, expiry, {manifest.archive: archive, f"{manifest.name}.json": manifest.to_bytes()})
    print(f"{manifest.archive}  {len(archive)} bytes, version {manifest.version}, security counter {manifest.counter}")
    print(
        f"{args.repo}  good until {args.expires:%Y-%m-%d}; controllers trust {args.repo / 'metadata' / '1.root.json'}"
    )


def configuration_files(name_or_path: str, sensors: int | None) -> dict[str, bytes]:
    """A configuration as files that need nothing beside them: the TOML, its cell where that is a file, the record.

    Raises `ConfigError`.
    """
    settings = racks.load(name_or_path)
    found = {RECORD: baked(name_or_path, sensors).record.bytes.tobytes()}
    cell = settings.rack.cell
    if "/" in cell or cell.endswith(".toml"):
        found[CELL] = _read(Path(settings.source).parent / cell)
        content = racks.to_tables(settings)
        content["rack"] = {**content["rack"], "cell": CELL}
        found[CONFIGURATION] = tables.text(content).encode()
    else:
        found[CONFIGURATION] = racks.read(name_or_path)[0]
    return found


def _library(path: Path) -> bytes:
    data = _read(path)
    if CORE.table.digest.encode() not in data:
        raise ConfigError(f"{path}: was built from other sources than these: build it again with bms build")
    return data


def machine(library: bytes, path: Path) -> str:
    """The processor that a shared library is for, as `uname -m` calls it. Raises `ConfigError`."""
    found = MACHINES.get(int.from_bytes(library[18:20], "little")) if library[:4] == b"\x7fELF" else None
    if found is None:
        raise ConfigError(f"{path}: no library of a Linux controller ({', '.join(MACHINES.values())}): build it there")
    return found


def _info(path: Path) -> None:
    manifest, _ = unpack(_read(path), str(path))
    rows: Mapping[str, object] = {
        "version": manifest.version,
        "security counter": manifest.counter,
        "board": manifest.board,
        "processor": manifest.machine,
        "configuration": manifest.configuration,
        "layouts": manifest.layouts,
        "kernels": manifest.kernels,
        "rackbms": manifest.rackbms,
        "runs": shlex.join(["bms", *manifest.run]),
    }
    for name, value in rows.items():
        print(f"{name:<18}{value}")
    for name, entry in sorted(manifest.files.items()):
        print(f"{name:<18}{entry.size} bytes, {entry.sha256}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "; make it with bms build" if path.name == LIBRARY else ""
        raise DataError(f"{path}: cannot be read: {error.strerror}{remedy}") from None


def _expiry(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text) if "-" in text else None
        if found is None:
            found = datetime.now(UTC) + timedelta(seconds=seconds(text, "--expires"))
    except (ValueError, OverflowError, ConfigError):
        raise argparse.ArgumentTypeError(f"'{text}': expected a time such as 90d, or 2027-01-31T00:00Z") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
