"""What a person sees of a station: a progress bar while it works, then what it read, did and wrote."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipelines.contract.catalogue import type_of
from pipelines.contract.events import Column, EventSchema
from pipelines.report import Facts, StationReport

UNWRAPPED = 160  # columns where the output is no terminal: nothing is cut short in a log
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


def show_events(domains: Mapping[str, Sequence[EventSchema]]) -> None:
    """All events of the contract, a line each."""
    table = Table("domain", "event", "topic", "consent", "meaning", box=None, title_justify="left")
    for domain, events in domains.items():
        for position, event in enumerate(events):
            table.add_row(domain if position == 0 else "", event.name, event.topic, event.consent_category, event.doc)
    _output().print(table)


def show_event(event: EventSchema, columns: Sequence[Column]) -> None:
    """One event with its properties."""
    output = _output()
    output.print(f"{event.name}: {event.doc}")
    output.print(f"topic {event.topic}, owner {event.owner}, consent {event.consent_category}, record {event.fullname}")
    table = Table("property", "type", "personal", "meaning", box=None)
    for column in columns:
        table.add_row(column.name, type_of(column), column.personal or "", column.doc)
    output.print(table)


def _output() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else UNWRAPPED)
