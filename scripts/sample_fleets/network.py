"""What a host says of its network: names, addresses, links, libvirt's networks, the firewall, Mellanox cards."""

import base64
import hashlib
import ipaddress
import json
import re
from hashlib import sha256
from typing import Any

from audit.transports import Records
from scripts.sample_fleets.description import Answer, Fleet, Host, MellanoxCard, stable_uuid

_ROUTER = "3c:13:cc:0a:41:7f"
_UPLINKS = ("eno12399np0", "ens2f0np0", "ens2f1np1", "ens4f0np0")


def mac(*words: str) -> str:
    """A locally administered address that is always the same for the same words."""
    digest = sha256("/".join(words).encode()).hexdigest()
    return "52:54:00:" + ":".join(digest[at : at + 2] for at in (0, 2, 4))


def mark(host: Host, probe: str) -> str:
    """What a probe draws from /dev/urandom on a real host."""
    return sha256(f"{host.fqdn}/{probe}".encode()).hexdigest()[:32]


# Names and addresses -------------------------------------------------------------------------------------------


def hostname(host: Host) -> Answer:
    """`uname -n`, `hostname -f` and `virsh hostname`."""
    return Answer(f"{host.fqdn}\n")


def virsh_hostname(host: Host) -> Answer:
    """With the empty line that virsh ends with."""
    return Answer(f"{host.fqdn}\n\n")


def own_resolution(host: Host) -> Answer:
    """`getent ahosts` of its own name."""
    return Answer(_ahosts(host.fqdn, host.address))


def _ahosts(name: str, address: str) -> str:
    return f"{address:<15} STREAM {name}\n{address:<15} DGRAM  \n{address:<15} RAW    \n"


def _link_local(host: Host, device: str) -> str:
    words = mac(host.name, device).split(":")
    return str(ipaddress.ip_address(f"fe80::5054:ff:fe{words[3]}:{words[4]}{words[5]}"))


def peers(host: Host, fleet: Fleet, records: Records) -> Answer:
    """What the peers' names resolve to here, and by which device they are reached."""
    known = {name: peer for peer in fleet.hosts for name in (peer.name, peer.fqdn)}
    lines = []
    for (name,) in records:
        peer = known.get(name)
        lines.append("= 0" if peer else "= 2")
        if peer:
            lines.append(f"{peer.address} {host.bridges[0]} {host.address}")
    return Answer("\n".join(lines) + "\n")


def storage_servers(host: Host, _fleet: Fleet, records: Records) -> Answer:
    """Names of storage resolve here, all to one server; an address leads to itself."""
    addresses = (name if re.fullmatch(r"[0-9.]+", name) else "192.0.2.240" for (name,) in records)
    return Answer("".join(f"= 0\n{address} {host.bridges[0]} {host.address}\n" for address in addresses))


def tried_ports(_host: Host, _fleet: Fleet, records: Records) -> Answer:
    """Peers behind firewalld: open where something listens, and the migration range; the rest is rejected."""
    said = {"control": "0 ", "migration": "1 Connection refused", "compare": "1 No route to host"}
    return Answer("".join(f"{number} {said[use]}\n" for number, _, _, _, use in records))


def tried_mtu(host: Host, _fleet: Fleet, records: Records) -> Answer:
    """Full packets arrive."""
    return Answer("".join(f"{number} {host.bridges[0]} {mtu} 0 0 -\n" for number, _, _, mtu in records))


def tried_ssh(_host: Host, fleet: Fleet, records: Records) -> Answer:
    """Root is trusted everywhere."""
    names = {peer.name: peer.fqdn for peer in fleet.hosts}
    said = "virt-preflight|root|{}|qemu:///system|"
    return Answer("".join(f"{number} 0 root {name} {said.format(names[peer])}\n" for number, peer, name, _ in records))


def _fingerprint(what: str) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(what.encode()).digest()).decode().rstrip("=")


def ssh_client(host: Host, fleet: Fleet, records: Records) -> Answer:
    """root's ssh knows all hosts and has a key of its own."""
    known = {peer.name: peer for peer in fleet.hosts}
    lines = []
    for (name,) in records:
        settings = {"user": "root", "hostname": name, "port": "22", "stricthostkeychecking": "ask", "batchmode": "no"}
        lines += ["= 0", "me root", *(f"set {key} {value}" for key, value in settings.items())]
        lines += [f"known # Host {name} found: line 1 ", f"known {name} ED25519 {_fingerprint(f'host {name}')}"]
        lines += [f"key 256 {_fingerprint(f'root {host.name}')} root@{host.name} (ED25519)"]
        peer = known.get(name)
        lines += ["resolved 0", f"address {peer.address} {host.bridges[0]} {host.address}"] if peer else ["resolved 2"]
    return Answer("\n".join(lines) + "\n")


