"""Guests of session connections."""

from audit.facts.sessions import SessionGuest, Sessions
from checks import sessions


def test_none():
    assert list(sessions.no_session_guests.function(Sessions((), 3))) == []


def test_some():
    guests = tuple(SessionGuest(1000, f"g{n}") for n in range(7))
    [finding] = sessions.no_session_guests.function(Sessions(guests, 0))
    assert "g0 (uid 1000)" in finding.actual
    assert finding.actual.endswith("and 2 more")
