"""Logins over SSH as both sides' files describe them, for the tests of the checks on them."""

from audit.facts.names import Route
from audit.facts.ssh_setup import Key, Login, SshServer

MINE, THEIRS, OTHER = (f"SHA256:{letter * 43}" for letter in "abc")
ROUTE = Route("192.0.2.12", "eth0", "192.0.2.11")
DEFAULTS = {
    "permitrootlogin": "without-password",
    "pubkeyauthentication": "yes",
    "authorizedkeysfile": ".ssh/authorized_keys",
    "passwordauthentication": "yes",
}


def login(*, known=(THEIRS,), keys=(MINE,), routes=(ROUTE,), authority=False, other_keys=False, **settings):
    """root's way to the target, whose key is known there."""
    found = {"user": "root", "stricthostkeychecking": "ask", "batchmode": "no", **settings}
    return Login("root", tuple(found.items()), frozenset(known), authority, frozenset(keys), other_keys, routes)


def server(*accepts, host_keys=(THEIRS,), address="192.0.2.11", **settings):
    """A target that lets root in with a key from one address."""
    keys = tuple(Key(*key) for key in accepts) or (Key(MINE, ""),)
    return SshServer(((address, tuple((DEFAULTS | settings).items())),), frozenset(host_keys), keys)
