"""Trials on a board that is there: it has one configuration, in its flash, so that only some of them can be played."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bms.runtime import engine
from bms.trial.case import Trial
from bms.trial.play import configuration
from hal.errors import ConfigError

FLASH = "configuration_bit"
"""The kind of `[[internal]]` that alters the configuration."""


def fitting(trials: Sequence[Trial], engine_text: str) -> tuple[list[Trial], str]:
    """The trials that the board of `engine_text` can play, and a line about those that are left out, '' for none.

    Raises `ConfigError` where it can play none of them, with the firmware that plays the most; `LinkError`.
    """
    from bms.firmware.baked import Baked
    from bms.firmware.inloop import building, introduced

    own = introduced(engine.place(engine_text))
    made = [Baked.of(configuration(trial).bytes) for trial in trials]
    fit = [trial for trial, found in zip(trials, made, strict=True) if found.digest == own.config]
    if not fit:
        most, count = Counter(found.digest for found in made).most_common(1)[0]
        best = next(found for found in made if found.digest == most)
        raise ConfigError(
            f"{engine.place(engine_text)}: its configuration is {own.config}, which none of the trials has; "
            f"for {count} of {len(trials)} of them: {building(own.target, best)}"
        )
    played = [trial for trial in fit if all(entry["kind"] != FLASH for entry in trial.internals)]
    left = len(trials) - len(played)
    return played, f"{left} of {len(trials)} trials need another configuration, and are left out" if left else ""
