"""How libvirt's daemon knows who asks it over TCP or TLS: its configuration, and SASL's."""

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.policy import MigrationTransport
from audit.text import visible

DAEMON_CONF = Probe(
    "services.daemon_conf",
    """
$sudo test -x /etc/libvirt || { echo "no access to /etc/libvirt" >&2; exit 1; }
for name in virtproxyd libvirtd; do
    file=/etc/libvirt/$name.conf
    $sudo test -e "$file" || continue
    text=$($sudo cat "$file") || exit
    echo "file $name"
    printf '%s\\n' "$text" |
        sed -n 's/^[[:space:]]*\\(auth_tcp\\|auth_tls\\|tls_no_verify_certificate\\)[[:space:]]*=[[:space:]]*/\\1=/p'
done
sasl=/etc/sasl2/libvirt.conf
if $sudo test -e "$sasl"; then
    text=$($sudo cat "$sasl") || exit
    printf '%s\\n' "$text" |
        sed -n 's/^[[:space:]]*\\(mech_list\\|keytab\\|sasldb_path\\)[[:space:]]*:[[:space:]]*/sasl \\1=/p'
    for key in keytab sasldb_path; do
        path=$(printf '%s\\n' "$text" | sed -n "s/^[[:space:]]*$key[[:space:]]*:[[:space:]]*//p" | sed -n 1p)
        [ -z "$path" ] || ! $sudo test -e "$path" || echo "there $key"
    done
fi
echo end
""",
    hand="grep -E '^(auth_|tls_no_)' /etc/libvirt/virtproxyd.conf /etc/libvirt/libvirtd.conf /etc/sasl2/libvirt.conf",
)


@dataclass(frozen=True, slots=True)
class DaemonConf(HostFact):
    """Of each daemon that takes connections over the network: `libvirtd`, or `virtproxyd` on modular hosts."""

    probes: ClassVar[tuple[Probe, ...]] = (DAEMON_CONF,)
    settings: tuple[tuple[str, str, str], ...]
    """Daemon, name and value of what is set."""
    mechanisms: tuple[str, ...]
    """SASL's, in lower case; empty: no file says."""
    store: frozenset[str]
    """Of `keytab` and `sasldb_path`: those whose file is there."""

    def _setting(self, modular: bool, name: str) -> str:
        daemon = "virtproxyd" if modular else "libvirtd"
        return next((value for of, key, value in self.settings if (of, key) == (daemon, name)), "")

    def authentication(self, transport: MigrationTransport, *, modular: bool) -> str:
        """`none`, `sasl` or `polkit`: by default SASL over TCP, and over TLS no more than the certificate."""
        return self._setting(modular, f"auth_{transport}") or ("sasl" if transport == "tcp" else "none")

    def asks_for_certificate(self, *, modular: bool) -> bool:
        """Over TLS a client without a valid certificate is refused."""
        return self._setting(modular, "tls_no_verify_certificate") != "1"

    @property
    def has_accounts(self) -> bool:
        """There is something that SASL could compare a name with: Kerberos' key table, a file of passwords, …"""
        own = {
            "gssapi": "keytab",
            **dict.fromkeys(("digest-md5", "scram-sha-1", "scram-sha-256", "plain"), "sasldb_path"),
        }
        return not self.mechanisms or any(own.get(name) is None or own[name] in self.store for name in self.mechanisms)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From `file NAME`, what is set in it, and what SASL's file says."""
        lines = said.lines(DAEMON_CONF)
        if not lines or lines[-1] != "end":
            raise Unavailable(DAEMON_CONF, "answer is incomplete")
        daemon, settings = "", []
        sasl: dict[str, str] = {}
        store = set()
        for line in lines[:-1]:
            word, _, rest = line.partition(" ")
            if word == "file":
                daemon = rest
            elif word == "sasl":
                key, _, value = rest.partition("=")
                sasl[key] = value
            elif word == "there":
                store.add(rest)
            else:
                key, equals, value = line.partition("=")
                match = re.match(r"[\"']?([A-Za-z0-9_-]*)", value)
                if not equals or match is None:
                    raise ValueError(f"not a setting: {visible(line, 80)}")
                settings.append((daemon, key, match[1]))
        mechanisms = tuple(sasl.get("mech_list", "").lower().split())
        return cls(tuple(settings), tuple(visible(name, 40) for name in mechanisms), frozenset(store))
