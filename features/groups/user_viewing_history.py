"""What a user, or a profile, has watched."""

from features.aggregates import Count, Last, Mean, Mode, Ratio, Share, Sum, Vector
from features.declarations import Feature, FeatureGroup
from features.playbacks import VIEWING_LOG
from features.purposes import Purpose
from features.windows import DAY_MS, HOUR_MS, Cadence

USER_VIEWING_HISTORY = FeatureGroup(
    name="user_viewing_history",
    entities=("user_id", "profile_id"),
    source=VIEWING_LOG,
    cadence=Cadence.EVENT,
    ttl_ms=90 * DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="recommendations",
    description="Tastes and habits of a viewer, from what was watched.",
    features=(
        Feature(
            name="last_30_day_genres",
            aggregate=Share(of="watch_ms", by="genres"),
            window_ms=30 * DAY_MS,
            description="Share of watch time of each genre; a title of several genres shares its time equally.",
            unit="share",
            range=(0, 1),
        ),
        Feature(
            name="avg_session_duration",
            aggregate=Ratio(Sum("watch_ms"), Count(where="is_start")),
            window_ms=30 * DAY_MS,
            description="Watch time per playback started.",
            unit="ms",
            range=(0, float("inf")),
        ),
        Feature(
            name="completion_rate",
            aggregate=Mean("is_complete"),
            window_ms=30 * DAY_MS,
            description="Share of the VOD playbacks ended, of known completion, that ended past 90 %.",
            unit="share",
            range=(0, 1),
        ),
        Feature(
            name="viewing_hours_per_dow",
            aggregate=Vector(of="watch_ms", by="weekday", buckets=7, unit=HOUR_MS),
            window_ms=28 * DAY_MS,
            description="Watch time on each day of the week, Monday first, in the viewer's time zone.",
            unit="h",
            range=(0, float("inf")),
        ),
        Feature(
            name="preferred_content_type",
            aggregate=Mode(of="watch_ms", by="content_type"),
            window_ms=30 * DAY_MS,
            description="Content type with the most watch time.",
            unit="content type",
            range=None,
        ),
        Feature(
            name="recent_titles",
            aggregate=Last("content_id", limit=100, where="is_finished"),
            window_ms=90 * DAY_MS,
            description="The last 100 titles finished (stopped at 50 % or more), oldest first.",
            unit="content id",
            range=None,
        ),
        Feature(
            name="completed_titles",
            aggregate=Last("content_id", limit=32, where="is_complete"),
            window_ms=90 * DAY_MS,
            description="The last 32 titles on demand that were watched past 90 %, oldest first.",
            unit="content id",
            range=None,
        ),
    ),
)
