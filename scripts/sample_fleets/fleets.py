"""The four fleets. What each guest is there for stands beside it, and in sample_data/README.md."""

from dataclasses import replace

from scripts.sample_fleets.description import Answer, Disk, Fleet, Guest, Host, Lun, MellanoxCard, Nfs, Nic
from scripts.sample_fleets.machines import RHEL_9_4, RHEL_9_6
from scripts.sample_fleets.processors import CASCADE_LAKE, ICE_LAKE, MILAN, SAPPHIRE_RAPIDS
from scripts.sample_fleets.storage import IMAGES, LOCAL_EXT4

_NFS = Nfs("nas01.example.com:/export/vmstore", IMAGES)
_DATABASE_LUN = Lun("360002ac0000000000000021f0001e5a2", 2048, "oradata")


def _shared(name: str, **more: str) -> Disk:
    return Disk(f"{IMAGES}/{name}.qcow2", **more)


def _inventory(fleet: str, about: str, hosts: tuple[str, ...], policy: str = "", ticket: str = "CHG0041822") -> str:
    listed = "\n".join(f"      - {name}" for name in hosts)
    return (
        f"# {about}\n"
        "defaults:\n  user: audit\n  sudo: yes\n\n"
        f"clusters:\n  {fleet}:\n    hosts:\n{listed}\n\n"
        f"{policy}"
        f"change:\n  ticket: {ticket}\n  window: 2026-03-07 22:00 to 2026-03-08 04:00\n"
        "  requester: Virtualization team\n"
    )


# Three like hosts: every guest can go to both others ------------------------------------------------------------

_UNIFORM = Host("kvm01", 11, ICE_LAKE, RHEL_9_4, nfs=(_NFS,), luns=(_DATABASE_LUN,))
UNIFORM = Fleet(
    "uniform",
    _inventory("uniform", "Three like hosts; every running guest can go to both others.", ("kvm01", "kvm02", "kvm03")),
    (
        replace(
            _UNIFORM,
            guests=(
                Guest("web01", 8, 4, disks=(_shared("web01"),)),
                Guest("db01", 64, 16, disks=(_shared("db01"), Disk("/dev/mapper/oradata", kind="block", image="raw"))),
            ),
        ),
        replace(
            _UNIFORM,
            name="kvm02",
            number=12,
            guests=(
                Guest("web02", 8, 4, cpu="Icelake-Server-noTSX", disks=(_shared("web02"),)),
                Guest("mail01", 16, 8, machine="pc-q35-rhel9.2.0", disks=(_shared("mail01"),)),
            ),
        ),
        replace(
            _UNIFORM,
            name="kvm03",
            number=13,
            guests=(
                Guest("files01", 32, 8, disks=(_shared("files01"), _shared("files01-data", cache="writeback"))),
                Guest("proxy01", 4, 2, disks=(_shared("proxy01"), Disk(None, device="cdrom", image="raw", bus="sata"))),
                Guest("template-rhel9", 4, 2, state="shut off", disks=(_shared("template-rhel9"),)),
            ),
        ),
    ),
)

# Six hosts, three generations, two vendors, and the classic blockers ---------------------------------------------

_GPU = """
<hostdev mode='subsystem' type='pci' managed='yes'>
  <driver name='vfio'/>
  <source>
    <address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/>
  </source>
  <alias name='hostdev0'/>
  <address type='pci' domain='0x0000' bus='0x0a' slot='0x00' function='0x0'/>
</hostdev>
"""
_VIRTIOFS = """
<filesystem type='mount' accessmode='passthrough'>
  <driver type='virtiofs'/>
  <source dir='/srv/projects'/>
  <target dir='projects'/>
  <alias name='fs0'/>
  <address type='pci' domain='0x0000' bus='0x0a' slot='0x00' function='0x0'/>
</filesystem>
"""
_VTPM = """
<tpm model='tpm-crb'>
  <backend type='emulator' version='2.0'/>
  <alias name='tpm0'/>
</tpm>
"""
_ISO = Disk("/var/lib/libvirt/boot/rhel-9.4-x86_64-dvd.iso", device="cdrom", image="raw", bus="sata")
_LOCAL_DISK = f"{LOCAL_EXT4}/build01.qcow2"
_JOB = "Active Block Commit: [ 63 %]"

