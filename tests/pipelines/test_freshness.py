"""When a model is stale, since when, and what else makes it due."""

from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion

from models.errors import UnknownModelError
from pipelines.freshness import (
    CONFIRMED_TAG,
    HOUR_MS,
    NothingTrackedError,
    cadence_hours,
    freshness,
    judged,
    opened,
)
from pipelines.settings import ModelSettings, Settings
from tests.pipelines.registry import MODEL, Registered

TRAINED_MS = 1_800_000_000_000
DONE = {"evaluated": "recommendation", "gate.decision": "refused"}


def version(number: str = "3", **tags: str) -> ModelVersion:
    found = ModelVersion(MODEL, number, creation_timestamp=TRAINED_MS)
    for name, value in {**DONE, **tags}.items():
        found.tags[name] = value
    return found


@pytest.mark.parametrize(
    ("tags", "hours", "stale_hours", "due"),
    [
        ({}, 5.99, None, None),
        ({}, 6, 6, "stale since"),
        ({}, 100, 6, "stale since"),
        ({CONFIRMED_TAG: str(TRAINED_MS + 5 * HOUR_MS)}, 10.9, None, None),
        ({CONFIRMED_TAG: str(TRAINED_MS + 5 * HOUR_MS)}, 11, 11, "stale since"),
    ],
)
def test_a_model_is_fresh_for_its_cadence(
    tags: dict[str, str], hours: float, stale_hours: float | None, due: str | None
) -> None:
    found = judged(MODEL, 6, version(**tags), None, TRAINED_MS + round(hours * HOUR_MS))
    assert found.stale_since_ms == (None if stale_hours is None else TRAINED_MS + round(stale_hours * HOUR_MS))
    assert (found.due is None) if due is None else str(found.due).startswith(due)


def test_what_was_cut_short_is_due_at_once() -> None:
    found = version()
    del found.tags["gate.decision"]
    assert judged(MODEL, 6, found, None, TRAINED_MS).due == "version 3 was evaluated and never put to the gate"
    del found.tags["evaluated"]
    assert judged(MODEL, 6, found, None, TRAINED_MS).due == "version 3 was trained and never evaluated"
    let_through = version(**{"gate.decision": "published"})
    cut = judged(MODEL, 6, let_through, version("2"), TRAINED_MS)
    assert cut.due == "version 3 was let through the gate and has not taken over"
    assert judged(MODEL, 6, let_through, let_through, TRAINED_MS).due is None
    # Somebody has published an older one over it since.
    assert judged(MODEL, 6, let_through, version("2", **{"champion.former": "3"}), TRAINED_MS).due is None


def test_words_say_until_when_or_why() -> None:
    assert judged(MODEL, 6, version(), None, TRAINED_MS).words == "fresh: version 3, until 2027-01-15 14:00 UTC"
    stale = judged(MODEL, 6, version(), None, TRAINED_MS + 7 * HOUR_MS)
    assert stale.words == "due: stale since 2027-01-15 14:00 UTC: version 3 is older than 6 h"
    assert judged(MODEL, 6, None, None, TRAINED_MS).words == "due: no version was ever trained"


def test_the_cadence_is_the_tasks_unless_it_is_configured(tmp_path: Path) -> None:
    assert cadence_hours(Settings(work_dir=tmp_path), MODEL) == 6
    settings = Settings(work_dir=tmp_path, models={MODEL: ModelSettings(cadence_hours=0.5)})
    assert cadence_hours(settings, MODEL) == 0.5


def test_looking_makes_no_database_and_finds_what_there_is(tmp_path: Path) -> None:
    settings = Settings(work_dir=tmp_path)
    (found,) = freshness(settings, names=[MODEL])
    assert found.due == "no version was ever trained"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NothingTrackedError, match="reel train"):
        opened(settings)

    registered = Registered(tmp_path)
    registered.version(**DONE)
    newest = registered.version(**DONE)
    (found,) = freshness(settings, now_ms=newest.creation_timestamp, names=[MODEL])
    assert (found.newest, found.champion, found.due) == ("2", None, None)


def test_a_model_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="'recomendation'"):
        freshness(Settings(work_dir=tmp_path, models={"recomendation": ModelSettings()}))
    with pytest.raises(UnknownModelError, match="'nobody'"):
        freshness(Settings(work_dir=tmp_path), names=["nobody"])
