"""`WWW-Authenticate` of RFC 9110 §11.6.1, and the scopes of the distribution token specification."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.oci.reference import Repository

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))', re.ASCII)
_SCHEME: Final = re.compile(rf"({_WORD})(?:\s+|\s*$|(?=,))", re.ASCII)
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))", re.ASCII)  # Negotiate's, of no use here
_SEPARATOR: Final = re.compile(r"[\s,]*")
_MAX_HEADER: Final = 16 * 1024  # characters; what is behind them is not read


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: its scheme and parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Read all challenges of all `WWW-Authenticate` headers; what can't be read is skipped."""
    return tuple(challenge for header in headers for challenge in _challenges(header[:_MAX_HEADER]))


def pull_scope(repository: Repository) -> str:
    """Return the scope that reading *repository* needs."""
    return f"repository:{repository}:pull"


def push_scope(repository: Repository, *mounted: Repository) -> str:
    """Return the scopes that writing to *repository* needs, and mounting blobs of others; separated by spaces."""
    return " ".join((f"repository:{repository}:pull,push", *map(pull_scope, mounted)))


def delete_scope(repository: Repository) -> str:
    """Return the scope that deleting from *repository* needs."""
    return f"repository:{repository}:pull,push,delete"


def _challenges(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = _skip(header, 0)
    while position < len(header):
        parameter = _PARAMETER.match(header, position)
        if parameter is not None and found:
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            found[-1][1].setdefault(name.lower(), value)
            position = _skip(header, parameter.end())
            continue
        scheme = _SCHEME.match(header, position)
        unread = scheme or _TOKEN68.match(header, position)
        if unread is None:
            break
        if scheme is not None:
            found.append((scheme.group(1).lower(), {}))
        position = _skip(header, unread.end())
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _skip(header: str, position: int) -> int:
    match = _SEPARATOR.match(header, position)
    return match.end() if match else position
