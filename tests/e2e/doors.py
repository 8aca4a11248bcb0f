"""What is private: two users with different rights, images that one of them may not see, doors that let them in."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from e2e import manifuse, wire
from e2e.manifuse import Proxy
from e2e.peers import Account, Registry
from e2e.tokenserver import ISSUER, Rights, TokenService
from images import layer

ALICE: Final = Account("alice", "wonder:land")
BOB: Final = Account("bob", "builder")
WRONG: Final = Account("alice", "builder")  # somebody else's password
STRANGER: Final = Account("mallory", "builder")
OURS: Final = Account("manifuse", "of the proxy itself")  # where upstreams are asked with credentials of its own
ACCOUNTS: Final = (ALICE, BOB, OURS)

TEAM: Final = "team/app"
SECRET: Final = "secret/app"
PULL: Final = frozenset({"pull"})
PUSH: Final = frozenset({"pull", "push"})
RIGHTS: Final[Mapping[str, Rights]] = {
    ALICE.username: {"team/*": PUSH, "secret/*": PUSH},
    BOB.username: {"team/*": PULL, "bob/*": PUSH},
    OURS.username: {"*": PUSH},
}
"""What each may do. Whoever isn't named may do nothing."""

_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"


def may_pull(account: Account | None, repository: str) -> bool:
    """Whether they have the right password, and the right to pull."""
    space = repository.partition("/")[0]
    return account in (ALICE, BOB) and f"{space}/*" in RIGHTS[account.username]


def push_images(registry: Registry) -> None:
    """Put images of two architectures under either name into a registry that anyone may write to."""
    for repository in (TEAM, SECRET):
        for word, architecture in (("x86", "amd64"), ("arm", "arm64")):
            _push_image(registry.address, f"{repository}-{word}", architecture)


def _push_image(registry: str, repository: str, architecture: str) -> None:
    packed, diff_id = layer(repository)
    rootfs = {"type": "layers", "diff_ids": [str(diff_id)]}
    config = json.dumps({"os": "linux", "architecture": architecture, "rootfs": rootfs, "config": {}}).encode()
    kinds = {"application/vnd.docker.container.image.v1+json": config}
    kinds["application/vnd.docker.image.rootfs.diff.tar.gzip"] = packed
    parts = [
        {"mediaType": kind, "digest": wire.push_blob(registry, repository, blob), "size": len(blob)}
        for kind, blob in kinds.items()
    ]
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": parts[0], "layers": parts[1:]}
    wire.push_manifest(registry, repository, "1.0", json.dumps(manifest).encode(), _MANIFEST)


@dataclass(frozen=True)
class Wares:
    """All that can be pulled of one repository.

    Attributes:
        things: Bytes by path, which those who may have them get.
        index: The digest of the merged index.
        referrers: The path of what refers to the index, and the bytes.
        layer: The digest of a layer of the image for ARM.
    """

    things: Mapping[str, bytes]
    referrers: tuple[str, bytes]
    index: str
    layer: str

    @property
    def digests(self) -> Mapping[str, bytes]:
        """What is asked for by a digest."""
        return {path: body for path, body in self.things.items() if "sha256:" in path}


def taken(proxy: Proxy, registry: Registry, repository: str) -> Wares:
    """Take all that can be pulled of a repository, once through a proxy that is open to everybody."""
    index = wire.manifest(proxy.address, repository, "1.0")
    _refer(registry.address, repository, index)
    paths = ["manifests/1.0", f"manifests/{index.digest}", "tags/list"]
    blobs: list[str] = []
    for child in index.entries:
        manifest = json.loads(wire.manifest(proxy.address, repository, child).body)
        blobs += [part["digest"] for part in (manifest["config"], *manifest["layers"])]
        paths.append(f"manifests/{child}")
    paths += [f"blobs/{blob}" for blob in dict.fromkeys(blobs)]
    full = [f"/v2/{repository}/{path}" for path in paths]
    full += [f"/v2/{repository}-{word}/manifests/1.0" for word in ("x86", "arm")]
    visitor = Visitor(proxy)
    referrers = f"/v2/{repository}/referrers/{index.digest}"
    things = {path: visitor.get(path).body for path in full}
    return Wares(things, (referrers, visitor.get(referrers).body), index.digest, blobs[-1])


def _refer(registry: str, repository: str, subject: wire.Answer) -> None:
    """Push something that refers to a manifest, and the list of it that registries without the API have as a tag."""
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2}
    empty["digest"] = wire.push_blob(registry, repository, b"{}")
    about = {"mediaType": subject.headers["Content-Type"], "digest": subject.digest, "size": len(subject.body)}
    note = {"schemaVersion": 2, "mediaType": _OCI_MANIFEST, "config": empty, "layers": [empty], "subject": about}
    body = json.dumps(note).encode()
    wire.push_manifest(registry, repository, "note", body, _OCI_MANIFEST)
    pushed = wire.manifest(registry, repository, "note")
    entry = {"mediaType": _OCI_MANIFEST, "digest": pushed.digest, "size": len(body), "artifactType": "e2e/note"}
    index = {"schemaVersion": 2, "mediaType": _OCI_INDEX, "manifests": [entry]}
    wire.push_manifest(registry, repository, subject.digest.replace(":", "-"), json.dumps(index).encode(), _OCI_INDEX)


