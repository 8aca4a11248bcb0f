"""The configuration: TOML and environment into frozen values, every problem reported at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from yarl import URL

from proxy.merge.freshness import Freshness
from proxy.merge.route import Names
from proxy.merge.rule import Attestations, Base, OnPartial, Rule, SourceTemplate, Trust, default_rule
from proxy.merge.template import Template, manifest_tool
from proxy.oci.platform import Platform
from proxy.oci.reference import DOCKER_HUB

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_DURATION: Final = r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)"
_SIZE: Final = r"([0-9]+)(B|KiB|MiB|GiB|KB|MB|GB)"
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def parse_duration(value: object) -> float:
    """Read `"60s"`, `"1.5m"`, `"24h"` as seconds. Raises `ValueError`."""
    match = re.fullmatch(_DURATION, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a duration with its unit was expected, such as "500ms", "60s", "10m", "24h", "30d"')
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(value: object) -> int:
    """Read `"64MiB"` as bytes. Raises `ValueError`."""
    match = re.fullmatch(_SIZE, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a size with its unit was expected, such as "512KiB", "64MiB", "20GiB"')
    return int(match[1]) * _BYTES[match[2]]


def parse_listen(value: object) -> tuple[str, int]:
    """Read `host:port`, `[::1]:port` or `:port` for all addresses. Raises `ValueError`."""
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else -1
    if not colon or not 0 <= number < 65536 or (":" in host and not host.startswith("[")):
        raise ValueError('host:port was expected, such as "127.0.0.1:5080" or "[::1]:5080"')
    return host.strip("[]"), number


def parse_url(value: object) -> URL:
    """Read a registry's URL. A path in front of `/v2/` is allowed. Raises `ValueError` without repeating it."""
    try:
        url = URL(value) if isinstance(value, str) else URL()
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError('an http or https URL was expected, such as "https://registry.example"')
    if url.user or url.password or url.query_string or url.fragment:
        raise ValueError("a URL without user, password, query and fragment was expected; credentials have a key")
    return url


def _parsed(read: Any, example: str, pattern: str | None = None) -> Any:
    """Return annotations for a value that is written as a string and kept parsed."""
    schema = {"type": "string", "examples": [example]} | ({"pattern": f"^{pattern}$"} if pattern else {})
    return (BeforeValidator(read), WithJsonSchema(schema))


def _platform(value: object) -> Platform:
    return Platform.parse(value if isinstance(value, str) else "")


def _template(value: object) -> Template:
    return Template.parse(value if isinstance(value, str) else "")


Duration = Annotated[float, *_parsed(parse_duration, "60s", _DURATION)]
Size = Annotated[int, *_parsed(parse_size, "64MiB", _SIZE)]
Listen = Annotated[tuple[str, int], NoDecode, *_parsed(parse_listen, "127.0.0.1:5080")]
Url = Annotated[Any, *_parsed(parse_url, "https://registry.example")]
PlatformText = Annotated[Any, *_parsed(_platform, "linux/arm64")]
TemplateText = Annotated[Any, *_parsed(_template, "{repository}-arm:{tag}")]
ConventionName = Literal["repository-suffix", "tag-suffix", "repository-prefix", "namespace", "tag-prefix"]
Status = Annotated[int, Field(ge=400, le=599)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # it may be a secret
    )


class CredentialSettings(_Section):
    """A user name and where the password is."""

    username: str = Field(min_length=1)
    """The user name."""
    password: SecretStr | None = None
    """The password itself; better kept in a file."""
    password_file: Path | None = None
    """A file that holds the password alone; read at the start."""


class TimeoutSettings(_Section):
    """Time limits of requests to an upstream."""

    connect: Duration = 5.0
    """For TCP and TLS."""
    header: Duration = 8.0
    """From a request to its response headers."""
    total: Duration = 30.0
    """For a whole manifest, config, token or list."""
    idle: Duration = 60.0
    """Between two reads of a blob."""


