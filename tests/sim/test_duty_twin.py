from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import duty
from sim.config import TwinError
from sim.duty import PcsView, Rating

RATING = Rating(capacity_ah=280.0, nominal_v=1000.0)
UP = PcsView(soc=0.5, connected=True)


def frequency(**changes: Any) -> duty.FrequencyRegulation:
    made = duty.make({"kind": "frequency_regulation", **changes}, RATING)
    assert isinstance(made, duty.FrequencyRegulation)
    return made


def test_grid_frequency_looks_like_the_real_one() -> None:
    made = frequency()
    f = np.array([made.deviation_hz(float(t)) for t in range(86400)])
    assert f.std() == pytest.approx(0.021, abs=0.003)
    assert abs(f.mean()) < 0.006  # a day holds about 50 independent stretches of the slow wander of 12 mHz
    assert np.abs(f).max() < 0.12
    # it wanders: strongly correlated over seconds, hardly over hours
    assert np.corrcoef(f[:-5], f[5:])[0, 1] > 0.9
    assert abs(np.corrcoef(f[:-7200], f[7200:])[0, 1]) < 0.3


def test_frequency_is_the_same_for_a_seed_and_however_it_is_asked() -> None:
    a, b, c = frequency(seed=4), frequency(seed=4), frequency(seed=5)
    every = [a.deviation_hz(float(t)) for t in range(3 * 3600)]
    assert [b.deviation_hz(float(t)) for t in range(0, 3 * 3600, 700)] == every[::700]
    assert c.deviation_hz(0.0) != every[0]
    assert b.deviation_hz(3 * 3600 - 0.25) == every[-1]


def test_droop_discharges_when_the_grid_is_slow() -> None:
    made = frequency(start_s=0.0, recentre_c=0.0)
    full = 0.5 * RATING.energy_wh
    for t in range(0, 3600, 7):
        f = made.deviation_hz(float(t))
        beyond = max(abs(f) - 0.010, 0.0) / 0.050
        assert made.request(float(t), UP) == pytest.approx(-np.sign(f) * min(beyond, 1.0) * full)


def test_energy_is_re_centred() -> None:
    made, other = frequency(start_s=0.0), frequency(start_s=0.0, recentre_c=0.0)
    energy = RATING.energy_wh
    for soc, extra in ((0.5, 0.0), (0.54, 0.0), (0.6, 0.05), (0.9, 0.1), (0.4, -0.05), (0.0, -0.1)):
        view = PcsView(soc=soc, connected=True)
        assert made.request(5.0, view) - other.request(5.0, view) == pytest.approx(extra * energy, abs=1e-6)


def test_nothing_is_asked_before_the_start_or_without_connection() -> None:
    made = frequency(start_s=100.0)
    assert made.request(99.0, UP) == 0.0
    assert made.request(2000.0, PcsView(connected=False)) == 0.0
    assert any(made.request(float(t), UP) != 0.0 for t in range(2000, 2100))


def test_constant() -> None:
    assert duty.make({"kind": "constant", "power_w": -5e3, "start_s": 10.0}, RATING).request(9.0, UP) == 0.0
    assert duty.make({"kind": "constant", "power_w": -5e3, "start_s": 10.0}, RATING).request(10.0, UP) == -5e3
    assert duty.make({"kind": "constant", "c_rate": 0.5}, RATING).request(0.0, UP) == 140e3
    power = duty.make({"kind": "constant", "c_rate": 0.5}, RATING)
    current = duty.make({"kind": "constant", "current_a": -7.0, "start_s": 10.0}, RATING)
    assert (power.in_ampere, current.in_ampere) == (False, True)
    assert [current.request(t, UP) for t in (9.0, 10.0)] == [0.0, -7.0]


def test_cycle_goes_on_when_the_limits_end_a_charge() -> None:
    made = duty.make({"kind": "cycle", "rest_h": 0.01, "taper_s": 20.0, "discharge_c": 1.0, "start_s": 5.0}, RATING)
    assert made.in_ampere
    view = PcsView(soc=0.5, connected=False)
    assert made.request(6.0, view) == 0.0  # waits for the connection
    view.connected = True
    assert made.request(7.0, view) == -140.0
    view.current_a = -140.0
    assert made.request(100.0, view) == -140.0
    view.current_a = -6.0  # the BMS holds it below a twentieth
    assert made.request(101.0, view) == -140.0
    view.current_a = -100.0  # it recovers: the time starts anew
    assert made.request(110.0, view) == -140.0
    view.current_a = -6.0
    assert made.request(130.0, view) == -140.0
    assert made.request(150.5, view) == 0.0
    view.current_a = 0.0
    assert made.request(180.0, view) == 0.0
    assert made.request(187.0, view) == 280.0
    view.current_a = 280.0
    view.soc = 0.0
    assert made.request(200.0, view) == 0.0  # the published SoC has met its bound
    assert made.request(236.0, view) == -140.0


