"""`reel contract`: the catalogue as text and as pages; whether a change may go out, as CI asks it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app, main
from pipelines.contract import catalogue
from pipelines.contract.events import load_contract
from pipelines.errors import ContractError
from pipelines.quality.output import OutputNotWritten
from pipelines.settings_section import PROJECT_ROOT

CONTRACT = load_contract(PROJECT_ROOT / "configs" / "schemas")


def shown(*arguments: str | Path) -> str:
    return CliRunner().invoke(app, ["contract", "show", *map(str, arguments)], catch_exceptions=False).stdout


def test_all_events_by_domain():
    lines = shown().splitlines()
    for event in CONTRACT.events:
        said = {event.name, event.topic, event.consent_category, *event.doc.split()[:4]}
        assert any(said <= {*line.split()} for line in lines), event.fullname
    assert [line for line in lines if line.startswith(" qoe ")] == [
        line for line in lines if " qoe.degraded " in line
    ], "a domain is named on the first of its events only"


def test_one_event_with_all_its_properties_on_every_topic_it_is_on():
    text = shown("recording.scheduled")
    assert "topic client.recording, owner Client Platform, consent analytics" in text
    assert "topic recordings.events, owner Recording Service, consent analytics" in text
    said = {tuple(line.split())[:2] for line in text.splitlines()}
    for topic in ("client.recording", "recordings.events"):
        for column in CONTRACT.event("recording.scheduled", topic).columns:
            assert any(words[0] == column.name for words in said if words), column.name
    assert "epg / search / notification" in text
    assert any("user_id" in line and "identifier" in line for line in text.splitlines())


def test_the_pages_are_written(tmp_path: Path):
    html, markdown = tmp_path / "events.html", tmp_path / "events.md"
    assert shown("--html", html, "--markdown", markdown).splitlines() == [
        f"{html}: 88 events",
        f"{markdown}: 88 events",
    ]
    assert html.read_text() == catalogue.html(CONTRACT)
    assert markdown.read_text() == catalogue.markdown(CONTRACT)


def test_what_cannot_be_shown_or_written_is_named(tmp_path: Path):
    with pytest.raises(ContractError, match=r"no event 'playback\.begun'"):
        shown("playback.begun")
    with pytest.raises(OutputNotWritten, match="cannot be written: No such file or directory"):
        shown("--html", tmp_path / "nowhere" / "events.html")


def test_the_command_line_starts_without_what_only_stations_need():
    heavy = "{'pyarrow', 'numpy', 'ray', 'polars', 'pyiceberg'} & set(sys.modules)"
    code = f"import sys, pipelines.cli; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


Reel = Callable[..., tuple[int, str, str]]
EVENTS = len(CONTRACT.events)


@pytest.fixture
def reel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reel:
    """Runs `reel contract ...`: its exit code, what it says and what it complains of."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reel", "contract", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository whose one commit is this project's schemas, which `reel` takes for the configured ones."""
    root = tmp_path / "checkout"
    shutil.copytree(PROJECT_ROOT / "configs" / "schemas", root / "configs" / "schemas")
    for file in ("Makefile", "requirements.lock"):
        shutil.copy(PROJECT_ROOT / file, root)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    commit(root)
    monkeypatch.setenv("REEL_SCHEMAS", str(root / "configs" / "schemas"))
    monkeypatch.setenv("REEL_WORK_DIR", str(tmp_path / "work"))
    return root


def commit(root: Path) -> None:
    for words in (["add", "--all"], ["commit", "--quiet", "--allow-empty", "--message", "A change."]):
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", root, *identity, *words], check=True)


def remove_a_field(root: Path) -> str:
    path = root / "configs" / "schemas" / "playback" / "PlaybackStarted.avsc"
    schema = json.loads(path.read_text())
    gone = schema["fields"].pop()
    path.write_text(json.dumps(schema))
    return f"com.platform.events.playback.PlaybackStarted.{gone['name']}"


