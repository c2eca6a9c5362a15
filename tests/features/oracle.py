"""A second, slow engine in plain Python, written from the platform's rules and sharing no line with the first.

Everything is lists, dicts and loops over events; every number is spelt out; nothing of `features` is imported.
"""

from collections import defaultdict
from datetime import UTC, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo


def hop(window):
    """5 minutes for windows under 12 hours, 1 hour up to 12 days, 1 day above."""
    if window < 43_200_000:
        return 300_000
    return 3_600_000 if window <= 1_036_800_000 else 86_400_000


def floor(instant, step):
    return (instant // step) * step


def in_window(rows, end, window):
    return [row for row in rows if floor(end - window, hop(window)) <= row["time"] < end]


def days(number):
    return number * 86_400_000


def title_of(titles, content_id, time):
    """Latest row at or before the event, else the earliest."""
    own = sorted((title for title in titles if title["content_id"] == content_id), key=lambda title: title["time"])
    before = [title for title in own if title["time"] <= time]
    return (before or own[:1] or [None])[-1]


def weekday(event):
    time = event["time"]
    if event["client_timestamp_reliable"] and event["client_timestamp"] is not None:
        time = event["client_timestamp"]
    zone = ZoneInfo(event["time_zone"]) if event["time_zone"] else UTC
    return datetime.fromtimestamp(time / 1000, tz=UTC).astimezone(zone).weekday()


def split_in_playbacks(events):
    """Lists of events, each list one playback in the order of time and id."""
    playbacks = []
    chains = defaultdict(list)
    for event in sorted(events, key=lambda event: (event["time"], event["event_id"])):
        if event["playback_id"] is not None:
            chains["id", event["profile_id"], event["playback_id"]].append(event)
            continue
        session = event["session_id"] if event["session_id"] is not None else event["viewer_token"]
        chains["session", event["profile_id"], session, event["content_id"]].append(event)
    for kind, chain in ((key[0], chain) for key, chain in chains.items()):
        current = []
        last_mark = None
        for event in chain:
            started = event["event_name"] == "playback.started"
            if kind == "session" and current:
                gap = event["time"] - current[-1]["time"] > 30 * 60 * 1000
                if gap or (started and last_mark == "playback.stopped"):
                    playbacks.append(current)
                    current = []
            current.append(event)
            if event["event_name"] in ("playback.started", "playback.stopped"):
                last_mark = event["event_name"]
        playbacks.append(current)
    return playbacks


def walk(playback, titles):
    """What each event of one playback says about viewing."""
    rows = []
    playing, switched, was_started, previous = False, False, False, None
    for event in playback:
        name = event["event_name"]
        watched = event["time"] - previous if playing and name != "playback.started" else 0
        title = title_of(titles, event["content_id"], event["time"])
        content_type = event["content_type"] or (title["content_type"] if title else None)
        row = dict(event, watched=watched, content_type=content_type, weekday=weekday(event))
        row["genres"] = (title["genres"] if title else None) or []
        row["start"] = name == "playback.started" and not was_started
        row["stop"] = name == "playback.stopped"
        percent = event["completion_percent"]
        row["complete"] = percent > 90 if row["stop"] and content_type == "vod" and percent is not None else None
        row["finished"] = row["stop"] and percent is not None and percent >= 50
        if row["start"] or row["stop"] or watched > 0:
            rows.append(row)
        if row["stop"]:
            break
        if name in ("playback.started", "playback.resumed"):
            playing, switched = True, True
        elif name == "playback.paused":
            playing, switched = False, True
        elif name == "playback.heartbeat" and not switched:
            playing = True
        was_started = was_started or name == "playback.started"
        previous = event["time"]
    return rows


def viewing(events, titles):
    rows = [row for playback in split_in_playbacks(events) for row in walk(playback, titles)]
    return sorted(rows, key=lambda row: (row["time"], row["event_id"]))


def rate(yes, all_of_them):
    return yes / all_of_them if all_of_them else None


def completion(rows):
    known = [row["complete"] for row in rows if row["complete"] is not None]
    return rate(sum(known), len(known))


def shares(rows, keys_of):
    time = defaultdict(Fraction)
    for row in rows:
        keys = keys_of(row)
        for key in keys:
            time[key] += Fraction(row["watched"], len(keys))
    whole = sum(time.values())
    return {key: float(part / whole) for key, part in sorted(time.items()) if part} if whole else None


def user_viewing_history(events, titles, entity, value, t):
    """Features and age of a viewer for a request at t, from the events before t - 2 s alone."""
    now = t - 2000
    rows = viewing([event for event in events if event["time"] < now], titles)
    rows = [row for row in rows if row[entity] == value]
    names = ["last_30_day_genres", "avg_session_duration", "completion_rate", "viewing_hours_per_dow"]
    names += ["preferred_content_type", "recent_titles", "completed_titles"]
    if not rows:
        return dict.fromkeys(names), None
    age = t - max(row["time"] for row in rows)
    if age > days(90):
        return dict.fromkeys(names), age
    month, four_weeks = in_window(rows, now, days(30)), in_window(rows, now, days(28))
    hours = [0.0] * 7
    for day in range(7):
        hours[day] = sum(row["watched"] for row in four_weeks if row["weekday"] == day) / 3_600_000
    types = shares(month, lambda row: [row["content_type"]] if row["content_type"] else [])
    longest = max(types.values()) if types else None
    quarter = in_window(rows, now, days(90))
    finished = [row["content_id"] for row in quarter if row["finished"]]
    completed = [row["content_id"] for row in quarter if row["complete"]]
    started = sum(row["start"] for row in month)
    values = [
        shares(month, lambda row: row["genres"]),
        rate(sum(row["watched"] for row in month), started),
        completion(month),
        hours if four_weeks else None,
        min(key for key, share in types.items() if share == longest) if types else None,
        finished[-100:] or None,
        completed[-32:] or None,
    ]
    return dict(zip(names, values, strict=True)), age


def content_popularity(events, titles, content_id, t):
    """Features and age of a title for a request at t: as of the last full hour 15 minutes before t."""
    now = floor(t - 900_000, 3_600_000)
    rows = viewing([event for event in events if event["time"] < now], titles)
    rows = [row for row in rows if row["content_id"] == content_id]
    names = ["hourly_viewers", "daily_unique_viewers", "completion_rate", "trending_velocity"]
    if not rows:
        return dict.fromkeys(names), None
    age = t - max(row["time"] for row in rows)
    if age > days(8):
        return dict.fromkeys(names), age

    def viewers(end, window):
        return len({row["viewer_token"] for row in in_window(rows, end, window)})

    earlier = Fraction(sum(viewers(now - days(back), 3_600_000) for back in range(1, 8)), 7)
    last_hour = viewers(now, 3_600_000)
    values = [
        last_hour,
        viewers(now, days(1)),
        completion(in_window(rows, now, days(7))),
        float(last_hour / earlier) if earlier else None,
    ]
    return dict(zip(names, values, strict=True)), age


# What any declaration says, read as data: the aggregates by their names, the conditions and windows by their fields.


class Near:
    """A number that a sketch may be 1 % away from."""

    def __init__(self, exact):
        self.exact = exact


def meets(row, condition):
    if condition is None:
        return True
    if isinstance(condition, str):
        return row[condition] is True
    wanted = [condition.value] if isinstance(condition.value, str) else condition.value
    return row[condition.column] in wanted


def between(rows, now, window, since, until):
    """Rows of a part of a window: its edges move in the window's hops, but for the instant itself."""
    start = floor(now - since, hop(window))
    end = floor(now - until, hop(window)) if until else now
    return [row for row in rows if start <= row["time"] < end]


def numbers(rows, column, condition):
    return [int(row[column]) for row in rows if row[column] is not None and meets(row, condition)]


def amount(what, rows):
    kind = type(what).__name__
    if kind == "Count":
        return sum(meets(row, what.where) for row in rows)
    if kind == "Sum":
        return sum(numbers(rows, what.column, what.where))
    assert kind == "DistinctCount"
    return len({row[what.column] for row in rows if meets(row, what.where) and row[what.column] is not None})


def mean(what, rows):
    above = below = 0
    for row in rows:
        if row[what.column] is not None and meets(row, what.where):
            weight = 1 if what.weight is None else row[what.weight] or 0
            above += int(row[what.column]) * weight
            below += weight
    return Fraction(above, below * what.unit) if below else None


def keys(row, column):
    value = row[column]
    if value is None:
        return []
    return value if isinstance(value, list) else [str(value)]


def by_key(rows, of, by, condition):
    """Exact sums (without a column, counts) by key; a list shares its amount equally."""
    sums = defaultdict(Fraction)
    for row in rows:
        added = 1 if of is None else int(row[of] or 0)
        if added and meets(row, condition):
            for key in keys(row, by):
                sums[key] += Fraction(added, len(keys(row, by)))
    return {key: part for key, part in sorted(sums.items()) if part}


def shares_by_key(rows, what):
    sums = by_key(rows, what.of, what.by, what.where)
    return {key: part / sum(sums.values()) for key, part in sums.items()}


def in_buckets(rows, of, by, condition, buckets):
    sums = by_key(rows, of, by, condition)
    return [sums.get(str(bucket), Fraction(0)) for bucket in range(buckets)]


def points(what, rows, now, window, block):
    """(x, y) of the blocks, oldest first; all amounts count unless nothing happened at all."""
    number = window // block
    parts = [between(rows, now, window, (back + 1) * block, back * block) for back in reversed(range(number))]
    if type(what.of).__name__ == "Mean":
        return [(x, y) for x, y in enumerate(mean(what.of, part) for part in parts) if y is not None]
    return [(x, Fraction(amount(what.of, part))) for x, part in enumerate(parts)] if any(parts) else []


def slope(what, rows, now, window):
    known = points(what, rows, now, window, what.block_ms)
    if len(known) < 3:
        return None
    mean_x, mean_y = (Fraction(sum(values), len(known)) for values in zip(*known, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in known)
    return above / sum((x - mean_x) ** 2 for x, _ in known) / what.unit


def delta(what, rows, now, window):
    known = dict(points(what, rows, now, window, window // 2))
    return (known[1] - known[0]) / what.unit if len(known) == 2 else None


def trend(what, rows, now, window):
    def on(day):
        return amount(what.of, between(rows, now, window, day * days(1) + window, day * days(1)))

    earlier = sum(on(day) for day in range(1, what.days + 1))
    return Fraction(on(0) * what.days, earlier) if earlier else None


def listed(rows, what, newest):
    """The values that are there, in the order of time and id: one, or as many as fit."""
    known = [row[what.column] for row in rows if row[what.column] is not None and meets(row, what.where)]
    if what.limit is None:
        return (known[-1] if newest else known[0]) if known else None
    return (known[-what.limit :] if newest else known[: what.limit]) or None


def divided(above, below):
    return Fraction(above, below) if below else None


def value_of(what, rows, now, window):
    """Any aggregate over the rows of one entity, in the order of time and id."""
    kind = type(what).__name__
    changing = {"Slope": slope, "Delta": delta, "Trend": trend}
    if kind in changing:
        return changing[kind](what, rows, now, window)
    rows = between(rows, now, window, window, 0)
    if kind in ("Count", "Sum", "DistinctCount"):
        return amount(what, rows)
    if kind == "Rate":
        return Fraction(amount(what.of, rows), what.per)
    if kind == "Ratio":
        return divided(amount(what.numerator, rows) * what.per, amount(what.denominator, rows))
    if kind == "Mean":
        return mean(what, rows)
    if kind in ("Min", "Max"):
        return (min if kind == "Min" else max)(numbers(rows, what.column, what.where), default=None)
    if kind == "Percentile":
        known = sorted(numbers(rows, what.column, what.where))
        return Near(known[int(what.quantile * (len(known) - 1))]) if known else None
    if kind in ("First", "Last"):
        return listed(rows, what, kind == "Last")
    if kind == "Share":
        return shares_by_key(rows, what) or None
    if kind == "TopShares":
        ranked = sorted(shares_by_key(rows, what).items(), key=lambda entry: (-entry[1], entry[0]))
        return dict(ranked[: what.limit]) or None
    if kind == "Mode":
        sums = by_key(rows, what.of, what.by, what.where)
        return next((key for key, part in sums.items() if part == max(sums.values())), None)
    if kind == "RatioByKey":
        above, below = (
            by_key(rows, getattr(one, "column", None), what.by, one.where) for one in (what.numerator, what.denominator)
        )
        return {key: above.get(key, Fraction(0)) / part for key, part in below.items()} or None
    if kind == "Survival":
        filled = in_buckets(rows, None, what.by, what.where, what.buckets + 1)
        whole = sum(filled)
        return [sum(filled[least:]) / whole for least in range(1, what.buckets + 1)] if whole else None
    assert kind == "Vector", kind
    filled = in_buckets(rows, what.of, what.by, what.where, what.buckets)
    if what.as_shares:
        return [part / sum(filled) for part in filled] if sum(filled) else None
    return [part / what.unit for part in filled] if rows else None


def declared(group, entity, rows, key, t):
    """Features and age of a key for a request at t, from the rows of the group's log."""
    step = {"event": 1, "hourly": 3_600_000, "daily": 86_400_000}[str(group.cadence)]
    delay = {"event": 2_000, "hourly": 900_000, "daily": 10_800_000}[str(group.cadence)]
    now = floor(t - (delay if group.delay_ms is None else group.delay_ms), step)
    mine = [row for row in rows if key is not None and row[entity] == key and row["time"] < now]
    mine.sort(key=lambda row: (row["time"], row["event_id"]))
    age = t - mine[-1]["time"] if mine else None
    if age is None or age > group.ttl_ms:
        return {feature.name: None for feature in group.features}, age
    return {feature.name: value_of(feature.aggregate, mine, now, feature.window_ms) for feature in group.features}, age
