"""`manifuse publish` as people and programs see it: what it takes, and how far it has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from proxy.merge.publication import Publication, Step, Way
from proxy.oci.reference import Digest
from proxy.telemetry import visible

_SHOWN: Final = 19  # characters of a digest: its algorithm and twelve digits, as docker shows them


def show_publication(console: Console, publication: Publication) -> None:
    """Say what is copied, what is mounted and what is there."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in ("what", "platform", "digest", "bytes", "from", "how"):
        table.add_column(column, justify="right" if column == "bytes" else "left")
    for step in publication.steps:
        platform = visible(str(step.platform)) if step.platform else ""
        where = "/".join(step.source)
        table.add_row(step.kind, platform, f"{step.digest[:_SHOWN]}…", str(step.size), where, step.way)
    described = publication.manifest.descriptor
    target = "/".join(publication.target)
    console.print(f"{target}:{publication.tag}  <-  {described.digest}", soft_wrap=True)
    console.print(f"{visible(described.media_type)}, {described.size} bytes", style="dim")
    console.print(table)
    for warning in publication.warnings:
        console.print(f"note: {visible(warning)}", style="yellow")
    ways = Counter(step.way for step in publication.steps)
    moved = sum(step.size for step in publication.steps if step.way is Way.COPY)
    counts = ", ".join(f"{count} {way}" for way, count in sorted(ways.items()))
    console.print(f"{counts}; {decimal(moved)} to copy")


def described(publication: Publication) -> dict[str, Any]:
    """Return the same for programs."""
    manifest = publication.manifest.descriptor
    return {
        "target": f"{'/'.join(publication.target)}:{publication.tag}",
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.size,
        "warnings": list(publication.warnings),
        "steps": [
            {
                "kind": step.kind,
                "digest": step.digest,
                "size": step.size,
                "platform": str(step.platform) if step.platform else None,
                "from": "/".join(step.source),
                "how": str(step.way),
            }
            for step in publication.steps
        ],
    }


@contextmanager
def watching(console: Console, publication: Publication, *, quiet: bool) -> Iterator[Callable[[Step, int], None]]:
    """Show a bar for all of it and one for each blob that is under way; nothing where nobody looks."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    )
    with progress:
        everything = progress.add_task("all", total=sum(step.size for step in publication.steps))
        tasks: dict[Digest, TaskID] = {}
        left = {step.digest: step.size for step in publication.steps}

        def watch(step: Step, count: int) -> None:
            if step.digest not in tasks:
                tasks[step.digest] = progress.add_task(f"{step.kind} {step.digest[:_SHOWN]}…", total=step.size)
            left[step.digest] -= count
            progress.advance(everything, count)
            progress.update(tasks[step.digest], advance=count, visible=left[step.digest] > 0)

        yield watch
