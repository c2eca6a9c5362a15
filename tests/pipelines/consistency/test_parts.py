"""The parts of the comparison on rows written by hand: what is told, compared, and found to be the reason."""

import json
from dataclasses import dataclass

import pyarrow as pa
import pytest

from features.groups.churn_signals import CHURN_SIGNALS
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from pipelines.consistency.comparing import Reason, compare, merged
from pipelines.consistency.explaining import MOST_TRIED, reasons_of
from pipelines.consistency.exposition import exposition
from pipelines.consistency.histories import Asked, unseen_of
from pipelines.consistency.known import Known
from pipelines.consistency.page import page
from pipelines.consistency.record import TargetResult, as_dicts
from pipelines.consistency.station import Consistency
from pipelines.feature_tables import Target
from pipelines.report import StationReport

TIME = pa.timestamp("ms", tz="UTC")
VIEWING = Target(USER_VIEWING_HISTORY, "profile_id")
CHURN = Target(CHURN_SIGNALS, "user_id")
DAY = 86_400_000
DELAY = 2_000


def said(**positions):
    """As the stream tells it: by partition of `t` its next offset and its newest event."""
    partitions = {one[1:]: {"offset": offset, "event_ms": at_ms} for one, (offset, at_ms) in positions.items()}
    return json.dumps({"is_running": True, "partitions": {"t": partitions}})


def log_rows(*rows):
    return pa.table(
        {
            "as_of": pa.array([as_of for as_of, _ in rows], TIME),
            "stream": pa.array([stream for _, stream in rows], pa.string()),
        }
    )


@pytest.mark.parametrize(
    ("as_of", "stream", "tells"),
    [
        (10_000 + DELAY, None, True),
        (10_001 + DELAY, None, False),
        (10_000, said(p0=(5, 1)), True),
        (10_000, said(p0=(6, 1)), False),
        (10_000, said(p0=(5, 1), p1=(1, 1)), False),  # of the other partition nothing is in silver
        (None, said(p0=(6, 1)), True),
    ],
)
def test_the_batch_tells_of_what_is_in_silver_up_to_the_instant_and_up_to_the_offsets(as_of, stream, tells):
    known = Known(10_000, {"t": {0: 5}})
    assert known.tells(VIEWING, log_rows((as_of, stream), (5_000, None))).tolist() == [tells, True]


def test_of_nothing_the_batch_tells_nothing():
    assert Known(None, {}).tells(VIEWING, log_rows((5, None), (None, None))).tolist() == [False, True]


def test_boundaries_are_told_of_once_they_are_built():
    known = Known(3 * DAY, {})
    delay = CHURN_SIGNALS.delay
    rows = log_rows((3 * DAY + delay, None), (4 * DAY + delay - 1, None), (4 * DAY + delay, None))
    assert known.tells(CHURN, rows).tolist() == [True, True, False]


def events(*rows):
    """(id, instant, partition, offset, ingested) of events of topic `t`."""
    ids, instants, partitions, offsets, ingested = zip(*rows, strict=True)
    return pa.table(
        {
            "event_id": pa.array(ids),
            "event_timestamp": pa.array(instants, TIME),
            "topic": pa.array(["t"] * len(rows)),
            "partition": pa.array(partitions, pa.int32()),
            "offset": pa.array(offsets, pa.int64()),
            "ingested_at": pa.array(ingested, TIME),
        }
    )


def reason_of(asked, history, *, is_changed):
    return reasons_of(asked, history, is_changed=is_changed)["count"]


def test_unseen_is_what_lies_behind_the_offsets_and_before_the_instant():
    some = events(
        ("seen", 10, 0, 4, 0), ("late", 90, 0, 5, 0), ("behind", 120, 0, 6, 0), ("elsewhere", 60, 1, 0, 0),
        ("after", 1_000, 0, 7, 0), ("unheard of", 50, 9, 3, 0),
    )  # fmt: skip
    asked = Asked("k", 0, 500 + DELAY, {}, ("count",), said(p0=(5, 100), p1=(0, None)))
    found = unseen_of(some, asked, VIEWING)
    assert [(one.event_id, one.is_late) for one in found] == [("elsewhere", False), ("late", True), ("behind", False)]


