import contextlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.versions import (
    BIOS,
    CMDLINE,
    KERNEL,
    OS_RELEASE,
    PACKAGES,
    VIRSH,
    Bios,
    Kernel,
    KernelArguments,
    Libvirt,
    OsRelease,
    Packages,
    Qemu,
    Version,
    _table,
    stated_majors,
    support_path,
)

VERSION = """Compiled against library: libvirt 10.0.0
Using library: libvirt 10.0.0
Using API: QEMU 10.0.0
Running hypervisor: QEMU 8.2.0
Running against daemon: 10.0.0
"""


def system(name, version="", like=()):
    numbers = [int(part) for part in version.split(".")] if version else [None]
    return OsRelease(name, version, numbers[0], numbers[1] if len(numbers) > 1 else None, name, tuple(like), "")


def test_versions_order_as_numbers():
    assert Version.read("10.0.0") > Version.read("9.10.1") > Version.read("9.2")
    assert str(Version.read("9.2")) == "9.2.0"
    for text in ("", "nine", "9.2.1.4", "9.²"):
        with pytest.raises(ValueError, match="not a version"):
            Version.read(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID="rhel"\nVERSION_ID="9.4"\nPRETTY_NAME="Red Hat Enterprise Linux 9.4 (Plow)"', ("rhel", 9, 4)),
        ("ID=debian\r\nVERSION_ID='12'\r\n# a comment\nVARIANT=\n", ("debian", 12, None)),
        ('ID=centos\nVERSION_ID="9"\nID_LIKE="rhel fedora"', ("centos", 9, None)),
        ("ID=arch\n", ("arch", None, None)),
        ('ID=sles\nVERSION_ID="15.6"', ("sles", 15, 6)),
        ('ID=ubuntu\nVERSION_ID="22.04"', ("ubuntu", 22, 4)),
        ("NAME=Some\\ thing\nID=some", ("some", None, None)),
    ],
)
def test_os_release(said, text, expected):
    release = OsRelease.parse(said({OS_RELEASE.name: text}))
    assert (release.id, release.major, release.minor) == expected


@pytest.mark.parametrize("text", ["", "NAME=x", "ID=", 'ID="rhel', "<html>", (1, "No such file")])
def test_no_system_named_is_no_fact(said, text):
    with pytest.raises((Unavailable, ValueError)):
        OsRelease.parse(said({OS_RELEASE.name: text}))


def test_a_value_of_absurd_length_is_refused(said):
    with pytest.raises(Unavailable, match="5000 characters"):
        OsRelease.parse(said({OS_RELEASE.name: f"ID={'x' * 5000}\n"}))


def test_kernel(said):
    kernel = Kernel.parse(said({KERNEL.name: "6.1.0-18-amd64 x86_64\n"}))
    assert (kernel.release, kernel.arch, kernel.version) == ("6.1.0-18-amd64", "x86_64", (6, 1))
    with pytest.raises(ValueError, match="unpack"):
        Kernel.parse(said({KERNEL.name: "Linux localhost 5.4 x86_64"}))
    with pytest.raises(Unavailable):
        _ = Kernel("next", "x86_64").version


@pytest.mark.parametrize(
    ("release", "numbers"),
    [
        ("6.1.0-18-amd64", (6, 1, 0)),
        ("6.12.38+deb13-amd64", (6, 12, 38)),
        ("5.14.0-427.el9.x86_64", (5, 14, 0)),
        ("6.9-rc3", (6, 9, 0)),
        ("6.5.13-5-pve", (6, 5, 13)),
        ("6.10.11.1", (6, 10, 11)),
    ],
)
def test_a_kernels_numbers(release, numbers):
    assert Kernel(release, "x86_64").numbers == numbers


@pytest.mark.parametrize(
    ("build", "numbers"),
    [
        (b"#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)", (6, 1, 119)),
        (b"#1 SMP PREEMPT_DYNAMIC PMX 6.2.16-2 (2023-06-13T13:30Z)", (6, 1, 0)),
        (b"#1 SMP Debian next", (6, 1, 0)),
        (b"", (6, 1, 0)),
    ],
)
def test_a_build_may_tell_the_stable_release(build, numbers, said):
    kernel = Kernel.parse(said({KERNEL.name: b"6.1.0-28-amd64 x86_64\n" + build + b"\n"}))
    assert (kernel.release, kernel.arch, kernel.numbers) == ("6.1.0-28-amd64", "x86_64", numbers)


