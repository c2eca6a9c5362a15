"""What travels between the processes that answer HTTP and those that run models: plain data, no library of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Arm = Literal["champion", "challenger"]
"""Which alias's version is asked."""


@dataclass(frozen=True)
class Titles:
    """Of the recommender and of the cascade: finished titles, oldest first, and how many more to name.

    `features` is what the cascade's ranker is to know of the viewer and the session, by its columns. Answered with
    `Ranked`.
    """

    history: Sequence[str]
    k: int
    features: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranked:
    """(content id, score) pairs, best first, and what the cascade had to do without.

    Scores are probabilities of the recommender, and what the cascade ranked by: comparable within one answer only.
    """

    titles: Sequence[tuple[str, float]]
    done_without: Sequence[str] = ()


@dataclass(frozen=True)
class Accounts:
    """Of the churn model: its features by column, one value an account; null where nobody knows.

    Answered with a `ChurnScore` an account.
    """

    columns: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Driver:
    """A number of an account that moved its probability, and how far, in log-odds; up is towards leaving."""

    feature: str
    value: float | None
    log_odds: float


@dataclass(frozen=True)
class ChurnScore:
    """Probability to cancel within the model's horizon, and what drives it, farthest first."""

    probability: float
    drivers: Sequence[Driver]


@dataclass(frozen=True)
class Routes:
    """Of the routing model: its features by column, one value a network.

    Answered with `Expectations`.
    """

    columns: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Expectations:
    """Score (0 to 100) expected over each network, None over one that the model never saw; how greedily to choose."""

    scores: Sequence[float | None]
    gamma: float


@dataclass(frozen=True)
class Next:
    """Of the anomaly model: a segment's last values, oldest first, and the one that came at `at_ms`.

    Without `history` it is what comes after the past that the model keeps. Answered with a `Forecast`.
    """

    segment: str
    at_ms: int
    history: Sequence[float] | None
    value: float


@dataclass(frozen=True)
class Forecast:
    """What was expected, its scale, the 95 % band, and -log10 of the probability of a value at least as far out."""

    expected: float
    scale: float
    low: float
    high: float
    score: float


@dataclass(frozen=True)
class Asked:
    """A question to one version of a model."""

    model: str
    arm: Arm
    question: Any


@dataclass(frozen=True)
class Answered:
    """An answer, and which version gave it. The champion answers where there is no challenger."""

    answer: Any
    version: str
    arm: Arm
    parts: Mapping[str, str] = field(default_factory=dict)
    """The versions that it was put together of."""


@dataclass(frozen=True)
class Unavailable:
    """No version of the model can answer, and why; `is_published` is false where there is none."""

    problem: str
    is_published: bool = True


@dataclass(frozen=True)
class ServedVersion:
    """A version that is loaded. Instants in ms since the epoch; the card is Markdown."""

    alias: Arm
    version: str
    trained_at_ms: int
    since_ms: int
    card: str
    parts: Mapping[str, str] = field(default_factory=dict)
    """Of an assembled model, part to the version that it is."""


@dataclass(frozen=True)
class Standing:
    """What is served of one model, and what keeps its aliases from being followed, by alias."""

    model: str
    versions: Sequence[ServedVersion]
    problems: Mapping[Arm, str]
