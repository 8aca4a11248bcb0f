"""Every way a registry can fail: one class each, holding its row of the OCI error table.

The tree has two branches that must never be confused. A `Denial` is an answer, and it is no: it may be
remembered. `NoAnswer` says nothing about what exists: it may never change what is served.

Codes are those of the distribution specification; `UNAVAILABLE`, `UNKNOWN`, `TAG_INVALID` and
`RANGE_INVALID` are distribution's own (`registry/api/errcode`), which clients have met for years.
"""

from __future__ import annotations


class RegistryError(Exception):
    """A failure with a row in the OCI error table. The text is one sentence that names the real cause."""

    code: str = "UNKNOWN"
    status: int = 500

    def __init__(self, message: str, *, retry_after: str | None = None) -> None:
        """Keep the *message* for clients and operators.

        Args:
            message: One sentence, free of secrets.
            retry_after: The upstream's `Retry-After` header as it came: seconds or an HTTP date.
        """
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class Denial(RegistryError):
    """An answer, and it is no."""


class Invalid(Denial):
    """What was asked can't be a name in any registry."""

    status = 400


class NameInvalid(Invalid):
    """The repository doesn't follow the grammar."""

    code = "NAME_INVALID"


class TagInvalid(Invalid):
    """The tag doesn't follow the grammar."""

    code = "TAG_INVALID"


class DigestInvalid(Invalid):
    """The digest doesn't follow the grammar, or its algorithm isn't sha256 or sha512."""

    code = "DIGEST_INVALID"


class PaginationInvalid(Invalid):
    """`n` isn't a number that a page may have."""

    code = "PAGINATION_NUMBER_INVALID"


class Unauthorized(Denial):
    """Whoever asks didn't say who they are, or said it wrong."""

    code = "UNAUTHORIZED"
    status = 401

    def __init__(self, message: str, *, challenge: str = "") -> None:
        """Keep the *challenge* for `WWW-Authenticate`: how to say it."""
        super().__init__(message)
        self.challenge = challenge


class Denied(Denial):
    """Whoever asks is known, and may not."""

    code = "DENIED"
    status = 403


class NotFound(Denial):
    """The thing doesn't exist."""

    status = 404


class NameUnknown(NotFound):
    """No such repository, or no such upstream."""

    code = "NAME_UNKNOWN"


class NoCatalog(NotFound):
    """There are repositories, but no list of them; the method itself would be allowed."""

    code = "UNSUPPORTED"


class ManifestUnknown(NotFound):
    """No such manifest."""

    code = "MANIFEST_UNKNOWN"


class BlobUnknown(NotFound):
    """No such blob."""

    code = "BLOB_UNKNOWN"


class UploadUnknown(NotFound):
    """No such upload under way."""

    code = "BLOB_UPLOAD_UNKNOWN"


class TooLarge(Invalid):
    """More bytes than are accepted."""

    code = "SIZE_INVALID"
    status = 413


class Unsupported(Denial):
    """The method isn't allowed here."""

    code = "UNSUPPORTED"
    status = 405

    def __init__(self, message: str, *, allowed: tuple[str, ...] = ("GET", "HEAD")) -> None:
        """Keep the methods that are *allowed* here, for `Allow`."""
        super().__init__(message)
        self.allowed = allowed


class Rejected(Denial):
    """The upstream doesn't take what was written: with its own status and code, which the client has to know."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        """Keep the upstream's *status*, a 4xx, and its *code*."""
        super().__init__(message)
        self.status = status
        self.code = code


class RangeInvalid(Denial):
    """The range starts behind the end of the blob."""

    code = "RANGE_INVALID"
    status = 416

    def __init__(self, message: str, *, size: int | None = None) -> None:
        """Keep the blob's *size* in bytes for `Content-Range: bytes */size`, where it is known."""
        super().__init__(message)
        self.size = size


class Refused(RegistryError):
    """The upstream knows who asks, and says no (401 or 403 after authenticating anew)."""

    code = "DENIED"
    status = 403

    def __init__(self, message: str, *, seen: int = 403) -> None:
        """Keep the status that was *seen*, from the upstream or its token service."""
        super().__init__(message)
        self.seen = seen


class NoAnswer(RegistryError):
    """Nothing was learned about what exists: no connection, no time, no sense.

    Attributes:
        told: Whether operators were told: many may wait for the same answer that doesn't come.
    """

    told: bool = False
    code = "UNAVAILABLE"
    status = 503


class Unreachable(NoAnswer):
    """No connection, or it broke before the answer was whole."""


class TimedOut(NoAnswer):
    """The answer didn't come within its limit."""


class Overloaded(NoAnswer):
    """The upstream answered 429 or a 5xx."""


class Crowded(NoAnswer):
    """The upstream wasn't asked: all connections to it that we may have are in use, which isn't its fault."""


class Unreadable(NoAnswer):
    """What was kept can't be read: whether it was isn't known either."""


class BadAnswer(NoAnswer):
    """The upstream answered something that can't be used: wrong type, wrong digest, too large, not JSON."""

    code = "UNKNOWN"
    status = 502
