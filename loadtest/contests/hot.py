"""What is asked for again and again: tags and digests that manifuse knows, against a static file of the same bytes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import bcrypt

from e2e import wire
from loadtest import cpu, sockets, wrk
from loadtest.bench import Bench, Run, alternate, busy, ratios, scores, watched
from loadtest.heads import Head, containerd, docker_cli, podman
from loadtest.images import RULE, VIRTUAL, push, release
from loadtest.peers import DISTRIBUTIONS, Missing, Peer
from loadtest.report import Row, summary

TAG = f"/v2/{VIRTUAL}/manifests/0"
PODMAN = podman().resolve.alive().to("", TAG)
QUIET = 'log_level = "warning"'
MANIFUSE, LOGGING, NGINX, CACHING = "manifuse", "manifuse, logging", "nginx", "nginx, open_file_cache"
COPYING = "nginx, sendfile off"
_FILES = "open_file_cache max=1000; open_file_cache_valid 60s;"
_COPIES = "sendfile off; tcp_nopush off;"  # a small file may be read and written faster

_LOGIN = "Basic " + b64encode(b"node:secret").decode()

_PAIR = 'manifuse with `log_level = "warning"`, nginx with `access_log off`: neither logs requests.'
_DEFAULT = "manifuse with its default log, every request at info into a file; nginx without any."


@dataclass(frozen=True, slots=True)
class Hot:
    """What everybody serves."""

    body: bytes
    media_type: str
    digest: str

    @property
    def files(self) -> dict[str, bytes]:
        """The same bytes by both paths."""
        return {TAG: self.body, f"/v2/{VIRTUAL}/manifests/{self.digest}": self.body}


@contextmanager
def everyone(
    bench: Bench, top: str = QUIET, more: Mapping[str, str] | None = None, *, logged: bool = False, login: str = ""
) -> Iterator[dict[str, Peer]]:
    """Run manifuse and nginx with the same bytes behind the same paths.

    Args:
        top: Lines of manifuse's configuration.
        more: Other nginxes, with lines of their configuration.
        login: The `Authorization` that manifuse wants.
    """
    yard = bench.yard
    with ExitStack() as stack:
        origin = stack.enter_context(yard.origin(1))
        ours = stack.enter_context(yard.manifuse(origin.address, top=top, rule=RULE))
        hot = served(ours, login)
        peers: dict[str, Peer] = {MANIFUSE: ours}
        peers[NGINX] = stack.enter_context(yard.nginx(hot.files, hot.media_type, logged=logged))
        for name, lines in (more or {}).items():
            peers[name] = stack.enter_context(yard.nginx(hot.files, hot.media_type, logged=logged, more=lines))
        if bench.plan.thorough and not logged:
            peers[LOGGING] = stack.enter_context(yard.manifuse(origin.address, rule=RULE))
            served(peers[LOGGING])
        for peer in peers.values():
            _check(peer, hot, login)
        yield peers


def served(peer: Peer, login: str = "") -> Hot:
    """Ask for the tag, so that it is known, and return what it is."""
    answer = wire.request("GET", peer.url + TAG, None, _headers(login))
    if answer.status != 200:
        raise wrk.Failed(f"{peer.address} answered {answer.status} to the tag: {answer.body!r}")
    return Hot(answer.body, str(answer.headers["Content-Type"]), answer.digest)


def _headers(login: str) -> dict[str, str]:
    return {"Accept": wire.INDEXES, **({"Authorization": login} if login else {})}


def _check(peer: Peer, hot: Hot, login: str) -> None:
    for path in hot.files:
        answer = wire.request("GET", peer.url + path, None, _headers(login))
        if (answer.status, answer.body, answer.headers["Content-Type"]) != (200, hot.body, hot.media_type):
            raise wrk.Failed(f"{peer.address} serves something else: {answer}")


def loading(bench: Bench, peer: Peer, heads: Sequence[Head], cores: Sequence[int] = ()) -> Callable[[], Run]:
    """Return a run of wrk that sends *heads* to *peer*; its score is requests a second."""
    mine = [head.to(peer.address, head.path) for head in heads]

    def load() -> float:
        where = cores or bench.cores.load
        return wrk.run(peer.address, mine, bench.yard.folder, where, seconds=bench.plan.seconds).rate

    return lambda: watched(peer.pid, load)


def heading(bench: Bench, peer: Peer, head: Head) -> Callable[[], Run]:
    """Return a run of our own load; its score is requests a second of the server's CPU time."""
    mine = head.to(peer.address, head.path)

    def load() -> float:
        before = cpu.seconds(peer.pid)
        rate = sockets.repeat(peer.address, mine, seconds=bench.plan.seconds)
        return rate * bench.plan.seconds / max(0.01, cpu.seconds(peer.pid) - before)

    return lambda: watched(peer.pid, load)


def details(runs: Mapping[str, list[Run]], unit: str = "requests/s") -> tuple[str, ...]:
    """Say what each contestant scored."""
    return tuple(
        f"{summary(name, scores(each), unit)}, {100 * busy(each):.0f} % of a core" for name, each in runs.items()
    )


def rows(runs: Mapping[str, list[Run]], what: str, limit: float, how: str) -> list[Row]:
    """Compare manifuse with nginx: when neither logs, and with manifuse as it is by default."""
    found = [
        Row(
            what=what,
            unit="x nginx",
            limit=limit,
            values=ratios(runs[MANIFUSE], runs[NGINX]),
            how=f"{how} {_PAIR}",
            details=details(runs),
        )
    ]
    if LOGGING in runs:
        values = ratios(runs[LOGGING], runs[NGINX])
        how = "The same runs. " + _DEFAULT
        found.append(Row(what=f"{what}; manifuse logging, nginx not", unit="x nginx", values=values, how=how))
    return found


