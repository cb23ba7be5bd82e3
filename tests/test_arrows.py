"""Who may import whom: the rules hold, and a seeded violation of each is found and named."""

import ast
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

PACKAGES = ("bms", "hal", "sim")

VIOLATIONS = [
    ("packages", "hal/contract.py", "import bms.cells", "hal is not allowed to import bms"),
    ("packages", "sim/cell.py", "from hal import errors", "sim is not allowed to import hal"),
    ("packages", "sim/cell.py", "def f():\n    import bms.lab.trace", "sim is not allowed to import bms"),
    ("twin", "bms/runtime/__init__.py", "import sim", "bms.runtime -> sim"),
    ("twin", "bms/lab/trace.py", "def f():\n    from sim.cell import x", "bms.lab.trace -> sim.cell"),
    ("twin", "hal/registry.py", "import sim", "hal.registry -> sim"),
    ("rooms", "bms/core/jit.py", "from bms import cells", "bms.core is not allowed to import bms.cells"),
    ("rooms", "bms/cells/__init__.py", "import bms.lab.trace", "bms.cells is not allowed to import bms.lab"),
    ("rooms", "bms/lounge.py", "", "bms.lounge"),
    ("hal", "hal/contract.py", "import hal.registry", "hal.contract is not allowed to import hal.registry"),
    ("hal", "hal/engine/load.py", "import hal.codec.recording", "hal.engine is not allowed to import hal.codec"),
    ("hal", "hal/codec/modbus.py", "import hal.serve.registers", "hal.codec is not allowed to import hal.serve"),
    ("core", "bms/core/jit.py", "from hal.errors import nearest", "bms.core is not allowed to import hal.errors"),
    ("core", "bms/core/jit.py", "import time", "bms.core is not allowed to import time"),
    ("core", "bms/core/mathf.py", "from hal.engine import cache", "bms.core is not allowed to import hal.engine"),
    ("core", "bms/core/jit.py", "def f():\n    import scipy.linalg", "bms.core is not allowed to import scipy"),
]
"""(contract, file, what is appended to it, what the complaint must say)."""


def tool(name: str) -> str:
    """Path of a command that is installed beside this interpreter."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install 'rackbms[test]'")
    return found


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy of the sources that may be spoilt."""
    for name in PACKAGES:
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.toml"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("lint-imports"), "--no-cache", *options], cwd=folder, capture_output=True, text=True, check=False
    )


def ruff(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("ruff"), "check", "--no-cache", *options, *PACKAGES],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def contracts(repository: Path) -> dict[str, str]:
    """{id: name} of every contract."""
    table = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {contract["id"]: contract["name"] for contract in table}


def test_the_arrows_are_kept(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(contracts(copy))} kept, 0 broken" in done.stdout


@pytest.mark.parametrize(("contract", "file", "code", "complaint"), VIOLATIONS)
def test_a_seeded_violation_is_found(copy: Path, contract: str, file: str, code: str, complaint: str) -> None:
    with open(copy / file, "a") as source:
        source.write(f"\n\n{code}\n")
    done = lint_imports(copy, "--contract", contract)
    said = " ".join(done.stdout.split())  # whole again where the terminal would break the line
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contracts(copy)[contract]} BROKEN" in said
    assert complaint in said


def test_every_contract_has_a_seeded_violation(repository: Path) -> None:
    assert {violation[0] for violation in VIOLATIONS} == set(contracts(repository))


def test_only_the_gates_import_numba(copy: Path) -> None:
    assert ruff(copy, "--select", "TID251").returncode == 0
    for gate in ("hal/engine/kernel.py", "sim/jit.py"):
        assert "import numba" in (copy / gate).read_text()


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("bms/core/__init__.py", "import numba"),
        ("bms/lab/trace.py", "from numba import njit"),
        ("hal/codec/jit.py", "import numba"),
        ("hal/contract.py", "def f():\n    import numba.core.types"),
        ("sim/__init__.py", "import llvmlite.binding"),
    ],
)
def test_numba_elsewhere_is_found(copy: Path, file: str, code: str) -> None:
    with open(copy / file, "a") as source:
        source.write(f"\n\n{code}\n")
    done = ruff(copy, "--select", "TID251", "--output-format", "concise")
    assert done.returncode == 1, done.stdout + done.stderr
    assert file in done.stdout
    assert "TID251" in done.stdout
    assert "one gate decorates every kernel" in done.stdout


CORE_MAY_IMPORT = (
    "__future__",
    "collections.abc",
    "dataclasses",
    "itertools",
    "enum",
    "hal.contract",
    "math",
    "numpy",
    "typing",
    "bms.core",
)


def test_the_core_imports_what_is_listed_and_nothing_else(repository: Path) -> None:
    """The contract of the core names what is forbidden; this names what is allowed, for what nobody thought of."""
    for path in sorted((repository / "bms" / "core").glob("*.py")):
        gate = ("pathlib", "hal", "hal.engine", "hal.engine.intrinsics") if path.name == "jit.py" else ()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
                imported = [node.module or ""]
            else:
                continue
            for name in imported:
                allowed = name in gate or any(
                    name == known or name.startswith(f"{known}.") for known in CORE_MAY_IMPORT
                )
                assert allowed, f"{path.name}:{node.lineno}: {name}"
