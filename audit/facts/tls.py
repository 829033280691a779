"""TLS: the certificates by which libvirt's daemons know each other, and those that QEMU itself needs for `--tls`."""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.text import visible

# QEMU's folder as libvirt chooses it: qemu.conf's for migration, else /etc/pki/libvirt-migrate if there is one, else
# qemu.conf's or the usual one for everything.
TLS = Probe(
    "services.tls",
    """
setting() {
    name=$1
    shift
    for file; do
        $sudo cat "/etc/libvirt/$file" 2>/dev/null |
            sed -n "s/^[[:space:]]*$name[[:space:]]*=[[:space:]]*[\\"']\\([^\\"']*\\).*/\\1/p"
    done | sed -n 1p
}
show() {
    echo "file $1 $2"
    if $sudo test -e "$2"; then
        case $1 in *key) echo present ;; *)
            if said=$($sudo openssl x509 -noout -subject -issuer -enddate -in "$2" 2>&1); then
                printf '%s\\n' "$said"
                $sudo openssl x509 -noout -text -in "$2" 2>/dev/null | awk '
                    { key = "" }
                    /X509v3 Subject Alternative Name/ { key = "names" }
                    /X509v3 Key Usage/ { key = "usage" }
                    /X509v3 Extended Key Usage/ { key = "purposes" }
                    /X509v3 Subject Key Identifier/ { key = "own_id" }
                    /X509v3 Authority Key Identifier/ { key = "authority_id" }
                    key != "" {
                        critical = /critical/ ? "critical, " : ""
                        got = getline
                        if (got == 1) { sub(/^ +/, ""); print key "=" critical $0 }
                    }'
                echo "certificates=$($sudo grep -c "BEGIN CERTIFICATE" "$2")"
                case $1 in server|client)
                    said=$($sudo openssl verify -CAfile "$ca" "$2" 2>&1 | tail -n 1)
                    $sudo test ! -e "$ca" || echo "vouched=$said" ;;
                esac
                for days in 0 7 30; do
                    $sudo openssl x509 -noout -checkend $((days * 86400)) -in "$2" >/dev/null && echo "valid $days"
                done
            else
                printf 'unreadable %s\\n' "$said" | sed -n 1p
            fi ;;
        esac
    elif $sudo test -x "${2%/*}"; then echo absent
    elif $sudo test -e "${2%/*}"; then echo "unreadable no access to ${2%/*}"
    else echo absent
    fi
}
ca=$(setting ca_file virtproxyd.conf libvirtd.conf)
cert=$(setting cert_file virtproxyd.conf libvirtd.conf)
key=$(setting key_file virtproxyd.conf libvirtd.conf)
ca=${ca:-/etc/pki/CA/cacert.pem}
show ca "$ca"
show server "${cert:-/etc/pki/libvirt/servercert.pem}"
show client /etc/pki/libvirt/clientcert.pem
show key "${key:-/etc/pki/libvirt/private/serverkey.pem}"
show clientkey /etc/pki/libvirt/private/clientkey.pem
qemu=$(setting migrate_tls_x509_cert_dir qemu.conf)
[ -n "$qemu" ] || ! $sudo test -e /etc/pki/libvirt-migrate || qemu=/etc/pki/libvirt-migrate
[ -n "$qemu" ] || qemu=$(setting default_tls_x509_cert_dir qemu.conf)
for file in ca-cert server-cert client-cert server-key; do
    role=${file%-cert}
    show "qemu-${role#server-}" "${qemu:-/etc/pki/qemu}/$file.pem"
done
echo end
""",
    hand="openssl x509 -noout -text -in /etc/pki/libvirt/servercert.pem",
)

