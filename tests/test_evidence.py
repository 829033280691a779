"""The bundle on disk: readable, unaltered or refused, and never half of one under a bundle's name."""

import json
from pathlib import Path

import pytest

from audit.evidence import Bundle, BundleError, Evidence, HostEvidence


def bundle(**hosts: HostEvidence) -> Bundle:
    outputs = {
        "a.text": Evidence("a.text", 0, b"plain\n", b"", 0.25),
        "b.bytes": Evidence("b.bytes", 1, b"\x00\xff\n\n", b"warned\n", 1.0),
        "c.cut": Evidence("c.cut", None, b"", b"", 20.0, "timed out after 20 s"),
        "d.asked": Evidence("d.asked", 0, b"1 yes\n", b"", 0.0, "", (("/a b\n", "x"), ("é", ""))),
    }
    made = {
        "kvm01": HostEvidence("kvm01", outputs, "", "root", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
        **hosts,
    }
    return Bundle("f00d", "virt-preflight 0", "2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z", {"clusters": []}, made)


def test_what_is_read_is_what_was_written(tmp_path: Path):
    down = HostEvidence("kvm02", {}, "no route to host")
    written = bundle(kvm02=down)
    written.write(tmp_path / "b")
    assert Bundle.read(tmp_path / "b") == written


def test_it_is_plain_files_with_digests(tmp_path: Path):
    bundle().write(tmp_path / "b")
    assert (tmp_path / "b/hosts/kvm01/a.text.out").read_text() == "plain\n"
    assert (tmp_path / "b/hosts/kvm01/b.bytes.err").read_text() == "warned\n"
    assert not (tmp_path / "b/hosts/kvm01/a.text.err").exists()
    [entry, *_] = json.loads((tmp_path / "b/hosts/kvm01/index.json").read_text())["outputs"]
    assert (entry["probe"], entry["status"], entry["seconds"], entry["bytes"]) == ("a.text", 0, 0.25, 6)
    assert len(entry["sha256"]) == 64


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("hosts/kvm01/a.text.out", b"forged\n"),
        ("hosts/kvm01/b.bytes.err", b""),
        ("hosts/kvm01/index.json", b"{}"),
        ("manifest.json", b"not json"),
        ("manifest.json", b"[]"),
        ("manifest.json", b'{"format": "virt-preflight/bundle/99"}'),
        ("manifest.json", b'{"format": "virt-preflight/bundle/1"}'),
        ("manifest.json", b'{"format": "virt-preflight/bundle/1", "hosts": {"../../etc": "00"}}'),
        ("manifest.json", b'{"format": "virt-preflight/bundle/1", "hosts": 7}'),
    ],
)
def test_what_was_altered_is_refused(tmp_path: Path, file: str, content: bytes):
    bundle().write(tmp_path / "b")
    (tmp_path / "b" / file).write_bytes(content)
    with pytest.raises(BundleError, match=r"b|manifest"):
        Bundle.read(tmp_path / "b")


def test_what_is_missing_is_refused(tmp_path: Path):
    bundle().write(tmp_path / "b")
    (tmp_path / "b/hosts/kvm01/a.text.out").unlink()
    with pytest.raises(BundleError, match=r"a\.text\.out"):
        Bundle.read(tmp_path / "b")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.read(tmp_path / "nothing")


def test_nothing_is_overwritten(tmp_path: Path):
    bundle().write(tmp_path / "b")
    with pytest.raises(FileExistsError):
        bundle().write(tmp_path / "b")


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "a\nb", "x" * 300])
def test_no_path_is_built_from_a_name_that_could_leave_the_folder(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="host name"):
        bundle(**{name: HostEvidence(name)}).write(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
