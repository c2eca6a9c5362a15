"""OpenLineage: what a receiver hears of a run, over real HTTP; and that nothing a receiver does stops a station."""

import base64
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.kafka.offsets import OffsetRange
from pipelines.lakehouse import lineage, openlineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.lineage import Inputs
from pipelines.lakehouse.openlineage import ReceiverAddressError
from pipelines.settings import KafkaSettings, LakehouseSettings, LineageSettings, Settings
from tests.pipelines.lakehouse.stream import BRONZE, COLUMNS, SILVER, rows
from tests.platform import SALT, T0, Platform, described, hashed, watched


class Receiver:
    """A receiver of events, of this process."""

    def __init__(self) -> None:
        self.events: list[dict] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.status = 201
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.requests.append((self.path, dict(self.headers)))
                received.events.append(json.loads(body))
                self.send_response(received.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def states(self) -> list[str]:
        return [event["eventType"] for event in self.events]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    serving = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    serving.join()


@pytest.fixture(autouse=True)
def forgetful() -> None:
    openlineage._receivers.cache_clear()


def told(folder: Path, **lineage_settings: object) -> Settings:
    """Settings of a lakehouse under `folder`."""
    return Settings(
        work_dir=folder,
        kafka=KafkaSettings(bootstrap_servers="kafka-1:9092,kafka-2:9092"),
        lineage=LineageSettings.model_validate(lineage_settings),
    )


def one_run(settings: Settings) -> int:
    """A run that reads 15 offsets of a topic and one snapshot, and writes 3 and 4 rows; the last snapshot."""
    lakehouse = Lakehouse.open(settings)
    with lineage.run(settings, "ingest") as made:
        for first, last in ((0, 3), (3, 7)):
            ranges = [
                OffsetRange("client.playback", 0, first, last),
                OffsetRange("client.playback", 1, first, last + 1),
            ]
            facts = made.facts(Inputs.of_kafka("cluster-a", ranges, {"privacy.profiles": 40 + last}))
            table = lakehouse.table(BRONZE)
            files = write_files(TableFiles.of(table), rows(range(first, last), T0))
            table = made.wrote(commit_files(table, files, {"next": last}, facts))
    return table.metadata.current_snapshot_id


def is_uri(text: str) -> bool:
    return bool(urlsplit(text).scheme) and " " not in text


def check_facets(facets: dict) -> None:
    """BaseFacet of the spec: each says who produced it, and what its schema is."""
    for facet in facets.values():
        assert is_uri(facet["_producer"])
        assert facet["_producer"].startswith("urn:reel:")
        assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")


def check(event: dict) -> None:
    """What spec 2-0-2 requires of a RunEvent, and of all that is in it."""
    assert set(event) <= {"eventType", "eventTime", "run", "job", "inputs", "outputs", "producer", "schemaURL"}
    assert event["eventType"] in {"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert is_uri(event["producer"])
    assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    assert str(uuid.UUID(event["run"]["runId"])) == event["run"]["runId"]
    assert event["job"]["namespace"]
    assert event["job"]["name"]
    check_facets(event["run"].get("facets", {}))
    check_facets(event["job"].get("facets", {}))
    for kind in ("input", "output"):
        for dataset in event[f"{kind}s"]:
            assert set(dataset) <= {"namespace", "name", "facets", f"{kind}Facets"}
            assert isinstance(dataset["namespace"], str)
            assert isinstance(dataset["name"], str)
            check_facets(dataset.get("facets", {}))
            check_facets(dataset.get(f"{kind}Facets", {}))


def test_a_receiver_hears_what_a_run_read_and_wrote(tmp_path, receiver):
    settings = told(tmp_path, openlineage_url=receiver.url, namespace="tv")
    newest = one_run(settings)
    for event in receiver.events:
        check(event)
    start, complete = receiver.events
    assert [path for path, _ in receiver.requests] == ["/api/v1/lineage"] * 2
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert start["job"] == complete["job"] == {"namespace": "tv", "name": "ingest", "facets": {}}
    assert start["eventTime"] < complete["eventTime"]
    assert complete["run"]["facets"]["processing_engine"]["name"] == "reel"

    topic, profiles = complete["inputs"]
    assert (topic["namespace"], topic["name"]) == ("kafka://kafka-1:9092", "client.playback")
    assert topic["inputFacets"]["inputStatistics"]["rowCount"] == 7 + 8
    assert (profiles["name"], profiles["facets"]["version"]["datasetVersion"]) == ("privacy.profiles", "47")
    (bronze,) = complete["outputs"]
    assert bronze["name"] == "bronze.events"
    assert bronze["namespace"] == profiles["namespace"] == f"sqlite://{tmp_path}/catalog.db"
    assert bronze["outputFacets"]["outputStatistics"]["rowCount"] == 7
    assert bronze["outputFacets"]["outputStatistics"]["size"] > 0
    assert bronze["facets"]["version"]["datasetVersion"] == str(newest)
    assert [field["name"] for field in bronze["facets"]["schema"]["fields"]] == COLUMNS.names
    (lies,) = bronze["facets"]["symlinks"]["identifiers"]
    assert (lies["namespace"], lies["type"]) == ("file://", "LOCATION")
    assert Path(lies["name"]).is_relative_to(tmp_path / "warehouse")


def test_the_run_in_the_snapshot_is_the_run_that_was_told_of(tmp_path, receiver):
    settings = told(tmp_path, openlineage_url=receiver.url)
    one_run(settings)
    snapshot = Lakehouse.open(settings).existing(BRONZE.name).current_snapshot()
    assert snapshot.summary["reel.run-id"] == receiver.events[0]["run"]["runId"]


def test_what_two_tables_were_made_from_was_read_once(tmp_path, receiver):
    settings = told(tmp_path, openlineage_url=receiver.url)
    lakehouse = Lakehouse.open(settings)
    with lineage.run(settings, "ingest") as made:
        for spec, tables in ((BRONZE, {"privacy.profiles": 1}), (SILVER, {})):
            facts = made.facts(Inputs.of_kafka("cluster-a", [OffsetRange("user.events", 0, 0, 9)], tables))
            made.wrote(commit_files(lakehouse.table(spec), [], {}, facts))
    topic, _ = receiver.events[-1]["inputs"]
    assert topic["inputFacets"]["inputStatistics"]["rowCount"] == 9
    assert [one["outputFacets"]["outputStatistics"]["rowCount"] for one in receiver.events[-1]["outputs"]] == [0, 0]


def test_a_failure_is_told_by_its_kind_alone(tmp_path, receiver):
    class BrokerAte(Exception):
        pass

    def fail() -> None:
        with lineage.run(told(tmp_path, openlineage_url=receiver.url), "ingest") as made:
            made.facts(Inputs(appended={"bronze.events": (5, 6)}))
            raise BrokerAte("ann@example.com")

    with pytest.raises(BrokerAte):
        fail()
    assert receiver.states == ["START", "FAIL"]
    failed = receiver.events[1]
    check(failed)
    assert failed["run"]["facets"]["errorMessage"]["message"] == "BrokerAte"
    assert failed["run"]["facets"]["errorMessage"]["programmingLanguage"] == "PYTHON"
    assert failed["inputs"][0]["facets"]["version"]["datasetVersion"] == "6"
    assert "example.com" not in json.dumps(failed)


def test_events_are_appended_to_a_file_too(tmp_path, receiver):
    path = tmp_path / "events.ndjson"
    settings = told(tmp_path, openlineage_url=receiver.url, openlineage_file=path)
    one_run(settings)
    one_run(settings)
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert written == receiver.events
    assert [event["eventType"] for event in written] == ["START", "COMPLETE"] * 2
    assert len({event["run"]["runId"] for event in written}) == 2


def test_a_folder_is_told_with_its_columns(tmp_path, receiver):
    folder = tmp_path / "training_sets" / "recommendation-1"
    with lineage.run(told(tmp_path, openlineage_url=receiver.url), "training-set") as made:
        made.wrote_folder(folder, COLUMNS, 12)
    check(receiver.events[-1])
    (output,) = receiver.events[-1]["outputs"]
    assert (output["namespace"], output["name"]) == ("file", str(folder))
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 12
    assert [field["name"] for field in output["facets"]["schema"]["fields"]] == COLUMNS.names


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("postgresql://reel:hunter2@db:5432/lake?sslkey=hunter2", "postgresql://db:5432/lake"),
        ("postgresql+psycopg2://reel:hunter2@db/lake#hunter2", "postgresql+psycopg2://db/lake"),
        ("https://hunter2@rest/v1", "https://rest/v1"),
        ("https://me:hun@hunter2@rest", "https://rest"),
        # What SQLAlchemy takes for a password others take for the beginning of a path, and the other way round.
        ("postgresql://reel:hun/hunter2@db/lake", "postgresql://"),
        ("postgresql://reel:hun?hunter2@db/lake", "postgresql://"),
        ("https://rest/v1?contact=me@hunter2", "https://"),
        ("sqlite:////work/.reel/catalog.db", "sqlite:////work/.reel/catalog.db"),
        ("http://rest:8181", "http://rest:8181"),
    ],
)
def test_no_password_is_told(tmp_path, receiver, address, public):
    settings = told(tmp_path, openlineage_url=receiver.url)
    settings = settings.model_copy(update={"lakehouse": LakehouseSettings(uri=address)})
    listener = openlineage.Listener.of(settings)
    assert listener is not None
    listener.ended("clean", str(uuid.uuid4()), {}, {"bronze.events": 1}, (), None)
    (bronze,) = receiver.events[-1]["inputs"]
    assert bronze["namespace"] == public
    assert "hunter2" not in json.dumps(receiver.events)


