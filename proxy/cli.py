"""The commands. Output is for people on a terminal, JSON with `--json`; exit status 0, 1 (it failed), 2 (usage)."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import orjson
import structlog
import uvloop

from proxy import __version__, serving
from proxy.app import Running, build, serve, serve_registry
from proxy.merge.convention import DEFAULT_CONVENTIONS
from proxy.merge.explain import Explanation
from proxy.merge.rule import Base
from proxy.oci.content import Manifest
from proxy.oci.errors import RegistryError
from proxy.oci.reference import Digest
from proxy.settings.keys import CacheSettings, RuleSettings, Settings, UpstreamSettings, json_schema
from proxy.settings.load import Problem, SettingsInvalid, load
from proxy.settings.text import MOST_WORKERS
from proxy.supervisor import Post
from proxy.telemetry import configure_logging, visible

_FAILED: Final = 1
_USAGE: Final = 2
_UPSTREAM_NAME: Final = "upstream"  # what `--upstream URL` is called

_log: Final = structlog.get_logger("manifuse")

_config = click.option(
    "--config", "-c", type=click.Path(path_type=Path), help="Configuration file (TOML).", envvar="MANIFUSE_CONFIG"
)
_upstream = click.option("--upstream", metavar="URL", help="Use this registry as the only upstream.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


class _Commands(click.Group):
    """The commands; that an answer can't be written, or a folder made for it, is a sentence and no trace."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read it has seen enough: click leaves in silence
            click.echo(f"manifuse: {error}", err=True)
            sys.exit(_FAILED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="manifuse")
def main() -> None:
    """One name, every architecture: merge arch-specific images into one index at pull time."""


@main.command("serve", short_help="Run the proxy until it is told to stop.")
@_config
@_upstream
@click.option("--listen", metavar="HOST:PORT", help="Address of the registry API.")
@click.option("--admin-listen", metavar="HOST:PORT", help="Address of health, metrics and explanations.")
@click.option("--post", "post", hidden=True, help="What a worker process is given by its supervisor.")
def serve_command(
    config: Path | None, upstream: str | None, listen: str | None, admin_listen: str | None, post: str | None
) -> None:
    """Run the proxy until SIGTERM or Ctrl-C; SIGHUP loads the configuration anew."""

    def load_again() -> Settings:
        return _loaded(config, upstream, listen=listen, admin_listen=admin_listen)

    settings = _settings(config, upstream, listen=listen, admin_listen=admin_listen)
    serving.allow_files()
    accesses = configure_logging(level=getattr(logging, settings.log_level.upper()))
    watched = config if settings.watch else None
    workers = settings.workers or min(serving.cores(), MOST_WORKERS)
    if post is not None:
        _run(serving.run(settings, load_again, watched, accesses, Post.parse(post)))
    elif workers == 1:
        _run(serving.run(settings, load_again, watched, accesses))
    else:
        status = _run(serving.supervise(settings, workers), loop=asyncio.run)
        if status:
            sys.exit(status)
    for number in serving.HEARD:
        # The loop took its handlers along; a second signal now must not turn a clean exit into a killed process.
        signal.signal(number, signal.SIG_IGN)


@main.command("check")
@_config
@_upstream
@_as_json
@click.option("--schema", is_flag=True, help="Write the JSON Schema of the configuration instead.")
def check_command(config: Path | None, upstream: str | None, *, as_json: bool, schema: bool) -> None:
    """Check a configuration without starting."""
    if schema:
        _write_json(json_schema())
        return
    settings = _settings(config, upstream, as_json=as_json)
    _run(_open_and_close(settings))
    if as_json:
        _write_json({"ok": True, "problems": []})
        return
    rules = f"{len(settings.rule)} rule{'s' if len(settings.rule) != 1 else ''}" if settings.rule else "no rule written"
    click.echo(f"{config or 'configuration'}: ok: {', '.join(u.name for u in settings.upstream)}; {rules}")
    for rule in settings.rules:
        click.echo(f"  {rule.match}  <-  {rule.made_of}")