def test_without_a_stream_unseen_is_what_came_in_after_the_answer():
    some = events(("a", 10, 0, 4, 999), ("b", 20, 0, 5, 1_001), ("c", 30, 1, 0, 1_002))
    found = unseen_of(some, Asked("k", 1_000, 25 + DELAY, {}, ("count",), None), VIEWING)
    assert [one.event_id for one in found] == ["b"]


@dataclass
class Counted:
    """A key whose only feature is how many events it has: `allowed` once they were, and are not any more."""

    events: pa.Table
    is_withheld: bool = False

    def unseen(self, asked):
        return unseen_of(self.events, asked, VIEWING)

    def values(self, asked, without, *, as_allowed_then):
        if self.is_withheld and not as_allowed_then:
            return {"count": None}
        rows = self.events.to_pylist()
        return {"count": sum(row["event_id"] not in without for row in rows)}


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (10, Reason.NOT_YET_PROCESSED),  # what lay before the offsets
        (12, Reason.NOT_YET_PROCESSED),  # and some that were being written just then
        (9, Reason.UNEXPLAINED),
        (None, Reason.UNEXPLAINED),
    ],
)
def test_a_value_without_the_last_events_is_not_yet_processed(served, reason):
    some = events(*((f"e{n}", 100 * n, 0, n, 0) for n in range(15)))
    asked = Asked("k", 0, 10_000, {"count": served}, ("count",), said(p0=(10, 950)))
    assert reason_of(asked, Counted(some), is_changed=False) is reason


def test_every_feature_has_its_own_reason():
    some = events(*((f"e{n}", 100 * n, 0, n, 0) for n in range(15)))

    class Two(Counted):
        def values(self, asked, without, *, as_allowed_then):
            return super().values(asked, without, as_allowed_then=as_allowed_then) | {"other": 1}

    asked = Asked("k", 0, 10_000, {"count": 10, "other": 2}, ("count", "other"), said(p0=(10, 950)))
    expected = {"count": Reason.NOT_YET_PROCESSED, "other": Reason.UNEXPLAINED}
    assert reasons_of(asked, Two(some), is_changed=False) == expected


def test_a_value_without_an_event_older_than_its_partitions_newest_is_late():
    some = events(*((f"e{n}", 100 * n, 0, n, 0) for n in range(10)), ("late", 250, 0, 10, 0))
    asked = Asked("k", 0, 10_000, {"count": 10}, ("count",), said(p0=(10, 900)))
    assert reason_of(asked, Counted(some), is_changed=False) is Reason.LATE_EVENT


def test_consent_that_changed_explains_a_value_only_if_it_is_what_was_allowed_then():
    some = events(*((f"e{n}", 100 * n, 0, n, 0) for n in range(10)))
    withheld = Counted(some, is_withheld=True)
    for served, position, reason in [
        (10, 10, Reason.CONSENT_CHANGED),
        (8, 8, Reason.CONSENT_CHANGED),
        (7, 10, Reason.UNEXPLAINED),
    ]:
        asked = Asked("k", 0, 10_000, {"count": served}, ("count",), said(p0=(position, 0)))
        assert reason_of(asked, withheld, is_changed=True) is reason
    never = Asked("k", 0, 10_000, {"count": 10}, ("count",), said(p0=(10, 0)))
    assert reason_of(never, withheld, is_changed=False) is Reason.UNEXPLAINED, "it was refused when it was answered"


def test_of_very_many_unseen_events_not_all_numbers_are_tried():
    some = events(*((f"e{n}", n, 0, n, 0) for n in range(5_000)))
    asked = Asked("k", 0, 10_000, {"count": 0}, ("count",), said(p0=(0, None)))
    assert reason_of(asked, Counted(some), is_changed=False) is Reason.NOT_YET_PROCESSED
    tried = []

    class Watching(Counted):
        def values(self, asked, without, *, as_allowed_then):
            tried.append(len(without))
            return {"count": None}

    reason_of(asked, Watching(some), is_changed=False)
    assert len(tried) <= 2 * MOST_TRIED + 2


