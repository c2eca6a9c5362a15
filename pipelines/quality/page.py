"""The page of one run: what needs a look first, every result, and the volume of every topic by hour.

It is one file that needs nothing else: its style and its drawings are within it, and it runs no code.
"""

from collections.abc import Sequence
from html import escape

import polars as pl

from pipelines.quality.arrivals import HOUR_MS
from pipelines.quality.results import Check, Result, Status, instant, value_text
from pipelines.quality.station import QualityRun
from pipelines.quality.subject import WEEK_MS

MEANINGS = {
    Check.SCHEMA_REJECTS: "Messages that could not be read, as a share of what each topic received.",
    Check.TIMESTAMPS: "Client timestamps more than five minutes off the server's, as a share.",
    Check.DUPLICATES: "Events that repeat one of the hour before, as a share of each topic; in silver, rows: none may.",
    Check.EXACTLY_ONCE: "Kafka offsets in bronze more than once, and messages or rows that are unaccounted for.",
    Check.MISSING_FIELDS: "Events set aside for want of a field, and nulls where a value is required, as shares.",
    Check.REFERENCES: "Ids of contents and channels that neither catalogue nor schedule knows, as a share.",
    Check.VOLUME: "The hour that differs most from the same hour last week, as a share of last week's.",
    Check.FRESHNESS: "Time since each topic's last event.",
}
WIDTH, HEIGHT = 480, 36  # of one sparkline, in its own units


def page(run: QualityRun) -> str:
    """The whole page as HTML."""
    results, window = run.findings.results, run.window
    wanting = [one for one in results if one.status is not Status.OK]
    sections = "".join(_section(check, [one for one in results if one.check is check]) for check in Check)
    return _PAGE.format(
        tiles="".join(_tile(status, run.findings.count(status)) for status in Status),
        when=_time(run.findings.measured_ms),
        window=f"{_time(window.start_ms)} to {_time(window.end_ms)}",
        first=_table(wanting, with_check=True) if wanting else f'<p class="calm">{_calm(results)}</p>',
        sections=sections,
        volumes=_volumes(run),
    )


def _calm(results: Sequence[Result]) -> str:
    return "Nothing needs a look." if results else "There is nothing to judge yet: no event has been ingested."


def _tile(status: Status, count: int) -> str:
    return f'<li class="{status if count else "none"}"><b>{count:,}</b> {status}</li>'


def _section(check: Check, results: Sequence[Result]) -> str:
    if not results:
        return ""
    worst = max((one.status for one in results), key=list(Status).index)
    title = str(check).replace("_", " ").capitalize()
    tally = f"{sum(one.status is Status.OK for one in results)} of {len(results)} ok"
    return (
        f'<details id="{check}"><summary>{_mark(worst)}<b>{title}</b><span>{escape(MEANINGS[check])}</span>'
        f"<small>{tally}</small></summary>{_table(results, with_check=False)}</details>"
    )


