"""Who asks to be erased, by which way, and what becomes of runs that were under way."""

import base64
import hashlib
import hmac
import json
import threading
import time

import pyarrow as pa
import pytest

from features.pseudonyms import Pseudonymizer
from pipelines.contract.registry import open_registry
from pipelines.erased import Tombstones
from pipelines.event_batch import RubbishMessage
from pipelines.ingest import ingest
from pipelines.kafka.produce import Producer
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import ConcurrentCommitError, ErasedMeanwhileError, commit_files
from pipelines.maintain import maintain
from pipelines.privacy.erase import erase
from pipelines.privacy.requests import pending
from pipelines.privacy.verify import verify
from pipelines.settings import OnlineStoreSettings, Settings
from tests.platform import DAY, HOUR, MINUTE, SALT, T0, Platform, consent, described, event, hashed, watched

PEOPLE = ["ann", "bob", "cat"]


@pytest.fixture
def platform(ray_session, tmp_path, monkeypatch) -> Platform:
    monkeypatch.setenv("REEL_SALT", SALT)
    made = Platform(tmp_path)
    made.send(*(one for person in PEOPLE for one in (described(person), consent(person, T0 - HOUR))))
    made.send(*(one for person in PEOPLE for one in watched(person, "t1", T0)))
    return made


def users(platform: Platform, table: str = "bronze.events") -> set[str | None]:
    return {row["user_id"] for row in platform.rows(table, ["user_id"])}


def deleted(person: str, at_ms: int = T0 + HOUR) -> dict:
    return event("user.deleted", at_ms, person)


def test_a_tombstone_is_an_hmac_of_the_plain_id(platform):
    key = bytes(range(32))
    expected = hmac.new(key, b"user:ann", hashlib.sha256).hexdigest()
    assert Tombstones(key).mark("user", "ann") == expected
    stones = tables.TOMBSTONES.empty_table()
    asked = tables.ERASURES.empty_table()
    assert not Tombstones.of(key, stones, asked).has("user", "ann")


def test_deleted_in_kafka_the_door_lets_nothing_in_from_then_on(platform):
    platform.send(deleted("ann"))
    report = ingest(platform.settings)
    assert report.did["dropped: erased"] == 5  # essential ones too: profile.updated, consent.changed, user.deleted
    assert users(platform) == {hashed("bob"), hashed("cat")}
    assert users(platform, "privacy.profiles") == {hashed("ann"), hashed("bob"), hashed("cat")}  # of the same batch
    platform.send(*watched("ann", "t2", T0 + DAY), described("ann", T0 + DAY))
    assert ingest(platform.settings).did["dropped: erased"] == 3
    assert len(platform.rows("privacy.profiles")) == 3

    erased = erase(platform.settings)
    assert [one.content["asked_by"] for one in erased.receipts] == ["user.deleted"]
    assert erased.receipts[0].content["tables"].keys() == {"privacy.profiles", "privacy.consents"}
    assert users(platform, "privacy.profiles") == {hashed("bob"), hashed("cat")}
    assert pending(Lakehouse.open(platform.settings)) == {}
    assert verify(platform.settings, "ann").found == ()
    assert erase(platform.settings).receipts == ()


def test_a_session_that_nobody_was_named_in_is_let_in_no_more(platform):
    nameless = event("app.launch", T0 - MINUTE, None, session_id="ann-session", device_id="d", launch_type="cold",
                     launch_duration_ms=1)  # fmt: skip
    platform.send(nameless)
    ingest(platform.settings)
    assert len(platform.rows("bronze.events")) == 13
    erase(platform.settings, ["ann"])
    assert len(platform.rows("bronze.events")) == 8
    platform.send(nameless | {"event_id": nameless["event_id"][:-1] + "0"})
    assert ingest(platform.settings).did["dropped: erased"] == 1
    assert len(platform.rows("bronze.events")) == 8


