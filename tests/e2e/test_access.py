"""Who may pull what through manifuse, in each mode, in front of a private registry: the whole matrix, hot and cold."""

import json
from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from e2e import peers
from e2e.doors import (
    ALIAS,
    ALICE,
    BOB,
    DOORS,
    MODES,
    RIGHTS,
    SECRET,
    STRANGER,
    TEAM,
    WRONG,
    Door,
    Private,
    Visitor,
    opened,
)
from e2e.peers import Account, Workshop, eventually
from e2e.tokenserver import token_auth

WHO: Mapping[str, Account | None] = {
    "alice": ALICE,
    "bob": BOB,
    "wrong password": WRONG,
    "unknown user": STRANGER,
    "nobody": None,
}


@pytest.mark.parametrize("repository", [TEAM, SECRET])
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", DOORS)
def test_everybody_may_pull_what_is_theirs(
    name: str, who: str, repository: str, doors: Mapping[str, Door], private: Private
) -> None:
    """By tag, index digest, child digest and blob, and by the names of the sources; tags are listed to the same."""
    door, things = doors[name], private.wares[repository].things
    visitor = Visitor(door.proxy, WHO[who])
    seen = {path: visitor.get(path) for path in things}

    if door.lets(WHO[who], repository):
        assert {path: answer.body for path, answer in seen.items()} == things
    else:
        refusal = door.refusal if who == "bob" else 401
        assert {path: answer.status for path, answer in seen.items()} == dict.fromkeys(things, refusal)


@pytest.mark.parametrize("repository", [TEAM, SECRET])
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", DOORS)
def test_referrers_are_listed_to_those_who_may_pull(
    name: str, who: str, repository: str, doors: Mapping[str, Door], private: Private
) -> None:
    """Others see none: a registry that refuses the virtual name may just not have it, so that isn't always an error."""
    door, (path, listed) = doors[name], private.wares[repository].referrers
    seen = Visitor(door.proxy, WHO[who]).get(path)

    if door.lets(WHO[who], repository):
        assert seen.body == listed
        assert len(json.loads(listed)["manifests"]) == 1
    else:
        assert seen.status in (401, 403) or json.loads(seen.body)["manifests"] == []


@pytest.mark.parametrize("name", DOORS)
def test_a_login_is_asked_for(name: str, doors: Mapping[str, Door]) -> None:
    """`GET /v2/` is how clients find out whether, and how, to log in."""
    door = doors[name]
    statuses = {who: Visitor(door.proxy, account).get("/v2/").status for who, account in WHO.items()}

    assert statuses == {who: 200 if account in (ALICE, BOB) else 401 for who, account in WHO.items()}


@pytest.mark.parametrize("name", DOORS)
def test_a_digest_is_no_permission(name: str, doors: Mapping[str, Door], private: Private) -> None:
    """What bob may not have isn't found under a name that he may use either, though he knows every digest of it."""
    things = private.wares[SECRET].digests
    visitor = Visitor(doors[name].proxy, BOB)
    seen = {path: visitor.get(path.replace(SECRET, TEAM)).status for path in things}

    assert seen == dict.fromkeys(things, 404)


@pytest.mark.parametrize("mode", MODES)
def test_a_right_holds_whichever_way_one_comes(mode: str, doors: Mapping[str, Door], private: Private) -> None:
    """By `?ns=`, by the registry's name in front of `/v2/` or of the repository: alice pulls, and bob doesn't."""
    door, ware = doors[mode], private.wares[SECRET]
    ways = [f"/v2/{SECRET}/{{}}?ns={ALIAS}", f"/{ALIAS}/v2/{SECRET}/{{}}", f"/v2/{ALIAS}/{SECRET}/{{}}"]
    wanted = ["manifests/1.0", f"manifests/{ware.index}", f"blobs/{ware.layer}"]
    paths = [way.format(what) for way in ways for what in wanted]
    alice, bob = Visitor(door.proxy, ALICE), Visitor(door.proxy, BOB)
    seen = [(alice.get(path).status, bob.get(path).status) for path in paths]

    assert seen == [(200, door.refusal)] * len(paths)


