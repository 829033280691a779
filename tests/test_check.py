"""The scope of a check is what its signature says, and a signature that says none is refused at import."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from audit.check import Cluster, Finding, Policy, Role, Scope, Severity, Source, Target, check
from audit.facts.base import GuestFact, HostFact


@dataclass(frozen=True, slots=True)
class Kernel(HostFact):
    release: str


@dataclass(frozen=True, slots=True)
class Firmware(GuestFact):
    name: str


def made(function):
    return check(severity=Severity.LOW, reference="none")(function)


def test_scope_and_role_follow_from_the_signature():
    @made
    def host(kernel: Kernel) -> Iterator[Finding]:
        """It holds."""

    @made
    def as_target(kernel: Target[Kernel], policy: Policy) -> Iterator[Finding]:
        """It holds."""

    @made
    def pair(here: Source[Kernel], there: Target[Kernel]) -> Iterator[Finding]:
        """It holds."""

    @made
    def guest(firmware: Firmware, kernel: Kernel) -> Iterator[Finding]:
        """It holds."""

    @made
    def placement(firmware: Firmware, there: Target[Kernel]) -> Iterator[Finding]:
        """It holds."""

    @made
    def cluster(kernels: Cluster[Kernel]) -> Iterator[Finding]:
        """It holds."""

    assert [(c.scope, c.role) for c in (host, as_target, pair, guest, placement, cluster)] == [
        (Scope.HOST, Role.OWN),
        (Scope.HOST, Role.TARGET),
        (Scope.PAIR, Role.OWN),
        (Scope.GUEST, Role.OWN),
        (Scope.PLACEMENT, Role.OWN),
        (Scope.CLUSTER, Role.CLUSTER),
    ]
    assert cluster.facts == (Kernel,)
    assert as_target.facts == (Kernel,)


def test_title_and_reason_come_from_the_docstring():
    @made
    def documented(kernel: Kernel) -> Iterator[Finding]:
        """The kernel is new enough.

        Older ones
        lose the state.
        """

    assert documented.title == "The kernel is new enough."
    assert documented.why == "Older ones lose the state."
    assert documented.id.endswith(".documented")


def no_facts(policy: Policy) -> Iterator[Finding]:
    """It holds."""


def not_a_fact(number: int) -> Iterator[Finding]:
    """It holds."""


def ambiguous(kernel: Kernel, there: Target[Kernel]) -> Iterator[Finding]:
    """It holds."""


def cluster_and_more(all_of_them: Cluster[Kernel], one: Kernel) -> Iterator[Finding]:
    """It holds."""


def undocumented(kernel: Kernel) -> Iterator[Finding]:
    yield Finding("a", "b")


@pytest.mark.parametrize("function", [no_facts, not_a_fact, ambiguous, cluster_and_more, undocumented])
def test_a_signature_without_a_scope_is_refused(function):
    with pytest.raises(TypeError, match=function.__name__):
        made(function)
