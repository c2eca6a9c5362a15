"""Titles and what is known of them before anybody has watched them, as tokens.

A title is a bag of tokens: `genre:drama`, `first:drama` (the first of several: catalogues begin with what it is most),
`genres:crime+drama` (each pair), `type:vod`, `rating:PG`, `word:harbour`, `year:1995`, `decade:1990`. A year is read
from the end of the title's name, "Toy Story (1995)". What is not known of a title gives no token.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.errors import TrainingSetError

TITLE_COLUMNS = ("content_id", "content_title", "content_type", "content_genres", "content_maturity_rating")
_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_WORD = re.compile(r"[^\W_]+")
_SHORTEST_WORD = 3


@dataclass(frozen=True)
class Title:
    """What the catalogue says of a title; None and () are not known."""

    content_id: str
    name: str | None = None
    content_type: str | None = None
    genres: tuple[str, ...] = ()
    maturity_rating: str | None = None

    @property
    def year(self) -> int | None:
        """The year in brackets at the end of its name."""
        found = _YEAR.search(self.name or "")
        return int(found[1]) if found else None

    @property
    def tokens(self) -> tuple[str, ...]:
        """The title as a bag of tokens, each once."""
        genres = sorted(set(self.genres))
        words = _WORD.findall(_YEAR.sub("", self.name or "").lower())
        tokens = [f"genre:{genre}" for genre in genres]
        if len(genres) > 1:
            tokens.append(f"first:{self.genres[0]}")
        tokens += [f"genres:{one}+{other}" for one, other in combinations(genres, 2)]
        tokens += [f"word:{word}" for word in words if len(word) >= _SHORTEST_WORD]
        if self.content_type is not None:
            tokens.append(f"type:{self.content_type}")
        if self.maturity_rating is not None:
            tokens.append(f"rating:{self.maturity_rating}")
        if self.year is not None:
            tokens += [f"year:{self.year}", f"decade:{self.year // 10 * 10}"]
        return tuple(dict.fromkeys(tokens))

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Title":
        """What `as_dict` gave."""
        return cls(**{**values, "genres": tuple(values["genres"])})


def titles_of(table: pa.Table) -> tuple[Title, ...]:
    """The titles that a table with `TITLE_COLUMNS` names, by id; of several rows of one the last.

    Raises:
        TrainingSetError: a column is missing.
    """
    missing = [name for name in TITLE_COLUMNS if name not in table.column_names]
    if missing:
        raise TrainingSetError(
            f"titles cannot be described: the columns {', '.join(missing)} are missing; "
            f"received {', '.join(table.column_names)}"
        )
    ids, last = np.unique(_texts(table["content_id"])[::-1], return_index=True)
    rows = table.select(TITLE_COLUMNS).take(pa.array(len(table) - 1 - last)).to_pylist()
    return tuple(
        Title(
            str(content_id),
            row["content_title"],
            row["content_type"],
            tuple(row["content_genres"] or ()),
            row["content_maturity_rating"],
        )
        for content_id, row in zip(ids, rows, strict=True)
    )


class Vocabulary:
    """The tokens that a model knows, by number: those of at least `_FEWEST` of the titles it was made of."""

    _FEWEST = 2

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._number = {token: number for number, token in enumerate(self.tokens)}

    @classmethod
    def of(cls, titles: Iterable[Title]) -> "Vocabulary":
        """From the titles that are learnt from."""
        counts = Counter(token for title in titles for token in title.tokens)
        return cls(sorted(token for token, count in counts.items() if count >= cls._FEWEST))

    def __len__(self) -> int:
        return len(self.tokens)

    def bags(self, titles: Sequence[Title]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(numbers of the known tokens of all titles one after another, where each title's begin, [titles])."""
        numbers = [[self._number[token] for token in title.tokens if token in self._number] for title in titles]
        starts = np.cumsum([0, *map(len, numbers)])[:-1]
        return np.array([number for bag in numbers for number in bag], np.int64), starts.astype(np.int64)

    def matrix(self, titles: Sequence[Title]) -> npt.NDArray[np.float32]:
        """[titles, tokens] 1 where a title has a token."""
        numbers, starts = self.bags(titles)
        found = np.zeros((len(titles), len(self)), np.float32)
        found[np.repeat(np.arange(len(titles)), np.diff(np.append(starts, len(numbers)))), numbers] = 1
        return found


def _texts(column: pa.ChunkedArray) -> npt.NDArray[np.str_]:
    return np.array(column.to_pylist(), dtype=str)
