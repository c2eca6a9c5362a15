"""One behaviour suite for every backend of the online store, then what is each backend's own."""

import multiprocessing
import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import lmdb
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType

from serving.online_store import (
    OnlineStore,
    StoreKeyError,
    StoreUnavailableError,
    StoreUrlError,
    open_online_store,
)
from serving.online_store.lmdb_store import LmdbStore
from tests.serving.conftest import free_port


@pytest.fixture(params=["lmdb", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "lmdb":
        return f"lmdb://{tmp_path}/online"
    address: str = request.getfixturevalue("redis_url")
    with redis.Redis.from_url(address) as client:
        client.flushdb()
    return address


@pytest.fixture
def store(url: str) -> Iterator[OnlineStore]:
    with open_online_store(url) as opened:
        yield opened


# --- every backend -------------------------------------------------------------------------------------------


def test_values_come_back_in_the_order_asked_and_none_where_there_is_none(store: OnlineStore) -> None:
    assert store.put_many("titles", [("b", b"2"), ("a", b"1"), ("empty", b"")]) == 3
    assert store.get_many("titles", ["a", "missing", "empty", "b", "a"]) == [b"1", None, b"", b"2", b"1"]
    assert store.get_many("titles", []) == []
    assert store.get_many("profiles", ["a"]) == [None]


def test_several_groups_are_read_at_once_each_in_the_order_asked(store: OnlineStore) -> None:
    store.put_many("titles", [("a", b"1"), ("b", b"2")])
    store.put_many("profiles", [("a", b"3")])
    wanted = [("titles", ["b", "a", "b"]), ("nothing", ["a"]), ("profiles", ["", "a", "\ud800"]), ("titles", [])]
    assert store.get_groups(wanted) == [[b"2", b"1", b"2"], [None], [None, b"3", None], []]
    assert store.get_groups([]) == []
    assert store.get_groups([("nothing", [""])]) == [[None]]
    with pytest.raises(StoreKeyError, match="lower_snake_case"):
        store.get_groups([("titles", ["a"]), ("Titles", ["a"])])


def test_several_groups_are_written_at_once_all_of_them_or_none(store: OnlineStore) -> None:
    written = [("titles", [("a", b"1"), ("b", b"2")]), ("profiles", [("a", b"3")]), ("nothing", [])]
    assert store.put_groups(written) == 3
    assert store.get_groups([("titles", ["a", "b"]), ("profiles", ["a", "b"])]) == [[b"1", b"2"], [b"3", None]]
    assert store.put_groups([("titles", [("a", b"4")]), ("titles", [("b", b"5")])]) == 2
    assert store.get_many("titles", ["a", "b"]) == [b"4", b"5"]
    assert store.put_groups([]) == store.put_groups([("titles", [])]) == 0
    for wrong in (("titles", [("", b"6")]), ("Titles", [("a", b"6")])):
        with pytest.raises(StoreKeyError):
            store.put_groups([("profiles", [("a", b"6")]), wrong])
    assert store.get_many("profiles", ["a"]) == [b"3"]
    assert store.delete_entity("a") == 2


def test_a_later_value_replaces_an_earlier_one(store: OnlineStore) -> None:
    store.put_many("titles", [("a", b"1")])
    store.put_many("titles", [("a", b"first"), ("a", b"last")])
    assert store.get_many("titles", ["a"]) == [b"last"]


def test_nothing_to_write_is_not_an_error(store: OnlineStore) -> None:
    assert store.put_many("titles", []) == 0
    assert list(store.keys("titles")) == []


def test_an_entity_is_deleted_from_every_group_and_nobody_else_is(store: OnlineStore) -> None:
    for group in ("a", "ab", "abc", "profiles"):
        store.put_many(group, [("viewer", b"x"), ("viewer2", b"y"), ("view", b"z")])
    store.put_many("other", [("viewer2", b"y")])
    assert store.delete_entity("viewer") == 4
    assert store.delete_entity("viewer") == 0
    for group in ("a", "ab", "abc", "profiles"):
        assert store.get_many(group, ["viewer", "viewer2", "view"]) == [None, b"y", b"z"]
    assert sorted(store.keys("ab")) == ["view", "viewer2"]


def test_a_group_is_deleted_whole_and_no_other_is(store: OnlineStore) -> None:
    store.put_many("titles", [(f"title-{number}", b"1") for number in range(12_000)])
    store.put_many("titles_by_day", [("a", b"2")])
    store.put_many("title", [("a", b"3")])
    assert store.delete_group("titles") == 12_000
    assert list(store.keys("titles")) == []
    assert store.get_many("titles_by_day", ["a"]) + store.get_many("title", ["a"]) == [b"2", b"3"]
    assert store.delete_group("titles") == 0


def test_of_one_group_some_are_deleted_and_nothing_else_is(store: OnlineStore) -> None:
    for group in ("one", "two"):
        store.put_many(group, [(name, name.encode()) for name in ("a", "b", "c")])
    assert store.delete_many("one", ["a", "c", "nobody"]) == 2
    assert store.delete_many("one", []) == 0
    assert store.get_many("one", ["a", "b", "c"]) == [None, b"b", None]
    assert store.get_many("two", ["a", "b", "c"]) == [b"a", b"b", b"c"]


def test_keys_are_those_of_one_group_though_another_groups_name_starts_alike(store: OnlineStore) -> None:
    names = [f"title {number}" for number in range(25_001)]  # several pages, several batches
    store.put_many("titles", ((name, b"x") for name in names))
    store.put_many("titles_more", [("other", b"x")])
    store.put_many("title", [("another", b"x")])
    found = list(store.keys("titles"))
    assert len(found) == len(set(found)) == 25_001
    assert set(found) == set(names)


@pytest.mark.parametrize("entity", ["ü", "片", "a b\n\0c", "*[?]\\", "x" * 400, "reel:titles:a"])
def test_any_text_can_be_an_entity(store: OnlineStore, entity: str) -> None:
    store.put_many("titles", [(entity, entity.encode())])
    assert store.get_many("titles", [entity]) == [entity.encode()]
    assert list(store.keys("titles")) == [entity]
    assert store.delete_entity(entity) == 1


@pytest.mark.parametrize("entity", ["", "x" * 401, "片" * 134, "\ud800"])
def test_what_cannot_be_an_entity_is_refused_in_writing_and_absent_in_reading(store: OnlineStore, entity: str) -> None:
    with pytest.raises(StoreKeyError, match="1 to 400 bytes"):
        store.put_many("titles", [(entity, b"x")])
    with pytest.raises(StoreKeyError):
        store.delete_entity(entity)
    store.put_many("titles", [("a", b"1")])
    assert store.get_many("titles", [entity, "a"]) == [None, b"1"]


@pytest.mark.parametrize("group", ["", "Titles", "a b", "a*", "1a", "a:b", "a\n", "x" * 65])
def test_what_cannot_be_a_group_is_refused(store: OnlineStore, group: str) -> None:
    with pytest.raises(StoreKeyError, match="lower_snake_case"):
        store.put_many(group, [("a", b"1")])
    with pytest.raises(StoreKeyError):
        store.get_many(group, ["a"])
    with pytest.raises(StoreKeyError):
        list(store.keys(group))


def test_a_large_value_survives(store: OnlineStore) -> None:
    value = random.Random(7).randbytes(3_000_000)
    store.put_many("titles", [("a", value)])
    assert store.get_many("titles", ["a"]) == [value]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abc"), st.sampled_from("xyz"), st.binary(max_size=5)),
            st.tuples(st.just("delete"), st.sampled_from("xyz")),
        ),
        max_size=25,
    )
)
def test_the_store_agrees_with_a_dictionary(store: OnlineStore, steps: list[tuple]) -> None:
    for entity in "xyz":
        store.delete_entity(entity)
    model: dict[tuple[str, str], bytes] = {}
    for step in steps:
        if step[0] == "put":
            _, group, entity, value = step
            store.put_many(group, [(entity, value)])
            model[group, entity] = value
        else:
            gone = [key for key in model if key[1] == step[1]]
            assert store.delete_entity(step[1]) == len(gone)
            for key in gone:
                del model[key]
    for group in "abc":
        assert store.get_many(group, list("xyz")) == [model.get((group, entity)) for entity in "xyz"]
        assert sorted(store.keys(group)) == sorted(entity for name, entity in model if name == group)


