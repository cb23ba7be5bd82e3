"""The physics over a mixed duty against an implementation without vectors: one cell after the other, C library's exp.

The numbers are those of the scalar kernels that these replaced; only rounding may differ. A change of the physics that
is meant changes them.
"""

import numpy as np
import pytest

from sim import cell
from sim import layout as Y
from sim.rack import RackTwin, rack_config

RACKS = {
    "lfp_280": {"n_series": 40},
    "na_185": {"n_series": 9},
    "nmc_ev": {"n_series": 6, "n_parallel": 3},
}

NAMES = (
    "sum of SoC", "SoC", "hysteresis", "charge transfer", "slow pair", "sum of temperatures", "temperature",
    "first voltage", "last voltage", "pack voltage", "link voltage", "current", "coolant", "charge", "out", "in",
    "heat", "bleed", "path", "to coolant", "to ambient",
)  # fmt: skip

SCALAR = {
    "lfp_280": [
        19.729246134740315,
        0.4933067847907852,
        0.5696738464754323,
        133.75647713833442,
        -8.2570548798731,
        535.4632323473186,
        13.270691102904465,
        3.30093963873129,
        3.297500410121624,
        131.97905405862107,
        131.98172475541566,
        -4.073182430058619,
        16.554863065111764,
        -420.3573226473652,
        833814.238639091,
        917651.8801420445,
        25874.55023860671,
        1384.4140590524855,
        4746.294819293485,
        -117851.2483992584,
        -26990.136094390688,
    ],
    "na_185": [
        4.339364442874555,
        0.4930144744178606,
        0.034516084312786965,
        4.9866223448418445,
        -0.4937051265443873,
        110.70722900102713,
        14.355362815557209,
        3.180474838818674,
        3.145707686764893,
        27.786325250838846,
        27.78714404994161,
        -0.5668376890381082,
        17.406983120776214,
        -108.80071219836127,
        110509.75231648659,
        121580.77809965877,
        7453.556888828123,
        377.0427295746667,
        1475.0571277597055,
        -43973.763906456166,
        -6498.055737498975,
    ],
    "nmc_ev": [
        8.5509724426881,
        0.46850231667675307,
        0.20621698902093843,
        2.615926748939925,
        -1.0794352835949634,
        237.96701879646164,
        15.006346337161766,
        3.783842374222359,
        3.7461656833602945,
        22.382407140871493,
        22.38340063717863,
        -0.41658821635206766,
        17.500488820515745,
        -222.01216809983543,
        81076.53398126391,
        89193.8276190853,
        1688.4299208519105,
        253.1520866892068,
        1617.7339893445696,
        -17099.649198103652,
        -4666.743974396732,
    ],
}


@pytest.mark.parametrize("name", list(RACKS))
def test_a_mixed_duty_gives_the_numbers_of_the_scalar_kernels(name: str) -> None:
    """Open, precharge, powers and currents that swing, balancing, cold cells, a warm room, two sub-steps."""
    data = cell.load(name)
    table = {**RACKS[name], "seed": 11, "initial_degc": 12.0, "degc_spread": 3.0, "soc_spread": 0.05}
    rack = RackTwin(data, rack_config(data, table))
    mask = np.zeros(rack.n_series, np.uint8)
    mask[::4] = 1
    rack.set_balance(mask)
    s = rack.string
    s[Y.S_AMBIENT], s[Y.S_COOLANT_SET] = 33.0, 18.0
    one_c = data.head.capacity_ah * rack.n_parallel
    watt = 0.5 * one_c * s[Y.S_PACK_V]
    limits = np.array([0.9 * one_c, 0.9 * one_c, 1e9, 1e9])
    for k in range(12):
        path = (Y.OPEN, Y.PRECHARGE, Y.CLOSED, Y.CLOSED)[k % 4]
        in_ampere = k % 3 == 2
        request = watt * np.sin(np.arange(50) * (0.1 + 0.07 * k) + k) / (1000.0 if in_ampere else 1.0)
        rack.advance(path, request, in_ampere, limits, (1.0, 0.4)[k % 2])
    c, v = rack.cells, rack.levels[Y.V_NOW]
    found = [
        c[Y.C_SOC].sum(), c[Y.C_SOC, 5], c[Y.C_HYST].sum(), c[Y.C_X1].sum(), c[Y.C_X4].sum(),
        c[Y.C_DEGC].sum(), c[Y.C_DEGC, -1], v[0], v[-1],
        *s[[Y.S_PACK_V, Y.S_BUS_V, Y.S_AMPERE, Y.S_COOLANT_OUT, Y.S_CHARGE_AS, Y.S_OUT_J, Y.S_IN_J]],
        *s[[Y.S_HEAT_J, Y.S_BLEED_J, Y.S_PATH_J, Y.S_COOLANT_J, Y.S_AMBIENT_J]],
    ]  # fmt: skip
    for what, value, scalar in zip(NAMES, found, SCALAR[name], strict=True):
        assert value == pytest.approx(scalar, rel=1e-9), what
