"""What the anomaly model learns from: for every channel and hour, how many viewers tuned in during that hour.

The rows of a channel, by instant, are its series. The value of a row is known an hour after its instant, which is the
instant of the next row, so the values of earlier rows are what is known at a row.
"""

from features.aggregates import Count
from features.filters import Is
from features.purposes import Purpose
from features.sources.channels import CHANNELS
from features.training import Every, Label, SplitByShare, TrainingSet
from features.windows import DAY_MS, HOUR_MS
from models.anomaly.training import SEGMENT, VALUE

TRAINING_SET = TrainingSet(
    name="anomaly",
    spine=Every(CHANNELS, SEGMENT, step_ms=HOUR_MS, seen_within_ms=3 * DAY_MS),
    features=("channel_performance.avg_tune_duration",),
    purpose=Purpose.PERSONALIZATION,
    label=Label(VALUE, Count(Is("event_name", "channel.tune")), CHANNELS, by=(SEGMENT,)),
    horizon_ms=HOUR_MS,
    split=SplitByShare(0.15, 0.15),
    description="Channels at every hour (UTC) and how many tune-ins came in the hour after it.",
)
