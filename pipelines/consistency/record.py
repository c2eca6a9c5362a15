"""`quality.consistency`: what every run found, a row for each feature; and up to where answers have been compared."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.consistency.comparing import FeatureResult, Results
from pipelines.feature_tables import Target
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.quality.results import instant

_COUNTS = ("identical", "close", "missing", "extra", "different")


@dataclass(frozen=True)
class TargetResult:
    """What is found of one group and entity: features, and answers that were not compared.

    `left`: the batch cannot tell of them yet, the next run compares them. `without_instant`: the store did not say as
    of when they were.
    """

    target: Target
    answers: int
    left: int
    without_instant: int
    features: Results

    @property
    def reasons(self) -> dict[str, int]:
        """Values that are not exact, by reason."""
        counts: dict[str, int] = {}
        for result in self.features.values():
            for reason, count in result.reasons.items():
                counts[reason] = counts.get(reason, 0) + count
        return counts


def as_dicts(results: list[TargetResult]) -> Iterator[dict[str, Any]]:
    """Every feature's result, as plain JSON types."""
    for one in results:
        for name, found in one.features.items():
            yield {"group": one.target.group.name, "entity": one.target.entity, "feature": name, **_numbers(found)}


def _numbers(found: FeatureResult) -> dict[str, Any]:
    tally = found.tally
    counts = {name: getattr(tally, name) for name in _COUNTS}
    worst = [{"error": one.error, "agreement": one.agreement, "age_ms": one.age_ms} for one in found.worst]
    return {
        **counts, "exact_share": tally.exact_share, "smape": tally.smape, "reasons": found.reasons, "worst": worst,
    }  # fmt: skip


def compared_until(lakehouse: Lakehouse) -> dict[str, int]:
    """Of each target up to when its answers have been compared, ms since the epoch."""
    table = lakehouse.existing(tables.consistency().name)
    found: dict[str, int] = progress_of(table).get("until", {}) if table is not None else {}
    return found


def record(
    lakehouse: Lakehouse, made: lineage.Run, results: list[TargetResult], until: Mapping[str, int], measured_ms: int
) -> int:
    """Append the results, in one commit that says up to when answers have been compared; how many rows."""
    spec = tables.consistency()
    table = lakehouse.table(spec)
    rows = [
        {**{name: value for name, value in one.items() if name != "worst"}, "reasons": json.dumps(one["reasons"]),
         "measured_at": instant(measured_ms)}
        for one in as_dicts(results)
    ]  # fmt: skip
    files = write_files(TableFiles.of(table), pa.Table.from_pylist(rows, schema=spec.schema))
    made.wrote(commit_files(table, files, {"until": dict(until)}, made.facts(lineage.Inputs())))
    return len(rows)
