"""Chance, candidates, weights and splits against plain loops and against arithmetic by hand."""

import hashlib
import struct
from collections import Counter
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import DeclarationError, LogError
from features.playbacks import VIEWING_LOG
from features.training import Balance, Catalogue, Negatives, SeenIn, SplitAt, SplitByShare
from features.training.candidates import Available
from features.training.chance import choose, combined, identities, uniform
from features.training.sampling import kept_of, with_negatives
from features.training.splits import Bounds, boundary_ms

HOUR, DAY = 3_600_000, 86_400_000
TIME = pa.timestamp("ms", tz="UTC")


def rows_at(instants: list[int], titles: list[str | None]) -> pa.Table:
    return pa.table(
        {
            "row": pa.array([f"r{number}" for number in range(len(instants))], pa.string()),
            "content_id": pa.array(titles, pa.string()),
            "event_timestamp": pa.array(instants, pa.int64()).cast(TIME),
        }
    )


def test_numbers_are_the_same_whatever_is_drawn_with_them_and_evenly_spread():
    table = pa.table({"a": [f"user-{n % 997}" for n in range(40_000)], "b": range(40_000)})
    hashes = identities(table, ["a", "b"])
    assert len(set(hashes.tolist())) == 40_000
    order = np.random.default_rng(1).permutation(40_000)
    assert (identities(table.take(pa.array(order)), ["a", "b"]) == hashes[order]).all()
    drawn = uniform(hashes, 7, "x")
    assert (uniform(hashes[order], 7, "x") == drawn[order]).all()
    for other in (uniform(hashes, 8, "x"), uniform(hashes, 7, "y"), uniform(combined(hashes, hashes), 7, "x")):
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.03
    # 50 cells of 800 expected: chi-squared with 49 degrees of freedom is under 95 but once in 10,000 times.
    counts = np.bincount((drawn * 50).astype(int), minlength=50)
    assert ((counts - 800) ** 2 / 800).sum() < 95


def mixed(value: int) -> int:
    """SplitMix64 in Python's own whole numbers, from its paper."""
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) % 2**64
    return value ^ value >> 31


def test_identities_are_known_numbers():
    """Another release of a library, or of ours, must not move them: what an old set drew could not be drawn again."""
    table = pa.table({"t": ["a", None], "n": [1, -2], "f": [0.5, None], "b": [True, None],
                      "at": pa.array([10, 20], pa.int64()).cast(TIME)})  # fmt: skip
    every = identities(table, table.column_names)
    text = int.from_bytes(hashlib.blake2b(b"a", digest_size=8, person=b"reel.sketch.1").digest(), "little")
    half = struct.unpack("<Q", struct.pack("<d", 0.5))[0]
    null = 0x9E3779B97F4A7C15
    parts = ([text, mixed(1), mixed(half), mixed(1), mixed(10_000)],
             [null, mixed(2**64 - 2), null, null, mixed(20_000)])  # fmt: skip
    for row, columns in enumerate(parts):
        want = 0x243F6A8885A308D3
        for part in columns:
            want = mixed(want ^ part)
        assert every[row] == want
    as_stored = table.set_column(4, "at", table["at"].cast(pa.timestamp("us", tz="UTC")))
    assert (identities(as_stored, table.column_names) == every).all()
    encoded = table.set_column(0, "t", table["t"].dictionary_encode())
    assert (identities(encoded, table.column_names) == every).all()
    with pytest.raises(LogError, match="told apart by l, which is list"):
        identities(pa.table({"l": [["a"]]}), ["l"])


def test_every_set_of_places_is_as_likely():
    hashes = identities(pa.table({"n": range(60_000)}), ["n"])
    places = choose(hashes, 3, np.full(60_000, 5), 3)
    assert all(len(set(row)) == 3 for row in places.tolist())
    counts = Counter(tuple(sorted(row)) for row in places.tolist())
    assert set(counts) == set(combinations(range(5), 3))
    # 10 sets of 6,000 expected: chi-squared with 9 degrees of freedom is under 34 but once in 10,000 times.
    assert sum((count - 6_000) ** 2 / 6_000 for count in counts.values()) < 34
    few = choose(hashes[:4], 3, np.array([0, 1, 2, 3]), 3)
    assert [sorted(row) for row in few.tolist()] == [[-1, -1, -1], [-1, -1, 0], [-1, 0, 1], [0, 1, 2]]


