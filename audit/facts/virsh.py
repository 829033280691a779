"""Many questions to libvirt in one virsh, and its answers kept apart.

What virsh says about each object stands between lines that carry a random mark, drawn on the host at each
run: nothing in an object's name or description can pass for the beginning of another one's answer.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from lxml import etree

from audit.evidence import Probe
from audit.facts.base import Said, Unavailable
from audit.text import NotXml, parse_xml, visible

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MARK = re.compile(rb"[0-9a-f]{32}")
# libvirt lets some control characters through into titles and descriptions, where XML knows no such thing.
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r")

DRAW_MARK = """\
mark=$(od -An -N16 -tx1 /dev/urandom | tr -dc 0-9a-f)
[ ${#mark} -eq 32 ] || { echo "no random mark" >&2; exit 3; }
"""


def for_each(listing: str, command: str, *, first_column: bool = False) -> str:
    """A probe's command: let virsh run `command` for each object that `listing` names ($u is its UUID).

    `first_column`: the listing is a table, and the UUID the first word of each line.
    """
    cut = "uuids=$(echo \"$uuids\" | awk '{print $1}')\n" if first_column else ""
    return f"""\
{DRAW_MARK}uuids=$(virsh -r -q -c qemu:///system {listing}) || exit
{cut}echo "$mark"
[ -n "$uuids" ] || exit 0
echo "$uuids" | xargs -n 100 sh -c '
commands=
for u; do commands="$commands echo $0 $u; {command}; "; done
virsh -r -c qemu:///system "$commands echo $0 end" 2>&1' "$mark"
"""


@lru_cache(maxsize=64)  # every guest of a host asks the same again
def answers(said: Said, probe: Probe) -> Mapping[str, bytes]:
    """What virsh printed about each object, by UUID (or record number); errors included, in its words.

    An object that is missing was not asked about.
    """
    said.text(probe, ok=(0, 123))  # 123: xargs, for a virsh that failed; its objects are missing then
    mark, _, rest = said.evidence(probe).stdout.partition(b"\n")
    if not _MARK.fullmatch(mark):
        raise Unavailable(probe, "output does not begin with its mark")
    if rest.strip() and not rest.startswith(mark):
        raise Unavailable(probe, visible(rest.decode("utf-8", "replace").strip(), 200))
    pieces = re.split(rb"^%s ([0-9a-f-]{1,36}|end)$\n?" % mark, rest, flags=re.MULTILINE)
    found = {name.decode(): piece for name, piece in zip(pieces[1::2], pieces[2::2], strict=True)}
    found.pop("end", None)
    return found


def document(probe: Probe, root: str, uuid: str, answer: bytes | None) -> etree._Element:
    """The XML document that virsh printed about the object. Raises `Unavailable` in virsh's words if it did not."""
    if answer is None:
        raise Unavailable(probe, "libvirt lists it, but its XML was not printed")
    try:
        found = parse_xml(answer.translate(None, _CONTROLS).strip())
    except NotXml as error:
        words = answer.strip().decode("utf-8", "replace")
        raise Unavailable(probe, visible(words, 200) if words.startswith("error:") else str(error)) from error
    if found.tag != root or not (found.findtext("name") or found.get("name")):
        raise Unavailable(probe, f"no <{root}> with a name")
    if found.findtext("uuid") != uuid:
        raise Unavailable(probe, "the XML is that of another object")
    return found
