"""What a person, or a machine, sees of a lineage: a tree for the terminal, plain JSON types."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.text import Text
from rich.tree import Tree

from pipelines.lakehouse.lineage import Commit
from pipelines.lakehouse.offset_ranges import gaps
from pipelines.lineage import Lineage, OpenRanges, Stretch

GAPS_SHOWN = 5  # of a partition


def as_tree(found: Lineage) -> Tree:
    """The lineage as a tree; offsets are shown from the first to the last that was read."""
    tree = Tree(Text(f"{found.table}, snapshot {found.snapshot_id}, {_instant(found.at)}", "bold"))
    drawing = _Drawing(found.made.code_version if found.made is not None else None)
    if found.upkeep:
        newest, *older = found.upkeep
        files = f"{_number(newest.files_removed, 'file')} became {newest.files_added:,}"
        again = f"; {len(older):,} such commits before that" if older else ""
        tree.add(Text(f"put in order by {_who(newest)}, {_instant(newest.at)}: {files}{_removed(newest)}{again}"))
    if found.made is not None and found.made_from is not None:
        rows = f"{_number(found.made.rows_added, 'row')} in {_number(found.made.files_added, 'file')}"
        made = tree.add(Text(f"made by {_who(found.made)}, {_instant(found.made.at)}: {rows}{_removed(found.made)}"))
        drawing.add_origins(made, found.made_from)
    if found.made_from is None or _origins(found.history) != _origins(found.made_from):
        everything = tree.add(Text(f"all there is: {drawing.commits(found.history)}"))
        drawing.add_origins(everything, found.history)
    if drawing.clusters:
        tree.add(Text(f"offsets are those of Kafka cluster {' and '.join(sorted(drawing.clusters))}"))
    return tree


def as_dict(found: Lineage) -> dict[str, Any]:
    """The lineage as plain JSON types; ranges of offsets are [start, end), and a start that is forgotten is null."""
    return {
        "table": found.table,
        "snapshot_id": found.snapshot_id,
        "at": found.at.isoformat(),
        "upkeep": [_commit_dict(commit) for commit in found.upkeep],
        "made": _commit_dict(found.made) if found.made is not None else None,
        "made_from": _stretch_dict(found.made_from) if found.made_from is not None else None,
        "history": _stretch_dict(found.history),
    }


def _origins(stretch: Stretch) -> tuple[object, ...]:
    return stretch.offsets, stretch.sources, stretch.notes


@dataclass
class _Drawing:
    """What of a tree was drawn, and is not drawn again."""

    code: str | None
    told: set[tuple[str, int | None, int]] = field(default_factory=set)
    clusters: set[str] = field(default_factory=set)

    def add_origins(self, tree: Tree, stretch: Stretch) -> None:
        """What a stretch was made from, below its line."""
        for topic, partitions in stretch.offsets.items():
            tree.add(Text(_topic(topic, partitions)))
        if stretch.offsets and stretch.cluster_id is not None:
            self.clusters.add(stretch.cluster_id)
        for source in stretch.sources:
            which = "as of" if source.after is None else "what it gained up to"
            key = (source.table, source.after, source.upto)
            is_told = key in self.told and bool(source.commits)
            self.told.add(key)
            known = "told above" if is_told else self.commits(source) if source.commits else ""
            branch = tree.add(Text(f"{source.table}, {which} snapshot {source.upto}{': ' if known else ''}{known}"))
            if not is_told:
                self.add_origins(branch, source)
        for note in stretch.notes:
            tree.add(Text(note, "yellow"))

    def commits(self, stretch: Stretch) -> str:
        """How many by whom, and of which code, if that is not the code that made what all this is about."""
        if stretch.since is None:
            return "no commit that is known"
        stations = f" by {' and '.join(stretch.stations)}" if stretch.stations else ""
        newest, *older = stretch.code_versions or ["not recorded"]
        code = f", code {newest}" + (f" and {len(older)} older" if older else "")
        since = f"{_number(len(stretch.commits), 'commit')}{stations} since {_instant(stretch.since)}"
        return since + (code if older or newest != self.code else "")


def _topic(name: str, partitions: Mapping[int, OpenRanges]) -> str:
    shown = ", ".join(f"{partition}: {_span(ranges)}" for partition, ranges in partitions.items())
    count = _count(partitions.values())
    return f"{name} [{shown}]" + (f", {_number(count, 'offset')}" if count is not None else "")


def _span(ranges: OpenRanges) -> str:
    """The first offset and the last, and what of those between was not read."""
    first, last = ranges[0][0], ranges[-1][1] - 1
    missed = [f"{start}–{end - 1}" for start, end in gaps(_known(ranges))]
    if len(missed) > GAPS_SHOWN:
        missed[GAPS_SHOWN:] = [f"{len(missed) - GAPS_SHOWN} more"]
    without = f" without {' and '.join(missed)}" if missed else ""
    return f"{'…' if first is None else first}–{last}{without}"


def _count(partitions: Iterable[OpenRanges]) -> int | None:
    """How many offsets; None when that is not known."""
    total = 0
    for ranges in partitions:
        for start, end in ranges:
            if start is None:
                return None
            total += end - start
    return total


def _known(ranges: OpenRanges) -> tuple[tuple[int, int], ...]:
    """With an unknown start at the range's end, for what lies between ranges."""
    return tuple((end if start is None else start, end) for start, end in ranges)


def _who(commit: Commit) -> str:
    if commit.station is None:
        return f"somebody who did not say ({commit.operation})"
    return f"{commit.station}, run {commit.run_id}, code {commit.code_version}"


def _removed(commit: Commit) -> str:
    gone = commit.rows_removed - commit.rows_added
    return f", {_number(gone, 'row')} fewer" if gone > 0 else ""


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _commit_dict(commit: Commit) -> dict[str, Any]:
    return {
        "snapshot_id": commit.snapshot_id,
        "at": commit.at.isoformat(),
        "operation": commit.operation,
        "station": commit.station,
        "run_id": commit.run_id,
        "code_version": commit.code_version,
        "rows_added": commit.rows_added,
        "rows_removed": commit.rows_removed,
        "files_added": commit.files_added,
        "files_removed": commit.files_removed,
    }


def _stretch_dict(stretch: Stretch) -> dict[str, Any]:
    return {
        "table": stretch.table,
        "after": stretch.after,
        "upto": stretch.upto,
        "commits": len(stretch.commits),
        "since": stretch.since.isoformat() if stretch.since is not None else None,
        "stations": stretch.stations,
        "code_versions": stretch.code_versions,
        "cluster_id": stretch.cluster_id,
        "offsets": {
            topic: {str(partition): [list(one) for one in ranges] for partition, ranges in partitions.items()}
            for topic, partitions in stretch.offsets.items()
        },
        "not_read": {
            topic: missed
            for topic, partitions in stretch.offsets.items()
            if (missed := {str(p): [list(one) for one in gaps(_known(r))] for p, r in partitions.items() if len(r) > 1})
        },
        "notes": list(stretch.notes),
        "sources": [_stretch_dict(source) for source in stretch.sources],
    }
