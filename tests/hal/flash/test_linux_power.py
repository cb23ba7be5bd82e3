"""Power is cut at every call that changes a disk: one of two bundles, whole and checked, always starts.

A dry run counts the calls of an action. Then the action is played once for each of them, cut off before, amid and after it;
each time with several outcomes of what had not been synced. The same action then comes to its end.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from bundle_yard import BOARD, Yard, slots
from frail_disk import FAILURES, FrailDisk, PowerLostError, Watched, cut, failing, killed, power_lost
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from hal.errors import LinkError
from hal.flash import trust
from hal.flash.answers import Refused
from hal.flash.bundle import Manifest
from hal.flash.disk import Disk, RealDisk
from hal.flash.linux import LinuxFlasher

WAYS = ("before", "amid", "after")
SEEDS = range(6)
OLD, NEW = "1.0.0", "1.1.0"
MEMORY = Path("/dev/shm")


class Bench:
    """Two bundles, and what can be done with a controller that runs the old one."""

    def __init__(self, stock: Yard, offer: trust.Offer) -> None:
        self.stock, self.offer = stock, offer
        self.old, self.new = stock.bundle(OLD)[0], stock.bundle(NEW)[0]

    def install(self, disk: Disk) -> None:
        self.flash(disk, self.new)

    def flash(self, disk: Disk, manifest: Manifest) -> None:
        LinuxFlasher(slots(disk), "linux:/x").flash(manifest.archive, self.stock.source, offer=self.offer)

    def start(self, disk: Disk) -> str:
        """Start; gives the version that runs, which is whole to the last byte."""
        choice = slots(disk).choose()
        files = self.stock.bundle(str(choice.manifest.version))[1]
        assert {name: disk.read(f"slots/{choice.slot}/{name}") for name in files} == files
        return str(choice.manifest.version)

    def confirm(self, disk: Disk) -> None:
        assert slots(disk).confirm("b", self_test_passed=True, rack_healthy=True)

    def old_runs(self) -> FrailDisk:
        return self.stock.controller(self.old)

    def armed(self) -> FrailDisk:
        disk = self.old_runs()
        self.install(disk)
        return disk

    def tried(self) -> FrailDisk:
        disk = self.armed()
        assert self.start(disk) == NEW
        return disk

    def finish(self, disk: Disk) -> None:
        """After whatever happened the same command brings the new bundle, which proves itself and stays."""
        if not slots(disk).free():
            self.start(disk)  # a trial is over with the next start
        self.install(disk)
        if self.start(disk) == NEW and slots(disk).record().trial:
            assert slots(disk).confirm(slots(disk).record().trial, self_test_passed=True, rack_healthy=True)
        assert self.start(disk) == self.start(disk) == NEW
        assert disk.target("current") == f"slots/{slots(disk).record().active}"


@pytest.fixture(scope="module", autouse=True)
def remembered() -> Iterator[None]:
    """The same signature is found good once, not thousands of times."""
    known: dict[tuple[object, ...], object] = {}

    def once(function: Callable[..., object], *key: object, **words: object) -> object:
        if key not in known:
            known[key] = function(**words)  # what is not good raises, and is looked at again
        return known[key]

    real_roots, real_manifest = trust.roots, trust.signed_manifest

    def roots(disk: Disk) -> object:
        files = [disk.read(f"trust/{name}") for name in disk.names("trust") if name.endswith(".root.json")]
        return once(real_roots, *files, disk=disk)

    def signed_manifest(chain: list[object], manifest: bytes, targets: bytes) -> object:
        return once(real_manifest, id(chain), manifest, targets, chain=chain, manifest=manifest, targets=targets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "roots", roots)
        patch.setattr(trust, "signed_manifest", signed_manifest)
        yield


@pytest.fixture(scope="module")
def bench(stock: Yard, offer: trust.Offer) -> Bench:
    return Bench(stock, offer)


ACTIONS: dict[str, tuple[Callable[[Bench], FrailDisk], Callable[[Bench, Disk], object], str]] = {
    "install": (Bench.old_runs, Bench.install, "1.0.0 1.1.0"),
    "trial": (Bench.armed, Bench.start, "1.0.0 1.1.0"),
    "revert": (Bench.tried, Bench.start, "1.0.0"),
    "confirm": (Bench.tried, Bench.confirm, "1.0.0 1.1.0"),
}
"""What comes before, what is cut off, and what may run afterwards."""


def calls(before: FrailDisk, action: Callable[[Disk], object]) -> list[str]:
    watched = Watched(before.copy())
    action(watched)  # type: ignore[arg-type]
    return watched.calls


def outcomes(before: FrailDisk, action: Callable[[Disk], object], seeds: Sequence[int] = SEEDS) -> Iterator[FrailDisk]:
    """Every disk that a cut may leave, each once."""
    seen = set()
    for at in range(len(calls(before, action))):
        for way in WAYS:
            watched = Watched(before.copy())
            watched.at, watched.meddle = at, cut(way, power_lost)
            with pytest.raises(PowerLostError):
                action(watched)  # type: ignore[arg-type]
            for seed in seeds:
                disk = watched.disk.after_cut(seed)  # type: ignore[attr-defined]
                key = frozenset(disk.all().items())
                if key not in seen:
                    seen.add(key)
                    yield disk


def test_a_dry_run_finds_calls_to_cut(bench: Bench) -> None:
    replaced = ["create", "write", "chmod", "sync", "close", "rename", "sync_folder"]
    counts = {
        name: [call.split()[0] for call in calls(before(bench), lambda disk, do=action: do(bench, disk))]
        for name, (before, action, _) in ACTIONS.items()
    }
    assert counts["confirm"] == 2 * replaced
    assert counts["trial"] == counts["revert"] == [*2 * replaced, "symlink", "rename", "sync_folder"]
    install = counts["install"]
    fetch = ["append", "write", "write", "sync", "close", "sync_folder"]
    assert install[: len(fetch)] == fetch
    rest = install[len(fetch) :]
    assert rest[:14] == 2 * replaced, "the slot is opened"
    assert rest[-15:] == [*2 * replaced, "unlink"], "armed, and what was fetched is removed"
    file = ["create", "write", "chmod", "sync", "close"]
    library = ["create", "write", "write", "chmod", "sync", "close"]
    assert rest[14:-15] == [*file, *library, *3 * file, "sync_folder"]


@pytest.mark.parametrize("name", ACTIONS)
def test_power_is_cut_at_every_call(bench: Bench, name: str) -> None:
    before, action, may_run = ACTIONS[name]
    seen = set()
    for disk in outcomes(before(bench), lambda disk: action(bench, disk)):
        after = disk.copy()
        seen.add(bench.start(after))
        bench.finish(after)
    assert seen == set(may_run.split())


def test_power_is_cut_again_during_the_start_that_follows(bench: Bench) -> None:
    cuts = 0
    for name in ("trial", "revert", "confirm"):
        before, action, may_run = ACTIONS[name]
        for disk in outcomes(before(bench), lambda disk, do=action: do(bench, disk), seeds=SEEDS[:3]):
            for again in outcomes(disk, bench.start, seeds=SEEDS[:2]):
                assert bench.start(again) in may_run.split()
                cuts += 1
    assert cuts > 100


def test_power_is_cut_while_a_controller_is_set_up_and_gets_its_first_bundle(bench: Bench) -> None:
    def first(disk: Disk) -> None:
        bench.stock.set_up(disk)
        bench.flash(disk, bench.old)

    for disk in outcomes(FrailDisk(), first, seeds=SEEDS[:4]):
        first(disk)
        assert bench.start(disk) == bench.start(disk) == OLD, "with nothing to go back to, a trial is repeated"


def test_a_confirmed_bundle_stays_confirmed(bench: Bench) -> None:
    """What was acknowledged is on the disk, whatever had not been synced is lost, and whatever is cut off later."""
    disk = bench.tried()
    bench.confirm(disk)
    for seed in SEEDS:
        assert bench.start(disk.after_cut(seed)) == NEW

    def overwrite(disk: Disk) -> None:
        LinuxFlasher(slots(disk), "x").flash(bench.old.archive, bench.stock.source, offer=bench.offer, allow_older=True)

    for after in outcomes(disk, overwrite, seeds=SEEDS[:2]):
        record = slots(after).record()
        assert record.active == "b"
        if not record.trial:
            assert bench.start(after) == NEW


@pytest.mark.parametrize("name", ["set up", *ACTIONS])
def test_every_call_fails(bench: Bench, name: str) -> None:
    """Nothing is lost, the error is one line with the file, and the same action comes to its end."""
    before, action, may_run = ACTIONS.get(name, (lambda bench: FrailDisk(), lambda bench, disk: None, ""))
    disk = before(bench)

    def do(disk: Disk) -> object:
        return bench.stock.set_up(disk) if name == "set up" else action(bench, disk)

    told = 0
    for at, call in enumerate(calls(disk, do)):
        for number in FAILURES:
            watched = Watched(disk.copy())
            watched.at, watched.meddle = at, failing(number)
            try:
                do(watched)  # type: ignore[arg-type]
            except LinkError as error:
                assert os.strerror(number) in str(error), call
                assert "\n" not in str(error)
                told += 1
            except OSError as error:  # told by the command
                assert error.errno == number
                told += 1
            for seed in SEEDS[:3] if number == FAILURES[0] else SEEDS[:1]:
                after = watched.disk.after_cut(seed)  # type: ignore[attr-defined]
                if name == "set up":
                    bench.stock.set_up(after)
                    continue
                assert bench.start(after) in may_run.split(), (call, number)
                if number == FAILURES[0]:
                    bench.finish(after)
    assert told > 0 or name in ("trial", "revert"), "a start goes on: a disk that cannot be written stops no rack"


def test_a_disk_that_cannot_be_written_starts_what_has_proved_itself(bench: Bench) -> None:
    class ReadOnly(Watched):
        def __getattr__(self, name: str) -> object:
            self.at = len(self.calls)
            return super().__getattr__(name)

    for before, version in ((bench.old_runs(), OLD), (bench.armed(), OLD), (bench.tried(), OLD)):
        watched = ReadOnly(before)
        watched.meddle = failing(FAILURES[2])
        choice = slots(watched).choose()  # type: ignore[arg-type]
        assert str(choice.manifest.version) == version
        assert choice.slot == "a"


# --- a real disk -----------------------------------------------------------------------------------------------------


def in_a_child(action: Callable[[], object]) -> int:
    """Run `action` in a process of its own; gives how it ended, as `os.waitpid` tells."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """One in memory where possible: a sync takes its time on a disk."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


