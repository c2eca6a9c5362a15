"""Whose profile it is, and what is left of a child's row."""

import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.profiles import ProfileRegistry, strip_kids
from features.pseudonyms import Pseudonymizer

TIMESTAMP = pa.timestamp("ms", tz="UTC")
SALTED = Pseudonymizer(("an old salt", "the newest salt"))
IDS = ("user_id", "profile_id", "session_id", "device_id")


@dataclass(frozen=True)
class Description:
    profile_id: str
    at_ms: int
    is_kids: bool


def registry_of(descriptions, unit="us"):
    at = pa.array([one.at_ms for one in descriptions], TIMESTAMP)
    return ProfileRegistry.of(
        pa.table(
            {
                "profile_id": pa.array([one.profile_id for one in descriptions], pa.string()),
                "is_kids": pa.array([one.is_kids for one in descriptions], pa.bool_()),
                "event_timestamp": at.cast(pa.timestamp(unit, tz="UTC")),
            }
        )
    )


def described_by_hand(descriptions, profile_id, at_ms):
    """None if nobody described the profile; else whether it is a child's, one description after the other."""
    own = sorted((one for one in descriptions if one.profile_id == profile_id), key=lambda one: one.at_ms)
    if not own:
        return None
    holding_ms = max((one.at_ms for one in own if one.at_ms <= at_ms), default=own[0].at_ms)
    return any(one.is_kids for one in own if one.at_ms == holding_ms)


descriptions = st.lists(st.builds(Description, st.sampled_from("abc"), st.integers(-3, 5), st.booleans()), max_size=10)


@settings(deadline=None)
@given(
    descriptions=descriptions,
    asked=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.integers(-5, 7))),
)
def test_the_description_in_force_holds(descriptions, asked):
    profiles = pl.Series([profile for profile, _ in asked], dtype=pl.String)
    instants = pl.Series([at_ms for _, at_ms in asked], dtype=pl.Int64)
    is_kids, is_described = registry_of(descriptions).describe(profiles, instants)
    expected = [described_by_hand(descriptions, profile, at_ms) for profile, at_ms in asked]
    assert is_kids.tolist() == [one is True for one in expected]
    assert is_described.tolist() == [one is not None for one in expected]


@settings(deadline=None)
@given(descriptions=descriptions, order=st.randoms(use_true_random=False))
def test_the_order_in_which_descriptions_are_read_does_not_matter(descriptions, order):
    shuffled = descriptions.copy()
    order.shuffle(shuffled)
    asked = pl.Series(["a", "b", "c"] * 10), pl.Series([at_ms for at_ms in range(-4, 6) for _ in "abc"])
    for one, other in zip(
        registry_of(descriptions).describe(*asked), registry_of(shuffled).describe(*asked), strict=True
    ):
        assert np.array_equal(one, other)


@settings(deadline=None)
@given(
    descriptions=descriptions,
    old=st.lists(st.booleans(), min_size=10, max_size=10),
    asked=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.integers(-5, 7))),
)
def test_descriptions_under_several_salts_are_of_one_profile(descriptions, old, asked):
    stored = [
        replace(one, profile_id=SALTED.candidates(one.profile_id)[is_old])  # newest salt first
        for one, is_old in zip(descriptions, old, strict=False)
    ]
    profiles = SALTED.pseudonyms(pa.array([profile for profile, _ in asked], pa.string()))
    instants = np.array([at_ms for _, at_ms in asked], np.int64)
    is_kids, is_described = registry_of(stored).describe_each(profiles, instants)
    expected = [described_by_hand(descriptions, profile, at_ms) for profile, at_ms in asked]
    assert is_kids.tolist() == [one is True for one in expected]
    assert is_described.tolist() == [one is not None for one in expected]


def test_a_profile_that_became_a_childs_and_one_that_grew_up():
    registry = registry_of(
        [Description("grew", 0, True), Description("grew", 100, False), Description("now", 50, True)]
    )
    is_kids, described = registry.describe(
        pl.Series(["grew", "grew", "grew", "now", "nobody's"]), pl.Series([0, 99, 100, 10, 10])
    )
    assert is_kids.tolist() == [True, True, False, True, False]
    assert described.tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_timestamps_of_kafka_and_of_iceberg_mean_the_same(unit):
    registry = registry_of([Description("a", 1_000, False), Description("a", 1_001, True)], unit)
    is_kids, _ = registry.describe(pl.Series(["a", "a"]), pl.Series([1_000, 1_001]))
    assert is_kids.tolist() == [False, True]


def events_table(rows):
    """Rows of (profile, instant); the other ids are made from the profile's."""
    return pa.table(
        {
            "profile_id": pa.array([profile for profile, _ in rows], pa.string()),
            "event_timestamp": pa.array([at for _, at in rows], TIMESTAMP),
            "device_id": pa.array([f"device of {profile}" for profile, _ in rows], pa.string()),
            "session_id": pa.array([f"session of {profile}" for profile, _ in rows], pa.string()),
            "user_id": pa.array([f"user of {profile}" for profile, _ in rows], pa.string()),
            "content_id": pa.array([f"title {number}" for number in range(len(rows))], pa.string()),
        }
    )