def ssh_server(host: Host, fleet: Fleet, records: Records) -> Answer:
    """root may come in by key, with that of each host."""
    settings = (
        ("permitrootlogin", "without-password"),
        ("pubkeyauthentication", "yes"),
        ("authorizedkeysfile", ".ssh/authorized_keys"),
        ("passwordauthentication", "yes"),
    )
    lines = []
    for _, address in records:
        lines += [f"= 0 {address}", *(f"set {key} {value}" for key, value in settings)]
        lines.append("hostkey /etc/ssh/ssh_host_ed25519_key")
    key = _fingerprint(f"host {host.name}")
    lines += ["# keys", "home /root", f"host /etc/ssh/ssh_host_ed25519_key 256 {key} no comment (ED25519)"]
    lines += [f"accepts {_fingerprint(f'root {peer.name}')} " for peer in fleet.hosts]
    return Answer("\n".join([*lines, "# end"]) + "\n")


# Links ---------------------------------------------------------------------------------------------------------


def _link(index: int, name: str, address: str, **more: Any) -> dict[str, Any]:
    entry = {"ifindex": index, "ifname": name, "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], "mtu": 1500,
             "qdisc": "mq", "operstate": "UP", "linkmode": "DEFAULT", "group": "default", "txqlen": 1000,
             "link_type": "ether", "address": address, "broadcast": "ff:ff:ff:ff:ff:ff"}  # fmt: skip
    return entry | more


def _port_of(bridge: str, kind: str = "bridge") -> dict[str, Any]:
    return {"master": bridge, "linkinfo": {"info_slave_kind": kind}}


def link_list(host: Host) -> list[dict[str, Any]]:
    """Every network device, in the order of its number."""
    links = [
        {"ifindex": 1, "ifname": "lo", "flags": ["LOOPBACK", "UP", "LOWER_UP"], "mtu": 65536, "qdisc": "noqueue",
         "operstate": "UNKNOWN", "linkmode": "DEFAULT", "group": "default", "txqlen": 1000, "link_type": "loopback",
         "address": "00:00:00:00:00:00", "broadcast": "00:00:00:00:00:00"}
    ]  # fmt: skip

    def add(name: str, **more: Any) -> None:
        links.append(_link(len(links) + 1, name, mac(host.name, name), **more))

    for uplink, bridge in zip(_UPLINKS, host.bridges, strict=False):
        add(uplink, **_port_of(bridge))
    for bridge in host.bridges:
        add(bridge, qdisc="noqueue", linkinfo={"info_kind": "bridge", "info_data": {"stp_state": 0}})
    if host.open_vswitch:
        add("ovs-system", operstate="DOWN", flags=["BROADCAST", "MULTICAST"], linkinfo={"info_kind": "openvswitch"})
        add("br-vf", operstate="UNKNOWN", qdisc="noqueue", linkinfo={"info_kind": "openvswitch"})
    for card in host.cards:
        for name in (card.netdev, *representors(card)):
            add(name, **_port_of("ovs-system", "openvswitch"))
    nics = [nic for guest in host.guests if guest.active for nic in guest.nics if nic.kind != "hostdev"]
    vnets = [network_bridge(nic.source) if nic.kind == "network" else nic.source for nic in nics]
    for number, bridge in enumerate(vnets):
        tap = {"info_kind": "tun", "info_data": {"type": "tap", "vnet_hdr": True}, "info_slave_kind": "bridge"}
        add(f"vnet{number}", master=bridge, linkinfo=tap, operstate="UNKNOWN", qdisc="noqueue")
    return links


def links(host: Host) -> Answer:
    """`ip -j -d link show`."""
    return Answer(json.dumps(link_list(host), separators=(",", ":")) + "\n")


