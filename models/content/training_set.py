"""The training set of the content model: every title that somebody began, and whether it was finished."""

from features.playbacks import VIEWING_LOG
from features.purposes import Purpose
from features.training import Happened, Label, PerEvent, TrainingSet, events_of
from features.windows import HOUR_MS

STARTS = events_of(
    "title_starts",
    "silver.playback",
    ("playback.started",),
    texts=("profile_id", "user_id", "content_id", "content_type", "content_title", "content_maturity_rating"),
    lists=("content_genres",),
)
TRAINING_SET = TrainingSet(
    name="content",
    spine=PerEvent(STARTS, "profile_id", keeps=(
        "user_id", "content_id", "content_type", "content_title", "content_maturity_rating", "content_genres",
    ), lead_ms=1),
    features=("user_viewing_history_by_profile_id.recent_titles",),
    purpose=Purpose.PERSONALIZATION,
    label=Label("finished", Happened("is_finished"), VIEWING_LOG, by=("profile_id", "content_id")),
    horizon_ms=6 * HOUR_MS,
    description="A title that a viewer began, what the catalogue said of it, and whether it was watched past the half.",
)  # fmt: skip
