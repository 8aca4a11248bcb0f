"""The configuration: what is read, what wins, what is refused, and what is never said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from yarl import URL

from proxy.merge.convention import DEFAULT_CONVENTIONS
from proxy.merge.freshness import Freshness
from proxy.merge.route import Address, route
from proxy.merge.rule import SourceTemplate
from proxy.merge.template import Template
from proxy.oci.errors import NameUnknown
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository
from proxy.settings.keys import CredentialSettings, Settings, UpstreamSettings, json_schema
from proxy.settings.load import SettingsInvalid, load
from proxy.settings.text import parse_duration, parse_listen, parse_rate, parse_size, parse_url

SECRET = "correct horse battery staple"
UPSTREAM = '[[upstream]]\nname = "registry"\nurl = "http://127.0.0.1:5000"\n'


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have set variables of ours."""
    for name in [name for name in os.environ if name.startswith("MANIFUSE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file that a test writes."""
    return tmp_path / "manifuse.toml"


def problems(path: Path | None, **overrides: Any) -> list[str]:
    """Return what *path* is refused for, each as its key and expectation."""
    with pytest.raises(SettingsInvalid) as refused:
        load(path, overrides)
    return [f"{problem.key}: {problem.expected}" for problem in refused.value.problems]


def problems_of(file: Path, text: str) -> list[str]:
    """Write *text* and return what it is refused for."""
    file.write_text(text)
    return problems(file)


def upstream(**settings: Any) -> UpstreamSettings:
    """Return an upstream."""
    return UpstreamSettings.model_validate({"name": "registry", "url": "https://registry.example", **settings})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("0s", 0.0), ("60s", 60.0), ("1.5m", 90.0), ("24h", 86_400.0), ("30d", 2_592_000.0)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    """Durations are read as seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [60, 1.5, True, None, "", "60", "s", "60 s", "-1s", "1e3s", ".5s", "1.s", "60S", "1h30m", "60s\n", "\u0666\u0660s"],
)
def test_anything_else_is_no_duration(value: object) -> None:
    """A number without its unit is refused rather than guessed at."""
    with pytest.raises(ValueError, match="a duration with its unit was expected"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("512KiB", 512 << 10), ("64MiB", 64 << 20), ("20GiB", 20 << 30), ("5KB", 5_000), ("1GB", 10**9)],
)
def test_a_size_is_a_whole_number_with_a_unit(text: str, size: int) -> None:
    """Sizes are read as bytes, powers of two and of ten told apart."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", 100.0), ("3000/m", 50.0), ("1/h", 1 / 3600), ("0/s", None), ("1.5/s", None), (10, None)],
)
def test_a_rate_is_a_number_for_a_time(text: object, rate: float | None) -> None:
    """Rates are read as a number for each second; none at all is no rate."""
    if rate is None:
        with pytest.raises(ValueError, match="a number of requests for a time was expected"):
            parse_rate(text)
    else:
        assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("value", [64, 1.5, None, "", "64", "1.5GiB", "64 MiB", "64M", "64mib", "-1B", "1TiB", "1B\n"])
def test_anything_else_is_no_size(value: object) -> None:
    """A number without its unit is refused."""
    with pytest.raises(ValueError, match="a size with its unit was expected"):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5080", ("127.0.0.1", 5080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:5080", ("::1", 5080)),
        (":65535", ("", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    """Brackets keep an IPv6 address and its port apart; no host means all."""
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "value",
    [5080, None, "", "5080", "localhost", "localhost:", "localhost:http", "h:65536", "h:-1", "::1:5080", "h:\u0665"],
)
def test_anything_else_is_no_address(value: object) -> None:
    """An address without a port, or with an impossible one, is refused."""
    with pytest.raises(ValueError, match="host:port was expected"):
        parse_listen(value)


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:5000", "https://registry.example", "https://registry.example/path", "http://[::1]:5000"]
)
def test_a_url_may_have_a_path(text: str) -> None:
    """A registry's address is http or https, with or without a path in front of /v2/."""
    assert parse_url(text) == URL(text)


