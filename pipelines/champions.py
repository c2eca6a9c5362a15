"""Champions: which version serving follows, which one was there before, and why it changed.

In the registry an alias is one row, so that moving it is the one step that counts: everything else that a promotion or
a roll-back writes comes before it, and writing it again changes nothing. Killed anywhere, the champion is the old one
or the new one, and the same command run again brings it to its end.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion

from pipelines.errors import ReelError, UsageError
from pipelines.report import StationReport, timed
from pipelines.tracking import Tracking
from pipelines.version import code_version

CHAMPION, CHALLENGER = "champion", "challenger"
FORMER_TAG = "champion.former"
"""On a version that became champion: the version that was it before."""
ROLLED_BACK_TAG = "rolled_back.reason"
"""On a version that was champion and was found to be wrong: why. The gate lets it through no more."""
DECISION_FILE, ROLL_BACK_FILE = "gate/decision.json", "gate/roll_back.json"


class NothingToRollBackError(ReelError):
    """There is no champion, or none before it."""


class NotChampionError(UsageError):
    """A version was to be rolled back that is not the champion."""


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
        _no_challenger(tracking, candidate)
    tracking.set_alias(candidate, CHAMPION)


def log_decision(tracking: Tracking, version: ModelVersion, decision: Mapping[str, object]) -> None:
    """What the gate decided of a version, and why, as a file of its run."""
    facts = {"model": version.name, "version": str(version.version), "code_version": code_version(), **decision}
    tracking.client.log_dict(str(version.run_id), facts, DECISION_FILE)


def roll_back(
    model: str, *, tracking_uri: str, version: str | None = None, reason: str = "no reason was given"
) -> StationReport:
    """Give the alias `champion` back to the version that had it before.

    1. Log on the version that goes: why, when, and who comes back.
    2. The one that comes back ceases to be the challenger.
    3. Move the alias.

    Args:
        model: the registered model's name.
        tracking_uri: MLflow's address.
        version: the champion that has to go; one that has gone already is left as it is, so that who does not know
            whether a roll-back came to its end can run it again. None means whichever is champion.
        reason: for people who will ask.

    Raises:
        NothingToRollBackError: there is no champion, or none before it.
        NotChampionError: `version` is not the champion, and was not rolled back.
    """
    tracking = Tracking(tracking_uri)
    with timed("publish") as report:
        champion = tracking.alias(model, CHAMPION)
        if champion is None:
            raise NothingToRollBackError(f"{model} has no champion; `reel publish {model}` makes one")
        if version is not None and str(champion.version) != version:
            gone = tracking.version(model, version)
            if ROLLED_BACK_TAG not in gone.tags:
                raise NotChampionError(f"{model} {version} is not the champion: version {champion.version} is")
            report.did = {"already rolled back": f"version {version}", "reason": gone.tags[ROLLED_BACK_TAG]}
            report.wrote = {CHAMPION: str(champion.version)}
            return report
        if FORMER_TAG not in champion.tags:
            raise NothingToRollBackError(
                f"{model} {champion.version} is the first champion: there is none to go back to; "
                f"publish another version with `reel publish {model} --version N`"
            )
        former = tracking.version(model, champion.tags[FORMER_TAG])
        _log_roll_back(tracking, champion, former, reason)
        _no_challenger(tracking, former)
        tracking.set_alias(former, CHAMPION)
        report.read = {"champion": f"version {champion.version}"}
        report.did = {"decision": "rolled back", "reason": reason}
        report.wrote = {CHAMPION: str(former.version)}
    return report


def _log_roll_back(tracking: Tracking, champion: ModelVersion, former: ModelVersion, reason: str) -> None:
    at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
    facts = {"version": str(champion.version), "back_to": str(former.version), "reason": reason, "at": at}
    tracking.client.log_dict(str(champion.run_id), facts, ROLL_BACK_FILE)
    tracking.tag_version(
        champion,
        {
            "rolled_back.to": str(former.version),
            "rolled_back.at": at,
            ROLLED_BACK_TAG: reason,
            "gate.decision": "rolled back",
        },
    )


def _no_challenger(tracking: Tracking, version: ModelVersion) -> None:
    """The version is not the challenger any more, if it was."""
    challenger = tracking.alias(version.name, CHALLENGER)
    if challenger is not None and challenger.version == version.version:
        tracking.remove_alias(version.name, CHALLENGER)