@main.command("explain")
@click.argument("image")
@_config
@_upstream
@_as_json
def explain_command(image: str, config: Path | None, upstream: str | None, *, as_json: bool) -> None:
    """Ask every source of IMAGE and say what came of it, and why."""
    settings = _settings(config, upstream)
    configure_logging(level=logging.ERROR)
    explanation = _run(_explain(settings, image))
    if as_json:
        _write_json(explanation)
    else:
        from proxy import showing  # noqa: PLC0415 - rich is 5 MiB that a service never needs

        showing.show_explanation(showing.console(), explanation)
    if explanation.verdict == "refuse":
        sys.exit(_FAILED)


@main.command("inspect", short_help="Show the index that IMAGE stands for.")
@click.argument("image")
@_config
@_upstream
@_as_json
def inspect_command(image: str, config: Path | None, upstream: str | None, *, as_json: bool) -> None:
    """Show the index that IMAGE stands for, byte for byte as clients get it."""
    settings = _settings(config, upstream)
    configure_logging(level=logging.ERROR)
    manifest = _run(_manifest(settings, image))
    if as_json:
        described = manifest.descriptor
        _write_json(
            {
                "mediaType": described.media_type,
                "digest": described.digest,
                "size": described.size,
                "manifest": orjson.loads(manifest.body),
            }
        )
    else:
        click.echo(manifest.body, nl=sys.stdout.isatty())


@main.command("publish", short_help="Freeze IMAGE: push the index that it stands for.")
@click.argument("image")
@click.option("--to", "to", metavar="REFERENCE", help="Name to publish as; without it, IMAGE itself.")
@click.option("--dry-run", is_flag=True, help="Show what would be copied, and copy nothing.")
@click.option("--partial", is_flag=True, help="Publish also an index that lacks a platform.")
@click.option("--remerge", is_flag=True, help="Merge the sources anew where IMAGE itself is an index already.")
@_config
@_upstream
@_as_json
def publish_command(
    image: str,
    to: str | None,
    config: Path | None,
    upstream: str | None,
    *,
    dry_run: bool,
    partial: bool,
    remerge: bool,
    as_json: bool,
) -> None:
    """Freeze IMAGE: push the index that it stands for, byte for byte, with everything that it names.

    What is there already is left alone, so that a run that broke off is gone on with by running it again.
    """
    settings = _settings(config, upstream)
    configure_logging(level=logging.ERROR)
    source = _local(image, settings)
    target = _local(to or image, settings)
    wanted = _Wanted(source, target, partial=partial, dry_run=dry_run, as_json=as_json)
    _run(_publish(_remerging(settings) if remerge else settings, wanted))


@main.command("demo", short_help="See a merge, with no registry at hand.")
@click.option("--once", is_flag=True, help="Show and exit.")
def demo_command(*, once: bool) -> None:
    """See a merge: two single-arch images in a registry in memory, and the proxy in front of it."""
    configure_logging(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="manifuse-demo-") as folder:
        _run(_demo(Path(folder), once=once))


async def _open_and_close(settings: Settings) -> None:
    async with build(settings, on_disk=False):
        pass


async def _explain(settings: Settings, image: str) -> Explanation:
    async with build(settings) as site:
        return await site.explain(_local(image, settings))


