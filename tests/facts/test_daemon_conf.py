"""How libvirt's daemon knows who asks it over the network."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.daemon_conf import DAEMON_CONF, DaemonConf


def conf(text, status=0):
    evidence = Evidence(DAEMON_CONF.name, status=status, stdout=text.encode())
    return DaemonConf.parse(Said(HostEvidence("kvm1", {DAEMON_CONF.name: evidence})))


def test_defaults():
    bare = conf("end\n")
    assert bare.authentication("tcp", modular=False) == "sasl"
    assert bare.authentication("tls", modular=True) == "none"
    assert bare.asks_for_certificate(modular=True)
    assert bare.has_accounts, "what no file says may be"


def test_each_daemon_has_its_own():
    both = conf('file virtproxyd\nauth_tcp="none" # so\nfile libvirtd\ntls_no_verify_certificate=1\nend\n')
    assert both.authentication("tcp", modular=True) == "none"
    assert both.authentication("tcp", modular=False) == "sasl"
    assert not both.asks_for_certificate(modular=False)


@pytest.mark.parametrize(
    ("lines", "has"),
    [
        ("sasl mech_list=gssapi", False),
        ("sasl mech_list=gssapi\nsasl keytab=/etc/libvirt/krb5.tab\nthere keytab", True),
        ("sasl mech_list=scram-sha-256\nthere keytab", False),
        ("sasl mech_list=SCRAM-SHA-256 gssapi\nthere sasldb_path", True),
        ("sasl mech_list=something-new", True),
    ],
)
def test_accounts(lines, has):
    assert conf(f"{lines}\nend\n").has_accounts is has


def test_not_understood():
    for text, status in (("", 0), ("file libvirtd\n", 0), ("end\n", 1)):
        with pytest.raises(Unavailable):
            conf(text, status)
    with pytest.raises(ValueError, match="not a setting"):
        conf("nonsense\nend\n")


@given(st.text())
def test_any_text(text):
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        conf(text)
