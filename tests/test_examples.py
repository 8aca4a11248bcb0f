"""What the documentation and the configuration files show is so: they load, they mean what they say, it all exists."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import jsonschema
import pytest
from click.testing import CliRunner

from certificates import Authority
from proxy.cli import main
from proxy.merge.convention import CONVENTIONS, DEFAULT_TOKENS, TOKENS
from proxy.merge.plan import Guessed, Plan, Source, Written, plan_tag
from proxy.merge.route import Address, route
from proxy.merge.rule import find
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, parse_image
from proxy.settings.keys import Settings, UpstreamSettings, json_schema
from proxy.settings.load import load
from signing import pem, rsa_key

pytestmark = pytest.mark.usefixtures("bare_environment")

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "config"
DEFAULT = CONFIG / "manifuse.toml"
SCHEMA = CONFIG / "manifuse.schema.json"
EXAMPLES = sorted((CONFIG / "examples").glob("*.toml"))
ACCESS = sorted((CONFIG / "access").glob("*.toml"))  # one for each way of letting clients in
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if page.is_file()]
MANUAL = ROOT / "docs" / "configuration.md"

# example, virtual name -> sources with what the rule says of their platform, and the name itself where it is asked.
# Of conventions, which ask for many names, those that the comment names.
MEANINGS: dict[tuple[str, str], dict[str, str]] = {
    ("two-repositories", "team/app:1.0"): {
        "registry/team/app-x86:1.0": "linux/amd64",
        "registry/team/app-arm:1.0": "linux/arm64",
        "registry/team/app:1.0": "base",
    },
    ("one-release", "team/app:1.0"): {
        "registry/team/app-x86:1.0": "linux/amd64",
        "registry/team/app-arm:1.0": "linux/arm64",
        "registry/team/app:1.0": "base",
    },
    ("two-registries", "team/app:1.0"): {
        "main/team/app:1.0": "linux/amd64",
        "arm-site/builds/app:1.0": "linux/arm64",
    },
    ("cached-blobs", "team/app:1.0"): {
        "near/team/app-x86:1.0": "linux/amd64",
        "far/team/app-arm:1.0": "linux/arm64",
        "near/team/app:1.0": "base",
    },
    ("repository-suffix", "team/app:1.0"): {
        "registry/team/app-amd64:1.0": "linux/amd64",
        "registry/team/app-arm64:1.0": "linux/arm64/v8",
        "registry/team/app-armv7:1.0": "linux/arm/v7",
        "registry/team/app:1.0": "base",
    },
    ("tag-suffix", "team/app:1.0"): {
        "registry/team/app:1.0-amd64": "linux/amd64",
        "registry/team/app:1.0-arm64": "linux/arm64/v8",
        "registry/team/app:1.0": "base",
    },
    ("repository-prefix", "home/base:1.0"): {
        "registry/home/amd64-base:1.0": "linux/amd64",
        "registry/home/aarch64-base:1.0": "linux/arm64/v8",
        "registry/home/armv7-base:1.0": "linux/arm/v7",
        "registry/home/base:1.0": "base",
    },
    ("namespace", "library/redis:7"): {
        "registry/amd64/redis:7": "linux/amd64",
        "registry/arm64v8/redis:7": "linux/arm64/v8",
        "registry/arm32v7/redis:7": "linux/arm/v7",
        "registry/library/redis:7": "base",
    },
    ("tag-prefix", "team/app:1.0"): {
        "registry/team/app:amd64-1.0": "linux/amd64",
        "registry/team/app:arm64v8-1.0": "linux/arm64/v8",
        "registry/team/app:1.0": "base",
    },
    ("manifest-tool", "foo/bar:v1"): {
        "registry/foo/bar-linux-amd64:v1": "linux/amd64",
        "registry/foo/bar-linux-arm64:v1": "linux/arm64",
        "registry/foo/bar-linux-armv7:v1": "linux/arm/v7",
        "registry/foo/bar:v1": "base",
    },
    ("base-merge", "team/app:1.0"): {
        "registry/team/app-riscv64:1.0": "linux/riscv64",
        "registry/team/app:1.0": "base",
    },
    ("all-or-nothing", "team/app:1.0"): {
        "registry/team/app-x86:1.0": "linux/amd64",
        "registry/team/app-arm:1.0": "linux/arm64",
    },
    **{
        ("trust", f"{name}/app:1.0"): {
            f"registry/{name}/app-x86:1.0": "linux/amd64",
            f"registry/{name}/app-arm:1.0": "linux/arm64",
            f"registry/{name}/app:1.0": "base",
        }
        for name in ("crossbuilt", "renamed", "release")
    },
    ("trust", "other/app:1.0"): {
        "registry/other/app-x86:1.0": "linux/amd64",
        "registry/other/app-arm:1.0": "its config says",
        "registry/other/app:1.0": "base",
    },
    ("several-registries", "docker.io/team/app:1.0"): {
        "hub/team/app:1.0-amd64": "linux/amd64",
        "hub/team/app:1.0-arm64": "linux/arm64/v8",
        "hub/team/app:1.0": "base",
    },
    ("several-registries", "team/app:1.0"): {
        "hub/team/app:1.0-amd64": "linux/amd64",
        "hub/team/app:1.0-arm64": "linux/arm64/v8",
        "hub/team/app:1.0": "base",
    },
    **{
        ("several-registries", f"{name}/team/app:1.0"): {
            "ghcr/team/app-x86:1.0": "linux/amd64",
            "ghcr/team/app-arm:1.0": "linux/arm64",
            "ghcr/team/app:1.0": "base",
        }
        for name in ("ghcr.io", "gh")
    },
    ("windows", "team/app:1.0"): {
        "registry/team/app:1.0-linux-amd64": "linux/amd64",
        "registry/team/app:1.0-windows-1809": "windows/amd64",
        "registry/team/app:1.0-windows-ltsc2022": "windows/amd64",
        "registry/team/app:1.0": "base",
    },
}


def plan(settings: Settings, image: str) -> Plan:
    """Return what is asked for *image*, as a client writes it behind the proxy's address."""
    name, tag = parse_image(image)
    upstream, repository = route(settings.names, Address(), name)
    return plan_tag(find(settings.rules, upstream, repository), upstream, repository, tag, None, 0.0)  # type: ignore[arg-type]


