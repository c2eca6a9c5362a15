"""The page of all features: what needs a look first, then every feature by day, small and all on one scale of time.

It is one file that needs nothing else: its style and its drawings are within it, and it runs no code.
"""

from collections.abc import Iterator
from html import escape
from itertools import groupby

import pyarrow as pa

from features.declarations import FeatureGroup
from features.drift import DRIFT_PSI, SHIFT_PSI, Verdict
from features.statistics import Description, Measure
from features.words import duration_words, range_words
from pipelines.feature_statistics import drawings
from pipelines.feature_statistics.record import date_of
from pipelines.feature_statistics.report import FeatureReport, History
from pipelines.feature_statistics.words import number_words, share_words

NO_VERDICT = "none"
_MEANINGS = {
    Verdict.DRIFT: f"PSI above {DRIFT_PSI}, and above chance",
    Verdict.SHIFT: f"PSI above {SHIFT_PSI}, and above chance",
    Verdict.UNSURE: f"too few entities: chance alone may exceed {DRIFT_PSI}",
    Verdict.STABLE: "no more than chance, or small",
}


def page(report: FeatureReport) -> str:
    """The whole page as HTML."""
    first, last = date_of(report.days.start), date_of(report.days.stop - 1)
    groups = list(_by_group(report))
    return _PAGE.format(
        period=f"{first} to {last}, UTC",
        against=escape(report.reference.words),
        tiles="".join(_tiles(report)),
        links="".join(f'<a href="#{escape(group.name)}">{escape(group.name)}</a>' for group, _ in groups),
        look=_look(report),
        legend="".join(
            f"<span>{drawings.swatch(one)} <b>{one}</b> {escape(_MEANINGS[one])}</span>" for one in reversed(Verdict)
        ),
        groups="".join(_group(group, ones, report.days) for group, ones in groups),
    )


def _tiles(report: FeatureReport) -> Iterator[str]:
    for verdict in reversed(Verdict):
        count = report.count(verdict)
        yield f'<li class="{verdict if count else NO_VERDICT}"><b>{count:,}</b> {verdict}</li>'
    if count := report.count(None):
        yield f'<li class="{NO_VERDICT}"><b>{count:,}</b> not comparable</li>'


def _by_group(report: FeatureReport) -> Iterator[tuple[FeatureGroup, list[History]]]:
    for _, ones in groupby(report.histories, lambda one: one.group.name):
        histories = list(ones)
        yield histories[0].group, histories


