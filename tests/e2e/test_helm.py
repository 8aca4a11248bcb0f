"""Helm pushes and pulls charts, which are no images and never merged."""

import hashlib
from pathlib import Path

import pytest

from e2e.manifuse import Proxy
from e2e.peers import Client, Registry

CHART = """\
apiVersion: v2
name: {name}
version: 1.2.3
"""


def packed(helm: Client, folder: Path, name: str) -> Path:
    """Make a chart."""
    (folder / name / "templates").mkdir(parents=True)
    (folder / name / "Chart.yaml").write_text(CHART.format(name=name))
    helm("package", f"--destination={folder}", f"{folder}/{name}")
    return folder / f"{name}-1.2.3.tgz"


def pulled(helm: Client, address: str, name: str, folder: Path) -> bytes:
    """Pull a chart and return its bytes."""
    folder.mkdir()
    helm("pull", "--plain-http", f"--destination={folder}", "--version=1.2.3", f"oci://{address}/charts/{name}")
    return (folder / f"{name}-1.2.3.tgz").read_bytes()


@pytest.mark.client("helm", "pull")
def test_helm_pulls_a_chart(proxy: Proxy, registry: Registry, helm: Client, tmp_path: Path) -> None:
    """`helm pull` through the proxy brings the chart that was pushed to the registry."""
    chart = packed(helm, tmp_path, "plain")
    helm("push", "--plain-http", str(chart), f"oci://{registry.address}/charts")

    assert pulled(helm, proxy.address, "plain", tmp_path / "pulled") == chart.read_bytes()


@pytest.mark.client("helm", "show chart")
def test_helm_finds_the_newest_version(proxy: Proxy, registry: Registry, helm: Client, tmp_path: Path) -> None:
    """`helm show chart` without a version asks for the list of tags, and finds it."""
    chart = packed(helm, tmp_path, "newest")
    helm("push", "--plain-http", str(chart), f"oci://{registry.address}/charts")

    assert "version: 1.2.3" in helm("show", "chart", "--plain-http", f"oci://{proxy.address}/charts/newest")


@pytest.mark.client("helm", "push")
def test_helm_pushes_through_the_proxy(open_proxy: Proxy, helm: Client, tmp_path: Path) -> None:
    """`helm push` into the proxy, and `helm pull` from it, is the chart again."""
    chart = packed(helm, tmp_path, "pushed")
    helm("push", "--plain-http", str(chart), f"oci://{open_proxy.address}/charts")
    back = pulled(helm, open_proxy.address, "pushed", tmp_path / "pulled")

    assert hashlib.sha256(back).hexdigest() == hashlib.sha256(chart.read_bytes()).hexdigest()
