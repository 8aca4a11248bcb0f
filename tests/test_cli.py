"""The commands: what they write, where, and with which exit status they leave."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from images import VIRTUAL, push, push_pair, push_referrer
from patience import HANGING
from ports import free_port
from proxy import __version__, demo
from proxy.cli import main
from proxy.oci import mediatype
from proxy.oci.reference import Digest
from proxy.settings.keys import json_schema
from scripted import Origin, reset

CONFIG = """
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
drain = "1s"

[[upstream]]
name = "registry"
url = "URL"
"""
RULE = """
[[rule]]
match = "kimoqi/*"
sources = [
  { image = "{repository}-x86:{tag}", platform = "linux/amd64" },
  { image = "{repository}-arm:{tag}", platform = "linux/arm64" },
]
"""
WRONG = """
listen = 5080
colour = "blue"
[[upstream]]
name = "registry"
url = "registry.example"
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands keep what they learn in the test's folder, and read no configuration but the test's."""
    for name in [name for name in os.environ if name.startswith("MANIFUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MANIFUSE_CACHE__DIR", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with an upstream that nobody asks."""
    return written(tmp_path, CONFIG.replace("URL", "http://127.0.0.1:9"))


@pytest.fixture
def merging(tmp_path: Path, origin: Origin) -> Path:
    """A configuration that merges what is pushed to the origin."""
    return written(tmp_path, CONFIG.replace("URL", origin.url) + RULE)


def written(folder: Path, text: str) -> Path:
    """Write a configuration file."""
    path = folder / "manifuse.toml"
    path.write_text(text)
    return path


def check(*arguments: str | Path) -> Result:
    """Run `manifuse check` in this process."""
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


