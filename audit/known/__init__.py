"""Known issues as data: between which versions, hosts and guests a live migration fails or does harm.

An issue is an entry of `advisories.ADVISORIES`, why features are missing one of `missing.CAUSES`; `advisory` and the
rest of `missing` are what makes an answer of them. A new issue is a new entry, with where it stands written down, and a
case of it in tests/known.
"""

from audit.known.advisories import ADVISORIES
from audit.known.advisory import Advisory, GuestView, HostView, VendorsRepair, advisories_for
from audit.known.missing import CAUSES, Cause, Ends, Explanation, explain

__all__ = [
    "ADVISORIES",
    "CAUSES",
    "Advisory",
    "Cause",
    "Ends",
    "Explanation",
    "GuestView",
    "HostView",
    "VendorsRepair",
    "advisories_for",
    "explain",
]
