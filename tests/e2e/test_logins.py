"""Real clients log in to manifuse, in each mode, and pull what they may: with passwords, tokens and pull secrets."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from e2e.doors import ALIAS, ALICE, BOB, DOORS, MODES, SECRET, TEAM, WRONG, Door, Private, Visitor
from e2e.peers import Account, Client, ClientFailed

PLAIN = "--tls-verify=false"

HOSTS = """\
server = "http://{address}"
[host."http://{address}"]
capabilities = ["pull", "resolve"]
[host."http://{address}".header]
Authorization = "Basic {login}"
"""


def refused(client: Client, *arguments: str) -> str:
    """Run a command that has to fail, and return what the client said."""
    with pytest.raises(ClientFailed) as failed:
        client(*arguments)
    return str(failed.value).lower()


def login(account: Account) -> tuple[str, ...]:
    """Return how docker and podman are told who logs in."""
    return "--username", account.username, "--password", account.password


def image(door: Door, repository: str) -> str:
    """Return what a client is told to pull."""
    return f"{door.proxy.address}/{repository}:1.0"


@pytest.mark.client("docker", "login, logout")
@pytest.mark.parametrize("name", DOORS)
def test_docker_logs_in(name: str, doors: Mapping[str, Door], docker: Client) -> None:
    """`docker login` takes the right password and no other; after `docker logout` nothing is pulled."""
    door = doors[name]
    assert "unauthorized" in refused(docker, "login", *login(WRONG), door.proxy.address)
    docker("login", *login(ALICE), door.proxy.address)
    docker("pull", image(door, TEAM))
    docker("logout", door.proxy.address)

    assert refused(docker, "pull", image(door, TEAM))


@pytest.mark.client("docker", "login, pull")
@pytest.mark.parametrize("mode", MODES)
def test_docker_pulls_what_is_private(mode: str, doors: Mapping[str, Door], private: Private, docker: Client) -> None:
    """`docker pull` gets alice the private image, and bob a refusal."""
    door = doors[mode]
    index = private.wares[SECRET].index
    docker("login", *login(ALICE), door.proxy.address)
    pulled = docker("pull", image(door, SECRET))
    docker("login", *login(BOB), door.proxy.address)
    denied = refused(docker, "pull", image(door, SECRET))
    docker("pull", image(door, TEAM))
    docker("logout", door.proxy.address)

    assert f"Digest: {index}" in pulled
    assert "denied" in denied or "unauthorized" in denied
    # From a token service docker keeps a refresh token, instead of the password.
    assert mode != "token" or "POST refresh_token" in private.tokens.asked


@pytest.mark.client("podman", "login, logout")
@pytest.mark.parametrize("name", DOORS)
def test_podman_logs_in(name: str, doors: Mapping[str, Door], podman: Client, tmp_path: Path) -> None:
    """`podman login` takes the right password and no other; after `podman logout` nothing is pulled."""
    door, logins = doors[name], f"--authfile={tmp_path}/auth.json"
    assert "invalid username/password" in refused(podman, "login", PLAIN, logins, *login(WRONG), door.proxy.address)
    podman("login", PLAIN, logins, *login(ALICE), door.proxy.address)
    podman("pull", PLAIN, logins, image(door, TEAM))
    podman("logout", logins, door.proxy.address)

    assert refused(podman, "pull", PLAIN, logins, image(door, TEAM))


@pytest.mark.client("podman", "login, pull")
@pytest.mark.parametrize("mode", MODES)
def test_podman_pulls_what_is_private(mode: str, doors: Mapping[str, Door], podman: Client, tmp_path: Path) -> None:
    """`podman pull` gets alice the private image, and bob a refusal."""
    door, logins = doors[mode], f"--authfile={tmp_path}/auth.json"
    podman("login", PLAIN, logins, *login(ALICE), door.proxy.address)
    podman("pull", PLAIN, logins, image(door, SECRET))
    podman("login", PLAIN, logins, *login(BOB), door.proxy.address)
    denied = refused(podman, "pull", PLAIN, logins, image(door, SECRET))
    podman("pull", PLAIN, logins, image(door, TEAM))

    assert "denied" in denied or "unauthorized" in denied


@pytest.mark.client("containerd", "pull --user")
@pytest.mark.parametrize("mode", MODES)
def test_containerd_pulls_what_is_private(mode: str, doors: Mapping[str, Door], private: Private, ctr: Client) -> None:
    """`ctr --user` sends what containerd gets of a Kubernetes pull secret; alice's is let in, the others aren't."""
    name = image(doors[mode], SECRET)
    pull = ("images", "pull", "--plain-http", "--snapshotter=native", "--all-platforms")
    denials = [refused(ctr, *pull, "--user", f"{each.username}:{each.password}", name) for each in (BOB, WRONG)]
    ctr(*pull, "--user", f"{ALICE.username}:{ALICE.password}", name)

    assert private.wares[SECRET].index in ctr("content", "list", "--quiet").split()
    assert all(re.search("forbidden|unauthorized|authorization failed", said) for said in denials), denials
    assert mode != "token" or "POST password" in private.tokens.asked


@pytest.mark.client("containerd", "pull with a mirror's header")
@pytest.mark.parametrize("mode", ["htpasswd", "upstream"])
def test_a_mirror_of_containerd_has_a_login(
    mode: str, doors: Mapping[str, Door], private: Private, ctr: Client, tmp_path: Path
) -> None:
    """A `hosts.toml` with a header lets a node in whose mirror this is, whatever its pods send to the registry."""
    (tmp_path / ALIAS).mkdir()
    header = base64.b64encode(f"{ALICE.username}:{ALICE.password}".encode()).decode()
    text = HOSTS.format(address=doors[mode].proxy.address, login=header)
    (tmp_path / ALIAS / "hosts.toml").write_text(text)
    options = ("--hosts-dir", str(tmp_path), "--snapshotter=native")
    ctr("images", "pull", *options, "--all-platforms", f"{ALIAS}/{SECRET}:1.0")

    assert private.wares[SECRET].index in ctr("content", "list", "--quiet").split()


@pytest.mark.client("skopeo", "inspect, copy --creds")
@pytest.mark.parametrize("mode", MODES)
def test_skopeo_copies_what_is_private(
    mode: str, doors: Mapping[str, Door], private: Private, skopeo: Client, tmp_path: Path
) -> None:
    """`skopeo --creds` sees alice's bytes and copies all of them; bob, and a wrong password, are refused."""
    source = f"docker://{image(doors[mode], SECRET)}"
    creds = {each: f"{each.username}:{each.password}" for each in (ALICE, BOB, WRONG)}
    seen = skopeo("inspect", "--raw", PLAIN, "--creds", creds[ALICE], source)
    copied = ("copy", "--all", "--preserve-digests", "--src-tls-verify=false")
    skopeo(*copied, "--src-creds", creds[ALICE], source, f"dir:{tmp_path}/copy")
    denials = [refused(skopeo, "inspect", "--raw", PLAIN, "--creds", creds[each], source) for each in (BOB, WRONG)]

    assert seen.encode() == private.wares[SECRET].things[f"/v2/{SECRET}/manifests/1.0"]
    assert len(list(tmp_path.glob("copy/*.manifest.json"))) == 2
    assert all("denied" in said or "unauthorized" in said or "invalid username/password" in said for said in denials)


