"""SSH from host to host, as both sides' files have it: names, host keys, and whose key opens.

Nothing is tried here (`reach.ssh_trusted` does, with `--probe-network`, and then decides): files tell what must fail.
That an agent, a ticket or a password would open what no file does is not seen.
"""

import shlex
from collections.abc import Iterator

from audit.check import (
    ANOTHER_ADDRESS,
    STARTED_HERE,
    Blocks,
    Finding,
    NotApplicable,
    Policy,
    Severity,
    Source,
    Stage,
    Target,
    Unavailable,
    check,
)
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses
from audit.facts.reach import Peer
from audit.facts.ssh_setup import CLIENT, Login, RootShell, SshClient, SshServer
from audit.facts.ssh_trust import SshTrust
from checks._names import astray, name_that_leads
from checks._ways import TRIED, speaks_from_source, uri


def _login(client: SshClient, trust: SshTrust, peer: Peer, policy: Policy) -> Login:
    """How the source would log in. `NotApplicable` where it does not, or where it has done so."""
    if policy.transport != "ssh":
        raise NotApplicable("the migration does not use qemu+ssh")
    speaks_from_source(policy)
    try:
        trust.of(peer.name)
    except Unavailable:
        return client.to(peer.name)
    raise NotApplicable(TRIED)


def _from(login: Login, own: OwnAddresses) -> str:
    """The address that the source's connection to the target comes from."""
    if login.proxied:
        raise NotApplicable("the source's ssh goes by another host")
    for route in login.routes or ():
        if route.source and own.interface_of(route.address):
            return route.source
    raise NotApplicable("where the name leads is judged apart")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="ssh_config(5) HostName; libvirt: connection URIs",
    offline=True,
    covers=("12.6/reachable", "failure 36"),
)
def target_known(
    client: Source[SshClient],
    trust: Source[SshTrust],
    peer: Target[Peer],
    names: Target[OwnNames],
    own: Target[OwnAddresses],
    peers: Source[PeerAddresses],
    policy: Policy,
) -> Iterator[Finding]:
    """The inventory's name of the target leads the source's ssh to the target.

    It stands in the URI of every command that this report shows (`qemu+ssh://NAME/system`). ssh's own configuration on
    the source may lead it elsewhere than DNS and /etc/hosts do.
    """
    login = _login(client, trust, peer, policy)
    if login.proxied:
        raise NotApplicable("the source's ssh goes by another host")
    if login.routes is None:
        raise Unavailable(CLIENT, f"no answer about where {peer.name} leads")
    actual, because = astray(peer.name, login.routes, own)
    if actual:
        other = name_that_leads(names, own, peers)
        command = f"virsh migrate … {uri(policy, other)}" if other else "Make the name known in DNS or /etc/hosts"
        yield Finding(
            expected=f"{peer.name} leads from the source to the target",
            actual=actual,
            because=f"ssh: Could not resolve hostname {peer.name}" if not login.routes else because,
            remedy=command,
            lifted_by=(STARTED_HERE, ANOTHER_ADDRESS) if other else (STARTED_HERE,),
            about=uri(policy, other) if other else "",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="ssh(1): VERIFYING HOST KEYS",
    offline=True,
    covers=("failure 39",),
)
def host_key_known(
    client: Source[SshClient], trust: Source[SshTrust], server: Target[SshServer], peer: Target[Peer], policy: Policy
) -> Iterator[Finding]:
    """The source knows one of the target's SSH host keys by the target's name.

    A host that was installed anew, or that another one's name leads to, shows another key, and ssh refuses to go on. A
    key that was never seen it asks about, if somebody is there to be asked (`ssh.unattended`).
    """
    login = _login(client, trust, peer, policy)
    if not _must_be_known(login, server) or (not login.known and not _refuses_unknown(login)):
        return
    changed = bool(login.known)
    name = shlex.quote(peer.name)
    yield Finding(
        expected=f"{login.me} on the source knows a host key of the target by the name {peer.name}",
        actual="it knows another one" if changed else "it knows none",
        because="Host key verification failed",
        remedy=f"{f'ssh-keygen -R {name}; ' if changed else ''}ssh {name} true  # on the source, as {login.me}: "
        "compare the fingerprint that it shows",
        lifted_by=(STARTED_HERE,),
    )


def _must_be_known(login: Login, server: SshServer) -> bool:
    """The host key would not be found among the known ones, as far as all is seen that matters."""
    return not (login.authority or not server.host_keys or login.known & server.host_keys or _takes_all(login))


def _takes_all(login: Login) -> bool:
    return login.setting("stricthostkeychecking") in {"no", "off", "false"}


