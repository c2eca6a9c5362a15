"""The service's configuration: one JSON file, checked before anything starts, and the salts, which are not in it."""

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from features.pseudonyms import Pseudonymizer
from serving.errors import ConfigurationError
from serving.secret_files import read_private

Seconds = Annotated[float, Field(gt=0)]
Milliseconds = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]


class TokenSettings(BaseModel):
    """Whose bearer tokens are accepted. The secret of HS256 is never here: REEL_TOKEN_SECRET, or its file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Literal["RS256", "HS256"] = Field(
        description="RS256: an identity provider's keys; HS256: one secret, for a single machine"
    )
    jwks: str | None = Field(default=None, description="of RS256: the keys' file or https address")
    secret_file: Path | None = Field(default=None, description="of HS256: 32 bytes or more; mode 0600")
    audience: str = Field(default="reel", description="the service that a token must be for")
    issuer: str | None = Field(default=None, description="who must have signed it; null: whoever has the key")
    leeway_s: Annotated[float, Field(ge=0, le=600)] = Field(default=30, description="how far clocks may be apart")

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if (self.algorithm == "RS256") != (self.jwks is not None):
            raise ValueError("RS256 needs jwks, a file or an address of keys, and HS256 has none")
        if self.algorithm == "RS256" and self.secret_file is not None:
            raise ValueError("RS256 has no secret_file")
        if self.jwks is not None and self.jwks.startswith("http://"):
            raise ValueError("jwks must be https: whoever can change the keys on their way lets anybody in")
        return self


Model = Literal["cascade", "recommendation", "churn", "cdn", "anomaly"]
MODELS: tuple[Model, ...] = get_args(Model)
"""Every model that can be asked."""
Share = Annotated[float, Field(gt=0, le=1)]


class ExperimentSettings(BaseModel):
    """A model's challenger is tried beside its champion, on a share of those who are asked about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Model = Field(description="the model whose alias `challenger` is tried")
    share: Share = Field(description="of people (series, where it is about none), told apart by a stable hash")
    mode: Literal["ab", "shadow"] = Field(
        description="ab: the challenger answers them; shadow: the champion answers, both are logged"
    )


class AnswerLogSettings(BaseModel):
    """What is kept of answers, and how it comes to be written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path = Field(description="one folder a day, of Parquet files; all processes may share it")
    share: Share = Field(description="of answers that are kept")
    flush_s: Seconds = Field(default=60, description="how long an answer waits to be written")
    most_waiting: Count = Field(
        default=10_000, description="answers that wait at most; further ones are dropped, counted"
    )


class PredictionSettings(AnswerLogSettings):
    """What is kept of answers that models gave, to judge them by what came of it."""

    share: Share = Field(default=1, description="of answers, drawn at random")


class ServedFeatureSettings(AnswerLogSettings):
    """What is kept of features that look-ups answered, to be compared with the batch's of the same instants."""

    share: Share = Field(default=0.01, description="of keys that are asked for, drawn at random")


