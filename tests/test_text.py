"""Other people's text: what the parser refuses, and what never reaches a terminal."""

import pytest

from audit.text import NotXml, parse_xml, visible

BOMB = b'<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]><a>&y;</a>'
FILE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'


@pytest.mark.parametrize("data", [BOMB, FILE, b"", b"<a>", b"<a/><b/>", b"\xff\xfe", b"plain", b"<a>" * 100_000])
def test_only_one_harmless_document_is_xml(data):
    with pytest.raises(NotXml):
        parse_xml(data)


def test_a_plain_document_is_read():
    assert parse_xml(b"<a><!-- c --><b>x &amp; y</b></a>").findtext("b") == "x & y"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand", "two lines and"),
        ("\x1b[31mred\x07", "�[31mred�"),
        ("right\u202eleft", "right�left"),
        ("x" * 20, "xxxxxxxxx…"),
        ("zero\u200bwidth", "zero�width"),
    ],
)
def test_control_and_direction_characters_are_not_shown(text, shown):
    assert visible(text, 10 if set(text) == {"x"} else 300) == shown
