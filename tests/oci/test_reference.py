import pytest
from hypothesis import given

from proxy.oci.errors import DigestInvalid, Invalid, NameInvalid, TagInvalid
from proxy.oci.reference import Digest, Repository, Tag, parse_image, parse_reference
from strategies import digests, repositories, tags

SHA256 = "sha256:" + "a" * 64
SHA512 = "sha512:" + "0" * 128


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "0",
        "alpine",
        "kimoqi/alpine",
        "a/b/c/d",
        "a.b_c__d-e--f/x",
        "a---------b",
        "manifests/blobs/tags/list",
        "x" * 255,
        "/".join("a" * 128),
    ],
)
def test_repository_is_taken_as_written(text: str) -> None:
    """A name of the grammar comes back unchanged, as a Repository."""
    repository = Repository.parse(text)

    assert repository == text
    assert isinstance(repository, Repository)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "A",
        "Alpine",
        "a b",
        "a\n",
        "\na",
        "a\x00",
        "a\x00b",
        "a:b",
        "localhost:5000/a",
        "a@b",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a._b",
        ".a",
        "a.",
        "_catalog",
        "é",
        "a\u0661",  # a digit to \d and str.isdigit, not to the grammar
        "\uff41",  # full width
        "a%2fb",
        "a\\b",
        "x" * 256,
        "x" * 9216,
        "a/" * 4608,
        "-" * 9216,
        "\udcff",
    ],
)
def test_bad_repository_is_name_invalid(text: str) -> None:
    """Whatever breaks the grammar is NAME_INVALID, however long, and never a crash."""
    with pytest.raises(NameInvalid) as raised:
        Repository.parse(text)

    assert len(raised.value.message) < 1200
    assert raised.value.message.isascii()


@pytest.mark.parametrize(
    ("text", "namespace", "name"),
    [("alpine", "", "alpine"), ("kimoqi/alpine", "kimoqi", "alpine"), ("a/b/c", "a/b", "c")],
)
def test_repository_has_namespace_and_name(text: str, namespace: str, name: str) -> None:
    """The name is the last component, the namespace everything in front of it."""
    repository = Repository.parse(text)

    assert (repository.namespace, repository.name) == (namespace, name)


@pytest.mark.parametrize("text", ["1", "latest", "LATEST", "_", "_1", "1.0", "v1.0-rc.1_x", "a" * 128, "0--"])
def test_tag_is_taken_as_written(text: str) -> None:
    """A tag of the grammar comes back unchanged, its case too."""
    tag = Tag.parse(text)

    assert tag == text
    assert isinstance(tag, Tag)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "a/b",
        "a:b",
        "a b",
        "a\n",
        "a\x00",
        "a+b",
        "é",
        "\u0661",
        "a" * 129,
        "a" * 9216,
        "\udcff",
    ],
)
def test_bad_tag_is_tag_invalid(text: str) -> None:
    """Whatever breaks the grammar is TAG_INVALID."""
    with pytest.raises(TagInvalid):
        Tag.parse(text)


@pytest.mark.parametrize(
    ("text", "algorithm", "hex_length"),
    [(SHA256, "sha256", 64), (SHA512, "sha512", 128), ("sha256:" + "0123456789abcdef" * 4, "sha256", 64)],
)
def test_digest_has_algorithm_and_hex(text: str, algorithm: str, hex_length: int) -> None:
    """sha256 has 64 hex digits, sha512 has 128."""
    digest = Digest.parse(text)

    assert digest == text
    assert digest.algorithm == algorithm
    assert len(digest.hex) == hex_length


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "a" * 128,
        "sha512:" + "a" * 64,
        "sha512:" + "a" * 127,
        "sha256:" + "A" * 64,
        "SHA256:" + "a" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "\u0661" * 64,
        "sha256:" + "a" * 63 + "\n",
        SHA256 + "\n",
        SHA256 + "\x00",
        " " + SHA256,
        "sha256:../../etc/passwd",
        "sha256:%2e%2e%2f" + "a" * 55,
        "sha256-" + "a" * 64,
        "md5:" + "a" * 32,
        "sha1:" + "a" * 40,
        "blake3:" + "a" * 64,
        "sha256:" + "a" * 9216,
    ],
)
def test_bad_digest_is_digest_invalid(text: str) -> None:
    """Wrong length, upper case, other algorithms and paths are DIGEST_INVALID (S6)."""
    with pytest.raises(DigestInvalid):
        Digest.parse(text)


