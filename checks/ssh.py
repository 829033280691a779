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
from audit.facts.ssh_setup import CLIENT, RootShell, SshClient, SshServer
from audit.facts.ssh_trust import SshTrust
from checks._login import (
    asks_about_host_key,
    asks_for_password,
    comes_from,
    login_to,
    meets_no_known_key,
    no_key_opens,
    refuses_unknown,
)
from checks._names import astray, name_that_leads
from checks._ways import speaks_from_source, uri


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.SET_OUT,
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
    if client.absent and policy.transport == "ssh":
        speaks_from_source(policy)
        yield Finding(
            expected="an SSH client on the source",
            actual="there is none",
            because="Cannot find 'ssh' in path",
            remedy="dnf install openssh-clients || apt-get install openssh-client",
            lifted_by=(STARTED_HERE,),
        )
        return
    login = login_to(client, trust, peer, policy)
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


_CONDITION = "whom the target's sshd lets in is not known, which is a condition"


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.LOG_IN,
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
    login = login_to(client, trust, peer, policy)
    try:
        met = meets_no_known_key(login, server)
    except Unavailable as why:
        raise NotApplicable(_CONDITION) from why
    if not met or (not login.known and not refuses_unknown(login)):
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


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.LOG_IN,
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
    login = login_to(client, trust, peer, policy)
    if login.setting("user") != "root":
        raise NotApplicable("the source's ssh logs in as another user than root")
    try:
        reason = no_key_opens(login, server, comes_from(login, own))
    except Unavailable as why:
        raise NotApplicable(_CONDITION) from why
    if reason and not asks_for_password(login, server, own):
        yield Finding(
            expected=f"{login.me} on the source may log in to {peer.name} as root",
            actual=reason,
            because="root@TARGET: Permission denied (publickey)",
            remedy=f"ssh-copy-id {shlex.quote(peer.name)}  # on the source, as {login.me}",
            lifted_by=(STARTED_HERE,),
        )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.LOG_IN,
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
    login = login_to(client, trust, peer, policy, answered=True)
    if asks_about_host_key(login, server):
        yield Finding(
            expected=f"{login.me} on the source knows a host key of {peer.name}",
            actual="it knows none, and asks",
            because="Host key verification failed, where nobody answers",
            remedy=f"ssh {shlex.quote(peer.name)} true  # on the source, as {login.me}",
        )
    if asks_for_password(login, server, own):
        yield Finding(
            expected=f"a key of {login.me} on the source opens {peer.name}",
            actual="none does; a password does",
            because="root@TARGET: Permission denied (publickey,password), where nobody types it",
            remedy=f"ssh-copy-id {shlex.quote(peer.name)}  # on the source, as {login.me}",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.LOG_IN,
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


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.LOG_IN,
    reference="libvirt: connection URIs, proxy; virt-ssh-helper(8)",
    remedy="On the target: dnf install libvirt-client || apt-get install libvirt-clients libvirt-daemon",
    offline=True,
)
def helper_there(shell: Target[RootShell], policy: Policy) -> Iterator[Finding]:
    """The target has a program by which libvirt's client reaches the daemon behind ssh.

    That is virt-ssh-helper, which comes with libvirt from 6.8 on, or else `nc`, which clients before that need.
    """
    if policy.transport != "ssh":
        raise NotApplicable("the migration does not use qemu+ssh")
    if not shell.helpers:
        yield Finding("virt-ssh-helper or nc", "neither is there", "nc: command not found")