def _look(report: FeatureReport) -> str:
    if not report.wanting:
        return '<p class="calm">Nothing needs a look.</p>'
    rows = "".join(_look_row(one) for one in report.wanting)
    return (
        '<div class="wide"><table class="look"><thead><tr><th>feature</th><th>why</th><th class="n">PSI</th>'
        '<th class="n">chance</th><th class="n">KL</th><th class="n">typical then</th><th class="n">now</th>'
        f'<th class="n">nulls then</th><th class="n">now</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _look_row(one: History) -> str:
    found, before, now = one.drift, one.reference, one.last
    unit = drawings.unit_of(one)
    told = [f"{value:.2f}" for value in (found.psi, found.chance, found.kl)] if found else ["–"] * 3
    told += (
        [_typical(before, unit), _typical(now, unit)] if not _is_text(one) else [_commonest(before), _commonest(now)]
    )
    told += [share_words(before.nulls, before.count) if before else "–", share_words(now.nulls, now.count)]
    cells = "".join(f'<td class="n">{text}</td>' for text in told)
    kind = found.verdict if found else NO_VERDICT
    return (
        f'<tr data-feature="{escape(one.name)}"><td><i class="{kind}"></i>'
        f'<a href="#{escape(one.name)}"><code>{escape(one.name)}</code></a></td>'
        f"<td>{escape(', '.join(one.complaints))}</td>{cells}</tr>"
    )


def _group(group: FeatureGroup, histories: list[History], days: range) -> str:
    facts = f"{group.cadence}, owned by {group.owner}, for {group.purpose}"
    parts = []
    for entity, ones in groupby(histories, lambda one: one.entity):
        cards = "".join(_card(one, days) for one in ones)
        parts.append(f'<h3>by <code>{escape(entity)}</code></h3><div class="cards">{cards}</div>')
    return (
        f'<section id="{escape(group.name)}"><h2>{escape(group.name)}</h2>'
        f"<p>{escape(group.description)} <small>{escape(facts)}</small></p>{''.join(parts)}</section>"
    )


def _card(one: History, days: range) -> str:
    is_vector = one.last.measure is Measure.ELEMENT and not pa.types.is_map(one.feature.arrow_type)
    plot = drawings.stacked_keys(one, days) if _is_text(one) else drawings.bands(one, days)
    keys = drawings.profile(one) if is_vector else drawings.key_list(one, coloured=_is_text(one))
    found = one.drift
    psi = f'<i class="{found.verdict}">PSI {found.psi:.2f}</i>' if found else f'<i class="{NO_VERDICT}">PSI –</i>'
    ends = f"<span>{date_of(days.start):%d %b}</span><span>{date_of(days.stop - 1):%d %b}</span>"
    return (
        f'<article id="{escape(one.name)}" data-feature="{escape(one.name)}" '
        f'data-verdict="{found.verdict if found else NO_VERDICT}"><header><h4>{escape(one.feature.name)}</h4>{psi}'
        f"</header><p>{escape(one.feature.description)} <small>{_kind(one)}</small></p>{plot}"
        f'<div class="axis">{ends}</div>'
        f'<div class="strip"><span>nulls</span>{drawings.null_strip(one, days)}</div>'
        f'<div class="strip"><span>PSI</span>{drawings.drift_strip(one, days)}</div>{keys}'
        f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{text}</dd></div>' for name, text in _facts(one))}</dl></article>"
    )


def _is_text(one: History) -> bool:
    """Whether a value is one text, which its length says little of."""
    return bool(pa.types.is_string(one.feature.arrow_type))


def _typical(one: Description | None, unit: str) -> str:
    return number_words(one.quantile(0.5) if one is not None else None, unit)


def _commonest(one: Description | None) -> str:
    return escape(next(iter(one.keys), "–")) if one is not None else "–"


def _kind(one: History) -> str:
    bounds = range_words(one.feature.range)
    said = [one.feature.unit, bounds, f"over {duration_words(one.feature.window_ms)}"]
    return escape(" · ".join(text for text in said if text))


def _facts(one: History) -> Iterator[tuple[str, str]]:
    """The newest day in figures."""
    now = one.last
    unit = drawings.unit_of(one)
    what = {Measure.VALUE: "", Measure.ELEMENT: " element", Measure.LENGTH: " length"}[now.measure]
    if not _is_text(one):
        yield f"median{what}", number_words(now.quantile(0.5), unit)
        yield f"mean{what}", number_words(now.mean, unit)
        yield "least, greatest", f"{number_words(now.least, unit)}, {number_words(now.greatest, unit)}"
    yield "nulls", f"{share_words(now.nulls, now.count)}"
    yield "distinct", f"{now.distinct:,}"
    yield "values", f"{now.count:,}"
    yield "entities", f"{now.entities:,}"
    if one.feature.range is not None:
        yield "out of range", f'<b class="drift">{now.outside:,}</b>' if now.outside else "0"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Features by day</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --line: #8883; --soft: #8881; --ink: #1d4ed8; --past: #b45309; --null: #6b7280;
  --stable: #15803d; --unsure: #9ca3af; --shift: #d97706; --drift: #dc2626;
  --k0: #2563eb; --k1: #0d9488; --k2: #d97706; --k3: #9333ea; --k4: #db2777; --rest: #9ca3af; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #60a5fa; --past: #fbbf24; --stable: #4ade80; --shift: #fbbf24;
  --drift: #f87171; --null: #9ca3af; --unsure: #6b7280; }} }}
* {{ box-sizing: border-box; }}
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 92rem; margin: 2rem auto; padding: 0 1.5rem; }}
h1 {{ margin: 0; font-size: 1.7rem; }} h2 {{ margin: 3rem 0 0; font-size: 1.25rem; }}
section h2 {{ font: 600 1.25rem ui-monospace, monospace; }}
h3 {{ margin: 1.2rem 0 .6rem; font-weight: 500; font-size: .95rem; }} h2 + p {{ margin: .2rem 0 0; }}
body > header p {{ margin: .15rem 0; opacity: .7; }} small {{ opacity: .65; }}
ul {{ display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; margin: 1.25rem 0; list-style: none; }}
li {{ flex: 0 0 8.5rem; padding: .6rem 1rem; border: 1px solid var(--line); border-top: 4px solid var(--unsure);
  border-radius: .4rem; }}
