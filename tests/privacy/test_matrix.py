"""Reel against the oracle: every scenario of the full matrix, in every layer, for every purpose.

All scenarios are poured into one platform and go the whole way: through the door, settled as `clean` settles them,
asked by every purpose, alone and in aggregates, and answered online. What the oracle forbids and Reel does is a leak.
"""

import json
from collections import Counter

import polars as pl
import pyarrow as pa
import pytest

from features.consent import ConsentHistory
from features.crowds import CHILD, CHILD_KNOWN, in_crowds
from features.decision import CONSENT_COLUMNS, Registries, decide, decide_for_aggregates
from features.late_children import LateChildren
from features.profiles import VIEWER_TOKEN, ProfileRegistry
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from pipelines.contract.events import load_contract
from pipelines.door import Door
from pipelines.lakehouse import tables
from pipelines.online_people import consent_records, profile_records
from pipelines.settings_section import PROJECT_ROOT
from pipelines.silver.settling import Settling
from serving.consent_gate import ConsentGate, Person
from serving.online_store import open_online_store
from tests.pipelines.event_rows import example_row, table_of
from tests.privacy import oracle
from tests.privacy.facts import ANSWERS
from tests.privacy.oracle import DAY_MS, Whose
from tests.privacy.scenarios import (
    CASES,
    INGESTED_MS,
    LATE_MS,
    NAMES,
    SOON_MS,
    Carrier,
    Layer,
    cases,
    full_matrix,
)

PEOPLE = Pseudonymizer(("an old salt", "the newest salt"))
CONTRACT = load_contract(PROJECT_ROOT / "configs" / "schemas")
ESSENTIAL = oracle.essential_names()
MILLISECONDS = pa.timestamp("ms", tz="UTC")
# What the oracle calls a reason, in Reel's words.
# What is withdrawn while a row waits, or before it is found to be a child's, is written into it with the stripping.
WORDS = {
    "kids_profile": {oracle.Reason.KIDS, oracle.Reason.UNDESCRIBED},
    "refused_on_event": {
        oracle.Reason.NO_ANALYTICS,
        oracle.Reason.NO_PERSONALIZATION,
        oracle.Reason.NO_AD_TARGETING,
        oracle.Reason.WITHDRAWN,
    },
    "withdrawn_since": {oracle.Reason.WITHDRAWN},
    "not_essential": {oracle.Reason.NOT_ESSENTIAL},
    "waits": {oracle.Reason.UNDESCRIBED},
    "too_few": {oracle.Reason.KIDS},
}


def scenarios():
    """All that can come in: an object without any answer is none in Avro, where it has three booleans or is absent."""
    return [
        scenario
        for scenario in full_matrix()
        if scenario.event.consent is None or any(getattr(scenario.event.consent, one) is not None for one in ANSWERS)
    ]


SCENARIOS = scenarios()


def known(until_ms):
    """The registries as they are when everything said by then has been read."""
    consents = [
        {
            "user_id": PEOPLE.hash(one.user),
            **{f"allows_{answer}": one.answers.allows(answer) for answer in ANSWERS},
            "event_timestamp": one.at_ms * 1000,
        }
        for scenario in SCENARIOS
        for one in scenario.statements
        if one.at_ms <= until_ms
    ]
    profiles = [
        {
            "profile_id": PEOPLE.hash(one.profile),
            "user_id": PEOPLE.hash(one.user),
            "is_kids": one.is_kids,
            "event_timestamp": one.at_ms * 1000,
        }
        for scenario in SCENARIOS
        for one in scenario.descriptions
        if one.at_ms <= until_ms
    ]
    return (
        pa.Table.from_pylist(consents, schema=tables.CONSENTS),
        pa.Table.from_pylist(profiles, schema=tables.PROFILES),
    )


def registries(until_ms):
    consents, profiles = known(until_ms)
    return Registries(ConsentHistory.of(consents), ProfileRegistry.of(profiles), ESSENTIAL)


def row_of(schema, number, event):
    own = {column: None if event.consent is None else getattr(event.consent, str(purpose))
           for purpose, column in CONSENT_COLUMNS.items()}  # fmt: skip
    return {
        **example_row(schema, 1),
        **own,
        "event_id": f"scenario-{number}",
        "event_timestamp": event.at_ms,
        "source": "CLIENT" if event.is_client else "SERVER",
        "user_id": event.user,
        "profile_id": event.profile,
        "session_id": f"session-{number}",
        "device_id": f"device-{number}",
        "market": event.market,
    }


@pytest.fixture(scope="module")
def admitted():
    return admit_all()


