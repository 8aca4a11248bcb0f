"""Platforms in GOARCH words: parse, normalize, compare, order.

The aliases are those of containerd's `platforms` package; what is emitted differs from it on purpose.
containers/image (podman, CRI-O, skopeo) and go-containerregistry compare strings without normalizing, so
amd64 carries no variant, arm64 carries `v8`, and arm always carries one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

_OS: Final = {"macos": "darwin"}
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "i386": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_VARIANTS: Final = {
    ("amd64", "v1"): "",
    ("arm64", ""): "v8",
    ("arm64", "8"): "v8",
    ("arm64", "v8.0"): "v8",
    ("arm64", "9"): "v9",
    ("arm64", "9.0"): "v9",
    ("arm64", "v9.0"): "v9",
    ("arm", ""): "v7",
    ("arm", "5"): "v5",
    ("arm", "6"): "v6",
    ("arm", "7"): "v7",
    ("arm", "8"): "v8",
}
_MAX_PARTS: Final = 3
_MAX_DIGITS: Final = 18  # of a number in a version; Python refuses to read one of thousands of digits
# Clients take the first match, and old dockers chose ARM variants by list order: law 5 of the design.
_FIRST: Final = {
    ("linux", "amd64"): 0,
    ("linux", "arm64"): 1,
    ("linux", "arm"): 2,
}
UNKNOWN: Final = "unknown"  # os and architecture of an attestation entry


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on. Empty strings mean: not said."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/architecture[/variant]`, as in `--platform`. Raises `ValueError` with what was expected."""
        parts = text.split("/")
        if not 2 <= len(parts) <= _MAX_PARTS or not all(part.strip() for part in parts):
            raise ValueError(
                f"{text!r} is not a platform: os/architecture or os/architecture/variant, as in linux/arm64"
            )
        return cls(parts[0], parts[1], "".join(parts[2:]))

    def __str__(self) -> str:
        """Write `os/architecture[/variant]`, with the OS version in parentheses where there is one."""
        text = "/".join(part for part in (self.os, self.architecture, self.variant) if part)
        return f"{text} ({self.os_version})" if self.os_version else text

    @property
    def is_unknown(self) -> bool:
        """Whether this is the `unknown/unknown` of an attestation."""
        return UNKNOWN in (self.os, self.architecture)

    @property
    def key(self) -> tuple[str, str, str, str, tuple[str, ...]]:
        """What makes two entries of an index rivals for the same clients."""
        return (self.os, self.architecture, self.variant, self.os_version, self.os_features)


def normalize(platform: Platform) -> Platform:
    """Return *platform* in the words clients match on. Idempotent."""
    os = platform.os.strip().lower()
    spelled = platform.architecture.strip().lower()
    architecture, forced = _ARCHITECTURES.get(spelled, (spelled, None))
    variant = platform.variant.strip().lower() if forced is None else forced
    return Platform(
        os=_OS.get(os, os),
        architecture=architecture,
        variant=_VARIANTS.get((architecture, variant), variant),
        os_version=platform.os_version,
        os_features=tuple(sorted(set(platform.os_features))),
    )


def covers(wanted: Platform, offered: Platform) -> bool:
    """Say whether *offered* is one of the platforms that *wanted* names.

    A part that *wanted* leaves out matches anything: `windows/amd64` covers every `os.version`, and
    `linux/arm` every variant. *wanted* is compared as written, so that `linux/arm` doesn't mean only v7.
    """
    norm, have = normalize(wanted), normalize(offered)
    if (norm.os, norm.architecture) != (have.os, have.architecture):
        return False
    if (wanted.variant or _fixes_variant(wanted)) and norm.variant != have.variant:
        return False
    return not wanted.os_version or wanted.os_version == offered.os_version


def complete(wanted: Platform, known: Platform) -> Platform:
    """Fill what *wanted* leaves out from *known*, where both speak of the same kind of machine.

    `docker manifest annotate` does the same: it sets what was given and keeps the rest of the config's words.
    """
    norm, have = normalize(wanted), normalize(known)
    same_machine = (norm.os, norm.architecture) == (have.os, have.architecture)
    return normalize(
        replace(
            wanted,
            variant=wanted.variant or (known.variant if same_machine and not _fixes_variant(wanted) else ""),
            os_version=wanted.os_version or (known.os_version if norm.os == have.os else ""),
            os_features=wanted.os_features or (known.os_features if norm.os == have.os else ()),
        )
    )


def rank(platform: Platform) -> tuple[object, ...]:
    """Sort key for the entries of an index: law 5 of the design."""
    first = _FIRST.get((platform.os, platform.architecture), len(_FIRST))
    return (
        first,
        platform.os,
        platform.architecture,
        _variant_rank(platform),
        (*(-part for part in _version(platform.os_version)), 1),  # 1: behind what is longer, none at the very end
        platform.os_version,
        platform.os_features,
    )


def _fixes_variant(platform: Platform) -> bool:
    """`armhf` and `armel` are names of a variant, too."""
    return _ARCHITECTURES.get(platform.architecture.strip().lower(), ("", None))[1] is not None


def _variant_rank(platform: Platform) -> tuple[int, str]:
    """Newest ARM first (v7, v6, v5); baseline first everywhere else ("" before v2 before v3)."""
    number = _number(platform.variant.removeprefix("v"))
    return (-number if platform.architecture == "arm" else number, platform.variant)


def _version(text: str) -> tuple[int, ...]:
    """Split a Windows version such as 10.0.17763.6189 into numbers; what isn't a number counts as 0."""
    return tuple(_number(part) for part in text.split(".")) if text else ()


def _number(text: str) -> int:
    """Read a number; what isn't one, or has more digits than any version, counts as 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 0
