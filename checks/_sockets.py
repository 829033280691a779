"""What the checks about listening sockets share: when two cannot both be bound."""

import ipaddress

from audit.facts.names import OwnAddresses


def collide(one: str, other: str) -> bool:
    """Whether nobody can bind `one` and a port while another has `other` and the same port."""
    return one == other or _is_wildcard(one) or _is_wildcard(other)


def _is_wildcard(address: str) -> bool:
    return address == "*" or (is_address(address) and ipaddress.ip_address(address).is_unspecified)


def is_address(text: str) -> bool:
    """Not a name, which each host resolves for itself."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def addresses_in(network: str, own: OwnAddresses) -> list[str]:
    """Those of a host's addresses that lie in the network (of an inventory that was read: it is one)."""
    inside = ipaddress.ip_network(network, strict=False)
    return [address.ip for address in own.reachable if ipaddress.ip_address(address.ip) in inside]
