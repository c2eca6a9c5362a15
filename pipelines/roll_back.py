"""Roll back: the champion there was before is champion again.

Input     the version that bears `champion`, and which one did before it
Does      notes the reason where whoever asks will look, and moves the alias; see `pipelines.champions` on kills
Output    the alias `champion` on the former version; the one that went is refused by the gate from now on
"""

import time
from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion

from pipelines.champions import CHAMPION, FORMER_TAG, ROLLED_BACK_TAG, no_challenger
from pipelines.errors import ReelError, UsageError
from pipelines.model_card import write_card
from pipelines.report import StationReport, timed
from pipelines.tracking import Tracking

ROLL_BACK_FILE = "gate/roll_back.json"


class NothingToRollBackError(ReelError):
    """There is no champion, or none before it."""


class NotChampionError(UsageError):
    """A version was to be rolled back that is not the champion."""


def roll_back(
    model: str, *, tracking_uri: str, version: str | None = None, reason: str = "no reason was given"
) -> StationReport:
    """Give the alias `champion` back to the version that had it before.

    1. Log on the version that goes: why, when, and who comes back.
    2. The one that comes back ceases to be the challenger.
    3. Move the alias.
    4. Write the model cards of both anew.

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
        no_challenger(tracking, former)
        tracking.set_alias(former, CHAMPION)
        for one in (champion, former):
            write_card(tracking, model, str(one.version))
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
