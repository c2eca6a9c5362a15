"""Both registries through the same checks; the server's part over real HTTP."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pipelines.contract.evolution import check_evolution
from pipelines.contract.registry import ConfluentRegistry, FileRegistry, SchemaRegistry, open_registry
from pipelines.errors import IncompatibleSchema, RegistryUnavailable, UnknownSchemaId


def schema(*fields: str, name: str = "E") -> str:
    listed = [{"name": each, "type": ["null", "string"], "default": None} for each in fields]
    return json.dumps({"type": "record", "name": name, "namespace": "n", "fields": listed})


class RegistryServer(BaseHTTPRequestHandler):
    """The two calls of Confluent's REST API that Reel makes, with its status codes and error bodies."""

    texts: list[str]
    versions: dict[str, list[str]]

    def do_POST(self) -> None:
        match = re.fullmatch(r"/subjects/([^/]+)/versions", self.path)
        assert match is not None
        subject = unquote(match[1])
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert request["schemaType"] == "AVRO"
        text = request["schema"]
        versions = self.versions.setdefault(subject, [])
        if versions and text not in versions:
            try:
                check_evolution(json.loads(versions[-1]), json.loads(text))
            except IncompatibleSchema as error:
                self.answer(409, {"error_code": 409, "message": str(error)})
                return
        if text not in versions:
            versions.append(text)
        if text not in self.texts:
            self.texts.append(text)
        self.answer(200, {"id": self.texts.index(text) + 1})

    def do_GET(self) -> None:
        schema_id = int(self.path.removeprefix("/schemas/ids/"))
        if schema_id == 13:
            self.answer(500, {"error_code": 50001, "message": "Error in the backend data store"})
        elif 0 < schema_id <= len(self.texts):
            self.answer(200, {"schema": self.texts[schema_id - 1]})
        else:
            self.answer(404, {"error_code": 40403, "message": f"Schema {schema_id} not found"})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    handler = type("Handler", (RegistryServer,), {"texts": [], "versions": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(params=["file", "server"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SchemaRegistry]:
    location = str(tmp_path / "deep" / "registry.db") if request.param == "file" else request.getfixturevalue("server")
    return lambda: open_registry(location)


def test_the_same_text_has_the_same_id_for_ever(reopen: Callable[[], SchemaRegistry]) -> None:
    first = reopen()
    a, b = first.register("t-n.E", schema("x")), first.register("t-n.F", schema("y", name="F"))
    assert a != b
    assert first.register("other-n.E", schema("x")) == a
    second = reopen()
    assert second.lookup(a) == schema("x")
    assert second.lookup(b) == schema("y", name="F")
    assert second.register("t-n.E", schema("x")) == a


def test_a_subject_may_grow_but_not_break(reopen: Callable[[], SchemaRegistry]) -> None:
    registry = reopen()
    old = registry.register("t-n.E", schema("x"))
    new = registry.register("t-n.E", schema("x", "y"))
    assert old != new
    with pytest.raises(IncompatibleSchema, match=r"n\.E\.y: it was removed or renamed"):
        registry.register("t-n.E", schema("x", "z"))
    assert reopen().register("t-n.E", schema("x")) == old


def test_an_unknown_id_is_named_and_may_be_known_later(reopen: Callable[[], SchemaRegistry]) -> None:
    registry = reopen()
    for unknown in (1, 2**32 - 1, 0):
        with pytest.raises(UnknownSchemaId, match=f"schema id {unknown} is not in the registry"):
            registry.lookup(unknown)
    assert reopen().register("t-n.E", schema("x")) == 1
    assert registry.lookup(1) == schema("x")


def test_many_processes_agree(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    script = (
        "import json, sys; from pathlib import Path; from pipelines.contract.registry import FileRegistry\n"
        "texts = json.loads(sys.argv[2]); registry = FileRegistry(Path(sys.argv[1]))\n"
        "print(json.dumps([registry.register(f's{i}', text) for i, text in enumerate(texts)]))"
    )
    texts = [schema(f"f{number}", name=f"E{number}") for number in range(12)]
    command = [sys.executable, "-c", script, str(path), json.dumps(texts)]
    root = Path(__file__).parents[3]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) for _ in range(5)]
    answers = [json.loads(process.communicate()[0]) for process in running]
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0])) == len(texts)
    registry = FileRegistry(path)
    assert [registry.lookup(schema_id) for schema_id in answers[0]] == texts


def test_a_file_that_is_no_registry(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(RegistryUnavailable, match=r"registry\.db is not available \(file is not a database\)"):
        FileRegistry(path)
    with pytest.raises(RegistryUnavailable, match="is not available"):
        FileRegistry(path / "below" / "registry.db")


def test_a_server_that_is_not_there_or_ill(free_port: int, server: str) -> None:
    with pytest.raises(
        RegistryUnavailable, match=rf"http://127.0.0.1:{free_port} is not available .*check registry.url"
    ):
        ConfluentRegistry(f"http://user:secret@127.0.0.1:{free_port}").lookup(1)
    with pytest.raises(RegistryUnavailable, match="HTTP 500: Error in the backend data store"):
        ConfluentRegistry(server).lookup(13)


def test_a_password_in_the_url_is_never_shown(free_port: int) -> None:
    with pytest.raises(RegistryUnavailable) as failure:
        ConfluentRegistry(f"http://user:secret@127.0.0.1:{free_port}").register("t-n.E", schema("x"))
    assert "secret" not in str(failure.value)
