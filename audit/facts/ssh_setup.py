"""What decides whether a host may log in to a peer over SSH, as far as both sides' files tell it: nobody connects.

The source's ssh tells where a name leads and which host keys it knows (`ssh -G`, `ssh-keygen -F`), and which keys it
has; the target's sshd tells whom it lets in (`sshd -T`), and which keys. Of keys, fingerprints are read. What an agent
holds, what a directory service answers and what a password would do is not seen.
"""

import fnmatch
import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from audit.evidence import Probe
from audit.facts.base import Facts, HostFact, Question, Said, Unavailable
from audit.facts.names import OwnAddresses, Route, is_loopback, is_name
from audit.facts.reach import ADDRESSES
from audit.text import visible


def _ask_client(_facts: Facts, host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Each peer by the inventory's name, which the URI has."""
    return [(peer,) for peer in peers if peer != host and is_name(peer)]


# For each name: "= STATUS", what of ssh's configuration matters, "known …" for each host key that is known by the name,
# "key …" for each key of one's own, "address …" for where it leads.
CLIENT = Question(
    "ssh.client",
    """
command -v ssh >/dev/null || { echo "ssh: not found" >&2; exit 127; }
$sudo xargs -0 sh -c '
export LC_ALL=C
home=$(getent passwd "$(id -u)" | cut -d: -f6)
for name do
    said=$(timeout 10 ssh -G -- "$name" 2>/dev/null </dev/null); echo "= $?"
    echo "me $(id -un)"
    of() { printf "%s\\n" "$said" | sed -n "s/^$1 //p"; }
    for key in user hostname port hostkeyalias stricthostkeychecking batchmode proxycommand proxyjump \\
        knownhostscommand verifyhostkeydns gssapiauthentication hostbasedauthentication pubkeyauthentication; do
        of "$key" | sed -n "1s/^/set $key /p"
    done
    looked=$(of hostkeyalias)
    if [ -z "$looked" ] || [ "$looked" = none ]; then
        looked=$(of hostname)
        port=$(of port)
        [ "${port:-22}" = 22 ] || looked="[$looked]:$port"
    fi
    for file in $(of userknownhostsfile) $(of globalknownhostsfile); do
        case $file in "~/"*) file=$home/${file#??} ;; esac
        [ -r "$file" ] || continue
        ssh-keygen -l -F "$looked" -f "$file" 2>/dev/null | sed "s/^/known /"
    done
    of identityfile | while read -r file; do
        case $file in "~/"*) file=$home/${file#??} ;; esac
        [ -e "$file" ] || continue
        ssh-keygen -l -f "$file" 2>/dev/null </dev/null | sed "s/^/key /" | grep . || echo "key ?"
        [ ! -e "$file-cert.pub" ] || echo "key ?"
    done
    of certificatefile | sed "s/.*/key ?/"
    found=$(timeout 10 getent ahosts -- "$(of hostname)" 2>/dev/null); echo "resolved $?"
    printf "%s\\n" "$found" | awk "NF && !seen[\\$1]++ { print \\$1 }" | head -n 8 | while read -r address; do
        route=$(ip -o route get "$address" 2>/dev/null)
        device=$(printf "%s\\n" "$route" | sed -n "s/.* dev \\([^ ]*\\).*/\\1/p")
        from=$(printf "%s\\n" "$route" | sed -n "s/.* src \\([^ ]*\\).*/\\1/p")
        echo "address $address ${device:--} ${from:--}"
    done
done' names
""",
    seconds=240,
    ask=_ask_client,
    maximum=500,
    hand="ssh -G PEER; ssh-keygen -l -F PEER; ssh-keygen -l -f ~/.ssh/id_ed25519",
)


def _ask_server(facts: Facts, _host: str, peers: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Each address that a peer may come from, with the peer's name: `Match` in sshd_config may tell them apart."""
    return [
        (peer, own.ip) for peer, addresses in facts.each(peers, OwnAddresses) for own in addresses.reachable[:ADDRESSES]
    ]


# For each pair: "= STATUS" and what sshd would have for root from there; then once the host's own keys and root's.
SERVER = Question(
    "ssh.server",
    """
home=$(getent passwd root | cut -d: -f6)
xargs -0 -n 2 sh -c '
[ $# -eq 2 ] || exit 0
said=$($0 timeout 10 sshd -T -C "user=root,host=$1,addr=$2" 2>/dev/null); echo "= $? $2"
printf "%s\\n" "$said" | sed -n \\
    -e "s/^\\(permitrootlogin\\|pubkeyauthentication\\|authorizedkeysfile\\|authorizedkeyscommand\\) /set \\1 /p" \\
    -e "s/^\\(passwordauthentication\\|kbdinteractiveauthentication\\|trustedusercakeys\\) /set \\1 /p" \\
    -e "s/^\\(hostbasedauthentication\\|gssapiauthentication\\|hostkey\\) /set \\1 /p" \\
    -e "s/^\\(allowusers\\|denyusers\\|forcecommand\\) /set \\1 /p" |
    sed "s/^set hostkey /hostkey /"
' "${sudo:-env}"
echo "# keys"
echo "home $home"
for file in /etc/ssh/ssh_host_*_key.pub; do
    [ -r "$file" ] || continue
    ssh-keygen -l -f "$file" 2>/dev/null | sed "s|^|host ${file%.pub} |"
done
$sudo sh -c '
for folder in "$0" "$0/.ssh"; do [ ! -d "$folder" ] || [ -x "$folder" ] || echo "accepts ? "; done
for file; do
    case $file in /*) ;; *) file=$0/$file ;; esac
    [ -e "$file" ] || continue
    [ -r "$file" ] || echo "accepts ? "
    grep -v -e "^[[:space:]]*#" -e "^[[:space:]]*$" "$file" 2>/dev/null | head -n 500 | while read -r line; do
        key=$(printf "%s\\n" "$line" | ssh-keygen -l -f - 2>/dev/null | cut -d" " -f2)
        from=$(printf "%s\\n" "$line" | sed -n "s/^[^ ]*from=\\"\\([^\\"]*\\)\\".*/\\1/p")
        forced=$(printf "%s\\n" "$line" | sed -n "s/^\\([^ ]*,\\)*command=.*/-forced/p")
        echo "accepts$forced ${key:-?} $from"
    done
done' "$home" .ssh/authorized_keys .ssh/authorized_keys2
echo "# end"
""",
    seconds=120,
    ask=_ask_server,
    arity=2,
    maximum=500,
    hand="sshd -T -C user=root,host=PEER,addr=ADDRESS; ssh-keygen -l -f /root/.ssh/authorized_keys",
)

# What root's shell does at the beginning of a command that SSH brings: its start-up files, which every login runs, too.
SHELL = Probe(
    "ssh.shell",
    """
entry=$(getent passwd root) || exit
home=$(printf '%s\\n' "$entry" | cut -d: -f6)
shell=$(printf '%s\\n' "$entry" | cut -d: -f7)
said=$($sudo timeout 10 env -i HOME="$home" USER=root LOGNAME=root SHELL="$shell" PATH="$PATH" \\
    SSH_CLIENT='127.0.0.1 1 22' "$shell" -c 'echo reached' 2>/dev/null </dev/null |
    tr -cd '[:print:]\\n' | head -c 2000)
printf '%s\\n' "$said"
! command -v virt-ssh-helper >/dev/null || echo "# has virt-ssh-helper"
! command -v nc >/dev/null || echo "# has nc"
echo "# end"
""",
    hand="ssh root@HOST true  # must print nothing",
)

_FINGERPRINT = re.compile(r"(SHA256:[A-Za-z0-9+/=]{20,64}|MD5:[0-9a-f:]{47})")


class Login(NamedTuple):
    """How this host's ssh would go about a login to a peer."""

    me: str
    """Who logs in, here."""
    settings: tuple[tuple[str, str], ...]
    """Of `ssh -G`, in lower case."""
    known: frozenset[str]
    """Fingerprints of the host keys that are known by that name."""
    authority: bool
    """Host keys may be vouched for in another way: by an authority, a command or the DNS."""
    keys: frozenset[str]
    """Fingerprints of one's own keys."""
    other_keys: bool
    """There are others, of which no fingerprint is known: certificates, unreadable ones."""
    routes: tuple[Route, ...] | None
    """Where the name leads; empty: nowhere. None: the resolver gave no answer that could be relied on."""

    def setting(self, name: str) -> str:
        """One of ssh's settings; "" if it does not tell."""
        return dict(self.settings).get(name, "")

    @property
    def proxied(self) -> bool:
        """It goes by another host, and what this host resolves does not matter."""
        return any(self.setting(name) not in {"", "none"} for name in ("proxycommand", "proxyjump"))

    @property
    def alone(self) -> bool:
        """Nobody would be asked: it fails where a question stands."""
        return self.setting("batchmode") in {"yes", "true"}


@dataclass(frozen=True, slots=True)
class SshClient(HostFact):
    """This host's way of logging in to each of its peers."""

    probes: ClassVar[tuple[Probe, ...]] = (CLIENT,)
    logins: tuple[tuple[str, Login], ...]
    absent: bool = False
    """There is no ssh on this host."""

    def to(self, peer: str) -> Login:
        """By the inventory's name. `Unavailable` if ssh could not be asked about it."""
        for name, login in self.logins:
            if name == peer:
                return login
        raise Unavailable(CLIENT, f"ssh told nothing about {visible(peer, 80)}")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """Answers come in the order of the questions; one that ssh refused to look at is left out."""
        names = [name for (name,) in said.evidence(CLIENT).arguments]
        if not names or said.evidence(CLIENT).status == 127:
            return cls((), absent=bool(names))
        blocks: list[list[str]] = []
        for line in said.lines(CLIENT):
            if line.startswith("= "):
                blocks.append([])
            blocks[-1].append(line)  # IndexError: does not begin with a mark
        if len(blocks) > len(names):
            raise ValueError("more answers than questions")
        found = zip(names, blocks, strict=False)
        return cls(tuple((name, _login(lines[1:])) for name, lines in found if lines[0] == "= 0"))


def _login(lines: Sequence[str]) -> Login:
    said: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        said.setdefault(word, []).append(rest)
    pairs = (line.partition(" ")[::2] for line in said.get("set", ()))
    settings = tuple((name, visible(value, 200).lower()) for name, value in pairs)
    known = "\n".join(said.get("known", ()))
    other = dict(settings)
    vouched = other.get("knownhostscommand", "none") not in {"", "none"} or other.get("verifyhostkeydns") in {
        "true",
        "yes",
    }
    [status, *_] = said.get("resolved", ["?"])
    routes = tuple(_route(*line.split()) for line in said.get("address", ()))
    own = [_FINGERPRINT.search(line) for line in said.get("key", ())]
    return Login(
        me=visible(said["me"][0], 40),
        settings=settings,
        known=frozenset(_FINGERPRINT.findall(known)),
        authority=vouched or bool(re.search(r"^# Host .* found: line \d+ (CA|REVOKED)", known, re.M)),
        keys=frozenset(match[1] for match in own if match),
        other_keys=any(match is None for match in own),
        routes=routes if status == "0" else () if status == "2" else None,
    )


def _route(address: str, device: str, source: str) -> Route:
    is_loopback(address)  # ValueError: no address
    return Route(address, None if device == "-" else device, None if source == "-" else source)


class Key(NamedTuple):
    """A key that root may log in with."""

    fingerprint: str
    """"?": not understood."""
    source: str
    """Patterns of addresses and names that it may come from; "": all."""
    forced: bool = False
    """It runs a command of its own, whatever is asked for."""

    def from_there(self, address: str) -> bool:
        """It may come from that address, as far as that can be told from the address alone."""
        return not self.source or _listed(address, self.source.split(","))


def _listed(address: str, patterns: Sequence[str]) -> bool:
    """As sshd matches: a negated pattern refuses; a name may be the host's."""
    ip = ipaddress.ip_address(address)
    hit = False
    for pattern in patterns:
        plain = pattern.removeprefix("!")
        try:
            matches: bool | None = ip in ipaddress.ip_network(plain, strict=False)
        except ValueError:
            numeric = re.fullmatch(r"[0-9a-fA-F.:*?]+", plain) is not None
            matches = fnmatch.fnmatchcase(address, plain) if numeric else None
        if matches and pattern.startswith("!"):
            return False
        hit = hit or (matches is not False and not pattern.startswith("!"))
    return hit


@dataclass(frozen=True, slots=True)
class SshServer(HostFact):
    """Whom this host's sshd lets in as root, by the address that they come from."""

    probes: ClassVar[tuple[Probe, ...]] = (SERVER,)
    settings: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """By address, of `sshd -T`; those for which it could not be asked lack."""
    host_keys: frozenset[str]
    """Fingerprints of the host's own keys, which it may show."""
    accepts: tuple[Key, ...]
    """Keys of root's files in the usual places."""

    def of(self, address: str) -> dict[str, str]:
        """The settings for who comes from there. `Unavailable` where sshd did not tell (it takes root)."""
        return dict(self._all(address))

    def listed_out(self, address: str) -> str:
        """The setting that keeps root out who comes from there, whatever the key: a list of users. "": none does."""
        lists = {
            name: [value.partition("@")[::2] for key, value in self._all(address) if key == name]
            for name in ("denyusers", "allowusers")
        }
        meant = {
            name: [not there or _listed(address, [there]) for user, there in users if fnmatch.fnmatchcase("root", user)]
            for name, users in lists.items()
        }
        if any(user == "root" and not there for user, there in lists["denyusers"]):
            return "DenyUsers root"
        return "AllowUsers without root" if lists["allowusers"] and not any(meant["allowusers"]) else ""

    def _all(self, address: str) -> tuple[tuple[str, str], ...]:
        for known, settings in self.settings:
            if known == address:
                return settings
        raise Unavailable(SERVER, f"sshd told nothing about {visible(address, 60)}")

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From the answers by address, and what follows `# keys`."""
        lines = said.lines(SERVER, ok=(0, 123))
        if said.evidence(SERVER).arguments and (not lines or lines[-1] != "# end" or "# keys" not in lines):
            raise Unavailable(SERVER, "answer is incomplete")
        if not lines:
            return cls((), frozenset(), ())
        at = lines.index("# keys")
        settings = tuple(_by_address(lines[:at]))
        shown = {path for line in lines[:at] if line.startswith("hostkey ") for path in [line.partition(" ")[2]]}
        keys: set[str] = set()
        accepts = []
        for line in lines[at + 1 : -1]:
            word, _, rest = line.partition(" ")
            match = _FINGERPRINT.search(rest)
            if word == "host" and match and (not shown or rest.partition(" ")[0] in shown):
                keys.add(match[1])
            elif word in {"accepts", "accepts-forced"}:
                fingerprint, _, source = rest.partition(" ")
                accepts.append(Key(fingerprint, visible(source, 500), word == "accepts-forced"))
        return cls(settings, frozenset(keys), tuple(dict.fromkeys(accepts)))


def _by_address(lines: Sequence[str]) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    address, settings = "", list[tuple[str, str]]()
    for line in [*lines, "= end"]:
        if line.startswith("= "):
            if address:
                yield address, tuple(settings)
            status, _, its = line[2:].partition(" ")
            address, settings = (its if status == "0" else ""), []
        elif line.startswith("set "):
            name, _, value = line[4:].partition(" ")
            settings.append((name, visible(value, 200).lower()))


@dataclass(frozen=True, slots=True)
class RootShell(HostFact):
    """What root's shell prints before a command that comes by SSH, and whether it runs it at all."""

    probes: ClassVar[tuple[Probe, ...]] = (SHELL,)
    prints: str
    """Its first line; "": nothing."""
    runs: bool
    helpers: frozenset[str] = frozenset({"virt-ssh-helper"})
    """Of virt-ssh-helper and nc, by which libvirt's client speaks with the daemon behind ssh: those that are there."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """All before the command's own word."""
        lines = said.lines(SHELL)
        if not lines or lines[-1] != "# end":
            raise Unavailable(SHELL, "answer is incomplete")
        helpers = [line.removeprefix("# has ") for line in lines if line.startswith("# has ")]
        said_first = [line for line in lines[:-1] if not line.startswith("# has ")]
        before, reached, _ = "\n".join(said_first).partition("reached")
        return cls(visible(before.strip().partition("\n")[0], 120), bool(reached), frozenset(helpers))
