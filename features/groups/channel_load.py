"""What comes to a channel hour by hour: what anomalies are told from (spec 4.3, `models.anomaly.baseline`)."""

from features.aggregates import Vector
from features.declarations import Feature, FeatureGroup
from features.filters import Is
from features.purposes import Purpose
from features.sources.channels import CHANNELS, HOUR_SLOTS
from features.windows import DAY_MS, Cadence

CHANNEL_LOAD = FeatureGroup(
    name="channel_load",
    entities=("channel_id",),
    source=CHANNELS,
    cadence=Cadence.EVENT,
    ttl_ms=31 * DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="operations",
    description="The last 30 days of a channel, hour by hour; what to expect of the next one follows from it.",
    features=(
        Feature(
            name="tune_ins_by_hour",
            aggregate=Vector(of=None, by="hour_slot", buckets=HOUR_SLOTS, where=Is("event_name", "channel.tune")),
            window_ms=30 * DAY_MS,
            description="Tune-ins of each hour; the place of an hour is its number since 1970 (UTC), modulo 744. "
            "Without children.",
            unit="tune-ins",
            range=(0, float("inf")),
        ),
    ),
)
