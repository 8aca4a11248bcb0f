"""Interim answers (1xx) in front of an upstream's answer: a few are heeded, a flood of them is no answer.

aiohttp reads any number of them, and as many at once as come in one piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

_MAX_INTERIM: Final = 20  # 100, 102 and 103 come once or twice, if at all
_SLICE: Final = 4096  # bytes that are parsed at once where a head is expected


class Connector(aiohttp.TCPConnector):
    """A pool of connections on which an answer has to come in the end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        answers: Callable[..., ResponseHandler] = _Answers
        self._factory = partial(answers, loop=asyncio.get_running_loop())


class _Answers(ResponseHandler):
    """aiohttp's protocol of a connection, which counts interim answers."""

    _interim: int = 0

    def data_received(self, data: bytes) -> None:
        """Take what comes: slice by slice until a head is whole, then the rest."""
        while len(data) > _SLICE and self._expects_head():
            super().data_received(data[:_SLICE])
            data = data[_SLICE:]
        if self.transport is not None:
            super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Pass an answer on; after too many interim ones end the connection instead."""
        if self._interim > _MAX_INTERIM:
            return
        self._interim = self._interim + 1 if 100 <= data[0].code < 200 else 0
        if self._interim <= _MAX_INTERIM:
            super().feed_data(data, size)
        elif self.transport is not None:
            self.transport.abort()
            self.set_exception(HttpProcessingError(message="interim answers without an end"))

    def _expects_head(self) -> bool:
        payload = self._payload
        return self.transport is not None and self._interim <= _MAX_INTERIM and (payload is None or payload.is_eof())