def test_a_reader_sees_what_is_written_after_it_opened_and_may_not_write(url: str, store: OnlineStore) -> None:
    with open_online_store(url, readonly=True) as reader:
        assert reader.get_many("titles", ["a"]) == [None]
        store.put_many("titles", [("a", b"1")])
        assert reader.get_many("titles", ["a"]) == [b"1"]
        with pytest.raises(StoreUnavailableError, match="for reading only"):
            reader.put_many("titles", [("b", b"2")])
        with pytest.raises(StoreUnavailableError, match="for reading only"):
            reader.delete_entity("a")


def test_two_stores_of_one_process_share_what_is_there(url: str, store: OnlineStore) -> None:
    other = open_online_store(url)
    other.put_many("titles", [("a", b"1")])
    other.close()
    assert store.get_many("titles", ["a"]) == [b"1"]


def _read_until(url: str, expected: int, answers: "multiprocessing.Queue[object]") -> None:
    """Reads pairs that are always written together, until the last; reports any torn pair."""
    deadline = time.monotonic() + 60
    with open_online_store(url, readonly=True) as reader:
        while time.monotonic() < deadline:
            left, right = reader.get_many("pairs", ["left", "right"])
            if left != right:
                answers.put(("torn", left, right))
                return
            if left is not None and int(left[:8]) == expected:
                answers.put(("whole", left, right))
                return
    answers.put(("late", None, None))