class UpstreamSettings(_Section):
    """A registry behind the proxy."""

    name: str = Field(pattern=f"^{_NAME}$")
    """What rules, metrics and logs call it; also an alias."""
    url: Url
    """Its address; plain http only when it says so."""
    aliases: tuple[str, ...] = ()
    """Names clients may use for it: in `?ns=`, `Host`, and as first path component."""
    default: bool = False
    """Whether it gets the names that no alias claims. The only upstream always does."""
    credentials: Literal["docker-config"] | CredentialSettings | None = None
    """A user name and password, or "docker-config" for what `docker login` has written."""
    auth_realms: tuple[str, ...] = ()
    """Origins of token services that may get the credentials, beside the upstream's own and its siblings."""
    missing_status: tuple[Status, ...] | None = None
    """Statuses that mean "does not exist"; 404 always does. Docker Hub's default is [401, 404]."""
    blobs: Literal["stream"] = "stream"
    """How blobs are served."""
    connections: int = Field(default=100, ge=1, le=10_000)
    """Connections at most, for documents and for blobs each."""
    timeouts: TimeoutSettings = Field(default_factory=TimeoutSettings)
    """Time limits."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    insecure_skip_verify: bool = False
    """Whether any certificate will do. Nobody should need this."""

    @property
    def is_docker_hub(self) -> bool:
        """Whether this is Docker Hub, under any of its names."""
        return self.url.host in DOCKER_HUB

    @property
    def missing(self) -> tuple[int, ...]:
        """Statuses that mean "does not exist". Docker Hub says 401 of a repository that doesn't."""
        if self.missing_status is not None:
            return self.missing_status
        return (401, 404) if self.is_docker_hub else (404,)

    def names(self, *, alone: bool) -> Names:
        """Return all that this upstream answers to."""
        words = {self.name, self.url.host_port_subcomponent, *self.aliases}
        if self.is_docker_hub or words & DOCKER_HUB:
            words |= DOCKER_HUB
        return Names(self.name, frozenset(word.lower() for word in words), default=self.default or alone)


class SourceSettings(_Section):
    """One image that a rule merges."""

    image: TemplateText
    """Its name, with {repository}, {namespace}, {name} and {tag} of the virtual name."""
    platform: PlatformText | None = None
    """What it is for, as an annotation; without it the image's config says."""
    upstream: str = ""
    """Where it is; without it, where the virtual name is."""


class RuleSettings(_Section):
    """What virtual repositories are made of. Either `sources`, `conventions` or `template`."""

    match: str = Field(min_length=1)
    """Glob over the repository: * stays within a component, ** crosses slashes."""
    upstream: str = ""
    """Only names on this upstream; without it, on any."""
    sources: tuple[SourceSettings, ...] = ()
    """The images, in the order of their precedence."""
    conventions: tuple[ConventionName, ...] = ()
    """Naming conventions to try, in this order."""
    template: str = ""
    """manifest-tool's: an image name with ARCH, OS and VARIANT, filled for each of `platforms`."""
    platforms: tuple[PlatformText, ...] = ()
    """What conventions look for, or what `template` is filled with."""
    base: Base = Base.PASSTHROUGH
    """What an image at the virtual name itself means."""
    require: tuple[PlatformText, ...] = ()
    """Platforms without which the index is not complete."""
    on_partial: OnPartial = OnPartial.SERVE
    """What is answered when it isn't."""
    trust: Trust = Trust.AUTO
    """Whose word on the platform counts."""
    attestations: Attestations = Attestations.KEEP
    """What becomes of attestations."""
    default_platform: PlatformText = Platform("linux", "amd64")
    """The one child for clients that accept no index."""

    def rule(self, name: str) -> Rule:
        """Return the rule this describes."""
        return Rule(
            name=name,
            match=self.match,
            upstream=self.upstream,
            sources=tuple(self._sources()),
            conventions=self.conventions,
            platforms=self.platforms if self.conventions else (),
            base=self.base,
            require=self.require,
            on_partial=self.on_partial,
            trust=self.trust,
            attestations=self.attestations,
            default_platform=self.default_platform,
        )

    def _sources(self) -> Iterator[SourceTemplate]:
        for source in self.sources:
            yield SourceTemplate(source.image, source.platform, source.upstream)
        for platform in self.platforms if self.template else ():
            yield SourceTemplate(manifest_tool(self.template, platform), platform)


