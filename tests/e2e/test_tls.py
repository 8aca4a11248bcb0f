"""Clients over TLS, with a certificate that is renewed while they pull."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import Authority
from e2e.manifuse import Proxy, StartProxy, upstream
from e2e.peers import Client, ClientFailed, Registry, eventually

NAME = "kimoqi/oci:1.0"


class Secured:
    """A proxy that speaks TLS, and who has issued its certificate."""

    def __init__(self, start_proxy: StartProxy, registry: Registry, folder: Path) -> None:
        self._folder = folder
        certificate, key = self._issue()
        tls = f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
        self.proxy: Proxy = start_proxy(tls + upstream(registry))

    @property
    def trust(self) -> Path:
        """A folder with the authority's certificate, as clients like it."""
        return self._folder / "trust"

    @property
    def name(self) -> str:
        """What is pulled."""
        return f"{self.proxy.address}/{NAME}"

    def renew(self) -> None:
        """Let another authority issue another certificate, and wait until it is shown."""
        self._issue()
        log = self.proxy.daemon.log
        assert eventually(lambda: '"certificate loaded"' in log.read_text())

    def _issue(self) -> tuple[Path, Path]:
        authority = Authority()
        self.trust.mkdir(parents=True, exist_ok=True)
        (self.trust / "ca.crt").write_bytes(authority.pem)
        return authority.server().write(self._folder / "tls")


@pytest.fixture
def secured(start_proxy: StartProxy, registry: Registry, oci_images: None, tmp_path: Path) -> Secured:
    """A proxy that speaks TLS, in front of a registry that doesn't."""
    return Secured(start_proxy, registry, tmp_path)


@pytest.fixture
def known_to_docker(secured: Secured) -> Iterator[str]:
    """The proxy's address under which docker checks certificates, its authority being in `certs.d`.

    It checks none of 127.0.0.1, and none of any name that stands for it; 0.0.0.0 is the same place.
    """
    address = secured.proxy.address.replace("127.0.0.1", "0.0.0.0")
    folder = Path("/etc/docker/certs.d") / address
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(secured.trust, target_is_directory=True)
    yield address
    folder.unlink()


def test_docker_pulls_over_tls(secured: Secured, known_to_docker: str, docker: Client) -> None:
    """Before the renewal and after it; without the authority, nothing."""
    name = f"{known_to_docker}/{NAME}"
    docker("pull", "--platform=linux/amd64", name)
    secured.renew()
    docker("pull", "--platform=linux/arm64", name)
    shown = docker("image", "inspect", "--format", "{{.Architecture}}", name)
    (secured.trust / "ca.crt").unlink()
    with pytest.raises(ClientFailed, match="certificate"):
        docker("pull", name)

    assert shown == "arm64"


def test_podman_pulls_over_tls(secured: Secured, podman: Client, tmp_path: Path) -> None:
    """Before the renewal and after it; whoever doesn't know the authority gets nothing."""
    trust = f"--cert-dir={secured.trust}"
    podman("pull", trust, "--arch=amd64", secured.name)
    secured.renew()
    podman("pull", trust, "--arch=arm64", secured.name)
    (tmp_path / "nobody").mkdir()
    with pytest.raises(ClientFailed, match="certificate"):
        podman("pull", f"--cert-dir={tmp_path / 'nobody'}", secured.name)

    assert podman("image", "inspect", "--format", "{{.Architecture}}", secured.name) == "arm64"


def test_skopeo_copies_over_tls(secured: Secured, skopeo: Client, tmp_path: Path) -> None:
    """All platforms, before the renewal and after it."""
    for number in range(2):
        source = (f"--src-cert-dir={secured.trust}", f"docker://{secured.name}")
        skopeo("copy", "--all", "--preserve-digests", *source, f"dir:{tmp_path}/{number}")
        if not number:
            secured.renew()

    names = [sorted(path.name for path in (tmp_path / str(number)).iterdir()) for number in range(2)]
    assert names[0] == names[1]


def test_containerd_pulls_over_tls(secured: Secured, containerd: Client, tmp_path: Path) -> None:
    """`ctr images pull` with a `hosts.toml` that has the authority, before the renewal and after it."""
    hosts = tmp_path / "hosts" / secured.proxy.address
    hosts.mkdir(parents=True)
    url = f"https://{secured.proxy.address}"
    (hosts / "hosts.toml").write_text(f'server = "{url}"\n[host."{url}"]\nca = "{secured.trust}/ca.crt"\n')
    for architecture in ("amd64", "arm64"):
        if architecture == "arm64":
            secured.renew()
        options = ("--hosts-dir", str(hosts.parent), f"--platform=linux/{architecture}")
        containerd("images", "pull", *options, secured.name)
    listed = containerd("images", "list", "--quiet").splitlines()
    containerd("images", "remove", "--sync", secured.name)

    assert secured.name in listed
