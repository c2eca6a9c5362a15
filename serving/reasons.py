"""Why an answer is less than what was asked for; callers read these words, so they do not change."""

from enum import StrEnum

from serving.errors import ModelSlowError, ServingError, StoreSlowError, StoreUnavailableError


class Reason(StrEnum):
    """Why an answer holds nothing personal, or nothing at all."""

    KIDS_PROFILE = "kids_profile"
    UNKNOWN_VIEWER = "unknown_viewer"
    PROFILE_OF_ANOTHER_USER = "profile_of_another_user"
    CONSENT_REFUSED = "consent_refused"
    CONSENT_UNKNOWN = "consent_unknown"
    PURPOSE_NOT_PERMITTED = "purpose_not_permitted"
    NO_HISTORY = "no_history"
    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_SLOW = "model_slow"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_SLOW = "store_slow"

    @property
    def is_degraded(self) -> bool:
        """Whether something of ours failed, rather than a rule having spoken."""
        return self in _DEGRADED

    @classmethod
    def of(cls, error: ServingError) -> "Reason":
        """The word for a failure of the store or of the model."""
        if isinstance(error, StoreSlowError):
            return cls.STORE_SLOW
        if isinstance(error, StoreUnavailableError):
            return cls.STORE_UNAVAILABLE
        return cls.MODEL_SLOW if isinstance(error, ModelSlowError) else cls.MODEL_UNAVAILABLE


_DEGRADED = frozenset({Reason.MODEL_UNAVAILABLE, Reason.MODEL_SLOW, Reason.STORE_UNAVAILABLE, Reason.STORE_SLOW})
