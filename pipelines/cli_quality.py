"""`reel quality`: is the data good enough, and where is it not."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.errors import ReelError


class QualityNotGood(ReelError):
    """A check failed, or with `--strict` warned."""


def quality(
    context: typer.Context,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings too.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the results as a page for the browser.")] = None,
    prometheus: Annotated[
        Path | None, typer.Option(help="Write the results as Prometheus metrics to this file; - for standard output.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")] = False,
) -> None:
    """Check the data of the newest hours (spec 11.1), and record what was found.

    Warnings are for people to look at; a failure is a broken promise of the lakehouse itself, and exits 1.
    """
    from pipelines.cluster import connected
    from pipelines.console import progress_bar, say, show, show_checks
    from pipelines.quality.exposition import exposition
    from pipelines.quality.output import write_whole
    from pipelines.quality.page import page
    from pipelines.quality.results import Status, as_dict
    from pipelines.quality.station import quality as run

    to_output = prometheus is not None and str(prometheus) == "-"
    with connected(context.obj), progress_bar("checking", shown=not (as_json or to_output)) as bar:
        found = run(context.obj, on_progress=bar.reach)
    if html is not None:
        write_whole(html, page(found))
    if to_output:
        say(exposition(found.findings).rstrip())
    elif prometheus is not None:
        write_whole(prometheus, exposition(found.findings))
    if as_json:
        say(json.dumps({**found.report.as_dict(), "results": [as_dict(one) for one in found.findings.results]}))
    elif not found.findings.results and not to_output:
        say("nothing to judge yet: no event has been ingested")
    elif not to_output:
        show_checks(found.findings.results)
        show(found.report, as_json=False)
    failed, warned = found.findings.count(Status.FAIL), found.findings.count(Status.WARN)
    if failed or (strict and warned):
        raise QualityNotGood(f"{failed} checks failed and {warned} warn; `reel quality --html PATH` shows which")
