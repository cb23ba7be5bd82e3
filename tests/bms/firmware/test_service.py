"""How a bundle is run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bms.firmware import service


def test_the_words_of_a_run() -> None:
    words = service.words("sim:lfp_280", ["--duration", "1h"])
    assert service.filled(words, "/opt/x", "/opt/x/slots/b") == [
        "run", "--rack", "sim:lfp_280", "--config", "/opt/x/slots/b/rack.toml", "--engine",
        "lib:/opt/x/slots/b/librackbms.so", "--store", "/opt/x/store/state", "--record", "trips", "--out", "/opt/x/run",
        "--no-report", "--quiet", "--duration", "3650d", "--duration", "1h",
    ]  # fmt: skip


def test_an_option_that_bms_run_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        service.words("sim:lfp_280", ["--fast"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "bms: error: --run: unrecognized arguments: --fast; see bms run --help\n"


def test_systemd_understands_the_service_file(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = tmp_path / "bms"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    path = tmp_path / "rackbms.service"
    path.write_text(service.unit("rackpc 1.2.3", "/opt/rackbms", str(command)))
    assert f"ExecStart={command} start linux:/opt/rackbms\n" in path.read_text()
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
