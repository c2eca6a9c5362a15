"""Models over real HTTP: `python -m serving` with a real MLflow registry and models that were trained, tiny, for it."""

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from features.pseudonyms import Pseudonymizer
from models.anomaly.forecaster import Forecaster
from models.cascade.cascade import Asked, Cascade
from models.cascade.folder import load as load_cascade
from models.cdn.quality import QualityModel
from models.churn.scorer import ChurnScorer
from pipelines.assemble import assemble
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.settings import LakehouseSettings, Settings
from pipelines.tracking import Tracking
from serving.online_store import open_online_store
from serving.served_models import SERVED
from serving.settings import MODELS
from serving.tokens import Scope
from tests.models.anomaly.planted import START_MS, series
from tests.models.ranker.planted import GENRES
from tests.serving import platform, registry
from tests.serving.platform import NETWORK_SCORES, WATERMARK, tune_ins
from tests.serving.service_process import ServiceProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    # MLflow's own use of SQLAlchemy.
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

SECRET = "0123456789abcdef" * 2
SHARE = 0.5
PEOPLE = Pseudonymizer((platform.OLD_SALT, platform.NEW_SALT))
ROUTE = {"cdns": ["akamai", "cloudfront", "fastly"], "region": "US"}
METRIC = {"metric": "tune_ins", "segment": {"channel": "ch-003"}}
PAGE = "/v1/recommendations?profile_id=profile-adult"
QUESTIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "cascade": ("GET", PAGE, {}),
    "recommendation": ("GET", PAGE, {}),
    "churn": ("GET", "/v1/churn?user_id=user-adult", {}),
    "cdn": ("POST", "/v1/cdn/route", ROUTE | {"user_id": "user-adult"}),
    "anomaly": ("POST", "/v1/anomalies", METRIC | {"values": [{"at": "2026-05-04T12:00:00Z", "value": 5}]}),
}


# Each by itself; the cascade comes last, for with it the recommender answers no more.
ALONE = tuple(model for model in MODELS if model != "cascade")


def token(*scopes: str) -> str:
    claims = {"sub": "tests", "aud": "reel", "exp": int(time.time()) + 3600, "scope": " ".join(scopes)}
    return jwt.encode(claims, SECRET, algorithm="HS256")


