"""A virtual laboratory: one twin cell on a cycler in a chamber, tested as a real cell would be.

From its traces the controller's cell file is identified, so that the estimator never sees the twin's own tables.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim import layout as Y
from sim.cell import CellData, load
from sim.duty import drive_profile
from sim.rack import RackTwin, rack_config

F8 = npt.NDArray[np.float64]
Trace = dict[str, F8]

TEMPERATURES_DEGC = (-5.0, 10.0, 25.0, 40.0)

OCV_STEP_S = 10.0
OCV_RATE_C = 1.0 / 30.0
REST_S = 4 * 3600.0

_NO_LIMIT = np.full(4, 1e12)


class _Cycler:
    """One cell, a current source and good meters: 0.2 mV and 1e-4 C of noise, fixed errors drawn from the seed."""

    def __init__(self, cell: CellData, degc: float, stream: tuple[int, ...]) -> None:
        table = {
            "n_series": 1,
            "n_parallel": 1,
            "busbar_ohm": 0.0,
            "main_path_ohm": 1e-9,
            "dc_link_f": 1e-12,  # no link: the cycler drives the cell
            "dc_link_bleed_ohm": 1e15,
            "initial_soc": 1.0,
            "initial_hysteresis": 1.0,
            "initial_degc": degc,
            **{
                f"{name}_spread": 0.0 for name in ("capacity", "resistance", "soc", "degc", "coolant", "self_discharge")
            },
        }
        self.twin = RackTwin(cell, rack_config(cell, table))
        # the first lane of the only block is the cell
        bank = self.twin.bank
        self._cell, self._levels = bank.cells[0], bank.work[0, int(bank.p[Y.P_LEVELS_AT]) :]
        self.one_c = cell.head.capacity_ah
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream)))
        self._offset_v = 2e-4 * float(self._rng.standard_normal())
        self._gain_a = 1 + 1e-4 * float(self._rng.standard_normal())
        self._offset_degc = 0.1 * float(self._rng.standard_normal())
        self._share = 1.0
        self._rows: list[tuple[float, float, float, float, float]] = []
        self._log(0.0)

    @property
    def volt(self) -> float:
        return float(self._levels[Y.V_NOW])

    @property
    def soc(self) -> float:
        return float(self._cell[Y.C_SOC])

    def _log(self, ampere: float) -> None:
        time_s, degc = float(self.twin.string[Y.S_TIME_S]), float(self._cell[Y.C_DEGC])
        self._rows.append((time_s, ampere, self.volt, degc, self.soc))

    def ramp(self, ampere: float, step_s: float, seconds: float, v_min: float, v_max: float) -> None:
        """Hold one current, logging every `step_s`, until the voltage leaves the limits or `seconds` are over."""
        request = np.full(max(1, round(step_s)), ampere)
        for _ in range(round(seconds / step_s)):
            self.twin.advance(Y.CLOSED, request, True, _NO_LIMIT, step_s / len(request))
            self._log(ampere)
            if not v_min < self.volt < v_max:
                return

    def follow(self, amperes: F8, v_min: float, v_max: float) -> bool:
        """Follow a current second by second as a cycler with voltage limits does; False once the cell is empty.

        Above `v_max` no charge current is let through; a voltage below `v_min` halves the currents for the rest of the
        test, and the fourth time ends it.
        """
        request = np.empty(1)
        for ampere in amperes.tolist():
            if ampere < 0.0 and self.volt > v_max - 0.02:
                ampere = 0.0
            ampere *= self._share
            request[0] = ampere
            self.twin.advance(Y.CLOSED, request, True, _NO_LIMIT, 1.0)
            self._log(ampere)
            if self.volt <= v_min:
                self._share *= 0.5
                if self._share < 0.1:
                    return False
        return True

    def trace(self, with_soc: bool) -> Trace:
        """The log as the meters saw it."""
        rows = np.array(self._rows)
        noise = self._rng.standard_normal((3, len(rows)))
        current_a = rows[:, 1] * self._gain_a + 1e-4 * self.one_c * noise[0]
        result = {
            "time_s": np.round(rows[:, 0], 3),
            "current_a": np.where(rows[:, 1] == 0.0, 0.0, _quantise(current_a, 1e-5 * self.one_c)),
            "voltage_v": _quantise(rows[:, 2] + self._offset_v + 2e-4 * noise[1], 1e-4),
            "temperature_degc": _quantise(rows[:, 3] + self._offset_degc + 0.05 * noise[2], 0.01),
        }
        if with_soc:
            result["soc_true"] = np.round(rows[:, 4], 6)
        return result


def _quantise(values: F8, step: float) -> F8:
    return np.asarray(np.round(np.rint(values / step) * step, 9))


def ocv_test(cell: CellData, degc: float, seed: int) -> Trace:
    """From full: C/30 down to the lower voltage limit, 4 h rest, C/30 up to the upper one, 4 h rest; 10 s a row."""
    cycler = _Cycler(cell, degc, (seed, 1, round(degc + 273.15)))
    ampere = OCV_RATE_C * cycler.one_c
    low, high = cell.head.v_min, cell.head.v_max
    cycler.ramp(0.0, OCV_STEP_S, 600.0, 0.0, np.inf)
    cycler.ramp(ampere, OCV_STEP_S, 40 * 3600.0, low, np.inf)
    cycler.ramp(0.0, OCV_STEP_S, REST_S, 0.0, np.inf)
    cycler.ramp(-ampere, OCV_STEP_S, 40 * 3600.0, 0.0, high)
    cycler.ramp(0.0, OCV_STEP_S, REST_S, 0.0, np.inf)
    return cycler.trace(with_soc=False)


def dynamic_test(cell: CellData, degc: float, seed: int) -> Trace:
    """From full to 5 %: drives, grid service, partial charges and rests in turn; a row every second, about 12 h.

    Ends early where the lower voltage limit stops even reduced currents. `soc_true`: charge left over the capacity.
    """
    cycler = _Cycler(cell, degc, (seed, 2, round(degc + 273.15)))
    one_c = cycler.one_c
    # the same duty at every temperature, so that only the cell differs
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 3))))
    cycler.follow(np.zeros(600), cell.head.v_min, cell.head.v_max)
    for block in range(24):
        drive = 0.32 * one_c * np.clip(drive_profile(1500, (seed, 4, block), 2.0, 0.8), -3.0, 5.0)
        parts = (
            drive,
            np.zeros(int(rng.integers(300, 900))),
            -np.full(int(rng.integers(180, 420)), 0.3 * one_c),
            np.zeros(int(rng.integers(60, 300))),
            _grid_service(900, rng) * one_c,
            np.zeros(int(rng.integers(300, 1200))),
        )
        for part in parts:
            if not cycler.follow(part, cell.head.v_min, cell.head.v_max) or cycler.soc <= 0.05:
                cycler.follow(np.zeros(1800), -np.inf, np.inf)
                return cycler.trace(with_soc=True)
    return cycler.trace(with_soc=True)


def _grid_service(seconds: int, rng: np.random.Generator) -> F8:
    """Frequency containment in C-rates: an Ornstein-Uhlenbeck process of 60 s with a dead band, cut at 0.6 C."""
    keep = np.exp(-1 / 60.0)
    noise = 0.3 * np.sqrt(1 - keep**2) * rng.standard_normal(seconds)
    wanted = np.empty(seconds)
    x = 0.3 * float(rng.standard_normal())
    for k in range(seconds):
        x = x * keep + noise[k]
        wanted[k] = x
    beyond = np.clip(np.abs(wanted) - 0.05, 0.0, 0.6)
    return np.asarray(np.sign(wanted) * np.round(beyond, 3))


def label(degc: float) -> str:
    """`P25` for 25, `N05` for -5: temperatures in names of traces."""
    return f"{'N' if degc < 0 else 'P'}{abs(round(degc)):02d}"


def run(name: str, seed: int = 0) -> dict[str, Trace]:
    """All tests of the twin cell `name`: traces `ocv_<T>` and `dynamic_<T>` for each of `TEMPERATURES_DEGC`.

    Columns (float64, one length per trace): time_s, current_a (positive = discharge; held over the second, or the ten,
    that end at time_s), voltage_v, temperature_degc, and for the dynamic tests soc_true. Deterministic for `seed`.
    Raises `TwinError` for an unknown name.
    """
    cell = load(name)
    traces = {f"ocv_{label(t)}": ocv_test(cell, t, seed) for t in TEMPERATURES_DEGC}
    traces.update({f"dynamic_{label(t)}": dynamic_test(cell, t, seed) for t in TEMPERATURES_DEGC})
    return traces