@pytest.mark.parametrize("release", ["next", "6", "6.", "v6.1", "6.123456", "٦.١"])
def test_no_numbers(release):
    with pytest.raises(Unavailable, match="not a kernel version"):
        _ = Kernel(release, "x86_64").numbers


def test_kernel_arguments(said):
    text = "BOOT_IMAGE=/vmlinuz root=UUID=1 mitigations=off kvm_intel.nested=0 tsx=on quiet nosmt tscmode=x\n"
    assert KernelArguments.parse(said({CMDLINE.name: text})).cpu_words == {
        "mitigations=off",
        "kvm_intel.nested=0",
        "tsx=on",
        "nosmt",
    }


def test_virsh_version(said):
    answers = said({VIRSH.name: VERSION})
    assert Libvirt.parse(answers) == Libvirt(Version(10, 0, 0), Version(10, 0, 0))
    assert Qemu.parse(answers).version == Version(8, 2, 0)
    without = VERSION.replace("Running hypervisor: QEMU 8.2.0", "Cannot extract running QEMU hypervisor version")
    assert Qemu.parse(said({VIRSH.name: without})).version is None
    with pytest.raises(LookupError):
        Libvirt.parse(said({VIRSH.name: VERSION.partition("Running against")[0]}))
    with pytest.raises(Unavailable, match="failed to connect"):
        Qemu.parse(said({VIRSH.name: (1, "error: failed to connect to the hypervisor")}))


def test_bios(said):
    text = (
        "bios_vendor=Dell Inc.\nbios_version=2.19.1\nbios_date=06/04/2023\nsys_vendor=Dell Inc.\nproduct_name=R640 \n"
    )
    bios = Bios.parse(said({BIOS.name: text}))
    assert (bios.version, bios.product, bios.release) == ("2.19.1", "R640", None)
    assert Bios.parse(said({BIOS.name: "absent\n"})) == Bios(None, None, None, None, None, None)
    with pytest.raises(Unavailable, match="no answer"):
        Bios.parse(said({BIOS.name: ""}))


def test_packages(said):
    rpm = Packages.parse(said({PACKAGES.name: "rpm\nqemu-kvm 17:8.2.0-11.el9_4.4 ii\nlibvirt-libs 10.0.0-6.el9 ii\n"}))
    assert rpm.version("qemu-kvm") == "17:8.2.0-11.el9_4.4"
    assert rpm.version("swtpm") is None
    dpkg = "dpkg\nlibvirt0 9.0.0-4+deb12u2 ii \nqemu-utils 1:7.2 rc \nlibvirt-dev  un \n"
    assert Packages.parse(said({PACKAGES.name: dpkg})).packages == (("libvirt0", "9.0.0-4+deb12u2"),)
    with pytest.raises(Unavailable, match="database"):
        Packages.parse(said({PACKAGES.name: "rpm\nfailed\n"}))


def test_the_packages_probe_tells_a_broken_database_from_an_empty_one(tmp_path):
    for name in ("dpkg-query", "rpm"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", PACKAGES.command], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, check=True
    )
    assert done.stdout.split()[1:] == [b"failed"]


@given(st.text(max_size=200))
def test_no_parser_raises_anything_else(text):
    for kind in (OsRelease, Kernel, KernelArguments, Libvirt, Qemu, Bios, Packages):
        for start in ("", "rpm\n", "ID=x\nVERSION_ID=", "Running hypervisor: QEMU "):
            [probe] = kind.probes
            evidence = Evidence(probe.name, 0, (start + text).encode("utf-8", "surrogatepass"))
            with contextlib.suppress(Unavailable, ValueError, LookupError):
                hash(kind.parse(Said(HostEvidence("h", {probe.name: evidence}))))


# --- the support table


def test_every_row_of_the_table_can_be_read():
    table = _table()
    assert table["format"] == "virt-preflight/support/1"
    keys = {
        "os",
        "source",
        "target",
        "direction",
        "at_most_steps",
        "status",
        "certain",
        "machines",
        "reference",
        "note",
    }
    for row in table["paths"]:
        assert set(row) <= keys, row
        assert set(row["direction"].split()) <= {"same", "forward", "backward"}
        assert row["status"] in ("supported", "best effort", "unsupported", "no statement")
        assert isinstance(row["certain"], bool)
        assert stated_majors(system(row["os"]))


