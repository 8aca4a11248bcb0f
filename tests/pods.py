"""What `config/kubernetes` describes, read: its documents, its pods, and what each container finds when it starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from dockerfile import pairs, told
from patience import HANGING

FOLDER: Final = Path(__file__).parent.parent / "config" / "kubernetes"
FILES: Final = sorted(FOLDER.glob("*.yaml"))
README: Final = (FOLDER / "README.md").read_text()
REGISTRY: Final = "registry.example"  # the name that they have for the reader's own

Document = dict[str, Any]


def documents(file: Path) -> list[Document]:
    """Return the documents of a file, as `kubectl apply` reads them."""
    return [each for each in yaml.safe_load_all(file.read_text()) if each is not None]


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod, and where its volumes are mounted."""

    spec: Document
    pod: Pod

    @property
    def mounts(self) -> dict[str, str]:
        """The volumes' names by where they are mounted."""
        return {each["mountPath"]: each["name"] for each in self.spec.get("volumeMounts", [])}

    @property
    def environment(self) -> dict[str, str]:
        """The image's environment, and the pod's over it."""
        image = pairs("ENV") if self.runs_manifuse else {}
        return {**image, **{each["name"]: each["value"] for each in self.spec.get("env", [])}}

    @property
    def runs_manifuse(self) -> bool:
        """Whether it starts what the image starts."""
        return bool(self.spec["name"] == "manifuse")

    @property
    def words(self) -> list[str]:
        """What is run in it."""
        if not self.runs_manifuse:
            return [*self.spec["command"], *self.spec.get("args", [])]
        assert not {"command", "args"} & set(self.spec)
        return [*told("ENTRYPOINT")[0].words, *told("CMD")[0].words]

    @property
    def ports(self) -> dict[str, int]:
        """Its ports by name."""
        return {each["name"]: each["containerPort"] for each in self.spec.get("ports", [])}

    @property
    def probes(self) -> dict[str, Document]:
        """What is asked of it over HTTP, by the probe's name."""
        return {key: value["httpGet"] for key, value in self.spec.items() if key.endswith("Probe")}

    def security(self, key: str) -> Any:
        """Return a word of its own security context, or else of the pod's."""
        return self.spec["securityContext"].get(key, self.pod.spec["securityContext"].get(key))

    def here(self, text: str, root: Path) -> str:
        """Write *text* with all that is mounted below *root* instead of below /."""
        for mounted in sorted(self.mounts, key=len, reverse=True):
            text = re.sub(rf"(?<![\w.-]){re.escape(mounted)}(?![\w.-])", f"{root}{mounted}", text)
        return text

    def run(self, root: Path) -> subprocess.CompletedProcess[str]:
        """Run it with its volumes below *root*: as its user, if this is root, and with no powers but its own."""
        keep = "".join(f",+{name.lower()}" for name in self.security("capabilities").get("add", []))
        powers = [f"--bounding-set=-all{keep}", "--inh-caps=-all", "--no-new-privs"]
        setpriv = shutil.which("setpriv") if os.geteuid() == 0 else None
        return subprocess.run(
            [*([setpriv, *powers] if setpriv else []), *(self.here(word, root) for word in self.words)],
            env={"PATH": os.environ["PATH"], **self.environment},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=HANGING,
            check=False,
        )


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, and the document that describes it."""

    file: Path
    document: Document

    @property
    def namespace(self) -> str:
        """Where it is; empty for wherever it is applied."""
        return str(self.document["metadata"].get("namespace", ""))

    @property
    def template(self) -> Document:
        """What its controller makes pods of."""
        found: Document = self.document["spec"]["template"]
        return found

    @property
    def spec(self) -> Document:
        """What it is."""
        found: Document = self.template["spec"]
        return found

    @property
    def containers(self) -> dict[str, Container]:
        """All of them by name, the first to start first."""
        each = [*self.spec.get("initContainers", []), *self.spec["containers"]]
        return {spec["name"]: Container(spec, self) for spec in each}

    @property
    def manifuse(self) -> Container:
        """The one that serves."""
        return self.containers["manifuse"]

    @property
    def volumes(self) -> dict[str, Document]:
        """All of them by name."""
        return {each["name"]: each for each in self.spec["volumes"]}

    @property
    def configuration(self) -> str:
        """The manifuse.toml that it mounts."""
        (name,) = (each["configMap"]["name"] for each in self.volumes.values() if "configMap" in each)
        (found,) = (each for each in documents(self.file) if each["kind"] == "ConfigMap")
        assert (found["metadata"]["name"], found["metadata"].get("namespace", "")) == (name, self.namespace)
        (text,) = found["data"].values()
        return str(text)


def pods() -> Iterator[Pod]:
    """Yield the pod of each file."""
    for file in FILES:
        (found,) = (each for each in documents(file) if "template" in each.get("spec", {}))
        yield Pod(file, found)


def the(name: str) -> Pod:
    """Return the pod of the file with this name."""
    return next(pod for pod in pods() if pod.file.stem == name)


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put what a secret holds into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def fenced(language: str) -> list[str]:
    """Return the README's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
