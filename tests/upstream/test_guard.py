"""Where an upstream may send us."""

from __future__ import annotations

import pytest
from yarl import URL

from proxy.oci.errors import BadAnswer
from proxy.upstream.guard import Bounds, check_realm, check_redirect, passed_on

UPSTREAM = URL("https://registry.example.com")
HUB = URL("https://registry-1.docker.io")
SIGNED = "https://cdn.example.net/b?X-Sig=a%2Fb%2Bc%3D%7E&e=1&n=%C3%A4+b&p=~!'()*"


@pytest.mark.parametrize(
    "realm",
    [
        pytest.param("https://attacker.test/token", id="other host"),
        pytest.param("https://registry.example.com:8443/token", id="other port"),
        pytest.param("https://auth.example.com:8443/token", id="other port of a sibling"),
        pytest.param("https://203.0.113.7/token", id="IPv4"),
        pytest.param("https://[2001:db8::1]/token", id="IPv6"),
        pytest.param("https://127.0.0.1/token", id="loopback"),
        pytest.param("https://localhost/token", id="localhost"),
        pytest.param("http://localhost:5000/token", id="localhost over http"),
        pytest.param("http://registry.example.com/token", id="http downgrade"),
        pytest.param("http://auth.example.com/token", id="http downgrade of a sibling"),
        pytest.param("https://alice:pw@registry.example.com/token", id="userinfo"),
        pytest.param("https://registry.example.com@attacker.test/token", id="our host as userinfo"),
        pytest.param("https://registry.example.com\\@attacker.test/token", id="backslash"),
        pytest.param("https://evil-example.com/token", id="look-alike"),
        pytest.param("https://registry.example.com.attacker.test/token", id="our host as sub-domain"),
        pytest.param("https://attacker.test/registry.example.com", id="our host in the path"),
        pytest.param("https://attacker.test#@registry.example.com", id="our host in the fragment"),
        pytest.param("https://example.org/token", id="other suffix"),
    ],
)
def test_a_realm_elsewhere_gets_nothing(realm: str) -> None:
    """Credentials go to no host that the upstream merely names (CVE-2026-33540)."""
    with pytest.raises(BadAnswer, match="token realm"):
        check_realm(UPSTREAM, realm, ())


@pytest.mark.parametrize(
    "realm",
    [
        "",
        "token",
        "/token",
        "//registry.example.com/token",
        "https://",
        "https:///token",
        "https://[::1",
        "https://[]@",
        "https://registry.example.com:99999/token",
        "ftp://registry.example.com/token",
        "file:///etc/passwd",
        "data:,x",
    ],
)
def test_a_realm_that_is_no_url_is_a_bad_answer(realm: str) -> None:
    """What isn't an http(s) URL with a host is refused, whatever it is."""
    with pytest.raises(BadAnswer, match="not a plain http"):
        check_realm(UPSTREAM, realm, ("", "registry.example.com"))


@pytest.mark.parametrize(
    ("upstream", "realm"),
    [
        pytest.param("https://alice.github.io", "https://mallory.github.io/token", id="private suffix"),
        pytest.param("https://a.co.uk", "https://b.co.uk/token", id="public suffix of two words"),
        pytest.param("https://registry", "https://auth/token", id="single words"),
        pytest.param("https://registry.corp", "https://auth.corp/token", id="no public suffix"),
        pytest.param("https://10.0.0.1", "https://10.0.0.2/token", id="neighbouring address"),
        pytest.param("http://registry.example.com", "http://auth.example.com/token", id="siblings over http"),
        pytest.param("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", id="neighbouring port"),
    ],
)
def test_neighbours_are_not_siblings(upstream: str, realm: str) -> None:
    """Only one owner's registrable domain over https makes siblings."""
    with pytest.raises(BadAnswer, match="auth_realms can allow it"):
        check_realm(URL(upstream), realm, ())


