"""What is logged of look-ups, and of whom: a real store, the real endpoints, real files."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from features.declarations import FeatureGroup
from features.groups.content_popularity import CONTENT_POPULARITY
from features.groups.qoe_signals import QOE_SIGNALS
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.packing import read_values
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from serving import feature_log
from serving.feature_log import SCHEMA, FeatureLog
from serving.feature_lookup import FeatureLookup, FeatureRow, Question
from serving.online_store import open_online_store
from serving.settings import ServedFeatureSettings, ServingSettings
from serving.store_reader import StoreReader
from tests.serving import platform
from tests.serving.platform import HOUR_MS, WATERMARK_MS

PEOPLE = Pseudonymizer((platform.OLD_SALT, platform.NEW_SALT))
STREAM = {"is_running": True, "partitions": {"client.playback": {"0": {"offset": 7, "event_ms": 5}}}}


class Asking:
    """A store with a small platform, and look-ups in it that are logged."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.url, self.folder = f"lmdb://{folder}/online", folder / "served"
        with open_online_store(self.url) as store:
            platform.fill(store)
            store.put_many("meta", [("stream", json.dumps(STREAM).encode())])
        chosen = {"folder": self.folder, "share": 1.0, "flush_s": 60.0, **settings}
        self.log = FeatureLog(ServedFeatureSettings(**chosen), lambda: open_online_store(self.url, readonly=True))
        self._chosen = ServingSettings(
            online_store_url=self.url, mlflow_tracking_uri="sqlite:///none", as_of="watermark", store_budget_ms=9_000
        )
        self.ask_of(self._chosen)

    def ask_of(self, chosen: ServingSettings) -> None:
        reader = StoreReader(chosen.online_store_url, chosen.store_budget_ms)
        self._lookup = FeatureLookup(reader, PEOPLE, chosen, self.log)

    def ask(self, group: FeatureGroup, entity: Any, keys: Sequence[str]) -> list[FeatureRow]:
        return asyncio.run(self._lookup.rows(group, entity, keys, Purpose.PERSONALIZATION, None))[1]

    def ask_together(self, *questions: Question) -> None:
        asyncio.run(self._lookup.answers(questions, Purpose.PERSONALIZATION, None))

    def rows(self) -> list[dict[str, Any]]:
        """What was logged, all of it written."""
        self.log.close()
        files = sorted(self.folder.glob("date=*/*.parquet"))
        return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


def ms(instant: Any) -> int:
    return round(instant.timestamp() * 1000)


