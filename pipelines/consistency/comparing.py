"""Served values beside those of the batch, one by one; in the Ray task that holds a part of a join."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from features.agreement import GREATEST_ERROR, Tally, agreement, errors
from features.columns import flat
from features.plain import python_values
from pipelines.feature_tables import Target

WITHHELD = "withheld"
"""Of the join's rows: why the batch gives nothing of the person by now."""
EXAMPLES = 3


class Reason(StrEnum):
    """Why a served value is not what the batch says of its instant."""

    NOT_YET_PROCESSED = "event not yet processed"
    LATE_EVENT = "late event after the answer"
    NOT_YET_PUBLISHED = "boundary not yet published"
    CONSENT_CHANGED = "consent changed since"
    OLDER_VERSION = "older group version"
    DEGRADED = "degraded answer"
    NOT_EXAMINED = "not examined"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class Example:
    """One of the worst differences of a feature; whose it is nobody learns."""

    error: float
    agreement: str
    age_ms: int | None


@dataclass
class FeatureResult:
    """What is found of one feature; `reasons` counts values that are not exact."""

    tally: Tally = field(default_factory=Tally)
    reasons: dict[str, int] = field(default_factory=dict)
    worst: list[Example] = field(default_factory=list)

    def explain(self, reason: Reason, values: int = 1) -> None:
        """Count values that differ for a reason."""
        self.reasons[reason] = self.reasons.get(reason, 0) + values

    def note(self, example: Example) -> None:
        """Keep it if it is among the worst."""
        self.worst = sorted([*self.worst, example], key=lambda one: -one.error)[:EXAMPLES]

    def merge(self, other: "FeatureResult") -> None:
        """Of both."""
        self.tally.merge(other.tally)
        for reason, values in other.reasons.items():
            self.explain(Reason(reason), values)
        for example in other.worst:
            self.note(example)


Results = dict[str, FeatureResult]
"""By feature."""


def nothing_of(target: Target) -> Results:
    """No value of any feature."""
    return {feature.name: FeatureResult() for feature in target.group.features}


def merged(parts: Sequence[Results]) -> Results:
    """Of all parts."""
    whole: Results = {}
    for part in parts:
        for name, result in part.items():
            whole.setdefault(name, FeatureResult()).merge(result)
    return whole


def compare(target: Target, joined: pa.Table) -> list[Any]:
    """The results of a part of the join; how many of its rows differ for a reason still to be found, and these rows.

    Those have, beside the log's columns, which features differ (`differing`).
    """
    results, version = nothing_of(target), target.group.fingerprint.hex()
    names = list(results)
    columns = [python_values(flat(joined[f"{target.name}__{name}"])) for name in names]
    of_rows = zip(*columns, strict=True)
    said = (joined[name].to_pylist() for name in ("values", "version", "reason", "age_ms"))
    open_rows: list[int] = []
    differing: list[list[str]] = []
    for place, (offline, text, served_version, failure, age_ms) in enumerate(zip(of_rows, *said, strict=True)):
        served = json.loads(text)
        wrong = []
        for name, value in zip(names, offline, strict=True):
            one = served.get(name)
            found = results[name].tally.add(one, value)
            if not found.is_exact:
                wrong.append(name)
                results[name].note(Example(_mean_error(one, value), str(found), age_ms))
        if not wrong:
            continue
        if failure is None and served_version == version:
            open_rows.append(place)
            differing.append(wrong)
            continue
        for name in wrong:
            results[name].explain(Reason.DEGRADED if failure is not None else Reason.OLDER_VERSION)
    rows = joined.take(pa.array(open_rows, pa.int64()))
    rows = rows.drop_columns([name for name in joined.column_names if name.startswith(f"{target.name}__")])
    return [(results, len(open_rows)), rows.append_column("differing", pa.array(differing, pa.list_(pa.string())))]


def is_same(served: Any, again: Any) -> bool:
    """Whether two values are the same, but for the last digits of a number."""
    return agreement(served, again).is_exact


def first_row(target: Target, values: pa.Table) -> dict[str, Any]:
    """The features of a table's first row."""
    return {feature.name: python_values(flat(values[feature.name]))[0] for feature in target.group.features}


def _mean_error(served: Any, offline: Any) -> float:
    found = list(errors(served, offline))
    return sum(found) / len(found) if found and served is not None and offline is not None else GREATEST_ERROR
