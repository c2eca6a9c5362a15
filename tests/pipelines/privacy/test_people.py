"""A person is found whole, under every salt and in every table, and nobody else with them."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.lakehouse.scans import live_files
from pipelines.privacy.people import find_people
from pipelines.privacy.person import Person
from pipelines.privacy.whereabouts import rows_of, tables_of_people, whereabouts
from tests.pipelines.privacy.world import DAY, SALTS, T0, USERS, Row, World, hashed, token

IDS = ("user_id", "profile_id", "session_id", "viewer_token")


def all_rows(world: World) -> list[tuple[str, Row]]:
    return [(name, row) for name, rows in world.written.items() for row in rows]


def ids_of(world: World, user: str) -> dict[str, set[str]]:
    """The person's ids by brute force: every rule applied to all rows, one after the other."""
    rows = all_rows(world)
    users = {hashed(user, salt) for salt in SALTS}

    def users_beside(column: str, value: str, among: str | None = None) -> set[str]:
        some = [row for name, row in rows if row.get(column) == value and among in (None, name)]
        return {row["user_id"] for row in some if row.get("user_id")}

    profiles = set()
    for profile in {row["profile_id"] for _, row in rows if row.get("profile_id") and row.get("user_id") in users}:
        owners = users_beside("profile_id", profile, "privacy.profiles") or users_beside("profile_id", profile)
        if owners <= users:
            profiles.add(profile)
    sessions = set()
    for session in {row["session_id"] for _, row in rows if row.get("session_id")}:
        of = [row for _, row in rows if row.get("session_id") == session]
        people = {row.get("user_id") for row in of} | {row.get("profile_id") for row in of}
        if people - {None} and people - {None} <= users | profiles:
            sessions.add(session)
    registered = [row for name, row in rows if name == "privacy.profiles"]
    adults = {row["profile_id"] for row in registered} - {row["profile_id"] for row in registered if row["is_kids"]}
    tokens = {token(child, T0 + day * DAY, salt) for child in profiles - adults for day in range(6) for salt in SALTS}
    return {"user_id": users, "profile_id": profiles, "session_id": sessions, "viewer_token": profiles | tokens}


def shape_of(world: World, name: str, at_ms: int, row: Row) -> tuple:
    """What tells a row from others: its table and time, and what it has of these columns."""
    return name, at_ms, *(row.get(one) for one in ("n", *IDS))


def rows_by_brute_force(world: World, ids: dict[str, set[str]]) -> Counter:
    return Counter(
        shape_of(world, name, row["at_ms"], row)
        for name, row in all_rows(world)
        if any(row.get(one) in ids[one] for one in IDS)
    )


def rows_found(world: World, person: Person) -> Counter:
    return Counter(
        shape_of(world, name, int(row["event_timestamp"].timestamp() * 1000), row)
        for name, table in tables_of_people(world.lakehouse).items()
        for rows in rows_of(whereabouts(table, person), person)
        for row in rows.to_pylist()
    )


@pytest.mark.parametrize("seed", range(2))
def test_everything_of_a_person_is_found_and_nothing_else(seed: int, tmp_path: Path):
    world = World(tmp_path)
    world.scatter(seed)
    people = find_people(world.lakehouse, world.hasher, USERS)
    assert list(people) == USERS
    expected = {user: ids_of(world, user) for user in USERS}
    # The world has what the rules are about.
    assert any(ids["profile_id"] for ids in expected.values())
    assert any(ids["session_id"] for ids in expected.values())
    for user, person in people.items():
        assert person.is_known
        ids = expected[user]
        days_of_events = {one for one in person.tokens if one in ids["viewer_token"]}
        assert days_of_events == person.tokens
        assert (person.user_ids, person.profile_ids, person.session_ids) == tuple(ids[one] for one in IDS[:3])
        assert rows_found(world, person) == rows_by_brute_force(world, ids)
    merged = {one: set().union(*(expected[user][one] for user in USERS[:5])) for one in IDS}
    five = Person.merged(people[user] for user in USERS[:5])
    assert rows_found(world, five) == rows_by_brute_force(world, merged)


def test_somebody_whom_no_row_names_is_not_known(tmp_path: Path):
    world = World(tmp_path)
    assert find_people(world.lakehouse, world.hasher, ["user-1"])["user-1"].is_known is False
    world.scatter(1)
    found = find_people(world.lakehouse, world.hasher, ["nobody", "user-1", ""])
    assert [one.is_known for one in found.values()] == [False, True, False]
    nobody = found["nobody"]
    assert nobody == Person(user_ids=frozenset(hashed("nobody", salt) for salt in SALTS))
    assert not rows_found(world, nobody)


