"""What a campaign says: shares with their intervals, lead times, false alarms for each rack-year, the worst samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bms.trial.campaign import Campaign
from bms.trial.campaign_margin import nearest
from bms.trial.campaign_sample import Row
from bms.trial.campaign_vary import Vary

CONFIDENCE = 0.95
Z = 1.959963984540054  # of a two-sided interval with that confidence
YEAR_S = 365.25 * 86400.0
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
BINS = 6
WORST = 10
NEAREST = 5
TIMES = {
    "detect_s": "injection to detection",
    "open_s": "injection to open contactors",
    "lead_venting_s": "detection to venting",
    "lead_ignition_s": "detection to ignition",
}
NOTE = (
    "A simulation: twins of racks, not racks. Shares and times hold for what the campaign draws, not for what happens "
    "to racks in the field."
)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The interval of a share, `hits` of `n`, with 95 % confidence [Wilson, JASA 22 (1927) 209]."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = hits / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if hits == 0 else max(middle - half, 0.0)), (1.0 if hits == n else min(middle + half, 1.0))


def poisson_upper(count: int, confidence: float = CONFIDENCE) -> float:
    """The largest mean with which `count` events or fewer are not rarer than 1 - `confidence` [Garwood 1936].

    One-sided: 3.0 events where none was seen, with 95 %.
    """
    low, high = float(count), count + 10.0 * math.sqrt(count + 1.0) + 20.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if _poisson_below(count, middle) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _poisson_below(count: int, mean: float) -> float:
    """Probability of at most `count` events."""
    if mean <= 0.0:
        return 1.0
    return math.fsum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1.0)) for i in range(count + 1))


def summarise(campaign: Campaign, rows: Sequence[Row], lost: Sequence[int], made: dict[str, str]) -> dict[str, Any]:
    """All numbers of the summary, as they go into JSON. `lost`: samples whose workers died."""
    injected = [row for row in rows if row["injected_s"] is not None]
    vented = [row for row in injected if row["vented_s"] is not None]
    ignited = [row for row in injected if row["ignited_s"] is not None]
    shares = {
        "passed": _share(rows, lambda row: row["passed"]),
        "detected": _share(injected, lambda row: row["detect_s"] is not None),
        "opened": _share(injected, lambda row: row["open_s"] is not None),
        "vented": _share(injected, lambda row: row["vented_s"] is not None),
        "ignited": _share(injected, lambda row: row["ignited_s"] is not None),
        "detected before venting, of those that vented": _share(vented, lambda row: _led(row, "lead_venting_s")),
        "opened before venting, of those that vented": _share(vented, lambda row: _open_before(row, "vented_s")),
        "detected before ignition, of those that ignited": _share(ignited, lambda row: _led(row, "lead_ignition_s")),
    }
    degc = [row["max_degc"] for row in rows if row["max_degc"] is not None]
    return {
        "note": NOTE,
        "campaign": campaign.name,
        "description": campaign.description,
        "digest": campaign.digest,
        "made_with": made,
        "seed": campaign.seed,
        "samples": len(rows),
        "of": campaign.total,
        "lost": [campaign.id_of(k) for k in lost],
        "simulated_s": math.fsum(row["simulated_s"] or 0.0 for row in rows),
        "shares": {name: share for name, share in shares.items() if share["n"]},
        "times": {name: found for name in TIMES if (found := _quantiles(row[name] for row in injected))},
        "false_alarms": _false_alarms(rows),
        "nearest": nearest((row["id"], row["margins"]) for row in rows),
        "max_degc": max(degc, default=None),
        "detected_by": _counts(row["detected_by"] for row in injected),
        "first_cause": _counts(row["cause"] for row in rows),
        "by": {vary.name: _by(vary, injected) for vary in campaign.varied} if injected else {},
        "worst": worst(rows),
    }


def _led(row: Row, key: str) -> bool:
    return row[key] is not None and row[key] > 0.0


def _open_before(row: Row, key: str) -> bool:
    return row["open_s"] is not None and row["open_s"] < row[key]


def _share(rows: Sequence[Row], holds: Callable[[Row], bool]) -> dict[str, Any]:
    hits = sum(map(bool, map(holds, rows)))
    low, high = wilson(hits, len(rows))
    return {"hits": hits, "n": len(rows), "share": hits / len(rows) if rows else None, "low": low, "high": high}


def _quantiles(values: Iterable[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    found = np.quantile(known, QUANTILES)
    return {"n": len(known), **{f"p{round(100 * q)}": float(v) for q, v in zip(QUANTILES, found, strict=True)}}


def _false_alarms(rows: Sequence[Row]) -> dict[str, Any]:
    known = [row for row in rows if row["sound_s"] is not None]
    years = math.fsum(row["sound_s"] for row in known) / YEAR_S
    found: dict[str, Any] = {"rack_years": years, "confidence": CONFIDENCE}
    for name in ("warnings", "trips"):
        count = sum(row[f"false_{name}"] for row in known)
        found[name] = {
            "count": count,
            "per_rack_year": count / years if years else None,
            "upper": poisson_upper(count) / years if years else None,
        }
    return found


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _by(vary: Vary, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Detection over one variation: its values where they are few, otherwise `BINS` ranges with as many samples."""
    key = f"vary.{vary.name}"
    values = sorted({row[key] for row in rows})
    if vary.type is str or len(values) <= BINS + 2:
        groups = [(f"{value:.5g}" if isinstance(value, float) else str(value), [value, value]) for value in values]
    else:
        edges = np.quantile([row[key] for row in rows], np.linspace(0.0, 1.0, BINS + 1))
        ends = [(float(a), float(b)) for a, b in itertools.pairwise(edges) if b > a]
        groups = [(f"{low:.3g}..{high:.3g}", [low, high]) for low, high in ends]
    found = []
    for number, (label, (low, high)) in enumerate(groups):
        last = low == high or number == len(groups) - 1
        inside = [row for row in rows if low <= row[key] and (row[key] <= high if last else row[key] < high)]
        found.append({"value": label, **_share(inside, lambda row: row["detect_s"] is not None)})
    return found


