"""How a guest's NICs are connected to what the target has: kinds of bridges, taps, macvtaps, filters.

That it is there at all is judged by `network.sources_present`.
"""

import shlex
from collections.abc import Iterator

from audit.check import Blocks, Finding, NotApplicable, Severity, Source, Stage, Target, Told, Unavailable, check
from audit.facts.guest_devices import GuestNics
from audit.facts.network import LibvirtNetworks, Link, Links
from audit.facts.nwfilters import Filters, GuestFilters
from audit.facts.openvswitch import INSTALLED, OpenVswitch
from audit.facts.versions import Libvirt, Version
from checks._nics import Attachment, attachments

TAPS_ARE_NEW = Version(9, 0, 0)
"""Since then at the latest libvirt takes no tap device that is there already, except with `managed='no'`."""
_SLAVE_OF = frozenset({"bridge", "bond", "team", "openvswitch"})


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 11.3 virNetDevTapAttachBridge, virNetDevBridgeAddPort",
    covers=("12.6/bridge", "failure 32"),
)
def bridge_is_one(nics: GuestNics, links: Target[Links], networks: Target[LibvirtNetworks]) -> Iterator[Finding]:
    """What a NIC without Open vSwitch takes for a bridge is a bridge of the target's kernel.

    The guest names it only. A network card of that name, or a bridge of Open vSwitch (which wants
    `<virtualport type='openvswitch'/>`), takes no port from libvirt.
    """
    for place in attachments(nics, networks):
        link = links.find(place.device)
        if link is None or place.switched or place.mode is not None or link.kind == "bridge":
            continue
        yield Finding(
            expected=f"{place.device} on the target to be a bridge",
            actual=f"a device of kind {link.kind}" if link.kind else "a network card",
            because=f"Unable to add bridge {place.device} port vnet0: Operation not supported",
            remedy="Make it the same kind of bridge on both hosts; or migrate with --xml and the name of a bridge",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 11.3 virNetDevOpenvswitchAddPort; ovs-vsctl(8)",
    covers=("12.6/bridge", "failure 32"),
)
def openvswitch_bridge(
    nics: GuestNics, links: Target[Links], networks: Target[LibvirtNetworks], switch: Target[OpenVswitch]
) -> Told:
    """What a NIC takes for a bridge of Open vSwitch is one on the target, and Open vSwitch runs there.

    The kind of bridge stands in the guest's configuration, or in that of the target's libvirt network.
    """
    places = [place for place in attachments(nics, networks) if place.switched]
    if not places:
        raise NotApplicable("no NIC is plugged into an Open vSwitch")
    for place in places:
        link = links.find(place.device)
        if link is None:  # judged by network.sources_present
            continue
        try:
            lacks = _no_switch(place, link, switch)
        except Unavailable as why:
            yield why
            continue
        if lacks:
            yield Finding(
                expected=f"{place.device} on the target to be a bridge of Open vSwitch",
                actual=lacks,
                because=f"Unable to add port vnet0 to OVS bridge {place.device}",
                remedy=f"On the target: start Open vSwitch; ovs-vsctl --may-exist add-br {shlex.quote(place.device)}",
            )


