"""Asking a model as callers are to be answered: the right arm of an experiment, and a log of what was said.

Every endpoint of a model goes through here, so that experiments, shadows and the log are the same for all.
"""

import asyncio
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field

from serving.consent_gate import Hashes
from serving.errors import ModelUnavailableError
from serving.experiments import Assignment, Experiments
from serving.hosting.client import ModelClient
from serving.hosting.questions import Answered, Arm
from serving.prediction_log import Prediction, PredictionLog

MOST_SHADOWS = 64
"""Challengers asked for the log at once in one process; further ones are not asked."""


class ExperimentArm(BaseModel):
    """The side of an experiment that the person asked about is on."""

    name: str = Field(examples=["deeper-trees"])
    arm: Arm = Field(description="whose answer this is")


@dataclass(frozen=True)
class Predicted:
    """An answer, and under which circumstances it was given."""

    model: str
    question: Any
    given: Answered
    assignment: Assignment | None

    @property
    def answer(self) -> Any:
        """The model's answer to the question."""
        return self.given.answer

    @property
    def experiment(self) -> ExperimentArm | None:
        """As answers show it; of a shadow nobody hears."""
        if self.assignment is None:
            return None
        return ExperimentArm(name=self.assignment.experiment, arm=self.given.arm)


@dataclass(frozen=True)
class Logged:
    """What the log keeps of an answer, or of one of the answers to a question about many."""

    prediction: Mapping[str, Any]
    about: Hashes | None
    session_hash: str | None = None
    propensity: float | None = None


Describe = Callable[[Any], Sequence[Logged]]
"""From a model's answer to what the log keeps of it; of the champion's and of a challenger's alike."""


@dataclass
class Predicting:
    """The models, the experiments on them, and the log; one for all endpoints of a process."""

    client: ModelClient
    experiments: Experiments
    log: PredictionLog | None
    share: float
    """Of answers that are logged."""
    timeout_s: float
    """How long a shadow may take."""
    _shadows: set[asyncio.Task[None]] = field(default_factory=set)
    _random: random.Random = field(default_factory=random.Random)

    async def ask(self, model: str, unit: str | None, question: Any, timeout_s: float) -> Predicted:
        """The answer of the arm that `unit` (a pseudonym, a series) is on.

        Raises ModelSlowError and ModelUnavailableError.
        """
        return await self.ask_on(self.experiments.of(model, unit), model, question, timeout_s)

    async def ask_on(self, assignment: Assignment | None, model: str, question: Any, timeout_s: float) -> Predicted:
        """The same for some who are on one side together."""
        arm: Arm = "champion" if assignment is None else assignment.answers
        given = await self.client.ask(model, arm, question, timeout_s)
        return Predicted(model, question, given, assignment)

    def record(self, predicted: Predicted, as_of_ms: int | None, describe: Describe) -> None:
        """Log a share of the answers, and what the challenger says of them where it is a shadow. Never waits."""
        if self.log is None:
            return
        described = describe(predicted.answer)
        answers = {n: uuid.uuid4().hex for n in range(len(described)) if self._random.random() < self.share}
        if not answers:
            return
        self.log.add(_rows(predicted, predicted.given, described, answers, as_of_ms, is_shadow=False))
        if predicted.assignment is not None and predicted.assignment.shadow and len(self._shadows) < MOST_SHADOWS:
            shadow = asyncio.create_task(self._shadow(predicted, as_of_ms, describe, answers))
            self._shadows.add(shadow)
            shadow.add_done_callback(self._shadows.discard)

    async def _shadow(
        self, predicted: Predicted, as_of_ms: int | None, describe: Describe, answers: Mapping[int, str]
    ) -> None:
        try:
            given = await self.client.ask(predicted.model, "challenger", predicted.question, self.timeout_s)
        except ModelUnavailableError:
            return
        if given.arm == "challenger" and self.log is not None:
            described = describe(given.answer)
            self.log.add(_rows(predicted, given, described, answers, as_of_ms, is_shadow=True))


def _rows(
    predicted: Predicted,
    given: Answered,
    described: Sequence[Logged],
    answers: Mapping[int, str],
    as_of_ms: int | None,
    *,
    is_shadow: bool,
) -> list[Prediction]:
    return [
        Prediction(
            predicted.model,
            given.version,
            given.arm,
            described[place].prediction,
            described[place].about,
            as_of_ms,
            answer_id,
            None if predicted.assignment is None else predicted.assignment.experiment,
            is_shadow,
            described[place].session_hash,
            described[place].propensity,
        )
        for place, answer_id in answers.items()
    ]
