"""`reel training-set`: a model's set, any declared one, and one that was built before built again."""

import json
from pathlib import Path
from typing import Annotated

import typer

from features.purposes import Purpose

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")]

training_set = typer.Typer(help="Join features to labels, as they were at each instant.", invoke_without_command=True)


@training_set.callback()
def recommender(
    context: typer.Context,
    purpose: Annotated[
        Purpose | None, typer.Option(help="What it is used for; rows that do not allow it are left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the recommender's training set; or, with a command, a declared one."""
    if context.invoked_subcommand is not None:
        return
    if purpose is None:
        raise typer.BadParameter(f"a training set needs a purpose; give --purpose, one of {', '.join(Purpose)}")
    from pipelines.cluster import connected
    from pipelines.console import progress_bar, show
    from pipelines.training_set import build_training_set

    with connected(context.obj), progress_bar("joining", shown=not as_json) as bar:
        report = build_training_set(context.obj, purpose=purpose, on_progress=bar.reach)
    show(report, as_json=as_json)


@training_set.command()
def build(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A model, or MODULE:NAME of a TrainingSet.", metavar="MODEL|MODULE:NAME")],
    as_json: Json = False,
) -> None:
    """Build the training set of a model, or a declared one."""
    from pipelines.console import progress_bar, say, show
    from pipelines.training_sets import build as run
    from pipelines.training_sets.named import training_set_named

    if ":" not in name:
        from models.task import load_task
        from pipelines.cluster import connected
        from pipelines.model_training_set import build_for

        with connected(context.obj), progress_bar("joining", shown=not as_json) as bar:
            report = build_for(context.obj, load_task(name), bar.reach)
        show(report, as_json=as_json)
        return
    built = run(context.obj, training_set_named(name))
    counted = {**built.manifest["counts"], **{f"{split} rows": count for split, count in built.rows.items()}}
    counted |= {f"left out: {reason}": count for reason, count in built.left_out.items()}
    said = ", ".join(f"{name} {count:,}" for name, count in counted.items())
    say(json.dumps({"folder": str(built.folder), **counted}) if as_json else f"{built.folder}: {said}")


@training_set.command()
def rebuild(
    context: typer.Context,
    manifest: Annotated[Path, typer.Argument(help="The manifest.json of a declared training set.")],
    as_json: Json = False,
) -> None:
    """Build a training set again as of its snapshots, less whoever withdrew since, and say what differs."""
    from pipelines.console import say
    from pipelines.training_sets import rebuild as run

    rebuilt = run(context.obj, manifest)
    facts = {
        "folder": str(rebuilt.built.folder),
        "is_same": rebuilt.is_same,
        "difference": rebuilt.difference,
        "made_otherwise": rebuilt.made_otherwise,
    }
    say(json.dumps(facts) if as_json else rebuilt.words)
