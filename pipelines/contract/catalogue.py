"""The catalogue of events: what may be sent, by whom, on which topic, and what each property means.

Made from the contract alone, so that it cannot say anything else: a page for the browser, one for the repository.
"""

from collections.abc import Iterator, Sequence
from html import escape

from pipelines.contract.events import CONSENT_CATEGORIES, PERSONAL, Column, Contract, EventSchema

PAGE_TITLE = "Event catalogue"
EVENT_HEADINGS = ("domain", "event", "topic", "consent", "meaning")
PROPERTY_HEADINGS = ("property", "type", "personal", "meaning")


def markdown(contract: Contract) -> str:
    """The whole catalogue as one Markdown page."""
    return "\n".join(_markdown_lines(contract)) + "\n"


def html(contract: Contract) -> str:
    """The whole catalogue as one HTML page that needs nothing else: a search box, events by domain."""
    domains = "\n".join(_domain_html(domain, events) for domain, events in by_domain(contract).items())
    options = "".join(f'<option value="{name}">{name}: {text}</option>' for name, text in CONSENT_CATEGORIES.items())
    counts = f"{len(contract.events)} events on {len(contract.topics)} topics"
    envelope = envelope_columns(contract)
    return _PAGE.format(
        title=PAGE_TITLE,
        counts=counts,
        options=options,
        words=_words("envelope", *map(_said, envelope)),
        envelope=_table(envelope),
        domains=domains,
    )


def by_domain(contract: Contract) -> dict[str, list[EventSchema]]:
    """Events by domain, both in alphabetical order."""
    found: dict[str, list[EventSchema]] = {}
    for event in sorted(contract.events, key=lambda event: (event.domain, event.name)):
        found.setdefault(event.domain, []).append(event)
    return found


def envelope_columns(contract: Contract) -> list[Column]:
    """What every event says of itself."""
    return [column for column in contract.events[0].columns if column.path[0] == "envelope"]


def own_columns(event: EventSchema) -> list[Column]:
    """What only this event says."""
    return [column for column in event.columns if column.path[0] != "envelope"]


def event_rows(contract: Contract) -> Iterator[tuple[str, ...]]:
    """A row of texts for every event, as `EVENT_HEADINGS` says; a domain is named on the first of its events only."""
    for domain, events in by_domain(contract).items():
        for position, event in enumerate(events):
            yield domain if position == 0 else "", event.name, event.topic, event.consent_category, event.doc


def property_rows(columns: Sequence[Column]) -> Iterator[tuple[str, ...]]:
    """A row of texts for every property, as `PROPERTY_HEADINGS` says; with the message's own name where it differs."""
    for column in columns:
        renamed = "" if column.path[-1] == column.name else f" In the message: {'.'.join(column.path)}."
        yield column.name, _type_of(column), column.personal or "", column.doc + renamed


def _type_of(column: Column) -> str:
    """A column's type in a reader's words: an enum's values, and whether it may be null."""
    kind = " / ".join(column.symbols) if column.symbols else str(column.arrow).replace("<item: string>", " of string")
    kind = "instant" if kind.startswith("timestamp") else kind
    return f"{kind}, or null" if column.nullable else kind


def _markdown_lines(contract: Contract) -> Iterator[str]:
    yield f"# {PAGE_TITLE}"
    yield ""
    yield f"{len(contract.events)} events on {len(contract.topics)} topics. This page is made by"
    yield "`reel contract show --markdown configs/schemas/README.md`; the schemas beside it are the source."
    yield ""
    yield "Consent: " + "; ".join(f"**{name}** = {text}" for name, text in CONSENT_CATEGORIES.items()) + "."
    yield "Personal: " + "; ".join(f"**{name}** = {text}" for name, text in PERSONAL.items()) + "."
    yield ""
    yield "## Every event: the envelope"
    yield ""
    yield from _markdown_table(envelope_columns(contract))
    for domain, events in by_domain(contract).items():
        yield ""
        yield f"## {domain}"
        for event in events:
            yield ""
            yield f"### `{event.name}`"
            yield ""
            yield f"{event.doc} Topic `{event.topic}`, owned by {event.owner}; consent: {event.consent_category}."
            if own_columns(event):
                yield ""
                yield from _markdown_table(own_columns(event))