@pytest.mark.parametrize(
    "value",
    [None, 5000, "", "registry.example", "registry.example:5000", "ftp://registry.example", "http://", "http://[]@"],
)
def test_anything_else_is_no_url(value: object) -> None:
    """An address without its scheme is refused: http is never chosen for anybody."""
    with pytest.raises(ValueError, match="an http or https URL was expected"):
        parse_url(value)


@pytest.mark.parametrize("extra", [f"puller:{SECRET}@h", "puller@h", f"h/?token={SECRET}", f"h/#{SECRET}"])
def test_a_url_holds_no_secret(extra: str) -> None:
    """Credentials in a URL are refused, and the refusal doesn't repeat them."""
    with pytest.raises(ValueError, match="credentials have a key") as refused:
        parse_url(f"https://{extra}".replace(" ", "%20"))

    assert SECRET.split(maxsplit=1)[0] not in str(refused.value)


def test_nothing_at_all_is_a_configuration() -> None:
    """Every key has a default; only a command that needs an upstream asks for one."""
    settings = load(None)

    assert (settings.listen, settings.admin_listen) == (("127.0.0.1", 5080), ("127.0.0.1", 5081))
    assert settings.upstream == ()
    assert settings.cache.freshness == Freshness()


def test_the_environment_wins_over_the_file_and_flags_over_both(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment, flags: the later ones win, key by key."""
    file.write_text(f'listen = ":1"\nadmin_listen = ":1"\ndrain = "1s"\n{UPSTREAM}')
    monkeypatch.setenv("MANIFUSE_LISTEN", ":2")
    monkeypatch.setenv("MANIFUSE_ADMIN_LISTEN", ":2")

    settings = load(file, {"listen": ":3"})

    assert (settings.listen[1], settings.admin_listen[1], settings.drain) == (3, 2, 1.0)


def test_a_problem_is_told_where_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file isn't blamed for what a variable or a flag says; a variable holds a list as a whole."""
    file.write_text(f'drain = "long"\nlisten = ":1"\n{UPSTREAM}\n[cache]\nmemory = "much"\n')
    monkeypatch.setenv("MANIFUSE_CACHE__TAG_TTL", "short")
    monkeypatch.setenv("MANIFUSE_RULE", '[{"match": "a", "sources": [{}], "upstream": "nobody"}]')

    with pytest.raises(SettingsInvalid) as refused:
        load(file, {"listen": "there"})

    assert {(problem.where, problem.key) for problem in refused.value.problems} == {
        (str(file), "drain"),
        (str(file), "cache.memory"),
        ("environment", "cache.tag_ttl"),
        ("environment", "rule[0].sources[0].image"),
        ("environment", "rule[0].upstream"),
        ("command line", "listen"),
    }


def written_defaults() -> dict[str, object]:
    """Return the variables for all keys that have a default, outside of lists, with that default."""
    schema = json_schema()
    sections = {"": schema, "CACHE__": schema["$defs"]["CacheSettings"], "LIMITS__": schema["$defs"]["LimitSettings"]}
    return {
        f"MANIFUSE_{prefix}{key.upper()}": described["default"]
        for prefix, section in sections.items()
        for key, described in section["properties"].items()
        if described.get("default") is not None
    }


@pytest.mark.parametrize("name", written_defaults())
def test_every_key_has_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key's default, written as its variable, means the default."""
    value = written_defaults()[name]
    monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(value))

    assert load(None) == Settings()


