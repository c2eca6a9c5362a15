"""How many watch a title, and whether they stay."""

from features.aggregates import DistinctCount, Mean, Trend
from features.declarations import Feature, FeatureGroup
from features.playbacks import VIEWING_LOG
from features.purposes import Purpose
from features.windows import DAY_MS, HOUR_MS, Cadence

CONTENT_POPULARITY = FeatureGroup(
    name="content_popularity",
    entities=("content_id",),
    source=VIEWING_LOG,
    cadence=Cadence.HOURLY,
    ttl_ms=8 * DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="recommendations",
    description="Viewers of a title, hour by hour.",
    features=(
        Feature(
            name="hourly_viewers",
            aggregate=DistinctCount("viewer_token"),
            window_ms=HOUR_MS,
            description="Distinct viewers in the last hour (HyperLogLog, standard error 0.81 %).",
            unit="viewers",
            range=(0, float("inf")),
        ),
        Feature(
            name="daily_unique_viewers",
            aggregate=DistinctCount("viewer_token"),
            window_ms=DAY_MS,
            description="Distinct viewers in the last 24 hours (HyperLogLog, standard error 0.81 %).",
            unit="viewers",
            range=(0, float("inf")),
        ),
        Feature(
            name="completion_rate",
            aggregate=Mean("is_complete"),
            window_ms=7 * DAY_MS,
            description="Share of the VOD playbacks ended, of known completion, that ended past 90 %.",
            unit="share",
            range=(0, 1),
        ),
        Feature(
            name="trending_velocity",
            aggregate=Trend(DistinctCount("viewer_token"), days=7),
            window_ms=HOUR_MS,
            description="Viewers in the last hour over their mean in the same hour of the 7 days before.",
            unit="ratio",
            range=(0, float("inf")),
        ),
    ),
)
