"""What is answered to whoever gets no personal recommendation: the titles that most people watch.

Two lists, both made from aggregates over many viewers: `all`, and `kids`, which holds only titles rated for children.
The lists are kept in memory, so that there is an answer while the store is down.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from serving.online_store import OnlineStore
from serving.store_reader import read_records

Audience = Literal["all", "kids"]
AUDIENCES: tuple[Audience, ...] = ("all", "kids")
POPULAR, TITLES = "popular", "titles"


class RecommendedTitle(BaseModel):
    """One title of an answer."""

    content_id: str = Field(examples=["vod-120"])
    title: str | None = Field(default=None, description="null if nobody knows it", examples=["Night Train"])
    genres: list[str] = Field(default=[], examples=[["drama", "thriller"]])
    score: float = Field(
        description="model recommendation: the probability (0..1) that it is finished next; cascade: what it was "
        "ranked by, comparable within one answer only; source popular: viewers",
        examples=[0.081],
    )


class PopularTitles:
    """The two lists, read again when they are older than `refresh_s`."""

    def __init__(self, refresh_s: float, most: int) -> None:
        self._refresh_s = refresh_s
        self._most = most
        self._lists: dict[Audience, list[RecommendedTitle]] = {audience: [] for audience in AUDIENCES}
        self._read_at_s: float | None = None

    def read(self, store: OnlineStore, audience: Audience, k: int) -> list[RecommendedTitle]:
        """The k titles most watched."""
        if self._read_at_s is None or time.monotonic() - self._read_at_s >= self._refresh_s:
            self._refresh(store)
        return self._lists[audience][:k]

    def remembered(self, audience: Audience, k: int) -> list[RecommendedTitle]:
        """The k titles most watched when the store was last read; none if it never was."""
        return self._lists[audience][:k]

    @property
    def is_known(self) -> bool:
        """Whether there is something to answer with, whatever becomes of the store."""
        return any(self._lists.values())

    def _refresh(self, store: OnlineStore) -> None:
        ranked = [rows or [] for rows in read_records(store, POPULAR, AUDIENCES)]
        scored = [[(row["content_id"], float(row["viewers"])) for row in rows[: self._most]] for rows in ranked]
        named = with_titles(store, [pair for pairs in scored for pair in pairs])
        first = len(scored[0])
        self._lists = {"all": named[:first], "kids": named[first:]}
        self._read_at_s = time.monotonic()


def with_titles(store: OnlineStore, scored: Sequence[tuple[str, float]]) -> list[RecommendedTitle]:
    """(content id, score) pairs with what the catalogue says of them, in the same order."""
    records = read_records(store, TITLES, [content_id for content_id, _ in scored])
    return [_title(pair, record) for pair, record in zip(scored, records, strict=True)]


def without_titles(scored: Sequence[tuple[str, float]]) -> list[RecommendedTitle]:
    """The same when the catalogue cannot be read."""
    return [_title(pair, None) for pair in scored]


def _title(pair: tuple[str, float], record: dict[str, Any] | None) -> RecommendedTitle:
    content_id, score = pair
    known = record or {}
    return RecommendedTitle(
        content_id=content_id, title=known.get("title"), genres=known.get("genres") or [], score=score
    )
