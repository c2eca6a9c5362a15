"""The titles that can be recommended: what the catalogue says of each, and how it does with viewers now."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from models.content.titles import Title
from models.ranker.features import TITLE_NUMBERS

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