def test_a_receiver_is_given_its_password_and_nobody_else(tmp_path, receiver, caplog):
    receiver.status = 403
    host = urlsplit(receiver.url).netloc
    one_run(told(tmp_path, openlineage_url=f"http://me:hunter2@{host}"))
    (_, headers), *_ = receiver.requests
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"me:hunter2"
    assert "hunter2" not in json.dumps(receiver.events)
    (warned,) = [record.getMessage() for record in caplog.records]
    assert warned.startswith(f"lineage: http://{host} takes no OpenLineage events (HTTP status 403)")
    assert "hunter2" not in warned


@contextmanager
def listening(answer: bytes, pause_s: float, connections: list[socket.socket]) -> Iterator[str]:
    """A server that answers every connection with `answer`, byte after byte, and with nothing after that."""
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connections.append(server.accept()[0])
            except OSError:  # closed
                break
            for byte in answer:
                if ended.wait(pause_s):
                    break
                connections[-1].send(bytes([byte]))
        for connection in connections:
            connection.close()

    serving = threading.Thread(target=serve)
    serving.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    ended.set()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    serving.join()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 201 Created\r\n" + b"X-Slow: yes\r\n" * 20], ids=["dead", "drips"])
def test_a_receiver_that_does_not_answer_costs_its_time_limit_once(tmp_path, monkeypatch, caplog, answer):
    monkeypatch.setattr(openlineage, "TIMEOUT_S", 0.4)
    connections: list[socket.socket] = []
    with listening(answer, 0.1, connections) as url:
        settings = told(tmp_path, openlineage_url=url)
        started = time.monotonic()
        with lineage.run(settings, "clean"):
            pass
        with lineage.run(settings, "features"):  # the next station of the same process
            pass
        took_s = time.monotonic() - started
    assert 0.4 <= took_s < 20, "all that drips is half a minute's worth"
    assert len(connections) == 1
    (warned,) = caplog.records
    assert warned.levelno == logging.WARNING
    assert "\n" not in warned.getMessage()