class CacheSettings(_Section):
    """What is remembered, and how long."""

    dir: Path = Field(default_factory=lambda: platformdirs.user_cache_path("manifuse"))
    """Where manifests, configs and tags are kept."""
    memory: Size = 64 << 20
    """Bytes of them kept in memory."""
    tag_ttl: Duration = 60.0
    """Within it a tag is answered without asking."""
    stale_while_revalidate: Duration = 600.0
    """After that, how long it is answered at once and asked for behind."""
    stale_if_error: Duration = 86_400.0
    """How long the last good answer stands in for no answer."""
    stale_if_refused: Duration = 300.0
    """How long it stands in for a refusal."""
    negative_ttl: Duration = 10.0
    """How long a tag that doesn't exist isn't asked for again."""

    @property
    def freshness(self) -> Freshness:
        """Return the limits as one value."""
        return Freshness(
            tag_ttl=self.tag_ttl,
            stale_while_revalidate=self.stale_while_revalidate,
            stale_if_error=self.stale_if_error,
            stale_if_refused=self.stale_if_refused,
            negative_ttl=self.negative_ttl,
        )


class Settings(BaseSettings):
    """The whole configuration. Every key is also an environment variable: `MANIFUSE_CACHE__DIR`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        validate_default=False,  # defaults are values, not the text they are written as
        env_prefix="MANIFUSE_",
        env_nested_delimiter="__",
        title="manifuse.toml",
    )

    listen: Listen = ("127.0.0.1", 5080)
    """Address of the registry API; port 0 means a free one."""
    admin_listen: Listen = ("127.0.0.1", 5081)
    """Address of /healthz, /readyz, /metrics and /explain."""
    workers: int = Field(default=1, ge=1, le=1)
    """Processes."""
    request_budget: Duration = 10.0
    """Within it a client gets response headers, whatever the upstreams do."""
    drain: Duration = 25.0
    """How long requests in flight may go on when the service stops."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Events less important than this are not logged. Requests are logged at info."""
    upstream: tuple[UpstreamSettings, ...] = ()
    """The registries behind the proxy."""
    rule: tuple[RuleSettings, ...] = ()
    """The first rule whose match fits a repository is used. Without any, the default conventions hold."""
    cache: CacheSettings = Field(default_factory=CacheSettings)
    """What is remembered, and how long."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `load` has put together: file and environment are read there, once."""
        return (init_settings,)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, or the default conventions where none is written."""
        return tuple(each.rule(f"rule[{n}]") for n, each in enumerate(self.rule)) or (default_rule(),)

    @property
    def names(self) -> tuple[Names, ...]:
        """What each upstream answers to."""
        return tuple(each.names(alone=len(self.upstream) == 1) for each in self.upstream)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration: where, and what was expected."""

    where: str
    key: str
    expected: str

    def __str__(self) -> str:
        """Write it as one line."""
        return f"{self.where}: {self.key}: {self.expected}" if self.key else f"{self.where}: {self.expected}"


