"""A training set of accounts whose chance of leaving is known: a sigmoid of hours, stalls and days since watching.

One number has no line through it (both who watches much more than before and who watches much less stay less), so that
trees can find what a logistic regression cannot. The best anyone can do is to say the chance itself.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.churn.features import COLUMNS

DAY_MS = 86_400_000
HORIZON_MS = 30 * DAY_MS
START_MS = 1_700_006_400_000  # a midnight
TIMESTAMP = pa.timestamp("ms", tz="UTC")
ROW_DAYS = {"train": range(0, 40, 4), "validation": range(70, 82, 4), "test": range(112, 124, 4)}
TRAIN_END, VALIDATION_END = START_MS + 40 * DAY_MS, START_MS + 82 * DAY_MS


@dataclass(frozen=True)
class Planted:
    """The world behind a training set."""

    folder: Path
    chances: dict[str, np.ndarray]
    """By split, the chance of each row, in the order of the rows."""


def write_training_set(folder: Path, *, accounts: int = 250, seed: int = 1, start_ms: int = START_MS) -> Planted:
    """Writes a training set in the format of `pipelines/training_sets` into `folder`."""
    random = np.random.default_rng(seed)
    chances, counts, digests = {}, {}, {}
    for split, days in ROW_DAYS.items():
        rows, chances[split] = _rows(random, accounts, np.array(days), start_ms)
        counts[split] = len(rows)
        write_split(folder / f"split={split}", rows)
        digests[f"split={split}/part-0.parquet"] = "0" * 64
    shift = start_ms - START_MS
    manifest = {
        "format": 1,
        "name": "churn",
        "purpose": "personalization",
        "snapshots": {"silver.user": 41, "features.churn_signals_by_user_id": 42},
        "seed": seed,
        "code_version": "tests",
        "features": ["churn_signals.engagement_trend"],
        "horizon_ms": HORIZON_MS,
        "rows": counts,
        "excluded": {"withdrawn_since": 2},
        "split_ms": {
            "train_end": TRAIN_END + shift,
            "validation_begin": START_MS + 70 * DAY_MS + shift,
            "validation_end": VALIDATION_END + shift,
            "test_begin": VALIDATION_END + HORIZON_MS + shift,
            "gap": HORIZON_MS,
        },
        "columns": {name: name.replace("__", ".") for name in COLUMNS if not name.endswith("age_ms")},
        "schema_hash": "0" * 64,
        "files": digests,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Planted(folder, chances)


def write_split(folder: Path, rows: pa.Table) -> None:
    """Writes the rows of one split."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / "part-0.parquet")


def _rows(random: np.random.Generator, accounts: int, days: np.ndarray, start_ms: int) -> tuple[pa.Table, np.ndarray]:
    account = np.repeat(np.arange(accounts), len(days))
    n = len(account)
    hours, delta = random.gamma(2, 5, n), random.normal(0, 4, n)
    stalls, age_days = random.exponential(1, n), random.exponential(4, n)
    log_odds = -1.6 - 0.08 * (hours - 10) + 0.6 * stalls + 0.12 * age_days - 0.5 * np.abs(delta)
    chance = 1 / (1 + np.exp(-log_odds))
    shares = random.dirichlet(np.ones(7), n)
    unknown = random.random(n) < 0.1
    numbers = {
        "churn_signals__viewing_hours_delta": delta,
        "qoe_signals__rebuffer_frequency": stalls,
        "user_viewing_history__age_ms": (age_days * DAY_MS).astype(np.int64),
    }
    columns = {
        "user_id": pa.array([f"{one:064x}" for one in account]),
        "event_timestamp": pa.array(start_ms + np.tile(days, accounts) * DAY_MS).cast(TIMESTAMP),
        "market": pa.array(np.array(["US", "GB", "DE"])[account % 3]),
        "platform": pa.array(np.array(["tv", "mobile"])[account % 2]),
        "subscription_tier": pa.array([None if one % 10 == 0 else "basic" for one in account], pa.string()),
        "days_known": pa.array(account % 60),
        "churned": pa.array(random.random(n) < chance),
        "weight": pa.array(np.ones(n)),
    }
    for name in COLUMNS:
        if name == "user_viewing_history__viewing_hours_per_dow":
            columns[name] = pa.array(list(shares * hours[:, None]), pa.list_(pa.float64()))
        elif name == "user_viewing_history__preferred_content_type":
            kinds = np.array(["vod", "live", None])[random.integers(0, 3, n)]
            columns[name] = pa.array(kinds.tolist(), pa.string())
        elif name in numbers:
            columns[name] = pa.array(numbers[name])
        else:
            columns[name] = pa.array(random.normal(size=n), mask=unknown)
    return pa.table(columns), chance