@dataclass
class Visitor:
    """A client as plain as can be: it shows its password, or gets a token with it, as a challenge says.

    It keeps what has let it in, so that it sends the same head again when it asks again.
    """

    proxy: Proxy
    account: Account | None = None
    _kept: dict[str, str] = field(default_factory=dict)

    def get(
        self, path: str, method: str = "GET", body: bytes | None = None, also: str = "", kind: str = ""
    ) -> wire.Answer:
        """Ask for a path.

        Args:
            also: A scope that a token has to have besides the one of the challenge.
            kind: The `Content-Type` of the body.
        """
        what = f"{method} {path}"
        told = {"Content-Type": kind} if kind else {}
        answer = self._ask(method, path, body, told, self._kept.get(what))
        challenge = answer.headers["WWW-Authenticate"]
        if answer.status != 401 or self.account is None or what in self._kept:
            return answer
        authorization = self._authorization(challenge, also)
        if authorization is None:
            return answer
        self._kept[what] = authorization
        return self._ask(method, path, body, told, authorization)

    def _ask(
        self, method: str, path: str, body: bytes | None, told: Mapping[str, str], authorization: str | None
    ) -> wire.Answer:
        headers = {"Accept": wire.INDEXES, **told} | ({"Authorization": authorization} if authorization else {})
        return wire.request(method, self.proxy.url + path, body, headers)

    def _authorization(self, challenge: str, also: str) -> str | None:
        assert self.account
        login = f"{self.account.username}:{self.account.password}"
        basic = f"Basic {base64.b64encode(login.encode()).decode()}"
        if challenge.startswith("Basic "):
            return basic
        said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = [("service", said["service"]), ("scope", said.get("scope", "")), ("scope", also)]
        answer = wire.request("GET", f"{said['realm']}?{urlencode(query)}", None, {"Authorization": basic})
        return f"Bearer {json.loads(answer.body)['token']}" if answer.status == 200 else None


@dataclass(frozen=True)
class Private:
    """Private registries with the same content, and those who know who may have it.

    Attributes:
        basic: Lets in whoever is in `passwords`, and lets them do everything.
        bearer: Wants tokens of `tokens`.
        data: The folder that the registries share.
        wares: What can be pulled, by repository.
    """

    basic: Registry
    bearer: Registry
    tokens: TokenService
    passwords: Path
    data: Path
    wares: Mapping[str, Wares]


MODES: Final = ("htpasswd", "token", "upstream")
DOORS: Final = (*MODES, "upstream-basic")
"""Modes, and what is behind them: of the last two, one has a registry that wants tokens, the other passwords."""

ALIAS: Final = "registry.example"
"""What a mirror's clients call the registry behind a door."""

# A tag with one source that bob may read, and one that he may not; everything else is merged by a convention.
RULES: Final = f"""
[[rule]]
match = "team/mixed"
sources = [
  {{ image = "{TEAM}-x86:{{tag}}", platform = "linux/amd64" }},
  {{ image = "{SECRET}-arm:{{tag}}", platform = "linux/arm64" }},
]
[[rule]]
match = "**"
conventions = ["repository-suffix"]
"""


@dataclass(frozen=True)
class Door:
    """A proxy in front of a private registry, and how it lets clients in."""

    name: str
    proxy: Proxy

    def lets(self, account: Account | None, repository: str) -> bool:
        """Whether they may pull. Whoever is in its file of passwords may pull everything from such a registry."""
        return may_pull(account, TEAM if self.name == "upstream-basic" else repository)

    @property
    def refusal(self) -> int:
        """The status for somebody who is known and may not: with tokens, another one might help."""
        return 401 if self.name == "token" else 403


@contextmanager
def opened(
    private: Private,
    name: str,
    folder: Path,
    *,
    registry: Registry | None = None,
    ttl: str = "60s",
    blobs: str = "stream",
    retries: int = 2,
) -> Iterator[Door]:
    """Run a proxy of the door's mode while the block lasts.

    Args:
        registry: What it is put in front of, where that isn't the usual one.
        ttl: How long a permission counts that the registry has granted.
    """
    mode = name.partition("-")[0]
    behind = registry or (private.basic if name in ("htpasswd", "upstream-basic") else private.bearer)
    more = f'auth_realms = ["{private.tokens.url}"]\nblobs = "{blobs}"\nretries = {retries}\n'
    if mode == "upstream":
        more += 'credentials = "client"\n'
    password_file = None if mode == "upstream" else folder / "password"
    text = manifuse.upstream(behind, aliases=(ALIAS,), push=True, password_file=password_file, more=more)
    access = f'[access]\nmode = "{mode}"\nttl = "{ttl}"\n{_admitting(private, mode)}'
    with manifuse.serving(text + RULES + access, folder) as proxy:
        yield Door(name, proxy)


def _admitting(private: Private, mode: str) -> str:
    """Write what else a mode has to be told."""
    if mode == "token":
        keys = f'keys = ["{private.tokens.certificate}"]'
        return f'[access.token]\nrealm = "{private.tokens.realm}"\nservice = "manifuse"\nissuer = "{ISSUER}"\n{keys}\n'
    if mode == "upstream":
        return ""
    lines = [f'htpasswd = "{private.passwords}"']
    for user in (ALICE.username, BOB.username):
        for repositories, actions in RIGHTS[user].items():
            space = repositories.replace("*", "**")
            lines += ["[[access.allow]]", f'users = ["{user}"]', f'repositories = ["{space}"]']
            lines.append(f"actions = {sorted(actions)}")
    return "\n".join(lines) + "\n"
