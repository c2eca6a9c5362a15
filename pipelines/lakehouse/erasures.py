"""Erasures as marks in time: no run that began before one commits after it.

A run that has read rows of a person may commit them, or what it made of them, after the person was erased: a clean of
rows that it read before, an ingest whose door did not know yet. So every run notes the newest mark as it begins, every
commit of it names that (`reel.erasures`), and is refused when there is a newer one. Once a pass over all tables has
found nothing of the erased that a mark was set before, no run holds any of it that may still commit.

A mark is a commit to `privacy.tombstones`, whether it has rows or not.
"""

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

TOMBSTONES = "privacy.tombstones"
ERASURES = "reel.erasures"
_NONE = "none"


def newest_mark(catalog: Catalog) -> str:
    """The newest mark of a lakehouse."""
    try:
        return mark_of(catalog.load_table(TOMBSTONES))
    except NoSuchTableError:
        return mark_of(None)


def mark_of(tombstones: Table | None) -> str:
    """The newest mark in the table."""
    snapshot_id = tombstones.metadata.current_snapshot_id if tombstones is not None else None
    return _NONE if snapshot_id is None else str(snapshot_id)