class ChurnBands(BaseModel):
    """From which probability on an account's band is `medium`, and from which `high`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    medium: Annotated[float, Field(gt=0, lt=1)] = 0.1
    high: Annotated[float, Field(gt=0, lt=1)] = 0.3

    @model_validator(mode="after")
    def _are_ordered(self) -> Self:
        if self.medium >= self.high:
            raise ValueError("medium must be below high")
        return self


class ServingSettings(BaseModel):
    """Everything the service needs to know; every replica gets the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    online_store_url: str = Field(description="lmdb:///absolute/path or redis://host:port/db")
    mlflow_tracking_uri: str = Field(description="where models are registered")
    models: tuple[Model, ...] = Field(default=MODELS, description="models that are run; the others answer degraded")
    model_refresh_s: Seconds = Field(default=10, description="how often aliases are looked up again")
    model_processes: Literal["one", "each"] = Field(
        default="one", description="one: a process runs all models; each: every model has processes of its own"
    )
    experiments: dict[str, ExperimentSettings] = Field(
        default={}, description="by name, which is part of the hash: another name divides people anew"
    )
    predictions: PredictionSettings | None = Field(default=None, description="null: no answer is logged")
    served_features: ServedFeatureSettings | None = Field(default=None, description="null: no look-up is logged")
    churn_bands: ChurnBands = ChurnBands()
    salt_file: Path | None = Field(default=None, description="salts, oldest first, one a line; mode 0600; or REEL_SALT")
    as_of: Literal["watermark", "now"] = Field(
        default="now", description="now: the wall clock; watermark: the newest event in the store (replayed history)"
    )
    tokens: TokenSettings | None = Field(
        default=None, description="whose tokens let callers in; null lets everybody in who can reach this machine"
    )
    requests_per_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="what one caller may ask of one process that answers; null: no limit"
    )
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8000, description="0 takes a free one")
    ingress: Literal["auto", "haproxy", "python"] = Field(
        default="auto", description="haproxy: fast; python: Serve's own proxy; auto: haproxy where it can run"
    )
    syslog: str = Field(default="127.0.0.1:514", description="where HAProxy sends warnings, never requests")
    drain_s: Annotated[float, Field(ge=0)] = Field(default=2, description="how long a stopping replica still answers")
    ray_address: str | None = Field(default=None, description="a Ray cluster to join; null starts Ray on this machine")
    ray_num_cpus: Count | None = Field(default=None, description="processors of a local Ray; null means all")
    replicas: Count = Field(default=1, description="processes that answer HTTP")
    model_replicas: Count = Field(default=1, description="processes that run a model; more need model_processes: each")
    store_budget_ms: Milliseconds = Field(default=50, description="a store look-up is given up after this")
    deadline_ms: Milliseconds = Field(default=500, description="an answer waits this long in all for its model")
    max_in_flight: Count = Field(
        default=256,
        description="requests one process that answers works on at once; further ones are told to come back",
    )
    request_limit_ms: Milliseconds = Field(
        default=10_000, description="a request is given up after this, whatever it waits for"
    )
    log_requests: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1, description="the share of good answers that are logged; all others always are"
    )
    traces_url: str | None = Field(
        default=None, description="who collects traces (OTLP over HTTP), as http://host:4318/v1/traces; null: nobody"
    )
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None, description="where features are looked up over gRPC; 0 takes a free one; null: nowhere"
    )
    popular_refresh_s: Seconds = Field(
        default=10, description="how old the list of popular titles, and a cascade's numbers of titles, may get"
    )
    max_k: Count = Field(default=100, description="titles one answer has at most")
    max_keys: Count = Field(default=1000, description="keys one look-up may ask for")
    max_body_bytes: Count = Field(default=1_000_000, description="a larger request body is refused")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.model_replicas > 1 and self.model_processes == "one":
            raise ValueError("several model_replicas need model_processes: each")
        tried = [one.model for one in self.experiments.values()]
        twice = next((model for model in tried if tried.count(model) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is in several experiments, of which nobody could tell the effects apart")
        return self


def load_settings(path: Path) -> ServingSettings:
    """The settings in the JSON file at `path`.

    Raises ConfigurationError naming the key at fault: an unknown one with its nearest known neighbour, a wrong
    value with what was received.
    """
    try:
        tree = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"configuration {path} cannot be read: {error}") from None
    except ValueError as error:
        raise ConfigurationError(f"configuration {path} is not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigurationError(f"configuration {path} must be a JSON object; received {type(tree).__name__}")
    return parse_settings(tree, str(path))


def parse_settings(tree: Mapping[str, Any], source: str) -> ServingSettings:
    """The settings in `tree`; `source` names it in messages."""
    known = ServingSettings.model_fields
    for key in tree:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"{source}: unknown key {key!r}{hint}; known: {', '.join(known)}")
    try:
        return ServingSettings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        received = "" if first["type"] == "missing" else f"; received {first['input']!r}"
        raise ConfigurationError(f"{source}: {key}: {first['msg'].lower()}{received}") from None


def read_salts(settings: ServingSettings, environ: Mapping[str, str] = os.environ) -> Pseudonymizer:
    """The hasher of people's ids: REEL_SALT (comma separated, oldest first), else the salt file.

    Each process reads them itself: they travel in no argument, and no message of this function shows them.
    Raises ConfigurationError if there is none, or if others may read the file.
    """
    text = environ.get("REEL_SALT")
    if not text:
        if settings.salt_file is None:
            raise ConfigurationError("no salt for people's ids: set REEL_SALT, or salt_file to a file of mode 0600")
        text = read_private(settings.salt_file, "salt_file")
    salts = tuple(part.strip() for line in text.splitlines() for part in line.split(",") if part.strip())
    if not salts:
        raise ConfigurationError("no salt for people's ids: REEL_SALT or the salt file is empty")
    return Pseudonymizer(salts)