instants = st.datetimes(datetime(1969, 12, 30), datetime(2030, 1, 1), timezones=st.just(UTC)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
)
some_rows = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), instants), max_size=20)


@settings(deadline=None)
@given(rows=some_rows, flags=st.lists(st.booleans(), min_size=20, max_size=20))
def test_kids_keep_no_id_and_everyone_else_keeps_all(rows, flags):
    events, is_kids = events_table(rows), np.array(flags[: len(rows)], dtype=bool)
    stripped = strip_kids(events, is_kids, SALTED)
    assert stripped.column_names == [*events.column_names, "viewer_token"]
    assert stripped["content_id"].equals(events["content_id"])
    assert stripped["event_timestamp"].equals(events["event_timestamp"])
    for name in IDS:
        plain = events[name].to_pylist()
        assert stripped[name].to_pylist() == [None if kid else one for one, kid in zip(plain, is_kids, strict=True)]


@settings(deadline=None)
@given(rows=some_rows)
def test_kids_tokens_tell_profiles_apart_within_a_day_and_link_no_two_days(rows):
    tokens = strip_kids(events_table(rows), np.ones(len(rows), dtype=bool), SALTED)["viewer_token"].to_pylist()
    same_viewer = {}
    for (profile, at), token in zip(rows, tokens, strict=True):
        assert same_viewer.setdefault((profile, at.date()), token) == token
    assert len(set(same_viewer.values())) == len(same_viewer)


def test_a_day_is_a_utc_day():
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    around = [midnight - timedelta(milliseconds=1), midnight, midnight + timedelta(hours=24, milliseconds=-1)]
    last, first, late = strip_kids(events_table([("a", at) for at in around]), np.ones(3, dtype=bool), SALTED)[
        "viewer_token"
    ].to_pylist()
    assert last != first == late


def test_others_are_counted_by_their_profile():
    stripped = strip_kids(events_table([("a", 1), ("b", 2), (None, 3)]), np.zeros(3, dtype=bool), SALTED)
    assert stripped["viewer_token"].to_pylist() == ["a", "b", None]


def test_a_token_cannot_be_made_without_the_salt():
    rows, kids = [("a", datetime(2026, 3, 1, tzinfo=UTC))], np.ones(1, dtype=bool)
    (token,) = strip_kids(events_table(rows), kids, SALTED)["viewer_token"].to_pylist()
    (other,) = strip_kids(events_table(rows), kids, Pseudonymizer(("another salt",)))["viewer_token"].to_pylist()
    assert token != other
    names = ["a", "kids:2026-03-01:a", "a2026-03-01", "2026-03-01a", "a20513", "20513a"]
    guesses = {hashlib.sha256(name.encode()).hexdigest() for name in names}
    guesses |= {hmac.new(b"", name.encode(), hashlib.sha256).hexdigest() for name in names}
    guesses |= {hmac.new(b"an old salt", name.encode(), hashlib.sha256).hexdigest() for name in names}
    assert token not in guesses
    assert token == hmac.new(b"the newest salt", b"kids:2026-03-01:a", hashlib.sha256).hexdigest()


def test_rows_of_iceberg_give_the_token_that_the_door_gave():
    rows, kids = [("a", datetime(2026, 3, 1, 23, 59, 59, 999_000, tzinfo=UTC))], np.ones(1, dtype=bool)
    events = events_table(rows)
    stored = events.set_column(1, "event_timestamp", events["event_timestamp"].cast(pa.timestamp("us", tz="UTC")))
    assert strip_kids(stored, kids, SALTED)["viewer_token"].equals(strip_kids(events, kids, SALTED)["viewer_token"])


@settings(deadline=None)
@given(rows=some_rows, flags=st.lists(st.booleans(), min_size=20, max_size=20))
def test_dictionary_columns_stay_so_and_keep_no_id_of_a_child(rows, flags):
    events, is_kids = events_table(rows), np.array(flags[: len(rows)], dtype=bool)
    as_text = strip_kids(events, is_kids, SALTED)
    for name in IDS:
        events = events.set_column(events.column_names.index(name), name, events[name].dictionary_encode())
    stripped = strip_kids(events, is_kids, SALTED)
    for name in (*IDS, "viewer_token"):
        column = stripped[name].combine_chunks() if stripped[name].num_chunks != 1 else stripped[name].chunk(0)
        assert column.to_pylist() == as_text[name].to_pylist()
        assert set(column.dictionary.to_pylist()) == {value for value in column.to_pylist() if value is not None}


def test_several_chunks():
    rows = [("a", 1), ("b", 2), ("a", 86_400_000), ("c", 4)]
    kids = np.array([True, False, True, False])
    whole = strip_kids(events_table(rows), kids, SALTED)
    cut = pa.concat_tables([events_table(rows[:1]), events_table([]), events_table(rows[1:])])
    # The title's number is made per table, and is of no concern here.
    assert strip_kids(cut, kids, SALTED).drop_columns(["content_id"]).equals(whole.drop_columns(["content_id"]))
