"""Labels in the join's way of asking: a row's key and instant travel to the bucket of a log, its labels come back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from features.source import EVENT_ID, EVENT_TIME, Source
from features.training.labels import Label, label_values
from features.windows import Int64s
from pipelines.point_in_time.exchange import Pass, Plan
from pipelines.point_in_time.stored import STORED_TIME, Asked, BucketedTable


@dataclass(frozen=True)
class LabelSource:
    """Labels that read one log by the same columns."""

    stored: BucketedTable
    labels: tuple[Label, ...]
    horizon_ms: int

    @property
    def name(self) -> str:
        """The first of them."""
        return self.labels[0].name

    @property
    def fields(self) -> list[pa.Field]:
        """A column each."""
        return [pa.field(label.name, label.aggregate.arrow_type) for label in self.labels]

    def late(self, asked_ms: Int64s) -> int:
        """None: rows whose horizon is not inside the data do not come here."""
        return 0

    def values(self, bucket: int, asked: Asked) -> dict[str, pa.Array]:
        """Column to values, row for row of what is asked of a bucket."""
        entity, *others = self.labels[0].by
        names = {*others, *(name for label in self.labels for name in label.reads), EVENT_TIME, EVENT_ID} - {entity}
        log = self.stored.read(bucket, entity, log_schema(self.labels[0].source, sorted(names)))
        values = label_values(self.labels, self.horizon_ms, log, asked.keys, asked.owners, asked.asked_ms)
        return {label.name: column for label, column in zip(self.labels, values, strict=True)}


def label_plan(
    labels: Sequence[Label], horizon_ms: int, instant: str, log_of: Callable[[Source, str], BucketedTable]
) -> Plan:
    """The join that brings the labels: those of one log, by the same columns, in one reading."""
    alike: dict[tuple[str, tuple[str, ...]], list[Label]] = {}
    for label in labels:
        alike.setdefault((label.source.name, label.by), []).append(label)
    passes = []
    for (_, by), ones in alike.items():
        stored = log_of(ones[0].source, by[0])
        source = LabelSource(stored, tuple(ones), horizon_ms)
        passes.append(Pass(by, stored.buckets, is_personal=False, sources=(source,), is_cut_by_first=len(by) > 1))
    return Plan(instant, (), tuple(passes), tuple(label.name for label in labels), None, None)


def log_schema(source: Source, names: Sequence[str]) -> pa.Schema:
    """Some columns of a source's log, as they are stored."""
    declared = [source.schema.field(name) for name in names]
    return pa.schema([field.with_type(STORED_TIME) if field.name == EVENT_TIME else field for field in declared])
