"""The declared rows of a channel are its series: tune-ins hour by hour."""

import numpy as np
import pyarrow as pa

from features.sources.channels import CHANNELS
from features.training.labels import label_values
from models.anomaly.training_set import TRAINING_SET

HOUR_MS = 3_600_000
START_MS = 1_700_006_400_000


def test_a_row_is_a_channel_and_hour_and_its_label_the_tune_ins_of_the_hour_after() -> None:
    random = np.random.default_rng(1)
    count, hours = 400, 48
    at_ms = START_MS + random.integers(0, hours * HOUR_MS, count)
    channels = np.array(["ch-1", "ch-2"])[random.integers(0, 2, count)]
    names = np.array(["channel.tune", "channel.tune_away"])[random.integers(0, 2, count)]
    columns = {
        "event_id": pa.array([str(row) for row in range(count)]),
        "event_name": pa.array(names),
        "event_timestamp": pa.array(at_ms).cast(pa.timestamp("ms")).cast(CHANNELS.schema.field("event_timestamp").type),
        "channel_id": pa.array(channels),
    }
    log = pa.table(
        {field.name: columns.get(field.name, pa.nulls(count, field.type)) for field in CHANNELS.schema},
        schema=CHANNELS.schema,
    )
    rows = TRAINING_SET.spine.rows(log, START_MS + (hours - 1) * HOUR_MS)
    segments = np.array(rows["channel_id"].to_pylist())
    instants = rows["event_timestamp"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_numpy()
    assert np.all(np.diff(instants[segments == "ch-1"]) == HOUR_MS), "every hour, a quiet one too"
    keys = pa.array(["ch-1", "ch-2"])
    owners = np.array([["ch-1", "ch-2"].index(one) for one in segments])
    (labels,) = label_values(TRAINING_SET.labels, TRAINING_SET.horizon_ms, log, keys, owners, instants)
    brute = [
        int(np.sum((channels == segment) & (names == "channel.tune") & (at_ms > at) & (at_ms <= at + HOUR_MS)))
        for segment, at in zip(segments, instants, strict=True)
    ]
    assert labels.to_pylist() == brute
    assert sum(brute) > 150