class SettingsInvalid(Exception):
    """The configuration can't be used; all problems are there."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class _AsWritten(GenerateJsonSchema):
    """A schema whose defaults are the text that people write, not the values it is parsed into."""

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        """Describe a key with a default."""
        described = super().default_schema(schema)
        if described.get("type") == "string" and "default" in described:
            described["default"] = _written(described["default"])
        return described


def _written(value: object) -> object:
    match value:
        case float():
            units = reversed(_SECONDS.items())
            number, unit = next(((value / size, unit) for unit, size in units if value >= 2 * size), (value, "s"))
            return f"{number:g}{unit}"  # 60s rather than 1m
        case int():
            number, unit = next((value // size, unit) for unit, size in reversed(_BYTES.items()) if not value % size)
            return f"{number}{unit}"
        case [host, port]:
            return f"{host}:{port}"
        case {"os": os, "architecture": architecture}:
            return f"{os}/{architecture}"
        case _:
            return value


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **Settings.model_json_schema(schema_generator=_AsWritten)}


def load(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read a configuration file, the environment over it, and *overrides* (a command's flags) over both.

    Raises:
        SettingsInvalid: With every problem of every key.
    """
    where = str(path) if path else "configuration"
    document = _merged(_merged(_read(path), _environment()), overrides or {})
    problems = [Problem(where, key, expected) for key, expected in _contradictions(document)]
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        found = [_problem(where, dict(each)) for each in error.errors(include_url=False, include_input=False)]
        raise SettingsInvalid(dict.fromkeys([*found, *problems])) from None
    if problems:
        raise SettingsInvalid(problems)
    return settings


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsInvalid([Problem(str(path), "", f"the file can't be read: {error.strerror}")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid([Problem(str(path), "", f"this is not TOML: {error}")]) from None


def _environment() -> dict[str, Any]:
    """Read the variables. Unknown ones are left alone: Kubernetes sets MANIFUSE_PORT where a Service has our name."""
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise SettingsInvalid([Problem("environment", "", f"JSON was expected: {error}")]) from None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay *above* over *below*, section by section; lists are replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(under, value) if both and isinstance(under, Mapping) else value
    return merged


def _problem(where: str, error: dict[str, Any]) -> Problem:
    """Say where in the file a value is wrong and what was expected; never repeat the value, it may be a secret."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"] if not _is_type(part))
    expected = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        expected = "there is no such key"
    elif error["type"] == "missing":
        expected = "this key is missing"
    return Problem(where, key.removeprefix("."), expected[:1].lower() + expected[1:])


def _is_type(part: object) -> bool:
    """Pydantic puts the branch of a union into the path; people have no such key."""
    return isinstance(part, str) and (part.startswith("literal[") or part.endswith("Settings"))


def _contradictions(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find what no single key shows. Works on the raw document, so that it is told beside wrong types."""
    upstreams = _tables(document, "upstream")
    names = [str(upstream.get("name")) for _, upstream in upstreams]
    yield from _clashing_names(upstreams)
    if sum(upstream.get("default") is True for _, upstream in upstreams) > 1:
        yield "upstream", "at most one upstream can be the default"
    for key, upstream in upstreams:
        credentials = upstream.get("credentials")
        if isinstance(credentials, Mapping) and ("password" in credentials) == ("password_file" in credentials):
            yield f"{key}.credentials", "either password or password_file was expected"
    for key, rule in _tables(document, "rule"):
        yield from _rule_contradictions(key, rule, names)


def _clashing_names(upstreams: list[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str]]:
    taken: dict[str, str] = {}
    for key, upstream in upstreams:
        aliases = upstream.get("aliases")
        words = [str(upstream.get("name")), *(aliases if isinstance(aliases, list | tuple) else ())]
        for word in dict.fromkeys(str(word).lower() for word in words):
            if word in taken:
                yield key, f"the name {word!r} is taken by {taken[word]}"
            taken.setdefault(word, key)


def _rule_contradictions(key: str, rule: Mapping[str, Any], names: list[str]) -> Iterator[tuple[str, str]]:
    ways = [way for way in ("sources", "conventions", "template") if rule.get(way)]
    if len(ways) > 1:
        yield key, f"either sources, conventions or template was expected, not {' and '.join(ways)}"
    if rule.get("template") and not rule.get("platforms"):
        yield f"{key}.platforms", "template needs the platforms to fill it with"
    if rule.get("platforms") and "sources" in ways:
        yield f"{key}.platforms", "sources have a platform each; platforms goes with conventions or template"
    if isinstance(rule.get("template"), str) and isinstance(rule.get("platforms"), list | tuple):
        yield from _bad_fillings(key, rule)
    places = [(key, rule), *_tables(rule, "sources", key)]
    for place, table in places:
        named = table.get("upstream")
        if named and named not in names:
            yield f"{place}.upstream", f"the name of an upstream was expected: {', '.join(names) or 'there is none'}"


def _bad_fillings(key: str, rule: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not any(word in rule["template"] for word in ("ARCH", "OS", "VARIANT")) and len(rule["platforms"]) > 1:
        yield f"{key}.template", "ARCH, OS or VARIANT was expected in it, else every platform is the same image"
    for platform in rule["platforms"]:
        try:
            manifest_tool(rule["template"], Platform.parse(str(platform)))
        except ValueError as error:
            yield f"{key}.template", str(error)
            return


def _tables(document: Mapping[str, Any], name: str, prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Return the tables of an array with their key paths; what isn't one is another check's business."""
    values = document.get(name)
    start = f"{prefix}." if prefix else ""
    listed = values if isinstance(values, list | tuple) else []
    return [(f"{start}{name}[{n}]", value) for n, value in enumerate(listed) if isinstance(value, Mapping)]
