"""The catalogue says all that the contract says, and the page in the repository is the current one."""

from dataclasses import replace
from html.parser import HTMLParser

from pipelines.contract import catalogue
from pipelines.contract.events import Column, Contract, load_contract
from pipelines.settings_section import PROJECT_ROOT

SCHEMAS = PROJECT_ROOT / "configs" / "schemas"
CONTRACT = load_contract(SCHEMAS)


def test_the_page_in_the_repository_is_current():
    assert (SCHEMAS / "README.md").read_text() == catalogue.markdown(CONTRACT), (
        "run `reel contract show --markdown configs/schemas/README.md`"
    )


class Reader(HTMLParser):
    """Collects the text of every <details>, and checks that tags are closed in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.open: list[str] = []
        self.outside: list[str] = []
        self.words: list[str] = []  # what the search box looks in, of every <details>

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "input"}:
            self.open.append(tag)
        if tag == "details":
            self.events.append("")
            self.words.append(dict(attrs)["data-words"] or "")
        self.outside += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "details" in self.open:
            self.events[-1] += data + " "


def test_the_html_page_has_every_event_and_needs_nothing_from_elsewhere():
    reader = Reader()
    reader.feed(catalogue.html(CONTRACT))
    assert reader.open == []
    assert reader.outside == []
    envelope, *events = reader.events
    envelope_words, *event_words = reader.words
    for column in catalogue.envelope_columns(CONTRACT):
        assert column.name in envelope
        assert column.name in envelope_words
    assert len(events) == len(CONTRACT.events)
    ordered = [event for events in catalogue.by_domain(CONTRACT).values() for event in events]
    for event, text, words in zip(ordered, events, event_words, strict=True):
        for sought in (event.domain, event.name, event.topic, event.owner.lower()):
            assert sought in words
        for said in (event.name, event.topic, event.owner, event.consent_category, event.doc, event.fullname):
            assert said in text
        for column in catalogue.own_columns(event):
            assert column.name in text
            assert column.name in words
            assert column.doc in text
            assert all(symbol in text for symbol in column.symbols)


def test_a_property_that_the_message_calls_otherwise_says_so():
    rows = {name: meaning for name, _, _, meaning in catalogue.property_rows(columns_of("client.recording"))}
    assert rows["recording_source"] == "Where in the app: epg, search or notification. In the message: source."
    assert rows["consent_analytics"].endswith("In the message: envelope.consent.analytics.")
    assert "In the message" not in rows["source"]


def test_types_in_a_readers_words():
    types = {name: kind for name, kind, _, _ in catalogue.property_rows(columns_of("client.recording"))}
    assert types["recording_type"] == "single / series"
    assert types["event_timestamp"] == "instant"
    assert types["client_timestamp"] == "instant, or null"
    served = CONTRACT.event("recommendation.response").columns
    assert dict(row[:2] for row in catalogue.property_rows(served))["content_ids"] == "list of string"


def test_the_markdown_keeps_its_columns_whatever_a_doc_says():
    column = replace(CONTRACT.events[0].columns[0], doc="One of a|b.")
    event = replace(CONTRACT.events[0], columns=(column, replace(column, path=("own",), name="own")))
    lines = catalogue.markdown(Contract((event,))).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) == 2 * 3
    assert {line.replace(r"\|", "").count("|") for line in tables} == {5}


def columns_of(topic: str) -> list[Column]:
    return list(CONTRACT.event("recording.scheduled", topic).columns)
