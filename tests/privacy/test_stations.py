"""No station reads people's events around the decision: whoever reads them is on a list, with what for.

Who decides, calls `features.decision`. Who does not, never makes anything of a person's rows: it moves, counts or looks
for them, or reads what was decided on before. A new reader fails here until somebody has said which it is: of tables,
of messages (Kafka's and sealed ones), of files of rows (training sets, checkpoints, logged predictions), of the online
store; and in the service whoever names a person at all.
"""

import ast
from functools import cache

import pytest

from pipelines.settings_section import PROJECT_ROOT

READERS = {"read_tasks", "read_files", "read_all", "read_snapshot", "read_row_groups", "read_file", "ArrowScan"}
DECISION = "features.decision"

DECIDES = {
    "viewing": "rows of silver, for features and the recommender's training set",
    "quality/clean_rows": "clocks and references",
    "privacy/view": "a role's view of a table",
    "clean": "rows that waited for their profile",
    "consistency/histories": "rows of whoever was served another value than the batch's, as allowed now and then",
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


# Who opens messages: what becomes of an event is decided at the door (`pipelines.door`), in the stream once more.
OPENS = {"MessageDecoder", "open_log", "open_tail"}
MESSAGES = {
    "admission": "takes them through the door",
    "ingest": "takes them through the door",
    "reopening": "sealed ones, through the door",
    "replay": "sealed ones, through the door",
    "privacy/quarantined": "a person's own, for their export",
    "privacy/sealed": "a person's own, to be erased",
    "stream/admitting": "takes them through the door and the decision",
    "stream/heard": "what is said of people: consent, profiles, deletions",
    "stream/running": "gives them to `admitting` and `heard`",
    "stream/worker": "gives them to `admitting`",
}
# Who reads files of rows. They were decided on when they were written, or are not Reel's; left tables are asked about.
FILE_READERS = {".read_table", ".ParquetFile", ".read_parquet", ".scan_parquet", ".iter_batches", "read_rows"}
FILES = {
    "consistency/served": "logged look-ups of people who allowed it; the join that works them out anew asks again",
    "demo": "whom the demo asks about: the simulator's truth",
    "demo_live": "the same",
    "feast/offline_store": "what the join has written",
    "feature_statistics/reference": "training sets, which features are compared with",
    "judging": "a training set",
    "point_in_time/left": "rows that somebody brings, whose people are asked about in `point_in_time/people`",
    "point_in_time/stored": "sorted logs that were made of decided rows",
    "privacy/from_tables": "files nobody names, to delete them",
    "privacy/holdings": "a person's own rows, for their export",
    "privacy/predictions": "logged answers: a person's own, and to take them out",
    "privacy/streamed": "checkpoints: a person's own rows, and to take them out",
    "privacy/training_sets": "takes rows out",
    "privacy/verify": "looks for a person",
    "splits": "a training set",
    "stream/checkpoint": "rows that the stream had admitted; consent that came since is heard first",
    "training_sets/built": "a training set",
}
# Who reads the online store, and whether it asks the service's gate, which asks the decision.
STORE_READERS = {"open_online_store", ".open_online_store", ".get_many", ".get_groups", "read_records", "read_groups"}
GATE = ("ConsentGate", "refusals_of")
ASKS_THE_GATE = {"answer_log", "cdn_api", "churn_api", "feature_lookup", "recommendations", "viewers"}
STORE = {
    "anomalies_api": "a channel's last 30 days, of nobody",
    "app": "opens it for the logs of answers, which ask",
    "consent_gate": "the gate itself",
    "fallback": "popular titles, of nobody",
    "hosting/title_numbers": "numbers of titles, of nobody",
    "service": "opens it for the log of predictions, which asks",
    "store_reader": "opens it for those who ask",
    "demo": "the watermark",
    "feast/online_store": "Feast's own view of it, for callers whose purpose was asked",
    "online": "writes what was decided on",
    "online_people": "writes what the gate asks",
    "privacy/held_features": "a person's own values, for their export",
    "privacy/holdings": "a person's own values, for their export",
    "privacy/online": "deletes",
    "privacy/verify": "looks for a person",
    "status": "the watermark, and how far the stream has come",
    "stream/base": "which publication it holds",
    "stream/running": "which publication it holds",
    "stream/tile_books": "tiles of people, which rows that were decided on are added to",
    "stream/worker": "opens it for `tile_books`",
}
# Who in the service names a person. Those who answer ask the gate; what the others do with it.
PEOPLE = ("user_id", "profile_id", "session_id", "viewer_token")
NAMES_PEOPLE = {
    "consent_gate": "the gate itself",
    "feature_log": "columns of the log; `answer_log` asks of whom a row is kept",
    "features_api": "takes the question; `feature_lookup` asks",
    "prediction_log": "columns of the log; `answer_log` asks of whom a row is kept",
}
# Parts of the service that never see whose an answer is, but by a pseudonym that divides people into arms.
SEES_NOBODY = ("watch", "hosting", "rpc")


def imports(file):
    """(module, name) of everything that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


@cache
def words(file):
    """What a file imports, and, with a dot before it, whatever it asks of something else."""
    asked = (node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute))
    return {name for _, name in imports(file)} | {f".{name}" for name in asked}


def names_of_people(file):
    """The columns of people that a file names, in whatever way."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        named = {ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.keyword: "arg", ast.Constant: "value"}
        found.add(getattr(node, named[type(node)]) if type(node) in named else None)
    return found & set(PEOPLE)


def who_uses(wanted, *folders, but=()):
    """The files under some folders that use one of some words."""
    return {
        name
        for folder in folders
        for name, file in files(folder).items()
        if words(file) & wanted and not name.startswith(but)
    }


def files(folder):
    return {
        str(file.relative_to(PROJECT_ROOT / folder).with_suffix("")): file
        for file in sorted((PROJECT_ROOT / folder).rglob("*.py"))
    }


def readers():
    """Modules of the stations and of the service that import something that reads tables."""
    found = {}
    for folder in ("pipelines", "serving"):
        for name, file in files(folder).items():
            names = list(imports(file))
            if any(word in READERS for _, word in names) and file.name != "scans.py":
                found[name] = names
    return found


def test_whoever_reads_tables_is_known():
    known = DECIDES | DECIDED_BEFORE | MAKES_NOTHING_OF_THEM | REGISTRIES
    assert set(readers()) == set(known)
    assert len(known) == sum(map(len, (DECIDES, DECIDED_BEFORE, MAKES_NOTHING_OF_THEM, REGISTRIES)))


@pytest.mark.parametrize("module", sorted(DECIDES))
def test_who_decides_asks_the_one_module(module):
    assert any(source in (DECISION, "features.late_children") for source, _ in readers()[module])


def test_whoever_opens_messages_is_known():
    assert who_uses(OPENS, "pipelines", "serving", but=("kafka/",)) == set(MESSAGES)


def test_whoever_reads_files_of_rows_is_known():
    assert who_uses(FILE_READERS, "pipelines", "serving", but=("lakehouse/scans",)) == set(FILES)


def test_whoever_reads_the_online_store_is_known():
    assert who_uses(STORE_READERS, "pipelines", "serving", but=("online_store/",)) - ASKS_THE_GATE == set(STORE)


def test_whoever_answers_about_people_asks_the_gate():
    of_service = files("serving")
    name_people = {name for name, file in of_service.items() if names_of_people(file)}
    assert set(NAMES_PEOPLE) <= name_people <= {*NAMES_PEOPLE, *ASKS_THE_GATE}
    assert {name for name, file in of_service.items() if words(file) & set(GATE)} - {"app"} == ASKS_THE_GATE
    gate = dict.fromkeys(name for module, name in imports(of_service["consent_gate"]) if module == DECISION)
    assert {"consent_refusal", "profile_refusal"} <= set(gate)


@pytest.mark.parametrize("part", SEES_NOBODY)
def test_parts_that_see_nobody_read_nothing_of_people(part):
    of_part = {name: file for name, file in files("serving").items() if name.startswith(f"{part}/")}
    assert of_part
    for name, file in of_part.items():
        assert not names_of_people(file), name
        reads = words(file) & (READERS | OPENS | FILE_READERS | STORE_READERS)
        assert not reads or STORE.get(name, "").endswith("of nobody"), name


def test_the_stream_decides_on_every_message_and_on_every_row_that_it_begins_with():
    of_stream = {name: file for name, file in files("pipelines").items() if name.startswith("stream/")}
    decide = {name for name, file in of_stream.items() if (DECISION, "decide") in set(imports(file))}
    assert decide == {"stream/admitting", "stream/base"}


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
