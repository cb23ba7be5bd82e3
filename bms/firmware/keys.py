"""`bms keygen`: a key pair of ed25519 for signing images, or for letting a flasher in."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hal.errors import ConfigError

GOOD = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms keygen`."""
    parser.add_argument("output", metavar="KEY.pem", type=Path, help="file for the private key; must not exist yet")


def run(args: argparse.Namespace) -> int:
    """Run `bms keygen`. Returns 0."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = args.output.with_suffix(".pub")
    try:
        with open(os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    except FileExistsError:
        raise ConfigError(f"{args.output}: exists; a key is never written over, give another name") from None
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be written: {error.strerror}") from None
    print(f"{args.output}  private: keep it off the network, and a copy of it in a safe\n{public}  public")
    return GOOD


def private_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a file. Raises `ConfigError`."""
    try:
        key = serialization.load_pem_private_key(_pem(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: no private key in PEM, or one with a password; make one with bms keygen") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: a key of another kind than ed25519; make one with bms keygen")
    return key


def public_key(path: Path) -> bytes:
    """The 32 bytes of the public key of a file with either half of a pair. Raises `ConfigError`."""
    pem = _pem(path)
    if b"PRIVATE KEY" in pem:
        return private_key(path).public_key().public_bytes_raw()
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: no key in PEM; make one with bms keygen") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: a key of another kind than ed25519; make one with bms keygen")
    return key.public_bytes_raw()


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; make a key with bms keygen") from None
