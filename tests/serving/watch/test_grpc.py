"""Features over gRPC are those over HTTP, for the same callers."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from serving.rpc.features_pb2 import LookUpRequest, LookUpResponse
from serving.rpc.features_pb2_grpc import FeaturesStub
from tests.serving import platform
from tests.serving.watch.watched import Watched, token, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own use of SQLAlchemy
]

PEOPLE = ["profile-kid", "profile-adult", "profile-stranger", "profile-refused", platform.UNDER_OLD_SALT]
QUESTIONS: list[dict[str, Any]] = [
    {"group": "user_viewing_history", "entity": "profile_id", "keys": PEOPLE},
    {"group": "user_viewing_history", "entity": "profile_id", "keys": ["profile-unasked"], "market": "US"},
    {"group": "user_viewing_history", "entity": "user_id", "keys": ["user-adult"], "purpose": "ad_targeting"},
    {"group": "content_popularity", "entity": "content_id", "keys": ["title-05", "ü片", "none"]},
    {"group": "content_popularity", "entity": "content_id", "keys": [f"title-{number}" for number in range(1000)]},
]


@pytest.fixture(scope="module")
def stub(watched: Watched) -> Iterator[FeaturesStub]:
    with grpc.insecure_channel(watched.grpc_address) as channel:
        yield FeaturesStub(channel)


def ask(stub: FeaturesStub, request: LookUpRequest, bearer: str | None, **metadata: str) -> LookUpResponse:
    told = [*metadata.items()]
    if bearer is not None:
        told.append(("authorization", f"Bearer {bearer}"))
    return stub.LookUp(request, metadata=told, timeout=60)


def refused(stub: FeaturesStub, request: LookUpRequest, bearer: str | None, **metadata: str) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        ask(stub, request, bearer, **metadata)
    return error.value.code().name, error.value.details()


def as_http(answer: LookUpResponse) -> dict[str, Any]:
    """What the same answer would be as JSON of `/v1/features`."""
    said = {"as_of": None} | MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for row in said["rows"]:
        row["age_ms"] = int(row["age_ms"]) if "age_ms" in row else None
        row.setdefault("reason", None)
    return said


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_same_question_has_the_same_answer(watched: Watched, stub: FeaturesStub, question: dict[str, Any]) -> None:
    by_http = watched.client.post("/v1/features", json=question).raise_for_status().json()
    by_grpc = ask(stub, LookUpRequest(**question), token())
    assert as_http(by_grpc) == by_http


def test_the_same_tokens_open_it(stub: FeaturesStub) -> None:
    question = LookUpRequest(**QUESTIONS[0])
    expired = token(exp=1)
    for bearer in (None, "rubbish", expired, token(aud="another"), "x" * 6000):
        assert refused(stub, question, bearer)[0] == "UNAUTHENTICATED"
    code, details = refused(stub, question, token(scope="recommendations"))
    assert (code, "'features'" in details) == ("PERMISSION_DENIED", True)


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({"group": "user_viewing_histroy"}, "NOT_FOUND", "user_viewing_history"),
        ({"entity": "profile"}, "INVALID_ARGUMENT", "profile_id"),
        ({"keys": []}, "INVALID_ARGUMENT", "keys"),
        ({"keys": ["x" * 101]}, "INVALID_ARGUMENT", "keys"),
        ({"keys": ["a"] * 1001}, "INVALID_ARGUMENT", "1000 keys"),
        ({"keys": ["x" * 100] * 20_000}, "RESOURCE_EXHAUSTED", "1000000 bytes"),
        ({"purpose": "profit"}, "INVALID_ARGUMENT", "purpose"),
    ],
    ids=["group", "entity", "none", "long", "many", "large", "purpose"],
)
def test_what_is_wrong_is_named(stub: FeaturesStub, change: dict[str, Any], code: str, named: str) -> None:
    received, details = refused(stub, LookUpRequest(**(QUESTIONS[0] | change)), token())
    assert (received, named in details, "Traceback" in details) == (code, True, False)


def test_a_wrong_deadline_is_named_and_a_call_is_measured_and_traced(watched: Watched, stub: FeaturesStub) -> None:
    question = LookUpRequest(**QUESTIONS[3])
    metadata = [("authorization", f"Bearer {token()}"), ("traceparent", f"00-{'7' * 32}-{'8' * 16}-01")]
    before = watched.total("reel_requests_total", method="GRPC", status="200")
    _, call = stub.LookUp.with_call(question, metadata=metadata, timeout=60)
    assert ("x-trace-id", "7" * 32) in [(one.key, one.value) for one in call.trailing_metadata()]
    late = [*metadata, ("x-request-timeout-ms", "soon")]
    with pytest.raises(grpc.RpcError) as error:
        stub.LookUp(question, metadata=late, timeout=60)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    until(lambda: watched.total("reel_requests_total", method="GRPC", status="200") == before + 1)
    until(lambda: any(span.parent_span_id.hex() == "8" * 16 for span in watched.collector.of("7" * 32)))


def test_the_service_publishes_its_proto_and_the_messages_are_made_of_it(
    watched: Watched, project_root: Path, tmp_path: Path
) -> None:
    published = watched.client.get("/docs/features.proto").raise_for_status().text
    path = Path("serving/rpc/features.proto")
    assert published == (project_root / path).read_text()
    options = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", "-I", ".", *options, str(path)],
        cwd=project_root,
        check=True,
        timeout=120,
    )
    made = sorted((tmp_path / path.parent).iterdir())
    assert [file.name for file in made] == ["features_pb2.py", "features_pb2.pyi", "features_pb2_grpc.py"]
    for file in made:
        assert file.read_text() == (project_root / path.parent / file.name).read_text(), f"make rpc: {file.name}"
