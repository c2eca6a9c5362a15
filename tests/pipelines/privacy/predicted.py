"""Answers of models about people, logged as the service does it."""

import json
from collections.abc import Sequence

from features.pseudonyms import Pseudonymizer
from pipelines.settings import Settings
from serving.answer_log import Counts
from serving.consent_gate import ConsentGate, Person
from serving.online_store import open_online_store
from serving.prediction_log import Prediction, PredictionLog
from serving.settings import PredictionSettings
from tests.platform import SALT, hashed

ALLOWED = {"allows_analytics": True, "allows_personalization": True, "allows_ad_targeting": True}


def log_predictions(settings: Settings, people: Sequence[str], *, rows: int = 2) -> Counts:
    """So many answers about each, who allow it unless they said otherwise; one file. Their profile is `{person}-p`."""
    with open_online_store(settings.online_store_url) as store:
        known = store.get_many("consents", [hashed(one) for one in people])
        unasked = [one for one, consent in zip(people, known, strict=True) if consent is None]
        store.put_many("consents", [(hashed(one), json.dumps(ALLOWED).encode()) for one in unasked])
    chosen = PredictionSettings(folder=settings.predictions_folder)
    log = PredictionLog(chosen, lambda: open_online_store(settings.online_store_url, readonly=True))
    gate = ConsentGate(Pseudonymizer((SALT,)))
    for number in range(rows):
        log.add(
            [
                Prediction(
                    "churn",
                    "1",
                    "champion",
                    {"probability": 0.25},
                    gate.hashes(Person(user_id=one, profile_id=f"{one}-p")),
                    answer_id=str(number),
                    session_hash=hashed(f"{one}-session"),
                )
                for one in people
            ]
        )
    log.close()
    return log.counts
