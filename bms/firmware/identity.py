"""What an image says of itself beside its version: hashes of the configuration and of the layouts of records."""

from __future__ import annotations

from bms.firmware.baked import LAYOUTS, baked
from bms.firmware.header import layouts_digest


def layouts_hash() -> bytes:
    """Hash of all layouts of records of this version, 8 bytes."""
    return bytes.fromhex(layouts_digest(LAYOUTS))


def config_hash(name_or_path: str, n_sensors: int | None = None) -> bytes:
    """Hash of the record that the configuration of a rack becomes in a controller, 8 bytes. Raises `ConfigError`."""
    return bytes.fromhex(baked(name_or_path, n_sensors).digest)
