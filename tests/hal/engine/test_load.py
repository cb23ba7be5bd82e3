"""Loading: objects and libraries, and one clear line for a library that is none of ours."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hal.engine import Library, Program, load
from hal.engine.compile import Target
from hal.engine.load import Table, from_object, table_symbol
from hal.errors import ConfigError

Make = Callable[..., Program]
Said = Callable[[Program], list[Any]]


@pytest.fixture
def link(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Make a shared library of an object."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) is installed")

    def linked(name: str, code: bytes) -> Path:
        (tmp_path / f"{name}.o").write_bytes(code)
        library = tmp_path / f"{name}.so"
        subprocess.run([compiler, "-shared", "-o", library, tmp_path / f"{name}.o"], check=True)
        return library

    return linked


def test_the_same_bits_from_object_and_library(
    small: Make, said: Said, expected: list[Any], link: Callable[[str, bytes], Path], folder: Path
) -> None:
    library = link("small", small().compile())
    program = small()
    program.use(Library(library))
    assert said(program) == expected
    assert not folder.exists(), "a library needs no cache"
    program.use(None)
    assert said(program) == expected
    assert folder.exists()


def test_a_library_of_other_sources_is_refused(
    small: Make, link: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = link("small", small().compile())
    program = small()
    program.table = Table("small", "another digest", program.table.entries)
    with pytest.raises(ConfigError, match=r"small\.so: was built from other sources of 'small'.*bms build") as error:
        program.use(Library(library))
    assert "\n" not in str(error.value)
    program = small()
    program.entries.pop("fill")
    with pytest.raises(ConfigError, match="other sources"):
        program.use(Library(library))


def test_a_library_without_the_program_is_refused(small: Make, link: Callable[[str, bytes], Path]) -> None:
    library = link("other", small("other").compile())
    with pytest.raises(ConfigError, match=r"other\.so: holds no program 'small': build it again"):
        small().use(Library(library))


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.so: there is no such library: make it with bms build"):
        Library(tmp_path / "nothing.so")
    (tmp_path / "text.so").write_text("not a library")
    with pytest.raises(ConfigError, match=r"text\.so: not a library of this computer's kind"):
        Library(tmp_path / "text.so")


def test_the_table_lies_inside_the_code(small: Make) -> None:
    import ctypes

    program = small()
    address = from_object(program.compile())
    found = Table.from_bytes(ctypes.string_at(address(table_symbol("rackbms_small"))))
    assert found == program.table
    assert found.entries["total"] == "f8(f8[:,::1])"


def test_a_library_for_another_processor_is_refused(
    small: Make, link: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = small().compile(Target("x86_64-unknown-linux-gnu", "x86-64-v3", "+avx2,-avx512f,+bmi,+sse2"))
    library = Library(link("small", code))
    assert (found := library.table("rackbms_small")) is not None
    assert found.needs == ("avx2", "bmi1")
    assert found == small().table, "what it needs does not make it another program"
    monkeypatch.setattr(load, "abilities", lambda: {"sse2", "bmi1"})
    with pytest.raises(
        ConfigError, match=r"was built for a processor with avx2, which this one has not: build it again"
    ):
        small().use(library)
    for able in ({"sse2", "bmi1", "avx2"}, set()):  # nothing: it cannot be told
        monkeypatch.setattr(load, "abilities", lambda able=able: able)
        small().use(library)


def test_what_is_built_here_runs_here(small: Make, link: Callable[[str, bytes], Path]) -> None:
    assert set(Target.host().needs()) <= load.abilities() or not load.abilities()
    library = Library(link("small", small().compile()))
    small().use(library)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"7", b'{"program": "x"}'])
def test_something_else_is_no_table(text: bytes) -> None:
    with pytest.raises(ValueError):
        Table.from_bytes(text)
