"""Against a real registry server: its verdicts beside ours, its restarts, the command line, and the decoder."""

import json
import threading
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.contract.codec import encode, wire_format
from pipelines.contract.confluent_registry import GUARD, ConfluentRegistry
from pipelines.contract.events import load_contract
from pipelines.contract.evolution import Mode, evolution_breaks
from pipelines.errors import ContractBroken, IncompatibleSchema
from pipelines.messages import MessageDecoder
from tests.pipelines.contract.apicurio import Apicurio
from tests.pipelines.contract.schema_pairs import schema_pair
from tests.pipelines.event_rows import example_row, table_of

SEEDS = range(100)


@pytest.fixture(scope="module")
def http(apicurio: Apicurio) -> Any:
    with httpx.Client(base_url=apicurio.url) as client:
        yield client


def server_takes(http: httpx.Client, mode: Mode, *versions: Any) -> bool:
    """Whether the server itself lets the last of `versions` follow the others."""
    path = f"/subjects/{uuid.uuid4().hex}"
    for version in versions[:-1]:
        # It has no level yet and takes everything.
        http.post(f"{path}/versions", json={"schema": json.dumps(version)}).raise_for_status()
    http.put(f"/config/{path.rpartition('/')[2]}", json={"compatibility": mode.upper()}).raise_for_status()
    answer = http.post(f"{path}/versions", json={"schema": json.dumps(versions[-1])})
    assert answer.status_code in (200, 409), answer.text
    return answer.status_code == 200


def test_verdicts_on_generated_pairs_are_the_servers(http: httpx.Client) -> None:
    verdicts: Counter[bool] = Counter()
    for seed in SEEDS:
        old, new = schema_pair(seed)
        breaks = evolution_breaks(Mode.BACKWARD, new, [old])
        assert server_takes(http, Mode.BACKWARD, old, new) is (not breaks), (seed, breaks)
        verdicts[not breaks] += 1
    assert min(verdicts.values()) > len(SEEDS) / 5


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.REEL])
def test_each_mode_refuses_what_the_server_refuses(http: httpx.Client, mode: Mode) -> None:
    def record(*fields: dict[str, Any]) -> Any:
        return {"type": "record", "name": "R", "fields": list(fields)}

    x, y, wide = {"name": "x", "type": "int"}, {"name": "y", "type": "int"}, {"name": "x", "type": "long"}
    y_0 = {**y, "default": 0}
    histories = [
        (record(x), record(x, y)),
        (record(x, y), record(x)),
        (record(x, y_0), record(x)),
        (record(x), record(wide)),
        (record(wide), record(x)),
        (record(x), record(x, y_0), record(x, y)),
        (record(x, y), record(x, y_0), record(x)),
    ]
    for *earlier, new in histories:
        breaks = evolution_breaks(mode, new, earlier)
        assert server_takes(http, mode, *earlier, new) is (not breaks), (mode, earlier, new)


def test_a_guarded_subject_takes_what_reels_rule_allows(http: httpx.Client) -> None:
    allowed = 0
    for seed in range(600):
        old, new = schema_pair(seed)
        if old != new and not evolution_breaks(Mode.REEL, new, [old]):
            allowed += 1
            assert server_takes(http, GUARD, old, new), seed
    assert allowed > 20


def test_a_server_that_restarts_meanwhile_is_waited_for(apicurio: Apicurio) -> None:
    registry, other = ConfluentRegistry(apicurio.url), ConfluentRegistry(apicurio.url)
    text = json.dumps({"type": "fixed", "name": "F", "size": 3})
    schema_id = registry.register("restarted", text)
    assert other.subjects()  # so that it holds a connection, which dies with the server
    apicurio.stop()
    restart = threading.Timer(0.5, apicurio.launch)
    restart.start()
    assert other.lookup(schema_id) == text
    restart.join()
    assert registry.register("restarted", text) == schema_id


