"""A changed contract beside a git revision and beside a registry: what breaks is named, what does not is counted."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipelines.contract.check import Comparison, baseline_of_contract, baseline_of_registry, compare
from pipelines.contract.compatibility import Rule
from pipelines.contract.events import Contract, load_contract
from pipelines.contract.evolution import Mode
from pipelines.contract.register import register_contract
from pipelines.contract.registry import FileRegistry
from pipelines.contract.revision import contract_at
from pipelines.errors import ContractError, IncompatibleSchema, NoBaseline

STARTED = "playback/PlaybackStarted.avsc"
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def checkout(tmp_path: Path, project_root: Path) -> Path:
    """A git repository whose one commit holds some of this project's schemas; its name is no obstacle."""
    root = tmp_path / "a check-out"
    for domain in ("common", "playback", "navigation"):
        shutil.copytree(project_root / "configs" / "schemas" / domain, schemas(root) / domain)
    git(root, "init", "--quiet", "--initial-branch=main")
    commit(root, "the contract")
    return root


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def commit(root: Path, message: str) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", message)


def schemas(root: Path) -> Path:
    return root / "configs" / "schemas"


def edit(root: Path, file: str, change: Edit) -> None:
    path = schemas(root) / file
    schema = json.loads(path.read_text())
    change(schema)
    path.write_text(json.dumps(schema))


def since(root: Path, revision: str = "HEAD", mode: Mode = Mode.REEL) -> Comparison:
    return compare(load_contract(schemas(root)), baseline_of_contract(contract_at(revision, schemas(root))), mode)


def found(comparison: Comparison) -> set[tuple[str, str, str]]:
    return {(each.event, each.found.path.rpartition(".")[2], each.found.rule) for each in comparison.breaks}


def remove(name: str) -> Edit:
    return lambda schema: schema["fields"].remove(next(field for field in schema["fields"] if field["name"] == name))


def add(**field: Any) -> Edit:
    return lambda schema: schema["fields"].append({"doc": "Something more.", **field})


def test_the_tree_as_it_was_committed_is_green(checkout: Path) -> None:
    events = len(load_contract(schemas(checkout)).events)
    assert since(checkout) == Comparison(events, 0, 0, ())
    assert str(since(checkout)) == f"{events} events, 0 new, 0 changed, none breaks"


def test_a_removed_field_is_red_and_named_with_event_field_and_rule(checkout: Path) -> None:
    edit(checkout, STARTED, remove("content_id"))
    (line,) = map(str, since(checkout).breaks)
    assert line == (
        "playback.started  com.platform.events.playback.PlaybackStarted.content_id  "
        "field_removed: it was removed or renamed"
    )
    assert str(since(checkout)).endswith(" events, 0 new, 1 changed, 1 break")


def test_what_may_change_is_counted(checkout: Path) -> None:
    edit(checkout, STARTED, add(name="volume", type=["null", "double"], default=None))
    edit(checkout, "playback/PlaybackStopped.avsc", lambda schema: schema.update(doc="Said in better words."))
    new = json.loads((schemas(checkout) / STARTED).read_text())
    new |= {"name": "PlaybackBegun", "event_name": "playback.begun"}
    (schemas(checkout) / "playback" / "PlaybackBegun.avsc").write_text(json.dumps(new))
    comparison = since(checkout)
    assert (comparison.new, comparison.changed, comparison.breaks) == (1, 2, ())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (add(name="volume", type="double"), ("volume", Rule.FIELD_ADDED_WITHOUT_DEFAULT)),
        (lambda schema: schema.update(topic="client.other"), ("PlaybackStarted", Rule.TOPIC_MOVED)),
        (lambda schema: schema.update(event_name="playback.begun"), ("PlaybackStarted", Rule.EVENT_RENAMED)),
    ],
)
def test_one_break_of_one_event(checkout: Path, change: Edit, expected: tuple[str, Rule]) -> None:
    edit(checkout, STARTED, change)
    assert {(field, rule) for _, field, rule in found(since(checkout))} == {expected}
    assert since(checkout, mode=Mode.NONE).breaks == ()


def test_an_event_that_is_gone_breaks_under_every_mode_but_none(checkout: Path) -> None:
    (schemas(checkout) / STARTED).unlink()
    for mode in Mode:
        gone = {("playback.started", "PlaybackStarted", Rule.EVENT_REMOVED)} if mode is not Mode.NONE else set()
        assert found(since(checkout, mode=mode)) == gone


def test_a_break_of_a_shared_type_is_one_of_every_event_that_has_it(checkout: Path) -> None:
    edit(checkout, "common/EventEnvelope.avsc", add(name="must", type="string"))
    comparison = since(checkout)
    assert len(comparison.breaks) == comparison.changed == comparison.events


def test_a_mode_sees_only_its_own_direction(checkout: Path) -> None:
    edit(checkout, STARTED, add(name="volume", type="double"))
    assert since(checkout, mode=Mode.FORWARD).breaks == ()
    assert {rule for *_, rule in found(since(checkout, mode=Mode.BACKWARD))} == {
        Rule.READER_FIELD_MISSING_DEFAULT_VALUE
    }


def test_earlier_revisions_are_found_by_whatever_git_calls_them(checkout: Path) -> None:
    git(checkout, "tag", "v1")
    edit(checkout, STARTED, remove("content_id"))
    commit(checkout, "a break")
    commit(checkout, "something else")
    assert since(checkout, "HEAD").breaks == since(checkout, "HEAD~1").breaks == ()
    for revision in ("HEAD~2", "v1", "main~2"):
        assert {rule for *_, rule in found(since(checkout, revision))} == {Rule.FIELD_REMOVED}


