"""What an author of checks imports, and nothing else.

A check is a generator function over facts. Its scope is read from its signature:

    host fact                         judged once a host, for both directions
    Source[fact] or Target[fact]      judged once a host, in that role only
    Source[fact] and Target[fact]     judged for each ordered pair
    guest fact                        judged once a guest (host facts, Source or plain, are its own host's)
    guest fact and Target[fact]       judged for each placement, guest → target
    Cluster[fact]                     judged once a cluster, over all its hosts or guests

`Policy` may be asked for anywhere. Nothing yielded is a pass, findings are a fail, `NotApplicable` is a skip.
The engine makes the unknowns: a fact that cannot be had, or `Unavailable` raised by a fact's own method. A check that
has more to look at than what it could not see *yields* that `Unavailable` and goes on: it is unknown only if nothing
was found wrong.
"""

import inspect
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from audit.evidence import Probe
from audit.facts.base import GuestFact, HostFact, Unavailable
from audit.policy import Policy

__all__ = [
    "ANOTHER_ADDRESS",
    "COPY_CHANGES",
    "COPY_STORAGE",
    "COPY_WHOLE",
    "STARTED_HERE",
    "TUNNELLED",
    "At",
    "Blocks",
    "Check",
    "Cluster",
    "Finding",
    "NotApplicable",
    "Policy",
    "Scope",
    "Severity",
    "Source",
    "Stage",
    "Target",
    "Told",
    "Unavailable",
    "check",
    "if_known",
]


COPY_STORAGE: Final = "copy-storage"
"""The way in which `virsh migrate --copy-storage-all` copies the disks along."""
COPY_CHANGES: Final = "copy-storage-inc"
"""The way in which `--copy-storage-inc` does: each disk's top image only, onto one that is there already."""
COPY_WHOLE: Final = "copy-whole"
"""Of a finding: it is moot where disks are copied whole, not where only their top images are."""
ANOTHER_ADDRESS: Final = "another-address"
"""The way that gives the target by another name or address, in the URI or with `--migrateuri`."""
TUNNELLED: Final = "tunnelled"
"""The way in which all goes through libvirt's own connection (`--p2p --tunnelled`)."""
STARTED_HERE: Final = "started-here"
"""The way in which virsh runs on the machine that audited, which then speaks with both hosts itself."""


class Severity(IntEnum):
    """How bad a finding is; apart from whether it blocks."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Blocks(Enum):
    """What a finding makes impossible."""

    NOTHING = "nothing"
    MIGRATION = "migration"
    BASELINE = "baseline"


class Scope(Enum):
    """What one outcome is about."""

    HOST = "host"
    PAIR = "pair"
    GUEST = "guest"
    PLACEMENT = "placement"
    CLUSTER = "cluster"


class Stage(IntEnum):
    """Where in a migration it would show; orders the reasons as libvirt would meet them."""

    SET_OUT = -2
    LOG_IN = -1
    CONNECT = 0
    ALLOWED = 1
    SAFE = 2
    PREPARE = 3
    START = 4
    TRANSFER = 5
    AFTER = 6


class Role(Enum):
    """Whose fact a parameter is."""

    OWN = "own"
    SOURCE = "source"
    TARGET = "target"
    CLUSTER = "cluster"


class NotApplicable(Exception):
    """Raised by a check whose question does not arise, with the reason."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation: what must hold, what was found, why it matters here, and perhaps a remedy fitted to it.

    `hosts` of a cluster check's finding are those it concerns; routes between two of them are affected. `lifted_by`:
    the ways of migrating each of which makes the finding moot (or COPY_WHOLE), with `about` naming the disk that it is
    about, or the option or URI that another way takes (ANOTHER_ADDRESS).
    """

    expected: str
    actual: str
    because: str = ""
    remedy: str = ""
    hosts: frozenset[str] = frozenset()
    lifted_by: tuple[str, ...] = ()
    about: str = ""

    @property
    def message(self) -> str:
        """The finding in a line: what must be, what is, and why it matters."""
        because = f" ({self.because})" if self.because else ""
        return f"expected {self.expected}; found: {self.actual}{because}"


T = TypeVar("T")


class At(NamedTuple, Generic[T]):
    """A fact in a cluster check, with the host it is of (and the guest, for a guest fact)."""

    host: str
    fact: T
    guest: str = ""


Source = Annotated[T, Role.SOURCE]
Target = Annotated[T, Role.TARGET]
Cluster = Annotated[tuple[At[T], ...], Role.CLUSTER]


class Parameter(NamedTuple):
    """One argument of a check: whose fact, of which kind (`Policy` has role OWN)."""

    role: Role
    kind: type[Any]


Told = Iterator[Finding | Unavailable]
"""What a check yields that goes on after something it could not see."""

CheckFunction = Callable[..., Told]


def if_known(value: T | Unavailable) -> Generator[Unavailable, None, T | None]:
    """`state = yield from if_known(…)`: the value; or None, after the check has told why there is none."""
    if isinstance(value, Unavailable):
        yield value
        return None
    return value


@dataclass(frozen=True, slots=True)
class Check:
    """A check with what its decorator and signature say."""

    id: str
    function: CheckFunction
    parameters: tuple[Parameter, ...]
    scope: Scope
    role: Role
    """Of a host check: in which role of a migration it counts; OWN = both."""
    severity: Severity
    blocks: Blocks
    stage: Stage
    reference: str
    remedy: str
    offline: bool
    plain_guest: bool
    way: str
    """The way of migrating that it is about; it bears on no other. "": on all."""
    covers: tuple[str, ...]
    """Ids of the requirements and known failures that it answers (`audit/data/requirements.yaml`, `failures.yaml`)."""
    title: str
    why: str

    @property
    def domain(self) -> str:
        """What it is about: the file that it stands in, and the first part of its id."""
        return self.id.partition(".")[0]

    @property
    def facts(self) -> tuple[type[HostFact] | type[GuestFact], ...]:
        """The kinds of facts it asks for."""
        return tuple(p.kind for p in self.parameters if p.kind is not Policy)

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The probes that its facts are parsed from."""
        return tuple(dict.fromkeys(probe for kind in self.facts for probe in kind.probes))


