"""The core's gate: one program of everything that a controller runs, in single precision."""

from bms.core.jit import PROGRAM, f4, i4, kernel
from hal.engine import Kernel


def test_the_step_belongs_to_the_program() -> None:
    from bms.core.step import step

    assert isinstance(step, Kernel)
    assert PROGRAM.modules == ("bms.core.step",)
    assert PROGRAM.prefix == "rackbms"


def test_single_precision_stays_single() -> None:
    @kernel
    def half(a):  # type: ignore[no-untyped-def]
        return f4(0.5) * a + f4(i4(2))

    half(f4(3))
    (signature,) = half.dispatcher.nopython_signatures
    assert str(signature.return_type) == "float32"


def test_the_object_does_not_tell_what_was_compiled_before() -> None:
    """numba's names of functions carry a counter: kept in the object, they would differ from process to process."""
    code = PROGRAM.code()
    assert b"rackbms_step_racks" in code
    assert b"_ZN" not in code


def test_its_sources_are_the_kernels_and_the_layouts() -> None:
    names = {
        path.name for source in PROGRAM.sources for path in (source.rglob("*.py") if source.is_dir() else [source])
    }
    assert {"step.py", "estimator.py", "diagnosis.py", "machine.py", "mathf.py", "contract.py"} <= names