@pytest.mark.parametrize(
    ("upstream", "realm"),
    [
        pytest.param(HUB, "https://auth.docker.io/token", id="Docker Hub"),
        pytest.param(HUB, "https://AUTH.Docker.IO:443/token", id="case and default port"),
        pytest.param(UPSTREAM, "https://registry.example.com/jwt/auth?client=a%2Fb", id="own origin"),
        pytest.param(UPSTREAM, "https://a.b.example.com/token", id="deeper"),
        pytest.param(URL("http://127.0.0.1:5000"), "http://127.0.0.1:5000/token", id="own origin over http"),
    ],
)
def test_its_own_origin_and_its_siblings_are_allowed(upstream: URL, realm: str) -> None:
    """The upstream's own origin and hosts of its registrable domain may get the credentials."""
    assert check_realm(upstream, realm, ()) == URL(realm)


@pytest.mark.parametrize("host", ["a\0b", "\0", "\udcff"])
def test_a_host_that_no_resolver_takes_is_on_another_host(host: str) -> None:
    """What can't be an address is none, and no error of ours."""
    with pytest.raises(BadAnswer):
        check_realm(UPSTREAM, f"https://{host}/token", ())


@pytest.mark.parametrize("allowed", ["https://sso.example.net:8443", "sso.example.net"])
def test_what_the_operator_lists_is_allowed(allowed: str) -> None:
    """A realm may be allowed as an origin and as a host."""
    realm = "https://sso.example.net:8443/token"

    assert check_realm(UPSTREAM, realm, (allowed,)) == URL(realm)


@pytest.mark.parametrize(
    ("allowed", "realm"),
    [
        pytest.param("sso.example.net", "http://sso.example.net/token", id="host over http"),
        pytest.param("https://sso.example.net", "https://sso.example.net:8443/token", id="other port"),
        pytest.param("https://sso.example.net", "http://sso.example.net/token", id="other scheme"),
        pytest.param("sso.example.net", "https://evil.sso.example.net/token", id="sub-domain"),
        pytest.param("sso.example.net", "https://evilsso.example.net/token", id="look-alike"),
    ],
)
def test_the_list_allows_what_it_says_and_no_more(allowed: str, realm: str) -> None:
    """A listed origin is one scheme, host and port; a listed host is https."""
    with pytest.raises(BadAnswer, match=r"auth_realms can allow it|is plain http"):
        check_realm(UPSTREAM, realm, (allowed,))


def test_no_list_allows_plain_http_where_the_upstream_is_https() -> None:
    """Credentials that go to the registry over TLS go nowhere without it."""
    with pytest.raises(BadAnswer, match="is plain http, which it is not itself"):
        check_realm(UPSTREAM, "http://sso.example.net/token", ("http://sso.example.net",))


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("http://cdn.example.net/blob", id="https to http"),
        pytest.param("https://169.254.169.254/latest/meta-data", id="metadata service"),
        pytest.param("https://10.1.2.3/blob", id="10/8"),
        pytest.param("https://192.168.0.1/blob", id="192.168/16"),
        pytest.param("https://127.0.0.1/blob", id="loopback"),
        pytest.param("https://0.0.0.0/blob", id="any"),
        pytest.param("https://[::1]/blob", id="IPv6 loopback"),
        pytest.param("https://[fe80::1]/blob", id="IPv6 link-local"),
        pytest.param("https://[fd00::1]/blob", id="IPv6 unique local"),
        pytest.param("https://[::ffff:10.1.2.3]/blob", id="IPv4 in IPv6"),
        pytest.param("https://localhost/blob", id="localhost"),
        pytest.param("https://LOCALHOST./blob", id="localhost with a dot"),
        pytest.param("https://db.localhost/blob", id="below localhost"),
        pytest.param("https://127.1/blob", id="short address"),
        pytest.param("https://2852039166/blob", id="address as a number"),
        pytest.param("https://0x7f000001/blob", id="address in hexadecimal"),
        pytest.param("https://0177.0.0.1/blob", id="address in octal"),
        pytest.param("https://user@cdn.example.net/blob", id="userinfo"),
        pytest.param("ftp://cdn.example.net/blob", id="not http"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("https://[::1/blob", id="broken"),
    ],
)
def test_redirects_into_the_house_are_refused(location: str) -> None:
    """A public upstream can't make us ask private addresses, plain http, or anything but http (CVE-2026-2376)."""
    with pytest.raises(BadAnswer, match="redirects"):
        check_redirect(UPSTREAM, UPSTREAM / "v2/", location)


