"""`bms keygen`: what it writes, to whom, and what is said of files that hold no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from bms.cli import main

pytest.importorskip("cryptography", reason="pip install 'rackbms[firmware]'")

from bms.firmware.keys import private_key, public_key
from hal.errors import ConfigError


def test_a_pair_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pem"
    assert main(["keygen", str(path)]) == 0
    first = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert public_key(path) == public_key(path.with_suffix(".pub")) == private_key(path).public_key().public_bytes_raw()
    capsys.readouterr()
    assert main(["keygen", str(path)]) == 2
    assert capsys.readouterr().err == f"bms: error: {path}: exists; a key is never written over, give another name\n"
    assert path.read_bytes() == first


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", str(tmp_path / "no" / "a.pem")]) == 2
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_what_is_no_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    noise, other = tmp_path / "noise.pem", tmp_path / "other.pem"
    noise.write_bytes(b"PRIVATE KEY? no")
    key = X25519PrivateKey.generate()
    other.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    for load in (private_key, public_key):
        with pytest.raises(ConfigError, match="no private key in PEM"):
            load(noise)
        with pytest.raises(ConfigError, match="another kind than ed25519"):
            load(other)
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            load(tmp_path / "none.pem")
    noise.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="no key in PEM"):
        public_key(noise)
    other.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(ConfigError, match="another kind than ed25519"):
        public_key(other)
