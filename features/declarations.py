"""What a feature group is, said once. Declarations are checked when they are made: a wrong one fails at load.

FeatureGroup(
    name="content_popularity",
    entities=("content_id",),
    source=VIEWING_LOG,
    cadence=Cadence.HOURLY,
    ...
    features=(
        Feature("hourly_viewers", DistinctCount("viewer_token"), window_ms=HOUR_MS, unit="viewers", ...),
    ),
)
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import pyarrow as pa

from features.aggregates import Aggregate, Span
from features.columns import TIMESTAMP
from features.errors import DeclarationError
from features.filters import Is
from features.names import nearest
from features.purposes import Purpose
from features.source import EVENT_ID, EVENT_NAME, EVENT_TIME, Source
from features.sources import SOURCES
from features.states import State
from features.windows import Cadence, Int64s, edge_ms, tile_length_ms

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
TILE_LENGTH, TILE_START, LAST_EVENT = "tile_ms", "tile_start", "last_event_timestamp"
CREATED = "created_timestamp"
_RESERVED = {TILE_LENGTH, TILE_START, LAST_EVENT, EVENT_TIME, CREATED, EVENT_ID}


@dataclass(frozen=True)
class Feature:
    """One number, text, list or map: an aggregate over a window.

    `unit` is what one of it is; `range` the least and greatest value possible (of every element, if it has
    several), None for text.
    """

    name: str
    aggregate: Aggregate
    window_ms: int
    description: str
    unit: str
    range: tuple[float, float] | None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise DeclarationError(f"feature {self.name!r}: a name is lower case letters, digits and _, like watch_ms")
        if self.name in _RESERVED:
            raise DeclarationError(f"feature {self.name}: that name is taken by a column that every table has")
        if self.window_ms <= 0:
            raise DeclarationError(f"feature {self.name}: window {self.window_ms} ms is empty; give it a length")
        if not self.description or not self.unit:
            raise DeclarationError(f"feature {self.name}: description and unit must say something")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise DeclarationError(f"feature {self.name}: range {self.range} is bad; give (least, greatest)")
        if mistake := mistake_of(self.aggregate, self.window_ms):
            raise DeclarationError(f"feature {self.name}: {mistake}")

    @property
    def arrow_type(self) -> pa.DataType:
        """Type of its values."""
        return self.aggregate.arrow_type

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The parts of the window that are read."""
        return self.aggregate.spans(self.window_ms)

    def reach_ms(self, at_ms: Int64s) -> Int64s:
        """First millisecond that the values at the instants depend on."""
        return edge_ms(at_ms, max(span.since_ms for span in self.spans), self.window_ms)


