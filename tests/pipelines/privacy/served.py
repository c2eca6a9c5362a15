"""Look-ups of people's features, logged as the service does it."""

from collections.abc import Sequence

from features.groups.churn_signals import CHURN_SIGNALS
from features.pseudonyms import Pseudonymizer
from pipelines.settings import Settings
from serving.answer_log import Counts
from serving.consent_gate import ConsentGate, Person
from serving.feature_log import FeatureLog, ServedFeatures
from serving.online_store import open_online_store
from serving.settings import ServedFeatureSettings
from tests.platform import SALT, hashed


def log_served_features(settings: Settings, people: Sequence[str]) -> Counts:
    """One look-up of each user, and one of each one's profile `{person}-p`; one file."""
    chosen = ServedFeatureSettings(folder=settings.served_features_folder, share=1)
    log = FeatureLog(chosen, lambda: open_online_store(settings.online_store_url, readonly=True))
    gate = ConsentGate(Pseudonymizer((SALT,)))
    values = {"support_contact_count": 0}
    for one in people:
        for entity, plain in (("user_id", one), ("profile_id", f"{one}-p")):
            about = gate.hashes(Person(**{entity: plain}))
            log.add([ServedFeatures(CHURN_SIGNALS, entity, hashed(plain), about, values, 5, 1, None, None, None)])
    log.close()
    return log.counts