def _refuses_unknown(login: Login) -> bool:
    """A key that it has never seen ends the connection, and nobody is asked."""
    strict = login.setting("stricthostkeychecking")
    return strict in {"yes", "true"} or (strict == "ask" and login.alone)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="sshd_config(5) PermitRootLogin, AuthorizedKeysFile",
    offline=True,
    covers=("failure 39",),
)
def key_accepted(
    client: Source[SshClient],
    trust: Source[SshTrust],
    server: Target[SshServer],
    own: Target[OwnAddresses],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The target lets root in from the source, with a key that the source has.

    virsh on the source logs in to the target by itself. What root's files there do not list, and what sshd forbids
    root, is refused. Where a password may be typed instead, that is `ssh.unattended`.
    """
    login = _login(client, trust, peer, policy)
    settings = server.of(_from(login, own))
    if login.setting("user") != "root":
        raise NotApplicable("the source's ssh logs in as another user than root")
    reason = _refused(login, server, _from(login, own))
    if reason and not (_password(settings) and not login.alone):
        yield Finding(
            expected=f"{login.me} on the source may log in to {peer.name} as root",
            actual=reason,
            because="Permission denied (publickey)",
            remedy=f"ssh-copy-id {shlex.quote(peer.name)}  # on the source, as {login.me}",
            lifted_by=(STARTED_HERE,),
        )


def _refused(login: Login, server: SshServer, address: str) -> str:
    """Why no key of the source's opens; "": one does, or may."""
    settings = server.of(address)
    if settings.get("permitrootlogin") == "no":
        return "PermitRootLogin no"
    others = ("authorizedkeyscommand", "trustedusercakeys")
    elsewhere = any(settings.get(name, "none") != "none" for name in others) or any(
        settings.get(name) == "yes" and login.setting(name) in {"yes", "true"}
        for name in ("hostbasedauthentication", "gssapiauthentication")
    )
    usual = settings.get("authorizedkeysfile", "") in {
        ".ssh/authorized_keys",
        ".ssh/authorized_keys .ssh/authorized_keys2",
    }
    if elsewhere or not usual or login.other_keys or any(key.fingerprint == "?" for key in server.accepts):
        return ""
    if settings.get("pubkeyauthentication") == "no":
        return "PubkeyAuthentication no"
    if not login.keys:
        return "the source has no key"
    mine = [key for key in server.accepts if key.fingerprint in login.keys]
    if not mine:
        return "none of the source's keys is among those that root there accepts"
    return "" if any(key.from_there(address) for key in mine) else f"its key may not come from {address}"


def _password(settings: dict[str, str]) -> bool:
    """Root may give a password instead."""
    asked = "yes" in {settings.get("passwordauthentication"), settings.get("kbdinteractiveauthentication")}
    return settings.get("permitrootlogin") == "yes" and asked


@check(
    severity=Severity.MEDIUM,
    stage=Stage.CONNECT,
    reference="ssh_config(5) BatchMode, StrictHostKeyChecking",
    offline=True,
    covers=("failure 39",),
)
def unattended(
    client: Source[SshClient],
    trust: Source[SshTrust],
    server: Target[SshServer],
    own: Target[OwnAddresses],
    peer: Target[Peer],
    policy: Policy,
) -> Iterator[Finding]:
    """The source logs in to the target without a question that somebody has to answer.

    At a terminal, virsh lets ssh ask: whether a host key that it has never seen is the right one, and for a password.
    Without one (a script, a web console, `--p2p`) the same login fails.
    """
    login = _login(client, trust, peer, policy)
    if _must_be_known(login, server) and not login.known and login.setting("stricthostkeychecking") == "ask":
        yield Finding(
            expected=f"{login.me} on the source knows a host key of {peer.name}",
            actual="it knows none, and asks",
            because="Host key verification failed, where nobody answers",
            remedy=f"ssh {shlex.quote(peer.name)} true  # on the source, as {login.me}",
        )
    address = _from(login, own)
    if login.setting("user") == "root" and _refused(login, server, address) and _password(server.of(address)):
        yield Finding(
            expected=f"a key of {login.me} on the source opens {peer.name}",
            actual=f"{_refused(login, server, address)}; a password does",
            because="Permission denied, where nobody types it",
            remedy=f"ssh-copy-id {shlex.quote(peer.name)}  # on the source, as {login.me}",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.CONNECT,
    reference="libvirt: connection URIs; bash(1): invoked by remote shell daemon",
    remedy="On the target: let start-up files (~/.bashrc) print only where a terminal is: case $- in *i*) … esac",
    offline=True,
)
def shell_quiet(shell: Target[RootShell], policy: Policy) -> Iterator[Finding]:
    """Root's shell on the target prints nothing of its own when a command comes by SSH, and runs it.

    libvirt speaks with the daemon there through that command. A greeting in ~/.bashrc comes before the daemon's first
    word, and is taken for it.
    """
    if policy.transport != "ssh":
        raise NotApplicable("the migration does not use qemu+ssh")
    if shell.prints:
        yield Finding("nothing is printed", shell.prints, "libvirt takes it for the daemon's answer.")
    elif not shell.runs:
        yield Finding("root's shell runs commands", "it does not", "The SSH connection ends at once.")