@asynccontextmanager
async def started(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command in a process of its own, which is gone when the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proxy",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def manifuse(*arguments: str | Path) -> Done:
    """Run the command to its end."""
    async with started(*arguments) as process, asyncio.timeout(HANGING):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def listening(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Read the log until the service listens, and return what it says of it."""
    assert process.stderr is not None
    async with asyncio.timeout(HANGING):
        async for line in process.stderr:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "listening":
                return event
    raise AssertionError("the service has left")


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


def test_check_says_what_a_configuration_means(merging: Path) -> None:
    """A good configuration: its upstreams, its rules, and what each is made of."""
    result = check("--config", merging)

    assert result.exit_code == 0
    assert result.stdout == (
        f"{merging}: ok: registry; 1 rule\n  kimoqi/*  <-  {{repository}}-x86:{{tag}}, {{repository}}-arm:{{tag}}\n"
    )


def test_check_shows_the_default_conventions(config: Path) -> None:
    """A configuration without a rule says that the conventions hold."""
    result = check("--config", config)

    assert result.exit_code == 0
    assert result.stdout == f"{config}: ok: registry; no rule written\n  **  <-  repository-suffix, tag-suffix\n"


def test_check_takes_an_upstream_instead_of_a_file() -> None:
    """A URL alone is a configuration."""
    result = check("--upstream", "http://127.0.0.1:5000")

    assert result.exit_code == 0
    assert result.stdout.startswith("configuration: ok: upstream; no rule written\n")


def test_check_writes_json(config: Path) -> None:
    """Programs get JSON."""
    result = check("--config", config, "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ok": True, "problems": []}


def test_check_asks_nobody(merging: Path, origin: Origin) -> None:
    """A configuration is checked without its registries."""
    check("--config", merging)

    assert origin.requests == []


def test_check_touches_nothing(merging: Path, tmp_path: Path) -> None:
    """It may be another user who checks, on another machine: the cache folder isn't made, nor complained of."""
    merging.write_text(merging.read_text().partition("[cache]")[0] + '[cache]\ndir = "/proc/nowhere"\n')
    before = sorted(tmp_path.rglob("*"))
    impossible = check("--config", merging, "--json")
    merging.write_text(merging.read_text().replace("/proc/nowhere", str(tmp_path / "cache")))
    possible = check("--config", merging, "--json")

    assert [json.loads(each.stdout)["ok"] for each in (impossible, possible)] == [True, True]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_standard_streams_may_be_closed(closed: str, config: Path) -> None:
    """As some launch their services: no file or socket takes their place, which whoever writes there would write to."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "proxy", "check", "--config", str(config)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)

    assert await process.wait() == 0


def test_check_finds_all_problems(tmp_path: Path) -> None:
    """Each problem is a line with file, key and expectation; exit status 2."""
    path = written(tmp_path, WRONG)

    result = check("--config", path)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert sorted(line.split(": ")[:2] for line in result.stderr.splitlines()) == [
        [str(path), "colour"],
        [str(path), "listen"],
        [str(path), "upstream[0].url"],
    ]
    assert "host:port was expected" in result.stderr


def test_check_writes_problems_as_json(tmp_path: Path) -> None:
    """Programs get the same problems as JSON."""
    path = written(tmp_path, WRONG)

    result = check("--config", path, "--json")
    found = json.loads(result.stdout)

    assert result.exit_code == 2
    assert found["ok"] is False
    assert {problem["key"] for problem in found["problems"]} == {"colour", "listen", "upstream[0].url"}
    assert {problem["where"] for problem in found["problems"]} == {str(path)}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (
            'credentials = { username = "puller", password_file = "FOLDER/none" }',
            "FOLDER/none: upstream[0].credentials.password_file: the file can't be read: No such file or directory",
        ),
        ('ca_file = "FOLDER/none"', "FOLDER/none: upstream[0].ca_file: unusable: [Errno 2] No such file or directory"),
        ('ca_file = "FOLDER/manifuse.toml"', "FOLDER/manifuse.toml: upstream[0].ca_file: unusable: "),
    ],
)
def test_check_reads_the_files_that_are_named(tmp_path: Path, config: Path, key: str, expected: str) -> None:
    """A password or certificate file that can't be used is found before the start."""
    config.write_text(config.read_text() + key.replace("FOLDER", str(tmp_path)))

    result = check("--config", config)

    assert result.exit_code == 2
    assert result.stderr.startswith(expected.replace("FOLDER", str(tmp_path)))


def test_check_reads_all_files_before_it_complains(tmp_path: Path, config: Path) -> None:
    """Several files that can't be used are several problems, told together."""
    missing = 'credentials = {{ username = "me", password_file = "{}" }}\n'
    config.write_text(config.read_text() + missing.format(tmp_path / "one"))
    config.write_text(config.read_text() + f'[hooks]\nsecret_file = "{tmp_path / "two"}"\n')

    result = check("--config", config)

    assert result.exit_code == 2
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        str(tmp_path / "one"),
        str(tmp_path / "two"),
    ]


def test_check_writes_the_schema() -> None:
    """`check --schema` writes the schema of the configuration file, and needs no configuration."""
    result = check("--schema")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == json_schema()


@pytest.mark.parametrize("command", [["serve"], ["check"], ["explain", "kimoqi/alpine:1.0"], ["inspect", "alpine"]])
async def test_without_an_upstream_there_is_nothing_to_do(command: list[str]) -> None:
    """A command that needs a registry says how to name one; exit status 2."""
    done = await manifuse(*command)

    assert done == Done(2, "", "configuration: upstream: a registry was expected: [[upstream]] or --upstream URL\n")


@pytest.mark.parametrize("command", [["serve"], ["explain", "kimoqi/alpine:1.0"], ["inspect", "kimoqi/alpine:1.0"]])
async def test_no_command_starts_with_a_wrong_configuration(command: list[str], tmp_path: Path) -> None:
    """All problems are told as `check` tells them; exit status 2."""
    path = written(tmp_path, WRONG)

    done = await manifuse(*command, "--config", path)

    assert (done.status, done.out) == (2, "")
    assert len(done.err.splitlines()) == 3
    assert all(line.startswith(f"{path}: ") for line in done.err.splitlines())


async def test_the_environment_names_the_configuration(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MANIFUSE_CONFIG is `--config`."""
    monkeypatch.setenv("MANIFUSE_CONFIG", str(config))

    assert (await manifuse("check")).out.startswith(f"{config}: ok: ")


async def test_explain_says_what_came_of_every_source(origin: Origin, merging: Path) -> None:
    """The rule, each source with what it is, and what is served in the end."""
    push_pair(origin.registry)

    done = await manifuse("explain", "kimoqi/alpine:1.0", "--config", merging)

    assert (done.status, done.err) == (0, "")
    assert "kimoqi/alpine:1.0 on registry: rule[0] (match kimoqi/*)" in done.out
    assert re.search(r"registry/kimoqi/alpine-x86:1.0 +linux/amd64 .*found ", done.out)
    assert re.search(r"registry/kimoqi/alpine-arm:1.0 +linux/arm64/v8 .*found ", done.out)
    assert re.search(r"registry/kimoqi/alpine:1.0 .*absent ", done.out)
    assert mediatype.DOCKER_LIST in done.out


async def test_explain_lets_no_image_write_to_the_terminal(origin: Origin, merging: Path) -> None:
    """What an image says of itself is shown, and is neither markup nor an order to the terminal."""
    push(origin.registry, "kimoqi/alpine-arm", platform="linux/arm64")
    kind = "\x1b[2J[b]x[/] [/y] :bomb:\nserve"
    push_referrer(origin.registry, "kimoqi/alpine-x86", Digest.of(b"image"), kind, "1.0")

    done = await manifuse("explain", "kimoqi/alpine:1.0", "--config", merging)

    assert (done.status, done.err) == (0, "")
    assert "\x1b" not in done.out
    assert r"not a runnable image: \x1b[2J[b]x[/] [/y] :bomb:\nserve" in done.out


async def test_explain_writes_json(origin: Origin, merging: Path) -> None:
    """Programs get the same as JSON."""
    push_pair(origin.registry)

    done = await manifuse("explain", "kimoqi/alpine:1.0", "--config", merging, "--json")
    found = json.loads(done.out)

    assert done.status == 0
    assert found["verdict"] == "serve"
    assert {(question["source"], question["result"]) for question in found["questions"]} == {
        ("registry/kimoqi/alpine-x86:1.0", "found"),
        ("registry/kimoqi/alpine-arm:1.0", "found"),
        ("registry/kimoqi/alpine:1.0", "absent"),
    }


@pytest.mark.parametrize("command", ["explain", "inspect"])
async def test_an_image_may_be_called_as_its_registry_has_it(command: str, origin: Origin, merging: Path) -> None:
    """The registry's host and port in front of a name mean its upstream; another's are nobody's."""
    push_pair(origin.registry)
    host = origin.url.removeprefix("http://")

    done = await manifuse(command, f"{host}/kimoqi/alpine:1.0", "--config", merging)
    strange = await manifuse(command, "registry.example:5000/kimoqi/alpine:1.0", "--config", merging)

    assert (done.status, done.err) == (0, "")
    assert mediatype.DOCKER_LIST in done.out
    assert strange == Done(1, "", "manifuse: no upstream is called 'registry.example:5000'\n")


async def test_explain_fails_where_there_is_nothing(merging: Path) -> None:
    """An image that none of its sources has: the same picture, and exit status 1."""
    done = await manifuse("explain", "kimoqi/none:1.0", "--config", merging)

    assert (done.status, done.err) == (1, "")
    assert "refuse: " in done.out
    assert "kimoqi/none-x86:1.0" in done.out


async def test_inspect_shows_what_clients_get(origin: Origin, merging: Path) -> None:
    """The index byte for byte: its digest is the one that clients see. A newline ends it on the terminal alone."""
    push_pair(origin.registry)

    plain = await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging)
    described = json.loads((await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging, "--json")).out)

    assert (plain.status, plain.err) == (0, "")
    assert Digest.of(plain.out.encode()) == described["digest"]
    assert described["manifest"] == json.loads(plain.out)
    assert described["mediaType"] == mediatype.DOCKER_LIST
    assert [child["platform"]["architecture"] for child in described["manifest"]["manifests"]] == ["amd64", "arm64"]


