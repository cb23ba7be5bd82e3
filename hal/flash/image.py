"""Images of firmware in MCUboot's format, taken apart: header, program, records of type, length and value (TLV).

Header and TLVs are laid out as MCUboot's `docs/design.md` and `bootutil/image.h` tell (github.com/mcu-tools/mcuboot).
Ours are little-endian, with one protected TLV area (security counter, configuration, layouts, board) and one that holds
SHA-512 and the ed25519 signature. Whether the signature is right is for the boot loader to say, which has the key.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

from hal.errors import DataError

HEADER = struct.Struct("<IIHHIIBBHII")
AREA = struct.Struct("<HH")
ENTRY = struct.Struct("<HH")

MAGIC = 0x96F3B83D
UNPROTECTED, PROTECTED = 0x6907, 0x6908
LARGEST = 64 << 20  # bytes; no controller has as much


class Flag(IntFlag):
    """Flags of the header."""

    PIC = 0x1
    ENCRYPTED_AES128 = 0x4
    ENCRYPTED_AES256 = 0x8
    NON_BOOTABLE = 0x10
    RAM_LOAD = 0x20
    ROM_FIXED = 0x100  # linked for `Image.address`


class Kind(IntEnum):
    """Types of TLVs: MCUboot's, and from CONFIG on ours."""

    KEY_HASH = 0x01
    PUBLIC_KEY = 0x02
    SHA256 = 0x10
    SHA384 = 0x11
    SHA512 = 0x12
    RSA2048 = 0x20
    ECDSA = 0x22
    RSA3072 = 0x23
    ED25519 = 0x24
    PURE = 0x25
    DEPENDENCY = 0x40
    COUNTER = 0x50
    BOOT_RECORD = 0x60
    CONFIG = 0xA0  # first 8 bytes of the hash of the rack's configuration
    LAYOUTS = 0xA1  # first 8 bytes of the hash of all layouts of records
    BOARD = 0xA2  # name of the board, ASCII


NAMES = {int(kind): kind.name.lower() for kind in Kind}
HASHES = {Kind.SHA256: hashlib.sha256, Kind.SHA384: hashlib.sha384, Kind.SHA512: hashlib.sha512}
HASH_BYTES = 8
"""Bytes of CONFIG and LAYOUTS."""
LONGEST_BOARD = 16
"""Characters of BOARD."""


@dataclass(frozen=True, order=True)
class Version:
    """Version of an image: `1.2.3+4`."""

    major: int
    minor: int
    revision: int
    build: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.revision}" + (f"+{self.build}" if self.build else "")


@dataclass(frozen=True)
class Tlv:
    """One record. A `kind` that is not in `Kind` is kept as it is."""

    kind: int
    value: bytes
    protected: bool

    @property
    def name(self) -> str:
        """What the kind is called, or its number."""
        return NAMES.get(self.kind, f"0x{self.kind:04x}")


@dataclass(frozen=True)
class Image:
    """An image in its parts. `size` is that of header, program and TLVs together, without what may follow."""

    version: Version
    flags: Flag
    address: int
    header_size: int
    program_size: int
    size: int
    tlvs: tuple[Tlv, ...]
    sound: bool
    """Whether the hash inside is that of header, program and protected TLVs."""

    def value(self, kind: Kind) -> bytes | None:
        """The value of the first TLV of a kind, or None."""
        return next((tlv.value for tlv in self.tlvs if tlv.kind == kind), None)

    @property
    def counter(self) -> int | None:
        """The security counter: a controller takes no image with a smaller one than that of what it runs."""
        value = self.value(Kind.COUNTER)
        return int.from_bytes(value, "little") if value is not None else None

    @property
    def board(self) -> str | None:
        """The board that it is for."""
        value = self.value(Kind.BOARD)
        return value.decode("ascii", "backslashreplace") if value is not None else None


def read(path: Path) -> tuple[bytes, Image]:
    """The bytes of a file, and the image that they are. Raises `DataError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return data, parse(data, str(path))


def parse(data: bytes, source: str = "image") -> Image:
    """Take an image apart; `source` names it in messages. Raises `DataError` for what is none, or is cut short."""
    if len(data) < HEADER.size:
        raise DataError(f"{source}: {len(data)} bytes: too short for an image; sign the program with bms sign")
    magic, address, header_size, protected_size, program_size, flags, *version, _ = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DataError(
            f"{source}: starts with 0x{magic:08x}, not as an image does (0x{MAGIC:08x}); sign it with bms sign"
        )
    if not HEADER.size <= header_size or program_size > LARGEST:
        raise DataError(f"{source}: header of {header_size} bytes, program of {program_size}: not sound; sign it again")
    at = signed = header_size + program_size
    tlvs: list[Tlv] = []
    if protected_size:
        found, signed = _area(data, at, PROTECTED, source)
        if signed - at != protected_size:
            raise DataError(
                f"{source}: protected TLVs of {signed - at} bytes, the header says {protected_size}; sign it again"
            )
        tlvs += found
    found, end = _area(data, signed, UNPROTECTED, source)
    tlvs += found
    return Image(
        version=Version(*version),
        flags=Flag(flags),
        address=address,
        header_size=header_size,
        program_size=program_size,
        size=end,
        tlvs=tuple(tlvs),
        sound=any(_hash_fits(tlv, data[:signed]) for tlv in tlvs),
    )


def _area(data: bytes, at: int, magic: int, source: str) -> tuple[list[Tlv], int]:
    """The TLVs of the area at `at`, and where it ends."""
    if len(data) < at + AREA.size:
        raise DataError(f"{source}: ends at byte {len(data)}, before its TLVs at {at}: cut short; copy it again")
    found, size = AREA.unpack_from(data, at)
    end = at + size
    if found != magic:
        raise DataError(f"{source}: byte {at}: 0x{found:04x} where TLVs start with 0x{magic:04x}; sign it again")
    if size < AREA.size or len(data) < end:
        raise DataError(f"{source}: ends at byte {len(data)}, its TLVs at {end}: cut short; copy it again")
    tlvs = []
    at += AREA.size
    while at < end:
        if end - at < ENTRY.size:
            raise DataError(f"{source}: byte {at}: {end - at} bytes are no TLV; sign it again")
        kind, length = ENTRY.unpack_from(data, at)
        at += ENTRY.size
        if at + length > end:
            raise DataError(f"{source}: byte {at}: a TLV of {length} bytes reaches beyond its area; sign it again")
        tlvs.append(Tlv(kind, data[at : at + length], magic == PROTECTED))
        at += length
    return tlvs, end


def _hash_fits(tlv: Tlv, signed: bytes) -> bool:
    return not tlv.protected and tlv.kind in HASHES and HASHES[Kind(tlv.kind)](signed).digest() == tlv.value
