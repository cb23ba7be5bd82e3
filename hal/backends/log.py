"""A log of a CAN bus, played back as a rack: `replay:FILE.log?profile=reference`, candump's `.log`, `.blf` or `.asc`.

The frames go through the codec of `can:` as if they came from the bus: the same ages, checks and qualities. The clock's
zero is when every message of the profile has come once. A log cannot react: what is written to the rack is accepted and
has no effect. Past its end nothing comes any more, and every value grows stale.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hal.backends.can import CanRack
from hal.codec import can_profile
from hal.codec.dbc import EXTENDED
from hal.codec.frames import Inbox
from hal.contract import Clock, Command, Measurement
from hal.errors import ConfigError, DataError, nearest
from hal.links.can_link import RACK_KEYS, LinkCounters, parse_address

KEYS = ("profile", "fd", *RACK_KEYS)

Frame = tuple[float, int, bytes]


def frames(path: Path) -> list[Frame]:
    """(time in s, identifier with its mark, bytes) of all data frames of a log. Raises `DataError`."""
    import can

    found: list[Frame] = []
    try:
        with can.LogReader(path) as reader:
            for message in reader:
                if not (message.is_error_frame or message.is_remote_frame):
                    key = message.arbitration_id | (EXTENDED if message.is_extended_id else 0)
                    found.append((message.timestamp, key, bytes(message.data)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; give an existing log") from error
    except Exception as error:  # readers of damaged logs leak whatever their parsers raise
        what = str(error) or type(error).__name__
        raise DataError(
            f"{path}: damaged after {len(found):,} frames: {what}; cut it off there, or convert it again"
        ) from error
    if not found:
        raise DataError(f"{path}: holds no frame; is it a log of candump, or a .blf or .asc file?")
    return found


def span_s(path: Path) -> float:
    """How long a log is, s. Raises `DataError`."""
    found = frames(path)
    return found[-1][0] - found[0][0]


class _Heard:
    """Waiting for a frame takes the next out of the log."""

    def __init__(self, link: _LogLink) -> None:
        self._link = link

    def wait(self, timeout_s: float) -> None:
        """Take the next frame. Raises `DataError` where there is none."""
        self._link.advance()


class _LogLink:
    """What `hal.links.can_link.CanLink` is to a bus, for the frames of a log."""

    def __init__(self, path: Path, found: list[Frame], inbox: Inbox, now_s: Callable[[], float]) -> None:
        self.lock = contextlib.nullcontext()
        self.heard = _Heard(self)
        self.counters = LinkCounters()
        self._path, self._frames, self._inbox, self._now_s = path, found, inbox, now_s
        self._at = 0
        self._zero_s = 0.0

    def open(self) -> None:
        """Go to the beginning."""
        self._inbox.forget_counters()
        self._at = 0

    def close(self) -> None:
        """There is nothing to let go of."""

    def send(self, sent: list[tuple[int, bytes]]) -> None:
        """A log takes no frames."""

    def advance(self) -> None:
        """The next frame, before the clock counts. Raises `DataError`."""
        if self._at == len(self._frames):
            raise DataError(
                f"{self._path}: not every message of the profile is in it ({len(self._frames):,} frames); is it a log "
                "of this profile, and long enough?"
            )
        self._take(self._now_s())

    def begin(self) -> None:
        """Here is the clock's zero: from now on frames come in their time."""
        self._zero_s = self._frames[self._at - 1][0] - self._now_s()

    def play(self) -> None:
        """All frames up to now."""
        now_s = self._now_s()
        while self._at < len(self._frames) and self._frames[self._at][0] - self._zero_s <= now_s + 1e-6:
            self._take(self._frames[self._at][0] - self._zero_s)

    def _take(self, now_s: float) -> None:
        _, key, data = self._frames[self._at]
        self._at += 1
        self.counters.received += 1
        self._inbox.accept(key, data, now_s)


class LogRack(CanRack):
    """A log behind the contract (`hal.contract.Rack`). Raises `ConfigError`, and from `open` also `DataError`."""

    live = False

    def __init__(
        self,
        address: str,
        *,
        query: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the profile; the log is read when the rack is opened."""
        url = f"replay:{address}"
        for key in query or {}:
            if key not in KEYS:
                raise ConfigError(f"rack URL '{url}': unknown key '{key}'{nearest(key, KEYS)}")
        for name in (table for table, content in (options or {}).items() if content):
            raise ConfigError(f"rack URL '{url}': a log has no table '{name}'")
        if clock is None:
            raise ConfigError(f"rack URL '{url}': a log needs the clock of a loop")
        self.path = Path(address)
        self.address = replace(parse_address(f"log:{address}", query or {}), url=url)
        self._now_s = clock.now_s
        self._adapts = self.address.profile == can_profile.REFERENCE and not {"n_cells", "n_sensors"} & {
            *self.address.rack
        }
        self._open = False
        self._number: int | None = None
        self._accepted = -1
        self._frames: list[Frame] = []
        self._prepare({})

    def _prepare(self, sizes: Mapping[str, int]) -> None:
        super()._prepare(sizes)
        self.link = cast(Any, _LogLink(self.path, self._frames, self.inbox, self._now_s))

    def open(self) -> None:
        """Read the log and go to where every message has come once. Raises `DataError` and `ConfigError`."""
        if self._open:
            return
        self._frames[:] = frames(self.path)
        super().open()
        cast(_LogLink, self.link).begin()

    def read(self, out: Measurement) -> None:
        """Fill `out` with what had arrived by now."""
        if self._open:
            cast(_LogLink, self.link).play()
        super().read(out)

    def write(self, command: Command) -> None:
        """Accept `command`; a log cannot react to it."""
        self._need_open()

    def close(self) -> None:
        """Forget the log."""
        self._open = False
        self._frames.clear()
