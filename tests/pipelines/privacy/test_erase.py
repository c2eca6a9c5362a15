"""Erasing people of a small platform: no byte of theirs is left, and nothing of anybody else's is touched."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import row_count
from pipelines.privacy.erase import Erased, erase
from pipelines.privacy.people import find_people
from pipelines.privacy.person import Person
from pipelines.privacy.receipts import Receipt, ReceiptError, checked
from pipelines.privacy.verify import verify
from pipelines.secrets import pseudonymizer
from pipelines.tracking import Tracking, training_set_tags
from pipelines.training_sets import build
from pipelines.training_sets.built import BuiltTrainingSet, read_manifest
from pipelines.training_sets.rebuilding import rebuild
from pipelines.training_sets.rows import digest_of
from tests.pipelines.privacy.bytes_scan import files_with, online_keys
from tests.pipelines.privacy.predicted import log_predictions
from tests.pipelines.privacy.served import log_served_features
from tests.pipelines.training_sets.world import CHURN, DAYS, KID, RANKER, built
from tests.platform import DAY, SALT, T0, Platform, hashed, watched

GONE = ["viewer-1", "viewer-4", KID]
KAFKA = ("log.db", "salt", "told")


def names_of(person: str) -> set[str]:
    """Everything by which a person may stand somewhere, worked out by hand."""
    plain = [person, f"{person}-p", f"{person}-session", f"{person}-device"]
    days = [datetime.fromtimestamp(T0 / 1000, UTC) + timedelta(days=n) for n in range(-3, DAYS + 5)]
    child = hashed(f"{person}-p")
    tokens = {hmac.new(SALT.encode(), f"kids:{d:%Y-%m-%d}:{child}".encode(), hashlib.sha256).hexdigest() for d in days}
    return {hashed(one) for one in plain} | tokens


EVERY_NAME = set().union(*(names_of(person) for person in GONE))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value


def checksums(platform: Platform) -> dict[str, tuple[int, str]]:
    """Of every table: its rows that are of none of those who go, counted and summed up."""
    found = {}
    for name in Lakehouse.open(platform.settings).names():
        if name in ("privacy.tombstones", "privacy.erasures", "privacy.audit"):
            continue
        rows = [row for row in platform.rows(name) if EVERY_NAME.isdisjoint(texts(row))]
        lines = sorted(json.dumps(row, sort_keys=True, default=repr) for row in rows)
        found[name] = (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest())
    return found


class Told:
    """The platform after the erasure, and what was known of it before."""

    def __init__(self, folder: Path) -> None:
        self.platform = built(folder)
        settings = self.platform.settings
        self.churn, self.ranker = build(settings, CHURN), build(settings, RANKER)
        self.rows_before = {one.name: {split: one.frame(split) for split in one.rows} for one in self.sets}
        self.client = Tracking(settings.tracking_uri).client
        self.runs = {one.name: self._train(one) for one in self.sets}
        self.runs["catalogue"] = self._run("catalogue", {"training_set.folder": "/elsewhere/catalogue-1"})
        self.logged = log_predictions(settings, [*GONE, "viewer-2", "viewer-3"])
        self.served = log_served_features(settings, [*GONE, "viewer-2"])
        self.before = checksums(self.platform)
        self.people = find_people(Lakehouse.open(settings), pseudonymizer(settings), GONE)
        self.files_before = files_with(folder, EVERY_NAME, KAFKA)
        self.erased: Erased = erase(settings, GONE)

    @property
    def sets(self) -> list[BuiltTrainingSet]:
        return [self.churn, self.ranker]

    def _train(self, one: BuiltTrainingSet) -> str:
        manifest = one.manifest
        tags = training_set_tags(
            one.folder, one.digest, manifest["purpose"], manifest["features"], manifest["code_version"],
            manifest["snapshots"], manifest["excluded"],
        )  # fmt: skip
        return self._run(one.name, tags)

    def _run(self, model: str, tags: dict[str, str]) -> str:
        run = Tracking(self.platform.settings.tracking_uri).open_run(model, f"{model}-1", {"reel.model": model, **tags})
        self.client.create_registered_model(model)
        self.client.create_model_version(model, f"runs:/{run}/model", run_id=run)
        self.client.set_registered_model_alias(model, "champion", "1")
        return run


@pytest.fixture(scope="module")
def told(ray_session, tmp_path_factory) -> Iterator[Told]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        yield Told(tmp_path_factory.mktemp("erase"))


def test_no_byte_of_them_is_left(told):
    assert len(told.files_before) > 40  # the scan sees them where they were
    folder = told.platform.folder
    assert files_with(folder, EVERY_NAME, KAFKA) == {}
    assert files_with(folder, [f"{one}-session" for one in GONE], KAFKA) == {}
    assert EVERY_NAME.isdisjoint(online_keys(folder / "online"))


def test_nobody_else_is_touched(told):
    assert checksums(told.platform) == told.before
    for one in told.sets:
        now = BuiltTrainingSet.read(one.folder)
        for split, rows in told.rows_before[one.name].items():
            kept = [row for row in rows.to_dicts() if EVERY_NAME.isdisjoint(texts(row))]
            assert now.frame(split).to_dicts() == kept


def test_of_logged_predictions_theirs_are_gone_and_no_others(told):
    assert (told.logged.written, told.logged.not_allowed) == (8, 2)  # of the child nothing was logged
    files = sorted(told.platform.settings.predictions_folder.glob("date=*/*"))
    assert [file.suffix for file in files] == [".parquet"]
    rows = pq.read_table(files[0], partitioning=None).to_pylist()
    assert [row["user_id"] for row in rows] == [hashed("viewer-2"), hashed("viewer-3")] * 2
    assert told.erased.report.did["logged predictions"] == 4


def test_of_logged_features_theirs_are_gone_and_no_others(told):
    (file,) = told.platform.settings.served_features_folder.glob("date=*/*")
    rows = pq.read_table(file, partitioning=None).to_pylist()
    assert [(row["user_id"], row["profile_id"]) for row in rows] == [
        (hashed("viewer-2"), None), (None, hashed("viewer-2-p"))
    ]  # fmt: skip
    assert told.erased.report.did["logged features"] == told.served.written - 2 > 0


def test_verify_says_zero_and_where_of_those_who_are_there(told):
    for person in GONE[:1]:
        assert verify(told.platform.settings, person, Person.merged(told.people.values())).found == ()
    there = verify(told.platform.settings, "viewer-2")
    places = {one.where.rpartition("/warehouse/")[2].partition("/data/")[0] for one in there.found}
    assert {"bronze/events", "silver/playback", "features/user_viewing_history_by_user_id"} <= places
    assert any("training_sets/" in one.where for one in there.found)
    assert any("online" in one.where for one in there.found)
    assert any("predictions/" in one.where for one in there.found)
    assert any("served_features/" in one.where for one in there.found)
    assert there.words.startswith(f"found in {len(there.found)} places: ")


def test_receipts_count_what_is_gone_and_name_nobody(told):
    for person in GONE:
        receipt = receipt_of(told, person)
        path = receipt.path(told.platform.settings.work_dir)
        assert checked(path).content == receipt.content
        said = path.read_text()
        assert all(name not in said for name in [person, *names_of(person)])
        sent = [one for one in told.platform.told if one.get("user_id") == person]
        assert receipt.content["tables"]["bronze.events"]["rows"] >= len(sent) > 0
        assert receipt.content["tables"]["silver.playback"]["rows"] > 0


def receipt_of(told: Told, person: str) -> Receipt:
    (receipt,) = [one for one in told.erased.receipts if one.mark == mark_of(told, person)]
    return receipt


def mark_of(told: Told, person: str) -> str:
    """The tombstone, computed without Reel."""
    key = base64.b64decode((told.platform.folder / "tombstone.key").read_text())
    return hmac.new(key, f"user:{person}".encode(), hashlib.sha256).hexdigest()


def test_a_changed_receipt_is_refused(told, tmp_path):
    receipt = told.erased.receipts[0]
    path = receipt.path(told.platform.settings.work_dir)
    signed = json.loads(path.read_text())
    signed["receipt"]["tables"].popitem()
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(signed))
    with pytest.raises(ReceiptError, match="not as it was signed"):
        checked(forged, path.parent / "public_key.pem")
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(ReceiptError, match="is no receipt"):
        checked(tmp_path / "empty.json", path.parent / "public_key.pem")


def test_the_models_that_learnt_from_them_are_listed_and_no_other(told):
    in_churn = {name for rows in told.rows_before["churn"].values() for row in rows.to_dicts() for name in texts(row)}
    for person in GONE:
        learnt = {one["run"]: one for one in receipt_of(told, person).content["models"]}
        assert told.runs["catalogue"] not in learnt
        assert set(learnt) == {told.runs["churn"], told.runs["ranker"]}
        of_rows = "rows of its training set" in learnt[told.runs["churn"]]["because"]
        assert of_rows == (not in_churn.isdisjoint(names_of(person)))
        assert learnt[told.runs["churn"]]["aliases"] == ["champion"]
        assert "reel train churn" in learnt[told.runs["churn"]]["what_to_do"]


def test_manifests_tell_the_truth_and_rebuild_agrees(told):
    for one in told.sets:
        manifest = read_manifest(one.folder / "manifest.json")
        gone = sum(told.rows_before[one.name][split].height for split in one.rows) - sum(manifest["rows"].values())
        noted = sum(n for counts in manifest["erasures"]["rows"].values() for n in counts.values())
        assert gone == noted > 0
        assert manifest["erasures"]["digests_before"] == [one.digest]
        assert manifest["files"] == {name: digest_of(one.folder / name) for name in manifest["files"]}
        again = rebuild(told.platform.settings, one.folder / "manifest.json")
        rows = {split: again.built.frame(split) for split in again.built.rows}
        assert all(EVERY_NAME.isdisjoint(texts(row)) for frame in rows.values() for row in frame.to_dicts())


def test_the_road_goes_on_from_where_it_was(told):
    platform = told.platform
    at = T0 + (DAYS + 1) * DAY
    before = row_count(Lakehouse.open(platform.settings).existing("silver.playback"))
    platform.send(*watched("viewer-2", "vod-1", at), *watched("viewer-1", "vod-1", at))
    report = ingest(platform.settings)
    assert report.did["dropped: erased"] == 2
    clean(platform.settings)
    assert row_count(Lakehouse.open(platform.settings).existing("silver.playback")) == before + 2
    did = build_features(platform.settings).did
    assert not [name for name in did if name.startswith("built as a whole")]


def test_a_replay_of_all_of_kafka_brings_nothing_back(told):
    platform = told.platform
    lakehouse = Lakehouse.open(platform.settings)
    counts = {name: row_count(lakehouse.existing(name)) for name in ("bronze.events", "silver.playback")}
    for name in lakehouse.names():
        if name.partition(".")[0] in ("bronze", "quarantine", "silver") or name in (
            "privacy.profiles", "privacy.consents", "privacy.erasures",
        ):  # fmt: skip
            lakehouse.catalog.purge_table(name)
    report = ingest(platform.settings)
    clean(platform.settings)
    assert report.did["dropped: erased"] > 100
    lakehouse = Lakehouse.open(platform.settings)
    assert {name: row_count(lakehouse.existing(name)) for name in counts} == counts
    assert files_with(platform.folder / "warehouse", EVERY_NAME) == {}
