"""A token service as distribution specifies it: Basic logins at GET, OAuth2 at POST, JWTs by RS256."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from e2e.peers import Account

ISSUER: Final = "e2e token service"
SECONDS: Final = 300  # for which a token counts

Rights = Mapping[str, frozenset[str]]
"""What somebody may do, by globs over repositories in which `*` crosses slashes."""


class BadLogin(Exception):
    """Nobody has this user name and password, or this refresh token."""


@dataclass
class TokenService:
    """Who may have which tokens.

    Attributes:
        certificate: Holds the public key, for whoever verifies tokens.
        rights: What each user may do, by their name.
        asked: The ways in which tokens were asked for: `GET`, and `POST` with the kind of grant.
    """

    accounts: tuple[Account, ...]
    rights: dict[str, Rights]
    certificate: Path
    key: rsa.RSAPrivateKey = field(default_factory=partial(rsa.generate_private_key, 65537, 2048), repr=False)
    asked: list[str] = field(default_factory=list)
    url: str = ""
    _refresh: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Write the certificate."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        self.certificate.write_bytes(builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM))

    @property
    def realm(self) -> str:
        """Where clients get tokens."""
        return f"{self.url}/token"

    @contextmanager
    def changed(self, user: str, rights: Rights) -> Iterator[None]:
        """Give *user* other rights while the block lasts."""
        before = self.rights[user]
        self.rights[user] = rights
        try:
            yield
        finally:
            self.rights[user] = before

    def got(self, query: Mapping[str, list[str]], authorization: str) -> dict[str, Any]:
        """Answer a GET: with a token that allows nothing where nobody says who they are. Raises `BadLogin`."""
        self.asked.append("GET")
        user = ""
        if authorization:
            name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            user = self._user(name, password)
        answer = self._answer(user, query)
        if user and query.get("offline_token") == ["true"]:
            answer["refresh_token"] = self._offline(user)
        return answer

    def posted(self, form: Mapping[str, list[str]]) -> dict[str, Any]:
        """Answer a POST. Raises `BadLogin`."""
        kind = form["grant_type"][0]
        self.asked.append(f"POST {kind}")
        if kind == "refresh_token":
            user = self._refresh.get(form["refresh_token"][0], "")
            if not user:
                raise BadLogin
        else:
            user = self._user(form["username"][0], form["password"][0])
        answer = self._answer(user, form)
        if form.get("access_type") == ["offline"] or kind == "refresh_token":
            answer["refresh_token"] = self._offline(user)
        return answer

    def _user(self, name: str, password: str) -> str:
        if Account(name, password) not in self.accounts:
            raise BadLogin
        return name

    def _offline(self, user: str) -> str:
        token = secrets.token_urlsafe()
        self._refresh[token] = user
        return token

    def _answer(self, user: str, asked: Mapping[str, list[str]]) -> dict[str, Any]:
        scopes = " ".join(asked.get("scope", [])).split()
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": asked["service"][0],
            "exp": now + SECONDS,
            "nbf": now - 1,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": [granted for scope in scopes if (granted := self._granted(user, scope))],
        }
        token = jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": _key_id(self.key.public_key())})
        return {"token": token, "access_token": token, "expires_in": SECONDS, "scope": " ".join(scopes)}

    def _granted(self, user: str, scope: str) -> dict[str, Any] | None:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        allowed: set[str] = set()
        for pattern, rights in self.rights.get(user, {}).items():
            if kind == "repository" and fnmatchcase(name, pattern):
                allowed |= rights & set(actions.split(","))
        return {"type": kind, "name": name, "actions": sorted(allowed)} if allowed else None


@contextmanager
def serving(service: TokenService) -> Iterator[TokenService]:
    """Let a token service be asked, on a free port, while the block lasts."""

    class Handler(_Handler):
        answering = service

    with _Server(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


def token_auth(service: TokenService) -> str:
    """Write how a registry is told to want tokens of this service: the section `auth` of its configuration."""
    token = {"realm": service.realm, "service": "registry", "issuer": ISSUER}
    return f"{{token: {json.dumps({**token, 'rootcertbundle': str(service.certificate)})}}}"


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a merge asks for many tokens at once; a full queue costs each of them a second


class _Handler(BaseHTTPRequestHandler):
    answering: TokenService

    def do_GET(self) -> None:
        """Answer as the token specification says."""
        query = parse_qs(urlsplit(self.path).query)
        self._say(lambda: self.answering.got(query, self.headers.get("Authorization", "")))

    def do_POST(self) -> None:
        """Answer as the OAuth2 specification of distribution says."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._say(lambda: self.answering.posted(form))

    def _say(self, answer: Any) -> None:
        try:
            status, document = 200, answer()
        except BadLogin:
            status, document = 401, {"details": "incorrect username or password"}
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def _key_id(key: rsa.RSAPublicKey) -> str:
    """Return what distribution calls a key: libtrust's fingerprint."""
    written = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(written).digest()[:30]).decode()
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))
