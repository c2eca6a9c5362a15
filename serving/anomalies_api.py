"""`/v1/anomalies`: is the newest value of a metric as it should be, given the values before it?

1. the model                 of what it was trained on, tune-ins of a channel by the hour
2. the seasonal baseline     of every other metric, and where the model is missing or too slow (`degraded` then): what
                             the hour of the week expects, by the values that are sent (`models.anomaly.baseline`); of
                             tune-ins, if those are too few, by what the online store has of the channel's 30 days,
                             which `reel stream` keeps up to the last second

A value is told as the watcher tells it: from a score on that about one value a day reaches where nothing changes, the
more severe the farther outside the band (`models.anomaly.watcher`). It is about nobody, so nobody is asked for consent.

The log keeps `{"metric", "segment", "value", "expected", "low", "high", "score", "severity"}` of what the model said.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from itertools import pairwise
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field

from features.groups.channel_load import CHANNEL_LOAD
from models.anomaly.baseline import Expected, baseline_of, baseline_of_slots
from models.anomaly.watcher import WatchConfig, severity_of
from serving import feature_values as online
from serving.access import Access
from serving.errors import ModelUnavailableError, StoreUnavailableError
from serving.hosting.questions import Forecast, Next
from serving.predicting import ExperimentArm, Logged, Predicted, Predicting
from serving.problems import ProblemError, responses
from serving.reasons import Reason
from serving.store_reader import StoreReader
from serving.tokens import Scope

MODEL = "anomaly"
LEARNT_METRIC, LEARNT_DIMENSION = "tune_ins", "channel"
FEWEST_VALUES = 8
"""Before the newest one, from which on the model goes by them; by fewer it goes by the past that it keeps itself."""
MOST_VALUES = 10_000
"""30 days of values every 5 minutes, and some more."""
_HOUR_MS = 3_600_000
Name = Annotated[str, Field(min_length=1, max_length=100)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
Severity = Literal["normal", "notice", "warning", "critical"]


class Value(BaseModel):
    """One value of a metric."""

    at: AwareDatetime = Field(description="when it was measured", examples=["2026-05-04T12:00:00Z"])
    value: Number = Field(examples=[118.0])


class Segment(BaseModel):
    """Of which part of the platform; none of them is all of it."""

    cdn: Name | None = None
    isp: Name | None = None
    region: Name | None = None
    platform: Name | None = None
    channel: Name | None = Field(default=None, examples=["ch-news"])

    @property
    def key(self) -> str:
        """The same as text."""
        return ",".join(f"{name}={value}" for name, value in self.model_dump(exclude_none=True).items())


class AnomalyQuestion(BaseModel):
    """A metric's last values, the newest of which is judged by those before it."""

    metric: Name = Field(examples=["tune_ins"])
    segment: Segment = Segment()
    values: list[Value] = Field(min_length=1, max_length=MOST_VALUES, description="oldest first, at even steps")


class Anomaly(BaseModel):
    """What the newest value should have been, and how far from that it is."""

    metric: str
    segment: Segment
    at: datetime
    value: float
    expected: float | None = Field(description="null where the values before it are too few to expect anything")
    low: float | None = Field(description="the band in which values lie where nothing is wrong")
    high: float | None
    score: float | None = Field(description="-log10 of the probability of a value at least as far out", examples=[0.7])
    severity: Severity | None = Field(description="normal: nobody has to be told")
    source: Literal["model", "baseline"]
    reason: Reason | None = Field(description="why the answer is less than it could be")
    degraded: bool = Field(description="true if the model should have answered and could not")
    model: str | None = Field(examples=["anomaly"])
    model_version: str | None = Field(examples=["2"])
    experiment: ExperimentArm | None = None


@dataclass(frozen=True)
class _Judged:
    expected: float
    low: float
    high: float
    score: float
    severity: Severity


@dataclass(frozen=True)
class Detecting:
    """Answers from the model, or from the baseline of what is sent."""

    predicting: Predicting
    store: StoreReader
    deadline_ms: int

    async def answer(self, asked: AnomalyQuestion) -> Anomaly:
        """The answer; a failure of the model is one with a reason."""
        failure: Reason | None = None
        if _is_learnt(asked):
            try:
                predicted = await self.predicting.ask(MODEL, asked.segment.key, _next(asked), self.deadline_ms / 1000)
            except ModelUnavailableError as error:
                failure = Reason.of(error)
            else:
                self.predicting.record(predicted, None, partial(_logged, asked))
                return _answered(asked, _of_model(asked, predicted.answer), predicted, None)
        judged = await asyncio.to_thread(_by_baseline, asked)
        if judged is None and _is_learnt(asked):
            judged = await self._by_stored(asked)
        return _answered(asked, judged, None, failure)

    async def _by_stored(self, asked: AnomalyQuestion) -> _Judged | None:
        """By what is online of the channel; None where that is nothing, or nobody can tell."""
        channel, newest = asked.segment.channel, asked.values[-1]
        name = CHANNEL_LOAD.stored_as("channel_id")
        try:
            packed = await self.store.read(
                lambda store: store.get_many(name, [channel] if channel else []), is_short=True
            )
            found = online.columns(CHANNEL_LOAD, packed, _ms(newest.at) + CHANNEL_LOAD.delay)
        except StoreUnavailableError:
            return None
        (counts,) = found.columns["tune_ins_by_hour"] or [None]
        if counts is None:
            return None
        expected = baseline_of_slots(counts, _ms(newest.at)).expected(_ms(newest.at))
        return None if expected is None else _judged(newest.value, expected, WatchConfig(step_ms=_HOUR_MS))


