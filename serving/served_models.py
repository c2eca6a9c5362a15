"""The models that can be asked over HTTP: where, with which scope, and what is answered while a model cannot."""

from dataclasses import dataclass

from features.purposes import Purpose
from serving.tokens import Scope


@dataclass(frozen=True)
class ServedModel:
    """One of them; `purpose` is what the person asked about must allow, None where it is about nobody."""

    name: str
    about: str
    endpoint: str
    scope: Scope
    purpose: Purpose | None
    fallback: str


SERVED = {
    one.name: one
    for one in (
        ServedModel(
            "cascade",
            "titles for a viewer: retrieved, ranked by viewer, title and moment, and made varied",
            "/v1/recommendations",
            Scope.RECOMMENDATIONS,
            Purpose.PERSONALIZATION,
            "the model recommendation alone",
        ),
        ServedModel(
            "recommendation",
            "titles a viewer is likely to finish next, while there is no cascade",
            "/v1/recommendations",
            Scope.RECOMMENDATIONS,
            Purpose.PERSONALIZATION,
            "the titles that most people watch",
        ),
        ServedModel(
            "churn",
            "how likely an account is to cancel within 30 days",
            "/v1/churn",
            Scope.CHURN,
            Purpose.PERSONALIZATION,
            "no score: a guess at who leaves would be acted upon",
        ),
        ServedModel(
            "cdn",
            "how well a session would go over each delivery network",
            "/v1/cdn/route",
            Scope.CDN,
            Purpose.PERSONALIZATION,
            "the mean score of each network in the region over 7 days; where that cannot be read, all networks alike",
        ),
        ServedModel(
            "anomaly",
            "whether a value of a metric is as it should be",
            "/v1/anomalies",
            Scope.ANOMALIES,
            None,
            "the seasonal baseline of the values that are sent, else of what is online of the channel",
        ),
    )
}
"""By name; as many as there are in `serving.settings.MODELS`."""
