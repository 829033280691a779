"""Other people's text: parsed without trust, shown without harm.

Host output, guest names and XML are attacker-controlled. Whatever reads XML in
this project reads it through `parse_xml`; whatever prints host text to a terminal
or a page passes it through `visible` first.
"""

import unicodedata
from collections.abc import Iterable

from lxml import etree

XML_LIMIT = 32 * 1024 * 1024  # bytes; ten thousand guests fit well below it


class NotXml(ValueError):
    """The bytes are not the well-formed, harmless XML that was expected."""


def parse_xml(data: bytes) -> etree._Element:
    """The root element of `data`, with no DTD, entity, network or huge-node support.

    Raises `NotXml` for anything else than one well-formed document.
    """
    if len(data) > XML_LIMIT:
        raise NotXml(f"XML of {len(data)} bytes exceeds the limit of {XML_LIMIT}")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise NotXml(f"not well-formed XML: {visible(getattr(error, 'msg', None) or str(error), 200)}") from error
    if root is None:
        raise NotXml("not well-formed XML: empty document")
    if root.getroottree().docinfo.internalDTD is not None:
        raise NotXml("XML with a document type declaration is refused")
    return root


def visible(text: str, limit: int = 300) -> str:
    """`text` on one line, without control or bidirectional-override characters, at most `limit` characters long."""
    cut = text[: limit + 1]
    shown = "".join(_shown(char) for char in cut)
    return shown[: limit - 1] + "…" if len(shown) > limit else shown


def some_of(names: Iterable[str], most: int = 8) -> str:
    """The first names, each once, and how many more there are. Not defused: see `visible`."""
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - most} more" if len(distinct) > most else ""
    return ", ".join(distinct[:most]) + more


def _shown(char: str) -> str:
    if char in "\n\t\r":
        return " "
    return "�" if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} else char
