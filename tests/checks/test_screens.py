"""What screens take of the target."""

from dataclasses import replace

import pytest

from audit.check import Blocks, NotApplicable, Unavailable
from audit.facts.base import Guest, GuestSource
from audit.facts.firewall import Listening, Socket
from audit.facts.guest import GuestIdentity
from audit.facts.guest_screens import GuestScreens, ScreenPath
from audit.facts.network import LibvirtNetwork, LibvirtNetworks
from audit.text import parse_xml
from checks import screens as checks
from tests.disks import FILE, GONE, found, paths

WEB = GuestIdentity("web", "11111111-2222-4333-8444-555555555555", None)
NONE = GuestScreens()


def test_screens_of_a_guest(said):
    def source(xml):
        root = parse_xml(f"<domain><devices>{xml}</devices></domain>".encode())
        return GuestSource(Guest("a", "u", "g"), True, parse_xml(b"<domain/>"), root, said({}))

    chosen = "<graphics type='vnc' autoport='yes' websocket='-1'><listen type='socket'/></graphics>"
    assert GuestScreens.parse(source(chosen)) == NONE
    fixed = """<graphics type='vnc' websocket='5799' listen='10.0.0.1'><listen type='address' address='10.0.0.1'/>
    </graphics><graphics type='vnc'><listen type='socket' socket='/srv/vnc.sock'/></graphics>
    <graphics type='egl-headless'><gl rendernode='/dev/dri/renderD128'/></graphics>
    <graphics type='spice'><listen type='network' network='screens' address='10.0.0.2'/></graphics>"""
    assert GuestScreens.parse(source(fixed)) == GuestScreens(
        (("10.0.0.1", 5799),),
        ("screens",),
        (
            ScreenPath("vnc socket", "/srv/vnc.sock", True),
            ScreenPath("graphics card", "/dev/dri/renderD128", False),
        ),
    )
    transient = source(chosen)._replace(inactive=None, xml=source(fixed).inactive)
    assert GuestScreens.parse(transient).networks == ("screens",)


def test_websockets():
    screens = GuestScreens(((None, 5799),))
    [finding] = found(checks.websocket_free, screens, Listening(frozenset({Socket("*", 5799)})), WEB)
    assert finding.remedy.startswith("virsh edit web")
    assert not found(checks.websocket_free, screens, Listening(frozenset({Socket("10.0.0.1", 5799)})), WEB)
    with pytest.raises(NotApplicable):
        found(checks.websocket_free, NONE, Listening(frozenset({Socket("*", 5799)})), WEB)
    assert checks.websocket_free.blocks is Blocks.MIGRATION


def test_networks_that_screens_listen_on():
    def network(*, active=True):
        return LibvirtNetworks((LibvirtNetwork("screens", active, False, None, "virbr8", (), frozenset()),))

    screens = GuestScreens(networks=("screens",))
    [finding] = found(checks.network_there, screens, LibvirtNetworks(()))
    assert finding.because == "Network not found: no network with matching name 'screens'"
    [finding] = found(checks.network_there, screens, network(active=False))
    assert finding.actual == "inactive"
    assert not found(checks.network_there, screens, network())
    with pytest.raises(Unavailable):
        found(checks.network_there, screens, LibvirtNetworks((), "no network driver"))
    with pytest.raises(NotApplicable):
        found(checks.network_there, NONE, LibvirtNetworks((), "no network driver"))


def test_paths_of_screens():
    socket, card = ScreenPath("vnc socket", "/srv/vnc", True), ScreenPath("graphics card", "/srv/card", False)
    screens = GuestScreens(paths=(socket, card))
    assert not found(checks.paths_there, screens, paths(vnc=GONE, card=FILE))
    first, second = found(checks.paths_there, screens, paths(vnc=replace(GONE, folder_exists=False), card=GONE))
    assert (first.expected, second.expected) == ("/srv on the target", "/srv/card on the target")
    with pytest.raises(Unavailable):
        found(checks.paths_there, screens, paths(vnc=GONE))
    with pytest.raises(NotApplicable):
        found(checks.paths_there, NONE, paths())