def test_a_process_is_killed_at_every_call_on_a_real_disk(bench: Bench, folder: Path) -> None:
    """The kernel keeps what was written; that this suffices is shown by real names, links and descriptors."""
    disk = RealDisk(folder)
    bench.stock.set_up(disk)
    bench.flash(disk, bench.old)
    assert bench.start(disk) == OLD
    assert slots(disk).confirm("a", self_test_passed=True, rack_healthy=True)
    versions = {OLD: bench.old, NEW: bench.new}
    kills = 0
    for at in range(200):
        here = slots(disk).record().active
        other = versions[NEW if bench.start(disk) == OLD else OLD]

        def life(at: int, other: Manifest = other, here: str = here) -> None:
            watched: Disk = Watched(disk)  # type: ignore[assignment]
            watched.at, watched.meddle = at, cut("amid", killed)  # type: ignore[attr-defined]
            flasher = LinuxFlasher(slots(watched), "x")
            flasher.flash(other.archive, bench.stock.source, offer=bench.offer, allow_older=True)
            slots(watched).choose()
            slots(watched).confirm("b" if here == "a" else "a", self_test_passed=True, rack_healthy=True)

        status = in_a_child(lambda at=at, life=life: life(at))  # type: ignore[misc]
        assert bench.start(disk) in versions
        if not os.WIFSIGNALED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
        if not slots(disk).free():
            bench.start(disk)
        life(-1)  # the same comes to its end
    assert kills > 70


