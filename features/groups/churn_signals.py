"""Signs that a customer will stay or leave."""

from features.aggregates import Count, Delta, Ratio, Slope, Sum
from features.declarations import Feature, FeatureGroup
from features.filters import Is
from features.purposes import Purpose
from features.sources.account_signals import ACCOUNT_SIGNALS
from features.windows import DAY_MS, HOUR_MS, Cadence

CHURN_SIGNALS = FeatureGroup(
    name="churn_signals",
    entities=("user_id",),
    source=ACCOUNT_SIGNALS,
    cadence=Cadence.DAILY,
    ttl_ms=60 * DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="growth",
    description="Engagement and trouble of an account over four weeks.",
    features=(
        Feature(
            name="engagement_trend",
            aggregate=Slope(Sum("watch_ms"), block_ms=7 * DAY_MS, unit=HOUR_MS),
            window_ms=28 * DAY_MS,
            description="Slope of the weekly watch time; positive where it grows.",
            unit="h/week",
            range=(float("-inf"), float("inf")),
        ),
        Feature(
            name="login_frequency_trend",
            aggregate=Slope(Count(Is("event_name", "auth.login_succeeded")), block_ms=7 * DAY_MS),
            window_ms=28 * DAY_MS,
            description="Slope of the weekly log-ins; positive where they become more.",
            unit="log-ins/week",
            range=(float("-inf"), float("inf")),
        ),
        Feature(
            name="support_contact_count",
            aggregate=Count(Is("event_name", "support.contacted")),
            window_ms=28 * DAY_MS,
            description="Times that support was contacted.",
            unit="contacts",
            range=(0, float("inf")),
        ),
        Feature(
            name="payment_failure_count",
            aggregate=Count(Is("event_name", "payment.failed")),
            window_ms=28 * DAY_MS,
            description="Payments that failed.",
            unit="payments",
            range=(0, float("inf")),
        ),
        Feature(
            name="viewing_hours_delta",
            aggregate=Delta(Sum("watch_ms"), unit=HOUR_MS),
            window_ms=28 * DAY_MS,
            description="Watch time of the last 14 days less that of the 14 before.",
            unit="h",
            range=(float("-inf"), float("inf")),
        ),
        Feature(
            name="rebuffering_ratio",
            aggregate=Ratio(Sum("stalled_ms"), Sum("watch_ms")),
            window_ms=28 * DAY_MS,
            description="Time stalled over time watched.",
            unit="ratio",
            range=(0, float("inf")),
        ),
    ),
)
