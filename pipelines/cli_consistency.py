"""`reel consistency`: are served features what the batch says of the same instants."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipelines.errors import ReelError


class NotConsistent(ReelError):
    """Less is exact than `--fail-under` asks for."""


def consistency(
    context: typer.Context,
    since: Annotated[
        datetime | None, typer.Option(help="Answers given since this instant (UTC); else since the last comparison.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the results as a page for the browser.")] = None,
    prometheus: Annotated[
        Path | None, typer.Option(help="Write the results as Prometheus metrics to this file; - for standard output.")
    ] = None,
    fail_under: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit 1 if a smaller share of values is exact.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")] = False,
) -> None:
    """Compare the features that were served with what the batch says of the same instants, and find why some differ."""
    from datetime import UTC

    from pipelines.cluster import connected
    from pipelines.consistency.exposition import exposition
    from pipelines.consistency.page import page
    from pipelines.consistency.record import as_dicts
    from pipelines.consistency.station import consistency as run
    from pipelines.console import progress_bar, say, show, show_rows
    from pipelines.quality.output import write_whole

    since_ms = None if since is None else int((since if since.tzinfo else since.replace(tzinfo=UTC)).timestamp() * 1000)
    to_output = prometheus is not None and str(prometheus) == "-"
    with connected(context.obj), progress_bar("comparing", shown=not (as_json or to_output)) as bar:
        found = run(context.obj, since_ms, on_progress=bar.reach)
    share = found.whole.exact_share
    if html is not None:
        write_whole(html, page(found))
    if to_output:
        say(exposition(found).rstrip())
    elif prometheus is not None:
        write_whole(prometheus, exposition(found))
    if as_json:
        say(json.dumps({**found.report.as_dict(), "exact_share": share, "features": list(as_dicts(found.results))}))
    elif not to_output:
        show_rows(
            ("group", "entity", "feature", "exact", "values", "SMAPE", "why not"),
            (
                (one["group"], one["entity"], one["feature"], f"{one['exact_share']:.3%}",
                 f"{sum(one[name] for name in ('identical', 'close', 'missing', 'extra', 'different')):,}",
                 "" if one["smape"] is None else f"{one['smape']:.2%}",
                 ", ".join(f"{reason} {count:,}" for reason, count in one["reasons"].items()))
                for one in as_dicts(found.results) if one["exact_share"] is not None
            ),
        )  # fmt: skip
        say("nothing to compare yet" if share is None else f"{share:.3%} of {found.whole.compared:,} values are exact")
        show(found.report, as_json=False)
    if fail_under is not None and share is not None and share < fail_under:
        raise NotConsistent(f"{share:.4%} of values are exact, and {fail_under:.4%} were asked for; `--html` shows why")
