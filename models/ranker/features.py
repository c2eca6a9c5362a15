"""What the ranker sees of a viewer, a title and the moment: rows of a training set, or of a request, as numbers.

Most columns are taken as they are; null becomes NaN, which LightGBM learns what to do with. What takes both viewer and
title is worked out here, once for training and for serving: how well the title's genres match the shares of the
viewer's watch time, of the viewer's clicks and of the titles finished in months, and how many titles the viewer has
watched to the end since this one. A title's genres come with the one it is most of first: the k-th counts 1/k of it.
"""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import TrainingSetError

_VIEWER = "user_viewing_history_by_profile_id"
_SIGNALS = "user_interaction_signals_by_profile_id"
_TITLE = "content_popularity"
_ENGAGEMENT = "content_engagement"
_SESSION = "session_context"

VIEWER_NUMBERS: Mapping[str, str] = {
    "viewer_completion_rate": f"{_VIEWER}__completion_rate",
    "viewer_session_ms": f"{_VIEWER}__avg_session_duration",
    "viewer_click_through_rate": f"{_SIGNALS}__click_through_rate",
    "viewer_browse_depth": f"{_SIGNALS}__browse_depth",
}
TITLE_NUMBERS: Mapping[str, str] = {
    "title_viewers_day": f"{_TITLE}__daily_unique_viewers",
    "title_completion_rate": f"{_TITLE}__completion_rate",
    "title_trend": f"{_TITLE}__trending_velocity",
    "title_watch_ms": f"{_ENGAGEMENT}__avg_watch_time",
    "title_binge_rate": f"{_ENGAGEMENT}__binge_rate",
    "title_runtime_ms": "content_runtime_ms",
    "title_episode": "content_episode_number",
}
CONTEXT_NUMBERS: Mapping[str, str] = {
    "hour": f"{_SESSION}__time_of_day",
    "weekday": f"{_SESSION}__day_of_week",
    "session_today": f"{_SESSION}__session_number_today",
}
STAGE_SCORES: Mapping[str, str] = {"retrieval_score": "retrieval_score", "content_match": "content_match"}
"""What earlier stages say of a candidate: its log-probability of being next, and how well it suits by its metadata.
Rows may lack these columns: then no tree splits on them."""
SHARES: Mapping[str, str] = {
    "watched": f"{_VIEWER}__last_30_day_genres",
    "clicked": f"{_SIGNALS}__genre_click_distribution",
}
"""Columns with the viewer's share of each genre (map of text to number)."""
RECENT_TITLES, COMPLETED_TITLES = f"{_VIEWER}__recent_titles", f"{_VIEWER}__completed_titles"
"""Columns with the titles that the viewer finished, past the half and to the end, the newest last."""
GENRES, TITLE = "content_genres", "content_id"

VIEWER_FEATURES = (
    *(f"{_VIEWER}.{name}" for name in (
        "last_30_day_genres", "completion_rate", "avg_session_duration", "recent_titles", "completed_titles",
    )),
    *(f"{_SIGNALS}.{name}" for name in ("genre_click_distribution", "click_through_rate", "browse_depth")),
)  # fmt: skip
TITLE_FEATURES = (
    *(f"{_TITLE}.{name}" for name in ("daily_unique_viewers", "completion_rate", "trending_velocity")),
    *(f"{_ENGAGEMENT}.{name}" for name in ("avg_watch_time", "binge_rate")),
)
SESSION_FEATURES = tuple(f"{_SESSION}.{name}" for name in ("time_of_day", "day_of_week", "session_number_today"))
"""What is asked of the feature store of viewer, title and session, as `group.feature`; columns have `__`."""

_NUMBERS = {**VIEWER_NUMBERS, **TITLE_NUMBERS, **CONTEXT_NUMBERS}
COLUMNS = (TITLE, GENRES, RECENT_TITLES, COMPLETED_TITLES, *SHARES.values(), *_NUMBERS.values())
"""Columns that rows must have."""
KINDS: Mapping[str, pa.DataType] = {
    TITLE: pa.string(),
    **dict.fromkeys((GENRES, RECENT_TITLES, COMPLETED_TITLES), pa.list_(pa.string())),
    **dict.fromkeys(SHARES.values(), pa.map_(pa.string(), pa.float64())),
    **dict.fromkeys((*_NUMBERS.values(), *STAGE_SCORES.values()), pa.float64()),
}
"""The columns and those of `STAGE_SCORES`, by type; in a row all but the title's id may be null."""
NAMES = (
    *_NUMBERS,
    *STAGE_SCORES,
    *(f"{name}_{what}" for name in (*SHARES, "recent") for what in ("match", "first_genre")),
    "completed_since",
    "recent_titles",
)
"""Names of the matrix's columns."""