def test_a_row_says_what_was_answered_as_of_when_and_what_the_stream_had_processed(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    (answered,) = asking.ask(USER_VIEWING_HISTORY, "profile_id", ["profile-adult"])
    asking.ask(CONTENT_POPULARITY, "content_id", ["title-05", "nobody's"])
    asking.ask(QOE_SIGNALS, "cdn_region", ["akamai/US"])
    viewing, popular, unknown, network = asking.rows()
    assert json.loads(viewing["values"]) == answered.values
    assert (viewing["age_ms"], ms(viewing["as_of"])) == (answered.age_ms, WATERMARK_MS)
    assert abs(ms(viewing["at"]) - time.time() * 1000) < 600_000
    assert (viewing["group"], viewing["entity"]) == ("user_viewing_history", "profile_id")
    assert viewing["version"] == USER_VIEWING_HISTORY.fingerprint.hex()
    assert (viewing["profile_id"], viewing["user_id"], viewing["key"]) == (PEOPLE.hash("profile-adult"), None, None)
    assert (viewing["boundary"], viewing["reason"]) == (None, None)
    assert json.loads(viewing["stream"]) == STREAM
    assert (popular["key"], ms(popular["boundary"])) == ("title-05", WATERMARK_MS - HOUR_MS)
    assert (unknown["key"], unknown["age_ms"], unknown["boundary"]) == ("nobody's", None, None)
    assert set(json.loads(unknown["values"]).values()) == {None}
    assert network["key"] == "akamai/US"


def test_of_people_only_those_are_kept_who_are_on_record_as_allowing_it(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    profiles = [*platform.PEOPLE, platform.UNDER_OLD_SALT, "profile-stranger"]
    answered = {row.key: row for row in asking.ask(USER_VIEWING_HISTORY, "profile_id", profiles)}
    asking.ask(USER_VIEWING_HISTORY, "user_id", ["user-adult", "user-refused", "user-unasked"])
    rows = asking.rows()
    old = Pseudonymizer((platform.OLD_SALT,)).hash(platform.UNDER_OLD_SALT)  # as the tables of the batch know them
    shown = {PEOPLE.hash(key) for key, row in answered.items() if row.reason is None} - {
        PEOPLE.hash(platform.UNDER_OLD_SALT)
    }
    assert {row["profile_id"] for row in rows} - {None} == {*shown, old}
    assert {row["user_id"] for row in rows} - {None} == {PEOPLE.hash("user-adult")}
    assert answered["profile-kid"].reason == "kids_profile"
    assert PEOPLE.hash("profile-kid") not in json.dumps([row["profile_id"] for row in rows])
    raw = b"".join(file.read_bytes() for file in asking.folder.rglob("*.parquet"))
    assert [one for one in platform.PLAIN_IDS if one.encode() in raw] == []


def test_who_withdraws_before_it_is_written_is_not_kept(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    asking.ask(USER_VIEWING_HISTORY, "profile_id", ["profile-adult"])
    refused = {"allows_analytics": False, "allows_personalization": True, "allows_ad_targeting": False}
    with open_online_store(asking.url) as store:
        store.put_many("consents", [(PEOPLE.hash("user-adult"), json.dumps(refused).encode())])
    assert asking.rows() == []
    assert asking.log.counts.not_allowed == 1


def test_all_groups_of_all_questions_are_logged_and_a_share_of_keys(tmp_path: Path) -> None:
    asking = Asking(tmp_path, share=0.25)
    keys = [f"title-{number:04d}" for number in range(2_000)]
    groups = [CONTENT_POPULARITY]
    asking.ask_together(
        Question(groups, "content_id", keys), Question([QOE_SIGNALS], "cdn_region", ["akamai/US"] * 2000)
    )
    rows = asking.rows()
    for group in ("content_popularity", "qoe_signals"):
        logged = sum(row["group"] == group for row in rows)
        assert 400 < logged < 600, "five standard deviations about 500"


def test_what_could_not_be_read_is_logged_with_the_reason(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    other = b"REEL\x01 of another layout"
    with open_online_store(asking.url) as store:
        store.put_many(CONTENT_POPULARITY.stored_as("content_id"), [("title-05", other)])
    (answered,) = asking.ask(CONTENT_POPULARITY, "content_id", ["title-05"])
    assert answered.reason == "store_unavailable"
    gone = ServingSettings(
        online_store_url=f"lmdb://{tmp_path}/nowhere", mlflow_tracking_uri="sqlite:///none", as_of="now",
        store_budget_ms=9_000,
    )  # fmt: skip
    asking.ask_of(gone)
    before = time.time() * 1000
    asking.ask(CONTENT_POPULARITY, "content_id", ["title-05"])
    asking.ask(USER_VIEWING_HISTORY, "profile_id", ["profile-adult", "profile-kid"])
    unreadable, away, adult = asking.rows()
    assert (unreadable["reason"], ms(unreadable["as_of"])) == ("store_unavailable", WATERMARK_MS)
    assert (away["reason"], away["stream"], adult["reason"]) == ("store_unavailable", None, "store_unavailable")
    assert before - 1 <= ms(away["as_of"]) <= time.time() * 1000
    assert adult["profile_id"] == PEOPLE.hash("profile-adult"), "and of the child, whom nobody could tell then, nothing"


def test_a_full_log_loses_rows_and_counts_them_and_answers_as_ever(tmp_path: Path) -> None:
    asking = Asking(tmp_path, most_waiting=10)
    answered = asking.ask(CONTENT_POPULARITY, "content_id", ["title-05"] * 25)
    with open_online_store(asking.url, readonly=True) as store:
        packed = store.get_many(CONTENT_POPULARITY.stored_as("content_id"), ["title-05"])
    expected = read_values(CONTENT_POPULARITY, packed, WATERMARK_MS)
    assert [row.values for row in answered] == [{name: one[0] for name, one in expected.columns.items()}] * 25
    assert asking.log.counts.dropped == 15
    assert len(asking.rows()) == 10


@pytest.mark.parametrize("name", SCHEMA.names)
def test_every_column_is_documented(name: str) -> None:
    assert f"\n{name} " in (feature_log.__doc__ or "")