def test_a_change_is_compared_with_a_revision(reel: Reel, checkout: Path):
    green = f"{EVENTS} events, 0 new, 0 changed, none breaks (reel, against revision HEAD)\n"
    assert reel("check", "--revision", "HEAD") == (0, green, "")
    field = remove_a_field(checkout)
    code, said, complaint = reel("check", "--revision", "HEAD")
    assert code == 1
    assert said.splitlines() == [
        f"playback.started  {field}  field_removed: it was removed or renamed",
        f"{EVENTS} events, 0 new, 1 changed, 1 break (reel, against revision HEAD)",
    ]
    assert complaint == (
        "reel: this contract breaks what revision HEAD holds; a breaking change needs a new event on a new topic\n"
    )
    assert reel("check", "--revision", "HEAD", "--mode", "BACKWARD")[0] == 0, "new readers do without the field"
    code, said, _ = reel("check", "--revision", "HEAD", "--json")
    assert code == 1
    assert json.loads(said)["breaks"] == [
        {"event": "playback.started", "field": field, "rule": "field_removed", "what": "it was removed or renamed"}
    ]


def test_the_configured_registry_is_compared_with_once_there_is_one(reel: Reel, checkout: Path, tmp_path: Path):
    nothing = f"reel: there is no registry at {tmp_path}/work/registry.db yet; `reel contract register` makes one\n"
    assert reel("check") == (2, "", nothing)
    assert not (tmp_path / "work").exists(), "a check makes nothing"
    against = f"(reel, against registry {tmp_path}/work/registry.db)\n"
    assert reel("register") == (0, f"{EVENTS} events, {EVENTS} new, 0 changed, none breaks {against}", "")
    assert reel("register") == reel("check") == (0, f"{EVENTS} events, 0 new, 0 changed, none breaks {against}", "")
    remove_a_field(checkout)
    for command in ("check", "register"):
        code, said, complaint = reel(command)
        assert (code, complaint.count("\n")) == (1, 1)
        assert said.endswith(f"{EVENTS} events, 0 new, 1 changed, 1 break {against}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--revision", "v9"], "this git checkout has no revision 'v9'"),
        (["--revision", "HEAD", "--registry", "http://127.0.0.1:1"], "not with both"),
        (["--mode", "sideways"], "'sideways' is not one of 'reel', 'none', 'backward'"),
        (["--registry", "nowhere.db"], "there is no registry at nowhere.db yet"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_2(reel: Reel, checkout: Path, arguments: list[str], message: str):
    code, said, complaint = reel("check", *arguments)
    assert (code, said, complaint.count("\n")) == (2, "", 1)
    assert message in complaint


def make_contract(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `.ci/run` runs, in another checkout but with this one's environment."""
    ready = f"{sys.prefix}/pyvenv.cfg"  # there, and never made anew
    here = [f"VENV={sys.prefix}", f"READY={ready}", f"--old-file={ready}", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "AGAINST")}
    return subprocess.run(
        ["make", "--no-print-directory", "contract", *here],
        cwd=root,
        env={**environment, "REEL_SCHEMAS": str(root / "configs" / "schemas")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_ci_compares_with_the_commit_before_where_the_clone_has_one(checkout: Path, tmp_path: Path):
    alone = make_contract(checkout)
    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout == "contract: this clone has no earlier schemas, so there is nothing to compare with\n"
    assert make_contract(checkout, "AGAINST=origin/main").returncode != 0, "what was asked for must be there"

    commit(checkout)
    green = make_contract(checkout)
    assert (green.returncode, green.stderr) == (0, "")
    assert green.stdout == f"{EVENTS} events, 0 new, 0 changed, none breaks (reel, against revision HEAD~1)\n"

    field = remove_a_field(checkout)
    commit(checkout)
    red = make_contract(checkout)
    assert red.returncode != 0
    assert red.stdout.startswith(f"playback.started  {field}  field_removed")

    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", checkout.as_uri(), shallow], check=True)
    assert make_contract(shallow).stdout == alone.stdout


def test_ci_runs_the_check():
    assert "make contract" in (PROJECT_ROOT / ".ci" / "run").read_text().splitlines()