@dataclass
class World:
    """A running service, what it stands on, and the folders of the models that were published to it."""

    service: ServiceProcess
    folder: Path
    tracking_uri: str
    client: httpx.Client
    saved: dict[str, Path] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        response = self.client.request(method, path, json=body or None)
        assert response.status_code == 200, response.text
        return response.json()

    def ask_model(self, model: str) -> dict[str, Any]:
        return self.ask(*QUESTIONS[model])

    def served(self, model: str) -> dict[str, Any]:
        return next(one for one in self.ask("GET", "/v1/models")["models"] if one["name"] == model)

    def until(self, ask: Callable[[], Any], is_right: Callable[[Any], bool]) -> Any:
        deadline = time.monotonic() + 300
        while not is_right(answer := ask()):
            assert time.monotonic() < deadline, answer
            time.sleep(0.1)
        return answer

    def logged(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "predictions").glob("date=*/*.parquet"))
        rows = [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
        return [row | {"prediction": json.loads(row["prediction"])} for row in rows]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The service before any model was published."""
    folder = tmp_path_factory.mktemp("models-served")
    with open_online_store(f"lmdb://{folder}/online") as store:
        platform.fill(store)
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    settings = {
        "online_store_url": f"lmdb://{folder}/online",
        "mlflow_tracking_uri": tracking_uri,
        "as_of": "watermark",
        "port": 0,
        "tokens": {"algorithm": "HS256"},
        "model_refresh_s": 0.3,
        "experiments": {
            "deeper": {"model": "churn", "share": SHARE, "mode": "ab"},
            "beside": {"model": "cdn", "share": 1, "mode": "shadow"},
        },
        "predictions": {"folder": str(folder / "predictions"), "flush_s": 0.2},
        "served_features": {"folder": str(folder / "served"), "flush_s": 0.2, "share": 1},
        # Others use these processors too: budgets that a busy machine keeps.
        "store_budget_ms": 2000,
        "deadline_ms": 5000,
    }
    environment = {"REEL_SALT": platform.SALTS, "REEL_TOKEN_SECRET": SECRET}
    with (
        ServiceProcess(folder, settings, environment) as service,
        httpx.Client(base_url=service.address, timeout=30) as client,
    ):
        client.headers["Authorization"] = f"Bearer {token(*Scope)}"
        yield World(service, folder, tracking_uri, client)


@pytest.fixture(scope="module")
def world(bare: World) -> World:
    """The same with a champion of every model but the cascade, from the first test that asks for it."""
    for model in ALONE:
        bare.saved[model] = bare.folder / "saved" / model
        if model == "recommendation":
            registry.make_recommender(bare.saved[model], seed=1)
        else:
            registry.train(model, bare.saved[model], **({"lr": 0.3} if model == "cdn" else {}))
        bare.versions[model] = registry.publish(bare.tracking_uri, bare.saved[model], model=model)
    for model in ALONE:
        bare.until(lambda model=model: bare.served(model), lambda one: one["versions"] != [])
    return bare


# --- the contract of every served model --------------------------------------------------------------------------


def test_every_model_has_its_endpoint_and_question() -> None:
    assert tuple(SERVED) == MODELS == tuple(QUESTIONS)
    assert {one.scope for one in SERVED.values()} < set(Scope)


@pytest.mark.parametrize("model", MODELS)
def test_a_missing_model_is_an_answer_that_says_so(bare: World, model: str) -> None:
    answer = bare.ask_model(model)
    assert answer["degraded"] is True
    if model == "churn":
        (score,) = answer["scores"]
        assert (score["probability"], score["band"], score["reason"]) == (None, None, "model_unavailable")
        return
    assert (answer["reason"], answer["model_version"]) == ("model_unavailable", None)
    if model == "cdn":
        # Each network's mean in the region stands in for the model.
        qualities = {one["cdn"]: one["expected_quality"] for one in answer["networks"]}
        assert qualities == {cdn: NETWORK_SCORES[f"{cdn}/US"] for cdn in ROUTE["cdns"]}
        assert answer["source"] == "region"
    standing = bare.served(model)
    assert standing["versions"] == []
    assert standing["problems"]["champion"]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_described_and_needs_its_scope(bare: World, model: str) -> None:
    served = SERVED[model]
    described = bare.ask("GET", "/openapi.json")["paths"][served.endpoint]
    method, path, body = QUESTIONS[model]
    operation = described[method.lower()]
    assert {"401", "403", "422"} <= operation["responses"].keys()
    others = token(*(set(Scope) - {served.scope}))
    for headers, status in (({"Authorization": f"Bearer {others}"}, 403), ({"Authorization": ""}, 401)):
        refused = bare.client.request(method, path, json=body or None, headers=headers)
        assert refused.status_code == status
        assert refused.headers["content-type"] == "application/problem+json"
    entry = bare.served(model)
    assert (entry["endpoint"], entry["scope"], entry["fallback"]) == (served.endpoint, served.scope, served.fallback)


def test_without_a_model_the_baseline_of_what_is_sent_judges(bare: World) -> None:
    """Two weeks of the same hour: the expectation is their median, worked out here."""
    hours = [WATERMARK + timedelta(hours=n - 14 * 24) for n in range(14 * 24 + 1)]
    values = [100.0 + 10 * math.sin(one.hour) + one.toordinal() % 3 for one in hours]
    of_hour = sorted(v for one, v in zip(hours[:-1], values[:-1], strict=True) if one.hour == WATERMARK.hour)
    expected = (of_hour[6] + of_hour[7]) / 2
    for newest, severities in ((expected, {"normal"}), (expected + 500, {"critical"})):
        points = [{"at": a.isoformat(), "value": v} for a, v in zip(hours, [*values[:-1], newest], strict=True)]
        answer = bare.ask("POST", "/v1/anomalies", {"metric": "errors", "segment": {"cdn": "akamai"}, "values": points})
        assert answer["expected"] == pytest.approx(expected, abs=1e-5)
        assert (answer["source"], answer["reason"], answer["degraded"]) == ("baseline", None, False)
        assert answer["severity"] in severities
        assert answer["low"] <= expected <= answer["high"]


def test_without_a_model_and_without_a_past_the_stores_own_judges(bare: World) -> None:
    """What the weekday's hour had in the four weeks that the online store knows: their median, worked out here."""
    weeks = sorted(tune_ins(7 * 24 * week) for week in (1, 2, 3, 4))
    expected = (weeks[1] + weeks[2]) / 2
    question = {"metric": "tune_ins", "segment": {"channel": "ch-watched"}}
    for value, severity in ((expected, "normal"), (expected + 500, "critical")):
        newest = [{"at": WATERMARK.isoformat(), "value": value}]
        answer = bare.ask("POST", "/v1/anomalies", question | {"values": newest})
        assert answer["expected"] == pytest.approx(expected, abs=1e-5)
        assert (answer["source"], answer["reason"], answer["degraded"]) == ("baseline", "model_unavailable", True)
        assert answer["severity"] == severity
    unknown = question | {"segment": {"channel": "ch-never-seen"}, "values": newest}
    assert bare.ask("POST", "/v1/anomalies", unknown)["expected"] is None


# --- what each answers -------------------------------------------------------------------------------------------


def test_churn_is_the_models_own_number_with_its_reasons(world: World) -> None:
    answer = world.ask("GET", "/v1/churn?user_id=user-adult")
    (score,) = answer["scores"]
    scorer = ChurnScorer.load(world.saved["churn"])
    known = {
        name: world.ask("GET", f"/v1/features?group={name}&user_id=user-adult")
        for name in ("churn_signals", "user_viewing_history", "qoe_signals")
    }
    columns: dict[str, list[Any]] = {}
    for column in scorer.encoding.columns:
        group, _, feature = column.partition("__")
        row = known.get(group, {"values": {}, "age_ms": None})
        columns[column] = [row["age_ms"] if feature == "age_ms" else row["values"].get(feature)]
    rows = pa.table(columns)
    assert columns["churn_signals__viewing_hours_delta"] == [-6.5]
    assert score["probability"] == pytest.approx(float(scorer.probabilities(rows)[0]))
    (reasons,) = scorer.reasons(rows, 5)
    assert [(one["feature"], one["log_odds"]) for one in score["reasons"]] == [
        (one.feature, pytest.approx(one.log_odds)) for one in reasons
    ]
    bounds = {"low": (0, 0.1), "medium": (0.1, 0.3), "high": (0.3, 1)}[score["band"]]
    assert bounds[0] <= score["probability"] <= bounds[1]
    assert score["model_version"] == world.versions["churn"]
    assert (answer["model"], answer["degraded"]) == ("churn", False)
    assert datetime.fromisoformat(answer["as_of"]) == WATERMARK


@pytest.mark.parametrize(
    ("account", "market", "reason"),
    [
        ({"user_id": "user-refused"}, None, "consent_refused"),
        ({"user_id": "user-unasked"}, None, "consent_unknown"),
        ({"user_id": "nobody"}, None, "consent_unknown"),
        ({"user_id": "nobody"}, "US", "no_history"),
        ({"user_id": "user-adult", "profile_id": "profile-kid"}, None, "kids_profile"),
        ({"user_id": "user-adult", "profile_id": "profile-undescribed"}, None, "unknown_viewer"),
        ({"user_id": "user-adult", "profile_id": "profile-refused"}, None, "profile_of_another_user"),
    ],
)
def test_who_may_not_be_scored_is_not_and_is_told_why(
    world: World, account: dict[str, str], market: str | None, reason: str
) -> None:
    asked = {"accounts": [account, {"user_id": "user-adult"}], "market": market}
    refused, scored = world.ask("POST", "/v1/churn", asked)["scores"]
    assert (refused["probability"], refused["reason"], refused["reasons"]) == (None, reason, [])
    assert 0 < scored["probability"] < 1


def test_a_route_is_the_models_expectation_and_an_honest_draw(world: World) -> None:
    answer = world.ask_model("cdn")
    assert (answer["source"], answer["reason"], answer["is_personal"]) == ("model", None, True)
    assert answer["model_version"] == world.versions["cdn"]
    assert sum(one["probability"] for one in answer["networks"]) == pytest.approx(1)
    # Inverse gap weighting, by hand.
    scores = [one["expected_quality"] for one in answer["networks"]]
    gamma = QualityModel.load(world.saved["cdn"]).gamma
    shares = [1 / (3 + gamma * (max(scores) - score) / 100) for score in scores]
    best = scores.index(max(scores))
    shares[best] = 1 - sum(share for place, share in enumerate(shares) if place != best)
    assert [one["probability"] for one in answer["networks"]] == pytest.approx(shares)
    chosen = Counter()
    for _ in range(60):
        one = world.ask_model("cdn")
        chosen[one["cdn"]] += 1
        assert one["propensity"] == next(n["probability"] for n in one["networks"] if n["cdn"] == one["cdn"])
    assert chosen.most_common(1)[0][0] == ROUTE["cdns"][best] == "fastly"


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ({}, None),
        ({"user_id": "user-refused"}, "consent_refused"),
        ({"profile_id": "profile-kid"}, "kids_profile"),
        ({"user_id": "nobody"}, "consent_unknown"),
    ],
)
def test_a_route_without_an_allowed_person_looks_at_no_device(
    world: World, who: dict[str, str], reason: str | None
) -> None:
    answers = [
        world.ask("POST", "/v1/cdn/route", ROUTE | who | {"connection_type": kind}) for kind in ("cellular", "wifi")
    ]
    assert answers[0]["networks"] == answers[1]["networks"]
    assert {(one["reason"], one["is_personal"], one["degraded"]) for one in answers} == {(reason, False, False)}