_CL = Host(
    "cl01", 21, CASCADE_LAKE, RHEL_9_4, memory_gib=384, bios="2.19.1", system="Dell Inc. PowerEdge R640",
    nfs=(_NFS,), luns=(_DATABASE_LUN,), networks=("production",),
)  # fmt: skip
_SR = Host(
    "sr01", 31, SAPPHIRE_RAPIDS, RHEL_9_6, bios="2.3.5", system="Dell Inc. PowerEdge R660", nfs=(_NFS,),
    networks=("production",),
)  # fmt: skip
_EP = Host(
    "ep01", 41, MILAN, RHEL_9_4, bios="2.15.2", system="Dell Inc. PowerEdge R6525", nfs=(_NFS,),
    networks=("production",),
)  # fmt: skip

MIXED = Fleet(
    "mixed",
    _inventory(
        "mixed",
        "Six hosts of three CPU generations and two vendors, with the classic blockers.",
        ("cl01", "cl02", "sr01", "sr02", "ep01", "ep02"),
        "policy:\n  transport: tls\n\n",
    ),
    (
        replace(
            _CL,
            files=frozenset({_ISO.source or "", _LOCAL_DISK}),
            held_devices=("0000:3b:00.0",),
            certificate_valid=False,
            certificate_ends="Jan 15 09:00:00 2026 GMT",
            guests=(
                Guest("web01", 8, 4, disks=(_shared("web01"),), nics=(Nic("network", "production"),)),
                Guest("install01", 4, 2, disks=(_shared("install01"), _ISO)),
                Guest("render01", 64, 16, disks=(_shared("render01"),), devices=(_GPU,)),
                Guest("build01", 16, 8, disks=(Disk(_LOCAL_DISK),)),
                Guest("rt01", 16, 4, disks=(_shared("rt01"),), cpuset="24-27", nodeset="1"),
                Guest("app01", 8, 4, state="shut off", twin="old", disks=(_shared("app01-old"),)),
            ),
        ),
        replace(
            _CL,
            name="cl02",
            number=22,
            hugepages={1048576: (64, 32)},
            guests=(
                Guest("huge01", 32, 8, disks=(_shared("huge01"),), hugepage_kib=1048576),
                Guest("clock01", 4, 2, cpu="Cascadelake-Server-noTSX +invtsc", disks=(_shared("clock01"),)),
                Guest(
                    "win11",
                    16,
                    8,
                    cpu="Cascadelake-Server-noTSX",
                    uefi=True,
                    devices=(_VTPM,),
                    disks=(_shared("win11"),),
                ),
                Guest("db01", 64, 16, disks=(_shared("db01"), Disk("/dev/mapper/oradata", kind="block", image="raw"))),
            ),
        ),
        replace(
            _SR,
            memory_gib=2048,
            luns=(_DATABASE_LUN,),
            hugepages={1048576: (16, 16)},
            guests=(
                Guest("hana01", 1152, 64, disks=(_shared("hana01"),)),
                Guest("bi01", 32, 16, disks=(_shared("bi01"),)),
                Guest("new01", 8, 4, cpu="Cascadelake-Server-noTSX", disks=(_shared("new01"),)),
            ),
        ),
        replace(
            _SR,
            name="sr02",
            number=32,
            hugepages={1048576: (64, 64)},
            guests=(
                Guest(
                    "app01", 8, 4, cpu="Cascadelake-Server-noTSX", machine="pc-q35-rhel9.4.0", disks=(_shared("app01"),)
                ),
                Guest(
                    "backup01",
                    8,
                    4,
                    disks=(_shared("backup01", backing=f"{IMAGES}/backup01-base.qcow2"),),
                    block_job=_JOB,
                ),
            ),
        ),
        replace(
            _EP,
            bridges=("br0", "br-prod", "br-dmz"),
            guests=(
                Guest("calc01", 32, 16, cpu="host-passthrough", disks=(_shared("calc01"),)),
                Guest("test01", 8, 4, disks=(_shared("test01"),), snapshots=("before-update", "after-update")),
                Guest("dmz01", 4, 2, disks=(_shared("dmz01"),), nics=(Nic("bridge", "br-dmz"),)),
            ),
        ),
        replace(
            _EP,
            name="ep02",
            number=42,
            session_guest="sandbox",
            guests=(
                Guest("share01", 8, 4, disks=(_shared("share01"),), devices=(_VIRTIOFS,), shared_memory=True),
                Guest("idle01", 4, 2, state="paused", disks=(_shared("idle01"),)),
            ),
        ),
    ),
)

# A host that is down, one without sudo, one that prints garbage -------------------------------------------------

