"""A profile in which anything stands for anything is looked over, or refused in one line: never a traceback."""

import copy
import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bms.racks import lint_profile_can, lint_profile_registers
from hal.codec import can_profile_file, register_profile
from hal.errors import RackBmsError

JUNK = (
    *(3, -1, 0, 10**12, 2.5, float("nan"), float("inf"), True),
    *("x", "", "802.Hb", [], [1], ["x"], [[1]], {}, {"a": 1}, {"signal": 3}, {"channel": []}),
)
ROUNDS = {"sunspec": 60, "plain": 300, "foxbms": 25}


def text_of(kind: str, repository: Path) -> str:
    if kind != "plain":
        return (repository / "hal" / "profiles" / kind / "profile.toml").read_text()
    page = (repository / "docs" / "modbus.md").read_text().partition("## Plain registers")[2]
    found = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


def places(table: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a table."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from places(value, (*above, key))


def damaged(table: dict[str, Any], ways: list[tuple[Any, ...]], rng: random.Random) -> dict[str, Any]:
    """A copy in which one thing is another, or missing."""
    made = copy.deepcopy(table)
    *above, last = rng.choice(ways)
    holder: Any = made
    for key in above:
        holder = holder[key]
    if rng.random() < 0.2:
        del holder[last]
    else:
        holder[last] = copy.deepcopy(rng.choice(JUNK))
    return made


@pytest.mark.parametrize("kind", ROUNDS)
def test_anything_in_it_is_a_finding_or_one_line(
    kind: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository / "hal" / "profiles" / kind
    for file in folder.glob("*.*") if folder.is_dir() else ():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path, text = tmp_path / "profile.toml", text_of(kind, repository)
    path.write_text(text)
    table, made = tomllib.loads(text), {}
    reader = SimpleNamespace(
        loads=lambda read: made if read == text else tomllib.loads(read), TOMLDecodeError=tomllib.TOMLDecodeError
    )
    for module in (register_profile, can_profile_file):
        monkeypatch.setattr(module, "tomllib", reader)
    lint = (lint_profile_can if kind == "foxbms" else lint_profile_registers).lint
    ways, refused = list(places(table)), 0
    for seed in range(ROUNDS[kind]):
        made.clear()
        made.update(damaged(table, ways, random.Random(seed)))
        try:
            lint(str(path))
        except RackBmsError as error:
            refused += 1
            assert "\n" not in str(error), seed
        except Exception as error:
            pytest.fail(f"seed {seed}: {error!r}")
    assert refused or kind == "foxbms"
