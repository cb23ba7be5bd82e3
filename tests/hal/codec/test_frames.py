"""Frames to values and back: equal to cantools on every signal, and no damaged frame is taken."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import cantools
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.codec import jit
from hal.codec.dbc import Database, Signal, parse
from hal.codec.frames import COUNTER_VALUES, MAX_STEP, Codec, Inbox, Outbox, Protection, Verdict, crc8
from hal.errors import ConfigError

GUARD = ' SG_ Crc : 0|8@1+ (1,0) [0|255] "" B\n SG_ Alive : 8|4@1+ (1,0) [0|14] "" B\n'
PROTECTED = f"""
BO_ 100 One: 8 A
{GUARD} SG_ x : 16|16@1+ (0.1,-5) [0|0] "" B
BO_ 291 Two: 5 A
{GUARD} SG_ y : 12|20@1- (1,0) [0|0] "" B
BO_ 300 Bare: 2 A
 SG_ z : 0|16@1+ (1,0) [0|0] "" B
"""
PROTECTION = (Protection("Crc", "Alive"),)


def layout(rng: np.random.Generator, length: int) -> list[tuple[int, int, bool]]:
    """Places of signals in a frame that do not overlap: start, length, little-endian."""
    taken: set[int] = set()
    found = []
    for _ in range(40):
        start, bits, little = int(rng.integers(8 * length)), int(rng.integers(1, 65)), bool(rng.integers(2))
        if rng.integers(2):
            bits = int(rng.integers(1, 9))
        places = set(Signal("", start, bits, little, False, 1, 0, 0, 0, "").bits())
        if max(places) < 8 * length and not places & taken:
            taken |= places
            found.append((start, bits, little))
    return found


def random_dbc(seed: int) -> str:
    rng = np.random.default_rng(seed)
    lines = []
    for m in range(int(rng.integers(1, 5))):
        length = int(rng.choice([1, 3, 8, 8, 8, 12, 64]))
        lines.append(f"BO_ {m + 1 if rng.integers(2) else (1 << 31) + 70000 + m} M{m}: {length} A")
        for k, (start, bits, little) in enumerate(layout(rng, length)):
            scale, offset = rng.choice(["1", "0.1", "0.0001", "-0.5", "3"]), rng.choice(["0", "-60", "1.5"])
            if bits > 50:
                scale, offset = "1", "0"  # cantools calculates whole numbers of any size
            sign = "+-"[int(rng.integers(2))]
            lines.append(f' SG_ S{m}_{k} : {start}|{bits}@{int(little)}{sign} ({scale},{offset}) [0|0] "" B')
    return "\n".join(lines) + "\n"


def load(text: str, protection: Sequence[Protection] = ()) -> tuple[Codec, Database, Any]:
    database = parse(text, "x.dbc")
    return Codec(database, database.messages, protection), database, cantools.database.load_string(text, "dbc")


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_every_signal_is_decoded_as_cantools_does(seed: int) -> None:
    codec, database, peer = load(random_dbc(seed))
    inbox, rng = Inbox(codec), np.random.default_rng(seed)
    expected: dict[str, float] = {}
    for m in database.messages:
        data = rng.bytes(m.length)
        assert inbox.accept(m.key, data, 0.0) is Verdict.ACCEPTED
        if m.signals:
            expected |= peer.get_message_by_name(m.name).decode(data)
    inbox.snapshot()
    codec.decode()
    assert {name: codec.value[codec.place(name)] for name in expected} == {k: float(v) for k, v in expected.items()}
    assert len(expected) == len(codec.value)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_every_signal_is_encoded_as_cantools_does(seed: int) -> None:
    codec, database, peer = load(random_dbc(seed))
    rng = np.random.default_rng(seed)
    for k, signal in enumerate(codec.signals):
        low, high = signal.raw_range()
        raw = low + int(rng.random() * (high - low)) if signal.length < 50 else int(rng.integers(1 << 50))
        codec.value[k] = min(raw, high) * signal.scale + signal.offset
    codec.encode()
    for r, m in enumerate(database.messages):
        values = {s.name: float(codec.value[codec.place(s.name)]) for s in m.signals}
        data = peer.get_message_by_name(m.name).encode(values, strict=False) if values else bytes(m.length)
        assert codec.image[r * codec.stride :][: m.length].tobytes() == data


@given(st.lists(st.floats(-1e12, 1e12), min_size=4, max_size=4))
def test_encoding_holds_a_value_in_its_range_and_decoding_gives_it_back(values: list[float]) -> None:
    text = 'BO_ 1 M: 8 A\n SG_ a : 0|16@1+ (0.0001,-1.5) [-1.5|5] "" B\n SG_ b : 23|12@0- (0.1,3) [0|0] "" B\n'
    text += ' SG_ c : 32|1@1+ (1,0) [0|0] "" B\n SG_ d : 40|24@1- (-2,7) [0|0] "" B\n'
    codec, _, _ = load(text)
    codec.value[:] = values
    codec.encode()
    codec.value[:] = 0.0
    codec.decode()
    ends = [(-1.5, 5.0), (3 - 204.8, 3 + 204.7), (0, 1), (7 - 2 * (2**23 - 1), 7 + 2 * 2**23)]
    for k, (low, high) in enumerate(ends):
        step = abs(codec.signals[k].scale)
        held = min(max(values[k], low), high)
        assert abs(codec.value[k] - held) <= 0.5 * step * (1 + 1e-6)


def test_no_number_has_a_code_of_its_own() -> None:
    codec, _, _ = load('BO_ 1 M: 8 A\n SG_ u : 0|16@1+ (1,0) [0|65534] "" B\n SG_ s : 16|16@1- (1,0) [0|0] "" B\n')
    codec.value[:] = np.nan
    codec.encode()
    assert codec.image[:4].tobytes() == b"\xff\xff\x00\x80"
    codec.value[:] = np.inf
    codec.encode()
    assert codec.image[:4].tobytes() == b"\xfe\xff\xff\x7f"


def test_halves_go_to_the_even_step() -> None:
    codec, _, _ = load('BO_ 1 M: 8 A\n SG_ u : 0|16@1- (1,0) [0|0] "" B\n')
    for value, raw in ((0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2)):
        codec.value[:] = value
        codec.encode()
        codec.decode()
        assert codec.value[0] == raw


def test_the_checksum_is_sae_j1850() -> None:
    """Check values of AUTOSAR, Specification of CRC Routines, Crc_CalculateCRC8."""
    assert crc8(b"123456789") == 0x4B
    for text, crc in (("00000000", 0x59), ("F20183", 0x37), ("0FAA0055", 0x79), ("332255AABBCCDDEEFF", 0xCB)):
        assert crc8(bytes.fromhex(text)) == crc


def test_a_sealed_frame_has_counter_and_checksum() -> None:
    codec, _, _ = load(PROTECTED, PROTECTION)
    outbox = Outbox(codec)
    seen = []
    for _ in range(2 * COUNTER_VALUES):
        codec.value[codec.place("x")] = 7.3
        codec.encode()
        (key, one), (_, two), (_, bare) = outbox.frames([0, 1, 2])
        assert (key, len(one), len(two), len(bare)) == (100, 8, 5, 2)
        assert one[0] == crc8(bytes((100, 0)) + one[1:])
        assert two[0] == crc8(bytes((291 & 255, 1)) + two[1:])
        seen.append(one[1] & 15)
    assert seen == 2 * list(range(COUNTER_VALUES))


def exchange() -> tuple[Outbox, Inbox]:
    sender, _, _ = load(PROTECTED, PROTECTION)
    receiver, _, _ = load(PROTECTED, PROTECTION)
    return Outbox(sender), Inbox(receiver)


def test_frames_are_judged() -> None:
    outbox, inbox = exchange()
    sent = [outbox.frames([0])[0] for _ in range(40)]
    judge = [(0, Verdict.ACCEPTED), (1, Verdict.ACCEPTED), (1, Verdict.REPEATED), (2, Verdict.ACCEPTED)]
    judge += [(2 + MAX_STEP, Verdict.ACCEPTED), (3 + 2 * MAX_STEP, Verdict.OUT_OF_SEQUENCE), (18, Verdict.ACCEPTED)]
    judge += [(17, Verdict.OUT_OF_SEQUENCE), (19, Verdict.ACCEPTED)]  # one that was overtaken
    for number, verdict in judge:
        assert inbox.accept(*sent[number], now_s=float(number)) is verdict, number
    assert inbox.lost == MAX_STEP - 1 + 1
    key, data = sent[20]
    assert inbox.accept(key, data[:-1], 0.0) is Verdict.WRONG_LENGTH
    assert inbox.accept(key, data + b"\0", 0.0) is Verdict.WRONG_LENGTH
    assert inbox.accept(key, bytes((data[0] ^ 1,)) + data[1:], 0.0) is Verdict.WRONG_CRC
    assert inbox.accept(key + 1, data, 0.0) is Verdict.UNKNOWN
    assert inbox.accept(291, data[:5], 0.0) is Verdict.WRONG_CRC, "the identifier is under the checksum"
    assert inbox.accept(300, b"\1\2", 0.0) is Verdict.ACCEPTED, "a message without checksum"
    assert inbox.arrived_s.tolist() == [19.0, -np.inf, 0.0]
    assert inbox.counts[Verdict.WRONG_CRC] == 2
    inbox.forget_counters()
    assert inbox.accept(*sent[30], now_s=0.0) is Verdict.ACCEPTED


def test_checksum_and_counter_may_stand_anywhere() -> None:
    text = 'BO_ 700 M: 8 A\n SG_ x : 0|16@1+ (1,0) [0|0] "" B\n SG_ Alive : 20|4@1+ (1,0) [0|14] "" B\n'
    text += ' SG_ Crc : 56|8@1+ (1,0) [0|255] "" B\n SG_ y : 24|16@0+ (1,0) [0|0] "" B\n'
    sender, _, peer = load(text, PROTECTION)
    receiver, _, _ = load(text, PROTECTION)
    outbox, inbox = Outbox(sender), Inbox(receiver)
    sender.value[sender.place("x")] = 513
    for number in range(20):
        sender.encode()
        ((key, data),) = outbox.frames([0])
        assert data[7] == crc8(bytes((700 & 255, 2)) + data[:7])
        assert peer.decode_message(key, data)["Alive"] == number % COUNTER_VALUES
        assert inbox.accept(key, data, 0.0) is Verdict.ACCEPTED
        assert inbox.accept(key, data[:3] + b"\x01" + data[4:], 0.0) is Verdict.WRONG_CRC


def test_counter_15_is_no_counter() -> None:
    outbox, inbox = exchange()
    data = bytearray(outbox.frames([0])[0][1])
    data[1] |= 15
    data[0] = crc8(bytes((100, 0)) + data[1:])
    assert inbox.accept(100, data, 0.0) is Verdict.OUT_OF_SEQUENCE


def test_a_hundred_thousand_damaged_frames_change_nothing() -> None:
    """One or two flipped bits always change the checksum (Hamming distance 3 up to 247 bits), as do bursts up to 8 bits.

    Frames of noise have the right one in one case of 256, and none gets by with a wrong one.
    """
    outbox, inbox = exchange()
    good = [outbox.frames([0])[0] for _ in range(COUNTER_VALUES)]
    assert inbox.accept(*good[0], now_s=1.0) is Verdict.ACCEPTED
    inbox.snapshot()
    before = inbox.codec.image.tobytes()
    rng = np.random.default_rng(5)
    flips, burst = rng.integers(0, 64, (60_000, 2)), rng.integers(1, 256, 60_000)
    verdicts = set()
    for k in range(60_000):
        bits = int.from_bytes(good[k % COUNTER_VALUES][1], "big")  # the order of the checksum
        if k % 2:
            for bit in set(flips[k, : 1 + k % 3 % 2].tolist()):
                bits ^= 1 << bit
        else:
            bits ^= int(burst[k]) << int(flips[k, 0] % 49)  # beside the checksum
        verdicts.add(inbox.accept(100, bits.to_bytes(8, "big"), 2.0))
    assert verdicts == {Verdict.WRONG_CRC}
    noise, keys = rng.bytes(8 * 40_000), rng.integers(0, 0x800, 40_000)
    for k in range(40_000):
        data = noise[8 * k : 8 * k + int(keys[k]) % 9]
        key = int(keys[k]) if k % 2 else (291, 300)[k % 4 // 2]
        if key not in (100, 300):
            verdict = inbox.accept(key, data, 2.0)
            assert verdict is not Verdict.ACCEPTED or crc8(bytes((35, 1)) + data[1:]) == data[0]
    inbox.snapshot()
    assert inbox.codec.image.tobytes()[:8] == before[:8]
    assert inbox.arrived_s[0] == 1.0


def test_pages_of_a_multiplexer_are_kept_apart() -> None:
    text = 'BO_ 1 M: 8 A\n SG_ p M : 1|3@0+ (1,0) [0|0] "" B\n SG_ a m0 : 16|8@1+ (1,0) [0|0] "" B\n'
    text += ' SG_ b m1 : 16|8@1- (1,0) [0|0] "" B\n SG_ c : 24|8@1+ (1,0) [0|0] "" B\n'
    codec, database, peer = load(text)
    assert [(row.page, len(row.signals)) for row in codec.rows] == [(None, 2), (0, 1), (1, 1)]
    inbox = Inbox(codec)
    for page, data in ((0, 200), (1, 201), (5, 99)):
        frame = bytearray(8)
        frame[0], frame[1] = page >> 1 & 3, (page & 1) << 7
        frame[2], frame[3] = data, page
        assert (
            peer.get_message_by_name("M").decode(bytes(frame), allow_truncated=True)["p"] == page if page < 2 else True
        )
        assert inbox.accept(1, frame, float(page)) is Verdict.ACCEPTED
    inbox.snapshot()
    codec.decode()
    assert {n: codec.value[codec.place(n)] for n in "pabc"} == {"p": 5, "a": 200, "b": 201 - 256, "c": 5}
    assert inbox.arrived_s.tolist() == [5.0, 0.0, 1.0]
    assert database.messages[0].multiplexer is not None


@pytest.mark.parametrize("order", [0, 1])
def test_pages_are_sent_with_their_number_and_what_they_share(order: int) -> None:
    start = (4, 6)[order]
    text = f'BO_ 1 M: 8 A\n SG_ p M : {start if order else 1}|6@{1 - order}+ (1,0) [0|0] "" B\n'
    text += ' SG_ a m9 : 16|8@1+ (1,0) [0|0] "" B\n SG_ b m33 : 16|8@1- (1,0) [0|0] "" B\n SG_ c : 63|8@0+ (1,0) [0|0] "" B\n'
    codec, _, peer = load(text + 'BA_DEF_ BO_ "GenMsgCycleTime" INT 0 9;\nBA_DEF_DEF_ "GenMsgCycleTime" 5;\n')
    assert [row.cycle_s for row in codec.rows] == [0.005, 0.01, 0.01], "pages take turns"
    codec.value[[codec.place(n) for n in "abc"]] = 200, -7, 77
    outbox = Outbox(codec)
    for _ in range(2):
        codec.encode()
        for (key, data), page in zip(outbox.frames([1, 2]), (9, 33), strict=True):
            found = peer.decode_message(key, data)
            assert found == {"p": page, "c": 77} | ({"a": 200} if page == 9 else {"b": -7})


def test_pages_with_a_checksum_are_not_sent() -> None:
    text = f'BO_ 1 M: 8 A\n{GUARD} SG_ p M : 16|8@1+ (1,0) [0|0] "" B\n SG_ a m0 : 24|8@1+ (1,0) [0|0] "" B\n'
    codec, _, _ = load(text, PROTECTION)
    with pytest.raises(ConfigError, match="message M has pages and a CRC, and cannot be sent"):
        Outbox(codec)


def test_names_and_mistakes() -> None:
    codec, database, _ = load(PROTECTED, PROTECTION)
    assert codec.signals[codec.place("One.Crc")].name == "Crc"
    with pytest.raises(ConfigError, match=r"^x\.dbc: there is no signal Crc"):
        codec.place("Crc")  # which one?
    with pytest.raises(ConfigError, match=r"there is no signal xx \(did you mean 'x'\?\)"):
        codec.place("xx")
    for wrong, complaint in (
        (Protection("x", "Alive"), "signal x is not one whole byte"),
        (Protection("Crc", "Counter"), "has a CRC and no signal Counter; add it, 4 bits"),
        (Protection("Crc", "x"), "signal x is not 4 bits of one byte"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            Codec(database, database.messages[:1], [wrong])


def test_the_kernels_are_a_program_of_their_own() -> None:
    assert set(jit.CAN.entries) == {"decode", "encode", "seal"}


def test_plain_python_gives_the_same_bytes() -> None:
    code = (
        "from hal.codec.dbc import parse; from hal.codec.frames import *; import sys\n"
        "d = parse(sys.argv[1], 'x'); c = Codec(d, d.messages, [Protection('Crc', 'Alive')]); o = Outbox(c)\n"
        "c.value[:] = range(len(c.value)); c.value[:3] *= -1; c.encode(); print(o.frames(range(len(c.rows))))\n"
        "c.decode(); print(c.value.tolist(), c.raw.tolist())\n"
    )
    said = []
    for plain in ("0", "1"):
        environment = {**os.environ, "RACKBMS_JIT": plain}
        words = [sys.executable, "-W", "error", "-c", code, PROTECTED + random_dbc(3)]
        said.append(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)
    assert said[0] == said[1]
    assert len(said[0]) > 200
