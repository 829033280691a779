"""Security drivers of hosts, labels of guests."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Said, Unavailable
from audit.facts.confinement import GuestLabels, SecurityDrivers


def capabilities(*models):
    inner = "".join(f"<secmodel><model>{model}</model><doi>0</doi></secmodel>" for model in models)
    return {"cpu.capabilities": f"<capabilities><host>{inner}</host></capabilities>"}


def test_drivers(said):
    assert SecurityDrivers.parse(said(capabilities("selinux", "dac"))).models == {"selinux", "dac"}
    with pytest.raises(Unavailable, match="names no"):
        SecurityDrivers.parse(said(capabilities()))


def test_labels(guest_source):
    def labels(inner):
        return GuestLabels.parse(guest_source(f"<domain><name>g</name>{inner}</domain>")).models

    assert labels("") == frozenset()
    live = "<seclabel type='dynamic' model='selinux'/><seclabel type='dynamic' model='dac'/><seclabel type='none'/>"
    assert labels(live) == {"selinux"}
    assert labels("<seclabel type='none' model='none'/>") == frozenset()


@pytest.mark.parametrize(
    ("inner", "unconfined"),
    [
        ("", False),
        ("<seclabel type='none'/>", True),
        ("<seclabel type='none' model='selinux'/>", True),
        ("<seclabel type='none' model='dac'/>", False),
        ("<seclabel type='dynamic' model='selinux'/><seclabel type='none'/>", False),
    ],
)
def test_a_guest_may_ask_not_to_be_confined(guest_source, inner, unconfined):
    assert GuestLabels.parse(guest_source(f"<domain><name>g</name>{inner}</domain>")).unconfined is unconfined


@given(st.text(max_size=80))
def test_any_text(text):
    output = Evidence("cpu.capabilities", status=0, stdout=text.encode("utf-8", "replace"))
    with contextlib.suppress(Unavailable, ValueError, LookupError):
        SecurityDrivers.parse(Said(HostEvidence("h", {"cpu.capabilities": output})))


@pytest.mark.corpus
def test_real(said, samples):
    found = {}
    for path in samples("virsh-capabilities"):
        with contextlib.suppress(Unavailable):
            answers = {"cpu.capabilities": path.read_bytes()}
            found[path.name.removesuffix(".txt")] = SecurityDrivers.parse(said(answers)).models
    assert len(found) == 12
    assert found["virsh-capabilities__vdsm-intel-E5649__1"] == {"selinux", "dac"}
    assert found["virsh-capabilities__debian12-local__1"] == {"none", "dac"}
