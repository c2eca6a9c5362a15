"""Compare: what differs between two runs in MLflow, in what they learnt from, with what, and what came of it.

Input     two runs, each a run id or a registered version: `recommendation/3`, `recommendation@champion`
Does      reads what training, evaluation and publication logged; nothing is computed anew, nothing is written
Output    the differences, section by section: data, configuration, code, environment, result
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from models.intervals import Interval
from models.judged import Figure
from pipelines.errors import UsageError
from pipelines.tracking import ModelNotRegisteredError, Tracking

DATA, CONFIGURATION, CODE, ENVIRONMENT, RESULT = "data", "configuration", "code", "environment", "result"
SECTIONS = (DATA, CONFIGURATION, CODE, ENVIRONMENT, RESULT)
DIGEST = "digest"
SLICE = "_slice_"  # in the name of a figure of some of the rows only
_SET = "training_set."
_PLACE = ("workers", "use_gpu")


class UnknownRunError(UsageError):
    """A run was named that MLflow does not have."""


@dataclass(frozen=True)
class RunFacts:
    """What a run logged: texts by section and name, and figures by name."""

    name: str
    """As it was asked for."""
    run_id: str
    texts: Mapping[str, Mapping[str, str]]
    figures: Mapping[str, Figure]

    @property
    def digest(self) -> str | None:
        """Of the training set, whose last period is also what the run was judged on."""
        return self.texts[DATA].get(DIGEST)


@dataclass(frozen=True)
class Difference:
    """One fact that two runs do not share; None where a run does not have it."""

    section: str
    name: str
    left: str | None
    right: str | None
    remark: str = ""


def facts_of(tracking: Tracking, named: str) -> RunFacts:
    """What the run that `named` stands for has logged.

    Raises:
        UnknownRunError: no such run, version or alias.
    """
    run = _run(tracking, named)
    tags, texts = run.data.tags, {section: dict[str, str]() for section in SECTIONS}
    for tag, value in tags.items():
        if tag.startswith(_SET) and tag not in (f"{_SET}folder", f"{_SET}code_version"):
            texts[DATA][tag.removeprefix(_SET)] = value
        elif tag.startswith("environment.") or tag in _PLACE:
            texts[ENVIRONMENT][tag.removeprefix("environment.")] = value
    texts[DATA] |= rows_of(run)
    texts[CONFIGURATION] = dict(run.data.params)
    texts[CODE] = {
        "of the model": tags.get("reel.code_version", ""),
        "of the training set": tags.get(f"{_SET}code_version", ""),
    }
    return RunFacts(named, str(run.info.run_id), texts, figures_of(run.data.metrics))


def figures_of(metrics: Mapping[str, float]) -> dict[str, Figure]:
    """The figures of a run as a whole: `x` with `x_low` and `x_high` is one, with its interval.

    Of what is logged by epoch there is the best epoch's alone, for the last one says nothing about the model.
    """
    figures: dict[str, Figure] = {}
    for name, value in metrics.items():
        stem, _, end = name.rpartition("_")
        if (end in ("low", "high") and stem in metrics) or f"best_{name}" in metrics:
            continue
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        figures[name] = value if low is None or high is None else Interval(value, low, high)
    return figures


def differences(left: RunFacts, right: RunFacts) -> list[Difference]:
    """All that the runs do not share, in the order of `SECTIONS`, whole figures before those of slices."""
    found = [
        Difference(section, name, ours.get(name), theirs.get(name))
        for section in SECTIONS
        for ours, theirs in [(left.texts[section], right.texts[section])]
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    names = sorted(left.figures.keys() | right.figures.keys(), key=lambda name: (SLICE in name, name))
    for name in names:
        ours, theirs = left.figures.get(name), right.figures.get(name)
        if ours != theirs:
            found.append(Difference(RESULT, name, _shown(ours), _shown(theirs), _remark(ours, theirs)))
    return found


def same_sections(found: list[Difference]) -> list[str]:
    """The sections in which nothing differs."""
    return [section for section in SECTIONS if section not in {one.section for one in found}]


def version_named(tracking: Tracking, named: str) -> ModelVersion:
    """The version that `recommendation/3` or `recommendation@champion` stands for.

    Raises:
        UnknownRunError: there is no such version.
    """
    model, is_alias, alias = named.partition("@")
    if is_alias:
        version = tracking.alias(model, alias)
        if version is None:
            raise UnknownRunError(f"no version of {model!r} bears the alias {alias!r}{_HOW}")
        return version
    model, _, number = named.partition("/")
    try:
        return tracking.version(model, number)
    except ModelNotRegisteredError:
        raise UnknownRunError(f"there is no version {named!r} at {tracking.uri}{_HOW}") from None


def rows_of(run: Run) -> dict[str, str]:
    """Rows by split, as the run's data set says."""
    rows: dict[str, str] = {}
    for given in run.inputs.dataset_inputs if run.inputs is not None else ():
        profile: dict[str, Any] = json.loads(given.dataset.profile or "{}")
        rows |= {f"{split} rows": f"{count:,}" for split, count in profile.get("rows", {}).items()}
    return rows


def _run(tracking: Tracking, named: str) -> Run:
    run_id = str(version_named(tracking, named).run_id) if "@" in named or "/" in named else named
    try:
        return tracking.client.get_run(run_id)
    except MlflowException:
        raise UnknownRunError(f"there is no run {named!r} at {tracking.uri}{_HOW}") from None


_HOW = "; name a run by its id, or a version as recommendation/3 or recommendation@champion"


def _shown(figure: Figure | None) -> str | None:
    if figure is None:
        return None
    if isinstance(figure, Interval):
        return f"{figure.mean:.4f} ({figure.low:.4f} to {figure.high:.4f})"
    return f"{figure:,.0f}" if float(figure).is_integer() else f"{figure:.4f}"


def _remark(left: Figure | None, right: Figure | None) -> str:
    """The second less the first; with intervals, whether they are apart."""
    if left is None or right is None:
        return ""
    if not (isinstance(left, Interval) and isinstance(right, Interval)):
        return f"{_mean(right) - _mean(left):+.4g}"
    apart = left.high < right.low or right.high < left.low
    return f"{right.mean - left.mean:+.4g}, intervals {'apart' if apart else 'overlap'}"


def _mean(figure: Figure) -> float:
    return figure.mean if isinstance(figure, Interval) else figure
