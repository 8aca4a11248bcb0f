"""Reading the configuration: what wins, what is wrong with it, and what is never said."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs
import pytest

from proxy.merge.freshness import Freshness
from proxy.settings.keys import Settings, json_schema
from proxy.settings.load import SettingsInvalid, load
from settings.texts import SECRET, UPSTREAM, problems, problems_of


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


def test_a_user_without_a_home_has_the_services_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers have them, whose user is but a number: that is no reason not to start."""

    def homeless(_: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_path", homeless)

    assert load(None).cache.dir == Path("/var/lib/manifuse")


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


def test_settings_are_frozen() -> None:
    """Nobody changes the configuration of a running service."""
    with pytest.raises(ValueError, match="frozen"):
        load(None).drain = 1.0  # type: ignore[misc]
