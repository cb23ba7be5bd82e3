"""From tables to settings and back: nothing unknown, nothing of the wrong type."""

import tomllib
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.racks import tables
from hal.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    share: float = 0.5
    count: int = 3
    on: bool = True
    kind: str = "passive"
    most: float | None = None
    line: tuple[tuple[float, float], ...] | None = None
    pair: tuple[int, int] = (1, 2)

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"share = {self.share}: must be at most 1")


def test_values_become_what_the_fields_say() -> None:
    made = tables.settings(Settings, {"share": 1, "most": 4, "line": [[0, 1], [10, 0.5]]}, "part", "file")
    assert made == Settings(1.0, most=4.0, line=((0.0, 1.0), (10.0, 0.5)))
    assert type(made.share) is float
    assert type(made.most) is float


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shar": 1}, "file: part.shar = 1: unknown key (did you mean 'share'?)"),
        ({"share": "1"}, 'file: part.share = "1": expected a number'),
        ({"share": True}, "file: part.share = true: expected a number"),
        ({"share": float("nan")}, "file: part.share = nan: expected a number"),
        ({"share": 2.0}, "file: part.share = 2.0: must be at most 1"),
        ({"count": 1.5}, "file: part.count = 1.5: expected a whole number"),
        ({"on": 1}, "file: part.on = 1: expected true or false"),
        ({"kind": 1}, "file: part.kind = 1: expected text in quotes"),
        ({"line": 1}, "file: part.line = 1: expected a list in [ ]"),
        ({"line": [[0]]}, "file: part.line[0] = [0]: expected a list of 2"),
        ({"line": [[0, "a"]]}, 'file: part.line[0][1] = "a": expected a number'),
        ({"pair": [1, 2, 3]}, "file: part.pair = [1, 2, 3]: expected a list of 2"),
        ([], "file: part = []: expected a table, [part]"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_value(content: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tables.settings(Settings, content, "part", "file")
    assert str(caught.value) == message


def test_merging_replaces_keys_and_whole_lists() -> None:
    below = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert tables.merged(below, {"a": {"y": [3]}, "c": {"z": 1}}) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": {"z": 1}}
    assert below == {"a": {"x": 1, "y": [1, 2]}, "b": 1}


def test_plain_leaves_out_what_is_none() -> None:
    assert tables.plain(Settings(line=((0.0, 1.0),))) == {
        "share": 0.5, "count": 3, "on": True, "kind": "passive", "line": [[0.0, 1.0]], "pair": [1, 2],
    }  # fmt: skip


SCALARS = (
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)  # fmt: skip
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)
VALUES = SCALARS | st.lists(SCALARS, max_size=3)
TREES = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=3), lambda inner: st.dictionaries(KEYS, VALUES | inner, max_size=3)
)


@given(TREES)
def test_text_is_toml_that_says_the_same(tree: dict[str, Any]) -> None:
    assert tomllib.loads(tables.text(tree)) == tree


def test_values_are_shown_as_toml_writes_them() -> None:
    assert tables.shown([True, 1.5, 'say "x"\n', {"a": 1}]) == '[true, 1.5, "say \\"x\\"\\U0000000a", {a = 1}]'
