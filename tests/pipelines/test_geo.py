"""Places and providers against the JSON that MaxMind builds its test databases from."""

import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.geo import CITY_DATABASES, ISP_DATABASES, GeoDatabaseError, Place, check_database, isp_of, place_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Records = dict[Network, dict]


def records_of(source: Path) -> Records:
    """The record of each network; most of IPv4 is written as the last 32 bits of IPv6."""
    found: Records = {}
    for entry in json.loads(source.read_text()):
        for text, record in entry.items():
            network = ipaddress.ip_network(text)
            first, bits = int(network.network_address), network.prefixlen - 96
            is_v4 = network.version == 6 and bits >= 0 and first < 2**32
            found[ipaddress.IPv4Network((first, bits)) if is_v4 else network] = record
    return found


def addresses_of(network: Network) -> list[str]:
    """Its first and last address, and one between."""
    first, size = int(network.network_address), network.num_addresses
    kind = type(network.network_address)
    return sorted({str(kind(first + offset)) for offset in (0, size // 2, size - 1)})


def answers_of(records: Records) -> Iterator[tuple[str, dict]]:
    """Addresses of every network, each with the record of the smallest network that it is in."""
    lengths = sorted({(network.version, network.prefixlen) for network in records}, reverse=True)
    for network in records:
        for address in addresses_of(network):
            around = (
                ipaddress.ip_network((address, length), strict=False)
                for version, length in lengths
                if version == network.version
            )
            yield address, records[next(one for one in around if one in records)]


@pytest.mark.realdata
def test_every_network_of_the_city_database(shared_data: Path):
    database = shared_data / "geoip" / "GeoIP2-City-Test.mmdb"
    records = records_of(shared_data / "geoip" / "source-data" / "GeoIP2-City-Test.json")
    assert len(records) > 200
    told = set()
    for address, record in answers_of(records):
        country = record["country"]["iso_code"] if "country" in record else None
        divisions = [one["iso_code"] for one in record.get("subdivisions", [])[:1]]
        expected = Place(
            country=country,
            region=f"{country}-{divisions[0]}" if divisions else None,
            city=record["city"]["names"]["en"] if "city" in record else None,
            time_zone=record["location"].get("time_zone") if "location" in record else None,
        )
        assert place_of(database, address) == expected, address
        told.add(expected)
    assert Place("GB", "GB-ENG", "London", "Europe/London") in told
    assert any(place.region is None and place.country for place in told)


@pytest.mark.realdata
def test_every_network_of_the_isp_database(shared_data: Path):
    database = shared_data / "geoip" / "GeoIP2-ISP-Test.mmdb"
    records = records_of(shared_data / "geoip" / "source-data" / "GeoIP2-ISP-Test.json")
    assert len(records) > 200
    told = set()
    for address, record in answers_of(records):
        assert isp_of(database, address) == record.get("isp"), address
        told.add(record.get("isp"))
    assert {"Telstra Internet", None} < told


@pytest.mark.realdata
@pytest.mark.parametrize(
    "address", ["", "unknown", "1.2.3", "1.2.3.4.5", "192.168.0.1", "999.0.0.1", "::", "fe80::1%eth0"]
)
def test_what_is_no_address_or_nobodys_is_nowhere(shared_data: Path, address: str):
    assert place_of(shared_data / "geoip" / "GeoIP2-City-Test.mmdb", address) == Place(None, None, None, None)
    assert isp_of(shared_data / "geoip" / "GeoIP2-ISP-Test.mmdb", address) is None


@pytest.mark.realdata
def test_databases_are_checked_for_their_kind(shared_data: Path):
    city, isp = (shared_data / "geoip" / f"GeoIP2-{kind}-Test.mmdb" for kind in ("City", "ISP"))
    check_database(city, CITY_DATABASES)
    check_database(isp, ISP_DATABASES)
    for path, editions, kinds in (
        (isp, CITY_DATABASES, "City or Enterprise"),
        (city, ISP_DATABASES, "ISP or Enterprise"),
    ):
        with pytest.raises(
            GeoDatabaseError, match=rf"is a GeoIP2-\w+ database where one of {kinds} is needed"
        ) as failed:
            check_database(path, editions)
        assert str(failed.value).startswith(str(path))
        assert "\n" not in str(failed.value)


@pytest.mark.parametrize("content", [None, b"", b"not a database", b"\x00" * 200_000])
def test_a_database_that_cannot_be_read_is_one_clear_line(tmp_path: Path, content: bytes | None):
    path = tmp_path / "city.mmdb"
    if content is not None:
        path.write_bytes(content)
    for use in (
        lambda: check_database(path, CITY_DATABASES),
        lambda: place_of(path, "1.2.3.4"),
        lambda: isp_of(path, "::1"),
    ):
        with pytest.raises(
            GeoDatabaseError, match=r"the address database .*city\.mmdb cannot be read \(.+\)"
        ) as failed:
            use()
        assert "\n" not in str(failed.value)
        assert "enrichment.city_database" in str(failed.value)


@pytest.mark.realdata
def test_a_damaged_database_is_one_clear_line(shared_data: Path, tmp_path: Path):
    """Its index is whole and what it points at is not."""
    whole = (shared_data / "geoip" / "GeoIP2-City-Test.mmdb").read_bytes()
    path, end = tmp_path / "damaged.mmdb", whole.rindex(b"\xab\xcd\xefMaxMind.com")
    path.write_bytes(whole[: end - 15_000] + b"\xff" * 15_000 + whole[end:])
    with pytest.raises(GeoDatabaseError, match=r"damaged\.mmdb cannot be read"):
        place_of(path, "2001:218::1")
