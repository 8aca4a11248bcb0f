"""Events from registries: what was pushed or deleted there is asked for anew at once, not when its time is over.

Understood are the notifications of distribution, those of Harbor, and a plain `{"repository": …, "tag": …}`.
A shared secret is required: whoever may post here can make us ask, though never for anything a pull couldn't.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from proxy.oci.errors import Invalid, NotFound, Unauthorized, Unsupported
from proxy.oci.reference import Repository, Tag
from proxy.telemetry import Metrics
from proxy.web.limits import BodyTooSlow

_MAX_BODY: Final = 1024 * 1024  # bytes; distribution sends some hundreds for each event
_MAX_SECONDS: Final = 10.0  # for it to come
_MAX_EVENTS: Final = 1000  # of one notification
_DISTRIBUTION: Final = frozenset({"push", "delete", "mount"})
_HARBOR: Final = frozenset({"PUSH_ARTIFACT", "DELETE_ARTIFACT", "pushImage", "deleteImage"})

_log: Final = structlog.get_logger("hooks")

Revalidate = Callable[[str, Repository, Tag], Awaitable[tuple[str, ...]]]
"""Asks anew for what a source's tag belongs to; returns the virtual names. Raises `NameUnknown`."""


class EventInvalid(Invalid):
    """What was posted is no notification that is understood."""


class HooksClosed(NotFound):
    """No secret is configured, so events aren't taken."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a tag of a registry."""

    repository: Repository
    tag: Tag


class Hooks:
    """Takes notifications."""

    def __init__(self, secret: str, revalidate: Revalidate, metrics: Metrics) -> None:
        """Take what is needed; with an empty *secret* nothing is taken."""
        self._secret = secret.encode()
        self._revalidate = revalidate
        self._metrics = metrics

    async def handle(self, request: web.BaseRequest, upstream: str) -> web.Response:
        """Answer a notification from *upstream* with the virtual names that are asked for anew.

        Raises:
            HooksClosed, Unauthorized, EventInvalid, Unsupported: It isn't taken.
            NameUnknown: There is no such upstream.
        """
        if not self._secret:
            raise HooksClosed("events are not taken: no secret is configured under [hooks]")
        if request.method != "POST":
            raise Unsupported("notifications are posted", allowed=("POST",))
        self._check(request.headers.get("Authorization", ""))
        names: dict[str, None] = {}
        for event in events(await _body(request)):
            names |= dict.fromkeys(await self._revalidate(upstream, event.repository, event.tag))
            self._metrics.events.labels(upstream).inc()
            _log.info("event", upstream=upstream, repository=event.repository, tag=event.tag)
        body = orjson.dumps({"revalidated": list(names)})
        return web.Response(status=202, body=body, headers={"Content-Type": "application/json"})

    def _check(self, authorization: str) -> None:
        """Compare in constant time. Harbor sends the header as it is configured, others put a scheme in front."""
        scheme, _, rest = authorization.partition(" ")
        given = rest if scheme.lower() == "bearer" else authorization
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._secret):
            raise Unauthorized(
                "the Authorization header doesn't hold the secret configured under [hooks]",
                challenge='Bearer realm="manifuse hooks"',
            )


def events(body: bytes) -> tuple[Event, ...]:
    """Read a notification; what isn't a change of a tag is left out. Raises `EventInvalid`."""
    try:
        document: Any = orjson.loads(body)
        pairs = _pairs(document)
        found = tuple(Event(Repository.parse(repository), Tag.parse(tag)) for repository, tag in pairs)
    except (orjson.JSONDecodeError, Invalid, LookupError, TypeError, AttributeError):
        raise EventInvalid(
            "a notification of distribution, of Harbor, or a repository and a tag was expected"
        ) from None
    if len(found) > _MAX_EVENTS:
        raise EventInvalid(f"the notification has {len(found)} events, at most {_MAX_EVENTS} are taken")
    return tuple(dict.fromkeys(found))


def _pairs(document: Any) -> list[tuple[str, str]]:
    """Return the (repository, tag) pairs of whichever notification this is."""
    if "events" in document:
        targets = [event["target"] for event in document["events"] if event["action"] in _DISTRIBUTION]
        return [(target["repository"], target["tag"]) for target in targets if target.get("tag")]
    if "event_data" in document:
        data = document["event_data"]
        tags = [resource.get("tag") for resource in data.get("resources") or ()] if document["type"] in _HARBOR else []
        return [(data["repository"]["repo_full_name"], tag) for tag in tags if tag]
    return [(document["repository"], document["tag"])]


async def _body(request: web.BaseRequest) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_MAX_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > _MAX_BODY:
                    raise EventInvalid(f"the notification has more than {_MAX_BODY} bytes")
    except TimeoutError:
        raise BodyTooSlow(f"the notification didn't come within {_MAX_SECONDS:g} s") from None
    return bytes(body)
