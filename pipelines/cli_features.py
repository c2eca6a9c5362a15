"""`reel features`: building every group, what the groups are, joining them to rows, and handing them to Feast."""

import json
from pathlib import Path
from typing import Annotated

import typer

from features.purposes import Purpose
from pipelines.cli_feature_report import report

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")]

features = typer.Typer(help="Build every feature group, or say what there is.", invoke_without_command=True)
features.command()(report)


@features.callback()
def build(context: typer.Context, as_json: Json = False) -> None:
    """Build every feature group, offline and online; or, with a command, say what there is."""
    if context.invoked_subcommand is not None:
        return
    from pipelines.build_features import build_features
    from pipelines.cluster import connected
    from pipelines.console import progress_bar, show

    with connected(context.obj), progress_bar("building features", shown=not as_json) as bar:
        report = build_features(context.obj, on_progress=bar.reach)
    show(report, as_json=as_json)


@features.command("list")
def list_groups() -> None:
    """List all groups: of whom, how often, for which purpose."""
    from features.groups import GROUPS
    from pipelines import feature_catalogue as catalogue
    from pipelines.console import show_rows

    show_rows(catalogue.GROUP_HEADINGS, map(catalogue.group_row, GROUPS))


@features.command("show")
def show_group(
    name: Annotated[str, typer.Argument(help="GROUP, or GROUP.FEATURE.", metavar="GROUP[.FEATURE]")],
) -> None:
    """Show one group with its features, or one feature: definition, unit, range, window."""
    from features.groups import group
    from features.selection import feature_of
    from pipelines import feature_catalogue as catalogue
    from pipelines.console import say, show_rows

    group_name, _, feature_name = name.partition(".")
    one = group(group_name)
    shown = [feature_of(one, feature_name)] if feature_name else list(one.features)
    say(f"{one.name}: {one.description}")
    show_rows(("fact", "value"), catalogue.group_facts(one))
    say("")
    show_rows(catalogue.FEATURE_HEADINGS, (catalogue.feature_row(one, feature) for feature in shown))


@features.command()
def page(
    path: Annotated[Path, typer.Argument(help="File to write, for the browser.")] = Path("features.html"),
) -> None:
    """Write all groups as one page that needs nothing else."""
    from features.groups import GROUPS
    from pipelines import feature_catalogue as catalogue
    from pipelines.console import say
    from pipelines.quality.output import write_whole

    write_whole(path, catalogue.html(GROUPS))
    say(f"{path}: {len(GROUPS)} groups, {sum(len(one.features) for one in GROUPS)} features")


@features.command()
def feast(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Option(help="Where to; else `feast` under work_dir.")] = None,
) -> None:
    """Write a Feast repository of all groups, for `feast apply`, `feast ui` and Feast's Python API."""
    from pipelines.console import say
    from pipelines.feast.repository import write_repository

    config = context.find_root().params.get("config")
    chosen = folder or context.obj.work_dir / "feast"
    for file in write_repository(chosen, config):
        say(str(file))
    say(f"now: cd {chosen} && feast apply")


@features.command()
def join(
    context: typer.Context,
    left: Annotated[Path, typer.Argument(help="Parquet file, or folder of them: a key, an instant, anything else.")],
    output: Annotated[Path, typer.Argument(help="Folder to write the rows with their features to.")],
    feature: Annotated[list[str], typer.Option(help="GROUP or GROUP.FEATURE; several times for several.")],
    purpose: Annotated[Purpose, typer.Option(help="What it is used for.")],
    instant: Annotated[str, typer.Option(help="Column of each row's instant.")] = "event_timestamp",
    key: Annotated[
        list[str] | None, typer.Option(help="ENTITY=COLUMN, where the rows call an entity otherwise.")
    ] = None,
    event_values: Annotated[str, typer.Option(help="exact, or tiles: how event groups are valued.")] = "exact",
    reason: Annotated[str | None, typer.Option(help="Column to add: why a row got no personal feature.")] = None,
    as_json: Json = False,
) -> None:
    """Bring features to rows, as they were at each row's instant; no row is dropped or moved."""
    from pipelines.cluster import connected
    from pipelines.console import say
    from pipelines.errors import UsageError
    from pipelines.point_in_time.join import EventValues, Request
    from pipelines.point_in_time.join import join as run

    if event_values not in set(EventValues):
        raise UsageError(f"--event-values is {event_values!r}; choose one of {', '.join(EventValues)}")
    keys = dict(_pair(one) for one in key or ())
    request = Request(feature, purpose, instant, keys, EventValues(event_values), reason=reason)
    with connected(context.obj):
        joined = run(context.obj, left, request, output)
    counted = {"rows": joined.rows, "without personal features": joined.excluded,
               "after the last boundary built": joined.late, "files": len(joined.paths)}  # fmt: skip
    said = {name: value for name, value in counted.items() if value or name == "rows"}
    say(json.dumps(said) if as_json else f"{output}: " + ", ".join(f"{name} {value}" for name, value in said.items()))


def _pair(text: str) -> tuple[str, str]:
    from pipelines.errors import UsageError

    entity, is_pair, column = text.partition("=")
    if not is_pair or not entity or not column:
        raise UsageError(f"--key is {text!r}; give ENTITY=COLUMN, such as content_id=title")
    return entity, column
