"""What is fuzzed: readers, inputs to begin with, and words."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import orjson

from fuzz import checks
from fuzz.engine import Target
from fuzz.samples import DIGEST, ENTRY, FIELDS, HEADERS, KEYS, PART, SECRETS, TOML, chunks, image, index
from proxy.oci import mediatype
from test_recorded import READS

TARGETS: Final = (
    Target(
        "names", checks.names, chunks(["team/app", "a__b--c.d/e:1.0@" + DIGEST, DIGEST, "sha512:" + "b" * 128, "v1.0"])
    ),
    Target(
        "paths",
        checks.paths,
        chunks(
            [
                "/v2/",
                "/v2/_catalog",
                "/hub/v2/a/b/manifests/1.0",
                f"/v2/a/manifests/{DIGEST}",
                f"/v2/a/blobs/{DIGEST}",
                "/v2/a/blobs/uploads/",
                "/v2/a/blobs/uploads/x%2Fy",
                "/v2/a/tags/list",
                f"/v2/a/referrers/{DIGEST}",
                "/v2/a/_catalog",
            ]
        ),
        chunks(
            ["/v2/", "/manifests/", "/blobs/", "/uploads/", "/tags/list", "/referrers/", "%2e%2e", "%2F", "_catalog"]
        ),
    ),
    Target(
        "ranges",
        checks.ranges,
        chunks(
            [f'bytes=0-5\n"{DIGEST}"', "bytes=-5\n*", "bytes 0-5/6\nW/", "bytes=3-", "bytes=0-1,3-4", "bytes 1-2/*"]
        ),
        chunks(["bytes=", "bytes ", "-", "/", "*", 'W/"', f'"{DIGEST}"', ",", "\n"]),
    ),
    Target(
        "accepts",
        checks.accepts,
        chunks(sorted({"\n".join(v for k, v in each.headers if k == "Accept") for each in READS})),
        chunks([",", ";q=0.5", "*/*", "\n", mediatype.OCI_INDEX, mediatype.DOCKER_MANIFEST]),
    ),
    Target(
        "challenges",
        checks.challenges,
        chunks(
            [
                'Bearer realm="https://auth.registry.example/token",service="r",scope="repository:a/b:pull"',
                "Basic realm=x",
                'Negotiate abc==, Basic realm="a\\"b", Bearer realm=t',
                'Digest a="b",, c = d\nBearer',
            ]
        ),
        chunks(["Bearer ", "Basic ", "realm=", 'realm="', '"', "\\", ",", "=", " = ", "\n", "http://", "@", "[::1]"]),
    ),
    Target(
        "upstream_headers",
        checks.upstream_headers,
        chunks(
            [
                "Wed, 21 Oct 2026 07:28:00 GMT\nWed, 21 Oct 2026 07:27:00 GMT",
                "120",
                "100;w=21600\n76;w=21600",
                '</v2/a/tags/list?n=1&last=b>; rel="next"',
                "https://cdn.example/a?b=%2F",
                "../x",
                "//10.0.0.1:1/",
                "http://[::1]/",
            ]
        ),
        chunks(
            ["GMT", "+0000", ":", ";w=", "rel=next", "<", ">", "?last=", "http://", "//", "[", "]", "@", "127.1", "\n"]
        ),
    ),
    Target(
        "manifests",
        checks.manifests,
        (
            mediatype.OCI_INDEX.encode() + b"; charset=utf-8\n" + index(),
            b"\n" + index(),
            b"\n" + image(),
            b"\n" + image(mediaType=mediatype.OCI_MANIFEST, artifactType="application/x"),
            mediatype.DOCKER_MANIFEST.encode()
            + b"\n"
            + image(mediatype.DOCKER_CONFIG, mediaType=mediatype.DOCKER_MANIFEST),
            b"application/vnd.oci.artifact.manifest.v1+json\n"
            + image(blobs=[], mediaType="application/vnd.oci.artifact.manifest.v1+json"),
            b'\n{"architecture":"arm64","os":"linux","variant":"v8","config":{"Labels":{"a":"b"}}}',
        ),
        FIELDS,
    ),
    Target(
        "platforms", checks.platforms, chunks(["linux/amd64", "Linux/AARCH64/8", "windows/armhf", " linux / arm /v7.1"])
    ),
    Target(
        "templates",
        checks.templates,
        chunks(
            ["{repository}-x86:{tag}", "arm64v8/{name}", "{namespace}/arm/{name}:{tag}-arm64", "x/{repository}:v{tag}"]
        ),
        chunks(["{repository}", "{namespace}", "{name}", "{tag}", "{", "}", "{{", "!r", ":>9", ".x", "[0]", ":", "/"]),
        lines=400,
        grows=False,
    ),
    Target("configurations", checks.configurations, (*TOML, SECRETS), KEYS, lines=400, tries=200, grows=False),
    Target(
        "texts",
        checks.texts,
        chunks(
            [
                "60s",
                "1.5m",
                "forever",
                "64MiB",
                "127.0.0.1:5080",
                "[::1]:80",
                ":80",
                "https://a:5000/b",
                "10.0.0.0/8",
                "auto",
            ]
        ),
        chunks(["ms", "KiB", "http://", "[", "]", ":", "@", "#", "?", "/", "::", "xn--", "\u0661", "\u2460"]),
    ),
    Target(
        "records",
        checks.records,
        (
            orjson.dumps({**ENTRY, "parts": [PART]}),
            orjson.dumps({**ENTRY, "parts": [], "default_child": ENTRY["descriptor"]}),
            b'{"upstream":"hub","repository":"a/b","media_type":"x/y"}',
            b'{"convention":"tag-suffix","tokens":["arm64"],"learned_at":1.0}',
        ),
        (*FIELDS, *chunks(["os_features", "os_version", "children", "parts", "tokens"])),
    ),
    Target(
        "notifications",
        checks.notifications,
        (
            b'{"events":[{"action":"push","target":{"repository":"a/b","tag":"1.0"}},{"action":"pull","target":{}}]}',
            b'{"type":"PUSH_ARTIFACT","event_data":{"resources":[{"tag":"1.0"}],"repository":{"repo_full_name":"a/b"}}}',
            b'{"repository":"a/b","tag":"1.0"}',
        ),
        chunks(
            [
                "events",
                "action",
                "push",
                "target",
                "event_data",
                "resources",
                "repository",
                "tag",
                "null",
                "[]",
                "{}",
                "type",
            ]
        ),
    ),
    Target(
        "heads",
        checks.heads,
        (
            *sorted({each.head for each in READS}),
            *(a.head + b.head for a, b in pairwise(READS[:6])),
            b"GET /v2/ HTTP/1.1\r\n\r\n",
        ),
        HEADERS,
    ),
)
