"""Values as people write them, and back: durations, sizes, addresses, URLs, platforms, templates."""

from __future__ import annotations

import math
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_settings import NoDecode
from yarl import URL

from proxy.merge.template import Template
from proxy.oci.platform import Platform

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_DURATION: Final = r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)"
_SIZE: Final = r"([0-9]+)(B|KiB|MiB|GiB|KB|MB|GB)"
_RATE: Final = r"([0-9]{1,9})/(s|m|h)"
_GLOB: Final = r"[a-z0-9._*?-]+(?:/[a-z0-9._*?-]+)*"
FOREVER: Final = "forever"
AUTO: Final = "auto"
MOST_WORKERS: Final = 64
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def parse_duration(value: object) -> float:
    """Read `"60s"`, `"1.5m"`, `"24h"` as seconds. Raises `ValueError`."""
    match = re.fullmatch(_DURATION, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a duration with its unit was expected, such as "500ms", "60s", "10m", "24h", "30d"')
    return float(match[1]) * _SECONDS[match[2]]


def parse_ttl(value: object) -> float:
    """Read a duration, or `"forever"` for what never changes. Raises `ValueError`."""
    return math.inf if value == FOREVER else parse_duration(value)


def parse_size(value: object) -> int:
    """Read `"64MiB"` as bytes. Raises `ValueError`."""
    match = re.fullmatch(_SIZE, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a size with its unit was expected, such as "512KiB", "64MiB", "20GiB"')
    return int(match[1]) * _BYTES[match[2]]


def parse_rate(value: object) -> float:
    """Read `"100/s"`, `"3000/m"`, `"500/h"` as a number for each second. Raises `ValueError`."""
    match = re.fullmatch(_RATE, value) if isinstance(value, str) else None
    if match is None or not int(match[1]):
        raise ValueError('a number of requests for a time was expected, such as "100/s", "3000/m"')
    return int(match[1]) / _SECONDS[match[2]]


def parse_listen(value: object) -> tuple[str, int]:
    """Read `host:port`, `[::1]:port` or `:port` for all addresses. Raises `ValueError`."""
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else -1
    if not colon or not 0 <= number < 65536 or (":" in host and not host.startswith("[")):
        raise ValueError('host:port was expected, such as "127.0.0.1:5080" or "[::1]:5080"')
    return host.strip("[]"), number


def parse_url(value: object) -> URL:
    """Read a URL without secrets. Raises `ValueError` without repeating it."""
    try:
        url = URL(value) if isinstance(value, str) else URL()
    except (ValueError, IndexError):  # yarl's own, for hosts such as []@
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError('an http or https URL was expected, such as "https://registry.example"')
    if url.user or url.password or url.query_string or url.fragment:
        raise ValueError("a URL without user, password, query and fragment was expected; credentials have a key")
    return url


def parse_registry(value: object) -> URL:
    """Read a registry's URL. A path in front of `/v2/` is allowed. Raises `ValueError` without repeating it."""
    url = parse_url(value)
    if url.path.rstrip("/").endswith("/v2"):
        raise ValueError("a URL without /v2 at its end was expected: it is put behind it")
    return url


def parse_glob(value: str) -> str:
    """Return a glob over repositories. Raises `ValueError` for one that no repository's name can fit."""
    if not re.fullmatch(_GLOB, value, re.ASCII):
        raise ValueError(
            "a glob over repositories was expected: lower-case words joined by . _ - /, with * ** ?, no tag"
        )
    return value


def parse_network(value: object) -> IPv4Network | IPv6Network:
    """Read `10.0.0.0/8`, or an address alone. Raises `ValueError`."""
    try:
        return ip_network(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError('a network or an address was expected, such as "10.0.0.0/8" or "127.0.0.1"') from None


def parse_workers(value: object) -> int:
    """Read a number of processes, or `"auto"` as 0: as many as there are cores. Raises `ValueError`."""
    if value == AUTO:
        return 0
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_WORKERS:
        raise ValueError(f'a number from 1 to {MOST_WORKERS} or "{AUTO}" was expected')
    return number


def _parsed(read: Any, example: str, pattern: str | None = None) -> Any:
    """Return annotations for a value that is written as a string and kept parsed."""
    schema = {"type": "string", "examples": [example]} | ({"pattern": f"^{pattern}$"} if pattern else {})
    return (BeforeValidator(read), WithJsonSchema(schema))


def _platform(value: object) -> Platform:
    return Platform.parse(value if isinstance(value, str) else "")


def _template(value: object) -> Template:
    return Template.parse(value if isinstance(value, str) else "")


Duration = Annotated[float, *_parsed(parse_duration, "60s", _DURATION)]
Ttl = Annotated[float, *_parsed(parse_ttl, "60s", f"({_DURATION}|{FOREVER})")]
Size = Annotated[int, *_parsed(parse_size, "64MiB", _SIZE)]
Rate = Annotated[float, *_parsed(parse_rate, "100/s", _RATE)]
Listen = Annotated[tuple[str, int], NoDecode, *_parsed(parse_listen, "127.0.0.1:5080")]
Url = Annotated[Any, *_parsed(parse_url, "https://registry.example")]
RegistryUrl = Annotated[Any, *_parsed(parse_registry, "https://registry.example")]
NetworkText = Annotated[Any, *_parsed(parse_network, "10.0.0.0/8")]
RepositoryGlob = Annotated[str, Field(min_length=1), AfterValidator(parse_glob)]
PlatformText = Annotated[Any, *_parsed(_platform, "linux/arm64")]
TemplateText = Annotated[Any, *_parsed(_template, "{repository}-arm:{tag}")]
Workers = Annotated[
    int,
    BeforeValidator(parse_workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_WORKERS}, {"const": AUTO}]}),
]
ConventionName = Literal["repository-suffix", "tag-suffix", "repository-prefix", "namespace", "tag-prefix"]
Status = Annotated[int, Field(ge=400, le=599)]


def written(value: object) -> object:
    """Return a default as people would write it."""
    match value:
        case math.inf:
            return FOREVER
        case float():
            units = reversed(_SECONDS.items())
            number, unit = next(((value / size, unit) for unit, size in units if value >= 2 * size), (value, "s"))
            return f"{number:g}{unit}"  # 60s rather than 1m
        case int():
            number, unit = next((value // size, unit) for unit, size in reversed(_BYTES.items()) if not value % size)
            return f"{number}{unit}"
        case [host, port]:
            return f"{host}:{port}"
        case {"os": os, "architecture": architecture}:
            return f"{os}/{architecture}"
        case _:
            return value