def test_a_network_that_nobody_knows_is_tried_as_the_worst(world: World) -> None:
    answer = world.ask("POST", "/v1/cdn/route", {"cdns": ["akamai", "brand-new"], "region": "US"})
    akamai, new = answer["networks"]
    assert new["expected_quality"] is None
    assert akamai["expected_quality"] is not None
    assert new["probability"] == akamai["probability"] == 0.5
    alone = world.ask("POST", "/v1/cdn/route", {"cdns": ["brand-new"], "region": "nowhere"})
    assert (alone["cdn"], alone["propensity"], alone["source"]) == ("brand-new", 1.0, "uniform")


def test_a_network_that_gets_worse_is_left_and_comes_back(world: World) -> None:
    def report(*scores: float) -> None:
        outcomes = [{"cdn": "fastly", "region": "US", "score": score} for score in scores]
        assert world.ask("POST", "/v1/cdn/outcomes", {"outcomes": outcomes}) == {
            "received": len(scores),
            "degraded": False,
        }

    def share_of(cdn: str) -> float:
        return next(one["probability"] for one in world.ask_model("cdn")["networks"] if one["cdn"] == cdn)

    usual = share_of("fastly")
    report(*[78 + (n % 5) for n in range(40)])
    assert share_of("fastly") == pytest.approx(usual)
    report(*[30.0] * 10)
    assert share_of("fastly") == pytest.approx(0.02)
    elsewhere = world.ask("POST", "/v1/cdn/route", ROUTE | {"region": "DE"})["networks"]
    assert not any(one["is_degraded"] for one in elsewhere)
    report(*[80.0] * 10)
    assert share_of("fastly") == pytest.approx(usual)


