"""Dirty rates measured on request, and the numbers of migrations under way."""

import contextlib
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.evidence import Evidence, HostEvidence
from audit.facts.base import Facts, Guest, GuestSource, NotAsked, Said, Unavailable
from audit.facts.dirty_rate import DIRTY_RATE, GuestDirtyRate, GuestMigration
from audit.facts.guest_source import JOBS, read_guests
from audit.text import parse_xml
from audit.transports import Asked
from audit.transports.local import LocalTransport
from tests.facts.test_guest import MARK, A, B, domain, host, marked, off

RATE = """\
Domain: 'web'
  dirtyrate.calc_status=2
  dirtyrate.calc_start_time=914
  dirtyrate.calc_period=5
  dirtyrate.calc_mode=page-sampling
  dirtyrate.megabytes_per_second=22
"""
BEGUN = "Start to calculate domain's memory dirty rate successfully.\n"


def measured(said, answer, arguments=(("0", A, "5"),), problem="", **changes):
    evidence = Evidence(DIRTY_RATE.name, 0, answer.encode(), problem=problem, arguments=arguments)
    return GuestDirtyRate.parse(read_guests(host(said, **{DIRTY_RATE.name: evidence}, **changes))[0])


def test_measured(said):
    assert measured(said, marked({"0": BEGUN, A: RATE})) == GuestDirtyRate(22, 5)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"0": BEGUN, A: RATE.replace("status=2", "status=1")}, "still being measured"),
        ({"0": BEGUN, A: "Domain: 'web'\n  dirtyrate.calc_status=0\n"}, "nothing has been measured"),
        ({"0": "error: this function is not supported", A: RATE.replace("status=2", "status=0")}, "not supported"),
        ({"0": "error: unknown command: 'domdirtyrate-calc'", A: "error: unsupported flags"}, "unknown command"),
        ({"0": BEGUN, A: "error: Domain not found"}, "error: Domain not found"),
        ({"0": BEGUN, A: "Domain: 'web'\n"}, "calc_status"),
        ({"0": BEGUN}, "no answer"),
    ],
)
def test_not_measured(said, answers, words):
    with pytest.raises(Unavailable, match=words):
        measured(said, marked(answers))


def test_not_asked_for(said):
    with pytest.raises(NotAsked, match="--measure-dirty-rate"):
        GuestDirtyRate.parse(read_guests(host(said))[0])


def test_not_asked_about(said):
    for arguments, answer in (((), ""), ((("0", B, "5"),), marked({"0": BEGUN, B: RATE}))):
        with pytest.raises(Unavailable, match="did not run, or the host has more than 200"):
            measured(said, answer, arguments)


def test_a_guest_with_a_vf_cannot_be_measured(said):
    address = "<address type='pci' domain='0' bus='1' slot='0' function='1'/>"
    vf = f"<interface type='hostdev'><source>{address}</source></interface>"
    changes = {"guest.xml": marked({A: domain(body=vf), B: off()})}
    with pytest.raises(Unavailable, match="assigned device"):
        measured(said, "", (), **changes)
    facts = Facts({"kvm01": host(said, **changes).host}, read_guests)
    assert DIRTY_RATE.ask(facts, "kvm01", ()) == ()
    team = vf.replace("</interface>", "<teaming type='transient' persistent='ua-0'/></interface>")
    facts = Facts({"kvm01": host(said, **{"guest.xml": marked({A: domain(body=team), B: off()})}).host}, read_guests)
    assert DIRTY_RATE.ask(facts, "kvm01", ()) == (("0", A),)


def test_running_guests_are_asked_about(said):
    facts = Facts({"kvm01": host(said).host}, read_guests)
    assert DIRTY_RATE.ask(facts, "kvm01", ()) == (("0", A),)


VIRSH = r"""#!/bin/sh
# What virsh does with a string of commands, as far as it is needed; each call is noted in $0.calls.
printf '%s\n' "$*" >> "$0.calls"
for last; do :; done
printf '%s\n' "$last" | tr ';' '\n' | while read -r verb rest; do
    case $verb in
    echo) echo "$rest" ;;
    domdirtyrate-calc) echo "Start to calculate domain's memory dirty rate successfully."; echo ;;
    domstats) echo "Domain: 'x'"; echo "  dirtyrate.calc_status=2"; echo "  dirtyrate.calc_period=1"
        echo "  dirtyrate.megabytes_per_second=7"; echo ;;
    esac
done
"""


def test_the_command_in_a_real_shell(tmp_path, monkeypatch, said):
    virsh = tmp_path / "virsh"
    virsh.write_text(VIRSH)
    virsh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    records = tuple((str(n), f"{n:08x}-1111-4111-8111-111111111111", "1") for n in range(200))
    hostile = ("9", "x; undefine y", "1")
    output = (
        LocalTransport().ask([Asked(DIRTY_RATE, (*records, hostile)[1:])], 60, lambda: None).outputs[DIRTY_RATE.name]
    )
    assert (output.status, output.problem, output.stderr) == (0, "", b"")
    calls = (tmp_path / "virsh.calls").read_text()
    assert "undefine" not in calls
    assert calls.count("domdirtyrate-calc") == 199
    assert calls.startswith("-c qemu:///system ")
    assert sum(line.startswith("-r ") for line in calls.splitlines()) == 1
    source = GuestSource(
        Guest("h", records[7][1], "x"), True, parse_xml(b"<x/>"), None, said({DIRTY_RATE.name: output})
    )
    assert GuestDirtyRate.parse(source) == GuestDirtyRate(7, 1)


def test_it_is_posix_sh():
    assert subprocess.run(["sh", "-n", "-c", DIRTY_RATE.command], capture_output=True, check=False).stderr == b""


@settings(max_examples=50)
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes(data):
    answers = f"{MARK}\n{MARK} 0\n{BEGUN}\n{MARK} {A}\n".encode() + data
    evidence = {
        DIRTY_RATE.name: Evidence(DIRTY_RATE.name, 0, answers, arguments=(("0", A, "5"),)),
        JOBS.name: Evidence(JOBS.name, 0, answers),
    }
    source = GuestSource(Guest("h", A, "x"), True, parse_xml(b"<x/>"), None, Said(HostEvidence("h", evidence)))
    for kind in (GuestDirtyRate, GuestMigration):
        with contextlib.suppress(Unavailable, ValueError, LookupError):
            kind.parse(source)


JOB = """\
Job type:         Unbounded
Operation:        Outgoing migration
Memory remaining: 90.000 MiB
Memory total:     2.000 GiB
Memory bandwidth: 117.000 MiB/s
Dirty rate:       1000         pages/s
Page size:        4096         bytes
Iteration:        3
"""


def test_migration_under_way(said):
    def parsed(answer):
        return GuestMigration.parse(read_guests(host(said, **{JOBS.name: marked({A: answer})}))[0])

    job = parsed(JOB).under_way
    assert (job.dirty, job.bandwidth) == (4096000, 117 * 1024**2)
    assert parsed("Job type:         None        \n").under_way is None
    assert parsed(JOB.replace("Outgoing migration", "Backup")).under_way is None
    for refused in ("error: Timed out", ""):
        with pytest.raises(Unavailable):
            parsed(refused)
    with pytest.raises(Unavailable):
        GuestMigration.parse(read_guests(host(said, **{JOBS.name: marked({})}))[0])
    assert GuestMigration.parse(read_guests(host(said))[1]).under_way is None
