"""Names for uploads under way: back to where the upstream wants them continued, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from proxy.oci.errors import BadAnswer, UploadUnknown
from proxy.oci.reference import Repository
from proxy.upstream.uploads import Sessions

APP = Repository("team/app")
BASE = URL("https://registry.example/mirror")
ASKED = URL("https://registry.example/mirror/v2/team/app/blobs/uploads/")
SESSIONS = Sessions(BASE, b"secret")


@pytest.mark.parametrize(
    "location",
    [
        "https://registry.example/mirror/v2/team/app/blobs/uploads/7f-1?_state=a%2Bb%3D",
        "/mirror/v2/team/app/blobs/uploads/7f-1?_state=a%2Bb%3D",
        "7f-1?_state=a%2Bb%3D",
        "http://registry.example:80/mirror/v2/team/app/blobs/uploads/7f-1?_state=a%2Bb%3D",
    ],
)
def test_the_usual_path_keeps_its_session(location: str) -> None:
    """Absolute or relative, also with the scheme of a registry that doesn't know it is behind TLS."""
    assert SESSIONS.name(APP, ASKED, location) == ("7f-1", "_state=a%2Bb%3D")


def test_a_session_leads_back() -> None:
    """The query comes back to the byte, with what the client put behind it."""
    url = SESSIONS.url(APP, "7f-1", "_state=a%2Bb%3D&digest=sha256:ab")

    assert str(url) == "https://registry.example/mirror/v2/team/app/blobs/uploads/7f-1?_state=a%2Bb%3D&digest=sha256:ab"


@pytest.mark.parametrize(
    "location", ["/v2/team/app/blobs/upload/1..x?y=z", "/artifacts-uploads/ns/p%2Fq?token=%7E", "/mirror/v2/x/y"]
)
def test_any_other_path_is_signed(location: str) -> None:
    """GitHub's and Google's registries go on under paths of their own."""
    session, query = SESSIONS.name(APP, ASKED, location)
    more = "&" if "?" in location else "?"

    assert (session[0], query) == ("~", "")
    assert str(SESSIONS.url(APP, session, "digest=d")) == f"https://registry.example{location}{more}digest=d"


@pytest.mark.parametrize(
    "location",
    [
        "",
        "https://evil.example/v2/team/app/blobs/uploads/1",
        "//evil.example/1",
        "http://[",
        "//[]@",
        "//a:b/1",
        "/v2/\udced/1",
        "/v2/team/app/blobs/uploads/1?\udcff",
        "/v2/a b",
    ],
)
def test_another_host_is_refused(location: str) -> None:
    """Nobody but the upstream gets what is pushed."""
    with pytest.raises(BadAnswer):
        SESSIONS.name(APP, ASKED, location)


def test_a_signature_is_for_one_repository_and_one_upstream() -> None:
    """What was given out for one can't be used for another."""
    session, _ = SESSIONS.name(APP, ASKED, "/elsewhere")
    for sessions, repository in (
        (SESSIONS, Repository("team/other")),
        (Sessions(BASE, b"another secret"), APP),
        (Sessions(URL("https://other.example"), b"secret"), APP),
    ):
        with pytest.raises(UploadUnknown):
            sessions.url(repository, session, "")


@pytest.mark.parametrize("session", ["..", ".", "a/b", "a?b", "a#b", "%2e%2e", "a b", "é", "~"])
def test_what_could_be_read_as_a_path_is_unknown(session: str) -> None:
    """A session is one component, and no registry's is called like a folder."""
    with pytest.raises(UploadUnknown):
        SESSIONS.url(APP, session, "")


@given(st.text(max_size=40))
def test_no_text_leads_out_of_the_repository(session: str) -> None:
    """Whatever a client sends: the upload of that name in that repository, or none."""
    try:
        url = SESSIONS.url(APP, session, "")
    except UploadUnknown:
        return
    assert str(url) == f"{ASKED}{session}"
    assert "/" not in session
