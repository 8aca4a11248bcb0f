"""Oras fetches, pushes and attaches artifacts."""

import json
from pathlib import Path

import pytest

from e2e import wire
from e2e.images import PAIRS
from e2e.manifuse import Proxy
from e2e.peers import Client, Registry

NOTE = "application/vnd.example.note"


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to push; oras takes names relative to the folder that it runs in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("built on a Tuesday\n")
    return tmp_path / "note.txt"


def attached(oras: Client, name: str) -> list[str]:
    """Return the digests of all notes that oras discovers."""
    found = json.loads(oras("discover", "--format=json", f"--artifact-type={NOTE}", name))
    return [each["digest"] for each in found.get("referrers") or found.get("manifests") or []]


def digest_of(printed: str) -> str:
    """Return the digest of what oras has just pushed or attached."""
    return str(json.loads(printed)["digest"])


@pytest.mark.client("oras", "manifest fetch")
@pytest.mark.parametrize("repository", PAIRS)
def test_oras_fetches_the_index(repository: str, proxy: Proxy, oras: Client) -> None:
    """`oras manifest fetch` prints the index to the byte."""
    served = wire.manifest(proxy.address, repository, "1.0")

    assert oras("manifest", "fetch", f"{proxy.address}/{repository}:1.0").encode() == served.body


@pytest.mark.client("oras", "manifest fetch --platform")
def test_oras_fetches_a_platform(proxy: Proxy, oras: Client) -> None:
    """`oras manifest fetch --platform` prints the child of that platform."""
    served = wire.manifest(proxy.address, "kimoqi/oci", "1.0")
    name = f"{proxy.address}/kimoqi/oci:1.0"
    found = json.loads(oras("manifest", "fetch", "--descriptor", "--platform=linux/arm64/v8", name))

    assert served.entries[found["digest"]] == (found["size"], "linux/arm64/v8")


@pytest.mark.client("oras", "repo tags")
def test_oras_lists_the_tags(proxy: Proxy, oras: Client) -> None:
    """`oras repo tags` of a merged name shows the tag that only its sources have."""
    assert "1.0" in oras("repo", "tags", f"{proxy.address}/kimoqi/alpine").splitlines()


@pytest.mark.client("oras", "pull")
def test_oras_pulls_an_artifact(
    proxy: Proxy, registry: Registry, oras: Client, note: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`oras pull` of an artifact that is no image comes through untouched."""
    oras("push", f"--artifact-type={NOTE}", f"{registry.address}/oras/note:1.0", note.name)
    folder = tmp_path_factory.mktemp("pulled")
    oras("pull", f"--output={folder}", f"{proxy.address}/oras/note:1.0")

    assert (folder / note.name).read_bytes() == note.read_bytes()


@pytest.mark.client("oras", "copy --recursive")
def test_oras_copies_to_another_registry(proxy: Proxy, elsewhere: Registry, oras: Client) -> None:
    """`oras copy --recursive`, which asks for the referrers of everything, ends with the same digests."""
    served = wire.manifest(proxy.address, "kimoqi/mixed", "1.0")
    target = f"{elsewhere.address}/oras/mixed:1.0"
    options = ("--recursive", "--from-plain-http", "--to-plain-http")
    # Without --plain-http, which `copy` has twice, under other names.
    Client(oras.command[:1], oras.environment)("copy", *options, f"{proxy.address}/kimoqi/mixed:1.0", target)

    assert wire.manifest(elsewhere.address, "oras/mixed", "1.0").body == served.body


@pytest.mark.client("oras", "discover")
def test_oras_discovers_what_a_source_was_given(proxy: Proxy, registry: Registry, oras: Client, note: Path) -> None:
    """What was attached to an image at its source is discovered through the virtual name."""
    child = oras("resolve", f"{registry.address}/kimoqi/alpine-arm:1.0")
    given = oras(
        "attach",
        "--format=json",
        f"--artifact-type={NOTE}",
        f"{registry.address}/kimoqi/alpine-arm@{child}",
        note.name,
    )

    assert attached(oras, f"{proxy.address}/kimoqi/alpine@{child}") == [digest_of(given)]


@pytest.mark.client("oras", "discover")
def test_oras_discovers_nothing_where_nothing_is(proxy: Proxy, oras: Client) -> None:
    """The synthesized index, to which nobody has attached anything, has no referrers; that is no error."""
    assert attached(oras, f"{proxy.address}/kimoqi/alpine:1.0") == []


@pytest.mark.client("oras", "push")
def test_oras_pushes_through_the_proxy(
    open_proxy: Proxy, registry: Registry, oras: Client, note: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`oras push` into the proxy puts the artifact into the registry, and `oras pull` has it back."""
    name = "oras/pushed"
    pushed = digest_of(
        oras("push", "--format=json", f"--artifact-type={NOTE}", f"{open_proxy.address}/{name}:1.0", note.name)
    )
    folder = tmp_path_factory.mktemp("pulled")
    oras("pull", f"--output={folder}", f"{open_proxy.address}/{name}:1.0")

    assert wire.manifest(registry.address, name, "1.0").digest == pushed
    assert (folder / note.name).read_bytes() == note.read_bytes()


@pytest.mark.client("oras", "attach")
@pytest.mark.parametrize("platform", [None, "linux/amd64"], ids=["index", "child"])
def test_oras_attaches_to_a_virtual_name(platform: str | None, open_proxy: Proxy, oras: Client, note: Path) -> None:
    """`oras attach` to the synthesized index, or to a child of it, and `oras discover` finds it at the same name."""
    name = f"{open_proxy.address}/kimoqi/oci"
    options = [f"--platform={platform}"] if platform else []
    subject = oras("resolve", *options, f"{name}:1.0")
    given = oras("attach", "--format=json", f"--artifact-type={NOTE}", f"{name}@{subject}", note.name)

    assert digest_of(given) in attached(oras, f"{name}@{subject}")
