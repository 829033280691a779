"""What virsh prints about jobs and dirty rates: every form of it, and whatever else is pasted."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.jobinfo import DirtyRate, JobInfo, JobInfoError, read_dirty_rate, read_job_info

LABELS = """\
Job type:         Unbounded   
Operation:        Outgoing migration
Time elapsed:     12345        ms
Data processed:   1.500 GiB
Data remaining:   100.000 MiB
Data total:       2.000 GiB
Memory processed: 1.500 GiB
Memory remaining: 90.000 MiB
Memory total:     2.000 GiB
Memory bandwidth: 117.000 MiB/s
Dirty rate:       1000         pages/s
Page size:        4096         bytes
Iteration:        3           
Postcopy requests: 0           
Constant pages:   123         
Normal pages:     456         
Normal data:      1.781 MiB
Expected downtime: 500          ms
Setup time:       7            ms
Auto converge throttle: 20           %
"""  # noqa: W291 - virsh pads

RAW = """\
Job type: 2

operation: 5
time_elapsed: 12345
memory_total: 2147483648
memory_remaining: 94371840
memory_bps: 122683392
memory_dirty_rate: 1000
memory_page_size: 4096
memory_iteration: 3
downtime: 500
"""


def test_labels_and_raw_say_the_same():
    labels = read_job_info(f"[root@kvm01 ~]# virsh domjobinfo web\n\n{LABELS}")
    assert labels == JobInfo(
        kind="Unbounded",
        operation="outgoing migration",
        elapsed_ms=12345,
        memory_total=2 * 1024**3,
        memory_remaining=90 * 1024**2,
        bandwidth=117 * 1024**2,
        dirty_pages=1000,
        page_bytes=4096,
        iteration=3,
        downtime_ms=500,
        throttle_percent=20,
        postcopy_requests=0,
    )
    raw = read_job_info(RAW)
    assert (raw.kind, raw.operation) == (labels.kind, labels.operation)
    assert (raw.dirty, raw.bandwidth, raw.memory_remaining) == (4096000, labels.bandwidth, labels.memory_remaining)
    assert read_job_info(RAW.replace(": ", "=").replace("Job type=", "Job type: ")).dirty == raw.dirty
    assert labels.migrating
    assert raw.migrating


def test_disks_are_not_taken_for_memory():
    """`Data` is both: of a migration that still copies disks, it tells nothing of the memory."""
    old = "\n".join(line for line in LABELS.splitlines() if "Memory" not in line)
    assert read_job_info(old).memory_remaining == 100 * 1024**2
    job = read_job_info(f"{old}\nFile remaining:   60.000 MiB\n")
    assert (job.memory_total, job.memory_remaining, job.disks_remaining) == (None, None, 60 * 1024**2)


def test_nothing_under_way():
    job = read_job_info("Job type:         None        \n\n")
    assert job.kind == "None"
    assert not job.migrating


def test_other_jobs_are_no_migrations():
    for operation in ("Backup", "Incoming migration", "Dump"):
        assert not read_job_info(LABELS.replace("Outgoing migration", operation)).migrating
    assert not read_job_info(LABELS.replace("Unbounded", "Completed")).migrating


def test_no_dirty_rate_is_known_in_the_first_round():
    first = LABELS.replace("1000         pages", "0 pages").replace("Iteration:        3", "Iteration:        1")
    assert read_job_info(first).dirty is None
    assert read_job_info(first.replace("Iteration:        1", "Iteration:        4")).dirty == 0
    assert read_job_info("\n".join(line for line in first.splitlines() if "Iteration" not in line)).dirty is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no line `Job type:`"),
        ("Auftragstyp: Unbegrenzt\n", "LC_ALL=C"),
        ("Job type: Unbegrenzt\n", "LC_ALL=C"),
        ("Job type: 17\n", "job type 17"),
        (LABELS.replace("117.000 MiB/s", "117,000 MiB/s"), "Memory bandwidth: 117,000 MiB/s"),
        (LABELS.replace("117.000 MiB/s", "117.000 MiB"), "Memory bandwidth"),
        (LABELS.replace("90.000 MiB", "90.000 MB"), "Memory remaining"),
        (LABELS.replace("1000         pages/s", "many"), "Dirty rate"),
        (LABELS + LABELS.replace("1000  ", "2000  "), "two lines"),
    ],
)
def test_not_understood(text, words):
    with pytest.raises(JobInfoError, match=words):
        read_job_info(text)


def test_dirty_rate():
    measured = "Domain: 'vm-name'\n  dirtyrate.calc_status=2\n  dirtyrate.calc_start_time=200942\n"
    measured += "  dirtyrate.calc_period=30\n  dirtyrate.megabytes_per_second=2\n"
    assert read_dirty_rate(measured) == DirtyRate(2, 30)
    new = measured + "  dirtyrate.calc_mode=dirty-ring\n  dirtyrate.vcpu.0.megabytes_per_second=2\n"
    assert read_dirty_rate(new) == DirtyRate(2, 30)
    assert read_dirty_rate("  dirtyrate.calc_status=0\n").problem == "nothing has been measured"
    assert read_dirty_rate("  dirtyrate.calc_status=1\n").problem == "it is still being measured"
    assert read_dirty_rate("  dirtyrate.calc_status=9\n").mib_per_second is None
    for broken in ("", "error: x", measured * 2, "  dirtyrate.calc_status=2\n"):
        with pytest.raises(JobInfoError):
            read_dirty_rate(broken)


@given(st.text() | st.lists(st.sampled_from([*LABELS.splitlines(), *RAW.splitlines(), "x: 9" * 9])).map("\n".join))
def test_any_text(text):
    for read in (read_job_info, read_dirty_rate):
        with contextlib.suppress(JobInfoError):
            read(text)


@pytest.mark.corpus
def test_real_refusals(samples):
    for path in [*samples("domjobinfo"), *samples("domdirtyrate")]:
        for read in (read_job_info, read_dirty_rate):
            with pytest.raises(JobInfoError):
                read(path.read_text())
