"""A flasher's side of UDS and ISO-TP, frame by frame, in a time that the test makes."""

from __future__ import annotations

from collections.abc import Callable

from bms.firmware.boot.node import Node

ED25519 = bytes.fromhex("06032b6570").ljust(16, b"\0")
PURPOSE = b"rackbms: open for an update\0"
PENDING = 0x78


class Desk:
    """The other side of ISO-TP, in a few lines of its own."""

    def __init__(self, node: Node, sign: Callable[[bytes], bytes]) -> None:
        self.node, self.sign, self.now_ms = node, sign, 0

    def frames(self, frame: bytes) -> list[bytes]:
        self.node.frame(frame, self.now_ms)
        return list(self.node.poll(self.now_ms))

    def ask(self, request: bytes) -> list[bytes]:
        """All answers to a request, 'pending' among them."""
        if len(request) < 8:
            return self._answers(self.frames(bytes([len(request)]) + request))
        got = self.frames(bytes([0x10 | len(request) >> 8, len(request) & 0xFF]) + request[:6])
        assert [frame[:3] for frame in got] == [b"\x30\x20\x00"]  # go on, 32 frames, no gap
        rest = [request[k : k + 7] for k in range(6, len(request), 7)]
        for number, piece in enumerate(rest, start=1):
            got = self.frames(bytes([0x20 | number & 15]) + piece)
            if number < len(rest):
                assert [frame[:1] for frame in got] == ([b"\x30"] if number % 32 == 0 else [])
        return self._answers(got)

    def _answers(self, frames: list[bytes]) -> list[bytes]:
        answers = []
        for frame in frames:
            if frame[0] >> 4 == 0:
                answers.append(frame[1 : 1 + frame[0]])
            else:
                assert frame[0] >> 4 == 1
                size, message = (frame[0] & 15) << 8 | frame[1], frame[2:]
                for number, more in enumerate(self.frames(b"\x30\0\0"), start=1):
                    assert more[0] == 0x20 | number & 15
                    message += more[1:]
                answers.append(message[:size])
        return answers

    def answer(self, request: bytes) -> bytes:
        """The last answer, which is no longer 'pending'."""
        *before, last = self.ask(request)
        assert all(answer == bytes([0x7F, request[0], PENDING]) for answer in before)
        return last

    def refused(self, request: bytes) -> int:
        """The code of a negative answer."""
        answer = self.answer(request)
        assert answer[:2] == bytes([0x7F, request[0]]), answer.hex()
        return answer[2]

    def challenge(self) -> bytes:
        answer = self.answer(b"\x29\x05\0" + ED25519)
        assert answer[:3] + answer[19:21] == b"\x69\x05\0\0\x20"
        assert len(answer) == 55
        return answer[21:53]

    def proof(self, message: bytes) -> bytes:
        return b"\x29\x06" + ED25519 + b"\0\x40" + self.sign(message) + bytes(4)

    def let_in(self) -> None:
        assert self.answer(b"\x10\x02")[:2] == b"\x50\x02"
        proof = self.proof(PURPOSE + b"host".ljust(16, b"\0") + self.challenge())
        assert self.answer(proof) == b"\x69\x06\x12" + ED25519 + b"\0\0"

    def download(self, image: bytes, offset: int = 0) -> bytes:
        return self.answer(b"\x34\0\x44" + offset.to_bytes(4, "big") + (len(image) - offset).to_bytes(4, "big"))

    def flash(self, image: bytes, offset: int = 0) -> bytes:
        """Everything; gives the verdict."""
        self.let_in()
        assert self.download(image, offset) == b"\x74\x20\x08\x02"
        for number, at in enumerate(range(offset, len(image), 2048), start=1):
            assert self.answer(bytes([0x36, number]) + image[at : at + 2048]) == bytes([0x76, number])
        assert self.answer(b"\x37") == b"\x77"
        answer = self.answer(b"\x31\x01\xff\x01")
        assert answer[:4] == b"\x71\x01\xff\x01"
        return answer[4:]