def test_of_somebody_unknown_it_says_so_and_nothing_else(platform):
    ingest(platform.settings)
    before = platform.rows("bronze.events")
    (receipt,) = erase(platform.settings, ["nobody"]).receipts
    assert not receipt.is_known
    assert receipt.rows == 0
    empty = {name: receipt.content[name] for name in ("tables", "training_sets", "models", "stays", "until")}
    assert not any(empty.values())
    assert platform.rows("bronze.events") == before


def faulty(person: str) -> list[dict]:
    """Events that are set aside: before 1970."""
    return [one | {"event_timestamp": -1} for one in watched(person, "t3", T0)]


def test_a_message_of_theirs_that_is_faulty_is_not_set_aside_either(platform):
    platform.send(deleted("ann"), *faulty("ann"), *faulty("bob"))
    ingest(platform.settings)
    assert len(platform.rows("quarantine.events")) == 2


def test_what_can_be_attributed_leaves_quarantine_and_the_rest_stays_sealed(platform):
    rubbish = [b"\x00\x00rubbish", json.dumps({"who": {"user_id": "ann"}}).encode(), b"user_id=ann"]
    with Producer(
        platform.bootstrap, platform.contract, open_registry(platform.settings.registry_location)
    ) as producer:
        for value in rubbish:
            producer.produce_rubbish(RubbishMessage("user.events", "rubbish", value, T0))
    platform.send(*faulty("ann"), *faulty("bob"))
    ingest(platform.settings)
    assert len(platform.rows("quarantine.events")) == 7
    sealed = [path.read_bytes() for path in (platform.folder / "warehouse" / "quarantine").rglob("*.parquet")]
    (receipt,) = erase(platform.settings, ["ann"]).receipts
    assert receipt.content["tables"]["quarantine.events"]["rows"] == 3
    assert len(platform.rows("quarantine.events")) == 4
    left = [path.read_bytes() for path in (platform.folder / "warehouse" / "quarantine").rglob("*.parquet")]
    assert not set(sealed) & set(left) or len(sealed) > 1
    assert any("cannot be attributed" in what for what in receipt.content["until"])


def test_a_profile_known_under_an_older_salt_is_recognised():
    key, old, new = bytes(range(32)), Pseudonymizer(("an old salt",)), Pseudonymizer(("an old salt", "a new salt"))
    mark = Tombstones(key).mark("profile", old.hash("ann-p"))
    stones = pa.table({"kind": ["profile"], "mark": [mark], "erased_at": [None]}, tables.TOMBSTONES.remove_metadata())
    known = Tombstones.of(key, stones, tables.ERASURES.empty_table())
    events = pa.table({"user_id": ["x", "y", None], "profile_id": ["ann-p", "bob-p", None], "session_id": ["s"] * 3})
    assert known.among(events, new).tolist() == [True, False, False]
    assert known.among(events.slice(1), new) is None
    assert Tombstones(key).among(events, new) is None


def test_a_run_that_began_before_commits_nothing_after(platform):
    ingest(platform.settings)
    with lineage.run(platform.settings, "slow") as made:
        table = Lakehouse.open(platform.settings).table(tables.silver_titles())
        facts = made.facts(lineage.Inputs())
        erase(platform.settings, ["ann"])
        with pytest.raises(ErasedMeanwhileError, match="somebody was erased while this run worked"):
            commit_files(table, [], {"x": 1}, facts)
        with pytest.raises(ErasedMeanwhileError):
            made.require_no_erasure_since("a training set")
    with lineage.run(platform.settings, "quick") as made:
        commit_files(table, [], {"x": 1}, made.facts(lineage.Inputs()))
        made.require_no_erasure_since("a training set")


