"""A profile is looked over by the lints of its wire, errors first; what is none is told in one line."""

from pathlib import Path

import pytest

from bms.racks import profile_check
from hal.errors import ConfigError


def test_a_name_leads_to_its_wire() -> None:
    assert profile_check.check("foxbms,ivt")[0].startswith("profile foxbms: 216 cells")
    assert profile_check.check("sunspec")[0].startswith("profile sunspec: 9 models")


def test_what_a_controller_shows_to_who_steers_it_is_no_rack_to_be_read(repository: Path) -> None:
    about, found = profile_check.check(str(repository / "hal" / "profiles" / "sunspec" / "north.toml"))
    assert about.endswith("north.toml: 6 models, 239 points")
    assert found == []


def test_errors_come_first(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('format = 1\n[[model]]\nid = 802\n[model.points]\nV = "pack_v"\n')
    about, found = profile_check.check(str(tmp_path / "own.toml"))
    assert about.endswith("own.toml: 1 models, 1 points")
    assert [finding.severity for finding in found] == ["error"] + ["warning"] * 4


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("refrence", "--profile refrence: unknown (did you mean 'reference'?); or give a .toml file"),
        ("none.toml", "none.toml: cannot be read: "),
        ("ivt", "profile ivt: an add-on, without the table [rack]; write for example foxbms,ivt"),
        ("foxbms,sunspec", "profile 'sunspec': unknown; write bender, foxbms, ivt, reference, or the path"),
    ],
)
def test_what_is_no_profile_is_told(name: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        profile_check.check(name)
    assert str(caught.value).startswith(complaint)


def test_a_file_that_is_no_toml_is_told(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("= 3")
    with pytest.raises(ConfigError, match="own.toml: cannot be read"):
        profile_check.check(str(tmp_path / "own.toml"))
