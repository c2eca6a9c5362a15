"""Declarations as a reader says them."""

from dataclasses import MISSING, fields

from features.aggregates import Aggregate
from features.windows import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

_UNITS = ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min"), (SECOND_MS, "s"), (1, "ms"))


def duration_words(length_ms: int) -> str:
    """For instance `30 d`, `15 min`, `1500 ms`: in the greatest unit of which it is a whole number."""
    unit_ms, unit = next((ms, name) for ms, name in _UNITS if length_ms % ms == 0)
    return f"{length_ms // unit_ms} {unit}"


def range_words(bounds: tuple[float, float] | None) -> str:
    """For instance `0 to 1`, `0 and up`; nothing for texts."""
    if bounds is None:
        return ""
    low, high = (f"{bound:g}" for bound in bounds)
    if bounds == (float("-inf"), float("inf")):
        return "any"
    if bounds[1] == float("inf"):
        return f"{low} and up"
    return f"up to {high}" if bounds[0] == float("-inf") else f"{low} to {high}"


def aggregate_words(aggregate: Aggregate) -> str:
    """For instance `Share(of watch_ms, by genres)`: what is said of it, without what is left at its default."""
    said = []
    for field in fields(aggregate):  # type: ignore[arg-type]  # every aggregate is a dataclass
        value = getattr(aggregate, field.name)
        if field.default is MISSING or value != field.default:
            text = aggregate_words(value) if isinstance(value, Aggregate) else str(value)
            said.append(f"{field.name} {text}")
    return type(aggregate).__name__ + (f"({', '.join(said)})" if said else "")
