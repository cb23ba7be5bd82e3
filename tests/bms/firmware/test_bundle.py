"""`bms bundle`: what a build becomes, the same each time, and what is wrong with what is given."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("tuf", reason="pip install 'rackbms[firmware]'")

from bms.cli import main
from bms.firmware.baked import baked
from bms.firmware.bundle import configuration_files, machine
from hal.errors import ConfigError
from hal.flash.bundle import unpack

UNTIL = "2040-01-01T00:00Z"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = tmp_path_factory.mktemp("keys") / "fleet.pem"
    assert main(["keygen", str(name)]) == 0
    return name


def make(built: Path, key: Path, repo: Path, *more: str, version: str = "1.2.3") -> int:
    words = ["bundle", "make", str(built), "--config", "lfp_280", "--rack", "sim:lfp_280", "--board", "rackpc"]
    words += ["--version", version, "--security-counter", "4", "--key", str(key), "--repo", str(repo)]
    return main([*words, *more])


def archive(repo: Path, version: str = "1.2.3") -> Path:
    (found,) = (repo / "targets").glob(f"*.rackbms-rackpc-{version}.tar")
    return found


def test_a_build_becomes_a_bundle_the_same_each_time(built: Path, key: Path, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        repo = tmp_path / name
        assert make(built, key, repo, "--expires", UNTIL, "--root-expires", UNTIL) == 0
        made.append({path.relative_to(repo): path.read_bytes() for path in repo.rglob("*") if path.is_file()})
    assert made[0] == made[1]
    manifest, files = unpack(archive(tmp_path / "one").read_bytes())
    assert set(files) == {"librackbms.so", "rack.toml", "config.bin", "rackbms.service", "sbom.cdx.json"}
    assert files["librackbms.so"] == (built / "librackbms.so").read_bytes()
    assert manifest.configuration == baked("lfp_280", None).digest
    assert (manifest.board, str(manifest.version), manifest.counter) == ("rackpc", "1.2.3", 4)
    assert manifest.run[:3] == ("run", "--rack", "sim:lfp_280")
    listed = {c["name"]: c.get("hashes") for c in json.loads(files["sbom.cdx.json"])["components"]}
    assert listed["librackbms.so"][0]["content"] == manifest.files["librackbms.so"].sha256


def test_what_a_bundle_says_of_itself(
    built: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(built, key, tmp_path, "--run", "--period 0.5")
    path = archive(tmp_path)
    capsys.readouterr()
    assert main(["bundle", "info", str(path)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["version"] == "1.2.3"
    assert lines["board"] == "rackpc"
    assert lines["runs"].endswith("--period 0.5")
    data = path.read_bytes()
    path.write_bytes(data[:3000])
    assert main(["bundle", "info", str(path)]) == 2
    assert "no bundle" in capsys.readouterr().err


def test_renewing_and_rotating(built: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new.pem"
    assert main(["keygen", str(new)]) == 0
    repo = tmp_path / "repo"
    make(built, key, repo)
    capsys.readouterr()
    common = ["--repo", str(repo), "--expires", "30d"]
    assert main(["bundle", "renew", "--key", str(key), *common]) == 0
    until = datetime.now(UTC) + timedelta(days=30)
    assert f"good until {until:%Y-%m-%d}" in capsys.readouterr().out
    assert main(["bundle", "rotate", "--key", str(new), "--root-key", str(key), *common]) == 0
    assert "root 2, good until" in capsys.readouterr().out
    assert main(["bundle", "renew", "--key", str(key), *common]) == 2
    assert main(["bundle", "renew", "--key", str(new), *common]) == 0


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--expires", "soon"], "'soon': expected a time such as 90d, or 2027-01-31T00:00Z"),
        (["--expires", "2027-13-01"], "expected a time such as 90d"),
        (["--board", "Rack PC"], "expected up to 16 of a-z"),
        (["--config", "none"], "unknown rack 'none'"),
        (["--run=--fast"], "--run: unrecognized arguments: --fast"),
        (["--key", "none.pem"], "none.pem: cannot be read"),
    ],
)
def test_a_mistake_is_one_line(
    built: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
) -> None:
    try:
        code = make(built, key, tmp_path / "repo", *more)
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1
    assert not (tmp_path / "repo").exists()


def test_a_library_that_is_missing_or_of_other_sources(
    built: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tmp_path, key, tmp_path / "repo") == 2
    assert "librackbms.so: cannot be read: No such file or directory; make it with bms build" in capsys.readouterr().err
    (tmp_path / "librackbms.so").write_bytes((built / "libracktwin.so").read_bytes())
    assert make(tmp_path, key, tmp_path / "repo") == 2
    assert "was built from other sources than these" in capsys.readouterr().err


def test_a_version_is_given_once(built: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(built, key, tmp_path) == 0
    assert make(built, key, tmp_path) == 0, "the same again"
    assert make(built, key, tmp_path, "--run", "--period 0.5") == 2
    assert "give it a new --version" in capsys.readouterr().err


def test_a_cell_file_comes_along(tmp_path: Path) -> None:
    from bms import cells, racks

    (tmp_path / "cells").mkdir()
    source = Path(cells.__file__).parent / "lfp_280.toml"
    (tmp_path / "cells" / "mine.toml").write_bytes(source.read_bytes())
    text = racks.read("lfp_280")[0].decode().replace('cell = "lfp_280"', 'cell = "cells/mine.toml"')
    (tmp_path / "rack.toml").write_text(text)
    files = configuration_files(str(tmp_path / "rack.toml"), None)
    target = tmp_path / "slot"
    target.mkdir()
    for name, data in files.items():
        (target / name).write_bytes(data)
    assert baked(str(target / "rack.toml"), None).record.bytes.tobytes() == files["config.bin"]
    assert set(files) == {"rack.toml", "cell.toml", "config.bin"}


def test_a_bundle_for_another_processor(image: Path, key: Path, tmp_path: Path) -> None:
    if not (image / "librackbms.so").exists():
        pytest.skip("aarch64-linux-gnu-gcc is not installed: .ci/toolchain")
    assert make(image, key, tmp_path) == 0
    assert unpack(archive(tmp_path).read_bytes())[0].machine == "aarch64"


def test_the_processor_of_a_library() -> None:
    elf = b"\x7fELF" + bytes(14)
    assert machine(elf + b"\x3e\0", Path("x")) == "x86_64"
    assert machine(elf + b"\xb7\0", Path("x")) == "aarch64"
    for other in (elf + b"\x28\0", b"MZ", b""):
        with pytest.raises(ConfigError, match="x: no library of a Linux controller"):
            machine(other, Path("x"))