def tag_get(bench: Bench) -> list[Row]:
    """Measure a tag with GET, the connection kept."""
    with ExitStack() as stack:
        copying = {COPYING: _COPIES} if bench.plan.thorough else {}
        peers = stack.enter_context(everyone(bench, more={CACHING: _FILES, **copying}))
        if bench.plan.thorough:
            peers |= _registries(bench, stack, peers[MANIFUSE])
        else:
            peers |= _registries(bench, stack, peers[MANIFUSE], ["docker-registry"])
        runs = alternate({name: loading(bench, peer, [PODMAN]) for name, peer in peers.items()}, bench.plan.repeats)
    how = "wrk, 32 connections, podman's recorded head without its `Connection: close`."
    found = rows(runs, "hot tag GET, keep-alive, identical heads, 1 worker", 1.0, how)
    for name in (CACHING, *copying):
        values = ratios(runs[MANIFUSE], runs[name])
        found.append(
            Row(what=f"the same, {name.replace(', ', ' with ')}", unit="x nginx", values=values, how="The same runs.")
        )
    old = DISTRIBUTIONS["docker-registry"]
    behind = "The same runs; the registry serves the list from its own disk, with its descriptors in memory."
    row = Row(what=f"the same, {old}", unit=f"x {old}", limit=40.0, how=behind)
    if old in runs:
        return [*found, replace(row, values=ratios(runs[MANIFUSE], runs[old]))]
    return [*found, replace(row, missing=f"no {old} (.ci/peers installs it)")]


def _registries(bench: Bench, stack: ExitStack, ours: Peer, commands: Sequence[str] = ()) -> dict[str, Peer]:
    """Start the registries that there are, with the list pushed to them."""
    found: dict[str, Peer] = {}
    for command in commands or (*DISTRIBUTIONS, "crane"):
        yard = bench.yard
        try:
            peer = stack.enter_context(yard.crane() if command == "crane" else yard.distribution(command))
        except Missing as missing:
            print(f"  left out: {missing}", flush=True)
            continue
        push(peer.address, release("0", 1, 200))
        if served(peer).digest != served(ours).digest:
            raise wrk.Failed(f"{command} has another list")
        found[DISTRIBUTIONS.get(command, command)] = peer
    return found


def tag_head(bench: Bench) -> list[Row]:
    """Measure a tag with HEAD."""
    head = containerd().resolve.to("", TAG)
    with everyone(bench) as peers:
        runs = alternate({name: heading(bench, peer, head) for name, peer in peers.items()}, bench.plan.repeats)
    how = (
        "A load of our own (sockets.py), as wrk can't read answers to HEAD: 32 connections, containerd's recorded "
        "head. Compared are requests a second of the server's CPU time, so that the load's own speed doesn't count."
    )
    return rows(runs, "hot tag HEAD, keep-alive", 1.0, how)


def digest_get(bench: Bench) -> list[Row]:
    """Measure an index by its digest."""
    with everyone(bench) as peers:
        digest = served(peers[MANIFUSE]).digest
        index = containerd().index or containerd().child
        head = index.to("", f"/v2/{VIRTUAL}/manifests/{digest}")
        runs = alternate({name: loading(bench, peer, [head]) for name, peer in peers.items()}, bench.plan.repeats)
    how = "wrk, 32 connections, containerd's recorded head."
    return rows(runs, "hot digest GET, keep-alive", 1.0, how)


def docker_alive(bench: Bench) -> list[Row]:
    """Measure shuffled header lines on connections that stay."""
    heads = [head.alive() for head in docker_cli().to("", TAG).shuffled()]
    with everyone(bench) as peers:
        runs = alternate({name: loading(bench, peer, heads) for name, peer in peers.items()}, bench.plan.repeats)
    how = f"wrk, 32 connections, docker's recorded head, its Accept lines in any of {len(heads)} orders at random."
    return rows(runs, "hot tag GET, docker's shuffled Accept lines, keep-alive", 0.9, how)


def docker_closing(bench: Bench) -> list[Row]:
    """Measure shuffled header lines, each request on a connection of its own."""
    heads = [head.closing() for head in docker_cli().to("", TAG).shuffled()]
    with everyone(bench) as peers:
        runs = alternate({name: loading(bench, peer, heads) for name, peer in peers.items()}, bench.plan.repeats)
    how = (
        f"wrk, 32 at a time, docker's recorded head, closing, its Accept lines in any of {len(heads)} orders at random."
    )
    return rows(runs, "hot tag GET, docker's shuffled Accept lines, a new connection each", 0.8, how)


def logged(bench: Bench) -> list[Row]:
    """Measure with everything on that operators have on."""
    head = replace(PODMAN, headers=(*PODMAN.headers, ("Authorization", _LOGIN)))
    users = bench.yard.place("users") / "htpasswd"
    users.write_bytes(b"node:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(10)) + b"\n")
    access = f'[access]\nmode = "htpasswd"\nhtpasswd = "{users}"\n'
    with everyone(bench, top=access, logged=True, login=_LOGIN) as peers:
        runs = alternate({name: loading(bench, peer, [head]) for name, peer in peers.items()}, bench.plan.repeats)
    return [
        Row(
            what="hot tag GET with metrics, access log and authentication",
            unit="x nginx",
            limit=0.6,
            values=ratios(runs[MANIFUSE], runs[NGINX]),
            how="wrk as for the hot tag, with a user name and password in the head, which manifuse checks against a "
            "file of bcrypt's hashes; both log every request to a file, manifuse at info, its default.",
            details=details(runs),
        )
    ]
