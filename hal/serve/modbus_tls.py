"""Modbus/TCP Security: TLS with certificates on both sides, and a role in the client's that says what it may do.

After "MODBUS/TCP Security Protocol Specification V21" (sections 8.1 to 8.4): TLS 1.2 or newer, a client without a valid
certificate is refused, the role is a UTF8String in the extension 1.3.6.1.4.1.50316.802.1.
"""

from __future__ import annotations

import asyncio
import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hal.codec.modbus import READ_HOLDING, READ_INPUT, WRITE_MANY, WRITE_ONE
from hal.codec.modbus_url import Place
from hal.errors import ConfigError

ROLE_OID = "1.3.6.1.4.1.50316.802.1"
READING = frozenset((READ_HOLDING, READ_INPUT))
CONTROLLING = READING | {WRITE_ONE, WRITE_MANY}
TLS_OPTIONS = ("cert", "key", "ca", "roles")
UTF8_STRING = 0x0C


def server_context(place: Place) -> ssl.SSLContext:
    """TLS for a server, as the options `cert`, `key` and `ca` of `place` say it. Raises `ConfigError`."""
    for name in ("cert", "key", "ca"):
        if name not in place.query:
            raise ConfigError(
                f"{place.text}: {name} is missing: TLS needs cert=FILE, key=FILE, and ca=FILE for clients"
            )
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(place.query["cert"], place.query["key"])
        context.load_verify_locations(place.query["ca"])
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise ConfigError(f"{place.text}: cert, key or ca cannot be used: {reason}") from None
    return context


class Roles:
    """What each role may do: function codes by role, and for those that are not named (`other`)."""

    def __init__(self, codes: Mapping[str, frozenset[int]], other: frozenset[int]) -> None:
        self.codes, self.other = dict(codes), other

    @classmethod
    def of(cls, place: Place) -> Roles:
        """The rules in the file that the option `roles` names; without it `controller` may write, others read.

        Raises `ConfigError`: the file, or the package that reads certificates, is missing.
        """
        try:
            import cryptography  # noqa: F401
        except ModuleNotFoundError:
            raise ConfigError(
                f"{place.text}: 'cryptography' reads the roles in certificates and is not installed: "
                f"pip install 'rackbms[tls]'"
            ) from None
        path = place.query.get("roles")
        if path is None:
            return cls({"controller": CONTROLLING}, READING)
        try:
            tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from None
        roles = tables.get("roles")
        if set(tables) != {"roles"} or not isinstance(roles, dict):
            raise ConfigError(f"{path}: expected one table, [roles], with lines such as reader = [3, 4]")
        for role, codes in roles.items():
            if not isinstance(codes, list) or not all(code in CONTROLLING for code in codes):
                raise ConfigError(f"{path}: [roles] {role} = {codes!r}: expected function codes out of 3, 4, 6 and 16")
        return cls({role: frozenset(codes) for role, codes in roles.items()}, frozenset())

    def __call__(self, transport: asyncio.BaseTransport) -> frozenset[int]:
        """Function codes that the client at the other end may use."""
        secured: Any = transport.get_extra_info("ssl_object")
        return self.codes.get(role(secured.getpeercert(binary_form=True) or b""), self.other)


def role(certificate: bytes) -> str:
    """The role in a certificate (DER), '' where there is none, or one that is no UTF8String."""
    from cryptography import x509

    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
        value = extensions.get_extension_for_oid(x509.ObjectIdentifier(ROLE_OID)).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ""
    data = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    if len(data) < 2 or data[0] != UTF8_STRING or data[1] != len(data) - 2 or data[1] > 127:
        return ""
    return data[2:].decode("utf-8", "replace")
