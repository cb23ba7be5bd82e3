"""Lints register maps: the definitions of a profile's own models, and what a controller would miss."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bms.racks.findings import ERROR, WARNING, Finding, of_error
from hal.codec import register_profile
from hal.codec.register_profile import ModelSpec, Profile, Spec
from hal.codec.sunspec import SIZES
from hal.errors import ConfigError

MISSED = {
    "cell_v": (ERROR, "no model tells the voltages of the cells"),
    "current_a": (WARNING, "the current is not told, and nothing counts charge"),
    "pack_v": (WARNING, "the sum of the cells is compared with nothing"),
    "sensor_degc": (WARNING, "no temperature is told"),
    "contactors": (WARNING, "the feedback of the contactors is not told"),
}
"""Fields of a measurement: how bad it is where no point carries one, and why."""

STANDS_FOR = {"sensor_degc": ("sensor_degc", "cell_degc")}


def lint(name: str) -> tuple[str, list[Finding]]:
    """What the profile is, and all findings about it. Raises `ConfigError` for one that cannot be read."""
    flaws: list[ConfigError] = []
    profile = register_profile.load(name, flaws)
    plain = profile.rack is not None
    found = [
        *map(of_error, flaws),
        *(() if plain else _models(profile, register_profile.folder_of(name))),
        *_twice(profile),
        *_scales(profile),
        *(() if _steers(profile) else (*_missed(profile), *_commands(profile))),
    ]
    points = sum(len(_specs(one)) for one in profile.models)
    return f"{profile.source}: {len(profile.models)} {'blocks' if plain else 'models'}, {points} points", found


def _specs(one: ModelSpec) -> dict[str, Spec]:
    """The points of a model, with those of its groups."""
    return {**one.points, **{name: spec for _, group in one.groups.values() for name, spec in group.items()}}


# --- definitions ----------------------------------------------------------------------------------------------------


def _models(profile: Profile, folder: Any) -> Iterator[Finding]:
    """Definitions that lie beside the profile; those of the SunSpec Alliance are not ours to mend."""
    for one in profile.models:
        file = folder.joinpath(f"model_{one.model.id}.json")
        if file.is_file():
            table = json.loads(file.read_text(encoding="utf-8"))
            yield from _model(Path(str(file)).name, table)


def _model(source: str, table: Mapping[str, Any]) -> Iterator[Finding]:
    fixed = table["group"]
    groups = fixed.get("groups", [])
    head = [(point["name"], point["type"]) for point in fixed["points"][:2]]
    if head != [("ID", "uint16"), ("L", "uint16")]:
        told = ", ".join(f"{name} {kind}" for name, kind in head)
        yield Finding(
            ERROR,
            source,
            "points",
            told,
            "a model begins with its number and its length",
            "begin with ID and L, uint16",
        )
    names = {point["name"] for point in fixed["points"]}
    for group in (fixed, *groups):
        yield from _points(source, group, names)
    for k, group in enumerate(groups):
        count = group.get("count", 1)
        key = f"group {group['name']} count"
        if isinstance(count, str) and count not in names:
            yield Finding(ERROR, source, key, count, "the model has no such point", "name one, or give a number")
        if count == 0 and k < len(groups) - 1:
            yield Finding(
                ERROR, source, key, "0", "takes all that is left, and other groups follow: their length is wrong",
                "move it to the end, or name the point that counts it",
            )  # fmt: skip


def _points(source: str, group: Mapping[str, Any], known: set[str]) -> Iterator[Finding]:
    seen: set[str] = set()
    for point in group["points"]:
        name, kind, size = point["name"], point["type"], point.get("size")
        key = f"point {name}"
        if name in seen:
            yield Finding(ERROR, source, key, "", "the name is given twice in one group", "rename one of them")
        seen.add(name)
        if size is not None and kind in SIZES and size != SIZES[kind]:
            yield Finding(
                ERROR, source, f"{key} size", str(size), f"{kind} takes {SIZES[kind]}: all that follows is shifted",
                f"write {SIZES[kind]}, or another type",
            )  # fmt: skip
        factor = point.get("sf")
        if isinstance(factor, str) and factor not in known:
            yield Finding(ERROR, source, f"{key} sf", factor, "the model has no such point", "name one, or a number")


# --- the profile ----------------------------------------------------------------------------------------------------


def _twice(profile: Profile) -> Iterator[Finding]:
    seen: set[int] = set()
    for one in profile.models:
        if one.model.id in seen:
            yield Finding(
                ERROR, profile.source, "[[model]] id", str(one.model.id), "is given twice: the second is never found",
                "put all of its points into one",
            )  # fmt: skip
        seen.add(one.model.id)


def _scales(profile: Profile) -> Iterator[Finding]:
    """Points whose scale factor nobody gives: a server would send them as whole numbers without a scale."""
    for one in profile.models:
        places = [(one.points, one.model.fixed.points)]
        places += [(one.groups[group.name][1], group.points) for group in one.model.groups]
        for specs, points in places:
            for name in specs:
                factor = points[name].sf
                if isinstance(factor, str) and factor not in one.points:
                    yield Finding(
                        WARNING, profile.source, f"model {one.model.id}: point {name}", "",
                        f"its scale factor {factor} has no value: a server sends whole numbers without a scale",
                        f"add {factor} = {{ value = -1 }}, or what fits",
                    )  # fmt: skip


def _steers(profile: Profile) -> bool:
    """Whether it is what a controller shows to who steers it: no controller reads it."""
    return any(spec.channel.startswith("told.") for one in profile.models for spec in _specs(one).values())


def _missed(profile: Profile) -> Iterator[Finding]:
    heard = {spec.channel for one in profile.models for spec in _specs(one).values() if spec.plain}
    for name, (severity, why) in MISSED.items():
        if heard.isdisjoint(STANDS_FOR.get(name, (name,))):
            yield Finding(
                severity, profile.source, f"field {name}", "", f"missing: {why}", "name the point that carries it"
            )


def _commands(profile: Profile) -> Iterator[Finding]:
    """Commands have a last write, and a heart-beat."""
    written = {
        spec.channel for one in profile.models if one.writable for spec in _specs(one).values()
        if spec.channel.startswith("command.")
    }  # fmt: skip
    if not written:
        return
    if profile.commit is None:
        yield Finding(
            ERROR,
            profile.source,
            "commit",
            "",
            "missing: no write makes a command effective",
            'write commit = "MODEL.POINT"',
        )
    for name, why in (
        ("contactors", "nothing opens them"),
        ("heartbeat", "the device cannot see a controller that hangs"),
    ):
        if f"command.{name}" not in written:
            yield Finding(
                WARNING, profile.source, f"field command.{name}", "", f"missing: {why}", "name the point that takes it"
            )
