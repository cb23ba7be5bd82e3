"""The `bms` command: quick help, clear errors, exit codes."""

import argparse
import os
import subprocess
import sys
import types
from collections.abc import Callable
from importlib import import_module

import pytest

from bms import cli
from hal.errors import ConfigError, DataError, LinkError

HEAVY = ("numpy", "numba", "llvmlite", "scipy", "matplotlib", "rich", "can", "pymodbus", "serial", "pyarrow")


def bms(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bms", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[argparse.Namespace]]:
    """Adds the sub-command `probe`, whose `run` returns or raises what it is given; gives back the parsed arguments."""

    def add(outcome: int | BaseException) -> list[argparse.Namespace]:
        seen: list[argparse.Namespace] = []

        def add_arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("trace")
            parser.add_argument("--initial-soc", type=float, default=0.5)

        def run(args: argparse.Namespace) -> int:
            seen.append(args)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        module = types.ModuleType("probe_module")
        module.add_arguments = add_arguments  # type: ignore[attr-defined]
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "probe_module", module)
        monkeypatch.setitem(cli.COMMANDS, "probe", ("probe_module", "probe the dispatcher"))
        return seen

    return add


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bms.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"sys.exit(' '.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 0)


def test_help_names_every_command_with_examples() -> None:
    done = bms("--help")
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    for name, (_, summary) in cli.COMMANDS.items():
        assert f"{name} {summary}" in words
    assert "bms run --duration" in words


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: bms {name}" in capsys.readouterr().out
    assert callable(import_module(cli.COMMANDS[name][0]).run)


def test_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"rackbms {version('rackbms')}\n"


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "examples:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["rnu"], "unknown command 'rnu' (did you mean 'run'?); see bms --help"),
        (["estimat", "x.csv"], "unknown command 'estimat' (did you mean 'estimate'?); see bms --help"),
        (["--verison"], "unknown option '--verison' (did you mean '--version'?); see bms --help"),
        (["probe", "a", "--inital-soc=1"], "unknown option '--inital-soc=1' (did you mean '--initial-soc'?); see bms probe --help"),
        (["trial", "run", "--paks=a"], "unknown option '--paks=a' (did you mean '--pack'?); see bms trial run --help"),
        (["trial", "run", "--only", "a"], "unknown option '--only' (did you mean '--config'?); see bms trial run --help"),
        (["probe", "a", "--init", "1"], "unknown option '--init' (did you mean '--initial-soc'?); see bms probe --help"),
        (["probe", "a", "b"], "unexpected argument 'b'; see bms probe --help"),
        (["probe"], "the following arguments are required: trace; see bms probe --help"),
        (["probe", "a", "--initial-soc", "x"], "argument --initial-soc: invalid float value: 'x'; see bms probe --help"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(
    words: list[str], line: str, command: Callable[..., list[argparse.Namespace]], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = command(0)
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert capsys.readouterr() == ("", f"bms: error: {line}\n")
    assert not ran


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_gives_its_exit_code(code: int, command: Callable[..., list[argparse.Namespace]]) -> None:
    ran = command(code)
    assert cli.main(["probe", "a.csv", "--initial-soc", "-0.25"]) == code
    assert (ran[0].trace, ran[0].initial_soc) == ("a.csv", -0.25)


@pytest.mark.parametrize("kind", [ConfigError, DataError, LinkError])
def test_an_error_that_a_user_can_mend_is_one_line(
    kind: type[Exception], command: Callable[..., list[argparse.Namespace]], capsys: pytest.CaptureFixture[str]
) -> None:
    command(kind("x.toml: unknown key\n  'n_serie'"))
    assert cli.main(["probe", "a.csv"]) == 2
    assert capsys.readouterr() == ("", "bms: error: x.toml: unknown key 'n_serie'\n")


@pytest.mark.parametrize(
    ("module", "extra"), [("scipy.optimize", "lab"), ("matplotlib", "report"), ("pyarrow", "parquet")]
)
def test_a_missing_extra_names_its_pip_line(
    module: str, extra: str, command: Callable[..., list[argparse.Namespace]], capsys: pytest.CaptureFixture[str]
) -> None:
    command(ModuleNotFoundError("no", name=module))
    assert cli.main(["probe", "a.csv"]) == 2
    assert f"pip install 'rackbms[{extra}]'" in capsys.readouterr().err


def test_a_bug_is_not_hidden(command: Callable[..., list[argparse.Namespace]]) -> None:
    command(ModuleNotFoundError("no", name="bms.core.absent"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["probe", "a.csv"])
    command(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["probe", "a.csv"])


def test_interrupted_as_a_shell_reports_it(command: Callable[..., list[argparse.Namespace]]) -> None:
    command(KeyboardInterrupt())
    assert cli.main(["probe", "a.csv"]) == 130


def test_a_reader_that_goes_away_is_no_error() -> None:
    # unbuffered output fails earlier, inside argparse, which passes over it
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-m", "bms", "--help"]
    with subprocess.Popen(words, env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before the interpreter has even started
        assert process.stderr.read() == ""
    assert process.returncode == 141