def hint(source: Source) -> str:
    """Say what a rule says of a source's platform."""
    match source.hint:
        case Written(platform=platform):
            return str(platform)
        case Guessed(platforms=platforms):
            return str(platforms[0])
        case None:
            return "its config says"


def comment(path: Path) -> str:
    """Return the sentences that a file begins with, on one line."""
    lines = path.read_text().splitlines()
    end = next(n for n, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end])


def uncommented(text: str) -> str:
    """Return a configuration with the keys that it shows in comments: what is prose has one space behind its #."""
    return re.sub(r"^#(?=\S|  +\{)(?!:schema)", "", text, flags=re.MULTILINE)


def fenced(*languages: str) -> Iterator[Any]:
    """Return the code blocks of all pages, as parameters of a test."""
    for page in PAGES:
        blocks = re.finditer(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks):
            if block[1] in languages:
                yield pytest.param(block[2], id=f"{page.name}-{number}")


def commands() -> list[str]:
    """Return each line of a shell block and each piece of inline code that begins with a command of ours."""
    found = dict[str, None]()
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
        inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        ours = [line.partition("#")[0].strip() for line in (*lines, *inline)]
        found |= dict.fromkeys(line for line in ours if re.match(r"(\.venv/bin/)?(manifuse|make)\s", line))
    return list(found)


