"""What a campaign varies, `[vary.NAME]`: where it goes, and the distribution or the grid that it comes from."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from hal.errors import ConfigError, nearest

KINDS = ("uniform", "log_uniform", "normal", "integers", "choice", "grid")
_MORE = {"normal": ("min", "max"), "choice": ("weights",)}
MOST_OPTIONS = 10_000


@dataclass(frozen=True)
class Vary:
    """One variation. `numbers` are the two of a range or of a normal distribution, `options` those of a choice or grid.

    `labels` name the options; `weights` are shares that add up to 1, `bounds` cut a normal distribution.
    """

    name: str
    paths: tuple[str, ...]
    kind: str
    numbers: tuple[float, float] = (0.0, 0.0)
    options: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def draw(self, seed: int, k: int) -> Any:
        """The value of sample `k`: its share of the distribution below it is the one number drawn for it."""
        stream = np.random.SeedSequence([seed, k, zlib.crc32(self.name.encode())])
        # 53 bits of the generator itself, so that no later version of numpy draws otherwise; never 0, never 1
        bits = int(np.random.PCG64(stream).random_raw()) >> 11
        value = self.at((bits + 0.5) / 2.0**53)
        # twelve digits: what mathematical libraries make of the last ones does not matter, and people can read them
        return float(f"{value:.12g}") if self.type is float and self.kind != "choice" else value

    def at(self, share: float) -> Any:
        """The value below which `share` (0..1) of the distribution lies."""
        low, high = self.numbers
        if self.kind == "uniform":
            return low + share * (high - low)
        if self.kind == "log_uniform":
            return min(max(math.exp(math.log(low) + share * (math.log(high) - math.log(low))), low), high)
        if self.kind == "normal":
            normal = NormalDist(low, high)
            first, last = (normal.cdf(bound) for bound in self.bounds)
            inside = min(max(first + share * (last - first), 1e-300), 1.0 - 2.0**-53)
            return min(max(normal.inv_cdf(inside), self.bounds[0]), self.bounds[1])
        if self.kind == "integers":
            return int(low) + int(share * (int(high) - int(low) + 1))
        reached = 0.0
        for option, weight in zip(self.options, self.weights, strict=True):
            reached += weight
            if share < reached:
                return option
        return self.options[-1]

    def shown(self, value: Any) -> Any:
        """`value` as it stands in the results: a number, or text."""
        if self.labels:
            return self.labels[self.options.index(value)]
        if self.type is str:
            return value if isinstance(value, str) else json.dumps(value)
        return self.type(value)

    @property
    def type(self) -> type:
        """What `shown` gives: int, float or str."""
        if self.kind in ("uniform", "log_uniform", "normal"):
            return float
        if self.kind == "integers":
            return int
        if self.labels or not all(_is_number(option) for option in self.options):
            return str
        return int if all(isinstance(option, int) for option in self.options) else float

    def to_json(self) -> list[Any]:
        """For a digest."""
        return [
            self.name, self.paths, self.kind, self.numbers, self.options, self.labels, self.weights,
            [str(bound) for bound in self.bounds],
        ]  # fmt: skip


def parse_vary(name: str, content: Any, source: str) -> Vary:
    """The variation of a table `[vary.NAME]`. Raises `ConfigError`."""
    where = f"{source}: [vary.{name}]"
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where} = {content!r}: expected a table")
    given = [key for key in KINDS if key in content]
    if len(given) != 1:
        found = f"{' and '.join(given)} are given" if given else "it says not how"
        raise ConfigError(f"{where}: {found}; give one of {', '.join(KINDS)}")
    kind = given[0]
    known = ("path", kind, *_MORE.get(kind, ()))
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")
    if "path" not in content:
        raise ConfigError(
            f"{where}: the key 'path' is missing; give a field such as 'rack.initial_soc', or a list of them"
        )
    paths = content["path"]
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) and all(p.split(".")) for p in paths):
        raise ConfigError(
            f"{where}: path = {content['path']!r}: expected a field such as 'rack.initial_soc' or 'fault.0.value', "
            "or a list of them"
        )
    value, where = content[kind], f"{where} {kind} = {content[kind]!r}"
    if kind in ("choice", "grid"):
        return _options(name, tuple(paths), kind, value, content.get("weights"), where)
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(number) for number in value):
        raise ConfigError(f"{where}: expected two numbers, [{'mean, sd' if kind == 'normal' else 'lowest, highest'}]")
    low, high = value
    if kind == "normal":
        return Vary(name, tuple(paths), kind, (float(low), float(high)), bounds=_bounds(content, low, high, where))
    if kind == "integers" and not (isinstance(low, int) and isinstance(high, int)):
        raise ConfigError(f"{where}: expected two whole numbers")
    if kind == "log_uniform" and low <= 0:
        raise ConfigError(f"{where}: must be larger than 0; or use uniform")
    if low > high:
        raise ConfigError(f"{where}: the lowest comes first")
    return Vary(name, tuple(paths), kind, (low, high))


def _bounds(content: Mapping[str, Any], mean: float, sd: float, where: str) -> tuple[float, float]:
    bounds = content.get("min", -math.inf), content.get("max", math.inf)
    for key, bound in zip(("min", "max"), bounds, strict=True):
        if key in content and not _is_number(bound):
            raise ConfigError(f"{where} {key} = {bound!r}: expected a number")
    if sd <= 0:
        raise ConfigError(f"{where}: the standard deviation must be larger than 0")
    if not bounds[0] < bounds[1] or NormalDist(mean, sd).cdf(bounds[1]) - NormalDist(mean, sd).cdf(bounds[0]) < 1e-6:
        raise ConfigError(f"{where} min = {bounds[0]:g}, max = {bounds[1]:g}: next to nothing lies between them")
    return float(bounds[0]), float(bounds[1])


def _options(name: str, paths: tuple[str, ...], kind: str, value: Any, weights: Any, where: str) -> Vary:
    labels: tuple[str, ...] = ()
    if isinstance(value, Mapping):
        labels, value = tuple(value), list(value.values())
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{where}: expected a list of values, or a table with a name for each")
    if len(value) > MOST_OPTIONS:
        raise ConfigError(f"{where}: {len(value):,} values, at most {MOST_OPTIONS:,}")
    if any(value[k] in value[:k] for k in range(1, len(value))):
        raise ConfigError(f"{where}: a value stands twice; remove one, or give weights to a choice")
    if weights is None:
        weights = [1.0] * len(value)
    if not isinstance(weights, list) or len(weights) != len(value) or not all(map(_is_number, weights)):
        raise ConfigError(f"{where} weights = {weights!r}: expected {len(value)} numbers")
    if min(weights) < 0 or not sum(weights) > 0:
        raise ConfigError(f"{where} weights = {weights!r}: must not be negative, and not all 0")
    total = math.fsum(weights)
    return Vary(name, paths, kind, options=tuple(value), labels=labels, weights=tuple(w / total for w in weights))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
