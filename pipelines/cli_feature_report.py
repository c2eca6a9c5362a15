"""`reel features report`: what the features looked like, day by day, and whether they drift."""

import json
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")]


def report(
    context: typer.Context,
    html: Annotated[Path | None, typer.Option(help="Write a page for the browser.")] = None,
    against: Annotated[
        str | None,
        typer.Option(help="A training set's folder, or a day like 2026-01-31; else the weekday of the week before."),
    ] = None,
    days: Annotated[int, typer.Option(help="How many of the newest days.")] = 28,
    as_json: Json = False,
) -> None:
    """Describe every feature by day (counts, nulls, quantiles, keys) and say which of them drift."""
    from features.groups import GROUPS
    from pipelines.cluster import connected
    from pipelines.console import progress_bar, say, show, show_rows
    from pipelines.feature_statistics.page import page
    from pipelines.feature_statistics.reference import WEEK_DAYS, reference_named
    from pipelines.feature_statistics.report import feature_report
    from pipelines.feature_statistics.station import feature_statistics
    from pipelines.lakehouse.catalog import Lakehouse
    from pipelines.quality.output import write_whole

    with connected(context.obj), progress_bar("describing", shown=not as_json) as bar:
        reference = reference_named(against, GROUPS)
        station = feature_statistics(context.obj, days=days + WEEK_DAYS, on_progress=bar.reach)
    found = feature_report(Lakehouse.open(context.obj), reference, days)
    if html is not None:
        write_whole(html, page(found))
    if as_json:
        say(json.dumps({**station.as_dict(), "against": reference.words, "features": list(found.as_dicts())}))
        return
    show_rows(
        ("feature", "PSI", "chance", "why"),
        (
            (one.name, *([f"{one.drift.psi:.2f}", f"{one.drift.chance:.2f}"] if one.drift else ["–", "–"]),
             ", ".join(one.complaints))
            for one in found.wanting
        ),
    )  # fmt: skip
    say(f"{len(found.wanting)} of {len(found.histories)} features need a look, compared with {reference.words}")
    show(station, as_json=False)