@pytest.mark.parametrize("path", [DEFAULT, *EXAMPLES, *ACCESS], ids=lambda path: path.name)
def test_a_configuration_file_passes_its_check(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`manifuse check` has nothing to say against any file in config/, once the files that it names are there."""
    monkeypatch.setenv("MANIFUSE_CACHE__DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    pair = Authority().server()
    there = {
        "tls.crt": pair.certificate,
        "tls.key": pair.key,
        "htpasswd": b"alice:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n",
        "token-service.pem": pem(rsa_key()),
    }
    for name in re.findall(r'"/run/secrets/([^"]+)"', path.read_text()):
        (tmp_path / name).write_bytes(there.get(name, b"secret\n"))
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("/run/secrets", str(tmp_path)))

    result = CliRunner().invoke(main, ["check", "--config", str(copy)])

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("path", [DEFAULT, *EXAMPLES, *ACCESS], ids=lambda path: path.name)
def test_the_schema_takes_every_configuration_file(path: Path) -> None:
    """Editors that know the schema find nothing wrong in config/."""
    jsonschema.validate(tomllib.loads(path.read_text()), json_schema())
    jsonschema.validate(tomllib.loads(uncommented(path.read_text())), json_schema())


def test_the_schema_is_up_to_date() -> None:
    """What is kept in config/ is what the types say now: `make schema` writes it."""
    assert json.loads(SCHEMA.read_text()) == json_schema()


def test_the_schema_is_a_schema_and_its_defaults_fit() -> None:
    """The schema is valid, and each default is what its own key takes: editors insert them."""
    schema = json_schema()
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema)

    for section in (schema, *schema["$defs"].values()):
        for described in section.get("properties", {}).values():
            if "default" in described:
                validator({**described, "$defs": schema["$defs"]}).validate(described["default"])


def test_the_default_file_is_what_happens_without_it() -> None:
    """The default configuration differs from none at all by its upstream alone."""
    shown = load(DEFAULT)

    assert shown.model_copy(update={"upstream": ()}) == Settings()
    assert [each.name for each in shown.upstream] == ["registry"]


def test_the_default_file_shows_the_defaults() -> None:
    """The keys that it shows in comments load, too, and have the values that hold without them."""
    shown = Settings.model_validate(tomllib.loads(uncommented(DEFAULT.read_text())))
    usual = Settings()

    assert shown.rules[0].sources
    assert shown.upstream[0].credentials is not None
    assert shown.cache.model_copy(update={"dir": usual.cache.dir}) == usual.cache
    assert shown.tls.certificate is not None
    examples = {"upstream": (), "rule": (), "cache": usual.cache, "tls": usual.tls, "admin_token_file": None}
    assert shown.model_copy(update=examples) == usual


def test_every_way_of_letting_clients_in_has_an_example() -> None:
    """But for letting in everybody, which is what happens without a word."""
    modes = {load(path).access.mode: path.stem for path in ACCESS}

    assert modes == {mode: mode for mode in ("htpasswd", "token", "upstream")}


def test_every_way_of_naming_images_has_an_example() -> None:
    """Each convention, each value of each choice, and each kind of rule is shown."""
    rules = [rule for path in EXAMPLES for rule in load(path).rule]

    assert {name for rule in rules for name in rule.conventions} == set(CONVENTIONS)
    assert {rule.base for rule in rules} == set(type(rules[0].base))
    assert {rule.trust for rule in rules} == set(type(rules[0].trust))
    assert {rule.on_partial for rule in rules} == set(type(rules[0].on_partial))
    assert any(rule.template for rule in rules)
    assert {name for name, _ in MEANINGS} == {path.stem for path in EXAMPLES}


@pytest.mark.parametrize(("example", "image"), MEANINGS, ids=str)
def test_an_example_maps_what_its_comment_says(example: str, image: str) -> None:
    """The names in an example's first sentence are those that its rules lead to."""
    path = CONFIG / "examples" / f"{example}.toml"
    found = plan(load(path), image)
    asked = {str(source): hint(source) for source in found.sources}
    if found.base is not None:
        asked[str(found.base)] = "base"
    expected = MEANINGS[example, image]

    assert image in comment(path)
    assert expected.items() <= asked.items()
    assert found.guessing or expected == asked
    assert found.impossible == ()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("hosts.toml", ['[host."http://127.0.0.1:5080"]', 'capabilities = ["pull", "resolve"]']),
        ("registries.conf", ['location = "127.0.0.1:5080"', 'location = "127.0.0.1:5080/docker.io/team"']),
        ("registries.yaml", ["- http://127.0.0.1:5080", "merged.example:", 'aliases = ["merged.example"]']),
        ("daemon.json", ["http://127.0.0.1:5080"]),
    ],
)
def test_a_client_is_led_to_the_port_that_is_listened_on(file: str, words: list[str]) -> None:
    """Clients' files are well-formed, name our port, and are listed beside them."""
    text = (CONFIG / "clients" / file).read_text()
    if file.endswith((".toml", ".conf")):
        tomllib.loads(text)
    if file.endswith(".json"):
        json.loads(text)

    assert "http://{}:{}".format(*Settings().listen) in text.replace('= "127', '= "http://127')
    assert all(word in text for word in words)
    assert f"`{file}`" in (CONFIG / "clients" / "README.md").read_text()


