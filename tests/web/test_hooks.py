"""Events from registries: who may send them, what they say, what they cause."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Answer, Clock, Proxy, StartProxy, until
from images import ARM, V1, push, push_pair
from patience import HANGING
from proxy.web.hooks import Event, EventInvalid, events
from scripted import Origin, status

SECRET = "correct horse"
TAG = "/v2/kimoqi/alpine/manifests/1.0"
PLAIN = {"repository": "kimoqi/alpine-arm", "tag": "1.0"}
DISTRIBUTION = {
    "events": [
        {"action": "push", "target": {"repository": "kimoqi/alpine-arm", "tag": "1.0"}},
        {"action": "push", "target": {"repository": "kimoqi/alpine-arm", "digest": "sha256:0"}},
        {"action": "pull", "target": {"repository": "kimoqi/alpine-x86", "tag": "1.0"}},
    ]
}
HARBOR = {
    "type": "PUSH_ARTIFACT",
    "event_data": {"resources": [{"tag": "1.0"}, {}], "repository": {"repo_full_name": "kimoqi/alpine-arm"}},
}


async def post(
    proxy: Proxy, document: Any, authorization: str = f"Bearer {SECRET}", upstream: str = "origin0"
) -> Answer:
    """Send a notification."""
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    headers = {"Authorization": authorization} if authorization else {}
    async with proxy.session.post(
        f"{proxy.admin}/hooks/{upstream}", data=io.BytesIO(body), headers=headers
    ) as response:
        return Answer(response.status, response.headers, await response.read())


@pytest.fixture
async def proxy(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Proxy:
    """A proxy that takes events, in front of the pair."""
    push_pair(origin.registry)
    return await start(origin, rule=[rule], hooks={"secret": SECRET})


@pytest.mark.parametrize("document", [PLAIN, DISTRIBUTION, HARBOR], ids=["plain", "distribution", "harbor"])
def test_every_notification_says_the_same(document: Any) -> None:
    """All three kinds tell of a tag that changed; pulls and pushes without a tag tell nothing."""
    assert events(orjson.dumps(document)) == (Event(ARM, V1),)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"5",
        {"repository": "Bad", "tag": "1"},
        {"repository": "a", "tag": "/"},
        {"repository": ["a"], "tag": "1"},
        {"events": 5},
        {"events": [{}]},
        {"events": [{"action": "push", "target": None}]},
        {"type": "PUSH_ARTIFACT", "event_data": {"resources": [{"tag": "1"}]}},
    ],
)
def test_what_is_no_notification_is_refused(document: Any) -> None:
    """Anything else is a clear error."""
    with pytest.raises(EventInvalid, match="was expected"):
        events(document if isinstance(document, bytes) else orjson.dumps(document))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["events", "event_data", "type", "repository", "tag", "target", "action", "resources"]),
                inner,
            )
        ),
    )
)
def test_no_document_is_an_accident(document: Any) -> None:
    """Whatever JSON is posted, it is events or an error of ours."""
    try:
        found = events(orjson.dumps(document))
    except EventInvalid:
        return

    assert all(isinstance(event, Event) for event in found)


@pytest.mark.parametrize("document", [PLAIN, DISTRIBUTION, HARBOR], ids=["plain", "distribution", "harbor"])
async def test_an_event_revalidates_at_once(origin: Origin, proxy: Proxy, document: Any) -> None:
    """A push that was told of is served without waiting for the tag's time to be over."""
    await proxy.get(TAG)
    changed = push(origin.registry, ARM, "1.0", "linux/arm64", text="rebuilt")

    answer = await post(proxy, document)

    assert (answer.status, orjson.loads(answer.body)) == (
        202,
        {"revalidated": ["origin0/kimoqi/alpine-arm:1.0", "origin0/kimoqi/alpine:1.0"]},
    )
    await until(lambda: any(str(changed.digest) in str(request) for request in origin.requests))

    async def is_served() -> bool:
        return changed.digest.encode() in (await proxy.get(TAG)).body

    await until(is_served)


async def test_an_event_ends_a_remembered_404(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """What didn't exist a moment ago is asked for when its push is told of."""
    proxy = await start(origin, rule=[rule], hooks={"secret": SECRET})
    assert (await proxy.get(TAG)).status == 404
    push_pair(origin.registry)

    await post(proxy, PLAIN)

    assert (await proxy.get(TAG)).status == 200


async def test_an_event_of_what_nobody_pulled_asks_nothing(origin: Origin, proxy: Proxy) -> None:
    """Events never make us fetch what no client has asked for."""
    answer = await post(proxy, PLAIN)

    assert answer.status == 202
    assert origin.requests == []


async def test_events_during_trouble_change_nothing(origin: Origin, proxy: Proxy, clock: Clock) -> None:
    """An event while the registry gives no answer leaves the last good index in place."""
    before = await proxy.get(TAG)
    origin.fail("kimoqi", status(503))
    await post(proxy, PLAIN)
    await until(lambda: len(origin.requests) >= 8)

    assert (await proxy.get(TAG)).body == before.body


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic Y29ycmVjdCBob3JzZQ==", f"Bearer {SECRET}x"])
async def test_without_the_secret_nothing_is_taken(origin: Origin, proxy: Proxy, authorization: str) -> None:
    """A wrong or missing secret is a 401, and nobody is asked."""
    await proxy.get(TAG)
    origin.requests.clear()

    answer = await post(proxy, PLAIN, authorization)

    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="manifuse hooks"')
    assert SECRET.encode() not in answer.body
    assert origin.requests == []


@pytest.mark.parametrize("authorization", [SECRET, f"bearer {SECRET}"])
async def test_the_secret_may_be_sent_otherwise(proxy: Proxy, authorization: str) -> None:
    """Harbor sends it bare; the scheme's case means nothing (RFC 9110, 11.1)."""
    assert (await post(proxy, HARBOR, authorization)).status == 202


async def test_without_a_configured_secret_the_door_is_closed(origin: Origin, start: StartProxy) -> None:
    """By default there is no such page, whatever is sent."""
    proxy = await start(origin)

    assert (await post(proxy, PLAIN, "Bearer ")).status == 404


@pytest.mark.parametrize(("document", "expected"), [(b"{", 400), (b"x" * (1 << 20) + b"x", 400), (PLAIN, 404)])
async def test_bad_notifications(proxy: Proxy, document: Any, expected: int) -> None:
    """Nonsense and floods are 400, an upstream that isn't configured is 404."""
    upstream = "origin0" if expected == 400 else "nobody"

    assert (await post(proxy, document, upstream=upstream)).status == expected


async def test_events_are_posted(proxy: Proxy) -> None:
    """Looking at the page is not a notification."""
    answer = await proxy.page("/hooks/origin0")

    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_notification_that_drips_is_given_up(
    origin: Origin, start: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take one of the admin port's places."""
    monkeypatch.setattr("proxy.web.hooks._MAX_SECONDS", 0.1)
    proxy = await start(origin, hooks={"secret": "tell"})
    reader, writer = await asyncio.open_connection(*proxy.admin.removeprefix("http://").split(":"))
    writer.write(b"POST /hooks/origin0 HTTP/1.1\r\nHost: a\r\nAuthorization: tell\r\nContent-Length: 9\r\n\r\n{")
    async with asyncio.timeout(HANGING):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
