"""Answers for people, in tables and colours. Commands import it when they need it: rich is 5 MiB."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy import demo
from proxy.merge.explain import Explanation, Question
from proxy.oci.content import Descriptor, Manifest
from proxy.oci.document import Index, parse
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository
from proxy.telemetry import visible

_WIDE: Final = 160  # columns where the output isn't a terminal: digests stay on one line


def console() -> Console:
    """Return where people read, as wide as their terminal is. What it is told is no markup unless that is said."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(highlight=False, markup=False, emoji=False, width=width)


def show_explanation(console: Console, explanation: Explanation) -> None:
    """Say what was asked, what came of it, and why."""
    rule = f"{explanation.rule} (match {explanation.match})" if explanation.match != "**" else explanation.rule
    console.print(Text.assemble((explanation.image, "bold"), f" on {explanation.upstream}: {rule}"))
    table = _table("source", "expected", "result", "it says", "becomes", "ms")
    for question in explanation.questions:
        table.add_row(*_answers(question))
    console.print(table)
    for note in explanation.notes:
        console.print(f"note: {visible(note)}", style="yellow")
    console.print(f"{explanation.verdict}: {visible(explanation.reason)}", style="bold")
    if explanation.digest:
        console.print(f"{explanation.digest}  {visible(explanation.media_type)}", soft_wrap=True)


def _answers(question: Question) -> tuple[str | Text, ...]:
    colour = {"found": "green", "absent": "dim"}.get(question.result, "red")
    return (
        question.source,
        question.expected,
        Text(question.result, style=colour),
        visible(question.says) + (f"\n{question.digest[:19]}…" if question.digest else ""),
        visible(", ".join(question.becomes)),
        f"{question.milliseconds:.1f}",
    )


def show_demo(
    console: Console,
    pushed: list[tuple[Repository, Platform, Descriptor]],
    index: Manifest,
    lines: Sequence[str],
    *,
    once: bool,
) -> None:
    """Show what was pushed, what is made of it, and *lines* to try: now, or where it was only *once*, next time."""
    sources = _table("image", "platform", "digest", "bytes")
    for repository, platform, descriptor in pushed:
        sources.add_row(f"{repository}:{demo.TAG}", str(platform), descriptor.digest, str(descriptor.size))
    console.print("Two builds pushed two images, one for each architecture:")
    console.print(sources)
    name = Text(f"{demo.VIRTUAL}:{demo.TAG}", style="bold")
    console.print("manifuse makes one name of them, while it is pulled:", name)
    console.print(_index_table(index))
    console.print(f"{index.descriptor.media_type}\n{index.descriptor.digest}\n", style="dim", soft_wrap=True)
    console.print("To try it, run `manifuse demo` without --once:" if once else "Try it, until Ctrl-C ends it:")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)


def _index_table(index: Manifest) -> Table:
    table = _table("platform", "digest", "bytes")
    document = parse(index.body, index.descriptor.media_type)
    for child in document.manifests if isinstance(document, Index) else ():
        table.add_row(str(child.platform), child.digest, str(child.size))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in {"ms", "bytes"} else "left")
    return table
