"""Would the tests notice if protection or the state machine were wrong?

Changes one thing at a time in the kernels named below (a comparison, a constant, a sign, an `and`), runs the tests that
belong to that file on the kernels as plain Python, and counts the changes that no test notices. Each survivor that is
known has its reason in `mutation_survivors.toml`; one without is listed.

    python bench/mutation.py                          all files, some minutes
    python bench/mutation.py bms/core/diagnosis.py    one of them
    python bench/mutation.py --list                   the changes, without trying them

Exit code 1 if fewer than 95 % are noticed or a survivor has no reason.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import io
import os
import signal
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REASONS = Path(__file__).with_name("mutation_survivors.toml")
TESTS = "tests/bms/core"
TARGETS: dict[str, tuple[str, ...]] = {
    "bms/core/diagnosis.py": ("test_diagnosis.py",),
    "bms/core/signals.py": ("test_signals.py", "test_plausibility.py"),
    "bms/core/plausibility.py": ("test_plausibility.py", "test_signals.py"),
    "bms/core/machine.py": ("test_machine.py", "test_machine_exhaustive.py"),
    "bms/core/machine_table.py": ("test_machine_table.py", "test_machine.py", "test_machine_exhaustive.py"),
    "bms/core/guard.py": ("test_guard.py",),
}
"""Files that decide about contactors, and the tests that answer for them."""

WANTED = 0.95
PATIENCE_S = 240  # a change may make a loop endless: that is noticed, too

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Mutant:
    """One change: `place` and the two texts name it for good, whatever moves in the file."""

    path: str
    function: str
    line: int
    before: str
    after: str
    source: str

    @property
    def name(self) -> str:
        """What identifies it among all changes."""
        return f"{self.path}:{self.function}: {self.before} -> {self.after}"


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """Wrong versions of one node."""
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            for other in _COMPARE.get(type(op), ()):
                changed = copy.deepcopy(node)
                changed.ops[k] = other()
                yield changed
    elif isinstance(node, ast.BoolOp):
        changed_bool = copy.deepcopy(node)
        changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield changed_bool
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _BINARY:
        changed_op = copy.deepcopy(node)
        changed_op.op = _BINARY[type(node.op)]()
        yield changed_op
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1 if isinstance(node.value, int) else (node.value * 1.5 or 1.0))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any("kernel" in ast.unparse(d) for d in node.decorator_list):
            yield node.name, node


def _table(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Tables of constants that kernels walk through: tuples of more than four rows at the top of a file."""
    for node in tree.body:
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        if isinstance(value, ast.Tuple) and len(value.elts) > 4 and isinstance(value.elts[0], (ast.Call, ast.Tuple)):
            yield ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target), value


def mutants(path: str) -> list[Mutant]:
    """Every change of the kernels in `path`, and of the tables that they walk through."""
    text = (ROOT / path).read_text()
    tree = ast.parse(text)
    found = []
    for place, root in [*_functions(tree), *_table(tree)]:
        annotations = _annotations(root)
        for parent in ast.walk(root):
            for field, value in ast.iter_fields(parent):
                items = value if isinstance(value, list) else [value]
                for k, node in enumerate(items):
                    if not isinstance(node, ast.AST) or id(node) in annotations:
                        continue
                    for variant in _variants(node):
                        put(parent, field, k if isinstance(value, list) else None, variant)
                        source = ast.unparse(tree)
                        put(parent, field, k if isinstance(value, list) else None, node)
                        before, after = ast.unparse(_statement(root, node)), ast.unparse(variant)
                        short = before.splitlines()[0]
                        found.append(
                            Mutant(
                                path,
                                place,
                                getattr(node, "lineno", 0),
                                f"{ast.unparse(node)} in {short}",
                                after,
                                source,
                            )
                        )
    return found


def put(parent: ast.AST, field: str, k: int | None, node: ast.AST) -> None:
    """Set a field of `parent`, or one item of it."""
    if k is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[k] = node


