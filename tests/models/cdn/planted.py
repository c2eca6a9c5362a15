"""A training set of playbacks over three networks whose quality is known: the best one depends on region and hour.

The log was made by a policy that looks at nothing: half of the playbacks over `akamai`, three tenths over `cloudfront`,
the rest over `fastly`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.cdn.features import FEATURE_COLUMNS

HOUR_MS = 3_600_000
START_MS = 1_700_006_400_000  # a midnight
HORIZON_MS = 2 * HOUR_MS
TIMESTAMP = pa.timestamp("ms", tz="UTC")
NETWORKS, SHARES, REGIONS = ("akamai", "cloudfront", "fastly"), (0.5, 0.3, 0.2), ("DE", "US")
DAYS = {"train": (0, 10), "validation": (11, 13), "test": (14, 17)}
ROWS = {"train": 6_000, "validation": 1_500, "test": 3_000}
BASE = np.array([[75.0, 62.0], [65.0, 65.0], [60.0, 78.0]])  # [networks, regions]
EVENING_FALL = np.array([25.0, 0.0, 0.0])  # akamai suffers from 18 o'clock on
NOISE = 8.0


@dataclass(frozen=True)
class Planted:
    """The world behind a training set."""

    folder: Path
    means: dict[str, np.ndarray]
    """By split [rows, networks], the mean score of each row over each network."""


def write_training_set(folder: Path, *, times: int = 1, seed: int = 1) -> Planted:
    """Writes a training set in the format of `pipelines/training_sets` into `folder`, of `times` as many rows."""
    random = np.random.default_rng(seed)
    means, digests = {}, {}
    counts = {split: rows * times for split, rows in ROWS.items()}
    for split, days in DAYS.items():
        rows, means[split] = _rows(random, counts[split], days)
        (folder / f"split={split}").mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, folder / f"split={split}" / "part-0.parquet")
        digests[f"split={split}/part-0.parquet"] = "0" * 64
    day_ms = 24 * HOUR_MS
    manifest = {
        "format": 1,
        "name": "cdn",
        "purpose": "personalization",
        "snapshots": {"silver.playback": 41},
        "seed": seed,
        "code_version": "tests",
        "features": ["qoe_signals_by_cdn_region.avg_qoe_score"],
        "horizon_ms": HORIZON_MS,
        "rows": counts,
        "excluded": {},
        "split_ms": {
            "train_end": START_MS + 10 * day_ms,
            "validation_begin": START_MS + 11 * day_ms,
            "validation_end": START_MS + 13 * day_ms,
            "test_begin": START_MS + 14 * day_ms,
            "gap": HORIZON_MS,
        },
        "columns": {name: name.replace("__", ".") for name in FEATURE_COLUMNS},
        "schema_hash": "0" * 64,
        "files": digests,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Planted(folder, means)


def _rows(random: np.random.Generator, count: int, days: tuple[int, int]) -> tuple[pa.Table, np.ndarray]:
    at_ms = np.sort(random.integers(days[0] * 24 * HOUR_MS, days[1] * 24 * HOUR_MS, count))
    hour = at_ms // HOUR_MS % 24
    region, network = random.integers(0, 2, count), random.choice(3, count, p=SHARES)
    is_cellular = random.random(count) < 0.3
    means = BASE[:, region].T - np.where(hour >= 18, 1, 0)[:, None] * EVENING_FALL - 10 * is_cellular[:, None]
    score = np.clip(random.normal(means[np.arange(count), network], NOISE), 0, 100)
    columns = {
        "user_id": pa.array([f"{one:064x}" for one in random.integers(0, 300, count)]),
        "session_id": pa.array([f"{one:064x}" for one in range(count)]),
        "event_timestamp": pa.array(START_MS + at_ms).cast(TIMESTAMP),
        "cdn": pa.array(np.array(NETWORKS)[network]),
        "cdn_region": pa.array([f"{NETWORKS[a]}/{REGIONS[b]}" for a, b in zip(network, region, strict=True)]),
        "score": pa.array(score, mask=random.random(count) < 0.02),
    }
    known = {
        "qoe_signals_by_cdn_region__avg_qoe_score": pa.array(BASE[network, region] + random.normal(0, 1, count)),
        "session_context__time_of_day": pa.array(hour),
        "session_context__day_of_week": pa.array(at_ms // (24 * HOUR_MS) % 7),
        "session_context__device_type": pa.array(np.array(["tv", "mobile"])[random.integers(0, 2, count)]),
        "session_context__connection_type": pa.array(np.where(is_cellular, "cellular", "wifi")),
    }
    for name in FEATURE_COLUMNS:
        columns[name] = known.get(name, pa.array(random.normal(size=count), mask=random.random(count) < 0.1))
    return pa.table(columns), means
