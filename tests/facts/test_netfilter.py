"""The packet filter, evaluated: nft's JSON and iptables-save."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.facts.iptables import from_iptables
from audit.facts.netfilter import Packet, Table, judge, ports_that_matter
from audit.facts.nftables import from_nft

META = {"metainfo": {"version": "1.0.9", "json_schema_version": 1}}
ACCEPT = {"accept": None}
DROP = {"drop": None}
REJECT = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


def dport(right, op="=="):
    return {"match": {"op": op, "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": right}}


def sport(right):
    return {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "sport"}}, "right": right}}


def saddr(right, op="==", protocol="ip"):
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": "saddr"}}, "right": right}}


def iif(right):
    return {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": right}}


def state(right, op="in"):
    return {"match": {"op": op, "left": {"ct": {"key": "state"}}, "right": right}}


def net(addr, length):
    return {"prefix": {"addr": addr, "len": length}}


def ruleset(*rules, policy="drop", extra=(), chains=(), family="inet"):
    """A table with an input chain of these rules; `chains` are pairs of name and rules, `extra` sets and maps."""
    objects = [META, {"table": {"family": family, "name": "t", "handle": 1}}]
    objects += [{kind: {"family": family, "table": "t", **body}} for kind, body in extra]
    for name, _ in chains:
        objects.append({"chain": {"family": family, "table": "t", "name": name}})
    base = {"name": "in", "type": "filter", "hook": "input", "prio": 0, "policy": policy}
    objects.append({"chain": {"family": family, "table": "t", **base}})
    for name, body in (*chains, ("in", rules)):
        for expr in body:
            objects.append({"rule": {"family": family, "table": "t", "chain": name, "expr": list(expr)}})
    return from_nft({"nftables": objects})


def v4(port, **known):
    return Packet(4, port, **known)


def answer(tables, packet):
    return judge(tables, packet).state


def test_no_rules_is_open():
    assert judge(from_nft({"nftables": [META]}), v4(49152)).state == "open"


@pytest.mark.parametrize(("policy", "expected"), [("drop", "closed"), ("accept", "open")])
def test_policy_decides_in_the_end(policy, expected):
    assert answer(ruleset((dport(22), ACCEPT), policy=policy), v4(16514)) == expected


@pytest.mark.parametrize(
    "right", [49152, {"range": [49152, 49215]}, {"set": [22, {"range": [49000, 49999]}]}, {"set": [16509, 49152]}]
)
def test_port_forms(right):
    tables = ruleset((dport(right), ACCEPT))
    assert answer(tables, v4(49152)) == "open"
    assert answer(tables, v4(48000)) == "closed"


def test_port_negated_and_ordered():
    assert answer(ruleset((dport(22, "!="), DROP), policy="accept"), v4(22)) == "open"
    assert answer(ruleset((dport(22, "!="), DROP), policy="accept"), v4(23)) == "closed"
    assert answer(ruleset((dport(1024, ">="), ACCEPT)), v4(49152)) == "open"
    assert answer(ruleset((dport(1024, "<"), ACCEPT)), v4(49152)) == "closed"


def test_named_set_and_elements_with_comments():
    ports = {"name": "ports", "type": "inet_service", "elem": [{"elem": {"val": 22, "comment": "ssh"}}, 16514]}
    tables = ruleset((dport("@ports"), ACCEPT), extra=[("set", ports)])
    assert [answer(tables, v4(p)) for p in (22, 16514, 16509)] == ["open", "open", "closed"]


def test_a_set_that_changes_by_itself_is_not_known():
    banned = {"name": "banned", "type": "ipv4_addr", "flags": ["dynamic", "timeout"], "elem": []}
    tables = ruleset((saddr("@banned"), DROP), extra=[("set", banned)], policy="accept")
    assert answer(tables, v4(22, source="192.0.2.1")) == "unknown"


def test_source_is_needed_where_a_rule_asks_for_it():
    tables = ruleset((saddr(net("192.0.2.0", 24)), dport({"range": [49152, 49215]}), ACCEPT))
    assert answer(tables, v4(49152)) == "unknown"
    assert answer(tables, v4(49152, source="192.0.2.7")) == "open"
    assert answer(tables, v4(49152, source="198.51.100.7")) == "closed"
    assert answer(tables, v4(22)) == "closed"  # whoever asks


def test_ip_header_match_says_nothing_about_ipv6():
    tables = ruleset((saddr(net("192.0.2.0", 24), "!="), DROP), policy="accept")
    assert answer(tables, Packet(6, 22, source="2001:db8::1")) == "open"
    assert answer(tables, v4(22, source="198.51.100.1")) == "closed"


def test_interface():
    tables = ruleset((iif("eth0"), ACCEPT))
    assert answer(tables, v4(22)) == "unknown"
    assert answer(tables, v4(22, interface="eth0")) == "open"
    assert answer(tables, v4(22, interface="eth1")) == "closed"
    assert answer(ruleset((iif("eth*"), ACCEPT)), v4(22, interface="eth1")) == "open"
    assert answer(ruleset((iif("lo"), ACCEPT)), v4(22)) == "closed"  # peers do not come in by lo


def oif(right):
    return {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": right}}


def test_what_leaves_meets_the_rules_for_that():
    base = {"name": "out", "type": "filter", "hook": "output", "prio": 0, "policy": "drop"}
    table = {"family": "inet", "table": "t"}

    def out(*expr):
        rule = {"rule": {**table, "chain": "out", "expr": [*expr, ACCEPT]}}
        chain = {"chain": {**table, **base}}
        return from_nft({"nftables": [META, {"table": {"family": "inet", "name": "t"}}, chain, rule]})

    leaving = v4(22, interface="eth0", leaving=True)
    assert answer(out(oif("eth0")), leaving) == "open"
    assert answer(out(oif("eth1")), leaving) == "closed"
    assert answer(out(oif("eth0")), v4(22, leaving=True)) == "unknown"
    assert answer(out(iif("eth0")), leaving) == "closed", "it came in by none"
    assert answer(out(dport(22)), leaving) == "open"
    assert answer(out(dport(23)), v4(22)) == "open", "what comes in does not pass here"
    to_here = {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}}
    assert answer(out(to_here), leaving) == "closed"
    assert answer(ruleset((to_here, ACCEPT)), v4(22)) == "open"
    assert answer(ruleset((dport(22), ACCEPT)), leaving) == "open"


def test_connection_state():
    assert answer(ruleset((state(["established", "related"]), ACCEPT)), v4(22)) == "closed"
    assert answer(ruleset((state({"set": ["new", "untracked"]}, "=="), dport(22), ACCEPT)), v4(22)) == "open"
    assert answer(ruleset((state("invalid"), DROP), policy="accept"), v4(22)) == "open"
    assert answer(ruleset((state(["strange"]), DROP), policy="accept"), v4(22)) == "unknown"


def test_other_protocols_do_not_concern_tcp():
    udp = {"match": {"op": "!=", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 53}}
    icmp = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": {"set": ["icmp", "ipv6-icmp"]}}}
    assert answer(ruleset((udp, DROP), (icmp, DROP), policy="accept"), v4(22)) == "open"


def test_jump_goto_return():
    chains = [("ssh", [(dport(22), ACCEPT), (dport(23), {"return": None}), (dport(24), DROP)])]
    jump, goto = {"jump": {"target": "ssh"}}, {"goto": {"target": "ssh"}}
    tables = ruleset((jump,), (dport(23), ACCEPT), (dport(24), ACCEPT), chains=chains)
    assert [answer(tables, v4(p)) for p in (22, 23, 24, 25)] == ["open", "open", "closed", "closed"]
    tables = ruleset((goto,), (dport(23), ACCEPT), chains=chains)
    assert answer(tables, v4(23)) == "closed"  # goto does not come back


def test_where_jumps_in_a_circle_lead_is_unknown():
    circle = ruleset(({"jump": {"target": "a"}},), chains=[("a", [({"jump": {"target": "a"}},)])])
    assert answer(circle, v4(1)) == "unknown"
    nowhere = ruleset(({"jump": {"target": "gone"}},))
    assert answer(nowhere, v4(1)) == "unknown"
    refused_first = ruleset((DROP,), ({"jump": {"target": "a"}},), chains=[("a", [({"jump": {"target": "a"}},)])])
    assert answer(refused_first, v4(1)) == "closed"


def test_a_rule_of_more_statements_than_the_kernel_takes_is_refused():
    with pytest.raises(ValueError, match="129 statements"):
        ruleset((dport(22),) * 129)


def test_a_rule_of_absurd_length_is_refused():
    with pytest.raises(ValueError, match="characters"):
        from_iptables(f"*filter\n:INPUT DROP [0:0]\n-A INPUT -m comment --comment {'x' * 20_000}\nCOMMIT\n", 4)


def test_many_jumps_to_the_same_chains_stay_quick():
    chains = [(f"c{n}", [({"jump": {"target": f"c{n + 1}"}},)] * 2) for n in range(50)] + [("c50", [])]
    assert answer(ruleset(({"jump": {"target": "c0"}},), chains=chains), v4(1)) == "closed"


def test_verdict_map_inline_and_named():
    key = {"payload": {"protocol": "tcp", "field": "dport"}}
    inline = {
        "vmap": {"key": key, "data": {"set": [[22, ACCEPT], [{"range": [49152, 49215]}, {"jump": {"target": "m"}}]]}}
    }
    tables = ruleset((inline,), chains=[("m", [(ACCEPT,)])])
    assert [answer(tables, v4(p)) for p in (22, 49200, 80)] == ["open", "open", "closed"]
    named = {"name": "m", "type": "inet_service", "map": "verdict", "elem": [[22, ACCEPT], ["*", DROP]]}
    tables = ruleset(({"vmap": {"key": key, "data": "@m"}},), extra=[("map", named)], policy="accept")
    assert [answer(tables, v4(p)) for p in (22, 80)] == ["open", "closed"]


def test_concatenation():
    left = {
        "concat": [
            {"payload": {"protocol": "ip", "field": "saddr"}},
            {"payload": {"protocol": "tcp", "field": "dport"}},
        ]
    }
    right = {"set": [{"concat": ["192.0.2.1", 22]}, {"concat": [net("198.51.100.0", 24), {"range": [49152, 49215]}]}]}
    tables = ruleset(({"match": {"op": "==", "left": left, "right": right}}, ACCEPT))
    assert answer(tables, v4(22, source="192.0.2.1")) == "open"
    assert answer(tables, v4(49153, source="198.51.100.9")) == "open"
    assert answer(tables, v4(22, source="198.51.100.9")) == "closed"
    assert answer(tables, v4(22)) == "unknown"
    assert answer(tables, v4(23)) == "closed"


def test_what_is_not_understood_is_never_an_answer():
    mark = {"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 7}}
    tables = ruleset((mark, DROP), policy="accept")
    assert answer(tables, v4(22)) == "unknown"
    assert "mark" in "".join(judge(tables, v4(22)).rules)
    assert answer(ruleset((mark, DROP), policy="drop"), v4(22)) == "closed"  # either way
    assert answer(ruleset((dport(22), {"queue": {"num": 0}}), policy="accept"), v4(22)) == "unknown"
    assert answer(ruleset((dport(22), {"queue": {"num": 0}}), policy="accept"), v4(23)) == "open"
    assert answer(ruleset(({"something new": 1},), policy="accept"), v4(23)) == "unknown"


def flags(op, right, mask=("fin", "syn", "rst", "ack")):
    left = {"payload": {"protocol": "tcp", "field": "flags"}}
    return {"match": {"op": op, "left": {"&": [left, list(mask)]} if mask else left, "right": right}}


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (flags("==", "syn"), "closed"),
        (flags("!=", "syn"), "open"),
        (flags("==", ["fin", "syn"], ("fin", "syn")), "open"),
        (flags("==", {"|": ["fin", "syn"]}, ("fin", "syn")), "open"),
        (flags("==", 0), "open"),
        (flags("!", ["fin", "syn", "rst"], ()), "open"),
        (flags("in", "syn", ()), "closed"),
        (flags("!=", "syn", ()), "unknown"),
        (flags("==", "ecn", ("ecn",)), "unknown"),
        (
            {
                "match": {
                    "op": "==",
                    "left": {"payload": {"protocol": "tcp", "field": "sport"}},
                    "right": {"range": [1, 1023]},
                }
            },
            "open",
        ),
        (
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "sport"}}, "right": 40000}},
            "unknown",
        ),
        ({"match": {"op": "!=", "left": {"meta": {"key": "pkttype"}}, "right": "host"}}, "open"),
    ],
)
def test_dropped_for_flags_and_the_like(test, expected):
    assert answer(ruleset((test, DROP), policy="accept"), v4(22)) == expected


def test_rate_limits_are_not_reached():
    limit = {"limit": {"rate": 10, "per": "second"}}
    over = {"limit": {"rate": 10, "per": "second", "inv": True}}
    assert answer(ruleset((limit, ACCEPT)), v4(22)) == "open"
    assert answer(ruleset((over, DROP), policy="accept"), v4(22)) == "open"


def test_every_base_chain_must_accept():
    accepts, drops = ruleset((ACCEPT,)), ruleset((dport(49152), DROP), policy="accept")
    assert answer((*accepts, *drops), v4(49152)) == "closed"
    assert answer((*accepts, *drops), v4(22)) == "open"


def test_reverse_path_filter_lets_plausible_packets_pass():
    fib = {"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "right": False}}
    assert answer(ruleset((fib, DROP), policy="accept"), v4(22)) == "open"


def test_as_firewalld_writes_it():
    zone = "filter_IN_public"
    chains = [
        (f"{zone}_allow", [(dport(22), ACCEPT), (dport({"range": [49152, 49215]}), ACCEPT)]),
        (zone, [({"jump": {"target": f"{zone}_allow"}},), (REJECT,)]),
        ("zones", [(iif("eno1"), {"goto": {"target": zone}}), ({"goto": {"target": zone}},)]),
    ]
    tables = ruleset(
        (state({"set": ["established", "related"]}, "=="), ACCEPT),
        ({"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, ACCEPT),
        (iif("lo"), ACCEPT),
        ({"jump": {"target": "zones"}},),
        (state(["invalid"]), DROP),
        (REJECT,),
        chains=chains,
        policy="accept",
    )
    assert [answer(tables, v4(p)) for p in (22, 16514, 49152, 49216)] == ["open", "closed", "open", "closed"]


IPTABLES = """\
# Generated by iptables-save v1.8.9 (nf_tables)
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:own - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --rsource -j DROP
-A INPUT -p tcp -m multiport --dports 22,16514,5900:5999 -m comment --comment "-j DROP" -j ACCEPT
-A INPUT ! -s 192.0.2.0/24 -p tcp -m tcp --dport 49152:49215 -j DROP
-A INPUT -p tcp -m tcp --dport 49152:49215 --tcp-flags FIN,SYN,RST,ACK SYN -j own
-A INPUT -m addrtype --dst-type BROADCAST -j ACCEPT
-A INPUT -p udp -m udp ! --dport 53 -j ACCEPT
-A own -m limit --limit 5/min -j LOG --log-prefix "own -j "
-A own -j ACCEPT
COMMIT
"""


def test_iptables():
    tables = from_iptables(IPTABLES, 4)
    assert [answer(tables, v4(p)) for p in (22, 16514, 16509, 5950)] == ["open", "open", "closed", "open"]
    assert answer(tables, v4(49152)) == "unknown"
    assert answer(tables, v4(49152, source="192.0.2.9")) == "open"
    assert answer(tables, v4(49152, source="198.51.100.9")) == "closed"
    assert answer(tables, Packet(6, 16509)) == "open"  # these are the rules of IPv4


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-m set --match-set friends src -j ACCEPT", "unknown"),
        ("-m mark --mark 0x1 -j DROP", "closed"),
        ("-p tcp --dport 22 -j NFQUEUE --queue-num 0", "unknown"),
        ("-m rpfilter --invert -j DROP", "closed"),
        ("-p tcp ! --syn -m state --state NEW -j ACCEPT", "closed"),
        ("-p tcp --syn -j ACCEPT", "open"),
        ("-m pkttype --pkt-type multicast -j ACCEPT", "closed"),
        ("-m conntrack --ctdir REPLY -j ACCEPT", "closed"),
        ("-m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT", "unknown"),
        ("-j CT --notrack", "unknown"),
        ("-j CT --helper ftp", "closed"),
        ("-g nowhere", "unknown"),
        ("-p all -j ACCEPT", "open"),
        ("-f -j ACCEPT", "closed"),
        ("! -f -j ACCEPT", "open"),
    ],
)
def test_iptables_options(rule, expected):
    tables = from_iptables(f"*filter\n:INPUT DROP [0:0]\n-A INPUT {rule}\nCOMMIT\n", 4)
    assert answer(tables, v4(22)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "*filter\n:INPUT DROP [0:0]\n",
        "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n",
        "*filter\n:INPUT X [0:0]\nCOMMIT",
    ],
)
def test_iptables_refuses_other_text(text):
    with pytest.raises((ValueError, LookupError)):
        from_iptables(text, 4)


@pytest.mark.parametrize("value", [None, [], {}, {"nftables": 1}, {"nftables": []}, {"nftables": [{"chain": {}}]}])
def test_nft_refuses_other_values(value):
    with pytest.raises((ValueError, LookupError)):
        from_nft(value)


def test_ports_are_cut_where_rules_distinguish_them():
    tables = from_iptables(IPTABLES, 4)
    assert list(ports_that_matter(tables, range(49150, 49220))) == [
        range(49150, 49152),
        range(49152, 49216),
        range(49216, 49220),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["match", "in", "t", "input", "drop", "@x", "tcp"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "table",
                        "chain",
                        "rule",
                        "set",
                        "family",
                        "name",
                        "expr",
                        "hook",
                        "policy",
                        "match",
                        "left",
                        "right",
                    ),
                    *(
                        "op",
                        "payload",
                        "protocol",
                        "field",
                        "vmap",
                        "key",
                        "data",
                        "elem",
                        "metainfo",
                        "concat",
                        "jump",
                    ),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=3), st.lists(JSON, max_size=3))
def test_any_json(objects, expr):
    rule = {"rule": {"family": "inet", "table": "t", "chain": "in", "expr": expr}}
    chain = {"chain": {"family": "inet", "table": "t", "name": "in", "hook": "input", "policy": "drop"}}
    table = {"table": {"family": "inet", "name": "t"}}
    for listing in ([META, *objects], [META, table, chain, rule]):
        with contextlib.suppress(ValueError, LookupError):
            judge(from_nft({"nftables": listing}), v4(22))


WORDS = st.sampled_from(
    ["-A", "INPUT", "-j", "DROP", "!", "-p", "tcp", "--dport", "1:2", "-s", "'", "--tcp-flags", "x"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=8).map(" ".join) | st.text(max_size=20), max_size=4))
def test_any_iptables_text(lines):
    with contextlib.suppress(ValueError, LookupError):
        judge(from_iptables("\n".join(["*filter", ":INPUT DROP [0:0]", *lines, "COMMIT"]), 4), v4(22))


def _sample(samples: Callable[[str], list[Path]], name: str) -> tuple[Table, ...]:
    [path] = [p for p in samples("nft-json") if p.name == f"nft-json__{name}.txt"]
    return from_nft(json.loads(path.read_text()))


@pytest.mark.corpus
def test_real_nft(samples):
    ports = (22, 16509, 16514, 49152, 49216)
    assert [answer(_sample(samples, "debian12-lab__1"), v4(p)) for p in ports] == ["open"] * 5
    firewalld = _sample(samples, "debian12-lab__2")
    assert [answer(firewalld, v4(p)) for p in ports] == ["open", "unknown", "open", "open", "closed"]
    assert answer(firewalld, v4(16509, source="192.0.2.5")) == "open"
    assert answer(firewalld, v4(16509, source="203.0.113.5")) == "closed"
    assert [table.opaque for table in _sample(samples, "debian12-lab__3")] == [True]
    mapped = _sample(samples, "insights__1")
    assert answer(mapped, v4(22)) == "unknown"
    assert answer(mapped, v4(22, source="192.0.2.2")) == "closed"
    assert answer(mapped, v4(22, source="192.0.2.1")) == "open"
    rejecting = _sample(samples, "insights__2")
    assert [answer(rejecting, v4(p, source="10.0.0.1")) for p in (22, 443, 16514)] == ["open", "open", "closed"]
    assert answer(_sample(samples, "insights__3"), v4(49152, source="10.0.0.1")) == "open"


@pytest.mark.corpus
def test_real_iptables(samples):
    by_name = {path.name: path.read_text() for path in samples("iptables-save")}
    lab = from_iptables(by_name["iptables-save__debian12-lab__3.txt"], 4)
    assert [answer(lab, v4(p, source="192.0.2.1")) for p in (22, 16514, 16509, 49152)] == [
        "open",
        "open",
        "closed",
        "open",
    ]
    old = from_iptables(by_name["iptables-save__insights__1.txt"], 4)
    assert answer(old, v4(22)) == "open"
    assert answer(old, v4(49152)) == "unknown"
    assert answer(old, v4(49152, source="192.168.0.5")) == "open"
    assert answer(old, v4(49152, source="10.0.0.5")) == "closed"
    with pytest.raises(ValueError, match="not a"):
        from_iptables(by_name["iptables-save__insights__3.txt"], 6)
