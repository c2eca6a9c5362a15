"""Freshness: which model is stale, since when, and what is therefore due (spec 7.3).

A model is fresh for its cadence from when its newest version was trained, or was last found to know all there is to
learn. A version that was trained but never judged, or never put to the gate, is due at once: something was cut short.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion

from models.errors import UnknownModelError
from models.task import load_task, model_names
from pipelines.champions import CHAMPION, FORMER_TAG
from pipelines.errors import ReelError
from pipelines.judging import EVALUATED_TAG
from pipelines.settings import Settings
from pipelines.tracking import ModelNotRegisteredError, Tracking

HOUR_MS = 3_600_000
DECIDED_TAG = "gate.decision"
CONFIRMED_TAG = "confirmed_ms"
"""On a version: when the newest data were found to be those it was trained on, in ms since 1970."""


class NothingTrackedError(ReelError):
    """Runs or versions were asked for before there was any."""


@dataclass(frozen=True)
class Freshness:
    """How a model stands at an instant. Times are milliseconds since the epoch, UTC."""

    model: str
    cadence_hours: float
    newest: str | None
    """Its newest version."""
    fresh_at_ms: int | None
    """When that was trained or confirmed."""
    champion: str | None
    due: str | None
    """Why it is due to be retrained; None: it is not."""
    stale_since_ms: int | None
    """Since when it is older than its cadence; None: it is not, or was never trained."""

    @property
    def words(self) -> str:
        """For people, in one line."""
        if self.due is not None:
            return f"due: {self.due}"
        assert self.fresh_at_ms is not None
        until_ms = self.fresh_at_ms + round(self.cadence_hours * HOUR_MS)
        return f"fresh: version {self.newest}, until {shown(until_ms)}"


def freshness(settings: Settings, now_ms: int | None = None, names: Sequence[str] = ()) -> list[Freshness]:
    """How every model (or those of `names`) stands.

    Raises:
        UnknownModelError: the settings, or `names`, are of a model that there is not.
    """
    now_ms = int(time.time() * 1000) if now_ms is None else now_ms
    known = model_names()
    for name in (*settings.models, *names):
        if name not in known:
            raise UnknownModelError(name, known)
    tracking = tracked(settings)
    found = []
    for name in names or known:
        newest = _newest(tracking, name)
        champion = tracking.alias(name, CHAMPION) if tracking is not None else None
        found.append(judged(name, cadence_hours(settings, name), newest, champion, now_ms))
    return found


def cadence_hours(settings: Settings, model: str) -> float:
    """How often the model is to be retrained: as configured, else as its task says."""
    configured = settings.models[model].cadence_hours if model in settings.models else None
    return load_task(model).cadence_hours if configured is None else configured


def judged(
    model: str, cadence: float, newest: ModelVersion | None, champion: ModelVersion | None, now_ms: int
) -> Freshness:
    """How a model stands at `now_ms`, by its newest version and its champion; `cadence` in hours."""
    bears = str(champion.version) if champion is not None else None
    if newest is None:
        return Freshness(model, cadence, None, None, bears, "no version was ever trained", None)
    tags: Mapping[str, str] = newest.tags
    fresh_at_ms = max(int(newest.creation_timestamp), int(tags.get(CONFIRMED_TAG, 0)))
    stale_at_ms = fresh_at_ms + round(cadence * HOUR_MS)
    stale_since_ms = stale_at_ms if now_ms >= stale_at_ms else None
    if EVALUATED_TAG not in tags:
        due = f"version {newest.version} was trained and never evaluated"
    elif DECIDED_TAG not in tags:
        due = f"version {newest.version} was evaluated and never put to the gate"
    elif _is_let_through(newest) and not _took_over(newest, champion):
        due = f"version {newest.version} was let through the gate and has not taken over"
    elif stale_since_ms is not None:
        due = f"stale since {shown(stale_since_ms)}: version {newest.version} is older than {cadence:g} h"
    else:
        due = None
    return Freshness(model, cadence, str(newest.version), fresh_at_ms, bears, due, stale_since_ms)


def _is_let_through(version: ModelVersion) -> bool:
    return bool(version.tags[DECIDED_TAG] == "published")


def _took_over(newest: ModelVersion, champion: ModelVersion | None) -> bool:
    """Whether it is, or was until somebody published another, the champion."""
    return champion is not None and str(newest.version) in (str(champion.version), champion.tags.get(FORMER_TAG))


def tracked(settings: Settings) -> Tracking | None:
    """MLflow, if there is one: looking does not make its database."""
    if settings.mlflow.tracking_uri is None and not (settings.work_dir / "mlflow.db").exists():
        return None
    return Tracking(settings.tracking_uri)


def opened(settings: Settings) -> Tracking:
    """MLflow, to read from.

    Raises:
        NothingTrackedError: there is none yet.
    """
    found = tracked(settings)
    if found is None:
        raise NothingTrackedError(f"nothing was trained under {settings.work_dir} yet; run `reel train` first")
    return found


def shown(at_ms: int) -> str:
    """An instant as people read it."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _newest(tracking: Tracking | None, model: str) -> ModelVersion | None:
    if tracking is None:
        return None
    try:
        return tracking.version(model, None)
    except ModelNotRegisteredError:
        return None
