"""Both registries through the same checks, the server a real one; then each one's own failures."""

import base64
import json
import logging
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.contract import file_registry
from pipelines.contract.confluent_registry import ConfluentRegistry
from pipelines.contract.registry import FileRegistry, SchemaRegistry, open_registry
from pipelines.errors import IncompatibleSchema, RegistryRefused, RegistryUnavailable, UnknownSchemaId

PATIENCE_S = 0.3


def schema(*fields: str, name: str = "E", kind: str = "string") -> str:
    listed = [{"name": each, "type": ["null", kind], "default": None} for each in fields]
    return json.dumps({"type": "record", "name": name, "namespace": "n", "fields": listed})


@pytest.fixture
def subject() -> str:
    """A subject that no other test has."""
    return f"t{uuid.uuid4().hex}-n.E"


@pytest.fixture(params=["file", "server"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SchemaRegistry]:
    if request.param == "file":
        return lambda: open_registry(tmp_path / "deep" / "registry.db")
    server = request.getfixturevalue("apicurio")
    return lambda: open_registry(server.url)


def test_the_same_text_has_the_same_id_for_ever(reopen: Callable[[], SchemaRegistry], subject: str) -> None:
    first = reopen()
    own = schema(subject[:-4], name="F")
    a, b = first.register(subject, schema("x")), first.register(f"other-{subject}", own)
    assert a != b
    assert first.register(f"third-{subject}", schema("x")) == a
    second = reopen()
    assert second.lookup(a) == schema("x")
    assert second.lookup(b) == own
    assert second.register(subject, schema("x")) == a


def test_a_subject_may_grow_but_not_break(reopen: Callable[[], SchemaRegistry], subject: str) -> None:
    registry = reopen()
    registry.guard(subject)
    old = registry.register(subject, schema("x"))
    new = registry.register(subject, schema("x", "y"))
    assert old != new
    for refused in (schema("x", "y", kind="int"), schema("x", "y", name="F")):
        with pytest.raises(IncompatibleSchema):
            registry.register(subject, refused)
    assert reopen().register(subject, schema("x")) == old
    assert registry.versions(subject) == [schema("x"), schema("x", "y")]
    assert registry.latest(subject) == schema("x", "y")


def test_what_is_not_there(reopen: Callable[[], SchemaRegistry], subject: str) -> None:
    registry = reopen()
    for unknown in (2**31 - 1, 2**32 - 1, 0):
        with pytest.raises(UnknownSchemaId, match=f"schema id {unknown} is not in the registry"):
            registry.lookup(unknown)
    assert subject not in registry.subjects()
    assert registry.versions(subject) == []
    assert registry.latest(subject) is None
    registry.register(subject, schema("x"))
    assert subject in registry.subjects()


def test_an_unknown_id_may_be_known_later(reopen: Callable[[], SchemaRegistry], subject: str) -> None:
    known, registry = reopen().register(subject, schema(subject[:-4])), reopen()
    with pytest.raises(UnknownSchemaId):
        registry.lookup(known + 1)
    assert reopen().register(f"other-{subject}", schema(subject[:-4], "y")) == known + 1
    assert registry.lookup(known + 1) == schema(subject[:-4], "y")


def test_the_file_names_every_break(tmp_path: Path) -> None:
    registry = FileRegistry(tmp_path / "registry.db")
    registry.register("t-n.E", schema("x", "y"))
    with pytest.raises(IncompatibleSchema, match=r"n\.E\.x: it was removed or renamed; n\.E\.y: it was removed"):
        registry.register("t-n.E", schema("z"))


def test_many_processes_agree(tmp_path: Path, project_root: Path) -> None:
    path = tmp_path / "registry.db"
    script = (
        "import json, sys; from pathlib import Path; from pipelines.contract.registry import FileRegistry\n"
        "texts = json.loads(sys.argv[2]); registry = FileRegistry(Path(sys.argv[1]))\n"
        "print(json.dumps([registry.register(f's{i}', text) for i, text in enumerate(texts)]))"
    )
    texts = [schema(f"f{number}", name=f"E{number}") for number in range(12)]
    command = [sys.executable, "-c", script, str(path), json.dumps(texts)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=project_root) for _ in range(5)]
    answers = [json.loads(process.communicate()[0]) for process in running]
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0])) == len(texts)
    registry = FileRegistry(path)
    assert [registry.lookup(schema_id) for schema_id in answers[0]] == texts


def test_a_file_that_is_no_registry(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(RegistryRefused, match=r"registry\.db cannot be used \(file is not a database\)"):
        FileRegistry(path)
    with pytest.raises(RegistryRefused, match="cannot be used"):
        FileRegistry(path / "below" / "registry.db")


def test_a_file_that_another_process_holds_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FileRegistry(tmp_path / "registry.db")
    monkeypatch.setattr(file_registry, "_LOCK_TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(registry.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryUnavailable, match="database is locked") as failure:
            registry.lookup(1)
        assert failure.value.passes
        other.execute("ROLLBACK")
    with pytest.raises(UnknownSchemaId):
        registry.lookup(1)


Answer = tuple[int, bytes]


class Scripted(BaseHTTPRequestHandler):
    """Answers what it is told to, in order, the last for good, and remembers what it was asked."""

    answers: list[Answer]
    asked: list[tuple[str, str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, self.headers.get("Authorization")))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, payload = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Script:
    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, str | None]] = []

    def registry(self, *answers: tuple[int, object], patience_s: float = PATIENCE_S) -> ConfluentRegistry:
        self.answers[:] = [
            (code, body if isinstance(body, bytes) else json.dumps(body).encode()) for code, body in answers
        ]
        return ConfluentRegistry(self.url, patience_s=patience_s)


