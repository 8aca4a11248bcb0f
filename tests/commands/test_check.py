"""What `manifuse check` finds, says and leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from commands.calls import WRONG, written
from proxy.cli import main
from proxy.settings.keys import json_schema
from scripted import Origin


def check(*arguments: str | Path) -> Result:
    """Run `manifuse check` in this process."""
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


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
