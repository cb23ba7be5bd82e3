"""How `bms flash` tells its progress; flashing itself is tried in boot/test_node_flashing.py."""

from __future__ import annotations

import pytest

pytest.importorskip("cryptography", reason="pip install 'rackbms[firmware]'")

from bms.firmware.flash import Progress


def test_a_few_lines_where_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    for done in range(0, 1001, 10):
        progress(done, 1000)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert (lines[0], lines[-1]) == ("0 of 1000 bytes", "1000 of 1000 bytes")


def test_one_line_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    progress = Progress()
    for done in (300, 600, 1000):
        progress(done, 1000)
    assert (
        capsys.readouterr().out
        == "300 of 1000 bytes are there already\n\r300 of 1000 bytes\r600 of 1000 bytes\r1000 of 1000 bytes\n"
    )
