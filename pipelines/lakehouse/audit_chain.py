"""The audit log's chain: every record carries the SHA-256 of the record before it.

A record is a JSON object in one canonical form: ASCII, keys sorted, no spaces (as RFC 8785 for the whole numbers, texts
and lists that a record holds). Its `number` counts from 0 and its `previous` is the digest of the record before it, 64
zeros for the first. The head, how many records there are and the digest of the last, is kept beside the chain, because
a chain cannot tell that its end was cut off.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

NUMBER, PREVIOUS, AT = "number", "previous", "at"
NO_RECORD = "0" * 64


class Row(NamedTuple):
    """A record as it is kept: number and instant beside it, for those who look for one, and its text."""

    number: int
    at: str
    text: str


@dataclass(frozen=True)
class Head:
    """Where a chain ends: how many records it has had, and the digest of the last."""

    records: int = 0
    digest: str = NO_RECORD


@dataclass(frozen=True)
class Broken:
    """The first link that does not hold: the number of the record at fault, and in words what is wrong."""

    number: int
    reason: str


def extended(head: Head, facts: Mapping[str, Any]) -> tuple[str, Head]:
    """The record of `facts` that comes after `head`, and the head that it makes."""
    text = canonical({**facts, NUMBER: head.records, PREVIOUS: head.digest})
    return text, Head(head.records + 1, digest_of(text))


def canonical(record: Mapping[str, Any]) -> str:
    """A record as it is written and hashed."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(text: str) -> str:
    """SHA-256 of a record, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def first_broken(rows: Iterable[Row], head: Head, begins: int = 0, known: Iterable[Head] = ()) -> Broken | None:
    """The first link of a chain that does not hold; None when all do.

    Args:
        rows: in the order of their numbers.
        head: where the chain is said to end.
        begins: how many records retention has taken from the front; the first that is left is believed about the last
            of them, unless that is known.
        known: heads that the chain had earlier, as somebody else remembers them.

    A record that was changed is found at the one after it, or at the head, whose digest no longer fits; so what is
    named is the record whose `previous` disagrees, or the first that is no record at all.
    """
    remembered = {one.records: one.digest for one in known if one.records >= max(begins, 1)}
    at: Head | None = None if begins else Head()
    expected = begins
    for row in rows:
        record = _parsed(row.text)
        if record is None:
            return Broken(expected, f"record {expected} is not what Reel writes")
        if row.number != expected:
            return Broken(expected, _out_of_order(expected, row.number))
        if (record[NUMBER], record[AT]) != (row.number, row.at):
            return Broken(expected, f"record {expected} says {record[NUMBER]} at {record[AT]}, its row {row.at}")
        before = at.digest if at is not None else remembered.pop(begins, record[PREVIOUS])
        if record[PREVIOUS] != before:
            source = f"record {expected - 1}" if expected else "nothing, as the first must"
            return Broken(expected, f"record {expected} does not follow from {source}: one of them was changed")
        expected += 1
        at = Head(expected, digest_of(row.text))
        if remembered.pop(expected, at.digest) != at.digest:
            return Broken(row.number, f"record {row.number} is another one than when its digest was noted elsewhere")
    if remembered:
        return Broken(expected, f"the log ends with {expected} records, and {max(remembered)} were noted elsewhere")
    if expected != head.records:
        return Broken(expected, f"the log ends with {expected} records, and its head says {head.records}")
    if at is not None and at.digest != head.digest:
        return Broken(expected - 1, f"the last record, {expected - 1}, is not the one that the head names")
    return None


def _parsed(text: str) -> dict[str, Any] | None:
    """A record; None for what is none in its canonical form."""
    try:
        record = json.loads(text)
        is_canonical = isinstance(record, dict) and canonical(record) == text
    except (ValueError, RecursionError):
        return None
    is_link = is_canonical and type(record.get(NUMBER)) is int and {PREVIOUS, AT} <= record.keys()
    return record if is_link else None


def _out_of_order(expected: int, found: int) -> str:
    if found < expected:
        return f"record {found} is there twice, or stands where record {expected} should"
    missing = f"record {expected} is" if found == expected + 1 else f"records {expected} to {found - 1} are"
    return f"{missing} missing, or out of order"