def test_a_variable_reaches_into_a_section(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two underscores lead into a section, whose other keys stay as the file has them."""
    file.write_text('[cache]\ndir = "/file"\ntag_ttl = "5s"\n')
    monkeypatch.setenv("MANIFUSE_CACHE__DIR", "/environment")
    monkeypatch.setenv("manifuse_cache__memory", "1MiB")

    cache = load(file).cache

    assert (cache.dir, cache.tag_ttl, cache.memory) == (Path("/environment"), 5.0, 1 << 20)


def test_upstreams_and_rules_are_json_in_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list in the environment is JSON and takes the place of the file's."""
    file.write_text(UPSTREAM)
    monkeypatch.setenv("MANIFUSE_UPSTREAM", json.dumps([{"name": "other", "url": "https://other.example"}]))
    monkeypatch.setenv("MANIFUSE_RULE", json.dumps([{"match": "**", "conventions": ["tag-suffix"]}]))

    settings = load(file)

    assert [each.name for each in settings.upstream] == ["other"]
    assert [rule.conventions for rule in settings.rules] == [("tag-suffix",)]


@pytest.mark.parametrize("name", ["MANIFUSE_UPSTREAM", "MANIFUSE_RULE"])
def test_a_variable_that_is_no_json_is_refused_without_being_repeated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal names the key, not what stood there: it may hold a password."""
    monkeypatch.setenv(name, f"[{{password: {SECRET}")

    refused = problems(None)

    assert refused == [f"{name.removeprefix('MANIFUSE_').lower()}: JSON was expected"]


@pytest.mark.parametrize(
    ("name", "value"), [("MANIFUSE_UPSTREAM", '{"name": "a"}'), ("MANIFUSE_UPSTREAM__URL", "https://registry.example")]
)
def test_a_list_in_the_environment_is_told_as_json(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets of a file's headers say nothing there."""
    monkeypatch.setenv(name, value)

    assert problems(None) == ["upstream: a list of tables was expected, as JSON: [{…}]"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MANIFUSE_ACCESS_MODE", "MANIFUSE_ACCESS__MODE was expected, with two underscores behind the section"),
        ("MANIFUSE_CACHE_DIR", "MANIFUSE_CACHE__DIR was expected, with two underscores behind the section"),
        ("MANIFUSE_ACCES__MODE", "there is no such section"),
        ("MANIFUSE_ACCESS__MODUS", "there is no such key"),
    ],
)
def test_a_variable_that_was_meant_for_us_is_not_passed_over(
    name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote it believes that it counts: that nobody may come in without a password, for instance."""
    monkeypatch.setenv(name, SECRET)

    refused = problems(None)

    assert len(refused) == 1
    assert expected in refused[0]
    assert SECRET not in refused[0]


def test_foreign_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets MANIFUSE_PORT and more in every pod beside a Service called manifuse."""
    for name, value in {
        "MANIFUSE_PORT": "tcp://10.0.0.1:5080",
        "MANIFUSE_PORT_5080_TCP": "tcp://10.0.0.1:5080",
        "MANIFUSE_SERVICE_HOST": "10.0.0.1",
        "MANIFUSE_SERVICE_PORT": "5080",
    }.items():
        monkeypatch.setenv(name, value)

    assert load(None) == Settings()


def test_all_problems_are_told_in_one_pass(file: Path) -> None:
    """Wrong types, unknown and missing keys and contradictions come together, each with its key."""
    refused = problems_of(
        file,
        """
        listen = 5080
        colour = "blue"
        drain = "long"
        [[upstream]]
        name = "one two"
        [[upstream]]
        name = "main"
        url = "registry.example"
        default = true
        connections = 0
        missing_status = [200]
        credentials = { username = "puller" }
        [[upstream]]
        name = "Main"
        url = "https://registry.example"
        default = true
        timeouts = { connect = 5, hurry = "1s" }
        [[rule]]
        match = ""
        on_partial = "hope"
        platforms = ["arm"]
        [[rule]]
        match = "**"
        sources = [{ image = "{owner}/app" }, { image = "app", upstream = "third" }]
        conventions = ["prefix"]
        [cache]
        memory = "64M"
        """,
    )

    assert sorted(line.split(": ")[0] for line in refused) == [
        "cache.memory",
        "colour",
        "drain",
        "listen",
        "rule[0].match",
        "rule[0].on_partial",
        "rule[0].platforms[0]",
        "rule[1]",
        "rule[1].conventions[0]",
        "rule[1].sources[0].image",
        "rule[1].sources[1].upstream",
        "upstream",
        "upstream[0].name",
        "upstream[0].url",
        "upstream[1].connections",
        "upstream[1].credentials",
        "upstream[1].missing_status[0]",
        "upstream[1].url",
        "upstream[2]",
        "upstream[2].timeouts.connect",
        "upstream[2].timeouts.hurry",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("colour = 1", "colour: there is no such key"),
        ("[[upstream]]\nname = 'a'", "upstream[0].url: this key is missing"),
        ("[[rule]]\nconventions = []", "rule[0].match: this key is missing"),
        ("drain = 'long'", "drain: a duration with its unit was expected"),
        ("listen = 5080", "listen: host:port was expected"),
        ("workers = 0", 'workers: a number from 1 to 64 or "auto" was expected'),
        ("hot = 'maybe'", "hot: true or false was expected"),
        ("[limits]\nburst = 'many'", "limits.burst: a whole number was expected"),
        ("[limits]\nburst = 1.5", "limits.burst: a whole number was expected"),
        ("cache = 'here'", "cache: a table was expected"),
        ("trusted_proxies = '10.0.0.0/8'", "trusted_proxies: a list was expected"),
        ("[rule]\nmatch = '*'", "rule: a list of tables was expected: [[rule]], not [rule]"),
        (
            "[[rule]]\nmatch = '*'\nsources = {image = 'a'}",
            "rule[0].sources: a list of tables was expected: [[rule.sour",
        ),
        ("[[rule]]\nmatch = '*'\nsources = ['{repository}-x86:{tag}']", "rule[0].sources[0]: a table was expected"),
        ("[[rule]]\nmatch = 5", "rule[0].match: a string was expected"),
        ("[[rule]]\nmatch = 'Team/*'", "rule[0].match: a glob over repositories was expected: lower-case words"),
        ("[[rule]]\nmatch = 'team/*:1.0'", "rule[0].match: a glob over repositories was expected"),
        ("[[rule]]\nmatch = 'team/[ab]'", "rule[0].match: a glob over repositories was expected"),
        ("[[rule]]\nmatch = '/team/*'", "rule[0].match: a glob over repositories was expected"),
        ("[[rule]]\nmatch = 'team/'", "rule[0].match: a glob over repositories was expected"),
        ("[cache]\ndir = 5", "cache.dir: a path was expected"),
        ("[hooks]\nsecret = 5", "hooks.secret: a string was expected"),
        ("[[upstream]]\nname = 'a/b'\nurl = 'http://a'", "upstream[0].name: letters, digits, . _ and - were expected"),
        (
            "[[upstream]]\nname = 'a'\nurl = 'http://a/v2/'",
            "upstream[0].url: a URL without /v2 at its end was expected",
        ),
        ("log_level = 'loud'", "log_level: input should be 'debug', 'info', 'warning' or 'error'"),
        ("[[rule]]\nmatch = '*'\nrequire = ['arm']", "rule[0].require[0]: 'arm' is not a platform: os/architecture"),
        ("[[rule]]\nmatch = '*'\nsources = [{image = 'A B'}]", "rule[0].sources[0].image: 'A B' is not an image templ"),
        ("[[rule]]\nmatch = '*'\nsources = [{image = '{n}'}]", "rule[0].sources[0].image: '{n}' has an unknown field"),
    ],
)
def test_a_problem_says_what_was_expected(file: Path, text: str, problem: str) -> None:
    """A sentence says what should stand there."""
    refused = problems_of(file, text)

    assert len(refused) == 1
    assert refused[0].startswith(problem)


