"""The keys of the configuration: frozen sections, whose docstrings are their documentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, SecretStr, Tag
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from proxy.merge.freshness import Freshness
from proxy.merge.route import Names
from proxy.merge.rule import (
    Attestations,
    Base,
    Coherence,
    OnPartial,
    Rule,
    SourceTemplate,
    Trust,
    default_rule,
    passthrough_rule,
)
from proxy.merge.template import manifest_tool
from proxy.oci.platform import Platform
from proxy.oci.reference import DOCKER_HUB
from proxy.settings.access import AccessSettings
from proxy.settings.section import Section
from proxy.settings.text import (
    NAME,
    ConventionName,
    Duration,
    Listen,
    NetworkText,
    PlatformText,
    Rate,
    RegistryUrl,
    RepositoryGlob,
    Size,
    Status,
    TemplateText,
    Ttl,
    Workers,
    written,
)


class CredentialSettings(Section):
    """Who we are to an upstream: a user name with a password, an identity token, or who knows."""

    match: RepositoryGlob = "**"
    """Glob over the repository, as the registry calls it; the first that fits counts."""
    username: str = ""
    """The user name."""
    password: SecretStr | None = None
    """The password itself; better kept in a file."""
    password_file: Path | None = None
    """A file that holds the password alone; read again when it changes."""
    password_env: str | None = Field(default=None, min_length=1)
    """The environment variable that holds the password; read at the start."""
    identity_token: SecretStr | None = None
    """An OAuth2 refresh token, which is exchanged for tokens; better kept in a file."""
    identity_token_file: Path | None = None
    """A file that holds the refresh token alone; read again when it changes."""
    docker_config: Path | None = None
    """A docker `config.json`, or a mounted `.dockerconfigjson` of Kubernetes; read again when it changes."""
    helper: str | None = Field(default=None, pattern=f"^{NAME}$")
    """A credential helper, such as "ecr-login" for docker-credential-ecr-login."""
    helper_timeout: Duration = 10.0
    """How long a credential helper may take."""
    helper_lifetime: Duration = 300.0
    """How long its answer counts before it is asked again."""


def _way(value: object) -> str | None:
    """Return which of the three ways to write credentials this is, so that only its own problems are told."""
    match value:
        case str():
            return "literal[word]"
        case Mapping() | CredentialSettings():
            return "CredentialSettings"
        case list() | tuple():
            return "tuple[tables]"
        case _:
            return None


_Credentials = Annotated[
    Annotated[Literal["docker-config", "client"], Tag("literal[word]")]
    | Annotated[CredentialSettings, Tag("CredentialSettings")]
    | Annotated[tuple[CredentialSettings, ...], Tag("tuple[tables]")],
    Discriminator(
        _way,
        custom_error_type="credentials",
        custom_error_message='"docker-config", "client", a table or an array of tables was expected',
    ),
]


class TimeoutSettings(Section):
    """Time limits of requests to an upstream."""

    connect: Duration = 5.0
    """For TCP and TLS."""
    header: Duration = 8.0
    """From a request to its response headers."""
    total: Duration = 30.0
    """For a whole manifest, config, token or list."""
    idle: Duration = 60.0
    """Between two reads of a blob."""


class UpstreamSettings(Section):
    """A registry behind the proxy."""

    name: str = Field(pattern=f"^{NAME}$")
    """What rules, metrics and logs call it; also an alias."""
    url: RegistryUrl
    """Its address; plain http only when it says so."""
    aliases: tuple[str, ...] = ()
    """Names clients may use for it: in `?ns=`, `Host`, and as first path component."""
    default: bool = False
    """Whether it gets the names that no alias claims. The only upstream always does."""
    credentials: _Credentials | None = None
    """Who we are there; several by repository; "docker-config": from `docker login`; "client": each client."""
    auth_realms: tuple[str, ...] = ()
    """Origins of token services that may get the credentials, beside the upstream's own and its siblings."""
    redirect_hosts: tuple[str, ...] = ()
    """Hosts or origins that redirects may lead to although they are on private addresses."""
    missing_status: tuple[Status, ...] | None = None
    """Statuses that mean "does not exist"; 404 always does. Docker Hub's default is [401, 404]."""
    blobs: Literal["stream", "redirect", "cache"] = "stream"
    """How blobs are served: passed through, by sending clients where they are, or from disk once they were fetched."""
    push: bool = False
    """Whether clients may push to it and delete from it, through the proxy and with its credentials."""
    connections: int = Field(default=100, ge=1, le=10_000)
    """Connections at most, for documents and for blobs each."""
    retries: int = Field(default=2, ge=0, le=5)
    """How often a request without an answer is sent again, within the time limit for headers."""
    breaker: int = Field(default=5, ge=0, le=1000)
    """Requests in a row without an answer after which it is left alone for a while; 0 for never."""
    timeouts: TimeoutSettings = Field(default_factory=TimeoutSettings)
    """Time limits."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    client_certificate: Path | None = None
    """The certificate that we show, with those that signed it, as PEM."""
    client_key: Path | None = None
    """Its key, where the certificate's file doesn't hold it."""
    insecure_skip_verify: bool = False
    """Whether any certificate will do. Nobody should need this."""

    @property
    def credential_tables(self) -> tuple[tuple[str, CredentialSettings], ...]:
        """Return what `credentials` says as tables, each with its key below the upstream's."""
        match self.credentials:
            case CredentialSettings() as one:
                return (("credentials", one),)
            case tuple() as several:
                return tuple((f"credentials[{n}]", each) for n, each in enumerate(several))
            case _:
                return ()

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


