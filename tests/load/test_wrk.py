"""What wrk is told, and what is read of what it prints."""

from __future__ import annotations

import pytest

from loadtest.heads import Head
from loadtest.wrk import Failed, Figures, parse, script

PRINTED = """\
Running 2s test @ http://127.0.0.1:5080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   489.25us  123.40us   4.12ms   91.20%
    Req/Sec    65.31k     2.10k   68.90k    75.00%
  Latency Distribution
     50%  470.00us
     75%  520.00us
     90%  600.00us
     99%    1.21ms
  130620 requests in 2.01s, 142.10MB read
Requests/sec:  64984.12
Transfer/sec:     70.70MB
"""
HEAD = Head("GET", "/v2/", (("Host", "h"), ("User-Agent", 'docker/20 \\(linux\\) "q"')))


def test_figures_are_read() -> None:
    """Figures are read."""
    assert parse(PRINTED.replace("470.00us", "500.00us")) == Figures(130620, 64984.12, 0.5, 1.21)


@pytest.mark.parametrize(
    "trouble",
    [
        "  Non-2xx or 3xx responses: 12\n",
        "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
    ],
)
def test_errors_are_no_result(trouble: str) -> None:
    """Errors are no result."""
    with pytest.raises(Failed):
        parse(PRINTED + trouble)


def test_no_answers_are_no_result() -> None:
    """No answers are no result."""
    with pytest.raises(Failed, match="no answers"):
        parse(PRINTED.replace("130620 requests", "0 requests"))


def test_heads_are_quoted_for_lua() -> None:
    """A CR LF stays one, and a backslash is none of Lua's escapes."""
    text = script([HEAD])

    assert '"GET /v2/ HTTP/1.1\\r\\nHost: h\\r\\nUser-Agent: docker/20 \\\\(linux\\\\) \\"q\\"\\r\\n\\r\\n"' in text
    assert "math.random" not in text


def test_one_of_several_heads_is_chosen_each_time() -> None:
    """One of several heads is chosen each time."""
    assert "request = function() return heads[math.random(#heads)] end" in script([HEAD, HEAD.closing()])