def test_cycle_between_bounds_and_times() -> None:
    made = duty.make({"kind": "cycle", "start_with": "discharge", "discharge_h": 0.5, "soc_high": 0.8, "rest_h": 0.0,
                      "start_s": 0.0}, RATING)  # fmt: skip
    view = PcsView(soc=0.5, current_a=140.0, connected=True)
    assert made.request(0.0, view) == 140.0
    assert made.request(1799.0, view) == 140.0
    assert made.request(1800.0, view) == 0.0
    assert made.request(1801.0, view) == -140.0
    view.current_a, view.soc = -140.0, 0.81
    assert made.request(1802.0, view) == 0.0


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "power.csv"
    path.write_text("power_w, time_s\n100,10\n-50,20\n0,40\n")
    made = duty.make({"kind": "csv", "path": str(path), "scale": 2.0}, RATING)
    assert [made.request(t, UP) for t in (0.0, 10.0, 19.9, 20.0, 39.0, 40.0, 99.0)] == [0, 200, 200, -100, -100, 0, 0]
    again = duty.make({"kind": "csv", "path": str(path), "repeat": True}, RATING)
    assert [again.request(t, UP) for t in (5.0, 10.0, 25.0, 40.0, 55.0, 70.0)] == [0, 100, -50, 100, -50, 100]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 'time_s' is missing"),
        ("time_s,power\n", "column 'power_w' is missing"),
        ("time_s,power_w\n0,1\n1,x\n", "line 3: time_s and power_w must be numbers"),
        ("time_s,power_w\n0,1\n1\n", "line 3"),
        ("time_s,power_w\n0,1\n0,2\n", "line 3: time_s does not rise"),
        ("time_s,power_w\n0,1\n1,nan\n", "line 3: not a finite number"),
        ("time_s,power_w\n0,1\n", "at least two rows"),
    ],
)
def test_bad_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "power.csv"
    path.write_text(text)
    with pytest.raises(TwinError) as caught:
        duty.make({"kind": "csv", "path": str(path)}, RATING)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TwinError, match="cannot be read"):
        duty.make({"kind": "csv", "path": str(tmp_path / "none.csv")}, RATING)


def test_a_day_of_the_car() -> None:
    made = duty.make({"kind": "v2g"}, RATING)
    again = duty.make({"kind": "v2g"}, RATING)
    power = np.array([made.request(float(t), PcsView(soc=0.6)) for t in range(86400)])
    assert power.tolist() == [again.request(float(t), PcsView(soc=0.6)) for t in range(86400)]
    hour = np.arange(86400) / 3600
    drive = power[(hour >= 7.5) & (hour < 8.25)]
    assert drive.mean() == pytest.approx(0.22 * RATING.energy_wh, rel=0.05)
    assert drive.min() < 0 < drive.max()  # it brakes
    assert np.all(power[(hour > 18.6) & (hour < 21.4)] == 0.15 * RATING.energy_wh)
    assert np.all(power[(hour > 1) & (hour < 6)] == -0.17 * RATING.energy_wh)
    assert np.all(power[(hour > 9) & (hour < 10.9)] == 0)
    assert made.request(86400.0 * 3 + 20 * 3600, PcsView(soc=0.29)) == 0.0  # keeps its reserve
    assert made.request(86400.0 * 4 + 3 * 3600, PcsView(soc=0.86)) == 0.0  # full enough
    later = duty.make({"kind": "v2g", "start_hour": 19.0}, RATING)
    assert later.request(0.0, PcsView(soc=0.6)) == 0.15 * RATING.energy_wh


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "cyle"}, "[duty] kind = 'cyle' (did you mean 'cycle'?)"),
        ({"kind": 3}, "kind = 3"),
        ({"kind": "constant", "power": 3.0}, "unknown key 'power'"),
        ({"kind": "constant", "power_w": 3.0, "c_rate": 1.0}, "power_w and c_rate exclude each other"),
        ({"kind": "constant", "c_rate": 1.0, "current_a": 3.0}, "c_rate and current_a exclude each other"),
        ({"kind": "cycle", "start_with": "charg"}, "did you mean 'charge'"),
        ({"kind": "cycle", "charge_c": 0.0}, "must be positive"),
        ({"kind": "cycle", "soc_low": 0.9, "soc_high": 0.5}, "soc_low must be less than soc_high"),
        ({"kind": "cycle", "taper": 1.5}, "taper = 1.5"),
        ({"kind": "cycle", "rest_h": -1.0}, "rest_h"),
        ({"kind": "cycle", "charge_h": 0.0}, "charge_h"),
        ({"full_hz": 0.005}, "full_hz must be larger"),
        ({"tau_s": 0.0}, "tau_s = 0.0: must be positive"),
        ({"sd_hz": -1.0}, "sd_hz"),
        ({"seed": -1}, "seed"),
        ({"recentre_soc": 1.1}, "recentre_soc"),
        ({"kind": "csv"}, "the key 'path' is missing"),
        ({"kind": "v2g", "grid_hours": [5.0]}, "grid_hours"),
        ({"kind": "v2g", "drive_h": 0.0}, "drive_h"),
        ({"kind": "v2g", "soc_reserve": 0.9}, "soc_reserve"),
    ],
)
def test_bad_tables_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(TwinError) as caught:
        duty.make(table, RATING)
    assert message in str(caught.value)
    assert "[duty]" in str(caught.value)