def _no_switch(place: Attachment, link: Link, switch: OpenVswitch) -> str:
    """Why Open vSwitch takes no port there; "": it does. Raises `Unavailable`."""
    if link.kind == "bridge":
        return "a bridge of the kernel's"
    if not switch.installed:
        if link.kind == "openvswitch":
            raise Unavailable(INSTALLED, "what runs the Open vSwitch there is not known: ovs-vsctl is not found")
        return "Open vSwitch is not installed"
    if switch.running_state is False:
        return "Open vSwitch does not run"
    if link.kind == "openvswitch":  # a bridge, or a part of one that does as such ("fake bridge")
        return "" if switch.running else "Open vSwitch does not run"
    database = switch.database
    known = {bridge.name for bridge in database.bridges}
    if place.device in known or database.bridge_of(place.device):
        return ""
    return "none of its bridges"


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="Linux netdev_rx_handler_register, macvlan_port_create; libvirt 11.3 virNetDevMacVLanCreate",
    remedy="On the target: take the device out of the bridge or bond (ip link set DEVICE nomaster); or connect the "
    "guest to that bridge, with virsh migrate --xml",
)
def macvtap_possible(nics: GuestNics, links: Target[Links], networks: Target[LibvirtNetworks]) -> Iterator[Finding]:
    """The device that a NIC of type direct lies on can carry a macvtap on the target.

    A port of a bridge or bond cannot, nor one that another macvtap has for itself (mode passthrough), nor, for that
    mode, one that has others on top.
    """
    places = [place for place in attachments(nics, networks) if place.mode is not None]
    if not places:
        raise NotApplicable("no NIC lies directly on a device of the host")
    for place in places:
        link = links.find(place.device)
        master = links.find(link.master) if link and link.master else None
        over = [one for one in links.links if one.lower == place.device and one.kind in {"macvlan", "macvtap"}]
        actual = ""
        if master and master.kind in _SLAVE_OF:
            actual = f"a port of {master.name}"
        elif over and (place.mode == "passthrough" or any(one.passthru for one in over)):
            actual = f"taken by {over[0].name}"
        if actual:
            because = "error creating macvtap interface: Device or resource busy"
            yield Finding(f"{place.device} free on the target", actual, because)


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 11.3 virNetDevTapCreate, virNetDevGenerateName",
)
def name_free(nics: GuestNics, links: Target[Links], libvirt: Target[Libvirt]) -> Told:
    """The names that the guest's NICs are given on the host are free on the target.

    `<target dev='…'/>` names the tap device that libvirt makes. Names that libvirt chose itself (vnet…, macvtap…) do
    not travel.
    """
    for nic in nics.nics:
        name = nic.ifname or ""
        if nic.own_tap or not name or name.startswith(_CHOSEN) or nic.type in {"hostdev", "vhostuser", "vdpa", "user"}:
            continue
        link = links.find(name)
        if link is None:
            continue
        if link.kind == "tun" and libvirt.daemon < TAPS_ARE_NEW:
            yield Unavailable(libvirt.probes[0], f"whether libvirt {libvirt.daemon} takes the tap {name} that is there")
            continue
        yield Finding(
            expected=f"no device {name} on the target",
            actual=f"one of kind {link.kind}" if link.kind else "a network card",
            because=f"The {name} interface already exists",
            remedy=f"On the target: ip link delete {shlex.quote(name)}; or migrate with --xml and another <target dev>",
        )


_CHOSEN = ("vnet", "macvtap", "macvlan")


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 11.3 virNWFilterObjListFindInstantiateFilter",
)
def filters_present(guest: GuestFilters, there: Target[Filters]) -> Told:
    """The target has the network filters that the guest's NICs name, and those that these include.

    Filters are defined on each host. libvirt starts no guest whose rules it cannot make.
    """
    if not guest.references:
        raise NotApplicable("no NIC has a network filter")
    missing = set()
    for reference in guest.references:
        try:
            missing |= {name for name, found in there.below(reference.filter) if found is None}
        except Unavailable as why:
            yield why
    for name in sorted(missing):
        quoted = shlex.quote(name)
        yield Finding(
            expected=f"a network filter {name} on the target",
            actual="none",
            because=f"referenced filter '{name}' is missing",
            remedy=f"virsh nwfilter-dumpxml {quoted} > filter.xml; on the target: virsh nwfilter-define filter.xml",
        )


@check(
    severity=Severity.HIGH,
    blocks=Blocks.MIGRATION,
    stage=Stage.START,
    reference="libvirt 11.3 virNWFilterDoInstantiate",
    remedy="virsh nwfilter-edit FILTER on the target: the same rules as on the source",
)
def filter_parameters(guest: GuestFilters, there: Target[Filters]) -> Iterator[Finding]:
    """The guest gives the parameters that the target's filters use.

    A filter of the same name may ask for others there. Only the guest's address, where nothing else is missing, does
    libvirt find out itself.
    """
    if not guest.references:
        raise NotApplicable("no NIC has a network filter")
    for reference in guest.references:
        wanting = there.wanting(reference)
        if wanting and (wanting != {"IP"} or reference.learning == "none"):
            names = ", ".join(sorted(wanting))
            because = "Cannot instantiate filter due to unresolvable variables or unavailable list elements"
            yield Finding(
                expected=f"filter {reference.filter} on the target without other parameters",
                actual=f"it uses {names}",
                because=f"{because}: {names}",
            )


@check(
    severity=Severity.MEDIUM,
    stage=Stage.AFTER,
    reference="libvirt formatnwfilter",
    remedy="virsh nwfilter-dumpxml FILTER on both hosts; virsh nwfilter-edit FILTER on the one that is wrong",
)
def filters_alike(guest: GuestFilters, here: Source[Filters], there: Target[Filters]) -> Iterator[Finding]:
    """The network filters that the guest's NICs name have the same rules on the target.

    They go by name. Other rules may cut the guest off, or let in what was kept out.
    """
    if not guest.references:
        raise NotApplicable("no NIC has a network filter")
    ours = {name: found for reference in guest.references for name, found in here.below(reference.filter)}
    for name, mine in sorted(ours.items()):
        other = there.find(name)
        if mine and other and mine.rules != other.rules:
            yield Finding(f"filter {name} on the target as on the source", "other rules")
