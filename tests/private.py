"""A private registry, scripted: users with passwords and rights, which can be changed while it runs."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field

from aiohttp import web

from proxy.oci.access import Login, read_basic
from scripted import Origin

_REPOSITORY = re.compile(r"/v2/(.+?)/(?:manifests|blobs|tags|referrers)/")


def basic(user: str, password: str | None = None) -> str:
    """Write the `Authorization` of a user, whose password is their name and a 1 unless told otherwise."""
    return "Basic " + b64encode(f"{user}:{password or user + '1'}".encode()).decode()


@dataclass
class Private:
    """Who may read what; rights are prefixes of repositories. What somebody may not read is 403, or 404."""

    rights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    says: int = 403

    def guard(self, origin: Origin) -> None:
        """Let *origin* ask who is there."""
        origin.fail("", self.answer)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """Answer for the registry where somebody may not."""
        login = read_basic(request.headers.get("Authorization", ""))
        if login is None or not self._knows(login):
            return _refused(401)
        found = _REPOSITORY.search(request.rel_url.raw_path)
        if found and not found[1].startswith(self.rights.get(login.username, ())):
            return _refused(self.says)
        return None

    def _knows(self, login: Login) -> bool:
        known = login.username in self.rights
        return known and login.password == self.passwords.get(login.username, login.username + "1")


def _refused(status: int) -> web.Response:
    codes = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN"}
    body = b'{"errors":[{"code":"%s","message":"no"}]}' % codes[status].encode()
    headers = {"Content-Type": "application/json"}
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="registry"'
    return web.Response(status=status, body=body, headers=headers)