Matrix = npt.NDArray[np.float64]
Genres = Mapping[str, Sequence[str]]
"""Genres of titles by id, the one that a title is most of first."""
NO_GENRES: Genres = MappingProxyType({})


def genres_of(rows: pa.Table) -> Genres:
    """What the catalogue said of the titles of rows with `COLUMNS`.

    Raises:
        TrainingSetError: a column is missing.
    """
    _require(rows)
    pairs = zip(rows[TITLE].to_pylist(), rows[GENRES].to_pylist(), strict=True)
    return {title: genres for title, genres in pairs if genres}


def matrix(rows: pa.Table, genres: Genres) -> Matrix:
    """[rows, len(NAMES)] the rows as numbers; `genres` of the titles that viewers may have finished.

    Raises:
        TrainingSetError: a column is missing.
    """
    _require(rows)
    columns = [_numbers(rows[column]) for column in _NUMBERS.values()]
    for column in STAGE_SCORES.values():
        known = column in rows.column_names
        columns.append(_numbers(rows[column]) if known else np.full(len(rows), np.nan))
    own, recent = rows[GENRES].to_pylist(), rows[RECENT_TITLES].to_pylist()
    for column in SHARES.values():
        shares = ({} if one is None else dict(one) for one in rows[column].to_pylist())
        columns += _matches(shares, own)
    columns += _matches(_shares_of_titles(recent, genres), own)
    completed = rows[COMPLETED_TITLES].to_pylist()
    columns.append(np.array([_since(some, one) for some, one in zip(completed, rows[TITLE].to_pylist(), strict=True)]))
    columns.append(np.array([len(some or ()) for some in recent], np.float64))
    return np.stack(columns, axis=1).astype(np.float64).reshape(len(rows), len(NAMES))


def _require(rows: pa.Table) -> None:
    missing = [name for name in COLUMNS if name not in rows.column_names]
    if missing:
        raise TrainingSetError(
            f"the ranker needs the columns {', '.join(missing)}; received {', '.join(rows.column_names)}"
        )


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    numbers: npt.NDArray[np.float64] = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return numbers


def _weights(genres: Sequence[str]) -> list[float]:
    """What each of a title's genres counts; they sum to 1."""
    places = [1 / place for place in range(1, len(genres) + 1)]
    return [place / sum(places) for place in places]


def _matches(
    shares: Iterable[Mapping[str, float]], genres: Sequence[Sequence[str] | None]
) -> list[npt.NDArray[np.float64]]:
    """Mean share of a title's genres, and the share of its first, [rows] each; NaN where either is not known."""
    mean, first = np.full(len(genres), np.nan), np.full(len(genres), np.nan)
    for row, (share, own) in enumerate(zip(shares, genres, strict=True)):
        if not share or not own:
            continue
        found = [share.get(genre, 0.0) for genre in own]
        mean[row], first[row] = sum(map(operator.mul, found, _weights(own))), found[0]
    return [mean, first]


def _shares_of_titles(titles: Sequence[Sequence[str] | None], genres: Genres) -> Iterator[Mapping[str, float]]:
    """Of each row's titles the share of each genre; of those that nothing is known of none."""
    before: Sequence[str] | None = None
    shares: dict[str, float] = {}
    for some in titles:
        if some != before:  # rows of one viewer follow each other
            known = [genres[title] for title in some or () if title in genres]
            shares, before = {}, some
            for one in known:
                for genre, weight in zip(one, _weights(one), strict=True):
                    shares[genre] = shares.get(genre, 0.0) + weight / len(known)
        yield shares


def _since(completed: Sequence[str] | None, content_id: str) -> float:
    """How many titles were completed after this one was last; NaN if it is not among them."""
    newest_first = list(reversed(completed or ()))
    return float(newest_first.index(content_id)) if content_id in newest_first else float("nan")
