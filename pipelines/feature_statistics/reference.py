"""What a day is compared with: the same weekday a week before, a day that is named, or a training set.

A training set's rows are of the instants and people of its left table; a day's values are of everybody seen. Where the
left table chooses (buyers, say), part of what differs is that choice.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq

from features.declarations import Feature, FeatureGroup
from features.errors import SelectionError, UnknownGroupError
from features.selection import select
from features.statistics import Description, Summary, describe, merge, summarize
from pipelines.cluster import run_tasks
from pipelines.errors import UsageError
from pipelines.feature_statistics.record import Subject, date_of, day_of

WEEK_DAYS = 7
Described = Mapping[Subject, Description]


class NoReferenceError(UsageError):
    """What days are to be compared with is no day, or no training set with features."""


@dataclass(frozen=True)
class Reference:
    """What days are compared with: `day`, else what is `fixed` by (group, entity, feature), else a week before."""

    words: str
    day: int | None = None
    fixed: Mapping[tuple[str, str, str], Description] | None = field(default=None, hash=False)

    def of(self, subject: Subject, described: Described) -> Description | None:
        """What a day of a feature is compared with; None where there is nothing, or nothing but itself."""
        if self.fixed is not None:
            return self.fixed.get((subject.group, subject.entity, subject.feature))
        day = subject.day - WEEK_DAYS if self.day is None else self.day
        if day == subject.day:
            return None
        return described.get(Subject(subject.group, subject.entity, subject.feature, day))


def reference_named(text: str | None, groups: Sequence[FeatureGroup]) -> Reference:
    """The reference that `--against` names: a date, a training set's folder; None is a week before.

    Raises:
        NoReferenceError: it is none of these.
    """
    if text is None:
        return Reference("the same weekday a week before")
    try:
        day = day_of(date.fromisoformat(text))
    except ValueError:
        return _of_training_set(Path(text), groups)
    return Reference(f"{date_of(day)}", day=day)


def _of_training_set(folder: Path, groups: Sequence[FeatureGroup]) -> Reference:
    if not (folder / "manifest.json").is_file():
        raise NoReferenceError(f"{folder} is no date like 2026-01-31, and no folder with a manifest.json; name either")
    train = folder / "split=train"
    paths = sorted((train if train.is_dir() else folder).rglob("*.parquet"))
    if not paths:
        raise NoReferenceError(f"the training set {folder} has no Parquet file; build it again")
    schema = pq.read_schema(paths[0])
    columns = dict(_columns(folder, schema.names, groups))
    if not columns:
        raise NoReferenceError(
            f"the training set {folder} has no feature's column, like group__feature; it has {', '.join(schema.names)}"
        )
    parts: dict[Path, dict[str, Summary]] = dict(run_tasks(_Summarizer(columns), paths))
    fixed = {}
    for column, (group, entity, feature) in columns.items():
        summary = merge([parts[path][column] for path in paths])
        fixed[group.name, entity, feature.name] = describe(summary, schema.field(column).type)
    rows = sum(part[next(iter(columns))].count for part in parts.values())
    split = ", split train" if train.is_dir() else ""
    return Reference(f"the training set {folder.name} ({rows:,} rows{split})", fixed=fixed)


def _columns(
    folder: Path, names: Sequence[str], groups: Sequence[FeatureGroup]
) -> Iterator[tuple[str, tuple[FeatureGroup, str, Feature]]]:
    """Columns of features, called as the join calls them unless the manifest's `columns` calls them otherwise.

    A column whose group or entity cannot be told is no feature's: there may be any beside them.
    """
    renamed: dict[str, str] = json.loads((folder / "manifest.json").read_text()).get("columns", {})
    for column in names:
        name, separator, feature = renamed.get(column, column).replace(".", "__").partition("__")
        if not separator:
            continue
        try:
            (found,) = select([f"{name}.{feature}"], names, groups)
        except (SelectionError, UnknownGroupError):
            continue
        yield column, (found.group, found.entity, found.group.features[0])


@dataclass(frozen=True)
class _Summarizer:
    """Summarizes the features' columns of one file. Its rows stand for entities: they are drawn one by one."""

    columns: Mapping[str, tuple[FeatureGroup, str, Feature]]

    def __call__(self, path: Path) -> tuple[Path, dict[str, Summary]]:
        found = {}
        with pq.ParquetFile(path) as file:
            for column, (_, _, feature) in self.columns.items():
                values = file.read(columns=[column])[column]
                found[column] = summarize(values, len(values), feature.range)
        return path, found
