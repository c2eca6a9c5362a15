"""The declared rows of a channel are its series: tune-ins hour by hour."""

import numpy as np
import pyarrow as pa

from features.sources.channels import CHANNELS, channels_log
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
    left_for_it = np.array(["ch-1", "ch-2", None])[random.integers(0, 3, count)]
    columns = {
        "event_id": pa.array([str(row) for row in range(count)]),
        "event_name": pa.array(names),
        "event_timestamp": pa.array(at_ms).cast(pa.timestamp("ms")).cast(CHANNELS.schema.field("event_timestamp").type),
        "channel_id": pa.array(channels),
        "previous_channel_id": pa.array(left_for_it),
    }
    types = {"time_zone": pa.string(), "client_timestamp_reliable": pa.bool_(), "viewer_token": pa.string()}
    types |= {"view_duration_ms": pa.int64(), "client_timestamp": columns["event_timestamp"].type}
    log = channels_log(pa.table(columns | {name: pa.nulls(count, one) for name, one in types.items()}))
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
