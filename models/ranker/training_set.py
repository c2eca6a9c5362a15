"""The training set of the ranker: every tile that a viewer was shown, and whether it was then watched past the half.

Those that were shown and not watched are the negatives; none are drawn beside them.
"""

from features.playbacks import VIEWING_LOG
from features.purposes import Purpose
from features.training import Happened, Label, PerEvent, TrainingSet, events_of
from features.windows import HOUR_MS
from models.ranker.features import SESSION_FEATURES, TITLE_FEATURES, VIEWER_FEATURES

TILES = events_of(
    "tiles_shown",
    "silver.browse",
    ("tile.impression",),
    texts=("profile_id", "user_id", "session_id", "content_id", "rail_id"),
    whole=("tile_position", "content_episode_number", "content_runtime_ms"),
    lists=("content_genres",),
)
TRAINING_SET = TrainingSet(
    name="ranker",
    spine=PerEvent(TILES, "profile_id", keeps=(
        "user_id", "session_id", "content_id", "rail_id", "tile_position", "content_genres", "content_episode_number",
        "content_runtime_ms",
    )),
    features=(
        *VIEWER_FEATURES,
        *TITLE_FEATURES,
        *SESSION_FEATURES,
    ),
    purpose=Purpose.PERSONALIZATION,
    label=Label("watched", Happened("is_finished"), VIEWING_LOG, by=("profile_id", "content_id")),
    horizon_ms=6 * HOUR_MS,
    description="A tile shown to a viewer, what was known then, and whether the title was watched past the half.",
)  # fmt: skip