class SourceSettings(Section):
    """One image that a rule merges."""

    image: TemplateText
    """Its name, with {repository}, {namespace}, {name} and {tag} of the virtual name."""
    platform: PlatformText | None = None
    """What it is for, as an annotation; without it the image's config says."""
    upstream: str = ""
    """Where it is; without it, where the virtual name is."""


class TagSettings(Section):
    """How long answers for some tags of a rule may be reused."""

    match: str = Field(min_length=1)
    """Glob over the tag, such as "v*"."""
    tag_ttl: Ttl | None = None
    """Within it a tag is answered without asking; "forever" is for tags that never move."""
    stale_while_revalidate: Duration | None = None
    """After that, how long it is answered at once and asked for behind."""
    stale_if_error: Duration | None = None
    """How long the last good answer stands in for no answer."""
    stale_if_refused: Duration | None = None
    """How long it stands in for a refusal."""
    negative_ttl: Duration | None = None
    """How long a tag that doesn't exist isn't asked for again."""


class RuleSettings(Section):
    """What virtual repositories are made of. Either `sources`, `conventions` or `template`."""

    match: RepositoryGlob
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
    hide_sources: bool = False
    """Whether the sources' names are left out of catalogs and lists of tags; they can be pulled all the same."""
    coherence: Coherence = Coherence.OFF
    """What makes sources one release: nothing, their revision or version labels, or that each has changed."""
    hold_max: Duration = 900.0
    """How long an older index is served instead of an incomplete or incoherent one."""
    tag_ttl: Ttl | None = None
    """Within it a tag is answered without asking. Overrides the cache's; "forever" for tags that never move."""
    stale_while_revalidate: Duration | None = None
    """After `tag_ttl`, how long a tag is answered at once and asked for behind."""
    stale_if_error: Duration | None = None
    """How long the last good answer stands in for no answer."""
    stale_if_refused: Duration | None = None
    """How long it stands in for a refusal."""
    negative_ttl: Duration | None = None
    """How long a tag that doesn't exist isn't asked for again."""
    tags: tuple[TagSettings, ...] = ()
    """The same for tags that a glob matches; the first that fits counts."""

    def rule(self, name: str, freshness: Freshness) -> Rule:
        """Return the rule this describes; what it says nothing about has *freshness*."""
        mine = _overridden(freshness, self)
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
            hide_sources=self.hide_sources,
            coherence=self.coherence,
            hold_max=self.hold_max,
            freshness=mine,
            tag_freshness=tuple((tags.match, _overridden(mine, tags)) for tags in self.tags),
        )

    def _sources(self) -> Iterator[SourceTemplate]:
        for source in self.sources:
            yield SourceTemplate(source.image, source.platform, source.upstream)
        for platform in self.platforms if self.template else ():
            yield SourceTemplate(manifest_tool(self.template, platform), platform)


