"""Champions: which version serving follows, which one was there before, and why it changed.

In the registry an alias is one row, so that moving it is the one step that counts: everything else that a promotion or
a roll-back writes comes before it, and writing it again changes nothing. Killed anywhere, the champion is the old one
or the new one, and the same command run again brings it to its end.
"""

from collections.abc import Mapping

from mlflow.entities.model_registry import ModelVersion

from pipelines.tracking import Tracking
from pipelines.version import code_version

CHAMPION, CHALLENGER = "champion", "challenger"
FORMER_TAG = "champion.former"
"""On a version that became champion: the version that was it before."""
ROLLED_BACK_TAG = "rolled_back.reason"
"""On a version that was champion and was found to be wrong: why. The gate lets it through no more."""
DECISION_FILE = "gate/decision.json"


def crown(tracking: Tracking, candidate: ModelVersion, champion: ModelVersion | None) -> None:
    """Makes the candidate champion.

    1. Note on it who was champion before.
    2. The former champion becomes the challenger; where there is none, the candidate ceases to be it.
    3. Move the alias.
    """
    if champion is not None:
        tracking.tag_version(candidate, {FORMER_TAG: str(champion.version)})
        tracking.set_alias(champion, CHALLENGER)
    else:
        no_challenger(tracking, candidate)
    tracking.set_alias(candidate, CHAMPION)


def log_decision(tracking: Tracking, version: ModelVersion, decision: Mapping[str, object]) -> None:
    """What the gate decided of a version, and why, as a file of its run."""
    facts = {"model": version.name, "version": str(version.version), "code_version": code_version(), **decision}
    tracking.client.log_dict(str(version.run_id), facts, DECISION_FILE)


def no_challenger(tracking: Tracking, version: ModelVersion) -> None:
    """The version is not the challenger any more, if it was."""
    challenger = tracking.alias(version.name, CHALLENGER)
    if challenger is not None and challenger.version == version.version:
        tracking.remove_alias(version.name, CHALLENGER)