def test_the_guard_is_the_servers_from_then_on(apicurio: Apicurio, http: httpx.Client) -> None:
    registry = ConfluentRegistry(apicurio.url)
    subject = f"topic with/odd-{uuid.uuid4().hex}-n.E"
    registry.guard(subject)
    registry.register(subject, json.dumps({"type": "record", "name": "E", "fields": [{"name": "x", "type": "int"}]}))
    with pytest.raises(IncompatibleSchema, match="refuses the schema of topic with/odd-"):
        registry.register(subject, json.dumps({"type": "record", "name": "E", "fields": []}))
    assert subject in registry.subjects()


@pytest.fixture
def schemas(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few of this project's schemas, to be changed, under topics that no other test has."""
    unique = uuid.uuid4().hex
    for path in (project_root / "configs" / "schemas").glob("*/*.avsc"):
        if path.parent.name in ("common", "navigation"):
            copied = tmp_path / "schemas" / path.parent.name / path.name
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_text(path.read_text().replace('"client.navigation"', f'"client.{unique}"'))
    monkeypatch.setenv("REEL_SCHEMAS", str(tmp_path / "schemas"))
    return tmp_path / "schemas"


def reel(*arguments: str) -> str:
    return CliRunner().invoke(app, ["contract", *arguments], catch_exceptions=False).stdout


def test_the_command_line_makes_a_registry_ready_and_checks_against_it(
    apicurio: Apicurio, http: httpx.Client, schemas: Path
) -> None:
    events = load_contract(schemas).events
    against = f"registry {apicurio.url}"
    assert reel("register", "--registry", apicurio.url) == (
        f"{len(events)} events, {len(events)} new, 0 changed, none breaks (reel, against {against})\n"
    )
    for event in events:
        assert http.get(f"/config/{event.subject}").json() == {"compatibilityLevel": "FULL_TRANSITIVE"}
        assert http.get(f"/subjects/{event.subject}/versions").json() == [1]
    assert json.loads(reel("check", "--registry", apicurio.url, "--json")) == {
        "against": against,
        "mode": "reel",
        "events": len(events),
        "new": 0,
        "changed": 0,
        "breaks": [],
    }

    path = schemas / "navigation" / "ScreenView.avsc"
    schema = json.loads(path.read_text())
    gone = schema["fields"].pop()["name"]
    path.write_text(json.dumps(schema))
    for command in ("check", "register"):
        with pytest.raises(ContractBroken, match="this contract breaks what registry http://127"):
            reel(command, "--registry", apicurio.url)
    shown = CliRunner().invoke(app, ["contract", "check", "--registry", apicurio.url])
    assert shown.exit_code == 1
    line = f"screen.view  com.platform.events.navigation.ScreenView.{gone}  field_removed: it was removed or renamed"
    assert shown.stdout.splitlines()[0] == line
    assert http.get(f"/subjects/{events[-1].subject}/versions").json() == [1]


def test_messages_are_decoded_through_it_old_writers_with_new_readers(apicurio: Apicurio, schemas: Path) -> None:
    registry = ConfluentRegistry(apicurio.url)
    old = load_contract(schemas).event("screen.view")
    path = schemas / "navigation" / "ScreenView.avsc"
    schema = json.loads(path.read_text())
    schema["fields"].append({"name": "fold", "type": ["null", "string"], "default": None, "doc": "Half of the screen."})
    path.write_text(json.dumps(schema))
    new = load_contract(schemas).event("screen.view")
    tables = {event: table_of(event, [example_row(event, index) for index in range(3)]) for event in (old, new)}
    values = [
        message
        for event, table in tables.items()
        for message in wire_format(registry.register(event.subject, event.avro_json), encode(event, table))
    ]
    rubbish = [b"\0" + number.to_bytes(4, "big") + b"x" for number in (2**31 - 1, 2**31, 2**32 - 1)]

    decoded = MessageDecoder(apicurio.url, str(schemas)).decode([*values, *rubbish])

    assert [(each.index, each.reason) for each in decoded.bad] == [(6 + n, "unknown_schema_id") for n in range(3)]
    rows = pa.concat_tables(table for _, table, _ in decoded.events)
    assert rows["screen_name"].to_pylist() == [f"screen_name-{index}-é" for index in (0, 1, 2)] * 2
    assert rows["fold"].to_pylist() == [None] * 3 + tables[new]["fold"].to_pylist()
    assert [event.fullname for event, _, _ in decoded.events] == [new.fullname] * 2
