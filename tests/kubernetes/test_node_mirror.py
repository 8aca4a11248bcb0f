"""What the node mirror writes on its node."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from dockerfile import told
from pods import REGISTRY, Container, put, the
from proxy.merge.route import Address, route
from proxy.oci.reference import Repository
from proxy.settings.keys import Settings


def container(name: str) -> Container:
    """Return an init container of the node mirror."""
    return the("node-mirror").containers[name]


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """The folder in which containerd looks, empty."""
    folder = tmp_path / "etc/containerd/certs.d"
    folder.mkdir(parents=True)
    return folder


def tell(root: Path, registries: str | None = None) -> str:
    """Run the init container that tells containerd, and return what it printed."""
    teller = container("tell-containerd")
    if registries is not None:
        teller = Container({**teller.spec, "env": [{"name": "REGISTRIES", "value": registries}]}, teller.pod)
    done = teller.run(root)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return all that is in a folder."""
    return {str(each.relative_to(folder)): each.read_bytes() if each.is_file() else None for each in folder.rglob("*")}


@pytest.mark.parametrize("pod", [the("node-mirror")], ids=["node-mirror"])
def test_containerd_is_told_of_the_mirror(certs: Path, tmp_path: Path, settings: Settings) -> None:
    """A fresh node gets a hosts.toml that leads to where the mirror listens, and to the registry after it."""
    printed = tell(tmp_path)
    written = tomllib.loads((certs / REGISTRY / "hosts.toml").read_text())

    assert written == {
        "host": {
            "http://{}:{}".format(*settings.listen): {"capabilities": ["pull", "resolve"], "dial_timeout": "500ms"}
        }
    }
    assert set(snapshot(certs)) == {REGISTRY, f"{REGISTRY}/hosts.toml"}
    assert printed.strip().endswith(f"{REGISTRY}/hosts.toml is written")
    assert route(settings.names, Address(host="127.0.0.1:5080", namespaces=(REGISTRY,)), Repository("team/app")) == (
        "registry",
        "team/app",
    )


def test_a_second_run_changes_nothing(certs: Path, tmp_path: Path) -> None:
    """Each start of the pod does it again; what an older version wrote is written anew, what was dropped stays."""
    tell(tmp_path, f"{REGISTRY} dropped.example:5000")
    first = snapshot(certs)
    mine = certs / REGISTRY / "hosts.toml"
    mine.write_text(mine.read_text().splitlines()[0] + "\nserver = 'https://of-an-older-version.example'\n")
    tell(tmp_path, REGISTRY)

    assert snapshot(certs) == first
    assert f"{certs / 'dropped.example:5000' / 'hosts.toml'}" in map(str, certs.rglob("*"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("hosts.toml", 'server = "https://elsewhere.example"\n'), ("hosts.toml", ""), ("ca.crt", "a certificate\n")],
)
def test_what_somebody_else_wrote_stays(certs: Path, tmp_path: Path, name: str, content: str) -> None:
    """A folder that isn't ours is left as it is, certificates included, which a hosts.toml would put out of force."""
    put(certs / REGISTRY, {name: content.encode()})
    before = snapshot(certs)
    printed = tell(tmp_path, f"{REGISTRY} other.example")
    after = snapshot(certs)

    assert f"{REGISTRY} is somebody else's, and stays as it is" in printed
    assert {name: each for name, each in after.items() if not name.startswith("other.example")} == before
    assert "other.example/hosts.toml" in after


def test_a_run_that_was_killed_is_gone_on_with(certs: Path, tmp_path: Path) -> None:
    """What it left, half a file or an empty folder, keeps nobody from writing."""
    (certs / REGISTRY).mkdir()
    (certs / ".manifuse").write_text("# Written by")
    tell(tmp_path)

    assert set(snapshot(certs)) == {REGISTRY, f"{REGISTRY}/hosts.toml"}
    tomllib.loads((certs / REGISTRY / "hosts.toml").read_text())


def test_no_registry_is_no_file(certs: Path, tmp_path: Path) -> None:
    """Without any name nothing is written."""
    tell(tmp_path, "")

    assert snapshot(certs) == {}


def test_a_folder_that_can_t_be_written_to_stops_the_pod(tmp_path: Path) -> None:
    """The mirror isn't taken for well where containerd knows nothing of it."""
    assert container("tell-containerd").run(tmp_path / "nowhere").returncode != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_cache_is_given_to_who_writes_it(tmp_path: Path) -> None:
    """A folder that the kubelet has made is the image's user's afterwards, with the one power that this takes."""
    folder = tmp_path / "var/lib/manifuse"
    folder.mkdir(parents=True)
    for _ in range(2):
        done = container("own-cache").run(tmp_path)

        assert (done.returncode, done.stderr) == (0, "")
        assert "{0.st_uid}:{0.st_gid}".format(folder.stat()) == told("USER")[0].value