def addresses(host: Host) -> Answer:
    """`ip -j addr show`."""
    entries = []
    for entry in link_list(host):
        entry = {key: value for key, value in entry.items() if key != "linkinfo"}
        entry["addr_info"] = []
        if entry["ifname"] == "lo":
            entry["addr_info"] = [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]
        elif entry["ifname"] == host.bridges[0]:
            entry["addr_info"] = [
                {"family": "inet", "local": host.address, "prefixlen": 24, "scope": "global", "noprefixroute": True},
                {"family": "inet6", "local": _link_local(host, host.bridges[0]), "prefixlen": 64, "scope": "link"},
            ]
        entries.append(entry)
    return Answer(json.dumps(entries, separators=(",", ":")) + "\n")


def default_route(host: Host) -> Answer:
    """`ip -j route show default`."""
    route = {"dst": "default", "gateway": "192.0.2.1", "dev": host.bridges[0], "protocol": "static", "metric": 425}
    return Answer(json.dumps([{**route, "flags": []}], separators=(",", ":")) + "\n")


def neighbours(host: Host) -> Answer:
    """`ip -j neigh show`: the router of the hosts' own network."""
    router = {"dst": "192.0.2.1", "dev": host.bridges[0], "lladdr": _ROUTER, "state": ["REACHABLE"]}
    silent = {"dst": "192.0.2.250", "dev": host.bridges[0], "state": ["FAILED"]}
    return Answer(json.dumps([router, silent], separators=(",", ":")) + "\n")


def stations(host: Host) -> Answer:
    """`bridge fdb show`: the guests behind their taps, and the router."""
    lines = [f"{_ROUTER} dev {_UPLINKS[0]} master {host.bridges[0]} "]
    nics = [(guest, at, nic) for guest in host.guests if guest.active for at, nic in enumerate(guest.nics)]
    taps = [(guest, at, nic) for guest, at, nic in nics if nic.kind != "hostdev"]
    for number, (guest, at, nic) in enumerate(taps):
        bridge = network_bridge(nic.source) if nic.kind == "network" else nic.source
        lines.append(f"{mac(guest.name, str(at))} dev vnet{number} master {bridge} ")
    return Answer("\n".join([*lines, "end"]) + "\n")


def speeds(host: Host) -> Answer:
    """/sys/class/net/*/speed; nothing where the device cannot tell."""
    rates = dict.fromkeys((*_UPLINKS, *host.bridges), 25000)
    rates |= {card.netdev: 200_000 for card in host.cards}
    lines = []
    for name in sorted(str(entry["ifname"]) for entry in link_list(host)):
        speed = rates.get(name, 10000 if name.startswith("vnet") else None)
        lines.append(f"{name} {speed if speed else ''}")
    return Answer("\n".join(lines) + "\n")


# libvirt's networks: all of them use a bridge of the host -------------------------------------------------------


def networks_active(host: Host) -> Answer:
    """Two lists of UUIDs: active ones, and those that start with the host."""
    uuids = "".join(f"{_network_uuid(host, name)}\n" for name in sorted(host.networks))
    return Answer(f"{uuids}\nautostart\n{uuids}\n")


def _network_uuid(host: Host, name: str) -> str:
    return stable_uuid("network", host.name, name)


def networks(host: Host) -> Answer:
    """Every network's XML."""
    stamp = mark(host, "network.libvirt")
    parts = []
    for name in sorted(host.networks):
        uuid = _network_uuid(host, name)
        parts.append(
            f"{stamp} {uuid}\n<network connections='1'>\n  <name>{name}</name>\n  <uuid>{uuid}</uuid>\n"
            f"  <forward mode='bridge'/>\n  <bridge name='{network_bridge(name)}'/>\n</network>\n\n"
        )
    return Answer(f"{stamp}\n{''.join(parts)}{stamp} end\n" if parts else f"{stamp}\n")


_FILTERS = ("allow-arp", "allow-dhcp", "allow-ipv4", "no-arp-spoofing", "no-mac-spoofing")


def filters(host: Host, names: tuple[str, ...] = _FILTERS) -> Answer:
    """Network filters: some of those that come with libvirt, which no guest uses."""
    stamp = mark(host, "network.filters")
    parts = []
    for name in names:
        uuid = stable_uuid("filter", host.name, name)
        parts.append(
            f"{stamp} {uuid}\n<filter name='{name}' chain='root'>\n  <uuid>{uuid}</uuid>\n"
            "  <rule action='accept' direction='inout' priority='500'/>\n</filter>\n\n"
        )
    return Answer(f"{stamp}\n{''.join(parts)}{stamp} end\n")


def network_bridge(name: str) -> str:
    """The bridge that a libvirt network of that name stands for."""
    return {"production": "br-prod"}.get(name, f"br-{name}")


