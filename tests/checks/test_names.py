"""Will the source find the target by name?"""

import pytest

from audit.check import ANOTHER_ADDRESS, TUNNELLED, At, Blocks, NotApplicable, Policy, Unavailable
from audit.facts.names import OwnAddresses, OwnNames, PeerAddresses, Route
from audit.facts.network import Address
from audit.facts.qemu_conf import ConfInForce, QemuConf
from audit.facts.reach import Peer
from checks import names
from tests.asked import found

FRESH = ConfInForce(False)
TARGET = OwnAddresses((Address("eth0", "192.0.2.12", 24),))


def own(name="kvm02"):
    return OwnNames(name, name, None, None)


def resolvable(*routes, name="kvm02", conf=None, asked="kvm02"):
    peers = PeerAddresses(((asked, tuple(routes)),))
    return list(names.target_resolvable.function(own(name), conf or QemuConf(), FRESH, TARGET, peers, Policy()))


def test_found():
    assert resolvable(Route("192.0.2.12", "eth0", "192.0.2.11")) == []


@pytest.mark.parametrize(
    ("routes", "actual"),
    [
        ((), "does not"),
        ((Route("127.0.1.1", "lo", "127.0.0.1"),), "back to the source"),
        ((Route("192.0.2.11", "lo", "192.0.2.11"),), "back to the source"),
        ((Route("192.0.2.99", "eth0", "192.0.2.11"),), "192.0.2.99"),
    ],
)
def test_not_found(routes, actual):
    [finding] = resolvable(*routes)
    assert actual in finding.actual
    assert finding.remedy == "virsh migrate --migrateuri tcp://192.0.2.12 …"
    assert names.target_resolvable.blocks is Blocks.MIGRATION
    assert finding.lifted_by == (ANOTHER_ADDRESS, TUNNELLED)
    assert finding.about == "--migrateuri tcp://192.0.2.12"


def test_localhost_is_refused_by_libvirt():
    for name in ("localhost", "localhost.localdomain"):
        assert "FQDN" in resolvable(name=name)[0].because


def test_migration_host_goes_before_the_own_name():
    conf = QemuConf(migration_host="mig02")
    assert resolvable(Route("192.0.2.12", "eth0", None), name="localhost", conf=conf, asked="mig02") == []
    assert len(resolvable(conf=conf, asked="mig02")) == 1


def test_a_name_that_was_not_asked_is_unknown():
    with pytest.raises(Unavailable):
        resolvable(asked="other")


def test_migration_address():
    two = OwnAddresses((*TARGET.addresses, Address("eth1", "10.0.0.12", 24), Address("eth0", "2001:db8::12", 64)))

    def run(names_, conf, peers, policy=Policy()):  # noqa: B008  # a frozen value
        return names.migration_address_reached.function(names_, conf, FRESH, two, peers, policy)

    peers = PeerAddresses((("kvm02", (Route("192.0.2.12", "eth0", None),)),))
    assert list(run(own(), QemuConf(migration_address="192.0.2.12"), peers)) == []
    [finding] = run(own(), QemuConf(migration_address="10.0.0.12"), peers)
    assert finding.remedy == "virsh migrate --migrateuri tcp://10.0.0.12 …"
    for everywhere in (None, "0.0.0.0", "::"):
        with pytest.raises(NotApplicable):
            list(run(own(), QemuConf(migration_address=everywhere), peers))
    with pytest.raises(Unavailable, match="not asked"):
        list(run(own("kvm03"), QemuConf(migration_address="10.0.0.12"), peers))
    six = PeerAddresses((("kvm02", (Route("2001:db8::12", "eth0", None),)),))
    assert list(run(own(), QemuConf(migration_address="2001:0db8:0::12"), six)) == [], "one address, written otherwise"
    with pytest.raises(Unavailable):
        list(run(own(), QemuConf(migration_address="kvm02-mig"), peers))


TCP = Policy(transport="tcp")
PEER = Peer("kvm02", False)


def known(*routes, policy=TCP, others=()):
    peers = PeerAddresses((("kvm02", tuple(routes)), *others))
    names_ = OwnNames("kvm02", "kvm02.example.com", None, None)
    return found(names.target_known, PEER, names_, TARGET, peers, policy)


def test_the_name_in_the_uri():
    there = Route("192.0.2.12", "eth0", None)
    assert known(there) == []
    [finding] = known()
    assert (finding.actual, finding.lifted_by) == ("it does not", ())
    [finding] = known(others=[("kvm02.example.com", (there,))])
    assert (finding.lifted_by, finding.about) == ((ANOTHER_ADDRESS,), "qemu+tcp://kvm02.example.com/system")
    for policy in (Policy(), Policy(transport="tcp", started_on="here")):
        with pytest.raises(NotApplicable):
            known(policy=policy)
    with pytest.raises(Unavailable):
        found(names.target_known, Peer("kvm03", False), own(), TARGET, PeerAddresses(()), TCP)


def test_addresses_that_the_target_has():
    def listens(conf=None, policy=None):
        return found(names.listens_where_it_can, conf or QemuConf(), FRESH, TARGET, policy or Policy())

    assert (
        listens()
        == listens(QemuConf(migration_address="192.0.2.12"))
        == listens(QemuConf(migration_address="::"))
        == []
    )
    [finding] = listens(QemuConf(migration_address="10.0.0.12"))
    assert finding.because.endswith("Cannot assign requested address")
    assert listens(policy=Policy(migration_network="192.0.2.0/24")) == []
    assert len(listens(policy=Policy(migration_network="10.0.0.0/24"))) == 1
    with pytest.raises(Unavailable):
        listens(QemuConf(migration_address="kvm02-mig"))
    with pytest.raises(NotApplicable):
        listens(policy=Policy(tunnelled=True))


def test_guests_that_are_sent_to_an_address_need_no_name():
    with pytest.raises(NotApplicable, match="migration_network"):
        found(
            names.target_resolvable,
            own(),
            QemuConf(),
            FRESH,
            TARGET,
            PeerAddresses(()),
            Policy(migration_network="192.0.2.0/24"),
        )
    run = names.migration_address_reached
    two = OwnAddresses((*TARGET.addresses, Address("eth1", "10.0.0.12", 24)))
    conf, none = QemuConf(migration_address="10.0.0.12"), PeerAddresses(())
    assert found(run, own(), conf, FRESH, two, none, Policy(migration_network="10.0.0.0/24")) == []
    assert len(found(run, own(), conf, FRESH, two, none, Policy(migration_network="192.0.2.0/24"))) == 1


def test_unique():
    run = names.unique.function
    assert list(run((At("a", own("kvm01")), At("b", own("kvm02"))))) == []
    [finding] = run((At("a", own("kvm01")), At("b", own("kvm01")), At("c", own("kvm02"))))
    assert finding.hosts == {"a", "b"}
