"""A training set of channels whose tune-ins are drawn from a rate that is known: a day's wave, a weekend, and a level
that wanders, which only who looks at the last values can follow.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
START_MS = 1_700_006_400_000  # a midnight
DAYS = 14
HOURS = {"train": range(0, 8 * 24), "validation": range(8 * 24 + 1, 11 * 24), "test": range(11 * 24 + 1, DAYS * 24)}


def write_training_set(folder: Path, *, channels: int = 20, seed: int = 1, start_ms: int = START_MS) -> None:
    """Writes a training set in the format of `pipelines/training_sets` into `folder`."""
    rows = series(channels, seed, start_ms)
    digests = {}
    for split, hours in HOURS.items():
        place = folder / f"split={split}"
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            rows.filter(pa.array(np.isin(rows["hour"].to_numpy(), np.array(hours)))), place / "part-0.parquet"
        )
        digests[f"split={split}/part-0.parquet"] = "0" * 64
    ends = {split: start_ms + hours.stop * HOUR_MS for split, hours in HOURS.items()}
    manifest = {
        "format": 1,
        "name": "anomaly",
        "purpose": "personalization",
        "snapshots": {"silver.live": 41},
        "seed": seed,
        "code_version": "tests",
        "features": ["channel_performance.avg_tune_duration"],
        "horizon_ms": HOUR_MS,
        "rows": {split: len(hours) * channels for split, hours in HOURS.items()},
        "excluded": {},
        "split_ms": {
            "train_end": ends["train"],
            "validation_begin": ends["train"] + HOUR_MS,
            "validation_end": ends["validation"],
            "test_begin": ends["validation"] + HOUR_MS,
            "gap": HOUR_MS,
        },
        "columns": {},
        "schema_hash": "0" * 64,
        "files": digests,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def series(channels: int, seed: int, start_ms: int = START_MS) -> pa.Table:
    """Every channel at every hour."""
    random = np.random.default_rng(seed)
    hours = np.arange(DAYS * 24)
    of_day = 1 + 0.8 * np.sin(2 * np.pi * (hours % 24 - 15) / 24)
    of_week = np.where((hours // 24) % 7 >= 5, 1.5, 1.0)
    parts = []
    for channel in range(channels):
        drift = np.zeros(len(hours))
        for hour in hours[1:]:
            drift[hour] = 0.95 * drift[hour - 1] + random.normal(0, 0.15)
        rate = random.uniform(20, 200) * of_day * of_week * np.exp(drift)
        parts.append(
            pa.table(
                {
                    "channel_id": pa.array([f"ch-{channel:03d}"] * len(hours)),
                    "event_timestamp": pa.array(start_ms + hours * HOUR_MS).cast(pa.timestamp("ms", tz="UTC")),
                    "hour": pa.array(hours),
                    "tune_ins": pa.array(random.poisson(rate)),
                    "weight": pa.array(np.ones(len(hours))),
                }
            )
        )
    return pa.concat_tables(parts)
