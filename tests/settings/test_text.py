"""Durations, sizes, rates, addresses and URLs as people write them."""

from __future__ import annotations

import pytest
from yarl import URL

from proxy.settings.text import parse_duration, parse_listen, parse_rate, parse_size, parse_url
from settings.texts import SECRET


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("0s", 0.0), ("60s", 60.0), ("1.5m", 90.0), ("24h", 86_400.0), ("30d", 2_592_000.0)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    """Durations are read as seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [60, 1.5, True, None, "", "60", "s", "60 s", "-1s", "1e3s", ".5s", "1.s", "60S", "1h30m", "60s\n", "\u0666\u0660s"],
)
def test_anything_else_is_no_duration(value: object) -> None:
    """A number without its unit is refused rather than guessed at."""
    with pytest.raises(ValueError, match="a duration with its unit was expected"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("512KiB", 512 << 10), ("64MiB", 64 << 20), ("20GiB", 20 << 30), ("5KB", 5_000), ("1GB", 10**9)],
)
def test_a_size_is_a_whole_number_with_a_unit(text: str, size: int) -> None:
    """Sizes are read as bytes, powers of two and of ten told apart."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", 100.0), ("3000/m", 50.0), ("1/h", 1 / 3600), ("0/s", None), ("1.5/s", None), (10, None)],
)
def test_a_rate_is_a_number_for_a_time(text: object, rate: float | None) -> None:
    """Rates are read as a number for each second; none at all is no rate."""
    if rate is None:
        with pytest.raises(ValueError, match="a number of requests for a time was expected"):
            parse_rate(text)
    else:
        assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("value", [64, 1.5, None, "", "64", "1.5GiB", "64 MiB", "64M", "64mib", "-1B", "1TiB", "1B\n"])
def test_anything_else_is_no_size(value: object) -> None:
    """A number without its unit is refused."""
    with pytest.raises(ValueError, match="a size with its unit was expected"):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5080", ("127.0.0.1", 5080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:5080", ("::1", 5080)),
        (":65535", ("", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    """Brackets keep an IPv6 address and its port apart; no host means all."""
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "value",
    [5080, None, "", "5080", "localhost", "localhost:", "localhost:http", "h:65536", "h:-1", "::1:5080", "h:\u0665"],
)
def test_anything_else_is_no_address(value: object) -> None:
    """An address without a port, or with an impossible one, is refused."""
    with pytest.raises(ValueError, match="host:port was expected"):
        parse_listen(value)


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:5000", "https://registry.example", "https://registry.example/path", "http://[::1]:5000"]
)
def test_a_url_may_have_a_path(text: str) -> None:
    """A registry's address is http or https, with or without a path in front of /v2/."""
    assert parse_url(text) == URL(text)


@pytest.mark.parametrize(
    "value",
    [None, 5000, "", "registry.example", "registry.example:5000", "ftp://registry.example", "http://", "http://[]@"],
)
def test_anything_else_is_no_url(value: object) -> None:
    """An address without its scheme is refused: http is never chosen for anybody."""
    with pytest.raises(ValueError, match="an http or https URL was expected"):
        parse_url(value)


@pytest.mark.parametrize("extra", [f"puller:{SECRET}@h", "puller@h", f"h/?token={SECRET}", f"h/#{SECRET}"])
def test_a_url_holds_no_secret(extra: str) -> None:
    """Credentials in a URL are refused, and the refusal doesn't repeat them."""
    with pytest.raises(ValueError, match="credentials have a key") as refused:
        parse_url(f"https://{extra}".replace(" ", "%20"))

    assert SECRET.split(maxsplit=1)[0] not in str(refused.value)
