"""Programs: compiled once, found again, taken from a library, and honest about what they hold."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.engine import Program, cache, kernel, prepare
from hal.engine import program as programs
from hal.engine.load import Native
from hal.errors import ConfigError

Make = Callable[..., Program]
Said = Callable[[Program], list[Any]]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the programs that were compiled in this process."""
    names: list[str] = []
    original = Program.compile

    def counting(self: Program, target: Any = None) -> bytes:
        names.append(self.name)
        return original(self, target)

    monkeypatch.setattr(Program, "compile", counting)
    return names


def test_it_is_compiled_once_and_found_again(
    small: Make, said: Said, expected: list[Any], compiled: list[str], folder: Path
) -> None:
    assert not small().ready()
    assert said(small()) == expected
    assert compiled == ["small"]
    again = small()
    assert again.ready()
    assert said(again) == expected
    assert compiled == ["small"]
    assert [path.suffix for path in folder.iterdir()] == [".bin"]


def test_the_numbers_are_those_of_plain_python(
    small: Make, said: Said, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Program) -> None:
        raise AssertionError("plain Python needs no program")

    monkeypatch.setattr(kernel, "PLAIN", True)
    monkeypatch.setattr(Program, "load", refuse)
    assert said(small()) == expected


@pytest.mark.parametrize("change", ["source", "processor", "compiler", "signature"])
def test_the_key_follows_all_that_the_code_depends_on(
    small: Make, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small().key()
    assert small().key() == before
    program = small()
    if change == "source":
        source = tmp_path / "kernels.py"
        source.write_text("a")
        program.sources = (source,)
        before = program.key()
        del program.table
        source.write_text("b")
    elif change == "processor":
        monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
    elif change == "compiler":
        monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    else:
        program.entries["total"].signature = "f8(f4[:,::1])"
    assert program.key() != before


def test_the_digest_in_the_table_follows_the_sources_and_what_they_mean(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small().table.digest
    assert small().table.digest == before
    program = small()
    program.sources = (*program.sources, Path(cache.__file__))
    assert program.table.digest != before
    for name in ("compile.py", "intrinsics.py", "signature.py"):
        (tmp_path / name).write_text("another")
    monkeypatch.setattr(programs, "__file__", str(tmp_path / "program.py"))
    assert small().table.digest != before


def test_an_entry_that_belongs_to_no_program_is_compiled_by_itself(small: Make, folder: Path) -> None:
    program = small()

    @program.kernel("f8(f8[::1])")
    def first(values: Any) -> Any:
        return values[0] * 2.0

    assert first(np.array([3.0])) == 6.0
    assert isinstance(first.implementation, Native)
    assert "first" not in program.entries
    assert not folder.exists()


def test_a_name_stands_for_one_entry(small: Make) -> None:
    program = small()
    twin = program.kernel("void()")(lambda: None)
    twin.__name__, twin.py_func.__module__ = "total", "hal.engine"
    with pytest.raises(ValueError, match="program 'small' has two entries total"):
        program.entries  # noqa: B018


def test_a_wrong_signature_is_refused_where_it_stands(small: Make) -> None:
    with pytest.raises(ValueError, match="'f4\\[:\\]' is neither a scalar"):
        small().kernel("i4(f4[:])")


def test_several_programs_are_prepared_side_by_side(
    small: Make, said: Said, expected: list[Any], compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    apart: list[str] = []

    def started(program: Program) -> None:
        apart.append(program.name)  # no process can be started: it is compiled here, later

    monkeypatch.setattr(programs, "_compile_apart", started)
    lines: list[str] = []
    three = [small(name) for name in ("a", "b", "c")]
    prepare(three, lines.append)
    assert (compiled, apart) == (["a", "b", "c"], ["b", "c"])
    assert [line.partition(";")[0] for line in lines] == [f"compiling three sums ({k} of 3)" for k in (1, 2, 3)]
    assert all(said(program) == expected for program in three)
    prepare([small("b")], lines.append)
    assert len(lines) == 3, "what is there needs no word"
    assert all(line.endswith("; the result is kept for the next run") for line in lines)


def test_nothing_is_compiled_apart_where_nothing_can_be_kept(
    small: Make, said: Said, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(program: Program) -> None:
        raise AssertionError("its work would be lost")

    monkeypatch.setattr(programs, "_compile_apart", started)
    monkeypatch.setattr(cache, "folders", list)
    lines: list[str] = []
    two = [small("a"), small("b")]
    prepare(two, lines.append)
    assert lines == ["compiling three sums (1 of 2)", "compiling three sums (2 of 2)"]
    assert [said(program) for program in two] == [expected, expected]


def test_a_process_that_compiles_is_not_left_behind(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    children = []

    def started(program: Program) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return children[-1]

    def interrupted(self: Program) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(programs, "_compile_apart", started)
    monkeypatch.setattr(Program, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare([small("a"), small("b")])
    assert [child.returncode for child in children] == [-9]


def test_plain_python_prepares_nothing(small: Make, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(kernel, "PLAIN", True)
    prepare([small()])
    assert not folder.exists()


def test_another_process_compiles_into_the_same_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: list[str]
) -> None:
    (tmp_path / "gate.py").write_text(
        "from pathlib import Path\nfrom hal.engine import Program\n"
        "P = Program('apart', place='gate:P', about='', modules=('kernels',), sources=(Path(__file__).parent,))\n"
    )
    (tmp_path / "kernels.py").write_text("import gate\n@gate.P.kernel('f8(f8)')\ndef twice(x):\n    return 2.0 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    import gate  # type: ignore[import-not-found]

    child = programs._compile_apart(gate.P)
    assert child is not None
    assert child.wait() == 0
    assert gate.P.ready()
    assert gate.P.entries["twice"](21.0) == 42.0
    assert compiled == []


def test_no_compiler_is_imported_where_nothing_is_compiled(small: Make, said: Said) -> None:
    said(small())
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import conftest as c\n"
        "print(c.answers(c.make_program())[0], [m for m in ('numba', 'hal.engine.compile') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "37 []"


@pytest.mark.parametrize("missing", ["hal.engine.compile", "llvmlite.binding"])
def test_without_a_compiler_the_remedy_is_told(small: Make, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # importing it raises ModuleNotFoundError
    with pytest.raises(ConfigError, match=r"program 'small' has to be compiled, .* --engine lib:PATH"):
        small().load()


def test_the_cache_is_no_condition(
    small: Make, said: Said, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "folders", list)
    assert said(small()) == expected


def test_wrong_arguments_are_named(small: Make) -> None:
    entries = small().entries
    with pytest.raises(TypeError, match=r"fill: argument 1 is an array of f8 .* expected i8\[::1\]"):
        entries["fill"](np.zeros(3), True, 1)
    with pytest.raises(TypeError, match="fill: 1 scalars, expected 2"):
        entries["fill"](np.zeros(3, np.int64), True)
    with pytest.raises(TypeError):
        entries["fill"](np.zeros(3, np.int64), True, 0.5)
    with pytest.raises(TypeError, match="total: 0 arrays, expected 1"):
        entries["total"].bind()


def test_a_bound_entry_takes_scalars_and_keeps_its_arrays(small: Make) -> None:
    entry = small().entries["fill"]
    array = np.zeros(2, np.int64)
    bound = entry.bind(array)
    assert bound.arrays[0] is array
    bound(False, 5)
    assert array.tolist() == [-5, -5]
