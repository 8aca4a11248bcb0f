"""The image, as far as it can be checked without pulling its base: what it is told, and what comes of its steps."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockerfile import BUILD, FINAL, Step, pairs, told
from patience import HANGING
from ports import free_port
from proxy import __version__

ROOT = Path(__file__).parent.parent
CACHE = "/var/lib/manifuse"
NOBODY = 65532


def test_both_stages_have_the_same_base() -> None:
    """The environment that the first stage makes works in the second: same Python, same libc, and a slim one."""
    bases = [stage[0].words[0] for stage in (BUILD, FINAL)]

    assert bases[0] == bases[1]
    assert re.fullmatch(r"python:3\.1[1-9]-slim", bases[0])
    assert pairs("LABEL")["org.opencontainers.image.base.name"] == f"docker.io/library/{bases[0]}"


def test_the_final_stage_only_copies() -> None:
    """Nothing is run in the final stage: no caches, no leftovers, no layer that undoes another."""
    assert told("RUN") == []
    assert told("ADD") == []
    assert [step.words[0] for step in told("COPY")] == ["--from=build", "--from=build", "config/manifuse.toml"]


def test_it_runs_as_nobody() -> None:
    """The user is a number, not root, and owns the cache folder alone."""
    (user,) = told("USER")
    owned = [step.words[-1] for step in told("COPY") if any(word.startswith("--chown") for word in step.words)]

    assert user.value == f"{NOBODY}:{NOBODY}"
    assert owned == [CACHE]
    assert FINAL.index(user) > max(FINAL.index(step) for step in told("COPY"))


def test_it_writes_to_the_volume_alone() -> None:
    """The cache folder is a volume, and Python writes no bytecode: a read-only root file system will do."""
    assert [step.words for step in told("VOLUME")] == [[CACHE]]
    assert pairs("ENV")["MANIFUSE_CACHE__DIR"] == CACHE
    assert pairs("ENV")["PYTHONDONTWRITEBYTECODE"] == "1"


def test_it_listens_on_the_ports_it_exposes() -> None:
    """A container is reached from outside: all interfaces, the ports of the default configuration."""
    (exposed,) = told("EXPOSE")

    assert exposed.words == ["5080", "5081"]
    assert [pairs("ENV")[name] for name in ("MANIFUSE_LISTEN", "MANIFUSE_ADMIN_LISTEN")] == [
        f"0.0.0.0:{port}" for port in exposed.words
    ]


def test_it_starts_the_service_and_stops_it_well() -> None:
    """The command alone is the entrypoint, so that arguments replace `serve`; SIGTERM stops it."""
    (entrypoint,), (command,), (stop,) = told("ENTRYPOINT"), told("CMD"), told("STOPSIGNAL")

    assert entrypoint.words == ["manifuse"]
    assert command.words == ["serve", "--config", "/etc/manifuse/manifuse.toml"]
    assert stop.value == "SIGTERM"


def test_it_says_what_it_is() -> None:
    """The labels are the project's own words and version."""
    labels = pairs("LABEL")

    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"] == "manifuse"
    assert labels["org.opencontainers.image.description"]


