"""Lets the files of bench/ that pytest runs import the others, as they can when Python runs them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