@pytest.mark.parametrize(
    ("aliases", "namespace", "repository"),
    [
        ([], "docker.io", "team/app"),  # hosts.toml, daemon.json, registries.yaml
        ([], "", "docker.io/team/app"),  # registries.conf
        (["merged.example"], "merged.example", "team/app"),  # registries.yaml
    ],
)
def test_what_clients_ask_for_reaches_the_registry(aliases: list[str], namespace: str, repository: str) -> None:
    """Each way in which the clients' files name a registry leads to the upstream that is meant."""
    hub = UpstreamSettings.model_validate({"name": "hub", "url": "https://registry-1.docker.io", "aliases": aliases})
    address = Address(host="127.0.0.1:5080", namespaces=(namespace,) if namespace else ())

    assert route([hub.names(alone=False)], address, Repository(repository)) == ("hub", "team/app")


@pytest.mark.parametrize("block", list(fenced("toml")))
def test_a_block_of_configuration_loads(block: str, tmp_path: Path) -> None:
    """Every TOML block on a page of documentation is a configuration as it stands."""
    path = tmp_path / "block.toml"
    path.write_text(block)

    assert load(path)


@pytest.mark.parametrize("line", commands())
def test_a_command_that_is_named_exists(line: str) -> None:
    """Every command and flag that the documentation names is one of ours."""
    program, *words = line.removeprefix(".venv/bin/").split()
    if program == "make":
        targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

        assert words[0] in targets
        return
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    command = main.commands.get(words[0], main)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}

    assert words[0] in main.commands or words[0].startswith("-")
    assert flags <= known


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted(CONFIG.glob("*/README.md"))], ids=lambda page: str(page.relative_to(ROOT))
)
def test_a_link_leads_somewhere(page: Path) -> None:
    """Every relative link on a page is to a file that is there."""
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def sections() -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """Return all keys of the schema: section, key, description, whether it has to be there."""
    schema = json_schema()
    tables = {"Settings": schema, **{name: each for name, each in schema["$defs"].items() if "properties" in each}}
    for name, table in tables.items():
        for key, described in table["properties"].items():
            reference = described.get("$ref", "").rpartition("/")[2]
            inherited = schema["$defs"].get(reference, {})
            meaning = described.get("description") or inherited["description"]
            yield name, key, {**described, "description": meaning}, key in table.get("required", ())


@pytest.mark.parametrize(
    ("key", "described", "required"), [pytest.param(*rest, id=f"{name}.{rest[0]}") for name, *rest in sections()]
)
def test_the_manual_has_every_key(key: str, described: dict[str, Any], *, required: bool) -> None:
    """Each key has a row in the manual, with the default and the meaning that the types give it."""
    if required:
        default = "required"
    elif "default" not in described:
        default = ".*"
    else:
        value = described["default"]
        default = "none" if value in (None, "") else re.escape(f"`{json.dumps(value)}`")
    meaning = re.escape(described["description"])

    assert re.search(rf"^\| `{key}` \| [^|]+ \| ?{default} \| {meaning} \|$", MANUAL.read_text(), re.MULTILINE)


def test_the_manual_has_no_key_that_there_is_not() -> None:
    """The manual's tables of keys hold nothing else."""
    rows = re.findall(r"^\| `([a-z_]+)` \|(?: [^|]*\|){3}$", MANUAL.read_text(), re.MULTILINE)

    assert sorted(rows) == sorted(key for _, key, _, _ in sections())


def test_the_manual_has_every_word_for_a_platform() -> None:
    """The manual's table of words is the one that conventions use, in the same order."""
    rows = re.findall(r"^\| `(\w+/[\w/]+)` \| (`.+`) \|$", MANUAL.read_text(), re.MULTILINE)
    words: dict[Platform, list[str]] = {}
    for token, platforms in TOKENS.items():
        words.setdefault(platforms[0], []).append(token)

    assert dict(rows) == {str(platform): ", ".join(f"`{word}`" for word in each) for platform, each in words.items()}
    assert set(DEFAULT_TOKENS) <= set(TOKENS)


def test_the_manual_has_every_convention() -> None:
    """The manual's table of conventions shows what each makes of a name."""
    rows = re.findall(r"^\| `([a-z-]+)` \| `(\S+)` \| [^|]+ \|$", MANUAL.read_text(), re.MULTILINE)
    fields = {"repository": "team/app", "namespace": "team", "name": "app", "tag": "1.0"}

    assert dict(rows) == {
        name: template.replace("TOKEN", "arm64").format(**fields) for name, template in CONVENTIONS.items()
    }