@pytest.mark.parametrize("location", [SIGNED, "https://registry.example.com/other?a=%2F"])
def test_a_redirect_is_kept_byte_for_byte(location: str) -> None:
    """Signed URLs don't survive requoting, so nothing is requoted."""
    assert str(check_redirect(UPSTREAM, UPSTREAM / "v2/", location)) == location


def test_a_relative_redirect_stays_where_it_is() -> None:
    """A `Location` without a host is read against the URL that was asked."""
    here = URL("https://cdn.example.net/a/b")

    assert str(check_redirect(UPSTREAM, here, "../c?d=%2F")) == "https://cdn.example.net/c?d=%2F"


@pytest.mark.parametrize("location", ["http://10.0.0.6:9000/blob", "http://10.0.0.5/blob", "https://[fd00::1]/blob"])
def test_a_private_upstream_may_name_its_neighbours(location: str) -> None:
    """A registry at home keeps its blobs at home: private addresses are no news to it."""
    assert str(check_redirect(URL("http://10.0.0.5:5000"), URL("http://10.0.0.5:5000/v2/"), location)) == location


@pytest.mark.parametrize("location", ["http://10.0.0.6:9000/blob", "http://localhost:9000/blob", "https://[::1]/blob"])
def test_an_upstream_on_this_machine_may_name_what_is_there(location: str) -> None:
    """Registry and storage beside the proxy, in a pod or on a desk, reach what the proxy reaches."""
    assert str(check_redirect(URL("http://localhost:5000"), URL("http://localhost:5000/v2/"), location)) == location


@pytest.mark.parametrize("location", ["http://localhost:9000/blob", "http://127.0.0.1/blob", "http://[::]/blob"])
def test_a_neighbour_may_not_name_this_machine(location: str) -> None:
    """What listens on our own loopback is nothing that another machine could know."""
    with pytest.raises(BadAnswer, match="private address"):
        check_redirect(URL("http://10.0.0.5:5000"), URL("http://10.0.0.5:5000/v2/"), location)


@pytest.mark.parametrize("upstream", ["http://10.0.0.5:5000", "http://127.0.0.1:5000"])
@pytest.mark.parametrize("address", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"])
def test_nobody_may_name_a_link_local_address(upstream: str, address: str) -> None:
    """The metadata services of clouds are out of reach for private upstreams too."""
    with pytest.raises(BadAnswer, match="private address"):
        check_redirect(URL(upstream), URL(upstream) / "v2/", f"http://{address}/latest")


def test_https_stays_https_behind_a_detour() -> None:
    """An upstream on https doesn't lead to http in two steps either."""
    with pytest.raises(BadAnswer, match="from https"):
        check_redirect(UPSTREAM, URL("http://cdn.example.net/a"), "http://cdn.example.net/b")


@pytest.mark.parametrize("location", [SIGNED, "https://cdn.example.net:443?a=%2F", "HTTPS://CDN.Example.net/%7e"])
def test_a_redirect_is_passed_on_as_it_came(location: str) -> None:
    """What a client is told is what the upstream said, to the letter."""
    assert passed_on(UPSTREAM, UPSTREAM / "v2/", location) == location


def test_a_relative_redirect_is_passed_on_with_its_host() -> None:
    """A client would read it against our own address."""
    assert passed_on(UPSTREAM, UPSTREAM / "v2/a", "/b?c=%2F") == "https://registry.example.com/b?c=%2F"


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://cdn.example.net/",
        "https://10.0.0.1/",
        "https://me@cdn.example.net/",
        "https://\u00e4/",
        "https://a/\x01",
        "https://[]@",
        "//[]@",
    ],
)
def test_a_client_is_sent_nowhere_that_we_would_not_go(location: str) -> None:
    """The rules are those for us, and what can't be written into a header isn't."""
    with pytest.raises(BadAnswer, match="redirects"):
        passed_on(UPSTREAM, UPSTREAM / "v2/", location)