_PA = Host("pa01", 51, ICE_LAKE, RHEL_9_4, nfs=(_NFS,))
_TRUNCATED = (
    "<capabilities>\n\n  <host>\n    <uuid>0c9e7c1e-6b0a-5c5f-9d3b-2f6d6d1b7a10</uuid>\n    <cpu>\n      <arch>x8"
)
_BINARY = b"\x1f\x8b\x08\x00\xff\xfe\x00\x9c\xed\xbd\x07`\x1cI\x96%&/m\xcaa\x7fJ\xf5J\xd7\xe0t\xa1\x08"
_NO_BUS = "Failed to connect to bus: Connection refused\n"
_GARBAGE = {
    "cpu.capabilities": Answer(_TRUNCATED),
    "cpu.domcaps_kvm": Answer(_BINARY),
    "cpu.domcaps_kvm_default": Answer("", 134, "Aborted (core dumped)\n"),
    "cpu.domcaps_qemu": Answer("<domainCapabilities>\n  <path>/usr/libexec/qemu-kvm</path>\n"),
    "cpu.domcaps_qemu_default": Answer("<html><body>503 Service Unavailable</body></html>\n"),
    "firewall.nft": Answer('{"nftables": [{"metainfo": {"version": "1.0.9"', 0),
    "memory.meminfo": Answer("MemTotal:       lots\nMemFree:        some\n"),
    "services.units": Answer("", 1, _NO_BUS),
    "storage.mountinfo": Answer("21 66 0:20 / /sys rw - sysfs\nnot a mount\n"),
    "versions.kernel": Answer("", 139, "Segmentation fault (core dumped)\n"),
    "versions.os_release": Answer(b"\x00" * 512),
    "names.peers": Answer("= zero\n???\n"),
}
PARTIAL = Fleet(
    "partial",
    _inventory(
        "partial",
        "Four hosts: a good one, one that is down, one without sudo, one that prints garbage.",
        ("pa01", "pa02", "pa03", "pa04"),
    ),
    (
        replace(
            _PA,
            guests=(
                Guest("ldap01", 8, 4, disks=(_shared("ldap01"),)),
                Guest("wiki01", 4, 2, disks=(_shared("wiki01"),)),
            ),
        ),
        replace(_PA, name="pa02", number=52, problem="ssh: connection refused by pa02 port 22"),
        replace(
            _PA,
            name="pa03",
            number=53,
            privilege="user: sudo: a password is required",
            guests=(Guest("git01", 8, 4, uefi=True, disks=(_shared("git01"),)),),
        ),
        replace(
            _PA,
            name="pa04",
            number=54,
            garbage=_GARBAGE,
            guests=(Guest("jobs01", 8, 4, disks=(_shared("jobs01"),)),),
        ),
    ),
)

# ConnectX-7 pairs ----------------------------------------------------------------------------------------------

_CARD = MellanoxCard("0000:b1:00.0", "ens3f0np0")
_MX = Host("mx01", 61, ICE_LAKE, RHEL_9_4, nfs=(_NFS,), open_vswitch=True, cards=(_CARD,))
MELLANOX = Fleet(
    "mellanox",
    _inventory(
        "mellanox",
        "Four hosts with a ConnectX-7: two ready to migrate VFs, one with old firmware, one with the mode off.",
        ("mx01", "mx02", "mx03", "mx04"),
    ),
    (
        replace(
            _MX,
            cards=(replace(_CARD, held=frozenset({0})),),
            guests=(
                Guest("nfv01", 16, 8, disks=(_shared("nfv01"),), nics=(Nic("hostdev", "0000:b1:00.2"),)),
                Guest("web11", 8, 4, disks=(_shared("web11"),)),
            ),
        ),
        replace(
            _MX,
            name="mx02",
            number=62,
            cards=(replace(_CARD, held=frozenset({1})),),
            guests=(
                Guest("nfv02", 16, 8, disks=(_shared("nfv02"),), nics=(Nic("hostdev", "0000:b1:00.3"),)),
                Guest("web12", 8, 4, disks=(_shared("web12"),)),
            ),
        ),
        replace(
            _MX,
            name="mx03",
            number=63,
            cards=(replace(_CARD, firmware="28.35.1012"),),
            guests=(Guest("web13", 8, 4, disks=(_shared("web13"),)),),
        ),
        replace(
            _MX,
            name="mx04",
            number=64,
            cards=(replace(_CARD, migration_mode=1),),
            guests=(Guest("web14", 8, 4, disks=(_shared("web14"),)),),
        ),
    ),
)

FLEETS = (UNIFORM, MIXED, PARTIAL, MELLANOX)
