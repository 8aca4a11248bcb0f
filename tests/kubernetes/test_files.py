"""What `config/kubernetes` shows: the API takes it, its parts, the image and its README agree."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import ValidationError, validate  # type: ignore[import-untyped]
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]
from packaging.version import Version

from dockerfile import pairs, told
from pods import FILES, FOLDER, README, REGISTRY, Container, Pod, documents, fenced, pods, the
from proxy import __version__
from proxy.settings.keys import Settings

RESULTS = (FOLDER.parent.parent / "loadtest" / "RESULTS.md").read_text()
IMAGE = f"{REGISTRY}/manifuse:{__version__}"
DOWNLOADS = {"node-mirror": 32, "service": 200, "sidecar": 16}  # at once, that the memory has to be enough for
GOOD_KEYS = {"docker-registry": [".dockerconfigjson"], "tls": ["tls.crt", "tls.key"]}

_found = re.search(r"They need Kubernetes (1\.\d+) or newer", README)
assert _found
VERSIONS = sorted({each for each in all_versions() if Version(each) >= Version(_found[1])}, key=Version)

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
each_pod = pytest.mark.parametrize("pod", list(pods()), ids=lambda pod: pod.file.stem)
each_container = pytest.mark.parametrize(
    "container",
    [pytest.param(each, id=f"{pod.file.stem}-{name}") for pod in pods() for name, each in pod.containers.items()],
)


def secrets() -> dict[tuple[str, str], list[str]]:
    """Return the keys of each secret that the README's commands make, by namespace and name."""
    commands = re.findall(r"kubectl (?:-n (\S+) )?create secret (\S+) (\S+)(.*)", "".join(fenced("sh")))
    return {
        (where, name): GOOD_KEYS.get(kind) or re.findall(r"--from-file=(\S+)", rest)
        for where, kind, name, rest in commands
    }


