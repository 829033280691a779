"""virtiofsd, swtpm, ROMs; and what guests have of them: shares, TPM states, firmware, numbers, formats."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.blockers import GuestFormats, GuestSpice, GuestUnsaved
from audit.facts.firmware import ROMS, GuestFirmware, OptionRoms
from audit.facts.guest_devices import GuestFiles
from audit.facts.taken import GuestNumbers, HostCids
from audit.facts.tpm import SWTPM, GuestTpmState, Swtpm
from audit.facts.virtiofs import DAEMONS, GuestShares, Share, VirtiofsDaemons

DOMAIN = "<domain id='1'><name>g</name>{}<devices>{}</devices></domain>"
OLD = '{"type": "fs", "binary": "/usr/libexec/virtiofsd", "description": "x"}'
NEW = '{"type": "fs", "binary": "/usr/libexec/virtiofsd", "features": ["migrate-precopy"]}'
GPU = '{"type": "gpu", "binary": "/usr/libexec/vhost-user-gpu"}'


def test_shares(guest_source):
    inner = (
        "<filesystem type='mount'><driver type='virtiofs'/><binary path='/usr/libexec/virtiofsd'/>"
        "<source dir='/srv/p'/><target dir='projects'/></filesystem>"
        "<filesystem><driver type='virtiofs'/><source socket='/run/a.sock'/><target dir='a'/></filesystem>"
        "<filesystem><source dir='/srv/9p'/><target dir='old'/></filesystem>"
    )
    assert GuestShares.parse(guest_source(DOMAIN.format("", inner))).shares == (
        Share("projects", "/srv/p", None, "/usr/libexec/virtiofsd"),
        Share("a", None, "/run/a.sock", None),
    )


def described(*files):
    return "".join(f"== {path}\n{content}\n\n" for path, content in files) + "== end\n"


def test_virtiofsd(said):
    usr, etc = "/usr/share/qemu/vhost-user/50-virtiofsd.json", "/etc/qemu/vhost-user/50-virtiofsd.json"
    for files, able in (
        (((usr, NEW), ("/usr/share/qemu/vhost-user/60.json", GPU)), True),
        (((usr, OLD),), False),
        (((usr, NEW), (etc, OLD)), False),
        (((usr, OLD), (etc, "")), None),
        ((), None),
    ):
        daemons = VirtiofsDaemons.parse(said({DAEMONS.name: described(*files)}))
        assert daemons.can_migrate("/usr/libexec/virtiofsd") is able
        assert daemons.can_migrate(None) is able
        assert daemons.can_migrate("/opt/virtiofsd") is None
    for bad in ("", "== a\n{}\n", described((usr, "{")), described((usr, '{"type": "fs"}'))):
        with pytest.raises(Unavailable):
            VirtiofsDaemons.parse(said({DAEMONS.name: bad})).can_migrate(None)


def test_two_daemons_that_differ_tell_nothing_of_an_unnamed_one(said):
    other = OLD.replace("libexec", "lib/qemu")
    daemons = VirtiofsDaemons.parse(said({DAEMONS.name: described(("/a/1.json", NEW), ("/a/2.json", other))}))
    assert daemons.can_migrate(None) is None
    assert daemons.can_migrate("/usr/libexec/virtiofsd") is True


SWTPM_OUT = (
    "TPM emulator version 0.8.0, Copyright (c) 2014-2022 IBM Corp. and others\nlibrary 0.9.1\nlibrary 0.9.6\n"
    'capabilities { "type": "swtpm", "features": [ "tpm-2.0", "cmdarg-migration" ], "version": "0.8.0" }\n'
)


def test_swtpm(said):
    swtpm = Swtpm.parse(said({SWTPM.name: SWTPM_OUT}))
    assert (swtpm.present, swtpm.version, swtpm.library) == (True, (0, 8, 0), (0, 9, 6))
    assert swtpm.features == {"tpm-2.0", "cmdarg-migration"}
    assert Swtpm.parse(said({SWTPM.name: "absent\n"})) == Swtpm(False, None, None, None)
    silent = Swtpm.parse(said({SWTPM.name: "TPM emulator version 0.5.2, x\ncapabilities \n"}))
    assert (silent.version, silent.library, silent.features) == ((0, 5, 2), None, None)
    for bad in ({}, {SWTPM.name: "what?\n"}, {SWTPM.name: "swtpm 0.8.0\n"}):
        with pytest.raises(Unavailable):
            Swtpm.parse(said(bad)).known()


def test_where_a_tpm_keeps_its_state(guest_source):
    def path(inner):
        return GuestTpmState.parse(guest_source(DOMAIN.format("", inner))).path

    assert (
        path("<tpm><backend type='emulator'/></tpm>") == "/var/lib/libvirt/swtpm/00000000-0000-4000-8000-000000000001"
    )
    assert path("<tpm><backend type='emulator'><source type='dir' path='/srv/t'/></backend></tpm>") == "/srv/t"
    assert path("<tpm><backend type='external'/></tpm>") is None
    assert path("") is None


def test_roms(said):
    roms = OptionRoms.parse(said({ROMS.name: "efi-virtio.rom 258048\nefi-virtio.rom 9\nvgabios-qxl.bin 65536\nend\n"}))
    assert (roms.block_bytes("efi-virtio.rom"), roms.block_bytes("vgabios-qxl.bin")) == (262144, 65536)
    assert roms.block_bytes("efi-e1000.rom") is None
    for bad in ({}, {ROMS.name: "efi-virtio.rom 1\n"}):
        with pytest.raises(Unavailable):
            OptionRoms.parse(said(bad)).block_bytes("efi-virtio.rom")
    with pytest.raises(Unavailable, match="not understood"):
        OptionRoms.parse(said({ROMS.name: "nonsense\nend\n"})).block_bytes("a")


def test_a_guests_firmware(guest_source):
    head = (
        "<os><type arch='x86_64' machine='q35'>hvm</type><loader type='pflash'>/c.fd</loader>"
        "<nvram template='/v.fd'>/n.fd</nvram></os>"
    )
    inner = (
        "<interface type='bridge'><model type='virtio'/><address type='pci'/></interface>"
        "<interface type='bridge'><model type='e1000e'/><rom bar='off'/></interface>"
        "<interface type='bridge'><model type='virtio'/><address type='ccw'/></interface>"
        "<interface type='hostdev'><model type='virtio'/></interface><video><model type='qxl'/></video>"
    )
    firmware = GuestFirmware.parse(guest_source(DOMAIN.format(head, inner)))
    assert firmware == GuestFirmware(("efi-virtio.rom", "vgabios-qxl.bin"), "/n.fd", "/v.fd", True)
    qcow2 = head.replace("<nvram ", "<nvram format='qcow2' ").replace("x86_64", "aarch64")
    firmware = GuestFirmware.parse(guest_source(DOMAIN.format(qcow2, inner)))
    assert (firmware.roms, firmware.raw) == (("efi-virtio.rom",), False)
    assert GuestFirmware.parse(guest_source(DOMAIN.format("", ""))) == GuestFirmware((), None, None, True)


@pytest.mark.parametrize(
    ("machine", "more", "bios"),
    [
        ("pc-q35-9.0", "", "bios-256k.bin"),
        ("pc", "", "bios-256k.bin"),
        ("pc-i440fx-rhel7.6.0", "", "bios-256k.bin"),
        ("pc-i440fx-1.7", "", "bios.bin"),
        ("pc-1.3", "", "bios.bin"),
        ("microvm", "", ""),
        ("pc-q35-9.0", "<loader>/b.bin</loader>", ""),
    ],
)
def test_a_guests_bios(guest_source, machine, more, bios):
    head = f"<os><type arch='x86_64' machine='{machine}'>hvm</type>{more}</os>"
    found = GuestFirmware.parse(guest_source(DOMAIN.format(head, "")))
    assert (found.bios, found.own) == (bios, False)
    own = "<emulator>/opt/qemu/bin/qemu-system-x86_64</emulator>"
    assert GuestFirmware.parse(guest_source(DOMAIN.format(head, own))).own


def test_numbers(guest_source):
    inner = (
        "<vsock><cid auto='no' address='7'/></vsock>"
        "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='4555'/></serial>"
        "<console type='tcp'><source mode='bind' host='127.0.0.1' service='4555'/></console>"
        "<channel type='tcp'><source mode='connect' host='10.0.0.1' service='1'/></channel>"
    )
    numbers = GuestNumbers.parse(guest_source(DOMAIN.format("", inner)))
    assert (numbers.cid, numbers.cid_fixed) == (7, True)
    assert numbers.ports == (("serial", "127.0.0.1", 4555), ("console", "127.0.0.1", 4555))
    chosen = GuestNumbers.parse(guest_source(DOMAIN.format("", "<vsock><cid auto='yes' address='3'/></vsock>")))
    assert (chosen.cid, chosen.cid_fixed) == (3, False)
    assert GuestNumbers.parse(guest_source(DOMAIN.format("", ""))) == GuestNumbers(None, False, ())


def test_cids_of_a_host():
    cids = HostCids(((7, "db01"),))
    assert (cids.holder(7), cids.holder(8)) == ("db01", None)
    cids.complete()
    with pytest.raises(Unavailable):
        HostCids((), 2).complete()


def test_formats(guest_source):
    inner = (
        "<disk type='file'><driver type='qcow2'/><source file='/a'/><target dev='vda'/><backingStore type='file'>"
        "<format type='vmdk'/><source file='/b'/><backingStore/></backingStore></disk>"
        "<disk type='dir' device='floppy'><driver type='fat'/><source dir='/d'/><target dev='fda'/></disk>"
        "<disk type='dir'><driver type='fat'/><source dir='/d'/><target dev='vdb'/><readonly/></disk>"
        "<disk type='block' device='lun'><driver type='raw'/>"
        "<source dev='/dev/x'><reservations managed='yes'/></source><target dev='sda'/></disk>"
        "<disk type='file' device='cdrom'><driver type='raw'/><target dev='sdb'/></disk>"
        "<smartcard mode='host'/>"
    )
    found = GuestFormats.parse(guest_source(DOMAIN.format("", inner)))
    assert found.formats == (("vda", "qcow2"), ("vda", "vmdk"), ("fda", "fat"), ("vdb", "fat"), ("sda", "raw"))
    assert (found.writable_folders, found.reservations, found.smartcard_host) == (("fda",), ("sda",), True)


def test_devices_that_some_qemu_does_not_save(guest_source):
    def told(inner):
        return [name for name, _ in GuestUnsaved.parse(guest_source(DOMAIN.format("", inner))).devices]

    assert told(
        "<video><model type='virtio'><acceleration accel3d='yes'/></model></video><crypto model='virtio' type='qemu'/>"
        "<disk><target dev='nvme0n1' bus='nvme'/></disk><controller type='nvme' index='0'/><sound model='usb'/>"
        "<sound model='virtio'/><interface type='user'><model type='usb-net'/></interface><iommu model='amd'/>"
        "<serial type='pty'><target type='usb-serial' port='0'/></serial><filesystem><driver type='mtp'/></filesystem>"
        "<input type='passthrough' bus='virtio'><source evdev='/dev/input/event1'/></input>"
    ) == [
        *("virgl", "nvme", "nvme", "usb-audio", "virtio-sound", "usb-net", "usb-serial", "usb-mtp", "virtio-crypto"),
        *("virtio-input-host", "amd-iommu"),
    ]
    assert told("<video><driver name='vhostuser'/><model type='virtio'/></video>") == ["vhost-user-gpu"]
    ordinary = (
        "<video><model type='virtio'><acceleration accel3d='no'/></model></video><sound model='ich9'/>"
        "<disk><target dev='vda' bus='virtio'/></disk><interface type='bridge'><model type='virtio'/></interface>"
        "<filesystem><driver type='virtiofs'/></filesystem><input type='evdev'/><iommu model='intel'/>"
        "<serial type='pty'><target type='isa-serial' port='0'/></serial><controller type='usb' model='qemu-xhci'/>"
    )
    assert told(ordinary) == []
    for mode, passed in (("passthrough", True), ("custom", False)):
        head = f"<features><hyperv mode='{mode}'/></features>"
        assert GuestUnsaved.parse(guest_source(DOMAIN.format(head, ""))).hyperv_passthrough is passed
    with pytest.raises(Unavailable):
        GuestUnsaved.parse(guest_source("<domain id='1'><name>g</name></domain>"))


def test_what_speaks_spice(guest_source):
    inner = (
        "<graphics type='spice'/><channel type='spicevmc'/><redirdev bus='usb' type='spicevmc'/>"
        "<redirdev bus='usb' type='spicevmc'/><channel type='unix'/><audio id='1' type='spice'/>"
    )
    assert GuestSpice.parse(guest_source(DOMAIN.format("", inner))).devices == ("channel", "redirdev", "audio")
    assert GuestSpice.parse(guest_source(DOMAIN.format("", "<graphics type='spice'/>"))).devices == ()


def test_more_files_of_the_host(guest_source):
    head = (
        "<os><acpi><table type='slic'>/srv/slic.dat</table></acpi></os>"
        "<sysinfo type='fwcfg'><entry name='opt/a' file='/srv/a.ign'/><entry name='opt/b'>text</entry></sysinfo>"
    )
    inner = (
        "<interface type='bridge'><rom file='/srv/n.rom'/></interface>"
        "<input type='evdev'><source dev='/dev/e1'/></input>"
        "<input type='tablet'/><lease><key>k</key><target path='/srv/lease'/></lease>"
    )
    files = {(file.what, file.path) for file in GuestFiles.parse(guest_source(DOMAIN.format(head, inner))).files}
    assert files == {
        ("ACPI table", "/srv/slic.dat"),
        ("fw_cfg entry", "/srv/a.ign"),
        ("option ROM", "/srv/n.rom"),
        ("input device", "/dev/e1"),
        ("lease", "/srv/lease"),
    }


@given(st.binary())
def test_no_bytes_but_unavailable(data):
    for probe, kind in ((DAEMONS, VirtiofsDaemons), (SWTPM, Swtpm), (ROMS, OptionRoms)):
        with suppress(Unavailable, ValueError, LookupError):
            kind.parse(Said(HostEvidence("h", {probe.name: Evidence(probe.name, status=0, stdout=data)})))
