"""Small real images of two architectures, built and pushed by real clients."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.peers import Client, ClientFailed, Registry, command, unavailable

# `.ci/peers` puts the busybox of both architectures here, out of Debian's packages.
BUSYBOX = Path(os.environ.get("MANIFUSE_BUSYBOX", "/var/cache/manifuse-e2e"))

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
ENTRYPOINT ["/bin/busybox"]
CMD ["uname", "-m"]
"""

# What an image's program says about the machine that it was built for.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
MACHINES = {f"linux/{architecture}": machine for architecture, machine in ARCHITECTURES.items()}

# Merged names: of two Docker images, of two OCI images, of one each.
PAIRS = ("kimoqi/alpine", "kimoqi/oci", "kimoqi/mixed")

BUILT_WITH_DOCKER = {
    "amd64": ("kimoqi/alpine-x86:1.0", "kimoqi/app:1.0-amd64", "kimoqi/mixed-x86:1.0", "kimoqi/careless-x86:1.0"),
    "arm64": ("kimoqi/alpine-arm:1.0", "kimoqi/app:1.0-arm64"),
}
BUILT_WITH_BUILDAH = {
    "amd64": ("kimoqi/oci-x86:1.0",),
    "arm64": ("kimoqi/oci-arm:1.0", "kimoqi/mixed-arm:1.0"),
}
CARELESS = "kimoqi/careless-arm:1.0"


def context(folder: Path, architecture: str) -> Path:
    """Make a folder to build the image of one architecture from."""
    busybox = BUSYBOX / f"busybox-{architecture}"
    if not busybox.exists():
        unavailable("busybox", f"no {busybox} (.ci/peers puts it there)")
    made = folder / architecture
    made.mkdir(parents=True)
    shutil.copy(busybox, made / "busybox")
    (made / "busybox").chmod(0o755)
    (made / "Dockerfile").write_text(DOCKERFILE)
    return made


def push_with_docker(docker: Client, registry: Registry, folder: Path) -> None:
    """Build an image for each architecture, with one `docker build` each, and push them under all their names."""
    for architecture, names in BUILT_WITH_DOCKER.items():
        source = context(folder, architecture)
        _docker_build(docker, registry, f"linux/{architecture}", source, names)
    # Built carelessly: the program is an ARM one, and the image says amd64 like its neighbour.
    _docker_build(docker, registry, "linux/amd64", folder / "arm64", (CARELESS,))
    forget(docker)


def _docker_build(docker: Client, registry: Registry, target: str, source: Path, names: tuple[str, ...]) -> None:
    full = [f"{registry.address}/{name}" for name in names]
    tags = [f"--tag={name}" for name in full]
    # Its cache doesn't tell platforms apart, hence --no-cache.
    docker("build", "--quiet", "--no-cache", "--platform", target, *tags, str(source))
    for name in full:
        docker("push", name)


def push_with_buildah(buildah: Client, registry: Registry, folder: Path) -> None:
    """Build an OCI image for each architecture, and push them under all their names."""
    for architecture, names in BUILT_WITH_BUILDAH.items():
        source = context(folder, architecture)
        options = ("--format=oci", "--isolation=chroot", f"--arch={architecture}", f"--tag={architecture}")
        buildah("bud", "--quiet", *options, str(source))
        for name in names:
            buildah("push", "--tls-verify=false", architecture, f"docker://{registry.address}/{name}")


def forget(docker: Client) -> None:
    """Remove every image and layer from a daemon, so that the next pull fetches all of it."""
    docker("system", "prune", "--all", "--force")


BINFMT = Path("/proc/sys/fs/binfmt_misc")
# The head of an ELF file for aarch64, as Debian's qemu-user describes it. F opens the interpreter at once,
# so that containers, which don't have it in their file system, can use it.
AARCH64 = (
    r":{name}:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{interpreter}:F"
)


@contextmanager
def emulation() -> Iterator[None]:
    """Let this machine run programs for aarch64 while the block lasts, whoever else does so at the same time."""
    peer = "qemu-aarch64-static"
    ours = f"manifuse-{os.getpid()}"
    if platform.machine() != "x86_64":
        unavailable(peer, f"stands in for aarch64 on x86_64, and this is {platform.machine()}")
    try:
        if not (BINFMT / "register").exists():
            Client((command("mount"),))("-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
        (BINFMT / "register").write_text(AARCH64.format(name=ours, interpreter=command(peer)))
    except (OSError, ClientFailed) as trouble:
        unavailable(peer, f"cannot be registered: {trouble}")
    try:
        yield
    finally:
        (BINFMT / ours).write_text("-1")