def test_other_processes_read_whole_batches_while_one_writes(url: str, store: OnlineStore) -> None:
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[tuple[str, bytes, bytes]] = context.Queue()
    store.put_many("pairs", [("left", b"00000000"), ("right", b"00000000")])
    readers = [context.Process(target=_read_until, args=(url, 300, answers)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 301):
        value = f"{number:08d}".encode() * 200
        store.put_many("pairs", [("left", value), ("right", value)])
    outcomes = [answers.get(timeout=60)[0] for _ in readers]
    for reader in readers:
        reader.join(10)
    assert outcomes == ["whole", "whole"]


def test_threads_may_share_a_store(store: OnlineStore) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for step in range(50):
            value = f"{number}-{step}".encode()
            store.put_many("threads", [(str(number), value)])
            if store.get_many("threads", [str(number)]) != [value]:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(list(store.keys("threads"))) == 8


# --- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("", "names no scheme"),
        ("/var/lib/online", "names no scheme"),
        ("sqlite:///x", "unknown scheme 'sqlite'"),
        ("lmdb://relative/path", "must be absolute"),
        ("lmdb://", "must be absolute"),
        ("lmdb:///", "must be absolute"),
        ("redis://", "must name a host"),
        ("redis://host:notaport", "could not be cast"),
        ("redis://host:6379/first", "must name a host and, if any, a database number"),
    ],
)
def test_a_wrong_address_says_what_is_wrong_and_what_is_right(address: str, problem: str) -> None:
    with pytest.raises(StoreUrlError, match=problem) as failure:
        open_online_store(address)
    assert "lmdb:///absolute/path or redis://host:port/db" in str(failure.value)
    assert failure.value.exit_code == 2


# --- LMDB ----------------------------------------------------------------------------------------------------


def test_lmdb_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        open_online_store(f"lmdb://{tmp_path}/file/online")
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        open_online_store("lmdb:///proc/reel-online")


def test_lmdb_a_folder_may_have_an_odd_name(tmp_path: Path) -> None:
    with open_online_store(f"lmdb://{tmp_path}/a%20b #c?d") as store:
        store.put_many("titles", [("a", b"1")])
    assert (tmp_path / "a%20b #c?d" / "data.mdb").is_file()