@pytest.mark.parametrize(
    ("source", "target", "status", "certain"),
    [
        (("rhel", "9.0"), ("rhel", "9.1"), "supported", True),
        (("rhel", "9.4"), ("rhel", "9.2"), "supported", True),
        (("rhel", "9.2"), ("rhel", "9.2"), "supported", True),
        (("rhel", "8.6"), ("rhel", "9.2"), "no statement", False),
        (("rhel", "9.6"), ("rhel", "10.0"), "no statement", False),
        (("rhel", "7.9"), ("rhel", "8.6"), "supported", False),
        (("rhel", "7.5"), ("rhel", "8.6"), "no statement", False),
        (("rhel", "8.6"), ("rhel", "7.9"), "unsupported", False),
        (("rhel", "7.9"), ("rhel", "6.10"), "unsupported", False),
        (("rhel", "6.10"), ("rhel", "6.9"), "supported", True),
        (("sles", "15.4"), ("sles", "15.5"), "supported", True),
        (("sles", "15.3"), ("sles", "15.5"), "best effort", True),
        (("sles", "15.5"), ("sles", "15.4"), "unsupported", True),
        (("sles", "15.7"), ("sles", "16.0"), "unsupported", True),
        (("ubuntu", "20.04"), ("ubuntu", "22.04"), "supported", True),
        (("ubuntu", "20.04"), ("ubuntu", "24.04"), "no statement", False),
        (("ubuntu", "22.04"), ("ubuntu", "20.04"), "no statement", False),
        (("debian", "12"), ("debian", "12"), "no statement", False),
        (("rocky", "9.4"), ("rocky", "9.5"), "no statement", False),
        (("rhel", "9.4"), ("rocky", "9.4"), "no statement", True),
        (("arch", ""), ("arch", ""), "no statement", False),
    ],
)
def test_support_path(source, target, status, certain):
    path = support_path(system(*source), system(*target))
    assert (path.status, path.certain) == (status, certain)
    assert ("unconfirmed" in path.words) is not certain


def test_rhel_9_supports_q35_alone():
    assert support_path(system("rhel", "9.0"), system("rhel", "9.1")).machines == ("q35",)


# --- real outputs


@pytest.mark.corpus
def test_real_os_releases(samples, said):
    found = {}
    for path in samples("os-release"):
        try:
            found[path.name.split("__", 1)[1][:-4]] = OsRelease.parse(said({OS_RELEASE.name: path.read_bytes()}))
        except Unavailable:
            assert path.name == "os-release__ubuntu2004-sos-hotsos__2.txt", "a link's text, not the file"
    assert len(found) == 7
    assert (found["insights__4"].id, found["insights__4"].major, found["insights__4"].minor) == ("rhel", 9, 4)
    assert found["insights__4"].variant == "rhel_ai"
    assert (found["leapp__2"].major, found["leapp__2"].minor) == (8, 5)
    assert found["debian12-local__1"].minor is None
    assert found["generic-jc__1"].id_like == ("rhel", "fedora")


@pytest.mark.corpus
def test_real_kernels_and_arguments(samples, said):
    good = {}
    for path in samples("uname"):
        words = path.read_text().strip().splitlines()[-1].split()
        text = " ".join((words[2:3] + words[-2:-1]) if words[-1] == "GNU/Linux" else words)
        with contextlib.suppress(ValueError):
            good[path.name.split("__", 1)[1][:-4]] = Kernel.parse(said({KERNEL.name: text}))
    assert good["insights__4"].release == "5.14.0-70.22.1.el9_0.x86_64"
    assert good["insights__4"].version == (5, 14)
    assert good["insights__6"].version == (4, 0)
    arguments = [KernelArguments.parse(said({CMDLINE.name: p.read_bytes()})) for p in samples("proc-cmdline")]
    assert len(arguments) == 4
    assert all(fact.words for fact in arguments)


@pytest.mark.corpus
def test_real_virsh_version_and_packages(samples, said):
    [path] = samples("virsh-version")
    answers = said({VIRSH.name: path.read_bytes()})
    assert Libvirt.parse(answers).daemon == Version(9, 0, 0)
    assert Qemu.parse(answers).version == Version(7, 2, 22)
    [path] = samples("dpkg-query")
    stdout = path.read_text().partition("### stdout\n")[2].partition("### stderr")[0]
    packages = Packages.parse(said({PACKAGES.name: "dpkg\n" + stdout}))
    assert packages.version("qemu-system-x86") == "1:7.2+dfsg-7+deb12u18+b3"
    assert packages.version("libvirt-sanlock") is None