@pytest.mark.client("skopeo", "inspect with a pull secret")
@pytest.mark.parametrize("mode", MODES)
def test_a_pull_secret_of_kubernetes_lets_in(
    mode: str, doors: Mapping[str, Door], private: Private, skopeo: Client, tmp_path: Path
) -> None:
    """The `.dockerconfigjson` that `kubectl create secret docker-registry` writes is a file of logins."""
    door = doors[mode]
    both = base64.b64encode(f"{ALICE.username}:{ALICE.password}".encode()).decode()
    entry = {"username": ALICE.username, "password": ALICE.password, "email": "alice@example", "auth": both}
    secret = tmp_path / ".dockerconfigjson"
    secret.write_text(json.dumps({"auths": {door.proxy.address: entry}}))
    seen = skopeo("inspect", "--raw", PLAIN, f"--authfile={secret}", f"docker://{image(door, SECRET)}")

    assert seen.encode() == private.wares[SECRET].things[f"/v2/{SECRET}/manifests/1.0"]


@pytest.mark.client("docker", "login, push")
@pytest.mark.parametrize("mode", MODES)
def test_docker_pushes_where_it_may(mode: str, doors: Mapping[str, Door], private: Private, docker: Client) -> None:
    """Alice pushes into her team's namespace; bob, who may only pull there, is refused, and nothing has come there."""
    door = doors[mode]
    docker("login", *login(ALICE), door.proxy.address)
    docker("pull", image(door, TEAM))
    pushed = {who: f"team/by-{who}-{mode}" for who in ("alice", "bob")}
    for repository in pushed.values():
        docker("tag", image(door, TEAM), image(door, repository))
    docker("push", image(door, pushed["alice"]))
    docker("login", *login(BOB), door.proxy.address)
    denied = refused(docker, "push", image(door, pushed["bob"]))
    docker("logout", door.proxy.address)
    there = {who: Visitor(door.proxy, ALICE).get(f"/v2/{name}/manifests/1.0").status for who, name in pushed.items()}

    assert "denied" in denied or "unauthorized" in denied
    assert there == {"alice": 200, "bob": 404}


