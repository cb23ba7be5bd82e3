"""Would the tests notice if protection or the state machine were wrong?

Changes one thing at a time in the kernels named below (a comparison, a constant, a sign, an `and`), runs the tests that
answer for that file on the kernels as plain Python, and counts the changes that no test notices. Each survivor that is
known has its reason in `mutation_survivors.toml`; one without is listed, and so is a reason that nothing needs.

The tests are collected once. For each change a process is forked that replaces one function (or one constant of the
module) and runs them until one fails, those first that are quick and have noticed other changes of that function. A
change may make a loop endless: a process that needs far more time than the tests do without a change has noticed, too.
Random examples are the same in every run.

Rows and nodes of `bms.core.machine_table` are not changed here: `test_machine_exhaustive.py` changes each of them in
every way, thousands of changes that are all accounted for.

    python bench/mutation.py                          all files, about an hour of two cores
    python bench/mutation.py bms/core/diagnosis.py    one of them
    python bench/mutation.py --again                  only what survived last time, or has changed since
    python bench/mutation.py --list                   the changes, without trying them
    python bench/mutation.py --every 10 --jobs 1      a sample, on one core

Exit code 1 if fewer than 95 % are noticed, fewer than 93 % in one file, or a survivor has no reason.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import io
import json
import mmap
import os
import resource
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REASONS = Path(__file__).with_name("mutation_survivors.toml")
TESTS = "tests/bms/core/"
_SIGNALS = ("test_signals*.py", "test_sources*.py", "test_plausibility*.py")
TARGETS: dict[str, tuple[str, ...]] = {
    "bms/core/diagnosis.py": ("test_diagnosis*.py",),
    "bms/core/signals.py": _SIGNALS,
    "bms/core/sources.py": ("test_sources*.py",),
    "bms/core/plausibility.py": _SIGNALS,
    "bms/core/plausibility_model.py": (
        "test_plausibility_model.py",
        "test_plausibility_sag.py",
        "test_plausibility_still.py",
        "test_plausibility_reference.py",
    ),
    "bms/core/sudden.py": ("test_sudden*.py",),
    "bms/core/string_sag.py": ("test_string_sag.py", "test_signals_held.py"),
    "bms/core/missing_current.py": ("test_missing_current.py", "test_plausibility_still.py"),
    "bms/core/open_wire.py": ("test_open_wire.py", "test_plausibility_sag.py"),
    "bms/core/empty.py": ("test_empty.py",),
    "bms/core/current_zero.py": ("test_current_zero.py",),
    "bms/core/stillness.py": ("test_stillness.py",),
    "bms/core/current_gain.py": ("test_current_gain*.py",),
    "bms/core/thermometer.py": ("test_thermometer.py", "test_thermometer_reference.py"),
    "bms/core/first_look.py": ("test_first_look.py",),
    "bms/core/precharge.py": ("test_precharge.py", "test_machine_bounds.py", "test_machine_precharge.py"),
    "bms/core/machine.py": (
        "test_machine.py",
        "test_machine_[!est]*.py",
        "test_machine_transport.py",
        "test_machine_exhaustive.py::test_the_kernel_means_what_the_table_says",
    ),
    "bms/core/guard.py": ("test_guard.py",),
    "bms/core/runaway.py": ("test_runaway*.py",),
}
"""Files that decide about contactors, and the tests that answer for them."""

WANTED, WANTED_IN_EACH = 0.95, 0.93
PATIENCE = 4.0  # times the processor time of all tests
PATIENCE_S = 10

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
}
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_CALL = {"min": "max", "max": "min"}


@dataclass(frozen=True)
class Mutant:
    """One change. `place` is the function that it is in, or the constant of the module that it is."""

    path: str
    place: str
    line: int
    change: str
    source: str
    """The changed function, or the changed value."""

    @property
    def name(self) -> str:
        """What identifies it among all changes, whatever moves in the file."""
        return f"{self.path}:{self.place}: {self.change}"

    @property
    def digest(self) -> str:
        """What it depends on, as far as this file goes."""
        return hashlib.sha256(f"{self.name}\n{self.source}".encode()).hexdigest()


# --- which changes there are ------------------------------------------------------------------------------------------


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """Wrong versions of one node."""
    changed: Any = copy.deepcopy(node)
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            for other in _COMPARE.get(type(op), ()):
                changed = copy.deepcopy(node)
                changed.ops[k] = other()
                yield changed
    elif isinstance(node, ast.BoolOp):
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield changed.operand
        if _is_number(node.operand):
            value = -changed.operand.value
            yield ast.Constant(value + 1 if isinstance(value, int) else value * 1.5)
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _BINARY:
        changed.op = _BINARY[type(node.op)]()
        yield changed
    elif isinstance(node, (ast.If, ast.IfExp)) and isinstance(node.test, (ast.Name, ast.Attribute, ast.Call)):
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield changed
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALL:
        changed.func = ast.Name(_CALL[node.func.id])
        yield changed
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield ast.Constant(node.value + 1)
        elif isinstance(node.value, float):
            yield ast.Constant(node.value * 1.5 or 1.0)


def _in_function(path: str, root: ast.FunctionDef) -> Iterator[Mutant]:
    """Changes of a kernel."""
    root.decorator_list = []
    ignored = _left_alone(root)
    for parent in ast.walk(root):
        for field, value in ast.iter_fields(parent):
            for k, node in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(node, ast.AST) or id(node) in ignored:
                    continue
                for variant in _variants(node):
                    statement = ast.unparse(_statement(root, node)).splitlines()[0]
                    before = ast.unparse(node).splitlines()[0]
                    _put(parent, field, k if isinstance(value, list) else None, variant)
                    source = ast.unparse(root)
                    _put(parent, field, k if isinstance(value, list) else None, node)
                    after = ast.unparse(variant).splitlines()[0]
                    change = f"{before} -> {after}" + (f" in {statement}" if statement != before else "")
                    yield Mutant(path, root.name, getattr(node, "lineno", 0), change, source)


def _in_constant(path: str, node: ast.Assign) -> Iterator[Mutant]:
    """Changes of a float32 constant of the module: `_LARGEST_A = f4(1e6)`, one or several."""
    calls = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    targets = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else node.targets
    for target, call in zip(targets, calls, strict=False):
        if not (isinstance(target, ast.Name) and isinstance(call, ast.Call) and ast.unparse(call.func) == "f4"):
            continue
        number = call.args[0]
        for variant in _variants(number):
            after = f"f4({ast.unparse(variant)})"
            yield Mutant(path, target.id, node.lineno, f"{ast.unparse(call)} -> {after}", after)


def mutants(path: str) -> list[Mutant]:
    """Every change of the kernels in `path` and of the constants that they use."""
    found: list[Mutant] = []
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef) and any("kernel" in ast.unparse(d) for d in node.decorator_list):
            found.extend(_in_function(path, node))
        elif isinstance(node, ast.Assign):
            found.extend(_in_constant(path, node))
    seen: Counter[str] = Counter()
    for k, mutant in enumerate(found):
        seen[mutant.name] += 1
        if (nth := seen[mutant.name]) > 1:
            fields = (mutant.path, mutant.place, mutant.line, f"{mutant.change} #{nth}", mutant.source)
            found[k] = Mutant(*fields)
    return found


def _put(parent: ast.AST, field: str, k: int | None, node: ast.AST) -> None:
    """Set a field of `parent`, or one item of it."""
    if k is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[k] = node


def _left_alone(root: ast.FunctionDef) -> set[int]:
    """Nodes that are not changed, most of them because it would mean nothing."""
    left: set[int] = set()
    for node in ast.walk(root):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef):
            parts = [node.returns, *(a.annotation for a in node.args.args)]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, ast.UnaryOp) and _is_number(node.operand):
            parts = [node.operand]  # a negative number is changed as a whole
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


def apply(mutant: Mutant) -> None:
    """Make the change in this process."""
    module = importlib.import_module(mutant.path.removesuffix(".py").replace("/", "."))
    if not mutant.source.startswith("def "):
        setattr(module, mutant.place, eval(mutant.source, vars(module)))
        return
    whole = compile("from __future__ import annotations\n" + mutant.source, mutant.path, "exec", dont_inherit=True)
    code = next(c for c in whole.co_consts if isinstance(c, CodeType) and c.co_name == mutant.place)
    getattr(module, mutant.place).py_func.__code__ = code


# --- what the tests say to them ---------------------------------------------------------------------------------------


class Trials:
    """A plugin of pytest that runs the collected tests once for each change, each time in a process of its own."""

    def __init__(self, wanted: list[Mutant], jobs: int) -> None:
        self.wanted = wanted
        self.jobs = jobs
        self.alive: dict[str, bool] = {}
        self.killers = memoryview(mmap.mmap(-1, 4 * len(wanted) + 4)).cast("i")  # shared with the children
        self.trouble = "the tests cannot be collected"

    def pytest_runtestloop(self, session: Any) -> bool:
        """Try everything; the tests of `session` have been collected."""
        if session.testsfailed:
            return True
        cost = self._without_change(session)
        for slot in range(len(self.killers)):
            self.killers[slot] = -1
        if self.trouble:
            return True
        running: dict[int, tuple[Mutant, int, list[Any]]] = {}
        merits: Counter[str] = Counter()  # of tests, for changes of the same function
        started, place = time.perf_counter(), ""
        for slot, mutant in enumerate([*self.wanted, *[None] * self.jobs]):
            while running and (mutant is None or len(running) >= self.jobs):
                pid, status = os.waitpid(-1, 0)
                if pid in running:
                    tried, at, items = running.pop(pid)
                    self.alive[tried.name] = os.waitstatus_to_exitcode(status) == 0
                    if tried.place == place and self.killers[at] >= 0:
                        merits[items[self.killers[at]].nodeid] += 1
                    self._show(time.perf_counter() - started)
            if mutant is not None:
                if mutant.place != place:
                    place, merits = mutant.place, Counter({k: n // 8 for k, n in merits.items()})
                items = _answering(session.items, TARGETS[mutant.path])
                items.sort(key=lambda i: cost[i.nodeid] / (0.1 + merits[i.nodeid]))
                limit_s = int(PATIENCE_S + PATIENCE * sum(cost[i.nodeid] for i in items))
                running[self._fork(session, items, mutant, limit_s, slot)] = mutant, slot, items
        return True

    def _without_change(self, session: Any) -> dict[str, float]:
        """Processor time of each test. Sets `trouble` if one fails although nothing is changed."""
        with tempfile.NamedTemporaryFile("r") as file:
            child = self._fork(session, session.items, None, 3600, times=file.name)
            _, status = os.waitpid(child, 0)
            self.trouble = ""
            if os.waitstatus_to_exitcode(status) != 0:
                self.trouble = f"a test fails without any change: {file.read() or 'run them'}"
                return {}
            times: dict[str, float] = json.load(file)
            return times

    def _fork(
        self,
        session: Any,
        items: list[Any],
        mutant: Mutant | None,
        limit_s: int,
        slot: int = 0,
        times: str | None = None,
    ) -> int:
        """Run `items` in a child until one fails; returns its number.

        It writes which of them failed to `killers[slot]`, and the time of each to the file `times`.
        """
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            if mutant is not None:
                apply(mutant)
            spent: dict[str, float] = {}
            for k, item in enumerate(items):
                started = time.process_time()
                after = items[k + 1] if k + 1 < len(items) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
                spent[item.nodeid] = time.process_time() - started
                if session.testsfailed:
                    self.killers[slot] = k
                    break
            if times is not None:
                Path(times).write_text(item.nodeid if session.testsfailed else json.dumps(spent))
            code = int(session.testsfailed > 0)
        finally:
            os._exit(code)

    def _show(self, seconds: float) -> None:
        """Progress, for somebody who watches."""
        if not sys.stderr.isatty():
            return
        done, whole = len(self.alive), len(self.wanted)
        bar = "#" * (40 * done // whole)
        left_s = seconds / done * (whole - done)
        end = "\n" if done == whole else ""
        print(f"\r[{bar:40}] {done}/{whole}, {left_s / 60:.0f} min left ", end=end, file=sys.stderr, flush=True)


def _answering(items: list[Any], tests: tuple[str, ...]) -> list[Any]:
    """Those of `items` that are named by `tests`."""
    return [i for i in items if any(fnmatch(i.nodeid, f"{TESTS}{name}*") for name in tests)]


def _paths(name: str) -> list[str]:
    """Files of a pattern, each with the test in it that `name` ends with, if there is one."""
    file, at, test = name.partition("::")
    return [str(path.relative_to(ROOT)) + at + test for path in sorted((ROOT / TESTS).glob(file))]


def trials(wanted: list[Mutant], jobs: int) -> dict[str, bool]:
    """Whether each change survives. Raises `RuntimeError` if the tests fail without one."""
    import hypothesis
    import pytest

    # no shrinking and no memory of examples: what matters is whether, not how
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutation", deadline=None, database=None, phases=phases)
    names = dict.fromkeys(name for m in wanted for name in TARGETS[m.path])
    tests = list(dict.fromkeys(path for name in names for path in _paths(name)))
    plugin = Trials(wanted, jobs)
    options = ["-x", "-q", "-s", "-p", "no:cacheprovider", "-W", "ignore", "--hypothesis-seed=0"]
    with redirect_stdout(io.StringIO()):
        pytest.main([*tests, *options, "--hypothesis-profile=mutation"], plugins=[plugin])
    if plugin.trouble:
        raise RuntimeError(plugin.trouble)
    return plugin.alive


# --- report -----------------------------------------------------------------------------------------------------------


def report(tried: list[Mutant], alive: dict[str, bool], whole: bool) -> bool:
    """Print what survived, and why; True if that is good enough. `whole`: all changes of these files were tried."""
    reasons: dict[str, str] = tomllib.loads(REASONS.read_text()) if REASONS.exists() else {}
    good = True
    for path in dict.fromkeys(m.path for m in tried):
        here = [m for m in tried if m.path == path]
        survivors = [m for m in here if alive[m.name]]
        share = 1 - len(survivors) / len(here)
        print(f"{path}: {len(here)} changes, {share:.1%} noticed, {len(survivors)} survive")
        for m in survivors:
            print(f"  line {m.line}: {m.place}: {m.change}\n    {reasons.get(m.name, 'NO REASON GIVEN')}")
        good = good and (share >= WANTED_IN_EACH or not whole)
    unexplained = sum(alive[m.name] and m.name not in reasons for m in tried)
    noticed = sum(not alive[m.name] for m in tried)
    share = noticed / max(len(tried), 1)
    print(f"{len(tried)} changes, {noticed} noticed ({share:.1%}), {unexplained} survivors without a reason")
    elsewhere = TARGETS.keys() - {m.path for m in tried}
    unneeded = [name for name in reasons if not alive.get(name, False) and name.partition(":")[0] not in elsewhere]
    if whole and unneeded:
        print("\n".join(["reasons for changes that are noticed, or that there are no more:", *unneeded]))
    return good and share >= WANTED and not unexplained


def main() -> int:
    """Try the changes and print what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--list", action="store_true", help="print the changes and try none")
    parser.add_argument("--again", action="store_true", help="trust that what was noticed last time still is")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try every N-th change only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: cores)")
    args = parser.parse_args()
    if wrong := [path for path in args.files if path not in TARGETS]:
        parser.error(f"{wrong[0]}: not one of {', '.join(TARGETS)}")
    wanted = [m for path in args.files or TARGETS for m in mutants(path)[:: max(args.every, 1)]]
    if args.list:
        print("\n".join(f"{m.line:4d} {m.name}" for m in wanted))
        return 0
    os.environ["RACKBMS_JIT"] = "0"
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    memory = Path(tempfile.gettempdir()) / f"rackbms-mutation-{os.getuid()}.json"
    noticed: set[str] = set(json.loads(memory.read_text())) if memory.exists() else set()
    if not args.again:
        noticed -= {m.digest for m in wanted}
    started = time.perf_counter()
    try:
        alive = trials([m for m in wanted if m.digest not in noticed], max(args.jobs, 1))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    noticed |= {m.digest for m in wanted if m.name in alive and not alive[m.name]}
    memory.write_text(json.dumps(sorted(noticed)))
    good = report(wanted, {m.name: m.digest not in noticed for m in wanted}, args.every <= 1)
    print(f"{time.perf_counter() - started:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