def test_a_problem_names_the_file(file: Path) -> None:
    """Each line begins with the file, as compilers do."""
    file.write_text("colour = 1\nshape = 2\n")
    with pytest.raises(SettingsInvalid) as refused:
        load(file)

    assert str(refused.value).splitlines() == [
        f"{file}: colour: there is no such key",
        f"{file}: shape: there is no such key",
    ]


def test_a_file_that_is_not_there_is_one_problem(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that aren't text are said to be so."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "broken").write_text("listen = \n")

    assert problems(tmp_path / "none") == [": the file can't be read: No such file or directory"]
    assert problems(tmp_path) == [": the file can't be read: Is a directory"]
    assert problems(tmp_path / "binary")[0].startswith(": this is not TOML: ")
    assert problems(tmp_path / "broken")[0].startswith(": this is not TOML: ")
    assert "line 1" in problems(tmp_path / "broken")[0]


def test_lists_deeper_than_can_be_read_are_one_problem(tmp_path: Path) -> None:
    """A file of brackets is told to be too deep, without a trace."""
    (tmp_path / "deep").write_text("rule = " + "[" * 5000)

    assert problems(tmp_path / "deep") == [": lists within lists are nested too deep"]


def test_a_number_that_python_takes_no_longer_is_a_problem(tmp_path: Path) -> None:
    """An integer of thousands of digits is no reason for a trace."""
    (tmp_path / "long").write_text(f"workers = {'9' * 5000}\n")

    assert problems(tmp_path / "long") == [": this is not TOML: an integer has too many digits"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[access]\nmode = 'htpasswd'\nhtpasswd = 'users'\nallow = true", "access.allow"),
        ("[access]\nmode = 'htpasswd'\nhtpasswd = 'users'\nallow = 1979-05-27", "access.allow"),
        ("[access]\nmode = {long}", "access.mode"),
        ("[[upstream]]\nurl = 'http://a.example'\nname = {long}", "upstream[0].name"),
        ("[[upstream]]\nurl = 'http://a.example'\nname = 'a'\naliases = [{long}]", "upstream[0].aliases[0]"),
    ],
)
def test_what_is_checked_as_a_whole_may_be_anything(tmp_path: Path, text: str, key: str) -> None:
    """What contradicts itself is looked for in what is written, whatever its type; hexadecimal has no limit."""
    (tmp_path / "odd").write_text(text.format(long="0x" + "f" * 5000))

    assert [problem.partition(":")[0] for problem in problems(tmp_path / "odd")] == [key]


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