def _is_learnt(asked: AnomalyQuestion) -> bool:
    """Whether the metric is the one that the model was trained on."""
    return asked.metric == LEARNT_METRIC and list(asked.segment.model_dump(exclude_none=True)) == [LEARNT_DIMENSION]


def _next(asked: AnomalyQuestion) -> Next:
    before = [one.value for one in asked.values[:-1]]
    newest = asked.values[-1]
    history = before if len(before) >= FEWEST_VALUES else None
    return Next(asked.segment.channel or "", _ms(newest.at), history, newest.value)


def _of_model(asked: AnomalyQuestion, given: Forecast | None) -> _Judged | None:
    if given is None:
        return None
    config = WatchConfig(step_ms=_HOUR_MS)
    expected = Expected(given.expected, given.scale, len(asked.values))
    value = asked.values[-1].value
    return _Judged(given.expected, given.low, given.high, given.score, _severity(value, expected, given.score, config))


def _by_baseline(asked: AnomalyQuestion) -> _Judged | None:
    """By the seasonal baseline of the values before; None where there are too few of them."""
    *before, newest = [(_ms(one.at), one.value) for one in asked.values]
    expected = baseline_of(before).expected(newest[0])
    if expected is None:
        return None
    return _judged(newest[1], expected, WatchConfig(step_ms=_step_ms([at_ms for at_ms, _ in before] + [newest[0]])))


def _judged(value: float, expected: Expected, config: WatchConfig) -> _Judged:
    score = expected.surprise(value)
    low, high = expected.band(config.band_deviations)
    return _Judged(expected.value, low, high, score, _severity(value, expected, score, config))


def _severity(value: float, expected: Expected, score: float, config: WatchConfig) -> Severity:
    return "normal" if score < config.threshold else severity_of(value, expected, config.band_deviations)


def _step_ms(instants_ms: Sequence[int]) -> int:
    """How often a value comes, by the median of what lies between two; 12 hours at most, as a day has several."""
    steps = sorted(later - earlier for earlier, later in pairwise(instants_ms))
    return min(max(steps[len(steps) // 2], 1), 12 * _HOUR_MS)


def _ms(at: datetime) -> int:
    return math.floor(at.timestamp() * 1000)


def _logged(asked: AnomalyQuestion, given: Forecast | None) -> list[Logged]:
    judged = _of_model(asked, given)
    if judged is None:
        return []
    said: dict[str, Any] = {"metric": asked.metric, "segment": asked.segment.model_dump(exclude_none=True)}
    said |= {"value": asked.values[-1].value, **vars(judged)}
    return [Logged(said, None)]


def _answered(
    asked: AnomalyQuestion, judged: _Judged | None, predicted: Predicted | None, failure: Reason | None
) -> Anomaly:
    reason = failure or (Reason.NO_HISTORY if judged is None else None)
    newest = asked.values[-1]
    return Anomaly(
        metric=asked.metric,
        segment=asked.segment,
        at=newest.at.astimezone(UTC),
        value=newest.value,
        expected=None if judged is None else judged.expected,
        low=None if judged is None else judged.low,
        high=None if judged is None else judged.high,
        score=None if judged is None else judged.score,
        severity=None if judged is None else judged.severity,
        source="baseline" if predicted is None else "model",
        reason=reason,
        degraded=failure is not None,
        model=None if predicted is None else MODEL,
        model_version=None if predicted is None else predicted.given.version,
        experiment=None if predicted is None else predicted.experiment,
    )


def anomaly_routes(detecting: Detecting, access: Access) -> APIRouter:
    """The endpoint."""
    router = APIRouter(
        tags=["anomalies"],
        dependencies=access.to(Scope.ANOMALIES),
        responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY, *access.problems),
    )

    @router.post("/v1/anomalies", summary="Is a metric as it should be?")
    async def anomaly(question: AnomalyQuestion) -> Anomaly:
        """The newest value, judged by those before it: 30 days of them give an expectation for the hour of the week.

        `tune_ins` of a channel is judged by the model, and knows the channel's past by itself.
        """
        instants = [one.at for one in question.values]
        if any(later <= earlier for earlier, later in pairwise(instants)):
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "values must be in the order of `at`, each at its own")
        return await detecting.answer(question)

    return router
