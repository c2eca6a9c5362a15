"""One row an event id: whatever the ids look like, however the rows are cut into files, tasks and batches."""

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.manifest import DataFile

from features.consent import ConsentHistory
from features.decision import Registries
from features.profiles import ProfileRegistry
from features.pseudonyms import Pseudonymizer
from pipelines.lakehouse import tables
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_files
from pipelines.silver import filling
from pipelines.silver.enrichment import Knowledge
from pipelines.silver.filling import Job, fill
from pipelines.silver.histories import History
from pipelines.silver.ids import IdRange, Ids, among, may_hold, merged, repeated
from pipelines.silver.settling import Settling
from pipelines.silver.sources import BronzeFile, Part, id_range
from pipelines.silver.targets import Target, targets
from pipelines.silver.work import Cleaner, KnownFile, TableWork, Written
from tests.pipelines.silver.bronze_rows import Lake, Row, row
from tests.platform import HOUR, SALT, T0

pytestmark = pytest.mark.usefixtures("ray_session")

INVALID = "invalid: completion_percent outside 0 to 100"
_MASK = (1 << 64) - 1


def nobody() -> Registries:
    return Registries(
        ConsentHistory.of(tables.CONSENTS.empty_table()), ProfileRegistry.of(tables.PROFILES.empty_table())
    )


def colliding_pair(dice: random.Random) -> tuple[str, str]:
    """Two different ids of 16 characters with one hash: the hash can be undone word by word."""

    def mixed(state: int, word: bytes) -> int:
        state = (state ^ int.from_bytes(word, "little")) * 0x9E3779B97F4A7C15 & _MASK
        return state ^ state >> 32

    while True:
        words = ["".join(dice.choices("abcdefghijklmnop0123456789", k=8)).encode() for _ in range(3)]
        other = mixed(16, words[0]) ^ int.from_bytes(words[1], "little") ^ mixed(16, words[2])
        if all(byte < 128 for byte in other.to_bytes(8, "little")):
            return (words[0] + words[1]).decode(), (words[2] + other.to_bytes(8, "little")).decode()


COLLIDING = [colliding_pair(random.Random(seed)) for seed in range(3)]
ODD_IDS = [
    *(
        "",
        "\0",
        "\0\0",
        "a",
        "a\0",
        "evt_",
        "evt_0199e8a0",
        "evt_0199e8a0-",
        "évt_0199e8a0",
        "\U0010ffff" * 20,
        "z" * 5000,
    ),
    *(one for pair in COLLIDING for one in pair),
]
USUAL_IDS = [f"evt_0199e8a{n:x}-0000-7000-8000-00000000000{n:x}" for n in range(8)]


def hashes_of(*ids: str) -> list[int]:
    return Ids.of(pa.chunked_array([pa.array(ids, pa.string())])).hashes.tolist()


def test_the_crafted_ids_do_collide():
    for one, other in COLLIDING:
        assert one != other
        assert len(set(hashes_of(one, other))) == 1
    apart = {*ODD_IDS} - {other for _, other in COLLIDING}
    assert len(set(hashes_of(*apart))) == len(apart)


@settings(deadline=None, max_examples=100)
@given(
    ids=st.lists(st.sampled_from([*ODD_IDS, *USUAL_IDS]) | st.text(max_size=20), max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=3),
)
def test_ids_come_down_to_the_same_in_any_chunks(ids, cuts):
    ends = sorted({0, len(ids), *(cut for cut in cuts if cut < len(ids))})
    whole = pa.array(["before", *ids, "after"], pa.string())
    slices = [whole.slice(1 + start, end - start) for start, end in pairwise(ends)]
    found = Ids.of(pa.chunked_array(slices, pa.string()))
    assert found.hashes.tolist() == [number for one in ids for number in hashes_of(one)]
    prefixes = sorted({one.encode()[:12].rstrip(b"\0") for one in ids})
    assert found.prefixes.tolist() == prefixes
    both = merged([Ids.of(pa.chunked_array([one], pa.string())) for one in slices])
    assert both.hashes.tolist() == found.hashes.tolist()
    assert both.prefixes.tolist() == prefixes


@settings(deadline=None, max_examples=100)
@given(hashes=st.lists(st.integers(0, 6) | st.just(_MASK)), others=st.sets(st.integers(0, 6) | st.just(_MASK)))
def test_repeated_and_among_are_what_they_say(hashes, others):
    numbers = np.array(hashes, np.uint64)
    assert repeated(numbers).tolist() == sorted(one for one, n in Counter(hashes).items() if n > 1)
    assert among(numbers, np.array(sorted(others), np.uint64)).tolist() == [one in others for one in hashes]


@settings(deadline=None, max_examples=100)
@given(
    files=st.lists(st.lists(st.sampled_from([*ODD_IDS, *USUAL_IDS]), min_size=1, max_size=4), min_size=1, max_size=4),
    asked=st.lists(st.sampled_from([*ODD_IDS, *USUAL_IDS]), max_size=3),
    known=st.booleans(),
)
def test_a_file_that_has_an_id_may_hold_it(files, asked, known):
    def bounds(ids: list[str]) -> IdRange:
        octets = [one.encode() for one in ids]
        return IdRange(min(octets), max(octets)) if known else IdRange(None, None)

    prefixes = Ids.of(pa.chunked_array([pa.array(asked, pa.string())])).prefixes
    inside = may_hold([bounds(ids) for ids in files], prefixes)
    assert all(may or not set(ids) & set(asked) for ids, may in zip(files, inside.tolist(), strict=True))


