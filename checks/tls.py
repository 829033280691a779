"""TLS: the certificates by which source and target know each other, and those of QEMU's own connections."""

import shlex
from collections.abc import Iterator

from audit.check import (
    Blocks,
    Finding,
    NotApplicable,
    Policy,
    Severity,
    Source,
    Stage,
    Target,
    Told,
    Unavailable,
    check,
)
from audit.facts.daemon_conf import DaemonConf
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses
from audit.facts.qemu_conf import QemuConf
from audit.facts.reach import Peer
from audit.facts.services import Daemons
from audit.facts.tls import TLS, Certificate, QemuCertificates, TlsCertificates
from checks._ways import speaks_from_source

_NOT_TLS = "the migration does not use qemu+tls"


def _faults(files: tuple[Certificate, ...], roles: set[str]) -> Told:
    """What is wrong with files, and which of them could not be read."""
    for file in (file for file in files if file.role in roles):
        shown = shlex.quote(file.path)
        if not file.present:
            yield Finding(
                expected=f"{file.path} exists",
                actual="it does not",
                because="TLS cannot be set up without it.",
                remedy="Have it made by the authority that all hosts trust; virt-pki-validate tells what is missing",
            )
        elif not file.role.endswith("key") and not file.problem and file.valid_days < 0:
            yield Finding(
                expected=f"{file.path} is valid",
                actual=f"it expired: {file.not_after}",
                because="The other side refuses an expired certificate.",
                remedy=f"Have it renewed by its authority; its dates: openssl x509 -noout -dates -in {shown}",
            )
        elif file.present and not file.problem:
            yield from _not_for_this(file)
        if file.problem:
            yield Unavailable(TLS, f"{file.path}: {file.problem}")


_PEER = ("Digital Signature", "Key Encipherment")
_NEEDED = {"ca": ("Certificate Sign",), "server": _PEER, "client": _PEER}
_PURPOSES = {"server": ("TLS Web Server Authentication",), "client": ("TLS Web Client Authentication",)}


def _not_for_this(file: Certificate) -> Iterator[Finding]:
    """What its own authority says that it is not for, and whether that authority is the one known here."""
    shown = shlex.quote(file.path)
    for has, needed in ((file.usage, _NEEDED), (file.purposes, _PURPOSES)):
        lacking = set(needed.get(file.role, ())) - set(has)
        if lacking and has[:1] == ("critical",) and "Any Extended Key Usage" not in has:
            yield Finding(
                expected=f"{file.path} may be used for: {', '.join(sorted(lacking))}",
                actual=", ".join(has[1:]),
                because="libvirt refuses a certificate that was not made for this use.",
                remedy=f"Have it made anew for that use; to look: openssl x509 -noout -text -in {shown}",
            )
    if file.vouched is False:
        yield Finding(
            expected=f"{file.path} is signed by the authority in cacert.pem of the same host",
            actual="it is not",
            because="Our own certificate failed validation against the CA certificate",
            remedy=f"openssl verify -CAfile /etc/pki/CA/cacert.pem {shown}  # then put the right one in place",
        )


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="libvirt: TLS certificates; RHEL 9 §12.6",
    offline=True,
    covers=("12.6/socket-tls", "failure 40"),
)
def certificates(target: Target[TlsCertificates], policy: Policy) -> Told:
    """The target has the key and valid certificates that qemu+tls needs.

    The target proves with its server certificate who it is, and checks the source against the certificate of the
    authority. A missing or expired file ends every connection on port 16514.
    """
    if policy.transport != "tls":
        raise NotApplicable(_NOT_TLS)
    yield from _faults(target.files, {"ca", "server", "key"})


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.SET_OUT,
    reference="libvirt: TLS certificates",
    offline=True,
    covers=("12.6/socket-tls", "failure 40"),
)
def client_certificates(
    source: Source[TlsCertificates], conf: Target[DaemonConf], daemons: Target[Daemons], policy: Policy
) -> Told:
    """The source has the certificates with which it introduces itself over qemu+tls.

    libvirt on the target asks its clients for a certificate, unless told not to. Where `virsh` runs on another
    machine than the source, that machine needs it instead, but for peer-to-peer migration.
    """
    if policy.transport != "tls":
        raise NotApplicable(_NOT_TLS)
    speaks_from_source(policy)
    yield from _faults(source.files, {"ca"})
    own = [file for file in source.files if file.role in {"client", "clientkey"}]
    if any(file.present for file in own) or conf.asks_for_certificate(modular=daemons.modular):
        yield from _faults(source.files, {"client", "clientkey"})


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="libvirt: TLS certificates; RFC 5280 §4.2.1.1",
    offline=True,
    remedy="Copy one authority's cacert.pem to all hosts, and have all certificates signed by it",
    covers=("failure 40",),
)
def same_authority(
    source: Source[TlsCertificates],
    target: Target[TlsCertificates],
    conf: Target[DaemonConf],
    daemons: Target[Daemons],
    policy: Policy,
) -> Iterator[Finding]:
    """Source and target accept each other's certificates: they are signed by the authority that the other one knows.

    Each side compares what it is shown with its own cacert.pem. Hosts that were set up apart have one each.
    """
    if policy.transport != "tls":
        raise NotApplicable(_NOT_TLS)
    speaks_from_source(policy)
    yield from _foreign(target.of("server"), source.of("ca"), "the target's", "the source")
    if conf.asks_for_certificate(modular=daemons.modular):
        yield from _foreign(source.of("client"), target.of("ca"), "the source's", "the target")


