"""From a file, the environment and a command's flags to settings, with every problem reported at once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from proxy.merge.template import manifest_tool
from proxy.oci.platform import Platform
from proxy.settings.keys import Settings


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
