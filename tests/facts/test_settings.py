"""Settings of firmware and kernel, the clock, and who the audit was."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.administrator import IDENTITY, Administrator
from audit.facts.base import Said, Unavailable
from audit.facts.clock import CLOCK, Clock
from audit.facts.settings import (
    PAGE_SIZE,
    SETTINGS,
    USERFAULTFD,
    FirmwareSettings,
    Gic,
    GuestGic,
    PageSize,
    Userfaultfd,
)

TEXT = """\
boot UEFI
IOMMU table DMAR
node node0
node node1
cpu/intel_pstate/no_turbo 0
cpu/cpu0/power/energy_perf_bias 6
kvm_intel/parameters/sgx N
end
"""


def refused(kind, said, answers):
    with pytest.raises((Unavailable, ValueError, LookupError)):
        kind.parse(said(answers))


def test_firmware(said):
    here = FirmwareSettings.parse(said({SETTINGS.name: TEXT}))
    other = (
        TEXT.replace("no_turbo 0", "no_turbo 1").replace("node node1\n", "").replace("kvm_intel/parameters/sgx N\n", "")
    )
    there = FirmwareSettings.parse(said({SETTINGS.name: other}))
    assert here.differences(there) == (("NUMA nodes", "2", "1"), ("no_turbo", "0", "1")), "what one does not show"
    assert here.differences(here) == ()
    assert dict(FirmwareSettings.parse(said({SETTINGS.name: "boot BIOS\nend\n"})).settings)["IOMMU table"] == "none"
    for answer in (TEXT.removesuffix("end\n"), "nonsense\nend\n", "", (1, "no")):
        refused(FirmwareSettings, said, {SETTINGS.name: answer})


def test_page_size(said):
    page = PageSize.parse(said({PAGE_SIZE.name: "aarch64\n65536\n"}))
    assert (page.arch, page.page_bytes) == ("aarch64", 65536)
    silent = PageSize.parse(said({PAGE_SIZE.name: "aarch64\n"}))
    with pytest.raises(Unavailable):
        silent.page_bytes  # noqa: B018  # a property that raises
    refused(PageSize, said, {PAGE_SIZE.name: ""})
    refused(PageSize, said, {PAGE_SIZE.name: "aarch64 large\n"})


def test_userfaultfd(said):
    found = [Userfaultfd.parse(said({USERFAULTFD.name: text})).unprivileged for text in ("0\n", "1\n", "absent\n")]
    assert found == [False, True, None]
    refused(Userfaultfd, said, {USERFAULTFD.name: "2\n"})


def test_gic(said, guest_source):
    offers = "<domainCapabilities><features>{}</features></domainCapabilities>"
    gic = "<gic supported='yes'><enum name='version'><value>2</value><value>3</value></enum></gic>"
    assert Gic.parse(said({"cpu.domcaps_kvm": offers.format(gic)})).versions == {"2", "3"}
    assert Gic.parse(said({"cpu.domcaps_kvm": offers.format("<gic supported='no'/>")})).versions is None
    assert Gic.parse(said({"cpu.domcaps_kvm": offers.format("")})).versions is None
    refused(Gic, said, {"cpu.domcaps_kvm": "<x"})
    xml = "<domain><name>g</name>{}</domain>"
    assert GuestGic.parse(guest_source(xml.format("<features><gic version='3'/></features>"))).version == "3"
    assert GuestGic.parse(guest_source(xml.format(""))).version is None


CHRONY = (
    "chrony C0000201,192.0.2.1,3,1772863190.11,-0.25,-0.000011,0.000035,-8.2,0.001,0.028,0.0004,0.0006,1036.2,{}\nend\n"
)


def test_clock(said):
    def read(text):
        clock = Clock.parse(said({CLOCK.name: text}))
        return clock.synchronized, clock.offset_seconds

    assert read("NTPSynchronized=yes\n" + CHRONY.format("Normal")) == (True, 0.25)
    assert read("NTPSynchronized=yes\n" + CHRONY.format("Not synchronised")) == (False, None)
    assert read("NTPSynchronized=no\nend\n") == (False, None)
    assert read("       System clock synchronized: yes\nend\n") == (True, None)
    assert read("NTP synchronized: yes\nend\n") == (True, None)
    for answer in ("end\n", "NTPSynchronized=yes\n", "chrony 506 Cannot talk to daemon\nend\n", "", (1, "no")):
        refused(Clock, said, {CLOCK.name: answer})


def test_administrator(said):
    assert Administrator.parse(said({IDENTITY.name: "root 0\nuser root root\n"})).root
    login = Administrator.parse(said({IDENTITY.name: "root 1003\nuser audit audit libvirt\n"}))
    assert (login.root, login.user, login.groups) == (False, "audit", {"audit", "libvirt"})
    assert not Administrator.parse(said({IDENTITY.name: "root \nuser audit audit\n"})).root
    for answer in ("", "root 0\n", "user a\nroot 0\n", (1, "no")):
        refused(Administrator, said, {IDENTITY.name: answer})


@given(st.text(max_size=200))
def test_any_text(text):
    data = text.encode("utf-8", "replace")
    for probe, kind in (
        (SETTINGS, FirmwareSettings),
        (PAGE_SIZE, PageSize),
        (USERFAULTFD, Userfaultfd),
        (CLOCK, Clock),
        (IDENTITY, Administrator),
    ):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            kind.parse(Said(HostEvidence("h", {probe.name: Evidence(probe.name, 0, data)})))


@pytest.mark.corpus
def test_real_clocks(samples, said):
    for path in samples("chronyc-tracking"):
        text = path.read_text()
        if "," in text:
            assert not Clock.parse(said({CLOCK.name: f"chrony {text.strip()}\nend\n"})).synchronized
    words = []
    for path in samples("timedatectl"):
        lines = [line for line in path.read_text(errors="replace").splitlines() if "synchronized" in line.lower()]
        if lines:
            words.append(Clock.parse(said({CLOCK.name: "\n".join([*lines, "end", ""])})).synchronized)
    assert words
    assert all(words)


@pytest.mark.corpus
def test_real_gics(samples, said):
    found = set()
    for path in samples("domcapabilities"):
        with contextlib.suppress(Unavailable):  # some are virsh's refusals
            found.add(Gic.parse(said({"cpu.domcaps_kvm": path.read_bytes()})).versions)
    assert len(found) > 1
