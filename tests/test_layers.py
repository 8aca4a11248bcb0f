"""Which libraries each package may touch. The direction among our own packages is import-linter's business."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "proxy"

# Only these packages may import the library.
ONLY_IN = {
    "aiohttp": {"web", "upstream", "app"},
    "aiofiles": {"store"},
    "uvloop": {"cli"},
    "pydantic": {"settings"},
    "pydantic_settings": {"settings"},
    "bcrypt": {"access"},
    "click": {"cli"},
    "cryptography": {"access"},
    "jwt": {"access"},
    "rich": {"publishing", "showing"},
}
# What a pure package may import of the standard library and of others.
PURE = {
    "__future__",
    "abc",
    "base64",
    "binascii",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "orjson",
    "re",
    "string",
    "typing",
    "urllib",
}


def imports(path: Path) -> set[str]:
    """Return the top-level names that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def package(path: Path) -> str:
    """Return the package or module below `proxy` that *path* belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_library_stays_in_its_package(path: Path) -> None:
    """Network, disk and terminal libraries are imported at the edges that need them, and nowhere else."""
    strays = {name for name in imports(path) if package(path) not in ONLY_IN.get(name, {package(path)})}

    assert not strays


@pytest.mark.parametrize("path", [p for p in MODULES if package(p) in {"oci", "merge"}], ids=lambda p: p.stem)
def test_the_pure_packages_touch_nothing(path: Path) -> None:
    """`oci` and `merge` import no clock, event loop, disk, network or randomness."""
    assert imports(path) - PURE <= {"proxy"}


def test_the_table_names_real_modules() -> None:
    """Every name in the table is a module, so that a typing error can't open it."""
    assert {name for names in ONLY_IN.values() for name in names} <= {package(path) for path in MODULES}
    assert {name for name in PURE if name != "orjson"} <= sys.stdlib_module_names


def test_a_service_loads_nothing_that_only_commands_need() -> None:
    """What draws tables and tracebacks, and the demo's registry, would take 5 MiB of every process."""
    heavy = {"rich", "pygments", "tarfile", "proxy.demo", "proxy.memory", "bcrypt", "cryptography", "jwt"}
    code = f"import sys, proxy.cli; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)

    assert done.stdout.split() == []
