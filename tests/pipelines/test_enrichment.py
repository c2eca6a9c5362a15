"""What addresses and agents tell of events, with MaxMind's test databases; places as in the JSON they are made from."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.clean import clean
from pipelines.cli import main
from pipelines.enrichment import Enricher
from pipelines.follow import Follower
from pipelines.geo import GeoDatabaseError
from pipelines.ingest import ingest
from pipelines.settings import EnrichmentSettings, IngestSettings
from tests.platform import DAY, HOUR, SALT, T0, Platform, described, event, hashed, title, watched

LINKOPING, MILTON, SYDNEY = "89.160.20.112", "216.160.83.56", "1.128.0.1"  # of the last the provider alone is known
SAN_DIEGO = "2001:480:10::1"
FIRE_TV = "Dalvik/2.1.0 (Linux; U; Android 9; AFTKA Build/PS7242)"
ENRICHED = ("geo_country", "geo_region", "geo_city", "time_zone", "isp", "device_class")
STOCKHOLM, LOS_ANGELES = "Europe/Stockholm", "America/Los_Angeles"
SWEDEN = ("SE", "SE-E", "Linköping", STOCKHOLM, "Bredband2 AB")
US = ("US", "US-WA", "Milton", LOS_ANGELES, "Century Link")


@pytest.fixture
def databases(shared_data: Path) -> EnrichmentSettings:
    folder = shared_data / "geoip"
    return EnrichmentSettings(
        city_database=folder / "GeoIP2-City-Test.mmdb", isp_database=folder / "GeoIP2-ISP-Test.mmdb"
    )


def events_of(*rows: tuple[str | None, str | None, str | None]) -> pa.Table:
    columns = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
    return pa.table(dict(zip(("ip", "user_agent", "device_type"), columns, strict=True)))


def told(enricher: Enricher, events: pa.Table, *, kids: tuple[int, ...] = ()) -> dict[str, list[Any]]:
    is_kids = np.isin(np.arange(events.num_rows), kids)
    found = enricher.columns(events, is_kids)
    for column in found.values():  # nothing of a row that may not say it is left in a dictionary
        assert {*column.dictionary.to_pylist()} == {*column.to_pylist()} - {None}
    return {name: column.to_pylist() for name, column in found.items()}


@pytest.mark.realdata
def test_each_event_is_told_its_place_its_provider_and_its_device(databases: EnrichmentSettings):
    events = events_of(
        (LINKOPING, FIRE_TV, None),
        (None, FIRE_TV, "phone"),
        (MILTON, None, "browser"),
        (LINKOPING, None, None),
        (SYDNEY, "", ""),
        (SAN_DIEGO, "curl/8.4.0", None),
        ("not an address", FIRE_TV, "browser"),
    )
    expected = {
        "geo_country": ["SE", None, "US", "SE", None, "US", None],
        "geo_region": ["SE-E", None, "US-WA", "SE-E", None, "US-CA", None],
        "geo_city": ["Linköping", None, "Milton", "Linköping", None, "San Diego", None],
        "time_zone": [STOCKHOLM, None, LOS_ANGELES, STOCKHOLM, None, LOS_ANGELES, None],
        "isp": ["Bredband2 AB", None, "Century Link", "Bredband2 AB", "Telstra Internet", None, None],
        "device_class": ["stb", "phone", "other", None, None, "other", "stb"],
    }
    enricher = Enricher.of(databases)
    assert told(enricher, events) == expected
    in_chunks = pa.concat_tables([events.slice(start, 2) for start in range(0, 7, 2)])
    encoded = pa.table([column.dictionary_encode() for column in in_chunks.columns], names=events.column_names)
    assert told(enricher, in_chunks) == told(enricher, encoded) == expected
    assert told(enricher, events, kids=(0, 5)) == expected | {
        "geo_city": [None, None, "Milton", "Linköping", None, None, None]
    }


@pytest.mark.realdata
def test_what_no_event_can_have_is_left_out(databases: EnrichmentSettings):
    enricher = Enricher.of(databases)
    assert told(enricher, events_of((None, None, "tv"))) == {"device_class": ["tv"]}
    assert told(enricher, events_of((None, None, None))) == {}
    assert told(enricher, events_of((LINKOPING, None, None))).keys() == {*ENRICHED} - {"device_class"}
    only_isp = Enricher.of(EnrichmentSettings(isp_database=databases.isp_database))
    assert told(only_isp, events_of((LINKOPING, None, None))) == {"isp": ["Bredband2 AB"]}
    assert told(Enricher(), events_of((LINKOPING, FIRE_TV, None))) == {"device_class": ["stb"]}
    nobody = enricher.columns(events_of((None, None, None)).slice(0, 0), np.zeros(0, dtype=bool))
    assert {name: len(column) for name, column in nobody.items()} == dict.fromkeys(ENRICHED, 0)


@pytest.mark.realdata
def test_absent_databases_are_named_in_one_line(databases: EnrichmentSettings):
    assert Enricher.of(databases).warning is None
    city, isp = databases.city_database, databases.isp_database
    assert Enricher(None, isp).warning == "null in every event: geo and time zone (no enrichment.city_database)"
    assert Enricher(city, None).warning == "null in every event: isp (no enrichment.isp_database)"
    neither = Enricher().warning
    assert neither is not None
    assert neither.count("\n") == 0
    assert "enrichment.city_database" in neither
    assert "enrichment.isp_database" in neither


@pytest.mark.realdata
@pytest.mark.usefixtures("ray_session")
def test_a_database_of_the_wrong_kind_or_none_at_all_stops_the_command(
    databases: EnrichmentSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    missing = tmp_path / "missing.mmdb"
    for wrong, said in (
        (EnrichmentSettings(city_database=databases.isp_database), "is a GeoIP2-ISP database where one of City"),
        (EnrichmentSettings(isp_database=databases.city_database), "is a GeoIP2-City database where one of ISP"),
        (EnrichmentSettings(city_database=missing), f"the address database {missing} cannot be read"),
        (EnrichmentSettings(isp_database=missing), f"the address database {missing} cannot be read"),
    ):
        with pytest.raises(GeoDatabaseError, match=said):
            Enricher.of(wrong)
    config = tmp_path / "reel.yaml"
    config.write_text(f"work_dir: {tmp_path}\nenrichment:\n  city_database: {missing}\n")
    monkeypatch.setattr("sys.argv", ["reel", "--config", str(config), "ingest"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert f"{missing} cannot be read" in said.err


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("REEL_SALT", SALT)
    return Platform(tmp_path)


@pytest.mark.realdata
@pytest.mark.usefixtures("ray_session")
def test_from_the_log_to_silver(platform: Platform, databases: EnrichmentSettings, capsys: pytest.CaptureFixture[str]):
    """Ann on her television in Sweden, her child in the United States; the catalogue and her tier change meanwhile."""
    platform.settings = platform.settings.model_copy(update={"enrichment": databases})
    ann = {"ip": LINKOPING, "user_agent": FIRE_TV, "device_type": "browser"}
    tim = {"ip": MILTON, "device_type": "ipad"}
    news = event("title.added", T0 - DAY, None, content_id="live-1", title="News 24", content_type="live", genres=[])

    def subscribed(at_ms: int, tier: str, **columns: Any) -> dict[str, Any]:
        return event("entitlement.changed", at_ms, "ann", subscription_tier=tier, change_reason="upgrade", **columns)

    platform.send(
        described("ann"),
        described("tim", is_kids=True),
        title("vod-1", "Drama", at_ms=T0 - DAY, maturity_rating="PG", runtime_ms=600_000),
        title("vod-1", "Drama", "News", at_ms=T0 + HOUR) | {"event_name": "title.updated", "title": "Later"},
        news,
        subscribed(T0 - DAY, "basic"),
        subscribed(T0 + HOUR, "premium", valid_until=T0 + 3 * HOUR),
        *watched("ann", "vod-1", T0, **ann),
        *watched("ann", "vod-1", T0 + 2 * HOUR, **ann),
        *watched("ann", "live-1", T0 + 4 * HOUR, content_type="live"),
        *watched("ann", "unknown", T0 + DAY),
        *watched("tim", "vod-1", T0, **tim),
    )
    ingest(platform.settings)
    clean(platform.settings)
    assert capsys.readouterr().err == ""

    for table in ("bronze.events", "silver.playback"):
        rows = [one for one in platform.rows(table) if one["event_name"].startswith("playback.")]
        assert len(rows) == 10
        at_home = [one for one in rows if one["user_id"] == hashed("ann") and one["geo_country"]]
        assert {tuple(one[name] for name in ENRICHED) for one in at_home} == {(*SWEDEN, "stb")}
        assert len(at_home) == 4
        kids = [one for one in rows if one["is_kids"]]
        assert [tuple(one[name] for name in ENRICHED) for one in kids] == [(*US[:2], None, *US[3:], "tablet")] * 2
        assert all(one["geo_country"] is one["isp"] is None for one in rows if one not in at_home and one not in kids)
    addresses = {one["ip"] for one in platform.rows("bronze.events")}
    assert addresses == {None, "89.160.20.0/24", "216.160.83.0/24"}

    stops = sorted(
        (one for one in platform.rows("silver.playback") if one["event_name"] == "playback.stopped"),
        key=lambda one: (one["is_kids"], one["event_timestamp"]),
    )
    names = ("content_title", "content_genres", "content_maturity_rating", "content_runtime_ms", "is_orphan")
    assert [tuple(one[name] for name in (*names, "channel_name", "subscription_tier")) for one in stops] == [
        ("Vod-1", ["Drama"], "PG", 600_000, False, None, "basic"),
        ("Later", ["Drama", "News"], None, None, False, None, "premium"),
        ("News 24", [], None, None, False, "News 24", None),
        (None, None, None, None, True, None, None),
        ("Vod-1", ["Drama"], "PG", 600_000, False, None, None),
    ]
    sessions = {one["playback_id"]: one for one in platform.rows("silver.playback_sessions")}
    assert len(sessions) == 5
    first = sessions[f"ann-vod-1-{T0}"]
    assert (first["geo_city"], first["device_class"], first["subscription_tier"]) == ("Linköping", "stb", "basic")
    assert (first["content_title"], first["watch_ms"]) == ("Vod-1", 600_000)


@pytest.mark.usefixtures("ray_session")
def test_without_databases_one_line_says_so_and_the_rest_is_known(
    platform: Platform, capsys: pytest.CaptureFixture[str]
):
    quick = IngestSettings(batch_seconds=0.1, messages_per_commit=1)
    platform.settings = platform.settings.model_copy(update={"ingest": quick})
    platform.send(described("ann"), *watched("ann", "vod-1", T0, ip=LINKOPING, user_agent=FIRE_TV))
    batches: list[object] = []
    Follower(platform.settings, ["client.playback", "user.events"], on_batch=batches.append).run(until_idle_s=0.1)
    assert len(batches) > 1
    line = "null in every event: geo and time zone (no enrichment.city_database) and isp (no enrichment.isp_database)"
    assert capsys.readouterr().err == f"reel: {line}\n"
    rows = platform.rows("silver.playback")
    assert [[one[name] for name in ENRICHED] for one in rows] == [[None] * 5 + ["stb"]] * 2

    ingest(platform.settings)
    assert capsys.readouterr().err == "", "of no event nothing is null"
    platform.send(*watched("ann", "vod-2", T0 + HOUR, ip=LINKOPING))
    ingest(platform.settings)
    assert capsys.readouterr().err == f"reel: {line}\n"