def test_a_file_of_another_time_is_not_asked():
    ranges = [IdRange(b"evt_0199e8a00000", b"evt_0199e8b00000"), IdRange(b"evt_0199f0000000", b"evt_0199f0010000")]
    asked = Ids.of(pa.chunked_array([["evt_0199e8a7-1111-7000-8000-000000000000"]])).prefixes
    assert may_hold(ranges, asked).tolist() == [True, False]


class Playback:
    """`silver.playback` as it is filled batch by batch, without a commit."""

    def __init__(self, lake: Lake) -> None:
        found = {target.name: target for target in targets(lake.contract, "month")}
        self.target: Target = found["silver.playback"]
        self.lake = lake
        self.bronze_table = lake.lakehouse.table(lake.bronze)
        self.table = lake.lakehouse.table(self.target.spec)
        self.known: list[KnownFile] = []
        self.cleaner = Cleaner(
            TableFiles.of(self.bronze_table),
            Knowledge(
                History.of(tables.TITLE_HISTORY.empty_table(), "content_id"),
                History.of(tables.SUBSCRIPTIONS.empty_table(), "user_id"),
            ),
            Settling(nobody(), Pseudonymizer((SALT,)), T0 + HOUR, 2 * HOUR),
            {},
        )

    def fill(self, files: list[list[Row]]) -> Written:
        """One batch."""
        stored = [one for rows in files for one in self.lake.written(self.lake.bronze, rows)]
        work = TableWork(self.target.name, TableFiles.of(self.table), tuple(self.target.spec.schema.names))
        (written,) = fill(self.cleaner, [Job(work, self._parts(stored), tuple(self.known))])
        self.known += [KnownFile(f.file_path, f.record_count, id_range(self.table, f)) for f in written.files]
        return written

    def _parts(self, stored: list[DataFile]) -> tuple[Part, ...]:
        by_event: dict[str, list[BronzeFile]] = {}
        for one in stored:
            file = BronzeFile(one.file_path, one.record_count, id_range(self.bronze_table, one))
            by_event.setdefault(str(one.partition[1]), []).append(file)
        return tuple(Part(event, tuple(by_event[event.name])) for event in self.target.events if event.name in by_event)

    def content(self) -> list[tuple[str, int]]:
        """(event id, offset) of every row."""
        if not self.known:
            return []
        rows = read_files(TableFiles.of(self.table), [file.path for file in self.known], ["event_id", "offset"])
        return sorted(zip(rows["event_id"].to_pylist(), rows["offset"].to_pylist(), strict=True))


def batch_of(dice: random.Random, ids: list[str], first_offset: int) -> list[list[Row]]:
    """A few files of events; the same id may come as another event, from another partition, at the same instant."""
    files = []
    for _ in range(dice.randint(1, 4)):
        rows = []
        for _ in range(dice.randint(1, 8)):
            name = dice.choice(("playback.started", "playback.heartbeat", "playback.stopped"))
            changes: Row = {"completion_percent": dice.choice((0.0, 100.0, 140.0))} if name.endswith("stopped") else {}
            if dice.random() < 0.15:
                changes |= {"profile_described": False, "is_kids": None}
            number = first_offset + sum(map(len, files)) + len(rows)
            at_ms = T0 + dice.choice((0, 0, 1, HOUR)) - first_offset
            place = {"topic": dice.choice(("a.replay", "client.playback")), "partition": dice.choice((0, 1))}
            place |= {"platform": dice.choice((None, "ios")), "ingested_at": T0}
            rows.append(row(name, number, at_ms, event_id=dice.choice(ids), **place, **changes))
        files.append(rows)
    return files


def expected(silver: dict[str, int], files: list[list[Row]]) -> Counter[str]:
    """What becomes of a batch; `silver` gains what it adds."""
    counts: Counter[str] = Counter()
    rows = [one for file in files for one in file]
    for one in sorted(rows, key=lambda one: (one["event_timestamp"], one["topic"], one["partition"], one["offset"])):
        if one.get("completion_percent") == 140.0:
            fate = INVALID
        elif not one["profile_described"]:
            fate = "waiting for its profile"
        elif one["event_id"] in silver:
            fate = "duplicate event id"
        else:
            fate = "valid"
            silver[one["event_id"]] = one["offset"]
        counts[fate] += 1
    return counts


@pytest.mark.parametrize("rows_per_task", [3, 250_000])
@pytest.mark.parametrize("seed", range(6))
def test_the_first_of_each_id_is_kept_and_every_row_is_counted(
    seed: int, rows_per_task: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(filling, "ROWS_PER_TASK", rows_per_task)
    monkeypatch.setattr(filling, "IDS_PER_TASK", rows_per_task + 1)
    dice = random.Random(seed)
    ids = dice.sample([*ODD_IDS, *USUAL_IDS], 12) + list(dice.choice(COLLIDING))
    playback, silver, offset = Playback(Lake(tmp_path)), {}, 0
    for _ in range(4):
        files = batch_of(dice, ids, offset)
        offset += sum(map(len, files))
        written = playback.fill(files)
        counts = expected(silver, files)
        assert written.counts == counts
        assert sum(written.counts.values()) == sum(map(len, files))
        assert (written.oldest_waiting_ms == T0) is ("waiting for its profile" in counts)
        assert playback.content() == sorted(silver.items())
