"""Flashing over SMP, MCUmgr's protocol, on a serial line: the side that sends is `smpclient`, which is not ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from hal.errors import ConfigError, LinkError, RackBmsError, nearest
from hal.flash.answers import Progress, Refused, wait_until_back
from hal.flash.image import Kind, Version, parse
from hal.registry import RackUrl

BAUD = 115_200
ANSWER_S, WRITE_S = 2.0, 20.0  # for an answer, and for one that has to wait for the flash


@dataclass(frozen=True)
class SerialPlace:
    """A controller at the end of a serial line."""

    device: str
    baud: int = BAUD

    def __str__(self) -> str:
        return f"serial:{self.device}"


def serial_place(url: RackUrl) -> SerialPlace:
    """The controller of `serial:/dev/ttyX?baud=115200`. Raises `ConfigError`."""
    for key in url.query:
        if key != "baud":
            raise ConfigError(f"'serial:{url.address}': unknown key '{key}'{nearest(key, ['baud'])}")
    text = url.query.get("baud", str(BAUD))
    if not text.isdecimal() or not 0 < int(text) < 1e8:
        raise ConfigError(f"'serial:{url.address}': baud = {text}: expected a number above 0")
    if not url.address:
        raise ConfigError("'serial:': which device? For example serial:/dev/ttyUSB0")
    return SerialPlace(url.address, int(text))


@dataclass(frozen=True)
class SmpState:
    """What runs, as far as SMP tells it."""

    version: Version | None
    running: int | None
    confirmed: bool

    def told(self) -> str:
        """In one line."""
        if self.running is None:
            return "no image is good; the boot loader waits for one"
        event = "confirmed" if self.confirmed else "on trial: the next start is that of the image before"
        return f"runs {self.version} from slot {self.running}; {event}"


class SmpFlasher:
    """A controller to be flashed; used as a context manager."""

    def __init__(self, place: SerialPlace) -> None:
        self.place = place
        self._runner: Any = None
        self._client: Any = None

    def __enter__(self) -> Self:
        from smpclient import SMPClient
        from smpclient.transport.serial import SMPSerialTransport

        logging.getLogger("smpclient").setLevel(logging.CRITICAL)  # what it warns of is raised, too
        self._runner = asyncio.Runner()
        self._client = SMPClient(SMPSerialTransport(baudrate=self.place.baud), self.place.device, ANSWER_S)
        try:
            self._do(self._client.connect())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._client.disconnect())
        finally:
            self._runner.close()

    def state(self) -> SmpState:
        """What runs now. Raises `LinkError`."""
        from smpclient.requests.image_management import ImageStatesRead

        return _state(self._ask(ImageStatesRead(), ANSWER_S).images)

    def free_address(self) -> int | None:
        """Address of the slot that is free: SMP does not tell it."""
        return None

    def flash(self, image: bytes, progress: Progress = lambda done, size: None) -> SmpState:
        """Bring an image onto the controller; gives what runs afterwards. `progress` is told bytes done and of all.

        Raises `Refused` with the controller's reason, `LinkError` where it falls silent.
        """
        from smpclient.requests.image_management import ImageStatesWrite
        from smpclient.requests.os_management import ResetWrite

        digest = parse(image).value(Kind.SHA512)
        if digest is None:
            raise Refused(f"{self.place}: the image has no SHA-512, by which it would be known; sign it with bms sign")
        self._do(self._upload(image, progress))
        self._ask(ImageStatesWrite(hash=digest), WRITE_S)
        self._ask(ResetWrite(), ANSWER_S)
        return wait_until_back(self.place, self.state)

    async def _upload(self, image: bytes, progress: Progress) -> None:
        async for done in self._client.upload(image, first_timeout_s=WRITE_S, subsequent_timeout_s=WRITE_S):
            progress(done, len(image))

    def _ask(self, request: Any, timeout_s: float) -> Any:
        from smpclient.generics import error

        answer = self._do(self._client.request(request, timeout_s=timeout_s))
        if error(answer):
            raise self._refused(answer)
        return answer

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work` to its end, with what smpclient raises as errors of ours."""
        from serial import SerialException
        from smpclient.exceptions import SMPClientException, SMPUploadError

        try:
            return self._runner.run(work)
        except RackBmsError:
            raise
        except SMPUploadError as error:
            raise self._refused(error.args[0]) from None
        except TimeoutError:
            raise LinkError(
                f"{self.place}: the controller does not answer; is it there, and does it speak SMP?"
            ) from None
        except (SMPClientException, SerialException, OSError) as error:
            raise LinkError(f"{self.place}: {str(error).splitlines()[0] or type(error).__name__}") from None

    def _refused(self, answer: Any) -> Refused:
        reason = getattr(answer, "rsn", None) or getattr(answer, "rc", answer)
        return Refused(f"{self.place}: refused: {reason}")


def _state(images: list[Any]) -> SmpState:
    for image in images:
        if image.active:
            return SmpState(_version(image.version), image.slot, bool(image.confirmed))
    return SmpState(None, None, False)


def _version(text: str) -> Version | None:
    parts = text.split(".")
    return Version(*map(int, parts)) if len(parts) in (3, 4) and all(part.isdecimal() for part in parts) else None
