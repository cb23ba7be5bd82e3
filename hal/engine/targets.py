"""Processors that programs are compiled for: this computer's, and those of controllers, by name.

Every one of them computes in IEEE 754 single precision, rounds each operation and keeps subnormal numbers, so that all
give the same bits. Nothing here needs the compiler before it is asked to compile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_TOLD = frozenset(
    {
        "avx",
        "avx2",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512f",
        "avx512vl",
        "bmi",
        "bmi2",
        "f16c",
        "fma",
        "sve",
        "sve2",
    }
)
_SPELT = {"bmi": "bmi1"}

WIDE = frozenset({"__divdi3", "__moddi3", "__udivdi3", "__umoddi3", "__fixsfdi", "__floatdisf", "__floatundisf"})
"""Helpers for integers of 64 bits, which are the sizes and indices of kernels, on a processor of 32 bits: division,
and conversion from and to float32. All are exact, or rounded once as IEEE 754 says, so that they give the same bits
whoever wrote them; the run-time library of every C compiler has them."""


@dataclass(frozen=True)
class Target:
    """What to compile for, in LLVM's words; `helpers` are symbols that its code may refer to besides the program's."""

    triple: str
    cpu: str
    features: str
    abi: str = ""
    relocation: str = "pic"
    helpers: frozenset[str] = frozenset()

    @classmethod
    def host(cls) -> Target:
        """This computer's processor with all that it can do."""
        import llvmlite.binding as llvm

        return cls(llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())

    def needs(self) -> tuple[str, ...]:
        """Instructions beyond the least of its kind that code for this target may use, as `/proc/cpuinfo` has them."""
        switched_on = {word[1:] for word in self.features.split(",") if word.startswith("+")}
        return tuple(_SPELT.get(name, name) for name in sorted(switched_on & _TOLD))

    def machine(self) -> Any:
        """LLVM's target machine."""
        import llvmlite.binding as llvm

        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple(self.triple)
        return target.create_target_machine(
            cpu=self.cpu,
            features=self.features,
            opt=3,
            reloc=self.relocation,
            codemodel="default",
            abiname=self.abi,
        )


@dataclass(frozen=True)
class Processor:
    """A processor of controllers, and a word about it."""

    about: str
    target: Target


def _bare(triple: str, cpu: str, features: str = "", abi: str = "") -> Target:
    """A target of 32 bits without an operating system."""
    return Target(triple, cpu, features, abi, "static", WIDE)


PROCESSORS: dict[str, Processor] = {
    "cortex-m7": Processor("Arm Cortex-M7, such as STM32H7", _bare("thumbv7em-none-eabihf", "cortex-m7")),
    "cortex-m4f": Processor("Arm Cortex-M4 with its FPU, such as STM32F4", _bare("thumbv7em-none-eabihf", "cortex-m4")),
    "cortex-m33": Processor(
        "Arm Cortex-M33 with its FPU, such as STM32U5", _bare("thumbv8m.main-none-eabihf", "cortex-m33")
    ),
    "cortex-a53": Processor("Arm Cortex-A53 with Linux", Target("aarch64-unknown-linux-gnu", "cortex-a53", "")),
    "riscv32imafc": Processor(
        "RISC-V of 32 bits with single precision",
        _bare("riscv32-unknown-none-elf", "generic-rv32", "+m,+a,+f,+c", "ilp32f"),
    ),
}
"""Processors by the names that `bms build --target` takes."""

REFERENCE = PROCESSORS["cortex-m7"].target
"""The processor that programs are lowered for, before they are optimised for one of the others."""
