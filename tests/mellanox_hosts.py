"""Hosts with Mellanox cards, guests that have their VFs, and the checks' findings about them."""

from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any

from audit.check import Check, Finding, Policy
from audit.evidence import Probe
from audit.facts.base import Unavailable
from audit.facts.guest import GuestIdentity, GuestState
from audit.facts.guest_devices import GuestDevices, GuestNics, HostDevice, KeptDevices, Nic
from audit.facts.mellanox import Iommu, MellanoxDevices, Netdev, Pf, Vf
from audit.facts.mellanox_tools import DevlinkPort, Firmware, Unread, VfMigrationMode
from audit.facts.openvswitch import Bridge, Database, OpenVswitch
from audit.facts.versions import Libvirt, Qemu, Version
from audit.judge import Missing
from tests.asked import found

BDF = "0000:e1:00.0"
MAC = "52:54:00:56:8c:f7"
UNREAD = Unread(Probe("some.probe", "true"), "no root")
POLICY = Policy()


def vf(number: int = 0, **changes: Any) -> Vf:
    address = f"0000:e1:00.{number + 1}"
    fine = Vf(
        address=address,
        pf=BDF,
        number=number,
        driver="mlx5_vfio_pci",
        isolated=True,
        representor=Netdev(f"enp225s0npf0vf{number}", f"pf0vf{number}", "up", "ovs-system"),
        port_state=DevlinkPort(f"pci/{BDF}/{number + 1}", migratable=True),
        held_state=False,
    )
    return replace(fine, **changes)


def pf(*vfs: Vf, **changes: Any) -> Pf:
    fine = Pf(
        address=BDF,
        device_id=0x1021,
        ethernet=True,
        driver="mlx5_core",
        uplink=Netdev("enp225s0np0", "p0", "up", "ovs-system"),
        vfs=vfs,
        total_vfs=8,
        firmware_state=Firmware("28.43.1014", "28.43.1014", "MT_0000000844"),
        vf_migration_state=VfMigrationMode(supported=True, current=2, next_boot=2),
        eswitch_state="switchdev",
    )
    return replace(fine, **changes)


def host(*pfs: Pf, mstflint: bool | Unread = True, module: bool | Unread = True) -> MellanoxDevices:
    return MellanoxDevices(pfs, mstflint, module)


OVS = OpenVswitch(
    installed=True,
    running_state=True,
    database_state=Database(
        frozenset({("hw-offload", "true"), ("max-idle", "300000")}),
        (Bridge("br0", frozenset({"br0", "enp225s0np0", "enp225s0npf0vf0"})),),
    ),
)
IOMMU = Iommu(97, frozenset({"DMAR"}), ("intel_iommu=on", "iommu=pt"))


@dataclass(frozen=True)
class Around:
    """What a VF needs of its host beside the card; each may be a fact that could not be had."""

    iommu_state: Iommu | Missing
    openvswitch_state: OpenVswitch | Missing
    libvirt_state: Libvirt | Missing


AROUND = Around(IOMMU, OVS, Libvirt(Version(11, 3, 0), Version(11, 3, 0)))
_LOST = Missing(Unavailable(UNREAD.probe, UNREAD.reason))
UNTOLD = Around(_LOST, _LOST, _LOST)
QEMU = Qemu(Version(8, 1))
GOOD = host(pf(vf()))
NO_CARD = host(mstflint=UNREAD, module=UNREAD)
UNREADABLE = MellanoxDevices(UNREAD, UNREAD, UNREAD)


def nic(**changes: Any) -> Nic:
    fields: dict[str, Any] = {field.name: None for field in fields_of(Nic)}
    fine = {"type": "hostdev", "pci_address": "0000:e1:00.1", "mac": MAC, "managed": True}
    return Nic(**fields | fine | changes)


def nics(*all_of_them: Nic) -> GuestNics:
    return GuestNics(all_of_them)


def devices(*hostdevs: HostDevice, viommu: bool = False) -> GuestDevices:
    fields: dict[str, Any] = {field.name: None for field in fields_of(GuestDevices)}
    return GuestDevices(**fields | {"hostdevs": hostdevs, "viommu": viommu})


BAD_FIRMWARE = pf(vf(), firmware_state=Firmware("28.35.2000", "28.35.2000", "MT_0000000844"))
STAGED_FIRMWARE = pf(vf(), firmware_state=Firmware("28.35.2000", "28.43.1014", "MT_0000000844"))

RUNNING = GuestState("running", active=True, persistent=True)
WITH_VF, NOTHING_ELSE = nics(nic()), devices()
WITHOUT = nics(nic(type="network", pci_address=None))


WEB = GuestIdentity("web 1", "6c1a5b8e-3b0f-4c56-8a44-0d2f6b1f2a10", None)


def _saved(guest: GuestNics, others: GuestDevices) -> KeptDevices:
    """A saved definition that has what the running guest has."""
    addresses = (*(nic.pci_address for nic in guest.nics), *(device.address for device in others.hostdevs))
    return KeptDevices(frozenset(nic.mac for nic in guest.nics if nic.mac), frozenset(filter(None, addresses)))


def judge(
    check: Check,
    source: MellanoxDevices = GOOD,
    target: MellanoxDevices = GOOD,
    around: Around = AROUND,
    guest: GuestNics = WITH_VF,
    others: GuestDevices = NOTHING_ELSE,
    qemu: tuple[Qemu, Qemu] = (QEMU, QEMU),
    saved: KeptDevices | None = None,
) -> list[Finding]:
    """The check's findings, given what its signature asks for. Raises what `found` raises."""
    seen: dict[str, list[Any]] = {"MellanoxDevices": [source, target], "Qemu": list(qemu)}
    given: dict[str, Any] = {"GuestNics": guest, "GuestDevices": others, "GuestState": RUNNING, "Policy": POLICY}
    given |= {"GuestIdentity": WEB, "KeptDevices": saved or _saved(guest, others)}
    given |= {"Iommu": around.iommu_state, "OpenVswitch": around.openvswitch_state, "Libvirt": around.libvirt_state}
    arguments = []
    for parameter in check.parameters:
        name = parameter.kind.__name__
        arguments.append(given[name] if name in given else seen[name].pop(0))
    return found(check, *arguments)
