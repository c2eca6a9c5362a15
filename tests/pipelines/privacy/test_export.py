"""An export has all that is held of a person, from every layer, and nothing of anybody else."""

import json
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import lmdb
import pytest

from features.purposes import Purpose
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.privacy.export import Exported, ExportNotWritten, export
from pipelines.training_set import build_training_set
from serving.online_store.lmdb_store import PLACE_BYTES
from tests.pipelines.privacy.predicted import log_predictions
from tests.pipelines.privacy.served import log_served_features
from tests.pipelines.privacy.world import token
from tests.platform import (
    DAY,
    SALT,
    T0,
    Platform,
    consent,
    described,
    event,
    hashed,
    looked_around,
    title,
    watched,
)
from tests.well_formed import WellFormed

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
PEOPLE = ["ann", "bob", "cat"]
KID = {"profile_id": "ann-kid", "session_id": "kid-session"}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Three accounts; one has a child's profile too, and messages in quarantine beside another's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        platform = Platform(tmp_path_factory.mktemp("platform"))
        events = [title(f"vod-{number}", "drama") for number in range(8)]
        for person in PEOPLE:
            events += [described(person), consent(person, T0 - DAY)]
            for number in range(6):
                at = T0 + number * DAY
                events += watched(person, f"vod-{number}", at, 95.0, cdn="akamai")
                events += looked_around(person, f"vod-{number}", at)
            events += [event("playback.started", T0, person, session_id=None, content_id="vod-1", content_type="vod")]
        events += [event("profile.updated", T0 - DAY, "ann", profile_id="ann-kid", is_kids=True)]
        events += watched("ann", "vod-7", T0, 50.0, **KID) + watched("ann", "vod-7", T0 + 2 * DAY, 50.0, **KID)
        platform.send(*events)
        said = json.dumps({"user_id": "ann", "what": "said by hand"}).encode()
        platform.log.append(
            "client.browse", [b"ann-p", None, b"bob-p", None], [b"no event", said, b"bobs", b"nobodys"], [T0] * 4
        )
        ingest(platform.settings)
        clean(platform.settings)
        build_features(platform.settings)
        build_training_set(platform.settings, purpose=Purpose.PERSONALIZATION)
        log_predictions(platform.settings, PEOPLE)
        log_served_features(platform.settings, PEOPLE)
        yield platform


