"""What takes down the steps of a run: the whole of it, and the minutes around each trip. Every step is packed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bms.core.step import Controller
from bms.runtime.blackbox import BlackBox
from bms.runtime.recording import Recorder, Telling, header_of, packed_step
from hal.codec import recording as codec
from hal.contract import RackInfo, Truth
from hal.errors import DataError


class TakeDown:
    """Recorder and black box as the loop knows one recorder.

    `recording`: the file of the whole run, or None for the black box alone, whose files go into `folder`. `rack` is
    told of every decision where it is a recorder itself. Raises `DataError` if the file cannot be created.
    """

    def __init__(
        self,
        folder: Path,
        recording: Path | None,
        info: RackInfo,
        controller: Controller,
        about: dict[str, Any],
        period_s: float,
        rack: object = None,
    ) -> None:
        self._controller = controller
        self.recorder: Recorder | None = None
        if recording is not None:
            self.recorder = Recorder(recording, header_of(info, controller, about), info.n_cells, info.n_sensors)
        self._telling = Telling(rack, info, controller, about)
        self._codec = self.recorder.codec if self.recorder else codec.StepCodec(info.n_cells, info.n_sensors)
        self.box = BlackBox(folder, info, controller, about, period_s, packer=self._codec)

    def add(self, dt_s: float, request: int, status: int, controller: Any, truth: Truth | None) -> None:
        """Take down the step that `controller` has just made."""
        step = packed_step(self._codec, dt_s, request, status, controller, truth)
        if self.recorder is not None:
            self.recorder.append(step)
        self.box.keep(step, controller.command)
        self._telling.add(dt_s, request, status, controller, truth)

    def close(self, outcome: dict[str, Any]) -> None:
        """Finish all files."""
        if self.recorder is not None:
            self.recorder.close(outcome)
        self.box.close()

    @property
    def bytes_written(self) -> int:
        """Size of the recording of the whole run."""
        return self.recorder.bytes_written if self.recorder is not None else 0

    def complain(self) -> None:
        """Raise `DataError` if a file is not complete."""
        if self.recorder is not None and self.recorder.error is not None:
            error = self.recorder.error
            raise DataError(f"{self.recorder.path}: the recording is incomplete: {error.strerror or error}")
        if self.box.error is not None:
            raise self.box.error
