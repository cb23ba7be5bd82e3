"""The distribution: what is in the wheel, and that it works where there is nothing else of ours."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

PACKAGES = ("bms", "hal", "sim")

USE = """
import sys
import bms.cells, bms.runtime.scenario, hal, sim.cell, sim.reactions

for package in (bms, hal, sim):
    assert package.__file__.startswith(sys.argv[1]), package.__file__
for name in bms.cells.names():
    assert bms.cells.load(name).name == name
for name in bms.runtime.scenario.names():
    assert bms.runtime.scenario.load(name).rack
for name in sim.cell.names():
    sim.cell.load(name)
for name in sim.reactions.names():
    sim.reactions.load(name)
print(len(bms.cells.names()), len(bms.runtime.scenario.names()), len(sim.cell.names()), len(sim.reactions.names()))
"""


def call(*words: str | Path, cwd: Path) -> str:
    """Run a command outside the repository, without anything of ours on the path, and return what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(w) for w in words], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the distribution is built from: building leaves files behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pytest.importorskip("setuptools", "77", reason="the wheel is built with setuptools 77 or newer")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    call(sys.executable, "-c", build, cwd=source)
    (built,) = folder.glob("*.whl")
    return built


def empty_environment(folder: Path) -> Path:
    """A virtual environment with our dependencies but nothing of ours; returns its interpreter.

    The dependencies are lent by a path file: their own path files, that of an editable rackbms among them, are not
    followed from there.
    """
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (site,) = (folder / "lib").glob("python*/site-packages") if os.name != "nt" else [folder / "Lib" / "site-packages"]
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "lent.pth").write_text("".join(f"{path}\n" for path in sorted(lent)))
    found = "import importlib.util as u; print([u.find_spec(n) for n in ('bms', 'hal', 'sim')])"
    if call(python, "-c", found, cwd=folder) != "[None, None, None]\n":
        pytest.skip("rackbms itself lies in the folder of its dependencies: install it with pip install -e")
    return python


def install(python: Path, *words: str | Path) -> None:
    pytest.importorskip("pip")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    call(sys.executable, "-m", "pip", "--python", python, "install", *options, *words, cwd=python.parent)


def data_files(source: Path) -> list[str]:
    """How many cell files, scenarios and cells of the twin there are, as `USE` prints it."""
    counts = [
        len(list((source / f).glob("*.toml")))
        for f in ("bms/cells", "bms/trial/scenarios", "sim/cells", "sim/cells/reactions")
    ]
    assert min(counts) > 0
    return [str(count) for count in counts]


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(source: Path, wheel: Path) -> None:
    expected = {
        path.relative_to(source).as_posix()
        for name in PACKAGES
        for path in (source / name).rglob("*")
        if path.is_file()
    }  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert {name for name in held if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)
    assert any(name.startswith("bms/cells/") and name.endswith(".toml") for name in held)
    assert {f"{name}/py.typed" for name in PACKAGES} <= held


def test_the_wheel_works_in_an_empty_environment(source: Path, wheel: Path, tmp_path: Path) -> None:
    python = empty_environment(tmp_path / "venv")
    install(python, wheel)
    assert call(python, "-c", USE, tmp_path / "venv", cwd=tmp_path).split() == data_files(source)
    command = python.with_name("bms")
    assert "examples:" in call(command, "--help", cwd=tmp_path)
    assert call(command, "--version", cwd=tmp_path).startswith("rackbms ")


def test_an_editable_installation_works(source: Path, tmp_path: Path) -> None:
    python = empty_environment(tmp_path / "venv")
    install(python, "-e", source)
    assert call(python, "-c", USE, source, cwd=tmp_path).split() == data_files(source)
    assert "examples:" in call(python.with_name("bms"), "--help", cwd=tmp_path)


def test_what_the_project_says_of_itself(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["requires-python"]) == ("rackbms", ">=3.11,<3.15")
    for minor in range(11, 15):
        assert f"Programming Language :: Python :: 3.{minor}" in project["classifiers"]
    heavy = {"scipy", "matplotlib", "pyarrow", "pytest"}
    assert not [d for d in project["dependencies"] if d.startswith(tuple(heavy))], "these belong to an extra"
    assert "Apache License" in (repository / "LICENSE").read_text()[:200]
    assert "## [Unreleased]" in (repository / "CHANGELOG.md").read_text()