# The firewall: firewalld with its nftables backend --------------------------------------------------------------


def nft(host: Host) -> Answer:
    """`nft -j list ruleset`."""
    if not host.root:
        denied = "Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed: Operation "
        return Answer("", 1, f"{denied}not permitted\n")
    ruleset = _Ruleset()
    accept: list[dict[str, Any]] = [{"accept": None}]
    reject: list[dict[str, Any]] = [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]
    states = {"op": "in", "left": {"ct": {"key": "state"}}}
    ruleset.chain("filter_INPUT", {"type": "filter", "hook": "input", "prio": 10, "policy": "accept"})
    ruleset.rule("filter_INPUT", [{"match": {**states, "right": {"set": ["established", "related"]}}}, *accept])
    ruleset.rule("filter_INPUT", [{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, *accept])
    ruleset.rule("filter_INPUT", [_meta("iifname", "lo"), *accept])
    ruleset.rule("filter_INPUT", [{"match": {**states, "right": "invalid"}}, {"drop": None}])
    ruleset.rule("filter_INPUT", [{"jump": {"target": "filter_INPUT_ZONES"}}])
    ruleset.rule("filter_INPUT", reject)
    ruleset.chain("filter_INPUT_ZONES")
    for bridge in host.bridges:
        ruleset.rule("filter_INPUT_ZONES", [_meta("iifname", bridge), {"goto": {"target": "filter_IN_public"}}])
    ruleset.rule("filter_INPUT_ZONES", [{"goto": {"target": "filter_IN_public"}}])
    ruleset.chain("filter_IN_public")
    for part in ("pre", "log", "deny", "allow", "post"):
        ruleset.chain(f"filter_IN_public_{part}")
        ruleset.rule("filter_IN_public", [{"jump": {"target": f"filter_IN_public_{part}"}}])
    ruleset.rule("filter_IN_public", [_meta("l4proto", {"set": ["icmp", "ipv6-icmp"]}), *accept])
    ruleset.rule("filter_IN_public", reject)
    for port in ("22", "9090", *host.firewall_ports):
        low, dash, high = port.partition("-")
        right = {"range": [int(low), int(high)]} if dash else int(low)
        match = {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": right}
        ruleset.rule("filter_IN_public_allow", [{"match": match}, *accept])
    ruleset.chain("filter_FORWARD", {"type": "filter", "hook": "forward", "prio": 10, "policy": "accept"})
    ruleset.rule("filter_FORWARD", reject)
    return Answer(json.dumps({"nftables": ruleset.objects}) + "\n")


def _meta(key: str, right: object) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": right}}


class _Ruleset:
    """The table `inet firewalld`, object by object."""

    def __init__(self) -> None:
        info = {"version": "1.0.9", "release_name": "Old Doc Yak #3", "json_schema_version": 1}
        self.objects: list[dict[str, Any]] = [{"metainfo": info}, {"table": {**_TABLE, "handle": 21}}]
        self._rules: list[dict[str, Any]] = []

    def chain(self, name: str, hook: dict[str, Any] | None = None) -> None:
        """A chain; a base chain with its hook."""
        self._add("chain", {"name": name}, hook or {})

    def rule(self, chain: str, expr: list[dict[str, Any]]) -> None:
        """A rule at the end of a chain."""
        self._add("rule", {"chain": chain}, {"expr": expr})

    def _add(self, kind: str, head: dict[str, Any], tail: dict[str, Any]) -> None:
        place = {"family": "inet", "table": "firewalld", **head, "handle": 100 + len(self.objects)}
        self.objects.append({kind: {**place, **tail}})


_TABLE = {"family": "inet", "name": "firewalld"}


def iptables(host: Host) -> Answer:
    """`iptables-save` on a host whose rules are all nft's own prints nothing."""
    if not host.root:
        return Answer("", 4, "iptables-save v1.8.10 (nf_tables): Could not fetch rule set generation id: Permission "
                             "denied (you must be root)\n")  # fmt: skip
    return Answer("")


NF_TABLES = Answer(
    "nft_reject_inet 16384 12 - Live 0x0000000000000000\n"
    "nft_ct 24576 7 - Live 0x0000000000000000\n"
    "nf_tables 356352 211 nft_reject_inet,nft_ct, Live 0x0000000000000000\n"
    "nfnetlink 20480 1 nf_tables, Live 0x0000000000000000\n"
    "kernel 214381 2530\nend\n"
)


def listening(_host: Host) -> Answer:
    """`ss -H -ltn`."""
    rows = [("0.0.0.0:22", 128), ("0.0.0.0:111", 4096), ("127.0.0.1:631", 4096), ("*:9090", 4096), ("*:16514", 4096),
            ("[::]:22", 128), ("[::]:111", 4096)]  # fmt: skip
    rows += [(f"127.0.0.1:{port}", 1) for port in (5900, 5901)]
    anybody = {"*": "*:*", "[": "[::]:*"}
    lines = [f"LISTEN 0      {backlog:<6} {own:>22} {anybody.get(own[0], '0.0.0.0:*'):>18}" for own, backlog in rows]
    return Answer("\n".join(lines) + "\n")


# Mellanox cards and Open vSwitch --------------------------------------------------------------------------------


def representors(card: MellanoxCard) -> list[str]:
    """The host's ends of the card's VFs."""
    stem = re.sub(r"np\d+$", "", card.netdev)
    return [f"{stem}npf0vf{number}" for number in range(card.vfs)]


def vf_addresses(card: MellanoxCard) -> list[str]:
    """PCI addresses of the VFs: functions 2 and up."""
    return [f"{card.address[:-1]}{number + 2}" for number in range(card.vfs)]


def mellanox_sysfs(host: Host) -> Answer:
    """Every Mellanox function."""
    lines = []
    for card in host.cards:
        vfs = vf_addresses(card)
        lines += [f"== {card.address}", "device 0x1021", "class 0x020000", f"sriov_numvfs {card.vfs}",
                  "sriov_totalvfs 16", "numa_node 1", "driver mlx5_core"]  # fmt: skip
        lines += [f"virtfn{number} {address}" for number, address in enumerate(vfs)]
        lines += [f"group {card.address}", f"net {card.netdev} p0 up ovs-system"]
        lines += [f"net {name} pf0vf{number} up ovs-system" for number, name in enumerate(representors(card))]
        for number, address in enumerate(vfs):
            held = number in card.held
            lines += [f"== {address}", "device 0x101e", "class 0x020000", "sriov_numvfs 0", "sriov_totalvfs 0",
                      "numa_node 1", f"driver {'mlx5_vfio_pci' if held else 'mlx5_core'}",
                      f"physfn {card.address}", f"group {address}"]  # fmt: skip
            if not held:
                lines.append(f"net {card.netdev[:-3]}v{number} - up -")
    return Answer("\n".join([*lines, "end"]) + "\n")


def _each_card(said: dict[str, tuple[int, str]]) -> Answer:
    """What a tool said, device by device."""
    lines = []
    for device, (status, words) in said.items():
        lines += [f"== {device} {status}", *(f" {line}" for line in words.rstrip("\n").split("\n"))]
    return Answer("\n".join([*lines, "end"]) + "\n")


def _once(host: Host, words: str) -> Answer:
    return _each_card({"all": (0, words)} if host.cards else {})


def devlink_info(host: Host) -> Answer:
    """`devlink -j dev info`."""
    said = {}
    for card in host.cards:
        version = {"fw.version": card.firmware, "fw": card.firmware}
        versions = {"fixed": {"fw.psid": card.psid}, "running": version, "stored": version}
        serial = "MT" + sha256(host.name.encode()).hexdigest()[:10].upper()
        info = {"driver": "mlx5_core", "serial_number": serial, "board.serial_number": serial, "versions": versions}
        said[card.address] = (0, json.dumps({"info": {f"pci/{card.address}": info}}, separators=(",", ":")))
    return _each_card(said)


def ethtool(host: Host) -> Answer:
    """`ethtool -i`."""
    return _each_card({
        card.address: (0, f"driver: mlx5_core\nversion: {host.software.kernel}\nfirmware-version: {card.firmware} "
                          f"({card.psid})\nexpansion-rom-version: \nbus-info: {card.address}\n"
                          "supports-statistics: yes\nsupports-test: yes\nsupports-eeprom-access: no\n"
                          "supports-register-dump: no\nsupports-priv-flags: yes")
        for card in host.cards
    })  # fmt: skip


def mstflint(host: Host) -> Answer:
    """`mstflint q`."""
    return _each_card({
        card.address: (0, f"Image type:            FS4\nFW Version:            {card.firmware}\n"
                          f"FW Release Date:       7.11.2024\nProduct Version:       {card.firmware}\n"
                          "Rom Info:              type=UEFI version=14.36.16 cpu=AMD64,AARCH64\n"
                          "                       type=PXE version=3.7.500 cpu=AMD64\n"
                          f"Description:           UID                GuidsNumber\nPSID:                  {card.psid}\n"
                          "Security Attributes:   secure-fw")
        for card in host.cards
    })  # fmt: skip


_MODES = {0: "DEVICE_DEFAULT(0)", 1: "MIGRATION_DISABLED(1)", 2: "MIGRATION_ENABLED(2)"}


def mstconfig(host: Host) -> Answer:
    """`mstconfig -e query VF_MIGRATION_MODE`."""
    said = {}
    for card in host.cards:
        mode = _MODES[card.migration_mode]
        star = "*" if card.migration_mode else " "
        said[card.address] = (0, (
            "\nDevice #1:\n----------\n\nDevice type:        ConnectX7           \n"
            "Name:               MCX755106AS-HEA_Ax  \n"
            "Description:        ConnectX-7 adapter; 200GbE; dual-port QSFP112; PCIe 5.0 x16\n"
            f"Device:             {card.address}        \n\n"
            f"{'Configurations:':<57}Default             Current             Next Boot\n"
            f"{star}       VF_MIGRATION_MODE                           {_MODES[0]:<20}{mode:<20} {mode}\n"
            "The '*' shows parameters with next value different from default/current value."
        ))  # fmt: skip
    return _each_card(said)


def eswitch(host: Host) -> Answer:
    """`devlink -j dev eswitch show`."""
    mode = {"mode": "switchdev", "inline-mode": "none", "encap-mode": "basic"}
    return _each_card({
        card.address: (0, json.dumps({"dev": {f"pci/{card.address}": mode}}, separators=(",", ":")))
        for card in host.cards
    })  # fmt: skip


def devlink_ports(host: Host) -> Answer:
    """`devlink -j port show`."""
    ports: dict[str, Any] = {}
    for card in host.cards:
        physical = {"type": "eth", "netdev": card.netdev, "flavour": "physical", "port": 0, "splittable": False}
        ports[f"pci/{card.address}/65535"] = physical
        for number, name in enumerate(representors(card)):
            function = {"hw_addr": mac(host.name, name), "roce": "enable", "migratable": "enable"}
            ports[f"pci/{card.address}/{number + 1}"] = {
                "type": "eth", "netdev": name, "flavour": "pcivf", "controller": 0, "pfnum": 0, "vfnum": number,
                "external": False, "splittable": False, "function": function,
            }  # fmt: skip
    return _once(host, json.dumps({"port": ports}, separators=(",", ":")))


def mellanox_tools(host: Host) -> Answer:
    """`command -v mstconfig`."""
    return _once(host, "/usr/bin/mstconfig")


def vfio_module(host: Host) -> Answer:
    """The variant driver is loaded."""
    return _once(host, "loaded")


def ovs_installed(host: Host) -> Answer:
    """Whether there is an ovs-vsctl."""
    return Answer("yes\n" if host.open_vswitch else "no\n")


def ovs_database(host: Host) -> Answer:
    """Four tables of Open vSwitch's database."""
    if not host.open_vswitch:
        return Answer("not installed\n")
    names = ["br-vf", *(name for card in host.cards for name in (card.netdev, *representors(card)))]
    interfaces = {name: ["uuid", stable_uuid("ovs-interface", host.name, name)] for name in names}
    ports = {name: ["uuid", stable_uuid("ovs-port", host.name, name)] for name in names}
    settings = ["map", [["hw-offload", "true"], ["max-idle", "300000"]]]
    bridge_ports = [ports[name] for name in names]
    tables = (
        {"data": [[settings]], "headings": ["other_config"]},
        {"data": [["br-vf", ["set", bridge_ports]]], "headings": ["name", "ports"]},
        {"data": [[ports[name], interfaces[name]] for name in names], "headings": ["_uuid", "interfaces"]},
        {"data": [[interfaces[name], name] for name in names], "headings": ["_uuid", "name"]},
    )
    return Answer("".join(f"{json.dumps(table, separators=(',', ':'))}\n" for table in tables))


def vfio(host: Host) -> Answer:
    """Devices that VFIO drivers hold."""
    held = [f"vfio-pci {address}" for address in host.held_devices]
    held += [f"mlx5_vfio_pci {vf_addresses(card)[number]}" for card in host.cards for number in sorted(card.held)]
    return Answer("".join(f"{line}\n" for line in sorted(held)))