async def test_an_image_may_be_written_as_clients_write_it(origin: Origin, tmp_path: Path) -> None:
    """The proxy's own address in front of a name is taken off."""
    push_pair(origin.registry)
    path = written(tmp_path, CONFIG.replace("URL", origin.url).replace('"127.0.0.1:0"', '"127.0.0.1:5080"', 1))

    for prefix in ("", "127.0.0.1:5080/", "localhost:5080/"):
        done = await manifuse("inspect", f"{prefix}kimoqi/alpine:1.0", "--config", path)

        assert (done.status, done.err) == (0, "")


async def test_a_tag_may_be_a_number(config: Path) -> None:
    """What stands behind a colon is a port only where a slash follows."""
    assert (await manifuse("inspect", "alpine:8", "--config", config)).err.startswith("manifuse: no answer on alpine:8")


@pytest.mark.parametrize("command", [["inspect"], ["explain"], ["explain", "--json"], ["publish", "--dry-run"]])
async def test_an_answer_that_can_not_be_written_is_one_sentence(
    command: list[str], origin: Origin, merging: Path
) -> None:
    """A file that finds no room is a failure without a trace."""
    push_pair(origin.registry)
    arguments = [sys.executable, "-m", "proxy", *command, "kimoqi/alpine:1.0", "--config", str(merging)]
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(*arguments, stdout=full, stderr=asyncio.subprocess.PIPE)
    finally:
        os.close(full)
    async with asyncio.timeout(HANGING):
        _, err = await process.communicate()

    assert (process.returncode, err) == (1, b"manifuse: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("image", ["Kimoqi/Alpine", "kimoqi//alpine", "kimoqi/alpine:-", "", "a@sha256:0", "ü"])
async def test_a_name_that_is_none_is_one_sentence(image: str, config: Path) -> None:
    """A malformed image name fails with a sentence and without a trace."""
    done = await manifuse("inspect", image, "--config", config)

    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("manifuse: ")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["explain", "inspect"])
