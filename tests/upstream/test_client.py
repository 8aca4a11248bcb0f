"""What all reads over HTTP have in common: where an upstream lives, and what every failure is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from yarl import URL

from images import V1, X86
from proxy.oci.byterange import Nothing
from proxy.oci.content import Blob
from proxy.oci.errors import (
    BadAnswer,
    BlobUnknown,
    ManifestUnknown,
    NameUnknown,
    NotFound,
    Overloaded,
    Refused,
    RegistryError,
    TimedOut,
    Unreachable,
)
from proxy.oci.reference import Repository
from proxy.telemetry import Metrics
from proxy.upstream.auth import Authorizer, Door
from proxy.upstream.client import Upstream
from proxy.upstream.credentials import Fixed
from proxy.upstream.transport import Limits, Transport
from scripted import Fault, Origin, hang, reset, status
from upstream.peers import ALICE, BLOB, BOB, Connect, Tokens, a_blob, basic_door

Read = Callable[[Upstream], Awaitable[object]]


async def a_head(upstream: Upstream) -> Blob:
    """Return what HEAD says of `BLOB`."""
    async with upstream.blob(X86, BLOB, Nothing()) as blob:
        return blob


READS: dict[str, Read] = {
    "resolve": lambda upstream: upstream.resolve(X86, V1),
    "manifest": lambda upstream: upstream.manifest(X86, V1),
    "blob": a_blob,
    "blob HEAD": a_head,
    "tags": lambda upstream: upstream.tags(X86, None, ""),
}
read_by_each = pytest.mark.parametrize("read", READS.values(), ids=READS)


async def test_an_upstream_may_live_below_a_path(origin: Origin, connect: Connect) -> None:
    """An URL with a path, as artifact managers have, stands in front of `/v2/`."""
    upstream = await connect(origin, path="/artifacts/docker/")

    with pytest.raises(ManifestUnknown):
        await upstream.resolve(X86, V1)
    assert [request.path for request in origin.requests] == ["/artifacts/docker/v2/kimoqi/alpine-x86/manifests/1.0"]


@pytest.mark.parametrize(
    ("url", "asked", "remote"),
    [
        ("https://registry-1.docker.io", "alpine", "library/alpine"),
        ("https://docker.io", "alpine", "library/alpine"),
        ("https://registry-1.docker.io", "kimoqi/alpine", "kimoqi/alpine"),
        ("https://registry.example.com", "alpine", "alpine"),
    ],
)
def test_docker_hub_keeps_official_images_under_library(url: str, asked: str, remote: str) -> None:
    """Docker Hub alone puts `library/` in front of a single word."""
    transport = Transport("hub", URL(url), Limits(), Metrics())
    upstream = Upstream(transport, Authorizer(Door(transport, lambda: 0.0), Fixed()))

    assert upstream._asker.remote(Repository(asked)) == remote


@read_by_each
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(status(404), NotFound, id="404"),
        pytest.param(status(401), Refused, id="401"),
        pytest.param(status(403), Refused, id="403"),
        pytest.param(status(429), Overloaded, id="429"),
        pytest.param(status(500), Overloaded, id="500"),
        pytest.param(status(502), Overloaded, id="502"),
        pytest.param(status(503), Overloaded, id="503"),
        pytest.param(status(599), Overloaded, id="599"),
        pytest.param(status(204), BadAnswer, id="204"),
        pytest.param(status(300), BadAnswer, id="300"),
        pytest.param(status(304), BadAnswer, id="304"),
        pytest.param(status(400), BadAnswer, id="400"),
        pytest.param(status(418), BadAnswer, id="418"),
        pytest.param(status(451), BadAnswer, id="451"),
        pytest.param(reset(), Unreachable, id="reset"),
        pytest.param(hang(), TimedOut, id="hang"),
    ],
)
async def test_every_failure_has_its_class(
    origin: Origin, connect: Connect, read: Read, fault: Fault, error: type[RegistryError]
) -> None:
    """404 alone says that something doesn't exist; 401 and 403 refuse; all else says nothing (law 4)."""
    origin.fail("", fault)
    upstream = await connect(origin, limits=Limits(header=0.2 if error is TimedOut else 60))

    with pytest.raises(error, match="hub"):
        await read(upstream)


@pytest.mark.parametrize(
    ("read", "error"), [("manifest", ManifestUnknown), ("blob", BlobUnknown), ("tags", NameUnknown)]
)
async def test_what_is_missing_has_its_code(
    origin: Origin, connect: Connect, read: str, error: type[RegistryError]
) -> None:
    """A 404 becomes the OCI code of what was asked for."""
    upstream = await connect(origin)

    with pytest.raises(error, match="kimoqi/alpine-x86"):
        await READS[read](upstream)


@read_by_each
@pytest.mark.parametrize("code", [401, 403, 404, 410])
async def test_an_upstream_can_be_told_what_means_missing(
    origin: Origin, connect: Connect, read: Read, code: int
) -> None:
    """`missing_status` names statuses that mean "does not exist"; 404 always does."""
    origin.fail("", status(code))
    upstream = await connect(origin, missing=(401, 403, 410))

    with pytest.raises(NotFound):
        await read(upstream)


async def test_a_refusal_means_missing_only_where_it_was_told_so(origin: Origin, connect: Connect) -> None:
    """Docker Hub says 401 of a missing repository, after authenticating: there alone it is a 404."""
    tokens = Tokens(origin)
    origin.fail("GET /token", status(200, b'{"token": "of-somebody-else"}'))
    hub, registry = await connect(origin, credential=BOB, missing=(401,)), await connect(origin, credential=BOB)

    with pytest.raises(ManifestUnknown):
        await hub.manifest(X86, V1)
    with pytest.raises(Refused):
        await registry.manifest(X86, V1)
    assert len(tokens.asked) == 2


async def test_a_password_that_is_refused_makes_nothing_missing(origin: Origin, connect: Connect) -> None:
    """One that has expired must not make every image vanish, whatever 401 means otherwise (law 4)."""
    basic_door(origin, ALICE)
    upstream = await connect(origin, credential=BOB, missing=(401,))

    for _ in range(2):
        with pytest.raises(Refused):
            await upstream.manifest(X86, V1)


@read_by_each
@pytest.mark.parametrize("wait", ["120", "Wed, 21 Oct 2026 07:28:00 GMT"])
@pytest.mark.parametrize("code", [429, 503])
async def test_an_overloaded_upstream_says_when_to_come_back(
    origin: Origin, connect: Connect, read: Read, wait: str, code: int
) -> None:
    """`Retry-After` is kept as it came, seconds or a date."""
    origin.fail("", status(code, Retry_After=wait))
    upstream = await connect(origin)

    with pytest.raises(Overloaded, match=str(code)) as caught:
        await read(upstream)
    assert caught.value.retry_after == wait
