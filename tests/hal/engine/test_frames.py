"""Frames: every content comes through, whatever noise is around it, and changes make of one record the next."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.engine import frames
from hal.engine.frames import Answer, Crash, Flag, Frame, Identity, Parser, applied, pack, question, runs

CONTENTS = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=80)), max_size=6)
RECORDS = st.integers(1, 900).flatmap(
    lambda n: st.tuples(
        st.binary(min_size=n, max_size=n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, 255)))
    )
)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """`data` in pieces."""
    ends = sorted({min(k, len(data)) for k in at} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@given(CONTENTS, st.lists(st.integers(0, 600)))
def test_frames_come_through_in_pieces(contents: list[tuple[int, int, bytes]], at: list[int]) -> None:
    parser = Parser()
    stream = b"".join(pack(*content) for content in contents)
    found = [frame for piece in cut(stream, at) for frame in parser.feed(piece)]
    assert found == [Frame(*content) for content in contents]
    assert parser.noise == 0


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 400))
def test_a_frame_is_found_between_noise(noise: bytes, content: bytes, flipped: int) -> None:
    wrong = bytearray(pack(3, 7, content))
    wrong[flipped % len(wrong)] ^= 1 + flipped % 255
    good = pack(3, 8, content)
    # what looks like a long frame hides what follows until as many bytes have come
    found = Parser().feed(noise + bytes(wrong) + good + bytes(frames.LARGEST + 64))
    assert Frame(3, 8, content) in found
    assert all(frame == Frame(3, 8, content) or frame.content in noise for frame in found)


@given(RECORDS)
def test_changes_make_of_one_record_the_next(record: tuple[bytes, list[tuple[int, int]]]) -> None:
    before = np.frombuffer(record[0], np.uint8)
    after = before.copy()
    for k, value in record[1]:
        after[k] = value
    assert np.array_equal(applied(before, runs(before, after)), after)
    assert runs(after, after) == b""


def test_few_changes_make_a_short_text() -> None:
    before = np.zeros(4736, np.uint8)
    after = before.copy()
    after[[0, 3, 4000]] = 1
    assert len(runs(before, after)) == 2 + 4 + 15 * 2 + 2 + 1


@pytest.mark.parametrize("content", [b"\0", b"\0\5abc", b"\xff\0\0\1a"])
def test_changes_that_do_not_fit_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="a run"):
        applied(np.zeros(100, np.uint8), content)


def test_a_question_tells_the_whole_where_nothing_is_known() -> None:
    record = np.arange(200, dtype=np.uint8)
    request, dt_s, budget_ms, flags, crc = struct.unpack_from("<ifIII", question(2, 0.5, 500, None, record))
    assert (request, dt_s, budget_ms, flags, crc) == (2, 0.5, 500, 1, zlib.crc32(record.tobytes()))
    assert len(question(2, 0.5, 500, record, record)) == 20


def test_answers_and_identities_of_a_wrong_size_are_refused() -> None:
    assert Answer.parse(struct.pack("<iII", -1, 1, 77) + b"xy") == Answer(-1, Flag.OVERRUN, 77, b"xy")
    for parse in (Answer.parse, Identity.parse):
        with pytest.raises(ValueError, match=r"too short|introduces itself with 3 bytes"):
            parse(b"abc")


def test_a_crash_is_told_in_words() -> None:
    assert (
        str(Crash(4, 0, 0, 0x10, 0, 7))
        == "a fault of memory protection where the stack had no room, status 0x10, after 7 steps"
    )
    assert "exception 17 at 0x1234, called from 0x5678, address 0x9" in str(Crash(17, 0x1234, 0x5679, 0, 9, 0))


# ------------------------------------------------------------------------------------------- the same code in C

HARNESS = """
#include <stdio.h>
#include "board.h"
#include "link.h"
bool board_receive(uint8_t *byte) { int c = getchar(); *byte = (uint8_t)c; return c != EOF; }
void board_send(const void *data, size_t size) { fwrite(data, 1, size, stdout); }
int main(void) {
    link_frame frame;
    while (link_receive(&frame)) {
        link_send(frame.kind, frame.sequence, frame.content, frame.length / 2, frame.content + frame.length / 2,
                  frame.length - frame.length / 2);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def echo(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of the firmware's own C that gives back the frames that it finds on its standard input."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) is installed")
    folder = tmp_path_factory.mktemp("echo")
    (folder / "echo.c").write_text(HARNESS)
    (folder / "rackbms_config.h").write_text(
        "#define RACKBMS_CONFIG_MEASUREMENT_SIZE 40\n#define RACKBMS_CONFIG_CELLS 2\n"
    )
    board = repository / "bms" / "firmware" / "board"
    words = ["-std=c11", "-Wall", "-Werror", "-fsanitize=address,undefined", f"-I{folder}", f"-I{board}"]
    subprocess.run([compiler, *words, board / "link.c", folder / "echo.c", "-o", folder / "echo"], check=True)
    return folder / "echo"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.builds(pack, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=170)),
            st.just(b"\xa5\x5a\x03\x01\xff\xff\xff\xff"),
            st.just(b"\xa5\x5a\x03\x01\x40\x00\x00\x00"),
        ),
        max_size=12,
    )
)
def test_the_firmware_finds_the_same_frames(echo: Path, parts: list[bytes]) -> None:
    stream = b"".join(parts)
    done = subprocess.run([echo], input=stream, capture_output=True, check=True)
    parser = Parser()
    largest = frames.LARGEST
    frames.LARGEST = 64 + 2 * 40 + 8 * 2
    try:
        expected = parser.feed(stream)
    finally:
        frames.LARGEST = largest
    assert done.stdout == b"".join(pack(f.kind, f.sequence, f.content) for f in expected)
