"""Devices that the target's QEMU must know."""

from dataclasses import fields, replace

import pytest

from audit.check import Blocks, NotApplicable, Unavailable
from audit.facts.base import Guest, GuestSource
from audit.facts.blockers import GuestSpice
from audit.facts.guest import GuestCpu, GuestMachine
from audit.facts.guest_devices import GuestDevices
from audit.facts.host_models import DomainCapabilities, HostModels, Refusal, Request
from audit.facts.novelties import GuestNovelties
from audit.facts.versions import Kernel, Libvirt, OsRelease, Packages, Qemu, Version
from audit.text import parse_xml
from checks import offered
from tests.asked import found

QEMU = "/usr/libexec/qemu-kvm"
BARE = DomainCapabilities("kvm", "x86_64", "pc-q35-rhel9.4.0", QEMU, None, frozenset(), None, frozenset(), frozenset())
EL9 = replace(
    BARE,
    graphics=frozenset({"vnc", "egl-headless"}),
    videos=frozenset({"vga", "virtio", "none"}),
    tpm_backends=frozenset({"passthrough"}),
    tpm_models=frozenset({"tpm-tis", "tpm-crb"}),
    hyperv=frozenset({"spinlocks", "vendor_id", "vpindex"}),
)
MACHINE = GuestMachine(**{field.name: None for field in fields(GuestMachine)} | {
    "virttype": "kvm", "arch": "x86_64", "machine": "pc-q35-rhel9.4.0", "emulator": QEMU,
})  # fmt: skip


def host(offer):
    refusals = (offer,) if isinstance(offer, Refusal) else ()
    return HostModels(() if refusals else (offer,), (), frozenset({QEMU}), refusals, ())


def devices(**changes):
    return GuestDevices(
        **{field.name: () for field in fields(GuestDevices)} | {"tpm": None, "tpm_model": None} | changes
    )


DEVICE_CHECKS = [
    (offered.graphics_offered, devices(graphics=(("spice", None),)), devices(graphics=(("vnc", "127.0.0.1"),))),
    (offered.video_offered, devices(videos=("virtio", "qxl")), devices(videos=("virtio",))),
    (offered.tpm_offered, devices(tpm="emulator"), devices(tpm="passthrough", tpm_model="tpm-crb")),
]


@pytest.mark.parametrize(("check", "lacking", "fine"), DEVICE_CHECKS, ids=lambda value: getattr(value, "id", ""))
def test_devices(check, lacking, fine):
    assert check.blocks is Blocks.MIGRATION
    [finding] = check.function(lacking, MACHINE, host(EL9))
    assert finding.expected.split()[-1] in {"spice", "qxl", "emulator"}
    assert list(check.function(fine, MACHINE, host(EL9))) == []
    with pytest.raises(Unavailable, match="does not list"):
        list(check.function(fine, MACHINE, host(BARE)))
    for models in (host(EL9), host(BARE), None):  # nothing is asked of the target
        with pytest.raises(NotApplicable):
            list(check.function(devices(), MACHINE, models))
    refusal = Refusal(Request("kvm", "", ""), "virttype", "no")
    with pytest.raises(NotApplicable, match="as a whole"):
        list(check.function(lacking, replace(MACHINE, emulator=None), host(refusal)))


def packages(*names):
    return Packages("rpm", tuple((name, "17:9.1.0-15.el9") for name in names))


def test_virtio_screen():
    virtio = devices(videos=("virtio",))

    def judged(ours, theirs, *, guest=virtio, machine=MACHINE, libvirt="10.0.0", other="12.5.0"):
        versions = [Libvirt(Version.read(text), Version.read(text)) for text in (libvirt, other)]
        check = offered.virtio_screen_alike
        return list(check.function(guest, machine, packages(*ours), packages(*theirs), *versions))

    part = "qemu-kvm-device-display-virtio-"
    vga, gpu = (f"{part}vga", f"{part}gpu"), (f"{part}gpu-pci", f"{part}gpu-gl")
    [finding] = judged(vga, gpu)
    assert finding.actual == "it is on the source only"
    assert finding.remedy.startswith("dnf install qemu-kvm-device-display-virtio-vga ||")
    [finding] = judged(gpu, vga)
    assert finding.actual == "it is on the target only"
    assert judged(vga, vga) == judged(gpu, gpu) == judged(vga, ("qemu-hw-display-virtio-vga",)) == []
    for whole in ((), ("qemu-kvm-core",), ("virtio-win",)):
        with pytest.raises(NotApplicable, match="parts"):
            judged(vga, whole)
    with pytest.raises(NotApplicable, match="records"):
        judged(vga, gpu, libvirt="12.5.0")
    assert len(judged(vga, gpu, libvirt="12.5.0", other="12.4.0")) == 1
    for guest in (devices(), devices(videos=("vga", "virtio"))):
        with pytest.raises(NotApplicable, match="first screen"):
            judged(vga, gpu, guest=guest)
    with pytest.raises(NotApplicable, match="no PC"):
        judged(vga, gpu, machine=replace(MACHINE, arch="aarch64"))


def test_spice_left_behind_in_a_guest_with_vnc():
    guest = GuestSpice(("channel", "redirdev"))
    [finding] = offered.spice_offered.function(guest, MACHINE, host(EL9))
    assert finding.actual == "one without; the guest has channel, redirdev of SPICE's"
    spice = replace(EL9, graphics=frozenset({"vnc", "spice"}))
    assert list(offered.spice_offered.function(guest, MACHINE, host(spice))) == []
    with pytest.raises(Unavailable):
        list(offered.spice_offered.function(guest, MACHINE, host(BARE)))
    with pytest.raises(NotApplicable):
        list(offered.spice_offered.function(GuestSpice(()), MACHINE, host(EL9)))


