"""Lets the files here import the others: one of them is also run as a process."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
