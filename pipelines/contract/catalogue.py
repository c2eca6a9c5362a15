"""The catalogue of events: what may be sent, by whom, on which topic, and what each property means.

Made from the contract alone, so that it cannot say anything else: a page for the browser, one for the repository.
"""

from collections.abc import Iterator
from html import escape

from pipelines.contract.events import CONSENT_CATEGORIES, PERSONAL, Column, Contract, EventSchema

PAGE_TITLE = "Event catalogue"


def markdown(contract: Contract) -> str:
    """The whole catalogue as one Markdown page."""
    return "\n".join(_markdown_lines(contract)) + "\n"


def html(contract: Contract) -> str:
    """The whole catalogue as one HTML page that needs nothing else: a search box, events by domain."""
    domains = "\n".join(_domain_html(domain, events) for domain, events in by_domain(contract).items())
    options = "".join(f'<option value="{name}">{name}: {text}</option>' for name, text in CONSENT_CATEGORIES.items())
    counts = f"{len(contract.events)} events on {len(contract.topics)} topics"
    return _PAGE.format(
        title=PAGE_TITLE, counts=counts, options=options, domains=domains, envelope=_rows(envelope_columns(contract))
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


def type_of(column: Column) -> str:
    """A column's type in a reader's words: its values where they are few, `?` where it may be null."""
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


def _markdown_table(columns: list[Column]) -> Iterator[str]:
    yield "| property | type | personal | meaning |"
    yield "|---|---|---|---|"
    for column in columns:
        yield f"| `{column.name}` | {type_of(column)} | {column.personal or ''} | {column.doc} |"


def _domain_html(domain: str, events: list[EventSchema]) -> str:
    return f"<h2>{escape(domain)}</h2>" + "".join(_event_html(event) for event in events)


def _event_html(event: EventSchema) -> str:
    properties = own_columns(event)
    words = " ".join([event.name, event.topic, event.owner, event.doc, *(column.name for column in properties)])
    table = f"<table>{_HEAD}{_rows(properties)}</table>" if properties else "<p>It has no property of its own.</p>"
    return (
        f'<details data-words="{escape(words.lower())}" data-consent="{event.consent_category}">'
        f"<summary><code>{escape(event.name)}</code> <span>{escape(event.doc)}</span>"
        f'<b class="{event.consent_category}">{event.consent_category}</b></summary>'
        f"<p>Topic <code>{escape(event.topic)}</code> · owner {escape(event.owner)} · "
        f"record <code>{escape(event.fullname)}</code></p>{table}</details>"
    )


def _rows(columns: list[Column]) -> str:
    return "".join(
        f"<tr><td><code>{escape(column.name)}</code></td><td>{escape(type_of(column))}</td>"
        f"<td>{escape(column.personal or '')}</td><td>{escape(column.doc)}</td></tr>"
        for column in columns
    )


_HEAD = "<tr><th>property</th><th>type</th><th>personal</th><th>meaning</th></tr>"
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
<details open data-words="envelope" data-consent=""><summary><code>envelope</code>
<span>What every event says of itself.</span></summary>
<table><tr><th>property</th><th>type</th><th>personal</th><th>meaning</th></tr>{envelope}</table></details>
{domains}
<script>
const words = document.getElementById("words"), consent = document.getElementById("consent");
function sift() {{
  const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const one of document.querySelectorAll("details")) {{
    one.hidden = !(wanted.every(word => one.dataset.words.includes(word)) &&
      (!consent.value || one.dataset.consent === consent.value));
  }}
  for (const title of document.querySelectorAll("h2")) {{
    let next = title.nextElementSibling, seen = false;
    while (next && next.tagName === "DETAILS") {{ seen ||= !next.hidden; next = next.nextElementSibling; }}
    title.hidden = !seen;
  }}
}}
words.oninput = consent.onchange = sift;
</script></body></html>
"""