def _cache_folder() -> Path:
    """Return the user's, or where one is a number alone, as in containers, that of a service."""
    import platformdirs  # noqa: PLC0415 - memory that a service which is told its folder doesn't need

    try:
        return platformdirs.user_cache_path("manifuse")
    except RuntimeError:
        return Path("/var/lib/manifuse")


class CacheSettings(Section):
    """What is remembered, and how long."""

    dir: Path = Field(default_factory=_cache_folder)
    """Where manifests, configs and tags are kept."""
    memory: Size = 64 << 20
    """Bytes of them kept in memory."""
    tag_ttl: Ttl = 60.0
    """Within it a tag is answered without asking."""
    stale_while_revalidate: Duration = 600.0
    """After that, how long it is answered at once and asked for behind."""
    stale_if_error: Duration = 86_400.0
    """How long the last good answer stands in for no answer."""
    stale_if_refused: Duration = 300.0
    """How long it stands in for a refusal."""
    negative_ttl: Duration = 10.0
    """How long a tag that doesn't exist isn't asked for again."""
    history: Duration = Field(default=30 * 86_400.0, ge=3600.0)
    """How long after its last use whatever was served can still be pulled by digest; an hour at least."""
    blobs_max: Size = 20 << 30
    """Bytes of blobs kept on disk, of upstreams with `blobs = "cache"`."""

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


class HooksSettings(Section):
    """Events from registries, posted to /hooks/<upstream> on the admin port."""

    secret: SecretStr | None = None
    """What the Authorization header of a notification must hold; without it none is taken."""
    secret_file: Path | None = None
    """A file that holds the secret alone; read at the start."""


class TlsSettings(Section):
    """TLS on the registry port, from version 1.2 on. All files are read again when they change."""

    certificate: Path | None = None
    """PEM file with the certificate, and behind it those between it and the root. Without one the port speaks http."""
    key: Path | None = None
    """PEM file with its private key, without a password."""
    client_ca: Path | None = None
    """PEM file with the authorities that may have issued clients' certificates."""
    client_auth: Literal["none", "optional", "required"] = "none"
    """Whether clients show a certificate; one that is shown has to be valid."""
    admin: bool = False
    """Whether the admin port speaks TLS, too. Probes and Prometheus have to know, then."""