PUBLIC = ["93.184.216.34", "2606:2800:220:1::1"]


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "127.0.0.53",
        "0.0.0.0",
        "169.254.169.254",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:10.1.2.3",
        "::ffff:169.254.169.254",
        "64:ff9b::a01:203",
        "64:ff9b:1::808:808",
        "2002:a01:203::1",
        "2001:0:4136:e378:8000:63bf:f5fe:fdfc",
        "::10.1.2.3",
        "not an address",
    ],
)
@pytest.mark.parametrize("among", [0, 1, 2])
def test_no_name_may_stand_for_a_private_address(address: str, among: int) -> None:
    """Of all addresses of a name none may be special, in whatever form an IPv4 address is written into IPv6."""
    addresses = [*PUBLIC[:among], address, *PUBLIC[among:]]

    with pytest.raises(BadAnswer, match=r"cdn\.example\.net:443, where the upstream sends us, is at a private address"):
        Bounds(UPSTREAM).check_addresses("cdn.example.net", 443, addresses)


@pytest.mark.parametrize("address", [*PUBLIC, "::ffff:93.184.216.34", "64:ff9b::5db8:d822", "2002:5db8:d822::1"])
def test_a_name_may_stand_for_a_public_address(address: str) -> None:
    """Also where a network translates IPv4: DNS64 makes IPv6 addresses of all others."""
    Bounds(UPSTREAM).check_addresses("cdn.example.net", 443, [address])


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("registry.example.com", 443),
        ("Registry.example.COM.", 443),
        ("sso.example.net", 8443),
        ("gitlab.example.net", 443),
        ("gitlab.example.net", 9999),
    ],
)
def test_what_the_operator_names_may_be_anywhere(host: str, port: int) -> None:
    """The upstream itself and the token services in `auth_realms`: an origin, or a host with all of its ports."""
    bounds = Bounds(UPSTREAM, ["https://sso.example.net:8443", "gitlab.example.net", "https://[broken"])

    bounds.check_addresses(host, port, ["10.0.0.1"])


@pytest.mark.parametrize(("host", "port"), [("registry.example.com", 22), ("sso.example.net", 443), ("broken", 443)])
def test_another_port_is_another_place(host: str, port: int) -> None:
    """Of a host that is on a public address, what goes by its name elsewhere isn't let in by the operator's word."""
    bounds = Bounds(UPSTREAM, ["https://sso.example.net:8443", "https://[broken"])
    bounds.check_addresses("registry.example.com", 443, PUBLIC)

    with pytest.raises(BadAnswer, match="private address"):
        bounds.check_addresses(host, port, ["10.0.0.1"])


def test_a_name_at_home_may_name_its_neighbours() -> None:
    """A registry whose name stands for a private address keeps its blobs at home, by name or by address."""
    bounds = Bounds(UPSTREAM)
    bounds.check_addresses("registry.example.com", 443, ["10.0.0.5", "fd00::5"])

    bounds.check_addresses("minio.example.com", 443, ["10.0.0.6"])
    assert bounds.redirect(UPSTREAM / "v2/", "https://10.0.0.6/blob") == URL("https://10.0.0.6/blob")
    assert bounds.passed_on(UPSTREAM / "v2/", "https://10.0.0.6/blob") == "https://10.0.0.6/blob"
    for address in ("127.0.0.1", "169.254.169.254"):
        with pytest.raises(BadAnswer, match="private address"):
            bounds.check_addresses("minio.example.com", 443, [address])