def test_digest_of_bytes_is_their_sha256() -> None:
    """The digest of nothing is the one that everybody knows."""
    digest = Digest.of(b"")

    assert digest == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest.matches(b"")
    assert not digest.matches(b"x")


def test_sha512_digest_is_checked_with_sha512() -> None:
    """A digest hashes with its own algorithm, in one go and chunk by chunk."""
    digest = Digest.parse(
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
    )
    hasher = digest.hasher()
    hasher.update(b"a")
    hasher.update(b"bc")

    assert digest.matches(b"abc")
    assert hasher.hexdigest() == digest.hex


@given(repositories, tags, digests)
def test_names_of_the_grammar_are_parsed_to_themselves(repository: Repository, tag: Tag, digest: Digest) -> None:
    """Parsing is the identity on valid names."""
    assert Repository.parse(repository) == repository
    assert parse_reference(tag) == tag
    assert parse_reference(digest) == digest


def test_reference_with_a_colon_is_a_digest() -> None:
    """A tag has no colon, so one that has is a digest, and judged as such."""
    assert isinstance(parse_reference(SHA256), Digest)
    assert isinstance(parse_reference("sha256"), Tag)
    with pytest.raises(DigestInvalid):
        parse_reference("sha256:abc")


@pytest.mark.parametrize(
    ("text", "repository", "reference"),
    [
        ("alpine", "alpine", "latest"),
        ("alpine:1.0", "alpine", "1.0"),
        ("kimoqi/alpine:1.0", "kimoqi/alpine", "1.0"),
        ("docker.io/library/alpine:3", "docker.io/library/alpine", "3"),
        (f"a/b@{SHA256}", "a/b", SHA256),
        (f"a/b@{SHA512}", "a/b", SHA512),
        (f"a/b:1.0@{SHA256}", "a/b", SHA256),
    ],
)
def test_image_is_split_into_repository_and_reference(text: str, repository: str, reference: str) -> None:
    """The tag is `latest` where there is none, and a digest wins over a tag."""
    assert parse_image(text) == (repository, reference)


@pytest.mark.parametrize(
    "text",
    ["", ":", "@", "a:", "a@", "a:1@", ":1.0", f"@{SHA256}", "a:b:c", "a/b:1/c", "host:5000/a", "A:1", f"a@@{SHA256}"],
)
def test_bad_image_is_invalid(text: str) -> None:
    """What has no repository, or nothing behind a separator, is refused."""
    with pytest.raises(Invalid):
        parse_image(text)


@pytest.mark.parametrize("text", [f"a:@{SHA256}", f"a:b!c@{SHA256}", f"a:b:c@{SHA256}"])
def test_tag_in_front_of_a_digest_must_be_one(text: str) -> None:
    """The digest wins over the tag, but doesn't excuse it."""
    with pytest.raises(Invalid):
        parse_image(text)


def test_error_shows_a_bad_name_escaped_and_cut() -> None:
    """An error repeats at most one line of what was wrong, and nothing that could forge a log line."""
    with pytest.raises(TagInvalid) as raised:
        Tag.parse("x\r\nSet-Cookie: " + "y" * 9216)

    assert "\\r\\nSet-Cookie" in raised.value.message
    assert "yyy'…" in raised.value.message
    assert len(raised.value.message) < 250
