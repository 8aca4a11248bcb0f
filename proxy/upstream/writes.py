"""Pushes over HTTP: streamed on, and what the registry rejects is told in its own words."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import aiohttp
import orjson
from yarl import URL

from proxy.oci.challenge import delete_scope, parse_challenges, push_scope
from proxy.oci.endpoint import BlobAt, UploadAt
from proxy.oci.errors import BlobUnknown, ManifestUnknown, NameInvalid, NoAnswer, RegistryError, Rejected, UploadUnknown
from proxy.oci.reference import Repository
from proxy.oci.write import ANSWERED, Write, Written, parameter
from proxy.upstream.asker import Asker, Question
from proxy.upstream.auth import Access
from proxy.upstream.uploads import Sessions

_MAX_REJECTION: Final = 64 * 1024  # bytes of an error document that are read
_MAX_MESSAGE: Final = 300  # characters of its message that are passed on
_TEXT: Final = re.compile(r"[ -~]+")  # of a header that is passed on; anything else would be changed on its way
_CODE: Final = re.compile(r"[A-Z_]{1,64}", re.ASCII)


class Writes:
    """What is written to one registry."""

    def __init__(self, asker: Asker, sessions: Sessions) -> None:
        self._asker = asker
        self._sessions = sessions

    async def write(self, write: Write) -> Written:
        """Pass a step of a push on, streamed; what the upstream rejects is told with its own status and code."""
        question, url = self._question(write)
        async with self._sent(question, url, write) as response:
            if response.status // 100 != 2:
                raise await self._rejection(response, question)
            headers = {name: value for name in ANSWERED if _TEXT.fullmatch(value := response.headers.get(name, ""))}
            location = response.headers.get("Location", "")
            if isinstance(write.at, UploadAt) and response.status in (202, 204) and write.method != "DELETE":
                session, query = self._sessions.name(question.repository, url, location)
                return Written(status=response.status, headers=headers, session=session, query=query)
            return Written(status=response.status, headers=headers)

    def _question(self, write: Write) -> tuple[Question, URL]:
        at, repository = write.at, self._asker.remote(write.at.repository)
        what = f"{write.method} to {write.at.repository}"
        if isinstance(at, UploadAt):
            url = self._sessions.url(repository, at.session, write.query)
            return Question(write.method, repository, at.path, UploadUnknown, what), url
        path = replace(at, repository=repository).path
        missing = BlobUnknown if isinstance(at, BlobAt) else ManifestUnknown
        base = self._asker.transport.url
        url = URL(f"{base.origin()}{base.raw_path.rstrip('/')}{path}", encoded=True).with_query(write.query)
        return Question(write.method, repository, path, missing, what), url

    @asynccontextmanager
    async def _sent(self, question: Question, url: URL, write: Write) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a write, authenticated. A body that passes only once is sent when it is known how to do that."""
        headers = dict(write.headers)
        if write.body is not None and write.length is not None:
            headers["Content-Length"] = str(write.length)
        scope = _scope(question.repository, write)
        if write.body is None or isinstance(write.body, bytes):
            ask = partial(
                self._asker.transport.document, question.method, url, body=write.body or None, redirects=False
            )
            async with self._asker.authenticated(question, scope, headers, ask) as response:
                yield response
            return
        if not self._asker.authorizer.introduced:
            await self._introduce(question, scope)
        access = self._asker.access(question, scope)
        authorization = await self._asker.authorized(self._asker.authorizer.header(access), question)
        if authorization:
            headers["Authorization"] = authorization.header
        async with self._asker.transport.upload(question.method, url, headers, write.body) as response:
            if response.status == 401 and authorization is None:
                await self._challenged(response, question, access)
            yield response

    async def _introduce(self, question: Question, scope: str) -> None:
        """Learn from a request that can be sent again how to authenticate, or that nobody has to."""
        ask = partial(self._asker.transport.document, "GET", self._asker.url("/v2/", {}))
        async with self._asker.authenticated(question, scope, {}, ask) as response:
            if response.status == 200 and not self._asker.authorizer.introduced:
                self._asker.authorizer.opened()

    async def _challenged(self, response: aiohttp.ClientResponse, question: Question, access: Access) -> None:
        """Learn how to authenticate from a challenge that came too late, the body being gone.

        Raises `NoAnswer` where the client may send it again, `Refused` where that wouldn't help.
        """
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        if challenges:
            await self._asker.authorized(self._asker.authorizer.answer(challenges, access, None), question)
            raise NoAnswer(
                f"{self._asker.name} wants to know now who pushes: the body has to be sent again", retry_after="1"
            )

    async def _rejection(self, response: aiohttp.ClientResponse, question: Question) -> RegistryError:
        """Sort what isn't a success: the client's own fault is told in the upstream's words."""
        status = response.status
        if status in (401, 403, 429) or not 400 <= status < 500:
            return self._asker.failure(response, question)
        body = await self._asker.transport.read(response, _MAX_REJECTION, "rejection")
        code, message = _first_error(body)
        return Rejected(
            f"{self._asker.name} answered {status}{f': {message}' if message else ''}",
            status=status,
            code=code or question.missing.code,
        )


def _scope(repository: Repository, write: Write) -> str:
    """Return what a write needs to be allowed: a mount reads another repository, too."""
    if write.method == "DELETE" and not isinstance(write.at, UploadAt):
        return delete_scope(repository)
    source = parameter(write.query, "from") if isinstance(write.at, UploadAt) and not write.at.session else ""
    try:
        return push_scope(repository, *([Repository.parse(source)] if source else []))
    except NameInvalid:
        return push_scope(repository)


def _first_error(body: bytes) -> tuple[str, str]:
    """Return code and message of a registry's error document; empty where it isn't one."""
    try:
        first = orjson.loads(body)["errors"][0]
        code, message = first.get("code"), first.get("message")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return "", ""
    code, message = (each if isinstance(each, str) else "" for each in (code, message))
    shown = "".join(c if c.isprintable() else " " for c in message[:_MAX_MESSAGE])
    return code if _CODE.fullmatch(code) else "", shown
