"""Pseudonyms: SHA-256 of the id followed by the salt, as hashlib makes it."""

import hashlib
import pickle
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import pseudonyms
from features.pseudonyms import NoSaltError, Pseudonymizer

SALTS = ("salt of 2024", "salt of 2025", "salt of 2026")
TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20)


def sha256(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@settings(deadline=None)
@given(plain=TEXT, salts=st.lists(TEXT.filter(bool), min_size=1, max_size=4))
def test_the_newest_salt_hashes_and_every_salt_is_tried(plain, salts):
    people = Pseudonymizer(tuple(salts))
    assert people.hash(plain) == sha256(plain + salts[-1])
    assert people.candidates(plain) == tuple(sha256(plain + salt) for salt in reversed(salts))
    assert people.candidates(plain)[0] == people.hash(plain)


def test_a_known_answer():
    # printf 'usr_x1y2z3pepper' | sha256sum
    expected = "565c3eb55fe073b1ac493b820b34ced32fdeb2bb7161cee7ed749bba177a4aee"
    assert Pseudonymizer(("pepper",)).hash("usr_x1y2z3") == expected


@settings(deadline=None)
@given(column=st.lists(st.none() | TEXT), cut=st.integers(0, 10))
def test_a_column_is_hashed_value_by_value(column, cut):
    people = Pseudonymizer(SALTS)
    expected = [None if plain is None else sha256(plain + SALTS[-1]) for plain in column]
    chunks = [pa.array(column[:cut], pa.string()), pa.array([], pa.string()), pa.array(column[cut:], pa.string())]
    for plain in (pa.array(column, pa.string()), pa.chunked_array(chunks), pa.chunked_array([], pa.string())):
        hashed = people.hash_column(plain)
        assert isinstance(hashed, pa.Array)
        assert hashed.type == pa.string()
        assert hashed.to_pylist() == (expected if len(plain) else [])


@settings(deadline=None)
@given(column=st.lists(st.none() | TEXT), kept=st.lists(st.booleans(), min_size=100, max_size=100))
def test_people_have_a_name_under_every_salt(column, kept):
    people = Pseudonymizer(SALTS).pseudonyms(pa.array(column, pa.string()))
    for names, salt in zip(people.names, reversed(SALTS), strict=True):
        names = [*names.to_pylist(), None]  # the code -1 is nobody
        expected = [None if plain is None else sha256(plain + salt) for plain in column]
        assert [names[code] for code in people.codes] == expected
    few = [plain for plain, is_kept in zip(column, kept, strict=False) if is_kept]
    written = people.filter(np.array(kept[: len(column)], dtype=bool)).column
    assert written.to_pylist() == [None if plain is None else sha256(plain + SALTS[-1]) for plain in few]
    assert len(written.dictionary) == len({plain for plain in few if plain is not None})


def test_what_is_remembered_is_bounded_and_stays_right(monkeypatch):
    monkeypatch.setattr(pseudonyms, "_MOST_REMEMBERED", 10)
    people = Pseudonymizer(("a salt of this test",))
    for first in (0, 5, 100, 3):
        column = [f"usr_{number}" for number in range(first, first + 25)]
        assert people.hash_column(pa.array(column)).to_pylist() == [people.hash(plain) for plain in column]
        assert len(pseudonyms._remembered["a salt of this test"]) <= 10
    pseudonyms._remembered.pop("a salt of this test")


def test_salts_are_not_mixed_up_by_what_is_remembered():
    for salt in ("one", "another", "one"):
        assert Pseudonymizer((salt,)).hash_column(pa.array(["a"])).to_pylist() == [sha256("a" + salt)]


def test_a_days_token_is_the_same_all_day_and_another_the_next():
    people = Pseudonymizer(SALTS)
    day = (datetime(2026, 2, 28, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    tokens = {people.daily_token(plain, day + offset) for plain in ("a", "b", "a:b") for offset in range(400)}
    assert len(tokens) == 3 * 400
    assert all(len(token) == 64 and set(token) <= set("0123456789abcdef") for token in tokens)
    assert people.daily_token("a", day) == Pseudonymizer(SALTS[-1:]).daily_token("a", day)
    assert people.daily_token("a", day) != Pseudonymizer(SALTS[:1]).daily_token("a", day)


@pytest.mark.parametrize("salts", [(), ("",), ("a salt", "")])
def test_an_empty_salt_is_refused(salts):
    with pytest.raises(NoSaltError, match=r"received an empty one; set REEL_SALT, or salt_file"):
        Pseudonymizer(salts)


def test_the_salt_is_never_shown():
    people = Pseudonymizer(SALTS)
    for shown in (repr(people), str(people), f"{people}"):
        assert not any(salt in shown for salt in SALTS)


def test_a_pseudonymizer_travels_to_other_processes():
    assert pickle.loads(pickle.dumps(Pseudonymizer(SALTS))).hash("a") == sha256("a" + SALTS[-1])