def test_lmdb_the_map_grows_and_other_openers_follow(tmp_path: Path) -> None:
    folder = tmp_path / "online"
    context = multiprocessing.get_context("spawn")
    store = LmdbStore(folder, map_bytes=128 * 1024)
    store.put_many("a", [("before", b"x")])
    ready, grown, answers = context.Event(), context.Event(), context.Queue()
    reader = context.Process(target=_read_before_and_after_growth, args=(folder, ready, grown, answers))
    reader.start()
    assert ready.wait(60)
    rows = [(str(number), random.Random(number).randbytes(1000)) for number in range(5_000)]
    store.put_many("a", rows)
    grown.set()
    assert answers.get(timeout=60) == [b"x", rows[-1][1]]
    reader.join(10)
    assert store.get_many("a", [entity for entity, _ in rows]) == [value for _, value in rows]
    assert store.delete_entity("17") == 1


def test_lmdb_it_is_opened_while_another_process_makes_it_grow(tmp_path: Path) -> None:
    folder = tmp_path / "online"
    context = multiprocessing.get_context("spawn")
    growing, enough = context.Event(), context.Event()
    writer = context.Process(target=_grow, args=(folder, growing, enough))
    writer.start()
    assert growing.wait(60)
    for _ in range(1_000):
        store = LmdbStore(folder, map_bytes=128 * 1024)
        assert store.get_many("a", ["0"]) == [b"x" * 3_000]
        store.close()
    enough.set()
    writer.join(60)
    assert writer.exitcode == 0


def _grow(folder: Path, growing, enough) -> None:
    store = LmdbStore(folder, map_bytes=128 * 1024)
    for number in range(1_000_000):
        store.put_many("a", [(str(number), b"x" * 3_000)])
        growing.set()
        if enough.is_set():
            return


def _read_before_and_after_growth(folder: Path, ready, grown, answers) -> None:
    store = LmdbStore(folder, readonly=True, map_bytes=128 * 1024)
    before = store.get_many("a", ["before"])
    ready.set()
    grown.wait(60)
    answers.put(before + store.get_many("a", ["4999"]))


def test_lmdb_a_reader_follows_a_store_that_was_removed_and_made_again(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/online"
    reader = open_online_store(url, readonly=True)
    with pytest.raises(StoreUnavailableError, match="no online store in"):
        reader.get_many("titles", ["a"])
    assert not (tmp_path / "online").exists(), "a reader makes nothing"

    first = open_online_store(url)
    first.put_many("titles", [("a", b"1")])
    assert reader.get_many("titles", ["a"]) == [b"1"]

    shutil.rmtree(tmp_path / "online")
    with pytest.raises(StoreUnavailableError, match="any more"):
        reader.get_many("titles", ["a"])
    with pytest.raises(StoreUnavailableError, match="any more"):
        first.put_many("titles", [("b", b"2")])

    second = open_online_store(url)
    second.put_many("titles", [("a", b"2")])
    assert reader.get_many("titles", ["a"]) == [b"2"]


def test_lmdb_a_corrupt_file_is_one_clear_line(tmp_path: Path) -> None:
    folder = tmp_path / "online"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(os.urandom(64 * 1024))
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        open_online_store(f"lmdb://{folder}")
    with pytest.raises(StoreUnavailableError, match="failed"):
        open_online_store(f"lmdb://{folder}", readonly=True).get_many("titles", ["a"])


def test_lmdb_the_files_are_plain_lmdb(tmp_path: Path) -> None:
    with open_online_store(f"lmdb://{tmp_path}/online") as store:
        store.put_many("titles", [("a", b"1"), ("b", b"2")])
    with (
        lmdb.open(str(tmp_path / "online"), readonly=True) as plain,
        plain.begin() as transaction,
    ):
        mark, *records = list(transaction.cursor())
    assert mark == (b"\0layout", b"2")
    assert sorted((key[:7], key[11:], value) for key, value in records) == [
        (b"titles\0", b"a", b"1"),
        (b"titles\0", b"b", b"2"),
    ]


@pytest.mark.parametrize("buckets", [2, 8, 64])
def test_lmdb_who_is_in_one_bucket_lies_side_by_side(tmp_path: Path, buckets: int) -> None:
    """So that a build, which writes by the bucket, writes each page once."""
    names = [f"viewer {number} ü" for number in range(2_000)]
    with open_online_store(f"lmdb://{tmp_path}/online") as store:
        store.put_many("viewers", [(name, b"1") for name in names])
        stored = list(store.keys("viewers"))
    assert sorted(stored) == sorted(names)
    bucket = BucketTransform(buckets).transform(StringType())
    assert len([of for of, _ in groupby(stored, bucket)]) == buckets


def test_lmdb_a_store_of_another_layout_is_refused_in_one_line(tmp_path: Path) -> None:
    """None of what it holds would be found, and none of it deleted."""
    with lmdb.open(str(tmp_path / "online")) as old, old.begin(write=True) as transaction:
        transaction.put(b"titles\0a", b"1")
    for readonly in (False, True):
        with pytest.raises(StoreUnavailableError, match="laid its keys out otherwise; delete the folder") as said:
            open_online_store(f"lmdb://{tmp_path}/online", readonly=readonly).get_many("titles", ["a"])
        assert "\n" not in str(said.value)


def test_lmdb_a_reader_may_find_a_new_store_before_it_is_marked(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path / "online")).close()
    reader = open_online_store(f"lmdb://{tmp_path}/online", readonly=True)
    assert reader.get_many("titles", ["a"]) == [None]
    with open_online_store(f"lmdb://{tmp_path}/online") as store:
        store.put_many("titles", [("a", b"1")])
    reader.close()
    with open_online_store(f"lmdb://{tmp_path}/online", readonly=True) as again:
        assert again.get_many("titles", ["a"]) == [b"1"]


