"""Random tables of people's events, and who is who in them by brute force over plain rows."""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.pseudonyms import Pseudonymizer
from pipelines.contract.events import load_contract
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.settings import Settings

SALTS = ("the first salt of all", "the salt of today")
T0, HOUR, DAY = 1_767_600_000_000, 3_600_000, 86_400_000
USERS = [f"user-{number}" for number in range(12)]
Row = dict[str, Any]


def hashed(plain: str, salt: str = SALTS[-1]) -> str:
    """The pseudonym spec 8.3 asks for, computed without Reel."""
    return hashlib.sha256((plain + salt).encode()).hexdigest()


def token(profile: str, at_ms: int, salt: str = SALTS[-1]) -> str:
    """A child's token of a day, computed without Reel."""
    name = f"kids:{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d}:{profile}"
    return hmac.new(salt.encode(), name.encode(), hashlib.sha256).hexdigest()


@dataclass
class World:
    """A lakehouse, and beside it every row that was written to it."""

    folder: Path
    written: dict[str, list[Row]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = Settings(work_dir=self.folder)
        self.lakehouse = Lakehouse.open(self.settings)
        self.hasher = Pseudonymizer(SALTS)
        contract = load_contract(self.settings.schemas)
        features = pa.schema([("profile_id", pa.string()), ("event_timestamp", tables.TIMESTAMP), ("n", pa.int64())])
        specs = [
            tables.bronze_events(contract, "month"),
            tables.silver_domain(contract, "browse", "month"),
            tables.TableSpec("features.sample_by_profile_id", features, (("profile_id", "bucket[4]"),)),
            tables.profiles(),
            tables.consents(),
            tables.silver_titles(),
        ]
        self.specs = {spec.name: spec for spec in specs}

    def append(self, name: str, *rows: Row) -> None:
        """Write rows in one commit; `at_ms` is their `event_timestamp`."""
        kept = {"at_ms", *self.specs[name].schema.names}
        rows = tuple({column: value for column, value in row.items() if column in kept} for row in rows)
        self.written.setdefault(name, []).extend(rows)
        schema = pa.schema([one.with_nullable(True) for one in self.specs[name].schema])
        whole = [{**row, "event_timestamp": row["at_ms"] * 1000} for row in rows]
        table = pa.Table.from_pylist(whole, schema=schema)
        table = table.select([one for one in table.column_names if table[one].null_count < len(table)])
        made = self.lakehouse.table(self.specs[name])
        commit_files(made, write_files(TableFiles.of(made), table), None)

    def describe(self, user: str | None, profile: str, *, is_kids: bool = False, salt: str = SALTS[-1]) -> None:
        """A row of the registry; plain ids."""
        who = None if user is None else hashed(user, salt)
        row = {"user_id": who, "profile_id": hashed(profile, salt), "is_kids": is_kids, "at_ms": T0 - DAY}
        self.append("privacy.profiles", row)

    def scatter(self, seed: int) -> None:
        """Random rows: several salts, rows without a user or without a profile, sessions alone and shared, children."""
        rng = np.random.default_rng(seed)
        for number, user in enumerate(USERS):
            for place in range(3):
                if rng.random() < 0.8:
                    profile, salt = f"profile-{number}-{place}", SALTS[rng.integers(2)]
                    self.describe(user if rng.random() < 0.9 else None, profile, is_kids=place == 2, salt=salt)
        for name in ("bronze.events", "silver.browse", "bronze.events", "features.sample_by_profile_id"):
            for _ in range(3):
                self.append(name, *(self._row(rng, number) for number in range(40)))

    def _row(self, rng: np.random.Generator, number: int) -> Row:
        who, place, salt = rng.integers(len(USERS)), rng.integers(3), SALTS[rng.integers(2)]
        profile = hashed(f"profile-{who}-{place}", salt)
        at_ms = T0 + int(rng.integers(5 * DAY))
        row: Row = {"event_name": "tile.click", "at_ms": at_ms, "n": number}
        if place == 2:
            return row | {"viewer_token": token(profile, at_ms, salt), "is_kids": True}
        session = rng.integers(4) if rng.random() < 0.2 else 100 + who * 10 + rng.integers(4)  # few are shared
        ids = {"user_id": hashed(USERS[who], salt), "profile_id": profile, "session_id": hashed(str(session), salt)}
        kept = {name: one for name, one in ids.items() if rng.random() < 0.75}
        return row | kept | ({"viewer_token": profile} if "profile_id" in kept else {})
