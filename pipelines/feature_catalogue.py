"""The catalogue of features: what each is, of whom, over which window, how soon it is known, and what it may serve.

Made from the declarations alone, so that it cannot say anything else.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from html import escape

from features.declarations import Feature, FeatureGroup
from features.errors import SelectionError
from features.words import aggregate_words, duration_words, range_words

PAGE_TITLE = "Feature catalogue"
GROUP_HEADINGS = ("group", "of", "features", "cadence", "purpose", "owner", "meaning")
FEATURE_HEADINGS = ("feature", "type", "unit", "range", "window", "definition", "meaning")


def group_row(group: FeatureGroup) -> tuple[str, ...]:
    """A row of texts for a group, as `GROUP_HEADINGS` says."""
    return (
        group.name,
        ", ".join(map(str, group.entities)),
        str(len(group.features)),
        str(group.cadence),
        str(group.purpose),
        group.owner,
        group.description,
    )


def group_facts(group: FeatureGroup) -> Iterator[tuple[str, str]]:
    """What is said of a group besides its features: (fact, value)."""
    yield "of", ", ".join(map(str, group.entities))
    yield "source", group.source.name
    yield "cadence", str(group.cadence)
    yield "delay", f"{duration_words(group.delay)}: valued as of that long before it is asked for"
    yield "TTL", f"{duration_words(group.ttl_ms)}: null when the last event that contributed is older"
    yield "purpose", str(group.purpose)
    yield "owner", group.owner


def feature_row(group: FeatureGroup, feature: Feature) -> tuple[str, ...]:
    """A row of texts for a feature, as `FEATURE_HEADINGS` says."""
    kind = str(feature.arrow_type).replace("<item: ", " of ").replace("double", "real").rstrip(">")
    kind = kind.replace("map<string, ", "map of text to ").replace("int64", "whole").replace("string", "text")
    return (
        feature.name,
        kind,
        feature.unit,
        range_words(feature.range),
        duration_words(feature.window_ms),
        aggregate_words(feature.aggregate),
        feature.description,
    )


def feature_of(group: FeatureGroup, name: str) -> Feature:
    """A group's feature by its name. Raises SelectionError naming the nearest."""
    features = {feature.name: feature for feature in group.features}
    if name not in features:
        nearest = get_close_matches(name, features, n=1, cutoff=0)[0]
        raise SelectionError(
            f"{group.name} has no feature {name!r}; the nearest is {nearest}, of {', '.join(features)}"
        )
    return features[name]


def html(groups: Sequence[FeatureGroup]) -> str:
    """All groups as one HTML page that needs nothing else: a search box, then group by group."""
    counts = f"{len(groups)} groups, {sum(len(group.features) for group in groups)} features"
    body = "\n".join(_group_html(group) for group in sorted(groups, key=lambda group: group.name))
    return _PAGE.format(title=PAGE_TITLE, counts=counts, groups=body)


def _group_html(group: FeatureGroup) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in group_facts(group))
    head = "".join(f"<th>{heading}</th>" for heading in FEATURE_HEADINGS)
    rows = "".join(_feature_html(group, feature) for feature in group.features)
    return (
        f'<section id="{escape(group.name)}"><h2>{escape(group.name)}</h2><p>{escape(group.description)}</p>'
        f"<dl>{facts}</dl><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _feature_html(group: FeatureGroup, feature: Feature) -> str:
    name, *others = feature_row(group, feature)
    words = escape(" ".join([group.name, group.owner, str(group.purpose), name, *others]).lower())
    cells = "".join(f"<td>{escape(text)}</td>" for text in others)
    place = f"{escape(group.name)}.{escape(name)}"
    return f'<tr id="{place}" data-words="{words}"><td><code>{escape(name)}</code></td>{cells}</tr>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --line: #8884; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ margin-bottom: 0; }} h2 {{ margin: 2.5rem 0 0; font: 600 1.15rem ui-monospace, monospace; }}
h2 + p {{ margin: .2rem 0 .6rem; }}
form {{ position: sticky; top: 0; padding: .75rem 0; background: Canvas; }}
input {{ font: inherit; padding: .4rem .6rem; width: 100%; box-sizing: border-box; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 0 .8rem; font-size: .9rem; }}
dt {{ opacity: .65; }} dd {{ margin: 0; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; }}
td, th {{ border-top: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }}
th {{ font-weight: 500; opacity: .65; }} td:first-child code {{ font-weight: 600; }}
tr:target {{ background: #2563eb22; }}
</style></head><body>
<h1>{title}</h1><p>{counts}</p>
<form onsubmit="return false"><input id="words" type="search" placeholder="Search names, meanings, units, owners"
 aria-label="Search" autofocus></form>
{groups}
<p id="none" hidden>No feature has all these words.</p>
<script>
const words = document.getElementById("words");
words.oninput = () => {{
  const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let found = 0;
  for (const group of document.querySelectorAll("section")) {{
    let seen = 0;
    for (const row of group.querySelectorAll("tr[data-words]")) {{
      row.hidden = !wanted.every(word => row.dataset.words.includes(word));
      seen += !row.hidden;
    }}
    group.hidden = !seen;
    found += seen;
  }}
  document.getElementById("none").hidden = found > 0;
}};
</script></body></html>
"""
