"""`reel maintain` and `reel lineage`: keeping the lakehouse's tables in order, and telling what made them."""

import json
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")]


def maintain(
    context: typer.Context,
    table: Annotated[list[str] | None, typer.Argument(help="Only these tables; else all there are.")] = None,
    as_json: Json = False,
) -> None:
    """Enforce retention, put small files together, forget old snapshots, delete orphaned files.

    Safe at any time, beside a running ingest too; meant to run every hour or so.
    """
    from pipelines.cluster import connected
    from pipelines.console import progress_bar, show
    from pipelines.maintain import maintain as run

    with connected(context.obj), progress_bar("maintaining", shown=not as_json) as bar:
        report = run(context.obj, table or (), on_progress=bar.reach)
    show(report, as_json=as_json)


def lineage(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="Whose making to tell, as bronze.events.")],
    snapshot: Annotated[int | None, typer.Option(help="Of this snapshot; else of the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Walk a table back through the snapshots it was made from, to the offsets in Kafka."""
    from rich.console import Console

    from pipelines.console import say
    from pipelines.lineage import walk
    from pipelines.lineage_view import as_dict, as_tree

    found = walk(context.obj, table, snapshot)
    if as_json:
        say(json.dumps(as_dict(found)))
    else:
        Console(highlight=False, soft_wrap=True).print(as_tree(found))
