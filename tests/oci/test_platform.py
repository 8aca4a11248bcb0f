import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.platform import Platform, complete, covers, normalize, rank
from strategies import platforms

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64", "v8")
WINDOWS = Platform("windows", "amd64", os_version="10.0.17763.6189", os_features=("win32k",))


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", AMD64),
        ("linux/arm64/v8", ARM64),
        ("linux/arm/v7", Platform("linux", "arm", "v7")),
        ("Linux/x86_64", Platform("Linux", "x86_64")),
        ("windows/amd64", Platform("windows", "amd64")),
    ],
)
def test_platform_is_read_as_written(text: str, platform: Platform) -> None:
    """Reading takes the words as they are, and writing gives them back."""
    assert Platform.parse(text) == platform
    assert str(platform) == text


@pytest.mark.parametrize("text", ["", "linux", "/", "linux/", "/amd64", "linux/ /v8", "a/b/c/d", "linux/arm64/"])
def test_bad_platform_says_what_was_expected(text: str) -> None:
    """Neither a missing nor a fourth part is guessed at."""
    with pytest.raises(ValueError, match=r"is not a platform: os/architecture"):
        Platform.parse(text)


def test_os_version_is_shown_in_parentheses() -> None:
    """Two Windows images of one architecture can be told apart by people."""
    assert str(WINDOWS) == "windows/amd64 (10.0.17763.6189)"