@dataclass(frozen=True)
class FeatureGroup:
    """Features of the same entities, from the same log, at the same cadence.

    A value is known `delay_ms` after its boundary (None: the cadence's default) and null once the last
    event that contributed is more than `ttl_ms` old.
    """

    name: str
    entities: tuple[str, ...]
    source: Source
    cadence: Cadence
    ttl_ms: int
    purpose: Purpose
    owner: str
    description: str
    features: tuple[Feature, ...]
    delay_ms: int | None = None

    def __post_init__(self) -> None:
        if self.delay_ms is None:
            object.__setattr__(self, "delay_ms", self.cadence.default_delay_ms)
        self._check_itself()
        for feature in self.features:
            self._check_feature(feature)

    @property
    def delay(self) -> int:
        """`delay_ms`, which is never None once the group is made."""
        assert self.delay_ms is not None
        return self.delay_ms

    @property
    def age_column(self) -> str:
        """Column of the age of a row's values: the instant less the last event that contributed, in ms."""
        return f"{self.name}__age_ms"

    @cached_property
    def states_of_tile(self) -> dict[int, tuple[State, ...]]:
        """Tile length in ms, ascending, to the states that tiles of this length must hold."""
        states: dict[int, dict[State, None]] = {}
        for feature in self.features:
            states.setdefault(self.tile_ms(feature), {}).update(dict.fromkeys(feature.aggregate.states))
        return {length: tuple(states[length]) for length in sorted(states)}

    @cached_property
    def states(self) -> tuple[State, ...]:
        """Every state once, in the order of the features."""
        return tuple(dict.fromkeys(state for feature in self.features for state in feature.aggregate.states))

    def stored_as(self, entity: str) -> str:
        """Name of what is stored of the group for `entity`: a user and a profile may share an id."""
        return f"{self.name}_by_{entity}"

    def tile_ms(self, feature: Feature) -> int:
        """Length of the tiles that the feature is read from."""
        return tile_length_ms(feature.window_ms, self.cadence)

    def feature_schema(self) -> pa.Schema:
        """The features' columns."""
        return pa.schema([(feature.name, feature.arrow_type) for feature in self.features])

    def tile_schema(self, entity: str) -> pa.Schema:
        """Columns of the group's tiles: a tile holds the states of its length, the others are null."""
        self.check_entity(entity)
        return self._tile_schemas[entity]

    @cached_property
    def _tile_schemas(self) -> dict[str, pa.Schema]:
        times = [(TILE_LENGTH, pa.int64()), (TILE_START, TIMESTAMP), (LAST_EVENT, TIMESTAMP)]
        states = [(state.name, state.arrow_type) for state in self.states]
        return {entity: pa.schema([(entity, pa.string()), *times, *states]) for entity in self.entities}

    def row_schema(self, entity: str) -> pa.Schema:
        """Columns of the group's values at cadence boundaries."""
        keys = [(entity, pa.string()), (EVENT_TIME, TIMESTAMP), (CREATED, TIMESTAMP), (LAST_EVENT, TIMESTAMP)]
        return pa.schema(keys + list(zip(self.feature_schema().names, self.feature_schema().types, strict=True)))

    @cached_property
    def fingerprint(self) -> bytes:
        """8 bytes that differ as soon as stored tiles or values would mean something else."""
        features = [(feature.name, feature.aggregate, feature.window_ms) for feature in self.features]
        said = repr((self.name, str(self.cadence), features))
        return hashlib.blake2b(said.encode(), digest_size=8).digest()

    def check_entity(self, entity: str) -> None:
        """Raise `DeclarationError` unless the group has this entity."""
        if entity not in self.entities:
            raise DeclarationError(f"group {self.name} has no entity {entity!r}; it has {', '.join(self.entities)}")

    def _check_itself(self) -> None:
        if not _NAME.match(self.name):
            raise DeclarationError(f"group {self.name!r}: a name is lower case letters, digits and _")
        if not self.entities or not self.features:
            raise DeclarationError(f"group {self.name}: it needs at least one entity and one feature")
        if not self.owner or not self.description:
            raise DeclarationError(f"group {self.name}: owner and description must say something")
        if not isinstance(self.source, Source):
            known = [source.name for source in SOURCES]
            raise DeclarationError(
                f"group {self.name}: source {self.source!r} is no Source; the nearest is "
                f"{nearest(str(self.source), known)}, of {', '.join(known)}"
            )
        if self.ttl_ms <= 0 or self.delay < 0:
            raise DeclarationError(f"group {self.name}: ttl {self.ttl_ms} ms or delay {self.delay} ms is bad")
        for entity in self.entities:
            if entity not in self.source.schema.names or self.source.schema.field(entity).type != pa.string():
                texts = [field.name for field in self.source.schema if field.type == pa.string()]
                raise DeclarationError(
                    f"group {self.name}: entity {entity} is no text column of the source {self.source.name}; "
                    f"the nearest is {nearest(entity, texts)}, of {', '.join(texts)}"
                )
        clash = _first_twice([feature.name for feature in self.features] + list(self.entities))
        if clash:
            raise DeclarationError(f"group {self.name}: the name {clash} is given twice")
        clash = _first_twice([state.name for state in self.states])
        if clash:
            raise DeclarationError(
                f"group {self.name}: two conditions are both stored as {clash}; make a flag column for one of them"
            )

    def _check_feature(self, feature: Feature) -> None:
        check_columns(f"group {self.name}, feature {feature.name}", feature.aggregate, self.source)


def mistake_of(aggregate: Aggregate, window_ms: int) -> str | None:
    """What is wrong with the aggregate, or with such a window for it or a part of it; None if nothing is."""
    mistakes = (one.mistake(window_ms) for one in _parts(aggregate))
    return next((mistake for mistake in mistakes if mistake), None)


def check_aggregate(where: str, aggregate: Aggregate, source: Source, window_ms: int) -> None:
    """Raise `DeclarationError` unless the aggregate can be worked out over such a window of the source's log."""
    if mistake := mistake_of(aggregate, window_ms):
        raise DeclarationError(f"{where}: {mistake}")
    check_columns(where, aggregate, source)


def check_columns(where: str, aggregate: Aggregate, source: Source) -> None:
    """Raise `DeclarationError` where the aggregate reads a column or an event that the source's log has not."""
    columns = source.schema.names
    for state in aggregate.states:
        for column, kind in state.inputs:
            if column not in columns:
                raise DeclarationError(
                    f"{where}: unknown column {column}; the nearest is {nearest(column, columns)}, "
                    f"{source.name} has {', '.join(columns)}"
                )
            arrow_type = source.schema.field(column).type
            if not kind.accepts(arrow_type):
                raise DeclarationError(f"{where}: column {column} is {arrow_type}, where {kind} is needed")
    for condition in _conditions(aggregate):
        for value in condition.values:
            if condition.column == EVENT_NAME and value not in source.events:
                raise DeclarationError(
                    f"{where}: unknown event {value}; the nearest is {nearest(value, source.events)}, "
                    f"{source.name} is made of {', '.join(source.events)}"
                )


def _parts(aggregate: Aggregate) -> Iterator[Aggregate]:
    """The aggregate, and those it is made of."""
    yield aggregate
    for field in fields(aggregate):  # type: ignore[arg-type]  # every aggregate is a dataclass
        part = getattr(aggregate, field.name)
        if isinstance(part, Aggregate):
            yield from _parts(part)


def _conditions(aggregate: Aggregate) -> Iterator[Is]:
    """The conditions on values in it."""
    for part in _parts(aggregate):
        where = getattr(part, "where", None)
        if isinstance(where, Is):
            yield where


def _first_twice(names: Sequence[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)
