"""The page of one run: how much is exact, why the rest is not, and every feature.

It is one file that needs nothing else: its style is within it, and it runs no code. No id is on it.
"""

from collections.abc import Iterator
from html import escape

from pipelines.consistency.comparing import FeatureResult, Reason
from pipelines.consistency.record import TargetResult
from pipelines.consistency.station import Consistency
from pipelines.quality.results import instant

GOAL = 0.999
_MEANINGS = {
    Reason.NOT_YET_PROCESSED: "the stream had not come to the last events before the instant; without them it is equal",
    Reason.LATE_EVENT: "an event came in after newer ones and after the answer; without it, it is equal",
    Reason.NOT_YET_PUBLISHED: "the boundary's values were published after the answer; at the one before it is equal",
    Reason.CONSENT_CHANGED: "it is withheld by now; with consent as it stood it is equal",
    Reason.OLDER_VERSION: "the service had another declaration of the group",
    Reason.DEGRADED: "the store was slow or away, and the answer said so",
    Reason.NOT_EXAMINED: "more differ than are looked into in one run",
    Reason.UNEXPLAINED: "none of these: somebody should look at it",
}


def page(found: Consistency) -> str:
    """The whole page as HTML."""
    whole = found.whole
    differing = whole.compared - whole.identical - whole.close
    sections = "".join(_section(one) for one in found.results)
    return _PAGE.format(
        when=f"{instant(found.measured_ms):%Y-%m-%d %H:%M} UTC",
        tiles="".join(_tiles(found)),
        reasons=_reasons(found.reasons) if differing else f'<p class="calm">{_calm(whole.compared)}</p>',
        sections=sections,
    )


def _calm(compared: int) -> str:
    return "Every value is exact." if compared else "No answer was compared: nothing was served, or not settled yet."


def _tiles(found: Consistency) -> Iterator[str]:
    whole = found.whole
    share = whole.exact_share
    state = "none" if share is None else "ok" if share >= GOAL else "warn"
    unexplained = found.reasons.get(Reason.UNEXPLAINED, 0)
    left = sum(one.left for one in found.results)
    yield f'<li class="{state}"><b>{_share(share)}</b> exact</li>'
    yield f'<li class="none"><b>{whole.compared:,}</b> values</li>'
    for name in ("missing", "extra", "different"):
        count = getattr(whole, name)
        yield f'<li class="{"warn" if count else "none"}"><b>{count:,}</b> {name}</li>'
    yield f'<li class="{"fail" if unexplained else "ok"}"><b>{unexplained:,}</b> unexplained</li>'
    yield f'<li class="none"><b>{left:,}</b> answers left for the next run</li>'


def _reasons(reasons: dict[str, int]) -> str:
    rows = "".join(
        f'<tr data-reason="{escape(reason)}"><td>{escape(reason)}</td><td class="n">{count:,}</td>'
        f"<td>{escape(_MEANINGS[Reason(reason)])}</td></tr>"
        for reason, count in sorted(reasons.items(), key=lambda one: -one[1])
    )
    return f'<div class="wide"><table><tr><th>reason</th><th class="n">values</th><th></th></tr>{rows}</table></div>'


def _section(one: TargetResult) -> str:
    name = f"{escape(one.target.group.name)} <small>by {escape(one.target.entity)}</small>"
    rows = "".join(_row(feature, result) for feature, result in one.features.items())
    left = f", {one.left:,} left for the next run" if one.left else ""
    lost = f", {one.without_instant:,} without an instant" if one.without_instant else ""
    return (
        f'<h2>{name}</h2><p>{one.answers:,} answers{left}{lost}</p><div class="wide"><table><tr><th>feature</th>'
        '<th class="n">exact</th><th class="n">to the bit</th><th class="n">close</th><th class="n">missing</th>'
        '<th class="n">extra</th><th class="n">different</th><th class="n">SMAPE</th><th>why</th>'
        f"<th>age of the worst</th></tr>{rows}</table></div>"
    )


def _row(feature: str, result: FeatureResult) -> str:
    tally = result.tally
    why = ", ".join(f"{escape(reason)} {count:,}" for reason, count in result.reasons.items())
    ages = ", ".join("unknown key" if one.age_ms is None else _age(one.age_ms) for one in result.worst)
    smape = "" if tally.smape is None else f"{tally.smape:.2%}"
    state = "" if tally.exact_share is None or tally.exact_share >= GOAL else ' class="warn"'
    return (
        f"<tr{state}><td><code>{escape(feature)}</code></td>"
        f'<td class="n">{_share(tally.exact_share)}</td><td class="n">{tally.identical:,}</td>'
        f'<td class="n">{tally.close:,}</td><td class="n">{tally.missing:,}</td><td class="n">{tally.extra:,}</td>'
        f'<td class="n">{tally.different:,}</td><td class="n">{smape}</td><td>{why}</td><td>{ages}</td></tr>'
    )


def _age(age_ms: int) -> str:
    for unit, length_ms in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if age_ms >= length_ms:
            return f"{age_ms / length_ms:.3g} {unit}"
    return f"{age_ms / 1000:.3g} s"


def _share(share: float | None) -> str:
    return "–" if share is None else "100 %" if share == 1 else f"{min(share, 0.9999):.2%}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Consistency of served features</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --line: #8883; --soft: #8881; --ok: #15803d; --warn: #b45309; --fail: #b91c1c; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ok: #4ade80; --warn: #fbbf24; --fail: #f87171; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1.25rem; }}
h1 {{ margin: 0; font-size: 1.7rem; }} h2 {{ margin: 2.2rem 0 0; font: 600 1.1rem ui-monospace, monospace; }}
h2 + p, header p {{ margin: .15rem 0 .5rem; opacity: .7; }} small {{ opacity: .65; font-weight: 400; }}
ul {{ display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; margin: 1.25rem 0; list-style: none; }}
li {{ flex: 0 0 8rem; padding: .6rem 1rem; border: 1px solid var(--line); border-top: 4px solid;
  border-radius: .4rem; }}
li b {{ display: block; font-size: 1.6rem; line-height: 1.2; color: CanvasText; }}
li.ok {{ color: var(--ok); }} li.warn {{ color: var(--warn); }} li.fail {{ color: var(--fail); }}
li.none {{ color: #888; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; width: 100%; font-size: .88rem; }}
th {{ font-weight: 500; opacity: .65; }}
th, td {{ padding: .32rem .7rem .32rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: baseline; }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
tr.warn .n:nth-child(2) {{ color: var(--warn); font-weight: 600; }}
code {{ font-size: .95em; white-space: nowrap; }}
.calm {{ padding: .8rem 1rem; background: var(--soft); border-radius: .4rem; }}
</style></head><body>
<header><h1>Served features against the batch</h1><p>compared at {when}; exact: equal, or numbers within 10⁻⁹</p>
</header>
<ul>{tiles}</ul>
{reasons}
{sections}
</body></html>
"""
