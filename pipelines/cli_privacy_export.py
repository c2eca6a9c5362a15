"""`reel privacy export`: all that is held of one person."""

import json
from pathlib import Path
from typing import Annotated

import typer


def export(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="The plain id of the user.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; else one named for the export.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")] = False,
) -> None:
    """Write all that is held of a user, from every layer: as JSON, its schema, and a page to read.

    An unknown user's export is empty, and says nothing else.
    """
    from pipelines.console import say, show_rows
    from pipelines.privacy.export import export as run

    made = run(context.obj, user, out)
    if as_json:
        say(json.dumps(made.as_dict()))
    elif not made.rows:
        say(f"nothing is held of this user; the export in {made.folder} is empty")
    else:
        layers = [(one.layer, one.touched_words, f"{one.rows:,}") for one in made.by_layer]
        show_rows(("layer", "files touched / total", "rows"), layers)
        say(f"{made.rows:,} rows in {made.seconds:.1f} s; open {made.folder / 'export.html'}")