spans = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 20), st.integers(1, 15)), max_size=8)


@settings(max_examples=150, deadline=None)
@given(spans, st.lists(st.tuples(st.integers(0, 40), st.sampled_from([*"abcxyz", None])), max_size=8),
       st.integers(1, 4), st.integers(0, 99))  # fmt: skip
def test_negatives_are_of_what_was_there_and_weigh_what_they_stand_for(offers, asked, per_row, seed):
    times: dict[str, list[tuple[int, int]]] = {}
    for value, since, length in offers:
        if all(since + length <= a or since >= b for a, b in times.get(value, [])):
            times.setdefault(value, []).append((since, since + length))
    flat = sorted((value, since, until) for value, spans in times.items() for since, until in spans)
    available = Available(
        pa.array([value for value, _, _ in flat], pa.string()),
        np.array([since for _, since, _ in flat], dtype=np.int64),
        np.array([until for _, _, until in flat], dtype=np.int64),
    )
    rows = rows_at([t for t, _ in asked], [title for _, title in asked])
    hashes = identities(rows, ["row"])
    negatives = Negatives("content_id", per_row)
    sample = with_negatives(rows, hashes, "event_timestamp", negatives, available, seed)
    got = [row | {"w": w, "drawn": d} for row, w, d in
           zip(sample.rows.to_pylist(), sample.weights.tolist(), sample.is_drawn.tolist(), strict=True)]  # fmt: skip
    assert [row["row"] for row in got if not row["drawn"]] == rows["row"].to_pylist()
    assert len(set(sample.identities.tolist())) == len(got)
    for number, (t, title) in enumerate(asked):
        others = {v for v, spans in times.items() if any(since <= t < until for since, until in spans)} - {title}
        mine = [row for row in got if row["row"] == f"r{number}"]
        assert mine[0]["content_id"] == title
        assert mine[0]["w"] == 1.0
        drawn = [row["content_id"] for row in mine[1:]]
        assert set(drawn) <= others
        assert len(drawn) == len(set(drawn)) == min(per_row, len(others))
        assert all(row["w"] == len(others) / len(drawn) for row in mine[1:])
    order = np.arange(rows.num_rows)[::-1].copy()
    again = with_negatives(rows.take(pa.array(order)), hashes[order], "event_timestamp", negatives, available, seed)
    assert sorted(again.identities.tolist()) == sorted(sample.identities.tolist())


def test_the_catalogue_is_as_it_was_known():
    def title(content_id, at, **columns):
        return {"content_id": content_id, "event_timestamp": at, "content_type": "vod"} | columns

    schema = pa.schema([("content_id", pa.string()), ("content_type", pa.string()), ("event_timestamp", TIME),
                        ("is_available", pa.bool_()), ("available_until", TIME)])  # fmt: skip
    titles = [
        title("late", 50),
        title("comes-back", 10),
        title("comes-back", 20, is_available=False),
        title("comes-back", 30, is_available=True),
        title("ends", 10, available_until=40),
        title("prolonged", 10, available_until=40),
        title("prolonged", 35, available_until=60),
        title("too-late", 45, available_until=40),
        title("both", 10),
        title("both", 10, is_available=False),
        title("channel", 0, content_type="live"),
        title("unsaid", 0, content_type=None),
    ]
    table = pa.Table.from_pylist(titles, schema=schema)
    want = {10: "", 11: "comes-back ends prolonged", 20: "comes-back ends prolonged", 21: "ends prolonged",
            30: "ends prolonged", 31: "comes-back ends prolonged", 39: "comes-back ends prolonged",
            40: "comes-back prolonged", 50: "comes-back prolonged", 51: "comes-back late prolonged",
            59: "comes-back late prolonged", 60: "comes-back late"}  # fmt: skip
    for shuffled in (table, table.take(list(reversed(range(len(titles)))))):
        available = Catalogue(("vod",)).available(shuffled)
        found = {}
        for rows, places in available.by_instant(np.array(list(want))):
            names = sorted(available.values.take(pa.array(places)).to_pylist())
            found |= {list(want)[row]: " ".join(names) for row in rows.tolist()}
        assert found == want
    everything = Catalogue().available(table)
    ((_, places),) = everything.by_instant(np.array([5]))
    assert sorted(everything.values.take(pa.array(places)).to_pylist()) == ["channel", "unsaid"]


