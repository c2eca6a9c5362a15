"""Enrichment at the door, from the full address and agent, in memory, before both are cut (spec 3.2, 8.3).

input   addresses, agents and device types of one batch
does    looks each distinct one up: place and provider in MaxMind's databases, kind of device from the agent
output  the columns of `tables.ENRICHED` of which something can be known
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.distinct import Codes, codes_of, encoded, spread
from pipelines.devices import device_class
from pipelines.geo import CITY_DATABASES, ISP_DATABASES, Place, check_database, isp_of, place_of
from pipelines.settings import EnrichmentSettings

_PLACE_COLUMNS = dict(zip(Place._fields, ("geo_country", "geo_region", "geo_city", "time_zone"), strict=True))


@dataclass(frozen=True)
class Enricher:
    """Says what addresses and agents tell. It travels to Ray tasks, which open the databases where they run."""

    city_database: Path | None = None
    isp_database: Path | None = None

    @classmethod
    def of(cls, settings: EnrichmentSettings) -> "Enricher":
        """The enricher as configured. Raises GeoDatabaseError for a database that cannot be used."""
        if settings.city_database is not None:
            check_database(settings.city_database, CITY_DATABASES)
        if settings.isp_database is not None:
            check_database(settings.isp_database, ISP_DATABASES)
        return cls(settings.city_database, settings.isp_database)

    @property
    def warning(self) -> str | None:
        """What stays unknown because there is no database for it, or None; to be said once a run."""
        absent = [
            f"{columns} (no enrichment.{key})"
            for columns, key, path in (
                ("geo and time zone", "city_database", self.city_database),
                ("isp", "isp_database", self.isp_database),
            )
            if path is None
        ]
        return f"null in every event: {' and '.join(absent)}" if absent else None

    def columns(self, events: pa.Table, is_kids: NDArray[np.bool_]) -> dict[str, pa.DictionaryArray]:
        """The columns of `tables.ENRICHED` for events with a full address and agent; no city where `is_kids`.

        A column that no event of the batch could have a value in is left out.
        """
        found: dict[str, pa.DictionaryArray] = {}
        if not _is_null(events["ip"]) and (self.city_database or self.isp_database):
            addresses = encoded(events["ip"])
            found |= self._of_addresses(addresses.dictionary.to_pylist(), codes_of(addresses), is_kids)
        if not (_is_null(events["user_agent"]) and _is_null(events["device_type"])):
            found["device_class"] = _device_classes(encoded(events["user_agent"]), encoded(events["device_type"]))
        return found

    def _of_addresses(
        self, addresses: list[str], codes: Codes, is_kids: NDArray[np.bool_]
    ) -> dict[str, pa.DictionaryArray]:
        found: dict[str, pa.DictionaryArray] = {}
        if self.city_database is not None:
            places = [place_of(self.city_database, address) for address in addresses]
            for number, (part, name) in enumerate(_PLACE_COLUMNS.items()):
                values = pa.array([place[number] for place in places], pa.string())
                found[name] = spread(values, np.where(is_kids, -1, codes) if part == "city" else codes)
        if self.isp_database is not None:
            providers = [isp_of(self.isp_database, address) for address in addresses]
            found["isp"] = spread(pa.array(providers, pa.string()), codes)
        return found


def _device_classes(agents: pa.DictionaryArray, types: pa.DictionaryArray) -> pa.DictionaryArray:
    """The class of each pair of agent and device type, each distinct pair looked at once."""
    width = len(types.dictionary) + 1
    pairs = (codes_of(agents).astype(np.int64) + 1) * width + codes_of(types) + 1
    distinct = pa.array(pairs).dictionary_encode()
    agent_of, type_of = [None, *agents.dictionary.to_pylist()], [None, *types.dictionary.to_pylist()]
    classes = [device_class(agent_of[pair // width], type_of[pair % width]) for pair in distinct.dictionary.to_pylist()]
    return spread(pa.array(classes, pa.string()), codes_of(distinct))


def _is_null(column: pa.ChunkedArray) -> bool:
    # Of no rows nothing is said: a batch without events has the same columns as one with them.
    return bool(len(column)) and column.null_count == len(column)
