"""What is shown of the features: their days, and how each day compares with its reference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from features.declarations import Feature, FeatureGroup
from features.drift import Drift, Verdict, drift
from features.groups import GROUPS
from features.statistics import Description
from pipelines.feature_statistics.record import Subject, date_of, last_day_kept, read_days
from pipelines.feature_statistics.reference import WEEK_DAYS, NoReferenceError, Reference
from pipelines.feature_statistics.station import NothingToDescribeError
from pipelines.lakehouse.catalog import Lakehouse


@dataclass(frozen=True)
class History:
    """One feature of one entity: the days there are, and of each of them its reference, where there is one."""

    group: FeatureGroup
    entity: str
    feature: Feature
    days: dict[int, Description]
    references: dict[int, Description]

    @property
    def name(self) -> str:
        """For instance `user_viewing_history_by_profile_id.completion_rate`."""
        return f"{self.group.stored_as(self.entity)}.{self.feature.name}"

    @property
    def last_day(self) -> int:
        """The newest day."""
        return max(self.days)

    @property
    def last(self) -> Description:
        """What the newest day was like."""
        return self.days[self.last_day]

    @property
    def reference(self) -> Description | None:
        """What the newest day is compared with."""
        return self.references.get(self.last_day)

    @cached_property
    def drifts(self) -> dict[int, Drift]:
        """How the days compare."""
        found = {day: drift(reference, self.days[day]) for day, reference in self.references.items()}
        return {day: one for day, one in found.items() if one is not None}

    @property
    def drift(self) -> Drift | None:
        """How the newest day compares."""
        return self.drifts.get(self.last_day)

    @property
    def complaints(self) -> list[str]:
        """Why somebody should look at the newest day; empty if nobody need."""
        said = []
        if self.drift is not None and self.drift.verdict in (Verdict.DRIFT, Verdict.SHIFT):
            said.append(f"{self.drift.verdict} of its {self.drift.aspect}")
        if self.last.outside:
            said.append(f"{self.last.outside:,} out of range")
        if self.last.count and self.last.nulls == self.last.count:
            said.append("null throughout")
        return said


@dataclass(frozen=True)
class FeatureReport:
    """All features over some days, group by group, and what their days were compared with."""

    histories: Sequence[History]
    reference: Reference
    days: range

    def count(self, verdict: Verdict | None) -> int:
        """Features with this verdict on their newest day; None: that could not be compared."""
        return sum((one.drift.verdict if one.drift else None) is verdict for one in self.histories)

    @property
    def wanting(self) -> list[History]:
        """Those that somebody should look at, the most urgent first."""
        return sorted((one for one in self.histories if one.complaints), key=_urgency, reverse=True)

    def as_dicts(self) -> Iterator[dict[str, object]]:
        """The newest day of every feature, for machines."""
        for one in self.histories:
            found = one.drift
            compared = {"psi": found.psi, "kl": found.kl, "chance": found.chance, "aspect": found.aspect,
                        "verdict": str(found.verdict)} if found else {}  # fmt: skip
            yield {"feature": one.name, "day": str(date_of(one.last_day)), "count": one.last.count,
                   "nulls": one.last.nulls, "outside": one.last.outside, "distinct": one.last.distinct,
                   "median": one.last.quantile(0.5), **compared}  # fmt: skip


def feature_report(
    lakehouse: Lakehouse, reference: Reference, days: int, groups: Sequence[FeatureGroup] = GROUPS
) -> FeatureReport:
    """The newest `days` days that are kept in `features.statistics`.

    Raises:
        NothingToDescribeError: none is kept.
        NoReferenceError: nothing is kept of the day that they are to be compared with.
    """
    last_day = last_day_kept(lakehouse)
    if last_day is None:
        raise NothingToDescribeError("no day of features is described yet; run `reel features report` on its own")
    shown = range(last_day - days + 1, last_day + 1)
    described = read_days(lakehouse, shown.start - WEEK_DAYS, last_day)
    if reference.day is not None and reference.day not in range(shown.start - WEEK_DAYS, last_day + 1):
        described |= read_days(lakehouse, reference.day, reference.day)
    if reference.day is not None and all(subject.day != reference.day for subject in described):
        raise NoReferenceError(f"no feature is described of {date_of(reference.day)}; --days describes more days")
    histories = [
        history
        for group in groups
        for entity in group.entities
        for feature in group.features
        if (history := _history(group, entity, feature, described, reference, shown)).days
    ]
    return FeatureReport(histories, reference, shown)


def _urgency(one: History) -> tuple[int, float]:
    return (list(Verdict).index(one.drift.verdict), one.drift.psi) if one.drift is not None else (-1, 0.0)


def _history(
    group: FeatureGroup,
    entity: str,
    feature: Feature,
    described: dict[Subject, Description],
    reference: Reference,
    shown: range,
) -> History:
    subjects = [Subject(group.name, entity, feature.name, day) for day in shown]
    days = {one.day: described[one] for one in subjects if one in described}
    references = {one.day: reference.of(one, described) for one in subjects if one in described}
    return History(group, entity, feature, days, {day: one for day, one in references.items() if one is not None})
