"""`reel quarantine`: what was set aside, and another try at it."""

import json
from typing import Annotated

import typer

quarantine_app = typer.Typer(help="Messages that could not be read: what there is, and another try at them.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")]


@quarantine_app.command("list")
def list_set_aside(context: typer.Context, as_json: Json = False) -> None:
    """Count what is in quarantine by day, topic and reason. Opens nothing."""
    from pipelines.console import say, show_rows
    from pipelines.quarantine_counts import SetAsideOn, quarantine_counts

    counts = quarantine_counts(context.obj)
    if as_json:
        say(json.dumps([one._asdict() for one in counts]))
    elif not counts:
        say("quarantine is empty")
    else:
        show_rows(SetAsideOn._fields, [(*one[:-1], f"{one.messages:,}") for one in counts])


@quarantine_app.command()
def replay(
    context: typer.Context,
    reason: Annotated[list[str] | None, typer.Option(help="Only what was set aside for it (may be repeated).")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="Only messages of this topic (may be repeated).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would become of them.")] = False,
    as_json: Json = False,
) -> None:
    """Bring back what a fix made good: a schema registered late, an event the contract lacked.

    Exactly once, whenever it is stopped, and beside a running ingest. What still cannot be read stays.
    """
    from pipelines.cluster import connected
    from pipelines.console import progress_bar, show
    from pipelines.replay import replay as run

    with connected(context.obj), progress_bar("replaying", shown=not as_json) as bar:
        report = run(context.obj, reasons=reason or (), topics=topic or (), dry_run=dry_run, on_progress=bar.reach)
    show(report, as_json=as_json)
