"""A receipt tells of one person, exactly, however many were erased in the same pass."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pipelines.erased import USER, Tombstones
from pipelines.lakehouse.commits import replace_files
from pipelines.lakehouse.scans import live_files
from pipelines.privacy.erase import erase
from pipelines.privacy.receipts import Receipt
from pipelines.secrets import tombstone_key
from pipelines.tracking import Tracking
from tests.pipelines.privacy.world import SALTS, T0, World, hashed

TABLE = "silver.browse"


@dataclass
class Told:
    """Receipts of people erased together, and the runs whose training sets were made from each snapshot."""

    receipts: dict[str, Receipt]
    runs: list[str]


def clicks(world: World, *users: str) -> None:
    """A file with two rows of each."""
    row = {"event_name": "tile.click", "at_ms": T0, "is_kids": False}
    world.append(TABLE, *[row | {"user_id": hashed(user)} for user in users for _ in range(2)])


@pytest.fixture(scope="module")
def told(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Files, one after the other: of ann, of bob and zoe, of ann, of cat, which goes again with retention, of zoe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", ",".join(SALTS))
        world = World(tmp_path_factory.mktemp("receipts"))
        tracking, runs = Tracking(world.settings.tracking_uri), []
        for users in (["ann"], ["bob", "zoe"], ["ann"], ["cat"], ["zoe"]):
            clicks(world, *users)
            table = world.lakehouse.existing(TABLE)
            tags = {
                "training_set.folder": f"/elsewhere/set-{len(runs)}",
                f"training_set.snapshot.{TABLE}": str(table.metadata.current_snapshot_id),
            }
            runs.append(tracking.open_run("churn", f"run-{len(runs)}", tags))
            if users == ["cat"]:
                (newest,) = set(live_files(table)) - set(live_files(table, table.metadata.snapshots[-2].snapshot_id))
                replace_files(table, [newest], [])
        stones, users = Tombstones(tombstone_key(world.settings)), ["ann", "bob", "cat"]
        by_mark = {receipt.mark: receipt for receipt in erase(world.settings, users).receipts}
        yield Told({user: by_mark[stones.mark(USER, user)] for user in users}, runs)


def of_table(told: Told, user: str) -> dict[str, int | bool]:
    content: dict[str, int | bool] = told.receipts[user].content["tables"][TABLE]
    return content


def test_rows_and_files_are_the_persons_own(told):
    assert of_table(told, "ann") == {"rows": 4, "files": 2, "of_files": 4, "older_snapshots": True}
    assert of_table(told, "bob") == {"rows": 2, "files": 1, "of_files": 4, "older_snapshots": True}


def test_who_was_in_older_snapshots_only_was_held_too(told):
    assert of_table(told, "cat") == {"rows": 0, "files": 0, "of_files": 4, "older_snapshots": True}
    assert told.receipts["cat"].is_known


def test_models_are_listed_by_the_snapshots_that_held_this_person(told):
    runs = {user: {one["run"] for one in receipt.content["models"]} for user, receipt in told.receipts.items()}
    first, second, third, fourth, fifth = told.runs
    assert runs["ann"] == {first, second, third, fourth, fifth}
    assert runs["bob"] == {second, third, fourth, fifth}
    assert runs["cat"] == {fourth}
