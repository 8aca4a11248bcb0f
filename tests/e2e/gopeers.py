"""Registries and clients that are written in Go: `.ci/peers` builds them, pinned, into a folder of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from e2e import wire
from e2e.peers import Client, Registry, client_home, command, registry, running
from ports import free_port


@contextmanager
def crane_registry(folder: Path) -> Iterator[Registry]:
    """Run go-containerregistry's own registry, which keeps everything in memory."""
    address = f"127.0.0.1:{free_port()}"
    arguments = ["registry", "serve", "--address", address]
    with running("crane", arguments, folder, lambda: wire.answers(f"http://{address}/v2/", 200)):
        yield Registry(address)


# What manifuse is put in front of. zot can't be had from the Go module proxy; crane's registry takes its place.
REGISTRIES: Final[Mapping[str, Callable[[Path], AbstractContextManager[Registry]]]] = {
    "docker-registry": registry,
    "distribution": partial(registry, peer="registry"),
    "crane": crane_registry,
}
ELSEWHERE: Final = ("distribution", "crane")  # what is copied through manifuse is copied to these


def crane(folder: Path) -> Client:
    """Return a `crane` that reads no settings but this folder's."""
    return Client((command("crane"), "--insecure"), client_home(folder))


def regctl(folder: Path) -> Client:
    """Return a `regctl` that asks registries without TLS; it has to be told of each one's address."""
    home = client_home(folder)
    return Client((command("regctl"),), {**home, "REGCTL_CONFIG": f"{folder}/regctl.json"})


def oras(folder: Path) -> Client:
    """Return an `oras` that asks registries without TLS."""
    # Written with its value: before the name of the subcommand, the next word would be taken for it.
    return Client((command("oras"), "--plain-http=true"), client_home(folder))


def helm(folder: Path) -> Client:
    """Return a `helm` that reads no settings but this folder's."""
    places = {f"HELM_{name}_HOME": f"{folder}/helm-{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
    return Client((command("helm"),), {**client_home(folder), **places})


def buildx(folder: Path) -> Client:
    """Return a `buildx`, which runs without docker, that reads no settings but this folder's."""
    return Client((command("buildx"),), client_home(folder))


@dataclass(frozen=True)
class Cosign:
    """A `cosign` with keys of its own, which asks no service but the registry."""

    run: Client
    folder: Path

    def sign(self, name: str, *, bundle: bool) -> None:
        """Sign an image: as cosign does by default, a bundle that refers to it, or as before, with a tag of its own."""
        self.run("sign", *self._signing(bundle=bundle), name)

    def verify(self, name: str) -> str:
        """Verify an image's signature, of either kind, and return what was signed."""
        return self.run("verify", *self._verifying, name)

    def attest(self, name: str, *, bundle: bool) -> None:
        """Attach a signed statement to an image, in either way."""
        (self.folder / "statement.json").write_text('{"built": "on a Tuesday"}\n')
        statement = ("--type=custom", f"--predicate={self.folder}/statement.json")
        self.run("attest", *self._signing(bundle=bundle), *statement, name)

    def verify_attestation(self, name: str) -> str:
        """Verify the signed statements about an image and return them."""
        return self.run("verify-attestation", *self._verifying, "--type=custom", name)

    def _signing(self, *, bundle: bool) -> tuple[str, ...]:
        old = ("--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=false")
        kind = (f"--signing-config={self.folder}/no-services.json",) if bundle else old
        return "--yes", f"--key={self.folder}/e2e.key", *kind, *self._always

    @property
    def _verifying(self) -> tuple[str, ...]:
        return f"--key={self.folder}/e2e.pub", "--insecure-ignore-tlog=true", *self._always

    @property
    def _always(self) -> tuple[str, ...]:
        return "--allow-http-registry=true", f"--trusted-root={self.folder}/no-roots.json"


def cosign(folder: Path) -> Cosign:
    """Return a `cosign` with fresh keys."""
    run = Client((command("cosign"),), {**client_home(folder), "COSIGN_PASSWORD": ""})
    run("generate-key-pair", f"--output-key-prefix={folder}/e2e")
    # Without these it asks the public services of sigstore what they are.
    run("signing-config", "create", f"--out={folder}/no-services.json")
    run("trusted-root", "create", f"--out={folder}/no-roots.json")
    return Cosign(run, folder)
