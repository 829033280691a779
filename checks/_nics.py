"""What the checks about NICs share: which device of the target each is connected to, and how."""

from collections.abc import Iterator
from typing import NamedTuple

from audit.facts.guest_devices import GuestNics, Nic
from audit.facts.network import LibvirtNetwork, LibvirtNetworks


class Attachment(NamedTuple):
    """A device of the target that a NIC is connected to."""

    device: str
    switched: bool
    """By Open vSwitch, whose bridge the device has to be."""
    mode: str | None = None
    """Of a macvtap on top of it: bridge, vepa, private or passthrough; None: the device is a bridge."""


def attachments(nics: GuestNics, networks: LibvirtNetworks) -> Iterator[Attachment]:
    """What the NICs would be connected to, each once; not those whose network is missing or inactive.

    Raises `Unavailable`.
    """
    for found in dict.fromkeys(_attachment(nic, networks) for nic in nics.nics):
        if found is not None:
            yield found


def _attachment(nic: Nic, networks: LibvirtNetworks) -> Attachment | None:
    switched = nic.virtualport == "openvswitch"
    if nic.network is not None:
        network = networks.find(nic.network)
        return _by_network(nic, network, switched=switched) if network and network.active else None
    if nic.type == "bridge" and nic.source:
        return Attachment(nic.source, switched)
    return Attachment(nic.source, False, nic.mode or "vepa") if nic.type == "direct" and nic.source else None


def _by_network(nic: Nic, network: LibvirtNetwork, *, switched: bool) -> Attachment | None:
    if network.bridge:
        return Attachment(network.bridge, switched or network.plugs_into_switch(nic.portgroup))
    if len(network.devices) == 1 and network.forward != "hostdev":  # of several, libvirt chooses one
        return Attachment(network.devices[0], False, network.forward)
    return None
