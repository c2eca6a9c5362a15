"""Silver of many days, made at once and written straight into Iceberg: what a platform would have after cleaning.

Four in five events are of playbacks: a start, heartbeats, stalls and switches, a stop. Viewers and titles grow with the
events, so that an event is as much work whatever their number; channels and days do not. A few titles are watched most.
Everything follows from the seed.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contract.events import load_contract
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.settings import Settings

DAY_MS, MINUTE_MS = 86_400_000, 60_000
FIRST_MS = 1_767_225_600_000  # 1 January 2026
EVENTS_PER_PLAYBACK = 8
EVENTS_PER_USER = 2_000
EVENTS_PER_TITLE = 5_000
CHANNELS = 50
GENRES = ("drama", "news", "comedy", "crime", "sport", "kids", "music", "travel")
_SHARES = {"playback": 0.8, "browse": 0.1, "live": 0.04, "navigation": 0.03, "user": 0.02, "search": 0.01}
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Platform:
    """`events` over `days`, in the tables of a lakehouse."""

    settings: Settings
    events: int
    days: int
    seed: int = 1

    def fill(self, first: float, last: float) -> int:
        """Write the events between two shares of the whole time (0 to 1) in chunks of a day; how many there are."""
        lakehouse = Lakehouse.open(self.settings)
        contract = load_contract(self.settings.schemas)
        written = 0
        begin_ms, end_ms = (FIRST_MS + int(share * self.days * DAY_MS) for share in (first, last))
        first_day = max(0, (begin_ms - FIRST_MS) // DAY_MS - 1)  # whose playbacks go on past midnight
        for day in range(first_day, -(-(end_ms - FIRST_MS) // DAY_MS)):
            for domain, rows in self._day(day):
                times = rows["event_timestamp"].cast(pa.int64()).to_numpy() // 1000
                rows = rows.filter(pa.array((times >= begin_ms) & (times < end_ms)))
                if rows.num_rows:
                    spec = tables.silver_domain(contract, domain, self.settings.lakehouse.event_partition)
                    table = lakehouse.table(spec)
                    commit_files(table, write_files(TableFiles.of(table), rows), None)
                    written += rows.num_rows
        return written

    def describe_titles(self) -> None:
        """Write the catalogue."""
        table = Lakehouse.open(self.settings).table(tables.silver_titles())
        rng = np.random.default_rng(self.seed)
        rows = [
            {"event_id": f"t-{place}", "event_timestamp": (FIRST_MS - DAY_MS) * 1000, "content_id": f"vod-{place}",
             "title": f"Title {place}", "content_type": "vod", "genres": [str(one) for one in rng.choice(GENRES, 2)]}
            for place in range(self._titles)
        ]  # fmt: skip
        commit_files(table, write_files(TableFiles.of(table), pa.Table.from_pylist(rows, tables.TITLES)), None)

    def _day(self, day: int) -> Iterator[tuple[str, pa.Table]]:
        for place, (domain, share) in enumerate(_SHARES.items()):
            rng = np.random.default_rng([self.seed, day, place])
            number = max(EVENTS_PER_PLAYBACK, int(self.events / self.days * share))
            users = max(200, self.events // EVENTS_PER_USER)
            if domain == "playback":
                yield domain, _playback(rng, number, day, users, self._titles)
            else:
                yield domain, _other(domain, rng, number, day, users)

    @property
    def _titles(self) -> int:
        return max(200, self.events // EVENTS_PER_TITLE)


def _playback(rng: np.random.Generator, number: int, day: int, users: int, titles: int) -> pa.Table:
    playbacks = number // EVENTS_PER_PLAYBACK
    who, content = rng.integers(users * 2, size=playbacks), np.minimum(rng.zipf(1.3, playbacks), titles) - 1
    start_ms = FIRST_MS + day * DAY_MS + rng.integers(DAY_MS, size=playbacks)
    steps_ms = np.cumsum(rng.integers(1_000, 15 * MINUTE_MS, (playbacks, EVENTS_PER_PLAYBACK)), axis=1)
    times_ms = (start_ms[:, None] + steps_ms).ravel()
    of, step = np.repeat(np.arange(playbacks), EVENTS_PER_PLAYBACK), np.tile(np.arange(EVENTS_PER_PLAYBACK), playbacks)
    names = np.array(["started", "heartbeat", "rebuffer", "quality_changed", "error", "seeked", "stopped"])
    kind = rng.choice(6, len(of), p=[0, 0.8, 0.08, 0.06, 0.01, 0.05])
    kind = np.where(step == 0, 0, np.where(step == EVENTS_PER_PLAYBACK - 1, 6, kind))
    is_start, is_stop = kind == 0, kind == 6
    percent = np.round(rng.random(len(of)) * 100, 1)
    kbps = rng.choice([400, 1200, 3000, 6000, 9000], len(of))
    columns = {
        "event_name": _words([f"playback.{name}" for name in names], kind),
        "playback_id": _numbered(f"playback-{day}", of),
        "content_id": _words([f"vod-{place}" for place in range(titles)], content[of]),
        "content_type": _words(["vod"], np.zeros(len(of), dtype=np.int64)),
        "content_series_id": _words([f"series-{place}" for place in range(titles // 10)], content[of] // 10),
        "content_episode_number": pa.array((content[of] % 10 + 1).astype(np.int32)),
        "completion_percent": pa.array(percent, mask=~is_stop),
        "cdn": _words(["akamai", "fastly", "own"], rng.integers(3, size=playbacks)[of]),
        "geo_country": _words(["GB", "FR", "DE"], who[of] % 3),
        "start_time_ms": pa.array(rng.integers(200, 4000, len(of)), mask=~is_start),
        "initial_bitrate_kbps": pa.array(kbps.astype(np.int32), mask=~is_start),
        "bitrate_kbps": pa.array(kbps.astype(np.int32), mask=kind != 1),
        "new_bitrate_kbps": pa.array(kbps.astype(np.int32), mask=kind != 3),
        "rebuffer_duration_ms": pa.array(rng.integers(100, 8000, len(of)), mask=kind != 2),
        "seek_method": _words(["scrub", "skip_intro"], rng.integers(2, size=len(of)), kind != 5),
    }
    return pa.table(_who(who[of], day, times_ms, "p") | columns)


def _other(domain: str, rng: np.random.Generator, number: int, day: int, users: int) -> pa.Table:
    who = rng.integers(users * 2, size=number)
    times_ms = FIRST_MS + day * DAY_MS + rng.integers(DAY_MS, size=number)
    return pa.table(_who(who, day, times_ms, domain[0]) | _OF[domain](rng, number))


def _browse(rng: np.random.Generator, number: int) -> dict[str, pa.Array]:
    kind = rng.choice(3, number, p=[0.7, 0.1, 0.2])
    return {
        "event_name": _words(["tile.impression", "tile.click", "rail.scroll"], kind),
        "rail_id": _words(["for_you", "new", "popular"], rng.integers(3, size=number)),
        "scroll_depth_percent": pa.array(np.round(rng.random(number) * 100, 1), mask=kind != 2),
        "content_genres": _genres(rng, number),
    }


def _search(rng: np.random.Generator, number: int) -> dict[str, pa.Array]:
    kind = rng.integers(2, size=number)
    return {
        "event_name": _words(["search.query", "search.result.click"], kind), "content_genres": _genres(rng, number)
    }  # fmt: skip


def _live(rng: np.random.Generator, number: int) -> dict[str, pa.Array]:
    kind, channels = rng.integers(2, size=number), [f"channel-{place}" for place in range(CHANNELS)]
    return {
        "event_name": _words(["channel.tune", "channel.tune_away"], kind),
        "channel_id": _words(channels, rng.integers(CHANNELS, size=number)),
        "previous_channel_id": _words(channels, rng.integers(CHANNELS, size=number)),
        "view_duration_ms": pa.array(rng.integers(1000, 3_600_000, number), mask=kind != 1),
    }


def _navigation(rng: np.random.Generator, number: int) -> dict[str, pa.Array]:
    return {"event_name": _words(["app.launch"], np.zeros(number, dtype=np.int64))}


def _user(rng: np.random.Generator, number: int) -> dict[str, pa.Array]:
    kind = rng.choice(3, number, p=[0.9, 0.06, 0.04])
    return {"event_name": _words(["auth.login_succeeded", "support.contacted", "payment.failed"], kind)}


_OF = {"browse": _browse, "search": _search, "live": _live, "navigation": _navigation, "user": _user}


def _who(who: Ints, day: int, times_ms: Ints, prefix: str) -> dict[str, pa.Array]:
    """What every event has: whose it is (`who`: places of profiles, two an account), when it was, what was allowed."""
    size = len(who)
    profiles, place = np.unique(who, return_inverse=True)
    yes = pa.array(np.ones(size, dtype=np.bool_))
    stamps = pa.array(times_ms * 1000).cast(pa.timestamp("us", tz="UTC"))
    return {
        "event_id": _numbered(f"{prefix}-{day}", np.arange(size)),
        "event_timestamp": stamps,
        "client_timestamp": stamps,
        "client_timestamp_reliable": yes,
        "ingested_at": stamps,
        "time_zone": _words(["Europe/London", "America/New_York", "Asia/Kolkata"], who % 3),
        "user_id": _words([_pseudonym("u", one // 2) for one in profiles.tolist()], place),
        "profile_id": _words([_pseudonym("p", one) for one in profiles.tolist()], place),
        "viewer_token": _words([_pseudonym("v", one) for one in profiles.tolist()], place),
        "session_id": _words([_pseudonym(f"s{day}", one) for one in profiles.tolist()], place),
        "device_type": _words(["tv", "phone"], who % 2),
        "connection_type": _words(["wifi", "ethernet"], who % 2),
        "platform": _words(["tv", "mobile"], who % 2),
        "market": _words(["GB"], np.zeros(size, dtype=np.int64)),
        "is_kids": pa.array(np.zeros(size, dtype=np.bool_)),
        **dict.fromkeys(("consent_analytics", "consent_personalization", "consent_ad_targeting"), yes),
    }


def _pseudonym(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind}-{number}".encode()).hexdigest()


def _words(words: list[str], places: Ints, is_null: npt.NDArray[np.bool_] | None = None) -> pa.DictionaryArray:
    indices = pa.array(places.astype(np.int32), mask=is_null)
    distinct = pa.array(words).dictionary_encode()  # two profiles may be of one account
    return pa.DictionaryArray.from_arrays(distinct.indices.take(indices), distinct.dictionary)


def _numbered(prefix: str, numbers: Ints) -> pa.Array:
    texts = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 28, "0")
    return pc.binary_join_element_wise(pa.scalar(prefix), texts, "-")


def _genres(rng: np.random.Generator, number: int) -> pa.Array:
    lists = pa.array([[one, other] for one in GENRES for other in GENRES if one < other])
    return lists.take(pa.array(rng.integers(len(lists), size=number)))
