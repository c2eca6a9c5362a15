"""What the churn model learns from: every active account at every midnight, and whether it cancelled in 30 days.

An account is active from its first event on and until it cancels, while an event of it is at most 60 days old. One that
comes back after cancelling has no more rows: nothing that the platform sends says that it is a customer again.
"""

from features.filters import Is
from features.purposes import Purpose
from features.training import Every, Happened, Label, SplitByShare, TrainingSet, events_of
from features.windows import DAY_MS
from models.churn.features import FEATURES
from models.churn.judging import DAYS_KNOWN, SLICED_BY
from models.churn.training import ACCOUNT, LABEL

HORIZON_MS = 30 * DAY_MS
CANCELLED = Is("event_name", "subscription.cancelled")
ACCOUNTS = events_of(
    "accounts",
    "silver.user",
    ("auth.login_succeeded", "entitlement.changed", "support.contacted", "payment.failed", "subscription.cancelled"),
    texts=(ACCOUNT, *SLICED_BY),
)
TRAINING_SET = TrainingSet(
    name="churn",
    spine=Every(
        ACCOUNTS,
        ACCOUNT,
        step_ms=DAY_MS,
        seen_within_ms=60 * DAY_MS,
        ended_by=CANCELLED,
        keeps=tuple(SLICED_BY),
        days_known=DAYS_KNOWN,
    ),
    features=FEATURES,
    purpose=Purpose.PERSONALIZATION,
    label=Label(LABEL, Happened(CANCELLED), ACCOUNTS, by=(ACCOUNT,)),
    horizon_ms=HORIZON_MS,
    split=SplitByShare(0.3, 0.2),
    description="Active accounts at each midnight (UTC), and whether they cancelled in the 30 days after it.",
)
