"""The audit log of a real lakehouse: what stations leave there, and that it stays as it was written."""

import ast
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from features.purposes import Purpose
from pipelines.errors import ReelError
from pipelines.lakehouse import lineage
from pipelines.lakehouse.audit import AuditLog, AuditLogBusyError, AuditLogError, continuous
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of, replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import live_files, scan_tasks
from pipelines.lakehouse.tables import AUDIT, AUDIT_LOG, audit_log
from pipelines.maintain import maintain
from pipelines.privacy.audit import AuditLogBrokenError, noted_heads, records, verify
from pipelines.report import StationReport, timed
from pipelines.settings import LakehouseSettings, PrivacySettings, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(work_dir=tmp_path)


def station(settings: Settings, rows: int = 7, *, fails: bool = False) -> None:
    with timed("clean") as report, lineage.run(settings, "clean") as made:
        made.serves(Purpose.ANALYTICS)
        report.read = {"bronze.events": rows}
        if fails:
            raise ReelError(f"user-{rows} is not to be on record")
        report.did = {"invalid": 2, "folder": "/somewhere", "share": 0.5}
        report.wrote = {"silver.playback": rows - 2}


def test_a_run_is_on_record_when_it_begins_and_when_it_ends(settings):
    with timed("clean") as report, lineage.run(settings, "clean") as made:
        made.serves(Purpose.ANALYTICS, Purpose.PERSONALIZATION)
        (begun,) = records(settings)
        report.read = {"bronze.events": 7}
        report.did = {"invalid": 2, "folder": "/somewhere", "share": 0.5}
    begun_then, ended = records(settings)
    assert begun == begun_then
    assert {name: begun[name] for name in ("number", "outcome", "station", "run_id")} == {
        "number": 0, "outcome": "began", "station": "clean", "run_id": made.id,
    }  # fmt: skip
    del ended["at"], ended["previous"], ended["who"]
    assert ended == {
        "number": 1, "outcome": "completed", "station": "clean", "run_id": made.id, "code_version": made.code_version,
        "purposes": ["analytics", "personalization"],
        "read": {"bronze.events": 7}, "did": {"invalid": 2}, "wrote": {},
    }  # fmt: skip


