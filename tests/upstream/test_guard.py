"""Where an upstream may send us."""

from __future__ import annotations

import pytest
from yarl import URL

from proxy.oci.errors import BadAnswer
from proxy.upstream.guard import check_realm, check_redirect, passed_on

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
    with pytest.raises(BadAnswer, match="auth_realms"):
        check_realm(UPSTREAM, realm, (allowed,))


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


@pytest.mark.parametrize("location", ["http://10.0.0.6:9000/blob", "http://localhost:9000/blob", "https://[::1]/blob"])
def test_a_private_upstream_may_name_its_neighbours(location: str) -> None:
    """A registry at home keeps its blobs at home: private addresses are no news to it."""
    assert str(check_redirect(URL("http://10.0.0.5:5000"), URL("http://10.0.0.5:5000/v2/"), location)) == location


@pytest.mark.parametrize("address", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
def test_nobody_may_name_a_link_local_address(address: str) -> None:
    """The metadata services of clouds are out of reach for private upstreams too."""
    with pytest.raises(BadAnswer, match="private address"):
        check_redirect(URL("http://10.0.0.5:5000"), URL("http://10.0.0.5:5000/v2/"), f"http://{address}/latest")


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
    ],
)
def test_a_client_is_sent_nowhere_that_we_would_not_go(location: str) -> None:
    """The rules are those for us, and what can't be written into a header isn't."""
    with pytest.raises(BadAnswer, match="redirects"):
        passed_on(UPSTREAM, UPSTREAM / "v2/", location)
