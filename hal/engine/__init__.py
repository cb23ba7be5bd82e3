"""Where kernels run: compiled ahead into one native program for each room, kept on disk, or linked into a library."""

from hal.engine.kernel import Kernel
from hal.engine.load import Library
from hal.engine.program import Program, prepare

__all__ = ["Kernel", "Library", "Program", "prepare"]