def test_an_anomaly_is_the_models_own_forecast(world: World) -> None:
    rows = [row for row in series(20, 1).to_pylist() if row["channel_id"] == "ch-003"][-60:]
    values = [{"at": row["event_timestamp"].isoformat(), "value": row["tune_ins"]} for row in rows]
    forecaster = Forecaster.load(world.saved["anomaly"])
    at_ms = START_MS + rows[-1]["hour"] * 3_600_000
    given = forecaster.predicted(forecaster.expected("ch-003", at_ms, [float(row["tune_ins"]) for row in rows[:-1]]))
    answer = world.ask("POST", "/v1/anomalies", METRIC | {"values": values})
    assert (answer["source"], answer["model_version"]) == ("model", world.versions["anomaly"])
    assert answer["expected"] == pytest.approx(float(given.location[0]), rel=1e-5)
    assert (answer["low"], answer["high"]) == pytest.approx([float(one[0]) for one in given.band()], rel=1e-5)
    # By the t distribution with 4 degrees of freedom, from another library.
    z = (rows[-1]["tune_ins"] - float(given.location[0])) / float(given.scale[0])
    assert answer["score"] == pytest.approx(-math.log10(2 * stats.t.sf(abs(z), 4)), rel=1e-4)
    values[-1] = values[-1] | {"value": float(given.location[0]) + 100 * float(given.scale[0])}
    assert world.ask("POST", "/v1/anomalies", METRIC | {"values": values})["severity"] == "critical"


def test_a_channel_is_judged_by_the_past_the_model_keeps(world: World) -> None:
    known = world.ask("POST", "/v1/anomalies", QUESTIONS["anomaly"][2])
    assert known["source"] == "model"
    assert known["expected"] is not None
    unknown = world.ask("POST", "/v1/anomalies", QUESTIONS["anomaly"][2] | {"segment": {"channel": "ch-never-seen"}})
    assert (unknown["expected"], unknown["severity"], unknown["reason"]) == (None, None, "no_history")
    assert not unknown["degraded"]