@pytest.mark.parametrize(
    ("listen", "admin"),
    [("127.0.0.1:0", "127.0.0.1:0"), ("10.0.0.1:5080", "127.0.0.1:5080"), (":5080", ":5081")],
)
def test_two_addresses_may_be_alike(file: Path, listen: str, admin: str) -> None:
    """Two free ports are two ports, and one port of two hosts is as well."""
    file.write_text(f'listen = "{listen}"\nadmin_listen = "{admin}"')

    assert load(file).listen[1] == int(listen.rpartition(":")[2])


def test_a_user_without_a_home_has_the_services_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers have them, whose user is but a number: that is no reason not to start."""

    def homeless(_: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_path", homeless)

    assert load(None).cache.dir == Path("/var/lib/manifuse")


def test_a_name_may_be_its_own_alias(file: Path) -> None:
    """An upstream whose alias repeats its name clashes with nobody."""
    file.write_text(UPSTREAM + 'aliases = ["registry", "Registry"]\n')

    assert load(file).upstream[0].name == "registry"


@pytest.mark.parametrize(
    "credentials",
    [
        {"username": "puller", "password": SECRET},
        {"username": "puller", "password": SECRET, "unknown": SECRET},
        {"username": "puller", "password": [SECRET]},
        {"password": SECRET},
        {"identity_token": SECRET},
        {"identity_token": SECRET, "helper": SECRET},
        [{"identity_token": SECRET}, {"username": "puller", "password": SECRET}, SECRET],
        SECRET,
        [SECRET],
    ],
)
def test_a_secret_is_never_said(credentials: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `repr` nor a refusal shows a password, wherever it was put by mistake."""
    document = {"name": "registry", "url": "https://registry.example", "credentials": credentials}
    monkeypatch.setenv("MANIFUSE_UPSTREAM", json.dumps([document]))
    try:
        said = repr(load(None)) + str(load(None))
    except SettingsInvalid as refused:
        said = repr(refused) + str(refused) + repr(refused.problems) + repr(refused.__context__)

    assert said
    assert SECRET not in said


def test_the_password_is_there_for_those_who_need_it() -> None:
    """The composition root gets the password itself."""
    credentials = upstream(credentials={"username": "puller", "password": SECRET}).credentials

    assert isinstance(credentials, CredentialSettings)
    assert credentials.password is not None
    assert credentials.password.get_secret_value() == SECRET


