"""What the routing model learns from: every playback that started, and the score of its session over that network.

The row lies at the start, so that nothing of the playback is in a feature; the label is what was watched of the session
over the same network and in the same region in the two hours after it, weighted by the time watched.
"""

from features.aggregates import Mean
from features.purposes import Purpose
from features.sources.playback_quality import PLAYBACK_QUALITY
from features.training import Label, PerEvent, SplitByShare, TrainingSet
from features.windows import HOUR_MS
from models.cdn.features import FEATURES, NETWORK
from models.cdn.rows import ACCOUNT, LABEL, NETWORK_REGION

HORIZON_MS = 2 * HOUR_MS
_SESSION = "session_id"

TRAINING_SET = TrainingSet(
    name="cdn",
    spine=PerEvent(PLAYBACK_QUALITY, _SESSION, where="is_start", keeps=(ACCOUNT, NETWORK, NETWORK_REGION)),
    features=FEATURES,
    purpose=Purpose.PERSONALIZATION,
    label=Label(LABEL, Mean("score", weight="watch_ms", unit=1000), PLAYBACK_QUALITY, by=(_SESSION, NETWORK_REGION)),
    horizon_ms=HORIZON_MS,
    split=SplitByShare(0.15, 0.15),
    description="Playbacks at their start, and the quality of their session over the same network in 2 hours after it.",
)
