"""Our files of foxBMS's wires: what the generator writes, and the places, steps and pages of the public description."""

from typing import Any

import cantools
import pytest

from hal.codec.can_profile import FOLDER
from hal.errors import ConfigError
from hal.profiles.bender import generate as bender
from hal.profiles.foxbms import generate
from hal.profiles.ivt import generate as ivt

SIZE = 216, 180

THEIRS = {
    0x210: {
        "RequestedMode": "RequestBmsMode",
        "ResetFlags": "ResetPersistentFlags",
        "PrechargeExternal": "IndicatePrechargeType",
        "ChargerConnected": "ChargerConnected",
        "InsulationMonitoringOff": "DisableInsulationMonitoring",
        "Balancing": "ActivateBalancing",
        "BalancingThreshold": "SetBalancingThreshold",
    },
    0x220: {
        "BmsState": "BmsState",
        "InsulationMonitoring": "InsulationMonitoring",
        "InterlockOpen": "InterlockState",
    },
    0x232: {
        name: name
        for name in (
            *("MaximumDischargeCurrent", "MaximumChargeCurrent"),
            *("MaximumDischargePower", "MaximumChargePower"),
        )
    },
    0x233: {name: name for name in ("BatteryVoltage", "BusVoltage", "Current")},
    0x234: {"InsulationResistance": "InsulationResistance"},
    0x240: {
        "StringNumber": "f_StringState_Mux",
        "CurrentError": "StringCurrentMeasurementError",
        "StringVoltageError": "StringVoltageMeasurementError",
    },
    **{
        identifier: {page: mux}
        | {f"CellVoltage_{k:03}": f"CellVoltage_{k:03}" for k in range(216)}
        | {f"CellVoltageValid_{k:03}": f"CellVoltage_{k:03}_invalidFlag" for k in range(216)}
        for identifier, page, mux in (
            (0x250, "CellVoltagesPage", "f_CellVoltages_Mux"),
            (0x270, "AfeCellVoltagesPage", "AFE_CellVoltages_Mux"),
        )
    },
    **{
        identifier: {page: mux}
        | {f"Temperature_{k:03}": f"CellTemperature_{k:03}" for k in range(180)}
        | {f"TemperatureValid_{k:03}": f"CellTemperature_{k:03}_invalidFlag" for k in range(180)}
        for identifier, page, mux in (
            (0x260, "CellTemperaturesPage", "f_CellTemperatures_Mux"),
            (0x280, "AfeCellTemperaturesPage", "AFE_CellTemperatures_Mux"),
        )
    },
    0x37: {"Resistance": "II_IMC_R_ISO"},
    **{
        identifier: {
            "Result": f"IVT_ID_Result_{short}",
            "MessageCount": f"IVT_MsgCount_Result_{short}",
            f"Ivt{value}": f"IVT_Result_{short}",
        }
        for (_, identifier, _, value, _), short in zip(ivt.RESULTS, ("I", "U1", "U3", "W", "As", "Wh"), strict=True)
    },
}
"""By identifier: our signal, and what the public description calls it."""

GROUPS = {
    (0x240, "ContactorErrors"): ("NegativeContactorError", "PositiveContactorError"),
    (0x37, "Trouble"): tuple(
        f"II_VIFC_STATUS_{name}"
        for name in ("00_IsoMeasurement", "01_IMC_Connection", "02_IMC_Alive", "04_VIFC_CmdError", "08_Outdated")
    ),
    **{
        (identifier, "Errors"): tuple(
            f"IVT_Result_{short}_{kind}_Error" for kind in ("System", "Measurement", "Channel")
        )
        for (_, identifier, _, _, _), short in zip(ivt.RESULTS, ("I", "U1", "U3", "W", "As", "Wh"), strict=True)
    },
}
"""Our signals that are several of theirs side by side."""


def bits(signal: Any) -> set[int]:
    """The bits that a signal takes."""
    found, bit = set(), signal.start
    for _ in range(signal.length):
        found.add(bit)
        if signal.byte_order == "little_endian":
            bit += 1
        else:
            bit = bit + 15 if bit % 8 == 0 else bit - 1
    return found


