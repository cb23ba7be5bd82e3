"""A controller on another processor, in step with this one: one frame for each step, answered by one frame.

Nothing here knows a clock of the controller's: time is what the frames say, so that a run is the same every time,
however long the other side takes. A frame that is lost is sent again with its number, and each number makes one step.
"""

from __future__ import annotations

import struct
import time
from typing import Protocol

from hal.contract import F4, U1
from hal.engine import frames
from hal.engine.frames import ANSWER, REFUSALS, REFUSED, Answer, Frame, Identity, Kind, NodeStatus
from hal.errors import LinkError

ATTEMPTS = 3
BUDGET_MS = (1, 10_000)
"""Least and most time that a step may be given."""


class Channel(Protocol):
    """Bytes to and from a controller."""

    name: str
    answer_s: float
    """Seconds after which a frame counts as lost."""

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises `LinkError`."""
        ...

    def receive(self, timeout_s: float) -> bytes:
        """What has arrived; waits for something, and returns nothing after `timeout_s`. Raises `LinkError`."""
        ...


class Remote:
    """The controller at the other end of `channel`."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._parser = frames.Parser()
        self._sequence = 0
        self._known: U1 | None = None  # the measurement that the other side has

    def hello(self) -> Identity:
        """Who is there. Raises `LinkError`: nobody, or somebody who speaks otherwise."""
        content = self._ask(Kind.HELLO)
        protocol = struct.unpack_from("<I", content)[0] if len(content) >= 4 else 0
        try:
            if protocol != frames.PROTOCOL:
                raise ValueError(f"it speaks version {protocol} of the protocol, this is {frames.PROTOCOL}")
            return Identity.parse(content)
        except ValueError as error:
            raise LinkError(f"{self.channel.name}: {error}: build the firmware again") from None

    def start(self, soc: F4, soc_std: F4) -> None:
        """Fresh memory, with the SoC that each cell is believed to have (n_cells,), and its deviation.

        Raises `LinkError`.
        """
        self._ask(Kind.START, soc.astype("<f4").tobytes() + soc_std.astype("<f4").tobytes())
        self._known = None

    def step(self, request: int, dt_s: float, measurement: U1) -> Answer:
        """One step on the record `measurement`, as bytes; its budget of time is `dt_s`. Raises `LinkError`."""
        budget_ms = min(max(round(dt_s * 1000), BUDGET_MS[0]), BUDGET_MS[1])
        known, self._known = self._known, None
        answer = self._put(Kind.STEP, frames.question(request, dt_s, budget_ms, known, measurement))
        if known is not None and _refusal(answer) == frames.OTHER_MEASUREMENT:
            answer = self._put(Kind.STEP, frames.question(request, dt_s, budget_ms, None, measurement))
        content = self._accepted(answer)
        self._known = measurement.copy()
        try:
            return Answer.parse(content)
        except ValueError as error:
            raise LinkError(f"{self.channel.name}: {error}") from None

    def run(self) -> None:
        """Let it run by its own timer, with the memory that it has. Raises `LinkError`."""
        self._ask(Kind.RUN)

    def node(self, request: int | None = None) -> NodeStatus:
        """How it is as a node of the rack's bus; `request` is what it is asked for from now on. Raises `LinkError`."""
        content = self._ask(Kind.NODE, b"" if request is None else struct.pack("<i", request))
        try:
            return NodeStatus.parse(content)
        except ValueError as error:
            raise LinkError(f"{self.channel.name}: {error}") from None

    def _ask(self, kind: Kind, content: bytes = b"") -> bytes:
        """The content of the answer to a question. Raises `LinkError`."""
        return self._accepted(self._put(kind, content))

    def _put(self, kind: Kind, content: bytes) -> Frame:
        """Send a question until it is answered."""
        self._sequence = self._sequence + 1 & 0xFF
        question = frames.pack(kind, self._sequence, content)
        for _ in range(ATTEMPTS):
            self.channel.send(question)
            answer = self._answer(kind)
            if answer is not None:
                return answer
        raise LinkError(
            f"{self.channel.name}: the controller has not answered {ATTEMPTS} times within {self.channel.answer_s:g} s"
        )

    def _answer(self, kind: Kind) -> Frame | None:
        """The answer to the last question, or None after a while; frames that answer something else are passed over."""
        deadline = time.monotonic() + self.channel.answer_s
        while data := self.channel.receive(max(0.0, deadline - time.monotonic())):
            for frame in self._parser.feed(data):
                if frame.sequence == self._sequence and frame.kind in (kind | ANSWER, REFUSED):
                    return frame
        return None

    def _accepted(self, answer: Frame) -> bytes:
        """The content of an answer. Raises `LinkError` for one that is a refusal."""
        code = _refusal(answer)
        if code is None:
            return answer.content
        reason = REFUSALS.get(code, f"refuses for reason {code}")
        if code == frames.NOT_STARTED and (crash := self.hello().crash):  # it has started anew since
            reason = f"has started anew after {crash}"
        raise LinkError(f"{self.channel.name}: the controller {reason}")


def _refusal(answer: Frame) -> int | None:
    """The reason of a refusal, None for another answer."""
    if answer.kind != REFUSED:
        return None
    return int.from_bytes(answer.content[:4], "little")