def admit_all():
    """By event name: what the door lets in, and the numbers of the scenarios it is of."""
    door = Door(PEOPLE, registries(INGESTED_MS))
    found = {}
    for name in NAMES:
        schema = CONTRACT.event(name)
        numbers = [number for number, one in enumerate(SCENARIOS) if one.event.name == name]
        events = table_of(schema, [row_of(schema, number, SCENARIOS[number].event) for number in numbers])
        admission = door.admit(schema, events)
        assert admission.rejected == {}
        rows = admission.rows.append_column(
            "ingested_at", pa.repeat(pa.scalar(INGESTED_MS * 1000, tables.TIMESTAMP), admission.rows.num_rows)
        )
        found[name] = (rows, admission, numbers)
    return found


def test_at_the_door(admitted):
    for rows, admission, numbers in admitted.values():
        fates = {
            number: oracle.at_ingest(one.event, one.statements, one.descriptions, ESSENTIAL)
            for number, one in ((number, SCENARIOS[number]) for number in numbers)
        }
        stored = [numbers[place] for place in admission.kept]
        assert stored == [number for number, fate in fates.items() if fate.is_stored]
        for purpose, column in CONSENT_COLUMNS.items():
            assert rows[column].to_pylist() == [fates[one].answers.allows(str(purpose)) for one in stored]
        for name in ("user_id", "profile_id", "session_id", "device_id"):
            assert [one is None for one in rows[name].to_pylist()] == [fates[one].is_stripped for one in stored]
        waits = [one is False for one in rows["profile_described"].to_pylist()]
        assert waits == [fates[one].waits_until_ms is not None for one in stored]
        tags = Counter(tag for one in stored for tag in fates[one].tags)
        assert {tag: admission.restricted.get(tag, 0) for tag in tags} == dict(tags)
        odd = Counter(str(one) for fate in fates.values() for one in fate.irregular)
        assert admission.restricted["consent_half_filled"] == odd["half_filled"]


def silver(rows, built_ms):
    """The rows as `clean` leaves them, by scenario; those that wait are not there."""
    settling = Settling(registries(built_ms), PEOPLE, built_ms, DAY_MS)
    plain = pa.table({name: column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
                      for name, column in zip(rows.column_names, rows.columns, strict=True)})  # fmt: skip
    settled, waiting = settling.settle(plain)
    return settled.filter(pa.array(~waiting))


def number_of(rows):
    return [int(one.rpartition("-")[2]) for one in rows["event_id"].to_pylist()]


def built(admitted, purpose, layer, built_ms):
    """Scenario by scenario, of those built then: None if the layer uses the row, else why not, in Reel's words."""
    people = registries(built_ms)
    found = {}
    for rows, _, _ in admitted.values():
        stored = silver(rows, built_ms)
        found |= dict.fromkeys(number_of(rows), "waits")
        if layer is Layer.PER_PERSON:
            reasons = decide(stored, purpose, people, built_ms).reasons.to_pylist()
        elif layer is Layer.ANONYMOUS:
            reasons = decide(anonymous(stored, people, built_ms), purpose, people, built_ms).reasons.to_pylist()
        else:
            reasons = in_aggregate(stored, purpose, people, built_ms, layer)
        found |= dict(zip(number_of(stored), reasons, strict=True))
    return {number: why for number, why in found.items() if SCENARIOS[number].built_ms == built_ms}


def built_by_end(admitted, purpose, layer):
    """Every scenario, built when it says."""
    return built(admitted, purpose, layer, LATE_MS) | built(admitted, purpose, layer, SOON_MS)


def anonymous(rows, people, built_ms):
    """What leads to a child is taken out: first as the erasure of late children does it, then the token of the day."""
    late = LateChildren(people, PEOPLE, built_ms)
    is_late = pa.array(late.among(rows))
    order = pa.concat_tables([rows.filter(is_late), rows.filter(pa.compute.invert(is_late))])
    parts = pa.concat_tables([late.stripped(rows.filter(is_late)), rows.filter(pa.compute.invert(is_late))])
    assert parts["event_id"].equals(order["event_id"])
    token = pa.compute.if_else(parts["is_kids"], None, parts[VIEWER_TOKEN])
    parts = parts.set_column(parts.column_names.index(VIEWER_TOKEN), VIEWER_TOKEN, token)
    back = pa.compute.index_in(rows["event_id"], value_set=parts["event_id"].combine_chunks())
    return parts.take(back)


