"""The titles that can be recommended: what the catalogue says of each, and how it does with viewers now."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from models.content.titles import Title
from models.ranker.features import TITLE_NUMBERS

_GROUP = "content_popularity"
VIEWERS = TITLE_NUMBERS["title_viewers_day"]
"""The number that titles are put in order by where there is nothing else."""


@dataclass(frozen=True)
class Offer:
    """A title on offer, and the numbers that the ranker wants to know of it, by column; others are unknown."""

    title: Title
    numbers: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {"title": self.title.as_dict(), "numbers": dict(self.numbers)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Offer":
        """What `as_dict` gave."""
        return cls(Title.from_dict(values["title"]), values["numbers"])


@dataclass(frozen=True)
class Catalogue:
    """All titles on offer, by id."""

    offers: Mapping[str, Offer]

    @classmethod
    def of(cls, titles: pa.Table, popularity: pa.Table) -> "Catalogue":
        """Titles on demand that are on offer in some market, by the latest that is said of each.

        Args:
            titles: the catalogue's history, rows of silver.titles in any order.
            popularity: `content_id`, `event_timestamp` and features of `content_popularity`, in any order; the latest
                row of a title counts.
        """
        numbers = {row["content_id"]: _popularity(row) for row in _latest(popularity)}
        offers = {}
        for row in _latest(titles):
            if row["content_type"] == "live" or row["is_available"] is False:
                continue
            known = {"content_runtime_ms": row["runtime_ms"], "content_episode_number": row["episode_number"]}
            told = {name: float(value) for name, value in known.items() if value is not None}
            title = Title(
                row["content_id"],
                row["title"],
                row["content_type"],
                tuple(row["genres"] or ()),
                row["maturity_rating"],
            )
            offers[title.content_id] = Offer(title, {**told, **numbers.get(title.content_id, {})})
        return cls(offers)

    def __len__(self) -> int:
        return len(self.offers)

    def popular(self) -> list[str]:
        """All ids, most watched today first; then by id."""
        return sorted(self.offers, key=lambda name: (-self.offers[name].numbers.get(VIEWERS, 0.0), name))

    def as_of_now(self, numbers: Mapping[str, Mapping[str, float]]) -> "Catalogue":
        """With newer numbers of some titles; of titles that are not on offer nothing is taken."""
        changed = {
            name: replace(self.offers[name], numbers={**self.offers[name].numbers, **new})
            for name, new in numbers.items()
            if name in self.offers
        }
        return Catalogue({**self.offers, **changed})


def _latest(rows: pa.Table) -> list[dict[str, Any]]:
    """The last row of each title, by id."""
    ordered = rows.sort_by([("content_id", "ascending"), ("event_timestamp", "ascending")]).to_pylist()
    return list({row["content_id"]: row for row in ordered}.values())


def _popularity(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one stored row of the group, in the ranker's columns."""
    columns = {name: f"{_GROUP}__{name}" for name in row}
    wanted = {name: column for name, column in columns.items() if column in TITLE_NUMBERS.values()}
    return {column: float(row[name]) for name, column in wanted.items() if row[name] is not None}
