"""Real registries, daemons and clients, started once per session, and the proxy in front of them.

A fixture whose peer isn't installed skips the tests that ask for it; with the peer named in `MANIFUSE_PEERS`
they fail instead. See `.ci/run`.
"""

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e import clients, gopeers, images, peers, tokenserver
from e2e.doors import ACCOUNTS, DOORS, OURS, RIGHTS, SECRET, TEAM, Door, Private, opened, push_images, taken
from e2e.gopeers import Cosign
from e2e.manifuse import Proxy, StartProxy, serving, upstream
from e2e.peers import Account, Client, Registry, Workshop
from e2e.tokenserver import TokenService, token_auth


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, so that `pytest -m e2e` finds it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


OUTCOMES = pytest.StashKey[clients.Outcomes]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep what the clients' tests have shown."""
    config.stash[OUTCOMES] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what a test of a client's operation has come to."""
    report = yield
    marker = item.get_closest_marker("client")
    if marker and (report.when == "call" or not report.passed):
        client, operation = marker.args
        item.config.stash[OUTCOMES].setdefault((client, operation), set()).add(report.outcome)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table of clients into the page that `make clients` names."""
    page = os.environ.get("MANIFUSE_CLIENTS")
    if page:
        clients.write(Path(page), session.config.stash[OUTCOMES])


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    """Folders for the peers' state."""
    with peers.workshop("e2e-") as make:
        yield make


@pytest.fixture(scope="session")
def registry(workshop: Workshop) -> Iterator[Registry]:
    """A registry that anyone may read and write."""
    with peers.registry(workshop("registry")) as started:
        yield started


@pytest.fixture(scope="session")
def private_registry(workshop: Workshop) -> Iterator[Registry]:
    """A registry with Basic authentication, and nothing in it."""
    with peers.registry(workshop("private"), Account("kimoqi", "correct horse")) as started:
        yield started


@pytest.fixture(scope="session")
def tokens(workshop: Workshop) -> Iterator[TokenService]:
    """A token service."""
    service = TokenService(ACCOUNTS, dict(RIGHTS), workshop("tokens") / "certificate.pem")
    with tokenserver.serving(service):
        yield service


@pytest.fixture(scope="session")
def private(tokens: TokenService, workshop: Workshop) -> Iterator[Private]:
    """Two private registries, one that wants passwords and one that wants tokens, with the same content."""
    data = workshop("private-data")
    passwords = peers.htpasswd(data / "htpasswd", *ACCOUNTS)
    auth = f"{{htpasswd: {{realm: e2e, path: {passwords}}}}}"
    with (
        peers.registry(workshop("plain"), data=data) as plain,
        peers.registry(workshop("basic"), OURS, auth=auth, data=data) as basic,
        peers.registry(workshop("bearer"), OURS, auth=token_auth(tokens), data=data) as bearer,
    ):
        push_images(plain)
        with serving(upstream(plain), workshop("taken")) as proxy:
            wares = {repository: taken(proxy, plain, repository) for repository in (TEAM, SECRET)}
        yield Private(basic, bearer, tokens, passwords, data, wares)


@pytest.fixture(scope="session")
def doors(private: Private, workshop: Workshop) -> Iterator[Mapping[str, Door]]:
    """A proxy of each mode, which takes pushes, in front of a private registry."""
    with ExitStack() as running:
        yield {name: running.enter_context(opened(private, name, workshop(name))) for name in DOORS}


@pytest.fixture(scope="session")
def docker_daemon(workshop: Workshop) -> Iterator[Client]:
    """A `docker` whose daemon is fresh."""
    with peers.dockerd(workshop("dockerd")) as docker:
        yield docker


@pytest.fixture
def docker(docker_daemon: Client) -> Client:
    """A `docker` whose daemon has no image."""
    images.forget(docker_daemon)
    return docker_daemon


