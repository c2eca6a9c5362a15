import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.entities import ENTITIES, entity, key_of, with_key
from features.errors import LogError, UnknownEntityError
from features.groups import GROUPS, group
from features.values import values_at
from tests.features.random_log import random_log, times_of

_TEXT = st.text(alphabet="a/%25F|", max_size=4)


def test_every_groups_entities_are_known():
    assert {key for one in GROUPS for key in one.entities} == {one.key for one in ENTITIES}
    assert [one.key for one in ENTITIES if one.is_personal] == ["user_id", "profile_id", "session_id"]
    with pytest.raises(UnknownEntityError, match="no entity has the key 'cdn'; the nearest is cdn_region"):
        entity("cdn")


def test_a_key_is_its_columns():
    cdns, regions = pa.array(["akamai", "a/b", "", None, "x"]), pa.array(["GB", "100%", "GB", "GB", None])
    assert key_of([cdns, regions]).to_pylist() == ["akamai/GB", "a%2Fb/100%25", "/GB", None, None]
    assert key_of([cdns]).equals(cdns)


@given(st.lists(st.tuples(_TEXT, _TEXT), min_size=2, max_size=20, unique=True))
def test_no_two_entities_share_a_key(pairs):
    keys = key_of([pa.array([one[place] for one in pairs], pa.string()) for place in (0, 1)]).to_pylist()
    assert len(set(keys)) == len(pairs)


def test_a_left_table_asks_by_columns():
    rng = np.random.default_rng(5)
    signals = group("qoe_signals")
    log = random_log(rng, signals.source, ("cdn_region",), 300)
    place = log.column_names.index("cdn_region")
    keys = pa.array([f"c{rng.integers(2)}/R{rng.integers(2)}" for _ in range(300)])
    log = log.set_column(place, "cdn_region", keys)
    left = pa.table({"cdn": ["c0", "c1", "c2", None], "region": ["R1", "R0", "R0", "R0"]})
    asked = np.full(4, times_of(log).max() + 5_000)
    asked_by_columns = values_at(signals, "cdn_region", log, with_key(left, "cdn_region")["cdn_region"], asked)
    asked_by_key = values_at(signals, "cdn_region", log, pa.array(["c0/R1", "c1/R0", "nobody", None]), asked)
    assert asked_by_columns.equals(asked_by_key)
    assert asked_by_key[signals.age_column].is_valid().to_pylist() == [True, True, False, False]
    assert with_key(left, "region") is left
    with pytest.raises(LogError, match=r"the table of cdn_region lacks the column\(s\) region"):
        with_key(left.select(["cdn"]), "cdn_region")
