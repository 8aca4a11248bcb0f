"""What has to hold of readers, whatever bytes come: each function lets some read, and compares."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, get_type_hints
from unittest.mock import Mock

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from yarl import URL

from fuzz.samples import DIGEST, SECRET
from proxy.merge.entry import Entry
from proxy.merge.template import Template
from proxy.oci import challenge, document, mediatype, referrers
from proxy.oci.byterange import ByteRange, SuffixRange, Whole, parse_content_range, parse_range, select
from proxy.oci.conditional import etag, is_known, wanted
from proxy.oci.content import Descriptor, Manifest
from proxy.oci.endpoint import Ping, parse
from proxy.oci.errors import BadAnswer, Invalid, RangeInvalid, RegistryError
from proxy.oci.mediatype import Accept
from proxy.oci.platform import Platform, complete, covers, normalize, rank
from proxy.oci.reference import Digest, Repository, Tag, parse_image, parse_reference
from proxy.settings import text as words
from proxy.settings.load import SettingsInvalid, load
from proxy.store import codec
from proxy.upstream.guard import check_realm, check_redirect
from proxy.upstream.lists import _next_page
from proxy.upstream.ratelimit import Quota, seconds
from proxy.web import hot, table
from proxy.web.failures import respond
from proxy.web.hooks import EventInvalid, events

_MAX_ERROR: Final = 8 << 10  # bytes that a client gets of an error, whatever was sent
_LOOP: Final = Mock(asyncio.AbstractEventLoop)
_PROTOCOL: Final = BaseProtocol(_LOOP)
_ESCAPED: Final = re.compile(r'([\\"])')
_ESCAPE: Final = r"\\\1"


def text(data: bytes) -> str:
    """Decode as aiohttp decodes what comes over the network: what isn't UTF-8 becomes surrogates."""
    return data.decode("utf-8", "surrogateescape")


def written(data: bytes) -> str:
    """Decode as configuration files are: they are UTF-8, or aren't read at all."""
    return data.decode("utf-8", "replace")


def attempt(read: Callable[[], Any], *declared: type[Exception]) -> Any:
    """Return what is read, or None where that fails as it is declared; then in a sentence that can be sent."""
    try:
        return read()
    except declared as error:
        if isinstance(error, RegistryError):
            body = respond(error).body
            assert isinstance(body, bytes)
            assert len(body) <= _MAX_ERROR
        return None


def names(data: bytes) -> None:
    """Names that are read are written as they came, and parts of them are names, too."""
    spelled = text(data)
    for kind in (Repository, Tag, Digest):
        assert attempt(lambda kind=kind: kind.parse(spelled), Invalid) in (None, spelled)  # type: ignore[misc]
    assert attempt(lambda: parse_reference(spelled), Invalid) in (None, spelled)
    image = attempt(lambda: parse_image(spelled), Invalid)
    if image is not None:
        repository, reference = image
        joined = f"{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"
        assert parse_image(joined) == image
        assert f"{repository.namespace}/{repository.name}".removeprefix("/") == repository


def paths(data: bytes) -> None:
    """A path is refused with a 4xx, or it is the path of what it was read as, and of nothing else."""
    target = attempt(lambda: parse(text(data)), RegistryError)
    if target is None:
        return
    again = parse(target.endpoint.path)
    if hasattr(target.endpoint, "session"):
        return  # an upload's session is the upstream's own word, which `upstream.uploads` writes and reads
    assert again.endpoint == target.endpoint
    assert target.endpoint == Ping() or ".." not in target.endpoint.path.split("/")


def ranges(data: bytes) -> None:
    """A range is ignored or read, and what it means lies within the blob."""
    first, _, rest = text(data).partition("\n")
    size = len(data)
    part = parse_range(first)
    if not isinstance(part, Whole):
        assert parse_range(str(part)) == part
        assert isinstance(part, ByteRange | SuffixRange)
        chosen = attempt(lambda: select(part, size), RangeInvalid)
        assert chosen is None or 0 <= chosen.first <= chosen.last < size
        assert chosen is None or parse_content_range(str(chosen)) == chosen
    content = attempt(lambda: parse_content_range(first), BadAnswer)
    assert content is None or parse_content_range(str(content)) == content
    digest = Digest(DIGEST)
    assert wanted(first, rest, digest) in (part, Whole())
    is_known([first, rest], digest)
    assert is_known([etag(digest), first, rest], digest)