def test_a_receiver_that_is_not_there_is_told_of_once(tmp_path, free_port, caplog):
    settings = told(tmp_path, openlineage_url=f"http://127.0.0.1:{free_port}")
    one_run(settings)
    one_run(settings)
    assert [record.getMessage() for record in caplog.records] == [
        f"lineage: http://127.0.0.1:{free_port} takes no OpenLineage events (ConnectionError); "
        "it is left alone for 10 minutes, what is made goes on"
    ]


@pytest.mark.parametrize("status", [400, 401, 500, 503])
def test_a_receiver_that_refuses_is_left_alone_and_tried_again_later(tmp_path, receiver, monkeypatch, caplog, status):
    settings = told(tmp_path, openlineage_url=receiver.url)
    receiver.status = status
    with lineage.run(settings, "clean"):
        pass
    assert receiver.states == ["START"]
    receiver.status = 201
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + openlineage.LEFT_ALONE_S)  # so much time has passed
    with lineage.run(settings, "clean"):
        pass
    assert receiver.states == ["START", "START", "COMPLETE"]
    assert len(caplog.records) == 1


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    settings = told(tmp_path, openlineage_file=tmp_path / "no such folder" / "events.ndjson")
    one_run(settings)
    assert len(caplog.records) == 1
    assert Lakehouse.open(settings).existing(BRONZE.name) is not None


