"""What the operator's manual says of metrics, events, folders and paths is what there is."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry import Metrics
from proxy.web import status

ROOT = Path(__file__).parent.parent
MANUAL = (ROOT / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    """Return the part of the manual under a heading."""
    return MANUAL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(title: str) -> set[str]:
    """Return what stands in code in the first column of a section's table."""
    rows = re.findall(r"^\| (`[^|]+`) \|", section(title), re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def test_the_manual_has_every_metric_with_its_labels() -> None:
    """Each metric has a row, no row is of something else, and the labels are those that it has."""
    metrics = [each for each in vars(Metrics()).values() if hasattr(each, "_labelnames")]
    rows = dict(re.findall(r"^\| `(manifuse_\w+)` \| ([^|]*?) ?\| ", section("Metrics"), re.MULTILINE))
    labels = {
        family.name + ("_total" if family.type == "counter" else ""): ", ".join(f"`{n}`" for n in each._labelnames)
        for each in metrics
        for family in each.describe()
    }

    assert rows == labels


def test_every_metric_that_is_rendered_is_ours() -> None:
    """Nothing but what the manual names is told to Prometheus."""
    rendered = text_string_to_metric_families(Metrics().render().decode())
    named = first_cells("Metrics")

    assert {each.name for each in rendered} == {name.removesuffix("_total") for name in named}


def test_the_manual_has_every_event() -> None:
    """Each event that is logged has a row, and no row is of something else."""
    sources = [path.read_text() for path in (ROOT / "proxy").rglob("*.py")]
    logged = {
        event
        for text in sources
        for event in re.findall(r'_(?:log|access)\.(?:debug|info|warning|error|exception)\(\s*"([^"]+)"', text)
    }
    named = first_cells("Logs")
    looped = {"partial", "platform mismatch", "platform clash", "source left out"}

    assert named == logged | looped


def test_the_manual_has_every_page_of_the_admin_port() -> None:
    """The paths in the manual's table are those that the admin port says it has."""
    assert first_cells("Probes") == set(re.split(r", | and ", status._PAGES))


def test_the_manual_has_every_folder() -> None:
    """The folders below the cache's are those that its module describes."""
    store = (ROOT / "proxy" / "store" / "disk.py").read_text()
    described = {name.split("/")[0] for name in re.findall(r"^    <dir>/(\S+)", store, re.MULTILINE)}

    assert {name.split("/")[0] for name in first_cells("What is on disk")} == described
