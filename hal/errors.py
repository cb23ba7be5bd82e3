"""Errors of configuration and of input and output.

They carry one line for the person at the keyboard: what is wrong, where, and what to do. The command line
prints that line and exits with 2. A missing or implausible *measurement* is never an error: it is data with a
quality flag (see `hal.contract.Quality`).

    RackBmsError
    |-- ConfigError        a file or option that a person wrote (scenario, cell file, URL)
    |-- DataError          a data file (trace, recording) that cannot be used as it is
    `-- LinkError          a device or bus that does not answer as it should
        `-- GoneError      ... that is not there, or not any more: nothing can be asked of it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class RackBmsError(Exception):
    """Base of every error that a user can mend; `str(error)` is one clear line."""


class ConfigError(RackBmsError):
    """A configuration cannot be used: names the file, the field, the value and the remedy."""


class DataError(RackBmsError):
    """A data file cannot be used: names the file, the place, the value and the remedy."""


class LinkError(RackBmsError):
    """A device or bus failed to open, or stopped answering."""


class GoneError(LinkError):
    """A device is not there, or not any more: whatever else was to be asked of it need not be tried."""


@contextmanager
def noting(flaws: list[ConfigError] | None) -> Iterator[None]:
    """Go on after a `ConfigError` that is raised inside, and add it to `flaws`; without those, it is raised."""
    try:
        yield
    except ConfigError as error:
        if flaws is None:
            raise
        flaws.append(error)


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint ` (did you mean 'x'?)` for a misspelt `word`, or the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if names else ""
