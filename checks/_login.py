"""What both sides' files say of a login over SSH from the source to the target."""

from audit.check import NotApplicable, Policy, Unavailable
from audit.facts.names import OwnAddresses
from audit.facts.reach import Peer
from audit.facts.ssh_setup import Login, SshClient, SshServer
from audit.facts.ssh_trust import Outcome, SshTrust
from checks._ways import TRIED, speaks_from_source


def login_to(client: SshClient, trust: SshTrust, peer: Peer, policy: Policy, *, answered: bool = False) -> Login:
    """How the source would log in. `NotApplicable` where it does not, or where it has tried.

    `answered`: also where the attempt met a question that nobody was there to answer.
    """
    if policy.transport != "ssh":
        raise NotApplicable("the migration does not use qemu+ssh")
    speaks_from_source(policy)
    try:
        outcome = trust.of(peer.name).outcome
    except Unavailable:
        return client.to(peer.name)
    if answered and outcome in {"unknown key", "denied"}:
        return client.to(peer.name)
    raise NotApplicable(TRIED)


def comes_from(login: Login, own: OwnAddresses) -> str:
    """The address that the source's connection to the target comes from."""
    if login.proxied:
        raise NotApplicable("the source's ssh goes by another host")
    for route in login.routes or ():
        if route.source and own.interface_of(route.address):
            return route.source
    raise NotApplicable("where the name leads is judged apart")


def meets_no_known_key(login: Login, server: SshServer) -> bool:
    """The host key would not be found among the known ones, as far as all is seen that matters."""
    return not (login.authority or not server.host_keys or login.known & server.host_keys or takes_all(login))


def takes_all(login: Login) -> bool:
    return login.setting("stricthostkeychecking") in {"no", "off", "false"}


def refuses_unknown(login: Login) -> bool:
    """A key that it has never seen ends the connection, and nobody is asked."""
    strict = login.setting("stricthostkeychecking")
    return strict in {"yes", "true"} or (strict == "ask" and login.alone)


def no_key_opens(login: Login, server: SshServer, address: str) -> str:
    """Why no key of the source's opens; "": one does, or may."""
    settings = server.of(address)
    if settings.get("permitrootlogin") == "no":
        return "PermitRootLogin no"
    if settings.get("forcecommand", "none") != "none":
        return "ForceCommand: whoever logs in gets that command"
    if listed_out := server.listed_out(address):
        return listed_out
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
    if not any(key.from_there(address) for key in mine):
        return f"its key may not come from {address}"
    return "its key runs another command there (command= in authorized_keys)" if all(k.forced for k in mine) else ""


def takes_password(settings: dict[str, str]) -> bool:
    """Root may give a password instead."""
    asked = "yes" in {settings.get("passwordauthentication"), settings.get("kbdinteractiveauthentication")}
    return settings.get("permitrootlogin") == "yes" and asked


def asks_about_host_key(login: Login, server: SshServer) -> bool:
    """Somebody at a terminal would be asked whether a key that was never seen is the right one."""
    asks = login.setting("stricthostkeychecking") == "ask" and not login.alone
    return asks and not login.known and meets_no_known_key(login, server)


def asks_for_password(login: Login, server: SshServer, own: OwnAddresses) -> bool:
    """Somebody at a terminal would be asked for root's password, which sshd takes."""
    if login.alone or login.setting("user") != "root":
        return False
    address = comes_from(login, own)
    return bool(no_key_opens(login, server, address)) and takes_password(server.of(address))


def answered_by_hand(client: SshClient, server: SshServer, own: OwnAddresses, peer: Peer, outcome: Outcome) -> bool:
    """An attempt in batch mode failed at a question that virsh lets ssh ask at a terminal."""
    try:
        login = client.to(peer.name)
        if outcome == "unknown key":
            return asks_about_host_key(login, server)
        return outcome == "denied" and asks_for_password(login, server, own)
    except (NotApplicable, Unavailable):
        return False