@pytest.mark.client("skopeo", "copy --dest-creds")
@pytest.mark.parametrize("mode", MODES)
def test_skopeo_copies_to_where_it_may(mode: str, doors: Mapping[str, Door], skopeo: Client) -> None:
    """An image of alice's goes to another repository of hers, and to none with bob's credentials."""
    door = doors[mode]
    copy = ("copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
    creds = {each.username: f"{each.username}:{each.password}" for each in (ALICE, BOB)}
    target = {who: f"secret/copied-by-{who}-{mode}" for who in creds}
    source = ("--src-creds", creds["alice"], f"docker://{image(door, f'{SECRET}-x86')}")
    skopeo(*copy, *source, "--dest-creds", creds["alice"], f"docker://{image(door, target['alice'])}")
    refused(skopeo, *copy, *source, "--dest-creds", creds["bob"], f"docker://{image(door, target['bob'])}")
    there = {who: Visitor(door.proxy, ALICE).get(f"/v2/{name}/manifests/1.0").status for who, name in target.items()}

    assert there == {"alice": 200, "bob": 404}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_mounted_from_where_the_caller_may_not_read(
    mode: str, doors: Mapping[str, Door], private: Private
) -> None:
    """Bob, who may push to a namespace of his own, brings no private layer there, though the registry would."""
    door, layers = doors[mode], {name: private.wares[name].layer for name in (TEAM, SECRET)}
    bob, mine = Visitor(door.proxy, BOB), f"bob/{mode}"
    statuses = {}
    for name, digest in layers.items():
        source = f"{name}-arm"
        uploads = f"/v2/{mine}/blobs/uploads/?mount={digest}&from={source}"
        statuses[name] = bob.get(uploads, "POST", also=f"repository:{source}:pull").status
    there = {name: bob.get(f"/v2/{mine}/blobs/{digest}").status for name, digest in layers.items()}

    assert statuses[TEAM] == 201
    assert statuses[SECRET] in (202, 403)  # "send it yourself", or a registry's own no
    assert there == {TEAM: 200, SECRET: 404}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_mounted_by_a_form(mode: str, doors: Mapping[str, Door], private: Private) -> None:
    """The registry reads a mount in the body of a form as well, with credentials that aren't bob's."""
    door, secret = doors[mode], private.wares[SECRET].layer
    bob, mine, source = Visitor(door.proxy, BOB), f"bob/form-{mode}", f"{SECRET}-arm"
    forms = {
        "application/x-www-form-urlencoded": f"mount={secret}&from={source}",
        "multipart/form-data; boundary=x": "".join(
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in (("mount", secret), ("from", source))
        )
        + "--x--\r\n",
    }
    uploads = f"/v2/{mine}/blobs/uploads/"
    begun = [bob.get(uploads, "POST", form.encode(), kind=kind).status for kind, form in forms.items()]

    assert set(begun) <= {202, 403}  # "send it yourself", or a registry's own no
    assert bob.get(f"/v2/{mine}/blobs/{secret}").status == 404
