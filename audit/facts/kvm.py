"""Hardware virtualization: what virt-host-validate would look at, read without running it."""

from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said

KVM = Probe(
    "kvm.host",
    """\
for device in /dev/kvm /dev/vhost-net /dev/net/tun; do
  if [ -e "$device" ]; then echo "device $device"; fi
done
for nested in /sys/module/kvm_intel/parameters/nested /sys/module/kvm_amd/parameters/nested \\
  /sys/module/kvm/parameters/nested; do
  if [ -e "$nested" ]; then echo "nested $(cat "$nested")"; fi
done
echo end""",
    hand="ls -l /dev/kvm /dev/vhost-net /dev/net/tun; grep . /sys/module/kvm*/parameters/nested",
)


@dataclass(frozen=True, slots=True)
class Kvm(HostFact):
    """The kernel's side of virtualization."""

    probes: ClassVar[tuple[Probe, ...]] = (KVM,)

    device: bool
    """/dev/kvm exists."""
    vhost_net: bool
    tun: bool
    nested: bool | None
    """Guests may be hypervisors themselves. None: the kernel does not tell (no KVM module, a container)."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """A keyword and a value a line; the last line says that nothing was cut off."""
        *lines, end = said.lines(KVM)
        if end != "end":
            raise ValueError("cut off")
        rows = [line.split(maxsplit=1) for line in lines]
        values = {word: {row[1] for row in rows if row[0] == word} for word in _WORDS}
        if any(row[0] not in _WORDS for row in rows):
            raise ValueError(f"not one of {', '.join(_WORDS)}")
        nested = {"Y": True, "1": True, "N": False, "0": False}
        return cls(
            device="/dev/kvm" in values["device"],
            vhost_net="/dev/vhost-net" in values["device"],
            tun="/dev/net/tun" in values["device"],
            nested=any(nested[text] for text in values["nested"]) if values["nested"] else None,
        )


_WORDS = ("device", "nested")