# --- what callers get wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/churn", {"accounts": []}),
        ("/v1/churn", {"accounts": [{"user_id": ""}]}),
        ("/v1/churn", {"accounts": [{"user_id": "a"}] * 1001}),
        ("/v1/churn", {"accounts": [{"user_id": "\ud800"}]}),
        ("/v1/cdn/route", {"cdns": [], "region": "US"}),
        ("/v1/cdn/route", {"cdns": ["akamai", "akamai"], "region": "US"}),
        ("/v1/cdn/route", {"cdns": ["\ud800"], "region": "US"}),
        ("/v1/cdn/route", ROUTE | {"time_zone": "Mars/Olympus"}),
        ("/v1/cdn/route", ROUTE | {"time_zone": "../../etc/passwd"}),
        ("/v1/cdn/outcomes", {"outcomes": [{"cdn": "a", "region": "b", "score": 101}]}),
        ("/v1/anomalies", METRIC | {"values": []}),
        ("/v1/anomalies", METRIC | {"values": [{"at": "2026-05-04T12:00:00", "value": 5}]}),
        ("/v1/anomalies", METRIC | {"values": [{"at": "2026-05-04T12:00:00Z", "value": 1e300}]}),
        ("/v1/anomalies", METRIC | {"values": [{"at": "2026-05-04T12:00:00Z", "value": 5}] * 2}),
    ],
)
def test_a_question_that_is_none_is_a_problem(world: World, path: str, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    response = world.client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_an_unknown_model_is_answered_with_the_nearest(world: World) -> None:
    response = world.client.get("/v1/models/chrun")
    assert (response.status_code, response.json()["nearest"]) == (404, "churn")


# --- what is served, and who gets what ---------------------------------------------------------------------------


def test_what_is_served_is_listed_with_its_card(world: World) -> None:
    for model in ALONE:
        (version,) = [one for one in world.served(model)["versions"] if one["alias"] == "champion"]
        assert version["version"] == world.versions[model]
        trained, since = (datetime.fromisoformat(version[name]) for name in ("trained_at", "since"))
        assert trained <= since <= datetime.now(UTC)
        card = f"# {model} {version['version']}"  # which was written after the alias was given
        world.until(lambda model=model: world.ask("GET", world.served(model)["card"])["text"], card.__eq__)


def test_a_challenger_answers_its_share_and_everybody_always_the_same(world: World) -> None:
    registry.train("churn", world.folder / "saved" / "deeper", depth=2, lr=0.3)
    version = registry.publish(world.tracking_uri, world.folder / "saved" / "deeper", model="churn", alias="challenger")
    world.until(lambda: world.served("churn"), lambda one: len(one["versions"]) == 2)
    assert world.served("churn")["experiment"] == "deeper"
    users = [f"user-of-the-experiment-{number}" for number in range(100)]
    with open_online_store(f"lmdb://{world.folder}/online") as store:
        signals, consents = ("churn_signals_by_user_id", "consents")
        for group in (signals, consents):
            (one,) = store.get_many(group, [PEOPLE.hash("user-adult")])
            assert one is not None
            store.put_many(group, [(PEOPLE.hash(user), one) for user in users])
    asked = {"accounts": [{"user_id": user} for user in users]}
    first, again = (world.ask("POST", "/v1/churn", asked)["scores"] for _ in range(2))
    assert first == again
    arms = {one["user_id"]: one["experiment"]["arm"] for one in first}
    # SHA-256 of name and pseudonym, as documented, without Reel's code.
    treated = {
        user
        for user in users
        if hashlib.sha256(f"deeper\n{PEOPLE.hash(user)}".encode()).digest()[:8] < bytes([128, 0, 0, 0, 0, 0, 0, 0])
    }
    assert {user for user, arm in arms.items() if arm == "challenger"} == treated
    assert 30 < len(treated) < 70
    versions = {"champion": world.versions["churn"], "challenger": version}
    assert all(one["model_version"] == versions[arms[one["user_id"]]] for one in first)
    by_arm = {arm: {one["probability"] for one in first if arms[one["user_id"]] == arm} for arm in versions}
    assert {len(values) for values in by_arm.values()} == {1}
    assert by_arm["champion"] != by_arm["challenger"]
    registry.withdraw(world.tracking_uri, model="churn", alias="challenger")
    world.until(
        lambda: world.ask("POST", "/v1/churn", asked)["scores"],
        lambda scores: {one["experiment"]["arm"] for one in scores} == {"champion"},
    )


# --- the log -----------------------------------------------------------------------------------------------------


def test_answers_are_logged_without_plain_ids_and_a_shadow_beside(world: World) -> None:
    version = registry.publish(world.tracking_uri, world.saved["cdn"], model="cdn", alias="challenger")
    world.until(lambda: world.served("cdn"), lambda one: len(one["versions"]) == 2)
    answer = world.ask("POST", "/v1/cdn/route", ROUTE | {"user_id": "user-adult", "session_id": "the-session"})
    assert answer["model_version"] == world.versions["cdn"]
    session = PEOPLE.hash("the-session")
    rows = world.until(
        lambda: [row for row in world.logged() if row["session_id"] == session], lambda rows: len(rows) == 2
    )
    champion, shadow = sorted(rows, key=lambda row: row["is_shadow"])
    assert champion["answer_id"] == shadow["answer_id"] != ""
    assert (champion["arm"], champion["model_version"]) == ("champion", world.versions["cdn"])
    assert (shadow["arm"], shadow["model_version"], shadow["is_shadow"]) == ("challenger", version, True)
    assert champion["experiment"] == shadow["experiment"] == "beside"
    assert champion["propensity"] == answer["propensity"]
    assert champion["prediction"]["cdn"] == answer["cdn"]
    assert champion["user_id"] == PEOPLE.hash("user-adult")
    assert champion["as_of"] == WATERMARK
    for model in ALONE:
        world.ask_model(model)
    world.until(world.logged, lambda rows: {row["model"] for row in rows} >= set(ALONE))
    raw = b"".join(file.read_bytes() for file in (world.folder / "predictions").rglob("*.parquet"))
    texts = json.dumps([row["prediction"] for row in world.logged()]).encode()
    assert [one for one in platform.PLAIN_IDS if one.encode() in raw + texts] == []


def test_of_children_and_refusals_nothing_is_logged(world: World) -> None:
    for profile, (user, *_) in platform.PEOPLE.items():
        world.ask("GET", f"/v1/recommendations?profile_id={profile}&market=US")
        world.ask("GET", f"/v1/churn?user_id={user}&profile_id={profile}&market=US")
        world.ask("POST", "/v1/cdn/route", ROUTE | {"user_id": user, "profile_id": profile, "market": "US"})
    marker = PEOPLE.hash("the-last-one")
    world.ask("POST", "/v1/cdn/route", ROUTE | {"user_id": "user-adult", "session_id": "the-last-one"})
    world.until(world.logged, lambda rows: any(row["session_id"] == marker for row in rows))
    rows, counts = world.until(
        lambda: (world.logged(), world.ask("GET", "/v1/models")["predictions"]),
        lambda found: len(found[0]) == found[1]["written"],
    )
    allowed = {PEOPLE.hash(one) for one in ("profile-adult", "profile-new", "profile-stale")}
    assert {row["profile_id"] for row in rows} - {None} <= allowed
    users = {row["user_id"] for row in rows} - {None}
    assert {PEOPLE.hash(one) for one in ("user-refused", "user-unasked", "nobody")}.isdisjoint(users)
    # Answered by the default of the market, and not logged by it.
    assert counts["not_allowed"] > 0
    assert counts["dropped"] == 0


def test_of_look_ups_only_grown_ups_who_allow_it_and_titles_are_logged(bare: World) -> None:
    for profile in platform.PEOPLE:
        bare.ask("GET", f"/v1/features?group=user_viewing_history&profile_id={profile}&market=US")
    service = "personalization_user_viewing_history_by_profile_id"
    question = {"feature_service": service, "entities": {"profile_id": [*platform.PEOPLE]}}
    bare.ask("POST", "/get-online-features", question)
    bare.ask("GET", "/v1/features?group=content_popularity&content_id=title-05")

    def rows() -> list[dict[str, Any]]:
        files = sorted((bare.folder / "served").glob("date=*/*.parquet"))
        return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]

    found = bare.until(rows, lambda some: any(row["key"] == "title-05" for row in some))
    by_profile = Counter(row["profile_id"] for row in found if row["profile_id"] is not None)
    assert set(by_profile) == set(map(PEOPLE.hash, ("profile-adult", "profile-new", "profile-stale")))
    assert min(by_profile.values()) >= 2, "over both protocols"
    assert not {PEOPLE.hash("user-refused"), PEOPLE.hash("user-unasked")} & {row["user_id"] for row in found}
    metrics = bare.until(
        lambda: bare.client.get("/metrics").text, lambda text: 'reel_logged_rows_total{log="features"' in text
    )
    assert 'outcome="not_allowed"' in metrics


