"""How titles hold those who watch them."""

from features.aggregates import Count, DistinctCount, Mean, Ratio, Sum, Survival
from features.declarations import Feature, FeatureGroup
from features.purposes import Purpose
from features.sources.engagement import ENGAGEMENT
from features.windows import DAY_MS, Cadence

CONTENT_ENGAGEMENT = FeatureGroup(
    name="content_engagement",
    entities=("content_id",),
    source=ENGAGEMENT,
    cadence=Cadence.DAILY,
    ttl_ms=29 * DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="content",
    description="How far a title is watched, and what follows.",
    features=(
        Feature(
            name="avg_watch_time",
            aggregate=Ratio(Sum("watch_ms"), Count("is_start")),
            window_ms=28 * DAY_MS,
            description="Watch time per playback started.",
            unit="ms",
            range=(0, float("inf")),
        ),
        Feature(
            name="drop_off_curve",
            aggregate=Survival(by="tenths", buckets=10),
            window_ms=28 * DAY_MS,
            description="Share of the VOD playbacks ended that reached 10 %, 20 % … 100 % of the title.",
            unit="share",
            range=(0, 1),
        ),
        Feature(
            name="skip_intro_rate",
            aggregate=Mean("has_skipped_intro"),
            window_ms=28 * DAY_MS,
            description="Share of the VOD playbacks ended in which the intro was skipped.",
            unit="share",
            range=(0, 1),
        ),
        Feature(
            name="binge_rate",
            aggregate=Ratio(DistinctCount("episode_viewer", "went_on"), DistinctCount("episode_viewer")),
            window_ms=28 * DAY_MS,
            description="Share of an episode's viewers who started the next one within 30 minutes of stopping it.",
            unit="share",
            range=(0, 1),
        ),
    ),
)