def _markdown_table(columns: Sequence[Column]) -> Iterator[str]:
    yield f"| {' | '.join(PROPERTY_HEADINGS)} |"
    yield "|---" * len(PROPERTY_HEADINGS) + "|"
    for name, *others in property_rows(columns):
        yield " | ".join([f"| `{name}`", *(text.replace("|", r"\|") for text in others)]) + " |"


def _domain_html(domain: str, events: Sequence[EventSchema]) -> str:
    return f"<h2>{escape(domain)}</h2>" + "".join(_event_html(event) for event in events)


def _event_html(event: EventSchema) -> str:
    properties = own_columns(event)
    words = _words(event.name, event.fullname, event.topic, event.owner, event.doc, *map(_said, properties))
    return (
        f'<details data-words="{words}" data-consent="{event.consent_category}">'
        f"<summary><code>{escape(event.name)}</code> <span>{escape(event.doc)}</span>"
        f'<b class="{event.consent_category}">{event.consent_category}</b></summary>'
        f"<p>Topic <code>{escape(event.topic)}</code> · owner {escape(event.owner)} · "
        f"record <code>{escape(event.fullname)}</code></p>"
        f"{_table(properties) if properties else '<p>It has no property of its own.</p>'}</details>"
    )


def _words(*texts: str) -> str:
    """What the search box looks in."""
    return escape(" ".join(texts).lower())


def _said(column: Column) -> str:
    return " ".join([column.name, column.personal or "", *column.symbols])


def _table(columns: Sequence[Column]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in PROPERTY_HEADINGS)
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td>{''.join(f'<td>{escape(text)}</td>' for text in others)}</tr>"
        for name, *others in property_rows(columns)
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --line: #8884; --soft: #8881; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ margin-bottom: 0; }} h2 {{ margin: 2rem 0 .5rem; font-size: 1.1rem; }}
form {{ display: flex; gap: .5rem; position: sticky; top: 0; padding: .75rem 0; background: Canvas; }}
input {{ flex: 1; }} input, select {{ font: inherit; padding: .4rem .6rem; }}
details {{ border-top: 1px solid var(--line); padding: .35rem 0; }}
summary {{ cursor: pointer; }} summary code {{ font-weight: 600; }} summary span {{ opacity: .75; margin-left: .5rem; }}
summary b {{ float: right; font-weight: 500; font-size: .8rem; padding: 0 .6rem; border-radius: 1rem;
  background: var(--soft); }}
b.essential {{ background: #d9770633; }} b.analytics {{ background: #2563eb22; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; }}
td, th {{ border-top: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }}
</style></head><body>
<h1>{title}</h1><p>{counts}</p>
<form onsubmit="return false"><input id="words" type="search" placeholder="Search names, properties, topics, owners"
 aria-label="Search" autofocus><select id="consent" aria-label="Consent"><option value="">any consent</option>{options}
</select></form>
<details open data-words="{words}" data-consent=""><summary><code>envelope</code>
<span>What every event says of itself.</span></summary>{envelope}</details>
{domains}
<p id="none" hidden>No event has all these words.</p>
<script>
const words = document.getElementById("words"), consent = document.getElementById("consent");
function sift() {{
  let found = 0;
  const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const one of document.querySelectorAll("details")) {{
    one.hidden = !(wanted.every(word => one.dataset.words.includes(word)) &&
      (!consent.value || one.dataset.consent === consent.value));
    found += !one.hidden;
  }}
  for (const title of document.querySelectorAll("h2")) {{
    let next = title.nextElementSibling, seen = false;
    while (next && next.tagName === "DETAILS") {{ seen ||= !next.hidden; next = next.nextElementSibling; }}
    title.hidden = !seen;
  }}
  document.getElementById("none").hidden = found > 0;
}}
words.oninput = consent.onchange = sift;
</script></body></html>
"""
