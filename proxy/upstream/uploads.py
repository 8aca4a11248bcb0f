"""Uploads under way: names for them that lead back to where the upstream wants each continued.

A registry says in `Location` where an upload goes on, and may say anything. A client gets a `Location` of ours
instead. For what most registries say, `/v2/<repository>/blobs/uploads/<session>?…`, that is the same session under
our name. For any other path (GitHub's and Google's registries have their own) it is that path, signed: what comes
back from a client never picks what we ask the upstream for (law 10).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from yarl import URL

from proxy.oci.endpoint import UploadAt
from proxy.oci.errors import BadAnswer, UploadUnknown
from proxy.oci.reference import Repository
from proxy.oci.write import joined

if TYPE_CHECKING:
    from itsdangerous import URLSafeSerializer

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.=-]{0,1023}", re.ASCII)
_SIGNED: Final = "~"
_URL: Final = re.compile(r"[!-~]+")  # other bytes can be neither signed nor sent again as they came


class Sessions:
    """Names of uploads at one upstream."""

    def __init__(self, url: URL, secret: bytes) -> None:
        """Sign with *secret*; every process that may be asked to go on with an upload needs the same."""
        self._url = url
        self._secret = secret

    def name(self, repository: Repository, asked: URL, location: str) -> tuple[str, str]:
        """Return a session and a query for the *location* that the upstream gave when *asked*.

        Raises `BadAnswer` where it leads to another host: nobody else gets what is pushed.
        """
        try:
            target = asked.join(URL(location, encoded=True))
            is_ours = _URL.fullmatch(location) is not None and target.host == self._url.host
        except (ValueError, IndexError):  # yarl's own, for hosts such as []@ and a:b
            is_ours = False
        if not is_ours:
            raise BadAnswer("the upstream wants an upload continued at a Location that isn't its own")
        session = target.raw_path.removeprefix(self._path(repository))
        if _PLAIN.fullmatch(session):
            return session, target.raw_query_string
        return _SIGNED + self._signer().dumps([repository, target.raw_path, target.raw_query_string]), ""

    def url(self, repository: Repository, session: str, query: str) -> URL:
        """Return where an upload goes on. Raises `UploadUnknown` for a session that was never given out."""
        if not session.startswith(_SIGNED):
            if session and not _PLAIN.fullmatch(session):
                raise UploadUnknown("no such upload is under way")
            return self._at(self._path(repository) + session, query)
        from itsdangerous import BadSignature  # noqa: PLC0415 - as below

        try:
            owner, path, own_query = self._signer().loads(session.removeprefix(_SIGNED))
        except (BadSignature, ValueError, TypeError):
            raise UploadUnknown("no such upload is under way, or it was begun before a restart") from None
        if owner != repository:
            raise UploadUnknown(f"no such upload to {repository} is under way")
        return self._at(path, joined(own_query, query))

    def _signer(self) -> URLSafeSerializer:
        from itsdangerous import URLSafeSerializer  # noqa: PLC0415 - memory that most don't need

        return URLSafeSerializer(self._secret, salt=f"upload {self._url}")

    def _path(self, repository: Repository) -> str:
        return self._url.raw_path.rstrip("/") + UploadAt(repository, "").path

    def _at(self, path: str, query: str) -> URL:
        origin = self._url.origin()
        return URL(f"{origin}{path}?{query}" if query else f"{origin}{path}", encoded=True)
