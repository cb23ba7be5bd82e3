"""The parser of images: whole ones come back as they were made, and nothing else gets past it."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.errors import DataError
from hal.flash.image import AREA, ENTRY, HEADER, MAGIC, PROTECTED, UNPROTECTED, Flag, Kind, Version, parse, read

VALUES = st.lists(st.tuples(st.integers(0xA0, 0xFFFE), st.binary(max_size=40)), max_size=4)

VERSION = Version(1, 2, 3)


def area(magic: int, tlvs: list[tuple[int, bytes]]) -> bytes:
    body = b"".join(ENTRY.pack(kind, len(value)) + value for kind, value in tlvs)
    return AREA.pack(magic, AREA.size + len(body)) + body


def made(
    program: bytes,
    protected: list[tuple[int, bytes]],
    more: list[tuple[int, bytes]] | None = None,
    version: Version = VERSION,
    header_size: int = 64,
) -> bytes:
    """An image with the SHA-512 of what is signed, made by the layout as it is documented."""
    inner = area(PROTECTED, protected) if protected else b""
    numbers = (version.major, version.minor, version.revision, version.build)
    header = HEADER.pack(MAGIC, 0, header_size, len(inner), len(program), 0, *numbers, 0)
    signed = header.ljust(header_size, b"\xff") + program + inner
    return signed + area(UNPROTECTED, [(Kind.SHA512, hashlib.sha512(signed).digest()), *(more or [])])


@given(
    program=st.binary(max_size=200),
    protected=VALUES,
    more=VALUES,
    version=st.builds(
        Version, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1)
    ),
    header_size=st.integers(HEADER.size, 600),
    rest=st.binary(max_size=20),
)
def test_what_was_put_in_comes_out(program, protected, more, version, header_size, rest) -> None:
    data = made(program, protected, more, version, header_size)
    image = parse(data + rest)
    assert (image.version, image.program_size, image.header_size, image.size) == (
        version, len(program), header_size, len(data),
    )  # fmt: skip
    assert [(tlv.kind, tlv.value) for tlv in image.tlvs if tlv.protected] == protected
    assert [(tlv.kind, tlv.value) for tlv in image.tlvs if not tlv.protected][1:] == more
    assert image.sound


@given(st.data())
def test_an_image_that_is_cut_short_is_refused(data) -> None:
    whole = made(bytes(range(50)), [(Kind.COUNTER, bytes(4)), (Kind.BOARD, b"b")])
    with pytest.raises(DataError, match=r"x.bin: .*(too short|cut short)"):
        parse(whole[: data.draw(st.integers(0, len(whole) - 1))], "x.bin")


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(noise: bytes) -> None:
    for data in (noise, HEADER.pack(MAGIC, 0, 32, 0, 0, 0, 1, 2, 3, 4, 0) + noise):
        try:
            assert parse(data).size <= len(data)
        except DataError as error:
            assert str(error).startswith("image: ")


@given(st.data())
def test_a_change_of_what_is_signed_is_noticed(data) -> None:
    whole = bytearray(made(bytes(range(50)), [(Kind.COUNTER, bytes(4))]))
    signed = len(whole) - AREA.size - ENTRY.size - 64
    whole[data.draw(st.integers(0, signed - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DataError):
        assert not parse(bytes(whole)).sound


def test_areas_that_contradict_the_header_or_themselves_are_refused() -> None:
    whole = made(b"program", [(0xA5, b"abc")])
    at = 64 + len(b"program")
    for place, value, complaint in (
        (12, 3, "header says|where TLVs start"),  # program size
        (10, 5, "the header says 5"),  # size of the protected area
        (at + 6, 4, "reaches beyond its area"),  # length of the first TLV
        (at + 6, 2, "are no TLV"),
        (at, 9, "where TLVs start with 0x6908"),
        (8, 31, "not sound"),  # header size
        (15, 0xFF, "not sound"),  # program size again, beyond all reason
    ):
        with pytest.raises(DataError, match=complaint):
            parse(whole[:place] + bytes([value]) + whole[place + 1 :])


def test_values_by_their_names() -> None:
    image = parse(made(b"p", [(Kind.COUNTER, b"\x05\x01\0\0"), (Kind.BOARD, b"mps2\xff"), (0xBEEF, b"")]))
    assert (image.counter, image.board) == (261, "mps2\\xff")
    assert [tlv.name for tlv in image.tlvs] == ["counter", "board", "0xbeef", "sha512"]
    assert parse(made(b"p", [])).counter is None
    assert parse(made(b"p", [])).board is None
    assert image.flags == Flag(0)
    assert (str(Version(1, 2, 3)), str(Version(1, 2, 3, 4))) == ("1.2.3", "1.2.3+4")
    assert Version(1, 10, 0) > Version(1, 9, 9)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.bin: cannot be read: No such file"):
        read(tmp_path / "none.bin")
