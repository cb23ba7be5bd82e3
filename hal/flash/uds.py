"""Flashing over UDS (ISO 14229-1) and ISO-TP (ISO 15765-2): the side that sends, through `udsoncan` and `can-isotp`."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from hal.errors import ConfigError, LinkError
from hal.flash import answers
from hal.flash.answers import VERDICTS, Progress, Refused, State
from hal.flash.can_bus import CanPlace, Frames

VERSION, STATE, SLOTS = 0xF195, 0xFD00, 0xFD02  # data of 0x22
SUMS, CHECK = 0x0210, 0xFF01  # routines of 0x31
PROGRAMMING, HARD_RESET = 2, 1
SUMS_AT_ONCE = 32
PURPOSE = b"rackbms: open for an update\0"
ED25519 = bytes.fromhex("06032b6570").ljust(16, b"\0")

ANSWER_S, PENDING_S, REQUEST_S = 2.0, 5.0, 60.0  # for an answer, for one after "pending", and for all of it
ATTEMPTS = 3  # at a block whose answer does not come

CONTACTORS = "its contactors are closed: open them first, nothing is flashed while a rack is connected"
ON_TRIAL = "the image that runs is on trial: wait until it has confirmed itself, or start the controller again"
REFUSALS = {
    0x11: "it does not know this service",
    0x31: "the image does not fit into its slot",
    0x33: "it wants another kind of proof",
    0x34: "it wants proof of who flashes it",
    0x58: "the proof was made with another key than the one that it knows",
    0x72: "its flash reports an error",
    0x7F: "its session has ended",
}
"""Negative responses that mean something to whoever flashes."""

Sign = Callable[[bytes], bytes]


class UdsFlasher:
    """A controller to be flashed; used as a context manager. `sign` makes the ed25519 signature of a challenge."""

    def __init__(self, place: CanPlace, sign: Sign | None = None) -> None:
        self.place = place
        self._sign = sign
        self._bus: Any = None
        self._frames = Frames(None)
        self._client: Any = None

    def __enter__(self) -> Self:
        import isotp
        from udsoncan.client import Client
        from udsoncan.connections import PythonIsoTpConnection

        for name in ("UdsClient", "Connection", "isotp"):  # what they warn of is raised, too
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._bus = self.place.open()
        address = isotp.Address(txid=self.place.request_id, rxid=self.place.response_id)
        parameters = {"stmin": 0, "blocksize": 32, "tx_padding": 0xCC, "wait_func": time.sleep}
        self._frames = Frames(self._bus)
        stack = isotp.TransportLayer(self._frames.receive, self._frames.send, address=address, params=parameters)
        config: Any = {
            "request_timeout": REQUEST_S,
            "p2_timeout": ANSWER_S,
            "p2_star_timeout": PENDING_S,
            "use_server_timing": False,  # it may answer sooner than this computer gets round to it
            "data_identifiers": {"default": _Bytes()},
            "server_address_format": 32,
            "server_memorysize_format": 32,
        }
        self._client = Client(PythonIsoTpConnection(stack), config=config)
        try:
            self._client.open()
        except BaseException:
            self._bus.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._bus.shutdown()

    def state(self) -> State:
        """What runs now. Raises `LinkError`."""
        return answers.state(self._read(STATE), self._read(VERSION))

    def free_address(self) -> int:
        """Address of the slot that is free. Raises `Refused` without one, and `LinkError`."""
        free = self.state().free
        if free is None:
            raise Refused(f"{self.place}: {ON_TRIAL}")
        return int.from_bytes(self._read(SLOTS)[4 * free : 4 * free + 4], "big")

    def flash(self, image: bytes, progress: Progress = lambda done, size: None) -> State:
        """Bring an image onto the controller; gives what runs afterwards.

        What is there already from an attempt before is not sent again. `progress` is told bytes done and bytes of all.
        Raises `Refused` with the controller's reason, `LinkError` where it falls silent, `ConfigError` without a key.
        """
        before = self.state()
        if not before.contactors_open:
            raise Refused(f"{self.place}: {CONTACTORS}")
        if len(image) > before.slot_size:
            raise Refused(f"{self.place}: image of {len(image)} bytes, its slot has {before.slot_size}")
        with self._refusals():
            self._client.change_session(PROGRAMMING)
            self._prove_who(before.board)
            offset = self._there(image, before.sector_size)
            self._send(image, offset, progress)
            verdict = self._client.start_routine(CHECK).service_data.routine_status_record[0]
            if verdict != answers.GOOD:
                raise Refused(f"{self.place}: refused: {VERDICTS.get(verdict, f'verdict {verdict}')}")
            self._client.ecu_reset(HARD_RESET)
        return answers.wait_until_back(self.place, self.state)

    def _prove_who(self, board: str) -> None:
        if self._sign is None:
            raise ConfigError("the controller asks who flashes it: give the private key with --key")
        asked = self._client.request_challenge_for_authentication(0, ED25519).service_data.challenge_server
        message = PURPOSE + board.encode("ascii", "replace").ljust(16, b"\0") + asked
        self._client.verify_proof_of_ownership_unidirectional(ED25519, self._sign(message))

    def _there(self, image: bytes, sector: int) -> int:
        """From which offset on the image is to be sent: the last sector that is there may have been cut off."""
        count = -(-len(image) // sector)
        for first in range(0, count, SUMS_AT_ONCE):
            some = range(first, min(first + SUMS_AT_ONCE, count))
            asked = first.to_bytes(2, "big") + len(some).to_bytes(2, "big")
            found = self._client.start_routine(SUMS, asked).service_data.routine_status_record
            for k in some:
                own = zlib.crc32(image[k * sector : (k + 1) * sector].ljust(sector, b"\xff"))
                if found[4 * (k - first) : 4 * (k - first) + 4] != own.to_bytes(4, "big"):
                    return max(k - 1, 0) * sector
        return (count - 1) * sector

    def _send(self, image: bytes, offset: int, progress: Progress) -> None:
        from udsoncan import MemoryLocation

        where = MemoryLocation(offset, len(image) - offset, 32, 32)
        block = self._client.request_download(where).service_data.max_length - 2
        progress(offset, len(image))
        for number, at in enumerate(range(offset, len(image), block), start=1):
            data = image[at : at + block]
            self._transfer(number & 0xFF, data)
            progress(at + len(data), len(image))
        self._client.request_transfer_exit()

    def _transfer(self, number: int, data: bytes) -> None:
        """One block; where its answer is lost it is sent again, and the controller knows it by its number."""
        from udsoncan.exceptions import TimeoutException

        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._client.transfer_data(number, data)
            except TimeoutException:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def _read(self, what: int) -> bytes:
        """What is asked for; once more where nothing comes, because the controller was about to start its program."""
        from udsoncan.exceptions import TimeoutException

        with self._refusals():
            try:
                found: bytes = self._client.read_data_by_identifier_first(what)
            except TimeoutException:
                found = self._client.read_data_by_identifier_first(what)
            return found

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What udsoncan raises as errors of ours."""
        from udsoncan import exceptions

        try:
            yield
        except exceptions.NegativeResponseException as error:
            raise Refused(f"{self.place}: {self._why(error.response.code, error.response.code_name)}") from None
        except exceptions.TimeoutException:
            lost = self._frames.error
            why = "the controller does not answer" if lost is None else f"the bus was lost ({lost})"
            raise LinkError(f"{self.place}: {why}; the same command goes on where an image was cut off") from None
        except (exceptions.InvalidResponseException, exceptions.UnexpectedResponseException) as error:
            raise LinkError(f"{self.place}: an answer that is none: {error}") from None

    def _why(self, code: int | None, name: str) -> str:
        if code != 0x22:
            return REFUSALS.get(code or 0, f"refused with {name}")
        now = self.state()
        if not now.contactors_open:
            return CONTACTORS
        return ON_TRIAL if now.free is None else "it refuses for now"


class _Bytes:
    """A codec of udsoncan that leaves bytes as they are."""

    def __new__(cls) -> Any:  # its base is known only where udsoncan is installed
        from udsoncan import DidCodec

        class Codec(DidCodec):  # type: ignore[misc, unused-ignore]
            def encode(self, *values: Any, **_: Any) -> bytes:
                return bytes(values[0])

            def decode(self, payload: bytes) -> bytes:
                return payload

            def __len__(self) -> int:
                raise DidCodec.ReadAllRemainingData

        return Codec()
