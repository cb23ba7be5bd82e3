"""From fits at single temperatures to one cell file: nodes over temperature, expected errors, limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bms.cells import CellParameters, Limits
from bms.lab import fit as f
from bms.lab.curves import Slow

SAME_DEGC = 4.0  # tests closer than this are one temperature
ERROR_BASE_V, ERROR_SHARE, ERROR_FAR_V = 0.001, 1.4, 0.0007
KNEE_SOC, KNEE_FAR_SOC = 0.004, 0.002
KNEE_LFP_SOC = 0.008  # its steps lie elsewhere after a charge than after a discharge
FAR_DEGC = 10.0  # an error that grows by ERROR_FAR_V (KNEE_FAR_SOC) over this distance from a dynamic test
OCV_RISE_V = 1e-5  # least rise from node to node
SPAN_DEGC = 20.0  # nodes added on both sides where only one temperature was tested

# usual limits by chemistry: charge from, discharge from, up to (degC); continuous C-rates
# (the voltage limits come from the tests)
LIMITS = {
    "lfp": (0.0, -20.0, 55.0, 1.0, 1.0),
    "na_layered": (-10.0, -20.0, 55.0, 1.0, 1.0),
    "na_pba": (-10.0, -20.0, 55.0, 1.0, 1.0),
    "na_nfpp": (-10.0, -20.0, 55.0, 1.0, 1.0),
    "nmc": (0.0, -20.0, 55.0, 1.0, 2.0),
}


def group(tests: Sequence[f.Dynamic]) -> list[list[f.Dynamic]]:
    """Tests of one temperature together, rising temperature; each gets the mean temperature of its group."""
    groups: list[list[f.Dynamic]] = []
    for test in sorted(tests, key=lambda t: (t.degc, t.name)):
        if groups and test.degc - groups[-1][0].degc <= SAME_DEGC:
            groups[-1].append(test)
        else:
            groups.append([test])
    result = []
    for members in groups:
        degc = round(float(np.mean([t.degc for t in members])), 1)
        result.append(
            [f.Dynamic(t.name, t.time_s, t.current_a, t.voltage_v, degc, t.soc, t.temperature_degc) for t in members]
        )
    return result


def _steady(test: f.Dynamic) -> bool:
    """Whether the current of a test hardly changes."""
    return float(np.std(test.current_a)) < 0.05 * float(np.mean(np.abs(test.current_a)))


def _slow_nodes(slow: Sequence[Slow]) -> list[Slow]:
    """One slow test for each temperature, the slowest; rising temperature."""
    kept: list[Slow] = []
    for test in sorted(slow, key=lambda s: (s.rate_c, s.name)):
        if all(abs(test.degc - k.degc) > SAME_DEGC for k in kept):
            kept.append(test)
    return sorted(kept, key=lambda s: s.degc)


def _kinetic(degc: f.Array | float) -> f.Array:
    """A rising axis along which voltages and logarithms of resistances are close to linear.

    It is the resistance of a process with half the usual activation energy. With 5 (25) degC of the A123 cell left
    out, the model of the others misses its voltages by 3.2 (2.1) mV RMS along this axis, by 12 (3.8) mV along 1/T and
    by 15 (4.6) mV along T.
    """
    kelvin = np.asarray(degc, float) + 273.15
    return -np.asarray(np.exp(0.5 * f.ACTIVATION_EV / f.BOLTZMANN_EV * (1.0 / kelvin - 1.0 / 298.15)))


def _interpolate(at: float, axis: f.Array, rows: Sequence[f.Array | float]) -> f.Array:
    """Linear between the points of a rising axis, constant outside."""
    table = np.array([np.atleast_1d(r) for r in rows])
    position = float(np.interp(at, axis, np.arange(axis.size)))
    k = min(int(position), max(axis.size - 2, 0))
    return table[k] + (position - k) * (table[min(k + 1, axis.size - 1)] - table[k])


def _resistances(degc: float, nodes: f.Array, tables: Sequence[f.Array]) -> f.Array:
    """Logarithm over the kinetic axis; with one temperature, and beyond the ends, the usual activation energy."""
    held = float(np.clip(degc, nodes[0], nodes[-1]))
    logs = [np.log(np.maximum(table, 1e-9)) for table in tables]
    inside = np.exp(_interpolate(float(_kinetic(held)), _kinetic(nodes), [x.ravel() for x in logs]))
    return inside.reshape(tables[0].shape) * float(f.arrhenius(degc, held))


def fit_group(tests: list[f.Dynamic], base_v: f.Array, half_gap_v: f.Array | None) -> f.Fit:
    """Fit one temperature with each candidate bend; a sharper bend must earn its place."""
    best: tuple[float, f.Fit] | None = None
    for bend_c in sorted(f.BENDS_C, reverse=True):
        candidate = f.fit_temperature(tests, base_v, hysteresis_max_v=half_gap_v, bend_c=bend_c)
        error = f.slow_error(tests, candidate.residual_v)
        if best is None or error < 0.93 * best[0]:
            best = (error, candidate)
    assert best is not None
    return best[1]


def expected_error(
    tests: list[f.Dynamic], fitted: f.Fit, base_v: f.Array, half_gap_v: f.Array | None, bend_c: float
) -> float:
    """Slow error of the voltage model to expect on tests that it has not seen, V.

    Where several tests share a temperature, each is predicted from the others over the SoC that they reach. A cell
    file made of all of them will do better than that, and worse than on its own tests: the root mean square of the two.
    """
    own = f.slow_error(tests, fitted.residual_v)
    if len(tests) == 1:
        return own
    unseen = []
    for k, test in enumerate(tests):
        others = tests[:k] + tests[k + 1 :]
        one = f.fit_temperature(others, base_v, hysteresis_max_v=half_gap_v, bend_c=bend_c)
        reach = np.concatenate([t.soc for t in others])
        error = test.voltage_v - f.model_voltage(one, test)
        unseen.append(f.slow_error([test], [error], float(reach.min()), float(reach.max())))
    return max(own, float(np.sqrt(0.5 * (own**2 + np.mean(unseen) ** 2))))


def assemble(
    slow: Sequence[Slow],
    tests: Sequence[f.Dynamic],
    *,
    name: str,
    chemistry: str,
    source: str,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[CellParameters, list[str]]:
    """Fit all temperatures and make the cell file; returns it with warnings about what the tests could not tell."""
    warnings: list[str] = []
    slow = _slow_nodes(slow)
    groups = group(tests)
    slow_degc = np.array([s.degc for s in slow])
    if any(s.charge_v is None for s in slow):
        warnings.append(
            "no slow charge in "
            + ", ".join(s.name for s in slow if s.charge_v is None)
            + ": hysteresis unknown, taken as none; "
            "OCV from discharge only"
        )
    bases = [s.base_v for s in slow]
    gaps = [np.zeros(f.SOC_OCV.size) if s.half_gap_v is None else s.half_gap_v for s in slow]
    rates = {round(float(np.median(t.current_a)) / max(s.capacity_ah for s in slow), 1) for t in tests if _steady(t)}
    if all(_steady(t) for t in tests):
        warnings.append(
            f"constant currents only ({', '.join(f'{r:g}' for r in sorted(rates))} C): "
            "RC pairs and hysteresis cannot be told apart" + ("" if len(rates) > 1 else ", nor resistance from OCV")
        )
    # the bend is a property of the cell: find it where the tests are nearest to 25 degC, use it everywhere
    found: list[tuple[f.Fit, float]] = []
    bend_c = None
    for members in sorted(groups, key=lambda g: abs(g[0].degc - 25.0)):
        degc = members[0].degc
        progress(f"{degc:g} degC: " + ", ".join(t.name for t in members))
        base, gap = _interpolate(degc, slow_degc, bases), _interpolate(degc, slow_degc, gaps)
        if bend_c is None:
            one = fit_group(members, base, gap)
            bend_c = one.bend_a / one.capacity_ah
        else:
            one = f.fit_temperature(members, base, hysteresis_max_v=gap, bend_c=bend_c)
        found.append((one, ERROR_BASE_V + ERROR_SHARE * expected_error(members, one, base, gap, bend_c)))
    found.sort(key=lambda pair: pair[0].degc)
    fits, errors = [one for one, _ in found], [error for _, error in found]
    fit_degc = np.array([one.degc for one in fits])

    nodes = sorted(
        {round(float(x), 1) for x in fit_degc}
        | {round(s.degc, 1) for s in slow if np.min(np.abs(s.degc - fit_degc)) > SAME_DEGC}
    )
    if len(nodes) == 1:
        warnings.append(
            f"tests at one temperature only ({nodes[0]:g} degC): resistances elsewhere follow an activation "
            f"energy of {f.ACTIVATION_EV} eV; "
            "capacity and OCV are taken as constant"
        )
        nodes = [nodes[0] - SPAN_DEGC, nodes[0], nodes[0] + SPAN_DEGC]
    shifts = [one.ocv_v - _interpolate(one.degc, slow_degc, bases) for one in fits]
    kinetic = _kinetic(fit_degc)
    rows: dict[str, list[f.Array]] = {
        key: [] for key in ("ocv", "m", "r", "capacity", "eta", "gamma", "m0", "error", "knee")
    }
    for degc in nodes:
        ocv = _interpolate(degc, slow_degc, bases) + _interpolate(float(_kinetic(degc)), kinetic, shifts)
        ramp = OCV_RISE_V * np.arange(ocv.size)  # interpolation between two monotone curves may lose a little of it
        rows["ocv"].append(np.maximum.accumulate(ocv - ramp) + ramp)
        rows["m"].append(
            np.interp(f.SOC_OCV, f.SOC_M, _interpolate(float(_kinetic(degc)), kinetic, [one.m_v for one in fits]))
        )
        rows["r"].append(_resistances(degc, fit_degc, [one.r_ohm for one in fits]))
        # counted charge scatters by 1 % from test to test, temperature moves it less: average where nothing was counted
        tested = [one for one in fits if abs(one.degc - degc) <= SAME_DEGC] or fits
        rows["capacity"].append(np.array([np.mean([one.capacity_ah for one in tested])]))
        rows["eta"].append(np.array([np.mean([one.coulombic_efficiency for one in tested])]))
        rows["gamma"].append(_interpolate(degc, fit_degc, [one.gamma for one in fits]))
        rows["m0"].append(_interpolate(degc, fit_degc, [one.m0_v for one in fits]))
        far = min(float(np.min(np.abs(degc - fit_degc))) / FAR_DEGC, 2.0)
        rows["error"].append(_interpolate(degc, fit_degc, errors) + ERROR_FAR_V * far)
        rows["knee"].append(np.array([(KNEE_LFP_SOC if chemistry == "lfp" else KNEE_SOC) + KNEE_FAR_SOC * far]))
    r = np.array(rows["r"])

    def flat(key: str) -> f.Array:
        return np.concatenate(rows[key])

    v_min, v_max = (round(round(v / 0.05) * 0.05, 2) for v in (min(s.v_low for s in slow), max(s.v_high for s in slow)))
    cell = CellParameters(
        name=name, chemistry=chemistry, source=source, limits=Limits(v_min, v_max, *LIMITS[chemistry]),
        soc=f.SOC_OCV, soc_r=f.SOC_R, degc=np.array(nodes),
        ocv_v=np.array(rows["ocv"]), hysteresis_v=np.array(rows["m"]),
        r0_ohm=r[:, 0], rct_ohm=r[:, 1], bend_a=float(fits[0].bend_a), r_ohm=np.moveaxis(r[:, 2:], 1, 0), tau_s=f.TAU_S,
        capacity=flat("capacity"), coulombic_efficiency=flat("eta"),
        gamma=flat("gamma"), hysteresis_instant_v=flat("m0"),
        voltage_error_v=flat("error"), knee_error_soc=flat("knee"),
    )  # fmt: skip
    return cell, warnings


def predict(cell: CellParameters, test: f.Dynamic) -> f.Array:
    """Open-loop model voltage of `cell` over a test, from its own reference SoC, V."""
    degc = np.clip(test.temperature_degc, cell.degc[0], cell.degc[-1])
    k = np.clip(np.searchsorted(cell.degc, degc, side="right") - 1, 0, cell.degc.size - 2)
    share = (degc - cell.degc[k]) / (cell.degc[k + 1] - cell.degc[k])

    def at(table: f.Array, nodes: f.Array) -> f.Array:
        columns = np.stack([np.interp(test.soc, nodes, row) for row in table])
        n = np.arange(test.soc.size)
        return np.asarray(columns[k, n] + share * (columns[k + 1, n] - columns[k, n]))

    def row(values: f.Array) -> float:
        return float(np.interp(float(np.median(degc)), cell.degc, values))

    x, h, s = f.states(test, cell.tau_s, row(cell.gamma), row(cell.capacity))
    i = test.current_a
    drop = at(cell.r0_ohm, cell.soc_r) * i + at(cell.rct_ohm, cell.soc_r) * cell.bend_a * np.arcsinh(i / cell.bend_a)
    for j in range(cell.tau_s.size):
        drop = drop + at(cell.r_ohm[j], cell.soc_r) * x[:, j]
    result: f.Array = (
        at(cell.ocv_v, cell.soc) + at(cell.hysteresis_v, cell.soc) * h + row(cell.hysteresis_instant_v) * s - drop
    )
    return result
