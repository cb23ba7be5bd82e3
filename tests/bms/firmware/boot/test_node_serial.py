"""SMP on a serial line: the boot loader's side before bytes of the test's own, and before `smpclient`, which is not ours.

`hal/flash/smp.py` and `bms flash --to serial:` are tried on the same line.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("smpclient", reason="pip install 'rackbms[firmware]'")

import cbor2
from smpclient import SMPClient
from smpclient.exceptions import SMPUploadError
from smpclient.generics import error, success
from smpclient.requests.image_management import ImageStatesRead, ImageStatesWrite
from smpclient.requests.os_management import EchoWrite, ResetWrite
from smpclient.transport.serial import SMPSerialTransport
from uds_desk import Desk

from bms.cli import main
from bms.firmware import keys
from bms.firmware.boot.host import NO_SLOT, Controller, Event, Outcome, PowerLost, Verdict
from bms.firmware.boot.node import Node, OnLine, pty, serve
from bms.firmware.identity import layouts_hash
from hal.errors import ConfigError, LinkError
from hal.flash import answers, smp
from hal.flash.answers import Refused
from hal.flash.image import Kind, Version, parse
from hal.flash.smp import SmpFlasher, serial_place
from hal.registry import parse_url

PROGRAM = bytes(range(256)) * 22


def framed(message: bytes, line: int = 124, spoil: int = 0) -> bytes:
    whole = message + (binascii.crc_hqx(message, 0) ^ spoil).to_bytes(2, "big")
    text = base64.b64encode(len(whole).to_bytes(2, "big") + whole)
    pieces = [text[k : k + line] for k in range(0, len(text), line)]
    return b"".join((b"\4\x14" if k else b"\6\t") + piece + b"\n" for k, piece in enumerate(pieces))


def ask(
    node: Node, group: int, command: int, content: object = None, write: bool = True, raw: bytes | None = None
) -> dict:
    """The answer of a node to one message, taken apart."""
    body = cbor2.dumps({} if content is None else content) if raw is None else raw
    head = bytes([2 if write else 0, 0, *len(body).to_bytes(2, "big"), *group.to_bytes(2, "big"), 77, command])
    lines = node.serial(framed(head + body)).splitlines()
    whole = base64.b64decode(b"".join(line[2:] for line in lines))
    assert [line[:2] for line in lines] == [b"\6\t"] + [b"\4\x14"] * (len(lines) - 1)
    assert all(len(line) <= 127 for line in lines)
    assert len(whole) - 2 == int.from_bytes(whole[:2], "big")
    answer = whole[2:-2]
    assert binascii.crc_hqx(answer, 0).to_bytes(2, "big") == whole[-2:]
    assert (answer[0], answer[4:8]) == (head[0] + 1, head[4:8])
    assert len(answer) - 8 == int.from_bytes(answer[2:4], "big")
    return cbor2.loads(answer[8:])


@pytest.fixture(scope="module")
def serial_controller(workshop) -> Controller:
    return workshop.controller()


@pytest.fixture
def node(serial_controller: Controller, workshop) -> Node:
    """It runs version 1.0.0 from slot 0."""
    serial_controller.new()
    assert serial_controller.update(NO_SLOT, workshop.image("1.0.0", 1, b"one")) is Outcome.GOOD
    assert serial_controller.arm(0) is Verdict.GOOD
    assert serial_controller.confirm(serial_controller.boot().slot)
    made = Node(serial_controller)
    made.contactors(True)
    made.start(0)
    return made


@pytest.fixture
def line(node: Node) -> Iterator[str]:
    """The name of a serial line at whose other end the node is."""
    ending: list[bool] = []
    with pty() as (own, name):
        thread = threading.Thread(target=serve, args=(node, OnLine(own), ending), daemon=True)
        thread.start()
        while node.starts < 2:
            thread.join(0.01)
        yield name
        ending.append(True)
        thread.join()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this computer is, an answer that comes is waited for."""
    monkeypatch.setattr(smp, "ANSWER_S", 60.0)
    monkeypatch.setattr(smp, "WRITE_S", 60.0)
    monkeypatch.setattr(answers, "PAUSE_S", 0.01)


def upload(node: Node, image: bytes, piece: int = 400, start: int = 0) -> None:
    for at in range(start, len(image), piece):
        content = {"off": at, "data": image[at : at + piece]} | (
            {"len": len(image), "sha": b"s" * 32} if at == 0 else {}
        )
        assert ask(node, 1, 1, content) == {"off": min(at + piece, len(image))}