async def _manifest(settings: Settings, image: str) -> Manifest:
    async with build(settings) as site:
        return await site.manifest(_local(image, settings))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be published, and how it is told."""

    image: str
    to: str
    partial: bool
    dry_run: bool
    as_json: bool


async def _publish(settings: Settings, wanted: _Wanted) -> None:
    from proxy import publishing, showing  # noqa: PLC0415 - as above

    served: Digest | None = None
    async with build(settings) as site:
        publication = await site.publication(wanted.image, wanted.to, partial=wanted.partial)
        if not wanted.as_json:
            publishing.show_publication(showing.console(), publication)
        if not wanted.dry_run:
            with publishing.watching(showing.console(), publication, quiet=wanted.as_json) as watch:
                served = await site.publisher.run(publication, watch)
    digest = publication.manifest.descriptor.digest
    if wanted.as_json:
        _write_json({**publishing.described(publication), "published": not wanted.dry_run, "served": served})
    elif served is not None:
        click.echo(f"published {wanted.to}: {digest}")
        if served != digest:
            click.echo(f"note: clients get {served} under that name: its rule merges something else", err=True)


def _remerging(settings: Settings) -> Settings:
    """Let what is at the virtual names themselves count for nothing, so that an index there is made anew."""
    rules = settings.rule or (RuleSettings(match="**", conventions=DEFAULT_CONVENTIONS),)
    ignoring = tuple(rule.model_copy(update={"base": Base.IGNORE}) for rule in rules)
    return settings.model_copy(update={"rule": ignoring})


async def _demo(folder: Path, *, once: bool) -> None:
    from proxy import demo, showing  # noqa: PLC0415 - as above
    from proxy.memory import MemoryRegistry  # noqa: PLC0415 - as above

    stop = serving.told(*serving.STOPPING)
    registry = MemoryRegistry()
    pushed = demo.fill(registry)
    async with serve_registry(registry, ("127.0.0.1", 0)) as address:
        upstream = UpstreamSettings.model_validate({"name": "memory", "url": serving.url(address)})
        cache = CacheSettings.model_validate({"dir": folder})
        settings = Settings.model_validate({"upstream": [upstream], "cache": cache})
        async with _served(settings) as running:
            index = await running.site.manifest(f"{demo.VIRTUAL}:{demo.TAG}")
            lines = _lines_to_try(running, str(demo.VIRTUAL), str(demo.TAG))
            showing.show_demo(showing.console(), pushed, index, lines, once=once)
            if not once:
                await stop.wait()


@asynccontextmanager
async def _served(settings: Settings) -> AsyncIterator[Running]:
    """Serve on the usual ports, or on free ones where those are taken, perhaps by a real manifuse."""
    async with AsyncExitStack() as stack:
        try:
            running = await stack.enter_async_context(serve(settings))
        except OSError:
            free = {"listen": ("127.0.0.1", 0), "admin_listen": ("127.0.0.1", 0)}
            running = await stack.enter_async_context(serve(settings.model_copy(update=free)))
        yield running


def _settings(config: Path | None, upstream: str | None, *, as_json: bool = False, **flags: str | None) -> Settings:
    """Load the settings, the flags over them, or exit with every problem."""
    try:
        return _loaded(config, upstream, **flags)
    except SettingsInvalid as invalid:
        _refuse(invalid, as_json=as_json)


def _loaded(config: Path | None, upstream: str | None, **flags: str | None) -> Settings:
    """Load the settings, the flags over them. Raises `SettingsInvalid`."""
    overrides: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    if upstream is not None:
        overrides["upstream"] = [{"name": _UPSTREAM_NAME, "url": upstream, "default": True}]
    settings = load(config, overrides)
    if not settings.upstream:
        expected = "a registry was expected: [[upstream]] or --upstream URL"
        raise SettingsInvalid([Problem(str(config or "configuration"), "upstream", expected)])
    return settings


def _refuse(invalid: SettingsInvalid, *, as_json: bool = False) -> NoReturn:
    if as_json:
        problems = [{"where": p.where, "key": p.key, "expected": p.expected} for p in invalid.problems]
        _write_json({"ok": False, "problems": problems})
    else:
        for problem in invalid.problems:
            click.echo(str(problem), err=True)
    sys.exit(_USAGE)


def _run(work: Coroutine[Any, Any, Any], loop: Callable[[Coroutine[Any, Any, Any]], Any] = uvloop.run) -> Any:
    """Run *work* to its end; what operators can mend becomes one sentence and an exit status."""
    try:
        return loop(work)
    except SettingsInvalid as invalid:
        _refuse(invalid)
    except RegistryError as error:
        click.echo(f"manifuse: {visible(error.message)}", err=True)
        sys.exit(_FAILED)
    except OSError as error:
        click.echo(f"manifuse: {error}", err=True)
        sys.exit(_FAILED)


def _local(image: str, settings: Settings) -> str:
    """Take an image as clients write it: with this proxy's own address in front, or without."""
    host, port = settings.listen
    for name in (host, "localhost"):
        image = image.removeprefix(f"{name}:{port}/")
    return image


def _write_json(value: object) -> None:
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def _lines_to_try(running: Running, repository: str, tag: str) -> list[str]:
    host, port = running.registry
    image = f"{host}:{port}/{repository}:{tag}"
    return [
        f"docker run --rm {image}",
        f"docker pull --platform linux/arm64 {image}",
        f"podman pull --tls-verify=false --arch arm64 {image}",
        f"skopeo inspect --raw --tls-verify=false docker://{image}",
        f"curl -s {serving.url(running.registry)}/v2/{repository}/manifests/{tag}",
        f"curl -s {serving.url(running.admin)}/explain/{repository}:{tag}",
    ]
