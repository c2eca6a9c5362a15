"""How each model is loaded and asked. A library is imported by the process that needs it, when it loads a model."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from models.errors import ModelFolderError
from serving.hosting.followed import Servable
from serving.hosting.questions import (
    Accounts,
    ChurnScore,
    Driver,
    Expectations,
    Forecast,
    Next,
    Ranked,
    Routes,
    Titles,
)

if TYPE_CHECKING:
    from models.anomaly.forecaster import Forecaster
    from models.cascade.cascade import Cascade
    from models.cdn.quality import QualityModel
    from models.churn.scorer import ChurnScorer
    from models.recommendation.recommender import Recommender

MOST_DRIVERS = 5
_SMALLEST = 1e-300  # its logarithm is still a number


@dataclass(frozen=True)
class ServedRecommender:
    """The sequential recommender."""

    recommender: "Recommender"

    def answer(self, questions: Sequence[Titles]) -> list[Ranked]:
        """For each the titles likeliest to be finished next, none of them among those finished."""
        most = max(one.k for one in questions)
        ranked = self.recommender.recommend([one.history for one in questions], most)
        return [Ranked(scored[: one.k]) for one, scored in zip(questions, ranked, strict=True)]

    def warm_up(self) -> None:
        """A viewer without a history."""
        self.answer([Titles([], 1)])


@dataclass
class ServedCascade:
    """The cascade: what was retrieved, ranked and made varied. Titles' numbers may be replaced while it answers."""

    cascade: "Cascade"

    def learn(self, numbers: Mapping[str, Mapping[str, float]]) -> None:
        """Newer numbers of some titles, by the ranker's columns."""
        from models.cascade.cascade import Cascade

        made = self.cascade
        catalogue = made.catalogue.as_of_now(numbers)
        self.cascade = Cascade(catalogue, made.config, made.retrieval, made.content, made.ranker)

    def answer(self, questions: Sequence[Titles]) -> list[Ranked]:
        """For each a page; pages of one length are retrieved together, for how many are wanted decides on variety."""
        from models.cascade.cascade import Asked

        answers: dict[int, Ranked] = {}
        for k in {one.k for one in questions}:
            places = [place for place, one in enumerate(questions) if one.k == k]
            asked = [Asked(questions[place].history, questions[place].features) for place in places]
            pages = self.cascade.recommend(asked, k)
            answers |= {place: Ranked(page.titles, page.reasons) for place, page in zip(places, pages, strict=True)}
        return [answers[place] for place in range(len(questions))]

    def warm_up(self) -> None:
        """A viewer without a history."""
        self.answer([Titles([], 1)])


@dataclass(frozen=True)
class ServedChurn:
    """The churn model."""

    scorer: "ChurnScorer"

    def answer(self, questions: Sequence[Accounts]) -> list[list[ChurnScore]]:
        """For each the scores of its accounts. All accounts of all questions are one table."""
        tables = [_table(one.columns, self.scorer.encoding.columns) for one in questions]
        rows = pa.concat_tables(tables, promote_options="permissive")
        probabilities = self.scorer.probabilities(rows)
        reasons = self.scorer.reasons(rows, MOST_DRIVERS)
        scores = [
            ChurnScore(float(probability), [Driver(one.feature, one.value, one.log_odds) for one in of_row])
            for probability, of_row in zip(probabilities, reasons, strict=True)
        ]
        ends = np.cumsum([len(table) for table in tables]).tolist()
        return [scores[end - len(table) : end] for table, end in zip(tables, ends, strict=True)]

    def warm_up(self) -> None:
        """An account of which nothing is known."""
        self.answer([Accounts({name: [None] for name in self.scorer.encoding.columns})])


@dataclass(frozen=True)
class ServedQuality:
    """The routing model: what a session's score would be over each network."""

    model: "QualityModel"

    def answer(self, questions: Sequence[Routes]) -> list[Expectations]:
        """For each the scores over its networks."""
        from models.cdn.features import NETWORK

        tables = [_table(one.columns, self.model.encoding.columns) for one in questions]
        scores = self.model.scores(pa.concat_tables(tables, promote_options="permissive"))
        known, answers, start = set(self.model.running.networks), [], 0
        for table in tables:
            of_question = zip(table[NETWORK].to_pylist(), scores[start : start + len(table)], strict=True)
            expected = [float(score) if network in known else None for network, score in of_question]
            answers.append(Expectations(expected, self.model.gamma))
            start += len(table)
        return answers

    def warm_up(self) -> None:
        """A session of which nothing is known."""
        self.answer([Routes({name: [None] for name in self.model.encoding.columns})])


@dataclass(frozen=True)
class ServedForecaster:
    """The anomaly model."""

    forecaster: "Forecaster"

    def answer(self, questions: Sequence[Next]) -> list[Forecast | None]:
        """For each what was expected; None where there are too few values to expect anything."""
        return [self._answer(one) for one in questions]

    def _answer(self, asked: Next) -> Forecast | None:
        history = None if asked.history is None else list(asked.history)
        context = self.forecaster.expected(asked.segment, asked.at_ms, history)
        if not context.is_known[0]:
            return None
        given = self.forecaster.predicted(context)
        (low,), (high,) = given.band()
        tail = max(float(given.tail(np.array([asked.value]))[0]), _SMALLEST)
        return Forecast(
            float(given.location[0]), float(given.scale[0]), float(low), float(high), max(0.0, -math.log10(tail))
        )

    def warm_up(self) -> None:
        """A flat series."""
        self.answer([Next("", 0, [0.0, 1.0] * 8, 0.0)])


def _table(columns: Mapping[str, Sequence[Any]], wanted: Sequence[str]) -> pa.Table:
    """Rows of the columns that a model was trained with."""
    return pa.table({name: pa.array(list(columns[name])) for name in wanted})


def _recommender(folder: Path) -> Servable:
    from models.recommendation.recommender import Recommender

    return ServedRecommender(Recommender.load(folder))


def _cascade(folder: Path) -> Servable:
    from models.cascade.folder import load

    return ServedCascade(load(folder))


def _churn(folder: Path) -> Servable:
    from models.churn.features import COLUMNS
    from models.churn.scorer import ChurnScorer

    scorer = ChurnScorer.load(folder)
    _require_known(scorer.encoding.columns, COLUMNS)
    return ServedChurn(scorer)


def _quality(folder: Path) -> Servable:
    from models.cdn.features import COLUMNS
    from models.cdn.quality import QualityModel

    model = QualityModel.load(folder)
    _require_known(model.encoding.columns, COLUMNS)
    return ServedQuality(model)


def _forecaster(folder: Path) -> Servable:
    from models.anomaly.forecaster import Forecaster

    return ServedForecaster(Forecaster.load(folder))


def _require_known(wanted: Sequence[str], declared: Sequence[str]) -> None:
    """What a version was trained with has to be among what the service reads for it."""
    unknown = sorted(set(wanted) - set(declared))
    if unknown:
        raise ModelFolderError(
            f"it was trained with {', '.join(unknown)}, which the service does not read; train it again"
        )


LOADERS: Mapping[str, Callable[[Path], Servable]] = {
    "cascade": _cascade,
    "recommendation": _recommender,
    "churn": _churn,
    "cdn": _quality,
    "anomaly": _forecaster,
}
"""By model: a saved model's folder to the model at work. Raises ModelError or OSError."""
