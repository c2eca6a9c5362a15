"""Groups of every aggregate over windows of every hop, at every cadence: what no real group declares is checked too."""

import pyarrow as pa

from features.aggregates import (
    Count,
    Delta,
    DistinctCount,
    First,
    Last,
    Max,
    Mean,
    Min,
    Mode,
    Percentile,
    Rate,
    Ratio,
    RatioByKey,
    Share,
    Slope,
    Sum,
    Survival,
    TopShares,
    Trend,
    Vector,
)
from features.declarations import Feature, FeatureGroup
from features.filters import Is
from features.purposes import Purpose
from features.source import Source
from features.windows import Cadence

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LOG = Source(
    "everything",
    pa.schema(
        {
            "event_id": pa.string(), "event_name": pa.string(), "event_timestamp": pa.timestamp("ms", tz="UTC"),
            "who": pa.string(), "what": pa.string(), "ms": pa.int64(), "weight": pa.int32(), "ok": pa.bool_(),
            "tags": pa.list_(pa.string()), "hour": pa.int64(),
        }
    ),
    events=("thing.seen", "thing.done"),
)  # fmt: skip

DONE = Is("event_name", "thing.done")
_ANY_WINDOW = {
    "count": Count(), "count_ok": Count("ok"), "count_done": Count(DONE),
    "count_named": Count(Is("what", ("", "beta"))),
    "total": Sum("ms"), "total_done": Sum("ms", DONE), "trues": Sum("ok"), "distinct": DistinctCount("what"),
    "distinct_done": DistinctCount("what", DONE),
    "rate": Rate(Count(DONE), per=7), "ratio": Ratio(Sum("ms"), Count("ok")),
    "ratio_per": Ratio(Count("ok"), Sum("ms"), per=HOUR), "ratio_distinct": Ratio(DistinctCount("what", "ok"), Count()),
    "mean": Mean("ms"), "share_ok": Mean("ok", DONE), "weighted": Mean("ms", weight="weight", unit=10),
    "least": Min("ms"), "most": Max("ms"), "most_ok": Max("ms", "ok"), "any_ok": Max("ok"),
    "half": Percentile("ms", 0.5), "most_of_all": Percentile("ms", 0.95, DONE), "bottom": Percentile("ms", 0.0),
    "first": First("what"), "first_whole": First("hour", is_whole=True), "first_three": First("what", 3, "ok"),
    "last": Last("what"), "last_whole": Last("ms", where=DONE, is_whole=True), "last_three": Last("what", 3),
    "last_numbers": Last("ms", 2, is_whole=True),
    "share": Share("ms", "tags"), "share_events": Share(None, "what", "ok"), "top": TopShares("ms", "tags", 2),
    "top_events": TopShares(None, "what", 3, DONE), "mode": Mode("ms", "what"), "mode_events": Mode(None, "tags"),
    "by_key": RatioByKey(Count("ok"), Sum("ms"), "what"), "by_tag": RatioByKey(Sum("ms", DONE), Count(), "tags"),
    "vector": Vector("ms", "hour", 5, unit=3), "vector_events": Vector(None, "hour", 7, where="ok"),
    "vector_shares": Vector("ms", "hour", 4, as_shares=True), "survival": Survival("hour", 4),
}  # fmt: skip
_WINDOWS = (20 * MINUTE, 11 * HOUR, 3 * DAY, 40 * DAY)
_OF = {"count": Count(DONE), "sum": Sum("ms"), "mean": Mean("ms"), "weighted": Mean("ms", "ok", weight="weight")}
_DELTAS = (2 * HOUR, 2 * DAY, 28 * DAY)
_BLOCKS = ((HOUR, 15 * MINUTE), (7 * DAY, DAY), (28 * DAY, 7 * DAY))


def everything(cadence: Cadence) -> FeatureGroup:
    """Every aggregate over every hop, at the cadence."""
    said = [(f"{name}_{window}", one, window) for name, one in _ANY_WINDOW.items() for window in _WINDOWS]
    said += [(f"trend_{days}", Trend(Count("ok"), days), HOUR) for days in (1, 7)]
    said += [("trend_distinct", Trend(DistinctCount("what"), 2), DAY)]
    for name, of in _OF.items():
        said += [(f"delta_{name}_{window}", Delta(of, unit=6), window) for window in _DELTAS]
        said += [(f"slope_{name}_{window}", Slope(of, block, unit=2), window) for window, block in _BLOCKS]
    features = tuple(Feature(name, one, window, "One.", "1", _range(one)) for name, one, window in said)
    return FeatureGroup(
        f"everything_{cadence}", ("who",), LOG, cadence, 50 * DAY, Purpose.ANALYTICS, "us", "Everything.", features
    )


def _range(aggregate):
    kind = aggregate.arrow_type
    is_text = pa.types.is_string(kind) or kind == pa.list_(pa.string())
    return None if is_text else (float("-inf"), float("inf"))


EVERYTHING = tuple(everything(cadence) for cadence in Cadence)