# --- any order -------------------------------------------------------------------------------------------------------


class Life(RuleBasedStateMachine):
    """Any order of what can happen to a controller, with power cut anywhere."""

    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        self.disk = self.bench.old_runs()
        self.running = "a"
        self.cut: tuple[int, str, int] | None = None
        self.proven = {"a"}  # what was confirmed; two where power was cut while that was written

    def attempt(self, action: Callable[[Disk], object]) -> None:
        watched = Watched(self.disk)
        seed = 0
        if self.cut is not None:
            watched.at, way, seed = self.cut
            watched.meddle = cut(way, power_lost)
        try:
            action(watched)  # type: ignore[arg-type]
        except PowerLostError:
            self.disk = self.disk.after_cut(seed)
            self.cut = None
            self.running = ""
        except Refused as refusal:
            assert "no bundle is good" not in str(refusal)

    @rule(at=st.integers(0, 80), way=st.sampled_from(WAYS), seed=st.integers(0, 2**16))
    def power_will_be_cut(self, at: int, way: str, seed: int) -> None:
        self.cut = at, way, seed

    @rule(new=st.booleans())
    def flash(self, new: bool) -> None:
        name = (self.bench.new if new else self.bench.old).archive

        def do(disk: Disk) -> None:
            flasher = LinuxFlasher(slots(disk), "x")
            flasher.flash(name, self.bench.stock.source, offer=self.bench.offer, allow_older=True)

        self.attempt(do)

    @precondition(lambda self: self.running)
    @rule(evidence=st.tuples(st.booleans(), st.booleans()))
    def confirm(self, evidence: tuple[bool, bool]) -> None:
        def do(disk: Disk) -> None:
            self.proven.add(self.running)
            slots(disk).confirm(self.running, self_test_passed=evidence[0], rack_healthy=evidence[1])
            self.proven = {slots(disk).record().active}

        self.attempt(do)

    @rule()
    def start(self) -> None:
        def do(disk: Disk) -> None:
            assert self.bench.start(disk) in (OLD, NEW)
            self.running = slots(disk).record().running

        self.attempt(do)
        assert slots(self.disk).record().active in self.proven, "what was confirmed is never forgotten"

    @rule(new=st.booleans())
    def all_goes_well(self, new: bool) -> None:
        """Unless power is cut."""
        self.flash(new)
        self.start()
        if self.running:
            self.confirm((True, True))


def test_any_order_of_events(bench: Bench) -> None:
    class Here(Life):
        pass

    Here.bench = bench
    run_state_machine_as_test(Here, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))


def test_the_board_is_that_of_the_bench(bench: Bench) -> None:
    assert slots(bench.old_runs()).board() == BOARD
