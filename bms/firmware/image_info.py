"""`bms image info`: what an image says of itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from hal.flash.image import Flag, Image, Kind, Tlv, read

GOOD, FAILED = 0, 1
SHOWN = 16  # bytes of a long value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms image`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = actions.add_parser("info", help="print header and TLVs", description="Print header and TLVs of an image.")
    info.add_argument("image", metavar="IMAGE", type=Path, help="a signed image")


def run(args: argparse.Namespace) -> int:
    """Run `bms image`. Returns 0, or 1 where the hash in the image is not its own."""
    data, image = read(args.image)
    for name, text in described(image, len(data)):
        print(f"{name:<18}{text}")
    return GOOD if image.sound else FAILED


def described(image: Image, file_size: int) -> Iterator[tuple[str, str]]:
    """Name and text of each line."""
    yield "version", str(image.version)
    flags = " ".join(flag.name or "" for flag in Flag if flag in image.flags)
    yield "flags", f"0x{image.flags:x}  {flags}".rstrip()
    yield "linked for", f"slot at 0x{image.address:08x}" if Flag.ROM_FIXED in image.flags else "any slot"
    yield "header", f"{image.header_size} bytes"
    yield "program", f"{image.program_size} bytes"
    yield (
        "whole image",
        f"{image.size} bytes" + (f", {file_size - image.size} more in the file" * (file_size > image.size)),
    )
    for tlv in image.tlvs:
        yield tlv.name + (" *" if tlv.protected else ""), _text(tlv)
    yield "hash", "is that of the image" if image.sound else "IS NOT that of the image: it was changed after signing"


def _text(tlv: Tlv) -> str:
    if tlv.kind == Kind.COUNTER:
        return str(int.from_bytes(tlv.value, "little"))
    if tlv.kind == Kind.BOARD:
        return tlv.value.decode("ascii", "backslashreplace")
    return tlv.value[:SHOWN].hex() + ("..." if len(tlv.value) > SHOWN else "") + f"  ({len(tlv.value)} bytes)"
