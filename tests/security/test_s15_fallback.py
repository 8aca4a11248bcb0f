"""S15: a name is only asked for where its rule says; trouble there never makes it another registry's."""

from __future__ import annotations

from pathlib import Path

from images import ARM, X86, push, push_pair
from scripted import Fault, Origin, html, reset, status
from security.conftest import StartProcess
from security.upstreams import TAG, children, no_error_of_ours, pair

_TROUBLE: dict[str, Fault] = {
    "500": status(500),
    "503": status(503),
    "429": status(429),
    "401": status(401, WWW_Authenticate="Basic realm=x"),
    "403": status(403),
    "404": status(404),
    "400": status(400),
    "reset": reset(),
    "login page": html(),
}
_ROUTES = [
    "/v2/team/app/manifests/1.0",
    "/v2/team/app/manifests/sha256:" + "0" * 64,
    "/v2/team/app/blobs/sha256:" + "0" * 64,
    "/v2/team/app/tags/list",
    "/v2/team/app/referrers/sha256:" + "0" * 64,
]


def _two(first: Origin, second: Origin) -> str:
    """Write a configuration of two upstreams, of which the first is the default, without any rule."""
    tables = [
        f'[[upstream]]\nname = "{name}"\nurl = "{each.url}"\ndefault = {default}\nretries = 0\nbreaker = 0\n'
        for name, each, default in (("first", first, "true"), ("second", second, "false"))
    ]
    return "".join(tables) + '[cache]\ndir = "{folder}"\nnegative_ttl = "0s"\n'


async def test_trouble_never_leads_to_another_upstream(
    launch: StartProcess, origin: Origin, other: Origin, tmp_path: Path
) -> None:
    """Whatever the default upstream answers, the other isn't asked for the same name, which it has."""
    for registry in (origin.registry, other.registry):
        push(registry, "team/app")
    process = await launch(_two(origin, other).format(folder=tmp_path / "cache"))
    for name, fault in _TROUBLE.items():
        origin.heal()
        origin.fail(" /v2/", fault)
        for route in _ROUTES:
            answer = await process.get(route)
            assert answer.status >= 400 or "referrers" in route, (name, route, answer)
            answer = await process.get(f"{route}?ns=first")
            assert answer.status >= 400 or "referrers" in route, (name, route, answer)
    assert origin.requests
    assert other.requests == []
    await no_error_of_ours(process)


async def test_a_source_is_asked_for_where_its_rule_says(launch: StartProcess, origin: Origin, other: Origin) -> None:
    """A source that names its upstream is looked for there alone, although the other one has it, too."""
    push_pair(origin.registry)
    push_pair(other.registry)
    second = f'\n[[upstream]]\nname = "second"\nurl = "{other.url}"\nretries = 0\nbreaker = 0\n'
    config = pair(origin, upstream="default = true").replace('platform = "linux/arm64"', 'upstream = "second"') + second
    process = await launch(config)
    for fault in (status(503), reset(), status(403), html()):
        other.heal()
        other.fail(" /v2/", fault)
        assert (await process.get(TAG)).status in (403, 502, 503)
    assert not [request for request in origin.requests if str(ARM) in request.path]
    assert not [request for request in other.requests if str(X86) in request.path]
    other.heal()
    assert len(children((await process.get(TAG)).body)) == 2


async def test_trouble_with_the_store_is_no_not_found(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """A cache whose files can't be read hides nothing: the registry is asked, and when it is down, that is told."""
    push_pair(origin.registry)
    config = pair(origin)
    process = await launch(config)
    index = children((await process.get(TAG)).body)
    process.process.terminate()
    await process.process.wait()
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(kept) > 3
    for number, path in enumerate(kept):
        if number % 2:
            path.write_bytes(b"\0 broken")
        else:
            path.unlink()
            path.mkdir()
    origin.fail(" /v2/", status(503))
    process = await launch(config)
    for route in (TAG, *(f"/v2/kimoqi/alpine/manifests/{digest}" for digest in index.values())):
        answer = await process.get(route)
        assert answer.status in (502, 503), (route, answer)
    origin.heal()
    assert children((await process.get(TAG)).body) == index
    for platform, digest in index.items():
        answer = await process.get(f"/v2/kimoqi/alpine/manifests/{digest}")
        assert answer.status == 200, platform
        assert digest == answer.headers["Docker-Content-Digest"]
    await no_error_of_ours(process)
