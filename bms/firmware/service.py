"""How a bundle is run: the words of `bms run`, and the service file for systemd.

The service starts `bms start`, which checks the bundles and runs one of them. So a service file that is installed once
never starts what was not checked, and what the run is told changes with the bundle.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from hal.flash.bundle import CONFIGURATION, LIBRARY, ROOT, SLOT

FOREVER = "3650d"
UNIT = """\
# Made by bms bundle; do not edit.
[Unit]
Description=Battery management of a rack, {name}
After=network.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={bms} start linux:{root}
Restart=always
RestartSec=2
TimeoutStopSec=90
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ReadWritePaths={root}

[Install]
WantedBy=multi-user.target
"""


def unit(name: str, root: str, bms: str) -> str:
    """The service file of a bundle: `root` is the controller's folder, `bms` the command there."""
    return UNIT.format(name=name, root=root, bms=bms)


def words(rack: str, more: Sequence[str]) -> tuple[str, ...]:
    """What `bms` is called with to run a bundle on a rack; `more` are options of `bms run`, which win.

    They are tried on the parser of `bms run`, which exits with 2 and one line where it does not understand them.
    """
    found = ["run", "--rack", rack, "--config", f"{SLOT}/{CONFIGURATION}", "--engine", f"lib:{SLOT}/{LIBRARY}"]
    found += ["--store", f"{ROOT}/store/state", "--record", "trips", "--out", f"{ROOT}/run", "--no-report", "--quiet"]
    found += ["--duration", FOREVER, *more]
    parser = Parser(prog="bms bundle --run", allow_abbrev=False)
    importlib.import_module("bms.runtime.run").add_arguments(parser)
    parser.parse_args(found[1:])
    return tuple(found)


class Parser(argparse.ArgumentParser):
    """One whose complaint is one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Exit with the line."""
        self.exit(2, f"bms: error: --run: {message}; see bms run --help\n")


def filled(run: Sequence[str], root: str, slot: str) -> list[str]:
    """The words of a manifest with the folders of a controller in them."""
    return [word.replace(ROOT, root).replace(SLOT, slot) for word in run]