def test_an_ingest_beside_it_loses_nothing(platform):
    """Batch after batch is ingested while people are erased one after the other; everybody else is there once."""
    others = [f"other-{n}" for n in range(8)]
    settings = platform.settings
    # Two processes share an embedded store, two threads cannot open it twice.
    elsewhere = OnlineStoreSettings(url=f"lmdb://{settings.work_dir}/elsewhere")
    feeder = settings.model_copy(update={"online_store": elsewhere})
    told, over, refused = [], threading.Event(), []

    def feed() -> None:
        for number in range(12):
            batch = [one for person in [*others, *PEOPLE] for one in watched(person, f"t{number}", T0 + number * HOUR)]
            platform.send(*batch)
            told.extend(one for one in batch if one["user_id"] in others)
            try:
                ingest(feeder)
            except ConcurrentCommitError as error:
                refused.append(error)
        over.set()

    feeding = threading.Thread(target=feed)
    feeding.start()
    for person in PEOPLE:
        time.sleep(0.5)
        erase(settings, [person])
    feeding.join()
    ingest(settings)
    rows = [row["event_id"] for row in platform.rows("bronze.events") if row["user_id"] in map(hashed, others)]
    assert sorted(rows) == sorted(one["event_id"] for one in told)
    assert users(platform) - {None} == {hashed(one) for one in others}
    assert over.is_set()


def test_maintenance_erases_who_has_waited_long_enough(platform):
    platform.send(deleted("bob"))
    ingest(platform.settings)
    patient = platform.settings.model_copy(
        update={"privacy": platform.settings.privacy.model_copy(update={"erasure_batch_hours": 10.0**6})}
    )
    maintain(patient)
    assert len(pending(Lakehouse.open(platform.settings))) == 1
    report = maintain(platform.settings)
    assert report.did["erased: requests"] == 1
    assert pending(Lakehouse.open(platform.settings)) == {}
    assert users(platform, "privacy.consents") == {hashed("ann"), hashed("cat")}


def test_the_commands(platform, capsys, tmp_path_factory, monkeypatch):
    import typer

    from pipelines.cli import app

    ingest(platform.settings)
    config = tmp_path_factory.mktemp("config") / "reel.yaml"
    config.write_text(json.dumps({
        "work_dir": str(platform.folder),
        "kafka": {"bootstrap_servers": platform.bootstrap, "partitions": 2},
        "lakehouse": {"event_partition": "month", "buckets": 2},
    }))  # fmt: skip

    def reel(*words: str) -> tuple[int, str]:
        code = app(["--config", str(config), "privacy", *words], standalone_mode=False) or 0
        return code, capsys.readouterr().out

    ids = config.with_name("ids")
    ids.write_text("ann\nbob\n")
    assert reel("verify", "ann")[0] == 1
    code, said = reel("erase", "--file", str(ids))
    assert code == 0
    assert said.count("rows erased; receipt ") == 2
    assert "ann" not in said.replace("channel", "")
    path = said.strip().splitlines()[-1].rpartition("receipt ")[2]
    code, said = reel("receipt", path)
    assert code == 0
    assert said.startswith("as it was signed")
    code, said = reel("verify", "ann")
    assert (code, said.splitlines()[0].startswith("nothing found")) == (0, True)
    code, said = reel("erase", "stranger")
    assert "nothing is held of this user" in said
    assert reel("erase", "--pending")[0] == 0
    with pytest.raises(typer.BadParameter, match="name users, or a file of them, or --pending"):
        reel("erase")


def test_without_its_key_production_does_not_start(tmp_path):
    from pipelines.secrets import SecretError, receipt_key, tombstone_key

    settings = Settings(environment="production", work_dir=tmp_path)
    for secret in (tombstone_key, receipt_key):
        with pytest.raises(SecretError, match=r"REEL_(TOMBSTONE|RECEIPT)_KEY is not set"):
            secret(settings, {})
    encoded = base64.b64encode(bytes(32)).decode()
    assert tombstone_key(settings, {"REEL_TOMBSTONE_KEY": encoded}) == bytes(32)
