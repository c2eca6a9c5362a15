"""How well playback works: for an account, over a delivery network in a region, in a session."""

from features.aggregates import Count, Mean, Ratio, RatioByKey, Slope, Sum
from features.declarations import Feature, FeatureGroup
from features.purposes import Purpose
from features.sources.playback_quality import PLAYBACK_QUALITY
from features.windows import DAY_MS, HOUR_MS, Cadence

QOE_SIGNALS = FeatureGroup(
    name="qoe_signals",
    entities=("user_id", "cdn_region", "session_id"),
    source=PLAYBACK_QUALITY,
    cadence=Cadence.EVENT,
    ttl_ms=8 * DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="delivery",
    description="Quality of experience as the players saw it.",
    features=(
        Feature(
            name="avg_qoe_score",
            aggregate=Mean("score", weight="watch_ms", unit=1000),
            window_ms=7 * DAY_MS,
            description="Session quality score, mean over the time watched; see features.sources.session_quality.",
            unit="score",
            range=(0, 100),
        ),
        Feature(
            name="rebuffer_frequency",
            aggregate=Ratio(Count("is_rebuffer"), Sum("watch_ms"), per=HOUR_MS),
            window_ms=7 * DAY_MS,
            description="Stalls per hour watched.",
            unit="stalls/h",
            range=(0, float("inf")),
        ),
        Feature(
            name="error_rate_by_cdn",
            aggregate=RatioByKey(Count("is_error"), Count("is_start"), by="cdn"),
            window_ms=7 * DAY_MS,
            description="Errors per playback started, over each delivery network.",
            unit="errors/playback",
            range=(0, float("inf")),
        ),
        Feature(
            name="start_time_trend",
            aggregate=Slope(Mean("start_time_ms"), block_ms=DAY_MS),
            window_ms=7 * DAY_MS,
            description="Slope of the daily mean time from pressing play to the first frame; positive where it grows. "
            "Null with starts on fewer than 3 days: of a session, unless it stays open that long, as on a set-top box.",
            unit="ms/day",
            range=(float("-inf"), float("inf")),
        ),
    ),
)
