"""Model cards: what a registered version is for, what it learnt from, how good it is and for whom, and what not.

After Mitchell et al., "Model cards for model reporting" (FAT* 2019, arXiv:1810.03993). Every line is a fact that
training, evaluation or publication logged; nothing is written by hand, so that nothing can be out of date.
"""

import importlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from models.intervals import Interval
from models.judged import Figure
from models.task import Column, Task, load_task
from pipelines.champions import ROLLED_BACK_TAG
from pipelines.compare import SLICE, figures_of, rows_of, version_named
from pipelines.document import Document, Section, Table
from pipelines.judging import EVALUATED_TAG, FEWEST_UNITS, HEADLINE_TAG
from pipelines.tracking import Tracking

CARD_FILE, PAGE_FILE = "model_card.md", "model_card.html"
_LONGEST_DESCRIPTION = 5_000  # letters that MLflow's store keeps of a version's description
_CUT = "\n\nThe whole card is the artifact model_card.md of the version's run.\n"
_TEST, _SET, _EXCLUDED, _SNAPSHOT = "test_", "training_set.", "training_set.excluded.", "training_set.snapshot."


def write_card(tracking: Tracking, model: str, version: str) -> None:
    """Logs the card of a version as it stands now: files of its run, and the version's description. May be repeated."""
    found = tracking.version(model, version)
    card = _card(tracking, found)
    written = card.to_markdown()
    tracking.client.log_text(str(found.run_id), written, CARD_FILE)
    tracking.client.log_text(str(found.run_id), card.to_html(), PAGE_FILE)
    tracking.client.update_model_version(model, str(found.version), _description(written))


def card_of(tracking: Tracking, named: str) -> Document:
    """The card of a version, named as `recommendation/3` or `recommendation@champion`.

    Raises:
        UnknownRunError: there is no such version.
    """
    return _card(tracking, version_named(tracking, named))


def _card(tracking: Tracking, version: ModelVersion) -> Document:
    task, run = load_task(version.name), tracking.client.get_run(str(version.run_id))
    aliases = sorted(str(alias) for alias in version.aliases)
    return Document(
        f"{version.name} {version.version}",
        [
            Section("What it is for", _purpose(task), points=_signature(task)),
            Section("Where it stands", _standing(version, aliases)),
            Section("What it learnt from", _data(run), points=list(_left_out(run))),
            Section("How good it is", [_judged_on(version, run)], table=_quality(version, run)),
            Section("For whom", table=_slices(version, run)),
            Section("Limits", points=list(_limits(task, version, run))),
            Section("Made with", points=[f"{name}: {value}" for name, value in _made_with(run)]),
        ],
    )


def _purpose(task: Task) -> list[str]:
    said = (importlib.import_module(f"models.{task.name}.task").__doc__ or "").strip()
    return [
        " ".join(said.split()),
        f"It learns from, and is asked about, people who allow {task.purpose}; others get an answer that is not "
        "personal. It is not to be used for another purpose.",
    ]


def _signature(task: Task) -> list[str]:
    def listed(columns: tuple[Column, ...]) -> str:
        return ", ".join(f"{column.name} ({'list of ' if column.many else ''}{column.kind})" for column in columns)

    return [f"takes {listed(task.signature.inputs)}", f"gives {listed(task.signature.outputs)}"]


def _standing(version: ModelVersion, aliases: list[str]) -> list[str]:
    tags = version.tags
    said = [f"It bears the alias {', '.join(aliases)}." if aliases else "It bears no alias."]
    if "gate.reason" in tags:
        said.append(f"The gate: {tags['gate.decision']}, {tags['gate.reason']}.")
    else:
        said.append("It was never put to the gate.")
    if ROLLED_BACK_TAG in tags:
        said.append(f"It was rolled back on {tags['rolled_back.at']}: {tags[ROLLED_BACK_TAG]}.")
    return said


def _data(run: Run) -> list[str]:
    tags = run.data.tags
    rows = ", ".join(f"{count} {split}" for split, count in rows_of(run).items())
    snapshots = ", ".join(f"{name} at {value}" for name, value in _below(tags, _SNAPSHOT))
    return [
        f"The training set {tags.get(f'{_SET}digest', '')[:12]}, built for {tags.get(f'{_SET}purpose')}: {rows}.",
        f"Snapshots: {snapshots}.",
        f"Features: {tags.get(f'{_SET}features')}.",
    ]


def _left_out(run: Run) -> Iterator[str]:
    for reason, count in _below(run.data.tags, _EXCLUDED):
        yield f"{int(count):,} rows left out: {reason}"