# --- a new champion, and a registry that is gone -----------------------------------------------------------------


def test_a_new_champion_of_every_model_is_taken_without_a_failed_request(world: World) -> None:
    versions: dict[str, set[str]] = {model: set() for model in ALONE}
    published: dict[str, str] = {}

    def ask_for_ever(model: str) -> int:
        count = 0
        deadline = time.monotonic() + 120
        with httpx.Client(base_url=world.service.address, timeout=30, headers=world.client.headers) as own:
            while published.get(model) not in versions[model]:
                assert time.monotonic() < deadline, versions
                method, path, body = QUESTIONS[model]
                response = own.request(method, path, json=body or None)
                assert response.status_code == 200, response.text
                answer = response.json()
                assert answer["degraded"] is False, answer
                versions[model].add(
                    answer["scores"][0]["model_version"] if model == "churn" else answer["model_version"]
                )
                count += 1
        return count

    with ThreadPoolExecutor(len(ALONE)) as threads:
        asking = [threads.submit(ask_for_ever, model) for model in ALONE]
        for model in ALONE:
            world.until(lambda model=model: versions[model], lambda seen: seen != set())
            published[model] = registry.publish(world.tracking_uri, world.saved[model], model=model)
        counts = [one.result() for one in asking]
    assert min(counts) > 1
    assert versions == {model: {world.versions[model], published[model]} for model in ALONE}
    world.versions |= published