def _foreign(shown: Certificate | None, ca: Certificate | None, whose: str, who: str) -> Iterator[Finding]:
    """A certificate that was signed by another key than the authority's, as far as both tell of it."""
    if shown is None or ca is None or shown.several or ca.several:
        return  # what is missing is judged apart; of bundles only the first one is known
    ids = (shown.authority_id, ca.own_id)
    signed, known = ids if all(ids) else (shown.issuer, ca.subject)
    if signed and known and signed != known:
        yield Finding(
            expected=f"{whose} certificate is signed by the authority that {who} knows",
            actual=f"signed by {shown.issuer or shown.authority_id}; known: {ca.subject or ca.own_id}",
            because="The certificate hasn't got a known issuer",
        )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.CONNECT,
    reference="libvirt: TLS certificates",
    offline=True,
    covers=("failure 40",),
)
def certificates_last(host: TlsCertificates, policy: Policy) -> Iterator[Finding]:
    """TLS certificates do not expire while this report is valid.

    Connections are good today and are refused from the moment at which one ends. A migration that is under way then
    goes on; the next does not begin.
    """
    if policy.transport != "tls":
        raise NotApplicable(_NOT_TLS)
    for file in host.files:
        if (
            file.present
            and not file.problem
            and file.role != "key"
            and 0 <= file.valid_days < min(policy.validity_days, 30)
        ):
            yield Finding(f"{file.path} is valid for {policy.validity_days} days", f"it ends {file.not_after}")


def _proved(certificate: Certificate, peer: Peer, names: OwnNames, own: OwnAddresses) -> list[str]:
    """The target's names and addresses that its certificate is of, the inventory's name first."""
    known = [peer.name, names.libvirt, names.fqdn, names.hostname, *(address.ip for address in own.reachable)]
    return list(dict.fromkeys(name for name in known if name and certificate.proves(name)))