@pytest.fixture
def script() -> Iterator[Script]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as running:
        script = Script(running.server_port)
        running.RequestHandlerClass = type("Handler", (Scripted,), {"answers": script.answers, "asked": script.asked})
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield script
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_server_that_cannot_now_is_asked_again(script: Script, status: int) -> None:
    ill = (status, {"error_code": 50001, "message": "Error in the backend data store"})
    registry = script.registry(ill, ill, (200, {"schema": '"int"'}), patience_s=10.0)
    assert registry.lookup(7) == '"int"'
    assert [path for _, path, _ in script.asked] == ["/schemas/ids/7"] * 3
    assert registry.lookup(7) == '"int"'
    assert len(script.asked) == 3, "what was looked up once is known"


def test_a_server_that_stays_ill_is_given_up_within_its_patience(script: Script) -> None:
    ill_for_ever = (500, {"error_code": 50001, "message": "Error in the backend data store"})
    registry = script.registry(ill_for_ever, patience_s=1.0)
    started = time.monotonic()
    with pytest.raises(RegistryUnavailable, match=r"HTTP 500: Error in the backend data store; asked for 1 s") as ill:
        registry.register("t-n.E", schema("x"))
    assert time.monotonic() - started < 30
    assert ill.value.passes
    assert 2 <= len(script.asked) <= 5, "pauses of .1, .2 and .4 s, give or take a quarter"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {"error_code": 401, "message": "Unauthorized"}), r"HTTP 401: Unauthorized\); check registry\.url"),
        ((403, b""), "HTTP 403: Forbidden"),
        ((404, b"<html>nginx</html>"), "HTTP 404: <html>nginx</html>"),
        ((404, {"detail": "no such page"}), "HTTP 404"),
        ((307, b""), "HTTP 307: Temporary Redirect"),
        ((200, b"<html>Welcome</html>"), "it answers no JSON, so it is no registry"),
        ((200, b"\xff\xfe\xff"), "it answers no JSON, so it is no registry"),
        ((200, ["Welcome"]), "it answers without 'schema', so it is no registry"),
        ((200, {"hello": "world"}), "it answers without 'schema', so it is no registry"),
    ],
)
def test_what_does_not_pass_is_asked_once_and_never_taken_for_an_unknown_id(
    script: Script, answer: tuple[int, object], message: str
) -> None:
    with pytest.raises(RegistryRefused, match=message) as failure:
        script.registry(answer, patience_s=10.0).lookup(1)
    assert len(script.asked) == 1
    assert not failure.value.passes


def test_a_service_that_welcomes_everybody_is_no_empty_registry(script: Script) -> None:
    for ask in (ConfluentRegistry.subjects, lambda registry: registry.versions("t-n.E")):
        with pytest.raises(RegistryRefused, match="it answers without a list, so it is no registry"):
            ask(script.registry((200, {"hello": "world"})))


def test_a_schema_that_is_refused_is_not_offered_again(script: Script) -> None:
    for status in (409, 422):
        registry = script.registry((status, {"error_code": status, "message": "Schema being registered is no good"}))
        with pytest.raises(IncompatibleSchema, match=r"refuses the schema of t-n\.E: Schema being registered"):
            registry.register("t-n.E", schema("x"))
    assert [path for _, path, _ in script.asked] == ["/subjects/t-n.E/versions"] * 2


def test_a_password_goes_to_the_server_and_nowhere_else(
    script: Script, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    script.registry((200, {"schema": '"int"'}))
    registry = open_registry(f"http://user:s%40cret@{script.address}/")
    registry.lookup(1)
    ((_, path, authorization),) = script.asked
    assert path == "/schemas/ids/1"
    assert authorization == f"Basic {base64.b64encode(b'user:s@cret').decode()}"
    absent = ConfluentRegistry(f"http://user:s%40cret@127.0.0.1:{free_port}", patience_s=0)
    with pytest.raises(
        RegistryUnavailable, match=f"http://127.0.0.1:{free_port} is not available .*Connection refused"
    ):
        absent.register("t-n.E", schema("x"))
    with pytest.raises(RegistryRefused) as unreadable:
        open_registry("http://user:s@cret@host:port")
    assert "cret" not in f"{caplog.text} {unreadable.value} {registry.name}"


def test_a_port_that_opens_late(free_port: int) -> None:
    registry = ConfluentRegistry(f"http://127.0.0.1:{free_port}", patience_s=10.0)
    answer = b'{"schema": "\\"int\\""}'

    def open_late() -> None:
        time.sleep(0.5)
        with socket.create_server(("127.0.0.1", free_port)) as listener:
            dropped, _ = listener.accept()  # and lost at once, as by a server that is going down
            dropped.close()
            answered, _ = listener.accept()
            with answered:
                answered.recv(65_536)
                answered.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    server = threading.Thread(target=open_late)
    server.start()
    assert registry.lookup(1) == '"int"'
    server.join()
