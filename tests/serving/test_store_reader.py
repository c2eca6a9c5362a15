"""A request's look-ups keep their budget, whatever the store does."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from serving import store_reader
from serving.errors import StoreSlowError, StoreUnavailableError
from serving.online_store import OnlineStore, open_online_store
from serving.store_reader import StoreReader, read_as_of_ms, read_records
from serving.watch import deadline


def test_a_slow_store_is_given_up_within_the_budget_and_others_go_on(tmp_path: Path) -> None:
    reader = StoreReader(filled(tmp_path), budget_ms=500)
    answers = threading.Event()

    def slow(store: OnlineStore) -> None:
        answers.wait(60)

    async def ask() -> tuple[list[object], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        outcomes = await asyncio.gather(
            reader.read(slow),
            reader.read(slow),
            reader.read(lambda store: store.get_many("titles", ["a"])),
            return_exceptions=True,
        )
        ticking.cancel()
        return list(outcomes), ticks

    started = time.monotonic()
    outcomes, ticks = asyncio.run(ask())
    assert time.monotonic() - started < 30, "it waited for the store"
    answers.set()
    assert ticks > 2, "the event loop was blocked"
    assert isinstance(outcomes[0], StoreSlowError)
    assert "500 ms" in str(outcomes[0])
    assert outcomes[2] == [b"1"]


def where(store: OnlineStore) -> int:
    """The thread that a look-up runs in."""
    store.get_many("titles", ["a"])
    return threading.get_ident()


def filled(folder: Path) -> str:
    url = f"lmdb://{folder}/online"
    with open_online_store(url) as store:
        store.put_many("titles", [("a", b"1")])
    return url


def test_a_short_look_up_is_made_at_once_until_one_was_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = StoreReader(filled(tmp_path), budget_ms=100)
    here = threading.get_ident()

    def slow(store: OnlineStore) -> int:
        time.sleep(0.06)  # more than half of the budget
        return where(store)

    async def ask() -> list[bool]:
        found = [await reader.read(one, is_short=True) for one in (where, slow, where)]
        found.append(await reader.read(where))
        monkeypatch.setattr(store_reader, "CAREFUL_FOR_S", 0.01)  # of the next one
        await reader.read(slow)
        await asyncio.sleep(0.05)
        found.append(await reader.read(where, is_short=True))
        return [thread == here for thread in found]

    assert asyncio.run(ask()) == [True, True, False, False, True]


def test_while_a_look_up_waits_for_the_disk_none_is_made_on_the_event_loop(tmp_path: Path) -> None:
    reader = StoreReader(filled(tmp_path), budget_ms=60_000)
    here, answers = threading.get_ident(), threading.Event()

    def waits(store: OnlineStore) -> None:
        answers.wait(60)

    async def ask() -> tuple[int, int]:
        waiting = asyncio.create_task(reader.read(waits))
        await asyncio.sleep(0.05)
        meanwhile = await reader.read(where, is_short=True)
        answers.set()
        await waiting
        await asyncio.sleep(0.05)
        return meanwhile, await reader.read(where, is_short=True)

    meanwhile, after = asyncio.run(ask())
    assert (meanwhile == here, after == here) == (False, True)


def test_a_shared_store_is_never_read_on_the_event_loop(redis_url: str) -> None:
    with open_online_store(redis_url) as store:
        store.put_many("titles", [("a", b"1")])
    reader = StoreReader(redis_url, budget_ms=60_000)
    assert asyncio.run(reader.read(where, is_short=True)) != threading.get_ident()


def test_no_time_left_is_no_look_up(tmp_path: Path) -> None:
    reader = StoreReader(filled(tmp_path), budget_ms=500)

    async def ask() -> int:
        deadline.begin(0)
        return await reader.read(where, is_short=True)

    with pytest.raises(StoreSlowError, match="more than 0 ms"):
        asyncio.run(ask())


def test_records_that_are_not_json_and_a_wrong_watermark_are_failures_of_the_store(tmp_path: Path) -> None:
    with open_online_store(f"lmdb://{tmp_path}/online") as store:
        assert read_as_of_ms(store, "watermark") is None
        store.put_many("titles", [("a", b"{"), ("b", b"\xff")])
        for key in ("a", "b"):
            with pytest.raises(StoreUnavailableError, match="'titles' in the online store is not JSON"):
                read_records(store, "titles", [key])
        store.put_many("meta", [("watermark_ms", b'"noon"')])
        with pytest.raises(StoreUnavailableError, match="watermark"):
            read_as_of_ms(store, "watermark")
        store.put_many("meta", [("watermark_ms", b"1777896000000")])
        assert read_as_of_ms(store, "watermark") == 1_777_896_000_000
        assert abs(read_as_of_ms(store, "now") - time.time() * 1000) < 60_000  # type: ignore[operator]
