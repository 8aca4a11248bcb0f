"""What no single key shows: keys that need each other, and keys that exclude each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.settings.load import SettingsInvalid, load
from settings.texts import UPSTREAM, problems_of


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            """
            [[upstream]]
            name = "a"
            url = "https://a.example"
            default = true
            [[upstream]]
            name = "b"
            url = "https://b.example"
            default = true
            """,
            "upstream: at most one upstream can be the default",
            id="two defaults",
        ),
        pytest.param(
            """
            [[upstream]]
            name = "a"
            url = "https://a.example"
            aliases = ["shared.example"]
            [[upstream]]
            name = "b"
            url = "https://b.example"
            aliases = ["Shared.example"]
            """,
            "upstream[1]: the name 'shared.example' is taken by upstream[0]",
            id="one alias twice",
        ),
        pytest.param(
            '[[upstream]]\nname = "a"\nurl = "https://a.example"\ncredentials = { username = "u" }',
            "upstream[0].credentials: exactly one of password, password_file, password_env, identity_token, ",
            id="no password",
        ),
        pytest.param(
            '[[upstream]]\nname = "a"\nurl = "https://a.example"\n'
            'credentials = { username = "u", password = "p", password_file = "f" }',
            "upstream[0].credentials: exactly one of password, password_file, password_env, identity_token, ",
            id="two passwords",
        ),
        pytest.param(
            f'{UPSTREAM}credentials = [{{ username = "u", password = "p" }}, {{ match = "a/*" }}]',
            "upstream[0].credentials[1]: exactly one of password, ",
            id="no way in the second",
        ),
        pytest.param(
            f'{UPSTREAM}credentials = {{ password_env = "SECRET" }}',
            "upstream[0].credentials.username: a password needs a user name",
            id="no user name",
        ),
        pytest.param(
            f'{UPSTREAM}credentials = {{ helper = "pass", username = "u" }}',
            "upstream[0].credentials.username: helper knows the user name",
            id="a user name for a helper",
        ),
        pytest.param(
            f'{UPSTREAM}credentials = {{ identity_token = "t", helper_timeout = "1s" }}',
            "upstream[0].credentials.helper_timeout: there is no helper here",
            id="patience with nobody",
        ),
        pytest.param(
            f'{UPSTREAM}credentials = {{ helper = "../pass" }}',
            "upstream[0].credentials.helper: letters, digits, . _ and - were expected",
            id="a helper elsewhere",
        ),
        pytest.param(
            f"{UPSTREAM}credentials = 5",
            'upstream[0].credentials: "docker-config", "client", a table or an array of tables was expected',
            id="no credentials",
        ),
        pytest.param(
            f'{UPSTREAM}credentials = "docker"',
            "upstream[0].credentials: input should be 'docker-config'",
            id="some other word",
        ),
        pytest.param(
            f'{UPSTREAM}client_key = "key.pem"',
            "upstream[0].client_key: a key needs the certificate it belongs to: client_certificate",
            id="a key alone",
        ),
        pytest.param(
            'admin_token = "t"\nadmin_token_file = "f"',
            "admin_token: either admin_token or admin_token_file was expected",
            id="two admin tokens",
        ),
        pytest.param(
            '[tls]\ncertificate = "c"',
            "tls.key: this key is missing: certificate and key go together",
            id="a certificate alone",
        ),
        pytest.param(
            '[tls]\nkey = "k"',
            "tls.certificate: this key is missing: certificate and key go together",
            id="a key alone",
        ),
        pytest.param(
            "[tls]\nadmin = true",
            "tls.certificate: this key is missing: without it there is no TLS",
            id="TLS without a certificate",
        ),
        pytest.param(
            '[tls]\ncertificate = "c"\nkey = "k"\nclient_auth = "required"',
            "tls.client_ca: this key is missing: client_auth needs the authorities that count",
            id="clients' certificates of nobody",
        ),
        pytest.param(
            '[tls]\ncertificate = "c"\nkey = "k"\nclient_ca = "ca"',
            'tls.client_auth: "optional" or "required" was expected: client_ca alone checks nobody',
            id="authorities for nothing",
        ),
        pytest.param(
            '[limits]\nrate = "0/s"',
            'limits.rate: a number of requests for a time was expected, such as "100/s", "3000/m"',
            id="a rate of nothing",
        ),
        pytest.param(
            '[[rule]]\nmatch = "*"\nsources = [{ image = "{name}-x86" }]\nconventions = ["tag-suffix"]',
            "rule[0]: either sources, conventions or template was expected, not sources and conventions",
            id="sources and conventions",
        ),
        pytest.param(
            '[[rule]]\nmatch = "*"\nconventions = ["tag-suffix"]\ntemplate = "a-ARCH"\nplatforms = ["linux/arm64"]',
            "rule[0]: either sources, conventions or template was expected, not conventions and template",
            id="conventions and template",
        ),
        pytest.param(
            '[[rule]]\nmatch = "*"\ntemplate = "{repository}-ARCH:{tag}"',
            "rule[0].platforms: template needs the platforms to fill it with",
            id="template without platforms",
        ),
        pytest.param(
            '[[rule]]\nmatch = "*"\nsources = [{ image = "{name}-x86" }]\nplatforms = ["linux/amd64"]',
            "rule[0].platforms: sources have a platform each; platforms goes with conventions or template",
            id="sources and platforms",
        ),
        pytest.param(
            '[[rule]]\nmatch = "*"\ntemplate = "{repository}-arm"\nplatforms = ["linux/amd64", "linux/arm64"]',
            "rule[0].template: ARCH, OS or VARIANT was expected in it, else every platform is the same image",
            id="template without words",
        ),
        pytest.param(
            '[[rule]]\nmatch = "*"\ntemplate = "{repository}-ARCH-VARIANT"\nplatforms = ["linux/amd64"]',
            "rule[0].template: '{repository}-amd64-' is not an image template",
            id="template that becomes no name",
        ),
        pytest.param(
            f'{UPSTREAM}[[rule]]\nmatch = "*"\nupstream = "other"',
            "rule[0].upstream: the name of an upstream was expected: registry",
            id="rule on an unknown upstream",
        ),
        pytest.param(
            f'{UPSTREAM}[[rule]]\nmatch = "*"\nsources = [{{ image = "{{name}}-x86", upstream = "other" }}]',
            "rule[0].sources[0].upstream: the name of an upstream was expected: registry",
            id="source on an unknown upstream",
        ),
        pytest.param(
            '[[rule]]\nmatch = "*"\nupstream = "other"',
            "rule[0].upstream: the name of an upstream was expected: there is none",
            id="rule on an upstream where there is none",
        ),
        pytest.param(
            'listen = "127.0.0.1:5080"\nadmin_listen = "127.0.0.1:5080"',
            "admin_listen: another address than that of listen was expected",
            id="both ports on one address",
        ),
        pytest.param(
            'listen = ":5081"',
            "admin_listen: another address than that of listen was expected",
            id="one port within all interfaces of the other",
        ),
        pytest.param(
            '[access]\nmode = "htpasswd"',
            'access.htpasswd: this key is missing, mode = "htpasswd" needs it',
            id="no htpasswd",
        ),
        pytest.param(
            '[access]\nmode = "token"', 'access.token: this key is missing, mode = "token" needs it', id="no token"
        ),
        pytest.param(
            '[[access.allow]]\nusers = ["alice"]',
            'access.allow: it goes with mode = "htpasswd"',
            id="rights without users",
        ),
        pytest.param(
            '[access]\nmode = "htpasswd"\nhtpasswd = "f"\n[[access.allow]]\nupstream = "nobody"',
            "access.allow[0].upstream: the name of an upstream was expected",
            id="rights at a stranger",
        ),
        pytest.param(
            '[access]\nmode = "upstream"',
            'access.mode: at least one upstream with credentials = "client" was expected',
            id="nobody takes the client's credentials",
        ),
        pytest.param(
            '[access]\nmode = "upstream"\n[[upstream]]\nname = "a"\nurl = "https://a.example"\ncredentials = "client"\n'
            '[[upstream]]\nname = "b"\nurl = "https://b.example"\ncredentials = "docker-config"',
            'upstream[1].credentials: "client" or none was expected',
            id="credentials that all clients would share",
        ),
        pytest.param(
            '[access]\nmode = "upstream"\n[[upstream]]\nname = "a"\nurl = "https://a.example"\ncredentials = "client"\n'
            '[[upstream]]\nname = "b"\nurl = "https://b.example"\nclient_certificate = "c"',
            'upstream[1].client_certificate: credentials = "client" was expected beside it',
            id="a certificate beside clients",
        ),
        pytest.param(
            '[[upstream]]\nname = "a"\nurl = "https://a.example"\ncredentials = "client"',
            'upstream[0].credentials: "client" goes with access.mode = "upstream"',
            id="the client's credentials in another mode",
        ),
    ],
)
def test_a_contradiction_is_refused(file: Path, text: str, problem: str) -> None:
    """What no single key shows is found, too."""
    refused = problems_of(file, text)

    assert len(refused) == 1
    assert refused[0].startswith(problem)


def test_a_certificate_beside_clients_is_refused_where_no_credentials_are_said_to_be_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """JSON in the environment has a word for nothing, and it is none."""
    clients = {"name": "a", "url": "https://a.example", "credentials": "client"}
    shared = {"name": "b", "url": "https://b.example", "credentials": None, "client_certificate": "c"}
    monkeypatch.setenv("MANIFUSE_UPSTREAM", json.dumps([clients, shared]))
    monkeypatch.setenv("MANIFUSE_ACCESS__MODE", "upstream")

    with pytest.raises(SettingsInvalid, match=r"upstream\[1\]\.client_certificate: credentials = \"client\""):
        load(None)


@pytest.mark.parametrize(
    ("listen", "admin"),
    [("127.0.0.1:0", "127.0.0.1:0"), ("10.0.0.1:5080", "127.0.0.1:5080"), (":5080", ":5081")],
)
def test_two_addresses_may_be_alike(file: Path, listen: str, admin: str) -> None:
    """Two free ports are two ports, and one port of two hosts is as well."""
    file.write_text(f'listen = "{listen}"\nadmin_listen = "{admin}"')

    assert load(file).listen[1] == int(listen.rpartition(":")[2])


def test_a_name_may_be_its_own_alias(file: Path) -> None:
    """An upstream whose alias repeats its name clashes with nobody."""
    file.write_text(UPSTREAM + 'aliases = ["registry", "Registry"]\n')

    assert load(file).upstream[0].name == "registry"
