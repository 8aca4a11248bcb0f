import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.endpoint import (
    BlobAt,
    Catalog,
    Endpoint,
    ManifestAt,
    NoSuchEndpoint,
    Ping,
    ReferrersOf,
    TagsOf,
    Target,
    UploadAt,
    parse,
)
from proxy.oci.errors import DigestInvalid, NameInvalid, NotFound, TagInvalid
from proxy.oci.reference import Digest, Repository, Tag
from strategies import digests, repositories, tags

SHA = Digest("sha256:" + "a" * 64)
APP = Repository("kimoqi/alpine")

_sessions = st.from_regex(r"[A-Za-z0-9_-]{1,36}", fullmatch=True) | st.just("")
# Components that are also words of the API are the hard case.
_repositories = repositories | st.lists(
    st.sampled_from(["v2", "manifests", "blobs", "uploads", "tags", "list", "referrers", "a"]), min_size=1, max_size=5
).map("/".join).map(Repository)
_references = tags | digests | st.sampled_from(["uploads", "list", "manifests", "blobs"]).map(Tag)
endpoints: st.SearchStrategy[Endpoint] = st.one_of(
    st.just(Ping()),
    st.just(Catalog()),
    st.builds(ManifestAt, _repositories, _references),
    st.builds(BlobAt, _repositories, digests),
    st.builds(UploadAt, _repositories, _sessions),
    st.builds(TagsOf, _repositories),
    st.builds(ReferrersOf, _repositories, digests),
)


@given(endpoints)
def test_every_endpoint_is_found_by_its_path(endpoint: Endpoint) -> None:
    """Parsing is the inverse of `path`, even where the repository is made of the API's words."""
    assert parse(endpoint.path) == Target("", endpoint)


@given(endpoints, st.sampled_from(["docker.io", "hub", "GHCR.io", "registry:5000", "a_b"]))
def test_prefix_is_set_apart(endpoint: Endpoint, prefix: str) -> None:
    """`/<alias>/v2/…` is the same endpoint, with the alias in front."""
    assert parse(f"/{prefix}{endpoint.path}") == Target(prefix, endpoint)