@pytest.mark.parametrize(
    ("written", "normalized"),
    [
        # containerd's table
        ("linux/i386", "linux/386"),
        ("linux/i386/x", "linux/386"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("linux/x86_64/v1", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/amd64/V3", "linux/amd64/v3"),
        ("linux/arm64/9", "linux/arm64/v9"),
        ("linux/aarch64/9.0", "linux/arm64/v9"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armhf/v6", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/arm/5", "linux/arm/v5"),
        ("linux/arm/8", "linux/arm/v8"),
        ("macos/arm64", "darwin/arm64/v8"),
        ("Linux/AMD64", "linux/amd64"),
        # where containerd says none, podman and dockerd want v8
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/aarch64", "linux/arm64/v8"),
        ("linux/arm64/8", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm64/v8.0", "linux/arm64/v8"),
        # passed through
        ("linux/arm64/v8.2", "linux/arm64/v8.2"),
        ("linux/arm/armv7", "linux/arm/armv7"),
        ("linux/s390x", "linux/s390x"),
        ("linux/ppc64le", "linux/ppc64le"),
        ("linux/riscv64", "linux/riscv64"),
        ("plan9/mips", "plan9/mips"),
    ],
)
def test_normalized_platform_is_in_goarch_words(written: str, normalized: str) -> None:
    """Clients that compare strings find amd64 bare, arm64 with v8 and arm with a variant."""
    assert str(normalize(Platform.parse(written))) == normalized


@given(platforms)
def test_normalizing_twice_changes_nothing(platform: Platform) -> None:
    """Normalization is idempotent, so that children keep their bytes when they are merged again."""
    once = normalize(platform)

    assert normalize(once) == once


def test_normalizing_keeps_the_os_version_and_sorts_features() -> None:
    """Windows clients match on `os.version` as it is; features are a set."""
    platform = normalize(Platform("Windows", "amd64", os_version="10.0.1", os_features=("b", "a", "b")))

    assert platform == Platform("windows", "amd64", os_version="10.0.1", os_features=("a", "b"))


@pytest.mark.parametrize(
    ("wanted", "offered", "covered"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/x86_64", True),
        ("linux/x86_64", "linux/amd64", True),
        ("linux/amd64", "linux/amd64/v3", True),
        ("linux/amd64/v2", "linux/amd64", False),
        ("linux/amd64/v2", "linux/amd64/v2", True),
        ("linux/amd64", "linux/386", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64/v8", "linux/arm64/v9", False),
        ("linux/arm64", "linux/arm64/v9", True),
        ("linux/arm", "linux/arm/v6", True),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/armhf", "linux/arm/v7", True),
        ("linux/armhf", "linux/arm/v6", False),
        ("linux/armel", "linux/arm/v6", True),
        ("linux/arm", "linux/arm64", False),
        ("linux/arm64", "linux/arm/v8", False),
    ],
)
def test_platform_covers_what_it_names(wanted: str, offered: str, covered: bool) -> None:
    """A part that is left out matches anything, and names of a variant match only that."""
    assert covers(Platform.parse(wanted), Platform.parse(offered)) is covered


def test_os_version_is_covered_where_none_is_wanted() -> None:
    """`windows/amd64` covers every version, a version only itself."""
    other = Platform("windows", "amd64", os_version="10.0.20348.2655")

    assert covers(Platform("windows", "amd64"), WINDOWS)
    assert covers(WINDOWS, WINDOWS)
    assert not covers(WINDOWS, other)


@given(platforms)
def test_platform_covers_itself_and_its_normal_form(platform: Platform) -> None:
    """What was asked for is satisfied by itself, however it is spelled."""
    assert covers(platform, platform)
    assert covers(platform, normalize(platform))


@pytest.mark.parametrize(
    ("wanted", "known", "completed"),
    [
        ("linux/arm", "linux/arm/v6", "linux/arm/v6"),
        ("linux/arm", "linux/arm", "linux/arm/v7"),
        ("linux/arm/v5", "linux/arm/v6", "linux/arm/v5"),
        ("linux/arm", "linux/arm64/v8", "linux/arm/v7"),
        ("linux/arm64", "linux/amd64", "linux/arm64/v8"),
        ("linux/arm64", "linux/arm64/v9", "linux/arm64/v9"),
        ("linux/armhf", "linux/arm/v6", "linux/arm/v7"),
        ("linux/amd64", "linux/amd64/v3", "linux/amd64/v3"),
        ("linux/amd64", "linux/arm/v7", "linux/amd64"),
    ],
)
def test_gaps_are_filled_from_the_same_machine(wanted: str, known: str, completed: str) -> None:
    """What was written stays; a variant comes from the config only if it is one of that architecture."""
    assert str(complete(Platform.parse(wanted), Platform.parse(known))) == completed


def test_os_version_is_filled_from_the_same_system() -> None:
    """Windows images keep their version and features when a rule annotates them; Linux ones get none."""
    assert complete(Platform("windows", "amd64"), WINDOWS) == WINDOWS
    assert complete(Platform("windows", "arm64"), WINDOWS).os_version == WINDOWS.os_version
    assert complete(AMD64, WINDOWS) == AMD64


ORDERED = [
    "linux/amd64",
    "linux/amd64/v2",
    "linux/amd64/v3",
    "linux/arm64/v8",
    "linux/arm64/v9",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/arm/v5",
    "darwin/arm64/v8",
    "linux/386",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
    "windows/amd64",
    "windows/arm64/v8",
]


@given(st.permutations(ORDERED))
def test_order_is_amd64_then_arm_then_the_rest(shuffled: list[str]) -> None:
    """Law 5: linux/amd64, arm64, arm newest first, then alphabetically."""
    platforms = sorted((Platform.parse(text) for text in shuffled), key=rank)

    assert [str(platform) for platform in platforms] == ORDERED


def test_windows_versions_are_compared_as_numbers() -> None:
    """10.0.20348 is newer than 10.0.9999, a newer build comes first, and none at all last."""
    versions = ["10.0.20348.2655", "10.0.20348.99", "10.0.20348", "10.0.17763.6189", "10.0.9999.1", ""]
    platforms = [Platform("windows", "amd64", os_version=version) for version in sorted(versions)]

    assert [platform.os_version for platform in sorted(platforms, key=rank)] == versions


@given(platforms, platforms)
def test_any_two_platforms_can_be_ordered(one: Platform, other: Platform) -> None:
    """Order is total on different keys, whatever an upstream writes into its index."""
    assert (rank(one) == rank(other)) == (one.key == other.key)
    assert (rank(one) < rank(other)) != (rank(one) >= rank(other))


@pytest.mark.parametrize(
    "platform",
    [
        Platform("linux", "arm", "v" + "9" * 5000),
        Platform("windows", "amd64", os_version="9" * 5000),
        Platform("windows", "amd64", os_version="10..x.\u0663"),
        Platform("linux", "arm", "v\u00b2"),
    ],
)
def test_absurd_versions_are_no_numbers(platform: Platform) -> None:
    """Thousands of digits, other scripts' digits and words count as 0 instead of failing."""
    assert rank(platform)


@pytest.mark.parametrize(
    ("platform", "unknown"),
    [(Platform("unknown", "unknown"), True), (Platform("linux", "unknown"), True), (AMD64, False)],
)
def test_attestations_platform_is_unknown(platform: Platform, unknown: bool) -> None:
    """`unknown` in either place marks an entry that no host runs."""
    assert platform.is_unknown is unknown
