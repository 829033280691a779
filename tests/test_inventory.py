"""Inventories as people write them, and what they are told when they mistype."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.inventory import SIZE_LIMIT, Cluster, Host, Inventory, InventoryError
from audit.policy import Policy

LONG = """\
# how to reach the hosts of both sites
defaults: {user: auditor, jump: bastion.example.com}
clusters:
  prod:
    defaults:
      identity_file: ~/.ssh/audit
    hosts:
      kvm01:
      kvm02:
        address: 192.0.2.2
        port: 2222
        sudo: no
        jump: none
      kvm03: {user: root}
  test:
    - kvm11
    - root@kvm12:22
    - kvm13: {local: true}
    - "[2001:db8::1]:2200"
policy:
  transport: tls
  memory_reserve_kib: 2097152
change:
  ticket: CHG-1234
  window: 2026-11-28 22:00
"""


def test_long_form() -> None:
    inventory = Inventory.parse(LONG, "inventory.yaml")
    prod, test = inventory.clusters
    assert prod == Cluster(
        "prod",
        (
            Host("kvm01", user="auditor", identity_file="~/.ssh/audit", jump="bastion.example.com"),
            Host("kvm02", "192.0.2.2", 2222, "auditor", "~/.ssh/audit", sudo=False, jump="none"),
            Host("kvm03", user="root", identity_file="~/.ssh/audit", jump="bastion.example.com"),
        ),
    )
    assert test.hosts == (
        Host("kvm11", user="auditor", jump="bastion.example.com"),
        Host("kvm12", port=22, user="root", jump="bastion.example.com"),
        Host("kvm13", user="auditor", jump="bastion.example.com", local=True),
        Host("[2001:db8::1]", "2001:db8::1", 2200, "auditor", jump="bastion.example.com"),
    )
    assert inventory.policy == Policy(transport="tls", memory_reserve_kib=2097152)
    assert inventory.change == {"ticket": "CHG-1234", "window": "2026-11-28 22:00"}
    assert Inventory.from_json(inventory.to_json()) == inventory


def test_short_form() -> None:
    assert Inventory.parse("clusters: {prod: [kvm01, kvm02]}", "i") == Inventory(
        (Cluster("prod", (Host("kvm01"), Host("kvm02"))),)
    )


def test_names_that_yaml_takes_for_something_else() -> None:
    inventory = Inventory.parse("clusters: {on: [no, 1e3, 007, 2026-01-01]}\nchange: {window: 22:30}", "i")
    assert [host.name for host in inventory.hosts] == ["no", "1e3", "007", "2026-01-01"]
    assert inventory.clusters[0].name == "on"
    assert inventory.change == {"window": "22:30"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "inventory.yaml: is empty; it needs `clusters`"),
        ("- kvm01", "inventory.yaml:1: must be a mapping, not a list"),
        ("cluster: {a: [b]}", "inventory.yaml:1: cluster: unknown key, did you mean clusters?"),
        ("policy: {}", "inventory.yaml:1: no `clusters` with hosts"),
        ("clusters:\n  prod:\n", "inventory.yaml:2: clusters.prod: has no hosts"),
        ("clusters: [prod]", "inventory.yaml:1: clusters.prod: has no hosts"),
        ("clusters:\n  prod:\n    hosts: []", "inventory.yaml:3: clusters.prod.hosts: names no host"),
        (
            "clusters:\n  prod:\n    hosts:\n      kvm01:\n        prot: 22",
            "inventory.yaml:5: clusters.prod.hosts.kvm01.prot: unknown key, did you mean port?",
        ),
        (
            "clusters:\n  prod:\n    hosts:\n    - kvm01:\n      port: 22",
            "inventory.yaml:4: clusters.prod.hosts: entry 1 must be a name or `name: {keys}`; indent its keys more",
        ),
        (
            "defaults:\n  port: ssh\nclusters: {a: [b]}",
            "inventory.yaml:2: defaults.port: must be a whole number, not 'ssh'",
        ),
        (
            "defaults: {port: 022}\nclusters: {a: [b]}",
            "inventory.yaml:1: defaults.port: must be a whole number, not '022'",
        ),
        (
            "defaults: {port: 70000}\nclusters: {a: [b]}",
            "inventory.yaml:1: defaults.port: must be a port number, 1 to 65535, not 70000",
        ),
        ("defaults: {sudo: maybe}", "inventory.yaml:1: defaults.sudo: must be true or false, not 'maybe'"),
        ("defaults: {user: [root]}", "inventory.yaml:1: defaults.user: must be a user name, not a list"),
        ("defaults: {user: }", "inventory.yaml:1: defaults.user: must be a user name, and is empty"),
        ("defaults: {user: -oX=y}", "inventory.yaml:1: defaults.user: must be a user name, not '-oX=y'"),
        (
            "defaults: {address: a b}",
            "inventory.yaml:1: defaults.address: must be a host name or an IP address, not 'a b'",
        ),
        ("defaults: {password: x}", "inventory.yaml:1: defaults.password: unknown key, known are address, port, user,"),
        ('defaults: {identity_file: "a\\nb"}', "inventory.yaml:1: defaults.identity_file: must be one line without"),
        ("clusters: {a: [b]}\nclusters: {a: [c]}", "inventory.yaml:2: clusters: stands twice, first in line 1"),
        ("clusters:\n- a: [b]\n- a: [c]", "inventory.yaml:3: clusters.a: this cluster stands twice"),
        ("clusters:\n  a: [b]\n  c:\n  - B", "inventory.yaml:4: clusters.c.B: host B stands twice, first in line 2"),
        ("clusters: {a: [../etc]}", "inventory.yaml:1: clusters.a.../etc: not a host name: '../etc'"),
        ("clusters: {a: [-oProxyCommand=x]}", "inventory.yaml:1: clusters.a.-oProxyCommand=x: not a host name"),
        ("clusters: {a/b: [c]}", "inventory.yaml:1: clusters.a/b: not a cluster name"),
        (
            "clusters: {a: [b]}\npolicy: {transport: tsl}",
            "inventory.yaml:2: policy.transport: must be one of ssh, tls, tcp",
        ),
        (
            "clusters: {a: [b]}\npolicy: {validity_days: -1}",
            "inventory.yaml:2: policy.validity_days: must be a whole number",
        ),
        (
            "clusters: {a: [b]}\npolicy: {migration_network: eth1}",
            "inventory.yaml:2: policy.migration_network: must be a network, as 10.0.1.0/24",
        ),
        ("clusters: {a: [b]}\npolicy: {validity: 1}", "policy.validity: unknown key, did you mean validity_days?"),
        (
            "clusters: {a: [b]}\nchange: {tickets: 1}",
            "inventory.yaml:2: change.tickets: unknown key, did you mean ticket?",
        ),
        ("clusters: &c {a: [b]}\nchange: *c", "inventory.yaml:2: *c: YAML aliases are not supported, use `defaults`"),
        ("clusters: !vault x", "inventory.yaml:1: !vault: YAML tags are not supported"),
        ("clusters: !!python/object:os.system {}", "inventory.yaml:1: clusters: "),
        ("clusters: {a: [b]}\n---\na: b", "inventory.yaml:2: not YAML: but found another document"),
        ("clusters:\n  a: b: c", "inventory.yaml:2: not YAML: mapping values are not allowed in this context"),
        ("clusters: {[a]: b}", "inventory.yaml:1: clusters: must be a mapping with plain keys, not a list"),
        ("[" * 500, "inventory.yaml:1: nested too deeply"),
        ("[" * 5000, "inventory.yaml:1: n"),  # a libyaml with a limit of its own says it in its words: not YAML
        ("a: \x00", "inventory.yaml: not YAML: "),
        (b"clusters: {a: [\xff]}", "inventory.yaml: not YAML: "),
        (b"#" * (SIZE_LIMIT + 1), "inventory.yaml: larger than 8 MiB"),
    ],
)
def test_mistakes_are_one_line_with_file_line_and_key(text: str | bytes, message: str) -> None:
    with pytest.raises(InventoryError) as error:
        Inventory.parse(text, "inventory.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(st.one_of(st.text(), st.binary(), st.text("abc:{}[]-\n &*!\"'#,|>").map(lambda text: f"clusters:{text}")))
def test_no_text_does_anything_else_than_be_an_inventory_or_be_refused(text: str | bytes) -> None:
    try:
        inventory = Inventory.parse(text, "i")
    except InventoryError:
        return
    assert Inventory.from_json(inventory.to_json()) == inventory


PRINTABLE = st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1, max_size=20)


@given(PRINTABLE, st.integers(1, 65535), st.booleans(), PRINTABLE)
def test_json_round_trip(identity: str, port: int, sudo: bool, ticket: str) -> None:
    hosts = (Host("b", port=port, identity_file=identity, sudo=sudo), Host("a", local=True))
    inventory = Inventory((Cluster("z", hosts), Cluster("y", (Host("c"),))), Policy(), {"ticket": ticket})
    assert Inventory.from_json(inventory.to_json()) == inventory


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "inventory.yaml"
    with pytest.raises(InventoryError, match=r"inventory\.yaml: No such file or directory"):
        Inventory.read(file)
    file.write_text(LONG)
    assert len(Inventory.read(file).hosts) == 7
    with pytest.raises(InventoryError, match="Is a directory"):
        Inventory.read(tmp_path)


def test_command_line() -> None:
    inventory = Inventory.of_hosts(["kvm01", "root@kvm02:2222", "::1", "[fe80::1%eth0]:22", "u@realm@kvm03"])
    assert inventory.clusters[0].name == "default"
    assert inventory.hosts == (
        Host("kvm01"),
        Host("kvm02", port=2222, user="root"),
        Host("[::1]", "::1"),
        Host("[fe80::1%eth0]", "fe80::1%eth0", 22),
        Host("kvm03", user="u@realm"),
    )
    assert Inventory.from_json(inventory.to_json()) == inventory


@pytest.mark.parametrize(
    "names",
    [["a", "A"], ["a b"], ["u@"], ["a:99999"], ["-x"], ["a/b"], [""], ["[a"], ["a:b:c"], ["[kvm01]:22"], ["a%b"]],
)
def test_command_line_mistakes(names: list[str]) -> None:
    with pytest.raises(InventoryError, match=r"^command line: "):
        Inventory.of_hosts(names)


def test_this_machine() -> None:
    [host] = Inventory.this_machine().hosts
    assert host.local
    assert Inventory.from_json(Inventory.this_machine().to_json()) == Inventory.this_machine()


def test_only_some_hosts() -> None:
    inventory = Inventory.parse(LONG, "i").only(["kvm12", "kvm11"])
    assert [cluster.name for cluster in inventory.clusters] == ["test"]
    assert [host.name for host in inventory.hosts] == ["kvm11", "kvm12"]
    with pytest.raises(InventoryError, match="no host kvm1 in the inventory, did you mean kvm1"):
        inventory.only(["kvm1"])
