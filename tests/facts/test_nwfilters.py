"""Network filters of hosts and guests."""

import pytest

from audit.facts.base import Guest, GuestSource, Unavailable
from audit.facts.nwfilters import FILTERS, Filter, Filters, GuestFilters, Reference
from audit.text import parse_xml

MARK = "0123456789abcdef0123456789abcdef"
CLEAN, SITE = "11111111-2222-4333-8444-000000000001", "11111111-2222-4333-8444-000000000002"
CLEAN_XML = f"""<filter name='clean' chain='root' priority='-700'>
  <uuid>{CLEAN}</uuid>
  <rule action='drop' direction='out' priority='500'>
    <mac match='no' srcmacaddr='$MAC'/>
  </rule>
  <rule action='accept' direction='in'><ip srcipaddr='$IP[@1]' dstportstart='80'/></rule>
</filter>
"""
SITE_XML = f"""<filter name='site' chain='root'><uuid>{SITE}</uuid>
<filterref filter='clean'><parameter name='IP' value='10.0.0.1'/></filterref></filter>
"""


def text(**answers):
    parts = "".join(f"{MARK} {uuid}\n{xml}" for uuid, xml in answers.items())
    return f"{MARK}\n{parts}{MARK} end\n"


def test_filters_of_a_host(said):
    filters = Filters.parse(said({FILTERS.name: text(**{CLEAN: CLEAN_XML, SITE: SITE_XML})}))
    clean, site = filters.find("clean"), filters.find("site")
    assert clean.variables == {"MAC", "IP"}
    assert site.references == (Reference("clean", frozenset({"IP"})),)
    assert filters.find("nope") is None
    assert [name for name, _ in filters.below("site")] == ["site", "clean"]
    assert filters.wanting(Reference("clean", frozenset())) == {"IP"}
    assert not filters.wanting(Reference("site", frozenset()))


def test_the_same_rules_have_the_same_print(said):
    def rules(xml):
        return Filters.parse(said({FILTERS.name: text(**{CLEAN: xml})})).filters[0].rules

    assert rules(CLEAN_XML) == rules(CLEAN_XML.replace("  ", " "))
    assert rules(CLEAN_XML) != rules(CLEAN_XML.replace("'80'", "'81'"))
    assert rules(CLEAN_XML) != rules(CLEAN_XML.replace("-700", "-600"))


@pytest.mark.parametrize(
    "answer",
    [
        (1, ""),
        "nonsense",
        text(**{CLEAN: "error: Network filter not found"}),
        text(**{CLEAN: CLEAN_XML.replace("name='clean'", "")}),
        text(**{CLEAN: SITE_XML}),
    ],
)
def test_filters_that_could_not_be_read(said, answer):
    filters = Filters.parse(said({FILTERS.name: answer}))
    with pytest.raises(Unavailable):
        filters.find("clean")


def test_no_filters_at_all(said):
    assert Filters.parse(said({FILTERS.name: f"{MARK}\n"})).find("clean") is None


def test_filters_that_include_too_many():
    wide = [
        Filter(str(n), "", frozenset(), tuple(Reference(str(n + 1), frozenset({f"{n}.{k}"})) for k in range(9)))
        for n in range(9)
    ]
    with pytest.raises(Unavailable, match="too many"):
        Filters(tuple(wide)).wanting(Reference("0", frozenset()))


def test_filters_of_a_guest(said):
    xml = """<domain><devices><interface/><interface><filterref filter='clean'>
    <parameter name='CTRL_IP_LEARNING' value='DHCP'/><parameter name='PORT' value='1'/></filterref></interface>
    </devices></domain>"""
    source = GuestSource(Guest("a", "u", "g"), True, parse_xml(xml.encode()), None, said({}))
    assert GuestFilters.parse(source).references == (
        Reference("clean", frozenset({"CTRL_IP_LEARNING", "PORT"}), "dhcp"),
    )