def quantity(text: str) -> float:
    """Return bytes, of a quantity as Kubernetes writes it."""
    number, unit = text[:-2], text[-2:]
    return float(number) * {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def measured(row: str) -> float:
    """Return the bytes that the load test's table has in a row."""
    found = re.search(rf"^\| {re.escape(row)} \|[^|]*\| ([\d.]+) MiB ", RESULTS, re.MULTILINE)
    assert found
    return float(found[1]) * 1024**2


def is_loopback(address: tuple[str, int]) -> bool:
    """Whether nobody else reaches it."""
    return ip_address(address[0]).is_loopback


# What the API takes


@pytest.mark.parametrize("version", VERSIONS)
@each_file
def test_the_api_takes_every_document(file: Path, version: str) -> None:
    """Each document fits its schema, in every version of Kubernetes that is said to do, and has no key besides."""
    assert documents(file)
    for document in documents(file):
        validate(document, version, strict=True)


def test_a_misspelt_key_would_be_seen() -> None:
    """The schemas are those of the whole document, down to a probe's path."""
    document = yaml.safe_load(yaml.safe_dump(the("node-mirror").document))
    probe = document["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]
    probe["httpGet"]["paths"] = probe["httpGet"].pop("path")

    with pytest.raises(ValidationError, match="'paths' was unexpected"):
        validate(document, VERSIONS[-1], strict=True)


@each_file
def test_a_file_is_complete(file: Path) -> None:
    """A file brings the namespace that its documents are in, first, and nothing is said twice."""
    found = documents(file)
    made = {each["metadata"]["name"] for each in found if each["kind"] == "Namespace"}
    places = {each["metadata"].get("namespace", "") for each in found if each["kind"] != "Namespace"}
    names = [(each["kind"], each["metadata"]["name"]) for each in found]

    assert places == (made or {""})
    assert found[0]["kind"] == ("Namespace" if made else "ConfigMap")
    assert len(set(names)) == len(names)


def test_files_can_be_used_beside_each_other() -> None:
    """No file changes what another one has made."""
    names = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for file in FILES
        for each in documents(file)
    ]

    assert len(set(names)) == len(names)


# Parts and the image agree


@each_pod
def test_what_a_pod_names_is_there(pod: Pod) -> None:
    """Volumes and mounts belong together, and the README's commands make secrets with the keys that are read."""
    mounted = [mounts for container in pod.containers.values() for mounts in container.mounts.values()]
    wanted = {each["secret"]["secretName"]: name for name, each in pod.volumes.items() if "secret" in each}
    made = {name: keys for (where, name), keys in secrets().items() if where == pod.namespace}
    read = set(re.findall(r'"(/run/secrets/[^"]+)"', pod.configuration))
    paths = {path: name for path, name in pod.manifuse.mounts.items() if name in wanted.values()}
    there = {
        f"{path}/{key}"
        for path, name in paths.items()
        for secret, volume in wanted.items()
        if volume == name
        for key in made[secret]
    }

    assert set(mounted) == set(pod.volumes)
    assert {each["name"] for each in pod.spec["imagePullSecrets"]} <= set(made)
    assert read == there


@each_container
def test_no_mount_is_within_another(container: Container) -> None:
    """A folder can't be made in a volume that is read-only."""
    paths = [Path(path) for path in container.mounts]

    assert not [path for path in paths if set(path.parents) & set(paths)]


@each_pod
def test_the_image_finds_what_it_expects(pod: Pod) -> None:
    """The configuration is where the image's command reads it, the cache where its environment says, for its user."""
    user, group = map(int, told("USER")[0].value.split(":"))
    where = {name: path for path, name in pod.manifuse.mounts.items()}
    (config,) = (each["configMap"]["name"] for each in pod.volumes.values() if "configMap" in each)
    (data,) = (each["data"] for each in documents(pod.file) if each["kind"] == "ConfigMap")

    assert [f"{where['config']}/{key}" for key in data] == [told("CMD")[0].words[-1]]
    assert config == "manifuse"
    assert where["cache"] == pairs("ENV")["MANIFUSE_CACHE__DIR"]
    context = pod.spec["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, group, group)
    assert f"docker buildx build --platform linux/amd64,linux/arm64 --tag {IMAGE} --push ." in README


@each_pod
def test_the_image_isn_t_to_be_had_from_itself(pod: Pod) -> None:
    """What runs manifuse, or makes it ready, is the image that the README builds, in the registry itself."""
    ours = [each.spec["image"] for name, each in pod.containers.items() if name != "skopeo"]

    assert set(ours) == {IMAGE}
    assert pod.manifuse.spec.get("imagePullPolicy", "IfNotPresent") == "IfNotPresent"


@each_pod
def test_it_listens_where_it_is_asked(pod: Pod, settings: Settings) -> None:
    """Ports, probes and addresses agree, with the image's environment counted in."""
    ports, probes = pod.manifuse.ports, pod.manifuse.probes
    shown = {"admin": settings.admin_listen[1], "registry": settings.listen[1]}
    host = "127.0.0.1" if is_loopback(settings.admin_listen) else None

    assert ports.items() <= shown.items()
    assert [str(port) for port in sorted(shown.values())] == told("EXPOSE")[0].words
    assert {(each["port"], each.get("host")) for each in probes.values()} == {("admin", host)}
    assert host is None or pod.spec["hostNetwork"]
    assert {name: each["path"] for name, each in probes.items() if name != "readinessProbe"} == {
        "startupProbe": "/readyz",
        "livenessProbe": "/healthz",
    }
    assert ("readinessProbe" in probes) == (pod.manifuse.spec.get("restartPolicy") != "Always")
    assert probes.get("readinessProbe", {"path": "/readyz"})["path"] == "/readyz"


@each_pod
def test_who_is_reached_from_outside_asks_who_is_there(pod: Pod, settings: Settings) -> None:
    """Off loopback there are TLS and a login, and a token for the admin port's pages, or no pages."""
    assert is_loopback(settings.listen) == (settings.access.mode == "open")
    assert is_loopback(settings.listen) or settings.tls.certificate is not None
    assert (pod.file.stem == "service") == (settings.admin_token_file is not None)


@each_pod
def test_it_gets_the_time_to_stop(pod: Pod, settings: Settings) -> None:
    """Nobody is killed before `drain` is over."""
    waits = pod.manifuse.spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {"seconds": 0})["seconds"]

    assert pod.spec["terminationGracePeriodSeconds"] > settings.drain + waits


@each_pod
def test_its_memory_is_what_was_measured(pod: Pod, settings: Settings) -> None:
    """The request is enough for a process at rest, the limit for a full cache and many downloads."""
    resources = pod.manifuse.spec["resources"]
    idle = measured("memory, idle")
    download = measured("streamed blob, memory per transfer with 200 slow readers")
    full = idle + 1.325 * settings.cache.memory + DOWNLOADS[pod.file.stem] * download

    assert quantity(resources["requests"]["memory"]) > idle
    assert quantity(resources["limits"]["memory"]) > full
    assert "cpu" not in resources["limits"]


@each_pod
def test_cached_blobs_fit_into_the_volume(pod: Pod, settings: Settings) -> None:
    """Where blobs are kept, the volume has room for them and the rest, and the node was asked for it."""
    keeps = any(each.blobs == "cache" for each in settings.upstream)
    cache = pod.volumes["cache"].get("emptyDir", {})

    assert keeps == ("sizeLimit" in cache)
    if keeps:
        assert quantity(cache["sizeLimit"]) >= 1.2 * settings.cache.blobs_max
        assert pod.manifuse.spec["resources"]["requests"]["ephemeral-storage"] == cache["sizeLimit"]


@each_container
def test_a_container_has_no_power_that_it_doesn_t_need(container: Container) -> None:
    """Nothing is written but volumes, no power is kept; root are two that make a node ready, with one power at most."""
    root = {"own-cache": ["CHOWN"], "tell-containerd": []}
    name = container.spec["name"]

    assert container.security("readOnlyRootFilesystem") is True
    assert container.security("allowPrivilegeEscalation") is False
    assert container.security("capabilities")["drop"] == ["ALL"]
    assert container.security("capabilities").get("add", []) == root.get(name, [])
    assert (container.security("runAsUser") == 0) == (name in root)
    assert container.security("runAsNonRoot") is (name not in root)
    assert container.security("seccompProfile") == {"type": "RuntimeDefault"}
    assert container.pod.spec["automountServiceAccountToken"] is False
    assert container.pod.spec["enableServiceLinks"] is False


@each_file
def test_selectors_find_the_pods_and_ports_have_their_names(file: Path) -> None:
    """Whatever selects means this file's pods, ports have the names that it says; nobody is led to the admin port."""
    (pod,) = (each for each in pods() if each.file == file)
    labels = pod.template.get("metadata", {}).get("labels", {})
    found = {each["kind"]: each["spec"] for each in documents(file) if "spec" in each}
    selectors = [found[kind]["selector"]["matchLabels"] for kind in ("DaemonSet", "Deployment") if kind in found]
    if file.stem == "service":
        selectors += [found["Service"]["selector"], found["PodDisruptionBudget"]["selector"]["matchLabels"]]
        selectors += [found["NetworkPolicy"]["podSelector"]["matchLabels"]]
        selectors += [each["labelSelector"]["matchLabels"] for each in pod.spec["topologySpreadConstraints"]]
        allowed = {rule["ports"][0]["port"]: "from" in rule for rule in found["NetworkPolicy"]["ingress"]}

        assert [each["targetPort"] for each in found["Service"]["ports"]] == ["registry"]
        assert allowed == {"registry": False, "admin": True}
        assert set(allowed) == set(pod.manifuse.ports)

    assert all(each and each.items() <= labels.items() for each in selectors)
    assert bool(selectors) == (pod.document["kind"] != "Job")


# What the README says


def test_every_file_is_in_the_table() -> None:
    """The README says of each file what it is for."""
    assert [f"{name}" for name in re.findall(r"^\| `(\S+\.yaml)` \|", README, re.MULTILINE)] == [
        file.name for file in FILES
    ]


def test_commands_name_what_there_is() -> None:
    """Files that are applied, workloads, namespaces and containers in commands are those of the files."""
    comments = "".join(re.findall(r"^#     (kubectl.*\n)", "".join(file.read_text() for file in FILES), re.MULTILINE))
    lines = [line for line in ("".join(fenced("sh")) + comments).splitlines() if line.startswith("kubectl")]
    there = {(pod.namespace, f"{pod.document['kind'].lower()}/{pod.document['metadata']['name']}") for pod in pods()}
    named = {
        (where[1] if (where := re.match(r"kubectl -n (\S+)", line)) else "", workload)
        for line in lines
        for workload in re.findall(r"\b(?:daemonset|deployment|job)/\w+", line)
    }
    applied = {name for line in lines for name in re.findall(r"-f (\S+\.yaml)", line)}
    configs = {path for line in lines for path in re.findall(r"--config (\S+)", line)}

    assert named == there
    assert applied == {file.name for file in FILES}
    assert {where for where, _ in secrets()} == {where for where, _ in there}
    assert configs == {told("CMD")[0].words[-1]}


def test_prometheus_finds_the_admin_port() -> None:
    """The README's scrape configuration means the service's pods, from the namespace that the policy lets in."""
    (scrape,) = (yaml.safe_load(block)["scrape_configs"][0] for block in fenced("yaml") if "scrape_configs" in block)
    (relabel,) = scrape["relabel_configs"]
    (policy,) = (each for each in documents(the("service").file) if each["kind"] == "NetworkPolicy")
    (peer,) = policy["spec"]["ingress"][1]["from"]
    let_in = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]

    assert scrape["kubernetes_sd_configs"][0]["namespaces"]["names"] == [the("service").namespace]
    assert relabel["regex"] in the("service").manifuse.ports
    assert f"the namespace `{let_in}`" in README