def _annotations(root: ast.AST) -> set[int]:
    """Nodes whose change changes nothing: annotations, decorators and docstrings."""
    left: set[int] = set()
    for node in ast.walk(root):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef):
            parts = [node.returns, *node.decorator_list, *(a.annotation for a in node.args.args)]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        for part in parts:
            if part is not None:
                left.update(id(inner) for inner in ast.walk(part))
    return left


def _statement(root: ast.AST, node: ast.AST) -> ast.AST:
    """The innermost statement of `root` that holds `node`."""
    best: ast.AST = node
    for statement in ast.walk(root):
        if isinstance(statement, ast.stmt) and any(inner is node for inner in ast.walk(statement)):
            best = statement
    return best


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the changed source when its module is imported."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.name = mutant.path.removesuffix(".py").replace("/", ".")

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(ROOT / self.mutant.path))

    def exec_module(self, module: object) -> None:
        module.__file__ = str(ROOT / self.mutant.path)  # type: ignore[attr-defined]
        exec(compile(self.mutant.source, self.mutant.path, "exec"), module.__dict__)


def survives(mutant: Mutant | None, tests: tuple[str, ...]) -> bool:
    """Whether all `tests` pass with the change, in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            signal.alarm(PATIENCE_S)
            if mutant is not None:
                sys.meta_path.insert(0, _Finder(mutant))
            import pytest

            quiet = io.StringIO()
            with redirect_stdout(quiet), redirect_stderr(quiet):
                files = [str(ROOT / TESTS / name) for name in tests if (ROOT / TESTS / name).exists()]
                code = int(pytest.main([*files, "-x", "-q", "-p", "no:cacheprovider", "-W", "ignore"]))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def main() -> int:
    """Try the changes and print what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--list", action="store_true", help="print the changes and try none")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try every N-th change only")
    args = parser.parse_args()
    os.environ["RACKBMS_JIT"] = "0"
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(os.environ.get("TMPDIR", "/tmp"), "rackbms-hypothesis")
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    import hypothesis  # noqa: F401  (imported before the forks, once for all)
    import numpy  # noqa: F401  (imported before the forks, once for all)
    import pytest  # noqa: F401  (imported before the forks, once for all)

    reasons: dict[str, str] = tomllib.loads(REASONS.read_text()) if REASONS.exists() else {}
    files = args.files or [path for path in TARGETS if (ROOT / path).exists()]
    if wrong := [path for path in files if path not in TARGETS]:
        parser.error(f"{wrong[0]}: not one of {', '.join(TARGETS)}")
    started, tried, killed, unexplained = time.perf_counter(), 0, 0, 0
    for path in files:
        all_of_them = mutants(path)[:: args.every]
        if args.list:
            print("\n".join(f"{m.line:4d} {m.name}" for m in all_of_them))
            continue
        tests = TARGETS[path]
        if not survives(None, tests):
            print(f"{path}: its tests fail without any change", file=sys.stderr)
            return 1
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            outcome = list(pool.map(lambda m, tests=tests: survives(m, tests), all_of_them))
        survivors = [m for m, alive in zip(all_of_them, outcome, strict=True) if alive]
        tried, killed = tried + len(all_of_them), killed + len(all_of_them) - len(survivors)
        share = 1 - len(survivors) / max(len(all_of_them), 1)
        print(f"{path}: {len(all_of_them)} changes, {share:.1%} noticed", flush=True)
        for m in survivors:
            reason = reasons.get(m.name, "")
            unexplained += not reason
            print(f"  line {m.line}: {m.name}\n    {reason or 'NO REASON GIVEN'}", flush=True)
    if args.list:
        return 0
    share = killed / max(tried, 1)
    print(f"{tried} changes, {killed} noticed ({share:.1%}), {unexplained} survivors without a reason, "
          f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    return 0 if share >= WANTED and not unexplained else 1


if __name__ == "__main__":
    sys.exit(main())
