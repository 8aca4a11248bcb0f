"""Results are read as the suite prints them, and compared test by test."""

from __future__ import annotations

from collections import Counter

import pytest

from conformance import report, suite
from conformance.suite import Difference

PRINTED = """\
time=2026-01-01T00:00:00Z level=ERROR msg="OCI Conformance Test/ping: FAIL"
OCI Conformance Test: FAIL
  OCI Conformance Test/ping: Pass
  OCI Conformance Test/blobs: FAIL
    OCI Conformance Test/blobs/get: Pass
    OCI Conformance Test/blobs/get: FAIL
     - unexpected status code, expected one of [200], received 404
    OCI Conformance Test/blobs/mount: Skip
  OCI Conformance Test/blobs of another kind: Disabled
OCI Conformance Result: FAIL
"""


def test_only_leaves_are_results() -> None:
    """A test that consists of others is their sum, and not counted again."""
    assert suite.read(PRINTED) == {
        "ping": {"pass": 1},
        "blobs/get": {"pass": 1, "fail": 1},
        "blobs/mount": {"skip": 1},
        "blobs of another kind": {"off": 1},
    }


@pytest.mark.parametrize(
    ("alone", "through", "worse"),
    [
        ({"pass": 2}, {"pass": 2}, False),
        ({"fail": 1}, {"fail": 1}, False),
        ({"fail": 1}, {"pass": 1}, False),
        ({"fail": 1}, {"skip": 1}, False),
        ({"skip": 1}, {"pass": 1}, False),
        ({"pass": 1}, {"fail": 1}, True),
        ({"pass": 1}, {"skip": 1}, True),
        ({"pass": 1}, {}, True),
        ({"skip": 1}, {"fail": 1}, True),
        ({"pass": 1, "fail": 1}, {"pass": 1, "fail": 2}, True),
        ({"pass": 2, "fail": 1}, {"pass": 1, "fail": 1}, True),
    ],
)
def test_a_lost_pass_and_a_new_failure_are_worse(alone: dict[str, int], through: dict[str, int], worse: bool) -> None:
    """What a registry fails alone it may fail through manifuse, and nothing else."""
    assert Difference("test", Counter(alone), Counter(through)).worse is worse


def test_the_table_leaves_out_what_passes() -> None:
    """Passes on both sides are only counted, and differences come before what both sides lack."""
    found = suite.compare(
        {"a": Counter({"pass": 1}), "b": Counter({"skip": 1}), "c": Counter({"fail": 2})},
        {"a": Counter({"pass": 1}), "b": Counter({"skip": 1}), "c": Counter({"pass": 1, "fail": 1})},
    )

    assert report.section(("crane", "only reading"), found).splitlines()[-4:] == [
        "| test | registry alone | through manifuse |",
        "|---|---|---|",
        "| c | fail | 1 pass, 1 fail |",
        "| b | skip | skip |",
    ]
