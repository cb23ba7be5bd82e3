"""Where a Linux controller's flasher reads a repository: a folder, or a web server."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from hal.errors import ConfigError, LinkError, RackBmsError

PIECE = 64 << 10
ANSWER_S = 30.0
LARGEST = 65 << 20
"""Bytes of the largest file that is read: more than a bundle may have."""
PARTIAL = 206


class MissingError(RackBmsError):
    """The repository has no such file."""


class Source(Protocol):
    """A repository. Names have `/` between their parts, and no part leads upwards."""

    def stream(self, name: str, offset: int) -> Iterator[bytes]:
        """The bytes of a file from `offset` on, in pieces. Raises `MissingError` and `LinkError`."""
        ...


class Folder:
    """A repository in a folder of this computer."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def stream(self, name: str, offset: int) -> Iterator[bytes]:
        """See `Source`."""
        try:
            file = (self.path / name).open("rb")
        except FileNotFoundError:
            raise MissingError(f"{self}: {name} is missing") from None
        except OSError as error:
            raise LinkError(f"{self}: {name}: cannot be read: {error.strerror}") from None
        with file:
            file.seek(offset)
            while piece := file.read(PIECE):
                yield piece


class Web:
    """A repository on a web server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def stream(self, name: str, offset: int) -> Iterator[bytes]:
        """See `Source`. A server that knows no ranges sends all of it, and what is known is passed over."""
        request = urllib.request.Request(f"{self.url}/{urllib.parse.quote(name)}")
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                skip = offset if answer.status != PARTIAL else 0
                read = 0
                while (piece := answer.read(PIECE)) and read < LARGEST:
                    read += len(piece)
                    if read > skip:
                        yield piece[max(0, len(piece) - (read - skip)) :]
                if answer.length:
                    raise http.client.IncompleteRead(b"", answer.length)
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            if error.code in (http.client.FORBIDDEN, http.client.NOT_FOUND):
                raise MissingError(f"{self}: {name} is missing") from None
            raise LinkError(f"{self}: {name}: the server answers {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise LinkError(f"{self}: {name}: {why}; the same command goes on where it was cut off") from None


def source(text: str) -> Source:
    """The repository that an option names: a URL with http or https, or a folder. Raises `ConfigError`."""
    if text.startswith(("http://", "https://")):
        return Web(text)
    path = Path(text)
    if not (path / "metadata" / "timestamp.json").is_file():
        raise ConfigError(f"--repo {text}: no repository there (metadata/timestamp.json); make it with bms bundle make")
    return Folder(path)
