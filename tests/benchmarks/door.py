"""How many events a second the door lets in on one core, of servers and of clients.

    python -m tests.benchmarks.door [--rows N] [--users N] [--batches N]

Server events name people and carry no consent, so each asks the history; client events carry theirs, and an address
and an agent to be told from and cut. Every batch is of other events of the same people, as batches of a topic are.
The floor is what cannot be spared: each distinct id hashed once, and the rows copied once. Times are processor
seconds, the median of all batches but the first, because the machine may be shared.
"""

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.consent import ConsentHistory
from features.decision import Registries
from features.profiles import PERSON_IDS, ProfileRegistry
from features.pseudonyms import Pseudonymizer
from pipelines.contract.essential import essential_events
from pipelines.contract.events import Contract, EventSchema, load_contract
from pipelines.door import Door
from pipelines.lakehouse import tables

SALT = "a salt of the benchmarks"
START_MS = 1_767_225_600_000
KIDS_SHARE, REFUSALS = 0.05, 0.05
AGENTS = (
    "Mozilla/5.0 (Linux; Android 14; BRAVIA 4K) Reel/2.3.1",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/131.0.0.0",
    "Mozilla/5.0 (Linux; Android 15; SM-X910) Chrome/131.0.0.0 Safari",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--batches", type=int, default=6)
    asked = parser.parse_args()
    pa.set_cpu_count(1)
    contract = load_contract(Path(__file__).parents[2] / "configs" / "schemas")
    door = door_of(contract, asked.users)
    server = contract.event("session.heartbeat")
    client = contract.event("playback.heartbeat")
    of_servers = [server_batch(server, asked.rows, asked.users, number) for number in range(asked.batches)]
    of_clients = [client_batch(client, asked.rows, asked.users, number) for number in range(asked.batches)]

    def admit(event: EventSchema) -> Callable[[pa.Table], Any]:
        return lambda batch: door.admit(event, batch)

    server_rate = rate(admit(server), of_servers)
    client_rate = rate(admit(client), of_clients)
    floor_rate = rate(floor, of_servers)
    print(
        json.dumps(
            {
                "server_rows_per_cpu_s": round(server_rate),
                "client_rows_per_cpu_s": round(client_rate),
                "vs_floor": round(server_rate / floor_rate, 3),
                "client_vs_floor": round(client_rate / rate(floor, of_clients), 3),
                "rows": asked.rows,
                "users": asked.users,
            }
        )
    )


def rate(work: Callable[[pa.Table], Any], batches: Sequence[pa.Table]) -> float:
    """Rows a processor second, the median of all batches but the first."""
    seconds = []
    for batch in batches:
        started = time.process_time()
        work(batch)
        seconds.append(time.process_time() - started)
    return batches[0].num_rows / statistics.median(seconds[1:])


def floor(batch: pa.Table) -> pa.Table:
    """Hash every distinct id once, and copy the rows once."""
    for name in PERSON_IDS:
        for plain in batch[name].unique().to_pylist():
            hashlib.sha256(((plain or "") + SALT).encode()).hexdigest()
    return batch.take(pa.array(np.arange(batch.num_rows)))


def door_of(contract: Contract, users: int) -> Door:
    """A door that knows everybody's consent and every profile; each user has two."""
    hasher, chance = Pseudonymizer((SALT,)), np.random.default_rng(1)
    said = chance.random(users) >= REFUSALS
    at = pa.array(START_MS - chance.integers(1, 86_400_000, users), pa.timestamp("ms", tz="UTC"))
    consents = {
        "user_id": hasher.hash_column(pa.array([f"usr_{number:08d}" for number in range(users)])),
        **{f"allows_{purpose}": pa.array(said) for purpose in ("analytics", "personalization", "ad_targeting")},
        "event_timestamp": at,
    }
    profiles = {
        "profile_id": hasher.hash_column(pa.array([f"prf_{number:08d}" for number in range(2 * users)])),
        "is_kids": pa.array(chance.random(2 * users) < KIDS_SHARE),
        "event_timestamp": pa.concat_arrays([at, at]),
    }
    return Door(
        hasher,
        Registries(
            ConsentHistory.of(table_like(tables.CONSENTS, consents)),
            ProfileRegistry.of(table_like(tables.PROFILES, profiles)),
            essential_events(contract),
        ),
    )


def server_batch(event: EventSchema, rows: int, users: int, number: int) -> pa.Table:
    """A batch of servers' events: whose they are, and nothing of their consent."""
    chance = np.random.default_rng([2, number])
    profile = chance.integers(0, 2 * users, rows)
    return table_like(event.arrow, {**common(event, "SERVER", profile, users, number), **others(event, rows, chance)})


def client_batch(event: EventSchema, rows: int, users: int, number: int) -> pa.Table:
    """A batch of clients' events: with their consent, address and agent."""
    chance = np.random.default_rng([3, number])
    profile = chance.integers(0, 2 * users, rows)
    return table_like(
        event.arrow,
        {
            **common(event, "CLIENT", profile, users, number),
            "device_id": numbered("dev_{:08d}", profile),
            "device_type": pa.array(["android_tv", "phone", "browser", "tablet"]).take(pa.array(profile % 4)),
            "user_agent": pa.array(AGENTS).take(pa.array(profile % 4)),
            "ip": numbered("81.2.{}.{}", profile % 256, profile // 256 % 256),
            "consent_analytics": pa.array(profile % 20 != 0),
            "consent_personalization": pa.array(profile % 10 != 0),
            "consent_ad_targeting": pa.array(profile % 3 != 0),
            **others(event, rows, chance),
        },
    )


def common(event: EventSchema, source: str, profile: np.ndarray, users: int, number: int) -> dict[str, pa.Array]:
    rows = len(profile)
    return {
        "event_id": numbered("evt_018f3a5c-7b2e-7c1d-9a4f-{:012x}", number * rows + np.arange(rows)),
        "event_name": pa.array([event.name] * rows),
        "event_timestamp": pa.array(START_MS + np.arange(rows) * 2, pa.timestamp("ms", tz="UTC")),
        "source": pa.array([source] * rows),
        "user_id": numbered("usr_{:08d}", profile % users),
        "profile_id": numbered("prf_{:08d}", profile),
        "session_id": numbered("sess_{:08d}", profile),
        "market": pa.array(["GB", "US", "DE"]).take(pa.array(profile % 3)),
        "platform": pa.array(["android_tv", "ios", "web"]).take(pa.array(profile % 3)),
    }


def others(event: EventSchema, rows: int, chance: np.random.Generator) -> dict[str, pa.Array]:
    """The event's own columns, by type."""
    columns = {}
    for column in event.columns:
        if column.path[0] == "envelope":
            continue
        if pa.types.is_string(column.arrow):
            words = column.symbols or [f"{column.name}_{number}" for number in range(50)]
            columns[column.name] = pa.array(words).take(pa.array(chance.integers(0, len(words), rows)))
        elif pa.types.is_integer(column.arrow) or pa.types.is_floating(column.arrow):
            columns[column.name] = pa.array(chance.integers(0, 5_000, rows)).cast(column.arrow)
    return columns


def numbered(pattern: str, *numbers: np.ndarray) -> pa.Array:
    return pa.array([pattern.format(*one) for one in zip(*(each.tolist() for each in numbers), strict=True)])


def table_like(schema: pa.Schema, columns: dict[str, pa.Array]) -> pa.Table:
    """The columns as a table of `schema`, null in those that were not given."""
    rows = len(next(iter(columns.values())))
    return pa.Table.from_arrays(
        [
            columns[field.name].cast(field.type) if field.name in columns else pa.nulls(rows, field.type)
            for field in schema
        ],
        schema=pa.schema([field.with_nullable(True) for field in schema]),
    )


if __name__ == "__main__":
    main()
