import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.cpu import CAPABILITIES
from audit.facts.identity import HostIdentity


def caps(uuid):
    return f"<capabilities><host><uuid>{uuid}</uuid></host></capabilities>"


def test_uuid_in_lower_case(said):
    identity = HostIdentity.parse(said({CAPABILITIES.name: caps("6F2B1D54-90C4-4B0E-9D5C-3D9F0D7AB001")}))
    assert identity.uuid == "6f2b1d54-90c4-4b0e-9d5c-3d9f0d7ab001"
    assert not identity.from_factory


@pytest.mark.parametrize(
    "uuid",
    [
        "03000200-0400-0500-0006-000700080009",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "00000000-0000-0000-0000-000000000000",
    ],
)
def test_placeholders(uuid):
    assert HostIdentity(uuid).from_factory


@pytest.mark.parametrize("text", ["<capabilities/>", caps(""), caps("not a uuid"), "", (1, "no daemon")])
def test_no_uuid_is_no_fact(said, text):
    with pytest.raises(Unavailable):
        HostIdentity.parse(said({CAPABILITIES.name: text}))


@given(st.text(max_size=100))
def test_no_parser_raises_anything_else(text):
    evidence = Evidence(CAPABILITIES.name, 0, caps(text).encode("utf-8", "surrogatepass"))
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        HostIdentity.parse(Said(HostEvidence("h", {CAPABILITIES.name: evidence})))


@pytest.mark.corpus
def test_real_capabilities(samples, said):
    found, refused = {}, 0
    for path in samples("virsh-capabilities"):
        try:
            found[path.name] = HostIdentity.parse(said({CAPABILITIES.name: path.read_bytes()})).uuid
        except Unavailable:
            refused += 1
    assert (len(found), refused) == (11, 5), "a test driver, a bare <cpu> and libvirt's unit tests have none"
    assert found["virsh-capabilities__debian12-local__1.txt"] == "730d90f2-d772-41f4-90e9-4b4ce8ca85e1"
