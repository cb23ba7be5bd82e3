"""A bundle on trial confirms itself: once its self-test has passed and the rack has been healthy for a while."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Thread

from bms.core.step import Controller
from bms.runtime.explain import mask_of
from hal.contract import RackState, Truth
from hal.errors import ConfigError

HEALTHY_S = 60.0
"""So long the rack has to be healthy on end."""
AGAIN_S = 60.0
"""After which a confirmation that could not be written is tried again."""
PATIENCE_S = 10.0  # for a confirmation under way, when the run ends
PASSED = frozenset({RackState.STANDBY, RackState.CONNECTED})
"""States that are reached through the self-test alone, and in which all is well."""

Confirm = Callable[[], bool]


class BundleTrial:
    """Observer of a loop. `confirm` is called once, in a thread of its own, for it waits for a disk; while it raises
    `OSError`, again and again. It gives whether the bundle is confirmed.
    """  # fmt: skip

    def __init__(self, controller: Controller, confirm: Confirm) -> None:
        self._controller = controller
        self._confirm = confirm
        self._healthy_s = 0.0
        self._due_s = HEALTHY_S
        self._thread: Thread | None = None
        self._ended = False

    def __call__(self, step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        """Look at the step that was made."""
        if self._ended or (self._thread is not None and self._thread.is_alive()):
            return
        command = self._controller.command
        state = RackState(int(command.head["state"][0]))
        healthy = state in PASSED and not mask_of(command.fault_fatal)
        self._healthy_s = self._healthy_s + dt_s if healthy else 0.0
        if self._healthy_s >= self._due_s:
            self._due_s = self._healthy_s + AGAIN_S
            self._thread = Thread(target=self._try, name="confirm", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let a confirmation that is under way end."""
        if self._thread is not None:
            self._thread.join(PATIENCE_S)

    def _try(self) -> None:
        try:
            confirmed = self._confirm()
        except OSError as error:
            print(f"the bundle could not be confirmed: {error.filename}: {error.strerror}", file=sys.stderr, flush=True)
            return
        self._ended = True
        print("the bundle is confirmed" if confirmed else "the bundle is not on trial", file=sys.stderr, flush=True)


def open_trial(url: str, controller: Controller) -> BundleTrial:
    """The trial of the bundle that `linux:FOLDER?slot=a` names. Raises `ConfigError`."""
    from bms.firmware.flash_linux import slots_of
    from hal.flash.linux import linux_place
    from hal.registry import parse_url

    parts = parse_url(url)
    if parts.scheme != "linux" or "slot" not in parts.query:
        raise ConfigError(f"--confirm {url}: expected linux:FOLDER?slot=a")
    place = linux_place(parts)
    slots = slots_of(place.root)
    slots.board()
    return BundleTrial(controller, lambda: slots.confirm(place.slot, self_test_passed=True, rack_healthy=True))
