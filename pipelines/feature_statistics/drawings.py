"""Small drawings of one feature, as SVG within the page: no script, no outside reference, one scale of days for all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby

from features.drift import Verdict
from features.statistics import Description, Measure
from pipelines.feature_statistics.record import date_of
from pipelines.feature_statistics.report import History
from pipelines.feature_statistics.words import number_words, share_words

WIDTH, HEIGHT = 320.0, 84.0
STRIP = 14.0
SHOWN_KEYS = 6
OTHERS = "others"


def bands(history: History, days: range) -> str:
    """The median by day in the bands of 50 and 90 % of all values; the reference's median is dashed."""
    told = {day: one for day, one in history.days.items() if one.quantiles}
    if not told:
        return _drawing("no value on any of these days", HEIGHT, _message("no value on any of these days"))
    unit = unit_of(history)
    reference = history.reference.quantile(0.5) if history.reference else None
    ends = [_at(one, share) for one in told.values() for share in (0.05, 0.95)]
    ends += [reference] if reference is not None else []
    low, high = min(ends), max(ends)
    if low == high:
        low, high = low - 1, high + 1

    def y(value: float) -> float:
        return 4 + (HEIGHT - 8) * (1 - (value - low) / (high - low))

    drawn = []
    if reference is not None:
        drawn.append(f'<path class="past" d="M0 {y(reference):.1f}H{WIDTH:.0f}"/>')
    for stretch in _stretches(sorted(told)):
        for name, lower, upper in (("outer", 0.05, 0.95), ("inner", 0.25, 0.75)):
            drawn.append(f'<path class="{name}" d="{_area(stretch, told, days, lower, upper, y)}"/>')
        drawn.append(f'<path class="median" d="{_steps(stretch, lambda day: y(_at(told[day], 0.5)), days)}"/>')
    newest = max(told)
    median = _at(told[newest], 0.5)
    drawn.append(f'<circle class="now" cx="{_middle(newest, days):.1f}" cy="{y(median):.1f}" r="3"/>')
    label = f"{history.name}: median {number_words(median, unit)} on {date_of(newest)}, half of all values from "
    label += f"{number_words(_at(told[newest], 0.25), unit)} to {number_words(_at(told[newest], 0.75), unit)}"
    scale = f'<span class="top">{number_words(high, unit)}</span><span class="bottom">{number_words(low, unit)}</span>'
    return f'<div class="plot">{_drawing(label, HEIGHT, "".join(drawn))}{scale}</div>'


def stacked_keys(history: History, days: range) -> str:
    """What the heaviest keys of the newest day weighed by day, stacked to the whole."""
    keys = list(history.last.keys)[: SHOWN_KEYS - 1]
    step = WIDTH / len(days)
    drawn = []
    for day, one in sorted(history.days.items()):
        below = HEIGHT
        for place, share in enumerate([*_shares(one, keys).values()]):
            if share > 0:
                below -= share * HEIGHT
                kind = f"k{place}" if place < len(keys) else "rest"
                drawn.append(
                    f'<rect class="{kind}" x="{(day - days.start) * step + 0.5:.1f}" y="{below:.1f}" '
                    f'width="{max(step - 1, 1):.1f}" height="{share * HEIGHT:.1f}"/>'
                )
    said = ", ".join(f"{key} {share_words(share, 1)}" for key, share in _shares(history.last, keys).items() if share)
    label = f"{history.name} on {date_of(history.last_day)}: {said or 'no value'}"
    return f'<div class="plot">{_drawing(label, HEIGHT, "".join(drawn))}</div>'


def key_list(history: History, *, coloured: bool) -> str:
    """The heaviest keys of the newest day with their shares; a mark where the reference had them."""
    keys = list(history.last.keys)[: SHOWN_KEYS - 1]
    now = _shares(history.last, keys)
    before = _shares(history.reference, keys) if history.reference else {}
    drawn = [*keys, OTHERS] if coloured else keys  # beside thousands of titles, the bar of all others is all one sees
    longest = max([*(now[key] for key in drawn), *(before.get(key, 0.0) for key in drawn), 1e-9])
    lines = []
    for place, (key, share) in enumerate(now.items()):
        if not share and not before.get(key):
            continue
        kind = ("rest" if key not in keys else f"k{place}") if coloured else "bar"
        bar = f'<rect class="{kind}" y="2" width="{100 * share / longest:.1f}" height="8"/>' if key in drawn else ""
        if key in before and key in drawn:
            bar += f'<path class="mark" d="M{100 * before[key] / longest:.1f} 0V12"/>'
        svg = f'<svg viewBox="-1 0 102 12" width="102" height="12" aria-hidden="true">{bar}</svg>'
        name = escape(key) or "(empty)"
        lines.append(f'<tr><td title="{escape(key)}">{name}</td><td>{svg}</td><td>{share_words(share, 1)}</td></tr>')
    return f'<table class="keys">{"".join(lines)}</table>' if lines else ""


