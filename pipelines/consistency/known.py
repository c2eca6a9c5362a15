"""Up to where the batch can tell: a row of the log is compared once everything it could have known is in silver."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.columns import flat, milliseconds
from features.groups import GROUPS
from features.stretches import NEVER_MS
from features.windows import Cadence, valued_at_ms
from pipelines.feature_tables import Target
from pipelines.kafka.offsets import Offsets, Progress
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.scans import SnapshotGoneError, newest_event_ms
from pipelines.silver.sources import BRONZE_SNAPSHOT

BRONZE = "bronze.events"
_LIVE_TABLES = tuple(
    dict.fromkeys(name for group in GROUPS if group.cadence is Cadence.EVENT for name in group.source.reads)
)
_NONE_YET_MS = -(1 << 60)


@dataclass(frozen=True)
class Known:
    """What the batch knows of one target.

    `until_ms`: it knows values at instants up to this one; None: of none. `offsets`: of an event group, up to where
    messages of each partition are in silver.
    """

    until_ms: int | None
    offsets: Mapping[str, Mapping[int, int]]

    @classmethod
    def of(cls, lakehouse: Lakehouse, target: Target) -> "Known":
        """By the tables as they are: boundaries that are built, or events that are in silver."""
        if target.group.cadence is not Cadence.EVENT:
            return cls(newest_event_ms(lakehouse.existing(target.name)), {})
        # Nobody may have searched for a while: how far silver is, the newest event of any table says.
        newest = [newest_event_ms(lakehouse.existing(name)) for name in _LIVE_TABLES]
        known = [one for one in newest if one is not None]
        return cls(max(known) + 1 if known else None, _offsets(lakehouse, tuple(target.group.source.reads)))

    def tells(self, target: Target, rows: pa.Table) -> NDArray[np.bool_]:
        """Of which rows of the log (`as_of`, `stream`) the batch can tell, [n]; of those without an instant: of all."""
        tells = np.ones(rows.num_rows, dtype=np.bool_)
        has_instant = np.asarray(flat(rows["as_of"]).is_valid())
        if self.until_ms is None:
            return ~has_instant
        asked_ms = milliseconds(rows["as_of"].filter(pa.array(has_instant)), "as_of")
        at_ms = valued_at_ms(asked_ms, target.group.cadence, target.group.delay)
        tells[has_instant] = at_ms <= self.until_ms
        if self.offsets:
            said = flat(rows["stream"]).dictionary_encode()
            has_all = np.array([self._has(text) for text in said.dictionary.to_pylist()] + [True])
            tells &= has_all[np.asarray(said.indices.fill_null(-1))] | ~has_instant
        return tells

    def _has(self, stream: str) -> bool:
        """Whether all that the stream had processed is in silver by now."""
        return all(
            position.offset <= self.offsets.get(topic, {}).get(partition, 0)
            for (topic, partition), position in positions(stream).items()
            if topic in self.offsets
        )


@dataclass(frozen=True)
class Position:
    """How far the stream had come in a partition: the next offset, and the newest event before it."""

    offset: int
    newest_ms: int

    @classmethod
    def of(cls, offset: int, newest_ms: int | None) -> "Position":
        """As the stream says it: None before the first event."""
        return cls(offset, _NONE_YET_MS if newest_ms is None else newest_ms)


def positions(stream: str) -> dict[tuple[str, int], Position]:
    """What the stream said of itself (`meta/stream` of the online store), by topic and partition."""
    return {
        (topic, int(partition)): Position(
            said["offset"], _NONE_YET_MS if said["event_ms"] is None else said["event_ms"]
        )
        for topic, partitions in json.loads(stream)["partitions"].items()
        for partition, said in partitions.items()
    }


def settled_ms(stream: str) -> int:
    """From when on events of entities that are no people wait, as the stream said of itself."""
    return int(json.loads(stream).get("settled_ms", NEVER_MS))


def _offsets(lakehouse: Lakehouse, names: Sequence[str]) -> Offsets:
    """Up to where every one of some tables of silver has the messages of each partition."""
    bronze = lakehouse.existing(BRONZE)
    found: Offsets = {}
    for table in (lakehouse.existing(name) for name in names):
        at = progress_of(table).get(BRONZE_SNAPSHOT) if table is not None else None
        if bronze is None or at is None:
            continue
        if bronze.snapshot_by_id(at) is None:
            raise SnapshotGoneError(BRONZE, at)
        for topic, partitions in Progress.from_json(progress_of(bronze, at)).offsets.items():
            known = found.setdefault(topic, dict(partitions))
            for partition, offset in partitions.items():
                known[partition] = min(offset, known.get(partition, offset))
    return found
