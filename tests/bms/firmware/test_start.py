"""`bms start` and `bms flash --to linux:` (flash_linux.py): a bundle is made, flashed, started, confirms itself, and stays."""

from __future__ import annotations

import http.server
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("tuf", reason="pip install 'rackbms[firmware]'")

from bms.cli import main
from bms.firmware import start
from hal.flash.slots import held


@pytest.fixture(scope="module")
def shop(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys and a repository of two bundles."""
    folder = tmp_path_factory.mktemp("shop")
    assert main(["keygen", str(folder / "fleet.pem")]) == 0
    words = ["bundle", "make", str(built), "--config", "nmc_ev", "--rack", "sim:nmc_ev", "--board", "rackpc", "--key"]
    words += [str(folder / "fleet.pem"), "--repo", str(folder / "repo"), "--security-counter", "4"]
    for version in ("1.0.0", "1.1.0"):
        assert main([*words, "--run", "--duration 2min", "--version", version]) == 0
    return folder


@pytest.fixture
def opt(shop: Path, tmp_path: Path) -> Path:
    """A controller without a bundle."""
    found = tmp_path / "opt"
    words = ["--trust", str(shop / "repo" / "metadata" / "1.root.json"), "--board", "rackpc"]
    assert main(["flash", "--to", f"linux:{found}", *words]) == 0
    return found


@pytest.fixture(autouse=True)
def become(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the process was to become, in place of becoming it."""
    found: list[list[str]] = []

    def execv(path: str, words: list[str]) -> None:
        found.append(words)
        raise SystemExit(0)

    monkeypatch.setattr(start.os, "execv", execv)
    return found


def begin(opt: Path) -> None:
    with pytest.raises(SystemExit):
        main(["start", f"linux:{opt}"])


def flash(shop: Path, opt: Path, version: str, *more: str, repo: str | None = None) -> int:
    name = f"rackbms-rackpc-{version}.tar"
    return main(["flash", "--to", f"linux:{opt}", "--repo", repo or str(shop / "repo"), name, *more])


def test_a_bundle_confirms_itself_in_its_run(
    shop: Path, opt: Path, become: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert flash(shop, opt, "1.0.0") == 0
    assert "nothing runs yet; 1.0.0 in slot a waits for its trial at the next start" in capsys.readouterr().out
    begin(opt)
    assert f"linux:{opt}: rackbms-rackpc-1.0.0 from slot a, on trial\n" in capsys.readouterr().err
    assert become[0][:3] == [sys.executable, "-m", "bms"]
    assert become[0][-2:] == ["--confirm", f"linux:{opt}?slot=a"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(become[0], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "the bundle is confirmed\n")
    assert main(["flash", "--to", f"linux:{opt}"]) == 0
    out = capsys.readouterr().out
    assert "before: rackpc: runs 1.0.0 from slot a" in out
    assert out.splitlines()[0].endswith("; confirmed")
    assert [line.rpartition(": ")[2] for line in out.splitlines()[1:]][-1] == "confirmed"
    begin(opt)
    assert "--confirm" not in become[1]


def test_looking_starts_nothing(shop: Path, opt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flash(shop, opt, "1.0.0")
    before = {path: path.read_bytes() for path in opt.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["start", f"linux:{opt}", "--look"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[:2] == ["bms", "run"]
    assert f"lib:{opt}/slots/a/librackbms.so" in words
    assert {path: path.read_bytes() for path in opt.rglob("*") if path.is_file()} == before


def test_a_library_that_was_changed_is_never_started(
    shop: Path, opt: Path, become: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    flash(shop, opt, "1.0.0")
    library = opt / "slots" / "a" / "librackbms.so"
    data = bytearray(library.read_bytes())
    data[5000] ^= 1
    library.write_bytes(data)
    assert main(["start", f"linux:{opt}"]) == 1
    reasons = "slot a: librackbms.so was changed after it was signed; slot b: there is no bundle"
    assert capsys.readouterr().err == f"bms: linux:{opt}: no bundle is good ({reasons}); bring one with bms flash\n"
    assert become == []
    assert main(["flash", "--to", f"linux:{opt}"]) == 0
    assert "a new bundle was refused: librackbms.so was changed after it was signed" in capsys.readouterr().out
    assert flash(shop, opt, "1.0.0") == 0, "the same command mends it"
    begin(opt)
    assert len(become) == 1


@pytest.fixture
def server(shop: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    handler = partial(Quiet, directory=shop / "repo")
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()
    thread.join()


def test_over_http(shop: Path, opt: Path, server: str) -> None:
    assert flash(shop, opt, "1.1.0", repo=server) == 0
    assert main(["start", f"linux:{opt}", "--look"]) == 0


def test_the_path_of_a_bundle_tells_its_repository(shop: Path, opt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (shop / "repo" / "targets").glob("*1.1.0.tar")
    assert main(["flash", "--to", f"linux:{opt}", str(path)]) == 0
    assert "1.1.0 in slot a waits" in capsys.readouterr().out


def test_a_refusal_is_one_line_and_exit_code_1(shop: Path, opt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flash(shop, opt, "3.0.0") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"bms: linux:{opt}: refused: the repository has no bundle rackbms-rackpc-3.0.0.tar")
    assert err.count("\n") == 1


def test_a_mistake_is_one_line_and_exit_code_2(shop: Path, opt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(shop / "repo" / "metadata" / "1.root.json")
    to = ["flash", "--to", f"linux:{opt}"]
    for words, complaint in (
        ([*to, "--key", "x.pem"], "--key: a Linux controller knows its bundles by"),
        ([*to, "--trust", root], "--trust and --board set up a controller together"),
        ([*to, "--trust", root, "--board", "other"], "the controller is a rackpc already"),
        ([*to, "--trust", "none.json", "--board", "rackpc"], "--trust none.json: cannot be read"),
        ([*to, "--repo", str(shop / "repo")], "which bundle of it?"),
        ([*to, "--repo", str(shop), "x.tar"], "no repository there"),
        ([*to, "x.tar"], "lies in no repository; give that with --repo"),
        (["flash", "--to", f"linux:{opt}/none"], "no controller is set up there"),
        (["flash", "--to", "serial:/dev/none", "--repo", "x"], "--repo: belongs to linux:FOLDER"),
        (["start", "can:x"], "expected linux:FOLDER"),
        (["start", f"linux:{opt}/none"], "no controller is set up there"),
        (["run", "--confirm", "x:y"], "expected linux:FOLDER?slot=a"),
        (["run", "--rack", "sim:site", "--confirm", "linux:/x?slot=a"], "is a site of many"),
    ):
        assert main(words) == 2, words
        err = capsys.readouterr().err
        assert complaint in err, words
        assert err.count("\n") == 1
    with held(opt, "incoming", wait=False):
        assert flash(shop, opt, "1.0.0") == 2
    assert "another bms flash is at work there" in capsys.readouterr().err