def test_swtpm_is_the_remedy_for_an_emulated_tpm_only():
    [finding] = offered.tpm_offered.function(devices(tpm="emulator"), MACHINE, host(EL9))
    assert "swtpm" in finding.remedy
    [finding] = offered.tpm_offered.function(devices(tpm="passthrough", tpm_model="tpm-spapr"), MACHINE, host(EL9))
    assert finding.remedy == ""
    assert finding.actual == "the target offers tpm-crb, tpm-tis"


RHEL8 = OsRelease("rhel", "8.6", 8, 6, "", (), "")
SAME = (Qemu(Version(6, 2)), Kernel("4.18.0-372.9.1.el8.x86_64", "x86_64"))


def hyperv(names, offer, there=SAME, system=RHEL8):
    cpu = GuestCpu(True, None, None, None, frozenset(names.split()))
    (qemu, kernel), (qemu_there, kernel_there) = SAME, there
    run = offered.hyperv_offered.function
    return list(run(cpu, MACHINE, host(offer), RHEL8, system, qemu, qemu_there, kernel, kernel_there))


def test_enlightenments():
    assert hyperv("relaxed vapic vpindex spinlocks", EL9) == []
    [finding] = hyperv("vpindex evmcs", EL9)
    assert finding.expected == "enlightenment evmcs"
    for names in ("", "relaxed vapic"):
        with pytest.raises(NotApplicable):
            hyperv(names, BARE)


def test_enlightenments_that_an_old_libvirt_does_not_list():
    qemu, kernel = SAME
    assert hyperv("vpindex", BARE) == []
    assert hyperv("vpindex", BARE, (Qemu(Version(7, 0)), replace(kernel, release="4.18.0-477.10.1.el8_8.x86_64"))) == []
    older = replace(kernel, release="4.18.0-305.el8.x86_64")
    for there, system in (
        ((qemu, older), RHEL8),
        ((Qemu(Version(4, 2)), kernel), RHEL8),
        ((Qemu(None), kernel), RHEL8),
        (SAME, replace(RHEL8, id="debian")),
    ):
        with pytest.raises(Unavailable, match="does not list"):
            hyperv("vpindex", BARE, there, system)


@pytest.mark.parametrize(
    ("name", "libvirt", "qemu", "lacking"),
    [
        ("panic of model pvpanic", (9, 0, 0), (7, 2, 0), "libvirt"),
        ("panic of model pvpanic", (9, 1, 0), (7, 2, 0), ""),
        ("NIC of model igb", (9, 0, 0), (7, 2, 0), "QEMU"),
        ("NIC of model igb", (9, 0, 0), (8, 0, 0), ""),
        ("feature ps2", (10, 6, 0), (9, 0, 0), "libvirt"),
        ("feature ps2", (11, 3, 0), (10, 0, 0), ""),
    ],
)
def test_what_came_with_newer_releases(name, libvirt, qemu, lacking):
    guest, there = GuestNovelties((name,)), Libvirt(*[Version(*libvirt)] * 2)
    told = [
        *found(offered.known_to_libvirt, guest, there),
        *found(offered.known_to_qemu, guest, Qemu(Version(*qemu))),
    ]
    assert [finding.actual.split()[0] for finding in told] == ([lacking] if lacking else [])


def test_a_qemu_of_unknown_age():
    assert not found(offered.known_to_qemu, GuestNovelties(("feature ps2",)), Qemu(None))
    with pytest.raises(Unavailable):
        found(offered.known_to_qemu, GuestNovelties(("NIC of model igb",)), Qemu(None))


def test_novelties_of_a_guest(said):
    xml = b"""<domain><features><ps2 state='off'/></features><devices>
    <panic model='isa'/><panic model='pvpanic'/></devices></domain>"""
    source = GuestSource(Guest("a", "u", "g"), True, parse_xml(xml), None, said({}))
    assert GuestNovelties.parse(source).names == ("panic of model pvpanic", "feature ps2")
    assert not GuestNovelties.parse(source._replace(xml=parse_xml(b"<domain/>"))).names


def test_other_devices():
    listed = replace(EL9, kinds=(("redirdev", frozenset()), ("filesystem", frozenset({"virtiofs"}))))

    def judged(*kinds):
        return [f.expected for f in found(offered.kinds_offered, GuestNovelties((), kinds), MACHINE, host(listed))]

    assert judged(("redirdev", "usb")) == ["a QEMU with redirdev of kind usb"]
    assert judged(("filesystem", "path"), ("filesystem", "virtiofs")) == ["a QEMU with filesystem of kind path"]
    assert not judged(("rng", "random")), "not listed there"
    unasked = HostModels((), (), frozenset({QEMU}), (), ())
    with pytest.raises(Unavailable):
        found(offered.kinds_offered, GuestNovelties((), (("rng", "random"),)), MACHINE, unasked)
    with pytest.raises(NotApplicable):
        judged()


def test_other_devices_of_a_guest(said):
    xml = b"""<domain><devices><redirdev bus='usb' type='tcp'/><rng><backend model='egd' type='unix'/></rng>
    <filesystem/><filesystem><driver type='virtiofs'/></filesystem><channel type='unix'/><channel type='dbus'/>
    </devices></domain>"""
    source = GuestSource(Guest("a", "u", "g"), True, parse_xml(xml), None, said({}))
    assert GuestNovelties.parse(source).kinds == (
        ("channel", "dbus"),
        ("filesystem", "path"),
        ("filesystem", "virtiofs"),
        ("redirdev", "usb"),
        ("rng", "egd"),
    )