def test_no_revision_to_compare_with_is_one_clear_line(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(NoBaseline, match="this git checkout has no revision 'nowhere'"):
        since(checkout, "nowhere")
    with pytest.raises(NoBaseline, match="this git checkout has no revision '--help'"):
        since(checkout, "--help")
    git(checkout, "checkout", "--quiet", "--orphan", "bare")
    git(checkout, "rm", "--quiet", "--cached", "-r", ".")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "nothing")
    with pytest.raises(
        NoBaseline, match="revision 'bare' has no event schemas in configs/schemas/: git tracks nothing"
    ):
        since(checkout, "bare")
    shutil.copytree(schemas(checkout), tmp_path / "plain" / "configs" / "schemas")
    with pytest.raises(NoBaseline, match="plain/configs/schemas is in no git checkout"):
        since(tmp_path / "plain")
    with pytest.raises(NoBaseline, match="there is no folder of event schemas at"):
        contract_at("HEAD", tmp_path / "absent")


def test_no_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    with pytest.raises(NoBaseline, match="needs git, and there is no git in PATH"):
        since(checkout)


def test_a_revision_that_was_no_contract_says_so(checkout: Path) -> None:
    (schemas(checkout) / STARTED).write_text("{")
    commit(checkout, "broken")
    git(checkout, "checkout", "--quiet", "HEAD~1", "--", ".")
    with pytest.raises(ContractError, match=r"PlaybackStarted\.avsc: not JSON"):
        since(checkout, "HEAD")


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "registry.db")


def of_registry(root: Path, registry: FileRegistry, mode: Mode = Mode.REEL) -> Comparison:
    return compare(load_contract(schemas(root)), baseline_of_registry(registry), mode)


def contract_of(root: Path) -> Contract:
    return load_contract(schemas(root))


def test_a_registry_is_made_ready_once_and_grows(checkout: Path, registry: FileRegistry) -> None:
    contract = contract_of(checkout)
    assert register_contract(contract, registry) == Comparison(len(contract.events), len(contract.events), 0, ())
    assert sorted(registry.subjects()) == sorted(event.subject for event in contract.events)
    assert registry.latest(contract.event("playback.started").subject) == contract.event("playback.started").avro_json
    assert register_contract(contract, registry) == Comparison(len(contract.events), 0, 0, ())

    edit(checkout, STARTED, add(name="volume", type=["null", "double"], default=None))
    assert register_contract(contract_of(checkout), registry).changed == 1
    assert [len(registry.versions(event.subject)) for event in contract.events].count(2) == 1


def test_nothing_is_registered_if_anything_breaks(checkout: Path, registry: FileRegistry) -> None:
    register_contract(contract_of(checkout), registry)
    before = {subject: registry.versions(subject) for subject in registry.subjects()}
    edit(checkout, "navigation/ScreenView.avsc", add(name="fine", type="int", default=0))
    edit(checkout, STARTED, remove("content_id"))
    assert found(register_contract(contract_of(checkout), registry)) == {
        ("playback.started", "content_id", Rule.FIELD_REMOVED)
    }
    assert {subject: registry.versions(subject) for subject in registry.subjects()} == before


def test_a_registry_holds_every_version_against_the_tree(checkout: Path, registry: FileRegistry) -> None:
    register_contract(contract_of(checkout), registry)
    edit(checkout, STARTED, add(name="volume", type="double", default=0.0))
    register_contract(contract_of(checkout), registry)
    edit(checkout, STARTED, lambda schema: schema["fields"][-1].pop("default"))
    assert found(of_registry(checkout, registry)) == {
        ("playback.started", "volume", Rule.DEFAULT_REMOVED),
        ("playback.started", "volume", Rule.FIELD_ADDED_WITHOUT_DEFAULT),
    }
    assert of_registry(checkout, registry, Mode.BACKWARD).breaks == ()
    assert len(of_registry(checkout, registry, Mode.BACKWARD_TRANSITIVE).breaks) == 1


def test_what_others_keep_in_the_registry_is_theirs(checkout: Path, registry: FileRegistry) -> None:
    registry.register("orders-value", '"string"')
    registry.register("billing-com.elsewhere.Invoice", '"string"')
    assert of_registry(checkout, registry).breaks == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"string"', ("string", Rule.TYPE_CHANGED)),
        ('{"type": "record", "name": "R"}', ("PlaybackStarted", Rule.UNREADABLE_SCHEMA)),
        ('{"type": "record", "name": "R", "fields": []}', ("R", Rule.TYPE_CHANGED)),
        ("syntax = proto3;", None),
    ],
)
def test_whatever_a_registry_has_of_ours_is_judged(
    checkout: Path, registry: FileRegistry, text: str, expected: tuple[str, Rule] | None
) -> None:
    schema_id = registry.register(contract_of(checkout).event("playback.started").subject, '"int"')
    with closing(sqlite3.connect(registry.path)) as connection, connection:
        connection.execute("UPDATE schema SET text = ? WHERE id = ?", (text, schema_id))
    if expected is None:
        with pytest.raises(IncompatibleSchema, match=r"schema of .*PlaybackStarted is no Avro: syntax = proto3;"):
            of_registry(checkout, registry)
        return
    assert found(of_registry(checkout, registry)) == {("playback.started", *expected)}
