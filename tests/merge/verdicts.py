"""What is decided on what came of two sources, in as few words as a test can bear."""

from __future__ import annotations

from merge.builders import RULE, image, plan_for, single, written
from proxy.merge.decide import Refuse, Serve, Verdict, decide
from proxy.merge.entry import Entry
from proxy.merge.freshness import Freshness
from proxy.merge.outcome import Outcome
from proxy.merge.plan import Plan
from proxy.merge.rule import Rule
from proxy.oci.errors import Refused, RegistryError, TimedOut

X86, ARM = written("x86", "linux/amd64"), written("arm", "linux/arm64")
FOUND_X86, FOUND_ARM = single(X86, "linux/amd64"), single(ARM, "linux/arm64")
SLOW, DENIED = TimedOut("it took longer than 5 s"), Refused("401 unauthorized")
AMD64, ARM64 = image("amd64", "linux/amd64"), image("arm64", "linux/arm64/v8")


def verdict(
    *outcomes: Outcome, rule: Rule = RULE, previous: Entry | None = None, age: float = 0.0, plan: Plan | None = None
) -> Verdict:
    """Decide on what came of the sources of *rule*."""
    return decide(plan or plan_for(rule), outcomes, previous, age=age, freshness=Freshness())


def served(found: Verdict) -> list[str]:
    """Return the platforms of an index that is served."""
    assert isinstance(found, Serve), found
    return [text for part in found.parts for text in part.platforms]


def error(found: Verdict) -> RegistryError:
    """Return the error of a refusal."""
    assert isinstance(found, Refuse), found
    return found.error
