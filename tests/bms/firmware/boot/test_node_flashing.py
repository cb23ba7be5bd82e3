"""`hal/flash/uds.py`, through udsoncan and can-isotp, before the controller of node.py: on a bus in this process, and as processes."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from can import CanOperationError

pytest.importorskip("udsoncan", reason="pip install 'rackbms[firmware]'")
pytest.importorskip("isotp", reason="pip install 'rackbms[firmware]'")

from udsoncan.exceptions import TimeoutException

from bms.cli import main
from bms.firmware import keys
from bms.firmware.boot.host import NO_SLOT, Event, Outcome, Verdict
from bms.firmware.boot.node import Node, OnBus, serve
from bms.firmware.identity import layouts_hash
from hal.errors import ConfigError, LinkError
from hal.flash import answers, uds
from hal.flash.answers import Refused, State
from hal.flash.can_bus import CanPlace, can_place
from hal.flash.image import Version
from hal.flash.uds import UdsFlasher
from hal.registry import parse_url
from hal.serve.hub import Hub

PROGRAM = bytes(range(256)) * 22
NUMBERS = itertools.count()


class Rig:
    """A node that is served by a thread, and the URL at which it is."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.url = f"can:virtual:flashing-{next(NUMBERS)}"
        self.place: CanPlace = can_place(parse_url(self.url))
        self._ending: list[bool] = []
        self._bus = self.place.open()
        self._thread = threading.Thread(
            target=serve, args=(node, OnBus(self.place, self._bus), self._ending), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._ending.append(True)
        self._thread.join()
        self._bus.shutdown()


@pytest.fixture
def rig(workshop) -> Iterator[Rig]:
    """A controller that runs version 1.0.0 from slot 0."""
    controller = workshop.controller()
    assert controller.update(NO_SLOT, workshop.image("1.0.0", 1, b"one")) is Outcome.GOOD
    assert controller.arm(0) is Verdict.GOOD
    assert controller.confirm(controller.boot().slot)
    made = Rig(Node(controller))
    made.node.contactors(True)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this computer is, an answer that comes is waited for."""
    monkeypatch.setattr(uds, "ANSWER_S", 60.0)
    monkeypatch.setattr(uds, "PENDING_S", 60.0)
    monkeypatch.setattr(answers, "BACK_S", 60.0)
    monkeypatch.setattr(answers, "PAUSE_S", 0.01)


def sign(workshop) -> Callable[[bytes], bytes]:
    return keys.private_key(workshop.key).sign


def test_an_image_is_flashed_and_runs(rig: Rig, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    told: list[tuple[int, int]] = []
    with UdsFlasher(rig.place, sign(workshop)) as flasher:
        assert flasher.state().version == Version(1, 0, 0)
        after = flasher.flash(image, lambda done, size: told.append((done, size)))
    assert (after.version, after.running) == (Version(2, 0, 0), 1)
    assert told == [(min(done, len(image)), len(image)) for done in range(0, len(image) + 2048, 2048)]
    assert rig.node.controller.counters.violations == 0


@pytest.mark.parametrize(
    ("version", "counter", "changes", "reason"),
    [
        ("2.0.0", 2, {"board": "other"}, "the image is for another board"),
        ("2.0.0", 2, {"layouts": bytes(8)}, "the image has other layouts of records than the controller"),
        ("2.0.0", 0, {}, "the security counter of the image is smaller than that of an image that ran before"),
        ("2.0.0", 2, {"address": 0x4000}, "the image is linked for the other slot"),
    ],
)
def test_a_refusal_has_its_reason(rig: Rig, workshop, version, counter, changes, reason) -> None:
    with UdsFlasher(rig.place, sign(workshop)) as flasher:
        with pytest.raises(Refused, match=rf"{rig.url}: refused: {reason}$"):
            flasher.flash(workshop.image(version, counter, b"p", **changes))
        state = flasher.state()
    assert (state.version, state.event) == (Version(1, 0, 0), Event.REFUSED)
    assert reason in state.told()


def test_other_refusals(rig: Rig, workshop) -> None:
    good, other = workshop.image("2.0.0", 2, b"p"), keys.private_key(workshop.other_key).sign
    cases: list[tuple[Callable[[bytes], bytes] | None, bytes, type[Exception], str]] = [
        (sign(workshop), good + bytes(9000), Refused, "slot has 8192"),
        (other, good, Refused, "the proof was made with another key"),
        (None, good, ConfigError, "give the private key with --key"),
        (sign(workshop), workshop.image("2.0.0", 2, b"p", key=workshop.other_key), Refused, "signed with another key"),
        (sign(workshop), good[:600] + b"x" + good[601:], Refused, "refused: "),
    ]
    for key, image, kind, reason in cases:
        with UdsFlasher(rig.place, key) as flasher, pytest.raises(kind, match=reason):
            flasher.flash(image)
    rig.node.contactors(False)
    operations = rig.node.controller.counters.operations
    with UdsFlasher(rig.place, sign(workshop)) as flasher, pytest.raises(Refused, match="its contactors are closed"):
        flasher.flash(good)
    assert rig.node.controller.counters.operations == operations


def test_contactors_that_close_in_the_middle_end_it(rig: Rig, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    with (
        UdsFlasher(rig.place, sign(workshop)) as flasher,
        pytest.raises(Refused, match="its contactors are closed: open them first"),
    ):
        flasher.flash(image, lambda done, size: rig.node.contactors(done < 4000))
    assert rig.node.controller.slot(1)[4096] == 0xFF


def test_it_goes_on_where_it_was_cut_off(rig: Rig, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)

    def cut(done: int, size: int) -> None:
        if done > 4000:
            raise KeyboardInterrupt

    told: list[int] = []
    with UdsFlasher(rig.place, sign(workshop)) as flasher, pytest.raises(KeyboardInterrupt):
        flasher.flash(image, cut)
    with UdsFlasher(rig.place, sign(workshop)) as flasher:
        after = flasher.flash(image, lambda done, size: told.append(done))
    assert after.version == Version(2, 0, 0)
    assert told[0] == 3072  # four sectors were there, the last of them is sent again


def test_lost_answers_are_asked_for_again(rig: Rig, workshop) -> None:
    image, lost = workshop.image("2.0.0", 2, PROGRAM), [1, 3, 3]
    with UdsFlasher(rig.place, sign(workshop)) as flasher:
        transfer = flasher._client.transfer_data

        def lossy(number: int, data: bytes) -> None:
            transfer(number, data)
            if number in lost:
                lost.remove(number)
                raise TimeoutException

        flasher._client.transfer_data = lossy
        assert flasher.flash(image).version == Version(2, 0, 0)
    assert not lost


def test_a_controller_that_falls_silent(rig: Rig, workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def silent(number: int, data: bytes) -> None:
        calls.append(number)
        raise TimeoutException

    with UdsFlasher(rig.place, sign(workshop)) as flasher:
        flasher._client.transfer_data = silent
        with pytest.raises(LinkError, match="does not answer; the same command goes on"):
            flasher.flash(workshop.image("2.0.0", 2, PROGRAM))
    assert calls == [1, 1, 1]


def test_a_controller_that_does_not_come_back(rig: Rig, workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BACK_S", 0.0)
    with UdsFlasher(rig.place, sign(workshop)) as flasher:
        state = flasher.state

        def gone() -> State:
            if rig.node.starts > 1:
                raise LinkError("nobody is there")
            return state()

        monkeypatch.setattr(flasher, "state", gone)
        with pytest.raises(LinkError, match="took the image, and did not come back"):
            flasher.flash(workshop.image("2.0.0", 2, PROGRAM))


def test_nobody_is_on_the_bus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(uds, "ANSWER_S", 0.1)
    assert main(["flash", "--to", "can:virtual:nobody-is-here"]) == 2
    assert "bms: error: can:virtual:nobody-is-here: the controller does not answer" in capsys.readouterr().err


def test_a_bus_that_is_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uds, "ANSWER_S", 0.1)

    def gone(message: object) -> None:
        raise CanOperationError("the adapter was pulled out")

    with UdsFlasher(can_place(parse_url("can:virtual:lost"))) as flasher:
        monkeypatch.setattr(flasher._bus, "send", gone)
        with pytest.raises(LinkError, match=r"the bus was lost \(the adapter was pulled out\)"):
            flasher.state()


def test_an_image_on_trial_has_to_be_over_first(rig: Rig, workshop) -> None:
    rig.node.healthy = False
    with UdsFlasher(rig.place, sign(workshop)) as flasher:
        assert "on trial" in flasher.flash(workshop.image("2.0.0", 2, b"p")).told()
        with pytest.raises(Refused, match="the image that runs is on trial"):
            flasher.flash(workshop.image("3.0.0", 2, b"p"))


def test_the_command(rig: Rig, workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.bin"
    words = ["flash", "--to", rig.url, "--key", str(workshop.key), str(path)]
    path.write_bytes(workshop.image("2.0.0", 2, PROGRAM) + b"and what follows it in the file")
    assert main(words[:3]) == 0
    assert "before: host: runs 1.0.0 from slot 0" in capsys.readouterr().out
    assert main(words) == 0
    out = capsys.readouterr().out
    assert f"of {path.stat().st_size - 31} bytes" in out
    assert "after:  host: runs 2.0.0 from slot 1, configuration 08090a0b0c0d0e0f" in out
    path.write_bytes(workshop.image("2.0.0", 1, b"p"))
    assert main(words) == 1
    assert "refused: the security counter of the image is smaller" in capsys.readouterr().err
    path.write_bytes(b"no image" * 9)
    assert main(words) == 2
    assert "sign it with bms sign" in capsys.readouterr().err
    assert main(["flash", "--to", "can:virtual"]) == 2


def test_as_processes_on_a_hub(workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(workshop.image("1.0.0", 1, PROGRAM, layouts=layouts_hash()))
    with Hub(0) as hub:
        url = f"can:socketcand:can0?host=127.0.0.1&port={hub.port}&request_id=0x700&response_id=0x708"
        words = ["--can", url, "--key", str(workshop.key.with_suffix(".pub")), "--unhealthy"]
        node = subprocess.Popen(
            [sys.executable, "-m", "bms.firmware.boot.node", *words], stdout=subprocess.PIPE, text=True
        )
        try:
            assert node.stdout is not None
            assert node.stdout.readline() == "no image is good: the boot loader waits for one\n"
            assert main(["flash", "--to", url, "--key", str(workshop.key), "--wait", "0", str(path)]) == 0
            assert node.stdout.readline() == "runs 1.0.0+0 in slot 0, security counter 0; tried\n"
            assert "host: runs 1.0.0 from slot 0" in capsys.readouterr().out
        finally:
            node.terminate()
            node.wait()
            node.stdout.close()
        assert node.returncode == 0