def _judged_on(version: ModelVersion, run: Run) -> str:
    if EVALUATED_TAG not in version.tags:
        return "It was not judged yet: `reel evaluate` does, on the test period, once."
    rows, units = (run.data.metrics.get(f"{_TEST}{name}", 0) for name in ("rows", "units"))
    return f"On {rows:,.0f} rows of its test period, {units:,.0f} viewers, accounts or series; 95 % intervals."


def _quality(version: ModelVersion, run: Run) -> Table | None:
    names = _headline(version, run)
    figures = figures_of(run.data.metrics)
    rows = [(name.removeprefix(_TEST).replace("_", " "), _shown(figures[name])) for name in names if name in figures]
    return Table(("figure", "value"), rows) if rows else None


def _slices(version: ModelVersion, run: Run) -> Table | None:
    pairs = _by_slice(version, run)
    if not pairs:
        return None
    ours, theirs = (name.removeprefix(_TEST).replace("_", " ") for name in _headline(version, run)[:2])
    rows = [(name, f"{count:,.0f}", _shown(one), _shown(other)) for name, (count, _, one, other) in pairs.items()]
    return Table(("slice", "rows", ours, theirs), rows)


def _limits(task: Task, version: ModelVersion, run: Run) -> Iterator[str]:
    horizon_ms = int(version.tags["label_horizon_ms"])
    yield f"It knows nothing of what came after {datetime.fromtimestamp(horizon_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC."
    yield f"Whoever does not allow {task.purpose}, and children, are not among those it learnt from or was judged on."
    for name, (_, units, ours, theirs) in _by_slice(version, run).items():
        if units < FEWEST_UNITS:
            yield f"Of {name} there were too few ({units:.0f}) to say how it does."
        elif not _is_ahead(task, _headline(version, run)[0], ours, theirs):
            yield f"For {name} it is not better than the baseline by more than noise."
    if EVALUATED_TAG not in version.tags:
        yield "How good it is nobody has measured."


def _is_ahead(task: Task, name: str, ours: Figure, theirs: Figure) -> bool:
    """Whether the model is better by more than noise. Of the gate's metric the gate says which way is better."""
    if not (isinstance(ours, Interval) and isinstance(theirs, Interval)):
        return True
    if task.gate.metric in name and not task.gate.higher_is_better:
        return ours.high < theirs.low
    return ours.low > theirs.high


def _made_with(run: Run) -> Iterator[tuple[str, str]]:
    tags = run.data.tags
    yield "run", str(run.info.run_id)
    yield "code", tags.get("reel.code_version", "unknown")
    yield "configuration", ", ".join(f"{name} {value}" for name, value in sorted(run.data.params.items()))
    yield "environment", ", ".join(f"{name} {value}" for name, value in _below(tags, "environment."))


def _headline(version: ModelVersion, run: Run) -> list[str]:
    """Names of the figures that are said first, the model's and the baseline's before all."""
    named: list[str] = json.loads(version.tags.get(HEADLINE_TAG, "[]"))
    return [name for name in named if name in figures_of(run.data.metrics)]


def _by_slice(version: ModelVersion, run: Run) -> dict[str, tuple[float, float, Figure, Figure]]:
    """By slice: rows, units, and the first two figures of the headline."""
    metrics, figures = run.data.metrics, figures_of(run.data.metrics)
    names = [name.removeprefix(_TEST) for name in _headline(version, run)[:2]]
    found: dict[str, tuple[float, float, Figure, Figure]] = {}
    for metric in sorted(metrics):
        stem, is_slice, rest = metric.partition(SLICE)
        if stem != "test" or not is_slice or not rest.endswith("_rows") or len(names) < 2:
            continue
        slug = rest.removesuffix("_rows")
        ours, theirs = (figures.get(f"{_TEST[:-1]}{SLICE}{slug}_{name}") for name in names)
        if ours is not None and theirs is not None:
            units = metrics[f"{_TEST[:-1]}{SLICE}{slug}_units"]
            found[slug.replace("_", " ")] = (metrics[metric], units, ours, theirs)
    return found


def _below(tags: Mapping[str, str], prefix: str) -> list[tuple[str, str]]:
    return [(name.removeprefix(prefix), value) for name, value in sorted(tags.items()) if name.startswith(prefix)]


def _shown(figure: Figure) -> str:
    if isinstance(figure, Interval):
        return f"{figure.mean:.4f} ({figure.low:.4f} to {figure.high:.4f})"
    return f"{figure:.4f}"


def _description(written: str) -> str:
    """The card, or as many of its sections as MLflow keeps."""
    if len(written) <= _LONGEST_DESCRIPTION:
        return written
    head = written[: _LONGEST_DESCRIPTION - len(_CUT)]
    return head[: head.rindex("\n")].rstrip() + _CUT
