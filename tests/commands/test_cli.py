"""What holds for every command: help, wrong calls, and where its configuration comes from."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from commands.calls import WRONG, Done, called, manifuse, written
from proxy import __version__
from proxy.cli import main


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["serve", "-h"], ["check", "-h"], ["explain", "--help"]])
def test_help_is_no_failure(arguments: list[str]) -> None:
    """Help goes to stdout, with exit status 0."""
    result = CliRunner().invoke(main, arguments)

    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert result.stderr == ""


def test_every_command_says_what_it_does() -> None:
    """Each command has a sentence in the list of commands."""
    listed = CliRunner().invoke(main, ["--help"]).stdout.partition("Commands:")[2]

    assert {line.split()[0] for line in listed.splitlines() if line.strip()} == set(main.commands)
    assert all(len(line.split()) > 3 for line in listed.splitlines() if line.strip())
    assert "..." not in listed  # none is cut off


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["check", "--colour"], ["explain"], ["inspect"], ["explain", "a", "b"], ["serve", "--listen"], []],
)
def test_a_wrong_call_is_a_usage_error(arguments: list[str]) -> None:
    """An unknown command or option, a missing or superfluous argument: exit status 2."""
    assert CliRunner().invoke(main, arguments).exit_code == 2


async def test_the_package_can_be_run() -> None:
    """`python -m proxy` is the command."""
    done = await manifuse("--version")

    assert done == Done(0, f"manifuse, version {__version__}\n", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_standard_streams_may_be_closed(closed: str, config: Path) -> None:
    """As some launch their services: no file or socket takes their place, which whoever writes there would write to."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "proxy", "check", "--config", str(config)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)

    assert await process.wait() == 0


@pytest.mark.parametrize("command", [["serve"], ["check"], ["explain", "kimoqi/alpine:1.0"], ["inspect", "alpine"]])
def test_without_an_upstream_there_is_nothing_to_do(command: list[str]) -> None:
    """A command that needs a registry says how to name one; exit status 2."""
    assert called(*command) == Done(
        2, "", "configuration: upstream: a registry was expected: [[upstream]] or --upstream URL\n"
    )


@pytest.mark.parametrize("command", [["serve"], ["explain", "kimoqi/alpine:1.0"], ["inspect", "kimoqi/alpine:1.0"]])
def test_no_command_starts_with_a_wrong_configuration(command: list[str], tmp_path: Path) -> None:
    """All problems are told as `check` tells them; exit status 2."""
    path = written(tmp_path, WRONG)

    done = called(*command, "--config", path)

    assert (done.status, done.out) == (2, "")
    assert len(done.err.splitlines()) == 3
    assert all(line.startswith(f"{path}: ") for line in done.err.splitlines())


def test_the_environment_names_the_configuration(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MANIFUSE_CONFIG is `--config`."""
    monkeypatch.setenv("MANIFUSE_CONFIG", str(config))

    assert called("check").out.startswith(f"{config}: ok: ")
