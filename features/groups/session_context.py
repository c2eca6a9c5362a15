"""In which surroundings a session takes place."""

from features.aggregates import Last
from features.declarations import Feature, FeatureGroup
from features.purposes import Purpose
from features.sources.sessions import SESSIONS
from features.windows import DAY_MS, Cadence

SESSION_CONTEXT = FeatureGroup(
    name="session_context",
    entities=("session_id",),
    source=SESSIONS,
    cadence=Cadence.EVENT,
    ttl_ms=DAY_MS,
    purpose=Purpose.PERSONALIZATION,
    owner="recommendations",
    description="When, on what and over what somebody is here, and how often today.",
    features=(
        Feature(
            name="time_of_day",
            aggregate=Last("hour", is_whole=True),
            window_ms=DAY_MS,
            description="Hour of the viewer's day at the latest launch or start, 0 to 23.",
            unit="h",
            range=(0, 23),
        ),
        Feature(
            name="day_of_week",
            aggregate=Last("weekday", is_whole=True),
            window_ms=DAY_MS,
            description="Day of the viewer's week at the latest launch or start, 0 is Monday.",
            unit="weekday",
            range=(0, 6),
        ),
        Feature(
            name="device_type",
            aggregate=Last("device_type"),
            window_ms=DAY_MS,
            description="Kind of device.",
            unit="device type",
            range=None,
        ),
        Feature(
            name="connection_type",
            aggregate=Last("connection_type"),
            window_ms=DAY_MS,
            description="Network of the device: wifi, ethernet, cellular or unknown.",
            unit="connection type",
            range=None,
        ),
        Feature(
            name="session_number_today",
            aggregate=Last("session_number", is_whole=True),
            window_ms=DAY_MS,
            description="Which session of the profile's day it is, from 1.",
            unit="sessions",
            range=(0, float("inf")),
        ),
    ),
)
