"""The admin port's own token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import Clock, Proxy, StartProxy
from proxy.settings.load import SettingsInvalid
from proxy.web.token import AdminUnauthorized, Token
from scripted import Origin


def test_only_the_token_is_taken() -> None:
    """As a Bearer token, whatever the scheme's case."""
    token = Token(lambda: "open sesame")
    token.check("Bearer open sesame")
    token.check("bearer open sesame")
    for wrong in (
        "",
        "open sesame",
        "Bearer",
        "Bearer open",
        "Bearer open sesame!",
        "Basic open sesame",
        "Bearer \udcff",
    ):
        with pytest.raises(AdminUnauthorized) as refused:
            token.check(wrong)
        assert "sesame" not in str(refused.value)
    assert "sesame" not in repr(token)


async def test_the_file_is_read_again(start: StartProxy, origin: Origin, tmp_path: Path, clock: Clock) -> None:
    """When it changes; without a token in it the old one stays."""
    path = tmp_path / "token"
    path.write_text("one\n")
    proxy = await start(origin, admin_token_file=path)
    for content, counts, counts_not in (("another\n", "another", "one"), ("", "another", "")):
        path.write_text(content)
        clock.advance(1)
        assert await _status(proxy, counts) == 200
        assert await _status(proxy, counts_not) == 401


async def _status(proxy: Proxy, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with proxy.session.get(proxy.admin + "/metrics", headers=headers) as response:
        return response.status


async def _pages(start: StartProxy, origin: Origin, headers: dict[str, str], **settings: Any) -> dict[str, int]:
    proxy = await start(origin, **settings)
    found = {}
    for path in ("/healthz", "/readyz", "/metrics", "/explain/kimoqi/alpine:1.0", "/nothing", "/hooks/origin0"):
        async with proxy.session.get(proxy.admin + path, headers=headers) as response:
            found[path.split("/")[1]] = response.status
            assert (response.status == 401 and "hooks" not in path) == ("WWW-Authenticate" in response.headers)
    return found


_OPEN = {"healthz": 200, "readyz": 200, "metrics": 200, "explain": 200, "nothing": 404, "hooks": 404}
_SHUT = {**_OPEN, "metrics": 401, "explain": 401, "nothing": 401}
_BEARER = {"Authorization": "Bearer open sesame"}


@pytest.mark.parametrize(
    ("settings", "headers", "expected"),
    [
        ({}, {}, _OPEN),
        ({"admin_token": "open sesame"}, {}, _SHUT),
        ({"admin_token": "open sesame"}, _BEARER, _OPEN),
        ({"admin_listen": "0.0.0.0:0"}, {}, _SHUT),
        ({"admin_listen": "0.0.0.0:0"}, _BEARER, _SHUT),
        ({"admin_listen": "0.0.0.0:0", "admin_token": "open sesame"}, _BEARER, _OPEN),
    ],
    ids=["loopback", "missing", "given", "no token", "none to give", "off loopback"],
)
async def test_off_loopback_nothing_but_probes_without_a_token(
    start: StartProxy, origin: Origin, settings: dict[str, Any], headers: dict[str, str], expected: dict[str, int]
) -> None:
    """Probes are answered always; where a token is configured it is wanted on loopback, too."""
    assert await _pages(start, origin, headers, **settings) == expected


async def test_hooks_have_a_secret_of_their_own(start: StartProxy, origin: Origin) -> None:
    """The token isn't asked for there, and is no secret."""
    proxy = await start(origin, admin_token="open sesame", hooks={"secret": "tell"}, admin_listen="0.0.0.0:0")
    statuses = []
    for given in ("tell", "Bearer tell", "Bearer open sesame"):
        event, headers = {"repository": "kimoqi/alpine", "tag": "1.0"}, {"Authorization": given}
        async with proxy.session.post(f"{proxy.admin}/hooks/origin0", json=event, headers=headers) as response:
            statuses.append(response.status)
    assert statuses == [202, 202, 401]


@pytest.mark.parametrize("content", [None, "", " \n"])
async def test_a_file_without_a_token_stops_the_start(
    start: StartProxy, origin: Origin, tmp_path: Path, content: str | None
) -> None:
    """With its key."""
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsInvalid, match=f"{path}: admin_token_file: "):
        await start(origin, admin_token_file=path)
