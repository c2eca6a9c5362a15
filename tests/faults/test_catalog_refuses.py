"""A catalog that takes no commit, or does not even answer: one line, nothing half done, and later all of it once."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.faults.road import Road, ended, wait_for_moment

pytestmark = [pytest.mark.kafka, pytest.mark.fault, pytest.mark.timeout(1200)]


def refuse_commits(catalog: sqlite3.Connection) -> Callable[[], None]:
    """Every commit is refused, with the catalog's own words, until the answer is called."""
    catalog.execute(
        "CREATE TRIGGER refusal BEFORE UPDATE ON iceberg_tables BEGIN SELECT RAISE(ABORT, 'closed for repairs'); END"
    )
    return lambda: catalog.execute("DROP TRIGGER refusal")


def hold_it(catalog: sqlite3.Connection) -> Callable[[], None]:
    """Another program holds the whole catalog, for reading too, until the answer is called."""
    catalog.execute("BEGIN EXCLUSIVE")
    return lambda: catalog.execute("ROLLBACK")


def waiting_shortly(road: Road) -> Road:
    """The road, on which a lock is waited for a moment, rather than SQLite's 5 s at each of many attempts."""
    road.environment["REEL_LAKEHOUSE_URI"] = f"sqlite:///{road.catalog}?timeout=0.05"
    return road


def test_commits_that_are_refused_come_later_and_once(backlog, make_road):
    road, chance = waiting_shortly(make_road()), random.Random(13)
    for fault, why in ((refuse_commits, "closed for repairs"), (hold_it, "database is locked")):
        with ended(road.start("ingest")) as run:
            wait_for_moment(road, run, chance, commits=4)
            with closing(sqlite3.connect(road.catalog, isolation_level=None, timeout=60)) as catalog:
                end = fault(catalog)
                assert why in road.refused(run)
                end()
    road.ingest_and_clean()
    assert road.differences(backlog.calm) == {}


@pytest.mark.parametrize("command", ["ingest", "clean"])
def test_a_catalog_that_is_held_from_the_start_is_one_line(backlog, command):
    road = waiting_shortly(Road(backlog.calm.folder, dict(backlog.calm.environment)))
    with closing(sqlite3.connect(road.catalog, isolation_level=None)) as catalog:
        end = hold_it(catalog)
        with ended(road.start(command)) as run:
            assert "database is locked" in road.refused(run)
        end()
