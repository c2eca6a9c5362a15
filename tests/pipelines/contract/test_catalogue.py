"""The catalogue says all that the contract says, and the page in the repository is the current one."""

from html.parser import HTMLParser

from pipelines.contract import catalogue
from pipelines.contract.events import load_contract
from pipelines.settings import PROJECT_ROOT

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

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "input"}:
            self.open.append(tag)
        if tag == "details":
            self.events.append("")
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
    assert "event_timestamp" in envelope
    assert len(events) == len(CONTRACT.events)
    ordered = [event for events in catalogue.by_domain(CONTRACT).values() for event in events]
    for event, text in zip(ordered, events, strict=True):
        for said in (event.name, event.topic, event.owner, event.consent_category, event.doc, event.fullname):
            assert said in text
        for column in catalogue.own_columns(event):
            assert column.name in text
            assert column.doc in text
            assert all(symbol in text for symbol in column.symbols)
