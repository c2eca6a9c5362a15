"""Bringing the online store up to date: features, titles, who is a child, who allows what, and what is popular."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from features.declarations import FeatureGroup
from features.packing import pack
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import bucket_of, read_all
from pipelines.online_people import (
    PEOPLE_AS_OF,
    Records,
    a_stream_is_running,
    as_of,
    consent_records,
    latest,
    profile_records,
    records,
)  # fmt: skip
from serving.online_store import open_online_store

POPULAR_TITLES = 200
# Ratings of titles that a child may be shown, of the systems in use where the platform is sold.
KIDS_RATINGS = frozenset({"G", "PG", "TV-Y", "TV-Y7", "TV-G", "U", "0+", "6+"})


@dataclass(frozen=True)
class OnlineTarget:
    """An online store to fill, and the instant it answers as of: just after the newest event."""

    url: str
    as_of_ms: int

    def put(self, group: FeatureGroup, entity: str, rows: pa.Table) -> int:
        """Write the group's `rows`, one packed value an entity; how many entities that is."""
        with open_online_store(self.url) as store:
            return store.put_many(group.stored_as(entity), pack(group, entity, rows, self.as_of_ms))

    def sweep(self, known: Mapping[FeatureGroup, pa.ChunkedArray], entity: str, bucket: int, buckets: int) -> int:
        """Delete from each group whoever it stores in this bucket of entities and does not know any more; how many.

        Such a one withdrew consent, say. Of whom no group knows, everything stored under the key goes, of whatever
        group; one group can know a title that only those watched of whom another group may not tell.
        """
        of_group = {group: set(keys.unique().to_pylist()) for group, keys in known.items()}
        in_some = set().union(*of_group.values())
        gone: set[str] = set()
        with open_online_store(self.url) as store:
            for group, ours in of_group.items():
                name = group.stored_as(entity)
                stored = sorted(store.keys(name))
                is_here = bucket_of(pa.array(stored, pa.string()), buckets) == bucket
                stale = [key for key, is_ours in zip(stored, is_here, strict=True) if is_ours and key not in ours]
                store.delete_many(name, stale)
                gone.update(stale)
            store.delete_entities(sorted(gone - in_some))
        return len(gone)

    def drop(self, stored: Iterable[str]) -> int:
        """Delete all that is stored under these names; how many values. The next build puts everything anew."""
        with open_online_store(self.url) as store:
            deleted = sum(store.delete_group(name) for name in stored)
            anew = json.dumps(str(uuid.uuid4())).encode()
            store.put_many("meta", [("identity", anew), ("built_from", b"null")])
        return deleted

    def begin(self) -> "Begun":
        """Note that a build begins; what the store was like before."""
        with open_online_store(self.url) as store:
            known, building, built = store.get_many("meta", ["identity", "is_building", "built_from"])
            identity = json.dumps(str(uuid.uuid4())).encode() if known is None else known
            store.put_many("meta", [("identity", identity), ("is_building", b"true")])
        return Begun(str(json.loads(identity)), building == b"true", building is None and built is None)

    def is_current(self, inputs: str) -> bool:
        """Whether the store was last brought up to date, to its end, from these inputs."""
        with open_online_store(self.url) as store:
            return store.get_many("meta", ["built_from"]) == [json.dumps(inputs).encode()]


@dataclass(frozen=True)
class Begun:
    """What a build finds in the online store.

    `identity`: which store it is, since it was last empty: what was put in another one needs putting again.
    `was_interrupted`: a build did not come to its end, so somebody may be there who was to be deleted.
    `was_empty`: nobody is there.
    """

    identity: str
    was_interrupted: bool
    was_empty: bool


def most_viewed(entity: str, rows: pa.Table) -> list[tuple[str, int]]:
    """(title, viewers of the last day) at the newest boundary among `rows`, the most viewed first."""
    columns = [entity, "event_timestamp", "created_timestamp", "last_event_timestamp", "daily_unique_viewers"]
    frame = pl.from_arrow(rows.select(columns))
    assert isinstance(frame, pl.DataFrame)
    newest = frame.filter(pl.col("event_timestamp") == pl.col("event_timestamp").max())
    newest = newest.sort("created_timestamp").unique(entity, keep="last")
    ranked = newest.sort(
        "daily_unique_viewers", "last_event_timestamp", entity, descending=[True, True, False], nulls_last=True
    )
    return [
        (title, int(viewers))
        for title, viewers in ranked.head(POPULAR_TITLES).select(entity, "daily_unique_viewers").iter_rows()
    ]


def materialize_context(
    lakehouse: Lakehouse, online: OnlineTarget, titles: pa.Table, popular: Sequence[tuple[str, int]], inputs: str
) -> dict[str, int]:
    """Write what answers need beside features, last of all that everything is there; how many records of each kind."""
    known = latest(titles, ["content_id"])
    on_demand = known.filter(pl.col("content_type").is_null() | (pl.col("content_type") != "live"))
    kids = set(on_demand.filter(pl.col("maturity_rating").is_in(list(KIDS_RATINGS)))["content_id"].to_list())
    shown = set(on_demand["content_id"].to_list())
    ranked = sorted(popular, key=lambda title: -title[1])
    lists = {"all": [t for t in ranked if t[0] in shown], "kids": [t for t in ranked if t[0] in kids]}
    profiles, consents = lakehouse.existing("privacy.profiles"), lakehouse.existing("privacy.consents")
    people = as_of([profiles, consents])
    groups: dict[str, Records] = {
        "titles": records(known, "content_id", ["title", "genres", "maturity_rating", "content_type"]),
        "profiles": profile_records(read_all(profiles, tables.PROFILES)),
        "consents": consent_records(read_all(consents, tables.CONSENTS)),
        "popular": (
            (name, [{"content_id": title, "viewers": viewers} for title, viewers in rows[:POPULAR_TITLES]])
            for name, rows in lists.items()
        ),
        "meta": iter(
            [
                ("watermark_ms", online.as_of_ms),
                (PEOPLE_AS_OF, people),
                ("built_from", inputs),
                ("is_building", False),
            ]
        ),
    }
    with open_online_store(online.url) as store:
        if a_stream_is_running(store):  # what it has heard of people is newer than the registries
            del groups["profiles"], groups["consents"]
            groups["meta"] = iter([one for one in groups["meta"] if one[0] != PEOPLE_AS_OF])
        return {
            f"online {group}": store.put_many(group, ((key, json.dumps(value).encode()) for key, value in rows))
            for group, rows in groups.items()
        }
