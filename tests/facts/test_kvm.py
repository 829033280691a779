import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.kvm import KVM, Kvm

INTEL = """device /dev/kvm
device /dev/vhost-net
device /dev/net/tun
nested Y
end
"""


def test_a_host_that_has_everything(said):
    assert Kvm.parse(said({KVM.name: INTEL})) == Kvm(device=True, vhost_net=True, tun=True, nested=True)


def test_a_host_that_has_nothing(said):
    kvm = Kvm.parse(said({KVM.name: "end\n"}))
    assert (kvm.device, kvm.tun, kvm.nested) == (False, False, None)


@pytest.mark.parametrize(("text", "nested"), [("1", True), ("0", False), ("N", False)])
def test_old_kernels_write_nested_as_a_number(said, text, nested):
    assert Kvm.parse(said({KVM.name: INTEL.replace("nested Y", f"nested {text}")})).nested is nested


@pytest.mark.parametrize("text", ["", INTEL.removesuffix("end\n"), "hello\nend", "nested\nend", "nested maybe\nend"])
def test_text_that_is_not_ours(said, text):
    with pytest.raises((Unavailable, ValueError, LookupError)):
        Kvm.parse(said({KVM.name: text}))


@given(st.text(max_size=200))
def test_no_parser_raises_anything_else(text):
    evidence = Evidence(KVM.name, 0, (text + "\nend").encode("utf-8", "surrogatepass"))
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        Kvm.parse(Said(HostEvidence("h", {KVM.name: evidence})))
