"""What stays the same from process to process, and how a process ends."""

import hashlib
import http.client
import os
from contextlib import closing
from pathlib import Path

import pytest

from e2e import wire
from e2e.images import PAIRS
from e2e.manifuse import GRACE, Proxy, StartProxy, upstream
from e2e.peers import Registry, eventually
from patience import HANGING

BLOB = 64 * 2**20  # more than what the kernel keeps for a reader who has stopped reading


@pytest.mark.parametrize("repository", PAIRS)
def test_two_proxies_agree_on_the_digest(
    repository: str, proxy: Proxy, registry: Registry, start_proxy: StartProxy
) -> None:
    """Proxies that share nothing but the sources give one name the same bytes."""
    one = wire.manifest(proxy.address, repository, "1.0")
    other = wire.manifest(start_proxy(upstream(registry)).address, repository, "1.0")

    assert one.status == other.status == 200
    assert one.body == other.body


def test_a_restart_changes_nothing(
    registry: Registry, docker_images: None, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """After a restart the tag has the same bytes, with the old cache and with an empty one."""
    first = start_proxy(upstream(registry), tmp_path / "cache")
    before = wire.manifest(first.address, "kimoqi/alpine", "1.0")
    first.stop()
    kept, emptied = (start_proxy(upstream(registry), tmp_path / name) for name in ("cache", "new"))

    assert before.status == 200
    assert wire.manifest(kept.address, "kimoqi/alpine", "1.0").body == before.body
    assert wire.manifest(emptied.address, "kimoqi/alpine", "1.0").body == before.body


def test_a_digest_survives_a_restart(
    registry: Registry, docker_images: None, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """An index that was advertised once can be pulled by its digest from the next process, before its tag is."""
    first = start_proxy(upstream(registry), tmp_path / "cache")
    digest = wire.manifest(first.address, "kimoqi/alpine", "1.0").digest
    first.stop()
    again = start_proxy(upstream(registry), tmp_path / "cache")
    served = wire.manifest(again.address, "kimoqi/alpine", digest)

    assert served.status == 200
    assert served.digest == digest


def test_a_download_outlives_sigterm(registry: Registry, docker_images: None, start_proxy: StartProxy) -> None:
    """A blob that is under way at SIGTERM arrives whole, nobody new is let in, and the exit status is 0."""
    digest = wire.push_blob(registry.address, "kimoqi/alpine-x86", os.urandom(BLOB))
    proxy = start_proxy(upstream(registry))
    with closing(http.client.HTTPConnection(proxy.address, timeout=HANGING)) as connection:
        connection.request("GET", f"/v2/kimoqi/alpine/blobs/{digest}")
        response = connection.getresponse()
        received = hashlib.sha256(response.read(2**20))
        proxy.daemon.process.terminate()
        refused = eventually(lambda: not wire.answers(f"{proxy.url}/v2/", 200))
        running = proxy.daemon.process.poll() is None
        received.update(response.read())

    assert refused
    assert running
    assert f"sha256:{received.hexdigest()}" == digest
    assert proxy.daemon.process.wait(GRACE) == 0
