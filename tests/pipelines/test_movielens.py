"""The MovieLens importer: a hand-made folder, worked by hand, and the real files read another way."""

import csv
import uuid
from collections import Counter
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from pipelines.contract.events import load_contract
from pipelines.errors import NotMovieLensError
from pipelines.movielens import events, read_movielens

MINUTE_MS = 60_000
SECOND_FILM = "2|Misérables, Les (1995)|01-Jan-1995||http://x|0|1|1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two films, three viewers (one of whom rated nothing), five ratings."""
    (tmp_path / "u.genre").write_text("unknown|0\nAction|1\nDrama|2\n\n")
    (tmp_path / "u.item").write_text(
        f"1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0\n{SECOND_FILM}\n", encoding="latin-1"
    )
    (tmp_path / "u.user").write_text("7|24|M|technician|85711\n8|53|F|other|94043\n9|23|M|writer|32067\n")
    (tmp_path / "u.data").write_text("8\t1\t3\t900000000\n7\t2\t5\t900003600\n7\t1\t1\t900003600\n8\t2\t4\t900000000\n")
    return tmp_path


def streamed(folder: Path, **options) -> list:
    return list(events(read_movielens(folder), **options))


def merged(batches: list) -> dict[str, pl.DataFrame]:
    names = {name for batch in batches for name in batch.tables}
    parts = {name: [batch.tables[name] for batch in batches if name in batch.tables] for name in names}
    return {name: pl.from_arrow(pa.concat_tables(tables)) for name, tables in parts.items()}


def ms(column: str) -> pl.Expr:
    return pl.col(column).dt.epoch("ms")


def test_a_rating_becomes_a_playback_that_ends_at_its_time(folder):
    tables = merged(streamed(folder))
    stopped = tables["playback.stopped"].sort("event_timestamp", "playback_id")
    who = stopped.select("playback_id", "user_id", "profile_id", "content_id").rows()
    assert who == [
        ("ml-playback-8-1", "ml-user-8", "ml-profile-8", "ml-1"),
        ("ml-playback-8-2", "ml-user-8", "ml-profile-8", "ml-2"),
        ("ml-playback-7-1", "ml-user-7", "ml-profile-7", "ml-1"),
        ("ml-playback-7-2", "ml-user-7", "ml-profile-7", "ml-2"),
    ]
    how = stopped.select(ms("event_timestamp"), "position_ms", "completion_percent", "stop_reason").rows()
    assert how == [
        (900_000_000_000, 60 * MINUTE_MS, 60.0, "user"),
        (900_000_000_000, 85 * MINUTE_MS, 85.0, "user"),
        (900_003_600_000, 20 * MINUTE_MS, 20.0, "user"),
        (900_003_600_000, 100 * MINUTE_MS, 100.0, "end_of_content"),
    ]
    assert stopped["total_duration_ms"].to_list() == [100 * MINUTE_MS] * 4
    assert stopped["client_timestamp"].equals(stopped["event_timestamp"].alias("client_timestamp"))
    started = dict(tables["playback.started"].select("playback_id", ms("event_timestamp")).iter_rows())
    assert started == {
        "ml-playback-8-1": 900_000_000_000 - 60 * MINUTE_MS,
        "ml-playback-8-2": 900_000_000_000 - 85 * MINUTE_MS,
        "ml-playback-7-1": 900_003_600_000 - 20 * MINUTE_MS,
        "ml-playback-7-2": 900_003_600_000 - 100 * MINUTE_MS,
    }


def test_a_session_is_a_viewers_day_and_everybody_consents_in_one_market(folder):
    tables = merged(streamed(folder))
    for name in ("playback.started", "playback.stopped"):
        sessions = dict(tables[name].select("playback_id", "session_id").iter_rows())
        # 900000000 s is 1998-07-09 16:00:00 UTC.
        assert sessions["ml-playback-8-1"] == sessions["ml-playback-8-2"] == "ml-session-8-19980709"
        assert sessions["ml-playback-7-1"] == "ml-session-7-19980709"
        consent = tables[name].select("consent_analytics", "consent_personalization", "consent_ad_targeting", "market")
        assert consent.unique().rows() == [(True, True, True, "US")]


def test_profiles_and_consents_come_just_before_a_viewers_first_playback(folder):
    tables = merged(streamed(folder))
    first = {"ml-profile-8": 900_000_000_000 - 85 * MINUTE_MS, "ml-profile-7": 900_003_600_000 - 100 * MINUTE_MS}
    profiles = tables["profile.updated"].select("profile_id", ms("event_timestamp"), "is_kids", "source").rows()
    assert sorted(profiles) == sorted((who, at - 2, False, "SERVER") for who, at in first.items())
    allowed = ("allows_analytics", "allows_personalization", "allows_ad_targeting")
    consents = tables["consent.changed"].select("profile_id", ms("event_timestamp"), *allowed).rows()
    assert sorted(consents) == sorted((who, at - 1, True, True, True) for who, at in first.items())


def test_the_catalogue_comes_first_and_reads_latin_1(folder):
    added = merged(streamed(folder))["title.added"]
    assert added.select("content_id", "title", "genres", "content_type", "runtime_ms").rows() == [
        ("ml-1", "Toy Story (1995)", [], "vod", 100 * MINUTE_MS),
        ("ml-2", "Misérables, Les (1995)", ["Action", "Drama"], "vod", 100 * MINUTE_MS),
    ]
    assert added["event_timestamp"].dt.epoch("ms").unique().to_list() == [900_000_000_000 - 85 * MINUTE_MS - 86_400_000]


