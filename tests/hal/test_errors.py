"""The errors that a user can mend, and the hint to the nearest name."""

import pytest

from hal.errors import ConfigError, DataError, LinkError, RackBmsError, nearest, noting


@pytest.mark.parametrize("kind", [ConfigError, DataError, LinkError])
def test_every_error_that_a_user_can_mend_has_one_base(kind: type[RackBmsError]) -> None:
    with pytest.raises(RackBmsError, match=r"^x\.toml: unknown key$"):
        raise kind("x.toml: unknown key")


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("lfp_820", ["lfp_280", "na_185"], " (did you mean 'lfp_280'?)"),
        ("lfp_820", iter(["lfp_280", "na_185"]), " (did you mean 'lfp_280'?)"),
        ("zzz", ["b", "a"], " (known: a, b)"),
        ("zzz", [], ""),
    ],
)
def test_a_misspelt_word_gets_a_hint(word: str, known: list[str], hint: str) -> None:
    assert nearest(word, known) == hint


def test_mistakes_are_raised_or_collected() -> None:
    with pytest.raises(ConfigError), noting(None):
        raise ConfigError("one")
    flaws: list[ConfigError] = []
    with noting(flaws):
        raise ConfigError("two")
    assert [str(flaw) for flaw in flaws] == ["two"]
    with pytest.raises(LinkError), noting(flaws):
        raise LinkError("not for the person who wrote the file")
