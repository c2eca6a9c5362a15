"""Online, a group knows nobody whom its table does not know."""

import numpy as np
import pyarrow as pa
import pytest

from features.groups.content_engagement import CONTENT_ENGAGEMENT
from features.groups.content_popularity import CONTENT_POPULARITY
from pipelines.lakehouse.scans import bucket_of
from pipelines.online import OnlineTarget
from serving.online_store import open_online_store

KEY, BUCKETS = "content_id", 3
TITLES = [f"title-{number}" for number in range(40)]
BOTH = (CONTENT_POPULARITY, CONTENT_ENGAGEMENT)


@pytest.fixture
def online(tmp_path):
    target = OnlineTarget(f"lmdb://{tmp_path}/online", 0)
    with open_online_store(target.url) as store:
        for group in BOTH:
            store.put_many(group.stored_as(KEY), [(title, b"value") for title in TITLES])
        store.put_many("beside", [(title, b"value") for title in TITLES])
    return target


def stored(online, name):
    with open_online_store(online.url, readonly=True) as store:
        return set(store.keys(name))


def swept(online, known):
    """Sweep every bucket, each with what is known in it."""
    of_bucket = dict(zip(TITLES, bucket_of(pa.array(TITLES), BUCKETS), strict=True))
    return sum(
        online.sweep(
            {
                group: pa.chunked_array([[title for title in titles if of_bucket[title] == bucket]], pa.string())
                for group, titles in known.items()
            },
            KEY, bucket, BUCKETS,
        )
        for bucket in range(BUCKETS)
    )  # fmt: skip


def test_each_group_keeps_whom_its_own_table_knows_and_of_whom_no_group_knows_nothing_stays(online):
    chance = np.random.default_rng(5)
    popular = set(chance.choice(TITLES, 25, replace=False).tolist())
    engaging = set(chance.choice(TITLES, 25, replace=False).tolist())
    gone = swept(online, {CONTENT_POPULARITY: popular, CONTENT_ENGAGEMENT: engaging})
    assert stored(online, CONTENT_POPULARITY.stored_as(KEY)) == popular
    assert stored(online, CONTENT_ENGAGEMENT.stored_as(KEY)) == engaging
    assert stored(online, "beside") == popular | engaging
    assert len(popular | engaging) < len(TITLES)
    assert gone == len(set(TITLES) - (popular & engaging))


def test_a_bucket_without_anybody_is_swept_too(online):
    assert swept(online, {CONTENT_POPULARITY: set(), CONTENT_ENGAGEMENT: set()}) == len(TITLES)
    assert stored(online, CONTENT_POPULARITY.stored_as(KEY)) == set()
    assert stored(online, "beside") == set()