def test_what_a_log_had_seen_is_there_from_its_first_event_on():
    spine = SeenIn(VIEWING_LOG, "content_id")
    log = pa.table({"content_id": ["b", "a", "b", None], "event_timestamp": pa.array([5, 9, 3, 1]).cast(TIME)})
    other = pa.table({"content_id": ["c"], "event_timestamp": pa.array([0]).cast(TIME)})
    available = spine.available(pa.concat_tables([spine.firsts(log), spine.firsts(other)]))
    assert available.values.to_pylist() == ["a", "b", "c"]
    assert available.since_ms.tolist() == [10, 4, 1]
    with pytest.raises(DeclarationError, match="profile_id is a person"):
        SeenIn(VIEWING_LOG, "profile_id").check()


def test_what_is_kept_stands_for_what_is_not():
    labels = pa.chunked_array(
        [pa.array([n % 10 == 0 for n in range(30_000)]).cast(pa.bool_()), pa.array([None] * 2, pa.bool_())]
    )
    splits = np.append(np.arange(30_000) % 3, [0, 0])
    hashes = identities(pa.table({"n": range(30_002)}), ["n"])
    kept, probability = kept_of(labels, splits, hashes, Balance("x", ((False, 0.2),)), 11)
    for value, split in ((True, 0), (True, 1), (False, 1), (False, 2), (None, 0)):
        mine = np.array([one == value for one in labels.to_pylist()]) & (splits == split)
        assert kept[mine].all()
        assert (probability[mine] == 1).all()
    negatives = np.array([one is False for one in labels.to_pylist()]) & (splits == 0)
    assert (probability[negatives] == 0.2).all()
    # 9,000 drawn with 0.2: 1,800, give or take 38; the weights add up to about all of them.
    assert abs(kept[negatives].sum() - 1_800) < 5 * 38
    assert abs((1 / probability[negatives & kept]).sum() / negatives.sum() - 1) < 0.11
    with pytest.raises(DeclarationError, match="'yes' is no value of x, which is bool"):
        kept_of(labels, splits, hashes, Balance("x", (("yes", 0.2),)), 11)


@given(st.lists(st.integers(-5, 60), max_size=20), st.integers(0, 5))
def test_splits_are_in_order_with_a_gap_before_each(instants, gap):
    places = Bounds(20, 40, gap).split_of(np.array(instants, dtype=np.int64)).tolist()
    for t, place in zip(instants, places, strict=True):
        want = -1
        if t < 20 - gap:
            want = 0
        elif 20 <= t < 40 - gap:
            want = 1
        elif t >= 40:
            want = 2
        assert place == want


def test_shares_of_the_rows_decide_when_splits_begin():
    hours = {100: 50, 101: 30, 103: 10, 200: 5, 201: 5}
    assert boundary_ms(hours, 0.8) == 102 * HOUR
    assert boundary_ms(hours, 0.81) == 104 * HOUR
    assert SplitByShare(0.1, 0.1).bounds(7, hours) == Bounds(102 * HOUR, 104 * HOUR, 7)
    assert SplitAt.days("2026-03-01", "2026-04-01T06:00:00+02:00").bounds(7, {}) == Bounds(
        1_772_323_200_000, 1_775_016_000_000, 7
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: SplitAt.days("March", "April"), "'March' is no day"),
        (lambda: SplitAt(10, 20).check(10), "which is not at all"),
        (lambda: SplitByShare(0.6, 0.4).check(1), "leave nothing to train on"),
        (lambda: Negatives("content_id", 0).check(), "0 a row is none"),
        (lambda: Balance("x", ((False, 0.0),)).check(), "a probability above 0"),
        (lambda: Balance("x", ((False, 0.5),), splits=("dev",)).check(), "no split 'dev'"),
    ],
)
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(DeclarationError, match=said):
        wrong()