def digest(image: bytes) -> bytes:
    found = parse(image).value(Kind.SHA512)
    assert found is not None
    return found


def test_state_and_upload(node: Node, workshop) -> None:
    old, new = workshop.image("1.0.0", 1, b"one"), workshop.image("2.0.0+19", 2, PROGRAM)
    state = {
        "slot": 0, "version": "1.0.0", "hash": digest(old), "bootable": True, "pending": False, "confirmed": True,
        "active": True, "permanent": False,
    }  # fmt: skip
    assert ask(node, 1, 0, write=False) == {"images": [state]}
    upload(node, new)
    other = state | {"slot": 1, "version": "2.0.0.19", "hash": digest(new), "confirmed": False, "active": False}
    assert ask(node, 1, 0, write=False) == {"images": [state, other]}
    assert ask(node, 1, 0, {"hash": digest(new)}) == {"images": [state, other | {"pending": True}]}
    assert ask(node, 0, 5) == {}
    list(node.poll(0))
    assert node.starts == 2
    assert node.choice.slot == 1
    assert node.controller.counters.violations == 0


def test_what_is_refused(node: Node, workshop) -> None:
    good = workshop.image("2.0.0", 2, b"p")
    for group, command, content, write, code, reason in (
        (0, 0, {"x": 1}, True, 3, "d is missing"),
        (0, 6, {}, True, 8, "not known here"),
        (64, 0, {}, True, 8, "not known here"),
        (1, 1, {"off": 0}, True, 3, "off or data is missing"),
        (1, 1, {"off": 0, "data": b"x"}, True, 3, "len is missing"),
        (1, 1, {"off": 0, "data": b"x", "len": 8193}, True, 3, "len does not fit into the slot"),
        (1, 1, {"off": 5, "data": b"x"}, True, 6, "an upload begins with off 0"),
        (1, 0, {}, True, 3, "hash: expected 64 bytes"),
        (1, 0, {"confirm": True}, True, 8, "an image confirms itself, when it has seen that all is well"),
        (1, 0, {"hash": bytes(64)}, True, 9, "no image"),
    ):
        assert ask(node, group, command, content, write) == {"rc": code, "rsn": reason}
    upload(node, good)
    assert ask(node, 1, 0, {"hash": bytes(64)})["rsn"] == "the free slot has another image"
    upload(node, workshop.image("2.0.0", 2, b"p", board="other"))
    assert ask(node, 1, 0, {"hash": bytes(64)}) == {"rc": 9, "rsn": "for another board"}
    node.contactors(False)
    operations = node.controller.counters.operations
    for command, content in ((1, {"off": 0, "data": b"x", "len": 9}), (0, {"hash": digest(good)})):
        assert ask(node, 1, command, content) == {"rc": 6, "rsn": "contactors are closed"}
    assert ask(node, 0, 5) == {"rc": 6, "rsn": "contactors are closed"}
    assert node.controller.counters.operations == operations


