"""The guests of the lab: a small machine that counts on its serial port, so that it can be seen to run on."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import Any
from xml.sax.saxutils import escape

# The code of its boot sector: prints "!" once, then for ever the letters from A on, one each tick of the timer.
#   sti; mov dx,3f8h; mov al,'!'; out dx,al; again: hlt; inc al; and al,1fh; or al,40h; out dx,al; jmp again
CODE = bytes.fromhex("fbbaf803b021eef4fec0241f0c40eeebf6")
DISK_MIB = 16

_DOMAIN = Template("""<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>$name</name>
  <uuid>$uuid</uuid>
  <memory unit='MiB'>$memory</memory>
  $vcpu
  <os><type arch='x86_64' machine='$machine'>hvm</type>$os<boot dev='hd'/></os>
  <features><acpi/>$features</features>
  $cpu
  <on_poweroff>destroy</on_poweroff>
  <on_crash>destroy</on_crash>
  $domain
  <devices>
    <emulator>$emulator</emulator>
    $disk
    $nic
    <serial type='file'><source path='$serial'/></serial>
    <memballoon model='none'/>
    $devices
  </devices>
  $qemu
</domain>
""")


@dataclass(frozen=True, slots=True)
class Guest:
    """What a scenario says about its guest; the rest is an ordinary guest on shared storage."""

    name: str = "g1"
    uuid: str = "5ca1ab1e-0000-4000-8000-000000000001"
    machine: str = "pc-q35-7.2"
    memory: int = 64
    """MiB."""
    vcpu: str = "<vcpu>1</vcpu>"
    os: str = ""
    features: str = ""
    cpu: str = "<cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>"
    emulator: str = "/usr/bin/qemu-system-x86_64"
    file: str = ""
    """The path of its disk, which is made on the source; without, /srv/shared/NAME.raw."""
    cache: str = "none"
    disk: str = ""
    """XML in place of its disk; nothing is made then, unless `file` says so."""
    nic: str = "<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>"
    serial: str = ""
    """The path of its serial log; without, /var/log/libvirt/qemu/NAME-serial.log."""
    domain: str = ""
    """More XML in <domain>."""
    devices: str = ""
    """More XML in <devices>."""
    qemu: tuple[str, ...] = ()
    """Arguments that libvirt passes on to QEMU unread."""
    transient: bool = False
    start: bool = True

    @property
    def disk_path(self) -> str:
        """Where its disk is made; empty: the scenario makes it, if there is one."""
        return self.file or ("" if self.disk else f"/srv/shared/{self.name}.raw")

    @property
    def log(self) -> str:
        """Its serial log, on whichever host it runs."""
        return self.serial or f"/var/log/libvirt/qemu/{self.name}-serial.log"

    def xml(self) -> str:
        """Its definition."""
        words = "".join(f"<qemu:arg value='{word}'/>" for word in self.qemu)
        disk = self.disk or (
            f"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='{self.cache}'/>"
            f"<source file='{escape(self.disk_path)}'/><target dev='vda' bus='virtio'/></disk>"
        )
        values = {name: getattr(self, name) for name in self.__slots__} | {"name": escape(self.name)}
        qemu = words and f"<qemu:commandline>{words}</qemu:commandline>"
        return _DOMAIN.substitute(values | {"disk": disk, "serial": escape(self.log), "qemu": qemu})


MAKE_DISK = f"""
make_disk() {{
    mkdir -p "$(dirname "$1")" && truncate -s {DISK_MIB}M "$1" &&
    echo {base64.b64encode(CODE).decode()} | base64 -d | dd of="$1" conv=notrunc status=none &&
    printf '\\125\\252' | dd of="$1" bs=1 seek=510 conv=notrunc status=none
    case $1 in *.qcow2) mv "$1" "$1.raw" && qemu-img convert -O qcow2 "$1.raw" "$1" && rm "$1.raw" ;; esac
}}
"""
"""A shell function, known to the commands of scenarios, too: it makes such a guest's disk, raw or qcow2, at a path."""


def guest(values: Mapping[str, Any]) -> Guest:
    """A guest as a scenario's data describe it."""
    return Guest(**{**values, "qemu": tuple(values.get("qemu", ()))})
