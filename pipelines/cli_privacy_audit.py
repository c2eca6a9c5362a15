"""`reel privacy audit`, `access` and `view`: who did what, who may see what, and seeing it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]
RoleName = Annotated[str, typer.Argument(help="A role of configs/access.yaml.", metavar="ROLE")]


def audit(
    context: typer.Context,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every link of the chain; exit 1 naming the first that fails.")
    ] = False,
    since: Annotated[str | None, typer.Option(help="Only records from this instant on, such as 2026-01-31.")] = None,
    as_json: Json = False,
) -> None:
    """List who ran what, for which purpose, on how many rows; or check that nobody has changed the log."""
    from pipelines.console import say, show_rows
    from pipelines.privacy import audit as log

    if verify:
        found = log.verify(context.obj)
        facts = {"records": found.records, "begins": found.begins, "digest": found.head.digest}
        if as_json:
            say(json.dumps({**facts, "unended": found.unended}))
            return
        say(f"{found.records - found.begins} records hold together; the last is {found.head.digest}")
        if found.unended:
            say(f"begun and not ended, so running or killed: {', '.join(found.unended)}")
        return
    records = log.records(context.obj, _instant(since) if since is not None else None)
    if as_json:
        for record in records:
            say(json.dumps(record))
        return
    show_rows(("number", "at", "who", "station", "outcome", "purposes", "counted"), map(_row, records))


def access(
    context: typer.Context,
    role: Annotated[str | None, typer.Argument(help="Only this role.", metavar="[ROLE]")] = None,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print SQL that makes a view of every table for each role.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List which columns of which tables each role sees, as configs/access.yaml has it."""
    from pipelines.console import say, show_rows
    from pipelines.lakehouse.catalog import Lakehouse
    from pipelines.privacy.access import Access

    known = Access.of(context.obj)
    roles = list(known.roles) if role is None else [role]
    if sql:
        for statement in known.views(roles, _stored(Lakehouse.open(context.obj))):
            say(statement)
        return
    seen = {name: known.seen_by(name) for name in roles}
    if as_json:
        for name, tables in seen.items():
            say(json.dumps({"role": name, "rows_for": known.role(name).rows_for, "tables": tables}))
        return
    rows = ((name, table, ", ".join(columns)) for name, tables in seen.items() for table, columns in tables.items())
    show_rows(("role", "table", "columns"), rows)


def view(
    context: typer.Context,
    role: RoleName,
    table: Annotated[str, typer.Argument(help="As silver.playback.")],
    out: Annotated[Path | None, typer.Option(help="Write all rows to this Parquet file.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Without --out: so many rows at most.")] = 20,
    as_json: Json = False,
) -> None:
    """Read a table as a role sees it: its columns, of people who allow the role's purpose. It goes on the audit log."""
    from pipelines.console import say, show
    from pipelines.privacy.view import view as run

    viewed = run(context.obj, role, table, out=out, limit=limit)
    if out is not None:
        show(viewed.report, as_json=as_json)
    elif as_json:
        for row in viewed.rows.to_pylist():
            say(json.dumps(row, default=str))
    else:
        for row in viewed.rows.to_pylist():
            say(", ".join(f"{name} {value}" for name, value in row.items() if value is not None))


def _stored(lakehouse: Any) -> Mapping[str, list[str]]:
    found = {name: lakehouse.existing(name) for name in lakehouse.names()}
    return {name: table.schema().column_names for name, table in found.items() if table is not None}


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    told = _counts(record)
    for station, part in record.get("parts", {}).items():
        told += [f"{station}: {len(part['runs'])} runs", *_counts(part)]
    names = ("number", "at", "who", "station", "outcome")
    return (*(str(record.get(name, "")) for name in names), ", ".join(record.get("purposes", [])), "; ".join(told))


def _counts(record: Mapping[str, Any]) -> list[str]:
    counts = {what: n for part in ("read", "did", "wrote") for what, n in record.get(part, {}).items() if n}
    failure = [record["failure"]] if "failure" in record else []
    return [*failure, *(f"{what} {n:,}" for what, n in counts.items())]


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--since is {text!r}; give a day or an instant such as 2026-01-31 or 2026-01-31T12:00"
        ) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