def test_an_upload_goes_on_and_answers_with_what_it_expects(node: Node, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    first = {"off": 0, "data": image[:100], "len": len(image), "sha": b"s" * 32}
    assert ask(node, 1, 1, first) == {"off": 100}
    assert ask(node, 1, 1, {"off": 500, "data": b"x"}) == {"off": 100}
    assert ask(node, 1, 1, {"off": 100, "data": image[100:300]}) == {"off": 300}
    assert ask(node, 1, 1, first) == {"off": 300}  # a client that starts again, with the same image
    assert ask(node, 1, 1, first | {"sha": b"t" * 32}) == {"off": 100}
    assert ask(node, 1, 1, first | {"off": 100, "data": bytes(700)}) == {"off": 800}
    upload(node, image)
    assert ask(node, 1, 0, {"hash": digest(image)})["images"][1]["pending"]
    node.start(0)
    node.healthy = False
    assert ask(node, 1, 1, first) == {"rc": 6, "rsn": "the image that runs is on trial"}
    assert ask(node, 1, 0, {"hash": digest(image)}) == {"rc": 6, "rsn": "the image that runs is on trial"}


def test_of_two_flashers_the_later_one_goes_on(node: Node, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    bus = Desk(node, keys.private_key(workshop.key).sign)
    bus.let_in()
    first = {"off": 0, "data": image[:100], "len": len(image)}
    assert ask(node, 1, 1, first) == {"off": 100}
    assert bus.answer(b"\x10\x02")[0] == 0x50  # a session has nothing to do with it
    assert ask(node, 1, 1, {"off": 100, "data": image[100:200]}) == {"off": 200}
    bus.let_in()
    assert bus.download(image)[0] == 0x74
    assert ask(node, 1, 1, {"off": 200, "data": image[200:300]}) == {"rc": 1, "rsn": "not written"}
    assert bus.answer(b"\x36\x01" + image[:500]) == b"\x76\x01"
    assert ask(node, 1, 1, first) == {"off": 100}
    assert bus.refused(b"\x36\x02" + image[500:1000]) == 0x24
    upload(node, image, start=100)
    assert node.controller.check(1)[0] is Verdict.GOOD


def test_power_is_cut_in_an_upload(node: Node, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    for at in range(0, 200, 7):
        node.controller.cut(at, at)
        with pytest.raises(PowerLost):
            upload(node, image)
        node.start(0)
        assert node.choice.slot == 0
    upload(node, image)
    assert ask(node, 1, 0, {"hash": digest(image)})["images"][1]["pending"]
    assert node.controller.counters.violations == 0


@given(content=st.dictionaries(st.text(max_size=5), st.integers(0, 2**32 - 1) | st.binary(max_size=40) | st.booleans() | st.text(max_size=20), max_size=30), text=st.text(max_size=60))  # fmt: skip
def test_cbor_of_any_kind_is_read(serial_controller: Controller, content: dict, text: str) -> None:
    node = Node(serial_controller)
    node.start(0)
    content.pop("d", None)
    assert ask(node, 0, 0, content | {"d": text}) == {"r": text}
    assert ask(node, 0, 0, {"d": text} | content) == {"r": text}
    assert ask(node, 0, 0, content) == {"rc": 3, "rsn": "d is missing"}
    endless = b"\xbf" + cbor2.dumps({"d": text})[1:] + b"\xff"
    assert ask(node, 0, 0, raw=endless) == {"r": text}


@given(st.binary(max_size=60), st.binary(max_size=200))
def test_no_bytes_do_harm(serial_controller: Controller, body: bytes, noise: bytes) -> None:
    node = Node(serial_controller)
    serial_controller.new()
    node.start(0)
    for command in ((0, 0), (1, 0), (1, 1)):
        answer = ask(node, *command, raw=body)
        assert "rsn" in answer or "r" in answer or "off" in answer
    node.serial(noise)
    node.serial(b"\n\6\t" + noise + b"\n\4\x14" + noise + b"\n")
    assert ask(node, 0, 6, write=False) == {"buf_size": 1024, "buf_count": 1}
    assert serial_controller.counters.violations == 0


@pytest.mark.parametrize(
    ("command", "raw"),
    [
        ((0, 0), b"\xa1\x61d\x78\x1eabc"),  # text of 30 bytes
        ((0, 0), b"\xa1\x61d\x79"),  # its length would follow
        ((1, 1), b"\xa2\x64data\x40\x63off\x19"),  # a number would follow
        ((1, 1), b"\xa2\x64data\x40\x63off\x1b" + bytes(8)),  # of eight bytes
        ((1, 1), b"\xa2\x63off\x00\x64data"),
        ((1, 1), b"\xa2\x63off\x00\x64data\x81\x00"),  # an array
        ((1, 1), b"\x82\x63off\x00"),
    ],
)
def test_cbor_that_is_cut_short_or_strange(node: Node, command: tuple[int, int], raw: bytes) -> None:
    assert ask(node, *command, raw=raw)["rc"] == 3


def test_lines_that_are_damaged_are_forgotten(node: Node) -> None:
    good = framed(bytes([0, 0, 0, 1, 0, 0, 77, 6]) + cbor2.dumps({}))
    long = framed(bytes([2, 0, 0, 203, 0, 0, 1, 0]) + b"\xa1\x61d\x78\xc8" + b"t" * 198)
    assert node.serial(good) != b""
    for damaged in (
        good.replace(b"\6\t", b"\6\n"),
        good[:8] + bytes([good[8] ^ 1]) + good[9:],  # its sum
        good[:4] + b"!" + good[5:],
        b"\4\x14" + good[2:],  # goes on, with nothing before it
        good[:2] + b"A" * 130 + b"\n",
        b"\6\t" + b"A" * 124 + b"\n" + 12 * (b"\4\x14" + b"/" * 124 + b"\n"),  # longer than there is room
        framed(bytes([2, 0, 4, 76, 0, 0, 1, 0]) + cbor2.dumps({"d": "t" * 1094})),  # the same, and right in all else
        framed(bytes([0, 0, 0, 1, 0, 0, 77, 6]) + b"\xa0", spoil=1),
        framed(b"\2\0\0\1\0\0\1"),  # no whole head
        framed(bytes([1, 0, 0, 1, 0, 0, 77, 6]) + b"\xa0"),  # an answer, not a question
        framed(bytes([0, 0, 0, 9, 0, 0, 77, 6]) + b"\xa0"),  # another length
        long[:127],  # the rest never comes
    ):
        assert node.serial(damaged) == b"", damaged
        assert node.serial(good) != b""
    assert node.serial(good[:5]) == b""
    assert node.serial(good[5:].replace(b"\n", b"\r\n")) != b""


def test_a_foreign_client_flashes_it(line: str, node: Node, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)

    async def flash() -> None:
        async with SMPClient(SMPSerialTransport(), line, 60.0) as client:
            echo = await client.request(EchoWrite(d="Grüße"))
            assert success(echo)
            assert echo.r == "Grüße"
            offsets = [offset async for offset in client.upload(image)]
            assert offsets[-1] == len(image)
            assert offsets == sorted(offsets)
            wrong = await client.request(ImageStatesWrite(hash=bytes(64)))
            assert error(wrong)
            assert wrong.rsn == "the free slot has another image"
            armed = await client.request(ImageStatesWrite(hash=digest(image)))
            assert success(armed)
            assert [state.pending for state in armed.images] == [False, True]
            assert success(await client.request(ResetWrite()))
            after = await client.request(ImageStatesRead())
            assert success(after)
            assert [(state.version, state.active) for state in after.images] == [("1.0.0", False), ("2.0.0", True)]

    before = node.starts
    asyncio.run(flash())
    assert node.starts == before + 1
    assert node.controller.counters.violations == 0


def test_a_foreign_client_is_told_why_not(line: str, node: Node) -> None:
    node.contactors(False)

    async def flash() -> None:
        async with SMPClient(SMPSerialTransport(), line, 60.0) as client:
            async for _ in client.upload(bytes(100)):
                pass

    with pytest.raises(SMPUploadError, match="contactors are closed"):
        asyncio.run(flash())


def test_our_flasher(line: str, node: Node, workshop) -> None:
    told: list[int] = []
    with SmpFlasher(serial_place(parse_url(f"serial:{line}"))) as flasher:
        assert flasher.state().version == Version(1, 0, 0)
        after = flasher.flash(workshop.image("2.0.0+3", 2, PROGRAM), lambda done, size: told.append(done))
        assert (after.version, after.running) == (Version(2, 0, 0, 3), 1)
        assert told == sorted(told)
        with pytest.raises(Refused, match="refused: security counter is smaller than that of an image that ran before"):
            flasher.flash(workshop.image("3.0.0", 1, b"p"))
        node.contactors(False)
        with pytest.raises(Refused, match=f"serial:{line}: refused: contactors are closed"):
            flasher.flash(workshop.image("3.0.0", 2, b"p"))
        assert "runs 2.0.0+3 from slot 1; confirmed" in flasher.state().told()
    assert Event(node.controller.boot().record.event) in (Event.REFUSED, Event.OPENED)


def test_a_line_without_a_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smp, "ANSWER_S", 0.1)
    with pytest.raises(LinkError, match="serial:/dev/none: "):
        SmpFlasher(serial_place(parse_url("serial:/dev/none"))).__enter__()
    for url, complaint in (
        ("serial:/dev/x?baud=fast", "baud = fast: expected a number above 0"),
        ("serial:/dev/x?bad=1", "unknown key 'bad'"),
        ("serial:", "which device"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            serial_place(parse_url(url))


def test_as_a_process(workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(workshop.image("1.0.0", 1, PROGRAM, layouts=layouts_hash()))
    words = [sys.executable, "-m", "bms.firmware.boot.node", "--serial", "--key", str(workshop.key), "--unhealthy"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        name = process.stdout.readline().split()[-1]
        assert process.stdout.readline() == "no image is good: the boot loader waits for one\n"
        assert main(["flash", "--to", f"serial:{name}", "--wait", "0", str(path)]) == 0
        out = capsys.readouterr().out
        assert "before: no image is good" in out
        assert "after:  runs 1.0.0 from slot 0; on trial" in out
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
    assert process.returncode == 0
