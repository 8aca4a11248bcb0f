"""From a file, the environment and a command's flags to settings, with every problem reported at once."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from proxy.merge.template import manifest_tool
from proxy.oci.platform import Platform
from proxy.settings import access
from proxy.settings.keys import Settings

# How a table of credentials says who we are; each has one.
_WAYS: Final = (
    "password",
    "password_file",
    "password_env",
    "identity_token",
    "identity_token_file",
    "docker_config",
    "helper",
)

# What Kubernetes sets in every pod for a Service whose name begins with ours.
_KUBERNETES: Final = re.compile(r"_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_\w+)?)$")

_ENVIRONMENT: Final = "environment"  # where a value is from

_FIELD: Final = re.compile(r'field "(\w+)"')  # where pydantic says whose variable it can't read

_INDEX: Final = re.compile(r"\[\d+\]")

# pydantic's words for these are about Python.
_EXPECTED: Final = {
    "bool_parsing": "true or false was expected",
    "bool_type": "true or false was expected",
    "extra_forbidden": "there is no such key",
    "int_from_float": "a whole number was expected",
    "int_parsing": "a whole number was expected",
    "int_type": "a whole number was expected",
    "missing": "this key is missing",
    "model_attributes_type": "a table was expected",
    "model_type": "a table was expected",
    "path_type": "a path was expected",
    "string_pattern_mismatch": "letters, digits, . _ and - were expected, a letter or a digit in front",  # text.NAME
    "string_type": "a string was expected",
    "tuple_type": "a list was expected",
}

_Layers = Sequence[tuple[str, Mapping[str, Any]]]  # what they are called, and what they say; the later ones win


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


def load(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read a configuration file, the environment over it, and *overrides* (a command's flags) over both.

    Raises:
        SettingsInvalid: With every problem of every key.
    """
    where = str(path) if path else "configuration"
    layers = ((where, _read(path)), (_ENVIRONMENT, _environment()), ("command line", overrides or {}))
    document: dict[str, Any] = {}
    for _, layer in layers:
        document = _merged(document, layer)
    problems = [Problem(_where(layers, key), key, expected) for key, expected in _contradictions(document)]
    problems += [Problem(_ENVIRONMENT, name, expected) for name, expected in _misspelt(os.environ)]
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        found = [_problem(layers, dict(each)) for each in error.errors(include_url=False)]
        raise SettingsInvalid(dict.fromkeys([*found, *problems])) from None
    if _is_one_address(settings.listen, settings.admin_listen):
        expected = "another address than that of listen was expected"
        problems.append(Problem(_where(layers, "admin_listen"), "admin_listen", expected))
    if problems:
        raise SettingsInvalid(problems)
    return settings


