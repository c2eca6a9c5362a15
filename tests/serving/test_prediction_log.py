"""What is logged, of whom, and that nobody waits for it: with a real store, real files and real threads."""

import fcntl
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from features.pseudonyms import Pseudonymizer
from serving import prediction_log
from serving.answer_log import LOCK_FILE
from serving.consent_gate import ConsentGate, Hashes, Person
from serving.online_store import OnlineStore, open_online_store
from serving.prediction_log import SCHEMA, Prediction, PredictionLog
from serving.settings import PredictionSettings

PEOPLE = Pseudonymizer(("an old salt", "the salt"))
ALLOWED = {"allows_analytics": True, "allows_personalization": True, "allows_ad_targeting": False}


def about(user: str | None = None, profile: str | None = None) -> Hashes:
    return ConsentGate(PEOPLE).hashes(Person(user_id=user, profile_id=profile))


def prediction(whom: Hashes | None, **more: Any) -> Prediction:
    return Prediction("churn", "3", "champion", {"probability": 0.25}, whom, **more)


class Logging:
    """A store and a log; `rows` are those of finished files."""

    def __init__(self, folder: Path) -> None:
        self.url = f"lmdb://{folder}/online"
        self.folder = folder / "predictions"
        self.say("ann", ALLOWED)
        self.say("bob", ALLOWED | {"allows_analytics": False})
        self.say("cat", ALLOWED | {"allows_personalization": False})
        self.describe("ann-p", "ann", False)
        self.describe("ann-kid", "ann", True)

    def say(self, user: str, consent: dict[str, bool]) -> None:
        self._put("consents", PEOPLE.hash(user), consent)

    def describe(self, profile: str, user: str, is_kids: bool) -> None:
        self._put("profiles", PEOPLE.hash(profile), {"is_kids": is_kids, "user_id": PEOPLE.hash(user)})

    def _put(self, group: str, key: str, record: dict[str, Any]) -> None:
        with open_online_store(self.url) as store:
            store.put_many(group, [(key, json.dumps(record).encode())])

    def store(self) -> OnlineStore:
        return open_online_store(self.url, readonly=True)

    def log(self, **settings: Any) -> PredictionLog:
        chosen = {"folder": self.folder, "flush_s": 60.0, **settings}
        return PredictionLog(PredictionSettings(**chosen), self.store)

    def rows(self) -> list[dict[str, Any]]:
        files = sorted(self.folder.glob("date=*/*.parquet"))
        return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


@pytest.fixture
def logging_to(tmp_path: Path) -> Logging:
    return Logging(tmp_path)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_who_is_on_record_as_allowing_it_is_kept(logging_to: Logging) -> None:
    log = logging_to.log()
    people = {
        "ann": about("ann"),
        "her profile": about(None, "ann-p"),
        "both": about("ann", "ann-p"),
        "her child": about("ann", "ann-kid"),
        "no analytics": about("bob"),
        "no personalization": about("cat"),
        "never asked": about("dan"),
        "never described": about(None, "dan-p"),
        "another's profile": about("bob", "ann-p"),
    }
    log.add([prediction(whom, experiment=name) for name, whom in people.items()])
    log.add([prediction(None, experiment="about nobody")])
    log.close()
    rows = {row["experiment"]: row for row in logging_to.rows()}
    assert rows.keys() == {"ann", "her profile", "both", "about nobody"}
    assert (log.counts.written, log.counts.not_allowed, log.counts.dropped) == (4, 6, 0)
    assert (rows["both"]["user_id"], rows["both"]["profile_id"]) == (PEOPLE.hash("ann"), PEOPLE.hash("ann-p"))
    assert rows["about nobody"]["user_id"] is None
    assert json.loads(rows["ann"]["prediction"]) == {"probability": 0.25}


def test_who_withdraws_before_it_is_written_is_not_kept(logging_to: Logging) -> None:
    log = logging_to.log()
    log.add([prediction(about("ann"))])
    logging_to.say("ann", ALLOWED | {"allows_analytics": False})
    log.close()
    assert logging_to.rows() == []
    assert log.counts.not_allowed == 1


def test_a_full_buffer_drops_and_counts_and_does_not_wait(logging_to: Logging) -> None:
    log = logging_to.log(most_waiting=10)
    log.add([prediction(None) for _ in range(25)])
    assert log.counts.dropped == 15
    log.close()
    assert len(logging_to.rows()) == 10


def test_while_somebody_erases_answers_go_on_and_rows_wait(logging_to: Logging) -> None:
    logging_to.folder.mkdir()
    log = logging_to.log(flush_s=0.01)
    with (logging_to.folder / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        log.add([prediction(about("ann"))])
        until(lambda: log._waiting.empty())  # taken up by the writer, which now waits for the lock
        assert logging_to.rows() == []
        logging_to.say("ann", ALLOWED | {"allows_analytics": False})  # as an erasure does, before it looks
    log.close()
    assert logging_to.rows() == []
    assert log.counts.not_allowed == 1


def test_without_a_store_or_a_disk_rows_are_dropped_and_counted(logging_to: Logging, tmp_path: Path) -> None:
    log = logging_to.log()
    log.add([prediction(about("ann")), prediction(None)])
    shutil.rmtree(tmp_path / "online")
    log.close()
    assert log.counts.dropped == 2
    (tmp_path / "a file").write_text("")
    log = logging_to.log(folder=tmp_path / "a file" / "beneath")
    log.add([prediction(None)])
    log.close()
    assert (log.counts.written, log.counts.dropped) == (0, 1)


def test_files_have_the_documented_columns_and_are_only_added(logging_to: Logging) -> None:
    log = logging_to.log(flush_s=0.01)
    for number in range(3):
        log.add([prediction(None, answer_id=str(number), as_of_ms=5, propensity=0.5, session_hash="s")])
        until(lambda number=number: log.counts.written == number + 1)
    log.close()
    files = sorted(logging_to.folder.glob("date=*/*.parquet"))
    assert len(files) == 3
    assert all(pq.read_schema(file).equals(SCHEMA) for file in files)
    documented = prediction_log.__doc__ or ""
    assert all(f"\n{name} " in documented for name in SCHEMA.names)
    assert not list(logging_to.folder.rglob("*.draft"))


def test_many_threads_lose_nothing(logging_to: Logging) -> None:
    log = logging_to.log(flush_s=0.005)

    def add(thread: int) -> None:
        for number in range(50):
            log.add([prediction(None, answer_id=f"{thread}-{number}")])

    threads = [threading.Thread(target=add, args=(one,)) for one in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    log.close()
    assert sorted(row["answer_id"] for row in logging_to.rows()) == sorted(
        f"{t}-{n}" for t in range(8) for n in range(50)
    )
