"""MovieLens 100K as events: people who really watched films, at the times at which they rated them.

A viewer rates what they have just watched, so every rating becomes a playback that stops at the rating's time. How
much of the film was seen follows from the rating: 1 -> 20 %, 2 -> 40 %, 3 -> 60 %, 4 -> 85 %, 5 -> 100 % (its end).
The data has no runtimes; every film counts as `RUNTIME_MS`. The playback starts that share of the runtime before it
stops. Event ids depend on the rating alone, so an import that is repeated is deduplicated.

Data: F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.errors import NotMovieLensError
from pipelines.event_batch import ENVELOPE, TIMESTAMP, EventBatch
from pipelines.identifiers import event_ids

RUNTIME_MS = 100 * 60_000
"""The length that every film is taken to have."""

COMPLETION_PERCENT = {1: 20, 2: 40, 3: 60, 4: 85, 5: 100}
"""How much of a film its viewer saw, by the rating given."""

MARKET = "US"

_FILES = ("u.data", "u.item", "u.user", "u.genre")
_ML_1M_FILES = ("ml-1m.txt", "movies.dat", "ratings.dat")
_FIRST_GENRE_FIELD = 5
_CATALOGUE_LEAD_MS = 86_400_000


@dataclass(frozen=True)
class Title:
    """A film: MovieLens item number, title and genre names."""

    item: int
    name: str
    genres: tuple[str, ...]


@dataclass(frozen=True)
class MovieLens:
    """The data set: its films, its viewers' numbers, and one entry per rating in the order of the file."""

    titles: tuple[Title, ...]
    users: tuple[int, ...]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    rating: NDArray[np.int64]
    rated_at_s: NDArray[np.int64]


def read_movielens(folder: Path | str) -> MovieLens:
    """Read a MovieLens 100K folder (`u.data`, `u.item`, `u.user`, `u.genre`); other formats are not supported.

    Raises:
        NotMovieLensError: a file is missing, or a line is not what MovieLens 100K has there.
    """
    folder = Path(folder)
    _check_files(folder)
    genres = _genres(folder / "u.genre")
    titles = tuple(_title(folder / "u.item", number, line, genres) for number, line in _lines(folder / "u.item"))
    users = tuple(
        _whole(folder / "u.user", number, line, line.split("|")[:1])[0] for number, line in _lines(folder / "u.user")
    )
    ratings = np.array([_rating(folder / "u.data", number, line) for number, line in _lines(folder / "u.data")])
    if not len(ratings):
        raise NotMovieLensError(f"{folder / 'u.data'} has no ratings; is the download complete?")
    user, item, rating, rated_at_s = ratings.T.copy()
    for name, numbers, known in (("u.user", user, users), ("u.item", item, [title.item for title in titles])):
        strangers = np.setdiff1d(numbers, known)
        if len(strangers):
            raise NotMovieLensError(
                f"{folder / 'u.data'} speaks of {strangers[:3].tolist()}, which {name} does not have; "
                "take all files from one download of MovieLens 100K"
            )
    return MovieLens(titles, users, user, item, rating, rated_at_s)