li b {{ display: block; font-size: 1.7rem; line-height: 1.2; }} li.none {{ color: #888; }}
li.stable {{ border-top-color: var(--stable); }} li.shift {{ border-top-color: var(--shift); }}
li.drift {{ border-top-color: var(--drift); }}
nav {{ display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font: .85rem ui-monospace, monospace; margin: 1rem 0; }}
a {{ color: inherit; text-decoration-color: var(--line); text-underline-offset: .2em; }}
.wide {{ overflow-x: auto; }} .look {{ border-collapse: collapse; width: 100%; font-size: .88rem; }}
.look th {{ font-weight: 500; opacity: .65; }} .look th, .look td {{ padding: .32rem .9rem .32rem 0; text-align: left;
  border-bottom: 1px solid var(--line); white-space: nowrap; }}
.look .n {{ text-align: right; font-variant-numeric: tabular-nums; }}
.calm {{ padding: .8rem 1rem; background: var(--soft); border-radius: .4rem; }}
.legend {{ display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; font-size: .82rem; opacity: .85; margin: 1.25rem 0 0; }}
.legend svg {{ display: inline-block; width: 12px; height: 12px; vertical-align: -1px; }}
.legend svg.wide-key {{ width: 26px; height: 14px; vertical-align: -2px; }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(17.25rem, 1fr)); gap: .9rem; }}
article {{ border: 1px solid var(--line); border-radius: .5rem; padding: .8rem .9rem .7rem; min-width: 0; }}
article:target {{ outline: 2px solid var(--ink); }}
article[data-verdict=drift] {{ border-color: var(--drift); }}
article[data-verdict=shift] {{ border-color: var(--shift); }}
article header {{ display: flex; justify-content: space-between; gap: .6rem; align-items: baseline; }}
h4 {{ margin: 0; font: 600 .92rem ui-monospace, monospace; overflow-wrap: anywhere; }}
article p {{ margin: .15rem 0 .6rem; font-size: .8rem; min-height: 2.4em; }} article p small {{ white-space: nowrap; }}
i {{ font-style: normal; font-weight: 600; font-size: .8rem; white-space: nowrap; font-variant-numeric: tabular-nums; }}
i::before {{ content: "●"; margin-right: .3rem; }} .look i {{ margin-right: .25rem; }}
i.stable {{ color: var(--stable); }} i.shift {{ color: var(--shift); }} i.drift, b.drift {{ color: var(--drift); }}
i.unsure, i.none {{ color: var(--unsure); }}
svg {{ display: block; width: 100%; }} svg path {{ vector-effect: non-scaling-stroke; }}
.plot, .axis, .strip {{ margin-right: 3.4rem; position: relative; }}
.plot svg {{ height: 84px; }} .profile svg {{ height: 40px; margin-top: .5rem; }}
.plot span, .strip span {{ position: absolute; left: calc(100% + .35rem); width: 3.2rem; font-size: .68rem;
  line-height: 1.1; opacity: .65; white-space: nowrap; }}
.plot .top {{ top: 0; }} .plot .bottom {{ bottom: 0; }} .strip span {{ bottom: 1px; }}
.axis {{ display: flex; justify-content: space-between; font-size: .68rem; opacity: .6;
  margin-top: .1rem; margin-bottom: .25rem; }}
.strip {{ margin-top: .3rem; }} .strip svg {{ height: 14px; }}
.outer {{ fill: var(--ink); opacity: .14; }} .inner {{ fill: var(--ink); opacity: .22; }}
.median {{ fill: none; stroke: var(--ink); stroke-width: 1.8; }} .now {{ fill: var(--ink); }}
.past {{ fill: none; stroke: var(--past); stroke-width: 1.2; stroke-dasharray: 4 3; }}
.mark {{ fill: none; stroke: var(--past); stroke-width: 2; }} .bar {{ fill: var(--ink); opacity: .65; }}
.floor {{ fill: none; stroke: var(--line); stroke-width: 1; }} .null {{ fill: var(--null); }}
.k0 {{ fill: var(--k0); }} .k1 {{ fill: var(--k1); }} .k2 {{ fill: var(--k2); }} .k3 {{ fill: var(--k3); }}
.k4 {{ fill: var(--k4); }} .rest {{ fill: var(--rest); opacity: .6; }}
rect.stable {{ fill: var(--stable); }} rect.unsure {{ fill: var(--unsure); }} rect.shift {{ fill: var(--shift); }}
rect.drift {{ fill: var(--drift); }} text {{ font-size: 12px; fill: currentColor; opacity: .5; }}
.keys {{ width: 100%; border-collapse: collapse; font-size: .78rem; margin-top: .55rem; }}
.keys td {{ padding: .05rem 0; }} .keys td:first-child {{ max-width: 8.5rem; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }}
.keys td:nth-child(2) {{ width: 110px; }} .keys svg {{ width: 102px; height: 12px; }}
.keys td:last-child {{ text-align: right; width: 3.6rem; font-variant-numeric: tabular-nums; }}
dl {{ display: flex; flex-wrap: wrap; gap: .15rem .9rem; margin: .6rem 0 0; font-size: .76rem; }}
dl div {{ display: flex; gap: .3rem; }} dt {{ opacity: .6; }} dd {{ margin: 0; font-variant-numeric: tabular-nums; }}
</style></head><body>
<header><h1>Features by day</h1><p>{period}</p><p>Compared with {against}</p></header>
<ul>{tiles}</ul>
<h2>What needs a look</h2>{look}
<nav>{links}</nav>
<div class="legend">
<span><svg class="wide-key" viewBox="0 0 26 14" aria-hidden="true"><rect class="outer" width="26" height="14"/>
<rect class="inner" y="4" width="26" height="6"/><path class="median" d="M0 7H26"/></svg>
median, 50 % and 90 % of values</span>
<span><svg class="wide-key" viewBox="0 0 26 14" aria-hidden="true"><path class="past" d="M0 7H16"/>
<path class="mark" d="M21 2V12"/></svg>
the reference</span>{legend}<span>bars of PSI are full from 0.5 up, bars of nulls where all are null</span></div>
{groups}
</body></html>
"""