def test_without_its_registry_what_is_loaded_goes_on_and_says_so(world: World) -> None:
    database = world.folder / "mlflow.db"
    database.rename(world.folder / "away.db")
    try:
        standing = world.until(lambda: world.served("churn"), lambda one: "champion" in one["problems"])
        assert "registry cannot be reached" in standing["problems"]["champion"]
        assert str(world.folder) not in json.dumps(standing)
        for model in ALONE:
            assert world.ask_model(model)["degraded"] is False
    finally:
        (world.folder / "away.db").rename(database)
    world.until(lambda: world.served("recommendation"), lambda one: one["problems"] == {})


# --- the cascade -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cascade(world: World) -> tuple[World, Cascade]:
    """`reel assemble` of the recommender's champion and of a content model and a ranker, and what it made."""
    for model in ("content", "ranker"):
        registry.train(model, world.folder / "saved" / model)
        registry.publish(world.tracking_uri, world.folder / "saved" / model, model=model)
    settings = Settings(work_dir=world.folder, lakehouse=LakehouseSettings(buckets=2))
    offer(settings)
    version = assemble(settings).wrote["version"]
    world.until(lambda: world.ask("GET", PAGE), lambda answer: answer["model"] == "cascade")
    champion = Tracking(world.tracking_uri).alias("cascade", "champion")
    assert champion is not None
    assert str(champion.version) == version
    world.versions["cascade"] = str(version)
    with Tracking(world.tracking_uri).fetched(champion) as folder:
        made = load_cascade(folder)
    # It was assembled without popularity; the store has some, of one title, as it was written there.
    known = {"daily_unique_viewers": 100.0, "completion_rate": 0.75, "trending_velocity": 1.5}
    numbers = {"title-05": {f"content_popularity__{name}": value for name, value in known.items()}}
    return world, Cascade(made.catalogue.as_of_now(numbers), made.config, made.retrieval, made.content, made.ranker)


def offer(settings: Settings) -> None:
    """A catalogue of the platform's titles, of which one was withdrawn, each of one genre."""
    rows = [
        {
            "event_id": f"offer-{name}",
            "event_timestamp": platform.WATERMARK_MS - platform.HOUR_MS,
            "content_id": name,
            "title": f"The {name}",
            "content_type": "vod",
            "genres": [GENRES[place % len(GENRES)]],
            "is_available": name != "title-19",
        }
        for place, name in enumerate(platform.TITLES)
    ]
    table = Lakehouse.open(settings).table(tables.silver_titles())
    commit_files(
        table, write_files(TableFiles.of(table), pa.Table.from_pylist(rows, tables.silver_titles().schema)), {}
    )


def test_a_cascade_that_cannot_be_loaded_leaves_the_recommender_to_answer_and_says_so(world: World) -> None:
    broken = world.folder / "saved" / "broken"
    broken.mkdir()
    registry.publish_folder(world.tracking_uri, broken, "cascade", "models.cascade.pyfunc")
    answer = world.until(lambda: world.ask("GET", PAGE), lambda answer: answer["degraded"])
    assert (answer["source"], answer["model"], answer["reason"]) == ("model", "recommendation", "model_unavailable")
    assert answer["model_version"] == world.versions["recommendation"]
    assert "cannot be loaded" in world.served("cascade")["problems"]["champion"]
    registry.withdraw(world.tracking_uri, model="cascade")
    answer = world.until(lambda: world.ask("GET", PAGE), lambda answer: not answer["degraded"])
    assert (answer["model"], answer["reason"], answer["parts"]) == ("recommendation", None, {})


