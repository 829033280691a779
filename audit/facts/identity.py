"""Who a host is to libvirt: the UUID by which it tells one host from another."""

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from audit.evidence import Probe
from audit.facts.base import HostFact, Said, Unavailable
from audit.facts.cpu import CAPABILITIES

# UUIDs that boards leave the factory with when nobody has written a real one.
_FACTORY = frozenset(
    {
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "03020100-0504-0706-0809-0a0b0c0d0e0f",
        "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "78563412-3412-7856-90ab-cddeefaabbcc",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
    }
)


@dataclass(frozen=True, slots=True)
class HostIdentity(HostFact):
    """libvirt's host UUID: from the SMBIOS, the machine-id, or `host_uuid` in libvirt's configuration."""

    probes: ClassVar[tuple[Probe, ...]] = (CAPABILITIES,)

    uuid: str
    """In lower case, with dashes."""

    @classmethod
    def parse(cls, said: Said) -> Self:
        """`/capabilities/host/uuid`."""
        uuid = (said.xml(CAPABILITIES).findtext("host/uuid") or "").strip().lower()
        if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid):
            raise Unavailable(CAPABILITIES, "no host UUID in what libvirt printed")
        return cls(uuid)

    @property
    def from_factory(self) -> bool:
        """A placeholder that many boards share."""
        return self.uuid in _FACTORY or len(set(self.uuid) - {"-"}) == 1
