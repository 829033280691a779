"""A guest's Mellanox VFs, how its XML gives them, and where each would land: what the checks of `checks.vf` share."""

import re
import shlex
from typing import NamedTuple

from audit.check import NotApplicable
from audit.facts.guest import GuestIdentity
from audit.facts.guest_devices import GuestDevices, GuestNics
from audit.facts.mellanox import MellanoxDevices, Pf, Vf
from audit.facts.mellanox_tools import Unread
from checks import _mellanox as needs


class Given(NamedTuple):
    """A host PCI device that stays with the guest, and how its XML gives it."""

    address: str
    mac: str | None
    """None also of a plain `<hostdev>`, of which libvirt knows no MAC address."""
    managed: bool
    network: str | None
    """The libvirt network whose pool it comes from."""
    interface: bool

    @property
    def xml(self) -> str:
        """The device for virsh attach-device and detach-device, in one line."""
        if self.network and re.fullmatch(r"[\w.-]+", self.network) and self.mac:
            return needs.pooled_xml(self.mac, self.network)
        if self.interface:
            return needs.interface_xml(self.mac, self.address)
        return needs.hostdev_xml(self.address)


def given_of(nics: GuestNics, devices: GuestDevices) -> dict[str, Given]:
    """By address. libvirt unplugs the transient one of a team before it migrates."""
    taken = [
        Given(nic.pci_address, needs.plain_mac(nic.mac), nic.managed, nic.network, True)
        for nic in nics.nics
        if nic.type == "hostdev" and nic.teaming != "transient" and nic.pci_address is not None
    ]
    taken += [
        Given(device.address, None, device.managed, None, False)
        for device in devices.hostdevs
        if device.type == "pci" and device.teaming != "transient" and device.address is not None
    ]
    return {given.address: given for given in taken}


def vfs_of(nics: GuestNics, devices: GuestDevices, source: MellanoxDevices) -> list[Vf]:
    """The guest's Mellanox VFs. Guests without a PCI device are skipped before the host is looked at."""
    vfs = [vf for address in given_of(nics, devices) if (vf := source.vf(address))]
    if not vfs:
        raise NotApplicable("no Mellanox VF attached")
    return vfs


def take_and_give(guest: GuestIdentity, given: Given) -> tuple[str, str]:
    """How to take the VF from the running guest, and how to give it back."""
    name = shlex.quote(guest.name)
    take = f"{needs.write_xml(given.xml)} && virsh detach-device {name} vf.xml --live"
    return take, f"virsh attach-device {name} vf.xml --live"


class Move(NamedTuple):
    """One VF of the guest, and what awaits it on the target."""

    vf: Vf
    pf: Pf
    to_pf: Pf
    to_vf: Vf | None


def moves_of(nics: GuestNics, devices: GuestDevices, source: MellanoxDevices, target: MellanoxDevices) -> list[Move]:
    """Where each VF would land: on the VF of the same address if that is free, else on the readiest."""
    moves: list[Move] = []
    for vf in vfs_of(nics, devices, source):
        pf = source.pf(vf)
        gone = {move.to_vf.address for move in moves if move.to_vf}
        free = [(p, v) for p in target.pfs for v in p.vfs if v.address not in gone and v.held_state is not True]
        if free:
            moves.append(Move(vf, pf, *min(free, key=lambda to: _distance(vf, pf, *to))))
        elif target.pfs:
            moves.append(Move(vf, pf, min(target.pfs, key=lambda p: (p.model != pf.model, p.address)), None))
    if not moves:
        raise NotApplicable("the target has no Mellanox device")
    return moves


def _distance(vf: Vf, pf: Pf, to_pf: Pf, to_vf: Vf) -> tuple[bool | str, ...]:
    ready = to_pf.eswitch_state == "switchdev" and not isinstance(to_vf.port_state, Unread) and to_vf.port.migratable
    alike = to_pf.model == pf.model and to_pf.ethernet
    return (to_vf.address != vf.address, not alike, not ready, to_vf.address)


def both_cards(moves: list[Move]) -> list[tuple[str, Pf]]:
    """The physical functions on both sides, each once."""
    return list(dict.fromkeys([*(("source: ", m.pf) for m in moves), *(("target: ", m.to_pf) for m in moves)]))
