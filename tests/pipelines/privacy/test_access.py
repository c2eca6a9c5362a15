"""Who may see what: nothing that nobody has classified, no id, no row of whoever did not allow it."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from pipelines.contract.events import load_contract
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.tables import TableSpec
from pipelines.lineage import UnknownTableError
from pipelines.privacy.access import Access, AccessError
from pipelines.privacy.audit import records
from pipelines.privacy.classification import classified
from pipelines.privacy.view import view
from pipelines.settings import PrivacySettings, Settings

T0_US = 1_767_600_000_000_000  # 2026-01-05T08:00:00Z
NAVIGATION, CONSENTS, PROFILES = "silver.navigation", "privacy.consents", "privacy.profiles"
# By spec 8.3, 8.5 and 11.3: what leads to a person, by name, whatever Reel's own classification says.
LEADS_TO_A_PERSON = {
    "user_id", "profile_id", "session_id", "device_id", "viewer_token", "ip", "headers", "query_text", "trace_id",
    "error_message", "chain", "encrypted_value", "encrypted_key", "encrypted_headers",
}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(work_dir=tmp_path)


def row(number: int, who: str | None = None, **columns: Any) -> dict[str, Any]:
    """One event of an adult who allows everything, unless said else; of nobody without `who`."""
    theirs: dict[str, Any] = {"source": "SERVER", "is_kids": None}
    if who is not None:
        theirs = {
            "source": "CLIENT", "user_id": who, "profile_id": f"{who}-p", "session_id": f"{who}-s", "is_kids": False,
            "consent_analytics": True, "consent_personalization": True, "consent_ad_targeting": True,
        }  # fmt: skip
    at = T0_US + number * 1000
    common = {"event_id": f"e{number}", "event_name": "app.launched", "event_timestamp": at, "ingested_at": at}
    return {**common, "topic": "client.navigation", "partition": 0, "offset": number, **theirs, **columns}


def said(user: str, at_us: int, **allows: bool) -> dict[str, Any]:
    answers = {"allows_analytics": True, "allows_personalization": True, "allows_ad_targeting": True}
    return {"user_id": user, "event_timestamp": at_us, **answers, **allows}


def fill(settings: Settings) -> None:
    """Nine events: of ann, of nobody, and seven that analysts may not see, or no longer."""
    contract = load_contract(settings.schemas)
    events = [
        row(0, "ann", market="GB"),
        row(1),
        row(2, "bob", consent_analytics=False),
        row(3, "cat", consent_personalization=False),
        row(4, "dan", is_kids=True, user_id=None, profile_id=None, session_id=None),
        row(5, "eve", is_kids=None),
        row(6, "fay"),
        row(7, "gus"),
        row(8, "hal"),
    ]
    consents = [
        said("fay", T0_US - 1000), said("fay", T0_US + 100_000, allows_analytics=False),
        said("hal", T0_US - 1000, allows_analytics=False), said("hal", T0_US + 100_000),
        said("ann", T0_US, allows_analytics=False), said("ann", T0_US + 1000, allows_ad_targeting=False),
    ]  # fmt: skip
    profiles = [
        {"profile_id": "gus-p", "user_id": "gus", "is_kids": False, "event_timestamp": T0_US - 1000},
        {"profile_id": "gus-p", "user_id": "gus", "is_kids": True, "event_timestamp": T0_US + 100_000},
        {"profile_id": "ann-p", "user_id": "ann", "is_kids": False, "event_timestamp": T0_US - 1000},
    ]
    rows = {NAVIGATION: events, CONSENTS: consents, PROFILES: profiles}
    for spec in (tables.silver_domain(contract, "navigation", "day"), tables.consents(), tables.profiles()):
        append(settings, spec, pa.Table.from_pylist(rows[spec.name], schema=spec.schema))


def append(settings: Settings, spec: TableSpec, rows: pa.Table) -> None:
    table = Lakehouse.open(settings).table(spec)
    commit_files(table, write_files(TableFiles.of(table), rows), None)


def numbers(rows: pa.Table) -> list[int]:
    """Which of the nine events."""
    return sorted((us - T0_US) // 1000 for us in rows["event_timestamp"].cast(pa.int64()).to_pylist())


def test_every_column_of_every_declared_table_is_classified(settings):
    contract = load_contract(settings.schemas)
    known = classified(contract)
    declared = [tables.bronze_events(contract, "day"), tables.quarantine_events(), tables.profiles(), tables.consents()]
    declared += [tables.silver_domain(contract, one, "day") for one in {event.domain for event in contract.events}]
    declared += [tables.silver_titles(), tables.silver_subscriptions(), tables.silver_playback_sessions("day")]
    missing = {spec.name: [name for name in spec.schema.names if name not in known[spec.name]] for spec in declared}
    assert {name: columns for name, columns in missing.items() if columns} == {}


def test_analysts_and_those_who_read_reports_see_nothing_that_leads_to_a_person(settings):
    access = Access.of(settings)
    for role in ("bi_analyst", "product_business"):
        for table, columns in access.seen_by(role).items():
            assert not LEADS_TO_A_PERSON & set(columns), (role, table)
    assert not access.seen("bi_analyst", "bronze.events")
    assert not access.seen_by("product_business")  # gold is not built yet
    assert "watch_ms" in access.seen("bi_analyst", "silver.playback_sessions")


@pytest.mark.parametrize(
    ("role", "layers"),
    [
        ("data_engineer", {"bronze", "silver", "quarantine", "features", "quality"}),
        ("ml_engineer", {"bronze", "silver", "features", "quality"}),
        ("bi_analyst", {"silver", "quality"}),
        ("compliance", {"privacy", "quality"}),
        ("service_account", {"bronze", "silver", "quarantine", "features", "quality", "privacy"}),
    ],
)
def test_layers_are_those_of_the_spec(settings, role, layers):
    assert {table.partition(".")[0] for table in Access.of(settings).seen_by(role)} == layers


def test_the_registries_of_people_are_complianceS_and_the_stations_alone(settings):
    access = Access.of(settings)
    for table in (CONSENTS, PROFILES):
        assert [role for role in access.roles if access.seen(role, table)] == ["compliance", "service_account"]


def test_a_table_and_a_column_that_nobody_classified_are_seen_by_nobody(settings):
    access = Access.of(settings)
    stored = ["event_name", "mother_maiden_name"]
    for role in access.roles:
        assert access.seen(role, "silver.letters", ["event_name"]) == []
        assert access.seen(role, "gold.daily", ["market"]) == []
        assert "mother_maiden_name" not in access.seen(role, NAVIGATION, stored)
    assert access.seen("bi_analyst", NAVIGATION, stored) == ["event_name"]
    append(settings, TableSpec("silver.letters", pa.schema([("text", pa.string())])), pa.table({"text": ["dear"]}))
    with pytest.raises(
        AccessError, match=r"data_engineer may see nothing of silver\.letters \(nobody has classified it"
    ):
        view(settings, "data_engineer", "silver.letters")


def test_a_table_of_people_that_does_not_say_what_they_allow_is_for_those_who_see_every_row(settings):
    access = Access.of(settings)
    table = "silver.subscriptions"
    assert [role for role in access.roles if access.seen(role, table)] == ["data_engineer", "service_account"]


@pytest.mark.parametrize(
    ("role", "seen", "left_out"),
    [
        ("bi_analyst", [0, 1, 3, 8], {"kids_profile": 3, "refused_on_event": 1, "withdrawn_since": 1}),
        ("ml_engineer", [0, 1, 8], {"kids_profile": 3, "refused_on_event": 2, "withdrawn_since": 1}),
        ("data_engineer", list(range(9)), {}),
    ],
)
def test_a_role_sees_its_columns_of_those_who_allow_its_purpose(settings, tmp_path, role, seen, left_out):
    fill(settings)
    out = tmp_path / "seen.parquet"
    report = view(settings, role, NAVIGATION, out=out).report
    stored = Lakehouse.open(settings).table(TableSpec(NAVIGATION, pa.schema([]))).schema().column_names
    rows = pq.read_table(out)
    assert rows.column_names == Access.of(settings).seen(role, NAVIGATION, stored)
    assert numbers(rows) == seen
    assert report.read == {NAVIGATION: 9}
    assert report.did == {f"rows seen as {role}": len(seen)} | {f"rows left out: {r}": n for r, n in left_out.items()}
    told = list(records(settings))[-1]
    assert (told["station"], told["outcome"], told["read"], told["did"]) == (
        "view",
        "completed",
        report.read,
        report.did,
    )
    assert told["purposes"] == {"bi_analyst": ["analytics"], "ml_engineer": ["personalization"]}.get(role, [])


def test_a_limit_is_of_rows_that_are_seen(settings):
    fill(settings)
    assert view(settings, "bi_analyst", NAVIGATION, limit=2).rows.num_rows == 2
    assert view(settings, "bi_analyst", NAVIGATION, limit=20).rows.num_rows == 4


@pytest.mark.parametrize("role", ["bi_analyst", "ml_engineer", "data_engineer", "compliance"])
def test_an_engine_that_runs_the_views_shows_the_same_columns_and_rows(settings, tmp_path, role):
    fill(settings)
    access, lakehouse = Access.of(settings), Lakehouse.open(settings)
    stored = {name: lakehouse.existing(name) for name in lakehouse.names()}
    engine = duckdb.connect()
    for name, table in stored.items():
        assert table is not None
        engine.register("rows", table.scan().to_arrow())
        engine.execute(f"CREATE SCHEMA IF NOT EXISTS {name.partition('.')[0]}")
        engine.execute(f"CREATE TABLE {name} AS SELECT * FROM rows")
    columns = {name: table.schema().column_names for name, table in stored.items() if table is not None}
    for statement in access.views([role], columns):
        engine.execute(statement)
    listed = "SELECT table_name FROM information_schema.tables WHERE table_schema = ?"
    made = {name for (name,) in engine.execute(listed, [role]).fetchall()}
    assert made == {table.replace(".", "_") for table, names in columns.items() if access.seen(role, table, names)}
    if role == "compliance":
        assert made == {"privacy_consents", "privacy_profiles"}
        return
    shown = engine.sql(f"SELECT * FROM {role}.silver_navigation").to_arrow_table()
    out = tmp_path / "seen.parquet"
    view(settings, role, NAVIGATION, out=out)
    ours = pq.read_table(out)
    assert shown.column_names == ours.column_names
    order = [("event_timestamp", "ascending")]
    assert shown.cast(ours.schema).sort_by(order).equals(ours.sort_by(order))


def test_who_and_what_is_not_there_is_refused_with_the_nearest(settings):
    fill(settings)
    with pytest.raises(AccessError, match="no role 'bi_analist'; nearest is bi_analyst"):
        view(settings, "bi_analist", NAVIGATION)
    with pytest.raises(UnknownTableError, match=r"did you mean silver\.navigation"):
        view(settings, "bi_analyst", "silver.navigaton")
    with pytest.raises(AccessError, match=r"bi_analyst may see nothing of privacy\.consents; `reel privacy access"):
        view(settings, "bi_analyst", CONSENTS)
    assert list(records(settings))[-1]["failure"] == "AccessError"  # who tried is on record


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ({"reads": {"silvr": ["open"]}}, "reads 'silvr', which is no layer or table; nearest is silver"),
        ({"reads": {"silver": ["opne"]}}, "input should be 'open', 'identifier'"),
        ({"rows_for": "fun"}, "roles.tester.rows_for"),
        ({"raeds": {}}, "roles.tester.raeds: extra inputs are not permitted"),
        ({"about": None}, "roles.tester.about"),
    ],
)
def test_a_file_of_roles_that_is_wrong_says_where(tmp_path, role, message):
    file = tmp_path / "access.yaml"
    right = {"about": "tests", "rows_for": "all", "reads": {}}
    file.write_text(yaml.safe_dump({"roles": {"tester": right | role}}))
    with pytest.raises(AccessError) as refused:
        Access.of(Settings(work_dir=tmp_path, privacy=PrivacySettings(access_file=file)))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_said_of_a_table_holds_instead_of_what_is_said_of_its_layer(tmp_path):
    file = tmp_path / "access.yaml"
    reads = {"silver": ["open"], "silver.navigation": ["link"], "silver.playback": []}
    file.write_text(yaml.safe_dump({"roles": {"tester": {"about": "tests", "rows_for": "all", "reads": reads}}}))
    access = Access.of(Settings(work_dir=tmp_path, privacy=PrivacySettings(access_file=file)))
    assert access.seen("tester", "silver.navigation") == ["event_id", "trace_id", "partition", "offset"]
    assert access.seen("tester", "silver.playback") == []
    assert "market" in access.seen("tester", "silver.qoe")


def test_the_commands(settings, tmp_path):
    from pipelines.cli import app

    fill(settings)
    config = tmp_path / "reel.yaml"
    config.write_text(f"work_dir: {settings.work_dir}\n")

    def reel(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["--config", str(config), "privacy", *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    (line,) = reel("access", "bi_analyst", "--json").splitlines()
    assert json.loads(line)["tables"]["quality.checks"][0] == "check"
    assert len([line for line in reel("access").splitlines() if " silver.navigation" in line]) == 4
    assert reel("access", "compliance", "--sql").startswith('CREATE SCHEMA IF NOT EXISTS "compliance";\n')
    assert reel("view", "bi_analyst", NAVIGATION, "--limit", "2").count("app.launched") == 2
    shown = [json.loads(line) for line in reel("view", "bi_analyst", NAVIGATION, "--json").splitlines()]
    assert len(shown) == 4
    assert not LEADS_TO_A_PERSON & shown[0].keys()
    kept = json.loads(reel("view", "bi_analyst", NAVIGATION, "--out", str(tmp_path / "rows.parquet"), "--json"))
    assert kept["did"]["rows seen as bi_analyst"] == 4
    assert "silver.navigation 9" in reel("audit")
    audited = [json.loads(line) for line in reel("audit", "--json").splitlines()]
    assert [one["outcome"] for one in audited] == ["began", "completed"] * 3
    assert reel("audit", "--since", "2100-01-01", "--json") == ""
    assert reel("audit", "--verify").startswith("6 records hold together; the last is ")
    assert json.loads(reel("audit", "--verify", "--json"))["unended"] == []
