"""Guests that users run for themselves."""

from collections.abc import Iterator

from audit.check import Finding, Severity, Source, Stage, check
from audit.facts.sessions import Sessions
from audit.text import some_of


@check(severity=Severity.MEDIUM, stage=Stage.ALLOWED, reference="RHEL 9 §12.3", offline=True, covers=("12.3/session",))
def no_session_guests(sessions: Source[Sessions]) -> Iterator[Finding]:
    """No guest runs on a session connection.

    Users can run guests of their own (`qemu:///session`), which the system's libvirt does not see and this report
    does not judge. Red Hat calls their migration unreliable; when the host goes down, they go down with it.
    """
    if sessions.guests:
        shown = some_of((f"{guest.name or 'unnamed'} (uid {guest.uid})" for guest in sessions.guests), 5)
        yield Finding(
            expected="all guests belong to qemu:///system",
            actual=f"{len(sessions.guests)} of session connections: {shown}",
            because="They are not judged here and would be lost when the host is emptied.",
            remedy="sudo -u '#UID' virsh -c qemu:///session list",
        )
