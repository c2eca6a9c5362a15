"""`reel compare`, `reel card`, `reel tune`, `reel retrain`: runs beside each other, and models kept fresh."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")]
_WIDEST = 40  # letters of a value in a table; digests are longer, and --json has them whole
RUN = "A run id, or a version: recommendation/3, recommendation@champion."


def compare(
    context: typer.Context,
    left: Annotated[str, typer.Argument(help=RUN, metavar="RUN")],
    right: Annotated[str, typer.Argument(help=RUN, metavar="RUN")],
    slices: Annotated[bool, typer.Option("--slices", help="Figures of slices of the rows too.")] = False,
    as_json: Json = False,
) -> None:
    """Show what differs between two runs: data, configuration, code, environment, result."""
    from pipelines.compare import SLICE, differences, facts_of, same_sections
    from pipelines.console import say, show_rows
    from pipelines.freshness import opened

    tracking = opened(context.obj)
    one, other = facts_of(tracking, left), facts_of(tracking, right)
    found = differences(one, other)
    if as_json:
        say(json.dumps({"left": one.run_id, "right": other.run_id, "differences": [asdict(each) for each in found]}))
        return
    shown = [each for each in found if slices or SLICE not in each.name]
    cells = [(each.section, each.name, _cell(each.left), _cell(each.right), each.remark) for each in shown]
    if cells:
        show_rows(("section", "what", left, right, "difference"), cells)
    same = same_sections(found)
    if same:
        say(f"the same: {', '.join(same)}")
    if len(shown) < len(found):
        say(f"{len(found) - len(shown)} figures of slices differ too: --slices")
    if one.digest != other.digest:
        say("they were judged on the last periods of different training sets: figures are of different rows")


def _cell(value: str | None) -> str:
    return "-" if value is None else value if len(value) <= _WIDEST else f"{value[:_WIDEST]}…"


def card(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="recommendation/3, recommendation@champion.", metavar="VERSION")],
    html: Annotated[Path | None, typer.Option(help="Write it as a page for the browser instead.")] = None,
) -> None:
    """Show a version's model card: what it is for, what it learnt from, how good it is and for whom."""
    from pipelines.console import say
    from pipelines.freshness import opened
    from pipelines.model_card import card_of

    written = card_of(opened(context.obj), version)
    if html is None:
        say(written.to_markdown().rstrip())
        return
    from pipelines.quality.output import write_whole

    write_whole(html, written.to_html())


def tune(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Which model.")],
    trials: Annotated[int, typer.Option(min=1, help="Configurations to try, the model's own among them.")] = 12,
    at_once: Annotated[int | None, typer.Option(min=1, help="Trials at the same time; else one a processor.")] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(help="What all trials share: a YAML file, or key=number.", metavar="FILE|KEY=NUMBER"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the best goes; else tuned/MODEL.yaml in work_dir.")] = None,
    as_json: Json = False,
) -> None:
    """Try configurations of a model on its newest training set, and write the best for `reel train --config`."""
    from functools import partial

    from models.task import load_task
    from pipelines.cluster import connected
    from pipelines.console import progress_bar, show
    from pipelines.hyperparameters import hyperparameters
    from pipelines.lakehouse.lineage import reported
    from pipelines.model_training_set import latest_for
    from pipelines.tune import tune as run

    settings, task = context.obj, load_task(model)
    shared = hyperparameters(settings, model, config or ())
    folder = latest_for(settings.work_dir, task)
    with connected(settings), progress_bar("tuning", shown=not as_json) as bar:
        work = partial(
            run,
            model,
            folder,
            tracking_uri=settings.tracking_uri,
            storage=settings.work_dir / "tuning",
            best_file=out or settings.work_dir / "tuned" / f"{model}.yaml",
            configuration=shared,
            trials=trials,
            at_once=at_once,
            on_progress=bar.reach,
        )
        report = reported(settings, "tune", work, task.purpose)
    show(report, as_json=as_json)


def retrain(
    context: typer.Context,
    models: Annotated[list[str] | None, typer.Argument(help="Which models, due or not.")] = None,
    due: Annotated[bool, typer.Option("--due", help="Every model that is due; `reel status` says which.")] = False,
    as_json: Json = False,
) -> None:
    """Retrain models: training set, train, evaluate, publish. For a timer: `reel retrain --due`."""
    if due == bool(models):
        raise typer.BadParameter("name models, or give --due for every one that is due")
    from pipelines.cluster import connected
    from pipelines.console import say, show
    from pipelines.retrain import retrain as run

    with connected(context.obj):
        report = run(
            context.obj,
            models or (),
            on_step=lambda model, step: None if as_json else say(f"{model}: {step}"),
        )
    show(report, as_json=as_json)