def profile(history: History) -> str:
    """What is at each place of lists of numbers on the newest day, on average; a mark where the reference had it."""
    now, before = _means(history.last), _means(history.reference) if history.reference else {}
    if not now:
        return ""
    places = range(max(map(int, now)) + 1)
    top = max([*now.values(), *before.values(), 1e-9])
    step, height = WIDTH / len(places), 40.0
    drawn = []
    for place in places:
        tall, was = height * now.get(str(place), 0) / top, before.get(str(place))
        drawn.append(
            f'<rect class="bar" x="{place * step + 0.5:.1f}" y="{height - tall:.1f}" width="{step - 1:.1f}" '
            f'height="{tall:.1f}"/>'
        )
        if was is not None:
            y = height - height * was / top
            drawn.append(f'<path class="mark" d="M{place * step + 0.5:.1f} {y:.1f}h{step - 1:.1f}"/>')
    unit = unit_of(history)
    said = ", ".join(number_words(now.get(str(place)), unit) for place in places)
    label = f"{history.name}: mean by place on {date_of(history.last_day)}: {said}"
    return f'<div class="profile">{_drawing(label, height, "".join(drawn))}</div>'


def null_strip(history: History, days: range) -> str:
    """Share of nulls by day: a full bar is all."""
    bars = "".join(
        _strip_bar("null", day, days, max(1.0, STRIP * one.nulls / one.count))
        for day, one in sorted(history.days.items())
        if one.nulls
    )
    said = share_words(history.last.nulls, history.last.count)
    return _drawing(f"{history.name}: {said} null on {date_of(history.last_day)}", STRIP, _floor(STRIP) + bars)


def drift_strip(history: History, days: range) -> str:
    """PSI by day: a cell coloured by its verdict, the taller the more, full from 0.5 up."""
    cells = "".join(
        _strip_bar(str(one.verdict), day, days, max(2.0, STRIP * min(1.0, one.psi / 0.5)))
        for day, one in sorted(history.drifts.items())
    )
    said = f"PSI {history.drift.psi:.2f}, {history.drift.verdict}" if history.drift else "nothing to compare with"
    return _drawing(f"{history.name}: {said} on {date_of(history.last_day)}", STRIP, _floor(STRIP) + cells)


def _strip_bar(kind: str, day: int, days: range, tall: float) -> str:
    """A day's bar in a strip of all days, of a kind that the page's style colours."""
    step = WIDTH / len(days)
    left, wide = (day - days.start) * step + 0.5, max(step - 1, 1)
    return f'<rect class="{kind}" x="{left:.1f}" y="{STRIP - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'


def swatch(verdict: Verdict) -> str:
    """The colour of a verdict, for the legend."""
    return f'<svg width="12" height="12" aria-hidden="true"><rect class="{verdict}" width="12" height="12"/></svg>'


def unit_of(history: History) -> str:
    """The unit of the numbers that are told of a feature: a length has none."""
    return "" if history.last.measure is Measure.LENGTH else history.feature.unit


def _at(one: Description, share: float) -> float:
    value = one.quantile(share)
    assert value is not None
    return value


def _shares(one: Description, keys: Sequence[str]) -> dict[str, float]:
    """Share of each of the keys, and of all others."""
    whole = one.keys_weight or 1.0
    shares = {key: one.keys.get(key, 0.0) / whole for key in keys}
    rest = 1 - sum(shares.values()) if one.keys_weight else 0.0
    return shares | {OTHERS: rest if rest > 1e-9 else 0.0}


def _means(one: Description) -> dict[str, float]:
    return {key: weight / one.present for key, weight in one.keys.items()} if one.present else {}


def _middle(day: int, days: range) -> float:
    return (day - days.start + 0.5) * WIDTH / len(days)


def _stretches(days: Sequence[int]) -> Iterator[list[int]]:
    """Days that follow one another: what is not known is not drawn."""
    for _, stretch in groupby(enumerate(days), lambda item: item[1] - item[0]):
        yield [day for _, day in stretch]


def _steps(stretch: Sequence[int], y: Callable[[int], float], days: range) -> str:
    half = WIDTH / len(days) / 2
    points = [(_middle(day, days), y(day)) for day in stretch]
    if len(points) == 1:
        ((x, height),) = points
        return f"M{x - half:.1f} {height:.1f}h{2 * half:.1f}"
    return "M" + "L".join(f"{x:.1f} {height:.1f}" for x, height in points)


def _area(
    stretch: Sequence[int],
    told: Mapping[int, Description],
    days: range,
    lower: float,
    upper: float,
    y: Callable[[float], float],
) -> str:
    above = _steps(stretch, lambda day: y(_at(told[day], upper)), days)
    if len(stretch) == 1:
        tall = y(_at(told[stretch[0]], lower)) - y(_at(told[stretch[0]], upper))
        return f"{above}v{tall:.1f}h-{WIDTH / len(days):.1f}Z"
    below = "L".join(f"{_middle(day, days):.1f} {y(_at(told[day], lower)):.1f}" for day in reversed(stretch))
    return f"{above}L{below}Z"


def _floor(height: float) -> str:
    return f'<path class="floor" d="M0 {height:.0f}H{WIDTH:.0f}"/>'


def _message(text: str) -> str:
    return f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT / 2:.0f}" text-anchor="middle">{escape(text)}</text>'


def _drawing(label: str, height: float, content: str) -> str:
    said = escape(label)
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" preserveAspectRatio="none" role="img" aria-label="{said}">'
        f"<title>{said}</title>{content}</svg>"
    )
