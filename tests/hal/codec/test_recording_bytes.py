"""The bytes of a recording: packing, frames, and that no flipped bit goes unseen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hal.codec import recording as codec
from hal.contract import Command, Measurement, Truth
from hal.errors import DataError

ANY_WORD = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1), st.just(2**31), st.just(2**32 - 1))


def plain_unpack(packed: bytes, previous: list[int]) -> list[int]:
    """The format as its documentation reads, word by word; no numpy, no shared code."""
    groups = len(previous) // 32
    at, words = -(-groups // 4) * 4, list(previous)
    for g in range(groups):
        if packed[g] == 0:
            continue
        width = packed[g] - 1
        base = int.from_bytes(packed[at : at + 4], "little")
        bits = int.from_bytes(packed[at + 4 : at + 4 + 4 * width], "little")
        at += 4 + 4 * width
        for k in range(32):
            value = bits >> (k * width) & ((1 << width) - 1)
            words[32 * g + k] = (words[32 * g + k] + base + value) % 2**32
    assert at == len(packed)
    return words


@given(
    st.integers(1, 6).flatmap(
        lambda g: st.lists(arrays(np.uint32, 32 * g, elements=ANY_WORD, fill=ANY_WORD), min_size=1, max_size=4)
    )
)
def test_packing_is_reversible_and_as_documented(rows: list[np.ndarray]) -> None:
    groups = rows[0].size // 32
    delta, codes = np.zeros(32, np.int32), np.zeros(-(-groups // 4) * 4, np.uint8)
    target = np.zeros(33 * groups, np.uint32)
    previous, restored = np.zeros_like(rows[0]), np.zeros_like(rows[0])
    for row in rows:
        before = previous.tolist()
        used = codec.pack(row.copy(), previous, delta, codes, target)
        packed = np.r_[codes, target[:used].view(np.uint8)]
        np.testing.assert_array_equal(previous, row)
        assert codec.unpack(packed, restored) == packed.size
        np.testing.assert_array_equal(restored, row)
        assert plain_unpack(packed.tobytes(), before) == row.tolist()
        for cut in range(0, packed.size, 4):  # too short is said, never read beyond
            assert codec.unpack(packed[:cut], np.zeros_like(row)) == -1
    assert codec.pack(rows[-1], previous, delta, codes, target) == 0  # nothing new costs nothing
    assert not codes.any()


def test_a_code_that_is_none_is_refused() -> None:
    packed = np.zeros(400, np.uint8)
    packed[0] = 34
    assert codec.unpack(packed, np.zeros(32, np.uint32)) == -1


def records(rng: np.random.Generator, n_cells: int, n_sensors: int) -> tuple[Measurement, Command, Truth]:
    made = Measurement(n_cells, n_sensors), Command(n_cells, n_sensors), Truth(n_cells, n_sensors)
    for record in made:
        raw = record.raw.view(np.uint8)
        raw[:] = rng.integers(0, 256, raw.size, np.uint8)
    return made


def small_recording(n_steps: int = 4) -> tuple[bytes, list[tuple[bytes, bytes, bytes | None]]]:
    rng = np.random.default_rng(3)
    encoder = codec.StepCodec(3, 2)
    data = codec.MAGIC + codec.frame(0, codec.json_payload(codec.Kind.HEADER, {"n": n_steps}))
    content = []
    for k in range(1, n_steps + 1):
        measurement, command, truth = records(rng, 3, 2)
        encoder.row["dt_s"], encoder.row["estimate_crc"] = 0.5 * k, k
        given_truth = truth if k % 2 else None
        data += codec.frame(k, encoder.encode(measurement, command, given_truth))
        content.append((measurement.raw.tobytes(), command.raw.tobytes(), truth.raw.tobytes() if k % 2 else None))
    return data + codec.frame(n_steps + 1, codec.json_payload(codec.Kind.END, {})), content


def test_steps_come_back_bit_for_bit() -> None:
    data, content = small_recording()
    decoder, frames = codec.StepCodec(3, 2), codec.Frames(data)
    payloads = [payload for _, payload in frames]
    assert frames.truncated_bytes == 0
    assert codec.json_content(payloads[0]) == {"n": 4}
    assert [p[0] for p in payloads] == [0, 1, 1, 1, 1, 2]
    for k, (payload, (measurement, command, truth)) in enumerate(zip(payloads[1:-1], content, strict=True), 1):
        decoder.decode(payload)
        assert decoder.row["measurement"].tobytes() == measurement
        assert decoder.row["command"].tobytes() == command
        assert decoder.has_truth is (truth is not None)
        if truth is not None:
            assert decoder.truth_row.tobytes() == truth
        assert (decoder.row["dt_s"][0], decoder.row["estimate_crc"][0]) == (0.5 * k, k)


def test_every_flipped_bit_of_a_file_is_found_and_placed() -> None:
    data, _ = small_recording()
    starts = [len(codec.MAGIC)]
    while starts[-1] < len(data):
        starts.append(starts[-1] + codec.FRAME.size + codec.FRAME.unpack_from(data, starts[-1])[0])
    for at in range(len(data)):
        for bit in range(8):
            spoilt = bytearray(data)
            spoilt[at] ^= 1 << bit
            with pytest.raises(DataError) as caught:
                list(codec.Frames(bytes(spoilt)))
            if at >= len(codec.MAGIC):
                assert isinstance(caught.value, codec.DamagedError)
                assert caught.value.step == next(k for k, start in enumerate(starts) if start > at) - 1, (at, bit)


def test_a_cut_file_gives_its_whole_frames_at_every_length() -> None:
    data, _ = small_recording()
    whole = [len(codec.MAGIC)]
    for _, payload in codec.Frames(data):
        whole.append(whole[-1] + codec.FRAME.size + len(payload))
    for length in range(len(codec.MAGIC), len(data)):
        frames = codec.Frames(data[:length])
        count = len(list(frames))
        assert count == max(k for k, end in enumerate(whole) if end <= length)
        assert frames.truncated_bytes == length - whole[count]


def test_swapped_and_missing_frames_are_found() -> None:
    data, _ = small_recording()
    parts, at = [], len(codec.MAGIC)
    for _, payload in codec.Frames(data):
        parts.append(data[at : at + codec.FRAME.size + len(payload)])
        at += len(parts[-1])
    for order, step in (([0, 2, 1, 3, 4, 5], 1), ([0, 1, 3, 4, 5], 2), ([0, 1, 1, 2], 2)):
        with pytest.raises(codec.DamagedError) as caught:
            list(codec.Frames(codec.MAGIC + b"".join(parts[k] for k in order)))
        assert caught.value.step == step


def test_a_payload_for_another_rack_is_refused() -> None:
    data, _ = small_recording()
    payloads = [payload for _, payload in codec.Frames(data)]
    with pytest.raises(DataError, match="size of the rack"):
        codec.StepCodec(100, 20).decode(payloads[1])
    with pytest.raises(DataError, match="size of the rack"):
        codec.StepCodec(3, 2).decode(payloads[1] + b"\0\0\0\0")
