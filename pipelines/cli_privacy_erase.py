"""`reel privacy erase`, `verify` and `receipt`: erasing people, and the proof of it."""

import json
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")]


def erase(
    context: typer.Context,
    users: Annotated[list[str] | None, typer.Argument(help="Plain user ids.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option(help="A file of plain user ids, one a line.")] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="Only who asked already, in Kafka or in a run that was stopped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Erase people from every layer, and write a signed receipt for each.

    Whoever else has asked is erased in the same pass. Stopped at any moment, it is gone on with by `--pending`.
    """
    from pipelines.cluster import connected
    from pipelines.console import progress_bar, say, show
    from pipelines.privacy.erase import erase as run

    wanted = [*(users or ()), *(_lines(file) if file is not None else ())]
    if pending == bool(wanted):
        raise typer.BadParameter("name users, or a file of them, or --pending")
    with connected(context.obj), progress_bar("erasing", shown=not as_json) as bar:
        erased = run(context.obj, wanted, on_progress=bar.reach)
    if as_json:
        receipts = [str(one.path(context.obj.work_dir)) for one in erased.receipts]
        say(json.dumps({**erased.report.as_dict(), "receipts": receipts}))
        return
    show(erased.report, as_json=False)
    for one in erased.receipts:
        of_models = f", {len(one.content['models'])} models learnt from them" if one.content["models"] else ""
        held = f"{one.rows:,} rows erased{of_models}" if one.is_known else "nothing is held of this user"
        say(f"{held}; receipt {one.path(context.obj.work_dir)}")


def verify(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="A plain user id.")],
    as_json: Json = False,
) -> None:
    """Look for a person in every byte of every layer: say zero, or where. Exit code 1 if something is found."""
    from pipelines.cluster import connected
    from pipelines.console import say
    from pipelines.privacy.verify import verify as run

    with connected(context.obj):
        verified = run(context.obj, user)
    if as_json:
        found = [{"where": one.where, "what": one.what} for one in verified.found]
        said = {"found": found, "files": verified.files, "bytes": verified.size_bytes}
        say(json.dumps({**said, "not_looked_at": verified.not_looked_at}))
    else:
        say(verified.words)
        for one in verified.found:
            say(f"  {one.where}: {one.what}")
        for left in verified.not_looked_at:
            say(f"  not looked at: {left}")
    raise typer.Exit(1 if verified.found else 0)


def receipt(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A receipt.")],
    public_key: Annotated[Path | None, typer.Option(help="Of whoever signed it; else the key beside the file.")] = None,
    as_json: Json = False,
) -> None:
    """Check that a receipt is as it was signed, and show it."""
    from pipelines.console import say
    from pipelines.privacy.receipts import checked

    found = checked(file, public_key)
    if not as_json:
        say(f"as it was signed: finished {found.content['finished_at']}, {found.rows:,} rows erased")
    say(json.dumps(found.content, indent=None if as_json else 1))


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from None
