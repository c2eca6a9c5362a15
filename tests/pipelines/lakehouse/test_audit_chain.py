"""The chain of the audit log: whatever is done to its records is found, and where."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lakehouse.audit_chain import Head, Row, extended, first_broken

NAMES = st.text(max_size=8)
FACTS = st.fixed_dictionaries(
    {"who": NAMES, "did": st.dictionaries(NAMES, st.integers(0, 2**60), max_size=3), "purposes": st.lists(NAMES)}
)
EMPTY = Head()
CHAINS = st.lists(FACTS, min_size=2, max_size=12)


def chain(facts: list[dict[str, Any]], head: Head = EMPTY) -> tuple[list[Row], Head]:
    rows = []
    for number, one in enumerate(facts, start=head.records):
        at = f"2026-01-05T10:00:{number:02d}.000+00:00"
        text, head = extended(head, {**one, "at": at})
        rows.append(Row(number, at, text))
    return rows, head


@given(CHAINS)
def test_each_record_carries_the_digest_of_the_one_before_it(facts):
    rows, head = chain(facts)
    before = "0" * 64
    for number, row in enumerate(rows):
        record = json.loads(row.text)
        assert (record["number"], record["previous"]) == (number, before)
        assert {name: record[name] for name in facts[number]} == facts[number]
        assert list(record) == sorted(record)
        before = hashlib.sha256(row.text.encode("ascii")).hexdigest()
    assert head == Head(len(rows), before)
    assert first_broken(rows, head) is None


@given(CHAINS, st.data())
def test_any_change_of_any_character_is_found_at_the_record_or_the_one_after_it(facts, data):
    rows, head = chain(facts)
    place = data.draw(st.integers(0, len(rows) - 1))
    text = rows[place].text
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(min_codepoint=0, max_codepoint=255).filter(lambda new: new != text[at]))
    rows[place] = rows[place]._replace(text=text[:at] + other + text[at + 1 :])
    broken = first_broken(rows, head)
    assert broken is not None
    assert broken.number in (place, place + 1)


@given(CHAINS, st.data())
def test_any_removal_is_found_where_it_is(facts, data):
    rows, head = chain(facts)
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    broken = first_broken(rows[:start] + rows[stop:], head)
    assert broken is not None
    assert broken.number == start


@given(CHAINS, st.data())
def test_any_swap_is_found_at_its_first_record(facts, data):
    rows, head = chain(facts)
    one, other = sorted(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=2, max_size=2, unique=True)))
    swapped = list(rows)
    swapped[one], swapped[other] = rows[other], rows[one]
    assert first_broken(swapped, head) is not None
    # Also when the numbers beside the records are made to look right.
    renumbered = list(rows)
    renumbered[one] = rows[one]._replace(text=rows[other].text)
    renumbered[other] = rows[other]._replace(text=rows[one].text)
    broken = first_broken(renumbered, head)
    assert broken is not None
    assert broken.number == one


@given(CHAINS, st.data())
def test_a_record_put_in_between_or_said_twice_is_found(facts, data):
    rows, head = chain(facts)
    place = data.draw(st.integers(0, len(rows) - 1))
    again = rows[: place + 1] + rows[place:]
    broken = first_broken(again, head)
    assert broken is not None
    assert broken.number == place + 1


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row._replace(number=row.number + 1),
        lambda row: row._replace(at="2026-01-05T10:00:59.000+00:00"),
        lambda row: row._replace(text=row.text.replace('"number":1', '"number":true')),
        lambda row: row._replace(text=row.text.replace(":", ": ", 1)),
        lambda row: row._replace(text=""),
        lambda row: row._replace(text="[]"),
        lambda row: row._replace(text="{}"),
        lambda row: row._replace(text="[" * 100_000),
    ],
)
def test_what_is_beside_a_record_must_agree_with_it_and_its_form_is_one(change):
    rows, head = chain([{"n": 0}, {"n": 1}, {"n": 2}])
    rows[1] = change(rows[1])
    broken = first_broken(rows, head)
    assert broken is not None
    assert broken.number == 1


@given(CHAINS, st.data())
def test_an_end_rewritten_with_its_head_holds_unless_a_head_was_noted_elsewhere(facts, data):
    """What a chain alone cannot tell: somebody wrote every record from a place on anew, and the head."""
    rows, head = chain(facts)
    place = data.draw(st.integers(0, len(rows) - 1))
    kept, middle = chain(facts[:place])
    rest, forged_head = chain([{"forged": True}] * (len(rows) - place), middle)
    assert first_broken(kept + rest, forged_head) is None
    broken = first_broken(kept + rest, forged_head, known=[head])
    assert broken is not None
    assert broken.number == len(rows) - 1
    # Cut off, head and all: found too, as is a shorter log than was noted.
    cut = first_broken(kept, middle, known=[head])
    assert cut is not None
    assert f"{len(rows)} were noted elsewhere" in cut.reason


@given(CHAINS, st.data())
def test_a_chain_whose_front_went_holds_from_there_on(facts, data):
    rows, head = chain(facts)
    begins = data.draw(st.integers(1, len(rows) - 1))
    noted = chain(facts[:begins])[1]
    assert first_broken(rows[begins:], head, begins) is None
    assert first_broken(rows[begins:], head, begins, [noted, head]) is None
    assert first_broken(rows[begins:], head, begins, [Head(begins, "f" * 64)]) is not None
    assert first_broken(rows[begins:], head) is not None
    assert first_broken(rows[begins + 1 :], head, begins) is not None
