"""What recommendations read of a viewer: the ranker's columns and no others, and nothing of whoever refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from features.pseudonyms import Pseudonymizer
from models.ranker.features import COMPLETED_TITLES, CONTEXT_NUMBERS, KINDS, RECENT_TITLES, SHARES, VIEWER_NUMBERS
from serving.consent_gate import ConsentGate, Person
from serving.online_store import OnlineStore, open_online_store
from serving.reasons import Reason
from serving.viewers import HISTORY, SELECTIONS, Viewers
from tests.serving import platform

PEOPLE = Pseudonymizer((platform.OLD_SALT, platform.NEW_SALT))
VIEWERS = Viewers(ConsentGate(PEOPLE), PEOPLE, "watermark")
ADULT = Person(profile_id="profile-adult")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineStore]:
    with open_online_store(f"lmdb://{tmp_path_factory.mktemp('viewers')}/online") as store:
        platform.fill(store)
        yield store


def test_what_is_read_is_all_that_the_ranker_knows_of_a_viewer_and_a_session() -> None:
    columns = {column for one in SELECTIONS.values() for column in one.columns.values() if "age_ms" not in column}
    titles = {RECENT_TITLES, COMPLETED_TITLES}
    assert columns == {*titles, *SHARES.values(), *VIEWER_NUMBERS.values(), *CONTEXT_NUMBERS.values()}
    assert columns < KINDS.keys()


def test_the_ranker_is_told_what_was_written(store: OnlineStore) -> None:
    found = VIEWERS.look_up(ADULT, platform.SESSION, None, list(SELECTIONS), store)
    known = found.features()
    assert (found.as_of_ms, found.refusal) == (platform.WATERMARK_MS, None)
    assert known[RECENT_TITLES] == platform.ADULT_HISTORY
    assert dict(known[SHARES["watched"]]) == {"drama": 1.0}
    assert dict(known[SHARES["clicked"]]) == {"drama": 0.5, "horror": 0.5}
    assert known[VIEWER_NUMBERS["viewer_click_through_rate"]] == 2 / 4
    assert [known[CONTEXT_NUMBERS[name]] for name in ("hour", "weekday", "session_today")] == [11, 0, 2]
    assert known.keys() <= KINDS.keys()


def test_without_a_session_and_for_the_recommender_less_is_read(store: OnlineStore) -> None:
    without = VIEWERS.look_up(ADULT, None, None, list(SELECTIONS), store)
    assert not without.features().keys() & set(CONTEXT_NUMBERS.values())
    unknown = VIEWERS.look_up(ADULT, "session-nobody", None, list(SELECTIONS), store)
    assert unknown.features() == without.features()
    history = VIEWERS.look_up(ADULT, platform.SESSION, None, [HISTORY], store)
    assert history.packed.keys() == {HISTORY}


@pytest.mark.parametrize("profile", ["profile-kid", "profile-refused", "profile-unasked", "profile-undescribed"])
def test_nothing_is_read_of_whom_the_gate_refuses(store: OnlineStore, profile: str) -> None:
    found = VIEWERS.look_up(Person(profile_id=profile), platform.SESSION, None, list(SELECTIONS), store)
    assert isinstance(found.refusal, Reason)
    assert (found.packed, found.features()) == ({}, {})


def test_of_a_store_that_was_never_filled_nothing_is_known(tmp_path: Path) -> None:
    with open_online_store(f"lmdb://{tmp_path}/empty") as store:
        store.put_many("meta", [])
        found = VIEWERS.look_up(ADULT, None, "US", list(SELECTIONS), store)
    assert found.packed == {}
