"""What is said of people and titles in Kafka: read before the events that it decides on, and told to everybody.

People reach the online store with the batch that heard of them, so that the service asks whom it must no longer
answer with what is theirs; whoever is deleted refuses everything from then on.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.consent import ANSWERED
from pipelines.admission import people_rows
from pipelines.kafka.message import Messages
from pipelines.messages import MessageDecoder
from pipelines.online_people import put_spoken_of
from pipelines.silver.rules import VALID, Rules
from pipelines.silver.targets import CATALOGUE_EVENTS
from pipelines.silver.titles import announce
from pipelines.stream.known import CONSENTS, ERASURES, PROFILES, SCHEMAS, STONES, TITLES, Known, as_stones
from serving.online_store import OnlineStore


@dataclass(frozen=True)
class Hearing:
    """Messages of the topics that tell of people and titles, into rows of their tables."""

    decoder: MessageDecoder
    known: Known

    def __call__(self, batch: Sequence[Messages]) -> dict[str, pa.Table]:
        """New rows by table; of titles, all there are now if there is a new one."""
        news: dict[str, list[pa.Table]] = {}
        announced: list[pa.Table] = []
        for messages in batch:
            for part in people_rows(self.decoder, self.known.hasher, self.known.erased, messages).parts:
                if part.rows.num_rows:
                    schema = SCHEMAS[part.table]
                    news.setdefault(part.table, []).append(part.rows.select(schema.names).cast(schema))
            announced += self._announced(messages)
        heard = {name: pa.concat_tables(some) for name, some in news.items()}
        if ERASURES in heard:
            heard[STONES] = as_stones(heard[ERASURES])
        if announced:
            before = self.known.tables[TITLES]
            after = announce(before, pa.concat_tables(announced, promote_options="default"))
            if after.added:
                heard[TITLES] = after.rows if after.is_rewritten else pa.concat_tables([before, after.rows])
        return heard

    def _announced(self, messages: Messages) -> Iterable[pa.Table]:
        for schema, events, _ in self.decoder.decode(messages.values).events:
            if schema.name not in CATALOGUE_EVENTS:
                continue
            rows = self.known.door.admit(schema, events).rows
            is_valid = np.asarray(Rules.of(schema).verdicts(rows).cast(pa.string())) == VALID
            rows = rows.filter(pa.array(is_valid))
            yield rows.append_column("announced_by", rows["event_name"])


def put_people(store: OnlineStore, known: Known, news: Mapping[str, pa.Table]) -> int:
    """Write who is spoken of to the online store, as they are known now; how many records."""
    written = 0
    for name in (PROFILES, CONSENTS):
        if name in news:
            written += put_spoken_of(store, name, known.tables[name], news[name])
    if ERASURES in news:
        refusal = json.dumps({f"allows_{purpose}": False for purpose in ANSWERED}).encode()
        gone = news[ERASURES]["pseudonym"].unique().to_pylist()
        written += store.put_many("consents", ((name, refusal) for name in gone))
    return written