def test_a_session_or_an_unregistered_profile_of_two_users_is_neithers(tmp_path: Path):
    world = World(tmp_path)
    ann, bob = hashed("ann"), hashed("bob")
    seen = {"event_name": "tile.click", "at_ms": T0}
    world.append(
        "silver.browse",
        {**seen, "user_id": ann, "session_id": "shared", "profile_id": "lent"},
        {**seen, "user_id": bob, "session_id": "shared", "profile_id": "lent"},
        {**seen, "session_id": "shared"},
        {**seen, "user_id": ann, "session_id": "anns"},
        {**seen, "session_id": "anns"},
    )
    people = find_people(world.lakehouse, world.hasher, ["ann", "bob"])
    assert people["ann"].session_ids == {"anns"}
    assert people["bob"].session_ids == people["bob"].profile_ids == set()
    assert sum(rows_found(world, people["ann"]).values()) == 3
    assert sum(rows_found(world, people["bob"]).values()) == 1


def test_nobody_can_claim_a_registered_profile(tmp_path: Path):
    world = World(tmp_path)
    world.describe("ann", "anns-profile")
    claim = {"event_name": "tile.click", "at_ms": T0, "user_id": hashed("bob"), "profile_id": hashed("anns-profile")}
    world.append("bronze.events", claim)
    people = find_people(world.lakehouse, world.hasher, ["ann", "bob"])
    assert people["ann"].profile_ids == {hashed("anns-profile")}
    assert people["bob"].profile_ids == set()


def test_masks_take_columns_as_they_come():
    person = Person(frozenset({"u"}), frozenset({"p"}), frozenset({"s"}), tokens=frozenset({"t"}))
    rows = pa.table(
        {
            "user_id": pa.array(["u", None, "x", None, None, None]),
            "profile_id": pa.array([None, "p", None, "x", None, None]).dictionary_encode(),
            "session_id": pa.nulls(6),
            "viewer_token": pa.chunked_array([["x", None, None], ["t", "p", None]], pa.large_string()),
        }
    )
    assert person.mask(rows).tolist() == [True, True, False, True, True, False]
    assert person.mask(rows.select(["user_id"])).tolist() == [True, False, False, False, False, False]
    assert person.mask(rows.slice(0, 0)).tolist() == []
    assert person.mask(pa.table({"content_id": ["u"]})).tolist() == [False]
    assert not Person().mask(rows).any()


def test_only_files_that_can_hold_the_person_are_looked_into(tmp_path: Path):
    world = World(tmp_path)
    seen = {"event_name": "tile.click", "at_ms": T0}
    for number in range(30):
        rows = [{**seen, "user_id": hashed(f"user-{number * 50 + place}")} for place in range(50)]
        world.append("silver.browse", *rows)
    keys = [{"profile_id": hashed(f"profile-{number}"), "at_ms": T0, "n": number} for number in range(200)]
    world.append("features.sample_by_profile_id", *keys)
    tables = tables_of_people(world.lakehouse)
    found = whereabouts(tables["silver.browse"], Person(user_ids=frozenset({hashed("user-777")})))
    assert (len(found.files), found.total) == (1, 30)
    found = whereabouts(tables["silver.browse"], Person(user_ids=frozenset({hashed("nobody")})))
    assert (len(found.files), found.total) == (0, 30)
    # One bucket of four, and within it by the bounds of its file.
    table = tables["features.sample_by_profile_id"]
    found = whereabouts(table, Person(profile_ids=frozenset({hashed("profile-7")})))
    assert (len(found.files), found.total) == (1, 4)
    assert len(live_files(table)) == 4
    assert "silver.titles" not in tables


def test_a_file_from_before_there_were_filters_may_hold_anyone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World(tmp_path)
    monkeypatch.setattr("pipelines.lakehouse.files.PERSON_COLUMNS", ())
    rows = [{"event_name": "tile.click", "at_ms": T0, "user_id": hashed(f"user-{number}")} for number in range(50)]
    world.append("silver.browse", *rows)
    table = tables_of_people(world.lakehouse)["silver.browse"]
    somebody = Person(user_ids=frozenset({hashed("user-7"), hashed("nobody")}))
    found = whereabouts(table, somebody)
    assert (len(found.files), found.total) == (1, 1)
    assert [rows.num_rows for rows in rows_of(found, somebody)] == [1]