def joined(*rows):
    """Rows of the churn group's join: (served values, offline ones of two features, version, failure, age)."""
    names = [feature.name for feature in CHURN_SIGNALS.features]
    table = pa.Table.from_pylist(
        [
            {"user_id": "u", "values": json.dumps(served), "version": version, "reason": failure, "age_ms": age_ms}
            for served, _, version, failure, age_ms in rows
        ],
        pa.schema([("user_id", pa.string()), ("values", pa.string()), ("version", pa.string()),
                   ("reason", pa.string()), ("age_ms", pa.int64())]),
    )  # fmt: skip
    schema = CHURN_SIGNALS.feature_schema()
    for name in names:
        column = pa.array([offline.get(name) for _, offline, *_ in rows], schema.field(name).type)
        table = table.append_column(f"{CHURN.name}__{name}", column)
    return table


def test_a_part_is_compared_value_by_value_and_what_is_open_is_kept():
    now, features = CHURN_SIGNALS.fingerprint.hex(), len(CHURN_SIGNALS.features)
    (results, still_open), kept = compare(
        CHURN,
        joined(
            ({"support_contact_count": 2}, {"support_contact_count": 2}, now, None, 5),
            ({"support_contact_count": 1}, {"support_contact_count": 3}, now, None, 6),
            ({"support_contact_count": None}, {"support_contact_count": 0}, now, "store_slow", None),
            ({}, {"support_contact_count": 0}, "another", None, 7),
            ({"support_contact_count": 4, "payment_failure_count": 1}, {"payment_failure_count": 1}, now, None, 8),
        ),
    )
    contacts = results["support_contact_count"]
    tally = contacts.tally
    assert (tally.identical, tally.missing, tally.different, tally.extra) == (1, 2, 1, 1)
    assert (tally.pairs, tally.smape) == (2, 0.5)  # 0, and 2 * 2 / 4
    assert contacts.reasons == {"degraded answer": 1, "older group version": 1}
    assert [one.age_ms for one in contacts.worst] == [None, 7, 8]
    assert sum(one.tally.compared for one in results.values()) == 5 * features
    assert still_open == kept.num_rows == 2
    assert kept["differing"].to_pylist() == [["support_contact_count"]] * 2
    assert kept["age_ms"].to_pylist() == [6, 8]
    twice = merged([results, results])["support_contact_count"]
    assert (twice.tally.compared, twice.reasons["degraded answer"], len(twice.worst)) == (10, 2, 3)


def test_page_and_metrics_tell_what_was_found():
    now = CHURN_SIGNALS.fingerprint.hex()
    rows = joined(
        ({"support_contact_count": 2}, {"support_contact_count": 2}, now, None, 5),
        ({"support_contact_count": 1}, {"support_contact_count": 3}, now, None, 90_000_000),
    )
    (results, _), _ = compare(CHURN, rows)
    results["support_contact_count"].explain(Reason.LATE_EVENT)
    found = Consistency(1_000_000, [TargetResult(CHURN, 2, 3, 0, results)], StationReport("consistency"))
    text = page(found)
    assert 'data-reason="late event after the answer"' in text
    assert "1.04 d" in text, "the age of the worst"
    assert "3 left for the next run" in text
    metrics = exposition(found)
    where = 'entity="user_id",feature="support_contact_count",group="churn_signals"'
    assert f"reel_consistency_exact_share{{{where}}} 0.5" in metrics
    assert f"reel_consistency_smape{{{where}}} 0.5" in metrics
    assert 'reason="late event after the answer"} 1.0' in metrics
    (contacts,) = [one for one in as_dicts(found.results) if one["feature"] == "support_contact_count"]
    assert (contacts["exact_share"], contacts["smape"]) == (0.5, 0.5)
    empty = page(Consistency(0, [], StationReport("consistency")))
    assert "No answer was compared" in empty