def test_event_ids_are_uuids_of_their_time_and_the_same_every_time(folder):
    once, again = merged(streamed(folder)), merged(streamed(folder, events_per_batch=3))
    ids = [
        (text, at)
        for table in once.values()
        for text, at in table.select("event_id", ms("event_timestamp")).iter_rows()
    ]
    assert len({text for text, _ in ids}) == len(ids)
    assert all(uuid.UUID(text[4:]).version == 7 and uuid.UUID(text[4:]).int >> 80 == at for text, at in ids)
    for name, table in once.items():
        assert table.equals(again[name])


def test_ids_do_not_depend_on_the_order_of_the_file(folder):
    before = set(merged(streamed(folder))["playback.started"]["event_id"])
    lines = (folder / "u.data").read_text().splitlines()
    (folder / "u.data").write_text("\n".join(reversed(lines)) + "\n")
    assert set(merged(streamed(folder))["playback.started"]["event_id"]) == before


def test_batches_follow_each_other_in_time(folder):
    batches = streamed(folder, events_per_batch=2)
    assert len(batches) > 2
    assert all(left.end_ms == right.start_ms for left, right in pairwise(batches))
    for batch in batches:
        for table in batch.tables.values():
            times = table["event_timestamp"].cast(pa.int64()).to_pylist()
            assert times == sorted(times)
            assert batch.start_ms <= times[0]
            assert times[-1] < batch.end_ms


@pytest.mark.parametrize("name", ["u.data", "u.item", "u.user", "u.genre"])
def test_a_missing_file_is_named_with_its_folder(folder, name):
    (folder / name).unlink()
    with pytest.raises(NotMovieLensError, match=name) as raised:
        read_movielens(folder)
    assert str(folder) in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NotMovieLensError, match="not a folder"):
        read_movielens(tmp_path / "nowhere")


def test_movielens_1m_is_refused_by_name(tmp_path):
    (tmp_path / "movies.dat").write_text("1::Toy Story (1995)::Animation\n")
    with pytest.raises(NotMovieLensError, match=r"MovieLens 1M .*only the format of MovieLens 100K is supported"):
        read_movielens(tmp_path)


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("u.data", "7\t1\t6\t900000000", r"u\.data, line 5: expected user, item, rating of 1 to 5"),
        ("u.data", "7\t1\t3", r"u\.data, line 5: expected user"),
        ("u.data", "7 1 3 900000000", r"u\.data, line 5: expected whole numbers"),
        ("u.data", "7\t99\t3\t900000000", r"\[99\], which u\.item does not have"),
        ("u.data", "99\t1\t3\t900000000", r"\[99\], which u\.user does not have"),
        ("u.item", "3|Heat|01-Jan-1995||http://x|0|1", r"u\.item, line 3: .*3 flags"),
        ("u.item", "3|Heat|01-Jan-1995||http://x|0|1|2", r"u\.item, line 3: .*3 flags"),
        ("u.user", "seven|24|M|technician|85711", r"u\.user, line 4: expected whole numbers"),
        ("u.genre", "Western|7", r"u\.genre: expected lines like"),
    ],
)
def test_a_wrong_line_is_named(folder, name, line, said):
    with (folder / name).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(NotMovieLensError, match=said):
        read_movielens(folder)


def test_no_ratings_at_all(folder):
    (folder / "u.data").write_text("")
    with pytest.raises(NotMovieLensError, match="no ratings"):
        read_movielens(folder)


def test_tables_fit_the_contract(folder, project_root):
    contract = load_contract(project_root / "configs" / "schemas")
    for batch in streamed(folder):
        for name, table in batch.tables.items():
            wanted = contract.event(name)
            assert set(table.column_names) == set(wanted.arrow.names)
            for field in wanted.arrow:
                assert table.schema.field(field.name).type == field.type
                assert field.nullable or table[field.name].null_count == 0
            for column, symbols in wanted.symbols.items():
                assert set(table[column].to_pylist()) <= set(symbols)


@pytest.mark.realdata
def test_the_real_files_against_the_csv_module(shared_data):
    source = shared_data / "ml-100k"
    tables = merged(streamed(source))
    with (source / "u.data").open(newline="") as file:
        rows = [tuple(map(int, row)) for row in csv.reader(file, delimiter="\t")]
    assert tables["playback.started"].height == tables["playback.stopped"].height == len(rows) == 100_000
    percent = {1: 20.0, 2: 40.0, 3: 60.0, 4: 85.0, 5: 100.0}
    expected = Counter((f"ml-user-{u}", f"ml-{i}", s * 1000, percent[r]) for u, i, r, s in rows)
    stopped = tables["playback.stopped"].select("user_id", "content_id", ms("event_timestamp"), "completion_percent")
    assert Counter(stopped.iter_rows()) == expected
    ids = pl.concat([table["event_id"] for table in tables.values()])
    assert ids.n_unique() == len(ids) == 200_000 + 2 * 943 + 1682
    assert tables["profile.updated"]["profile_id"].n_unique() == len({user for user, *_ in rows})


@pytest.mark.realdata
def test_the_real_stream_introduces_everybody_before_their_first_event(shared_data):
    tables = merged(streamed(shared_data / "ml-100k"))
    first = tables["playback.started"].group_by("profile_id").agg(pl.col("event_timestamp").min().alias("first"))
    for name in ("profile.updated", "consent.changed"):
        known = first.join(tables[name].select("profile_id", "event_timestamp"), on="profile_id", how="left")
        assert (known["event_timestamp"] < known["first"]).all()
    titles = dict(tables["title.added"].select("content_id", "genres").iter_rows())
    assert titles["ml-1"] == ["Animation", "Children's", "Comedy"]
    assert titles["ml-267"] == ["unknown"]
    assert tables["title.added"]["event_timestamp"].max() < first["first"].min()
