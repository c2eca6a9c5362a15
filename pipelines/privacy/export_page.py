"""The page of an export, for the person: what is held where, and the rows themselves.

It is one file that needs nothing else: its style is within it, and it runs no code. Of a place with many rows it shows
the first; all are in the JSON beside it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from pipelines.privacy.field_docs import meaning
from pipelines.privacy.holdings import Holding
from pipelines.privacy.readable import Row

ROWS_SHOWN = 200
LAYERS = {
    "registry": "Who is in the account, and what was allowed.",
    "quarantine": "Messages that could not be read, kept for 7 days.",
    "bronze": "Events as they were received.",
    "silver": "Events and playbacks, checked and put in order.",
    "features": "What was worked out from events, to recommend and to serve.",
    "training_sets": "Rows that models learn from.",
    "online_store": "What services are answered with now.",
    "stream": "Copies of the newest events, from which features are kept up to date.",
    "predictions": "What models said, kept to see how right they were.",
    "served_features": "What services were answered with, kept to see whether it was right.",
}


@dataclass(frozen=True)
class PlaceShown:
    """A place: how many rows it has, the first of them, and the fields that any row has."""

    held: Holding
    rows: int
    first: Sequence[Row]
    fields: Sequence[str]


def page(made_at: str, places: Sequence[PlaceShown]) -> str:
    """The whole page as HTML."""
    layers = [(layer, list(some)) for layer, some in groupby(places, key=lambda one: one.held.layer)]
    total = sum(one.rows for one in places)
    return _PAGE.format(
        made_at=escape(made_at),
        summary=f"{total:,} rows in {len(places)} places." if places else "Nothing is held.",
        tiles="".join(_tile(layer, sum(one.rows for one in some)) for layer, some in layers),
        layers="".join(_layer(layer, some) for layer, some in layers),
    )


def _tile(layer: str, rows: int) -> str:
    return f"<li><b>{rows:,}</b> {_words(layer)}</li>"


def _layer(layer: str, places: Sequence[PlaceShown]) -> str:
    said = f"<p>{LAYERS[layer]}</p>" if layer in LAYERS else ""
    return f"<h2>{_words(layer).capitalize()}</h2>{said}{''.join(map(_place, places))}"


def _place(place: PlaceShown) -> str:
    more = place.rows - len(place.first)
    rest = f'<p class="rest">{more:,} more rows are in export.json.</p>' if more else ""
    head = "".join(
        f'<th title="{escape(meaning(place.held.place, name))}">{escape(name)}</th>' for name in place.fields
    )
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in place.fields)}</tr>" for row in place.first
    )
    return (
        f"<details><summary><b>{escape(place.held.place)}</b><small>{place.rows:,} rows</small></summary>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{rest}</details>'
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _words(layer: str) -> str:
    return escape(layer.replace("_", " "))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What is held of you</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --line: #8883; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1.25rem; }}
h1 {{ margin: 0; font-size: 1.7rem; }} h2 {{ margin: 2.25rem 0 0; font-size: 1.15rem; }}
p {{ margin: .15rem 0 .5rem; opacity: .75; }}
ul {{ display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; margin: 1.25rem 0; list-style: none; }}
li {{ flex: 0 0 8rem; padding: .6rem 1rem; border: 1px solid var(--line); border-radius: .4rem; }}
li b {{ display: block; font-size: 1.5rem; line-height: 1.2; }}
details {{ border-bottom: 1px solid var(--line); padding: .5rem 0; }}
summary {{ cursor: pointer; display: flex; gap: .9rem; align-items: baseline; }}
summary b {{ flex: 1; }} summary small {{ opacity: .7; }}
summary::after {{ content: "▸"; opacity: .5; }} details[open] summary::after {{ content: "▾"; }}
.wide {{ overflow-x: auto; margin: .5rem 0; }} table {{ border-collapse: collapse; font-size: .85rem; }}
th {{ font-weight: 500; opacity: .65; }} th[title] {{ cursor: help; }}
th, td {{ padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: baseline; white-space: nowrap; max-width: 24rem; overflow: hidden; text-overflow: ellipsis; }}
</style></head><body>
<header><h1>What is held of you</h1><p>Made {made_at}. {summary}
Names of people are replaced by long numbers; somebody else's are left out. Point at a column to read what it means;
everything is in export.json too.</p></header>
<ul>{tiles}</ul>
{layers}
</body></html>
"""