def check(
    *,
    severity: Severity,
    blocks: Blocks = Blocks.NOTHING,
    stage: Stage = Stage.PREPARE,
    reference: str,
    remedy: str = "",
    offline: bool = False,
    plain_guest: bool = False,
    way: str = "",
    covers: tuple[str, ...] = (),
) -> Callable[[CheckFunction], Check]:
    """Make a check of a generator function whose docstring's first line is the condition that must hold.

    `offline`: it holds for the offline migration of a shut-off guest too. `plain_guest`: it is about the plain
    host-model guest that a pair is judged for; a real guest is judged by its own configuration instead.
    `way`: it bears only on migrating in that way (COPY_STORAGE, and so COPY_CHANGES; or the latter alone), which is
    judged beside the usual one. `covers`: ids of
    the requirements and known failures that it answers, from which docs/coverage.md is made.
    Raises `TypeError` when the signature makes no scope.
    """

    def make(function: CheckFunction) -> Check:
        doc = inspect.getdoc(function)
        if not doc:
            raise TypeError(f"{function.__qualname__}: a check needs a docstring")
        title, _, why = doc.partition("\n")
        parameters = tuple(_parameter(function, hint) for hint in _hints(function))
        scope, role = _scope(function, parameters)
        return Check(
            id=f"{function.__module__.rpartition('.')[2]}.{function.__name__}",
            function=function,
            parameters=parameters,
            scope=scope,
            role=role,
            severity=severity,
            blocks=blocks,
            stage=stage,
            reference=reference,
            remedy=remedy,
            offline=offline,
            plain_guest=plain_guest,
            way=way,
            covers=covers,
            title=title.strip(),
            why=" ".join(why.split()),
        )

    return make


def _hints(function: CheckFunction) -> list[Any]:
    hints = get_type_hints(function, include_extras=True)
    return [hints[name] for name in inspect.signature(function).parameters]


def _parameter(function: CheckFunction, hint: Any) -> Parameter:
    role = Role.OWN
    if get_origin(hint) is Annotated:
        hint, role = get_args(hint)
    if role is Role.CLUSTER:  # tuple[At[kind], ...]
        hint = get_args(get_args(hint)[0])[0]
    if isinstance(hint, type) and (hint is Policy or issubclass(hint, HostFact | GuestFact)):
        return Parameter(role, hint)
    raise TypeError(f"{function.__qualname__}: {hint!r} is neither a fact nor the policy")


def _scope(function: CheckFunction, parameters: tuple[Parameter, ...]) -> tuple[Scope, Role]:
    facts = [p for p in parameters if p.kind is not Policy]
    roles = {p.role for p in facts}
    guest = any(issubclass(p.kind, GuestFact) and p.role is Role.OWN for p in facts)
    if not facts or (Role.CLUSTER in roles and len(facts) > 1):
        raise TypeError(f"{function.__qualname__}: no scope follows from this signature")
    if Role.CLUSTER in roles:
        return Scope.CLUSTER, Role.CLUSTER
    if guest:
        return (Scope.PLACEMENT if Role.TARGET in roles else Scope.GUEST), Role.OWN
    if {Role.SOURCE, Role.TARGET} <= roles:
        return Scope.PAIR, Role.OWN
    if len(roles) == 1:
        return Scope.HOST, roles.pop()
    raise TypeError(f"{function.__qualname__}: a host fact beside Source or Target needs a role of its own")