# --- Redis ---------------------------------------------------------------------------------------------------


def test_redis_unreachable_is_said_at_once_and_without_the_password() -> None:
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="does not answer") as failure:
        open_online_store(f"redis://user:secret@127.0.0.1:{free_port()}/0")
    assert time.monotonic() - started < 30
    assert "secret" not in str(failure.value)


def test_redis_that_accepts_and_never_answers_is_given_up_within_the_timeout() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="took too long"):
            open_online_store(address, readonly=True, timeout_s=0.1).get_many("titles", ["a"])
        assert time.monotonic() - started < 30


def test_redis_a_wrong_kind_of_value_under_our_key_is_one_clear_line(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client, open_online_store(redis_url) as store:
        client.flushdb()
        client.set("reel:groups", b"not a set")
        with pytest.raises(StoreUnavailableError, match="WRONGTYPE"):
            store.put_many("titles", [("a", b"1")])
        client.flushdb()


def test_scrubbed_no_byte_of_what_was_deleted_is_left(tmp_path: Path):
    """Free pages and the gaps of pages keep what was deleted, until the files are written anew."""
    folder = tmp_path / "online"
    gone = [f"gone-{number:04d}-{'ab' * 24}" for number in range(0, 2000, 3)]
    with LmdbStore(folder) as store, LmdbStore(folder, readonly=True) as reader:
        rows = {f"{'gone' if number % 3 == 0 else 'kept'}-{number:04d}-{'ab' * 24}": f"of {number}".encode() * 9
                for number in range(2000)}  # fmt: skip
        for group in ("one", "two"):
            store.put_many(group, rows.items())
        kept = sorted(set(rows) - set(gone))
        assert reader.get_many("one", kept) == [rows[name] for name in kept]
        assert store.delete_entities(gone) == 2 * len(gone)
        assert any(name.encode() in (folder / "data.mdb").read_bytes() for name in gone)
        store.scrub()
        raw = (folder / "data.mdb").read_bytes()
        assert not any(name.encode() in raw for name in gone)
        for group in ("one", "two"):
            assert sorted(store.keys(group)) == kept
            assert reader.get_many(group, kept) == [rows[name] for name in kept]
            assert reader.get_many(group, gone) == [None] * len(gone)
        assert store.put_many("one", [("new", b"1")]) == 1
        assert reader.get_many("one", ["new"]) == [b"1"]
    assert [path.name for path in tmp_path.iterdir()] == ["online"]


def test_who_writes_to_a_store_that_was_scrubbed_meanwhile_is_told(tmp_path: Path):
    folder = tmp_path / "online"
    with LmdbStore(folder) as store, LmdbStore(folder) as other:
        store.put_many("one", [("a", b"1")])
        store.scrub()
        with pytest.raises(StoreUnavailableError):
            other.put_many("one", [("b", b"2")])
    with LmdbStore(folder) as again:
        assert again.get_many("one", ["a", "b"]) == [b"1", None]
