"""The certificate that our ports show: read, checked, and read again when it is renewed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from proxy.settings.keys import TlsSettings
from proxy.settings.load import Problem, SettingsInvalid
from proxy.stamp import Stamp, stamp

_LOOK: Final = 2.0  # seconds between two looks at the files
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: forward secrecy and authenticated encryption, no other
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

_log: Final = structlog.get_logger("tls")


class Certificate:
    """What handshakes are made with: a context that is replaced as a whole when the files have changed.

    One that can't be used is told of once, and the one before stays.
    """

    def __init__(self, settings: TlsSettings) -> None:
        """Read the files. Raises `SettingsInvalid`."""
        self._settings = settings
        self._paths = tuple(path for path in (settings.certificate, settings.key, settings.client_ca) if path)
        self._stamp = self._now()  # before they are read: what changes meanwhile is read once more
        self._contexts = _contexts(settings)

    def __call__(self) -> ssl.SSLContext:
        """Return what the next handshake is made with."""
        return self._contexts[0]

    def admin(self) -> ssl.SSLContext:
        """Return what the admin port's next handshake is made with: probes have no certificate to show."""
        return self._contexts[1]

    async def watch(self) -> None:
        """Look whether the files have changed, again and again."""
        while True:
            await asyncio.sleep(_LOOK)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the files again if they have changed."""
        now = self._now()
        if now == self._stamp:
            return
        self._stamp = now
        try:
            self._contexts = _contexts(self._settings)
        except SettingsInvalid as invalid:
            _log.error("certificate refused, the old one stays", problems=[str(each) for each in invalid.problems])
        else:
            _log.info("certificate loaded", certificate=str(self._settings.certificate))

    def _now(self) -> Stamp:
        return stamp(*self._paths)


def _contexts(settings: TlsSettings) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the registry port's context and the admin port's. Raises `SettingsInvalid`."""
    registry = context(settings)
    if settings.client_auth != "required":
        return registry, registry
    return registry, context(settings.model_copy(update={"client_auth": "optional"}))


def context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a server's context of what *settings* name. Raises `SettingsInvalid` with the file, the key and why."""
    certificate, key = settings.certificate or Path(), settings.key or Path()
    problems = list(_unreadable(settings))
    if problems:
        raise SettingsInvalid(problems)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_CIPHERS)
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsInvalid([_unusable(certificate, key, error)]) from None
    if settings.client_ca is not None:
        try:
            made.load_verify_locations(settings.client_ca)
        except (ssl.SSLError, OSError) as error:
            expected = f"certificates of authorities were expected: {_cause(error)}"
            raise SettingsInvalid([Problem(str(settings.client_ca), "tls.client_ca", expected)]) from None
    made.verify_mode = _VERIFY[settings.client_auth]
    return made


def _unreadable(settings: TlsSettings) -> Iterator[Problem]:
    """Find files that can't be read, or hold something else: OpenSSL doesn't say which of two it was."""
    expected = {
        "certificate": (settings.certificate, b"-----BEGIN CERTIFICATE-----", "a certificate in PEM"),
        "key": (settings.key, b"PRIVATE KEY-----", "a private key in PEM"),
        "client_ca": (settings.client_ca, b"-----BEGIN CERTIFICATE-----", "certificates of authorities in PEM"),
    }
    for name, (path, mark, what) in expected.items():
        if path is None:
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            yield Problem(str(path), f"tls.{name}", f"the file can't be read: {error.strerror}")
            continue
        if mark not in content:
            yield Problem(str(path), f"tls.{name}", f"{what} was expected")


def _unusable(certificate: Path, key: Path, error: Exception) -> Problem:
    if isinstance(error, ValueError):
        return Problem(str(key), "tls.key", "a private key without a password was expected")
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return Problem(str(key), "tls.key", f"the private key of the certificate in {certificate} was expected")
    return Problem(str(certificate), "tls.certificate", f"a certificate and its key were expected: {_cause(error)}")


def _cause(error: Exception) -> str:
    return str(getattr(error, "reason", None) or type(error).__name__).replace("_", " ").lower()


def _no_password() -> str:
    """Stand in for OpenSSL's question on the terminal."""
    raise ValueError("the key has a password")
