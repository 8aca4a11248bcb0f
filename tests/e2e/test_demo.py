"""The demo's images, pulled and run as a newcomer would: the command's own lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from e2e.peers import Client


@pytest.fixture
def image() -> Iterator[str]:
    """Run `manifuse demo` and yield the name it tells people to run."""
    command = [sys.executable, "-u", "-m", "proxy", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        line = next(line for line in demo.stdout if "docker run --rm" in line)
        yield line.split()[-1]
        demo.terminate()
        demo.stdout.read()
    assert demo.returncode == 0


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_the_demo_can_be_run(platform: str, image: str, docker: Client, emulation: None) -> None:
    """One name from the demo says hello from whichever platform it is pulled for."""
    docker("pull", "--platform", platform, image)
    printed = docker("run", "--rm", "--network", "none", "--platform", platform, image)

    assert printed == f"hello from {platform}"