class LimitSettings(Section):
    """What clients may take of the registry port. Each worker counts for itself."""

    connections: int = Field(default=10_000, ge=1)
    """Connections at most. One more is answered with 503, or closed."""
    connections_per_client: int = Field(default=5000, ge=0)
    """Those of one address, IPv6: of one /64; 0 for any number. One more is answered with 429, or closed."""
    requests: int = Field(default=5000, ge=1)
    """Requests in flight at most, downloads among them. One more is answered with 503."""
    requests_per_client: int = Field(default=2500, ge=0)
    """Those of one address; 0 for any number. One more is answered with 429."""
    streams_per_client: int = Field(default=0, ge=0)
    """Blobs on their way from registries to one address, not from disk; 0 for any number. One more is 429."""
    rate: Rate | None = None
    """Requests that one address may send, such as "100/s" or "3000/m". What comes faster is answered with 429."""
    burst: int = Field(default=200, ge=1)
    """Requests that it may send at once before `rate` counts."""
    upload_max: Size = 20 << 30
    """Bytes of one upload. A larger one is answered with 413."""
    manifests_max: Size = Field(default=256 << 20, ge=16 << 20)
    """Bytes of all manifests that are being pushed, 16MiB at least; of one address half. More is answered with 503."""
    header_max: Size = Field(default=64 << 10, ge=4 << 10)
    """Bytes of a request's head, 4KiB at least. A larger one is answered with 431."""
    header_fields: int = Field(default=128, ge=32, le=10_000)
    """Header fields of a request. One with more is answered with 431."""
    head_timeout: Duration = Field(default=30.0, gt=0)
    """For a request's head to arrive, and for a TLS handshake; then 408."""
    idle_timeout: Duration = Field(default=150.0, gt=0)
    """How long a connection on which nothing is asked stays open: longer than clients keep one, so that they close."""
    body_timeout: Duration = Field(default=60.0, gt=0)
    """For each 16 KiB of a request's body to arrive, or its end; then 408."""
    send_timeout: Duration = Field(default=60.0, gt=0)
    """How long a client may take nothing of an answer; then its connection is closed."""


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
    """Address of /healthz, /readyz, /metrics and /explain. Off loopback all but the first two want a token."""
    admin_token: SecretStr | None = None
    """What the admin port's pages want as `Authorization: Bearer …`, all but /healthz and /readyz."""
    admin_token_file: Path | None = None
    """A file that holds the token alone; read again when it changes."""
    workers: Workers = 1
    """Processes that share the port and the cache folder; "auto" for one for each core within a CPU limit."""
    request_budget: Duration = 10.0
    """Within it a client gets response headers, whatever the upstreams do; a login has as much before it."""
    drain: Duration = 25.0
    """How long requests in flight may go on when the service stops."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Events less important than this are not logged. Requests are logged at info."""
    trusted_proxies: tuple[NetworkText, ...] = ()
    """Networks of reverse proxies in front whose `X-Forwarded-Host`, `-Proto` and `-For` count."""
    hot: bool = True
    """Whether requests for manifests that repeat byte for byte are answered without being read again."""
    watch: bool = False
    """Whether a changed configuration file is loaded by itself; SIGHUP loads it always."""
    upstream: tuple[UpstreamSettings, ...] = ()
    """The registries behind the proxy."""
    rule: tuple[RuleSettings, ...] = ()
    """The first rule whose match fits a repository is used. Without any, the default conventions hold."""
    cache: CacheSettings = Field(default_factory=CacheSettings)
    """What is remembered, and how long."""
    access: AccessSettings = Field(default_factory=AccessSettings)
    """Who may come in."""
    hooks: HooksSettings = Field(default_factory=HooksSettings)
    """Events from registries, which shorten the wait for the next check."""
    tls: TlsSettings = Field(default_factory=TlsSettings)
    """TLS on the registry port."""
    limits: LimitSettings = Field(default_factory=LimitSettings)
    """What clients may take of the registry port."""

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
        freshness = self.cache.freshness
        written = tuple(each.rule(f"rule[{n}]", freshness) for n, each in enumerate(self.rule))
        return written or (default_rule(freshness),)

    @property
    def rules_in_force(self) -> tuple[Rule, ...]:
        """The rules, and behind them the one that passes everything else through."""
        return (*self.rules, passthrough_rule(self.cache.freshness))

    @property
    def names(self) -> tuple[Names, ...]:
        """What each upstream answers to."""
        return tuple(each.names(alone=len(self.upstream) == 1) for each in self.upstream)


def _overridden(freshness: Freshness, section: RuleSettings | TagSettings) -> Freshness:
    """Return *freshness* with what *section* says otherwise."""
    said = {field.name: getattr(section, field.name) for field in fields(freshness)}
    return replace(freshness, **{name: value for name, value in said.items() if value is not None})


class _AsWritten(GenerateJsonSchema):
    """A schema whose defaults are the text that people write, not the values it is parsed into."""

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        """Describe a key with a default."""
        described = super().default_schema(schema)
        if described.get("type") == "string" and "default" in described:
            described["default"] = written(described["default"])
        return described


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **Settings.model_json_schema(schema_generator=_AsWritten)}
