import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.challenge import Challenge, parse_challenges, pull_scope
from proxy.oci.reference import Repository

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"'


def test_docker_hub_challenge_is_read() -> None:
    """Realm, service and scope come out of the quotes, colons, slashes and all."""
    assert parse_challenges([HUB]) == (
        Challenge(
            "bearer",
            {
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/alpine:pull",
            },
        ),
    )


@pytest.mark.parametrize(
    ("header", "scheme", "parameters"),
    [
        ('Basic realm="Registry Realm"', "basic", {"realm": "Registry Realm"}),
        ('BASIC REALM="x"', "basic", {"realm": "x"}),
        ("Basic realm=x", "basic", {"realm": "x"}),
        ("Basic", "basic", {}),
        (" Basic ", "basic", {}),
        ('Bearer realm = "a" , service = b', "bearer", {"realm": "a", "service": "b"}),
        ('Bearer realm="a",,service="b",', "bearer", {"realm": "a", "service": "b"}),
        ('Bearer realm="a" service="b"', "bearer", {"realm": "a", "service": "b"}),
        (
            'Bearer scope="repository:a:pull,push repository:b:pull"',
            "bearer",
            {"scope": "repository:a:pull,push repository:b:pull"},
        ),
        ('Bearer realm="https://x/token?a=b&c=d,e"', "bearer", {"realm": "https://x/token?a=b&c=d,e"}),
        (r'Bearer realm="a\"b\\c\d"', "bearer", {"realm": 'a"b\\cd'}),
        ('Bearer realm="",service=""', "bearer", {"realm": "", "service": ""}),
        ('Bearer realm="first",realm="second"', "bearer", {"realm": "first"}),
        ('Bearer realm="Basic realm=y, Digest z"', "bearer", {"realm": "Basic realm=y, Digest z"}),
    ],
)
def test_one_challenge_is_read(header: str, scheme: str, parameters: dict[str, str]) -> None:
    """Quotes, escapes, commas and equal signs in values, spaces around, any case: RFC 9110 allows them all."""
    assert parse_challenges([header]) == (Challenge(scheme, parameters),)


def test_challenges_of_several_headers_are_read_in_order() -> None:
    """A registry may send a header for each scheme."""
    found = parse_challenges(['Basic realm="a"', HUB])

    assert [challenge.scheme for challenge in found] == ["basic", "bearer"]


@pytest.mark.parametrize(
    ("header", "schemes"),
    [
        ('Basic realm="a", Bearer realm="b",service="c"', ["basic", "bearer"]),
        ('Bearer realm="b", service="c", Basic realm="a"', ["bearer", "basic"]),
        ('Negotiate, Basic realm="a"', ["negotiate", "basic"]),
        ('Negotiate, NTLM , Basic realm="a"', ["negotiate", "ntlm", "basic"]),
        ('Negotiate YIIB+/a_b==, Basic realm="a"', ["negotiate", "basic"]),
        ('Bearer realm="b"  Basic realm="a"', ["bearer", "basic"]),
    ],
)
def test_several_challenges_of_one_header_are_told_apart(header: str, schemes: list[str]) -> None:
    """The comma between parameters is also the one between challenges; a token68 is skipped."""
    found = parse_challenges([header])

    assert [challenge.scheme for challenge in found] == schemes
    assert all(challenge.parameters.get("realm") for challenge in found if challenge.scheme in {"basic", "bearer"})


@pytest.mark.parametrize(
    "header", ["", " ", ",", "=", '"', '="x"', 'realm="x"', "\x00", "é", "<html>", "{}", "@@@ Basic"]
)
def test_garbage_is_no_challenge(header: str) -> None:
    """What begins with no scheme is skipped."""
    assert parse_challenges([header]) == ()


@pytest.mark.parametrize("rest", ['service="unterminated', "service=https://x", 'service="a\\', "==", "\x00"])
def test_what_was_read_before_garbage_counts(rest: str) -> None:
    """A challenge that breaks off is kept as far as it could be read."""
    found = parse_challenges([f'Bearer realm="a",{rest}'])

    assert found[0].scheme == "bearer"
    assert found[0].parameters["realm"] == "a"
    assert found[0].parameters.get("service") in {None, "https"}


def test_one_bad_header_does_not_hide_the_next() -> None:
    """Each header is read for itself."""
    assert parse_challenges(["@@@", "Basic realm=x"]) == (Challenge("basic", {"realm": "x"}),)


def test_no_header_is_no_challenge() -> None:
    """A 401 without `WWW-Authenticate` offers nothing."""
    assert parse_challenges([]) == ()


@pytest.mark.timeout(5)
@pytest.mark.parametrize("filling", ['"', "\\", "a=", "a ", " ", ",", 'a="\\', "=", "a", "a/"])
def test_long_header_is_read_in_no_time(filling: str) -> None:
    """A megabyte of anything costs neither time nor memory: what is behind 16 KiB isn't read."""
    parse_challenges([f"Bearer {filling * 1_000_000}"])
    parse_challenges([f'Bearer realm="{filling * 1_000_000}'])


@given(st.lists(st.text(st.sampled_from('Ba =,"\\\t/x')), max_size=3))
def test_any_header_is_read_without_a_crash(headers: list[str]) -> None:
    """Schemes and names of what was found are in lower case and never empty."""
    for challenge in parse_challenges(headers):
        assert challenge.scheme
        assert challenge.scheme == challenge.scheme.lower()
        assert all(name and name == name.lower() for name in challenge.parameters)


@given(st.dictionaries(st.sampled_from(["realm", "service", "scope", "error"]), st.text(max_size=20), min_size=1))
def test_quoted_parameters_are_read_back(parameters: dict[str, str]) -> None:
    """Every value survives quoting, whatever is in it."""
    escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in parameters.items()}
    header = "Bearer " + ",".join(f'{name}="{value}"' for name, value in escaped.items())

    assert parse_challenges([header, "Basic"]) == (Challenge("bearer", parameters), Challenge("basic", {}))


def test_pull_scope_names_the_repository() -> None:
    """One repository, one action: some token servers look at the first scope only."""
    assert pull_scope(Repository("kimoqi/alpine-x86")) == "repository:kimoqi/alpine-x86:pull"
