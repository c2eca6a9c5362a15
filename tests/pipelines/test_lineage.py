"""Lineage: every snapshot walked back to the offsets it came from, which are known here because they were made up."""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from rich.console import Console

from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.cli_lakehouse import lineage as command
from pipelines.ingest import ingest
from pipelines.kafka.offsets import OffsetRange, Progress
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of, replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.lineage import Commit, Inputs, Run
from pipelines.lakehouse.offset_ranges import gaps, offsets_of, union
from pipelines.lakehouse.scans import scan_tasks
from pipelines.lakehouse.tables import TableSpec
from pipelines.lineage import NothingMadeError, UnknownSnapshotError, UnknownTableError, walk
from pipelines.lineage_view import as_dict, as_tree
from pipelines.settings import Settings
from tests.pipelines.lakehouse.stream import BRONZE, COLUMNS, SILVER, rows
from tests.platform import SALT, T0, Platform, described, watched

PROFILES = TableSpec("privacy.profiles", COLUMNS)
FEATURES = TableSpec("features.sample", COLUMNS)
CLUSTER = "cluster-a"


class World:
    """A lakehouse whose stations commit what they are told to have read."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(work_dir=folder)
        self.lakehouse = Lakehouse.open(self.settings)
        self.next_row = 0

    def ingest(self, spec: TableSpec, *read: tuple[str, int, int, int], **tables: int) -> int:
        """Commit one row, said to come from these (topic, partition, start, end); the snapshot."""
        ranges = [OffsetRange(*one) for one in read]
        table = self.lakehouse.table(spec)
        progress = Progress.from_json(progress_of(table)).advanced(CLUSTER, ranges).to_json()
        named = {name.replace("_", ".", 1): snapshot for name, snapshot in tables.items()}
        return self._append(table, progress, "ingest", Inputs.of_kafka(CLUSTER, ranges, named))

    def clean(self, after: int | None, upto: int, **tables: int) -> int:
        """Commit one row of silver, said to come from what bronze gained."""
        named = {name.replace("_", ".", 1): snapshot for name, snapshot in tables.items()}
        inputs = Inputs(appended={"bronze.events": (after, upto)}, tables=named)
        return self._append(self.lakehouse.table(SILVER), {"bronze_snapshot": upto}, "clean", inputs)

    def build(self, **tables: int) -> int:
        """Replace all of the features."""
        table = self.lakehouse.table(FEATURES)
        named = {name.replace("_", ".", 1): snapshot for name, snapshot in tables.items()}
        facts = Run.begin("features").facts(Inputs(tables=named))
        stale = [task.file for task in scan_tasks(table)]
        return snapshot_of(replace_files(table, stale, self._file(table), {"inputs": named}, facts))

    def compact(self, spec: TableSpec) -> int:
        """Put all files of a table together, as maintenance does."""
        table = self.lakehouse.table(spec)
        facts = Run.begin("maintain").facts(Inputs(tables={spec.name: snapshot_of(table)}))
        stale = [task.file for task in scan_tasks(table)]
        together = write_files(TableFiles.of(table), rows(range(len(stale)), T0))
        return snapshot_of(replace_files(table, stale, together, facts=facts))

    def expire(self, spec: TableSpec, *snapshots: int) -> None:
        self.lakehouse.table(spec).maintenance.expire_snapshots().by_ids(list(snapshots)).commit()

    def snapshots(self, table: str) -> Iterator[Snapshot]:
        """The oldest first."""
        found = self.lakehouse.existing(table)
        assert found is not None
        yield from sorted(found.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)

    def walk(self, table: str, snapshot: int | None = None):
        return walk(self.settings, table, snapshot)

    def text(self, table: str, snapshot: int | None = None) -> str:
        """What a person reads."""
        console = Console(width=400, file=io.StringIO())
        console.print(as_tree(self.walk(table, snapshot)))
        return console.file.getvalue()

    def _append(self, table: Table, progress: dict, station: str, inputs: Inputs) -> int:
        return snapshot_of(commit_files(table, self._file(table), progress, Run.begin(station).facts(inputs)))

    def _file(self, table: Table):
        self.next_row += 1
        return write_files(TableFiles.of(table), rows(range(self.next_row, self.next_row + 1), T0))


def snapshot_of(table: Table) -> int:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def offsets(stretch, topic: str = "client.playback") -> dict:
    return dict(stretch.offsets[topic])


def source(stretch, name: str):
    """The one source of that name."""
    (found,) = [one for one in stretch.sources if one.table == name]
    return found


def three_batches(world: World) -> list[int]:
    """Three commits to bronze; 90 to 94 of partition 1 were lost."""
    return [
        world.ingest(BRONZE, ("client.playback", 0, 0, 100), ("client.playback", 1, 0, 90)),
        world.ingest(BRONZE, ("client.playback", 0, 100, 205), ("client.playback", 1, 95, 199)),
        world.ingest(BRONZE, ("client.playback", 0, 205, 300)),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_ranges_stand_for_sets_of_offsets(seed):
    chance = random.Random(seed)
    pieces = [
        OffsetRange("t", chance.randrange(2), start, start + chance.randrange(0, 6))
        for start in (chance.randrange(40) for _ in range(chance.randrange(1, 20)))
    ]
    halves = pieces[::2], pieces[1::2]
    found = union(offsets_of(half) for half in halves)
    assert found == offsets_of(pieces)
    for partition in range(2):
        expected = {n for one in pieces if one.partition == partition for n in range(one.start, one.end)}
        ranges = found.get("t", {}).get(partition, ())
        covered = [n for start, end in ranges for n in range(start, end)]
        assert covered == sorted(expected)
        missed = [n for start, end in gaps(ranges) for n in range(start, end)]
        assert missed == [n for n in range(min(expected, default=0), max(expected, default=0)) if n not in expected]
        assert all(start < end for start, end in (*ranges, *gaps(ranges)))


@pytest.mark.parametrize(
    "inputs",
    [
        Inputs(),
        Inputs.of_kafka("c", [OffsetRange("t", 10, 0, 5), OffsetRange("t", 2, 7, 9), OffsetRange("t", 2, 9, 12)]),
        Inputs.of_kafka("c", [OffsetRange("t", 0, 5, 5)], {"privacy.profiles": 2**62}),
        Inputs(appended={"bronze.events": (None, 1), "silver.titles": (0, 3)}, tables={"privacy.consents": 4}),
    ],
)
def test_what_is_recorded_is_read_back(inputs):
    assert Inputs.from_json(inputs.to_json()) == inputs
    assert "\n" not in inputs.to_json()


def test_a_snapshot_says_what_made_it(world):
    profiles = world.ingest(PROFILES, ("user.events", 0, 0, 4))
    world.ingest(BRONZE, ("client.playback", 0, 0, 100), privacy_profiles=profiles)
    newest = world.ingest(
        BRONZE, ("client.playback", 0, 100, 205), ("client.playback", 1, 0, 90), privacy_profiles=profiles
    )
    found = world.walk("bronze.events")
    assert (found.snapshot_id, found.upkeep) == (newest, ())
    assert (found.made.station, found.made.rows_added, found.made.files_added) == ("ingest", 1, 1)
    assert found.made.run_id != Commit.of(next(iter(world.snapshots("bronze.events")))).run_id
    assert offsets(found.made_from) == {0: ((100, 205),), 1: ((0, 90),)}
    assert offsets(source(found.made_from, "privacy.profiles"), "user.events") == {0: ((0, 4),)}
    assert found.made_from.cluster_id == CLUSTER
    said = world.text("bronze.events")
    assert "client.playback [0: 100–204, 1: 0–89], 195 offsets" in said
    assert f"offsets are those of Kafka cluster {CLUSTER}\n" in said
    assert "user.events [0: 0–3], 4 offsets" in said
    assert f"made by ingest, run {found.made.run_id}, code {found.made.code_version}" in said


def test_a_history_is_one_range_a_partition_with_its_gaps_named(world):
    three_batches(world)
    history = world.walk("bronze.events").history
    assert len(history.commits) == 3
    assert offsets(history) == {0: ((0, 300),), 1: ((0, 90), (95, 199))}
    assert history.notes == ()
    # 300 + 90 + 104
    assert "client.playback [0: 0–299, 1: 0–198 without 90–94], 494 offsets" in world.text("bronze.events")
    assert as_dict(world.walk("bronze.events"))["history"]["not_read"] == {"client.playback": {"1": [[90, 95]]}}


def test_an_older_snapshot_is_told_as_of_then(world):
    _, second, _ = three_batches(world)
    found = world.walk("bronze.events", second)
    assert found.snapshot_id == found.made.snapshot_id == second
    assert offsets(found.made_from) == {0: ((100, 205),), 1: ((95, 199),)}
    assert offsets(found.history) == {0: ((0, 205),), 1: ((0, 90), (95, 199))}


def test_silver_is_walked_to_all_that_bronze_gained_since_it_was_read_before(world):
    first, second, third = three_batches(world)
    world.clean(None, first)
    world.clean(first, third)
    found = world.walk("silver.copy")
    gained = source(found.made_from, "bronze.events")
    assert {commit.snapshot_id for commit in gained.commits} == {second, third}
    assert offsets(gained) == {0: ((100, 300),), 1: ((95, 199),)}
    everything = source(found.history, "bronze.events")
    assert (everything.after, everything.upto) == (None, third)
    assert offsets(everything) == {0: ((0, 300),), 1: ((0, 90), (95, 199))}


def test_silver_that_read_nothing_new_was_made_from_nothing(world):
    first, *_ = three_batches(world)
    world.clean(None, first)
    world.clean(first, first)
    gained = source(world.walk("silver.copy").made_from, "bronze.events")
    assert (gained.commits, gained.offsets, gained.notes) == ((), {}, ())


def test_features_are_walked_to_kafka_and_only_their_newest_build_counts(world):
    first, second, _ = three_batches(world)
    early = world.clean(None, first)
    late = world.clean(first, second)
    world.build(silver_copy=early, gone_table=5)
    world.build(silver_copy=late)
    found = world.walk("features.sample")
    assert found.history.commits == found.made_from.commits
    assert [one.table for one in found.history.sources] == ["silver.copy"]
    kafka = source(source(found.made_from, "silver.copy"), "bronze.events")
    assert offsets(kafka) == {0: ((0, 205),), 1: ((0, 90), (95, 199))}
    assert "all there is" not in world.text("features.sample")


def test_rows_that_were_all_replaced_with_what_is_new_go_back_to_what_was_there_before(world):
    first, second, _ = three_batches(world)
    world.clean(None, first)
    table = world.lakehouse.table(SILVER)
    facts = Run.begin("clean").facts(Inputs(appended={"bronze.events": (first, second)}))
    together = write_files(TableFiles.of(table), rows(range(2), T0))
    replace_files(table, [task.file for task in scan_tasks(table)], together, {"bronze_snapshot": second}, facts)
    found = world.walk("silver.copy")
    assert offsets(source(found.made_from, "bronze.events")) == {0: ((100, 205),), 1: ((95, 199),)}
    assert offsets(source(found.history, "bronze.events")) == {0: ((0, 205),), 1: ((0, 90), (95, 199))}


@pytest.mark.parametrize("times", [1, 3])
def test_maintenance_is_walked_through(world, times):
    *_, third = three_batches(world)
    for _ in range(times):
        newest = world.compact(BRONZE)
    found = world.walk("bronze.events")
    assert (found.snapshot_id, found.made.snapshot_id) == (newest, third)
    assert [commit.station for commit in found.upkeep] == ["maintain"] * times
    assert offsets(found.made_from) == {0: ((205, 300),)}
    assert offsets(found.history) == {0: ((0, 300),), 1: ((0, 90), (95, 199))}
    world.clean(None, newest)
    assert offsets(source(world.walk("silver.copy").made_from, "bronze.events")) == offsets(found.history)


def test_what_expired_is_named_and_how_far_kafka_was_read_is_still_known(world):
    first, second, third = three_batches(world)
    world.expire(BRONZE, first, second)
    found = world.walk("bronze.events")
    assert offsets(found.made_from) == {0: ((205, 300),)}
    assert found.made_from.notes == ()
    assert offsets(found.history) == {0: ((None, 300),), 1: ((None, 199),)}
    assert found.history.notes == (f"what came before snapshot {third} has expired",)
    said = world.text("bronze.events")
    assert "client.playback [0: …–299, 1: …–198]\n" in said
    assert f"what came before snapshot {third} has expired" in said
    assert as_dict(found)["history"]["offsets"] == {"client.playback": {"0": [[None, 300]], "1": [[None, 199]]}}
    assert third == found.snapshot_id


def test_a_gap_after_what_expired_is_still_named(world):
    first = world.ingest(BRONZE, ("client.playback", 0, 0, 10))
    world.ingest(BRONZE, ("client.playback", 0, 10, 20))
    world.ingest(BRONZE, ("client.playback", 0, 25, 30))
    world.expire(BRONZE, first)
    assert offsets(world.walk("bronze.events").history) == {0: ((None, 20), (25, 30))}
    assert "client.playback [0: …–29 without 20–24]\n" in world.text("bronze.events")


def test_where_a_stretch_began_is_known_from_its_first_snapshot_though_those_between_expired(world):
    first, second, third = three_batches(world)
    world.clean(None, first)
    world.clean(first, third)
    world.expire(BRONZE, second)
    gained = source(world.walk("silver.copy").made_from, "bronze.events")
    # What was lost of partition 1, 90 to 94, was in the snapshot that expired.
    assert offsets(gained) == {0: ((100, 300),), 1: ((90, 199),)}
    assert gained.notes == (f"what came before snapshot {third} has expired",)


def test_silver_whose_own_snapshots_expired_has_still_read_all_of_bronze(world):
    first, second, third = three_batches(world)
    expired = [world.clean(None, first), world.clean(first, second), world.clean(second, third)]
    world.compact(SILVER)
    world.expire(SILVER, *expired)
    found = world.walk("silver.copy")
    assert (found.made, found.made_from) == (None, None)
    assert offsets(source(found.history, "bronze.events")) == {0: ((0, 300),), 1: ((0, 90), (95, 199))}
    assert f"what came before snapshot {found.snapshot_id} has expired" in world.text("silver.copy")


def test_an_input_that_expired_is_named(world):
    first, *_ = three_batches(world)
    world.clean(None, first)
    world.expire(BRONZE, first)
    assert f"snapshot {first} has expired, so nothing before it can be told" in world.text("silver.copy")


def test_commits_that_do_not_say_what_they_were_made_from_are_named(world):
    table = world.lakehouse.table(BRONZE)
    progress = Progress(CLUSTER, {"client.playback": {0: 50}}).to_json()
    silent = snapshot_of(commit_files(table, [], progress))
    found = world.walk("bronze.events")
    assert found.made.station is None
    assert offsets(found.history) == {0: ((None, 50),)}
    assert "made by somebody who did not say (append)" in world.text("bronze.events")
    world.ingest(BRONZE, ("client.playback", 0, 50, 60))
    history = world.walk("bronze.events").history
    assert offsets(history) == {0: ((None, 60),)}
    assert history.notes == (
        f"snapshot {silent} does not say what it was made from; neither is told what came before it",
    )


def test_a_table_of_somebody_else_ends_the_walk(world):
    inputs = Inputs(appended={"elsewhere.lake.events": (None, 7)})
    world._append(world.lakehouse.table(BRONZE), {}, "ingest", inputs)
    assert source(world.walk("bronze.events").made_from, "elsewhere.lake.events").notes == (
        "not a table of this lakehouse",
    )
    said = world.text("bronze.events")
    assert "elsewhere.lake.events, as of snapshot 7\n" in said


def test_tables_that_were_made_from_one_another_are_told_once(world):
    here = world.ingest(PROFILES, ("user.events", 0, 0, 4))
    there = world.ingest(BRONZE, ("client.playback", 0, 0, 10), privacy_profiles=here)
    world.ingest(PROFILES, ("user.events", 0, 4, 6), bronze_events=there)
    said = world.text("privacy.profiles")
    assert said.count("told above") == 2
    assert "user.events [0: 0–5], 6 offsets" in said


def test_a_long_history_is_told_in_a_few_lines(world):
    """1,000 appends, of which the metadata is written by hand: lineage reads nothing else."""
    world.ingest(BRONZE, ("client.playback", 0, 0, 10), ("client.playback", 1, 0, 20))
    table = world.lakehouse.table(BRONZE)
    metadata = json.loads(Path(table.metadata_location.removeprefix("file://")).read_text())
    (only,) = metadata["snapshots"]
    for n in range(1, 1000):
        ranges = [
            OffsetRange("client.playback", 0, n * 10, n * 10 + 10),
            OffsetRange("client.playback", 1, n * 20, n * 20 + 20),
        ]
        facts = Run.begin("ingest").facts(Inputs.of_kafka(CLUSTER, ranges))
        progress = {"reel.progress": json.dumps(Progress(CLUSTER, {}).advanced(CLUSTER, ranges).to_json())}
        parent = metadata["snapshots"][-1]
        metadata["snapshots"].append(
            {**only, "snapshot-id": n, "parent-snapshot-id": parent["snapshot-id"], "sequence-number": n + 1,
             "timestamp-ms": only["timestamp-ms"] + n, "summary": {**only["summary"], **facts, **progress}}
        )  # fmt: skip
    metadata |= {"current-snapshot-id": 999, "last-sequence-number": 1000, "snapshot-log": [], "refs": {}}
    written = world.settings.work_dir / "00001-by-hand.metadata.json"
    written.write_text(json.dumps(metadata))
    world.lakehouse.catalog.drop_table(BRONZE.name)
    world.lakehouse.catalog.register_table(BRONZE.name, f"file://{written}")

    said = world.text("bronze.events")
    assert len(said.splitlines()) < 10
    assert "client.playback [0: 9990–9999, 1: 19980–19999], 30 offsets" in said
    assert "all there is: 1,000 commits by ingest since" in said
    assert "client.playback [0: 0–9999, 1: 0–19999], 30,000 offsets" in said
    assert len(json.dumps(as_dict(world.walk("bronze.events")))) < 5000


def test_many_gaps_are_counted(world):
    world.ingest(BRONZE, *(("client.playback", 0, n * 10, n * 10 + 9) for n in range(9)))
    missed = "9–9 and 19–19 and 29–29 and 39–39 and 49–49 and 3 more"
    assert f"client.playback [0: 0–88 without {missed}], 81 offsets" in world.text("bronze.events")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("bronze.event", "the lakehouse has no table 'bronze.event'; did you mean bronze.events?"),
        ("events", "the lakehouse has no table 'events'; did you mean bronze.events?"),
        ("", "the lakehouse has no table ''; it has: bronze.events"),
        ("42", "the lakehouse has no table '42'; it has: bronze.events"),
    ],
)
def test_an_unknown_table_is_one_line_with_the_nearest_known(world, asked, said):
    world.ingest(BRONZE, ("client.playback", 0, 0, 10))
    with pytest.raises(UnknownTableError) as refused:
        world.walk(asked)
    assert str(refused.value) == said
    assert refused.value.exit_code == 2


def test_a_lakehouse_without_tables_says_so(world):
    with pytest.raises(UnknownTableError, match="it has: none"):
        world.walk("bronze.events")


def test_an_unknown_snapshot_is_one_line(world):
    first, _, third = three_batches(world)
    with pytest.raises(
        UnknownSnapshotError, match=f"no snapshot 5, or has forgotten it; it has 3, from {first} to {third};"
    ):
        world.walk("bronze.events", 5)
    assert UnknownSnapshotError.exit_code == 2


def test_a_table_that_nothing_was_committed_to_says_so(world):
    world.lakehouse.table(BRONZE)
    with pytest.raises(NothingMadeError, match=r"bronze\.events is empty"):
        world.walk("bronze.events")


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_prints_it(world, capsys, as_json):
    *_, third = three_batches(world)
    context = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)), obj=world.settings)
    command(context, "bronze.events", as_json=as_json)
    said = capsys.readouterr().out
    if as_json:
        assert json.loads(said)["made_from"]["offsets"] == {"client.playback": {"0": [[205, 300]]}}
        assert said.count("\n") == 1
    else:
        assert said.startswith(f"bronze.events, snapshot {third}, ")
        assert "[0: 205–299], 95 offsets" in said


@pytest.mark.usefixtures("ray_session")
def test_on_the_road_bronze_ends_at_exactly_the_offsets_that_were_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setenv("REEL_SALT", SALT)
    platform = Platform(tmp_path)
    platform.send(described("ann"), *watched("ann", "vod-1", T0))
    ingest(platform.settings)
    clean(platform.settings)
    platform.send(*watched("ann", "vod-2", T0 + 1), described("bob"))
    ingest(platform.settings)
    clean(platform.settings)
    bounds = platform.log.available(platform.contract.topics).bounds
    sent = {
        topic: {partition: (span,) for partition, span in partitions.items() if span[1] > span[0]}
        for topic, partitions in bounds.items()
    }
    sent = {topic: partitions for topic, partitions in sent.items() if partitions}
    assert sum(end for partitions in sent.values() for ((_, end),) in partitions.values()) == 6

    bronze = walk(platform.settings, "bronze.events")
    assert bronze.history.offsets == sent
    assert bronze.made.station == "ingest"
    assert bronze.made.rows_added == 3
    profiles = source(bronze.history, "privacy.profiles")
    assert profiles.offsets == {"user.events": sent["user.events"]}
    silver = walk(platform.settings, "silver.playback")
    assert silver.made.station == "clean"
    assert source(silver.history, "bronze.events").offsets == sent
    assert source(silver.made_from, "bronze.events").commits == bronze.made_from.commits

    build_features(platform.settings)
    features = walk(platform.settings, "features.user_viewing_history_by_user_id")
    assert features.made.station == "features"
    assert source(source(features.made_from, "silver.playback"), "bronze.events").offsets == sent


@pytest.mark.usefixtures("ray_session")
def test_on_the_road_rows_that_waited_are_walked_back_to_when_they_came(tmp_path, monkeypatch):
    monkeypatch.setenv("REEL_SALT", SALT)
    platform = Platform(tmp_path)
    platform.send(*watched("cat", "vod-1", T0))
    ingest(platform.settings)
    assert clean(platform.settings).wrote["silver.playback"] == 0
    platform.send(described("cat"))
    ingest(platform.settings)
    assert clean(platform.settings).wrote["silver.playback"] == 2
    came = source(walk(platform.settings, "silver.playback").made_from, "bronze.events").offsets
    assert sum(end - start for ranges in came["client.playback"].values() for start, end in ranges) == 2