@pytest.fixture(scope="module")
def anns(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(platform.settings, "ann", tmp_path_factory.mktemp("export") / "new")


@pytest.fixture(scope="module")
def said(anns: Exported) -> dict[str, Any]:
    return json.loads((anns.folder / "export.json").read_text())


def rows_of(said: dict[str, Any], layer: str) -> dict[str, list[dict[str, Any]]]:
    return {one["place"]: one["rows"] for one in said["held"] if one["layer"] == layer}


def rows_by_duckdb(platform: Platform, user: str) -> Counter:
    """How many rows of each table have an id of the user, by a scan of every file there is on disk."""
    ids = {hashed(one) for one in (user, f"{user}-p", f"{user}-session")}
    if user == "ann":
        ids |= {hashed("ann-kid"), *(token(hashed("ann-kid"), T0 + day * DAY, SALT) for day in range(-1, 8))}
    found: Counter = Counter()
    warehouse = platform.folder / "warehouse"
    for table in sorted(warehouse.glob("*/*/data")):
        name = ".".join(table.parts[-3:-1])
        files = {str(path) for path in table.rglob("*.parquet")} & live(platform, name)
        for path in sorted(files):
            columns = {row[0] for row in duckdb.execute("DESCRIBE SELECT * FROM read_parquet(?)", [path]).fetchall()}
            ids_here = sorted(columns & {"user_id", "profile_id", "session_id", "viewer_token"})
            if ids_here:
                is_theirs = " OR ".join(f'list_contains(?, "{one}")' for one in ids_here)
                counted = f"SELECT count(*) FROM read_parquet(?, hive_partitioning = false) WHERE {is_theirs}"
                found[name] += duckdb.execute(counted, [path, *[sorted(ids)] * len(ids_here)]).fetchall()[0][0]
    return +found


def live(platform: Platform, name: str) -> set[str]:
    """The files that are not of the past, asked of pyiceberg itself."""
    from pipelines.lakehouse.catalog import Lakehouse

    table = Lakehouse.open(platform.settings).existing(name)
    return {task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()}


def test_every_row_of_every_table_is_there(platform, said):
    exported = Counter(
        {
            place: len(rows)
            for layer in ("registry", "bronze", "silver", "features")
            for place, rows in rows_of(said, layer).items()
            if not place.endswith(", values")
        }
    )
    expected = rows_by_duckdb(platform, "ann")
    assert exported == expected
    assert {"privacy.profiles", "privacy.consents", "bronze.events", "silver.playback"} <= set(expected)
    assert {"silver.playback_sessions", "features.user_viewing_history_by_user_id"} <= set(expected)
    # The child's playbacks, which have no id.
    kids = [row for row in rows_of(said, "silver")["silver.playback"] if row["is_kids"]]
    assert [row["content_id"] for row in kids] == ["vod-7"] * 4
    assert not any({"user_id", "profile_id", "session_id", "device_id"} & row.keys() for row in kids)


def test_what_stands_beside_the_tables_is_there(platform, said):
    (rows,) = rows_of(said, "training_sets").values()
    folder = next((platform.folder / "training_sets").glob("recommendation-*"))
    counted = "SELECT count(*) FROM read_parquet(?) WHERE profile_id = ?"
    files = [str(path) for path in sorted(folder.rglob("*.parquet"))]
    assert len(rows) == duckdb.execute(counted, [files, hashed("ann-p")]).fetchall()[0][0] > 0

    online = rows_of(said, "online_store")
    with lmdb.open(str(platform.folder / "online"), readonly=True, lock=False) as store, store.begin() as read:
        held = [(group, rest[PLACE_BYTES:]) for group, _, rest in (key.partition(b"\0") for key, _ in read.cursor())]
    mine = {hashed(one).encode() for one in ("ann", "ann-p", "ann-kid", "ann-session")}
    assert Counter({group: len(rows) for group, rows in online.items()}) == Counter(
        group.decode() for group, key in held if key in mine
    )
    assert online["profiles"][0].keys() >= {"profile_id", "is_kids", "user_id"}
    (history,) = online["user_viewing_history_by_user_id"]
    assert history["completion_rate"] == 1.0
    # What a service would be answered now is what the offline tiles come to.
    (offline,) = rows_of(said, "features")["features.user_viewing_history_by_user_id, values"]
    for name in ("completion_rate", "avg_session_duration", "preferred_content_type"):
        assert offline[name] == history[name]


def test_messages_in_quarantine_are_attributed_or_left_sealed(said):
    (rows,) = rows_of(said, "quarantine").values()
    by_reason = {row["reason"]: row["message"] for row in rows if row["reason"] != "not_wire_format"}
    assert by_reason.keys() == {"missing_session_id"}
    assert by_reason["missing_session_id"]["user_id"] == "ann"
    others = sorted((row["message"] for row in rows if row["reason"] == "not_wire_format"), key=str)
    assert others == ["no event", {"user_id": "ann", "what": "said by hand"}]


def test_nothing_of_anybody_else_is_in_it(anns, platform):
    texts = {path.name: path.read_text() for path in anns.folder.iterdir()}
    assert texts.keys() == {"export.json", "export.schema.json", "export.html"}
    others = [hashed(f"{person}{suffix}") for person in ("bob", "cat") for suffix in ("", "-p", "-session", "-device")]
    for text in texts.values():
        assert not any(one in text for one in others)
        assert "bobs" not in text
        assert "nobodys" not in text
    own = {hashed(one) for one in ("ann", "ann-p", "ann-session", "ann-device", "ann-kid")}
    tokens = {token(hashed("ann-kid"), T0 + day * DAY, SALT) for day in range(-1, 8)}
    assert set(re.findall(r"\b[0-9a-f]{64}\b", texts["export.json"])) <= own | tokens


def test_it_is_as_documented_and_only_its_owner_may_read_it(anns, said):
    schema = json.loads((anns.folder / "export.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(said, schema)
    assert said["rows"] == sum(len(one["rows"]) for one in said["held"]) == anns.rows
    fields = [one for place in schema["$defs"].values() for one in place["properties"].values()]
    assert all(one["description"] for one in fields)
    said["held"][0]["rows"][0]["undocumented"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(said, schema)
    for path in anns.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_page_shows_it_and_needs_nothing_else(anns, said):
    text = (anns.folder / "export.html").read_text()
    page = WellFormed(text)
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert "http" not in text.replace("https://json-schema.org", "")
    for one in said["held"]:
        assert one["place"] in text
        assert f"{len(one['rows']):,} rows" in text


def test_what_models_said_of_them_is_there(said):
    (rows,) = rows_of(said, "predictions").values()
    assert {(row["user_id"], row["profile_id"]) for row in rows} == {(hashed("ann"), hashed("ann-p"))}
    assert [row["prediction"] for row in rows] == ['{"probability":0.25}'] * 2


def test_what_services_were_answered_about_them_is_there(said):
    (rows,) = rows_of(said, "served_features").values()
    assert {(row.get("user_id"), row.get("profile_id")) for row in rows} == {
        (hashed("ann"), None), (None, hashed("ann-p"))
    }  # fmt: skip
    assert [row["values"] for row in rows] == ['{"support_contact_count":0}'] * 2


def test_it_counts_the_files_that_were_opened(anns):
    by_layer = {one.layer: one for one in anns.by_layer}
    assert list(by_layer) == [
        "quarantine", "registry", "bronze", "silver", "features", "training_sets", "online_store", "predictions",
        "served_features",
    ]  # fmt: skip
    assert (by_layer["served_features"].files_touched, by_layer["served_features"].rows) == (1, 2)
    assert (by_layer["predictions"].files_touched, by_layer["predictions"].rows) == (1, 2)
    assert all(one.files_touched <= one.files_total for one in anns.by_layer)
    assert by_layer["online_store"].touched_words == "–"
    assert 0 < by_layer["features"].files_touched < by_layer["features"].files_total


def test_an_unknown_user_gets_an_empty_export(platform, tmp_path):
    nobody = export(platform.settings, "nobody", tmp_path)
    said = json.loads((tmp_path / "export.json").read_text())
    assert (said["held"], said["rows"]) == ([], 0)
    jsonschema.validate(said, json.loads((tmp_path / "export.schema.json").read_text()))
    assert nobody.as_dict().keys() == {"folder", "rows", "layers", "seconds"}
    assert nobody.as_dict()["layers"] == {}
    assert WellFormed((tmp_path / "export.html").read_text())


def test_a_folder_that_takes_nothing_is_named(platform, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportNotWritten, match="--out"):
        export(platform.settings, "ann", tmp_path / "file")


def test_an_export_that_fails_leaves_nothing(platform, tmp_path, monkeypatch):
    monkeypatch.setenv("REEL_QUARANTINE_KEY", "A" * 43 + "=")
    with pytest.raises(Exception, match="another key"):
        export(platform.settings, "ann", tmp_path)
    assert list(Path(tmp_path).iterdir()) == []


def reel(platform: Platform, *command: str) -> str:
    """What the command says, of a run that ends well."""
    variables = {"REEL_WORK_DIR": str(platform.folder), "REEL_SALT": SALT}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REEL_")} | variables
    run = [sys.executable, "-m", "pipelines.cli", "privacy", "export", *command]
    return subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_command_tells_files_touched_by_layer(platform, anns, tmp_path):
    said = reel(platform, "ann", "--out", str(tmp_path)).splitlines()
    assert said[0].split() == ["layer", "files", "touched", "/", "total", "rows"]
    for one, line in zip(anns.by_layer, said[1:], strict=False):
        assert line.split() == [one.layer, *one.touched_words.split(), f"{one.rows:,}"]
    assert str(tmp_path / "export.html") in said[-1]


def test_the_command_says_of_an_unknown_user_that_they_are_unknown(platform, tmp_path):
    said = reel(platform, "nobody", "--out", str(tmp_path))
    assert said == f"nothing is held of this user; the export in {tmp_path} is empty\n"