def accepts(data: bytes) -> None:
    """The order of lines and of what they list counts for nothing."""
    lines = text(data).split("\n")
    accept = Accept.parse(lines)
    assert accept == Accept.parse(reversed(lines)) == Accept.parse([",".join(lines)])
    assert accept == Accept.parse(accept.types)
    assert isinstance(accept.only_single_images, bool)


def challenges(data: bytes) -> None:
    """What is read of a challenge is never more than was sent, and is read the same when it is written again."""
    found = challenge.parse_challenges(text(data).split("\n"))
    for each in found:
        assert each.scheme == each.scheme.lower()
        if len(data) > 1000:
            continue  # what is written again may be longer than what is read of a header
        quoted = [f'{name}="{_ESCAPED.sub(_ESCAPE, value)}"' for name, value in each.parameters.items()]
        assert challenge.parse_challenges([f"{each.scheme} {', '.join(quoted)}"]) == (each,)
        realm = each.parameters.get("realm", "")
        attempt(lambda realm=realm: check_realm(URL("https://registry.example"), realm, ()), BadAnswer)  # type: ignore[misc]
    assert sum(len(str(each.parameters)) for each in found) <= 8 * len(data) + 100


def upstream_headers(data: bytes) -> None:
    """Whatever an upstream writes into the headers that are read, it is read or left, or a bad answer."""
    first, _, rest = text(data).partition("\n")
    wait = seconds(first, rest)
    assert wait is None or wait >= 0
    quota = Quota.read({"ratelimit-limit": first, "ratelimit-remaining": rest})
    assert quota is None or 1 <= quota.stretch <= 10
    _next_page([first], [rest])
    here = URL("https://registry.example/v2/a/blobs/b")
    target = attempt(lambda: check_redirect(here.origin(), here, first), BadAnswer)
    assert target is None or (target.scheme == "https" and target.host)


def manifests(data: bytes) -> None:
    """A manifest is a bad answer, or what is read of it can be written and read again."""
    kind, _, body = data.partition(b"\n")
    attempt(lambda: document.parse_platform(body), BadAnswer)
    labels = attempt(lambda: document.parse_labels(body), BadAnswer) or {}
    assert all(isinstance(word, str) for pair in labels.items() for word in pair)
    read = attempt(lambda: document.parse(body, text(kind)), BadAnswer)
    if read is None:
        return
    referrers.described(Manifest.of(read.media_type, body))
    if isinstance(read, document.Index):
        again = document.parse(referrers.render(read.manifests).body, mediatype.OCI_INDEX)
        assert isinstance(again, document.Index)
        assert again.manifests == tuple(map(_annotated_in_order, read.manifests))
        for one in read.manifests:
            platforms_of(one.platform)


def _annotated_in_order(entry: Descriptor) -> Descriptor:
    return Descriptor(**{name: getattr(entry, name) for name in Descriptor.__dataclass_fields__})


def platforms_of(platform: Platform | None) -> None:
    """A platform is normal after it was made so, agrees with itself, and has a rank that can be compared."""
    if platform is None:
        return
    norm = normalize(platform)
    assert normalize(norm) == norm
    assert covers(norm, platform)
    assert complete(norm, platform) == norm
    sorted([rank(norm), rank(Platform("linux", "amd64")), rank(Platform("windows", "amd64", os_version="10.0.1"))])


def platforms(data: bytes) -> None:
    """A platform is read, or it isn't one."""
    platforms_of(attempt(lambda: Platform.parse(written(data)[:200]), ValueError))


def templates(data: bytes) -> None:
    """A template is refused, or going back from what it makes leads to where it came from."""
    template = attempt(lambda: Template.parse(written(data)[:200]), ValueError)
    if template is None:
        return
    assert Template.parse(str(template)) == template
    for repository, tag in [(Repository("team/app"), Tag("1.0")), (Repository("a"), Tag("v-1_2"))]:
        source = template.expand(repository, tag)
        if source is not None:
            virtual = template.match(*source)
            assert virtual is None or template.expand(*virtual) == source
            assert template.tag(repository, *source) in (None, tag)