def worst(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The samples to look at first, each with why: fire that nobody saw coming, failures, late sight, false alarms."""
    found: dict[str, str] = {}

    def take(chosen: Iterable[Row], why: Callable[[Row], str]) -> None:
        for row in chosen:
            if len(found) < WORST:
                found.setdefault(row["id"], why(row))

    burnt = [row for row in rows if row["vented_s"] is not None]
    take(
        (row for row in burnt if row["detect_s"] is None),
        lambda row: f"vented {row['vented_s']:.0f} s after the injection, never detected",
    )
    take(
        sorted((row for row in burnt if _late(row)), key=lambda row: row["lead_venting_s"]),
        lambda row: f"detected {-row['lead_venting_s']:.0f} s after it vented",
    )
    take(sorted((row for row in rows if _alarms(row)), key=lambda row: -_alarms(row)), _alarm_text)
    take((row for row in rows if not row["passed"]), lambda row: row["failure"] or "failed")
    take(
        sorted((row for row in burnt if _led(row, "lead_venting_s")), key=lambda row: row["lead_venting_s"]),
        lambda row: f"detected only {row['lead_venting_s']:.0f} s before it vented",
    )
    unseen = [row for row in rows if row["injected_s"] is not None and row["detect_s"] is None and row["max_degc"]]
    take(
        sorted(unseen, key=lambda row: -row["max_degc"]),
        lambda row: f"not detected, {row['max_degc']:.0f} degC at most",
    )
    return [{"id": id_, "why": why} for id_, why in found.items()]


def _late(row: Row) -> bool:
    return row["lead_venting_s"] is not None and row["lead_venting_s"] <= 0.0


def _alarms(row: Row) -> int:
    return int((row["false_warnings"] or 0) + 1000 * (row["false_trips"] or 0))


def _alarm_text(row: Row) -> str:
    return f"while nothing was wrong: {row['false_rows']}"


def missed(campaign: Campaign, summary: dict[str, Any]) -> list[str]:
    """What `[require]` asks for and the campaign does not reach, a line each."""
    wanted, shares, found = campaign.require, summary["shares"], []
    for name, least in (("passed", wanted.passed), ("detected", wanted.detected)):
        if least is not None and name in shares and shares[name]["share"] < least:
            found.append(f"{name}: {shares[name]['share']:.2%}, required are {least:.2%}")
    most, alarms = wanted.false_alarms_per_rack_year, summary["false_alarms"]
    for name in ("warnings", "trips"):
        upper = alarms[name]["upper"]
        if most is not None and (upper is None or upper > most):
            text = "nothing to judge by" if upper is None else f"up to {upper:.3g}"
            found.append(f"false {name} for each rack-year: {text}, required are at most {most:g}")
    if summary["lost"]:
        found.append(f"lost, their workers died {len(summary['lost'])} times over: {', '.join(summary['lost'][:5])}")
    return found


def lines(summary: dict[str, Any]) -> list[str]:
    """The summary as it is printed."""
    text = [f"{summary['campaign']}: {summary['samples']} of {summary['of']} samples, "
            f"{summary['simulated_s'] / 3600:,.1f} h simulated"]  # fmt: skip
    for name, share in summary["shares"].items():
        text.append(
            f"  {name:48} {share['share']:8.2%}  {share['hits']} of {share['n']}, "
            f"95 %: {share['low']:.2%}..{share['high']:.2%}"
        )
    if summary["times"]:
        head = "".join(f"{f'{round(100 * q)} %':>9}" for q in QUANTILES)
        text += ["", f"  {'times in s, quantiles':34} {'n':>6}{head}"]
        for name, found in summary["times"].items():
            values = "".join(f"{found[f'p{round(100 * q)}']:9,.0f}" for q in QUANTILES)
            text.append(f"  {TIMES[name]:34} {found['n']:6}{values}")
    alarms = summary["false_alarms"]
    text.append("")
    for name in ("warnings", "trips"):
        one = alarms[name]
        if one["upper"] is not None:
            text.append(
                f"  false {name}: {one['count']} in {alarms['rack_years']:.4g} rack-years, {one['per_rack_year']:.3g} "
                f"a rack-year, 95 %: below {one['upper']:.3g}"
            )
    if summary["nearest"]:
        text += ["", "  nearest to a warning while nothing was wrong, share of its threshold"]
        text += [f"  {one['fault']:24} {one['share']:6.2f}  {one['id']}" for one in summary["nearest"][:NEAREST]]
    if summary["worst"]:
        text += ["", "  worst samples, --only ID plays one again"]
        text += [f"  {one['id']}  {_short(one['why'])}" for one in summary["worst"]]
    return [*text, "", summary["note"]]


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."