async def test_a_registry_that_is_away_is_said_to_be(command: str, config: Path) -> None:
    """Nobody listens there: exit status 1, and the cause in words."""
    done = await manifuse(command, "kimoqi/alpine:1.0", "--config", config)

    assert done.status == 1
    assert "no answer on kimoqi/alpine:1.0" in done.out + done.err
    assert "Traceback" not in done.out + done.err


async def test_a_registry_that_breaks_off_is_said_to(origin: Origin, merging: Path) -> None:
    """A source that fails is shown to have given no answer, not as absent."""
    push_pair(origin.registry)
    origin.fail("alpine-arm", reset())

    done = await manifuse("explain", "kimoqi/alpine:1.0", "--config", merging, "--json")

    assert done.status == 1
    assert {q["source"]: q["result"] for q in json.loads(done.out)["questions"]} == {
        "registry/kimoqi/alpine-x86:1.0": "found",
        "registry/kimoqi/alpine-arm:1.0": "no answer",
        "registry/kimoqi/alpine:1.0": "absent",
    }


async def test_demo_shows_a_merge() -> None:
    """`demo --once` shows the two images, the index made of them, and the lines to try; it needs nothing."""
    done = await manifuse("demo", "--once")

    assert (done.status, done.err) == (0, "")
    assert done.out.count("linux/amd64") == 2
    assert done.out.count("linux/arm64/v8") == 2
    assert "To try it, run `manifuse demo` without --once:" in done.out
    for line in ("docker run --rm ", "podman pull ", "skopeo inspect ", "curl -s http://"):
        assert f"  {line}" in done.out


async def test_demo_keeps_running_until_it_is_stopped() -> None:
    """The lines it shows work while it runs: the index can be fetched. SIGINT ends it with exit status 0."""
    async with started("demo") as process, asyncio.timeout(HANGING), aiohttp.ClientSession() as session:
        assert process.stdout is not None
        url, said = "", ""
        async for line in process.stdout:
            said += line.decode()
            found = re.search(rf"curl -s (http://\S+/v2/{demo.VIRTUAL}/manifests/{demo.TAG})", line.decode())
            if found:
                url = found[1]
                break
        async with session.get(url) as response:
            index = await response.json(content_type=None)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert [child["platform"]["architecture"] for child in index["manifests"]] == ["amd64", "arm64"]
    assert "Try it, until Ctrl-C ends it:" in said
    assert "--once" not in said
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_service_well(number: signal.Signals, origin: Origin, merging: Path) -> None:
    """A service that was told to stop leaves with exit status 0, having said so."""
    push_pair(origin.registry)
    async with started("serve", "--config", merging) as process, aiohttp.ClientSession() as session:
        where = await listening(process)
        async with session.get(f"{where['registry']}/v2/{VIRTUAL}/manifests/1.0") as response:
            served = response.status
        async with session.get(f"{where['admin']}/readyz") as response:
            ready = response.status
        process.send_signal(number)
        async with asyncio.timeout(HANGING):
            out, err = await process.communicate()

    assert (served, ready) == (200, 200)
    assert (process.returncode, out) == (0, b"")
    assert [json.loads(line)["event"] for line in err.splitlines()][-2:] == ["stopping", "stopped"]


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.05, 0.1])
async def test_a_second_signal_changes_nothing(pause: float, merging: Path) -> None:
    """Whoever asks twice, while the process is already leaving, gets the same clean exit."""
    async with started("serve", "--config", merging) as process:
        await listening(process)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(pause)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)  # send_signal() may take the exit status from asyncio (gh-87744)
        async with asyncio.timeout(HANGING):
            await process.communicate()

    assert process.returncode == 0