def configurations(data: bytes) -> None:
    """A configuration is refused with its problems, or everything can be made of it; no secret is repeated."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(data)
        try:
            settings = load(Path(file.name))
        except SettingsInvalid as error:
            _hides(str(error), data)
            return
    assert len(settings.rules_in_force) > len(settings.rule)
    assert len(settings.names) == len(settings.upstream)
    _hides(repr(settings), data)


def _hides(told: str, data: bytes) -> None:
    """What is told holds something, and no secret that is where secrets belong: mutation moves them elsewhere, too."""
    assert told
    assert SECRET not in told or data.count(SECRET.encode()) != len(
        re.findall(rf'^(?:password|secret) = "{SECRET}"\r?$'.encode(), data, re.MULTILINE)
    )


def texts(data: bytes) -> None:
    """A value as people write it is read, or told to be none."""
    spelled = written(data)
    for read in (
        words.parse_duration,
        words.parse_ttl,
        words.parse_size,
        words.parse_listen,
        words.parse_url,
        words.parse_network,
        words.parse_workers,
    ):
        attempt(lambda read=read: read(spelled), ValueError)  # type: ignore[misc]


def records(data: bytes) -> None:
    """A stored record reads back as what it was, or counts as not kept."""
    for read in (codec.entry, codec.location, codec.learned):
        record = codec.decode(read, data)
        if record is None:
            continue
        assert codec.decode(read, codec.encode(record)) == record
        if isinstance(record, Entry):
            for descriptor in (record.descriptor, *(child for part in record.parts for child in part.children)):
                _is_typed(descriptor)
                platforms_of(descriptor.platform)


def _is_typed(descriptor: Descriptor) -> None:
    hints = get_type_hints(Platform)
    for name, value in asdict(descriptor.platform).items() if descriptor.platform else ():
        assert isinstance(value, (tuple if name == "os_features" else hints[name])), (name, value)
    assert all(isinstance(word, str) for pair in descriptor.annotations.items() for word in pair)


def notifications(data: bytes) -> None:
    """A notification isn't understood, or it names tags."""
    found = attempt(lambda: events(data), EventInvalid) or ()
    assert len(found) <= 1000
    for event in found:
        Repository.parse(event.repository)
        Tag.parse(event.tag)


def heads(data: bytes) -> None:
    """What the hot path counts and compares is what aiohttp reads.

    Where it counts heads, aiohttp reads as many requests, and nothing behind them; where the order of lines shall not
    matter, another order is the same request to aiohttp.
    """
    if not (data.endswith(table.END) and hot._HEADS.fullmatch(data)):
        return
    requests = _requests(data)
    if requests is None:
        return  # aiohttp answers 400 and closes; nothing is counted any more
    assert len(requests) == data.count(table.END)
    if len(requests) == 1 and table.has_no_order(data):
        first, *lines = data[: -len(table.END)].split(b"\r\n")
        for order in (lines[::-1], lines[1:] + lines[:1], sorted(lines)):
            other = b"\r\n".join([first, *order]) + table.END
            assert table.ordered(other) == table.ordered(data)
            again = _requests(other)
            assert again is not None
            assert list(map(_meaning, again)) == list(map(_meaning, requests))


def _requests(data: bytes) -> list[RawRequestMessage] | None:
    """Return the requests that aiohttp reads, none of which has a body; None for an error."""
    parser = HttpRequestParser(
        _PROTOCOL, _LOOP, 2**16, max_line_size=65536, max_field_size=65536, auto_decompress=False
    )
    try:
        messages, upgraded, tail = parser.feed_data(data)
    except HttpProcessingError:
        return None
    assert not upgraded, "aiohttp gives the connection away"
    assert not tail, "aiohttp waits for more"
    assert all(body is EMPTY_PAYLOAD for _, body in messages), "aiohttp waits for a body"
    return [message for message, _ in messages]


def _meaning(message: RawRequestMessage) -> object:
    fields = sorted((name.lower(), value) for name, value in message.headers.items())
    return message.method, message.path, message.version, message.should_close, message.compression, fields
