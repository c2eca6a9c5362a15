"""What the churn model is told of an account: named here, apart from the model, for whoever has to fetch it."""

LAST_ACTIVITY = "user_viewing_history__age_ms"
HISTORY, ACCOUNT_SIGNS, INTERACTIONS, QUALITY = (
    "user_viewing_history", "churn_signals", "user_interaction_signals", "qoe_signals",
)  # fmt: skip
FEATURES = (
    *(f"{ACCOUNT_SIGNS}.{name}" for name in (
        "engagement_trend", "login_frequency_trend", "support_contact_count", "payment_failure_count",
        "viewing_hours_delta", "rebuffering_ratio",
    )),
    *(f"{HISTORY}.{name}" for name in (
        "avg_session_duration", "completion_rate", "viewing_hours_per_dow", "preferred_content_type",
    )),
    *(f"{INTERACTIONS}.{name}" for name in ("click_through_rate", "search_frequency", "browse_depth")),
    *(f"{QUALITY}.{name}" for name in ("avg_qoe_score", "rebuffer_frequency")),
)  # fmt: skip
"""What is asked of the feature store, as `group.feature`."""
COLUMNS = (*(name.replace(".", "__") for name in FEATURES), LAST_ACTIVITY)
"""The columns that these become, and how long ago anything was watched."""
