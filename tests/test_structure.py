"""The house keeps its order: tests mirror sources, files stay small, and what the texts promise exists."""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from bms import cli

PACKAGES = ("bms", "hal", "sim")
MAX_LINES = 600

TESTED_ELSEWHERE: dict[str, str] = {
    "bms/__main__.py": "tests/test_cli.py",  # starts it as a process
    "bms/cli.py": "tests/test_cli.py",
    "bms/core/power_cells.py": "tests/bms/core/test_power.py",  # the loops over cells of what is tested there
    "sim/link.py": "tests/sim/test_kernels_zero_volt.py",  # and wherever a whole rack draws a current
    "bms/rig/checks_values.py": "tests/bms/rig/test_checks.py",  # tried all together, so that one cause is told once
    "bms/rig/checks_current.py": "tests/bms/rig/test_checks.py",
    **{
        f"bms/rig/acceptance/{name}.py": "tests/bms/rig/test_acceptance.py"  # plays them on racks, good and bad
        for name in ("conftest", *(f"test_{part}" for part in ("measurement", "connect", "reaction", "twin", "bus")))
    },
    "bms/firmware/flash_linux.py": "tests/bms/firmware/test_start.py",  # a start follows each flash
    "hal/flash/uds.py": "tests/bms/firmware/boot/test_node_flashing.py",  # before the C of the boot loader
    "hal/flash/smp.py": "tests/bms/firmware/boot/test_node_serial.py",
    "bms/core/seen.py": "tests/bms/core/test_signals.py",  # names of what the signals write
}
"""Modules whose tests lie elsewhere than at tests/<folder>/test_<module>*.py, and where."""

LEFT_BEHIND = {"__pycache__", ".hypothesis"}
"""Folders that tools leave behind: git does not know them either."""

UNWANTED = {
    "an unfinished place": re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + r"X)\b"),
    "a path of one machine": re.compile("/wo" + r"rk/|/ro" + r"ot/|/ho" + "me/[a-z]"),
    "how the work was organised": re.compile(r"(?i)\bpro" + r"mpt(s|ed)?\b|\bsub-?ag" + r"ents?\b|\bissue #?\d"),
}
"""What has no place in the sources and texts (spelt in parts, for this file is looked at too)."""


def files(repository: Path, *suffixes: str) -> Iterator[Path]:
    """Files of the source tree: sources, tests, texts; not what is built, installed or measured."""
    for name in (*PACKAGES, "tests", "bench", "docs", ".ci"):
        for path in sorted((repository / name).rglob("*")):
            if path.is_file() and LEFT_BEHIND.isdisjoint(path.parts) and (not suffixes or path.suffix in suffixes):
                yield path
    for path in sorted(repository.iterdir()):
        if path.is_file() and path.suffix in (suffixes or (".md", ".toml", ".yaml", "")) and path.name != ".git":
            yield path


def modules(repository: Path) -> Iterator[Path]:
    """Modules with code of their own, relative to the repository."""
    for name in PACKAGES:
        for path in sorted((repository / name).rglob("*.py")):
            if "\ndef " in path.read_text() or "\nclass " in path.read_text() or path.name != "__init__.py":
                yield path.relative_to(repository)


def test_every_module_has_its_tests(repository: Path) -> None:
    untested = []
    for module in modules(repository):
        if str(module) in TESTED_ELSEWHERE:
            continue
        name = module.parent.name if module.name == "__init__.py" else module.stem
        folder = repository / "tests" / (module.parent.parent if module.name == "__init__.py" else module.parent)
        if not list(folder.glob(f"test_{name}.py")) and not list(folder.glob(f"test_{name}_*.py")):
            untested.append(str(module))
    assert not untested, "add tests, or say in TESTED_ELSEWHERE where they are"


def test_tests_that_lie_elsewhere_exist(repository: Path) -> None:
    for module, where in TESTED_ELSEWHERE.items():
        assert (repository / module).is_file(), f"{module} is gone: take it off the table"
        name = Path(module).stem if Path(module).name != "__init__.py" else Path(module).parent.name
        assert name.strip("_") in (repository / where).read_text(), f"{where} never mentions {module}"


def test_files_stay_small(repository: Path) -> None:
    long = {str(p): n for p in files(repository, ".py") if (n := len(p.read_text().splitlines())) >= MAX_LINES}
    assert not long, f"a room does one thing: split what reaches {MAX_LINES} lines"


@pytest.mark.parametrize("what", list(UNWANTED))
def test_nothing_unwanted_is_left_in_the_texts(repository: Path, what: str) -> None:
    found = [
        f"{path.relative_to(repository)}:{number}: {line.strip()}"
        for path in files(repository, ".py", ".md", ".toml", ".yaml", ".dbc", "")
        if path.name != "LICENSE"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if UNWANTED[what].search(line)
    ]
    assert not found


# ----------------------------------------------------------------------------------------------------------- texts


def texts(repository: Path) -> list[Path]:
    return [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]


def commands(text: str) -> Iterator[str]:
    """Command lines in the code blocks of a text: continued lines joined, comments dropped."""
    for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if command := line.removeprefix("$ ").strip():
                yield command


def test_every_bms_command_in_the_texts_is_understood(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = set()
    for path in texts(repository):
        for command in commands(path.read_text()):
            words = shlex.split(command, comments=True)
            if words[:1] != ["bms"] or words[1:] in (["--help"], ["--version"]):
                continue
            assert words[1] in cli.COMMANDS, f"{path.name}: {command}"
            parser = cli.Parser(f"bms {words[1]}", "")
            import_module(cli.COMMANDS[words[1]][0]).add_arguments(parser)
            try:
                parser.parse_all(words[2:])
            except SystemExit:
                pytest.fail(f"{path.name}: {command}: {capsys.readouterr().err}")
            seen.add(words[1])
    assert seen == set(cli.COMMANDS), "the texts show every command at work"


def test_every_make_target_in_the_texts_exists(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test", "check", "bench", "fmt", "lint", "type"} <= targets
    for path in texts(repository):
        found = set(re.findall(r"(?:^|`|\n)make ([a-z]+)\b", path.read_text()))
        assert found <= targets, path.name
    assert re.findall(r"\nmake (\w+)", (repository / "README.md").read_text())[:2] == ["run", "test"]


def test_links_between_the_texts_lead_somewhere(repository: Path) -> None:
    linked = set()
    for path in texts(repository):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} -> {target}"
                linked.add((path.parent / target).resolve())
    assert set(texts(repository)) - linked <= {repository / "README.md"}, "a page that no page links to is not found"


def test_examples_of_the_help_are_understood() -> None:
    for line in cli.EXAMPLES.splitlines():
        if line.startswith("  bms "):
            words = shlex.split(re.split(r"\s{3,}", line.strip())[0])
            parser = cli.Parser(f"bms {words[1]}", "")
            import_module(cli.COMMANDS[words[1]][0]).add_arguments(parser)
            parser.parse_all(words[2:])