def test_the_builder_gets_what_is_copied_and_nothing_else() -> None:
    """Every file that is copied passes .dockerignore; caches, tests and the history don't."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    copied = [
        word
        for step in (*told("COPY", BUILD), *told("COPY"))
        if "--from=build" not in step.words
        for word in step.words[:-1]
    ]

    assert lines[0] == "*"
    assert sorted(line.removeprefix("!") for line in lines if line.startswith("!")) == sorted(copied)
    assert [line for line in lines[1:] if not line.startswith("!")] == ["**/__pycache__"]


class Image:
    """What the steps make of an empty folder, which stands for the root of both stages."""

    def __init__(self, root: Path) -> None:
        """Take an empty folder."""
        self.root = root
        self.ports = [free_port() for _ in range(2)]

    def here(self, text: str) -> str:
        """Rewrite the absolute paths of the image, and its ports, to those of this machine."""
        for outside, inside in zip(self.ports, ("5080", "5081"), strict=True):
            text = re.sub(rf"\b{inside}\b", str(outside), text).replace("0.0.0.0", "127.0.0.1")
        return re.sub(r"(?<![\w.:/])/(?=(?:opt|src|etc|var)\b)", f"{self.root}/", text)

    def build(self) -> None:
        """Take the first stage's steps, and those that copy from outside."""
        work = self.root
        interpreter = Path(sys.executable).parent
        for step in (*BUILD[1:], *told("COPY")):
            if step.instruction == "WORKDIR":
                work = Path(self.here(step.value))
                work.mkdir(parents=True)
            elif step.instruction == "COPY":
                self._copy(step, work)
            elif step.instruction == "RUN":
                environment = {**os.environ, "PATH": f"{interpreter}:{os.environ['PATH']}"}
                subprocess.run(["sh", "-ec", self.here(step.value)], cwd=work, env=environment, check=True, timeout=300)
            else:
                raise AssertionError(f"the test doesn't know {step.instruction}")

    def _copy(self, step: Step, work: Path) -> None:
        *sources, target = [word for word in step.words if not word.startswith("--")]
        if "--from=build" in step.words:
            assert sources == [target]  # one folder stands for both stages
            assert Path(self.here(target)).is_dir()
            return
        for source in sources:
            to = work / self.here(target) / ("" if not target.endswith("/") else source)
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, to)

    @property
    def environment(self) -> dict[str, str]:
        """The image's environment and nothing of this machine's: no HOME, no PATH to its tools."""
        return {name: self.here(value.replace("$PATH", "/usr/bin:/bin")) for name, value in pairs("ENV").items()}

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a command as the image would: in its environment, and without root's power over read-only files."""
        program = shutil.which(command[0], path=self.environment["PATH"])
        assert program is not None
        return subprocess.Popen(
            [*_powerless(), program, *(self.here(word) for word in command[1:])],
            cwd="/",
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def files(self) -> dict[str, float]:
        """Return all files and when they were written."""
        return {str(path.relative_to(self.root)): path.lstat().st_mtime for path in self.root.rglob("*")}

    def make_read_only(self) -> None:
        """Take the right to write from everybody, but for the cache folder."""
        cache = Path(self.here(CACHE))
        for path in (self.root, *self.root.rglob("*")):
            if path != cache and not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o555)


def _powerless() -> list[str]:
    """Return what to put in front of a command: root in a test's container is no nobody, but it can be weakened."""
    setpriv = shutil.which("setpriv") if os.geteuid() == 0 else None
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"] if setpriv else []


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image, built."""
    with tempfile.TemporaryDirectory(prefix="manifuse-image-") as folder:
        reach = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0", "--timeout", "5"]
        probe = subprocess.run([*reach, "--dest", folder, "hatchling"], capture_output=True, timeout=60, check=False)
        if probe.returncode != 0:
            pytest.skip("PyPI can't be reached, so that the image's packages can't be installed")
        root = Path(folder) / "root"
        root.mkdir()
        made = Image(root)
        made.build()
        made.make_read_only()
        yield made
        for path in root.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


def healthy(image: Image) -> bool:
    """Run the health check once."""
    (check,) = told("HEALTHCHECK")
    command = json.loads(check.value.partition("CMD ")[2])
    process = image.start(command)
    process.communicate(timeout=HANGING)
    return process.returncode == 0


@pytest.mark.timeout(600)
def test_it_runs_as_it_is_built(image: Image) -> None:
    """Installed by its own steps and started by its own command: healthy, nothing written but the cache, exit 0."""
    before = image.files()
    entrypoint, command = told("ENTRYPOINT")[0].words, told("CMD")[0].words
    unstarted = healthy(image)
    process = image.start([*entrypoint, *command])
    try:
        deadline = time.monotonic() + HANGING
        while not (started := healthy(image)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(getattr(signal, told("STOPSIGNAL")[0].value))
        log, _ = process.communicate(timeout=HANGING)
    finally:
        process.kill()
    written = {name for name, time in image.files().items() if before.get(name) != time}

    assert (unstarted, started) == (False, True), log.decode()
    assert process.returncode == 0, log.decode()
    assert b"cache folder unusable" not in log
    assert written
    assert fnmatch.filter(written, "var/lib/manifuse*") == list(written)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("arguments", [["--version"], ["check", "--config", "/etc/manifuse/manifuse.toml"]])
def test_other_commands_run_in_it(image: Image, arguments: list[str]) -> None:
    """Arguments in place of the default command reach `manifuse`, and the configuration in the image is sound."""
    process = image.start([*told("ENTRYPOINT")[0].words, *arguments])
    log, _ = process.communicate(timeout=HANGING)

    assert process.returncode == 0, log.decode()
