"""No station reads people's events around the decision: whoever reads tables is on this list, with what for.

Who decides, calls `features.decision`. Who does not, never makes anything of a person's rows: it moves, counts or looks
for them, or reads what was decided on before. A new reader fails here until somebody has said which it is.
"""

import ast

import pytest

from pipelines.settings_section import PROJECT_ROOT

READERS = {"read_tasks", "read_files", "read_all", "read_snapshot", "read_row_groups", "read_file", "ArrowScan"}
DECISION = "features.decision"

DECIDES = {
    "viewing": "rows of silver, for features and the recommender's training set",
    "quality/clean_rows": "clocks and references",
    "privacy/view": "a role's view of a table",
    "clean": "rows that waited for their profile",
    "privacy/late_children": "rows of profiles that turn out to be a child's",
    "stream/base": "rows that the online store's values were made of, as people allow by now",
    "stream/waiting": "rows that waited for their profile, which come into the stream through the decision",
}
DECIDED_BEFORE = {
    "assemble": "the catalogue, and how popular titles are with crowds",
    "build_features": "keys of tables that were built of decided rows",
    "feature_tables": "the same tables",
    "feature_statistics/record": "numbers of days",
    "training_sets/rows": "sorted logs that were made of decided rows",
    "training_sets/inputs": "the catalogue",
    "feature_logs": "the catalogue; rows of people come through `viewing`",
    "training_set": "the catalogue; rows of people come through `viewing`",
}
MAKES_NOTHING_OF_THEM = {
    "feature_changes": "the catalogue, to tell which titles changed",
    "feature_look": "times and pseudonyms, to tell what has to be built anew",
    "feature_scope": "pseudonyms, to tell whose rows have to be read",
    "lakehouse/compaction": "puts rows together",
    "lakehouse/origins": "offsets",
    "privacy/audit": "the audit log",
    "privacy/erase": "takes rows out",
    "privacy/quarantined": "a person's own messages, for their export",
    "privacy/requests": "who asked to be erased",
    "privacy/taking_out": "takes rows out",
    "privacy/whereabouts": "a person's own rows, for their export and erasure",
    "quality/arrivals": "counts by topic and hour",
    "quality/identity": "counts of repeated ids",
    "quality/record": "its own results",
    "quality/rejects": "counts of what was set aside",
    "quality/required": "counts of missing fields",
    "quarantine_counts": "counts of what was set aside",
    "reopening": "sealed messages, which go through the door",
    "replay": "sealed messages, which go through the door; the registries",
    "silver/memory": "the catalogue and the registries",
    "silver/sessions": "playbacks, put together with the consent of their events",
    "silver/work": "bronze, cleaned with the consent of its events",
    "sources/table": "others' events, which go through the door",
}
REGISTRIES = {
    "erased": "who was erased",
    "ingest": "what the door asks",
    "table_source": "what the door asks",
    "online": "what the service asks",
    "online_people": "what the service asks",
}


def imports(file):
    """(module, name) of everything that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def readers():
    """Modules of the stations and of the service that import something that reads tables."""
    found = {}
    for folder in ("pipelines", "serving"):
        for file in sorted((PROJECT_ROOT / folder).rglob("*.py")):
            names = list(imports(file))
            if any(name in READERS for _, name in names) and file.name != "scans.py":
                found[str(file.relative_to(PROJECT_ROOT / folder).with_suffix(""))] = names
    return found


def test_whoever_reads_tables_is_known():
    known = DECIDES | DECIDED_BEFORE | MAKES_NOTHING_OF_THEM | REGISTRIES
    assert set(readers()) == set(known)
    assert len(known) == sum(map(len, (DECIDES, DECIDED_BEFORE, MAKES_NOTHING_OF_THEM, REGISTRIES)))


@pytest.mark.parametrize("module", sorted(DECIDES))
def test_who_decides_asks_the_one_module(module):
    assert any(source in (DECISION, "features.late_children") for source, _ in readers()[module])


def test_consent_is_asked_nowhere_else():
    """The columns of consent are told from each other in the decision, and in nothing else that is made of rows."""
    asking = set()
    for folder in ("features", "pipelines", "models", "serving"):
        for file in sorted((PROJECT_ROOT / folder).rglob("*.py")):
            if "consent_personalization" in file.read_text():
                asking.add(str(file.relative_to(PROJECT_ROOT).with_suffix("")))
    # Schemas of tables and of events that are sent name the columns; the door counts what is restricted.
    assert {one for one in asking if "simulator" not in one and "traffic" not in one} <= {
        "pipelines/demo_live",
        "pipelines/door",
        "pipelines/event_batch",
        "pipelines/lakehouse/tables",
        "pipelines/movielens",
        "pipelines/privacy/classification",
        "pipelines/privacy/field_docs",
        "features/playback_sessions",
        "pipelines/contract/avro_encode",
    }
