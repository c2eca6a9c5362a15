"""Where an address is and who provides it, from MaxMind's City and ISP databases (spec 3.2).

A process opens a database when it first needs it and keeps it open, and remembers the answers of many addresses.
"""

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import maxminddb

from pipelines.errors import UsageError

_ADDRESSES_REMEMBERED = 65_536
CITY_DATABASES, ISP_DATABASES = ("City", "Enterprise"), ("ISP", "Enterprise")  # in the names of MaxMind's editions


class GeoDatabaseError(UsageError):
    """A database of addresses is not there, cannot be read, or is of another kind."""


class Place(NamedTuple):
    """Where an address is; None for what the database does not say."""

    country: str | None = None  # ISO 3166-1, GB
    region: str | None = None  # ISO 3166-2, GB-ENG
    city: str | None = None  # in English
    time_zone: str | None = None  # of the tz database, Europe/London


_NOWHERE = Place()


def check_database(path: Path, editions: tuple[str, ...]) -> None:
    """Raise GeoDatabaseError unless `path` is a readable database of one of `editions`."""
    edition = _reader(path).metadata().database_type
    if not any(name in edition for name in editions):
        raise GeoDatabaseError(
            f"{path} is a {edition} database where one of {' or '.join(editions)} is needed; "
            "mend enrichment.city_database and enrichment.isp_database"
        )


@lru_cache(_ADDRESSES_REMEMBERED)
def place_of(database: Path, address: str) -> Place:
    """Where `address` is; nowhere for what is no address, or not in the database. Raises GeoDatabaseError."""
    record = _record(database, address)
    if record is None:
        return _NOWHERE
    country = record.get("country", {}).get("iso_code")
    divisions = record.get("subdivisions", [])
    division = divisions[0].get("iso_code") if divisions else None
    return Place(
        country,
        f"{country}-{division}" if country and division else None,
        record.get("city", {}).get("names", {}).get("en"),
        record.get("location", {}).get("time_zone"),
    )


@lru_cache(_ADDRESSES_REMEMBERED)
def isp_of(database: Path, address: str) -> str | None:
    """Who provides `address`; None for what is no address, or not in the database. Raises GeoDatabaseError."""
    record = _record(database, address)
    return None if record is None else record.get("isp")


def _record(database: Path, address: str) -> Any:
    reader = _reader(database)
    try:
        return reader.get(address)
    except ValueError:  # no address, or one of IPv6 in a database of IPv4
        return None
    except maxminddb.InvalidDatabaseError as error:
        raise _unreadable(database, error) from None


@cache
def _reader(path: Path) -> maxminddb.Reader:
    # Memory-mapped, so that the processes of a machine share it.
    try:
        return maxminddb.open_database(path)
    except (OSError, maxminddb.InvalidDatabaseError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> GeoDatabaseError:
    return GeoDatabaseError(
        f"the address database {path} cannot be read ({error}); fetch it anew from MaxMind on every machine, "
        "or set enrichment.city_database and enrichment.isp_database to null to go without"
    )
