"""How channels do against each other."""

from features.aggregates import Mean, TopShares, Vector
from features.declarations import Feature, FeatureGroup
from features.filters import Is
from features.purposes import Purpose
from features.sources.channels import CHANNELS
from features.windows import DAY_MS, Cadence

CHANNEL_PERFORMANCE = FeatureGroup(
    name="channel_performance",
    entities=("channel_id",),
    source=CHANNELS,
    cadence=Cadence.HOURLY,
    ttl_ms=8 * DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="live",
    description="Who comes to a channel, stays, and goes where.",
    features=(
        Feature(
            name="avg_tune_duration",
            aggregate=Mean("view_duration_ms"),
            window_ms=7 * DAY_MS,
            description="Mean time on the channel until it was left.",
            unit="ms",
            range=(0, float("inf")),
        ),
        Feature(
            name="tune_time_patterns",
            aggregate=Vector(of=None, by="hour", buckets=24, where=Is("event_name", "channel.tune")),
            window_ms=7 * DAY_MS,
            description="Tune-ins in each hour of the viewer's day, midnight first.",
            unit="tune-ins",
            range=(0, float("inf")),
        ),
        Feature(
            name="channel_flow_matrix",
            aggregate=TopShares(of=None, by="next_channel_id", limit=10),
            window_ms=7 * DAY_MS,
            description="The 10 likeliest next channels, with their shares of all that came next.",
            unit="share",
            range=(0, 1),
        ),
    ),
)