def test_who_is_the_configured_principal_else_the_systems_user(settings, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    station(settings)
    station(settings.model_copy(update={"privacy": PrivacySettings(principal="reel-ingest@platform")}))
    assert [one["who"] for one in records(settings)] == ["ada", "ada", *["reel-ingest@platform"] * 2]


def test_a_failed_run_is_on_record_by_the_kind_of_its_failure_only(settings):
    with pytest.raises(ReelError, match="user-3"):
        station(settings, 3, fails=True)
    began, failed = records(settings)
    assert (began["outcome"], failed["outcome"], failed["failure"]) == ("began", "failed", "ReelError")
    assert failed["read"] == {"bronze.events": 3}
    assert "user-3" not in json.dumps([began, failed])
    assert verify(settings).unended == ()


def test_a_killed_run_has_begun_and_not_ended(settings):
    program = (
        "import os, sys; from pathlib import Path\n"
        "from pipelines.lakehouse import lineage; from pipelines.settings import Settings\n"
        "with lineage.run(Settings(work_dir=Path(sys.argv[1])), 'features'): os._exit(9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(settings.work_dir)], timeout=120, check=False)
    assert killed.returncode == 9
    station(settings)
    first = next(records(settings))
    assert verify(settings).unended == (first["run_id"],)


def test_a_report_of_another_station_around_a_run_is_not_taken_for_its_own(settings):
    with timed("demo") as report:
        report.read = {"everything": 1}
        with lineage.run(settings, "join") as made:
            made.report.read = {"rows": 5}
    assert [one.get("read") for one in records(settings)] == [None, {"rows": 5}]


def test_a_station_that_knows_no_settings_is_recorded_with_its_report(settings):
    def work():
        with timed("train") as report:
            report.read = {"train rows": 9}
        return report

    assert lineage.reported(settings, "train", work, Purpose.PERSONALIZATION).read == {"train rows": 9}
    assert list(records(settings))[-1]["read"] == {"train rows": 9}
    assert list(records(settings))[-1]["purposes"] == ["personalization"]


def test_nothing_is_done_when_the_log_takes_no_record(settings):
    (settings.work_dir / "warehouse").write_text("no folder")
    with pytest.raises(AuditLogBusyError, match="clean: the audit log takes no record, so nothing was done: "):
        station(settings)
    assert not (settings.work_dir / "warehouse").is_dir()


def test_a_run_fails_when_its_end_cannot_be_recorded(settings):
    def loses_the_warehouse() -> StationReport:
        (settings.work_dir / "warehouse").rename(settings.work_dir / "elsewhere")
        (settings.work_dir / "warehouse").write_text("no folder")
        return StationReport("clean")

    with pytest.raises(AuditLogError, match="clean: the audit log takes no record of how this ended; that it began is"):
        lineage.reported(settings, "clean", loses_the_warehouse)


def test_a_failure_is_heard_of_also_when_it_cannot_be_recorded(settings):
    def loses_the_warehouse_and_fails() -> StationReport:
        (settings.work_dir / "warehouse").rename(settings.work_dir / "elsewhere")
        (settings.work_dir / "warehouse").write_text("no folder")
        raise KeyError("its own failure")

    with pytest.raises(KeyError, match="its own failure") as failed:
        lineage.reported(settings, "clean", loses_the_warehouse_and_fails)
    assert "takes no record of how this ended" in failed.value.__notes__[0]


def test_a_run_that_goes_on_begins_when_the_log_is_back(settings):
    warehouse, said = settings.work_dir / "warehouse", []
    warehouse.write_text("no folder")

    def back_after_two(busy: AuditLogBusyError) -> bool:
        said.append(str(busy))
        if len(said) == 2:
            warehouse.unlink()
        return True

    with continuous(settings, "follow", tries_again=back_after_two):
        station(settings, 3)
    assert len(said) == 2
    assert [one["outcome"] for one in records(settings)] == ["began", "completed"]
    warehouse.rename(settings.work_dir / "elsewhere")
    warehouse.write_text("no folder")
    with pytest.raises(AuditLogBusyError), continuous(settings, "follow"):
        pass


def test_a_run_that_goes_on_is_recorded_now_and_then_with_what_its_parts_did(settings):
    with continuous(settings, "follow"):
        for rows in (3, 4):
            station(settings, rows)
        with lineage.run(settings, "ingest"):
            pass  # it looked, and there was nothing
        with pytest.raises(ReelError):
            station(settings, 5, fails=True)
        assert len(list(records(settings))) == 1
    began, ended = records(settings)
    assert (began["station"], ended["station"], began["run_id"]) == ("follow", "follow", ended["run_id"])
    assert ended["parts"].keys() == {"clean"}
    part = ended["parts"]["clean"]
    assert len(set(part.pop("runs"))) == 3
    assert part == {
        "purposes": ["analytics"], "failures": {"ReelError": 1},
        "read": {"bronze.events": 12}, "did": {"invalid": 4}, "wrote": {"silver.playback": 3},
    }  # fmt: skip


def test_how_often_is_configuration(settings):
    often = settings.model_copy(update={"privacy": PrivacySettings(audit_minutes=0)})
    with continuous(often, "follow"):
        station(often, 3)
        station(often, 4)
    told = [one.get("parts", {}).get("clean", {}).get("read") for one in records(settings)]
    assert told == [None, {"bronze.events": 3}, {"bronze.events": 4}, None]
    assert [one["outcome"] for one in records(settings)] == ["began", "goes on", "goes on", "completed"]


def test_two_writers_at_once_make_one_chain(settings):
    program = (
        "import sys; from pathlib import Path\n"
        "from pipelines.lakehouse.audit import AuditLog; from pipelines.settings import Settings\n"
        "log = AuditLog(Settings(work_dir=Path(sys.argv[1])))\n"
        "for n in range(25): log.add({'who': sys.argv[2], 'n': n})\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(settings.work_dir), who], stderr=subprocess.PIPE)
        for who in ("one", "other")
    ]
    for writer in writers:
        said = writer.communicate(timeout=300)[1]
        assert writer.returncode == 0, said
    assert verify(settings).records == 50
    found = list(records(settings))
    assert [one["number"] for one in found] == list(range(50))
    for who in ("one", "other"):
        assert [one["n"] for one in found if one["who"] == who] == list(range(25))
    table = Lakehouse.open(settings).existing(AUDIT)
    assert table is not None
    assert len(table.metadata.snapshots) < 60  # its history is cut, for nobody else may do it


def fill(settings: Settings, count: int) -> None:
    log = AuditLog(settings)
    for n in range(count):
        log.add({"who": "somebody", "n": n})


def rewritten(settings: Settings, change) -> None:
    """Put other rows in the place of the log's, as somebody who may write to the warehouse could."""
    table = Lakehouse.open(settings).table(audit_log())
    rows = change(table.scan().to_arrow().sort_by("number"))
    replace_files(table, live_files(table), write_files(TableFiles.of(table), rows))


def broken_at(settings: Settings) -> int:
    with pytest.raises(AuditLogBrokenError) as found:
        verify(settings)
    return int(str(found.value).split("from record ")[1].split()[0])


def changed(rows: pa.Table, place: int) -> pa.Table:
    texts = rows["record"].to_pylist()
    texts[place] = texts[place].replace("somebody", "somebodY")
    return rows.set_column(2, AUDIT_LOG.field("record"), pa.array(texts))


@pytest.mark.parametrize(
    ("change", "found_at"),
    [
        (lambda rows: changed(rows, 2), 3),
        (lambda rows: changed(rows, 5), 5),
        (lambda rows: pa.concat_tables([rows.slice(0, 2), rows.slice(3)]), 2),
        (lambda rows: rows.slice(1), 0),
        (lambda rows: rows.slice(0, 4), 4),
        (lambda rows: pa.concat_tables([rows, rows.slice(3, 1)]), 4),
        (lambda rows: rows.set_column(2, AUDIT_LOG.field("record"), rows["record"].take([0, 2, 1, 3, 4, 5])), 1),
    ],
    ids=["changed", "last changed", "taken out", "first taken out", "cut off", "twice", "swapped"],
)
def test_what_was_done_to_the_table_is_found_where_it_was_done(settings, change, found_at):
    fill(settings, 6)
    rewritten(settings, change)
    assert broken_at(settings) == found_at


def test_a_file_that_is_gone_or_damaged_is_found(settings):
    fill(settings, 4)
    path = Path(live_files(Lakehouse.open(settings).table(audit_log()))[0].file_path.removeprefix("file://"))
    before = path.read_bytes()
    path.write_bytes(before[:40])
    with pytest.raises(AuditLogBrokenError, match="cannot be read"):
        verify(settings)
    path.unlink()
    with pytest.raises(AuditLogBrokenError, match="cannot be read"):
        verify(settings)
    path.write_bytes(before)
    assert verify(settings).records == 4


def test_a_log_set_back_with_its_head_is_found_by_the_heads_that_were_noted(settings):
    fill(settings, 3)
    earlier = Lakehouse.open(settings).table(audit_log()).metadata.current_snapshot_id
    fill(settings, 2)
    heads = settings.work_dir / "audit.heads"
    verify(settings)
    verify(settings)  # and notes nothing twice
    assert [head.records for head in noted_heads(heads)] == [5]
    table = Lakehouse.open(settings).table(audit_log())
    assert earlier is not None
    table.manage_snapshots().set_current_snapshot(snapshot_id=earlier).commit()
    assert broken_at(settings) == 3
    heads.unlink()
    assert verify(settings).records == 3  # nobody remembers: it cannot be told
    Lakehouse.open(settings).catalog.drop_table(AUDIT)
    assert broken_at(settings) == 0


@pytest.mark.usefixtures("ray_session")
def test_maintenance_puts_files_together_and_changes_no_record(settings):
    fill(settings, 120)
    before = list(records(settings))
    report = maintain(settings)
    assert report.did[f"{AUDIT}: files replaced"] == 121
    table = Lakehouse.open(settings).table(audit_log())
    assert len(scan_tasks(table)) <= 3  # one a month, and what came meanwhile
    assert list(records(settings))[:120] == before
    assert verify(settings).records == 122
    assert progress_of(table)["records"] == 122
    assert not [what for what in maintain(settings).did if "files" in what]  # so few are left as they are


@pytest.mark.usefixtures("ray_session")
def test_retention_takes_the_front_and_says_so_before(tmp_path, monkeypatch):
    day_s, kept_s, now = 24 * 3600, 3600, time.time
    brief = Settings(work_dir=tmp_path, lakehouse=LakehouseSettings(audit_retention_days=kept_s / day_s))
    fill(brief, 5)
    assert not [what for what in maintain(brief, [AUDIT]).did if "retention" in what]
    monkeypatch.setattr(time, "time", lambda: now() + kept_s)  # so much time has passed
    fill(brief, 2)
    assert maintain(brief, [AUDIT]).did[f"{AUDIT}: rows past their retention"] == 7  # and the two of `maintain`
    left = list(records(brief))
    assert [one["number"] for one in left] == list(range(7, 7 + 5))
    assert [one.get("n") for one in left[:2]] == [0, 1]
    told = left[3]
    assert (told["outcome"], told["first_kept"]) == ("retention", 7)
    verified = verify(brief)
    assert (verified.begins, verified.records) == (7, 12)
    with pytest.raises(AuditLogBrokenError, match="record 10 took out records younger"):
        verify(Settings(work_dir=tmp_path))  # seven years were promised
    table = Lakehouse.open(brief).table(audit_log())
    commit_files(table, [], {**progress_of(table), "begins": 9})
    with pytest.raises(AuditLogBrokenError, match="no record says that retention took them"):
        verify(brief)


def test_an_empty_lakehouse_has_an_empty_log(settings):
    assert list(records(settings)) == []
    assert verify(settings).records == 0


# Those that work for no lakehouse: `reel` runs them within `lineage.reported`.
WITHOUT_SETTINGS = {"train", "evaluate", "publish", "tune"}
# They read no person's event: the first three write what is simulated or imported, the fourth looks at metadata.
# The next three are around stations that are recorded. The last writes how the service is to be started.
NOT_RECORDED = {"simulate", "import", "traffic", "status", "follow", "batch", "retrain", "deployment"}


def test_every_station_is_on_record(project_root):
    """Whatever tells a report enters `lineage.run` in the same breath, but for what is named here."""
    unrecorded = {
        name
        for file in sorted((project_root / "pipelines").rglob("*.py"))
        for name, beside in _reports(file)
        if "lineage.run" not in beside
    }
    assert unrecorded == WITHOUT_SETTINGS | NOT_RECORDED


def _reports(file: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """(station, everything that the same `with` enters) of every `timed` in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.With):
            continue
        calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
        for call in calls:
            if ast.unparse(call.func) == "timed":
                name = call.args[0]
                yield (
                    name.value if isinstance(name, ast.Constant) else ast.unparse(name),
                    [ast.unparse(one.func) for one in calls],
                )
