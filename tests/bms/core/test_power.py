"""The limits: against the same model in float64, against a cell that follows them, and each reason in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.core import estimator_layout as e
from bms.core import power as p
from bms.core.faults import Reaction
from bms.core.power_setup import PowerSettings
from hal.contract import HORIZONS_S, Constraint

from .power_rig import NAMES, WIDE, Bench, f4

# ------------------------------------------------------------------------------------- against the model in float64


def model_end_v(b: Bench, k: int, seconds: float, amp: float) -> float:
    """The formula of `bms.core.power_cells`, in float64, for cell `k` at the constant current `amp`."""
    nodes = b.estimator.nodes.reshape(e.N_DEGC, e.N_SOC, e.NODE).astype(np.float64)
    s = b.estimator.scalars[0]
    ft = min(max((float(b.cell_degc[k]) - float(s.degc_first)) / 5.0, 0.0), e.N_DEGC - 1.0)
    t = min(int(ft), e.N_DEGC - 2)
    line = nodes[t] + (ft - t) * (nodes[t + 1] - nodes[t])

    def at(z: float) -> np.ndarray:
        place = z * (e.N_SOC - 1)
        n = int(min(max(np.floor(place), 0), e.N_SOC - 2))
        return np.asarray(line[n] + (place - n) * (line[n + 1] - line[n]))

    z, h, w, r, q = (b.get(row)[k] for row in (e.Z, e.H, e.W, e.R, e.Q))
    v = [b.get(e.V1 + j)[k] for j in range(4)]
    here = at(z)
    sign = 1.0 if amp >= 0 else -1.0
    worse = min(max(z - sign * b.settings.soc_sigmas * b.std, -0.02), 1.02)
    moved = here[e.RATE] * (1.0 - q) * (here[e.ETA] if sign < 0 else 1.0) * amp * seconds
    h_end = np.exp(-here[e.GAMMA] * abs(moved)) * (h + sign) - sign
    left = np.exp(-seconds / np.asarray(b.cell.tau_s))
    drop = here[e.R0] * amp + here[e.RCT] * b.cell.bend_a * np.arcsinh(amp / b.cell.bend_a)
    for j in range(4):
        drop += left[j] * v[j] + (1.0 - left[j]) * here[e.R1 + j] * amp
    rest = here[e.OCV] + at(worse - moved)[e.OCV] - at(worse)[e.OCV] + here[e.M] * h_end + here[e.M0] * sign + w
    return float(rest - np.exp(r) * drop)


def model_limit_a(b: Bench, k: int, seconds: float, sign: float) -> float:
    """Largest current of cell `k` that keeps the voltage inside its window, by bisection; no other constraint."""
    margin = b.settings.voltage_margin_v
    edge = b.cell.v_min + margin if sign > 0 else b.cell.v_max - margin
    ceiling = (b.cell.limits.max_discharge_c if sign > 0 else b.cell.limits.max_charge_c) * b.cell.capacity_ah

    def fine(amp: float) -> bool:
        return sign * (model_end_v(b, k, seconds, sign * amp) - edge) >= 0.0

    if fine(ceiling):
        return ceiling
    if not fine(1e-9):
        return 0.0
    low, high = 0.0, ceiling
    for _ in range(22):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fine(middle) else (low, middle)
    return low


def varied(name: str, seed: int, n: int = 17) -> Bench:
    """A rack of different cells, each in a state of its own: empty or full enough for the voltage to matter."""
    rng = np.random.default_rng(seed)
    low = bool(rng.integers(2))
    soc = rng.uniform(0.0, 0.12, n) if low else rng.uniform(0.9, 1.01, n)
    b = Bench(name, n, soc, float(rng.uniform(0.003, 0.01)), float(rng.uniform(-15.0, 45.0)))
    b.set(e.Z, soc)
    b.cell_degc[:] += rng.uniform(-4.0, 4.0, n)
    scale = 3e-4 * b.cell.capacity_ah / 280.0
    for j in range(4):
        b.set(e.V1 + j, rng.uniform(-30.0, 30.0, n) * scale)
    b.set(e.H, rng.uniform(-1.0, 1.0, n))
    b.set(e.W, rng.normal(0.0, 0.003, n))
    b.set(e.R, rng.normal(0.1, 0.2, n))
    b.set(e.Q, rng.normal(0.0, 0.03, n))
    b.measured |= {"degc_low": f4(20.0), "degc_high": f4(30.0)}
    return b


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_the_weakest_cell_and_what_it_bears(name: str) -> None:
    limited = 0
    for seed in range(8):
        b = varied(name, seed)
        b.step()  # the first step asks all cells
        for pair in range(p.N_PAIRS):
            sign, seconds = (1.0, -1.0)[pair // 4], HORIZONS_S[pair % 4]
            want = [model_limit_a(b, k, seconds, sign) for k in range(b.n)]
            ceiling = b.cell.limits.max_discharge_c if sign > 0 else b.cell.limits.max_charge_c
            got = float(b.state.number[p.CELL_A + pair])
            # float32 rounds a voltage to 0.3 uV; next to a resistance of 1 mohm that is a milliampere
            assert got == pytest.approx(min(want), abs=5e-4 * ceiling * b.cell.capacity_ah), (seed, pair)
            if 0.0 < min(want) < 0.99 * ceiling * b.cell.capacity_ah:
                limited += 1
                assert want[int(b.state.limiting[pair])] == pytest.approx(min(want), rel=2e-3, abs=0.1)
                assert b.state.why[pair] == Constraint.CELL_VOLTAGE
    assert limited > 12  # the cases are about something


def test_every_cell_is_asked_in_time() -> None:
    b = Bench(n=64, soc=0.5, settings=PowerSettings(scan_s=10.0))
    b.step()
    assert b.now()[0] > 0
    assert b.step()[0] == pytest.approx(b.cell.capacity_ah)
    rows = b.get(e.Z)
    rows[37] = 0.002  # an outlier, far from the slices that come next
    b.set(e.Z, rows)
    b.estimate.out.reshape(e.OUT_ROWS, -1)[e.SOC, 37] = 0.5  # not seen by the polyline over SoC
    for _ in range(101):
        last = b.step(0.1)
    assert int(b.state.limiting[1]) == 37
    assert last[1] == pytest.approx(model_limit_a(b, 37, 10.0, 1.0), rel=5e-3)
    assert b.reason(1) == Constraint.CELL_VOLTAGE
    assert b.command.reason_index[1] == 37
    # once it is well again, the limit rises as fast as allowed and not faster
    rows[37] = 0.5
    b.set(e.Z, rows)
    for k in range(1, 6):
        rising = b.step(1.0)
        assert rising[1] == pytest.approx(last[1] + 0.05 * k * b.cell.capacity_ah, rel=1e-3)
        assert b.reason(1) == Constraint.RISE


def test_a_longer_horizon_allows_no_more() -> None:
    b = Bench(soc=0.06)
    for j in range(4):
        b.set(e.V1 + j, 0.02)  # after a heavy discharge: the voltage will recover by itself
    a = b.step()
    assert np.all(np.diff(a[:4]) <= 0)
    assert np.all(np.diff(a[4:]) <= 0)
    assert a[0] < float(b.state.number[p.CELL_A + 3]) or a[3] < a[0]


def test_doubt_of_the_soc_counts() -> None:
    sure, unsure = Bench(soc=0.25, std=0.003), Bench(soc=0.25, std=0.03)
    assert unsure.step()[3] < 0.9 * sure.step()[3]
    # in the middle of a plateau it changes nothing that matters for 10 s
    assert Bench(std=0.05).step()[1] == Bench(std=0.003).step()[1]


def test_heat_and_resistance_count() -> None:
    b = Bench(degc=52.0, settings=PowerSettings(**{**vars(WIDE), "heat_capacity_j_per_k": 100.0}))
    a = b.step()
    assert [b.reason(k) for k in (2, 3)] == [Constraint.HEAT] * 2
    assert a[2] / a[3] == pytest.approx(np.sqrt(900.0 / 60.0), rel=1e-3)  # I^2 R h / C = 1 K for both
    assert float(b.command.reason_margin[3]) == pytest.approx(1.0, abs=1e-4)
    aged = Bench(degc=52.0, settings=b.settings)
    aged.set(e.R, np.log(2.0))
    assert aged.step()[3] == pytest.approx(a[3] / np.sqrt(2.0), rel=1e-3)


def test_the_soc_window_holds_for_the_horizon() -> None:
    window = PowerSettings(**{**vars(WIDE), "soc_min": 0.4, "soc_max": 0.6, "soc_sigmas": 2.0})
    b = Bench(soc=0.5, std=0.01, settings=window)
    a = b.step()
    # 0.1 less two deviations of 0.01, in 900 s
    assert a[3] == pytest.approx(0.08 * b.cell.capacity_ah * 4.0, rel=3e-3)
    assert a[7] == pytest.approx(0.08 * b.cell.capacity_ah * 4.0 / b.cell.coulombic_efficiency[1], rel=3e-3)
    assert b.reason(3) == b.reason(7) == Constraint.SOC
    assert float(b.command.reason_value[3]) == pytest.approx(0.48, abs=1e-4)
    assert float(b.command.reason_margin[7]) == pytest.approx(0.08, abs=1e-4)
    outside = Bench(soc=0.39, std=0.01, settings=window)
    assert outside.step()[0] == 0.0
    assert outside.command.horizon_a[4] > 0.0


# --------------------------------------------------------------------------------------------- what is not of a cell


def test_temperature_derates_at_both_ends() -> None:
    b = Bench(settings=PowerSettings())
    assert b.settle(degc_low=5.0, degc_high=20.0)[4] == pytest.approx(0.25 * b.cell.capacity_ah, rel=1e-4)
    assert b.reason(5) == Constraint.TEMPERATURE
    assert b.command.reason_index[5] == 0
    assert (b.command.reason_value[5], b.command.reason_margin[5]) == (5.0, 5.0)  # none is left at 0 degC
    assert b.command.horizon_a[0] == pytest.approx(b.cell.capacity_ah)  # for discharge that is warm enough
    a = b.settle(degc_low=30.0, degc_high=50.0)
    assert a[0] == pytest.approx(0.5 * b.cell.capacity_ah, rel=1e-4) == a[4]
    assert b.command.reason_index[0] == 1
    assert float(b.command.reason_margin[0]) == pytest.approx(5.0)
    assert b.step(degc_high=56.0)[0] == 0.0


def test_soc_derates_by_the_emptiest_and_the_fullest_cell() -> None:
    b = Bench(settings=PowerSettings(charge_soc=((0.8, 1.0), (1.0, 0.2)), discharge_soc=((0.0, 0.0), (0.2, 1.0))), n=37)
    rows = np.full(37, 0.5)
    rows[[5, 36]] = 0.1, 0.9
    b.set(e.Z, rows)
    a = b.step(cell_v_low=3.2, cell_v_high=3.3)
    assert a[0] == pytest.approx(0.5 * b.cell.capacity_ah, rel=1e-3)
    assert a[4] == pytest.approx(0.6 * b.cell.capacity_ah, rel=1e-3)
    assert [b.reason(0), b.reason(4)] == [Constraint.SOC_DERATING] * 2
    assert [int(b.command.reason_index[k]) for k in (0, 4)] == [5, 36]
    assert float(b.command.reason_margin[0]) == pytest.approx(0.1, abs=1e-6)


def model_now_v(b: Bench, k: int, amp: float, sign: float) -> float:
    """What the model says of cell `k` now, at the current `amp`; `sign` of the last current that was not zero."""
    return model_end_v(b, k, 0.0, amp) + (sign - np.sign(amp or 1.0)) * float(b.cell.hysteresis_instant_v[2])


@pytest.mark.parametrize("horizon", range(4))
def test_measured_voltages_bound_whatever_the_model_says(horizon: int) -> None:
    """A prediction of the same change, but from the measured voltage: the model alone would see no reason to stop."""
    b = Bench(soc=0.5, settings=PowerSettings(**{**vars(WIDE), "guard_margin_v": 0.005}))
    b.settle()
    for sign, edge, side in ((1.0, 2.505, "low"), (-1.0, 3.645, "high")):
        k = horizon if sign > 0 else 4 + horizon
        for spare_v, amp in ((0.05, 100.0), (0.02, 100.0), (-0.005, 100.0), (0.03, 0.0), (0.03, -50.0)):
            b.estimate.shared["sign"] = np.sign(sign * amp)
            v = edge + sign * spare_v
            now_v = model_now_v(b, 4, sign * amp, np.sign(sign * amp))

            def off(x: float, v: float = v, now_v: float = now_v, sign: float = sign, edge: float = edge) -> float:
                return sign * (v + model_end_v(b, 4, HORIZONS_S[horizon], sign * x) - now_v - edge)

            want = next((x for x in np.arange(280.0, 0.0, -0.25) if off(x) >= 0.0), 0.0)
            seen = {f"cell_v_{side}": v, f"cell_{side}_at": 4, "current_a": sign * amp}
            a = b.step(**seen)  # type: ignore[arg-type]
            assert a[k] == pytest.approx(want, abs=0.5)
            if 0.0 < want < 275.0:
                assert b.reason(k) == Constraint.MEASURED_VOLTAGE or (horizon > 0 and a[k] == a[k - 1])
                assert b.command.reason_index[k] == 4
                assert float(b.command.reason_margin[k]) == pytest.approx(spare_v, abs=1e-6)
            b.settle(**{f"cell_v_{side}": 3.3, "current_a": 0.0})  # type: ignore[arg-type]


def test_the_guard_falls_at_once_and_rises_with_a_lag() -> None:
    b = Bench(soc=0.5)
    b.settle()
    low = b.step(1.0, cell_v_low=2.52, current_a=100.0)[1]
    assert low < 200.0
    aim = b.cell.capacity_ah
    for k in range(1, 6):
        a = b.step(1.0, cell_v_low=3.3, current_a=100.0)[1]
        # a sixth of the way in each second: 5 s behind
        assert a == pytest.approx(aim - (aim - low) * (5.0 / 6.0) ** k, rel=1e-3)


def test_the_string_voltage_bounds() -> None:
    b = Bench(n=20, settings=PowerSettings(**{**vars(WIDE), "pack_v_min": 60.0, "pack_v_max": 68.0}))
    b.settle()
    ohm = [float(x) for x in b.state.number[p.STRING_OHM : p.STRING_OHM + 4]]
    assert 20 * 2e-4 < ohm[0] < ohm[1] < ohm[2] < ohm[3] < 20 * 2e-3
    a = b.step(pack_v=60.5, current_a=50.0)
    assert a[1] == pytest.approx(50.0 + 0.5 / ohm[1], rel=1e-3)
    assert b.reason(1) == Constraint.PACK_VOLTAGE
    a = b.step(pack_v=67.5, current_a=-50.0)
    assert a[5] == pytest.approx(50.0 + 0.5 / ohm[1], rel=1e-3)
    assert b.reason(5) == Constraint.PACK_VOLTAGE
    assert b.step(pack_v=59.0, current_a=0.0)[0] == 0.0


def test_a_pulse_lasts_as_long_as_the_fuse_has_room() -> None:
    pulses = PowerSettings(**{**vars(WIDE), "pulse_discharge": 1.5, "pulse_charge": 1.2})
    b = Bench(settings=pulses)
    rated = b.cell.capacity_ah
    a = b.settle()
    assert a[[0, 1, 2]] == pytest.approx([1.5 * rated, 1.5 * rated, rated], rel=1e-4)
    assert a[[4, 5, 6]] == pytest.approx([1.2 * rated, 1.2 * rated, rated], rel=1e-4)
    assert b.step(i2t_discharge=0.8)[1] == pytest.approx(1.5 * rated, rel=1e-4)
    assert b.step(i2t_discharge=0.9)[1] == pytest.approx(1.25 * rated, rel=1e-4)
    assert b.reason(1) == Constraint.FUSE
    assert b.reason(5) == Constraint.RATING
    for heat in (1.0, 1.7, float("nan")):
        assert b.step(i2t_discharge=heat)[1] == pytest.approx(rated, rel=1e-4)


# ------------------------------------------------------------------------------------- faults, states, speed, power


def test_limits_rise_slowly_and_fall_at_once() -> None:
    b = Bench()
    for k in range(1, 30):
        b.step(1.0)
        assert b.now()[0] == pytest.approx(min(0.05 * k, 1.0) * b.cell.capacity_ah, rel=1e-4)
        assert b.reason(8) == (Constraint.RISE if k < 20 else Constraint.RATING)
    b.step(1.0, cell_v_low=2.505, current_a=10.0)
    fallen = b.now()[0]
    assert fallen < 40.0
    b.step(0.0, cell_v_low=3.3)
    assert b.now()[0] == fallen  # no time, no rise


def test_faults_derate_and_ramp() -> None:
    b = Bench()
    rated = b.cell.capacity_ah
    b.settle()
    a = b.step(reaction=Reaction.DERATE, fault=251)
    assert a == pytest.approx(0.5 * rated, rel=1e-4)
    assert b.reason(3) == Constraint.FAULT
    assert b.command.reason_index[3] == 251
    b.settle()
    for k in range(1, 8):
        a = b.step(1.0, reaction=Reaction.NO_CHARGE, fault=182)
        assert a[5] == pytest.approx(max(1.0 - k / 3.0, 0.0) * rated, rel=1e-4, abs=1e-3)
        assert b.now()[1] == a[5]
        assert b.now()[0] == pytest.approx(rated)
        assert b.reason(9) == Constraint.FAULT
        assert b.command.reason_index[9] == 182
    a = b.step(1.0)
    assert b.now()[1] == pytest.approx(0.05 * rated)
    b.settle()
    assert b.step(10.0, reaction=Reaction.NO_DISCHARGE)[0] == 0.0
    assert b.now()[1] == pytest.approx(rated)


def test_the_state_of_the_rack_decides() -> None:
    b = Bench()
    rated = b.cell.capacity_ah
    assert not b.step(mode=p.MODE_ZERO).any()
    assert b.now() == (0.0, 0.0)
    assert b.reason(8) == Constraint.STATE
    b.settle(mode=p.MODE_ZERO)
    b.step(1.0)  # connected: from 0, though the cells have been known for long
    assert b.now() == pytest.approx((0.05 * rated, 0.05 * rated))
    b.settle()
    a = b.step(2.0, mode=p.MODE_RAMP)
    assert a == pytest.approx(rated / 3.0, rel=1e-4)  # of a ramp of 3 s
    assert b.reason(9) == Constraint.STATE
    assert b.step(3.1, mode=p.MODE_RAMP).max() == 0.0
    assert b.now() == (0.0, 0.0)
    a = b.settle(mode=p.MODE_TRANSPORT)
    assert a[:4].max() == 0.0
    assert a[4:] == pytest.approx(0.02 * rated, rel=1e-4)
    assert b.now() == (0.0, pytest.approx(0.02 * rated, rel=1e-4))
    assert b.step(mode=17).max() == 0.0  # a mode that does not exist


def test_out_of_transport_current_may_flow_although_there_is_no_voltage_yet() -> None:
    b = Bench(n=20)
    b.settle(pack_v=0.0)
    assert float(b.command.horizon_w[5]) == 0.0
    b.settle(mode=p.MODE_TRANSPORT, pack_v=0.0)
    least_v = 20 * float(b.config.number[p.V_EDGE])
    assert least_v > 20 * b.cell.v_min
    assert float(b.command.horizon_w[5]) == pytest.approx(0.02 * b.cell.capacity_ah * least_v, rel=1e-3)
    assert float(b.command.horizon_w[1]) == 0.0


def test_power_is_that_of_the_lower_voltage() -> None:
    b = Bench(n=20)
    b.settle(pack_v=66.0, current_a=0.0)
    ohm = float(b.state.number[p.STRING_OHM + 1])
    rated = b.cell.capacity_ah
    assert float(b.command.horizon_w[1]) == pytest.approx(rated * (66.0 - ohm * rated), rel=1e-4)
    assert float(b.command.horizon_w[5]) == pytest.approx(rated * 66.0, rel=1e-4)
    assert float(b.state.number[p.DISCHARGE_W]) == float(b.command.horizon_w[1])
    b.settle(pack_v=66.0, current_a=rated)  # already sagging at that current
    assert float(b.command.horizon_w[1]) == pytest.approx(rated * 66.0, rel=1e-4)
    b.step(pack_v=float("nan"), cell_v_low=3.2)
    assert float(b.command.horizon_w[5]) == pytest.approx(rated * 20 * 3.2, rel=1e-4)


def test_parallel_cells_share_the_current() -> None:
    one, four = Bench("nmc_ev", soc=0.03), Bench("nmc_ev", soc=0.03, n_parallel=4)
    a, b = one.step(), four.step()
    assert b == pytest.approx(4.0 * a, rel=1e-4)
    assert 0.0 < a[2] < 0.9 * one.cell.limits.max_discharge_c * one.cell.capacity_ah
    assert four.state.number[p.STRING_OHM] == pytest.approx(one.state.number[p.STRING_OHM])  # of cells, not of groups


# --------------------------------------------------------------------------------------- a cell that follows the limit


@dataclass
class Simple:
    """One cell of the twin's sort, in float64: the estimator's model with errors of its own."""

    cell: CellParameters
    soc: float
    degc: float
    resistance: float

    def __post_init__(self) -> None:
        self.v = np.zeros(4)
        self.axis = np.arange(4)

    def step(self, amp: float, dt_s: float) -> float:
        c = self.cell

        def over(table: np.ndarray, axis: np.ndarray) -> float:
            return float(np.interp(self.degc, c.degc, [np.interp(self.soc, axis, row) for row in table]))

        keep = np.exp(-dt_s / c.tau_s)
        self.soc -= amp * dt_s / 3600.0 / c.capacity_ah
        r = np.array([over(c.r_ohm[j], c.soc_r) for j in range(4)])
        self.v = keep * self.v + (1.0 - keep) * r * amp
        bent = over(c.rct_ohm, c.soc_r) * c.bend_a * np.arcsinh(amp / c.bend_a)
        drop = self.resistance * (self.v.sum() + over(c.r0_ohm, c.soc_r) * amp + bent)
        return over(c.ocv_v, c.soc) - drop


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("wrong_soc", [0.0, 0.02, -0.02])
def test_a_cell_that_takes_all_it_may_stays_inside(name: str, sign: float, wrong_soc: float) -> None:
    """The estimator may be wrong by 2 % SoC, and the resistance by 15 %: the measured voltage still stays inside."""
    b = Bench(name, n=1, degc=20.0, std=0.01, settings=PowerSettings())
    truth = Simple(b.cell, 0.08 if sign > 0 else 0.93, 20.0, 1.15)
    edge = b.cell.v_min if sign > 0 else b.cell.v_max
    amp, closest, moved = 0.0, np.inf, 0.0
    b.measured |= {"cell_low_at": 0, "cell_high_at": 0}
    dt_s = 1.0
    for _ in range(900):
        v = truth.step(amp, dt_s)
        closest = min(closest, sign * (v - edge))
        b.set(e.Z, np.clip(truth.soc + wrong_soc, -0.02, 1.02))
        for j in range(4):
            b.set(e.V1 + j, truth.v[j])
        b.step(dt_s, cell_v_low=float(v), cell_v_high=float(v), pack_v=float(v), current_a=float(amp))
        amp = sign * b.now()[0 if sign > 0 else 1]
        moved += amp * dt_s / 3600.0 / b.cell.capacity_ah
    assert closest > -0.005  # the threshold of a fatal fault is 50 mV or 100 mV away
    if sign * wrong_soc >= 0.0:  # not more timid than its error asks for
        assert closest < 0.03
        assert sign * moved > 0.05