def made() -> dict[str, Any]:
    texts = {"unit": generate.unit(*SIZE), "afe": generate.afe(*SIZE), "ivt": ivt.dbc(), "bender": bender.dbc()}
    return {name: cantools.database.load_string(text, "dbc", strict=True) for name, text in texts.items()}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("foxbms/unit_216.dbc", generate.unit(*SIZE)),
        ("foxbms/afe_216.dbc", generate.afe(*SIZE)),
    ],
)
def test_the_shipped_files_are_what_the_generators_write(file: str, text: str) -> None:
    assert (FOLDER / file).read_text() == text


def test_every_signal_lies_where_the_public_description_has_it(foxbms_dbc: Any) -> None:
    seen = set()
    for ours in made().values():
        for message in ours.messages:
            peer = foxbms_dbc.get_message_by_frame_id(message.frame_id)
            assert (message.length, message.is_extended_frame) == (peer.length, peer.is_extended_frame)
            for signal in message.signals:
                at = message.frame_id, signal.name
                if at in GROUPS:
                    parts = [peer.get_signal_by_name(name) for name in GROUPS[at]]
                    assert {p.start for p in parts} <= bits(signal), at
                    assert all(p.multiplexer_ids == signal.multiplexer_ids for p in parts)
                else:
                    other = peer.get_signal_by_name(THEIRS[message.frame_id][signal.name])
                    assert bits(signal) == bits(other), at
                    assert (signal.is_signed, signal.scale, signal.offset) == (other.is_signed, other.scale, 0), at
                    assert (signal.unit or "") == (other.unit or ""), at
                    assert (signal.is_multiplexer, signal.multiplexer_ids) == (
                        other.is_multiplexer, other.multiplexer_ids
                    ), at  # fmt: skip
                    if signal.length > 1:
                        assert signal.byte_order == other.byte_order, at
                seen.add(at)
    assert {(identifier, name) for identifier, names in THEIRS.items() for name in names} | {*GROUPS} == seen


def test_validity_bits_are_1_where_a_value_is_good(foxbms_dbc: Any) -> None:
    """The trap of this wire: what is called an invalid flag says 1 for valid."""
    for identifier in (0x250, 0x260, 0x270, 0x280):
        peer = foxbms_dbc.get_message_by_frame_id(identifier)
        flags = [s for s in peer.signals if s.name.endswith("_invalidFlag")]
        assert len(flags) in SIZE
        assert all({str(word): n for n, word in s.choices.items()} == {"Invalid": 0, "Valid": 1} for s in flags)


def test_a_round_of_all_pages_takes_about_a_tenth_of_a_second() -> None:
    for n_cells, n_sensors, cycles_ms in (
        (216, 180, (2, 7)),
        (18, 8, (20, 100)),
        (1, 1, (100, 200)),
        (1024, 1536, (1, 1)),
    ):
        messages = cantools.database.load_string(generate.afe(n_cells, n_sensors), "dbc").messages
        assert tuple(m.cycle_time for m in messages if m.frame_id in (0x270, 0x280)) == cycles_ms


@pytest.mark.parametrize("size", [(1025, 1), (1, 1537), (0, 1), (1, 0)])
def test_a_size_without_pages_is_refused(size: tuple[int, int]) -> None:
    for make in (generate.unit, generate.afe):
        with pytest.raises(ConfigError, match="at most 1024 and 1536 have pages"):
            make(*size)


def test_the_command_writes_files(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.dbc"
    assert generate.main(["unit", "--cells", "12", "--sensors", "3", "-o", str(out)]) == 0
    assert out.read_text() == generate.unit(12, 3)
    assert generate.main(["afe", "--cells", "12", "--sensors", "3"]) == 0
    assert capsys.readouterr().out == generate.afe(12, 3)
    assert generate.main(["afe", "--cells", "0", "--sensors", "3"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
