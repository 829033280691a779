"""Where a name leads on a source, when it should lead to the target."""

from collections.abc import Sequence

from audit.check import Unavailable
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, Route


def astray(name: str, routes: Sequence[Route], own: OwnAddresses) -> tuple[str, str]:
    """What the name leads to instead of the target, and what comes of that. Empty: it leads to the target."""
    found = ", ".join(route.address for route in routes)
    if not routes:
        return "it does not", f"unable to resolve '{name}'"
    if all(route.leads_here for route in routes):
        return f"it leads back to the source: {found}", "The source would speak with itself."
    if not any(route.device for route in routes):
        return f"the source has no route to {found}", "Network is unreachable"
    if not any(own.interface_of(route.address) for route in routes):
        return (
            f"it resolves to {found}",
            "The target has none of these addresses: a stale entry, or a translated address.",
        )
    return "", ""


def name_that_leads(names: OwnNames, own: OwnAddresses, peers: PeerAddresses) -> str | None:
    """Another name of the target's by which the source finds it."""
    for name in dict.fromkeys((names.libvirt, names.fqdn, names.hostname)):
        try:
            if name and not astray(name, peers.of(name), own)[0]:
                return name
        except Unavailable:
            continue
    return None
