"""From entries to one optimised object: numba reads the kernels, LLVM compiles them as one module, for any target.

1. numba types and lowers every entry and every helper it calls to LLVM's intermediate language, without optimising.
2. Each entry gets a C function (`hal.engine.signature` tells its arguments). Its pointers are `noalias`: the arrays of
   a call must not overlap. Everything else becomes internal.
3. LLVM's own pipeline runs once over the whole: inlining, vectorising loops and straight code, for the target's
   processor. No fast-math flag is set anywhere, so that no step may change a result.
4. The object is looked through: it may refer to nothing outside but what `allowed` names, so that neither Python nor
   numba's runtime can be needed by it.

An entry that could raise would go on with half of its work done; a call of `raised_in_ENTRY` marks every such way out,
and is left in the object only where LLVM cannot prove that the way is never taken.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Mapping
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from hal.engine.elf import undefined_symbols as undefined_symbols
from hal.engine.load import Table, symbol, table_symbol
from hal.engine.signature import Argument, Signature
from hal.engine.targets import Target as Target

RAISED = "raised_in_"


class CompileError(Exception):
    """A program that cannot be compiled as it stands: a mistake in a kernel, not in anything that a user does."""


def lowered(
    prefix: str,
    table: Table,
    functions: Mapping[str, tuple[Callable[..., Any], Signature]],
    classes: tuple[Any, ...],
    target: Target,
) -> Any:
    """The LLVM module of the entries `functions`, not optimised. `classes` are the kinds of kernel that they call.

    Raises `CompileError`, or numba's errors for a kernel that it cannot compile.
    """
    with _session(classes, target, target.machine()) as session:
        return session.module(prefix, table, functions)


def optimised(module: Any, exported: Collection[str], target: Target) -> Any:
    """`module`, optimised as a whole for `target`; nothing but the symbols `exported` can be seen from outside."""
    machine = target.machine()
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in exported:
            value.linkage = "internal"
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    # what no function returns, its callers need not look for: the ways out of kernels that cannot raise
    tidy = llvm.create_new_module_pass_manager()
    tidy.add_ipsccp_pass()
    tidy.add_simplify_cfg_pass()
    tidy.add_dead_arg_elimination_pass()
    tidy.add_global_dead_code_eliminate_pass()
    tidy.add_strip_symbols_pass()  # numba's names count what this process has compiled before
    tidy.run(module, builder)
    return module


def retargeted(bitcode: bytes, target: Target) -> Any:
    """A module that was lowered for another processor with the same order of bytes, as one for `target`.

    What numba lowers depends on the processor in nothing but the sizes of pointers within its own structures of arrays,
    which are gone after optimising: sizes and indices have 64 bits everywhere, and records a layout of their own.
    """
    module = llvm.parse_bitcode(bitcode)
    module.triple = target.triple
    module.data_layout = str(target.machine().target_data)
    return module


def to_object(module: Any, target: Target, allowed: frozenset[str]) -> bytes:
    """Machine code of an optimised module.

    Raises `CompileError` where it needs what is neither `allowed` nor a helper of the target.
    """
    code: bytes = target.machine().emit_object(module)
    wanted = undefined_symbols(code) - allowed - target.helpers
    raising = sorted(name.removeprefix(RAISED) for name in wanted if name.startswith(RAISED))
    if raising:
        raise CompileError(f"{', '.join(raising)}: an entry must not raise, and this one can")
    if wanted:
        raise CompileError(f"the object needs {', '.join(sorted(wanted))}, which a program must do without")
    return code


def to_assembly(module: Any, target: Target) -> str:
    """Assembly text of an optimised module."""
    text: str = target.machine().emit_assembly(module)
    return text


class _Session:
    """One compilation: dispatchers of numba of its own, a code generator that leaves the optimising to us."""

    def __init__(self, codegen: Any) -> None:
        self.codegen = codegen
        self.dispatchers: dict[int, Any] = {}

    def dispatcher(self, kernel: Any) -> Any:
        """The dispatcher of a kernel within this compilation."""
        found = self.dispatchers.get(id(kernel))
        if found is None:
            import numba

            found = self.dispatchers[id(kernel)] = numba.njit(
                error_model="numpy", fastmath=False, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True
            )(kernel.py_func)
        return found

    def module(self, prefix: str, table: Table, functions: Mapping[str, tuple[Callable[..., Any], Signature]]) -> Any:
        """All entries with their C functions, linked into one module and not optimised."""
        from numba.core import sigutils
        from numba.core.registry import cpu_target

        context = cpu_target.target_context
        library = self.codegen.create_library(prefix)
        wrappers = library.create_ir_module(f"{prefix}_wrappers")
        for name, (kernel, signature) in functions.items():
            types, returns = sigutils.normalize_signature(_numba_text(signature))
            dispatcher = self.dispatcher(kernel)
            dispatcher.compile(types)
            compiled = dispatcher.overloads[types]
            found = compiled.signature.return_type
            if found != returns:
                raise CompileError(f"{name}: returns {found}, its signature says {returns}")
            library.add_linking_library(compiled.library)
            _wrap(context, wrappers, prefix, name, signature, compiled, types)
        content = table.to_bytes()
        kind = ir.ArrayType(ir.IntType(8), len(content))
        constant = ir.GlobalVariable(wrappers, kind, table_symbol(prefix))
        constant.global_constant = True
        constant.initializer = ir.Constant(kind, bytearray(content))
        library.add_ir_module(wrappers)
        library.finalize()
        return library.whole()


def _numba_text(signature: Signature) -> str:
    """The signature with `b1` as numba spells it, and nothing as None."""
    return str(signature).replace("b1", "boolean")


def _wrap(
    context: Any, module: Any, prefix: str, name: str, signature: Signature, compiled: Any, types: tuple[Any, ...]
) -> None:
    """Add the C function of one entry to `module`."""
    from numba.np.arrayobj import make_array, populate_array

    size = ir.IntType(64)
    parameters: list[Any] = []
    for argument, kind in zip(signature.arguments, types, strict=True):
        if argument.ndim:
            parameters += [context.get_data_type(kind.dtype).as_pointer()] + [size] * argument.ndim
        else:
            parameters.append(context.get_argument_type(kind) if argument.kind != "b1" else ir.IntType(8))
    nothing = signature.result == "void"
    result = ir.VoidType() if nothing else context.get_data_type(compiled.signature.return_type)
    function = ir.Function(module, ir.FunctionType(result, parameters), symbol(prefix, name))
    function.attributes.add("nounwind")
    builder = ir.IRBuilder(function.append_basic_block())
    values = []
    rest = iter(function.args)
    for argument, kind in zip(signature.arguments, types, strict=True):
        value = next(rest)
        if argument.ndim:
            value.add_attribute("noalias")
            values.append(_array(context, builder, kind, argument, value, rest, make_array, populate_array))
        elif argument.kind == "b1":
            values.append(builder.icmp_unsigned("!=", value, ir.Constant(value.type, 0)))
        else:
            values.append(value)
    inner = context.declare_function(module, compiled.fndesc)
    status, returned = context.call_conv.call_function(builder, inner, compiled.signature.return_type, types, values)
    with builder.if_then(status.is_error, likely=False):
        raised = ir.Function(module, ir.FunctionType(ir.VoidType(), []), RAISED + name)
        builder.call(raised, [])
    if nothing:
        builder.ret_void()
    else:
        builder.ret(context.get_return_value(builder, compiled.signature.return_type, returned))


def _array(
    context: Any, builder: Any, kind: Any, argument: Argument, data: Any, rest: Any, make_array: Any, populate: Any
) -> Any:
    """The array structure of numba over the pointer `data`, with the dimensions that follow in `rest`."""
    size = ir.IntType(64)
    item = ir.Constant(size, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    shape = [next(rest) for _ in range(argument.ndim)]
    strides = [item]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], length, flags=("nsw",)))
    array = make_array(kind)(context, builder)
    populate(array, data=data, shape=shape, strides=strides, itemsize=item, meminfo=None)
    return array._getvalue()


@contextmanager
def _session(classes: tuple[Any, ...], target: Target, machine: Any) -> Any:
    """A `_Session`, during which numba generates code for `target` and optimises nothing."""
    from numba.core import codegen as numba_codegen
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target

    class Library(numba_codegen.CPUCodeLibrary):  # type: ignore[misc]
        """Never optimised nor executed; all that it calls is linked to it when everything is there, once each."""

        _shared: Any = None

        def add_ir_module(self, ir_module: Any) -> None:
            """Take a lowered function; the arrays of one call do not overlap, so its pointers are `noalias`."""
            for function in ir_module.functions:
                if function.blocks:
                    for argument in function.args:
                        if argument.type.is_pointer and argument.name.startswith("arg."):
                            argument.add_attribute("noalias")
                    if target.triple.startswith("x86_64"):
                        # registers of 64 bytes that are put on the stack must not lie across two cache lines
                        function.attributes.alignstack = 64
            super().add_ir_module(ir_module)

        def _optimize_functions(self, ll_module: Any) -> None:
            ll_module.data_layout = self._codegen._data_layout

        def finalize(self) -> None:
            self._finalized = True

        def whole(self) -> Any:
            """A module of this library and all that it calls."""
            module = self._final_module.clone()
            seen = {self}
            waiting = list(self._linking_libraries)
            while waiting:
                library = waiting.pop()
                if library in seen:
                    continue
                seen.add(library)
                if isinstance(library, Library):
                    module.link_in(library._final_module, preserve=True)
                    waiting += library._linking_libraries
                else:  # compiled by numba for its own use, before: holds all that it calls
                    module.link_in(library._get_module_for_linking(), preserve=True)
            return module

        def _get_module_for_linking(self) -> Any:
            """What numba links when it later compiles something for its own use that calls this."""
            if self._shared is None:
                self._shared = self.whole()
                for function in self._shared.functions:
                    if not function.is_declaration and function.linkage == llvm.Linkage.external:
                        function.linkage = "linkonce_odr"
            return self._shared

        def get_pointer_to_function(self, name: str) -> int:
            return 0

    class Codegen(numba_codegen.CPUCodegen):  # type: ignore[misc]
        """A code generator for any target; it makes no machine code."""

        _library_class = Library

        def _init(self, llvm_module: Any) -> None:
            self._tm = machine
            self._tm_features = target.features
            self._target_data = machine.target_data
            self._data_layout = str(self._target_data)

        def _create_empty_module(self, name: str) -> Any:
            module = super()._create_empty_module(name)
            module.triple = target.triple
            return module

        def _add_module(self, module: Any) -> None:
            pass

        def set_env(self, env_name: str, env: Any) -> None:
            pass

    context = cpu_target.target_context
    with global_compiler_lock:
        session = _Session(Codegen("rackbms"))
        before = context._internal_codegen
        outer = [kernel_class.building for kernel_class in classes]
        context._internal_codegen = session.codegen
        collecting = gc.isenabled()
        gc.disable()  # numba makes millions of objects that live until it is done: looking for garbage takes a sixth
        for kernel_class in classes:
            kernel_class.building = session.dispatcher
        try:
            yield session
        finally:
            if collecting:
                gc.enable()
            context._internal_codegen = before
            for kernel_class, building in zip(classes, outer, strict=True):
                kernel_class.building = building
