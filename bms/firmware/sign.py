"""`bms sign`: a program becomes an image that a boot loader takes, signed by `imgtool`."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from bms.firmware.boards import BOARDS, SLOTS
from bms.firmware.identity import config_hash, layouts_hash
from bms.firmware.keys import private_key
from hal.errors import ConfigError
from hal.flash.image import HASH_BYTES, LONGEST_BOARD, Kind, parse

GOOD = 0
HEADER_SIZE = 512
"""Bytes before the program, so many that its table of vectors is aligned for a Cortex-M with up to 112 interrupts."""

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:\+(\d+))?")
_LARGEST_VERSION = (255, 255, 65535, 2**32 - 1)
_BOARD = re.compile(rf"[a-z0-9][a-z0-9_.-]{{0,{LONGEST_BOARD - 1}}}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms sign`."""
    parser.add_argument("program", metavar="PROGRAM.bin", type=Path, help="the program as it lies in flash")
    parser.add_argument("--key", required=True, metavar="KEY.pem", type=Path, help="private key, from bms keygen")
    add_facts(parser)
    config = parser.add_mutually_exclusive_group(required=True)
    config.add_argument("--config", metavar="CONFIG", help="configuration of the rack that is baked in: name or .toml")
    config.add_argument(
        "--config-hash", metavar="HEX", type=_hash, help="its hash, as the report of bms build tells it"
    )
    parser.add_argument("--sensors", metavar="N", type=int, help="temperature sensors of the rack of --config")
    parser.add_argument(
        "--layout-hash", metavar="HEX", type=_hash, help="hash of all layouts (default: this version's)"
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--slot", choices=list(SLOTS), help="slot of a board of bms build --boot that the program is linked for"
    )
    place.add_argument("--address", metavar="A", type=_number, help="its address, of another board (default: any slot)")
    parser.add_argument("--header-size", metavar="BYTES", type=_number, default=HEADER_SIZE, help="(default: 512)")
    parser.add_argument("-o", "--output", required=True, metavar="SIGNED.bin", type=Path, help="file for the image")


def add_facts(parser: argparse.ArgumentParser) -> None:
    """Options that tell an image or a bundle from others."""
    parser.add_argument("--version", required=True, type=_version, metavar="V", help="version: 1.2.3 or 1.2.3+build")
    parser.add_argument(
        "--security-counter",
        required=True,
        type=_number,
        metavar="N",
        help="raised when an older image must never run again: a controller takes no smaller one",
    )
    parser.add_argument("--board", required=True, type=board, help="name of the board that the program is for")


def run(args: argparse.Namespace) -> int:
    """Run `bms sign`. Returns 0."""
    if args.sensors is not None and args.config is None:
        raise ConfigError("--sensors belongs to a configuration: give --config instead of --config-hash")
    config = args.config_hash if args.config is None else config_hash(args.config, args.sensors)
    private_key(args.key)  # its errors are ours
    try:
        program = args.program.read_bytes()
    except OSError as error:
        raise ConfigError(f"{args.program}: cannot be read: {error.strerror}") from None
    image = signed(
        program,
        args.key,
        version=args.version,
        counter=args.security_counter,
        board=args.board,
        config=config,
        layouts=args.layout_hash or layouts_hash(),
        address=args.address if args.slot is None else slot_address(args.board, args.slot),
        header_size=args.header_size,
    )
    try:
        args.output.write_bytes(image)
    except OSError as error:
        raise ConfigError(f"{args.output}: cannot be written: {error.strerror}") from None
    print(f"{args.output}  {len(image)} bytes, version {args.version}, security counter {args.security_counter}")
    return GOOD


def slot_address(board: str, slot: str) -> int:
    """Where a slot of a board lies, by the name of the board in images. Raises `ConfigError`."""
    known = {own.machine: own.slots for own in BOARDS.values()}
    if board not in known:
        raise ConfigError(f"--slot {slot}: where the slots of '{board}' are is not known; give --address")
    return known[board][SLOTS.index(slot)]


def signed(
    program: bytes,
    key: Path,
    *,
    version: str,
    counter: int,
    board: str,
    config: bytes,
    layouts: bytes,
    address: int | None = None,
    header_size: int = HEADER_SIZE,
) -> bytes:
    """The image of a program. `config` and `layouts` are hashes of 8 bytes.

    The hash is SHA-512, which ed25519 needs in any case: the boot loader has one hash function, not two. Raises
    `ConfigError` with what imgtool says.
    """
    if not program:
        raise ConfigError("the program is empty; give the .bin that bms build made")
    if importlib.util.find_spec("imgtool") is None:
        raise ConfigError("signing needs imgtool, which is not installed: pip install 'rackbms[firmware]'")
    own = {Kind.CONFIG: config, Kind.LAYOUTS: layouts, Kind.BOARD: board.encode("ascii")}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "program.bin", Path(folder) / "image.bin"
        source.write_bytes(program)
        words: list[str | Path] = ["sign", "--key", key.absolute(), "--sha", "512", "--version", version]
        words += ["--security-counter", str(counter), "--header-size", str(header_size), "--pad-header"]
        words += ["--slot-size", "0", "--align", "1"]
        for kind, value in own.items():
            words += ["--custom-tlv", hex(kind), f"0x{value.hex()}"]
        if address is not None:
            words += ["--rom-fixed", hex(address)]
        imgtool([*words, source, target])
        image = target.read_bytes()
    parse(image, "what imgtool made")
    return image


def imgtool(words: list[str | Path]) -> str:
    """Run imgtool; gives what it prints. Raises `ConfigError` with the last line of what it complains of."""
    call = "from imgtool.main import imgtool; imgtool(prog_name='imgtool')"
    done = subprocess.run(
        [sys.executable, "-c", call, *words], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        said = lines[-1] if lines else "it does not say why"
        raise ConfigError(f"imgtool {metadata.version('imgtool')} refuses: {said}")
    return done.stdout


def _version(text: str) -> str:
    found = _VERSION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}': expected a version such as 1.2.3 or 1.2.3+4")
    numbers = [int(part) for part in found.groups(default="0")]
    if any(n > most for n, most in zip(numbers, _LARGEST_VERSION, strict=True)):
        raise argparse.ArgumentTypeError(f"'{text}': the largest is 255.255.65535+4294967295")
    return ".".join(map(str, numbers[:3])) + (f"+{numbers[3]}" if numbers[3] else "")


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number from 0 to 2^32 - 1")
    return value


def board(text: str) -> str:
    """A name of a board. Raises `argparse.ArgumentTypeError`."""
    if _BOARD.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"'{text}': expected up to {LONGEST_BOARD} of a-z, 0-9, '.', '_', '-'")
    return text


def _hash(text: str) -> bytes:
    if re.fullmatch(rf"[0-9a-fA-F]{{{2 * HASH_BYTES}}}", text) is None:
        raise argparse.ArgumentTypeError(f"'{text}': expected {2 * HASH_BYTES} hexadecimal digits")
    return bytes.fromhex(text)
