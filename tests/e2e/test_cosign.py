"""Cosign signs and verifies what a merged name consists of."""

import pytest

from e2e import wire
from e2e.gopeers import Cosign
from e2e.manifuse import Proxy
from e2e.peers import Client, ClientFailed, Registry

# cosign's default is a bundle that refers to the image; the other is a tag made of the image's digest.
KINDS = pytest.mark.parametrize("bundle", [True, False], ids=["bundle", "tag"])


def pair(crane: Client, registry: Registry, repository: str) -> None:
    """Give a merged name sources of its own, so that nothing else is ever signed there."""
    for word in ("x86", "arm"):
        crane("copy", *(f"{registry.address}/{name}-{word}:1.0" for name in ("kimoqi/oci", repository)))


def child(address: str, repository: str) -> str:
    """Return the digest of the ARM half of a merged name."""
    entries = wire.manifest(address, repository, "1.0").entries
    return next(digest for digest, (_, platform) in entries.items() if platform == "linux/arm64/v8")


@pytest.mark.client("cosign", "verify")
@KINDS
def test_a_childs_signature_is_found(
    bundle: bool, proxy: Proxy, registry: Registry, crane: Client, cosign: Cosign
) -> None:
    """An image that was signed where it was pushed is verified through the virtual name."""
    repository = f"cosign/source-{bundle}".lower()
    pair(crane, registry, repository)
    signed = child(proxy.address, repository)
    cosign.sign(f"{registry.address}/{repository}-arm@{signed}", bundle=bundle)

    assert signed in cosign.verify(f"{proxy.address}/{repository}@{signed}")


@pytest.mark.client("cosign", "verify")
def test_nothing_is_signed_by_itself(proxy: Proxy, registry: Registry, crane: Client, cosign: Cosign) -> None:
    """The index is not signed because its children are: cosign says that there is no signature, and nothing else."""
    pair(crane, registry, "cosign/unsigned")
    signed = child(proxy.address, "cosign/unsigned")
    cosign.sign(f"{registry.address}/cosign/unsigned-arm@{signed}", bundle=True)

    with pytest.raises(ClientFailed, match="no signatures found"):
        cosign.verify(f"{proxy.address}/cosign/unsigned:1.0")


@pytest.mark.client("cosign", "verify-attestation")
@KINDS
def test_a_childs_attestation_is_found(
    bundle: bool, proxy: Proxy, registry: Registry, crane: Client, cosign: Cosign
) -> None:
    """What is said of an image where it was pushed is verified through the virtual name."""
    repository = f"cosign/said-{bundle}".lower()
    pair(crane, registry, repository)
    named = child(proxy.address, repository)
    cosign.attest(f"{registry.address}/{repository}-arm@{named}", bundle=bundle)

    assert "payload" in cosign.verify_attestation(f"{proxy.address}/{repository}@{named}")


@pytest.mark.client("cosign", "sign")
@KINDS
def test_the_index_can_be_signed(
    bundle: bool, open_proxy: Proxy, registry: Registry, crane: Client, cosign: Cosign
) -> None:
    """A signature of the synthesized index, pushed to the virtual name, is found there."""
    repository = f"cosign/index-{bundle}".lower()
    pair(crane, registry, repository)
    index = wire.manifest(open_proxy.address, repository, "1.0").digest
    cosign.sign(f"{open_proxy.address}/{repository}@{index}", bundle=bundle)

    assert index in cosign.verify(f"{open_proxy.address}/{repository}:1.0")


@pytest.mark.client("cosign", "sign")
@KINDS
def test_a_child_can_be_signed(
    bundle: bool, open_proxy: Proxy, registry: Registry, crane: Client, cosign: Cosign
) -> None:
    """A signature of a child, pushed to the virtual name, is found there."""
    repository = f"cosign/child-{bundle}".lower()
    pair(crane, registry, repository)
    signed = child(open_proxy.address, repository)
    cosign.sign(f"{open_proxy.address}/{repository}@{signed}", bundle=bundle)

    assert signed in cosign.verify(f"{open_proxy.address}/{repository}@{signed}")


@pytest.mark.client("cosign", "attest")
@KINDS
def test_something_can_be_said_of_the_index(
    bundle: bool, open_proxy: Proxy, registry: Registry, crane: Client, cosign: Cosign
) -> None:
    """An attestation of the synthesized index, pushed to the virtual name, is found there."""
    repository = f"cosign/attested-{bundle}".lower()
    pair(crane, registry, repository)
    index = wire.manifest(open_proxy.address, repository, "1.0").digest
    cosign.attest(f"{open_proxy.address}/{repository}@{index}", bundle=bundle)

    assert "payload" in cosign.verify_attestation(f"{open_proxy.address}/{repository}:1.0")