def in_aggregate(rows, purpose, people, built_ms, layer):
    """Every row in an hour of its own: a child's among children, who make a crowd of k with it, or one fewer."""
    decision, is_child = decide_for_aggregates(rows, purpose, people, built_ms)
    children = 20 if layer is not Layer.SMALL_AGGREGATE else 19
    size, total = rows.num_rows, rows.num_rows * children
    names = [[f"child-{one}" if flag else None for flag in is_child] for one in range(children)]
    log = pa.table(
        {
            "content_id": pa.array([str(place) for _ in range(children) for place in range(size)]),
            "event_timestamp": pa.repeat(pa.scalar(SCENARIOS[0].event.at_ms, MILLISECONDS), total),
            CHILD: pa.array([name for few in names for name in few], pa.string()),
            CHILD_KNOWN: pa.repeat(pa.scalar(INGESTED_MS, MILLISECONDS), total),
        }
    )
    counted = in_crowds(log, "content_id", 20)[:size]
    reasons = decision.reasons.to_pylist()
    return [why if why or is_counted else "too_few" for why, is_counted in zip(reasons, counted, strict=True)]


@pytest.fixture(scope="module")
def expected():
    return expect_all()


def expect_all():
    """The oracle's verdicts by (layer, purpose), each by scenario."""
    found = {}
    total = 0
    for number, scenario in enumerate(SCENARIOS):
        for case in cases(scenario, ESSENTIAL):
            total += 1
            found.setdefault((case.layer, case.purpose), {})[number] = case.expected
    assert total == CASES - (CASES // 7488) * (7488 - len(SCENARIOS))
    return found


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize(
    "layer", [Layer.PER_PERSON, Layer.ANONYMOUS, Layer.AGGREGATE_BEFORE, Layer.AGGREGATE, Layer.SMALL_AGGREGATE]
)
def test_in_builds(admitted, expected, layer, purpose):
    ours = built_by_end(admitted, purpose, layer)
    verdicts = expected[layer, purpose]
    leaks, withheld, unfounded = [], [], []
    for number, verdict in verdicts.items():
        if number not in ours:  # the door dropped it
            assert oracle.Reason.NO_ANALYTICS in verdict.reasons or purpose is Purpose.ESSENTIAL
            continue
        why = ours[number]
        if why is None and not verdict.allowed:
            leaks.append((SCENARIOS[number].label, sorted(verdict.reasons)))
        elif why is not None and verdict.allowed and not is_withheld(layer, SCENARIOS[number], why):
            withheld.append((SCENARIOS[number].label, why))
        elif why is not None and not verdict.allowed and not WORDS[why] & verdict.reasons:
            unfounded.append((SCENARIOS[number].label, why, sorted(verdict.reasons)))
    assert (len(leaks), leaks[:3]) == (0, [])
    assert (len(withheld), withheld[:3]) == (0, [])
    assert (len(unfounded), unfounded[:3]) == (0, [])


def is_withheld(layer, scenario, why):
    """Where Reel is stricter than it must be: who withdraws leaves aggregates too, at the next build, however large."""
    return layer is Layer.AGGREGATE_BEFORE and (
        why == "withdrawn_since" or (why == "refused_on_event" and " undescribed " in scenario.label)
    )


def test_online(expected, tmp_path):
    consents, profiles = known(LATE_MS)
    with open_online_store(f"lmdb://{tmp_path}/online") as store:
        for group, records in (("profiles", profile_records(profiles)), ("consents", consent_records(consents))):
            store.put_many(group, ((key, json.dumps(value).encode()) for key, value in records))
        gate = ConsentGate(PEOPLE)
        late = [(number, one) for number, one in enumerate(SCENARIOS) if one.built_ms == LATE_MS]
        for purpose in Purpose:
            for market in ("US", "DE", None):
                asked = [(number, one) for number, one in late if one.event.market == market]
                people = [Person(one.event.user, one.event.profile) for _, one in asked]
                answers = gate.refusals(store, people, [purpose], market)
                for (number, one), refusal in zip(asked, answers, strict=True):
                    served = expected[Layer.SERVING, purpose][number]
                    if purpose in (Purpose.ESSENTIAL, Purpose.CONTENT_SAFETY):
                        assert refusal == "purpose_not_permitted"
                        continue
                    assert (refusal is None) == (served.fallback is None), (one.label, refusal, served)
                    owner = oracle.whose(one.event, one.descriptions, LATE_MS)
                    if owner is Whose.CHILD and served.fallback is oracle.Fallback.KIDS_TITLES:
                        assert refusal in ("kids_profile", "unknown_viewer")


def test_the_matrix_is_whole(expected):
    assert {layer for layer, _ in expected} == set(Layer)
    assert len({one.label for one in SCENARIOS}) == len(SCENARIOS)
    assert {label.label.split()[0] for label in SCENARIOS} == set(Carrier)
    assert pl.Series([len(few) for few in expected.values()]).n_unique() == 1