@given(st.text(st.characters(), max_size=40))
def test_any_path_is_an_endpoint_or_an_error_of_ours(path: str) -> None:
    """No path whatever, surrogates and all, does anything but parse or fail with an OCI error."""
    for raw in (path, f"/v2/{path}", f"/v2/a/manifests/{path}", f"/v2/{path}/blobs/{SHA}"):
        try:
            target = parse(raw)
        except (NameInvalid, TagInvalid, DigestInvalid, NoSuchEndpoint):
            continue
        assert isinstance(target, Target)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v2/", Ping()),
        ("/v2", Ping()),
        ("/v2/_catalog", Catalog()),
        ("/v2/kimoqi/alpine/manifests/1.0", ManifestAt(APP, Tag("1.0"))),
        (f"/v2/kimoqi/alpine/manifests/{SHA}", ManifestAt(APP, SHA)),
        (f"/v2/kimoqi/alpine/manifests/{SHA}".replace(":", "%3A"), ManifestAt(APP, SHA)),
        (f"/v2/kimoqi/alpine/manifests/{SHA}".replace(":", "%3a"), ManifestAt(APP, SHA)),
        ("/v2/%6bimoqi/alpine/manifests/1%2E0", ManifestAt(APP, Tag("1.0"))),
        (f"/v2/kimoqi/alpine/blobs/{SHA}", BlobAt(APP, SHA)),
        ("/v2/kimoqi/alpine/blobs/uploads", UploadAt(APP, "")),
        ("/v2/kimoqi/alpine/blobs/uploads/", UploadAt(APP, "")),
        ("/v2/kimoqi/alpine/blobs/uploads/5f1c", UploadAt(APP, "5f1c")),
        ("/v2/kimoqi/alpine/tags/list", TagsOf(APP)),
        (f"/v2/kimoqi/alpine/referrers/{SHA}", ReferrersOf(APP, SHA)),
        ("/v2/manifests/manifests/manifests", ManifestAt(Repository("manifests"), Tag("manifests"))),
        ("/v2/a/tags/list/tags/list", TagsOf(Repository("a/tags/list"))),
        ("/v2/v2/manifests/v2", ManifestAt(Repository("v2"), Tag("v2"))),
    ],
)
def test_path_is_read_from_the_right(path: str, endpoint: Endpoint) -> None:
    """The last components decide which endpoint it is; percent-encoding is undone once."""
    assert parse(path) == Target("", endpoint)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/a%2Fb/manifests/1",
        "/v2/a%2fb/manifests/1",
        "/v2/a/manifests/x%2F..%2Fy",
        f"/v2/a%2F..%2Fb/blobs/{SHA}",
        "/v2/../a/manifests/1",
        "/v2/a/../b/manifests/1",
        "/v2/a/./b/manifests/1",
        "/v2/%2e%2e/a/manifests/1",
        "/v2/a/%2E/manifests/1",
        "/v2/a/manifests/..",
        "/v2/a//b/manifests/1",
        "/v2//a/manifests/1",
        "/v2//manifests/1",
        "/v2//",
        "/v2/a//tags/list",
        "/v2/a%00/manifests/1",
        "/v2/a%0a/manifests/1",
        "/v2/a%0D%0Ab/manifests/1",
        "/v2/a%zz/manifests/1",
        "/v2/a%/manifests/1",
        "/v2/a%4/manifests/1",
        "/v2/a%ff/manifests/1",
        "/v2/a%c0%ae/manifests/1",
        "/v2/\udcff/manifests/1",
        "/v2/a%252fb/manifests/1",
        "/v2/A/manifests/1",
        "/v2/_catalog/manifests/1",
        "/v2/a%20b/tags/list",
        "/v2/" + "a" * 9216 + "/manifests/1",
    ],
)
def test_path_with_a_bad_name_is_name_invalid(path: str) -> None:
    """Encoded slashes, dots, empty components and broken escapes are refused, never interpreted."""
    with pytest.raises(NameInvalid):
        parse(path)


@pytest.mark.parametrize("tag", ["", "%00", ".x", "a%0a", "a%20b", "x" * 129, "x" * 9216, "%252e%252e"])
def test_path_with_a_bad_tag_is_tag_invalid(tag: str) -> None:
    """What stands for a reference without a colon is judged as a tag."""
    with pytest.raises(TagInvalid):
        parse(f"/v2/a/manifests/{tag}")


@pytest.mark.parametrize("endpoint", ["manifests", "blobs", "referrers"])
@pytest.mark.parametrize("digest", ["sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32, ":"])
def test_path_with_a_bad_digest_is_digest_invalid(endpoint: str, digest: str) -> None:
    """A digest is checked at the edge, on every endpoint that takes one (S6)."""
    with pytest.raises(DigestInvalid):
        parse(f"/v2/a/{endpoint}/{digest}")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1/",
        "/v3/a/manifests/1",
        "/V2/",
        "/healthz",
        "/v2/a",
        "/v2/a/tags",
        "/v2/a/tags/lists",
        "/v2/a/manifests",
        "/v2/manifests/1",
        "/v2/tags/list",
        "/v2/_catalog/x",
        "/a/b/v2/",
        "//v2/",
        "/a b/v2/",
        "/a%0a/v2/",
        "/-a/v2/",
        "/@/v2/",
        "/" + "a" * 255 + "/v2/",
    ],
)
def test_other_path_is_no_endpoint(path: str) -> None:
    """What isn't of the registry API is a 404 of its own kind."""
    with pytest.raises(NoSuchEndpoint) as raised:
        parse(path)

    assert isinstance(raised.value, NotFound)
    assert raised.value.status == 404


def test_prefix_is_decoded_once() -> None:
    """An encoded dot in the prefix is a dot; an encoded slash is refused as anywhere."""
    assert parse("/docker%2Eio/v2/") == Target("docker.io", Ping())
    assert parse("/v2/docker.io/_catalog") == parse("/docker.io/v2/_catalog") == Target("docker.io", Catalog())
    with pytest.raises(NameInvalid):
        parse("/a%2Fb/v2/")
