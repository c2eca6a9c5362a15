"""Every endpoint, asked what its description allows and what it does not: no failure, no silence, problems in words.

What is asked comes from the service's own OpenAPI, so that an endpoint added later is asked too.
"""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.serving.watch.watched import Watched

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own use of SQLAlchemy
]

NO_ANSWER_S = 30
# A deadline that was drawn would be kept, with 504: deadlines have tests of their own.
UNHURRIED = {"X-Request-Timeout-Ms": "60000"}


@pytest.mark.parametrize(
    ("mode", "examples", "with_token"),
    [
        (GenerationMode.POSITIVE, 12, True),
        (GenerationMode.NEGATIVE, 12, True),
        (GenerationMode.POSITIVE, 2, False),
    ],
    ids=["allowed", "not allowed", "without a token"],
)
def test_nothing_that_is_asked_makes_it_fail(
    watched: Watched, mode: GenerationMode, examples: int, with_token: bool
) -> None:
    described = watched.client.get("/openapi.json").raise_for_status().json()
    schema = schemathesis.openapi.from_dict(described)
    headers = UNHURRIED | ({"Authorization": watched.client.headers["Authorization"]} if with_token else {})
    asked: set[str] = set()

    def ask(case: Case) -> None:
        asked.add(case.path)
        response = case.call(base_url=watched.service.address, headers=headers, timeout=NO_ANSWER_S)
        case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])
        assert response.status_code < 500
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]
            assert "Traceback" not in response.text

    for result in schema.get_all_operations():
        operation = result.ok()
        strategy = operation.as_strategy(mode)
        seeded = settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seeded(given(strategy)(ask))()
    assert asked
    if mode is GenerationMode.POSITIVE:
        assert asked == set(described["paths"])
    assert httpx.get(f"{watched.service.address}/healthz", timeout=NO_ANSWER_S).status_code == 200
