"""Lets the files here import the twin behind a bus that the contract suite uses."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "contract"))
