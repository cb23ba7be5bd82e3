"""The pytest plugin: `pytest --rack URL` gives tests a rack, its twin, its bus, faults and the controller.

Fixtures live for the session: one rack is opened once. After every test that used it the faults are cleared, the
contactors opened and the controller started anew; at the end of the session the rack is closed, whatever ended it.

Nothing of ours is imported before a test asks for a rack: a project that merely has this package installed does not
notice.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

if TYPE_CHECKING:
    from bms.rig.bench import Bench, Faults
    from bms.rig.driver import Driver
    from hal.contract import HasTruth, Rack

FIXTURES = frozenset({"rack", "twin", "bus", "faults", "controller"})
MARKER = "rack_needs"
NO_RACK = "needs a rack: pytest --rack URL, for example --rack sim:lfp_280"

T = TypeVar("T")

_BENCH: pytest.StashKey[Bench] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the plugin."""
    group = parser.getgroup("rackbms", "tests on a rack")
    group.addoption("--rack", metavar="URL", help="the rack of the fixtures: sim:lfp_280, can:..., modbus:...")
    group.addoption("--rack-env", metavar="FILE", type=Path, help="what this bench is, as TOML (docs/bench_rig.md)")
    group.addoption(
        "--rack-strict", action="store_true", help="a test that this bench cannot run fails instead of being skipped"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(name, ...): skip, with the reason, where the rack lacks one of these: a capability "
        "(hal.contract.Capabilities), bus, virtual_time",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Read what the bench is before the first test runs: a mistake in it is one line."""
    if items and _asked(config):
        _environment(config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this bench cannot do."""
    names = [name for mark in item.iter_markers(MARKER) for name in mark.args]
    if names:
        _need(item.config, *names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Lead the bench back to rest after a test that used it."""
    yield
    bench = item.config.stash.get(_BENCH, None)
    if bench is not None and bench.open and FIXTURES.intersection(getattr(item, "fixturenames", ())):
        bench.rest()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the rack where the session ended before its fixtures did."""
    bench = config.stash.get(_BENCH, None)
    if bench is not None:
        bench.close()


def _asked(config: pytest.Config) -> bool:
    return bool(config.getoption("--rack") or config.getoption("--rack-env"))


def _environment(config: pytest.Config) -> Any:
    from bms.rig import environment
    from hal.errors import RackBmsError

    try:
        return environment.load(config.getoption("--rack"), config.getoption("--rack-env"))
    except RackBmsError as error:
        raise pytest.UsageError(str(error)) from None


def _bench(config: pytest.Config) -> Bench:
    """The bench of the session, opened when it is first asked for."""
    bench = config.stash.get(_BENCH, None)
    if bench is None:
        if not _asked(config):
            _cannot(config, NO_RACK)
        from bms.rig.bench import Bench

        environment = _environment(config)
        if "PYTEST_XDIST_WORKER" in os.environ and not _or_exit(lambda: environment.virtual):
            pytest.exit(f"{environment.rack}: one rack, one process: leave out -n", pytest.ExitCode.USAGE_ERROR)
        bench = _or_exit(lambda: Bench(environment))
        config.stash[_BENCH] = bench
    return bench


def _or_exit(make: Callable[[], T]) -> T:
    """What `make` returns; what a person can mend ends the session with one line."""
    from hal.errors import RackBmsError

    try:
        return make()
    except RackBmsError as error:
        pytest.exit(f"rackbms: {error}", returncode=pytest.ExitCode.USAGE_ERROR)


def _cannot(config: pytest.Config, reason: str) -> NoReturn:
    """Skip the test; with `--rack-strict`, let it fail."""
    if config.getoption("--rack-strict"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _need(config: pytest.Config, *names: str) -> Bench:
    """The bench, if it can do all of `names`; otherwise the test ends here."""
    from hal.errors import ConfigError

    bench = _bench(config)
    for name in names:
        try:
            reason = bench.lacks(name)
        except ConfigError as error:
            pytest.fail(f"marker {MARKER}: {error}", pytrace=False)
        if reason:
            _cannot(config, reason)
    return bench


def _end_on_sigterm(number: int, frame: object) -> NoReturn:
    """End the session in order: the finalisers open the contactors."""
    pytest.exit("ended by SIGTERM", returncode=128 + number)


@pytest.fixture(scope="session")
def rack(pytestconfig: pytest.Config, record_testsuite_property: Any) -> Iterator[Rack]:
    """The rack of `--rack`, open (`hal.contract.Rack`); faults can be injected into what it tells."""
    bench = _bench(pytestconfig)
    before = signal.signal(signal.SIGTERM, _end_on_sigterm)
    try:
        for name, value in _or_exit(bench.properties).items():
            record_testsuite_property(name, value)
        yield bench.rack
    finally:
        opened = bench.close()
        signal.signal(signal.SIGTERM, before)
    if not opened:
        pytest.fail("the contactors did not open at the end of the session", pytrace=False)


@pytest.fixture(scope="session")
def twin(pytestconfig: pytest.Config, rack: Rack) -> HasTruth:
    """The same rack where it is a twin, whose `truth` can be read; otherwise the test is skipped."""
    from hal.contract import HasTruth

    _need(pytestconfig, "truth")
    assert isinstance(rack, HasTruth)
    return rack


@pytest.fixture(scope="session")
def bus(pytestconfig: pytest.Config, rack: Rack) -> Iterator[Any]:
    """A python-can bus beside the rack's, where the rack is on CAN; otherwise the test is skipped."""
    bench = _need(pytestconfig, "bus")
    import can

    with can.Bus(**bench.bus_arguments()) as made:
        yield made


@pytest.fixture(scope="session")
def faults(pytestconfig: pytest.Config, rack: Rack) -> Faults:
    """Faults to inject into what the rack tells; all of them are cleared after the test."""
    return _bench(pytestconfig).faults


@pytest.fixture(scope="session")
def controller(pytestconfig: pytest.Config, rack: Rack) -> Driver:
    """The product's controller on the rack, to be asked step by step (`bms.rig.driver.Driver`)."""
    bench = _bench(pytestconfig)
    return _or_exit(lambda: bench.controller)