def test_without_a_rule_the_default_conventions_hold(file: Path) -> None:
    """No rule written: repository suffix and tag suffix, for every name."""
    file.write_text(UPSTREAM)

    (rule,) = load(file).rules

    assert (rule.match, rule.conventions, rule.sources) == ("**", DEFAULT_CONVENTIONS, ())


def test_a_written_rule_replaces_the_default(file: Path) -> None:
    """With any rule written, the rules are those written, named by their place in the file."""
    file.write_text(
        UPSTREAM
        + '[[rule]]\nmatch = "a/*"\nsources = [{ image = "{repository}-x86", platform = "linux/amd64" }]\n'
        + '[[rule]]\nmatch = "b/*"\n'
    )

    first, second = load(file).rules

    assert first.sources == (SourceTemplate(Template("{repository}-x86:{tag}"), Platform("linux", "amd64")),)
    assert [(rule.name, rule.match) for rule in (first, second)] == [("rule[0]", "a/*"), ("rule[1]", "b/*")]
    assert (second.sources, second.conventions) == ((), ())


def test_a_template_is_filled_for_each_platform(file: Path) -> None:
    """manifest-tool's words become one source per platform, with the platform written."""
    file.write_text(
        '[[rule]]\nmatch = "*"\ntemplate = "{repository}-OS-ARCHVARIANT"\nplatforms = ["linux/amd64", "linux/arm/v7"]\n'
    )

    (rule,) = load(file).rules

    assert [(str(source.template), str(source.platform)) for source in rule.sources] == [
        ("{repository}-linux-amd64:{tag}", "linux/amd64"),
        ("{repository}-linux-armv7:{tag}", "linux/arm/v7"),
    ]
    assert rule.platforms == ()


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"url": "https://registry-1.docker.io"}, (401, 404)),
        ({"url": "https://index.docker.io"}, (401, 404)),
        ({"url": "https://registry-1.docker.io", "missing_status": [404]}, (404,)),
        ({"url": "https://registry.example"}, (404,)),
        ({"url": "https://registry.example", "missing_status": [403, 404]}, (403, 404)),
    ],
)
def test_docker_hub_says_401_of_what_is_missing(settings: dict[str, Any], missing: tuple[int, ...]) -> None:
    """Docker Hub's statuses for a missing repository are known; what is written counts more."""
    assert upstream(**settings).missing == missing


@pytest.mark.parametrize("word", ["registry", "REGISTRY", "registry.example", "mirror.example", "Mirror.Example"])
def test_an_upstream_answers_to_its_name_host_and_aliases(word: str) -> None:
    """An upstream is meant by its name, its URL's host and each alias, in any case."""
    names = upstream(aliases=["mirror.example"]).names(alone=False)

    assert names.claims(word)
    assert not names.claims("other.example")


def test_docker_hub_answers_to_all_its_names() -> None:
    """Clients call Docker Hub by several names; an upstream with one of them has them all."""
    by_url = upstream(name="hub", url="https://registry-1.docker.io").names(alone=False)
    by_alias = upstream(url="https://mirror.example", aliases=["docker.io"]).names(alone=False)

    for word in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        assert by_url.claims(word)
        assert by_alias.claims(word)


def test_the_only_upstream_is_the_default(file: Path) -> None:
    """One upstream takes every name; of several only the one that says so does."""
    file.write_text(UPSTREAM)
    alone = load(file).names
    file.write_text(UPSTREAM + '[[upstream]]\nname = "other"\nurl = "https://other.example"\n')
    several = load(file).names

    assert route(alone, Address(), Repository("team/app")) == ("registry", "team/app")
    with pytest.raises(NameUnknown):
        route(several, Address(), Repository("team/app"))


def test_settings_are_frozen() -> None:
    """Nobody changes the configuration of a running service."""
    with pytest.raises(ValueError, match="frozen"):
        load(None).drain = 1.0  # type: ignore[misc]
