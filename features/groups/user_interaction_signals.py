"""What a user, or a profile, looks for and clicks."""

from features.aggregates import Count, Rate, Ratio, Share, Sum
from features.declarations import Feature, FeatureGroup
from features.filters import Is
from features.purposes import Purpose
from features.sources.interactions import INTERACTIONS
from features.windows import DAY_MS, Cadence

USER_INTERACTION_SIGNALS = FeatureGroup(
    name="user_interaction_signals",
    entities=("user_id", "profile_id"),
    source=INTERACTIONS,
    cadence=Cadence.EVENT,
    ttl_ms=30 * DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="recommendations",
    description="Interest that a viewer shows before anything is watched.",
    features=(
        Feature(
            name="click_through_rate",
            aggregate=Ratio(Count(Is("event_name", "tile.click")), Count(Is("event_name", "tile.impression"))),
            window_ms=7 * DAY_MS,
            description="Tiles clicked over tiles shown.",
            unit="ratio",
            range=(0, float("inf")),
        ),
        Feature(
            name="search_frequency",
            aggregate=Rate(Count(Is("event_name", "search.query")), per=7),
            window_ms=7 * DAY_MS,
            description="Searches a day.",
            unit="searches/day",
            range=(0, float("inf")),
        ),
        Feature(
            name="browse_depth",
            aggregate=Ratio(Sum("deeper"), Count("is_first_scroll")),
            window_ms=7 * DAY_MS,
            description="Mean of how far a rail was scrolled at the deepest, over the rails scrolled in a session.",
            unit="per mille",
            range=(0, float("inf")),
        ),
        Feature(
            name="genre_click_distribution",
            aggregate=Share(of=None, by="clicked_genres"),
            window_ms=30 * DAY_MS,
            description="Share of clicks of each genre; a title of several genres shares its clicks equally.",
            unit="share",
            range=(0, 1),
        ),
    ),
)
