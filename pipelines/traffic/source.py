"""The traffic itself.

input   a seed, how many events, how badly senders behave
does    makes events of every topic in the platform's proportions, straight from the contract's columns
output  batches of events in the order of their receipt, and a ledger of what a pipeline must arrive at
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.contract.events import Column, Contract, EventSchema
from pipelines.event_batch import TIMESTAMP, RubbishMessage
from pipelines.identifiers import event_ids, splitmix64
from pipelines.traffic.config import TrafficConfig
from pipelines.traffic.ledger import Ledger
from pipelines.traffic.mix import RATE_PER_S, is_client, mix
from pipelines.traffic.people import People, playback_ids
from pipelines.traffic.rubbish import rubbish
from pipelines.traffic.values import Values

_BEFORE_MS = 48 * 3_600_000  # the prologue is that much older than the rest
_LATE_MEAN_MS, _LATEST_MS = 300_000, 3_600_000
_OFFLINE_MS = (600_000, 6 * 3_600_000)  # how long a client's events waited on its device


@dataclass(frozen=True)
class Rows:
    """Events of one kind, and whom each is about."""

    event: EventSchema
    table: pa.Table
    who: NDArray[np.int64]

    def take(self, at: NDArray[np.int64]) -> "Rows":
        """Some of them."""
        return Rows(self.event, self.table.take(pa.array(at)), self.who[at])


@dataclass(frozen=True)
class TrafficBatch:
    """Some of the traffic, in the order of its receipt: per event a table; and messages that are no events."""

    tables: list[tuple[EventSchema, pa.Table]]
    rubbish: list[RubbishMessage]

    @property
    def messages(self) -> int:
        """How many messages the batch is."""
        return sum(len(table) for _, table in self.tables) + len(self.rubbish)


class Traffic:
    """An iterable of batches, to be gone through once; `ledger` is complete when it is at its end."""

    def __init__(self, config: TrafficConfig, contract: Contract) -> None:
        self._config, self._contract = config, contract
        self.ledger = Ledger()
        self._people = People(config)
        self._values = Values(config.titles, config.start_ms)
        self._events, shares = zip(*mix(contract, config.clients), strict=True)
        self._shares = np.array(shares)
        self._chance = np.random.default_rng([config.seed, 2])
        self._following = 0  # number of the next event, which its id is made of
        self._again_soon: list[Rows] = []
        self._again_at_the_end: list[Rows] = []

    def __iter__(self) -> Iterator[TrafficBatch]:
        yield self._prologue()
        left, now_ms = self._config.events, float(self._config.start_ms)
        while left:
            size = min(left, self._config.events_per_batch)
            lasts_ms = size * 1000 / (RATE_PER_S * self._config.rate)
            yield self._batch(size, now_ms, now_ms + lasts_ms)
            left, now_ms = left - size, now_ms + lasts_ms
        yield self._epilogue(int(now_ms))

    def _prologue(self) -> TrafficBatch:
        """The catalogue, who there is, and what they allow."""
        nobody = np.zeros(self._config.titles, np.int64)
        described = [
            (self._contract.event("title.added"), nobody, {"content_id": self._values.content_ids}),
            *self._people.prologue(self._contract),
        ]
        tables = []
        for event, who, columns in described:
            table = self._rows(event, np.full(len(who), self._config.start_ms - _BEFORE_MS), who)
            for name, values in columns.items():
                table = table.set_column(table.column_names.index(name), event.arrow.field(name), values)
            self.ledger.count(event, distinct=table.num_rows)
            tables.append((event, table))
        return TrafficBatch(tables, [])

    def _batch(self, size: int, start_ms: float, end_ms: float) -> TrafficBatch:
        again, self._again_soon = self._again_soon, []
        counts = self._chance.multinomial(size, self._shares / self._shares.sum())
        tables = [
            (event, self._fresh(event, count, start_ms, end_ms))
            for event, count in zip(self._events, counts.tolist(), strict=True)
            if count
        ]
        tables += [self._resent(rows) for rows in again]
        topics = sorted({event.topic for event in self._events})
        count = int(self._chance.binomial(size, self._config.malformed))
        made = rubbish(self._contract, topics, int(end_ms), count, self._chance)
        for message in made:
            self.ledger.count_set_aside(message.kind)
        return TrafficBatch(tables, made)

    def _epilogue(self, now_ms: int) -> TrafficBatch:
        """What is sent again long after it was sent first; the servers received it then, and once more now."""
        late = [replace(rows, table=_received(rows.table, now_ms)) for rows in self._again_at_the_end]
        return TrafficBatch([self._resent(rows) for rows in (*self._again_soon, *late)], [])

    def _fresh(self, event: EventSchema, count: int, start_ms: float, end_ms: float) -> pa.Table:
        """`count` events that were not sent before; some will be again."""
        chance, config = self._chance, self._config
        at_ms = np.sort(start_ms + chance.random(count) * (end_ms - start_ms)).astype(np.int64)
        late = chance.random(count) < config.late
        if not is_client(event):  # a client's are late by its own clock: what counts is when the server had them
            delay_ms = np.minimum(chance.exponential(_LATE_MEAN_MS, count), _LATEST_MS).astype(np.int64)
            at_ms = np.where(late, at_ms - delay_ms, at_ms)
        who = chance.integers(0, config.people, count)
        rows = Rows(event, self._rows(event, at_ms, who, late), who)
        table, valid = self._spoilt(rows)
        refused = self._refused(event, who)
        self.ledger.count(
            event,
            distinct=_count(valid),
            refused_distinct=_count(valid & refused),
            late=_count(valid & late),
        )
        again = valid & (chance.random(count) < config.duplicates)
        soon = chance.random(count) < 0.5
        for chosen, waiting in ((again & soon, self._again_soon), (again & ~soon, self._again_at_the_end)):
            if chosen.any():
                waiting.append(rows.take(np.flatnonzero(chosen)))
        return table

    def _spoilt(self, rows: Rows) -> tuple[pa.Table, NDArray[np.bool_]]:
        """The table with some event ids and session ids missing, and which rows still have what they need."""
        chance, config, count = self._chance, self._config, len(rows.who)
        nameless = chance.random(count) < config.nameless
        table = _without(rows.table, "event_id", nameless, "")
        self.ledger.count_set_aside("without_event_id", _count(nameless))
        if not is_client(rows.event):
            return table, ~nameless
        sessionless = ~nameless & (chance.random(count) < config.sessionless)
        self.ledger.count_set_aside("without_session_id", _count(sessionless))
        return _without(table, "session_id", sessionless, None), ~(nameless | sessionless)

    def _resent(self, rows: Rows) -> tuple[EventSchema, pa.Table]:
        self.ledger.count(rows.event, resent=len(rows.who), refused_resent=_count(self._refused(rows.event, rows.who)))
        return rows.event, rows.table

    def _refused(self, event: EventSchema, who: NDArray[np.int64]) -> NDArray[np.bool_]:
        if event.consent_category != "analytics":
            return np.zeros(len(who), bool)
        refused: NDArray[np.bool_] = self._people.refuses_analytics[who]
        return refused

    def _rows(
        self,
        event: EventSchema,
        at_ms: NDArray[np.int64],
        who: NDArray[np.int64],
        late: NDArray[np.bool_] | None = None,
    ) -> pa.Table:
        count = len(at_ms)
        numbers = np.arange(self._following, self._following + count, dtype=np.uint64)
        self._following += count
        seed = 2 * self._config.seed
        given: dict[str, pa.Array] = {
            "event_id": event_ids(at_ms, splitmix64(numbers, seed), splitmix64(numbers, seed + 1)),
            "event_name": pa.repeat(pa.scalar(event.name), count),
            "event_timestamp": pa.array(at_ms, TIMESTAMP),
            "source": pa.repeat(pa.scalar("CLIENT" if is_client(event) else "SERVER"), count),
        }
        if event.consent_category != "none":
            given |= self._people.viewer(who)
        if is_client(event):
            given |= self._people.client(who, at_ms)
            given["client_timestamp"] = pa.array(at_ms - self._underway_ms(count, late), TIMESTAMP)
        if any(column.name == "playback_id" for column in event.columns):
            given["playback_id"] = playback_ids(who, at_ms)
        columns = [given[c.name] if c.name in given else self._column(c, count) for c in event.columns]
        return pa.Table.from_arrays(columns, schema=event.arrow)

    def _column(self, column: Column, count: int) -> pa.Array:
        if column.path[0] == "envelope":
            return pa.nulls(count, column.arrow)
        return self._values.of(column, count, self._chance)

    def _underway_ms(self, count: int, late: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """From a client's clock to the server's: a moment, or as long as the device was offline."""
        moment = self._chance.integers(20, 400, count)
        return moment if late is None else np.where(late, self._chance.integers(*_OFFLINE_MS, count), moment)


def _without(table: pa.Table, name: str, rows: NDArray[np.bool_], instead: str | None) -> pa.Table:
    if not rows.any():
        return table
    return _with(table, name, pc.if_else(pa.array(rows), pa.scalar(instead, pa.string()), table[name]))


def _received(table: pa.Table, at_ms: int) -> pa.Table:
    return _with(table, "event_timestamp", pa.repeat(pa.scalar(at_ms, TIMESTAMP), len(table)))


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name), values)


def _count(rows: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(rows))
