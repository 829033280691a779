"""Whether a host may log in to its peers by itself, as `virsh migrate … qemu+ssh://PEER/system` would. Tried, and only
for `--probe-network`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import Facts, HostFact, NotAsked, Question, Said, Unavailable
from audit.facts.names import OwnNames, is_name
from audit.facts.reach import OPTION, in_turn
from audit.text import visible


def _ask(facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Each peer by the name that the inventory has for it, and by its own where that one is not known there."""
    own = {peer: names.libvirt or names.fqdn or names.hostname for peer, names in facts.each(peers, OwnNames)}
    found = []
    for peer in in_turn(host, peers):
        names = [name for name in (peer, own.get(peer)) if name and is_name(name) and not name.startswith("localhost")]
        if names:
            found.append((peer, names[0], names[-1]))
    return [(str(number), *record) for number, record in enumerate(found)]


# One line for each peer: the record's number, ssh's exit status, the user here, the name used, and what was said, its
# lines joined by "|". What ssh is told here keeps it from asking, from writing (known_hosts; old versions make ~/.ssh
# where there is none, unless a configuration is named), from forwarding and from sharing connections; whose keys it
# uses and whom it trusts is left to its configuration, as virsh leaves it.
TRUST = Question(
    "reach.ssh",
    """
command -v ssh >/dev/null || { echo "ssh: not found" >&2; exit 127; }
read -r now rest </proc/uptime
$sudo xargs -0 -n 4 -P 8 sh -c '
[ $# -eq 4 ] || exit 0
export LC_ALL=C
read -r now rest </proc/uptime
[ "${now%.*}" -lt "$0" ] || exit 0
home=$(getent passwd "$(id -u)" | cut -d: -f6)
config=
if [ ! -d "$home/.ssh" ]; then
    config=-F/dev/null
    [ ! -r /etc/ssh/ssh_config ] || config=-F/etc/ssh/ssh_config
fi
login() {
    name=$1
    said=$(timeout -k 1 12 ssh -n -T -a -x $config -o BatchMode=yes -o StrictHostKeyChecking=yes -o UpdateHostKeys=no \\
        -o ControlMaster=no -o ControlPath=none -o PermitLocalCommand=no -o ClearAllForwardings=yes \\
        -o AddKeysToAgent=no -o ConnectTimeout=5 -o ConnectionAttempts=1 -o LogLevel=ERROR -- "$name" \\
        "echo virt-preflight; id -un; uname -n; virsh -r -c qemu:///system uri" 2>&1)
    status=$?
}
login "$3"
case $said in *"Could not resolve hostname"*) [ "$3" = "$4" ] || login "$4" ;; esac
said=$(printf "%s\\n" "$said" | tr "\\n" "|" | tr -cd "[:print:]" | head -c 2000)
printf "%s %s %s %s %s\\n" "$1" "$status" "$(id -un)" "$name" "$said"
' "$((${now%.*} + 60))"
""",
    seconds=90,
    ask=_ask,
    arity=4,
    maximum=1000,
    hand="ssh -o BatchMode=yes -o StrictHostKeyChecking=yes PEER virsh -r -c qemu:///system uri",
    option=OPTION,
)

Outcome = Literal[
    "trusted",
    "no libvirt",
    "unknown key",
    "changed key",
    "denied",
    "unresolved",
    "refused",
    "silent",
    "unreachable",
    "closed",
    "unsaid",
]

# Of ssh's own words, with exit status 255: the first that matches.
_WORDS: tuple[tuple[str, Outcome], ...] = (
    (r"Could not resolve hostname", "unresolved"),
    (r"HOST IDENTIFICATION HAS CHANGED|revoked host key", "changed key"),
    (r"host key is known for|Host key verification failed", "unknown key"),
    (r"Permission denied \(|Too many authentication failures", "denied"),
    (r"Connection refused", "refused"),
    (r"[Tt]imed out", "silent"),
    (r"No route to host|Network is unreachable", "unreachable"),
    (r"Connection (closed|reset) by|Broken pipe|Connection closed", "closed"),
)


class Trust(NamedTuple):
    """One login, or the attempt at it."""

    name: str
    """As the peer was called."""
    user: str
    """Who tried, on this host."""
    outcome: Outcome
    words: str
    """Of ssh, or of virsh there, where the outcome is not `trusted`."""
    login: str = ""
    """Whom it became there; "" without a login."""
    hostname: str = ""
    """What the host that answered calls itself; "" without a login."""


@dataclass(frozen=True, slots=True)
class SshTrust(HostFact):
    """What became of this host's logins to its peers."""

    probes: ClassVar[tuple[Probe, ...]] = (TRUST,)
    peers: tuple[tuple[str, Trust], ...]

    def of(self, peer: str, *, asked: bool = False) -> Trust:
        """The login to that peer. `Unavailable` if nothing is known of it; `NotAsked` if it was not to be tried."""
        for name, trust in self.peers:
            if name == peer:
                if trust.outcome == "unsaid":
                    raise Unavailable(TRUST, f"{visible(peer, 80)}: {trust.words}")
                return trust
        why = f"not tried: {visible(peer, 80)} was not asked in the same run"
        raise Unavailable(TRUST, why) if asked else NotAsked(TRUST, why)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """A login that is not told of was not tried in time."""
        evidence = said.evidence(TRUST)
        if not evidence.arguments:
            return cls(())
        asked = {number: (peer, names) for number, peer, *names in evidence.arguments}
        left = dict(asked)
        found: dict[str, Trust] = {}
        for line in said.lines(TRUST, ok=(0, 123)):
            number, status, user, name, words = [*line.split(" ", 4), ""][:5]
            peer, names = left.pop(number)  # KeyError: nothing that was asked, or told twice
            if name not in names:
                raise ValueError(f"not an answer: {visible(line, 100)}")
            found[peer] = _trust(name, visible(user, 40), int(status), words)
        for peer, names in left.values():
            found[peer] = Trust(names[0], "", "unsaid", "no time was left to try it")
        return cls(tuple(sorted(found.items())))


def _trust(name: str, user: str, status: int, text: str) -> Trust:
    lines = text.split("|")
    if "virt-preflight" in lines:  # ssh's warnings come before
        login, hostname, *rest = [*lines[lines.index("virt-preflight") + 1 :], "", ""]
        said = [line for line in rest if line.strip()]
        works = status == 0 and any(line.strip() == "qemu:///system" for line in said)
        words = "" if works else visible(said[-1] if said else f"exit status {status}", 200)
        outcome: Outcome = "trusted" if works else "no libvirt" if login and hostname else "unsaid"
        return Trust(name, user, outcome, words, visible(login, 40), visible(hostname, 100))
    words = visible(next((line for line in reversed(lines) if line.strip()), f"exit status {status}"), 200)
    if status in {124, 137}:
        return Trust(name, user, "silent", words)
    if status != 255:  # the far end's own; nologin(8) has one phrase
        kept_out = status and re.search(r"[Aa]ccount is (currently )?not available", text)
        return Trust(name, user, "denied" if kept_out else "unsaid", words)
    for pattern, outcome in _WORDS:
        if re.search(pattern, text):
            return Trust(name, user, outcome, words)
    return Trust(name, user, "unsaid", words)
