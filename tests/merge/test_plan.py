from dataclasses import replace

import pytest

from merge.builders import BASE, RULE, guessed, plan_for, written
from proxy.merge.plan import Source
from proxy.merge.rule import PASSTHROUGH, Rule
from proxy.oci.platform import Platform


@pytest.mark.parametrize("source", [BASE, replace(BASE, hint=written("x86", "linux/amd64").hint)])
def test_source_is_shown_with_its_upstream(source: Source) -> None:
    """People read where an image is, not what it is believed to be."""
    assert str(source) == "hub/kimoqi/alpine:1.0"


def test_place_leaves_the_belief_out() -> None:
    """The same image, guessed or written, is in one place."""
    assert guessed("x86", "linux/amd64").place == written("x86", "linux/386").place


def test_plan_is_shown_as_the_virtual_tag() -> None:
    """Errors speak of what the client asked for."""
    assert str(plan_for(RULE)) == "kimoqi/alpine:1.0"


def test_name_with_impossible_sources_does_not_pass_through() -> None:
    """What the image at the name is made for decides whether it is enough without them."""
    assert not replace(plan_for(RULE), sources=(), impossible=("x makes no valid image name",)).passes_through


@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        (PASSTHROUGH, True),
        (replace(PASSTHROUGH, require=(Platform("linux", "amd64"),)), False),
        (RULE, False),
    ],
)
def test_name_alone_passes_through(rule: Rule, passes: bool) -> None:
    """Where nothing is merged and nothing required, nobody needs to know what the image is made of."""
    assert plan_for(rule).passes_through is passes
