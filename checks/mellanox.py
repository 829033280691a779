"""Mellanox VFs that move with their guest (RHEL 9 §12.8), and what their hosts need for it.

The same conditions are judged twice: as notes about each host, and as what decides for the guests that have
such a VF. A host that is not ready for VFs must not disturb the guests without.
"""

import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from audit.check import Blocks, Finding, NotApplicable, Policy, Severity, Source, Stage, Target, Unavailable, check
from audit.facts.guest import GuestDevices, GuestNics
from audit.facts.mellanox import (
    CONNECTX_7,
    MIGRATION_ENABLED,
    SYSFS,
    Iommu,
    MellanoxDevices,
    Netdev,
    Pf,
    Vf,
    VfSurroundings,
    version_key,
)
from audit.facts.openvswitch import OpenVswitch

SECTION = "RHEL 9 §12.8"
NVIDIA_FIRMWARE = "28.41.1000"
VARIANT_DRIVER = "mlx5_vfio_pci"
MOST_VFS = 4
LONG_IDLE_MS = 300_000

# The conditions, each of one device. `side` says whose it is where two hosts are compared. --------------------


def _connectx7(side: str, pf: Pf) -> Iterator[Finding]:
    if pf.too_old:
        yield Finding(f"{side}{CONNECTX_7}", f"{pf.model} ({pf.address})", "Older cards cannot migrate a VF.")
    elif not pf.ethernet:
        yield Finding(
            expected=f"{side}{CONNECTX_7} in Ethernet mode",
            actual=f"{pf.address} is in InfiniBand mode",
            because="VFs of a port in InfiniBand mode cannot migrate.",
            remedy=f"mstconfig -d {pf.address} set LINK_TYPE_P1=2",
        )
    elif pf.model != CONNECTX_7:
        raise Unavailable(SYSFS, f"{pf.address} is a {pf.model}: the documentation speaks of {CONNECTX_7} only")


def _firmware(side: str, pf: Pf, minimum: str) -> Iterator[Finding]:
    if pf.model != CONNECTX_7:  # other cards count their firmware otherwise
        return
    firmware = pf.firmware
    if version_key(firmware.running) < version_key(minimum):
        newer = firmware.stored is not None and version_key(firmware.stored) >= version_key(minimum)
        yield Finding(
            expected=f"{side}firmware {minimum} or newer",
            actual=f"{pf.address} runs {firmware.running}" + (f", {firmware.stored} is stored" if newer else ""),
            because="Older firmware cannot save and load the state of a VF.",
            remedy=f"mstfwreset -d {pf.address} reset" if newer else f"mstflint -d {pf.address} -i FIRMWARE.bin burn",
        )


_MODES = {0: "DEVICE_DEFAULT(0)", 1: "MIGRATION_DISABLED(1)", 2: "MIGRATION_ENABLED(2)"}


def _migration_mode(side: str, pf: Pf) -> Iterator[Finding]:
    mode = pf.vf_migration
    now = mode.current if mode.current is not None else mode.next_boot
    if not mode.supported:
        actual = "the firmware knows no such parameter"
    elif now != MIGRATION_ENABLED and now is not None:
        actual = _MODES.get(now, str(now))
    elif mode.current is None:
        raise Unavailable(
            SYSFS if mode.next_boot is None else _MSTCONFIG, f"{pf.address}: only the value after the next boot is told"
        )
    else:
        return
    pending = mode.next_boot == MIGRATION_ENABLED
    yield Finding(
        expected=f"{side}VF_MIGRATION_MODE {_MODES[2]}",
        actual=f"{pf.address}: {actual}" + (f", {_MODES[2]} after a reset" if pending else ""),
        because="QEMU refuses to migrate a VF that its card was not set up to migrate.",
        remedy=f"mstfwreset -d {pf.address} reset"
        if pending
        else f"mstconfig -d {pf.address} set VF_MIGRATION_MODE=2 && mstfwreset -d {pf.address} reset",
    )