@pytest.fixture(scope="session")
def containerd(workshop: Workshop) -> Iterator[Client]:
    """A `ctr` whose containerd is fresh."""
    with peers.containerd(workshop("containerd")) as ctr:
        yield ctr


@pytest.fixture
def ctr(containerd: Client) -> Iterator[Client]:
    """A `ctr` whose containerd has no image when the test is over."""
    yield containerd
    for name in containerd("images", "list", "--quiet").splitlines():
        containerd("images", "remove", "--sync", name)


@pytest.fixture
def podman(workshop: Workshop) -> Client:
    """A `podman` that has no image."""
    return peers.podman(workshop("podman"))


@pytest.fixture
def buildah(workshop: Workshop) -> Client:
    """A `buildah` that has no image."""
    return peers.buildah(workshop("buildah"))


@pytest.fixture(scope="session")
def skopeo(workshop: Workshop) -> Client:
    """A `skopeo`, which keeps nothing."""
    return peers.skopeo(workshop("skopeo"))


@pytest.fixture(scope="session")
def crane(workshop: Workshop) -> Client:
    """A `crane`, which keeps nothing."""
    return gopeers.crane(workshop("crane"))


@pytest.fixture(scope="session")
def regctl(workshop: Workshop) -> Client:
    """A `regctl`, which keeps nothing."""
    return gopeers.regctl(workshop("regctl"))


@pytest.fixture(scope="session")
def oras(workshop: Workshop) -> Client:
    """An `oras`, which keeps nothing."""
    return gopeers.oras(workshop("oras"))


@pytest.fixture(scope="session")
def helm(workshop: Workshop) -> Client:
    """A `helm` that knows no repository."""
    return gopeers.helm(workshop("helm"))


@pytest.fixture(scope="session")
def buildx(workshop: Workshop) -> Client:
    """A `buildx` without a builder."""
    return gopeers.buildx(workshop("buildx"))


@pytest.fixture(scope="session")
def cosign(workshop: Workshop) -> Cosign:
    """A `cosign` with a pair of keys."""
    return gopeers.cosign(workshop("cosign"))


@pytest.fixture(scope="session", params=gopeers.ELSEWHERE)
def elsewhere(request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[Registry]:
    """Another registry, with nothing in it but what tests have copied there."""
    with gopeers.REGISTRIES[request.param](workshop("elsewhere")) as started:
        yield started


@pytest.fixture(scope="session")
def emulation() -> Iterator[None]:
    """This machine runs programs for aarch64."""
    with images.emulation():
        yield


@pytest.fixture(scope="session")
def docker_images(registry: Registry, docker_daemon: Client, workshop: Workshop) -> None:
    """The registry has the images built with docker."""
    images.push_with_docker(docker_daemon, registry, workshop("docker-build"))


@pytest.fixture(scope="session")
def oci_images(registry: Registry, workshop: Workshop) -> None:
    """The registry has the images built with buildah."""
    folder = workshop("buildah-build")
    images.push_with_buildah(peers.buildah(folder), registry, folder / "contexts")


@pytest.fixture(scope="session")
def proxy(registry: Registry, docker_images: None, oci_images: None, workshop: Workshop) -> Iterator[Proxy]:
    """A proxy in front of the registry, without a rule: the conventions have to do."""
    with serving(upstream(registry), workshop("proxy")) as started:
        yield started


@pytest.fixture(scope="session")
def open_proxy(registry: Registry, docker_images: None, oci_images: None, workshop: Workshop) -> Iterator[Proxy]:
    """A proxy in front of the registry that takes pushes."""
    with serving(upstream(registry, push=True), workshop("open")) as started:
        yield started


@pytest.fixture
def start_proxy(workshop: Workshop) -> Iterator[StartProxy]:
    """Starts proxies with configurations of the test's own."""
    with ExitStack() as running:

        def start(configuration: str, cache: Path | None = None) -> Proxy:
            return running.enter_context(serving(configuration, workshop("proxy"), cache))

        yield start