def events(movielens: MovieLens, events_per_batch: int = 20_000) -> Iterator[EventBatch]:
    """Yield two playback events per rating by time, about `events_per_batch` of them at a go.

    The first batch also brings `title.added` for every film. `profile.updated` (no kids) and `consent.changed` (all
    allowed) of a viewer come 2 and 1 ms before the viewer's first playback.
    """
    tables = _tables(movielens)
    times = {name: _milliseconds(table) for name, table in tables.items()}
    playback_ms = np.sort(np.concatenate((times["playback.started"], times["playback.stopped"])))
    first_ms, end_ms = int(times["title.added"][0]), int(playback_ms[-1]) + 1
    cuts = sorted({first_ms, *playback_ms[events_per_batch::events_per_batch].tolist(), end_ms})
    for start, end in pairwise(cuts):
        bounds = {name: np.searchsorted(times[name], [start, end]) for name in tables}
        batch = {
            name: table.slice(bounds[name][0], bounds[name][1] - bounds[name][0])
            for name, table in tables.items()
            if bounds[name][1] > bounds[name][0]
        }
        yield EventBatch(start, end, batch)


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise NotMovieLensError(f"{folder} is not a folder; give the one with MovieLens 100K's {', '.join(_FILES)}")
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if not missing:
        return
    foreign = [name for name in _ML_1M_FILES if (folder / name).exists()]
    if foreign:
        raise NotMovieLensError(
            f"{folder} holds MovieLens 1M ({', '.join(foreign)}), and only the format of MovieLens 100K is supported; "
            f"give a folder with {', '.join(_FILES)}"
        )
    raise NotMovieLensError(f"{folder} is not MovieLens 100K: {', '.join(missing)} not found in it")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty; MovieLens 100K is in Latin-1."""
    with path.open(encoding="latin-1", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def _whole(path: Path, number: int, line: str, fields: list[str]) -> list[int]:
    try:
        return [int(field) for field in fields]
    except ValueError:
        raise NotMovieLensError(
            f"{path}, line {number}: expected whole numbers in {fields}, got {line[:80]!r}"
        ) from None


def _genres(path: Path) -> list[str]:
    """Names in the order of the flags in `u.item`; each line is `name|number`."""
    named = [line.rpartition("|") for _, line in _lines(path)]
    numbers = [number for _, _, number in named]
    if not named or numbers != [str(position) for position in range(len(named))]:
        raise NotMovieLensError(f"{path}: expected lines like Action|1, numbered from 0, got numbers {numbers[:5]}")
    return [name for name, _, _ in named]


def _title(path: Path, number: int, line: str, genres: list[str]) -> Title:
    fields = line.split("|")
    flags = fields[_FIRST_GENRE_FIELD:]
    if len(flags) != len(genres) or not set(flags) <= {"0", "1"}:
        raise NotMovieLensError(
            f"{path}, line {number}: expected item|title|date|date|address and {len(genres)} flags of 0 or 1, "
            f"got {line[:80]!r}"
        )
    item = _whole(path, number, line, fields[:1])[0]
    return Title(item, fields[1], tuple(genre for genre, flag in zip(genres, flags, strict=True) if flag == "1"))


def _rating(path: Path, number: int, line: str) -> list[int]:
    fields = _whole(path, number, line, line.split("\t"))
    if len(fields) != 4 or fields[2] not in COMPLETION_PERCENT:
        raise NotMovieLensError(
            f"{path}, line {number}: expected user, item, rating of 1 to 5 and seconds, tab separated, "
            f"got {line[:80]!r}"
        )
    return fields


def _milliseconds(table: pa.Table) -> NDArray[np.int64]:
    milliseconds: NDArray[np.int64] = table["event_timestamp"].cast(pa.int64()).to_numpy()
    return milliseconds


def _tables(movielens: MovieLens) -> dict[str, pa.Table]:
    """All events, one table per name, each by time; ties in the order of the files."""
    stopped_ms = movielens.rated_at_s * 1000
    percent = np.array([COMPLETION_PERCENT.get(rating, 0) for rating in range(6)])[movielens.rating]
    watched_ms = percent * RUNTIME_MS // 100
    started_ms = stopped_ms - watched_ms
    first_ms = {user: int(started_ms[movielens.user == user].min()) for user in np.unique(movielens.user).tolist()}
    seen = sorted(first_ms, key=lambda user: (first_ms[user], user))
    watching_from_ms = np.array([first_ms[user] for user in seen])
    ratings, whole = len(stopped_ms), movielens.rating == 5
    people = np.array(seen)
    return {
        "title.added": _added(movielens, int(started_ms.min()) - _CATALOGUE_LEAD_MS),
        "profile.updated": _sorted(
            _person_events("profile.updated", people, watching_from_ms - 2),
            {"is_kids": pa.repeat(False, len(people)), "maturity_rating": pa.nulls(len(people), pa.string())},
        ),
        "consent.changed": _sorted(
            _person_events("consent.changed", people, watching_from_ms - 1),
            {f"allows_{use}": pa.repeat(True, len(people)) for use in ("analytics", "personalization", "ad_targeting")},
        ),
        "playback.started": _sorted(
            _playback_events("playback.started", movielens, started_ms),
            {
                "start_time_ms": pa.nulls(ratings, pa.int64()),
                "initial_bitrate_kbps": pa.nulls(ratings, pa.int32()),
                "initial_resolution": pa.nulls(ratings, pa.string()),
                "cdn": pa.nulls(ratings, pa.string()),
                "drm_type": pa.nulls(ratings, pa.string()),
            },
        ),
        "playback.stopped": _sorted(
            _playback_events("playback.stopped", movielens, stopped_ms),
            {
                "position_ms": pa.array(watched_ms, pa.int64()),
                "total_duration_ms": pa.repeat(pa.scalar(RUNTIME_MS, pa.int64()), ratings),
                "completion_percent": pa.array(percent.astype(np.float64)),
                "stop_reason": pa.array(["user", "end_of_content"]).take(pa.array(whole.astype(np.int8))),
            },
        ),
    }


def _sorted(arrays: dict[str, pa.Array], properties: dict[str, pa.Array]) -> pa.Table:
    """The envelope's columns in their order, then the rest; rows by time, ties in the order they came in."""
    arrays = arrays | properties
    rows = len(arrays["event_id"])
    envelope = {field.name: arrays.get(field.name, pa.nulls(rows, field.type)) for field in ENVELOPE}
    own = {name: values for name, values in arrays.items() if name not in envelope}
    schema = pa.schema([*ENVELOPE, *(pa.field(name, values.type) for name, values in own.items())])
    table = pa.Table.from_arrays([*envelope.values(), *own.values()], schema=schema)
    return table.take(pa.array(np.argsort(_milliseconds(table), kind="stable")))