Role = Literal["ca", "server", "client", "key", "clientkey"]
_ROLES: dict[str, Role] = {
    "ca": "ca",
    "server": "server",
    "client": "client",
    "key": "key",
    "clientkey": "clientkey",
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """One file that TLS needs. `valid_days` is the longest of 0, 7 and 30 days that it still holds, -1: expired."""

    role: Role
    path: str
    present: bool
    subject: str = ""
    issuer: str = ""
    not_after: str = ""
    names: tuple[str, ...] = ()
    """Subject alternative names, as `DNS:…` and `IP Address:…`."""
    valid_days: int = -1
    problem: str = ""
    """Why it could not be read."""
    usage: tuple[str, ...] = ()
    """What its key may be used for, as openssl calls it; `critical` first, if that must be heeded. Empty: for all."""
    purposes: tuple[str, ...] = ()
    """What for by the extended list, the same."""
    own_id: str = ""
    authority_id: str = ""
    """Identifiers of its key and of the key that signed it; "": it does not tell."""
    several: bool = False
    """The file has more than one certificate, of which this is the first."""
    vouched: bool | None = None
    """By the authority that this host knows. None: not looked at, or not known."""

    @property
    def host_names(self) -> tuple[str, ...]:
        """The names whose owner it proves: its alternative names, or else its common name, if that is one."""
        names = tuple(self._alternatives("DNS"))
        if names:
            return names
        common = [quoted or plain.strip() for quoted, plain in _COMMON_NAME.findall(self.subject)]
        return tuple(common) if len(common) == 1 else ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The IP addresses whose owner it proves."""
        return tuple(self._alternatives("IP Address"))

    def proves(self, name: str) -> bool:
        """Whether it is of the host of that name or address, as GnuTLS compares: an address is never a name."""
        wanted = _ip(name)
        if wanted is not None:
            return any(_ip(address) == wanted for address in self.addresses)
        return any(_is_of(known.lower(), name.lower()) for known in self.host_names)

    def _alternatives(self, kind: str) -> Iterator[str]:
        return (name.partition(":")[2] for name in self.names if name.startswith(f"{kind}:"))


# As every version of openssl prints it: `CN = a`, `CN=a`, `/O=x/CN=a`, `O = "x, y", CN = a`.
_COMMON_NAME = re.compile(r'(?:^|[,/+]) ?CN ?= ?(?:"([^"]*)"|([^,/+"]+))')


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_of(known: str, name: str) -> bool:
    """`*` stands for the first part of a name of three or more."""
    if known.startswith("*.") and known.count(".") >= 2:
        return name.partition(".")[2] == known[2:] and not name.startswith(".")
    return name == known


@dataclass(frozen=True, slots=True)
class TlsCertificates(HostFact):
    """The files behind qemu+tls: authority, server's and client's certificates, server's key."""

    probes: ClassVar[tuple[Probe, ...]] = (TLS,)
    files: tuple[Certificate, ...]

    @property
    def server(self) -> Certificate | None:
        """The server's certificate; None: there is none. Raises `Unavailable` if it could not be read."""
        found = next((file for file in self.files if file.role == "server"), None)
        if found is None:
            raise Unavailable(TLS, "nothing said about the server's certificate")
        if found.problem:
            raise Unavailable(TLS, f"{found.path}: {found.problem}")
        return found if found.present else None

    def of(self, role: Role) -> Certificate | None:
        """The file in that role, if it is there and could be read."""
        return next((f for f in self.files if f.role == role and f.present and not f.problem), None)

    @classmethod
    def parse(cls, said: Said) -> Self:
        """From `file ROLE PATH` and what follows it."""
        return cls(tuple(_certificate(role, path, lines) for role, path, lines in _files(said) if role in _ROLES))


@dataclass(frozen=True, slots=True)
class QemuCertificates(HostFact):
    """The files by which QEMU encrypts what it sends with `virsh migrate --tls`; libvirt's own are none of them."""

    probes: ClassVar[tuple[Probe, ...]] = (TLS,)
    files: tuple[Certificate, ...]

    @classmethod
    def parse(cls, said: Said) -> Self:
        """The same, of the roles `qemu-…`."""
        files = [
            _certificate(role.removeprefix("qemu-"), path, lines) for role, path, lines in _files(said) if "-" in role
        ]
        if not files:
            raise Unavailable(TLS, "nothing said about QEMU's certificates")
        return cls(tuple(files))


def _files(said: Said) -> Iterator[tuple[str, str, list[str]]]:
    """Role, path and what was said of each file."""
    lines = said.lines(TLS)
    if not lines or lines[-1] != "end":
        raise Unavailable(TLS, "answer is incomplete")
    blocks: list[list[str]] = []
    for line in lines[:-1]:
        if line.startswith("file "):
            blocks.append([line])
        else:
            blocks[-1].append(line)
    for head, *rest in blocks:
        _, role, path = head.split(" ", 2)
        if role.removeprefix("qemu-") not in _ROLES or not rest:
            raise ValueError(f"not a certificate: {visible(head, 100)}")
        yield role, path, rest


def _certificate(role: str, path: str, lines: list[str]) -> Certificate:
    said = dict(line.partition("=")[::2] for line in lines)
    valid = [int(line.removeprefix("valid ")) for line in lines if line.startswith("valid ")]
    problem = next((line.removeprefix("unreadable ") for line in lines if line.startswith("unreadable ")), "")
    return Certificate(
        role=_ROLES[role],
        path=path,
        present="absent" not in lines,
        subject=said.get("subject", "").strip(),
        issuer=said.get("issuer", "").strip(),
        not_after=said.get("notAfter", ""),
        names=tuple(name.strip() for name in said.get("names", "").split(",") if name.strip()),
        valid_days=max(valid, default=-1),
        problem=visible(problem, 200),
        usage=_words(said.get("usage", "")),
        purposes=_words(said.get("purposes", "")),
        own_id=_key_id(said.get("own_id", "")),
        authority_id=_key_id(said.get("authority_id", "")),
        several=said.get("certificates", "1") not in {"0", "1"},
        vouched=_vouched(said.get("vouched", "")),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(visible(word.strip(), 60) for word in text.split(",") if word.strip())


def _key_id(text: str) -> str:
    return text.strip().removeprefix("critical, ").removeprefix("keyid:").upper()


def _vouched(text: str) -> bool | None:
    """As `openssl verify` ends. That a certificate has expired is told by its dates."""
    if not text or "expired" in text or "not yet valid" in text:
        return None
    return text.endswith(": OK")