def test_the_cascade_answers_by_what_is_known_of_the_viewer(cascade: tuple[World, Cascade]) -> None:
    world, made = cascade
    answer = world.ask("GET", f"{PAGE}&k=6&session_id={platform.SESSION}")
    assert (answer["source"], answer["reason"], answer["degraded"]) == ("model", None, False)
    assert (answer["model"], answer["model_version"]) == ("cascade", world.versions["cascade"])
    assert answer["parts"] == {
        "retrieval": f"recommendation {world.versions['recommendation']}", "content": "content 1", "ranker": "ranker 1",
    }  # fmt: skip
    assert answer["done_without"] == []
    # What is known, asked for one by one, in the ranker's columns; of the session, as it was written.
    features: dict[str, Any] = {}
    for group in ("user_viewing_history", "user_interaction_signals"):
        known = world.ask("GET", f"/v1/features?group={group}&profile_id=profile-adult")["values"]
        features |= {f"{group}_by_profile_id__{name}": value for name, value in known.items()}
    session = {"time_of_day": 11, "day_of_week": 0, "session_number_today": 2}
    features |= {f"session_context__{name}": value for name, value in session.items()}
    features = {name: list(one.items()) if isinstance(one, dict) else one for name, one in features.items()}
    assert dict(features["user_interaction_signals_by_profile_id__genre_click_distribution"]) == {
        "drama": 0.5, "horror": 0.5,
    }  # fmt: skip
    (page,) = made.recommend([Asked(platform.ADULT_HISTORY, features)], 6)
    assert [(one["content_id"], one["score"]) for one in answer["items"]] == [
        (name, pytest.approx(score)) for name, score in page.titles
    ]
    (unknown,) = made.recommend([Asked(platform.ADULT_HISTORY)], 6)
    assert page.titles != unknown.titles, "what is known of the viewer counts"
    shown = [one["content_id"] for one in answer["items"]]
    assert not {"title-19", *platform.ADULT_HISTORY} & set(shown), "neither withdrawn nor finished"
    assert answer["items"][0]["title"] == f"The {shown[0]}"


@pytest.mark.parametrize(
    ("profile", "reason", "audience"),
    [
        ("profile-kid", "kids_profile", "kids"),
        ("profile-refused", "consent_refused", "all"),
        ("profile-unasked", "consent_unknown", "all"),
        ("profile-undescribed", "unknown_viewer", "all"),
        ("profile-new", "no_history", "all"),
    ],
)
def test_whom_the_cascade_may_not_be_asked_about_gets_popular_titles(
    cascade: tuple[World, Cascade], profile: str, reason: str, audience: str
) -> None:
    world, _ = cascade
    answer = world.ask("GET", f"/v1/recommendations?profile_id={profile}&session_id={platform.SESSION}")
    assert (answer["source"], answer["reason"], answer["audience"]) == ("popular", reason, audience)
    assert (answer["model"], answer["parts"], answer["degraded"]) == (None, {}, False)


def test_the_cascade_is_listed_with_its_parts_and_logged(cascade: tuple[World, Cascade]) -> None:
    world, _ = cascade
    (version,) = world.served("cascade")["versions"]
    assert (version["version"], sorted(version["parts"])) == (
        world.versions["cascade"], ["content", "ranker", "retrieval"],
    )  # fmt: skip
    answer = world.ask("GET", f"{PAGE}&k=7")
    logged = world.until(
        lambda: [row for row in world.logged() if row["model"] == "cascade" and len(row["prediction"]["titles"]) == 7],
        lambda rows: rows != [],
    )
    assert logged[0]["prediction"]["titles"] == [one["content_id"] for one in answer["items"]]
    assert logged[0]["model_version"] == world.versions["cascade"]


def test_without_the_cascade_the_recommender_answers(cascade: tuple[World, Cascade]) -> None:
    world, _ = cascade
    registry.withdraw(world.tracking_uri, model="cascade")
    answer = world.until(lambda: world.ask("GET", PAGE), lambda answer: answer["model"] == "recommendation")
    assert (answer["model_version"], answer["degraded"]) == (world.versions["recommendation"], False)
    registry.give(world.tracking_uri, world.versions["cascade"], model="cascade")
    world.until(lambda: world.ask("GET", PAGE), lambda answer: answer["model"] == "cascade")
