"""What the routing model is told of a session and a network: apart from the model, for whoever has to fetch it."""

NETWORK, REGION = "cdn", "region"
OF_NETWORK = ("qoe_signals_by_cdn_region.avg_qoe_score", "qoe_signals_by_cdn_region.rebuffer_frequency")
FEATURES = (
    *OF_NETWORK,
    "qoe_signals_by_user_id.avg_qoe_score",
    "qoe_signals_by_user_id.rebuffer_frequency",
    "session_context.time_of_day",
    "session_context.day_of_week",
    "session_context.device_type",
    "session_context.connection_type",
)
"""What is asked of the feature store, as `group.feature`."""
NETWORK_COLUMNS = tuple(name.replace(".", "__") for name in OF_NETWORK)
FEATURE_COLUMNS = tuple(name.replace(".", "__") for name in FEATURES)
COLUMNS = (NETWORK, REGION, *FEATURE_COLUMNS)
"""What the trees see."""
