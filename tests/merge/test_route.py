import pytest

from proxy.merge.route import Address, Names, route, route_registry
from proxy.oci.errors import NameUnknown
from proxy.oci.reference import Repository

HUB = Names("hub", frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"}), default=True)
QUAY = Names("quay", frozenset({"quay.io", "mirror.example:5080"}))
UPSTREAMS = [QUAY, HUB]
APP = Repository("kimoqi/alpine")


@pytest.mark.parametrize("word", ["hub", "docker.io", "Docker.IO", "index.docker.io"])
def test_upstream_answers_to_its_names(word: str) -> None:
    """Its own name and its aliases, the latter in any case as host names are."""
    assert HUB.claims(word)


@pytest.mark.parametrize(
    "word", ["", "HUB", "docker.io.", "docker.io:443", "evil-docker.io", "docker.io.evil", "sub.docker.io"]
)
def test_upstream_answers_to_nothing_else(word: str) -> None:
    """Look-alikes are strangers."""
    assert not HUB.claims(word)


@pytest.mark.parametrize(
    ("address", "repository", "upstream", "there"),
    [
        (Address(), "kimoqi/alpine", "hub", "kimoqi/alpine"),
        (Address(), "alpine", "hub", "alpine"),
        (Address(host="localhost:5080"), "kimoqi/alpine", "hub", "kimoqi/alpine"),
        # Host
        (Address(host="quay.io"), "kimoqi/alpine", "quay", "kimoqi/alpine"),
        (Address(host="mirror.example:5080"), "kimoqi/alpine", "quay", "kimoqi/alpine"),
        (Address(host="stranger.example"), "kimoqi/alpine", "hub", "kimoqi/alpine"),
        # the first path component
        (Address(), "quay.io/kimoqi/alpine", "quay", "kimoqi/alpine"),
        (Address(), "quay/kimoqi/alpine", "quay", "kimoqi/alpine"),
        (Address(), "docker.io/library/alpine", "hub", "library/alpine"),
        (Address(host="quay.io"), "docker.io/library/alpine", "hub", "library/alpine"),
        (Address(), "quay", "hub", "quay"),
        (Address(), "quay.io", "hub", "quay.io"),
        # ?ns=
        (Address(namespaces=("quay.io",)), "kimoqi/alpine", "quay", "kimoqi/alpine"),
        (Address(namespaces=("QUAY.io",)), "kimoqi/alpine", "quay", "kimoqi/alpine"),
        (Address(namespaces=("docker.io",), host="quay.io"), "kimoqi/alpine", "hub", "kimoqi/alpine"),
        (Address(namespaces=("docker.io", "registry-1.docker.io")), "a", "hub", "a"),
        (Address(namespaces=("", "")), "a", "hub", "a"),
        (Address(namespaces=("quay.io",)), "quay.io/kimoqi/alpine", "quay", "kimoqi/alpine"),
        (Address(namespaces=("quay.io",)), "docker.io/kimoqi/alpine", "quay", "docker.io/kimoqi/alpine"),
        (Address(namespaces=("quay.io",)), "quay/alpine", "quay", "quay/alpine"),
        (Address(prefix="quay"), "quay/alpine", "quay", "quay/alpine"),
        (Address(namespaces=("quay.io",)), "ghcr.io/kimoqi/alpine", "quay", "ghcr.io/kimoqi/alpine"),
        # the prefix
        (Address(prefix="quay.io"), "kimoqi/alpine", "quay", "kimoqi/alpine"),
        (Address(prefix="quay"), "kimoqi/alpine", "quay", "kimoqi/alpine"),
        (Address(prefix="docker.io", host="quay.io"), "a", "hub", "a"),
        (Address(prefix="quay", namespaces=("quay.io",)), "a", "quay", "a"),
    ],
)
def test_request_is_routed(address: Address, repository: str, upstream: str, there: str) -> None:
    """The prefix, then `?ns=`, then the first path component, then Host, then the default."""
    assert route(UPSTREAMS, address, Repository(repository)) == (upstream, there)


@pytest.mark.parametrize(
    "word",
    [
        "169.254.169.254",
        "[::1]",
        "localhost",
        "localhost:6379",
        "a@b",
        "docker.io@evil.example",
        "x/../y",
        "../docker.io",
        "docker.io/",
        "docker.io:22",
        "docker.io:443",
        "docker.io\r\nHost: evil.example",
        "docker.io\x00",
        "docker.io ",
        "docker.io.",
        "http://docker.io",
        "evil-docker.io",
        "docker.io#",
        "docker.io?x",
        "d\u00f6cker.io",
        "x" * 9216,
        "\udcff",
    ],
)
@pytest.mark.parametrize("kind", ["namespace", "prefix"])
def test_stranger_is_unknown(word: str, kind: str) -> None:
    """Request data never picks a target: what isn't configured is a 404, with nothing raw in it (law 10, S4)."""
    address = Address(prefix=word) if kind == "prefix" else Address(namespaces=(word,))

    with pytest.raises(NameUnknown) as raised:
        route(UPSTREAMS, address, APP)

    assert raised.value.message.isascii()
    assert raised.value.message.isprintable()
    assert len(raised.value.message) < 1200


@pytest.mark.parametrize("repository", ["ghcr.io/kimoqi/alpine", "169.254.169.254/latest/meta-data", "localhost/a"])
def test_unknown_host_in_the_path_is_unknown(repository: str) -> None:
    """A first component that looks like a registry and is none of ours is never asked of the default."""
    with pytest.raises(NameUnknown, match="no upstream is called"):
        route(UPSTREAMS, Address(), Repository(repository))


def test_one_good_namespace_does_not_excuse_a_bad_one() -> None:
    """`?ns=` may repeat; each value must be ours."""
    with pytest.raises(NameUnknown):
        route(UPSTREAMS, Address(namespaces=("docker.io", "169.254.169.254")), APP)


@pytest.mark.parametrize(
    "address", [Address(namespaces=("docker.io", "quay.io")), Address(prefix="quay", namespaces=("docker.io",))]
)
def test_request_that_names_two_upstreams_is_unknown(address: Address) -> None:
    """Which one is meant isn't guessed."""
    with pytest.raises(NameUnknown, match="names several upstreams"):
        route(UPSTREAMS, address, APP)


def test_without_a_default_only_named_upstreams_are_asked() -> None:
    """A name that no alias claims is unknown then."""
    assert route([QUAY], Address(host="quay.io"), APP) == ("quay", APP)
    with pytest.raises(NameUnknown, match="none is the default"):
        route([QUAY], Address(), APP)
    with pytest.raises(NameUnknown):
        route([], Address(), APP)


@pytest.mark.parametrize(
    ("address", "upstream"),
    [
        (Address(), "hub"),
        (Address(host="quay.io"), "quay"),
        (Address(host="stranger.example"), "hub"),
        (Address(namespaces=("quay.io",)), "quay"),
        (Address(namespaces=("docker.io",), host="quay.io"), "hub"),
        (Address(prefix="quay"), "quay"),
        (Address(prefix="quay", namespaces=("quay.io",)), "quay"),
    ],
)
def test_request_without_a_repository_is_routed(address: Address, upstream: str) -> None:
    """A catalog is an upstream's, found in the same order."""
    assert route_registry(UPSTREAMS, address) == upstream


@pytest.mark.parametrize(
    ("names", "address"),
    [
        (UPSTREAMS, Address(prefix="evil.example")),
        (UPSTREAMS, Address(namespaces=("evil.example",))),
        (UPSTREAMS, Address(prefix="quay", namespaces=("docker.io",))),
        ([QUAY], Address()),
    ],
)
def test_request_that_means_nobody_is_unknown(names: list[Names], address: Address) -> None:
    """Strangers, contradictions, and no default."""
    with pytest.raises(NameUnknown):
        route_registry(names, address)