@pytest.mark.parametrize("first", [["10.0.0.5"], PUBLIC, ["10.0.0.5", *PUBLIC]])
def test_who_was_seen_outside_is_never_a_neighbour(first: list[str]) -> None:
    """Whoever owns a name can let it stand for our network for a moment, but not have been nowhere else (rebinding)."""
    bounds = Bounds(UPSTREAM)
    for addresses in (first, PUBLIC, ["10.0.0.5"]):
        bounds.check_addresses("registry.example.com", 443, addresses)

    with pytest.raises(BadAnswer, match="private address"):
        bounds.check_addresses("minio.example.com", 443, ["10.0.0.6"])
    with pytest.raises(BadAnswer, match="private address"):
        bounds.redirect(UPSTREAM / "v2/", "https://10.0.0.6/blob")


def test_nothing_is_known_of_a_name_that_was_not_resolved() -> None:
    """Without an answer nobody is a neighbour; no answer is no address, and not an error of the guard."""
    bounds = Bounds(UPSTREAM)
    bounds.check_addresses("registry.example.com", 443, [])
    bounds.check_addresses("minio.example.com", 443, [])

    with pytest.raises(BadAnswer, match="private address"):
        bounds.check_addresses("minio.example.com", 443, ["10.0.0.6"])


def test_bounds_know_the_realms() -> None:
    """Token realms are checked against what the operator has listed."""
    assert Bounds(UPSTREAM, ["sso.example.net"]).realm("https://sso.example.net/token").host == "sso.example.net"
    with pytest.raises(BadAnswer, match="auth_realms"):
        Bounds(UPSTREAM).realm("https://sso.example.net/token")


@pytest.mark.parametrize("listed", ["minio.corp", "https://minio.corp", "minio.corp:443", "10.0.0.6", "MinIO.corp."])
def test_storage_on_a_private_address_can_be_allowed(listed: str) -> None:
    """A public registry whose storage is behind a private endpoint; it gets no credentials for that."""
    bounds = Bounds(UPSTREAM, hosts=[listed])
    bounds.check_addresses("registry.example.com", 443, PUBLIC)

    if listed == "10.0.0.6":
        assert bounds.redirect(UPSTREAM / "v2/", "https://10.0.0.6/b") == URL("https://10.0.0.6/b")
        assert bounds.passed_on(UPSTREAM / "v2/", "https://10.0.0.6/b") == "https://10.0.0.6/b"
    else:
        bounds.check_addresses("minio.corp", 443, ["10.0.0.6"])
    assert not bounds.trusts(URL("https://minio.corp"))
    with pytest.raises(BadAnswer, match="auth_realms"):
        bounds.realm("https://minio.corp/token")
    with pytest.raises(BadAnswer, match="redirect_hosts can allow it"):
        bounds.check_addresses("other.corp", 443, ["10.0.0.6"])
    with pytest.raises(BadAnswer, match="redirect_hosts can allow it"):
        bounds.redirect(UPSTREAM / "v2/", "https://10.0.0.7/b")


def test_nothing_allows_the_metadata_service_or_plain_http() -> None:
    """Not even the operator's word, and nobody is told that it would."""
    bounds = Bounds(UPSTREAM, hosts=["169.254.169.254", "meta.corp", "http://10.0.0.6"])

    with pytest.raises(BadAnswer, match=r"at a private address$"):
        bounds.check_addresses("meta.corp", 443, ["169.254.169.254"])
    with pytest.raises(BadAnswer, match=r"private address https://169\.254\.169\.254$"):
        bounds.redirect(UPSTREAM / "v2/", "https://169.254.169.254/latest")
    with pytest.raises(BadAnswer, match="from https"):
        bounds.redirect(UPSTREAM / "v2/", "http://10.0.0.6/b")
    with pytest.raises(BadAnswer, match="private address"):
        Bounds(UPSTREAM, hosts=["minio.corp:9000"]).check_addresses("minio.corp", 443, ["10.0.0.6"])