async def test_flags_win_over_the_file(origin: Origin, config: Path) -> None:
    """`--upstream`, `--listen` and `--admin-listen` replace what the file says."""
    push(origin.registry, "kimoqi/alpine")
    ports = [free_port(), free_port()]
    flags = ["--listen", f"127.0.0.1:{ports[0]}", "--admin-listen", f"127.0.0.1:{ports[1]}", "--upstream", origin.url]
    async with started("serve", "--config", config, *flags) as process, aiohttp.ClientSession() as session:
        where = await listening(process)
        async with session.get(f"{where['registry']}/v2/{VIRTUAL}/manifests/1.0") as response:
            served = response.status

    assert (where["registry"], where["admin"]) == tuple(f"http://127.0.0.1:{port}" for port in ports)
    assert served == 200


@pytest.mark.parametrize("key", ["--listen", "--admin-listen"])
async def test_a_taken_port_is_one_sentence(key: str, config: Path) -> None:
    """An address that somebody else has: exit status 1, and a sentence that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = await manifuse("serve", "--config", config, key, address)

    assert (done.status, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("manifuse: ")
    assert address in done.err


async def test_a_host_that_is_none_is_one_sentence(config: Path) -> None:
    """A host name that doesn't exist can't be listened on: exit status 1."""
    done = await manifuse("serve", "--config", config, "--listen", "nowhere.invalid:5080")

    assert (done.status, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert "nowhere.invalid:5080" in done.err


async def test_an_unusable_cache_folder_stops_nobody(
    origin: Origin, merging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache folder that can't be made costs a warning, and nothing else."""
    push_pair(origin.registry)
    monkeypatch.setenv("MANIFUSE_CACHE__DIR", "/dev/null/cache")

    done = await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging, "--json")

    assert done.status == 0
    assert json.loads(done.out)["mediaType"] == mediatype.DOCKER_LIST


async def test_publish_freezes_what_clients_get(origin: Origin, merging: Path) -> None:
    """A dry run shows and writes nothing; the run pushes; a second one finds everything there."""
    push_pair(origin.registry)
    served = await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging)
    dry = await manifuse("publish", "kimoqi/alpine:1.0", "--config", merging, "--dry-run")
    wrote = [request for request in origin.requests if request.method not in ("GET", "HEAD")]
    done = await manifuse("publish", "kimoqi/alpine:1.0", "--to", "releases/alpine:v1", "--config", merging)
    again = await manifuse("publish", "kimoqi/alpine:1.0", "--to", "releases/alpine:v1", "--config", merging, "--json")
    frozen = await manifuse("inspect", "releases/alpine:v1", "--config", merging)

    assert (dry.status, done.status, again.status, wrote) == (0, 0, 0, [])
    assert "4 mount" in dry.out
    assert "releases/alpine:v1" in done.out
    assert frozen.out == served.out
    described = json.loads(again.out)
    assert described["published"] is True
    assert {step["how"] for step in described["steps"]} == {"there"}


async def test_publish_merges_anew_when_asked(origin: Origin, merging: Path) -> None:
    """An index at the name itself is what the name is; `--remerge` makes it anew from its sources."""
    push_pair(origin.registry)
    await manifuse("publish", "kimoqi/alpine:1.0", "--config", merging)
    push(origin.registry, "kimoqi/alpine-arm", "1.0", "linux/arm64", text="rebuilt")
    frozen = json.loads((await manifuse("publish", "kimoqi/alpine:1.0", "--config", merging, "--json")).out)
    anew = json.loads((await manifuse("publish", "kimoqi/alpine:1.0", "--remerge", "--config", merging, "--json")).out)
    served = json.loads((await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging, "--json")).out)

    assert frozen["digest"] != anew["digest"]
    assert served["digest"] == anew["digest"]


async def test_publish_says_why_not(origin: Origin, merging: Path) -> None:
    """What doesn't exist can't be published: one sentence, exit status 1."""
    done = await manifuse("publish", "kimoqi/alpine:1.0", "--config", merging)

    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("manifuse: ")
