"""The configuration: what is read, what wins, what is refused, and what is never said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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
from proxy.settings.keys import Settings, UpstreamSettings, json_schema
from proxy.settings.load import SettingsInvalid, load
from proxy.settings.text import parse_duration, parse_listen, parse_size, parse_url

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
    "value", [None, 5000, "", "registry.example", "registry.example:5000", "ftp://registry.example", "http://", "http:"]
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


def written_defaults() -> dict[str, object]:
    """Return the variables for all keys that have a default, outside of lists, with that default."""
    schema = json_schema()
    sections = {"": schema, "CACHE__": schema["$defs"]["CacheSettings"]}
    return {
        f"MANIFUSE_{prefix}{key.upper()}": described["default"]
        for prefix, section in sections.items()
        for key, described in section["properties"].items()
        if "default" in described
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

    assert len(refused) == 1
    assert "JSON was expected" in refused[0]
    assert name.removeprefix("MANIFUSE_").lower() in refused[0]
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
            "upstream[0].credentials: either password or password_file was expected",
            id="no password",
        ),
        pytest.param(
            '[[upstream]]\nname = "a"\nurl = "https://a.example"\n'
            'credentials = { username = "u", password = "p", password_file = "f" }',
            "upstream[0].credentials: either password or password_file was expected",
            id="two passwords",
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
    ],
)
def test_a_contradiction_is_refused(file: Path, text: str, problem: str) -> None:
    """What no single key shows is found, too."""
    refused = problems_of(file, text)

    assert len(refused) == 1
    assert refused[0].startswith(problem)


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

    assert credentials not in (None, "docker-config")
    assert not isinstance(credentials, str)
    assert credentials is not None
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