def _owners(certificate: Certificate) -> str:
    return ", ".join([*certificate.host_names, *certificate.addresses]) or "no name or address"


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="libvirt: TLS certificates; gnutls_x509_crt_check_hostname(3)",
    offline=True,
    covers=("failure 40",),
)
def certificate_names(
    target: Target[TlsCertificates],
    peer: Target[Peer],
    names: Target[OwnNames],
    own: Target[OwnAddresses],
    peers: Source[PeerAddresses],
    policy: Policy,
) -> Iterator[Finding]:
    """The target's server certificate is of a name or an address by which the source can reach the target.

    The source's libvirt compares the name in qemu+tls://NAME/system with the certificate that the target shows, and
    ends the connection where it is of somebody else.
    """
    if policy.transport != "tls":
        raise NotApplicable(_NOT_TLS)
    certificate = target.server
    if certificate is None:
        raise NotApplicable("the target has no server certificate, which is judged apart")
    if _proved(certificate, peer, names, own):
        return
    routes = [route for name in certificate.host_names if "*" not in name for route in peers.of(name)]
    if not any(own.interface_of(route.address) for route in routes):
        yield Finding(
            expected=f"a certificate of {peer.name}",
            actual=f"{certificate.path} is of {_owners(certificate)}",
            because=f"Certificate [session] owner does not match the hostname {peer.name}",
            remedy=f"Make one whose subjectAltName has {peer.name}; to look: "
            f"openssl x509 -noout -text -in {shlex.quote(certificate.path)}",
        )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.CONNECT,
    reference="libvirt: TLS certificates; gnutls_x509_crt_check_hostname(3)",
    offline=True,
    covers=("failure 40",),
)
def certificate_inventory_name(
    target: Target[TlsCertificates],
    peer: Target[Peer],
    names: Target[OwnNames],
    own: Target[OwnAddresses],
    policy: Policy,
) -> Iterator[Finding]:
    """The target's server certificate is of the name that the inventory has, not of its other names only.

    Commands in the report call the target by that name. A connection by a name that the certificate is not of is
    refused, though it leads to the same host.
    """
    if policy.transport != "tls":
        raise NotApplicable(_NOT_TLS)
    certificate = target.server
    if certificate is None:
        raise NotApplicable("the target has no server certificate, which is judged apart")
    others = _proved(certificate, peer, names, own)
    if others and peer.name not in others:
        name = f"[{others[0]}]" if ":" in others[0] else others[0]
        yield Finding(
            expected=f"a certificate of {peer.name}",
            actual=f"it is of {_owners(certificate)}",
            remedy=f"virsh migrate … {shlex.quote(f'qemu+tls://{name}/system')}",
        )


@check(
    severity=Severity.INFO,
    stage=Stage.TRANSFER,
    reference="libvirt qemu.conf: migrate_tls_x509_cert_dir",
    covers=("failure 40",),
)
def migrate_certificates(host: QemuCertificates, conf: QemuConf, policy: Policy) -> Told:
    """QEMU has certificates of its own here, so that guests can be moved with `--tls`.

    qemu+tls encrypts what the two libvirts say to each other; the guest's memory goes from QEMU to QEMU in the clear,
    unless `--tls` is given. Those need other files, and a client's certificate on the source.
    """
    if policy.transport != "tls":
        raise NotApplicable(_NOT_TLS)
    if conf.migrate_tls_force:
        raise NotApplicable("qemu.conf insists on --tls, for which each pair is judged")
    if not any(file.present or file.problem for file in host.files):
        folders = ", ".join(dict.fromkeys(file.path.rpartition("/")[0] for file in host.files))
        yield Finding(f"QEMU's certificates in {folders}", "there are none")
        return
    yield from _faults(host.files, {"ca", "server", "client", "key"})


@check(
    severity=Severity.CRITICAL,
    blocks=Blocks.MIGRATION,
    stage=Stage.PREPARE,
    reference="libvirt qemu.conf: migrate_tls_force, migrate_tls_x509_cert_dir",
    covers=("failure 40", "failure 41"),
)
def migrate_possible(
    source: Source[QemuCertificates],
    source_conf: Source[QemuConf],
    target: Target[QemuCertificates],
    target_conf: Target[QemuConf],
) -> Told:
    """Where qemu.conf insists on `--tls`, both hosts have the certificates that QEMU needs for it.

    Without `--tls` libvirt refuses, and with it QEMU cannot begin.
    """
    if not (source_conf.migrate_tls_force or target_conf.migrate_tls_force):
        raise NotApplicable("qemu.conf does not insist on --tls")
    yield from _faults(source.files, {"ca"})
    yield from _faults(target.files, {"ca", "server", "key"})


@check(
    severity=Severity.HIGH,
    stage=Stage.CONNECT,
    reference="libvirt qemu.conf: migrate_tls_force",
    covers=("failure 41",),
)
def migrate_force(conf: QemuConf) -> Iterator[Finding]:
    """qemu.conf does not insist on `--tls`.

    With `migrate_tls_force = 1` on either side libvirt refuses every migration whose command lacks `--tls`
    (the encryption of the guest's data, which qemu+tls alone does not bring).
    """
    if conf.migrate_tls_force:
        yield Finding(
            expected="migrations are accepted with and without --tls",
            actual="migrate_tls_force = 1",
            because="A command without --tls is refused.",
            remedy="virsh migrate --tls …",
        )
