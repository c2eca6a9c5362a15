"""Plausible values for any column of the contract, by its type, its name and the unit in its name."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contract.events import Column

Chance = np.random.Generator

_WORDS = {
    "cdn": ("akamai", "cloudfront", "fastly", "own"),
    "resolution": ("480p", "720p", "1080p", "2160p"),
    "region": ("eu-west", "eu-central", "us-east", "us-west"),
    "currency": ("EUR", "GBP", "USD"),
    "language": ("de", "en", "fr"),
    "isp": ("Northern Cable", "Metro Fibre", "Coastal Mobile"),
    "drm_type": ("widevine", "fairplay", "playready"),
    "tier": ("basic", "standard", "premium"),
    "maturity_rating": ("G", "PG", "PG-13", "R"),
    "screen": ("home", "search", "guide", "details", "settings"),
    "query_text": ("space films", "cooking", "news tonight", "a quiet river", "dragons", "cup final"),
    "genres": ("drama", "comedy", "documentary", "sport", "news", "animation"),
    "markets": ("DE", "FR", "GB", "US"),
}
_STEMS = {"content_id": "vod", "channel_id": "chn", "program_id": "prg", "series_id": "ser", "recording_id": "rec"}
_FEW, _MANY = 20, 2_000  # different values of a name, and of an id
_LONGEST_LIST = 8
_NULL_SHARE = 0.1
_TOP = {"_ms": 3_600_000, "_kbps": 20_000, "_bytes": 4_000_000_000, "_percent": 100, "_hours": 12, "_days": 30}
_TOP_OTHERWISE = 50
_DAY_MS = 86_400_000


class Values:
    """Values by column; vocabularies are made once. `titles` in the catalogue, instants from `start_ms` on."""

    def __init__(self, titles: int, start_ms: int) -> None:
        self._titles, self._start_ms = titles, start_ms
        self._vocabularies: dict[str, pa.Array] = {}

    def of(self, column: Column, count: int, chance: Chance) -> pa.Array:
        """`count` values; a tenth of a nullable column's are null."""
        values = self._of(column, count, chance)
        if not column.nullable:
            return values
        given = pa.array(chance.random(count) >= _NULL_SHARE)
        return pc.if_else(given, values, pa.scalar(None, values.type))

    @property
    def content_ids(self) -> pa.Array:
        """Every title of the catalogue."""
        return self._vocabulary("content_id")

    def _of(self, column: Column, count: int, chance: Chance) -> pa.Array:
        kind, name = column.arrow, column.name
        if column.symbols:
            return _chosen(pa.array(column.symbols), count, chance)
        if pa.types.is_string(kind):
            return _chosen(self._vocabulary(name), count, chance)
        if pa.types.is_list(kind):
            return self._lists(name, kind, count, chance)
        if pa.types.is_boolean(kind):
            return pa.array(chance.random(count) < 0.5)
        if pa.types.is_timestamp(kind):
            # What ends does so after what begins.
            first_ms = self._start_ms + (_DAY_MS if name.endswith(("until", "ends_at")) else 0)
            return pa.array(first_ms + chance.integers(0, _DAY_MS, count), kind)
        if pa.types.is_floating(kind):
            is_percent = name.endswith(("_percent", "score"))
            return pa.array(np.round(chance.random(count) * (100 if is_percent else 1), 3), kind)
        top = next((top for unit, top in _TOP.items() if name.endswith(unit)), _TOP_OTHERWISE)
        return pa.array(chance.integers(1, top, count), kind)

    def _lists(self, name: str, kind: pa.DataType, count: int, chance: Chance) -> pa.Array:
        sizes = chance.integers(0, _LONGEST_LIST + 1, count)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        # A list of ids is of the things its name says: `content_ids` are titles, and so are a search's results.
        vocabulary = self._vocabulary("content_id" if name in ("content_ids", "result_ids") else name)
        items = _chosen(vocabulary, int(ends[-1]), chance)
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), items).cast(kind)

    def _vocabulary(self, name: str) -> pa.Array:
        if name not in self._vocabularies:
            self._vocabularies[name] = pa.array(self._words(name), pa.string())
        return self._vocabularies[name]

    def _words(self, name: str) -> list[str]:
        parts = {name, *name.split("_"), *name.removesuffix("s").split("_")}  # `candidate_cdns` are networks too
        known = next((words for stem, words in _WORDS.items() if stem in parts), None)
        if known is not None:
            return list(known)
        if name == "schedule_date":
            return ["2026-01-05", "2026-01-06"]
        size = self._titles if name == "content_id" else _MANY if name.endswith("_id") else _FEW
        return [f"{_STEMS.get(name, name)}_{number:05d}" for number in range(size)]


def _chosen(words: pa.Array, count: int, chance: Chance) -> pa.Array:
    return words.take(pa.array(chance.integers(0, len(words), count)))