@pytest.mark.parametrize("url", ["marquez", "", "//me:hunter2@marquez", "http://"])
def test_an_address_that_is_none_is_wrong_usage(tmp_path, url):
    with pytest.raises(ReceiverAddressError) as refused, lineage.run(told(tmp_path, openlineage_url=url), "clean"):
        pytest.fail("no work is done")
    assert refused.value.exit_code == 2
    assert "lineage.openlineage_url" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def tempting(receiver: Receiver) -> dict[str, str]:
    """Variables by which OpenLineage's own client is told to send events, and to whom."""
    return {
        "OPENLINEAGE_URL": receiver.url,
        "OPENLINEAGE__TRANSPORT__TYPE": "http",
        "OPENLINEAGE__TRANSPORT__URL": receiver.url,
        "OPENLINEAGE__FACETS__ENVIRONMENT_VARIABLES": '["REEL_SALT"]',
    }


def test_without_a_setting_nothing_is_sent_whatever_the_environment_says(tmp_path, receiver, project_root):
    (tmp_path / "openlineage.yml").write_text(f"transport:\n  type: http\n  url: {receiver.url}\n")
    program = """if True:
        import sys
        from pathlib import Path
        from pipelines.lakehouse import lineage
        from pipelines.lakehouse.catalog import Lakehouse
        from pipelines.settings import Settings
        from tests.pipelines.lakehouse.stream import BRONZE, append, rows
        settings = Settings(work_dir=Path(sys.argv[1]))
        with lineage.run(settings, "ingest") as made:
            made.facts(lineage.Inputs(tables={"privacy.profiles": 1}))
            made.wrote(append(Lakehouse.open(settings), BRONZE, rows(range(3), 0)))
        assert not [name for name in sys.modules if name.split(".")[0] == "openlineage"]
    """
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "work")],
        cwd=tmp_path,
        env={**os.environ, **tempting(receiver), "PYTHONPATH": str(project_root)},
        check=True,
    )
    assert receiver.events == []


def test_with_a_setting_only_that_counts(tmp_path, receiver, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openlineage.yml").write_text("facets:\n  environment_variables: [REEL_SALT]\n")
    for name, value in {**tempting(receiver), "REEL_SALT": "grains"}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    path = tmp_path / "events.ndjson"
    one_run(told(tmp_path / "work", openlineage_file=path))
    assert len(path.read_text().splitlines()) == 2
    assert "grains" not in path.read_text()
    assert receiver.events == []
    assert dict(os.environ) == before


@pytest.mark.usefixtures("ray_session")
def test_on_the_road_every_offset_is_told_and_nobody_is_named(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv("REEL_SALT", SALT)
    platform = Platform(tmp_path)
    platform.settings = platform.settings.model_copy(update={"lineage": LineageSettings(openlineage_url=receiver.url)})
    platform.send(described("ann"), *watched("ann", "vod-1", T0))
    ingest(platform.settings)
    clean(platform.settings)
    for event in receiver.events:
        check(event)
    assert [(event["job"]["name"], event["eventType"]) for event in receiver.events] == [
        ("ingest", "START"), ("ingest", "COMPLETE"), ("clean", "START"), ("clean", "COMPLETE"),
    ]  # fmt: skip
    ingested, cleaned = receiver.events[1], receiver.events[3]
    offsets = {
        one["name"]: one["inputFacets"]["inputStatistics"]["rowCount"]
        for one in ingested["inputs"]
        if one["inputFacets"]
    }
    assert offsets == {"user.events": 1, "client.playback": 2}
    wrote = {one["name"]: one["outputFacets"]["outputStatistics"]["rowCount"] for one in ingested["outputs"]}
    assert (wrote["bronze.events"], wrote["privacy.profiles"]) == (3, 1)
    bronze = Lakehouse.open(platform.settings).existing("bronze.events").metadata.current_snapshot_id
    assert {one["name"]: one["facets"]["version"]["datasetVersion"] for one in cleaned["inputs"]}[
        "bronze.events"
    ] == str(bronze)
    everything = json.dumps(receiver.events)
    for one in ("ann", "ann-p", "ann-session", "ann-device"):
        assert f'"{one}"' not in everything
        assert hashed(one) not in everything