def _head(name: str, source: str, keys: list[str], at_ms: NDArray[np.int64]) -> dict[str, pa.Array]:
    """What every event starts with; `keys` tell the events of one name apart."""
    digests = [blake2b(f"ml-100k/{name}/{key}".encode(), digest_size=16).digest() for key in keys]
    bits = np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return {
        "event_id": event_ids(at_ms, bits[:, 0], bits[:, 1]),
        "event_name": pa.repeat(name, len(keys)),
        "event_timestamp": pa.array(at_ms, TIMESTAMP),
        "source": pa.repeat(source, len(keys)),
    }


def _person_events(name: str, users: NDArray[np.int64], at_ms: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Envelope columns of server events about people."""
    return _head(name, "SERVER", [str(user) for user in users], at_ms) | {
        "user_id": pa.array([f"ml-user-{user}" for user in users]),
        "profile_id": pa.array([f"ml-profile-{user}" for user in users]),
        "market": pa.repeat(MARKET, len(users)),
    }


def _playback_events(name: str, movielens: MovieLens, at_ms: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Envelope and common playback columns, one row per rating.

    A session is a viewer's day: the UTC date of the rating, for both events of a playback.
    """
    users, items = movielens.user.tolist(), movielens.item.tolist()
    pairs = [f"{user}-{item}" for user, item in zip(users, items, strict=True)]
    days = [f"{datetime.fromtimestamp(second, UTC):%Y%m%d}" for second in movielens.rated_at_s.tolist()]
    rows = len(pairs)
    return _head(name, "CLIENT", pairs, at_ms) | {
        "client_timestamp": pa.array(at_ms, TIMESTAMP),
        "user_id": pa.array([f"ml-user-{user}" for user in users]),
        "profile_id": pa.array([f"ml-profile-{user}" for user in users]),
        "session_id": pa.array([f"ml-session-{user}-{day}" for user, day in zip(users, days, strict=True)]),
        "device_id": pa.array([f"ml-device-{user}" for user in users]),
        "device_type": pa.repeat("browser", rows),
        "platform": pa.repeat("web", rows),
        "market": pa.repeat(MARKET, rows),
        "consent_analytics": pa.repeat(True, rows),
        "consent_personalization": pa.repeat(True, rows),
        "consent_ad_targeting": pa.repeat(True, rows),
        "content_id": pa.array([f"ml-{item}" for item in items]),
        "content_type": pa.repeat("vod", rows),
        "playback_id": pa.array([f"ml-playback-{pair}" for pair in pairs]),
    }


def _added(movielens: MovieLens, at_ms: int) -> pa.Table:
    """The catalogue, a day before anybody watches any of it."""
    titles = movielens.titles
    rows = len(titles)
    return _sorted(
        _head("title.added", "SERVER", [str(title.item) for title in titles], np.full(rows, at_ms)),
        {
            "content_id": pa.array([f"ml-{title.item}" for title in titles]),
            "title": pa.array([title.name for title in titles]),
            "content_type": pa.repeat("vod", rows),
            "genres": pa.array([list(title.genres) for title in titles], pa.list_(pa.string())),
            "runtime_ms": pa.repeat(pa.scalar(RUNTIME_MS, pa.int64()), rows),
            "maturity_rating": pa.nulls(rows, pa.string()),
            "series_id": pa.nulls(rows, pa.string()),
            "episode_number": pa.nulls(rows, pa.int32()),
        },
    )
