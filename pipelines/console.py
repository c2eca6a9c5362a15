"""What a person sees of a station: a progress bar while it works, then what it read, did and wrote."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pipelines.quality.results import Result, Status, value_text
from pipelines.report import Facts, StationReport

UNWRAPPED = 160  # columns where the output is no terminal: nothing is cut short in a log
_STATUS_STYLES = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}
_ERRORS = Console(stderr=True, highlight=False)


class ProgressBar:
    """How far a station has come; `total` may become known, or grow, while it works."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None)

    def plan(self, total: int) -> None:
        """There are `total` units of work."""
        self._progress.update(self._task, total=total)

    def advance(self, units: int) -> None:
        """`units` more are done."""
        self._progress.advance(self._task, units)

    def reach(self, done: int, total: int) -> None:
        """`done` of `total` units are done."""
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def progress_bar(title: str, *, shown: bool) -> Iterator[ProgressBar]:
    """A bar on the terminal's error stream; nothing where that is no terminal, or `shown` is False."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    disable = not (shown and sys.stderr.isatty())
    with Progress(*columns, console=_ERRORS, transient=True, disable=disable) as progress:
        yield ProgressBar(progress, title)


def show(report: StationReport, *, as_json: bool) -> None:
    """Print the report: one JSON line for machines, else a small table."""
    if as_json:
        say(json.dumps(report.as_dict()))
        return
    table = Table(title=f"{report.station}  {report.seconds:.1f} s", title_justify="left", show_header=False, box=None)
    for heading, facts in (("read", report.read), ("did", report.did), ("wrote", report.wrote)):
        _add_rows(table, heading, facts)
    _output().print(table)


def show_line(report: StationReport, *, as_json: bool) -> None:
    """One line on one batch of a station that goes on."""
    if as_json:
        say(json.dumps(report.as_dict()))
        return
    facts = {**report.read, **report.wrote}
    counted = ", ".join(f"{name} {value:,}" for name, value in facts.items() if isinstance(value, int) and value)
    say(f"{report.station}  {report.seconds:.1f} s  {counted}")


def _add_rows(table: Table, heading: str, facts: Facts) -> None:
    for position, (name, value) in enumerate(facts.items()):
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else value
        table.add_row(f"  {heading}" if position == 0 else "", name, shown)


def say(line: str) -> None:
    """One line on standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    """One line on the error stream."""
    sys.stderr.write(f"reel: {line}\n")


def show_rows(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table of texts."""
    table = Table(*headings, box=None)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _output().print(table)


def show_checks(results: Sequence[Result]) -> None:
    """What every check of the data found, a line each."""
    table = Table("check", "subject", "status", "observed", "at most", "detail", box=None)
    for position, one in enumerate(results):
        is_first = position == 0 or results[position - 1].check is not one.check
        values = (value_text(one, one.observed), value_text(one, one.threshold))
        status = Text(str(one.status), _STATUS_STYLES[one.status])
        table.add_row(str(one.check) if is_first else "", Text(one.subject), status, *values, Text(one.detail))
    _output().print(table)


def _output() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else UNWRAPPED)