@pytest.mark.parametrize("who", [ALICE, BOB], ids=lambda who: who.username)
def test_a_merged_tag_is_for_those_who_may_read_all_of_it(who: Account, doors: Mapping[str, Door]) -> None:
    """In mode `upstream`, also when alice has made it hot: half of its images are as good as none."""
    for _ in range(2):
        Visitor(doors["upstream"].proxy, ALICE).get("/v2/team/mixed/manifests/1.0")
    visitor = Visitor(doors["upstream"].proxy, who)
    seen = [visitor.get("/v2/team/mixed/manifests/1.0").status for _ in range(3)]

    assert seen == [200 if who == ALICE else 403] * 3


def test_the_catalog_shows_what_may_be_pulled(doors: Mapping[str, Door]) -> None:
    """In mode `htpasswd` each sees the repositories of their rights."""
    shown = {
        who.username: json.loads(Visitor(doors["htpasswd"].proxy, who).get("/v2/_catalog").body)["repositories"]
        for who in (ALICE, BOB)
    }

    assert {SECRET, f"{SECRET}-x86", TEAM, f"{TEAM}-x86"} <= set(shown["alice"])
    assert TEAM in shown["bob"]
    assert not [repository for repository in shown["bob"] if repository.startswith("secret/")]


@pytest.mark.parametrize(
    ("mode", "blobs"), [("htpasswd", "cache"), ("token", "cache"), ("upstream", "stream"), ("upstream", "cache")]
)
def test_nothing_is_theirs_because_it_is_kept(mode: str, blobs: str, private: Private, workshop: Workshop) -> None:
    """Alice has pulled everything until it came from memory: bob gets nothing of it, neither before nor after (S9)."""
    things = private.wares[SECRET].things
    with opened(private, mode, workshop(mode), blobs=blobs) as door:
        alice, bob = Visitor(door.proxy, ALICE), Visitor(door.proxy, BOB)
        cold = [bob.get(path).status for path in things]
        pulled = [alice.get(path).body for _ in range(3) for path in things]
        hot = [bob.get(path).status for _ in range(2) for path in things]
        again = [alice.get(path).body for path in things]

    assert pulled == [*things.values()] * 3
    assert cold == [door.refusal] * len(things)
    assert hot == cold * 2
    assert again == [*things.values()]


def test_a_right_that_was_taken_away_ends(private: Private, workshop: Workshop) -> None:
    """After `access.ttl` alice is refused, hot or not; what she still may pull, and bob, notice nothing."""
    secret, team = private.wares[SECRET].things, private.wares[TEAM].things
    with opened(private, "upstream", workshop("revoked"), ttl="1s", blobs="cache") as door:
        alice, bob = Visitor(door.proxy, ALICE), Visitor(door.proxy, BOB)
        before = [alice.get(path).body for _ in range(3) for path in secret]
        with private.tokens.changed("alice", {"team/*": RIGHTS["alice"]["team/*"]}):
            ended = eventually(lambda: all(alice.get(path).status == 403 for path in secret))
            after = [alice.get(path).status for _ in range(2) for path in secret]
            others = [visitor.get(path).body for visitor in (alice, bob) for path in team]
        restored = eventually(lambda: [alice.get(path).body for path in secret] == [*secret.values()])

    assert before == [*secret.values()] * 3
    assert ended
    assert after == [403] * len(secret) * 2
    assert others == [*team.values()] * 2
    assert restored


def test_a_permission_outlives_the_registry_by_the_ttl(private: Private, workshop: Workshop) -> None:
    """While the registry is down the last permission counts, then none does; it never makes bob see anything."""
    things = [path for path in private.wares[SECRET].things if not path.endswith("tags/list")]
    with ExitStack() as running:
        with peers.registry(workshop("leaving"), auth=token_auth(private.tokens), data=private.data) as registry:
            visitors = {}
            for ttl in ("60s", "1s"):
                door = opened(private, "upstream", workshop(ttl), registry=registry, ttl=ttl, blobs="cache", retries=0)
                proxy = running.enter_context(door).proxy
                alice, bob = visitors[ttl] = Visitor(proxy, ALICE), Visitor(proxy, BOB)
                assert [alice.get(path).status for path in things] == [200] * len(things)
        alice, bob = visitors["60s"]
        within = {path: alice.get(path).status for path in things}
        never = {path: bob.get(path).status for path in things}
        alice, _ = visitors["1s"]
        ended = eventually(lambda: all(alice.get(path).status == 503 for path in things))
        after = {path: alice.get(path).status for path in things}

    assert within == dict.fromkeys(things, 200)
    assert not {path: status for path, status in never.items() if status < 400}
    assert ended, after