def _is_one_address(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether nobody could tell two ports apart: workers would take turns in answering for one and the other."""
    same_host = one[0] == other[0] or any(_is_everywhere(host) for host, _ in (one, other))
    return same_host and one[1] == other[1] != 0


def _is_everywhere(host: str) -> bool:
    try:
        return not host or ip_address(host).is_unspecified
    except ValueError:
        return False  # a name


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsInvalid([Problem(str(path), "", f"the file can't be read: {error.strerror}")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid([Problem(str(path), "", f"this is not TOML: {error}")]) from None
    except ValueError:  # after its subclasses above: what is left is that Python reads no integer so long
        problem = "this is not TOML: an integer has too many digits"
        raise SettingsInvalid([Problem(str(path), "", problem)]) from None
    except RecursionError:
        raise SettingsInvalid([Problem(str(path), "", "lists within lists are nested too deep")]) from None


def _environment() -> dict[str, Any]:
    """Read the variables. Unknown ones are left alone: Kubernetes sets MANIFUSE_PORT where a Service has our name."""
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:
        field = _FIELD.search(str(error))
        raise SettingsInvalid([Problem(_ENVIRONMENT, field[1] if field else "", "JSON was expected")]) from None


def _misspelt(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Find variables that were meant for us and say nothing: whoever wrote them believes that they count."""
    prefix = Settings.model_config["env_prefix"]
    keys = {_folded(section, key): f"{prefix}{section}__{key}".upper() for section, key in _keys()}
    sections = {section.upper() for section in Settings.model_fields}
    for name in sorted(names):
        if not name.upper().startswith(prefix) or _KUBERNETES.search(name.upper()):
            continue
        section, nested, _ = name.upper().removeprefix(prefix).partition("__")
        if nested and section not in sections:
            yield name, "there is no such section"
        elif not nested and section in keys:
            yield name, f"{keys[section]} was expected, with two underscores behind the section"


def _keys() -> Iterator[tuple[str, str]]:
    """Yield section and key of everything that stands in a section."""
    for section, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for key in field.annotation.model_fields:
                yield section, key


def _folded(section: str, key: str) -> str:
    return f"{section}_{key}".upper()


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay *above* over *below*, section by section; lists are replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(under, value) if both and isinstance(under, Mapping) else value
    return merged


def _where(layers: _Layers, key: str) -> str:
    """Return which of *layers* says what is at *key*: the last that does, or the first where none does."""
    return next((name for name, layer in reversed(layers) if _says(layer, key)), layers[0][0])


def _says(layer: Any, key: str) -> bool:
    for word in key.partition("[")[0].split("."):  # a list is of one layer, with all that is in it
        if not isinstance(layer, Mapping):
            return True
        if word not in layer:
            return False
        layer = layer[word]
    return True


def _problem(layers: _Layers, error: dict[str, Any]) -> Problem:
    """Say where a value is wrong and what was expected; never repeat the value, it may be a secret."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"] if not _is_type(part))
    key = "".join(parts).removeprefix(".")
    expected = _EXPECTED.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
    where = _where(layers, key)
    if error["type"] == "tuple_type" and isinstance(error["input"], Mapping):
        header = _INDEX.sub("", key)
        way = ", as JSON: [{…}]" if where == _ENVIRONMENT else f": [[{header}]], not [{header}]"
        expected = f"a list of tables was expected{way}"
    return Problem(where, key, expected[:1].lower() + expected[1:])


def _is_type(part: object) -> bool:
    """Pydantic puts the branch of a union into the path; people have no such key."""
    return isinstance(part, str) and (part.startswith(("literal[", "tuple[")) or part.endswith("Settings"))


def _contradictions(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find what no single key shows. Works on the raw document, so that it is told beside wrong types."""
    upstreams = _tables(document, "upstream")
    names = [name for _, upstream in upstreams if isinstance(name := upstream.get("name"), str)]
    yield from _clashing_names(upstreams)
    if sum(upstream.get("default") is True for _, upstream in upstreams) > 1:
        yield "upstream", "at most one upstream can be the default"
    for key, upstream in upstreams:
        yield from _credential_contradictions(key, upstream)
        if "client_key" in upstream and "client_certificate" not in upstream:
            yield f"{key}.client_key", "a key needs the certificate it belongs to: client_certificate"
    yield from access.contradictions(document, upstreams)
    for key, rule in _tables(document, "rule"):
        yield from _rule_contradictions(key, rule, names)
    if document.get("admin_token") is not None and document.get("admin_token_file") is not None:
        yield "admin_token", "either admin_token or admin_token_file was expected"
    yield from _tls_contradictions(document.get("tls"))


def _tls_contradictions(section: object) -> Iterator[tuple[str, str]]:
    tls = section if isinstance(section, Mapping) else {}
    certificate, key, authority = (tls.get(name) is not None for name in ("certificate", "key", "client_ca"))
    verifying = tls.get("client_auth", "none") != "none"
    if certificate != key:
        yield f"tls.{'key' if certificate else 'certificate'}", "this key is missing: certificate and key go together"
    if not certificate and not key and (authority or verifying or tls.get("admin") is True):
        yield "tls.certificate", "this key is missing: without it there is no TLS"
    if verifying and not authority:
        yield "tls.client_ca", "this key is missing: client_auth needs the authorities that count"
    if authority and not verifying:
        yield "tls.client_auth", '"optional" or "required" was expected: client_ca alone checks nobody'


def _credential_contradictions(key: str, upstream: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find tables that say no way to a credential, or more than one."""
    credentials = upstream.get("credentials")
    alone = [(f"{key}.credentials", credentials)] if isinstance(credentials, Mapping) else []
    for place, table in [*alone, *_tables(upstream, "credentials", key)]:
        ways = [way for way in _WAYS if way in table]
        if len(ways) != 1:
            yield place, f"exactly one of {', '.join(_WAYS)} was expected"
        elif ways[0].startswith("password") and not table.get("username"):
            yield f"{place}.username", "a password needs a user name"
        elif ways[0] in ("docker_config", "helper") and "username" in table:
            yield f"{place}.username", f"{ways[0]} knows the user name"
        for name in ("helper_timeout", "helper_lifetime"):
            if name in table and not {"docker_config", "helper"} & set(ways):
                yield f"{place}.{name}", "there is no helper here"


def _clashing_names(upstreams: list[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str]]:
    taken: dict[str, str] = {}
    for key, upstream in upstreams:
        aliases = upstream.get("aliases")
        words = [upstream.get("name"), *(aliases if isinstance(aliases, list | tuple) else ())]
        for word in dict.fromkeys(word.lower() for word in words if isinstance(word, str)):
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
