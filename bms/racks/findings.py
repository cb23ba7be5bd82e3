"""What a lint says: one line that names file, key, value, what is wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bms.core.faults import Fault, Row
from bms.racks.config import RackConfig
from bms.racks.faults import key_of
from bms.racks.tables import shown
from hal.codec.dbc import DbcError
from hal.contract import Severity
from hal.errors import ConfigError

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One finding. `value` is written as the file would write it; '' where nothing stands there."""

    severity: str
    source: str
    key: str
    value: str
    text: str
    remedy: str

    def __str__(self) -> str:
        about = f"{self.key} = {self.value}" if self.value else self.key
        return ": ".join(filter(None, (self.source, about, "; ".join(filter(None, (self.text, self.remedy))))))


def of_error(error: ConfigError) -> Finding:
    """A finding out of the one line of an error."""
    if isinstance(error, DbcError):
        text = error.text.removeprefix(error.key).removeprefix(":").lstrip()
        about, remedy = _last(text)
        return Finding(ERROR, error.source, error.key, error.value, about, remedy)
    source, _, rest = str(error).partition(": ")
    about, remedy = _last(rest)
    key = re.match(r"(\[+[\w.]+\]+(?: (?!is |has )[\w.]+)*|message \w+)(?: = (.*?))?:? (.*)", about)
    if key is None:
        return Finding(ERROR, source, "", "", about, remedy)
    return Finding(ERROR, source, key[1], key[2] or "", key[3], remedy)


def _last(text: str) -> tuple[str, str]:
    about, _, remedy = text.partition("; ")
    return about, remedy


class Findings:
    """Collects findings about one configuration, and answers what lints ask of it."""

    def __init__(self, config: RackConfig) -> None:
        self.config = config
        self.found: list[Finding] = []
        self._rows = {(row.fault, row.severity): row for row in config.rows}

    def row(self, fault: Fault, severity: Severity) -> Row | None:
        """A row of the table, or None."""
        return self._rows.get((fault, severity))

    def tiers(self, fault: Fault) -> list[Row]:
        """The rows of a fault, mildest first."""
        return [row for severity in Severity if (row := self._rows.get((fault, severity))) is not None]

    def rows(self, severity: Severity) -> Iterator[Row]:
        """All rows of a severity."""
        return (row for row in self.config.rows if row.severity is severity)

    def add(self, severity: str, key: str, value: object, text: str, remedy: str) -> None:
        """Note a finding about `key`."""
        self.found.append(Finding(severity, self.config.source, key, shown(tidy(value)), text, remedy))

    def error(self, key: str, value: object, text: str, remedy: str) -> None:
        """Note what must not stay as it is."""
        self.add(ERROR, key, value, text, remedy)

    def warning(self, key: str, value: object, text: str, remedy: str) -> None:
        """Note what is probably not meant."""
        self.add(WARNING, key, value, text, remedy)

    def row_error(self, row: Row, column: str, value: object, text: str, remedy: str) -> None:
        """Note an error of one column of a row."""
        self.error(f"fault.{key_of(row)}.{column}", value, text, remedy)

    def row_warning(self, row: Row, column: str, value: object, text: str, remedy: str) -> None:
        """Note a warning about one column of a row."""
        self.warning(f"fault.{key_of(row)}.{column}", value, text, remedy)


def tidy(value: object) -> object:
    """Numbers with as many digits as people read."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
