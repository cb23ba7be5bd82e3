"""Hashes that go into an image: they follow what they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bms.firmware.identity import config_hash, layouts_hash
from hal.errors import ConfigError


def test_the_configuration_hash_follows_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "rack.toml"
    text = 'format = 1\n[rack]\ncell = "lfp_a123"\nn_series = 16\n'
    path.write_text(text)
    first = config_hash(str(path))
    assert len(first) == 8
    path.write_text(text + "# a comment changes nothing\n")
    assert config_hash(str(path)) == first == config_hash(str(path), 2)
    assert config_hash(str(path), 3) != first
    path.write_text(text + "[machine]\nprecharge_attempts = 2\n")
    assert config_hash(str(path)) != first
    for n_sensors in (0, 17):
        with pytest.raises(ConfigError, match=rf"--sensors {n_sensors}: expected 1..16"):
            config_hash(str(path), n_sensors)


def test_the_layouts_hash_is_of_this_version() -> None:
    assert len(layouts_hash()) == 8
    assert layouts_hash() == layouts_hash()
