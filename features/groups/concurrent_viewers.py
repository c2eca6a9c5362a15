"""How many watch at this moment: a channel, a title, on a platform (spec 4.3, 5.2).

Valued at every event, so that windows begin and end anywhere; therefore children count in none of it
(`features.crowds`). `content_popularity.hourly_viewers` counts them, in crowds.
"""

from features.aggregates import DistinctCount
from features.declarations import Feature, FeatureGroup
from features.purposes import Purpose
from features.sources.watching import WATCHING
from features.windows import DAY_MS, MINUTE_MS, Cadence

CONCURRENT_VIEWERS = FeatureGroup(
    name="concurrent_viewers",
    entities=("channel_id", "content_id", "platform"),
    source=WATCHING,
    cadence=Cadence.EVENT,
    ttl_ms=DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="operations",
    description="Who watches at this moment. 0 is a channel that nobody watches any more, null one of the day before.",
    features=(
        Feature(
            name="viewers",
            aggregate=DistinctCount("viewer_token"),
            window_ms=5 * MINUTE_MS,
            description="Distinct viewers in the last 5 minutes, and up to 5 before (HyperLogLog, standard error "
            "0.81 %). Without children.",
            unit="viewers",
            range=(0, float("inf")),
        ),
    ),
)