def _table(results: Sequence[Result], *, with_check: bool) -> str:
    head = "<th>check</th>" if with_check else ""
    rows = "".join(_row(one, with_check=with_check) for one in results)
    return (
        f'<div class="wide"><table><thead><tr><th></th>{head}<th>subject</th><th class="n">observed</th>'
        f'<th class="n">at most</th><th>detail</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(result: Result, *, with_check: bool) -> str:
    check = f"<td>{str(result.check).replace('_', ' ')}</td>" if with_check else ""
    return (
        f'<tr data-check="{result.check}" data-status="{result.status}"><td>{_mark(result.status)}</td>{check}'
        f'<td><code>{escape(result.subject)}</code></td><td class="n">{value_text(result, result.observed)}</td>'
        f'<td class="n">{value_text(result, result.threshold)}</td><td>{escape(result.detail)}</td></tr>'
    )


def _mark(status: Status) -> str:
    return f'<i class="{status}">{status}</i>'


def _volumes(run: QualityRun) -> str:
    rows = "".join(
        _volume(str(topic), counted, run) for (topic,), counted in run.arrived.group_by("topic", maintain_order=True)
    )
    if not rows:
        return ""
    return (
        '<h2>Volume by topic and hour</h2><p class="key"><svg width="24" height="12" aria-hidden="true">'
        '<rect x="8" width="6" height="12"/></svg> events of an hour <svg width="24" height="12" aria-hidden="true">'
        '<path d="M0 6H24"/></svg> the same hour last week</p><div class="wide"><table class="volumes">'
        '<thead><tr><th>topic</th><th>by hour</th><th class="n">events</th><th class="n">most in an hour</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _volume(topic: str, counted: pl.DataFrame, run: QualityRun) -> str:
    rows: dict[int, int] = dict(counted.select("hour_ms", "rows").iter_rows())
    hours = range(run.window.start_ms, run.window.end_ms, HOUR_MS)
    now = [rows.get(hour, 0) for hour in hours]
    before = [rows.get(hour - WEEK_MS, 0) for hour in hours]
    return (
        f"<tr><td><code>{escape(topic)}</code></td><td>{_sparkline(topic, now, before)}</td>"
        f'<td class="n">{sum(now):,}</td><td class="n">{max(now, default=0):,}</td></tr>'
    )


def _sparkline(topic: str, now: Sequence[int], before: Sequence[int]) -> str:
    """Bars for this week's hours, and a line of steps for last week's where there was any event."""
    top = max(*now, *before, 1)
    step = WIDTH / len(now)
    bars = "".join(
        f'<rect x="{position * step:.1f}" y="{HEIGHT - height:.1f}" width="{max(step - 1, 0.5):.1f}" '
        f'height="{height:.1f}"/>'
        for position, height in enumerate(_heights(now, top))
        if height
    )
    line = ""
    if any(before):
        steps = (
            f"{'L' if position else 'M'}{position * step:.1f} {HEIGHT - height:.1f}H{(position + 1) * step:.1f}"
            for position, height in enumerate(_heights(before, top))
        )
        line = f'<path d="{"".join(steps)}"/>'
    label = escape(f"{topic}: {sum(now):,} events in {len(now)} hours, {sum(before):,} a week earlier")
    return (
        f'<svg viewBox="0 -1 {WIDTH} {HEIGHT + 2}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{label}"><title>{label}</title>{bars}{line}</svg>'
    )


def _heights(counts: Sequence[int], top: int) -> list[float]:
    return [max(1.0, HEIGHT * count / top) if count else 0.0 for count in counts]


def _time(at_ms: int) -> str:
    return f"{instant(at_ms):%Y-%m-%d %H:%M} UTC"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Data quality</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --line: #8883; --soft: #8881; --bar: #3b82f6; --past: #f59e0b;
  --ok: #15803d; --warn: #b45309; --fail: #b91c1c; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ok: #4ade80; --warn: #fbbf24; --fail: #f87171; --bar: #60a5fa; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1.25rem; }}
h1 {{ margin: 0; font-size: 1.7rem; }} h2 {{ margin: 2.5rem 0 .5rem; font-size: 1.15rem; }}
header p {{ margin: .15rem 0; opacity: .7; }}
ul {{ display: flex; gap: .75rem; padding: 0; margin: 1.25rem 0; list-style: none; }}
li {{ flex: 0 0 8rem; padding: .6rem 1rem; border: 1px solid var(--line); border-top: 4px solid;
  border-radius: .4rem; }}
li b {{ display: block; font-size: 1.7rem; line-height: 1.2; color: CanvasText; }}
li.ok, i.ok {{ color: var(--ok); }} li.warn, i.warn {{ color: var(--warn); }} li.fail, i.fail {{ color: var(--fail); }}
li.none {{ color: #888; }}
i {{ font-style: normal; font-weight: 600; font-size: .8rem; white-space: nowrap; }}
i::before {{ content: "●"; margin-right: .35rem; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; width: 100%; font-size: .88rem; }}
th {{ font-weight: 500; opacity: .65; }}
th, td {{ padding: .32rem .7rem .32rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: baseline; }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
code {{ font-size: .95em; white-space: nowrap; }}
details {{ border-bottom: 1px solid var(--line); padding: .5rem 0; }}
details[open] {{ padding-bottom: 1.25rem; }}
summary {{ cursor: pointer; display: flex; gap: .9rem; align-items: baseline; }}
summary i {{ flex: 0 0 4.6rem; }} summary b {{ flex: 0 0 9rem; }} summary span {{ flex: 1; opacity: .7; }}
summary small {{ white-space: nowrap; opacity: .7; }}
summary::after {{ content: "▸"; opacity: .5; }} details[open] summary::after {{ content: "▾"; }}
.calm {{ padding: .8rem 1rem; background: var(--soft); border-radius: .4rem; }}
.volumes td {{ vertical-align: middle; }} .key {{ font-size: .85rem; opacity: .8; margin: 0 0 .5rem; }}
svg {{ vertical-align: middle; overflow: visible; }} rect {{ fill: var(--bar); }}
path {{ fill: none; stroke: var(--past); stroke-width: 1.5; }}
</style></head><body>
<header><h1>Data quality</h1><p>Events of {window}</p><p>Measured {when}</p></header>
<ul>{tiles}</ul>
<h2>What needs a look</h2>{first}
<h2>All checks</h2>{sections}
{volumes}
</body></html>
"""
